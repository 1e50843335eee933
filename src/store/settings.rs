//! Small values that outlive the process: sealed secrets, hashes, switches.

use sqlx::{AnyPool, Row};

use super::{Durability, Store, StoreError, Tx};

/// The value of a setting, through any connection.
pub(super) async fn read(pool: &AnyPool, name: &str) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT value FROM settings WHERE name = $1").bind(name).fetch_optional(pool).await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}

impl Store {
    /// The value of a setting.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        read(self.read(), name).await
    }

    /// Stores a setting unless there is one; returns the one that is there afterwards. Processes
    /// that start together end up with the same value.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn setting_or_insert(&self, name: &str, value: &str, now_ms: i64) -> Result<String, StoreError> {
        let mut tx = self.begin(Durability::Full).await?;
        sqlx::query("INSERT INTO settings (name, value, updated_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(value)
            .bind(now_ms)
            .execute(tx.hand())
            .await?;
        let row = sqlx::query("SELECT value FROM settings WHERE name = $1").bind(name).fetch_one(tx.hand()).await?;
        tx.commit().await?;
        Ok(row.try_get(0)?)
    }

    /// Stores or replaces a setting.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn set_setting(&self, name: &str, value: &str, now_ms: i64) -> Result<(), StoreError> {
        let mut tx = self.begin(Durability::Full).await?;
        tx.set_setting(name, value, now_ms).await?;
        tx.commit().await
    }
}

impl Tx {
    /// Writes a setting, with whatever else is in this transaction.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn set_setting(&mut self, name: &str, value: &str, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO settings (name, value, updated_at) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
        )
        .bind(name)
        .bind(value)
        .bind(now_ms)
        .execute(self.hand())
        .await?;
        Ok(())
    }
}
