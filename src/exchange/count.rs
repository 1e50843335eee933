//! What is counted of requests: for the operator's metrics, and for the public status of models.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Exchange, Job};
use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::metrics::{Attempted, Ending, Method};
use crate::money::Cost;
use crate::payment;
use crate::status;
use crate::upstream::{ForwardError, Miss};

/// A request that is counted when it comes to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    dialect: &'static dyn Dialect,
    /// Its last byte was there.
    began: Instant,
}

impl Watch {
    pub(super) fn new(dialect: &'static dyn Dialect) -> Self {
        Self { dialect, began: Instant::now() }
    }
}

impl Exchange {
    /// Counts a request for a model of this name that failed before its payment was admitted.
    pub(super) fn count_unadmitted(&self, dialect: &dyn Dialect, name: &str, failure: &Failure) {
        let id = self.market.canonical(name);
        self.count_refused(dialect, Some(id.as_deref().unwrap_or(name)), failure);
    }

    fn count_refused(&self, dialect: &dyn Dialect, model: Option<&str>, failure: &Failure) {
        self.count(dialect, model, Ending::of(failure), Some(failure));
    }

    /// Counts a payment that was taken, or was not.
    pub(super) fn count_payment(&self, method: Option<Method>, failure: Option<&Failure>) {
        if let Some(method) = method {
            self.till.wallet().counts().paid(method, payment::outcome(failure));
        }
    }

    /// Counts a request that failed before anything of it was looked at.
    pub fn refused(&self, dialect: &dyn Dialect, failure: &Failure) {
        self.count_refused(dialect, None, failure);
    }

    /// Counts a request that was answered with what was kept of an earlier one.
    pub fn replayed(&self, dialect: &dyn Dialect) {
        self.count(dialect, None, Ending::Replayed, None);
    }

    /// Counts a request that was settled: in full, or for the part that came of it before this failure.
    pub(super) fn count_settled(&self, watch: Watch, model: &str, cost: &Cost, broken: Option<&Broken>) {
        self.metrics.took(watch.dialect, watch.began.elapsed());
        self.metrics.charged(model, || self.market.lists(model), cost);
        match broken {
            None => self.count(watch.dialect, Some(model), Ending::Served, None),
            Some(Broken::Left) => self.count(watch.dialect, Some(model), Ending::ClientGone, None),
            Some(Broken::Failed(failure)) => self.count_refused(watch.dialect, Some(model), failure),
        }
    }

    fn count(&self, dialect: &dyn Dialect, model: Option<&str>, ending: Ending, failure: Option<&Failure>) {
        let listed = || model.is_some_and(|model| self.market.lists(model));
        self.metrics.ended(dialect, model, listed, ending);
        let Some(model) = model else { return };
        let is_served = ending == Ending::Served;
        let has_failed = failure.is_some_and(|failure| status::counts_against(failure.code));
        if is_served || has_failed {
            self.traffic.note(model, listed, is_served, self.ledger.clock().now_ms());
        }
    }
}

/// Why an answer that had begun was not complete.
#[derive(Debug)]
pub(super) enum Broken {
    /// Its client left, and it was not read to its end.
    Left,
    Failed(Box<Failure>),
}

impl Job {
    /// Counts an attempt that has ended. Returns what it is called.
    pub(super) fn count_attempt(&self, miss: Option<&Miss>) -> Attempted {
        let outcome = match miss {
            None => Attempted::Answered,
            Some(Miss::Worthless(_)) => Attempted::Worthless,
            Some(Miss::Forward(ForwardError::Refused(_))) => Attempted::Refused,
            Some(Miss::Forward(ForwardError::Unreachable)) => Attempted::Unreachable,
            Some(Miss::Forward(ForwardError::TimedOut)) => Attempted::TimedOut,
            Some(Miss::Forward(ForwardError::Broken | ForwardError::TooLarge)) => Attempted::Broken,
        };
        self.exchange.metrics.attempted(self.lease.upstream().name(), outcome);
        outcome
    }

    /// The first content of the answer is there.
    pub(super) fn count_beginning(&self) {
        if self.shape.stream {
            self.exchange.metrics.began(self.watch.dialect, self.watch.began.elapsed());
        }
    }

    /// Counts a request whose money goes back.
    pub(super) fn count_undone(&self, failure: &Failure) {
        let (watch, exchange) = (self.watch, Arc::clone(&self.exchange));
        exchange.metrics.took(watch.dialect, watch.began.elapsed());
        match &self.broken {
            Some(Broken::Left) => exchange.count(watch.dialect, Some(&self.candidate.id), Ending::ClientGone, None),
            _ => exchange.count_refused(watch.dialect, Some(&self.candidate.id), failure),
        }
    }
}
