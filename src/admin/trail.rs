//! The trail: every change that an operator made, by whom and when. It is only added to.

use serde_json::Value;

use super::operator::Actor;
use super::{AdminError, AdminState, repo};

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
    let Act { action, subject } = act;
    repo::note(state.ledger.store(), actor.as_str(), act, &detail.to_string(), state.now_ms()).await?;
    tracing::info!(actor = actor.as_str(), action, subject, "an operator acted");
    Ok(())
}
