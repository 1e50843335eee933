//! What is counted of requests: for the operator's metrics, and for the public status of models.

use std::time::Duration;

use tokio::time::Instant;

use super::ongoing::{Ended, Place};
use super::{Exchange, Job};
use crate::dialect::Dialect;
use crate::failure::{Code, Failure, facts};
use crate::metrics::{Attempted, Ending, Method};
use crate::money::Cost;
use crate::payment;
use crate::status::{self, Sum};
use crate::upstream::{ForwardError, Miss, Outlay};

/// A request that is counted when it comes to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    dialect: &'static dyn Dialect,
    /// Its last byte was there.
    began: Instant,
    /// How long the first content of its stream took.
    first: Option<Duration>,
}

impl Watch {
    pub(super) fn new(dialect: &'static dyn Dialect) -> Self {
        Self { dialect, began: Instant::now(), first: None }
    }
}

/// A request whose money was held and that has ended.
pub(super) struct Past<'a> {
    pub watch: Watch,
    pub place: &'a Place,
    /// Id of the model.
    pub model: &'a str,
    pub outlay: &'a Outlay,
    /// `None`: nothing of it was used, for all that is known.
    pub cost: Option<&'a Cost>,
    /// Why it was not served, or not in full.
    pub broken: Option<&'a Broken>,
}

impl Exchange {
    /// Counts a request for a model of this name that failed before its payment was admitted.
    pub(super) fn count_unadmitted(&self, dialect: &dyn Dialect, name: &str, failure: &Failure) {
        let id = self.market.canonical(name);
        self.count_refused(dialect, Some(id.as_deref().unwrap_or(name)), failure);
    }

    fn count_refused(&self, dialect: &dyn Dialect, model: Option<&str>, failure: &Failure) {
        let ending = Ending::of(failure);
        self.count(dialect, model, ending, Some(failure));
        let listed = || model.is_some_and(|model| self.market.lists(model));
        let now_ms = self.ledger.clock().now_ms();
        self.traffic.sums().note((model, None), listed, now_ms, Sum::of(ending));
    }

    /// Counts a payment that was taken, or was not.
    pub fn count_payment(&self, method: Option<Method>, failure: Option<&Failure>) {
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

    /// Counts a request that was admitted, in every place where it counts, and tells who listens.
    pub(super) fn count_past(&self, past: &Past<'_>) {
        let &Past { watch, place, model, outlay, cost, broken } = past;
        let took = watch.began.elapsed();
        self.metrics.took(watch.dialect, took);
        if let Some(cost) = cost {
            self.metrics.charged(model, || self.market.lists(model), cost);
        }
        let (ending, failure) = match broken {
            None => (Ending::Served, None),
            Some(Broken::Left) => (Ending::ClientGone, None),
            Some(Broken::Failed(failure)) => (Ending::of(failure), Some(&**failure)),
        };
        self.count(watch.dialect, Some(model), ending, failure);
        let (first_ms, took_ms) = (watch.first.map(in_ms), in_ms(took));
        let sum = sum_of(ending, outlay, cost, (first_ms, took_ms));
        let listed = || self.market.lists(model);
        self.traffic.sums().note((Some(model), Some(&outlay.upstream)), listed, place.began_ms(), sum);
        let status = failure.map_or(ending.name(), |failure| facts(failure.code).code);
        place.ended(Ended { status, charged_msat: outlay.charged, first_ms, took_ms, at_ms: outlay.at_ms });
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

fn in_ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn sum_of(ending: Ending, outlay: &Outlay, cost: Option<&Cost>, (first_ms, took_ms): (Option<i64>, i64)) -> Sum {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let used = cost.map(|cost| cost.usage).unwrap_or_default();
    let is_charged = outlay.charged > 0;
    Sum {
        charged_requests: i64::from(is_charged),
        input_tokens: number(used.total_input()),
        cached_tokens: number(used.cache_read.saturating_add(used.audio_cached)),
        output_tokens: number(used.total_output()),
        charged_msat: number(outlay.charged),
        cost_msat: number(outlay.msat.unwrap_or(0)),
        nano_usd: outlay.nano_usd().unwrap_or(0),
        unpriced: i64::from(is_charged && outlay.msat.is_none()),
        first_ms: first_ms.unwrap_or(0),
        firsts: i64::from(first_ms.is_some()),
        took_ms,
        tooks: 1,
        ..Sum::of(ending)
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
    pub(super) fn count_beginning(&mut self) {
        if self.shape.stream {
            let first = self.watch.began.elapsed();
            self.watch.first = Some(first);
            self.exchange.metrics.began(self.watch.dialect, first);
        }
    }

    /// Why it was not answered, or not in full; that its client left is no failure.
    pub(super) fn failed(&self) -> Option<Code> {
        match &self.broken {
            Some(Broken::Failed(failure)) => Some(failure.code),
            Some(Broken::Left) | None => None,
        }
    }

    /// Counts a request whose money goes back.
    pub(super) fn count_undone(&self, failure: &Failure, outlay: &Outlay) {
        let failed = match &self.broken {
            Some(Broken::Left) => Broken::Left,
            _ => Broken::Failed(Box::new(failure.clone())),
        };
        self.exchange.count_past(&Past {
            watch: self.watch,
            place: &self.place,
            model: &self.candidate.id,
            outlay,
            cost: None,
            broken: Some(&failed),
        });
    }
}
