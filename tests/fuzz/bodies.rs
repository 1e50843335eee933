//! What clients and upstreams send: request bodies, answers, streams.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use bytes::Bytes;
use coinslot::dialect::body::Lens;
use coinslot::dialect::sse::{self, Framer, TooLong};
use coinslot::dialect::{
    AnswerBody, BadAnswer, BadRequest, Dialect, Meter, Reading, Receipt, Request, Shape, Step, for_path,
};
use coinslot::money::rate::Conversion;
use coinslot::money::{Cost, Msat, Prices, RateCard, Usage};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::engine::{kind, order};

const LIMIT: usize = 512;

/// Sizes of pieces that follow from the bytes themselves, so that an input is always cut alike.
fn pieces(input: &[u8]) -> Vec<Bytes> {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let mut state = hasher.finish();
    let (mut rest, mut cut) = (input, Vec::new());
    while !rest.is_empty() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let size = usize::try_from(state >> 59).unwrap().max(1).min(rest.len());
        let (head, tail) = rest.split_at(size);
        cut.push(Bytes::copy_from_slice(head));
        rest = tail;
    }
    cut
}

fn events(pieces: impl IntoIterator<Item = Bytes>, limit: usize) -> (Vec<Bytes>, Option<TooLong>) {
    let mut framer = Framer::with_limit(limit);
    let mut found = Vec::new();
    for piece in pieces {
        framer.push(piece);
        loop {
            match framer.next_event() {
                Ok(Some(event)) => found.push(event),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(framer.next_event(), Err(error), "an event that was too long stays too long");
                    return (found, Some(error));
                }
            }
        }
    }
    found.extend(framer.finish());
    (found, None)
}

fn is_break(byte: &u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Events do not depend on how the network cut them, lose no byte but blank lines, and are bounded.
pub fn sse(input: &[u8]) -> u64 {
    let whole = events([Bytes::copy_from_slice(input)], usize::MAX);
    let cut = events(pieces(input), usize::MAX);
    assert_eq!(whole, cut);
    let (whole, _) = whole;
    let bare = input.strip_prefix("\u{feff}".as_bytes()).unwrap_or(input);
    let kept: Vec<u8> = whole.iter().flatten().copied().filter(|byte| !is_break(byte)).collect();
    let came: Vec<u8> = bare.iter().copied().filter(|byte| !is_break(byte)).collect();
    assert_eq!(kept, came, "bytes were lost or made");
    let mut data = 0;
    for event in &whole {
        assert!(event.last().is_some_and(is_break) && !event.iter().all(is_break), "no event: {event:?}");
        // At the head of a stream, a second byte order mark would be taken for the first.
        if event.starts_with("\u{feff}".as_bytes()) {
            continue;
        }
        // Sent on as it is, it is one event.
        assert_eq!(events([event.clone()], usize::MAX).0.len(), 1, "{event:?}");
        let changed = sse::with_data(event, b"{\"a\":1}");
        if sse::data_of(event).is_some() {
            data += 1;
            assert_eq!(sse::data_of(&changed).as_deref(), Some(&b"{\"a\":1}"[..]), "{event:?}");
            assert_eq!(events([changed.clone()], usize::MAX).0, [changed], "{event:?}");
        } else {
            assert_eq!(&changed, event, "nothing to replace");
        }
    }
    let (short, error) = events(pieces(input), LIMIT);
    assert!(short.iter().all(|event| event.len() <= LIMIT + 2));
    kind((order(whole.len()), order(data), error.is_some(), order(input.len())))
}

fn chat() -> &'static dyn Dialect {
    for_path("chat/completions").expect("a dialect")
}

fn read(dialect: &dyn Dialect, body: &[u8]) -> Result<Shape, BadRequest> {
    dialect.read(&Request::of(&Bytes::copy_from_slice(body)))
}

fn forward(dialect: &dyn Dialect, body: &Bytes, shape: &Shape, model: &str) -> Bytes {
    dialect.forward(&Request::of(body), shape, model).expect("it was read").body.joined()
}

fn read_answer(dialect: &dyn Dialect, bytes: &[u8]) -> Result<Reading, BadAnswer> {
    dialect.read_answer(AnswerBody { media: "application/json", bytes }, &asked())
}

/// What a client asked whose answer is looked at.
fn asked() -> Shape {
    Shape { model: "my/model".to_owned(), choices: 1, ..Shape::default() }
}

/// Members by their text, but for these.
fn others<'a>(lens: &'a Lens<'_>, but: &[&str]) -> Vec<(&'a str, &'a str)> {
    lens.members().filter(|(name, _)| !but.contains(name)).map(|(name, value)| (name, value.get())).collect()
}

/// What is read of a request is bounded; what is forwarded is what came, but for what had to change.
pub fn body(input: &[u8]) -> u64 {
    let shape = match read(chat(), input) {
        Ok(shape) => shape,
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() < 300, "{said}");
            return kind(said.split(" at line").next());
        }
    };
    let chars = u64::try_from(input.len()).unwrap();
    assert!(!shape.model.is_empty() && shape.model.chars().count() <= 256);
    assert!((1..=128).contains(&shape.choices));
    assert!(shape.max_output.is_none_or(|limit| (1..=10_000_000).contains(&limit)));
    assert!(shape.prompt_chars <= chars && shape.extra_chars <= chars && shape.images <= chars);
    assert!(shape.image_tokens >= 85 * shape.images && shape.image_tokens <= 100_000 * shape.images);
    let came = Bytes::copy_from_slice(input);
    let same = forward(chat(), &came, &shape, &shape.model);
    if !shape.stream || shape.wants_usage {
        assert_eq!(same.as_ptr(), came.as_ptr(), "nothing has to change, nothing is copied");
    }
    let changed = forward(chat(), &came, &shape, "another/model");
    let (before, after) = (Lens::parse(input).expect("read"), Lens::parse(&changed).expect("JSON stays JSON"));
    let edited = ["model", "stream_options"];
    assert_eq!(others(&before, &edited), others(&after, &edited), "a byte that is none of ours changed");
    let again = read(chat(), &changed).expect("it can be read again");
    let wants_usage = shape.wants_usage || shape.stream;
    assert_eq!(again, Shape { model: "another/model".to_owned(), wants_usage, ..shape.clone() });
    kind((
        shape.stream,
        shape.wants_usage,
        shape.max_output.is_some(),
        order(usize::try_from(shape.prompt_chars).unwrap()),
        order(usize::try_from(shape.images).unwrap()),
    ))
}

fn card() -> RateCard {
    let price = |text: &str| text.parse::<Decimal>().unwrap();
    RateCard {
        prices: Prices {
            prompt: price("0.00001"),
            completion: price("0.00002"),
            request: Decimal::ZERO,
            image: Decimal::ZERO,
            web_search: Decimal::ZERO,
            internal_reasoning: Some(price("0.00003")),
            input_cache_read: Some(price("0.000001")),
            input_cache_write: Some(price("0.0000125")),
            ..Prices::default()
        },
        conversion: Conversion::Usd {
            btc_usd: price("100000"),
            exchange_fee: Decimal::ONE,
            provider_fee: Decimal::ONE,
        },
        minimum: Msat::new(1).unwrap(),
    }
}

/// What a reading costs, never more than was held.
pub fn receipt(reading: Reading) -> Receipt {
    let held = Msat::new(50_000).unwrap();
    let cost = match reading {
        Reading::Reported(usage) => {
            assert!(usage.is_plausible(), "{usage:?}");
            let cost = card().price(&usage).expect("plausible usage has a price");
            let parts = [cost.base, cost.input, cost.cache_read, cost.cache_write, cost.output];
            assert_eq!(parts.iter().map(|part| part.get()).sum::<u64>(), cost.total.get(), "the parts are the total");
            let total = cost.total.get();
            let (bounded, over) = cost.bounded_by(held);
            assert!(bounded.total <= held && bounded.total.get() + over.get() == total);
            bounded
        }
        Reading::Unreported { .. } | Reading::Seen { .. } | Reading::Silent => {
            Cost::fixed(Usage::default(), held).expect("a cost")
        }
    };
    Receipt { cost, remaining: Msat::new(7), provider: "toy".to_owned(), model: "toy/echo-1".to_owned(), btc_usd: None }
}

/// What an answer says is bounded; its receipt is in it, and all else as it came.
pub fn answer(input: &[u8]) -> u64 {
    let reading = match read_answer(chat(), input) {
        Ok(reading) => reading,
        Err(error) => {
            let said = error.to_string();
            assert!(said.chars().count() < 600, "{said}");
            return kind((std::mem::discriminant(&error), order(said.len())));
        }
    };
    let receipt = receipt(reading);
    let came = Bytes::copy_from_slice(input);
    let stamped = chat().stamp(&came, &asked(), &receipt);
    let (before, after) = (Lens::parse(input).expect("read"), Lens::parse(&stamped).expect("JSON stays JSON"));
    let edited = ["model", "usage", "cost", "metadata", "provider"];
    assert_eq!(others(&before, &edited), others(&after, &edited), "a byte that is none of ours changed");
    let usage: Value = serde_json::from_str(after.get("usage").expect("usage").get()).unwrap_or_default();
    // Numbers that no `Value` can hold may stand beside it.
    if !usage.is_null() {
        assert_eq!(usage["cost"]["total_msats"], json!(receipt.cost.total.get()));
        assert_eq!(usage["remaining_balance_msats"], json!(7));
    }
    let unreported = |chars: u64| (false, order(usize::try_from(chars).unwrap()), 0);
    kind(match reading {
        Reading::Reported(usage) => (
            true,
            order(usize::try_from(usage.total_input()).unwrap()),
            u8::from(usage.cache_read > 0) + 2 * u8::from(usage.cache_write > 0) + 4 * u8::from(usage.reasoning > 0),
        ),
        Reading::Unreported { output_chars } | Reading::Seen { output_chars, .. } => unreported(output_chars),
        Reading::Silent => unreported(0),
    })
}

/// A stream is forwarded event by event and closed with one event of ours, whatever came before.
pub fn stream(input: &[u8]) -> u64 {
    let shape = Shape { model: "my/model".to_owned(), stream: true, choices: 1, ..Shape::default() };
    let mut meter: Box<dyn Meter> = chat().meter(&shape);
    let (found, _) = events(pieces(input), 4 * 1024 * 1024);
    let (mut forwarded, mut held, mut errors) = (0_usize, 0_usize, 0_usize);
    for event in found.iter().take(300) {
        match meter.observe(event) {
            Step::Forward(bytes) => {
                forwarded += 1;
                assert_eq!(events([bytes.clone()], usize::MAX).0.len(), 1, "one event is one event: {bytes:?}");
                let is_end = sse::data_of(&bytes).is_some_and(|data| data.trim_ascii() == b"[DONE]");
                assert!(!is_end, "the terminator is ours to send");
            }
            Step::HoldBack => held += 1,
            Step::Error(said) => {
                errors += 1;
                assert!(said.message.chars().count() <= 500);
                let told = meter.error_event(&said.message, "upstream_error", "upstream_failed");
                assert_eq!(events([told.clone()], usize::MAX).0, [told], "one event, whatever the upstream said");
            }
        }
    }
    let chars = u64::try_from(input.len()).unwrap();
    let reading = meter.reading();
    if let Reading::Unreported { output_chars } | Reading::Seen { output_chars, .. } = reading {
        assert!(output_chars <= chars);
    }
    let receipt = receipt(reading);
    let closing = meter.closing(&receipt);
    assert_eq!(events([closing.clone()], usize::MAX).0.len(), 1, "{closing:?}");
    let data = sse::data_of(&closing).expect("data").into_owned();
    let lens = Lens::parse(&data).unwrap_or_else(|error| panic!("{error}: {closing:?}"));
    let cost = lens.object("cost").expect("a bill");
    assert_eq!(cost.get("total_msats").expect("a total").get(), receipt.cost.total.get().to_string());
    let flags =
        (meter.has_content(), meter.is_complete(), meter.is_terminated(), matches!(reading, Reading::Reported(_)));
    kind((flags, order(forwarded), order(held), order(errors)))
}
