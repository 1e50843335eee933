//! The trail: every change that an operator made, by whom and when. It is only added to.

mod page;
mod repo;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::operator::Actor;
use super::{AdminError, AdminState};
use crate::store::{Store, StoreError};

pub(super) use page::{api, pages};
pub use repo::{Wanted, latest};

/// What was done, to what.
#[derive(Clone, Copy, Debug)]
pub struct Act<'a> {
    /// Page and verb: `keys.block`.
    pub action: &'static str,
    /// What it was done to, by a name that is no secret: a hash, an id, an upstream's name.
    pub subject: &'a str,
}

/// An act as the trail has it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Noted {
    /// Grows with time; ask for what is `after` it to see older ones.
    pub id: String,
    /// ms since the Unix epoch.
    pub at_ms: i64,
    /// `password`, an npub, `token NAME`, or `cli`.
    pub actor: String,
    pub action: String,
    pub subject: String,
    /// What was asked for, and what was there before.
    #[schema(value_type = Object)]
    pub detail: Value,
}

/// Whose acts those of the command line are.
pub const CLI: &str = "cli";

/// Adds to the trail. `detail` says what was asked for and what was there before, and no secret.
///
/// # Errors
/// When the database does not answer. What moves money is noted before it is done.
pub(super) async fn note(state: &AdminState, actor: &Actor, act: Act<'_>, detail: &Value) -> Result<(), AdminError> {
    Ok(record(state.ledger.store(), actor.as_str(), act, detail, state.now_ms()).await?)
}

/// The same, beside a node.
///
/// # Errors
/// When the database does not answer.
pub async fn record(store: &Store, actor: &str, act: Act<'_>, detail: &Value, now_ms: i64) -> Result<(), StoreError> {
    let Act { action, subject } = act;
    super::repo::note(store, actor, act, &detail.to_string(), now_ms).await?;
    tracing::info!(actor, action, subject, "an operator acted");
    Ok(())
}
