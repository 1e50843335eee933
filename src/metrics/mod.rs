//! What this process counts of itself, for the operator's Prometheus.
//!
//! Counting a request is a look into a table and some atomic additions: no lock, no allocation. What can be
//! looked up when somebody asks (the wallet, the upstreams, the last audit) is not counted here: `admin`
//! writes it beside these.
//!
//! Labels are dialects, models of the price list, upstreams, kinds and outcomes, all of them bounded.
//! Nothing of a client is in any of them.

pub mod exposition;
mod histogram;
mod jobs;
mod money;
mod routes;
mod table;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use exposition::{Exposition, Kind};
pub use histogram::Histogram;
pub use jobs::{JobLog, JobRecord};
pub use money::{Method, Money, Paid};
pub use routes::Routes;
pub use table::Table;

use crate::dialect::{Dialect, REGISTRY};
use crate::failure::{Blame, Code, Failure};
use crate::money::Cost;

/// Most models with counters of their own. All others share one, `_other`.
pub const MOST_MODELS: usize = 100;
/// Most upstreams with counters.
const MOST_UPSTREAMS: usize = 64;
/// The label of models without counters of their own, and of requests that failed before their model was
/// known. A model whose name begins like that has none of its own either.
const OTHER: &str = "_other";
const NONE: &str = "_none";

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Answered in full, and paid for.
    Served,
    /// Answered from what was kept for its `Idempotency-Key`.
    Replayed,
    /// The request was wrong, for this node or for the upstream.
    ClientError,
    /// The payment was missing, insufficient or no good.
    PaymentError,
    UpstreamError,
    NodeError,
    /// The client left, and the answer was not read to its end.
    ClientGone,
}

impl Ending {
    const ALL: [Self; 7] = [
        Self::Served,
        Self::Replayed,
        Self::ClientError,
        Self::PaymentError,
        Self::UpstreamError,
        Self::NodeError,
        Self::ClientGone,
    ];

    /// The ending of a request that failed so.
    #[must_use]
    pub fn of(failure: &Failure) -> Self {
        match (failure.blame, failure.code) {
            // The upstream's word about the client's mistake.
            (Blame::Client, _) | (_, Code::UpstreamRejected) => Self::ClientError,
            (Blame::Payment, _) => Self::PaymentError,
            (Blame::Upstream, _) => Self::UpstreamError,
            (Blame::Node, _) => Self::NodeError,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Replayed => "replayed",
            Self::ClientError => "client_error",
            Self::PaymentError => "payment_error",
            Self::UpstreamError => "upstream_error",
            Self::NodeError => "node_error",
            Self::ClientGone => "client_gone",
        }
    }
}

/// What an upstream that was asked did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempted {
    Answered,
    /// With success, and something that is none.
    Worthless,
    Refused,
    Unreachable,
    TimedOut,
    Broken,
}

impl Attempted {
    const ALL: [Self; 6] =
        [Self::Answered, Self::Worthless, Self::Refused, Self::Unreachable, Self::TimedOut, Self::Broken];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Worthless => "worthless",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed out",
            Self::Broken => "broken",
        }
    }
}

/// Kinds of tokens that are counted.
const TOKENS: [&str; 5] = ["input", "cache_read", "cache_write", "output", "reasoning"];

/// Counters of one model.
#[derive(Debug)]
struct Series {
    /// For each dialect, in the order of [`REGISTRY`].
    endings: Box<[[AtomicU64; Ending::ALL.len()]]>,
    tokens: [AtomicU64; TOKENS.len()],
    msat: AtomicU64,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            endings: REGISTRY.iter().map(|_| Default::default()).collect(),
            tokens: Default::default(),
            msat: AtomicU64::new(0),
        }
    }
}

/// Durations of one dialect.
#[derive(Debug, Default)]
struct Times {
    whole: Histogram,
    first_content: Histogram,
}

/// One of the two.
type Pick = fn(&Times) -> &Histogram;

/// All counters of one process.
#[derive(Debug)]
pub struct Metrics {
    models: Table<Series>,
    other: Series,
    none: Series,
    times: Box<[Times]>,
    upstreams: Table<[AtomicU64; Attempted::ALL.len()]>,
    pub jobs: JobLog,
    pub routes: Routes,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            models: Table::new(MOST_MODELS),
            other: Series::default(),
            none: Series::default(),
            times: REGISTRY.iter().map(|_| Times::default()).collect(),
            upstreams: Table::new(MOST_UPSTREAMS),
            jobs: JobLog::default(),
            routes: Routes::default(),
        }
    }
}

impl Metrics {
    /// Counts a request that came to its end. `model`: its id, if it is known; `listed` says whether the price
    /// list has it.
    pub fn ended(&self, dialect: &dyn Dialect, model: Option<&str>, listed: impl Fn() -> bool, ending: Ending) {
        let counts = self.series(model, listed).endings.get(place(dialect));
        if let Some(count) = counts.and_then(|counts| counts.get(index(&Ending::ALL, ending))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts what a request used, and what its client paid.
    pub fn charged(&self, model: &str, listed: impl Fn() -> bool, cost: &Cost) {
        let (series, usage) = (self.series(Some(model), listed), &cost.usage);
        let cache_read = usage.cache_read.saturating_add(usage.audio_cached);
        let cache_write = usage.cache_write.saturating_add(usage.cache_write_1h);
        let input = usage.total_input().saturating_sub(cache_read).saturating_sub(cache_write);
        let output = usage.total_output().saturating_sub(usage.reasoning);
        for (count, tokens) in series.tokens.iter().zip([input, cache_read, cache_write, output, usage.reasoning]) {
            count.fetch_add(tokens, Ordering::Relaxed);
        }
        series.msat.fetch_add(cost.total.get(), Ordering::Relaxed);
    }

    /// How long an admitted request took, from its last byte to its settlement.
    pub fn took(&self, dialect: &dyn Dialect, whole: Duration) {
        if let Some(times) = self.times.get(place(dialect)) {
            times.whole.note(whole);
        }
    }

    /// How long the first content of a stream took.
    pub fn began(&self, dialect: &dyn Dialect, first: Duration) {
        if let Some(times) = self.times.get(place(dialect)) {
            times.first_content.note(first);
        }
    }

    /// Counts an attempt at an upstream of the operator's.
    pub fn attempted(&self, upstream: &str, outcome: Attempted) {
        let counts = self.upstreams.get(upstream, || true);
        if let Some(count) = counts.and_then(|counts| counts.get(index(&Attempted::ALL, outcome))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn series(&self, model: Option<&str>, listed: impl Fn() -> bool) -> &Series {
        match model {
            None => &self.none,
            Some(model) => self.models.get(model, || listed() && !model.starts_with('_')).unwrap_or(&self.other),
        }
    }

    /// Writes all of it. What is zero is left out.
    pub fn write(&self, page: &mut Exposition) {
        let mut models = self.models.sorted();
        models.extend([(OTHER, &self.other), (NONE, &self.none)]);
        self.write_models(page, &models);
        let histograms: [(_, _, Pick); 2] = [
            (
                "coinslot_request_duration_seconds",
                "From the last byte of an admitted request to its settlement.",
                |times| &times.whole,
            ),
            (
                "coinslot_ttft_seconds",
                "From the last byte of a streamed request to the first content of its answer.",
                |times| &times.first_content,
            ),
        ];
        for (name, help, pick) in histograms {
            page.family(name, Kind::Histogram, help);
            for (dialect, times) in REGISTRY.iter().zip(&self.times).filter(|(_, times)| !pick(times).is_empty()) {
                pick(times).write(page, ("dialect", dialect.path()));
            }
        }
        page.family("coinslot_upstream_attempts_total", Kind::Counter, "Requests to upstreams, by what came of them.");
        for (upstream, counts) in self.upstreams.sorted() {
            for (outcome, count) in Attempted::ALL.iter().zip(counts) {
                let labels = [("upstream", upstream), ("outcome", &outcome.name().replace(' ', "_"))];
                write_counter(page, &labels, count);
            }
        }
        self.routes.write(page);
        self.write_jobs(page);
    }

    fn write_models(&self, page: &mut Exposition, models: &[(&str, &Series)]) {
        page.family("coinslot_requests_total", Kind::Counter, "Requests to paid routes, by what became of them.");
        for (model, series) in models {
            for (dialect, endings) in REGISTRY.iter().zip(&series.endings) {
                for (ending, count) in Ending::ALL.iter().zip(endings) {
                    let labels = [("dialect", dialect.path()), ("model", model), ("outcome", ending.name())];
                    write_counter(page, &labels, count);
                }
            }
        }
        page.family("coinslot_tokens_total", Kind::Counter, "Tokens of requests that were settled, in disjoint kinds.");
        for (model, series) in models {
            for (kind, count) in TOKENS.iter().zip(&series.tokens) {
                write_counter(page, &[("model", model), ("kind", kind)], count);
            }
        }
        page.family("coinslot_charged_msat_total", Kind::Counter, "What clients were charged, in msat.");
        for (model, series) in models {
            write_counter(page, &[("model", model)], &series.msat);
        }
    }

    fn write_jobs(&self, page: &mut Exposition) {
        let jobs = self.jobs.all();
        page.family(
            "coinslot_job_last_success_timestamp_seconds",
            Kind::Gauge,
            "When a background job last did its work, in seconds since the Unix epoch.",
        );
        for (job, record) in &jobs {
            if let Some(at_ms) = record.succeeded_ms {
                page.sample(&[("job_name", job)], at_ms.div_euclid(1000));
            }
        }
        page.family("coinslot_job_failures_total", Kind::Counter, "Activations of background jobs that failed.");
        for (job, record) in &jobs {
            page.sample(&[("job_name", job)], record.failures);
        }
    }
}

fn write_counter(page: &mut Exposition, labels: &[(&str, &str)], count: &AtomicU64) {
    match count.load(Ordering::Relaxed) {
        0 => {}
        count => page.sample(labels, count),
    }
}

fn place(dialect: &dyn Dialect) -> usize {
    REGISTRY.iter().position(|one| one.path() == dialect.path()).unwrap_or(usize::MAX)
}

fn index<T: PartialEq>(all: &[T], one: T) -> usize {
    all.iter().position(|other| *other == one).unwrap_or(usize::MAX)
}
