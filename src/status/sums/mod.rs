//! Requests in sums, for the operator: by UTC hour, by UTC day and for ever, of each model at each upstream. They
//! are never pruned, so what the pages say of the past does not depend on what is kept of single requests.
//!
//! A request is counted when it ends, for the hour in which it began. Counted in memory, and written by the job that
//! writes the rest of [`super::Traffic`]: that is statistics, and a crash may lose the last seconds of it.

pub mod repo;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::{DAY_MS, HOUR_MS};
use crate::metrics::Ending;
use crate::store::{Store, StoreError};

/// What models are called that the price list does not have, and requests that failed before their model was known.
pub const OTHER: &str = "_other";
pub const NONE: &str = "_none";

/// Most rows that are written in one transaction.
const MAX_ROWS: usize = 128;

/// How much time a sum is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Span {
    Hour,
    Day,
    Ever,
}

impl Span {
    const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Ever];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Ever => "ever",
        }
    }

    /// When the span begins that this time is in.
    #[must_use]
    pub const fn start(self, at_ms: i64) -> i64 {
        match self {
            Self::Hour => at_ms.saturating_sub(at_ms.rem_euclid(HOUR_MS)),
            Self::Day => at_ms.saturating_sub(at_ms.rem_euclid(DAY_MS)),
            Self::Ever => 0,
        }
    }
}

/// Requests in numbers. Amounts are msat and nanodollars, times ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Sum {
    pub requests: i64,
    /// Answered in full.
    pub served: i64,
    /// The request was wrong.
    pub client_errors: i64,
    /// The payment was missing, insufficient or no good.
    pub payment_errors: i64,
    pub upstream_errors: i64,
    pub node_errors: i64,
    /// The client left, and the answer was not read to its end.
    pub clients_gone: i64,
    pub charged_requests: i64,
    /// With those that were read from a cache.
    pub input_tokens: i64,
    pub cached_tokens: i64,
    pub output_tokens: i64,
    pub charged_msat: i64,
    /// What the upstreams took, as far as it is known.
    pub cost_msat: i64,
    /// What the upstreams took in nanodollars.
    pub nano_usd: i64,
    /// Requests that were charged and whose cost is not known.
    pub unpriced: i64,
    /// Until the first content of streams, together, and how many streams that were.
    pub first_ms: i64,
    pub firsts: i64,
    /// Until the end of the requests, together, and how many requests that were.
    pub took_ms: i64,
    pub tooks: i64,
}

/// The columns of a sum, in the order of [`Sum::numbers`].
pub(crate) const COLUMNS: [&str; 19] = [
    "requests",
    "served",
    "client_errors",
    "payment_errors",
    "upstream_errors",
    "node_errors",
    "clients_gone",
    "charged_requests",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "charged_msat",
    "cost_msat",
    "nano_usd",
    "unpriced",
    "first_ms",
    "firsts",
    "took_ms",
    "tooks",
];

impl Sum {
    /// One request that ended so.
    #[must_use]
    pub fn of(ending: Ending) -> Self {
        let mut sum = Self { requests: 1, ..Self::default() };
        match ending {
            Ending::Served => sum.served = 1,
            Ending::ClientError => sum.client_errors = 1,
            Ending::PaymentError => sum.payment_errors = 1,
            Ending::UpstreamError => sum.upstream_errors = 1,
            Ending::NodeError => sum.node_errors = 1,
            Ending::ClientGone => sum.clients_gone = 1,
            // Nothing was asked of anybody, and nothing was paid.
            Ending::Replayed => sum.requests = 0,
        }
        sum
    }

    /// All its numbers, in the order of the columns.
    #[must_use]
    pub fn numbers(mut self) -> [i64; COLUMNS.len()] {
        self.parts().map(|number| *number)
    }

    pub(crate) fn parts(&mut self) -> [&mut i64; COLUMNS.len()] {
        [
            &mut self.requests,
            &mut self.served,
            &mut self.client_errors,
            &mut self.payment_errors,
            &mut self.upstream_errors,
            &mut self.node_errors,
            &mut self.clients_gone,
            &mut self.charged_requests,
            &mut self.input_tokens,
            &mut self.cached_tokens,
            &mut self.output_tokens,
            &mut self.charged_msat,
            &mut self.cost_msat,
            &mut self.nano_usd,
            &mut self.unpriced,
            &mut self.first_ms,
            &mut self.firsts,
            &mut self.took_ms,
            &mut self.tooks,
        ]
    }

    pub fn add(&mut self, more: Self) {
        for (sum, number) in self.parts().into_iter().zip(more.numbers()) {
            *sum = sum.saturating_add(number);
        }
    }

    /// The mean time until the first content, in ms.
    #[must_use]
    pub const fn mean_first_ms(&self) -> Option<i64> {
        self.first_ms.checked_div(self.firsts)
    }

    /// The mean time until the end, in ms.
    #[must_use]
    pub const fn mean_took_ms(&self) -> Option<i64> {
        self.took_ms.checked_div(self.tooks)
    }

    /// How many of the requests that somebody but their client is to answer for were served, in hundredths of a percent.
    #[must_use]
    pub fn success(&self) -> Option<i64> {
        let failed = self.upstream_errors.saturating_add(self.node_errors);
        self.served.saturating_mul(10_000).checked_div(self.served.saturating_add(failed))
    }

    /// The share of input tokens that were read from a cache, in hundredths of a percent.
    #[must_use]
    pub fn cache_share(&self) -> Option<i64> {
        self.cached_tokens.saturating_mul(10_000).checked_div(self.input_tokens)
    }

    /// What was charged less what the upstreams are known to have taken, in msat.
    #[must_use]
    pub const fn margin_msat(&self) -> i64 {
        self.charged_msat.saturating_sub(self.cost_msat)
    }
}

/// What a sum is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub span: Span,
    pub start: i64,
    pub model: String,
    pub upstream: String,
}

/// Requests of one model at one upstream that began in one hour.
#[derive(Debug)]
struct Cell {
    upstream: Option<Arc<str>>,
    hour: i64,
    sum: Sum,
}

/// What was counted and not written yet.
#[derive(Debug, Default)]
pub struct Sums {
    fresh: Mutex<HashMap<Box<str>, Vec<Cell>>>,
    waiting: Mutex<BTreeMap<Key, Sum>>,
}

impl Sums {
    /// Counts a request that began then. `listed` says whether the price list has the model: what strangers make up
    /// must not fill the table.
    pub fn note(
        &self,
        (model, upstream): (Option<&str>, Option<&Arc<str>>),
        listed: impl Fn() -> bool,
        began_ms: i64,
        sum: Sum,
    ) {
        let hour = Span::Hour.start(began_ms);
        let mut fresh = self.fresh();
        let model = match model {
            None => NONE,
            Some(model) if fresh.contains_key(model) || (!model.starts_with('_') && listed()) => model,
            Some(_) => OTHER,
        };
        if !fresh.contains_key(model) {
            fresh.insert(model.into(), Vec::new());
        }
        let Some(cells) = fresh.get_mut(model) else { return };
        match cells.iter_mut().find(|cell| cell.hour == hour && cell.upstream.as_ref() == upstream) {
            Some(cell) => cell.sum.add(sum),
            None => cells.push(Cell { upstream: upstream.cloned(), hour, sum }),
        }
    }

    /// Writes what waits, added to what is there.
    ///
    /// # Errors
    /// When the database fails. What is not written goes on waiting; so does what is, where the answer to a commit was
    /// lost, and then it counts twice: sums have no names of requests by which they could tell.
    pub async fn keep(&self, store: &Store) -> Result<(), StoreError> {
        self.put_aside();
        let mut rest: Vec<(Key, Sum)> = std::mem::take(&mut *self.waiting()).into_iter().collect();
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(MAX_ROWS));
            if let Err(error) = repo::add(store, &rest).await {
                let mut waiting = self.waiting();
                rest.into_iter().chain(later).for_each(|(key, sum)| waiting.entry(key).or_default().add(sum));
                return Err(error);
            }
            rest = later;
        }
        Ok(())
    }

    /// Spreads what was counted over the spans that it counts for.
    fn put_aside(&self) {
        let fresh = std::mem::take(&mut *self.fresh());
        let mut waiting = self.waiting();
        for (model, cells) in fresh {
            for Cell { upstream, hour, sum } in cells {
                for span in Span::ALL {
                    let upstream = upstream.as_deref().unwrap_or_default().to_owned();
                    let key = Key { span, start: span.start(hour), model: model.to_string(), upstream };
                    waiting.entry(key).or_default().add(sum);
                }
            }
        }
    }

    fn fresh(&self) -> MutexGuard<'_, HashMap<Box<str>, Vec<Cell>>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Key, Sum>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_once_in_each_span_and_strangers_share_a_row() {
        let sums = Sums::default();
        let here: Arc<str> = "here".into();
        let began = DAY_MS + HOUR_MS + 5;
        sums.note((Some("m"), Some(&here)), || true, began, Sum::of(Ending::Served));
        sums.note((Some("m"), Some(&here)), || false, began, Sum::of(Ending::UpstreamError));
        sums.note((Some("m"), None), || false, began + HOUR_MS, Sum::of(Ending::ClientError));
        for stranger in ["x", "y", "_none"] {
            sums.note((Some(stranger), None), || false, began, Sum::of(Ending::ClientError));
        }
        sums.note((None, None), || false, began, Sum::of(Ending::PaymentError));
        sums.put_aside();
        let waiting = sums.waiting();
        let of = |span, start, model: &str, upstream: &str| {
            waiting.get(&Key { span, start, model: model.to_owned(), upstream: upstream.to_owned() }).copied().unwrap()
        };
        let both = Sum { requests: 2, served: 1, upstream_errors: 1, ..Sum::default() };
        for (span, start) in [(Span::Hour, DAY_MS + HOUR_MS), (Span::Day, DAY_MS), (Span::Ever, 0)] {
            assert_eq!(of(span, start, "m", "here"), both);
            assert_eq!(of(span, start, OTHER, "").client_errors, 3);
            assert_eq!(of(span, start, NONE, "").payment_errors, 1);
        }
        assert_eq!(of(Span::Hour, DAY_MS + 2 * HOUR_MS, "m", "").requests, 1);
        assert_eq!(waiting.len(), 12);
        assert_eq!((both.success(), both.cache_share(), both.mean_first_ms()), (Some(5_000), None, None));
    }

    #[test]
    fn each_column_is_a_number_of_its_own() {
        let mut sum = Sum::default();
        sum.parts().into_iter().zip(1..).for_each(|(part, number)| *part = number);
        assert!(sum.numbers().into_iter().eq(1..=19));
        let json = serde_json::to_value(sum).unwrap();
        for (column, number) in COLUMNS.iter().zip(1..) {
            assert_eq!(json[*column], number, "{column}");
        }
    }
}
