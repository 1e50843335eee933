use serde_json::{Value, json};

use self::testing::receipt;
use super::*;
use crate::dialect::Receipt;
use crate::money::{Cost, Msat, Usage, UsageSource};

const MESSAGES: &str = r#""messages":[{"role":"user","content":"hi"}]"#;

fn read(members: &str) -> Result<Shape, BadRequest> {
    read_body(format!(r#"{{"model":"m",{MESSAGES}{members}}}"#).as_bytes())
}

fn read_body(body: &[u8]) -> Result<Shape, BadRequest> {
    Chat.read(&Request::of(&Bytes::copy_from_slice(body)))
}

fn forward(body: &Bytes, shape: &Shape, model: &str) -> Bytes {
    Chat.forward(&Request::of(body), shape, model).unwrap().body.joined()
}

fn read_answer(body: &[u8]) -> Result<Reading, BadAnswer> {
    Chat.read_answer(AnswerBody { media: "", bytes: body }, &Shape::default())
}

fn stamp(body: &Bytes, receipt: &Receipt) -> Bytes {
    Chat.stamp(body, &Shape { model: "m".into(), ..Shape::default() }, receipt)
}

/// For the tests of all dialects.
pub(in crate::dialect) mod testing {
    use super::*;
    use crate::dialect::Step;
    use crate::dialect::sse::Framer;

    pub(in crate::dialect) fn receipt(usage: Usage, remaining: Option<u64>) -> Receipt {
        let mut cost = Cost::new(usage, Some("0.00045".parse().unwrap()));
        cost.total = Msat::new(2475).unwrap();
        cost.input = Msat::new(2000).unwrap();
        cost.output = Msat::new(475).unwrap();
        Receipt {
            cost,
            remaining: remaining.and_then(Msat::new),
            provider: "generic".into(),
            model: "m".into(),
            btc_usd: None,
        }
    }

    /// What a client gets and the node knows after a stream.
    #[derive(Debug, PartialEq, Eq)]
    pub(in crate::dialect) struct Outcome {
        pub client: String,
        pub reading: Reading,
        pub has_content: bool,
        pub is_complete: bool,
        pub error: Option<String>,
    }

    /// Runs a stream for a client that calls the model `m`, in all cuts that matter, which must not.
    pub(in crate::dialect) fn run(dialect: &dyn Dialect, chunks: &[&str]) -> Outcome {
        let bytes = chunks.concat().into_bytes();
        let whole = run_pieces(dialect, &[&bytes]);
        assert_eq!(run_pieces(dialect, &bytes.chunks(1).collect::<Vec<_>>()), whole);
        for at in (0..bytes.len()).step_by(7) {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(run_pieces(dialect, &[head, tail]), whole, "cut at {at}");
        }
        whole
    }

    fn run_pieces(dialect: &dyn Dialect, pieces: &[&[u8]]) -> Outcome {
        let shape = Shape { model: "m".into(), stream: true, choices: 1, ..Shape::default() };
        play(dialect.meter(&shape), pieces.iter().copied())
    }

    /// Shows a meter a stream in these pieces.
    pub(in crate::dialect) fn play<'a>(
        mut meter: Box<dyn Meter>,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Outcome {
        let mut framer = Framer::new();
        let (mut client, mut error) = (Vec::new(), None);
        let mut take = |meter: &mut Box<dyn Meter>, event: &Bytes| match meter.observe(event) {
            Step::Forward(bytes) => client.extend_from_slice(&bytes),
            Step::HoldBack => {}
            Step::Error(said) => error = Some(said.message),
        };
        for piece in pieces {
            framer.push(Bytes::copy_from_slice(piece));
            while let Some(event) = framer.next_event().unwrap() {
                take(&mut meter, &event);
            }
        }
        if let Some(event) = framer.finish() {
            take(&mut meter, &event);
        }
        if meter.is_complete() {
            client.extend_from_slice(&meter.closing(&receipt(Usage::default(), Some(5))));
            client.extend_from_slice(&meter.terminator());
        }
        Outcome {
            client: String::from_utf8(client).unwrap(),
            reading: meter.reading(),
            has_content: meter.has_content(),
            is_complete: meter.is_complete(),
            error,
        }
    }
}

#[test]
fn a_request_is_read() {
    let body = br#"{"n":2,"model":"gpt\u002d4","stream":true,"max_tokens":7,"max_completion_tokens":9,
        "stream_options":{"x":1,"include_usage":true},"user":"nobody",
        "tools":[{"type":"function"}],"response_format":{"type":"text"},
        "messages":[{"role":"user","content":[{"type":"text","text":"h\u00e4"},
        {"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}]}"#;
    assert_eq!(
        read_body(body),
        Ok(Shape {
            model: "gpt-4".into(),
            stream: true,
            wants_usage: true,
            max_output: Some(9),
            choices: 2,
            prompt_chars: 54,
            extra_chars: 36,
            images: 1,
            image_tokens: 85,
            needs: [Feature::Streaming, Feature::Tools, Feature::Vision].into_iter().collect(),
            ..Shape::default()
        })
    );
    let shape = read(r#","n":null,"stream":null,"max_tokens":null,"stream_options":null"#).unwrap();
    assert_eq!((shape.choices, shape.stream, shape.max_output), (1, false, None));
}

#[test]
fn wrong_requests_are_refused_by_name() {
    for (members, message) in [
        (r#","max_tokens":0"#, "max_tokens must be a positive integer"),
        (r#","max_tokens":-1"#, "max_tokens must be a positive integer"),
        (r#","max_tokens":1.5"#, "max_tokens must be a positive integer"),
        (r#","max_tokens":1e3"#, "max_tokens must be a positive integer"),
        (r#","max_tokens":"5""#, "max_tokens must be a positive integer"),
        (r#","max_tokens":[]"#, "max_tokens must be a positive integer"),
        (r#","max_completion_tokens":0"#, "max_completion_tokens must be a positive integer"),
        (r#","max_tokens":10000001"#, "max_tokens must be at most 10000000"),
        (r#","max_tokens":99999999999999999999999"#, "max_tokens must be at most 10000000"),
        (r#","n":0"#, "n must be an integer from 1 to 128"),
        (r#","n":129"#, "n must be an integer from 1 to 128"),
        (r#","n":true"#, "n must be an integer from 1 to 128"),
        (r#","stream":"true""#, "stream must be true or false"),
        (r#","stream":1"#, "stream must be true or false"),
        (r#","stream_options":[]"#, "stream_options must be an object"),
        (r#","stream_options":{"include_usage":1}"#, "stream_options.include_usage must be true or false"),
        (r#","model":"x""#, "model is given twice"),
        (r#","mod\u0065l":"x""#, "model is given twice"),
        (r#","messages":[1]"#, "messages is given twice"),
        (r#","n":1,"n":2"#, "n is given twice"),
    ] {
        assert_eq!(read(members), Err(BadRequest::Field(message.into())), "{members}");
    }
    for (body, message) in [
        (format!("{{{MESSAGES}}}"), "model is missing"),
        (format!(r#"{{"model":null,{MESSAGES}}}"#), "model is missing"),
        (format!(r#"{{"model":"",{MESSAGES}}}"#), "model must not be empty"),
        (format!(r#"{{"model":5,{MESSAGES}}}"#), "model must be a string"),
        (format!(r#"{{"model":"{}",{MESSAGES}}}"#, "ä".repeat(257)), "model must have at most 256 characters"),
        (r#"{"model":"m"}"#.into(), "messages is missing"),
        (r#"{"model":"m","messages":[ ]}"#.into(), "messages must be an array with at least one message"),
        (r#"{"model":"m","messages":"hi"}"#.into(), "messages must be an array with at least one message"),
    ] {
        assert_eq!(read_body(body.as_bytes()), Err(BadRequest::Field(message.into())), "{body}");
    }
    for body in ["", "[]", "null", "secret", "{\"model\":\"secret\"", "{\"secret\":01}"] {
        let Err(BadRequest::Json(reason)) = read_body(body.as_bytes()) else { panic!("{body}") };
        assert!(!reason.contains("secret"), "{reason}");
    }
    let deep = format!(r#","tools":{}{}"#, "[".repeat(200), "]".repeat(200));
    assert!(matches!(read(&deep), Err(BadRequest::Json(_))));
}

#[test]
fn forwarding_changes_only_what_it_must() {
    const ODD: &str =
        r#""x" : 1.0e400,	"y":0.10000000000000000001,"z":1,"z":2,"ü":"\u00e4\ud83d\/", "messages" :[{"content":""}]"#;
    for (head, model, tail) in [
        (r#"{"model" : "m", "#, "m", " }\n"),
        (r#"{"model" : "m", "#, "vendor/\"m\"", " }\n"),
        (r#"{"stream":true,"stream_options":{"include_usage":true},"model":"m","#, "m", "}"),
        (r#"{"stream":false,"model":"m","#, "m", "}"),
    ] {
        let body = Bytes::from(format!("{head}{ODD}{tail}"));
        let shape = read_body(&body).unwrap();
        let out = forward(&body, &shape, model);
        let head = head.replace("\"m\"", &body::encode(model));
        assert_eq!(out, format!("{head}{ODD}{tail}"));
        assert_eq!(out.as_ptr() == body.as_ptr(), model == "m");
    }
    for (before, after) in [
        ("", r#","stream_options":{"include_usage":true}"#),
        (r#","stream_options":null"#, r#","stream_options":{"include_usage":true}"#),
        (r#","stream_options":{}"#, r#","stream_options":{"include_usage":true}"#),
        (r#","stream_options": {"a": 1.0 }"#, r#","stream_options": {"a": 1.0,"include_usage":true }"#),
        (r#","stream_options":{"include_usage":false,"a":1}"#, r#","stream_options":{"include_usage":true,"a":1}"#),
    ] {
        let body = Bytes::from(format!(r#"{{"model":"m","stream":true,{ODD}{before}}}"#));
        let shape = read_body(&body).unwrap();
        let out = forward(&body, &shape, "m");
        assert_eq!(out, format!(r#"{{"model":"m","stream":true,{ODD}{after}}}"#));
    }
}

#[test]
fn answers_are_told_from_failures() {
    let error = |text: &str| Err(BadAnswer::Error(text.into()));
    for (body, expected) in [
        ("<html>", Err(BadAnswer::NotJson)),
        ("", Err(BadAnswer::NotJson)),
        ("[]", Err(BadAnswer::NotJson)),
        (r#"{"choices":[{"message":{"con"#, Err(BadAnswer::NotJson)),
        ("{}", Err(BadAnswer::Empty)),
        (r#"{"choices":null}"#, Err(BadAnswer::Empty)),
        (r#"{"choices":[],"error":null}"#, Err(BadAnswer::Empty)),
        (r#"{"code":1,"msg":"x"}"#, Err(BadAnswer::Empty)),
        (
            r#"{"error":{"message":"overloaded","code":503}}"#,
            Err(BadAnswer::Error(Complaint { status: Some(503), ..Complaint::from("overloaded") })),
        ),
        (r#"{"error":"overloaded","choices":[]}"#, error("overloaded")),
        (r#"{"error":{}}"#, error("no reason given")),
        (r#"[{"error":{"message":"quota"}}]"#, error("quota")),
        (
            r#"{"error":{"message":"x"},"choices":[{"message":{"content":""},"finish_reason":"error"}],"usage":{"prompt_tokens":3,"completion_tokens":0}}"#,
            error("x"),
        ),
        (r#"{"choices":[{"error":{"message":"x"},"message":{"content":null}}]}"#, error("x")),
        (r#"{"choices":[{"message":{"content":""},"finish_reason":"error"}]}"#, error("no reason given")),
        // What has content is an answer.
        (
            r#"{"error":{"message":"x"},"choices":[{"message":{"content":"abc"},"finish_reason":"error"}]}"#,
            Ok(Reading::Unreported { output_chars: 3 }),
        ),
        (r#"{"choices":[{"message":{"content":"abc"}}],"error":null}"#, Ok(Reading::Unreported { output_chars: 3 })),
        (
            r#"{"choices":[{"message":{"content":"abc","tool_calls":[{"function":{"arguments":"{}"}}]}}],"usage":{"prompt_tokens":-1}}"#,
            Ok(Reading::Unreported { output_chars: 5 }),
        ),
        (
            r#"{"choices":[{}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
            Ok(Reading::Reported(Usage { input: 3, output: 4, ..Usage::default() })),
        ),
    ] {
        assert_eq!(read_answer(body.as_bytes()), expected, "{body}");
    }
    let long = format!(r#"{{"error":"{}"}}"#, "ä".repeat(900));
    assert_eq!(read_answer(long.as_bytes()), error(&"ä".repeat(500)));
}

fn cost(extra: Value) -> Value {
    let mut cost = json!({
        "base_msats": 0, "input_msats": 2000, "output_msats": 475, "total_msats": 2475,
        "cache_read_input_tokens": 4, "cache_creation_input_tokens": 0, "cache_read_msats": 0,
        "cache_creation_msats": 0, "total_usd": 0.00045,
    });
    cost.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    cost
}

#[test]
fn a_receipt_is_stamped_into_the_answer() {
    let used = Usage { input: 6, cache_read: 4, output: 5, ..Usage::default() };
    let body = Bytes::from_static(
        br#"{"id": "a","model":"vendor/m","choices":[{"logprob":-1.0e-400}],
        "usage":{"prompt_tokens":10,"completion_tokens":5,"cost":0.1,"x":1.50},"metadata":{"k":"v"}}"#,
    );
    let out = stamp(&body, &receipt(used, Some(99)));
    let text = std::str::from_utf8(&out).unwrap();
    assert!(text.starts_with(r#"{"id": "a","model":"m","choices":[{"logprob":-1.0e-400}],"#), "{text}");
    assert!(text.contains(r#""total_usd":0.00045"#) && text.contains(r#""x":1.50"#), "{text}");
    let answer: Value = serde_json::from_str(text).unwrap();
    assert_eq!(
        answer["usage"],
        json!({
            "prompt_tokens": 10, "completion_tokens": 5, "x": 1.5, "cost": cost(json!({})),
            "cost_sats": 2, "remaining_balance_msats": 99,
        })
    );
    assert_eq!(answer["cost"], cost(json!({"sats_cost": 2, "remaining_balance_msats": 99})));
    assert_eq!(
        answer["metadata"],
        json!({
            "k": "v",
            "routstr": {"cost": cost(json!({})), "sats_cost": 2, "remaining_balance_msats": 99},
        })
    );
    assert_eq!(answer["provider"], "generic");
}

#[test]
fn a_receipt_supplies_what_the_answer_lacks() {
    let used =
        Usage { input: 6, cache_read: 4, output: 5, reasoning: 2, source: UsageSource::Estimated, ..Usage::default() };
    for usage in ["", r#","usage":null"#, r#","usage":{"prompt_tokens":-1}"#] {
        let body = Bytes::from(format!(r#"{{"model":"m","provider":"x","choices":[1]{usage}}}"#));
        let answer: Value = serde_json::from_slice(&stamp(&body, &receipt(used, None))).unwrap();
        assert_eq!(
            answer["usage"],
            json!({
                "prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17,
                "cost": cost(json!({"estimated": true})), "cost_sats": 2,
            })
        );
        assert_eq!(answer["provider"], "x");
        assert_eq!(answer["cost"], cost(json!({"estimated": true, "sats_cost": 2})));
    }
}

#[test]
fn the_operators_balance_upstream_is_not_shown() {
    let body = Bytes::from_static(
        br#"{"choices":[1],"usage":{"prompt_tokens":1,"completion_tokens":1,"remaining_balance_msats":7}}"#,
    );
    let answer: Value = serde_json::from_slice(&stamp(&body, &receipt(Usage::default(), None))).unwrap();
    assert_eq!(answer["usage"]["remaining_balance_msats"], Value::Null);
}

/// JSON-like text that is often nearly an answer or a request.
fn pieces() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::strategy::Strategy;
    let words = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\"model\":\"m\"",
        "\"messages\":[{\"content\":\"x\"}]",
        "\"choices\":[{\"delta\":{\"content\":\"x\"}}]",
        "\"usage\":{",
        "\"prompt_tokens\":",
        "1e999",
        "-1",
        "18446744073709551616",
        "\"error\":",
        "\"\\ud83d\"",
        "null",
        "\u{feff}",
        "\n",
        "data: ",
        "\"image_url\":\"data:image/png;base64,iVBORw0KGgo",
        "\"max_tokens\":",
        "\"stream\":true",
    ];
    proptest::collection::vec(
        proptest::prop_oneof![
            9 => proptest::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
            1 => proptest::collection::vec(proptest::num::u8::ANY, 0..5),
        ],
        0..24,
    )
    .prop_map(|pieces| pieces.concat())
}

proptest::proptest! {
    #[test]
    fn no_bytes_break_it(inner in pieces()) {
        for body in [inner.clone(), [b"{", &inner[..], b"}"].concat()] {
            let body = Bytes::from(body);
            if let Ok(shape) = read_body(&body) {
                let out = forward(&body, &shape, "other");
                proptest::prop_assert_eq!(read_body(&out).map(|shape| shape.model), Ok("other".into()));
            }
            if read_answer(&body).is_ok() {
                let out = stamp(&body, &receipt(Usage::default(), Some(1)));
                proptest::prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&out).is_ok());
            }
            let mut meter = Chat.meter(&Shape { model: "m".into(), ..Shape::default() });
            meter.observe(&crate::dialect::sse::event_of(&body));
            meter.closing(&receipt(Usage::default(), None));
        }
    }

    #[test]
    fn no_report_adds_up_to_more_than_it_says(
        prompt in 0u64..50, completion in 0u64..50, total in 0u64..120, cached in 0u64..60,
        written in 0u64..60, reasoning in 0u64..60,
    ) {
        let body = json!({"choices": [1], "usage": {
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }});
        let Ok(Reading::Reported(usage)) = read_answer(body.to_string().as_bytes()) else {
            panic!("{body}");
        };
        let outside = total == prompt + completion + reasoning;
        let output = match (outside, reasoning) {
            (true, reasoning) => completion + reasoning,
            // Thoughts that only the total tells of.
            (false, 0) => completion.max(total.saturating_sub(prompt)),
            (false, _) => completion,
        };
        proptest::prop_assert!(usage.total_input() <= prompt);
        proptest::prop_assert!(usage.total_output() <= output);
        if total > 0 {
            proptest::prop_assert!(usage.total_input() + usage.total_output() <= total);
        }
    }
}
