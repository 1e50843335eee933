//! A small question to upstreams that were not heard of for a while, so that it is known how they are
//! before a client needs them. It is priced like a request, and counts for spend caps; nobody is charged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::{Exchange, outlay};
use crate::catalog::limits::WorstCase;
use crate::catalog::route::{Buyer, Candidate, Picture};
use crate::dialect::chat::Chat;
use crate::dialect::{AnswerBody, Ask, Dialect as _, Needs, Reading, Shape};
use crate::money::Usage;
use crate::upstream::{Lease, Miss, Names, Outcome, Outlay, Wanted};

impl Exchange {
    /// Asks every upstream that has a model for it, and of which nothing was heard for so long. Returns how
    /// many.
    pub async fn probe(self: &Arc<Self>, silence: Duration) -> usize {
        let mut asked: usize = 0;
        for (name, model) in self.pool.silent(silence) {
            let worst = WorstCase { max_output: Some(1), choices: 1, ..WorstCase::default() };
            let Ok(candidate) = self.market.route(&model, &worst, &Picture::default(), Buyer::anybody(&self.pool))
            else {
                tracing::warn!(upstream = %name, "the probe_model of an upstream has no price");
                continue;
            };
            let names = Names { asked: &model, id: &candidate.id, forwarded: &candidate.forwarded };
            let (tags, needs) = (candidate.upstream_tags(), Needs::default());
            let wanted = Wanted { path: Chat.path(), names, tags, needs };
            let plan = self.pool.plan(&wanted, None);
            let lease = plan.and_then(|plan| self.pool.lease(&mut plan.only(&self.pool, &name)));
            if let Ok(lease) = lease {
                self.ask(lease, &candidate).await;
                asked = asked.saturating_add(1);
            }
        }
        asked
    }

    async fn ask(&self, mut lease: Lease, candidate: &Candidate) {
        let heard = question(&lease).await;
        let usage = heard.as_ref().ok().copied();
        lease.finish(heard.map_or_else(|miss| miss.verdict().outcome, |_| Outcome::Answered));
        let fee = lease.upstream().fee();
        let (usd, msat) = usage.and_then(|usage| outlay::of(candidate, fee, &usage)).unzip();
        self.pool.note(Outlay {
            id: self.ledger.next_id(),
            upstream: lease.upstream().name().clone(),
            model: lease.model().to_owned(),
            usd,
            msat: msat.flatten(),
            charged: 0,
            attempts: "[]".to_owned(),
            at_ms: self.ledger.clock().now_ms(),
        });
    }
}

/// One question of a word, to be answered with a token.
async fn question(lease: &Lease) -> Result<Usage, Miss> {
    let body = json!({
        "model": lease.model(), "max_tokens": 1, "messages": [{ "role": "user", "content": "ping" }],
    });
    let ask = Ask::json(Chat.protocol(), Chat.path(), Bytes::from(body.to_string()).into(), false);
    let answer = lease.upstream().forward(ask, lease.model()).await.map_err(Miss::Forward)?;
    let media = answer.content_type();
    let body = answer.whole().await.map_err(Miss::Forward)?;
    match Chat.read_answer(AnswerBody { media: &media, bytes: &body }, &Shape::default()) {
        Ok(Reading::Reported(usage)) => Ok(usage),
        Ok(Reading::Unreported { .. } | Reading::Silent) => Ok(Usage::default()),
        Err(bad) => Err(Miss::Worthless(bad.to_string())),
    }
}
