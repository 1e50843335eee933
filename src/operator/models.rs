//! Models: their prices asked for, decided about and set, and the models switched.

use serde_json::json;

use super::Desk;
use crate::catalog::card::Change;
use crate::catalog::import::plan::Proposal;
use crate::catalog::import::{Decision, ImportError, Importer, Outcome, Overrides, Switch};
use crate::store::StoreError;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error("PRICE_SOURCES names no source that could be asked")]
    NoSources,
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Asks the sources of prices now.
pub async fn sync(desk: Desk<'_>, importer: &Importer) -> Result<Outcome, ActError> {
    if !importer.has_sources() {
        return Err(ActError::NoSources);
    }
    let outcome = importer.sync().await?;
    let plan = &outcome.plan;
    let detail = json!({ "new": plan.added.len(), "raised": plan.raised.len(), "waiting": plan.waiting().count() });
    desk.note("models.sync", "", &detail).await?;
    Ok(outcome)
}

/// Decides about what waits for a model: the change of this digest, or whatever it is.
pub async fn decide(
    desk: Desk<'_>,
    importer: &Importer,
    id: &str,
    digest: Option<&str>,
    verdict: Decision,
) -> Result<Proposal, ActError> {
    let decided = importer.decide(id, digest, verdict).await?;
    let changes: Vec<String> = decided.changes.iter().map(Change::in_words).collect();
    let detail = json!({ "verdict": word(verdict), "kind": decided.kind.name(), "changes": changes });
    desk.note("models.decide", &decided.id, &detail).await?;
    Ok(decided)
}

/// Sells a model at cost again that was allowed below it.
pub async fn take_back(desk: Desk<'_>, importer: &Importer, id: &str) -> Result<(), ActError> {
    importer.take_back(id).await?;
    Ok(desk.note("models.at_cost", id, &json!({})).await?)
}

/// Sells a model or does not; lists it or does not.
pub async fn switch(desk: Desk<'_>, importer: &Importer, id: &str, switch: Switch) -> Result<(), ActError> {
    importer.switch(id, switch).await?;
    let detail = match switch {
        Switch::Sold(on) => json!({ "sold": on }),
        Switch::Listed(on) => json!({ "listed": on }),
    };
    Ok(desk.note("models.switch", id, &detail).await?)
}

/// Gives a model prices and names of the operator's.
pub async fn set_own(desk: Desk<'_>, importer: &Importer, id: &str, own: &Overrides) -> Result<(), ActError> {
    importer.set_own(id, own).await?;
    Ok(desk.note("models.own", id, &own.told()).await?)
}

const fn word(verdict: Decision) -> &'static str {
    match verdict {
        Decision::Apply => "apply",
        Decision::ApplyBelowCost => "apply_below_cost",
        Decision::Refuse => "refuse",
    }
}
