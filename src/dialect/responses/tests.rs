use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::dialect::chat::testing::{receipt, run};
use crate::dialect::sse;

fn read(members: &str) -> Result<Shape, BadRequest> {
    let body = Bytes::from(format!(r#"{{"model":"m","input":"hi"{members}}}"#));
    Responses.read(&Request::of(&body))
}

#[test]
fn state_is_refused_and_nothing_is_stored() {
    for (members, name) in [
        (r#","previous_response_id":"resp_1""#, "previous_response_id"),
        (r#","conversation":{"id":"conv_1"}"#, "conversation"),
        (r#","conversation":"conv_1""#, "conversation"),
        (r#","prompt":{"id":"pmpt_1"}"#, "prompt"),
        (r#","background":true"#, "background"),
        (r#","input":[]"#, "input is given twice"),
        (r#","tools":[{"type":"file_search","vector_store_ids":["vs_1"]}]"#, "file_search"),
        (r#","tools":[{"type":"shell","environment":{"type":"container_auto"}}]"#, "tool"),
        (r#","tools":[{"type":"code_interpreter"}]"#, "container"),
        (r#","tools":[{"type":"code_interpreter","container":"cntr_1"}]"#, "container"),
        (r#","tools":[{"type":"code_interpreter","container":{}}]"#, "container"),
        (r#","tools":[{"type":"code_interpreter","container":{"type":"auto","file_ids":["file_1"]}}]"#, "container"),
        (r#","tools":[{"type":"code_interpreter","container":{"type":"auto","memory_limit":"64g"}}]"#, "container"),
        (r#","tools":[{"type":"code_interpreter","container":{"type":"auto","type":"x"}}]"#, "type is given twice"),
        (
            r#","tools":[{"type":"code_interpreter","container":{"type":"auto"},"container":"c"}]"#,
            "container is given twice",
        ),
        (r#","tools":[{"type":"image_generation","model":"gpt-image-9"}]"#, "model"),
        (r#","tools":[{"type":"image_generation","partial_images":4}]"#, "partial_images"),
        (r#","tools":[{"type":"image_generation","input_image_mask":{"file_id":"file_1"}}]"#, "file_id"),
        (r#","tools":[{"type":"image_generation"},{"type":"image_generation"}]"#, "twice"),
        (r#","tools":[{"type":"function","type":"file_search"}]"#, "type is given twice"),
        (r#","store":1"#, "store"),
        (r#","service_tier":"batch""#, "service_tier"),
    ] {
        let Err(BadRequest::Field(said)) = read(members) else { panic!("{members}") };
        assert!(said.contains(name), "{members}: {said}");
    }
    for input in [
        r#"[{"type":"item_reference","id":"msg_1"}]"#,
        r#"[{"role":"user","content":"x"},{"id":"msg_1"}]"#,
        r#"[{"type":"image_generation_call","id":"ig_1"}]"#,
        r#"[{"type":"code_interpreter_call","id":"ci_1","container_id":"cntr_1","code":"1"}]"#,
        r#"[{"role":"user","content":[{"type":"input_file","file_id":"file_1"}]}]"#,
        "[]",
        "{}",
        "null",
    ] {
        let body = Bytes::from(format!(r#"{{"model":"m","input":{input}}}"#));
        assert!(matches!(Responses.read(&Request::of(&body)), Err(BadRequest::Field(_))), "{input}");
    }
    for (given, stored) in [
        ("", r#","store":false"#),
        (r#","store":true"#, r#","store":false"#),
        (r#","store":null"#, r#","store":false"#),
        (r#","store":false"#, r#","store":false"#),
    ] {
        let body = Bytes::from(format!(r#"{{"model":"m","input":"hi"{given}}}"#));
        let shape = Responses.read(&Request::of(&body)).unwrap();
        let ask = Responses.forward(&Request::of(&body), &shape, "m").unwrap();
        assert_eq!(ask.body.joined(), format!(r#"{{"model":"m","input":"hi"{stored}}}"#), "{given}");
    }
}

#[test]
fn a_request_is_read() {
    let shape = read(
        r#","stream":true,"instructions":"be brief","max_output_tokens":7,"max_tool_calls":3,
        "tools":[{"type":"web_search_preview"},{"type":"function","name":"f","parameters":{}},{"type":"custom","name":"g"}]"#,
    )
    .unwrap();
    assert_eq!((shape.model.as_str(), shape.stream, shape.max_output, shape.prompt_chars), ("m", true, Some(7), 10));
    assert_eq!((shape.demand.web_searches, shape.demand.open_input), (3, true));
    let tools = r#","tools":[{"type":"image_generation","size":"1024x1024","quality":"low","partial_images":1},{"type":"web_search"},
        {"type":"code_interpreter","container":{"type":"auto","memory_limit":"1g","file_ids":[]}}]"#;
    for (limit, calls) in [("", 3), (r#","max_tool_calls":2"#, 2)] {
        let body = Bytes::from(format!(r#"{{"model":"m","input":"hi"{tools}{limit}}}"#));
        let shape = Responses.read(&Request::of(&body)).unwrap();
        let demand = &shape.demand;
        assert_eq!((demand.images_made, demand.tokens_per_image, demand.web_searches), (calls, 576, calls));
        assert_eq!((demand.code_sessions, demand.tokens_into_image), (1, calls * 7_000 + 4_000));
        // The upstream is told how many pictures are held for.
        let ask = Responses.forward(&Request::of(&body), &shape, "m").unwrap().body.joined();
        let sent: Value = serde_json::from_slice(&ask).unwrap();
        assert_eq!(sent["max_tool_calls"], json!(calls));
    }
}

fn usage(input: u64, cache_read: u64, cache_write: u64, output: u64, reasoning: u64, web_searches: u64) -> Usage {
    Usage { input, cache_read, cache_write, output, reasoning, web_searches, ..Usage::default() }
}

/// One row for each path of the report.
fn reports() -> Vec<(Value, Usage)> {
    let search = json!({ "type": "web_search_call", "status": "completed" });
    vec![
        (json!({ "usage": { "input_tokens": 10, "output_tokens": 5, "total_tokens": 15 } }), usage(10, 0, 0, 5, 0, 0)),
        (
            json!({ "usage": { "input_tokens": 10, "input_tokens_details": { "cached_tokens": 4 }, "output_tokens": 5, "output_tokens_details": { "reasoning_tokens": 2 }, "total_tokens": 15 } }),
            usage(6, 4, 0, 3, 2, 0),
        ),
        (
            json!({ "usage": { "input_tokens": 10, "input_tokens_details": { "cached_tokens": 4, "cache_write_tokens": 3 }, "output_tokens": 5 } }),
            usage(3, 4, 3, 5, 0, 0),
        ),
        (
            json!({ "usage": { "input_tokens": 10, "input_tokens_details": { "cache_write_tokens_details": { "ttl_30m_tokens": 2, "ttl_12h_tokens": 1 } }, "output_tokens": 5 } }),
            usage(7, 0, 3, 5, 0, 0),
        ),
        (
            json!({ "usage": { "input_tokens": 10, "output_tokens": 5 }, "tool_usage": { "web_search": { "num_requests": 2 } }, "output": [search] }),
            usage(10, 0, 0, 5, 0, 2),
        ),
        (
            json!({ "usage": { "input_tokens": 10, "output_tokens": 5 }, "output": [search, search, { "type": "message" }] }),
            usage(10, 0, 0, 5, 0, 2),
        ),
        (
            json!({ "usage": { "input_tokens": 10, "output_tokens": 5 }, "output": [
                { "type": "image_generation_call", "status": "completed", "result": "AAAA" }, { "type": "image_generation_call", "status": "failed" },
                { "type": "code_interpreter_call", "container_id": "a" }, { "type": "code_interpreter_call", "container_id": "b" }, { "type": "code_interpreter_call", "container_id": "a" } ],
                "tool_usage": { "image_gen": { "input_tokens": 40, "input_tokens_details": { "text_tokens": 30, "image_tokens": 10 }, "output_tokens": 272 } } }),
            Usage { images_made: 1, image_in: 10, image_out: 272, code_sessions: 2, ..usage(40, 0, 0, 5, 0, 0) },
        ),
        (
            json!({ "usage": { "input_tokens": 10, "output_tokens": 5 },
                "tool_usage": { "image_gen": { "input_tokens": 40, "input_tokens_details": { "text_tokens": 30, "cached_tokens": 8 }, "output_tokens": 272, "output_tokens_details": { "text_tokens": 2, "image_tokens": 270 } } } }),
            Usage { image_in: 2, image_out: 270, ..usage(40, 8, 0, 7, 0, 0) },
        ),
        (
            json!({ "usage": { "input_tokens": 10, "output_tokens": 5 }, "tool_usage": { "image_gen": { "input_tokens": 40, "output_tokens": 272 } } }),
            Usage { image_in: 40, image_out: 272, ..usage(10, 0, 0, 5, 0, 0) },
        ),
        // Contradictions: the cheaper reading.
        (
            json!({ "usage": { "input_tokens": 10, "input_tokens_details": { "cached_tokens": 40 }, "output_tokens": 5, "output_tokens_details": { "reasoning_tokens": 9 } } }),
            usage(0, 10, 0, 5, 0, 0),
        ),
        (
            json!({ "usage": { "input_tokens": 10, "output_tokens": 500, "total_tokens": 15 } }),
            usage(10, 0, 0, 5, 0, 0),
        ),
    ]
}

fn agreed(reading: Reading) -> Reading {
    match reading {
        Reading::Reported(usage) => Reading::Reported(Usage { contradictory: false, ..usage }),
        other => other,
    }
}

#[test]
fn every_path_of_the_report_is_read_whole_and_streamed() {
    for (report, expected) in reports() {
        let mut response =
            json!({ "id": "resp_1", "object": "response", "status": "completed", "model": "up/m", "output": [] });
        response.as_object_mut().unwrap().extend(report.as_object().unwrap().clone());
        let body = response.to_string();
        let answer = AnswerBody { media: "", bytes: body.as_bytes() };
        let reading = Responses.read_answer(answer, &Shape::default()).map(agreed);
        assert_eq!(reading, Ok(Reading::Reported(expected)), "{body}");
        for kind in ["response.completed", "response.incomplete"] {
            let stream = stream(&[
                json!({ "type": "response.created", "response": { "id": "resp_1", "model": "up/m", "usage": null } }),
                json!({ "type": "response.output_text.delta", "delta": "héllo" }),
                json!({ "type": kind, "response": response }),
            ]);
            let outcome = run(&Responses, &[&stream]);
            assert_eq!(agreed(outcome.reading), Reading::Reported(expected), "{body}");
            assert!(outcome.is_complete && outcome.has_content && outcome.error.is_none());
            assert!(!outcome.client.contains("up/m"), "{}", outcome.client);
            let last: Value = serde_json::from_str(
                outcome.client.lines().rfind(|l| l.starts_with("data: ")).unwrap().strip_prefix("data: ").unwrap(),
            )
            .unwrap();
            assert_eq!((&last["type"], &last["response"]["model"]), (&json!(kind), &json!("m")));
            assert_eq!(last["response"]["usage"]["cost"]["total_msats"], 2475);
        }
    }
}

fn stream(events: &[Value]) -> String {
    events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or("x"))).collect()
}

#[test]
fn streams_that_fail_or_break_off_are_no_success() {
    let text = json!({ "type": "response.output_text.delta", "delta": "abcd", "sequence_number": 4 });
    let created = json!({ "type": "response.created", "response": { "id": "resp_9", "created_at": 7, "model": "up" } });
    for (last, error) in [
        (
            Some(json!({ "type": "response.failed", "response": { "error": { "message": "overloaded" } } })),
            Some("overloaded"),
        ),
        (Some(json!({ "type": "response.failed", "response": { "error": null } })), Some("no reason given")),
        (Some(json!({ "type": "error", "message": "quota" })), Some("quota")),
        (Some(json!({ "type": "error", "error": { "message": "quota" } })), Some("quota")),
        (Some(json!({ "error": { "message": "quota" } })), Some("quota")),
        (None, None),
    ] {
        let events: Vec<Value> = [created.clone(), text.clone()].into_iter().chain(last).collect();
        let outcome = run(&Responses, &[&stream(&events)]);
        assert_eq!(outcome.error.as_deref(), error, "{events:?}");
        assert!(!outcome.is_complete && outcome.has_content);
        assert_eq!(outcome.reading, Reading::Unreported { output_chars: 4 });
    }
    let mut meter = Responses.meter(&Shape { model: "m".into(), ..Shape::default() });
    for event in [&created, &text] {
        meter.observe(&sse::event_of(event.to_string().as_bytes()));
    }
    let told = meter.error_event("cut \"off\"", "upstream_error", "upstream_error");
    let told: Value = serde_json::from_slice(&sse::data_of(&told).unwrap()).unwrap();
    assert_eq!((&told["type"], &told["sequence_number"]), (&json!("response.failed"), &json!(5)));
    assert_eq!(
        (
            &told["response"]["id"],
            &told["response"]["created_at"],
            &told["response"]["model"],
            &told["response"]["error"]["message"]
        ),
        (&json!("resp_9"), &json!(7), &json!("m"), &json!("cut \"off\""))
    );
}

#[test]
fn answers_are_told_from_failures() {
    for (body, expected) in [
        ("<html>", Err(BadAnswer::NotJson)),
        ("{}", Err(BadAnswer::Empty)),
        (r#"{"error":{"message":"x"}}"#, Err(BadAnswer::Error("x".into()))),
        (r#"{"status":"failed","output":[],"error":{"message":"x"}}"#, Err(BadAnswer::Error("x".into()))),
        (r#"{"status":"failed","output":[]}"#, Err(BadAnswer::Error("no reason given".into()))),
        (r#"{"status":"in_progress","output":[]}"#, Err(BadAnswer::Truncated)),
        (
            r#"{"output":[{"content":[{"type":"output_text","text":"abc"}]}]}"#,
            Ok(Reading::Unreported { output_chars: 3 }),
        ),
    ] {
        let answer = AnswerBody { media: "", bytes: body.as_bytes() };
        assert_eq!(Responses.read_answer(answer, &Shape::default()), expected, "{body}");
    }
    let body = Bytes::from_static(br#"{"model":"up","output":[],"usage":null,"x":1.50}"#);
    let stamped = Responses.stamp(
        &body,
        &Shape { model: "m".into(), ..Shape::default() },
        &receipt(usage(6, 4, 0, 5, 0, 0), Some(9)),
    );
    let answer: Value = serde_json::from_slice(&stamped).unwrap();
    assert_eq!((&answer["model"], &answer["usage"]["input_tokens"]), (&json!("m"), &json!(10)));
    assert_eq!(
        (&answer["cost"]["total_msats"], &answer["usage"]["remaining_balance_msats"]),
        (&json!(2475), &json!(9))
    );
}
