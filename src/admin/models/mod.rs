//! Models: what is sold at which price, who says so, and which changes wait for a decision.

mod calls;
mod one;
mod page;

use axum::Router;
use serde_json::json;

use super::operator::Actor;
use super::trail::{self, Act};
use super::{AdminError, AdminState};
use crate::catalog::import::plan::Proposal;
use crate::catalog::import::{ImportError, Outcome, Own, Switch, Verdict};

pub(super) use calls::api;

pub(super) fn pages() -> Router<AdminState> {
    page::pages().merge(one::pages())
}

/// Asks the sources of prices now.
async fn sync(state: &AdminState, actor: &Actor) -> Result<Outcome, AdminError> {
    if !state.importer.has_sources() {
        return Err(AdminError::conflict("PRICE_SOURCES names no source that could be asked."));
    }
    let outcome = state.importer.sync().await?;
    let detail = json!({
        "new": outcome.plan.added.len(), "raised": outcome.plan.raised.len(), "waiting": outcome.plan.waiting().count(),
    });
    trail::note(state, actor, Act { action: "models.sync", subject: "" }, &detail).await?;
    Ok(outcome)
}

/// Decides about what waits for a model: the change of this digest, or whatever it is.
async fn decide(
    state: &AdminState,
    actor: &Actor,
    (id, digest): (&str, Option<&str>),
    verdict: Verdict,
) -> Result<Proposal, AdminError> {
    let decided = state.importer.decide(id, digest, verdict).await.map_err(refused)?;
    let changes: Vec<String> = decided.changes.iter().map(page::said).collect();
    let detail = json!({ "verdict": word(verdict), "kind": decided.kind.name(), "changes": changes });
    trail::note(state, actor, Act { action: "models.decide", subject: &decided.id }, &detail).await?;
    Ok(decided)
}

/// Sells a model at cost again that was allowed below it.
async fn take_back(state: &AdminState, actor: &Actor, id: &str) -> Result<(), AdminError> {
    state.importer.take_back(id).await.map_err(refused)?;
    trail::note(state, actor, Act { action: "models.at_cost", subject: id }, &json!({})).await
}

/// Sells a model or does not; lists it or does not.
async fn switch(state: &AdminState, actor: &Actor, id: &str, switch: Switch) -> Result<(), AdminError> {
    state.importer.switch(id, switch).await.map_err(refused)?;
    let detail = match switch {
        Switch::Sold(on) => json!({ "sold": on }),
        Switch::Listed(on) => json!({ "listed": on }),
    };
    trail::note(state, actor, Act { action: "models.switch", subject: id }, &detail).await
}

/// Gives a model prices and names of the operator's.
async fn set_own(state: &AdminState, actor: &Actor, id: &str, own: &Own) -> Result<(), AdminError> {
    state.importer.set_own(id, own).await.map_err(refused)?;
    trail::note(state, actor, Act { action: "models.own", subject: id }, &own.told()).await
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Apply => "apply",
        Verdict::ApplyBelowCost => "apply_below_cost",
        Verdict::Refuse => "refuse",
    }
}

/// What the operator could not know is told; all else is a failure.
fn refused(error: ImportError) -> AdminError {
    match error {
        ImportError::Store(_) => error.into(),
        ImportError::Own(_) => AdminError::invalid(format!("Not done: {error}.")),
        ImportError::Unknown => AdminError::not_found(format!("Not done: {error}.")),
        told => AdminError::conflict(format!("Not done: {told}.")),
    }
}
