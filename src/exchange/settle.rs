//! The end of every served request: what it cost, what is charged, what goes back.

use super::count::Past;
use super::{Exchange, Job, traced};
use crate::config::MissingUsage;
use crate::dialect::{Reading, Receipt};
use crate::failpoint::failpoint;
use crate::failure::{Code, Failure};
use crate::ledger::{AccountId, SettleError};
use crate::money::rate::is_sold;
use crate::money::{Cost, Prices, Usage, UsageSource};
use crate::telemetry::Trace;
use crate::wallet::Change;

/// Tokens that a second of sound usually is where only the seconds are told: OpenAI's models count ten, Gemini's 32.
const USUAL_AUDIO_TOKENS: u64 = 10;
/// What was seen of an answer in which nothing came.
const NOTHING: Reading = Reading::Unreported { output_chars: 0 };

/// A request that was paid for.
pub(super) struct Settled {
    pub receipt: Receipt,
    /// For a token that rode on the request.
    pub change: Option<Change>,
}

impl Job {
    /// Charges what the reading says, as far as the hold covers it, and gives the rest back.
    ///
    /// # Errors
    /// When the cost cannot be reckoned: then nothing is charged, and the money goes back.
    pub(super) async fn settle(mut self: Box<Self>, reading: Reading) -> Result<Settled, Failure> {
        let Some(cost) = self.cost(reading) else {
            tracing::error!(request = %self.request_id, model = %self.shape.model, ?reading, "usage out of range; nothing is charged");
            let failure = Failure::upstream(Code::UpstreamFailed, "The upstream reported a usage that cannot be.");
            return Err(self.undo(failure).await);
        };
        let held = self.hold.amount();
        self.describe(&cost);
        let (charged, shortfall) = cost.clone().bounded_by(held);
        let (record, sheets) = self.record(&charged, shortfall, self.failed());
        let mut outlay = self.outlay(Some(&cost.usage));
        self.pass.used(cost.usage.total_input().saturating_add(cost.usage.total_output()));
        let Self { exchange, lease, pass, shape, candidate, payer, hold, request_id, watch, broken, place, .. } = *self;
        let (dialect, mut trace) = (self.dialect, self.trace);
        let provider = lease.upstream().label();
        // Whoever sees that the hold has ended finds the places free.
        drop((lease, pass));
        let usage = cost.usage;
        failpoint!("exchange.metered");
        let step = trace.step();
        let captured = hold.noting(record, sheets).capture(cost).await;
        trace.end(step, "settle", false, captured.as_ref().err().map(|_| "Unconfirmed"), Vec::new);
        let (charged, remaining) = match captured {
            Ok(settlement) => {
                if !settlement.shortfall.is_zero() {
                    tracing::warn!(
                        request = %request_id, model = %shape.model, held = held.get(),
                        shortfall = settlement.shortfall.get(),
                        "a request cost more than was held; the difference is written off"
                    );
                }
                (settlement.charged, Some(settlement.remaining))
            }
            Err(SettleError::Unconfirmed) => {
                tracing::error!(request = %request_id, "a settlement waits for the database");
                (charged, None)
            }
            Err(SettleError::AlreadyEnded) => {
                // The hold was released under this process: it was taken for dead.
                tracing::error!(request = %request_id, "a hold had ended before its request; nothing is charged");
                (Cost::new(usage, None), None)
            }
        };
        failpoint!("exchange.settled");
        outlay.charged = charged.total.get();
        let model = &candidate.id;
        let (outlay_of, broken) = (&outlay, broken.as_ref());
        exchange.count_past(&Past { watch, place: &place, model, outlay: outlay_of, cost: Some(&charged), broken });
        drop(place);
        exchange.pool.note(outlay);
        let change = match payer.one_shot {
            true => Some(Box::pin(give_change(&exchange, payer.account, &mut trace)).await),
            false => None,
        };
        traced::settled(trace, dialect, &candidate, charged.total, broken);
        tracing::debug!(request = %request_id, model = %shape.model, msat = charged.total.get(), "served");
        let receipt = Receipt {
            cost: charged,
            remaining: if payer.one_shot { None } else { remaining },
            provider: provider.to_owned(),
            model: candidate.id,
            btc_usd: candidate.btc_usd,
        };
        Ok(Settled { receipt, change })
    }

    fn cost(&self, reading: Reading) -> Option<Cost> {
        let card = &self.candidate.rate_card;
        let searches = u64::from(self.shape.demand.searches_unasked);
        let (output_chars, beside) = match reading {
            Reading::Reported(usage) => {
                let web_searches = usage.web_searches.max(searches);
                let usage = self.as_sold(Usage { images: self.shape.images, web_searches, ..usage });
                if usage.contradictory {
                    tracing::warn!(
                        request = %self.request_id, model = %self.shape.model, ?usage,
                        "a usage report contradicts itself, or tells of something unknown; the cheaper reading is charged"
                    );
                }
                return usage.is_plausible().then(|| card.price(&usage)).flatten();
            }
            Reading::Silent => (0, Usage::default()),
            Reading::Unreported { output_chars } => (output_chars, Usage::default()),
            Reading::Seen { output_chars, beside } => (output_chars, beside),
        };
        let web_searches = beside.web_searches.max(searches);
        let usage = self.as_sold(self.estimate(output_chars, Usage { web_searches, ..beside }));
        match self.exchange.settings.now().pricing.missing_usage {
            // Nothing came: nothing is charged.
            MissingUsage::Estimate if reading == NOTHING => Some(Cost::new(usage, None)),
            MissingUsage::Estimate => card.price(&usage),
            MissingUsage::Free => Some(Cost::new(usage, None)),
            MissingUsage::Max => Cost::fixed(usage, self.hold.amount()),
        }
    }

    /// What was reported, in what the model is sold by: an upstream may count otherwise.
    fn as_sold(&self, usage: Usage) -> Usage {
        let (prices, shape) = (&self.candidate.rate_card.prices, &self.shape);
        let usage = match shape.demand.queries {
            0 => usage,
            asked => ranking_as_sold(prices, asked, shape.estimated_input(), usage),
        };
        listening_as_sold(prices, usage)
    }

    fn is_sold_by_unit(&self) -> bool {
        is_sold(self.candidate.rate_card.prices.query)
    }

    /// Tokens counted from text: four characters each, on both sides; and what is no text as it was seen, or by the
    /// size of what was sent.
    fn estimate(&self, output_chars: u64, beside: Usage) -> Usage {
        let queries = if self.is_sold_by_unit() { self.shape.demand.queries } else { 0 };
        // No file is longer than what the model reads.
        let of_files = self.shape.usual_file_tokens.min(self.candidate.context().unwrap_or(u64::MAX));
        Usage {
            input: if queries > 0 { 0 } else { self.shape.estimated_input().saturating_add(of_files) },
            audio_in: self.shape.usual_audio_tokens,
            queries,
            output: output_chars.div_ceil(4),
            images: self.shape.images,
            audio_ms: self.shape.usual_audio_ms,
            source: UsageSource::Estimated,
            ..beside
        }
    }

    /// What a stream that broke off is charged: what was delivered, or nothing.
    pub(super) fn charge_for_part(reading: Reading, has_content: bool) -> Option<Reading> {
        match reading {
            _ if !has_content => None,
            NOTHING => None,
            reading => Some(reading),
        }
    }
}

async fn give_change(exchange: &Exchange, account: AccountId, trace: &mut Trace) -> Change {
    let step = trace.step();
    let given = exchange.till.wallet().give_change(account).await;
    trace.end(step, "change", true, given.as_ref().err().map(|_| "Unconfirmed"), Vec::new);
    given.unwrap_or_else(|error| {
        tracing::error!(%error, "change waits for the next attempt");
        Change::Owed
    })
}

/// A ranking is sold by its units or by its tokens. `asked` and `input` are what it is reckoned at where those are not
/// told that have a price.
fn ranking_as_sold(prices: &Prices, asked: u64, input: u64, usage: Usage) -> Usage {
    match (is_sold(prices.query), !prices.prompt.is_zero()) {
        (true, _) if usage.queries > 0 => Usage { input: 0, ..usage },
        (true, true) => usage,
        (true, false) => Usage { queries: asked, source: UsageSource::Estimated, ..usage },
        (false, true) if usage.input == 0 => Usage { queries: 0, input, source: UsageSource::Estimated, ..usage },
        (false, _) => Usage { queries: 0, ..usage },
    }
}

/// Listening is told in seconds, and may be sold by the token alone.
fn listening_as_sold(prices: &Prices, usage: Usage) -> Usage {
    if is_sold(prices.second) || usage.audio_ms == 0 || usage.audio_in > 0 {
        return usage;
    }
    let audio_in = usage.audio_ms.saturating_mul(USUAL_AUDIO_TOKENS).div_ceil(1000);
    Usage { audio_in, audio_ms: 0, source: UsageSource::Estimated, ..usage }
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    #[test]
    fn what_is_told_is_charged_by_what_has_a_price() {
        let price = |is_sold: bool| is_sold.then_some(Decimal::ONE);
        for (by_query, by_token, told, expected) in [
            (true, true, (2, 20), (2, 0)),
            (true, true, (0, 20), (0, 20)),
            (true, false, (2, 20), (2, 0)),
            (true, false, (0, 20), (7, 20)),
            (false, true, (2, 20), (0, 20)),
            (false, true, (2, 0), (0, 30)),
            (false, true, (0, 20), (0, 20)),
            (false, false, (2, 0), (0, 0)),
        ] {
            let prices =
                Prices { query: price(by_query), prompt: price(by_token).unwrap_or_default(), ..Prices::default() };
            let usage = Usage { queries: told.0, input: told.1, ..Usage::default() };
            let usage = ranking_as_sold(&prices, 7, 30, usage);
            assert_eq!((usage.queries, usage.input), expected, "{by_query} {by_token} {told:?}");
        }
        for (by_second, told, expected) in [
            (true, (2_050, 0), (2_050, 0)),
            (false, (2_050, 0), (0, 21)),
            (false, (2_050, 9), (2_050, 9)),
            (false, (0, 0), (0, 0)),
        ] {
            let prices = Prices { second: price(by_second), audio: Some(Decimal::ONE), ..Prices::default() };
            let usage = listening_as_sold(&prices, Usage { audio_ms: told.0, audio_in: told.1, ..Usage::default() });
            assert_eq!((usage.audio_ms, usage.audio_in), expected, "{by_second} {told:?}");
        }
    }
}
