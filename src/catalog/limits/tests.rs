//! Tests of the hold: hand-worked numbers, and its invariants against the client's own formula.

use super::*;
use crate::money::rate::Tier;
use crate::money::{CacheWrites, Service};

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn usd(btc_usd: u64, exchange_fee: &str, provider_fee: &str) -> Conversion {
    Conversion::Usd {
        btc_usd: Decimal::from(btc_usd),
        exchange_fee: decimal(exchange_fee),
        provider_fee: decimal(provider_fee),
    }
}

/// At 100,000 USD and without fees one USD is 1,000,000 msat.
fn card(prompt: &str, completion: &str) -> RateCard {
    RateCard {
        prices: Prices { prompt: decimal(prompt), completion: decimal(completion), ..Prices::default() },
        conversion: usd(100_000, "1", "1"),
        minimum: Msat::new(1).unwrap(),
    }
}

fn limits(context: u64, max_completion: u64) -> Limits {
    let known = |count: u64| (count > 0).then_some(count);
    Limits { context: known(context), max_completion: known(max_completion) }
}

fn shape(prompt_chars: u64, max_output: Option<u64>) -> WorstCase {
    WorstCase { prompt_chars, max_output, choices: 1, ..WorstCase::default() }
}

fn held(limits: Limits, card: &RateCard, shape: &WorstCase) -> u64 {
    hold(limits, card, shape, Decimal::ONE).unwrap().get()
}

#[test]
fn the_most_a_model_can_cost() {
    let prices = Prices {
        prompt: decimal("0.000001"),
        completion: decimal("0.000004"),
        request: decimal("0.00001"),
        image: decimal("0.001"),
        web_search: decimal("0.01"),
        internal_reasoning: Some(decimal("0.00002")),
        ..Prices::default()
    };
    for (ctx, most, prompt, completion, total) in [
        // (100000 − 20000) × 0.000001 + 20000 × 0.000004
        (100_000, 20_000, "0.1", "0.08", "0.16"),
        // The output limit is no limit: 100000 × the dearer price, also for the output alone.
        (100_000, 100_000, "0.1", "0.4", "0.4"),
        (100_000, 900_000, "0.1", "0.4", "0.4"),
        (100_000, 0, "0.1", "0.4", "0.4"),
        // No context: the output alone.
        (0, 20_000, "0.02", "0.08", "0.08"),
        // Nothing known: 1 + 0.128 + 100000 × 0.00001 + 100 × 0.001 + 1000 × 0.01 + 100 × 0.00002
        (0, 0, "1", "0.128", "12.23"),
    ] {
        let maxima = limits(ctx, most).maxima(&prices).unwrap();
        let expected = Maxima { prompt: decimal(prompt), completion: decimal(completion), total: decimal(total) };
        assert_eq!(maxima, expected, "{ctx} {most}");
    }
    // A prompt dearer than the output: 100000 × 0.000004.
    let dear = Prices { prompt: decimal("0.000004"), ..Prices::default() };
    assert_eq!(limits(100_000, 0).maxima(&dear).unwrap().total, decimal("0.4"));
}

/// p = 1e-6 (1 msat a token), c = 4e-6 (4 msat a token); maximum of 100000/20000: 160000 msat,
/// less 1 % 158400; prompt room 80000, less 1 % 79200; output 80000, less 1 % 79200.
#[test]
fn holds_by_hand() {
    let card = card("0.000001", "0.000004");
    for (ctx, most, shape, expected) in [
        // 100 tokens of prompt, no output limit: 158400 − (79200 − 100)
        (100_000, 20_000, shape(300, None), 79_300),
        // and 50 tokens of output: − (79200 − 200). What is left is the request: 100 + 200.
        (100_000, 20_000, shape(300, Some(50)), 300),
        // 299 characters are 99 tokens.
        (100_000, 20_000, shape(299, Some(50)), 299),
        // A prompt longer than its room gets no discount: 158400 − 0 − (79200 − 200)
        (100_000, 20_000, shape(300_000, Some(50)), 79_400),
        // An output limit above the model's gets none either: 158400 − 79100
        (100_000, 20_000, shape(300, Some(50_000)), 79_300),
        // Nothing asked for: 158400 − 79200 − 79200 = 0, so the minimum.
        (100_000, 20_000, shape(0, Some(0)), 1),
        // Output limit = context: the discounts leave 396000 − (396000 − 200) = 200, which is
        // not the request; 100 + 200 is.
        (100_000, 100_000, shape(300, Some(50)), 300),
        // The same without an output limit: 396000, the bound of all.
        (100_000, 100_000, shape(300, None), 396_000),
        // Only the context known: 396000 − (99000 − 100) − (396000 − 200) is below 0; 100 + 200.
        (100_000, 0, shape(300, Some(50)), 300),
        // and without an output limit: 100 + 400000, bounded by 396000.
        (100_000, 0, shape(300, None), 396_000),
        // Only the output limit known: 79200 − (79200 − 200) = 200; 100 + 200 asked for.
        (0, 20_000, shape(300, Some(50)), 300),
        // Nothing known: 99 % of 1128000 is 1116720; − (126720 − 200) for the output limit.
        (0, 0, shape(300, Some(50)), 990_200),
    ] {
        assert_eq!(held(limits(ctx, most), &card, &shape), expected, "{ctx} {most} {shape:?}");
    }
}

#[test]
fn additions_by_hand() {
    let mut card = card("0.000001", "0.000004");
    let model = limits(100_000, 20_000);
    let base = shape(300, Some(50));
    let with = |change: fn(&mut WorstCase)| {
        let mut shape = base;
        change(&mut shape);
        shape
    };
    // 300 + 50 tokens of 200 characters of tools
    assert_eq!(held(model, &card, &with(|s| s.extra_chars = 203)), 350);
    // Tools beyond all bounds: the prompt part ends at the context, 100000 + 200.
    assert_eq!(held(model, &card, &with(|s| s.extra_chars = u64::MAX)), 100_200);
    // 300 + 85 tokens of an image
    assert_eq!(held(model, &card, &with(|s| s.image_tokens = 85)), 385);
    // 300 + 2 × 50 × 4
    assert_eq!(held(model, &card, &with(|s| s.choices = 3)), 700);
    assert_eq!(held(model, &card, &with(|s| s.choices = 0)), 300);
    // Without an output limit a second choice may take all 20000: 79300 + 80000.
    let two = WorstCase { max_output: None, choices: 2, ..base };
    assert_eq!(held(model, &card, &two), 159_300);
    // 300 + 2 × 1500 + 700
    card.prices.image = decimal("0.0015");
    card.prices.request = decimal("0.0007");
    assert_eq!(held(model, &card, &with(|s| s.images = 2)), 4_000);
    // The additions are rounded up, once: 0.7 msat.
    card.prices.request = decimal("0.0000007");
    assert_eq!(held(model, &card, &base), 301);
    card.minimum = Msat::new(5_000).unwrap();
    assert_eq!(held(model, &card, &base), 5_000);
}

/// Each of several prompts may fill the context, which bounds all of them together.
#[test]
fn batches_by_hand() {
    let card = card("0.000001", "0.000004");
    let model = limits(100_000, 20_000);
    let of = |prompts: u64, prompt_chars: u64| WorstCase { prompts, ..shape(prompt_chars, Some(0)) };
    for (shape, expected) in [
        // One prompt ends with its room, as the network reckons.
        (of(0, 900_000), 79_200),
        (of(1, 900_000), 79_200),
        (of(3, 600_000), 200_000),
        (of(3, 900_000), 300_000),
        (of(3, u64::MAX), 300_000),
        (WorstCase { extra_chars: u64::MAX, ..of(3, 300) }, 300_000),
        (WorstCase { demand: Demand { open_input: true, ..Demand::default() }, ..of(3, 300) }, 300_000),
        // Two answers to each of three prompts: 300 + 6 × 50 × 4.
        (WorstCase { choices: 6, max_output: Some(50), ..of(3, 900) }, 300 + 1200),
    ] {
        assert_eq!(held(model, &card, &shape), expected, "{shape:?}");
    }
    // A model of which only the context is known, as those that make vectors: 36 × 8192.
    let vectors = self::card("0.000001", "0");
    let batch = WorstCase { more_tokens: 1_000_000, ..of(36, 3) };
    assert_eq!(held(limits(8_192, 0), &vectors, &batch), 36 * 8_192);
    assert_eq!(held(limits(8_192, 0), &vectors, &WorstCase { more_tokens: 100_000, ..batch }), 100_001);
    // Also at the operator's own prices: 3 × 100000 × 0.001 sat.
    let own = RateCard { conversion: Conversion::Sat, ..self::card("0.001", "0.003") };
    let open = WorstCase { demand: Demand { open_input: true, ..Demand::default() }, ..of(3, 300) };
    assert_eq!(held(model, &own, &open), 300_000);
    // Sound of unknown length is no longer than the context.
    let mut heard = self::card("0.000001", "0.000004");
    heard.prices.audio = Some(decimal("0.000005"));
    let sound = WorstCase { demand: Demand { audio_in: u64::MAX, ..Demand::default() }, ..of(1, 300) };
    assert_eq!(held(model, &heard, &sound), 100 + 500_000);
}

/// gpt-4o-mini at 100,000 USD with the usual fees: 1055.25 sat for a USD.
/// max_cost = 111616 × 1.5e-7 + 16384 × 6e-7 = 0.0265728 USD; × 0.99 = 0.026307072 USD
/// = 27760.53… msat → 27760. Prompt: (111616 × 0.99 − 100) × 1.5e-7 = 0.0165599760 USD
/// = 17474.91… → 17474. Output: (16384 × 0.99 − 50) × 6e-7 = 0.009702096 USD = 10238.13… → 10238.
#[test]
fn a_real_model_by_hand() {
    let mut card = card("0.00000015", "0.0000006");
    card.conversion = usd(100_000, "1.005", "1.05");
    let expected = 27_760 - 17_474 - 10_238;
    assert_eq!(held(limits(128_000, 16_384), &card, &shape(300, Some(50))), expected);
}

#[test]
fn static_prices_by_hand() {
    let mut card = card("0.001", "0.003");
    card.conversion = Conversion::Sat;
    card.prices.request = Decimal::from(2);
    // 2 + 100 × 0.001 + 50 × 0.003 = 2.25 sat
    assert_eq!(held(Limits::default(), &card, &shape(300, Some(50))), 2_250);
    // and 2 × 50 × 0.003 for two choices
    let two = WorstCase { choices: 2, ..shape(300, Some(50)) };
    assert_eq!(held(Limits::default(), &card, &two), 2_400);
    // Without an output limit: the model's, or 32000.
    assert_eq!(held(limits(0, 1_000), &card, &shape(0, None)), 5_000);
    assert_eq!(held(Limits::default(), &card, &shape(0, None)), 98_000);
}

/// What is no text is held for at its own price, on top of what the network's formula holds.
#[test]
fn beside_text_by_hand() {
    let mut card = card("0.000001", "0.000004");
    let micros = |count: i64| Decimal::new(count, 6);
    card.prices.input_cache_write = Some(micros(2));
    card.prices.input_cache_write_1h = Some(micros(3));
    card.prices.audio = Some(micros(5));
    card.prices.audio_output = Some(micros(9));
    card.prices.image_output = Some(micros(7));
    card.prices.web_search = micros(11);
    card.prices.web_query = Some(micros(29));
    card.prices.code_session = Some(micros(31));
    card.prices.query = Some(micros(13));
    card.prices.second = Some(micros(17));
    card.prices.character = Some(micros(19));
    card.prices.output_images = [(String::new(), micros(23))].into_iter().collect();
    let base = shape(300, Some(50));
    let plain = held(limits(100_000, 20_000), &card, &base);
    let none = Demand::default();
    for (demand, more) in [
        (none, 0),
        // 100 tokens of prompt, each a msat or two dearer.
        (Demand { cache_writes: CacheWrites::Minutes, ..none }, 100),
        (Demand { cache_writes: CacheWrites::Hour, ..none }, 200),
        (Demand { audio_in: 10, ..none }, 50),
        // 50 tokens of output, each five or three msat dearer.
        (Demand { audio_out: true, ..none }, 250),
        (Demand { image_out: true, ..none }, 150),
        (Demand { image_by_default: true, ..none }, 150),
        (Demand { image_out: true, audio_out: true, ..none }, 250),
        (Demand { images_made: 2, ..none }, 46),
        (Demand { images_made: 2, tokens_per_image: 100, ..none }, 1400),
        (Demand { web_searches: 2, ..none }, 22),
        (Demand { web_searches: 2, web_queries: 3, ..none }, 87),
        (Demand { code_sessions: 2, ..none }, 62),
        // 100 tokens of prompt are read three times more, at the dearest price that they may have.
        (Demand { tool_calls: 3, ..none }, 300),
        (Demand { tool_calls: 3, cache_writes: CacheWrites::Minutes, ..none }, 100 + 600),
        // What goes into pictures: of the price of the prompt, where it has none of its own.
        (Demand { images_made: 2, tokens_into_image: 50, ..none }, 146),
        (Demand { queries: 2, ..none }, 26),
        (Demand { audio_ms: 2000, ..none }, 34),
        (Demand { characters: 2, ..none }, 38),
    ] {
        let shape = WorstCase { demand, ..base };
        assert_eq!(held(limits(100_000, 20_000), &card, &shape), plain + more, "{demand:?}");
    }
    // Input of the upstream's choice: all of the context, of which 1 % is never held for the prompt.
    let open = WorstCase { demand: Demand { open_input: true, ..none }, ..base };
    assert_eq!(held(limits(100_000, 20_000), &card, &open), plain + 99_900);
    let uncounted = WorstCase { demand: Demand { uncounted: true, ..none }, ..base };
    assert_eq!(held(limits(100_000, 20_000), &card, &uncounted), 1);
    // A long input, should every character be a token: 100 and 50 tokens at a dearer price.
    let dearer = Prices { prompt: micros(2), completion: micros(6), ..Prices::default() };
    card.prices.tiers = vec![Tier { above: 299, prices: dearer.clone() }];
    assert_eq!(held(limits(100_000, 20_000), &card, &base), plain + 100 + 100);
    card.prices.tiers = vec![Tier { above: 300, prices: dearer.clone() }];
    assert_eq!(held(limits(100_000, 20_000), &card, &base), plain);
    // The dearest service that may be had: 2 msat × (100 + 50).
    card.prices.tiers.clear();
    card.prices.services = vec![(Service::Priority, Prices { completion: micros(8), ..dearer })];
    assert_eq!(held(limits(100_000, 20_000), &card, &base), 2 * plain);
}

#[test]
fn absurd_requests_are_refused_not_miscounted() {
    let card = card("1000", "1000");
    let monster = WorstCase {
        prompt_chars: u64::MAX,
        extra_chars: u64::MAX,
        image_tokens: u64::MAX,
        images: u64::MAX,
        max_output: Some(u64::MAX),
        choices: u64::MAX,
        ..WorstCase::default()
    };
    assert_eq!(hold(Limits::default(), &card, &monster, Decimal::ONE), None);
    for percent in ["-5", "0", "100", "250"] {
        let got = hold(limits(1_000, 10), &card, &shape(3, Some(1)), decimal(percent));
        assert!(got.is_some(), "{percent}");
    }
}

/// What a client of this network reckons the node will hold, in msat, from the price list.
/// The discounted maximum is `nodeGate` of its SDK.
fn node_gate(limits: Limits, card: &RateCard, shape: &WorstCase) -> i128 {
    let maxima = limits.maxima(&card.prices).unwrap();
    let kept = decimal("0.99");
    let floor = |amount: Decimal| i128::from(card.conversion.floor_msat(amount).unwrap().get());
    let mut gate = floor(maxima.total * kept).max(1);
    let room = match (limits.context, limits.max_completion) {
        (Some(context), Some(most)) => context.saturating_sub(most),
        (Some(context), None) => context,
        (None, _) => 0,
    };
    let tokens = Decimal::from(shape.prompt_chars / 3);
    let free = Decimal::from(room) * card.prices.prompt * kept - tokens * card.prices.prompt;
    if free > Decimal::ZERO {
        gate -= floor(free);
    }
    if let Some(limit) = shape.max_output {
        let free = maxima.completion * kept - Decimal::from(limit) * card.prices.completion;
        if free > Decimal::ZERO {
            gate -= floor(free);
        }
    }
    gate.max(1)
}

/// The other half of a client's deposit, which is the larger of the two: what it expects to pay.
fn expected_cost(limits: Limits, card: &RateCard, shape: &WorstCase) -> i128 {
    let maxima = limits.maxima(&card.prices).unwrap();
    let output = shape.max_output.map_or(maxima.completion, |limit| Decimal::from(limit) * card.prices.completion);
    let prompt = Decimal::from(shape.prompt_chars / 3) * card.prices.prompt;
    i128::from(card.conversion.floor_msat(prompt + output).unwrap().get())
}

fn any_limits() -> impl proptest::strategy::Strategy<Value = Limits> {
    use proptest::prelude::*;
    (prop::option::of(1u64..2_000_000), prop::option::of(1u64..400_000))
        .prop_map(|(context, max_completion)| Limits { context, max_completion })
}

fn any_card() -> impl proptest::strategy::Strategy<Value = RateCard> {
    use proptest::prelude::*;
    (0i64..200_000, 0i64..200_000, 1_000u64..1_000_000).prop_map(|(prompt, completion, btc)| RateCard {
        prices: Prices {
            prompt: Decimal::new(prompt, 10),
            completion: Decimal::new(completion, 10),
            ..Prices::default()
        },
        conversion: usd(btc, "1.005", "1.05"),
        minimum: Msat::new(1).unwrap(),
    })
}

proptest::proptest! {
    #[test]
    fn a_longer_request_never_holds_less(
        limits in any_limits(), card in any_card(),
        chars in 0u64..8_000_000, more_chars in 0u64..10_000,
        output in 0u64..500_000, more_output in 0u64..1_000,
        extra_chars in 0u64..8_000_000, choices in 0u64..5, prompts in 0u64..5,
    ) {
        let small = WorstCase { extra_chars, choices, prompts, ..shape(chars, Some(output)) };
        let base = held(limits, &card, &small);
        let longer = WorstCase { prompt_chars: chars + more_chars, ..small };
        proptest::prop_assert!(held(limits, &card, &longer) >= base);
        let wider = WorstCase { max_output: Some(output + more_output), ..small };
        proptest::prop_assert!(held(limits, &card, &wider) >= base);
        let unlimited = WorstCase { max_output: None, ..small };
        // Without any known limit, 32000 tokens are assumed; a client may ask for more.
        if limits != Limits::default() || output <= DEFAULT_COMPLETION {
            proptest::prop_assert!(held(limits, &card, &unlimited) >= base);
        }
        let more = WorstCase { prompts: prompts + 1, ..small };
        proptest::prop_assert!(held(limits, &card, &more) >= base);
        let heavier = WorstCase { extra_chars: extra_chars + more_chars, ..small };
        proptest::prop_assert!(held(limits, &card, &heavier) >= base);
    }

    #[test]
    fn a_client_that_follows_the_formula_has_deposited_enough(
        limits in any_limits(), card in any_card(),
        chars in 0u64..8_000_000, output in proptest::option::of(0u64..500_000),
    ) {
        let shape = shape(chars, output);
        let hold = i128::from(held(limits, &card, &shape));
        let gate = node_gate(limits, &card, &shape);
        if limits.discounts_are_sound() {
            proptest::prop_assert_eq!(hold, gate);
        } else {
            let deposit = gate.max(expected_cost(limits, &card, &shape));
            proptest::prop_assert!(hold >= gate && hold <= deposit, "{} {}", hold, deposit);
        }
        let most = limits.maxima(&card.prices).unwrap().total;
        let most = i128::from(card.conversion.ceil_msat(most).unwrap().get());
        proptest::prop_assert!(hold <= most.max(1));
    }

    #[test]
    fn what_the_request_asks_for_is_held(
        limits in any_limits(), card in any_card(),
        prompt in 0u64..2_000, output in 0u64..1_000,
    ) {
        // Within the limits, where no bound of the formula cuts in.
        let limits = Limits { context: limits.context.or(Some(200_000)), ..limits };
        let room = match limits.prompt_room() {
            room if limits.discounts_are_sound() => room * 9 / 10,
            _ => limits.completion() / 4,
        };
        let (prompt, output) = (prompt.min(room), output.min(limits.completion() / 4));
        let asked = Decimal::from(prompt) * card.prices.prompt
            + Decimal::from(output) * card.prices.completion;
        let asked = card.conversion.floor_msat(asked).unwrap().get();
        proptest::prop_assert!(held(limits, &card, &shape(prompt * 3, Some(output))) >= asked);
    }
}
