//! The statements behind the operator's view of coins: they read cdk's tables, which are in the same database. The
//! proofs are found by keyset and state, past all that was given away.

use sqlx::{AnyConnection, Row};

use crate::store::StoreError;

/// Coins of one keyset and amount that can be spent.
pub(super) struct Found {
    pub mint: String,
    pub unit: String,
    pub keyset: String,
    pub is_active: bool,
    pub ends_at: Option<i64>,
    pub amount: i64,
    pub count: i64,
}

pub(super) async fn coins(connection: &mut AnyConnection) -> Result<Vec<Found>, StoreError> {
    let rows = sqlx::query(
        "SELECT p.mint_url, p.unit, k.id, CAST(CASE WHEN k.active THEN 1 ELSE 0 END AS BIGINT), \
         CAST(k.final_expiry AS BIGINT), CAST(p.amount AS BIGINT), COUNT(*) \
         FROM keyset k JOIN proof p ON p.keyset_id = k.id AND p.state = 'UNSPENT' \
         GROUP BY p.mint_url, p.unit, k.id, k.active, k.final_expiry, p.amount ORDER BY p.mint_url, p.unit, k.id, p.amount",
    )
    .fetch_all(connection)
    .await?;
    let row = |row: &sqlx::any::AnyRow| {
        Ok(Found {
            mint: row.try_get(0)?,
            unit: row.try_get(1)?,
            keyset: row.try_get(2)?,
            is_active: row.try_get::<i64, _>(3)? != 0,
            ends_at: row.try_get(4)?,
            amount: row.try_get(5)?,
            count: row.try_get(6)?,
        })
    };
    rows.iter().map(row).collect()
}

/// What operations under way have set aside, in units, by mint and unit.
pub(super) async fn in_hand(connection: &mut AnyConnection) -> Result<Vec<(String, String, i64)>, StoreError> {
    let rows = sqlx::query(
        "SELECT p.mint_url, p.unit, CAST(SUM(p.amount) AS BIGINT) FROM operations o \
         JOIN proof p ON p.used_by_operation = o.id AND p.state = 'RESERVED' \
         WHERE o.state IN ('planned', 'acting', 'unknown') GROUP BY p.mint_url, p.unit",
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}
