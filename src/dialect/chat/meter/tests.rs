use serde_json::Value;

use super::super::Chat;
use super::super::testing::{Outcome, play};
use super::*;
use crate::dialect::Dialect;
use crate::dialect::sse::Framer;
use crate::money::UsageSource;

fn run<'a>(wants_usage: bool, chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let shape = Shape { model: "m".into(), stream: true, wants_usage, ..Shape::default() };
    play(Chat.meter(&shape), chunks)
}

/// The last object a client gets.
fn last_object(client: &str) -> Value {
    let line = client.lines().rfind(|line| line.starts_with("data: {")).unwrap();
    serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap()
}

const ROLE: &str = r#"data: {"id":"c1","created":7,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}"#;
const TEXT: &str = r#"data: {"id":"c1","created":7,"model":"m","choices":[{"index":0,"delta":{"content":"h😀\n"},"finish_reason":null}]}"#;
const STOP: &str =
    r#"data: {"id":"c1","created":7,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str =
    r#"data: {"id":"c1","created":7,"model":"m","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}"#;
const STOP_USAGE: &str = r#"data: {"id":"c1","model":"m","choices":[{"index":0,"delta":{"content":"!"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":4}}"#;
const TEXT_USAGE: &str = r#"data: {"id":"c1","model":"m","choices":[{"index":0,"delta":{"content":"!"}}],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;
const ZEROS: &str = r#"data: {"id":"c1","model":"m","choices":[{"index":0,"delta":{"content":"!"}}],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}"#;
const GROQ: &str = r#"data: {"id":"c1","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"x_groq":{"id":"r","usage":{"prompt_tokens":9,"completion_tokens":4}}}"#;
const NAMELESS: &str = r#"data: {"choices":[{"index":0,"delta":{"content":"!"},"finish_reason":"stop"}]}"#;
const DONE_EVENT: &str = "data: [DONE]";

fn stream(events: &[&str]) -> String {
    events.iter().map(|event| format!("{event}\n\n")).collect()
}

fn reported(input: u64, output: u64) -> Reading {
    Reading::Reported(Usage { input, output, ..Usage::default() })
}

fn estimated(input: u64, output: u64) -> Reading {
    Reading::Reported(Usage { input, output, source: UsageSource::Estimated, ..Usage::default() })
}

#[test]
fn what_is_forwarded_and_what_is_known() {
    let unreported = |output_chars| Reading::Unreported { output_chars };
    for (events, forwarded, reading, has_content, is_complete) in [
        (&[ROLE, TEXT, STOP, USAGE, DONE_EVENT][..], &[ROLE, TEXT, STOP][..], reported(10, 5), true, true),
        (&[": OPENROUTER PROCESSING", TEXT, STOP, DONE_EVENT], &[TEXT, STOP], unreported(3), true, true),
        (&[TEXT, STOP_USAGE, DONE_EVENT], &[TEXT], reported(9, 4), true, true),
        (&[TEXT, STOP_USAGE, USAGE, DONE_EVENT], &[TEXT, STOP_USAGE], reported(10, 5), true, true),
        (&[TEXT_USAGE, TEXT_USAGE, STOP, DONE_EVENT], &[TEXT_USAGE, TEXT_USAGE, STOP], reported(9, 1), true, true),
        (&[TEXT, GROQ, DONE_EVENT], &[TEXT], reported(9, 4), true, true),
        // Before the end, no less than was seen, and zeros are nothing.
        (&[TEXT_USAGE, TEXT, TEXT], &[TEXT_USAGE, TEXT, TEXT], estimated(9, 2), true, false),
        (&[TEXT_USAGE, TEXT], &[TEXT_USAGE, TEXT], reported(9, 1), true, false),
        (&[ZEROS, TEXT], &[ZEROS, TEXT], unreported(4), true, false),
        (&[ROLE, TEXT], &[ROLE, TEXT], unreported(3), true, false),
        (&[ROLE], &[ROLE], unreported(0), false, false),
        (&[DONE_EVENT], &[], unreported(0), false, false),
        (&[ROLE, DONE_EVENT], &[ROLE], unreported(0), false, false),
        (
            &["data: {\"cut", "data: []", "event: x", "data:"],
            &["data: {\"cut", "data: []", "event: x", "data:"],
            unreported(0),
            false,
            false,
        ),
        (&["id: 3\nevent: message\n"], &["id: 3\nevent: message\n"], unreported(0), false, false),
    ] {
        let outcome = run(true, [stream(events).as_bytes()]);
        let sent = stream(forwarded).replace("message\n\n\n", "message\n\n");
        assert!(outcome.client.starts_with(&sent), "{events:?}\n{}", outcome.client);
        assert_eq!(outcome.reading, reading, "{events:?}");
        assert_eq!((outcome.has_content, outcome.is_complete), (has_content, is_complete), "{events:?}");
        assert_eq!(outcome.client.matches("[DONE]").count(), usize::from(is_complete), "{events:?}");
        assert_eq!(outcome.client.matches("total_msats").count(), 3 * usize::from(is_complete));
        assert!(is_complete || outcome.client.len() == sent.len(), "{events:?}");
    }
}

#[test]
fn the_receipt_joins_the_usage_event() {
    for (events, wants_usage, choices, id, prompt) in [
        (&[TEXT, STOP, USAGE][..], true, "[]", "c1", 10),
        (&[TEXT, STOP, USAGE], false, CHAT.idle_choice, "c1", 10),
        (&[TEXT, STOP], true, "[]", "c1", 0),
        (&[TEXT, STOP], false, CHAT.idle_choice, "c1", 0),
        (&[NAMELESS], true, "[]", "chatcmpl-coinslot", 0),
        (&[GROQ], false, r#"[{"index":0,"delta":{},"finish_reason":"stop"}]"#, "c1", 9),
    ] {
        let object = last_object(&run(wants_usage, [stream(events).as_bytes()]).client);
        assert_eq!(object["choices"], serde_json::from_str::<Value>(choices).unwrap(), "{events:?}");
        assert_eq!((&object["id"], &object["model"]), (&id.into(), &"m".into()), "{events:?}");
        assert_eq!(object["usage"]["prompt_tokens"], prompt, "{events:?}");
        assert_eq!(object["usage"]["cost"]["total_msats"], 2475);
        assert_eq!(object["usage"]["remaining_balance_msats"], 5);
        assert_eq!(object["cost"]["sats_cost"], 2);
        assert_eq!(object["metadata"]["routstr"]["cost"]["total_msats"], 2475);
    }
    let made_up = last_object(&run(true, [stream(&[TEXT, STOP]).as_bytes()]).client);
    assert_eq!((&made_up["created"], &made_up["object"]), (&7.into(), &"chat.completion.chunk".into()));
}

#[test]
fn the_model_is_the_clients_everywhere() {
    let other = [ROLE, TEXT, STOP, USAGE].map(|event| event.replace(r#""model":"m""#, r#""model" : "vendor\/m""#));
    let events: Vec<String> = other.iter().map(|event| format!("id: 1\r\n{event}\r\n\r\n")).collect();
    let client = run(true, [events.concat().as_bytes()]).client;
    assert!(!client.contains("vendor"), "{client}");
    let text = TEXT.replace(r#""model":"m""#, r#""model" : "m""#);
    assert!(client.contains(&format!("id: 1\r\n{text}\r\n\r\n")), "{client}");
    assert!(!run(true, [b"data: {\"choices\":[1]}\n\n".as_slice()]).client.contains("model"));
}

#[test]
fn data_over_several_lines_is_one_object() {
    let stream = "data: {\"model\":\"x\",\ndata: \"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let outcome = run(true, [stream.as_bytes()]);
    assert_eq!(outcome.client, stream.replace("\"x\"", "\"m\""));
    assert_eq!(outcome.reading, Reading::Unreported { output_chars: 1 });
}

#[test]
fn errors_in_the_stream_are_found() {
    for (event, error) in [
        (r#"data: {"error":{"message":"overloaded"}}"#, Some("overloaded")),
        ("event: error\ndata: {\"error\":\"overloaded\"}", Some("overloaded")),
        (r#"data: {"error":{"message":"x"},"choices":[{"delta":{"content":""},"finish_reason":"error"}]}"#, Some("x")),
        (r#"data: {"choices":[{"delta":{"content":""},"error":{"message":"x"},"finish_reason":"error"}]}"#, Some("x")),
        (r#"data: {"choices":[{"delta":{},"finish_reason":"error"}]}"#, Some("no reason given")),
        (r#"data: {"error":null,"choices":[]}"#, None),
        (r#"data: {"choices":[{"delta":{"content":"{\"error\":1}"}}]}"#, None),
    ] {
        let outcome = run(true, [stream(&[TEXT, event]).as_bytes()]);
        assert_eq!(outcome.error.as_deref(), error, "{event}");
        assert!(!outcome.is_complete);
    }
    let event =
        ChatMeter::new(&Shape::default(), CHAT).error_event("cut \"off\"\n", "upstream_error", "upstream_error");
    assert_eq!(
        event,
        "data: {\"error\":{\"message\":\"cut \\\"off\\\"\\n\",\"type\":\"upstream_error\",\"code\":\"upstream_error\"}}\n\n"
    );
}

/// Streams in all three line endings, with everything in them that the others have singly.
fn fixtures() -> Vec<String> {
    let other = TEXT.replace(r#""model":"m""#, r#""model":"x""#);
    let events = [
        ": ping",
        ROLE,
        TEXT,
        &other,
        "event: message\nid: 9\ndata: {\"choices\":\ndata: []}",
        TEXT_USAGE,
        "data: {bad",
        STOP_USAGE,
        USAGE,
        DONE_EVENT,
    ];
    let lf = stream(&events);
    vec![
        format!("\u{feff}{lf}"),
        lf.replace('\n', "\r\n"),
        lf.replace('\n', "\r"),
        stream(&[TEXT, STOP]).trim_end().into(),
    ]
}

#[test]
fn every_cut_gives_the_same_stream() {
    for fixture in fixtures() {
        let bytes = fixture.as_bytes();
        let whole = run(false, [bytes]);
        assert!(whole.is_complete && whole.client.contains("total_msats"));
        for at in 0..bytes.len() {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(run(false, [head, tail]), whole, "cut at {at}");
        }
        assert_eq!(run(false, bytes.chunks(1)), whole);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]
    #[test]
    fn random_cuts_give_the_same_stream(cuts in proptest::collection::vec(0usize..2000, 0..12)) {
        for fixture in fixtures() {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % fixture.len()).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut start = 0;
            for cut in cuts.into_iter().chain([fixture.len()]) {
                chunks.push(&fixture.as_bytes()[start..cut]);
                start = cut;
            }
            proptest::prop_assert_eq!(run(true, chunks), run(true, [fixture.as_bytes()]));
        }
    }
}

/// `cargo test --release --lib dialect -- --ignored --nocapture` prints what a chunk costs.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_chunk() {
    for (name, model) in [("as it is", "m"), ("renamed", "x")] {
        let shape = Shape { model: model.into(), ..Shape::default() };
        let chunk = Bytes::from(stream(&[
            r#"data: {"id":"chatcmpl-AbCdEf0123456789","object":"chat.completion.chunk","created":1700000000,"model":"m","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}"#,
        ]));
        let (mut meter, mut framer) = (Chat.meter(&shape), Framer::new());
        let start = std::time::Instant::now();
        for _ in 0..1_000_000 {
            framer.push(chunk.clone());
            while let Some(event) = framer.next_event().unwrap() {
                std::hint::black_box(meter.observe(&event));
            }
        }
        println!("{name}: {} bytes, {:?} each", chunk.len(), start.elapsed() / 1_000_000);
    }
}

/// A chunk that is like one before it counts what has come in between.
#[test]
fn the_latest_chunk_says_how_it_is_served() {
    let chunk = |text: &str, tier: &str| {
        format!(
            r#"data: {{"id":"c1","created":7,"model":"m","service_tier":"{tier}","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#
        )
    };
    let [first, between, last] = [chunk("a", "default"), chunk("", "priority"), chunk("b", "default")];
    for (events, service) in [
        ([&first, &between, &last], Service::Standard),
        ([&first, &last, &between], Service::Priority),
        ([&between, &first, &last], Service::Standard),
    ] {
        let events = events.map(String::as_str).into_iter().chain([STOP, USAGE]);
        let outcome = run(true, [stream(&events.collect::<Vec<_>>()).as_bytes()]);
        let Reading::Reported(usage) = outcome.reading else { panic!("{outcome:?}") };
        assert_eq!(usage.service, Some(service));
    }
}
