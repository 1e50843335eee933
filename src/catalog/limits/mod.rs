//! How much a request can cost at most, and how much is held for it.
//!
//! Clients of this network reckon what a node will hold from its public price list, deposit that
//! and no more, so the hold follows their formula to the msat: the most that the model can cost,
//! less 1 %, less the part of the context that this prompt leaves free, less the part of the
//! output that `max_tokens` rules out. What the formula does not know (tool definitions, further
//! prompts and choices, images, a fixed price) is added.
//!
//! The formula has a hole: where the output limit is not smaller than the context, or one of the
//! two is unknown, the discounts can eat the whole sum and a long prompt would be served against
//! one msat. There, and nowhere else, the hold is raised to what the request asks for; clients
//! deposit at least that.
//!
//! Invariants: the hold never falls when a prompt or an output limit grows; it never exceeds
//! `max_cost` but for the additions; it is at least the minimum.

use rust_decimal::Decimal;

use crate::money::rate::{Conversion, seconds};
use crate::money::{Demand, Msat, Prices, RateCard};

/// Context that is reckoned with when none is known, in tokens.
const DEFAULT_CONTEXT: u64 = 1_000_000;
/// Output limit that is reckoned with when none is known, in tokens.
const DEFAULT_COMPLETION: u64 = 32_000;
/// Characters of the conversation in a token. The network's number.
const CHARS_PER_TOKEN: u64 = 3;
/// Characters of tool definitions and schemas in a token.
const EXTRA_CHARS_PER_TOKEN: u64 = 4;

/// Tokens in a second of audio, at most.
const AUDIO_TOKENS_PER_SECOND: u64 = 32;

/// How much a model can read and write at most, in tokens. `None`: unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Input and output together. Never zero.
    pub context: Option<u64>,
    /// Output. Never zero.
    pub max_completion: Option<u64>,
}

/// What a request asks for, as far as its price depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorstCase {
    /// Characters of all strings in the conversation.
    pub prompt_chars: u64,
    /// Characters of all other input (tools, schemas).
    pub extra_chars: u64,
    /// Input tokens that the images are estimated at.
    pub image_tokens: u64,
    /// Images, where each has a price of its own.
    pub images: u64,
    /// Most output tokens for one choice, where the client set a limit.
    pub max_output: Option<u64>,
    /// Answers asked for. 0 counts as 1.
    pub choices: u64,
    /// Inputs that the model reads one by one, each with its whole context. 0 counts as 1.
    pub prompts: u64,
    /// Input tokens beside the characters that the network's estimate does not know of.
    pub more_tokens: u64,
    /// What it may consume beside text.
    pub demand: Demand,
}

/// The most that requests can cost, in the currency of the prices, as price lists show it. The
/// first two do not add up to the third: prompt and output share the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maxima {
    pub prompt: Decimal,
    pub completion: Decimal,
    /// The most that one request can cost, `max_cost`.
    pub total: Decimal,
}

impl WorstCase {
    /// Tokens of the conversation, as the network estimates them.
    #[must_use]
    pub fn prompt_tokens(&self) -> u64 {
        (self.prompt_chars / CHARS_PER_TOKEN).saturating_add(self.image_tokens)
    }

    /// Tokens of all other input. What a search finds nobody knows before: more than any context.
    #[must_use]
    pub fn extra_tokens(&self) -> u64 {
        match self.demand.open_input {
            true => u64::MAX,
            false => self.sent_beside(),
        }
    }

    /// Tokens that are sent beside the conversation.
    fn sent_beside(&self) -> u64 {
        (self.extra_chars / EXTRA_CHARS_PER_TOKEN).saturating_add(self.more_tokens)
    }
}

impl Limits {
    /// Whether the network's discounts, taken alone, leave what the request really asks for.
    fn discounts_are_sound(self) -> bool {
        matches!((self.context, self.max_completion), (Some(ctx), Some(most)) if most < ctx)
    }

    /// Most input tokens of this request: a context for each of its prompts.
    fn input(self, shape: &WorstCase) -> u64 {
        self.context.unwrap_or(DEFAULT_CONTEXT).saturating_mul(shape.prompts.max(1))
    }

    /// Tokens that are read again after calls of tools that the upstream runs: all that was sent, each time. What the
    /// tools bring is read again as well, and nobody knows how much that is. It is held for once, as the whole context
    /// (`open_input`): a context for each call would make every request with a tool cost more than anybody has on a
    /// key, and most calls bring little. The prompt is what a client can make large, and its length is known.
    fn read_again(self, shape: &WorstCase) -> u64 {
        let sent = shape.prompt_tokens().saturating_add(shape.sent_beside());
        sent.min(self.context.unwrap_or(DEFAULT_CONTEXT)).saturating_mul(shape.demand.tool_calls)
    }

    /// Tokens that the network reserves for the prompt.
    fn prompt_room(self) -> u64 {
        let context = self.context.unwrap_or(0);
        context.saturating_sub(self.max_completion.unwrap_or(0))
    }

    /// Most tokens of one answer; the context bounds it too.
    fn completion(self) -> u64 {
        match (self.context, self.max_completion) {
            (Some(context), Some(most)) => most.min(context),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => DEFAULT_COMPLETION,
        }
    }

    /// Most tokens of one answer to this request.
    fn output(self, shape: &WorstCase) -> u64 {
        match shape.max_output {
            Some(limit) if self == Self::default() => limit,
            Some(limit) => limit.min(self.completion()),
            None => self.completion(),
        }
    }

    /// The most that a model with these limits can cost at these prices. `None`: out of range.
    #[must_use]
    pub fn maxima(self, prices: &Prices) -> Option<Maxima> {
        let (p, c) = (prices.prompt, prices.completion);
        let completion = times(self.completion(), c)?;
        let (prompt, total) = match (self.context, self.max_completion) {
            (Some(context), Some(most)) if most < context => {
                let shared = times(context.saturating_sub(most), p)?;
                (times(context, p)?, shared.checked_add(completion)?)
            }
            (Some(context), _) => (times(context, p)?, times(context, p.max(c))?),
            (None, Some(most)) => (times(most, p)?, completion),
            (None, None) => {
                let prompt = times(DEFAULT_CONTEXT, p)?;
                let rest = [
                    completion,
                    times(100_000, prices.request)?,
                    times(100, prices.image)?,
                    times(1_000, prices.web_search)?,
                    times(100, prices.internal_reasoning.unwrap_or_default())?,
                ];
                (prompt, sum(prompt, &rest)?)
            }
        };
        Some(Maxima { prompt, completion, total })
    }
}

/// What is held for a request of this shape: the most that it may be charged.
///
/// `tolerance_percent` is taken off the maximum (1 in this network). Prices in satoshi are the
/// operator's own; for those the hold is simply what the request asks for. `None`: out of range,
/// the request must be refused.
#[must_use]
pub fn hold(limits: Limits, card: &RateCard, shape: &WorstCase, tolerance_percent: Decimal) -> Option<Msat> {
    // At the dearest of all services that the answer may name.
    let services = card.prices.services.iter().map(|(_, prices)| prices);
    let mut amount = card.minimum;
    for prices in services.chain([&card.prices]) {
        amount = amount.max(hold_at(limits, prices, &card.conversion, shape, tolerance_percent)?);
    }
    Some(amount)
}

fn hold_at(
    limits: Limits,
    prices: &Prices,
    conversion: &Conversion,
    shape: &WorstCase,
    tolerance_percent: Decimal,
) -> Option<Msat> {
    if shape.demand.uncounted {
        conversion.ceil_msat(prices.request)
    } else if matches!(conversion, Conversion::Sat) {
        conversion.ceil_msat(static_worst_case(limits, prices, shape)?)
    } else {
        let share = tolerance_percent.clamp(Decimal::ZERO, Decimal::ONE_HUNDRED);
        let kept = Decimal::ONE_HUNDRED.checked_sub(share)?.checked_div(Decimal::ONE_HUNDRED)?;
        let gate = Gate { limits, prices, conversion, shape, kept };
        let mut amount = gate.discounted_maximum()?;
        if !limits.discounts_are_sound() {
            amount = amount.max(gate.asked_for()?);
        }
        amount.checked_add(conversion.ceil_msat(gate.additions()?)?)
    }
}

/// The network's formula, with the numbers that it works on.
struct Gate<'a> {
    limits: Limits,
    prices: &'a Prices,
    conversion: &'a Conversion,
    shape: &'a WorstCase,
    /// What the tolerance leaves, 0.99.
    kept: Decimal,
}

impl Gate<'_> {
    /// The maximum, less what this prompt and this output limit leave unused.
    fn discounted_maximum(&self) -> Option<Msat> {
        let maxima = self.limits.maxima(self.prices)?;
        let whole = self.conversion.floor_msat(maxima.total.checked_mul(self.kept)?)?;
        let room = Decimal::from(self.limits.prompt_room()).checked_mul(self.kept)?;
        let prompt = self.held_prompt_tokens(room)?;
        let free = room.checked_sub(prompt)?.checked_mul(self.prices.prompt)?;
        let mut amount = if free.is_sign_negative() {
            // More than the room, by what is not in the conversation.
            whole.checked_add(self.conversion.ceil_msat(free.abs())?)?
        } else {
            whole.excess_over(self.conversion.floor_msat(free)?)
        };
        if let Some(limit) = self.shape.max_output {
            let asked = times(limit, self.prices.completion)?;
            let free = maxima.completion.checked_mul(self.kept)?.checked_sub(asked)?;
            if free > Decimal::ZERO {
                amount = amount.excess_over(self.conversion.floor_msat(free)?);
            }
        }
        Some(amount)
    }

    /// Input tokens to hold for: the conversation as far as there is `room`, and what comes on
    /// top of it, together never more than the context. The network's formula knows of one prompt;
    /// of several each may fill the context.
    fn held_prompt_tokens(&self, room: Decimal) -> Option<Decimal> {
        let most = Decimal::from(self.limits.input(self.shape));
        let room = if self.shape.prompts > 1 { most } else { room };
        let conversation = Decimal::from(self.shape.prompt_tokens()).min(room);
        let all = conversation.checked_add(Decimal::from(self.shape.extra_tokens()))?;
        Some(all.min(most))
    }

    /// What the estimated prompt and the longest answer cost, up to the discounted maximum.
    fn asked_for(&self) -> Option<Msat> {
        let input = self.shape.prompt_tokens().saturating_add(self.shape.extra_tokens());
        let input = input.min(self.limits.input(self.shape));
        let output = times(self.limits.output(self.shape), self.prices.completion)?;
        let asked = times(input, self.prices.prompt)?.checked_add(output)?;
        let most = self.limits.maxima(self.prices)?.total.checked_mul(self.kept)?;
        let most = times(self.shape.prompts.max(1), most)?;
        self.conversion.floor_msat(asked.min(most))
    }

    /// What the network's formula does not know.
    fn additions(&self) -> Option<Decimal> {
        let further = self.shape.choices.saturating_sub(1);
        let answer = times(self.limits.output(self.shape), self.prices.completion)?;
        let rest = [
            times(further, answer)?,
            times(self.shape.images, self.prices.image)?,
            beside_text(self.limits, self.prices, self.shape)?,
        ];
        sum(self.prices.request, &rest)
    }
}

/// What a request asks for, in the currency of the prices, without any bound.
fn static_worst_case(limits: Limits, prices: &Prices, shape: &WorstCase) -> Option<Decimal> {
    let input = shape.prompt_tokens().saturating_add(shape.extra_tokens());
    let most = limits.max_completion.unwrap_or(DEFAULT_COMPLETION);
    let answer = times(shape.max_output.unwrap_or(most), prices.completion)?;
    let input = match shape.demand.open_input {
        true => limits.input(shape).max(shape.prompt_tokens()),
        false => input,
    };
    let rest = [
        times(input, prices.prompt)?,
        times(shape.choices.max(1), answer)?,
        times(shape.images, prices.image)?,
        beside_text(limits, prices, shape)?,
    ];
    sum(prices.request, &rest)
}

/// The dearest input and output price that this request can come to: the network's estimate knows no
/// long inputs and no price of reasoning, and nobody knows how many characters are in a token, but one at
/// least.
fn tier_of(prices: &Prices, shape: &WorstCase, longest: u64) -> (Decimal, Decimal) {
    let counts = [shape.prompt_chars, shape.image_tokens, shape.extra_tokens(), shape.demand.audio_in];
    let most = counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count)).min(longest);
    let reached = prices.tiers.iter().filter(|tier| most > tier.above).map(|tier| &tier.prices);
    let all = || reached.clone().chain([prices]);
    // What is asked to be written to a cache need not be.
    let dearest =
        |prices: &Prices| prices.prompt.max(prices.cache_read()).max(prices.written(shape.demand.cache_writes));
    let input = all().map(dearest).max();
    let output = all().map(|prices| prices.completion.max(prices.reasoning())).max();
    (input.unwrap_or_default(), output.unwrap_or_default())
}

/// What everything that is no text costs at most, and what text costs more than text when it is
/// written to a cache, or is none.
fn beside_text(limits: Limits, prices: &Prices, shape: &WorstCase) -> Option<Decimal> {
    let demand = &shape.demand;
    let (longest, again) = (limits.input(shape), limits.read_again(shape));
    let input = shape.prompt_tokens().saturating_add(shape.extra_tokens()).min(longest);
    let output = limits.output(shape).saturating_mul(shape.choices.max(1));
    let beyond = |price: Decimal, than: Decimal| price.checked_sub(than).map(|more| more.max(Decimal::ZERO));
    let (dear_input, dear_output) = tier_of(prices, shape, longest.saturating_add(again));
    let written = beyond(dear_input, prices.prompt)?;
    let longer = beyond(dear_output, prices.completion)?;
    let mut spoken = Decimal::ZERO;
    if demand.audio_out {
        spoken = spoken.max(beyond(prices.audio_output(), prices.completion)?);
    }
    if demand.image_out || (demand.image_by_default && prices.image_output.is_some()) {
        spoken = spoken.max(beyond(prices.image_output(), prices.completion)?);
    }
    let listened = match prices.second.filter(|price| !price.is_zero()) {
        Some(price) => seconds(demand.audio_ms, price)?,
        None => seconds(demand.audio_ms.saturating_mul(AUDIO_TOKENS_PER_SECOND), prices.audio())?,
    };
    let by_piece = prices.output_images.get("").copied().unwrap_or_default();
    let by_token = times(demand.tokens_per_image, prices.image_output.unwrap_or_default())?;
    let into_pictures = demand.images_made.saturating_mul(demand.tokens_into_image);
    let searches = times(demand.web_searches, prices.web_search)?;
    let rest = [
        times(input, written)?,
        times(again, dear_input)?,
        times(output, spoken.max(longer))?,
        times(shape.image_tokens, beyond(prices.image_token(), dear_input)?)?,
        times(demand.audio_in.min(longest), prices.audio().max(prices.audio_cached()))?,
        times(demand.images_made, by_piece.max(by_token))?,
        times(into_pictures, prices.image_token())?,
        searches.max(times(demand.web_queries, prices.web_query.unwrap_or_default())?),
        times(demand.code_sessions, prices.code_session.unwrap_or_default())?,
        times(demand.queries, prices.query.unwrap_or_default())?,
        times(demand.characters, prices.character.unwrap_or_default())?,
    ];
    sum(listened, &rest)
}

fn times(count: u64, price: Decimal) -> Option<Decimal> {
    Decimal::from(count).checked_mul(price)
}

fn sum(first: Decimal, rest: &[Decimal]) -> Option<Decimal> {
    rest.iter().try_fold(first, |total, part| total.checked_add(*part))
}

#[cfg(test)]
mod tests;
