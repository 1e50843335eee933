//! What requests cost, by hand and at random: every priced kind, long inputs, profiles, hours; that no cost
//! falls when more is used, that no hold is too small, and that nothing drifts in a million requests.

use std::sync::Arc;

use coinslot::catalog::Model;
use coinslot::catalog::limits::{Limits, WorstCase, hold};
use coinslot::money::rate::{Conversion, Prices, RateCard, Tier};
use coinslot::money::tariff::{ALL_DAYS, Filter, Profile, Tariffs, Window};
use coinslot::money::{AskedService, CacheWrites, Demand, Msat, Service, Usage};
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::{Value, json};

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn usd(btc_usd: &str, exchange_fee: &str, provider_fee: &str) -> Conversion {
    let (btc_usd, exchange_fee, provider_fee) = (decimal(btc_usd), decimal(exchange_fee), decimal(provider_fee));
    Conversion::Usd { btc_usd, exchange_fee, provider_fee }
}

fn prices(pricing: Value) -> Prices {
    let entry = serde_json::value::to_raw_value(&json!({ "id": "m", "pricing": pricing })).unwrap();
    Model::from_entry(&entry).unwrap().prices
}

fn card(prices: Prices, conversion: Conversion) -> RateCard {
    RateCard { prices, conversion, minimum: Msat::new(1).unwrap() }
}

/// Prices as vendors print them. A dollar is a million msat here: 100,000 USD for a bitcoin, no fees.
#[test]
fn every_priced_kind_by_hand() {
    const NONE: Usage = Usage {
        input: 0,
        cache_read: 0,
        cache_write: 0,
        cache_write_1h: 0,
        audio_in: 0,
        audio_cached: 0,
        image_in: 0,
        read_apart: 0,
        output: 0,
        reasoning: 0,
        audio_out: 0,
        image_out: 0,
        images: 0,
        images_made: 0,
        web_searches: 0,
        web_queries: 0,
        code_sessions: 0,
        queries: 0,
        audio_ms: 0,
        characters: 0,
        source: coinslot::money::UsageSource::Reported,
        service: None,
        contradictory: false,
    };
    // 3 and 15 USD a million; cache read a tenth, write for minutes 1.25 times, for an hour twice the input.
    let claude = json!({
        "prompt": "0.000003", "completion": "0.000015", "input_cache_read": "0.0000003",
        "input_cache_write": "0.00000375", "input_cache_write_1h": "0.000006", "web_search": "0.01",
        "prompt_above_200k_tokens": "0.000006", "completion_above_200k_tokens": "0.0000225",
        "input_cache_read_above_200k_tokens": "0.0000006", "input_cache_write_above_200k_tokens": "0.0000075",
        "input_cache_write_1h_above_200k_tokens": "0.000012",
    });
    let gemini = json!({
        "prompt": "0.00000125", "completion": "0.00001", "input_cache_read": "0.000000125", "audio": "0.000001",
        "input_audio_cache": "0.0000001", "prompt_above_200k_tokens": "0.0000025", "completion_above_200k_tokens": "0.000015",
    });
    let thinker = json!({ "prompt": "0.00000015", "completion": "0.0000006", "internal_reasoning": "0.0000035" });
    let voice =
        json!({ "prompt": "0.0000025", "completion": "0.00001", "audio": "0.00004", "audio_output": "0.00008" });
    let painter =
        json!({ "prompt": "0.000005", "completion": "0", "image_token": "0.00001", "image_output": "0.00004" });
    let dalle = json!({
        "prompt": "0", "completion": "0", "output_image": "0.04", "output_image/1024x1792": "0.08",
        "output_image/hd": "0.08", "output_image/hd/1024x1792": "0.12",
    });
    let searcher = json!({ "prompt": "0.000001", "completion": "0", "web_search": "0.035", "web_query": "0.014", "code_session": "0.03" });
    let tiered = json!({
        "prompt": "0.000001", "completion": "0.000004", "prompt_flex": "0.0000005", "completion_flex": "0.000002",
        "prompt_priority": "0.000002", "completion_priority": "0.000008",
    });
    let seer = json!({ "prompt": "0.000001", "completion": "0.000001", "image": "0.000362" });
    let sonar = json!({ "prompt": "0.000001", "completion": "0.000001", "request": "0.005", "web_search": "0.005" });
    let whisper = json!({ "prompt": "0", "completion": "0", "second": "0.0001" });
    let tts = json!({ "prompt": "0", "completion": "0", "character": "0.000015" });
    let rerank = json!({ "prompt": "0", "completion": "0", "query": "0.002" });
    let embedding = json!({ "prompt": "0.00000002", "completion": "0" });
    let rows: Vec<(&str, &Value, Usage, u64)> = vec![
        // 1000 × 3 + 500 × 15
        ("text", &claude, Usage { input: 1_000, output: 500, ..NONE }, 3_000 + 7_500),
        ("cache read", &claude, Usage { cache_read: 50_000, ..NONE }, 15_000),
        ("cache written for minutes", &claude, Usage { cache_write: 2_000, ..NONE }, 7_500),
        ("cache written for an hour", &claude, Usage { cache_write_1h: 2_000, ..NONE }, 12_000),
        (
            "all of them",
            &claude,
            Usage { input: 7, cache_read: 1_000, cache_write: 100, cache_write_1h: 10, output: 3, ..NONE },
            // 21 + 300 + 375 + 60 + 45
            801,
        ),
        // Two searches.
        ("web search", &claude, Usage { input: 1, web_searches: 2, ..NONE }, 20_003),
        // The last token at the lower price: 200000 × 3; one more, and all of them cost more.
        ("up to the tier", &claude, Usage { input: 1, cache_read: 199_999, output: 2, ..NONE }, 60_033),
        // 3 + 59999.7 + 30, rounded up; and 6 + 120000 + 45.
        ("over the tier", &claude, Usage { input: 1, cache_read: 200_000, output: 2, ..NONE }, 6 + 120_000 + 45),
        ("an hour over the tier", &claude, Usage { cache_write_1h: 200_001, ..NONE }, 12 * 200_001),
        ("minutes over the tier", &claude, Usage { cache_write: 200_002, ..NONE }, 1_500_015),
        ("gemini up to the tier", &gemini, Usage { input: 200_000, output: 100, ..NONE }, 250_000 + 1_000),
        ("gemini over the tier", &gemini, Usage { input: 200_001, output: 100, ..NONE }, 500_003 + 1_500),
        // Audio counts for the tier, which has no price of its own for it here: 100001 × 2.5 + 100000 × 1.
        ("audio over the tier", &gemini, Usage { input: 100_001, audio_in: 100_000, ..NONE }, 350_003),
        // 1000 × 1 + 1000 × 0.1
        // 3 × 14000 by query; the searches that they were are not counted again. 2 × 30000 for containers.
        ("searches by query", &searcher, Usage { input: 1, web_searches: 1, web_queries: 3, ..NONE }, 1 + 42_000),
        ("searches without their queries", &searcher, Usage { input: 1, web_searches: 1, ..NONE }, 1 + 35_000),
        ("code that was run", &searcher, Usage { code_sessions: 2, ..NONE }, 60_000),
        // What was asked for as usual costs no more than that, whatever the answer says.
        ("flex", &tiered, Usage { input: 1_000, output: 100, service: Some(Service::Flex), ..NONE }, 500 + 200),
        (
            "priority unasked",
            &tiered,
            Usage { input: 1_000, output: 100, service: Some(Service::Priority), ..NONE },
            1_400,
        ),
        ("audio from a cache", &gemini, Usage { audio_in: 1_000, audio_cached: 1_000, ..NONE }, 1_100),
        // 1000 × 0.15 + 100 × 0.6 + 200 × 3.5
        ("reasoning of its own price", &thinker, Usage { input: 1_000, output: 100, reasoning: 200, ..NONE }, 910),
        ("reasoning as output", &claude, Usage { output: 100, reasoning: 200, ..NONE }, 4_500),
        // 100 × 2.5 + 50 × 40 + 10 × 10 + 30 × 80
        ("speaking", &voice, Usage { input: 100, audio_in: 50, output: 10, audio_out: 30, ..NONE }, 4_750),
        // 50 × 5 + 323 × 10 + 1056 × 40
        (
            "drawing by the token",
            &painter,
            Usage { input: 50, image_in: 323, image_out: 1_056, images_made: 1, ..NONE },
            45_720,
        ),
        ("looking at pictures", &seer, Usage { input: 10, images: 3, ..NONE }, 10 + 1_086),
        // 10 + 20 + 0.005 + 3 × 0.005
        ("a request and its searches", &sonar, Usage { input: 10, output: 20, web_searches: 3, ..NONE }, 20_030),
        ("a request alone", &sonar, NONE, 5_000),
        // 8.47 s
        ("listening", &whisper, Usage { audio_ms: 8_470, ..NONE }, 847),
        ("a millisecond", &whisper, Usage { audio_ms: 1, ..NONE }, 1),
        ("reading aloud", &tts, Usage { characters: 4_096, ..NONE }, 61_440),
        ("ranking", &rerank, Usage { queries: 3, ..NONE }, 6_000),
        // 101 × 0.02 = 2.02
        ("embedding", &embedding, Usage { input: 101, ..NONE }, 3),
        ("nothing", &embedding, NONE, 1),
    ];
    for (what, pricing, usage, msat) in &rows {
        let prices = prices((*pricing).clone()).for_service(AskedService::Standard);
        let card = card(prices, usd("100000", "1", "1"));
        assert_eq!(card.price(usage).unwrap().total.get(), *msat, "{what}");
        // Half a dollar is twice the bitcoin; with fees, all of it is dearer, and rounded once.
        let dear = RateCard { conversion: usd("50000", "1.005", "1.05"), ..card.clone() };
        let list = card.price(usage).unwrap().usd.unwrap();
        let exact = list * decimal("1.05525") * decimal("2000000");
        let expected = u64::try_from(exact.ceil()).unwrap().max(1);
        assert_eq!(dear.price(usage).unwrap().total.get(), expected, "{what}");
    }
    // Pictures by quality and size; two of each.
    for (quality, size, msat) in [
        ("standard", "1024x1024", 80_000),
        ("standard", "1024x1792", 160_000),
        ("hd", "1024x1024", 160_000),
        ("hd", "1024x1792", 240_000),
    ] {
        let card = card(prices(dalle.clone()).for_picture(quality, size, 0), usd("100000", "1", "1"));
        let made = Usage { images_made: 2, ..NONE };
        assert_eq!(card.price(&made).unwrap().total.get(), msat, "{quality} {size}");
    }
}

/// Prices of a model of any kind. In a tier nothing is cheaper than outside.
fn any_prices() -> impl Strategy<Value = Prices> {
    let price = || (0_i64..1_000_000, 8_u32..=12).prop_map(|(digits, places)| Decimal::new(digits, places));
    let some = move || proptest::option::of(price());
    let text = (price(), price(), some(), some(), some(), some());
    let more = (some(), some(), some(), some(), some(), some(), some(), some());
    let units = (price(), price(), price(), price());
    let tiers = proptest::collection::vec((1_u64..300, 1_i64..30), 0..3);
    (text, more, units, tiers).prop_map(|(text, more, units, tiers)| {
        let (prompt, completion, reasoning, read, write, hour) = text;
        let (audio, audio_cached, audio_output, image_token, image_output, query, second, character) = more;
        let (request, image, web_search, picture) = units;
        let hundred = Decimal::from(100);
        let mut prices = Prices {
            prompt,
            completion,
            request: request * hundred,
            image: image * hundred,
            web_search: web_search * hundred,
            internal_reasoning: reasoning,
            input_cache_read: read,
            input_cache_write: write,
            // An hour is dearer than minutes.
            input_cache_write_1h: hour.map(|more| more + write.unwrap_or(prompt)),
            audio,
            input_audio_cache: audio_cached,
            audio_output,
            image_token,
            image_output,
            output_images: [(String::new(), picture * hundred)].into(),
            web_query: None,
            code_session: None,
            query,
            second,
            character,
            tiers: Vec::new(),
            services: Vec::new(),
        };
        let mut above: Vec<u64> = tiers.iter().map(|(length, _)| length * 1_000).collect();
        above.sort_unstable();
        above.dedup();
        let mut factor = Decimal::ONE;
        for (above, (_, dearer)) in above.into_iter().zip(&tiers) {
            factor += Decimal::new(*dearer, 1);
            let (prompt, completion) = (prices.prompt * factor, prices.completion * factor);
            let scaled = |price: Option<Decimal>| price.map(|price| price * factor);
            let long = Prices {
                prompt,
                completion,
                input_cache_read: scaled(prices.input_cache_read),
                input_cache_write: scaled(prices.input_cache_write),
                tiers: Vec::new(),
                ..prices.clone()
            };
            prices.tiers.push(Tier { above, prices: long });
        }
        prices
    })
}

/// With a factor of a profile and one of an hour.
fn dealt(prices: &Prices, profile: i64, window: i64) -> Prices {
    let own = Arc::new(Profile {
        name: "p".to_owned(),
        multiplier: Decimal::new(profile, 3),
        models: Filter::default(),
        below_cost: true,
    });
    let hour = Window {
        name: "w".to_owned(),
        multiplier: Decimal::new(window, 2),
        models: Filter::default(),
        below_cost: true,
        starts: 0,
        ends: 0,
        days: ALL_DAYS,
        utc_offset: 0,
    };
    let tariffs = Tariffs { profiles: Vec::new(), windows: vec![Arc::new(hour)] };
    let deal = tariffs.deal(Some(&own), "m", 0, || None).unwrap();
    prices.times(deal.multiplier).unwrap()
}

fn any_conversion() -> impl Strategy<Value = Conversion> {
    let fee = || (0_i64..3_000).prop_map(|more| Decimal::new(10_000 + more, 4));
    (100_000_i64..100_000_000, fee(), fee(), any::<bool>()).prop_map(|(cents, exchange_fee, provider_fee, in_usd)| {
        match in_usd {
            true => Conversion::Usd { btc_usd: Decimal::new(cents, 2), exchange_fee, provider_fee },
            false => Conversion::Sat,
        }
    })
}

fn any_usage() -> impl Strategy<Value = Usage> {
    let tokens = || 0_u64..200_000;
    let input = (tokens(), tokens(), tokens(), tokens(), 0_u64..10_000, 0_u64..10_000, 0_u64..10_000);
    let output = (tokens(), tokens(), 0_u64..10_000, 1_u64..10_000);
    let units = (0_u64..20, 0_u64..5, 0_u64..20, 0_u64..20, 0_u64..10_000_000, 0_u64..100_000);
    (input, output, units).prop_map(|(input, output, units)| Usage {
        input: input.0,
        cache_read: input.1,
        cache_write: input.2,
        cache_write_1h: input.3,
        audio_in: input.4,
        audio_cached: input.5,
        image_in: input.6,
        output: output.0,
        reasoning: output.1,
        audio_out: output.2,
        image_out: output.3,
        images: units.0,
        images_made: units.1,
        web_searches: units.2,
        queries: units.3,
        audio_ms: units.4,
        characters: units.5,
        ..Usage::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is used more of, the cost does not fall; nor does it when a bitcoin is worth less.
    #[test]
    fn more_never_costs_less(
        prices in any_prices(), exchange in any_conversion(), used in any_usage(), more in 1_u64..100_000,
        profile in 1_i64..3_000, window in 1_i64..300,
    ) {
        let card = card(dealt(&prices, profile, window), exchange);
        let cost = card.price(&used).unwrap();
        let parts = [cost.base, cost.input, cost.cache_read, cost.cache_write, cost.output];
        prop_assert_eq!(parts.iter().map(|part| part.get()).sum::<u64>(), cost.total.get());
        let steps: [fn(&mut Usage) -> &mut u64; 17] = [
            |used| &mut used.input, |used| &mut used.cache_read, |used| &mut used.cache_write,
            |used| &mut used.cache_write_1h, |used| &mut used.audio_in, |used| &mut used.audio_cached,
            |used| &mut used.image_in, |used| &mut used.output, |used| &mut used.reasoning,
            |used| &mut used.audio_out, |used| &mut used.image_out, |used| &mut used.images,
            |used| &mut used.images_made, |used| &mut used.web_searches, |used| &mut used.queries,
            |used| &mut used.audio_ms, |used| &mut used.characters,
        ];
        for (at, step) in steps.iter().enumerate() {
            let mut grown = used;
            *step(&mut grown) += more;
            // Pictures are billed by their tokens where these have a price, by the piece otherwise.
            if at == 12 && used.images_made == 0 && card.prices.image_output.is_none() {
                continue;
            }
            let dearer = card.price(&grown).unwrap();
            prop_assert!(dearer.total >= cost.total, "{at}: {} then {}", cost.total, dearer.total);
        }
        if let Conversion::Usd { btc_usd, exchange_fee, provider_fee } = card.conversion.clone() {
            let weaker = Conversion::Usd { btc_usd: btc_usd / Decimal::TWO, exchange_fee, provider_fee };
            let dearer = RateCard { conversion: weaker, ..card }.price(&used).unwrap();
            prop_assert!(dearer.total >= cost.total);
        }
    }

    /// What a request may use by its own words is held for, whatever it is: to the msat where nothing is
    /// knocked off for tolerance, and less that share otherwise. One msat is the rounding of the network's
    /// formula, which rounds down. Its room for a prompt is the context less the longest answer; what a model
    /// takes beyond that, with a short answer, the formula does not hold for.
    #[test]
    fn a_hold_is_enough(
        prices in any_prices(), exchange in any_conversion(),
        profile in 1_i64..3_000, window in 1_i64..300, tolerance in 0_i64..3,
        (context, most) in (1_000_u64..1_000_000, 0_u64..120),
        (prompt, extra, pictures, asked) in (0_u64..100, 0_u64..100, 0_u64..50, proptest::option::of(0_u64..=100)),
        shares in proptest::collection::vec(0_u64..100, 12),
        demand in (0_u8..3, any::<bool>(), any::<bool>(), 0_u64..5, 0_u64..9, 0_u64..9, 0_u64..1_000_000, 0_u64..9_999),
        (images, choices) in (0_u64..9, 1_u64..4),
    ) {
        let card = card(dealt(&prices, profile, window), exchange);
        let share = |of: u64, percent: u64| of * percent / 100;
        // From no limit known to one that is no limit.
        let max_completion = (most > 0).then(|| share(context, most).max(1));
        let limits = Limits { context: Some(context), max_completion };
        let room = max_completion.filter(|most| *most < context).map_or(context, |most| context - most);
        // The prompt, tools and pictures together fill the room or less.
        let tokens = share(room, prompt);
        let (image_tokens, more_tokens) = (share(tokens, pictures), share(tokens, extra) / 2);
        let chars = (tokens - image_tokens - more_tokens) * 3;
        // What has no price is refused, so nobody asks for it.
        let sold = |price: Option<Decimal>| price.is_some_and(|price| !price.is_zero());
        let (cache, speaks, draws, made, searches, queries, audio_ms, characters) = demand;
        let (speaks, draws) = (speaks && sold(card.prices.audio_output), draws && sold(card.prices.image_output));
        let audio_in = if sold(card.prices.audio) { 7 } else { 0 };
        let audio_ms = if sold(card.prices.second) { audio_ms } else { 0 };
        // Where no limit is known, prices in sats are reckoned with 32,000 tokens.
        let unknown = if matches!(card.conversion, Conversion::Sat) { 32_000 } else { context };
        let longest = max_completion.unwrap_or(unknown).min(context);
        let max_output = asked.map(|percent| share(longest, percent));
        let shape = WorstCase {
            prompt_chars: chars, extra_chars: 0, image_tokens, images, max_output, choices, prompts: 1, more_tokens,
            demand: Demand {
                cache_writes: [CacheWrites::None, CacheWrites::Minutes, CacheWrites::Hour][usize::from(cache)],
                audio_out: speaks, image_out: draws, images_made: made, tokens_per_image: 300,
                web_searches: searches, queries, audio_ms, characters, audio_in,
                ..Demand::default()
            },
        };
        // What of it is used, and how.
        let input = shape.prompt_tokens() + shape.extra_tokens();
        let answer = max_output.unwrap_or(longest).min(context - input.min(context));
        let output = answer * choices;
        let mut left = input;
        let mut take = |percent: u64, may: bool, most: u64| {
            let taken = if may { share(left, percent).min(most) } else { 0 };
            left -= taken;
            taken
        };
        let hour = take(shares[0], cache == 2, u64::MAX);
        let minutes = take(shares[1], cache >= 1, u64::MAX);
        let read = take(shares[2], true, u64::MAX);
        let seen = take(shares[3], true, image_tokens);
        let spoken = share(output, if speaks { shares[4] } else { 0 });
        let drawn = share(output - spoken, if draws && made == 0 { shares[5] } else { 0 });
        let reasoning = share(output - spoken - drawn, shares[6]);
        let by_token = shares[7] > 50 && card.prices.image_output.is_some();
        let heard = share(audio_in, shares[8]);
        let used = Usage {
            input: left, cache_read: read, cache_write: minutes, cache_write_1h: hour, image_in: seen,
            audio_in: audio_in - heard, audio_cached: heard,
            output: output - spoken - drawn - reasoning, reasoning, audio_out: spoken,
            image_out: if made > 0 && by_token { made * 300 } else { drawn },
            images, images_made: made, web_searches: searches, queries,
            audio_ms,
            characters,
            ..Usage::default()
        };
        let cost = card.price(&used).unwrap().total.get();
        let held = hold(limits, &card, &shape, Decimal::from(tolerance)).unwrap().get();
        let most = limits.maxima(&card.prices).unwrap().total * Decimal::from(tolerance) / Decimal::from(100);
        let knocked_off = match &card.conversion {
            Conversion::Usd { .. } => card.conversion.ceil_msat(most).unwrap().get() + 1,
            Conversion::Sat => 0,
        };
        prop_assert!(held + knocked_off >= cost, "held {held}, cost {cost}: {limits:?} {shape:?} {used:?} {:?}", card.prices);
    }

    /// A charge is the exact amount, rounded up, with any factors; reckoned in integers beside.
    #[test]
    fn a_charge_is_the_exact_amount_rounded_up(
        prompt in 0_u64..1_000_000, completion in 0_u64..1_000_000, input in 0_u64..5_000_000,
        output in 0_u64..5_000_000, factor in 0_u64..2_000_000, exchange in 10_000_u64..13_000,
        provider in 10_000_u64..13_000, cents in 100_000_u64..100_000_000,
    ) {
        let digits = |number: u64, places: u32| Decimal::from_i128_with_scale(i128::from(number), places);
        let list = Prices { prompt: digits(prompt, 12), completion: digits(completion, 12), ..Prices::default() };
        let card = RateCard {
            prices: list.times(digits(factor, 6)).unwrap(),
            conversion: Conversion::Usd {
                btc_usd: digits(cents, 2), exchange_fee: digits(exchange, 4), provider_fee: digits(provider, 4),
            },
            minimum: Msat::ZERO,
        };
        let charged = card.price(&Usage { input, output, ..Usage::default() }).unwrap().total.get();
        // 12 + 6 + 4 + 4 places less 11 of the bitcoin's msat and 2 of the cents.
        let list = u128::from(input) * u128::from(prompt) + u128::from(output) * u128::from(completion);
        let above = list * u128::from(factor) * u128::from(exchange) * u128::from(provider);
        let below = u128::from(cents) * 10_u128.pow(26 - 13);
        prop_assert_eq!(u128::from(charged), above.div_ceil(below));
    }
}

/// A million requests: each is charged the exact amount rounded up, so the sum is above the exact one by
/// less than a msat for each, and never below.
#[test]
fn a_million_requests_do_not_drift() {
    const REQUESTS: u64 = 1_000_000;
    let list = Prices { prompt: decimal("0.00000015"), completion: decimal("0.0000006"), ..Prices::default() };
    let card = card(list, usd("97531.24", "1.005", "1.05"));
    let (mut charged, mut exact, mut state) = (0_u128, 0_u128, 1_u64);
    // 15 and 60 at 8 places, the fees at 5, the bitcoin's msat at 11 and the cents at 2.
    let below = 9_753_124_u128;
    for _ in 0..REQUESTS {
        // Knuth's generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (input, output) = ((state >> 44) % 20_000 + 1, (state >> 20) % 2_000);
        let cost = card.price(&Usage { input, output, ..Usage::default() }).unwrap().total.get();
        let above = (u128::from(input) * 15 + u128::from(output) * 60) * 105_525;
        assert_eq!(u128::from(cost), above.div_ceil(below), "{input} {output}");
        charged += u128::from(cost);
        exact += above;
    }
    let over = charged * below - exact;
    assert!(over < u128::from(REQUESTS) * below, "less than a msat each");
    assert!(over > 0);
}
