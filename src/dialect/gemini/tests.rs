use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::dialect::chat::testing::run;
use crate::money::Usage;

const WHOLE: Generate = Generate { is_stream: false };
const ONE: Embed = Embed { is_batch: false };
const BATCH: Embed = Embed { is_batch: true };
const STREAM: Generate = Generate { is_stream: true };
const CONTENTS: &str = r#""contents":[{"role":"user","parts":[{"text":"hi"}]}]"#;

fn read(members: &str) -> Result<Shape, BadRequest> {
    let body = Bytes::from(format!("{{{CONTENTS}{members}}}"));
    WHOLE.read(&Request { model: Some("m"), ..Request::of(&body) })
}

#[test]
fn a_request_is_read() {
    let shape = read(
        r#","system_instruction":{"parts":[{"text":"be brief"}]},"generationConfig":{"maxOutputTokens":7,"candidateCount":2}"#,
    );
    let shape = shape.unwrap();
    assert_eq!((shape.model.as_str(), shape.max_output, shape.choices), ("m", Some(7), 2));
    let image = r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"AAAA"}}]}]}"#;
    let audio = r#"{"contents":[{"parts":[{"inline_data":{"mime_type":"audio/wav","data":"AAAA"}}]}]}"#;
    for (body, images, audio) in [(image, 1, 0), (audio, 0, 32)] {
        let body = Bytes::from_static(body.as_bytes());
        let shape = WHOLE.read(&Request { model: Some("m"), ..Request::of(&body) }).unwrap();
        assert_eq!((shape.images, shape.demand.audio_in), (images, audio));
    }
    let drawing = read(r#","generation_config":{"response_modalities":["TEXT","Image"]}"#).unwrap();
    assert!(drawing.demand.image_out && !drawing.demand.audio_out);
    // A model that draws does so unless it is told not to.
    let default = [shape.demand.image_by_default, read("").unwrap().demand.image_by_default];
    assert_eq!((default, drawing.demand.image_by_default), ([true, true], false));
    let running = read(r#","tools":[{"codeExecution":{}}]"#).unwrap();
    assert!(running.demand.open_input, "the model reads what its code brings");
    let searching = read(r#","tools":[{"google_search":{}},{"functionDeclarations":[]}]"#).unwrap();
    assert_eq!((searching.demand.web_searches, searching.demand.web_queries), (1, 10));
    assert!(searching.demand.open_input);
    for members in [
        r#","cachedContent":"cachedContents/x""#,
        r#","cached_content":"cachedContents/x""#,
        r#","generationConfig":{},"generation_config":{"maxOutputTokens":9}"#,
        r#","generationConfig":{"maxOutputTokens":9,"max_output_tokens":9}"#,
        r#","generationConfig":{"maxOutputTokens":-1}"#,
        r#","generationConfig":{"candidateCount":9}"#,
        r#","generationConfig":7"#,
        r#","tools":[{"fileSearch":{}}]"#,
        r#","tools":7"#,
        r#","contents":[{"parts":[{"fileData":{"fileUri":"files/x"}}]}]"#,
    ] {
        assert!(matches!(read(members), Err(BadRequest::Field(_))), "{members}");
    }
    let file = Bytes::from_static(br#"{"contents":[{"parts":[{"file_data":{"file_uri":"files/x"}}]}]}"#);
    assert!(WHOLE.read(&Request { model: Some("m"), ..Request::of(&file) }).is_err());
}

#[test]
fn no_model_leads_out_of_its_path() {
    let body = Bytes::from(format!("{{{CONTENTS}}}"));
    for model in ["", ".", "..", "../x", "a/../b", "a//b", "/a", "a/", "a?b", "a#b", "a%2fb", "a\\b", "ä", "a b"] {
        assert!(WHOLE.read(&Request { model: Some(model), ..Request::of(&body) }).is_err(), "{model}");
    }
    for model in ["gemini-2.5-flash", "google/gemini-2.5-flash", "a:free"] {
        let request = Request { model: Some(model), ..Request::of(&body) };
        let shape = STREAM.read(&request).unwrap();
        let ask = STREAM.forward(&request, &shape, "up/m").unwrap();
        assert_eq!((ask.path.as_ref(), ask.query), ("models/up/m:streamGenerateContent", Some("alt=sse")));
        assert!(shape.as_array && ask.body.joined().as_ptr() == body.as_ptr());
    }
}

fn detail(modality: &str, count: u64) -> Value {
    json!({ "modality": modality, "tokenCount": count })
}

/// One row for each path of the report.
fn reports() -> Vec<(Value, Usage)> {
    let usage =
        |input, cache_read, output, reasoning| Usage { input, cache_read, output, reasoning, ..Usage::default() };
    vec![
        (json!({ "promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15 }), usage(10, 0, 5, 0)),
        // Thoughts are beside the candidates, what a tool brought beside the prompt.
        (
            json!({ "promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 20, "toolUsePromptTokenCount": 3, "totalTokenCount": 38 }),
            usage(13, 0, 5, 20),
        ),
        (json!({ "promptTokenCount": 10, "cachedContentTokenCount": 4, "candidatesTokenCount": 5 }), usage(6, 4, 5, 0)),
        (json!({ "promptTokenCount": 10, "totalTokenCount": 15 }), usage(10, 0, 5, 0)),
        (json!({ "promptTokenCount": 10 }), usage(10, 0, 0, 0)),
        (
            json!({ "promptTokenCount": 30, "promptTokensDetails": [detail("TEXT", 10), detail("AUDIO", 12), detail("IMAGE", 8)], "candidatesTokenCount": 5 }),
            Usage { audio_in: 12, image_in: 8, ..usage(10, 0, 5, 0) },
        ),
        (
            json!({ "promptTokenCount": 30, "cachedContentTokenCount": 15, "promptTokensDetails": [detail("TEXT", 18), detail("AUDIO", 12)], "cacheTokensDetails": [detail("TEXT", 8), detail("AUDIO", 7)], "candidatesTokenCount": 5 }),
            Usage { audio_in: 5, audio_cached: 7, ..usage(10, 8, 5, 0) },
        ),
        (
            json!({ "promptTokenCount": 10, "candidatesTokenCount": 50, "candidatesTokensDetails": [detail("IMAGE", 30), detail("AUDIO", 15), detail("TEXT", 5)] }),
            Usage { image_out: 30, audio_out: 15, ..usage(10, 0, 5, 0) },
        ),
        // Contradictions: the cheaper reading.
        (
            json!({ "promptTokenCount": 10, "candidatesTokenCount": 500, "totalTokenCount": 15 }),
            Usage { contradictory: true, ..usage(10, 0, 5, 0) },
        ),
        (
            json!({ "promptTokenCount": 10, "cachedContentTokenCount": 40, "candidatesTokenCount": 5 }),
            Usage { contradictory: true, ..usage(0, 10, 5, 0) },
        ),
    ]
}

fn chunk(text: &str, finish: Option<&str>, usage: &Value) -> Value {
    let mut candidate = json!({ "content": { "parts": [{ "text": text }], "role": "model" }, "index": 0 });
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish);
    }
    json!({ "candidates": [candidate], "usageMetadata": usage, "modelVersion": "up-m", "responseId": "r" })
}

#[test]
fn every_path_of_the_report_is_read_whole_and_streamed() {
    for (report, expected) in reports() {
        let body = chunk("hi", Some("STOP"), &report).to_string();
        let answer = AnswerBody { media: "", bytes: body.as_bytes() };
        assert_eq!(WHOLE.read_answer(answer, &Shape::default()), Ok(Reading::Reported(expected)), "{report}");
        // Cumulative: the last one counts.
        let early = json!({ "promptTokenCount": 10, "candidatesTokenCount": 1, "totalTokenCount": 11 });
        let events = [chunk("h", None, &early), chunk("i", None, &early), chunk("", Some("STOP"), &report)];
        let events: String = events.iter().map(|event| format!("data: {event}\r\n\r\n")).collect();
        let outcome = run(&STREAM, &[&events]);
        assert_eq!(outcome.reading, Reading::Reported(expected), "{report}");
        assert!(outcome.is_complete && outcome.has_content && !outcome.client.contains("up-m"), "{}", outcome.client);
        assert_eq!(outcome.client.matches("data: ").count(), 3);
        let last = outcome.client.lines().rfind(|line| line.starts_with("data: ")).unwrap();
        let last: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(last["usageMetadata"]["cost"]["total_msats"], 2475);
    }
    let grounded = json!({ "candidates": [{ "content": {}, "finishReason": "STOP", "groundingMetadata": { "webSearchQueries": ["a", "b"] } }], "usageMetadata": { "promptTokenCount": 1, "candidatesTokenCount": 1 } });
    let body = grounded.to_string();
    let reading = WHOLE.read_answer(AnswerBody { media: "", bytes: body.as_bytes() }, &Shape::default());
    assert!(matches!(reading, Ok(Reading::Reported(Usage { web_searches: 1, web_queries: 2, .. }))), "{reading:?}");
}

/// Some hosts wrap what they send; the client gets it as Google sends it.
#[test]
fn what_is_wrapped_is_unwrapped() {
    let usage = json!({ "promptTokenCount": 10, "candidatesTokenCount": 5 });
    let expected = Reading::Reported(Usage { input: 10, output: 5, ..Usage::default() });
    let wrap = |inner: Value| json!({ "response": inner, "traceId": "t" });
    let body = Bytes::from(wrap(chunk("hi", Some("STOP"), &usage)).to_string());
    assert_eq!(WHOLE.read_answer(AnswerBody { media: "", bytes: &body }, &Shape::default()), Ok(expected));
    let shape = Shape { model: "m".into(), ..Shape::default() };
    let receipt = crate::dialect::chat::testing::receipt(Usage::default(), None);
    let told: Value = serde_json::from_slice(&WHOLE.stamp(&body, &shape, &receipt)).unwrap();
    assert_eq!((&told["modelVersion"], &told["candidates"][0]["index"]), (&json!("m"), &json!(0)));
    assert_eq!((&told["usageMetadata"]["cost"]["total_msats"], &told["response"]), (&json!(2475), &Value::Null));
    let failed = AnswerBody { media: "", bytes: br#"{"response":{"error":{"message":"x"}}}"# };
    assert_eq!(WHOLE.read_answer(failed, &Shape::default()), Err(BadAnswer::Error("x".into())));
    let events = [chunk("h", None, &usage), chunk("i", Some("STOP"), &usage)].map(wrap);
    let outcome = run(&STREAM, &[&events.map(|event| format!("data: {event}\n\n")).concat()]);
    assert_eq!((outcome.reading, outcome.is_complete), (expected, true));
    assert!(!outcome.client.contains("traceId") && !outcome.client.contains("up-m"), "{}", outcome.client);
    assert_eq!(outcome.client.matches(r#"data: {"candidates""#).count(), 2, "{}", outcome.client);
}

#[test]
fn a_stream_can_be_an_array() {
    let usage = json!({ "promptTokenCount": 10, "candidatesTokenCount": 5 });
    let events = [chunk("h", None, &usage), chunk("i", Some("STOP"), &usage)];
    let shape = Shape { model: "m".into(), stream: true, as_array: true, ..Shape::default() };
    let feed = |meter: &mut Box<dyn Meter>, events: &[Value]| -> String {
        let mut text = String::new();
        for event in events {
            let event = super::super::sse::event_of(event.to_string().as_bytes());
            if let super::super::Step::Forward(bytes) = meter.observe(&event) {
                text += std::str::from_utf8(&bytes).unwrap();
            }
        }
        text
    };
    let receipt = crate::dialect::chat::testing::receipt(Usage::default(), None);
    for count in 1..=2 {
        let mut meter = STREAM.meter(&shape);
        let mut text = feed(&mut meter, &events[2 - count..]);
        text += std::str::from_utf8(&meter.closing(&receipt)).unwrap();
        text += std::str::from_utf8(&meter.terminator()).unwrap();
        let all: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        assert_eq!((all.len(), &all[count - 1]["usageMetadata"]["cost"]["total_msats"]), (count, &json!(2475)));
    }
    for count in 0..=1 {
        let mut meter = STREAM.meter(&shape);
        let mut text = feed(&mut meter, &events[..count]);
        text += std::str::from_utf8(&meter.error_event("cut \"off\"", "upstream_error", "upstream_error")).unwrap();
        let all: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        assert_eq!((all.len(), &all[count]["error"]["status"]), (count + 1, &json!("UNAVAILABLE")));
    }
}

#[test]
fn streams_that_fail_or_break_off_are_no_success() {
    let usage = json!({ "promptTokenCount": 10, "candidatesTokenCount": 1 });
    let stream = |events: &[Value]| events.iter().map(|event| format!("data: {event}\n\n")).collect::<String>();
    let cut = run(&STREAM, &[&stream(&[chunk("h", None, &usage)])]);
    assert!(!cut.is_complete && cut.has_content);
    let failed = run(&STREAM, &[&stream(&[json!({ "error": { "code": 503, "message": "overloaded" } })])]);
    assert_eq!(failed.error.as_deref(), Some("overloaded"));
    // A blocked prompt is an answer without candidates.
    let blocked = json!({ "promptFeedback": { "blockReason": "SAFETY" }, "usageMetadata": { "promptTokenCount": 10 } });
    let outcome = run(&STREAM, &[&stream(std::slice::from_ref(&blocked))]);
    assert!(outcome.is_complete && matches!(outcome.reading, Reading::Reported(Usage { input: 10, .. })));
    let body = blocked.to_string();
    assert!(WHOLE.read_answer(AnswerBody { media: "", bytes: body.as_bytes() }, &Shape::default()).is_ok());
    for (body, expected) in [
        ("<html>", BadAnswer::NotJson),
        ("{}", BadAnswer::Empty),
        (r#"[{"error":{"message":"x"}}]"#, BadAnswer::Error("x".into())),
        (r#"{"candidates":[],"usageMetadata":{"promptTokenCount":1}}"#, BadAnswer::Empty),
    ] {
        let answer = AnswerBody { media: "", bytes: body.as_bytes() };
        assert_eq!(WHOLE.read_answer(answer, &Shape::default()), Err(expected), "{body}");
    }
}

#[test]
fn embeddings_and_counts_name_the_upstreams_model() {
    let of = |body: &'static str| Bytes::from_static(body.as_bytes());
    let batch = of(
        r#"{"requests":[{"model":"models/m","content":{"parts":[{"text":"a"}]}},{"content":{"parts":[{"text":"b"}]}, "model":"models/other"}]}"#,
    );
    let request = Request { model: Some("m"), ..Request::of(&batch) };
    let shape = BATCH.read(&request).unwrap();
    assert_eq!((shape.max_output, shape.slack_tokens > 10, shape.prompts), (Some(0), true, 2));
    let none = of(r#"{"requests":[]}"#);
    assert!(BATCH.read(&Request { model: Some("m"), ..Request::of(&none) }).is_err());
    let ask = BATCH.forward(&request, &shape, "up").unwrap();
    assert_eq!(ask.path, "models/up:batchEmbedContents");
    assert_eq!(
        ask.body.joined(),
        String::from_utf8(batch.to_vec())
            .unwrap()
            .replace("models/m", "models/up")
            .replace("models/other", "models/up")
    );
    let one = of(r#"{"model":"models/m","content":{"parts":[{"text":"a"}]}}"#);
    let request = Request { model: Some("m"), ..Request::of(&one) };
    let ask = ONE.forward(&request, &shape, "up").unwrap();
    assert!(ask.body.joined().starts_with(br#"{"model":"models/up""#));
    let count = of(r#"{"generateContentRequest":{"model":"models/m","contents":[]}}"#);
    let request = Request { model: Some("m"), ..Request::of(&count) };
    let shape = CountTokens.read(&request).unwrap();
    assert!(shape.demand.uncounted);
    let ask = CountTokens.forward(&request, &shape, "up").unwrap();
    assert_eq!(ask.body.joined(), r#"{"generateContentRequest":{"model":"models/up","contents":[]}}"#);
    let input = |input| Ok(Reading::Reported(Usage { input, ..Usage::default() }));
    for (dialect, body, expected) in [
        (&ONE as &dyn Dialect, r#"{"embedding":{"values":[0]}}"#, Ok(Reading::Silent)),
        (&ONE, r#"{"embedding":{"values":[0],"statistics":{"tokenCount":7}}}"#, input(7)),
        (&ONE, r#"{"embedding":{"values":[0]},"usageMetadata":{"promptTokenCount":9}}"#, input(9)),
        (&ONE, "{}", Err(BadAnswer::Empty)),
        (&BATCH, r#"{"embeddings":[{"values":[0]}]}"#, Ok(Reading::Silent)),
        (&BATCH, r#"{"embeddings":[]}"#, Ok(Reading::Silent)),
        (
            &BATCH,
            r#"{"embeddings":[{"values":[0],"statistics":{"tokenCount":7}},{"statistics":{"tokenCount":4}}]}"#,
            input(11),
        ),
        (&BATCH, r#"{"embeddings":[{"statistics":{"tokenCount":7}},{"values":[0]}]}"#, Ok(Reading::Silent)),
        (&CountTokens, r#"{"totalTokens":7}"#, Ok(Reading::Reported(Usage::default()))),
        (&CountTokens, r#"{"error":{"message":"x"}}"#, Err(BadAnswer::Error("x".into()))),
    ] {
        let answer = AnswerBody { media: "", bytes: body.as_bytes() };
        assert_eq!(dialect.read_answer(answer, &Shape::default()), expected, "{body}");
    }
}
