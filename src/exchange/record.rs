//! What is kept of a served request beside its money: everything that makes the charge
//! understandable, and nothing of what was asked or answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde::Serialize;

use super::Job;
use crate::failure::{Code, facts};
use crate::ledger::sheets::Sheet;
use crate::money::rate::Conversion;
use crate::money::{Cost, Msat, Prices, Usage, UsageSource};

/// Decimals are strings, amounts msat, times ms since the Unix epoch.
#[derive(Serialize)]
struct Record<'a> {
    /// Why it was not answered, or not in full. First, as the model is then, for who looks through many of them:
    /// see `admin::requests`.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
    model: &'a str,
    path: &'a str,
    provider: &'a str,
    /// The upstream reported no usage: it was counted from the text.
    estimated: bool,
    /// Another service tier than the standard one, whose prices were charged.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'static str>,
    usage: Used,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<Price>,
    /// The sheet that has `price`, where it is the usual one of its price list: see [`crate::ledger::Ledger::spell_out`].
    #[serde(skip_serializing_if = "Option::is_none")]
    price_as: Option<&'a str>,
    /// Which price pictures are made at, where some were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<&'a str>,
    /// What the prices and the rate are kept by: see `catalog::sheet`.
    price_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    btc_usd: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    btc_usd_as_of_ms: Option<i64>,
    cost: Parts,
    /// What the request cost beyond the hold, which nobody is charged.
    #[serde(skip_serializing_if = "Option::is_none")]
    shortfall_msat: Option<u64>,
}

#[derive(Serialize)]
struct Used {
    input: u64,
    cache_read: u64,
    cache_write: u64,
    output: u64,
    reasoning: u64,
    images: u64,
    web_searches: u64,
    /// Buckets that most requests have nothing in, by name.
    #[serde(flatten)]
    more: BTreeMap<&'static str, u64>,
}

/// Per unit of each bucket, in `currency`; `multiplier` is in it, the fees are factors on top.
#[derive(Serialize)]
struct Price {
    currency: &'static str,
    input: Decimal,
    cache_read: Decimal,
    cache_write: Decimal,
    output: Decimal,
    reasoning: Decimal,
    request: Decimal,
    image: Decimal,
    web_search: Decimal,
    #[serde(flatten)]
    more: BTreeMap<&'static str, Decimal>,
    /// What the profile of the key and the hour make of the list's price.
    #[serde(skip_serializing_if = "Option::is_none")]
    multiplier: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exchange_fee: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_fee: Option<Decimal>,
    minimum_msat: u64,
}

/// They add up to the charge.
#[derive(Serialize)]
struct Parts {
    base_msat: u64,
    input_msat: u64,
    cache_read_msat: u64,
    cache_write_msat: u64,
    output_msat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    usd: Option<Decimal>,
}

impl Job {
    /// The record of this request at this charge, and the sheets that it names.
    pub(super) fn record(&self, charged: &Cost, shortfall: Msat, failure: Option<Code>) -> (String, Vec<Arc<Sheet>>) {
        let usage = &charged.usage;
        let service = self.service(usage);
        let price_as = self.usual_price(usage, service);
        let record = Record {
            failure: failure.map(|code| facts(code).code),
            model: &self.shape.model,
            path: self.dialect.path(),
            provider: self.lease.upstream().label(),
            estimated: usage.source == UsageSource::Estimated,
            service,
            usage: Used {
                input: usage.input,
                cache_read: usage.cache_read,
                cache_write: usage.cache_write,
                output: usage.output,
                reasoning: usage.reasoning,
                images: usage.images,
                web_searches: usage.web_searches,
                more: rarely_used(usage),
            },
            price: price_as.is_none().then(|| self.price(usage)),
            price_as: price_as.map(|sheet| sheet.id()),
            picture: self.candidate.picture.as_deref(),
            price_id: self.candidate.prices.id(),
            rate_id: self.candidate.rate.as_ref().map(|sheet| sheet.id()),
            btc_usd: self.candidate.btc_usd,
            btc_usd_as_of_ms: self.candidate.btc_usd_as_of_ms,
            cost: Parts {
                base_msat: charged.base.get(),
                input_msat: charged.input.get(),
                cache_read_msat: charged.cache_read.get(),
                cache_write_msat: charged.cache_write.get(),
                output_msat: charged.output.get(),
                usd: charged.usd,
            },
            shortfall_msat: (!shortfall.is_zero()).then_some(shortfall.get()),
        };
        let text = serde_json::to_string(&record).unwrap_or_else(|error| {
            tracing::error!(%error, request = %self.request_id, "a record could not be written");
            String::new()
        });
        let mut sheets = self.candidate.sheets();
        sheets.extend(price_as.cloned());
        (text, sheets)
    }

    /// The price of this usage as a sheet, if it is what the list says of all requests that want nothing special.
    fn usual_price(&self, usage: &Usage, service: Option<&str>) -> Option<&Arc<Sheet>> {
        let (prices, shape) = (&self.candidate.rate_card.prices, &self.shape);
        let is_usual = service.is_none()
            && std::ptr::eq(prices.for_usage(usage), prices)
            && usage.web_queries == 0
            && (shape.demand.images_made, shape.demand.tokens_per_image) == (0, 0)
            && shape.quality.is_empty()
            && shape.size.is_empty();
        // Where it cannot be written as a sheet, it stands in the record.
        is_usual.then(|| self.candidate.prices.companion(|| serde_json::to_string(&self.price(usage)).ok())).flatten()
    }

    fn service(&self, usage: &Usage) -> Option<&'static str> {
        let service = self.candidate.rate_card.prices.charged_as(usage, self.shape.demand.service);
        Some(service.suffix().trim_start_matches('_')).filter(|name| !name.is_empty())
    }

    fn price(&self, usage: &Usage) -> Price {
        let card = &self.candidate.rate_card;
        let prices = card.prices.for_usage(usage);
        let (currency, exchange_fee, provider_fee) = match &card.conversion {
            Conversion::Usd { exchange_fee, provider_fee, .. } => ("usd", Some(*exchange_fee), Some(*provider_fee)),
            Conversion::Sat => ("sat", None, None),
        };
        Price {
            currency,
            input: prices.prompt,
            cache_read: prices.cache_read(),
            cache_write: prices.cache_write(),
            output: prices.completion,
            reasoning: prices.reasoning(),
            request: prices.request,
            image: prices.image,
            web_search: if usage.web_queries > 0 && prices.web_query.is_some() {
                Decimal::ZERO
            } else {
                prices.web_search
            },
            more: rarely_priced(prices),
            multiplier: Some(self.candidate.deal.multiplier).filter(|factor| *factor != Decimal::ONE),
            exchange_fee,
            provider_fee,
            minimum_msat: card.minimum.get(),
        }
    }
}

fn rarely_used(usage: &Usage) -> BTreeMap<&'static str, u64> {
    // Taken apart in full, so that the compiler asks here for a new bucket. Those left out have members of their own.
    let Usage {
        cache_write_1h,
        audio_in,
        audio_cached,
        image_in,
        read_apart,
        audio_out,
        image_out,
        images_made,
        web_queries,
        code_sessions,
        queries,
        audio_ms,
        characters,
        input: _,
        cache_read: _,
        cache_write: _,
        output: _,
        reasoning: _,
        images: _,
        web_searches: _,
        service: _,
        source: _,
        contradictory: _,
    } = *usage;
    let all = [
        ("cache_write_1h", cache_write_1h),
        ("audio_in", audio_in),
        ("audio_cached", audio_cached),
        ("image_in", image_in),
        ("read_apart", read_apart),
        ("audio_out", audio_out),
        ("image_out", image_out),
        ("images_made", images_made),
        ("web_queries", web_queries),
        ("code_sessions", code_sessions),
        ("queries", queries),
        ("audio_ms", audio_ms),
        ("characters", characters),
    ];
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn rarely_priced(prices: &Prices) -> BTreeMap<&'static str, Decimal> {
    // In full, as above.
    let Prices {
        input_cache_write_1h,
        audio,
        input_audio_cache,
        image_token,
        audio_output,
        image_output,
        output_images,
        web_query,
        code_session,
        query,
        second,
        character,
        prompt: _,
        completion: _,
        request: _,
        image: _,
        web_search: _,
        internal_reasoning: _,
        input_cache_read: _,
        input_cache_write: _,
        tiers: _,
        services: _,
    } = prices;
    let all = [
        ("cache_write_1h", *input_cache_write_1h),
        ("audio_in", *audio),
        ("audio_cached", *input_audio_cache),
        ("image_in", *image_token),
        ("audio_out", *audio_output),
        ("image_out", *image_output),
        ("image_made", output_images.get("").copied()),
        ("web_query", *web_query),
        ("code_session", *code_session),
        ("query", *query),
        ("audio_second", *second),
        ("character", *character),
    ];
    all.into_iter().filter_map(|(name, price)| Some((name, price?))).collect()
}
