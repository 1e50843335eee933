//! Operations at the mints, carried on before their time.

use serde_json::json;

use super::Desk;
use crate::store::StoreError;
use crate::wallet::underway;

const RETRY: &str = "wallet.retry";

/// Carries an operation on by `retrying`, which does nothing before it is noted. It is what the journal does by itself
/// later: evidence first, nothing twice.
///
/// # Errors
/// When the database does not answer, and those of `retrying`.
pub async fn retry<T, E: From<StoreError>>(
    desk: Desk<'_>,
    id: &str,
    retrying: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    desk.note(RETRY, id, &json!({})).await?;
    retrying.await
}

/// Lets a node beside which this runs carry an operation on: it finds that it is due. Returns whether it is under way
/// at all.
///
/// # Errors
/// When the database does not answer.
pub async fn retry_beside(desk: Desk<'_>, id: &str) -> Result<bool, StoreError> {
    let is_open = underway::hurry(desk.store, id, desk.now_ms()).await?;
    if is_open {
        desk.note(RETRY, id, &json!({})).await?;
    }
    Ok(is_open)
}
