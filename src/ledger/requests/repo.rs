//! The statements behind the list of requests. All of them run on SQLite and PostgreSQL alike.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::Charged;
use crate::ledger::AccountId;
use crate::money::Msat;
use crate::store::StoreError;

/// By the transfers of the charges, each of which names the one before it on its account. A transfer's id is the
/// negated id of its hold.
pub(super) async fn of_account(
    connection: &mut AnyConnection,
    account: AccountId,
    limit: i64,
) -> Result<Vec<Charged>, StoreError> {
    let rows = sqlx::query(
        "WITH RECURSIVE chain (id, place) AS (\
         SELECT last_charge, CAST(1 AS BIGINT) FROM accounts WHERE id = $1 UNION ALL \
         SELECT t.previous, c.place + 1 FROM chain c JOIN transfers t ON t.id = c.id WHERE c.place < $2) \
         SELECT h.request, h.charged, COALESCE(h.ended_at, 0), h.receipt \
         FROM chain c JOIN holds h ON h.id = -c.id ORDER BY c.place",
    )
    .bind(account.get())
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

pub(super) async fn of_spender(
    connection: &mut AnyConnection,
    spender: AccountId,
    limit: i64,
) -> Result<Vec<Charged>, StoreError> {
    let rows = sqlx::query(
        "SELECT request, charged, COALESCE(ended_at, 0), receipt FROM holds \
         WHERE spender = $1 AND charged > 0 ORDER BY id DESC LIMIT $2",
    )
    .bind(spender.get())
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<Charged, StoreError> {
    let charged: i64 = row.try_get(1)?;
    let out_of_range = || StoreError::Inconsistent { table: "holds", what: format!("charged {charged}") };
    Ok(Charged {
        request: row.try_get(0)?,
        charged: Msat::from_db(charged).ok_or_else(out_of_range)?,
        ended_ms: row.try_get(2)?,
        record: row.try_get(3)?,
    })
}
