//! The statements that find who gets a profile. They run on SQLite and PostgreSQL alike.

use sqlx::Row as _;

use crate::store::{Store, StoreError};

/// The hashes of keys that begin so, two at most: then the beginning is not enough.
pub(super) async fn keys(store: &Store, prefix: &str) -> Result<Vec<String>, StoreError> {
    // Hashes are hexadecimal digits in lower case, all of which come before g.
    let rows = sqlx::query(
        "SELECT key_hash FROM accounts WHERE key_hash >= $1 AND key_hash < $2 AND kind = 'key' ORDER BY key_hash LIMIT 2",
    )
    .bind(prefix)
    .bind(format!("{prefix}g"))
    .fetch_all(store.read())
    .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The hash of the key that an open voucher would make.
pub(super) async fn of_voucher(store: &Store, id: i64) -> Result<Option<String>, StoreError> {
    let row = sqlx::query(
        "SELECT a.key_hash FROM vouchers v JOIN accounts a ON a.id = v.account WHERE v.id = $1 AND v.state = 'open'",
    )
    .bind(id)
    .fetch_optional(store.read())
    .await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}
