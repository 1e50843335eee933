//! What must hold in every dialect: an input's first line names the endpoint, the rest is the body.

use bytes::Bytes;
use coinslot::dialect::body::Lens;
use coinslot::dialect::sse::{self, Framer};
use coinslot::dialect::{AnswerBody, Dialect, REGISTRY, Reading, Request, Shape, Step};
use coinslot::money::Usage;

use crate::bodies::receipt;
use crate::engine::{kind, order};

const FORM: &str = "multipart/form-data; boundary=abc";

/// The endpoint that an input is for, by name or by luck, and its body.
fn parted(input: &[u8]) -> (&'static dyn Dialect, &[u8]) {
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (name, body) = input.split_at(at);
    let body = body.strip_prefix(b"\n").unwrap_or(body);
    let found = REGISTRY.iter().find(|dialect| dialect.path().as_bytes() == name);
    let luck = name.iter().fold(input.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    (*found.unwrap_or(&REGISTRY[luck % REGISTRY.len()]), body)
}

fn request<'a>(dialect: &dyn Dialect, body: &'a Bytes) -> Request<'a> {
    let model = dialect.is_of_a_model().then_some("my/model");
    let media = if body.starts_with(b"--") { FORM } else { "application/json" };
    Request { model, wants_events: body.len().is_multiple_of(2), media, body }
}

/// A request that is read is bounded, and what is forwarded is the same request for another model.
pub fn request_body(input: &[u8]) -> u64 {
    let (dialect, body) = parted(input);
    let body = Bytes::copy_from_slice(body);
    let asked = request(dialect, &body);
    let shape = match dialect.read(&asked) {
        Ok(shape) => shape,
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() < 300, "{said}");
            return kind((dialect.path(), said.split(" at line").next().map(str::to_owned)));
        }
    };
    let size = u64::try_from(body.len()).unwrap();
    assert!(!shape.model.is_empty() && shape.model.chars().count() <= 256);
    assert!((1..=2048).contains(&shape.choices), "{}", shape.choices);
    assert!(shape.max_output.is_none_or(|limit| limit <= 10_000_000));
    assert!(shape.prompt_chars <= size && shape.extra_chars <= size && shape.given_tokens <= size);
    assert!(shape.demand.images_made <= 10_000_000 && shape.demand.characters <= size && shape.images <= size);
    let again = dialect.forward(&asked, &shape, &shape.model).expect("it was read");
    let changed = dialect.forward(&asked, &shape, "another/model").expect("it was read");
    if dialect.is_of_a_model() {
        assert!(changed.path.starts_with("models/another/model:"), "{}", changed.path);
    } else {
        let body = changed.body.joined();
        let asked = Request { media: &changed.media, ..request(dialect, &body) };
        let read = dialect.read(&asked).expect("what is forwarded can be read");
        assert_eq!((read.model.as_str(), read.stream), ("another/model", shape.stream));
        assert_eq!(read.demand, shape.demand, "what is forwarded demands the same");
    }
    // Each request of a batch names its model again.
    assert!(dialect.is_of_a_model() || again.body.size() <= body.len() + 100);
    assert!(changed.headers.is_empty());
    kind((
        dialect.path(),
        shape.stream,
        order(usize::try_from(shape.prompt_chars).unwrap()),
        shape.demand.web_searches > 0,
    ))
}

fn plausible(reading: Reading) -> (bool, u32) {
    match reading {
        Reading::Reported(usage) => (true, order(usize::try_from(usage.total_input()).unwrap())),
        Reading::Unreported { .. } | Reading::Seen { .. } | Reading::Silent => (false, 0),
    }
}

/// The receipt of a reading, as settlement would write it.
fn billed(reading: Reading) -> coinslot::dialect::Receipt {
    match reading {
        Reading::Reported(usage) if !usage.is_plausible() => receipt(Reading::Reported(Usage::default())),
        reading => receipt(reading),
    }
}

fn asked(as_array: bool) -> Shape {
    Shape { model: "my/model".to_owned(), stream: true, choices: 1, as_array, ..Shape::default() }
}

/// An answer is an answer or a failure; JSON stays JSON when the bill is written into it.
pub fn answer(input: &[u8]) -> u64 {
    let (dialect, body) = parted(input);
    let media = if dialect.path() == "audio/speech" { "audio/mpeg" } else { "application/json" };
    let reading = match dialect.read_answer(AnswerBody { media, bytes: body }, &asked(false)) {
        Ok(reading) => reading,
        Err(error) => {
            let said = error.to_string();
            assert!(said.chars().count() < 600, "{said}");
            return kind((dialect.path(), std::mem::discriminant(&error)));
        }
    };
    let stamped = dialect.stamp(&Bytes::copy_from_slice(body), &asked(false), &billed(reading));
    assert_eq!(Lens::parse(body).is_ok(), Lens::parse(&stamped).is_ok(), "JSON stays JSON");
    kind((dialect.path(), plausible(reading)))
}

fn events(input: &[u8]) -> Vec<Bytes> {
    let (mut framer, mut found) = (Framer::new(), Vec::new());
    framer.push(Bytes::copy_from_slice(input));
    while let Ok(Some(event)) = framer.next_event() {
        found.push(event);
    }
    found.extend(framer.finish());
    found
}

/// Whatever a stream is, each of its events is one event, an error is one event, and so is the bill.
pub fn stream(input: &[u8]) -> u64 {
    let (dialect, body) = parted(input);
    let mut meter = dialect.meter(&asked(false));
    let (mut forwarded, mut errors) = (0_usize, 0_usize);
    for event in events(body).iter().take(300) {
        match meter.observe(event) {
            Step::Forward(bytes) => {
                forwarded += 1;
                // Behind another, for at the start of a stream a byte order mark is no part of an event.
                let stream = [b":\n\n", bytes.as_ref()].concat();
                assert_eq!(events(&stream).len(), 2, "one event is one event: {bytes:?}");
            }
            Step::HoldBack => {}
            Step::Error(said) => {
                errors += 1;
                assert!(said.message.chars().count() <= 500);
                let told = meter.error_event(&said.message, "upstream_error", "upstream_error");
                assert!(told.is_empty() || events(&told) == [told.clone()], "{told:?}");
            }
        }
    }
    let reading = meter.reading();
    if meter.is_complete() {
        let closing = meter.closing(&billed(reading));
        assert_eq!(events(&closing).len(), 1, "{closing:?}");
        let data = sse::data_of(&closing).expect("data").into_owned();
        assert!(memchr::memmem::find(&data, b"total_msats").is_some(), "{closing:?}");
        let end = meter.terminator();
        assert!(end.is_empty() || events(&end).len() == 1, "{end:?}");
    }
    kind((
        dialect.path(),
        meter.has_content(),
        meter.is_complete(),
        plausible(reading),
        order(forwarded),
        order(errors),
    ))
}
