//! A small question to upstreams that were not heard of for a while, so that it is known how they are
//! before a client needs them. It is priced like a request, and counts for spend caps; nobody is charged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rust_decimal::Decimal;
use serde_json::json;

use super::Exchange;
use super::outlay::{ListPrices, note_unpaid};
use crate::catalog::limits::WorstCase;
use crate::catalog::route::{Buyer, Candidate, Picture, RouteError};
use crate::catalog::{Catalog, Model};
use crate::config::Pricing;
use crate::dialect::chat::Chat;
use crate::dialect::{AnswerBody, Ask, Dialect as _, Needs, Reading, Shape};
use crate::ledger::Ledger;
use crate::money::Usage;
use crate::store::StoreError;
use crate::upstream::{ForwardError, Lease, Miss, Names, Outcome, Pool, Requirements, Upstream};

impl Exchange {
    /// Asks every upstream that has a model for it, and of which nothing was heard for so long as it says itself, or
    /// as is `usual`. Returns how many.
    pub async fn probe(self: &Arc<Self>, usual: Option<Duration>) -> usize {
        let mut asked: usize = 0;
        for (name, model) in self.pool.silent(usual) {
            let worst = WorstCase { max_output: Some(1), choices: 1, ..WorstCase::default() };
            let Ok(candidate) = self.market.route(&model, &worst, &Picture::default(), Buyer::anybody(&self.pool))
            else {
                tracing::warn!(upstream = %name, "the probe_model of an upstream has no price");
                continue;
            };
            let names = Names { asked: &model, id: &candidate.id, forwarded: &candidate.forwarded };
            let (tags, needs) = (candidate.upstream_tags(), Needs::default());
            let wanted = Requirements { format: Chat.wire_format(), names, tags, needs, kind: None };
            let plan = self.pool.plan(&wanted, None);
            let lease = plan.and_then(|plan| self.pool.lease(&mut plan.only(&name)));
            if let Ok(lease) = lease {
                self.ask(lease, &candidate).await;
                asked = asked.saturating_add(1);
            }
        }
        asked
    }

    async fn ask(&self, mut lease: Lease, candidate: &Candidate) {
        let heard = question(lease.upstream(), lease.model()).await;
        let usage = heard.as_ref().ok().copied();
        lease.finish(heard.map_or_else(|miss| miss.outcome(), |_| Outcome::Answered));
        self.asking().note(lease.upstream(), lease.model(), ListPrices::of(candidate), usage);
    }

    fn asking(&self) -> Asking<'_> {
        Asking { pool: &self.pool, ledger: &self.ledger }
    }

    /// Asks an upstream one small question now, whatever is held against it, and forgets nothing of that: the
    /// operator wants to know.
    ///
    /// # Errors
    /// Why it was not asked.
    pub async fn test_upstream(&self, name: &str) -> Result<Tested, Untested> {
        let (upstream, id, model) = whom(&self.pool, &self.importer.shelf().now(), name)?;
        let worst = WorstCase { max_output: Some(1), choices: 1, ..WorstCase::default() };
        let candidate = self.market.route(&id, &worst, &Picture::default(), Buyer::anybody(&self.pool))?;
        Ok(self.asking().ask(&upstream, model, ListPrices::of(&candidate)).await)
    }
}

/// What a question takes beside a node.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    pub pool: &'a Pool,
    pub ledger: &'a Ledger,
    pub catalog: &'a Catalog,
    pub pricing: &'a Pricing,
}

/// Asks an upstream one small question beside a node, as [`Exchange::test_upstream`] does in one: what it costs is
/// written down at once, and the node counts it when it next looks. Only the rate is not known here.
///
/// # Errors
/// Why it was not asked; when the database does not answer.
pub async fn test_beside(beside: Beside<'_>, name: &str) -> Result<Tested, Untested> {
    let Beside { pool, ledger, catalog, pricing } = beside;
    let (upstream, id, model) = whom(pool, catalog, name)?;
    // As for a market: the operator's own prices say nothing of what an upstream takes.
    let listed = catalog.find(&id).filter(|_| pricing.model_based != Some(false));
    let prices = ListPrices { usd: listed.as_ref().map(|model| &model.prices), btc_usd: None };
    let tested = Asking { pool, ledger }.ask(&upstream, model, prices).await;
    pool.flush(ledger.store()).await?;
    Ok(tested)
}

/// Where a question is asked, and what it costs is kept.
#[derive(Clone, Copy)]
struct Asking<'a> {
    pool: &'a Pool,
    ledger: &'a Ledger,
}

impl Asking<'_> {
    async fn ask(self, upstream: &Upstream, model: String, prices: ListPrices<'_>) -> Tested {
        let (heard, took) = timed(upstream, &model).await;
        let usd = self.note(upstream, &model, prices, heard.as_ref().ok().copied());
        Tested { model, took, usd, outcome: heard.map(drop) }
    }

    /// What a question cost counts for spend caps. Returns that, in USD, where it is known.
    fn note(self, upstream: &Upstream, model: &str, prices: ListPrices<'_>, usage: Option<Usage>) -> Option<Decimal> {
        let cost = usage.and_then(|usage| prices.cost(upstream.fee(), &usage));
        note_unpaid((self.pool, self.ledger), upstream, model, cost);
        cost.map(|(usd, _)| usd)
    }
}

/// Why an upstream was not asked, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Untested {
    #[error("There is no such upstream, or it is switched off.")]
    Unknown,
    #[error("No model of the price list that it has can be asked by chat: give it a probe_model.")]
    NoModel,
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The upstream of this name, and the model to ask it for: its id in the list, and what the upstream calls it.
fn whom(pool: &Pool, catalog: &Catalog, name: &str) -> Result<(Arc<Upstream>, String, String), Untested> {
    let upstream = pool.upstreams().into_iter().find(|upstream| **upstream.name() == *name);
    let upstream = upstream.ok_or(Untested::Unknown)?;
    let (id, model) = cheapest(catalog, &upstream).ok_or(Untested::NoModel)?;
    Ok((upstream, id, model))
}

/// How one question went.
#[derive(Clone, Debug)]
pub struct Tested {
    /// As the upstream calls it.
    pub model: String,
    pub took: Duration,
    /// What it cost, where that is known.
    pub usd: Option<Decimal>,
    /// What went wrong, for the operator's eyes.
    pub outcome: Result<(), String>,
}

impl Tested {
    /// How long the answer took, in ms.
    #[must_use]
    pub fn took_ms(&self) -> u64 {
        u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX)
    }
}

/// How long the operator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks a question, and how long the answer took.
async fn timed(upstream: &Upstream, model: &str) -> (Result<Usage, String>, Duration) {
    let began = tokio::time::Instant::now();
    let heard = match tokio::time::timeout(PATIENCE, question(upstream, model)).await {
        Ok(heard) => heard.map_err(|miss| said(&miss)),
        Err(_) => Err(format!("it did not answer within {} s", PATIENCE.as_secs())),
    };
    (heard, began.elapsed())
}

fn said(miss: &Miss) -> String {
    match miss {
        Miss::Forward(ForwardError::Refused(refused)) => match &refused.message {
            Some(message) => {
                format!("it answered {}: {}", refused.status, message.chars().take(500).collect::<String>())
            }
            None => format!("it answered {}", refused.status),
        },
        Miss::Forward(error) => error.to_string(),
        Miss::Worthless(said) => said.clone(),
    }
}

/// The model to ask an upstream for when any will do: its probe_model, or the cheapest of the list that writes text.
/// Its id in the list, and what the upstream calls it.
fn cheapest(catalog: &Catalog, upstream: &Upstream) -> Option<(String, String)> {
    let called = |id: &str, forwarded: &str, tags: &[String]| {
        let names = Names { asked: id, id, forwarded };
        let wanted = Requirements { format: Chat.wire_format(), names, tags, needs: Needs::default(), kind: None };
        upstream.offers(&wanted).ok().map(|model| (id.to_owned(), model))
    };
    if let Some(probe) = upstream.probe_model() {
        let listed = catalog.find(probe);
        let forwarded = listed.as_ref().map_or(probe, |model| model.upstream_id());
        return called(probe, forwarded, &[]);
    }
    let writes = |model: &&std::sync::Arc<Model>| model.enabled && !model.prices.completion.is_zero();
    let mut writing: Vec<_> = catalog.all().iter().filter(writes).collect();
    writing.sort_by_key(|model| model.prices.prompt.saturating_add(model.prices.completion));
    writing.iter().find_map(|model| called(&model.id, model.upstream_id(), &model.upstream_tags))
}

/// One question of a word, to be answered with a token.
async fn question(upstream: &Upstream, model: &str) -> Result<Usage, Miss> {
    let body = json!({
        "model": model, "max_tokens": 1, "messages": [{ "role": "user", "content": "ping" }],
    });
    let ask = Ask::json(Chat.wire_format(), Chat.path(), Bytes::from(body.to_string()).into(), false);
    let answer = upstream.forward(ask, model).await.map_err(Miss::Forward)?;
    let media = answer.content_type();
    let body = answer.whole().await.map_err(Miss::Forward)?;
    match Chat.read_answer(AnswerBody { media: &media, bytes: &body }, &Shape::default()) {
        Ok(Reading::Reported(usage)) => Ok(usage),
        Ok(Reading::Unreported { .. } | Reading::Seen { .. } | Reading::Silent) => Ok(Usage::default()),
        Err(bad) => Err(Miss::Worthless(bad.to_string())),
    }
}
