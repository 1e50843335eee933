//! Prices of one model, and the rate at which they become millisatoshi.
//!
//! A [`RateCard`] is frozen when a request is admitted and travels with the candidate that serves
//! it; settlement never looks a price up again.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use super::amount::{MAX_MSAT, Msat};
use super::cost::{Cost, Part};
use super::service::Service;
use super::usage::{CacheWrites, Demand, Usage};

/// What clients of this network put down for a request, as a part of what they reckon.
const SPARE: Decimal = Decimal::from_parts(105, 0, 0, false, 2);

/// Price per unit of each bucket, in the currency of the [`Conversion`] beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// Per input token.
    pub prompt: Decimal,
    /// Per output token.
    pub completion: Decimal,
    /// Once per served request.
    pub request: Decimal,
    /// Per image part sent to the model.
    pub image: Decimal,
    /// Per web search.
    pub web_search: Decimal,
    /// Per query of a web search, instead, where the queries are told.
    pub web_query: Option<Decimal>,
    /// Per container in which code is run.
    pub code_session: Option<Decimal>,
    /// Per reasoning token; `None` or zero: reasoning is ordinary output.
    pub internal_reasoning: Option<Decimal>,
    /// Per cached input token; `None`: the input price.
    pub input_cache_read: Option<Decimal>,
    /// Per input token written to a cache; `None`: the input price.
    pub input_cache_write: Option<Decimal>,
    /// Per input token written to a cache for an hour; `None`: as for minutes.
    pub input_cache_write_1h: Option<Decimal>,
    /// Per audio token of the input; `None`: audio is not sold.
    pub audio: Option<Decimal>,
    /// Per audio token that a cache served; `None`: the audio price.
    pub input_audio_cache: Option<Decimal>,
    /// Per audio token of the output; `None`: speech is not sold.
    pub audio_output: Option<Decimal>,
    /// Per picture token of the input; `None`: the input price.
    pub image_token: Option<Decimal>,
    /// Per picture token of the output; `None`: such tokens are not sold.
    pub image_output: Option<Decimal>,
    /// Per picture made, by quality and size; the empty name is any other. See [`Self::picture`].
    pub output_images: BTreeMap<String, Decimal>,
    /// Per search unit of a ranking.
    pub query: Option<Decimal>,
    /// Per second of audio that is listened to.
    pub second: Option<Decimal>,
    /// Per character that is spoken.
    pub character: Option<Decimal>,
    /// Prices of requests with a long input, by rising length.
    pub tiers: Vec<Tier>,
    /// Prices of other service tiers than the standard one. They have none in turn.
    pub services: Vec<(Service, Prices)>,
}

/// What a request costs whose input is long: all of it, not only what is beyond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tier {
    /// Input tokens, cached ones included, above which it applies.
    pub above: u64,
    pub prices: Prices,
}

impl Prices {
    /// Per cached input token: the input price, where it has none of its own.
    #[must_use]
    pub fn cache_read(&self) -> Decimal {
        self.input_cache_read.unwrap_or(self.prompt)
    }

    /// Per input token written to a cache: the input price, where it has none of its own.
    #[must_use]
    pub fn cache_write(&self) -> Decimal {
        self.input_cache_write.unwrap_or(self.prompt)
    }

    /// Per reasoning token: the output price, where its own is absent or zero.
    #[must_use]
    pub fn reasoning(&self) -> Decimal {
        match self.internal_reasoning {
            Some(price) if !price.is_zero() => price,
            _ => self.completion,
        }
    }

    /// Per input token written to a cache for an hour: as for minutes, where it has none of its own.
    #[must_use]
    pub fn cache_write_1h(&self) -> Decimal {
        self.input_cache_write_1h.unwrap_or_else(|| self.cache_write())
    }

    /// Each price that is one number, by the name that it has in lists of models. `None`: it is not written down.
    #[must_use]
    pub fn named(&self) -> [(&'static str, Option<Decimal>); 19] {
        // All of them: a price that is new must not be forgotten here.
        let Self {
            prompt,
            completion,
            request,
            image,
            web_search,
            internal_reasoning,
            input_cache_read,
            input_cache_write,
            input_cache_write_1h,
            audio,
            input_audio_cache,
            audio_output,
            image_token,
            image_output,
            web_query,
            code_session,
            query,
            second,
            character,
            output_images: _,
            tiers: _,
            services: _,
        } = self;
        [
            ("prompt", Some(*prompt)),
            ("completion", Some(*completion)),
            ("request", Some(*request)),
            ("image", Some(*image)),
            ("web_search", Some(*web_search)),
            ("internal_reasoning", *internal_reasoning),
            ("input_cache_read", *input_cache_read),
            ("input_cache_write", *input_cache_write),
            ("input_cache_write_1h", *input_cache_write_1h),
            ("audio", *audio),
            ("input_audio_cache", *input_audio_cache),
            ("audio_output", *audio_output),
            ("image_token", *image_token),
            ("image_output", *image_output),
            ("web_query", *web_query),
            ("code_session", *code_session),
            ("query", *query),
            ("second", *second),
            ("character", *character),
        ]
    }

    /// Per audio token of the input. Where audio is not sold, none should come: then the input price.
    #[must_use]
    pub fn audio(&self) -> Decimal {
        self.audio.unwrap_or(self.prompt)
    }

    /// Per audio token that a cache served: the audio price, where it has none of its own.
    #[must_use]
    pub fn audio_cached(&self) -> Decimal {
        self.input_audio_cache.unwrap_or_else(|| self.audio())
    }

    /// Per audio token of the output. Where speech is not sold, none should come: then the output price.
    #[must_use]
    pub fn audio_output(&self) -> Decimal {
        self.audio_output.unwrap_or(self.completion)
    }

    /// Per picture token of the input: the input price, where it has none of its own.
    #[must_use]
    pub fn image_token(&self) -> Decimal {
        self.image_token.unwrap_or(self.prompt)
    }

    /// Per picture token of the output. Where these are not sold, none should come: then the output price.
    #[must_use]
    pub fn image_output(&self) -> Decimal {
        self.image_output.unwrap_or(self.completion)
    }

    /// The prices of a request with so many input tokens.
    #[must_use]
    pub fn for_input(&self, tokens: u64) -> &Self {
        let tier = self.tiers.iter().rfind(|tier| tokens > tier.above);
        tier.map_or(self, |tier| &tier.prices)
    }

    /// What a token costs at most that is written to a cache.
    #[must_use]
    pub fn written(&self, writes: CacheWrites) -> Decimal {
        match writes {
            CacheWrites::None => self.prompt,
            // No more than what clients of this network put down beside the prices that they know.
            CacheWrites::Unasked => self.cache_write().min(self.prompt.saturating_mul(SPARE)),
            CacheWrites::Minutes => self.cache_write(),
            CacheWrites::Hour => self.cache_write_1h().max(self.cache_write()),
        }
    }

    /// Which of `output_images` is the price of such a picture: the one for exactly this quality and size,
    /// for this size, for this quality, or for any.
    #[must_use]
    pub fn picture_kind(&self, quality: &str, size: &str) -> Option<String> {
        let names = [format!("{quality}/{size}"), size.to_owned(), quality.to_owned(), String::new()];
        names.into_iter().find(|name| self.output_images.contains_key(name))
    }

    /// What one picture costs that is billed as such: see [`Self::picture_kind`]; or else `image`.
    #[must_use]
    pub fn picture(&self, quality: &str, size: &str) -> Option<Decimal> {
        let listed = match self.output_images.is_empty() {
            true => None,
            false => self.picture_kind(quality, size).and_then(|kind| self.output_images.get(&kind).copied()),
        };
        listed.or_else(|| (!self.image.is_zero()).then_some(self.image))
    }

    /// The price of pictures of this kind alone, as settlement looks it up.
    #[must_use]
    pub fn for_picture(mut self, quality: &str, size: &str, tokens: u64) -> Self {
        let by_token = self.image_output.and_then(|price| Decimal::from(tokens).checked_mul(price));
        let price = self.picture(quality, size).or(by_token);
        self.output_images = price.map(|price| (String::new(), price)).into_iter().collect();
        let of_services = self.services.iter_mut().map(|(_, prices)| prices);
        for prices in of_services {
            prices.output_images.clone_from(&self.output_images);
            prices.tiers.iter_mut().for_each(|tier| tier.prices.output_images.clone_from(&self.output_images));
        }
        self.tiers.iter_mut().for_each(|tier| tier.prices.output_images.clone_from(&self.output_images));
        self
    }

    /// The first thing in this demand that has no price. Nothing above zero is given away.
    #[must_use]
    pub fn lacks(&self, demand: &Demand) -> Option<&'static str> {
        let made = is_sold(self.output_images.get("").copied()) || is_sold(self.image_output) || !self.image.is_zero();
        let by_query = demand.web_queries > 0 && is_sold(self.web_query);
        [
            (demand.audio_in > 0 && !is_sold(self.audio), "audio input"),
            (demand.audio_out && !is_sold(self.audio_output), "audio output"),
            (demand.image_out && !is_sold(self.image_output), "image output"),
            (demand.images_made > 0 && !made, "making such pictures"),
            (demand.tokens_into_image > 0 && !is_sold(self.image_token), "what goes into pictures"),
            (demand.web_searches > 0 && self.web_search.is_zero() && !by_query, "web search"),
            (demand.code_sessions > 0 && !is_sold(self.code_session), "running code"),
            (demand.queries > 0 && !is_sold(self.query) && self.prompt.is_zero() && self.request.is_zero(), "ranking"),
            (demand.audio_ms > 0 && !is_sold(self.second) && !is_sold(self.audio), "listening to audio"),
            (demand.characters > 0 && !is_sold(self.character), "speech"),
        ]
        .into_iter()
        .find_map(|(lacking, what)| lacking.then_some(what))
    }
}

/// Whether something has a price above zero.
#[must_use]
pub fn is_sold(price: Option<Decimal>) -> bool {
    price.is_some_and(|price| !price.is_zero())
}

/// What the parts of a bill come to together.
fn total(parts: &[(Part, Decimal)]) -> Option<Decimal> {
    parts.iter().try_fold(Decimal::ZERO, |sum, (_, amount)| sum.checked_add(*amount))
}

/// The parts of a price.
impl Prices {
    /// The sum of all buckets by the price list alone, in the currency of the prices: no fee, no minimum.
    #[must_use]
    pub fn list_price(&self, usage: &Usage) -> Option<Decimal> {
        Some(total(&self.parts(usage)?)?.round_dp(12).normalize())
    }

    /// What each part of the bill comes to, in the currency of the prices.
    fn parts(&self, usage: &Usage) -> Option<[(Part, Decimal); 5]> {
        let p = self.for_usage(usage);
        Some([
            (Part::Base, p.base(usage)?),
            (Part::Input, p.input(usage)?),
            (Part::CacheRead, sum(&[(usage.cache_read, p.cache_read()), (usage.audio_cached, p.audio_cached())])?),
            (
                Part::CacheWrite,
                sum(&[(usage.cache_write, p.cache_write()), (usage.cache_write_1h, p.cache_write_1h())])?,
            ),
            (Part::Output, p.output(usage)?),
        ])
    }

    fn base(&self, usage: &Usage) -> Option<Decimal> {
        let searches = match self.web_query {
            Some(price) if usage.web_queries > 0 => (usage.web_queries, price),
            _ => (usage.web_searches, self.web_search),
        };
        let more = sum(&[
            (usage.images, self.image),
            searches,
            (usage.code_sessions, self.code_session.unwrap_or_default()),
            (usage.queries, self.query.unwrap_or_default()),
        ])?;
        self.request.checked_add(more)
    }

    fn input(&self, usage: &Usage) -> Option<Decimal> {
        let listened = seconds(usage.audio_ms, self.second.unwrap_or_default())?;
        let tokens = sum(&[
            (usage.input, self.prompt),
            (usage.audio_in, self.audio()),
            (usage.image_in, self.image_token()),
            (usage.characters, self.character.unwrap_or_default()),
        ])?;
        tokens.checked_add(listened)
    }

    /// Pictures are billed by their tokens where these are reported and have a price, and by the
    /// piece otherwise; never by both.
    fn output(&self, usage: &Usage) -> Option<Decimal> {
        let by_token = self.image_output.is_some() && usage.image_out > 0;
        let piece = self.output_images.get("").copied().unwrap_or_default();
        let (tokens, pieces) = match usage.images_made {
            0 => (usage.image_out, 0),
            _ if by_token => (usage.image_out, 0),
            made => (0, made),
        };
        sum(&[
            (usage.output, self.completion),
            (usage.reasoning, self.reasoning()),
            (usage.audio_out, self.audio_output()),
            (tokens, self.image_output()),
            (pieces, piece),
        ])
    }
}

fn sum(parts: &[(u64, Decimal)]) -> Option<Decimal> {
    parts
        .iter()
        .try_fold(Decimal::ZERO, |sum, (count, price)| sum.checked_add(Decimal::from(*count).checked_mul(*price)?))
}

/// What so many milliseconds cost at a price per second.
#[must_use]
pub fn seconds(ms: u64, price: Decimal) -> Option<Decimal> {
    Decimal::from(ms).checked_mul(price)?.checked_div(Decimal::ONE_THOUSAND)
}

/// How the currency of [`Prices`] becomes msat. Both fees make it dearer for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// Prices in USD: `msat = usd × exchange_fee × provider_fee × 10¹¹ ÷ btc_usd`.
    Usd { btc_usd: Decimal, exchange_fee: Decimal, provider_fee: Decimal },
    /// Prices in satoshi, as set by the operator; no fee applies.
    Sat,
}

/// 1 bitcoin in msat.
const MSAT_PER_BTC: u64 = 100_000_000_000;
/// Zeros of it, and of a satoshi's.
const MSAT_PER_BTC_PLACES: u32 = 11;
const MSAT_PER_SAT_PLACES: u32 = 3;

/// Times ten to the power of `places`. By moving the point, which costs no digits, as far as that goes.
fn shifted(mut amount: Decimal, places: u32) -> Option<Decimal> {
    let moved = amount.scale().min(places);
    amount.set_scale(amount.scale().checked_sub(moved)?).ok()?;
    let rest = 10_u64.checked_pow(places.checked_sub(moved)?)?;
    amount.checked_mul(Decimal::from(rest))
}

impl Conversion {
    /// Numerator and denominator of msat per unit of the currency.
    fn factor(&self) -> Option<(Decimal, Decimal)> {
        match self {
            Self::Usd { btc_usd, exchange_fee, provider_fee } => {
                let numerator = exchange_fee.checked_mul(*provider_fee)?.checked_mul(Decimal::from(MSAT_PER_BTC))?;
                Some((numerator, *btc_usd))
            }
            Self::Sat => Some((Decimal::ONE_THOUSAND, Decimal::ONE)),
        }
    }

    /// `amount` of the currency in msat, rounded up; `None` when out of range.
    #[must_use]
    pub fn ceil_msat(&self, amount: Decimal) -> Option<Msat> {
        let (quotient, exact) = self.divide(amount)?;
        if exact { Some(quotient) } else { Msat::new(quotient.get().checked_add(1)?) }
    }

    /// `amount` of the currency in msat, rounded down; `None` when out of range.
    #[must_use]
    pub fn floor_msat(&self, amount: Decimal) -> Option<Msat> {
        self.divide(amount).map(|(quotient, _)| quotient)
    }

    /// `amount` of the currency in satoshi, as the decimal that price lists show.
    #[must_use]
    pub fn to_sat_decimal(&self, amount: Decimal) -> Option<Decimal> {
        let (numerator, denominator) = self.factor()?;
        amount.checked_mul(numerator)?.checked_div(denominator)?.checked_div(Decimal::ONE_THOUSAND)
    }

    /// Whole quotient, and whether nothing was left over.
    fn divide(&self, amount: Decimal) -> Option<(Msat, bool)> {
        let (fees, places, denominator) = match self {
            Self::Usd { btc_usd, exchange_fee, provider_fee } => {
                (exchange_fee.checked_mul(*provider_fee)?, MSAT_PER_BTC_PLACES, *btc_usd)
            }
            Self::Sat => (Decimal::ONE, MSAT_PER_SAT_PLACES, Decimal::ONE),
        };
        if amount.is_sign_negative() && !amount.is_zero() || denominator <= Decimal::ZERO {
            return None;
        }
        let (amount, fees) = (amount.normalize(), fees.normalize());
        let product = amount.checked_mul(fees)?;
        // Where a decimal does not hold all digits, the last ones are rounded: then something is left over.
        let whole_product = product.is_zero() || product.scale() == amount.scale().checked_add(fees.scale())?;
        let product = shifted(product, places)?;
        let quotient = product.checked_div(denominator)?.floor();
        if quotient > Decimal::from(MAX_MSAT) {
            return None;
        }
        let exact = whole_product && quotient.checked_mul(denominator)? == product;
        let whole = u64::try_from(quotient).ok()?;
        Msat::new(whole).map(|msat| (msat, exact))
    }
}

/// The prices of one model at one upstream, at one exchange rate, and the least a request costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateCard {
    pub prices: Prices,
    pub conversion: Conversion,
    /// `MIN_REQUEST_MSAT`: what a served request costs at least.
    pub minimum: Msat,
}

impl RateCard {
    /// Cost of `usage`: the sum of all buckets, rounded up to the next msat once.
    ///
    /// `None` when the result is out of any sensible range; the caller then releases the hold and
    /// raises an alarm rather than charge a made-up number.
    #[must_use]
    pub fn price(&self, usage: &Usage) -> Option<Cost> {
        let parts = self.prices.parts(usage)?;
        let mut cost = Cost::new(*usage, self.list_price_usd(&parts)?);
        let mut sum = Decimal::ZERO;
        for (part, amount) in parts.into_iter().filter(|(_, amount)| !amount.is_zero()) {
            sum = sum.checked_add(amount)?;
            cost.grow_to(part, self.conversion.ceil_msat(sum)?)?;
        }
        cost.grow_to(Part::Base, cost.total.max(self.minimum))?;
        Some(cost)
    }

    /// The sum in USD as the price list shows it (provider fee included, exchange fee not), where
    /// prices are in USD at all.
    fn list_price_usd(&self, parts: &[(Part, Decimal)]) -> Option<Option<Decimal>> {
        let Conversion::Usd { provider_fee, .. } = &self.conversion else {
            return Some(None);
        };
        let usd = total(parts)?.checked_mul(*provider_fee)?;
        Some(Some(usd.round_dp(12).normalize()))
    }
}
