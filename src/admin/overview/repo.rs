//! The statements of the overview. All of them run on SQLite and PostgreSQL alike.

use sqlx::Row as _;

use super::super::repo as shared;
use super::Live;
use crate::store::{Store, StoreError};

/// What the ledger says, from the few accounts of the house and the holds that are open. All accounts together are
/// zero, so what is owed is what of the ecash was not earned.
pub(super) async fn live(store: &Store) -> Result<Live, StoreError> {
    let house = sqlx::query(
        "SELECT CAST(COALESCE(SUM(CASE WHEN kind = 'mint' THEN -posted ELSE 0 END), 0) AS BIGINT), \
         CAST(COALESCE(SUM(CASE WHEN kind = 'mint' THEN 0 ELSE posted END), 0) AS BIGINT) \
         FROM accounts WHERE key_hash IS NULL AND kind IN ('mint', 'income', 'mint_fees')",
    )
    .fetch_one(store.read())
    .await?;
    let open = sqlx::query("SELECT COUNT(*), CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM holds WHERE state = 'open'")
        .fetch_one(store.read())
        .await?;
    let unclaimed =
        sqlx::query("SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM transfers WHERE kind = 'unclaimed'")
            .fetch_one(store.read())
            .await?;
    let (ecash_msat, earned_msat): (i64, i64) = (house.try_get(0)?, house.try_get(1)?);
    let (_, vouchers_msat) = shared::earned_and_promised(store).await?;
    Ok(Live {
        ecash_msat,
        owed_msat: ecash_msat.saturating_sub(earned_msat),
        vouchers_msat,
        earned_msat,
        open_holds: open.try_get(0)?,
        held_msat: open.try_get(1)?,
        unclaimed_msat: unclaimed.try_get(0)?,
    })
}
