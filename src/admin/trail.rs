//! The trail: every change that an operator made, by whom and when. It is only added to.

use serde_json::Value;

use super::operator::Actor;
use super::{AdminError, AdminState, repo};
use crate::store::{Store, StoreError};

/// Who acts by the command line.
const COMMAND: &str = "command line";

/// What was done, to what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Act<'a> {
    /// Page and verb: `keys.block`.
    pub action: &'static str,
    /// What it was done to, by a name that is no secret: a hash, an id, an upstream's name.
    pub subject: &'a str,
}

/// Adds to the trail. `detail` says what was asked for and what was there before, and no secret.
///
/// # Errors
/// When the database does not answer. What moves money is noted before it is done.
pub(super) async fn note(state: &AdminState, actor: &Actor, act: Act<'_>, detail: &Value) -> Result<(), AdminError> {
    note_at(state.ledger.store(), actor, act, detail, state.now_ms()).await
}

/// The same, where there is a database and no node.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn note_at(
    store: &Store,
    actor: &Actor,
    act: Act<'_>,
    detail: &Value,
    now_ms: i64,
) -> Result<(), AdminError> {
    let Act { action, subject } = act;
    repo::note(store, actor.as_str(), act, &detail.to_string(), now_ms).await?;
    tracing::info!(actor = actor.as_str(), action, subject, "an operator acted");
    Ok(())
}

/// Adds to the trail what a command of the program does beside the node.
///
/// # Errors
/// When the database does not answer.
pub async fn note_command(
    store: &Store,
    action: &'static str,
    subject: &str,
    detail: &Value,
    now_ms: i64,
) -> Result<(), StoreError> {
    repo::note(store, COMMAND, Act { action, subject }, &detail.to_string(), now_ms).await
}
