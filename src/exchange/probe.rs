//! A small question to upstreams that were not heard of for a while, so that it is known how they are
//! before a client needs them. It is priced like a request, and counts for spend caps; nobody is charged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rust_decimal::Decimal;
use serde_json::json;

use super::{Exchange, outlay};
use crate::catalog::limits::WorstCase;
use crate::catalog::route::{Buyer, Candidate, Picture};
use crate::catalog::{Catalog, Model};
use crate::dialect::chat::Chat;
use crate::dialect::{AnswerBody, Ask, Dialect as _, Needs, Reading, Shape};
use crate::money::Usage;
use crate::upstream::{ForwardError, Lease, Miss, Names, Outcome, Requirements, Upstream};

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
        self.note_question(lease.upstream(), lease.model(), candidate, usage);
    }

    /// What a question cost counts for spend caps. Returns that, in USD, where it is known.
    fn note_question(
        &self,
        upstream: &Upstream,
        model: &str,
        candidate: &Candidate,
        usage: Option<Usage>,
    ) -> Option<Decimal> {
        let fee = upstream.fee();
        let cost = usage.and_then(|usage| outlay::of(candidate, fee, &usage));
        self.note_unpaid(upstream, model, cost);
        cost.map(|(usd, _)| usd)
    }

    /// Asks an upstream one small question now, whatever is held against it, and forgets nothing of that: the
    /// operator wants to know.
    ///
    /// # Errors
    /// Why it was not asked, in words for the operator.
    pub async fn test_upstream(&self, name: &str) -> Result<Tested, String> {
        let upstreams = self.pool.upstreams();
        let upstream = upstreams.iter().find(|upstream| **upstream.name() == *name);
        let upstream = upstream.ok_or("There is no such upstream, or it is switched off.")?;
        let (id, model) = cheapest(&self.importer.shelf().now(), upstream)
            .ok_or("No model of the price list that it has can be asked by chat: give it a probe_model.")?;
        let worst = WorstCase { max_output: Some(1), choices: 1, ..WorstCase::default() };
        let candidate = self.market.route(&id, &worst, &Picture::default(), Buyer::anybody(&self.pool));
        let candidate = candidate.map_err(|error| error.to_string())?;
        let (heard, took) = timed(upstream, &model).await;
        let usd = self.note_question(upstream, &model, &candidate, heard.as_ref().ok().copied());
        Ok(Tested { model, took, usd, outcome: heard.map(drop) })
    }
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
pub async fn timed(upstream: &Upstream, model: &str) -> (Result<Usage, String>, Duration) {
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
#[must_use]
pub fn cheapest(catalog: &Catalog, upstream: &Upstream) -> Option<(String, String)> {
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
