//! What the operator can do with models, one function a verb. Page, call and command do it by these, and the trail has
//! it in the same words.

use serde_json::{Value, json};

use super::page::said;
use crate::admin::trail::{self, Act};
use crate::catalog::import::plan::Proposal;
use crate::catalog::import::{Decision, ImportError, Importer, Outcome, Overrides, Switch};
use crate::clock::SharedClock;
use crate::store::{Store, StoreError};

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActError {
    #[error("PRICE_SOURCES names no source that could be asked")]
    NoSources,
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who acts, and on what.
#[derive(Clone, Copy)]
pub(crate) struct Desk<'a> {
    pub importer: &'a Importer,
    pub store: &'a Store,
    pub clock: &'a SharedClock,
    /// As the trail has it.
    pub actor: &'a str,
}

impl Desk<'_> {
    async fn note(self, action: &'static str, subject: &str, detail: &Value) -> Result<(), StoreError> {
        trail::record(self.store, self.actor, Act { action, subject }, detail, self.clock.now_ms()).await
    }

    /// Asks the sources of prices now.
    pub async fn sync(self) -> Result<Outcome, ActError> {
        if !self.importer.has_sources() {
            return Err(ActError::NoSources);
        }
        let outcome = self.importer.sync().await?;
        let plan = &outcome.plan;
        let detail = json!({ "new": plan.added.len(), "raised": plan.raised.len(), "waiting": plan.waiting().count() });
        self.note("models.sync", "", &detail).await?;
        Ok(outcome)
    }

    /// Decides about what waits for a model: the change of this digest, or whatever it is.
    pub async fn decide(self, id: &str, digest: Option<&str>, verdict: Decision) -> Result<Proposal, ActError> {
        let decided = self.importer.decide(id, digest, verdict).await?;
        let changes: Vec<String> = decided.changes.iter().map(said).collect();
        let detail = json!({ "verdict": word(verdict), "kind": decided.kind.name(), "changes": changes });
        self.note("models.decide", &decided.id, &detail).await?;
        Ok(decided)
    }

    /// Sells a model at cost again that was allowed below it.
    pub async fn take_back(self, id: &str) -> Result<(), ActError> {
        self.importer.take_back(id).await?;
        Ok(self.note("models.at_cost", id, &json!({})).await?)
    }

    /// Sells a model or does not; lists it or does not.
    pub async fn switch(self, id: &str, switch: Switch) -> Result<(), ActError> {
        self.importer.switch(id, switch).await?;
        let detail = match switch {
            Switch::Sold(on) => json!({ "sold": on }),
            Switch::Listed(on) => json!({ "listed": on }),
        };
        Ok(self.note("models.switch", id, &detail).await?)
    }

    /// Gives a model prices and names of the operator's.
    pub async fn set_own(self, id: &str, own: &Overrides) -> Result<(), ActError> {
        self.importer.set_own(id, own).await?;
        Ok(self.note("models.own", id, &own.told()).await?)
    }
}

const fn word(verdict: Decision) -> &'static str {
    match verdict {
        Decision::Apply => "apply",
        Decision::ApplyBelowCost => "apply_below_cost",
        Decision::Refuse => "refuse",
    }
}
