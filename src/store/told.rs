//! Settings that the operator told the node beside its environment, and their version.

use std::collections::BTreeMap;

use sqlx::{AnyPool, Row as _};

use super::{Durability, Store, StoreError};

/// The setting that changes with them, for other processes to see.
const VERSION: &str = "told_version";

/// What was told, through any connection.
pub(super) async fn read(pool: &AnyPool) -> Result<BTreeMap<String, String>, StoreError> {
    let rows = sqlx::query("SELECT name, value FROM told_settings").fetch_all(pool).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

impl Store {
    /// The version of what [`Store::told`] reads.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn told_version(&self) -> Result<Option<String>, StoreError> {
        self.setting(VERSION).await
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn told(&self) -> Result<BTreeMap<String, String>, StoreError> {
        read(self.read()).await
    }

    /// Stores some, and forgets those without a value: all or none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tell(&self, changes: &BTreeMap<String, Option<String>>, now_ms: i64) -> Result<(), StoreError> {
        let mut tx = self.begin(Durability::Full).await?;
        for (name, value) in changes {
            let query = match value {
                Some(value) => sqlx::query(
                    "INSERT INTO told_settings (name, value, updated_at) VALUES ($1, $2, $3) \
                     ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
                )
                .bind(name)
                .bind(value)
                .bind(now_ms),
                None => sqlx::query("DELETE FROM told_settings WHERE name = $1").bind(name),
            };
            query.execute(tx.hand()).await?;
        }
        tx.set_setting(VERSION, &uuid::Uuid::new_v4().to_string(), now_ms).await?;
        tx.commit().await
    }
}
