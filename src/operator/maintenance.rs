//! The maintenance switch: nothing is sold while it is on.

use serde_json::json;

use super::Desk;
use crate::exchange::turn_maintenance;
use crate::store::StoreError;

/// Turns the switch, for every node of the database. Where the environment says how it stands, that wins; whoever
/// calls this has looked.
///
/// # Errors
/// When the database does not answer.
pub async fn turn(desk: Desk<'_>, on: bool) -> Result<(), StoreError> {
    turn_maintenance(desk.store, on, desk.now_ms()).await?;
    desk.note("maintenance.turn", "", &json!({ "on": on })).await
}
