use serde_json::{Value, json};

use super::*;
use crate::dialect::chat::testing::{receipt, run};
use crate::dialect::sse;
use crate::money::{CacheWrites, Usage, UsageSource};

const MESSAGES: &str = r#""messages":[{"role":"user","content":"hi"}]"#;

fn read(members: &str) -> Result<Shape, BadRequest> {
    let body = Bytes::from(format!(r#"{{"model":"m","max_tokens":9,{MESSAGES}{members}}}"#));
    Messages.read(&Request::of(&body))
}

#[test]
fn a_request_is_read() {
    let shape = read(
        r#","system":"be brief","stream":true,"metadata":{"user_id":"x"},"tools":[{"name":"f","input_schema":{}}]"#,
    );
    let shape = shape.unwrap();
    assert_eq!((shape.stream, shape.max_output, shape.prompt_chars), (true, Some(9), 25));
    assert_eq!(shape.demand, crate::money::Demand::default());
    let image = r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}"#;
    let linked = r#"{"type":"image","source":{"type":"url","url":"https://x/y.png"}}"#;
    for (content, images) in [(image, 1), (linked, 1), (r#"{"type":"text","text":"x"}"#, 0)] {
        let body = format!(r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":[{content}]}}]}}"#);
        let shape = Messages.read(&Request::of(&body.into())).unwrap();
        assert_eq!((shape.images, shape.image_tokens), (images, images * 1600), "{content}");
    }
    for (mark, writes) in [
        (r#"{"type":"ephemeral"}"#, CacheWrites::Minutes),
        (r#"{"type":"ephemeral","ttl":"5m"}"#, CacheWrites::Minutes),
        (r#"{"type":"ephemeral","ttl":"1h"}"#, CacheWrites::Hour),
    ] {
        let shape = read(&format!(r#","system":[{{"type":"text","text":"x","cache_control":{mark}}}]"#)).unwrap();
        assert_eq!(shape.demand.cache_writes, writes, "{mark}");
        let shape = read(&format!(r#","tools":[{{"name":"f","cache_control":{mark}}}]"#)).unwrap();
        assert_eq!(shape.demand.cache_writes, writes, "{mark}");
        let shape = read(&format!(r#","cache_control":{mark}"#)).unwrap();
        assert_eq!(shape.demand.cache_writes, writes, "{mark}");
    }
    let document = r#"{"type":"document","source":{"type":"url","url":"https://x/y.pdf"}}"#;
    let linked = read(&format!(r#","system":[{document}]"#)).unwrap();
    assert_eq!((linked.demand.open_input, linked.images, linked.needs.has(Feature::Vision)), (true, 0, false));
    let searching = read(r#","tools":[{"type":"web_search_20250305","name":"web_search","max_uses":4}]"#).unwrap();
    assert_eq!((searching.demand.web_searches, searching.demand.open_input), (4, true));
    let both = read(r#","tools":[{"type":"web_search_20250305","max_uses":4},{"type":"web_fetch_20250910"}]"#).unwrap();
    assert_eq!((both.demand.web_searches, both.demand.tool_calls), (4, 14));
    assert!(read(r#","tools":[{"type":"web_fetch_20250910","max_uses":101}]"#).is_err());
    for members in [
        r#","tools":[{"type":"code_execution_20250825","name":"x"}]"#,
        r#","tools":[7]"#,
        r#","container":"c""#,
        r#","mcp_servers":[{"url":"https://x"}]"#,
        r#","speed":"fast""#,
        r#","service_tier":"batch""#,
        r#","max_tokens":10"#,
        r#","system":[{"type":"document","source":{"type":"file","file_id":"file_1"}}]"#,
    ] {
        assert!(matches!(read(members), Err(BadRequest::Field(_))), "{members}");
    }
    let unlimited = Bytes::from(format!(r#"{{"model":"m",{MESSAGES}}}"#));
    assert_eq!(Messages.read(&Request::of(&unlimited)), Err(BadRequest::Field("max_tokens is missing".into())));
    let counting = CountTokens.read(&Request::of(&unlimited)).unwrap();
    assert!(counting.demand.uncounted);
}

#[test]
fn only_known_headers_are_passed_on() {
    let headers = |version: Option<&str>, beta: Option<&str>| {
        Messages.headers(&|name| match name {
            "anthropic-version" => version.map(str::to_owned),
            "anthropic-beta" => beta.map(str::to_owned),
            _ => panic!("{name} is asked for"),
        })
    };
    let version = ("anthropic-version", "2023-06-01".to_owned());
    assert_eq!(headers(None, None), vec![version.clone()]);
    assert_eq!(headers(Some("2023-06-01\u{7f}"), Some("files-api-2025-04-14")), vec![version.clone()]);
    assert_eq!(headers(Some("2024-01-01"), None), vec![("anthropic-version", "2024-01-01".to_owned())]);
    assert_eq!(
        headers(
            None,
            Some(
                "claude-code-20250219, oauth-2025-04-20,what-comes-next-2027-05-14,effort-x y,my-secret,context-1m-2025-08-07,x-20250219-y"
            )
        ),
        vec![version, ("anthropic-beta", "claude-code-20250219,what-comes-next-2027-05-14".to_owned())]
    );
}

fn usage(input: u64, cache_read: u64, minutes: u64, hour: u64, output: u64, web_searches: u64) -> Usage {
    Usage { input, cache_read, cache_write: minutes, cache_write_1h: hour, output, web_searches, ..Usage::default() }
}

/// One row for each path of the report.
fn reports() -> Vec<(Value, Usage)> {
    vec![
        (json!({ "input_tokens": 10, "output_tokens": 5 }), usage(10, 0, 0, 0, 5, 0)),
        // The caches are beside the input.
        (
            json!({ "input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 30, "output_tokens": 5 }),
            usage(10, 100, 30, 0, 5, 0),
        ),
        (
            json!({ "input_tokens": 10, "cache_creation_input_tokens": 30, "output_tokens": 5, "cache_creation": { "ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10 } }),
            usage(10, 0, 20, 10, 5, 0),
        ),
        (
            json!({ "input_tokens": 10, "output_tokens": 5, "cache_creation": { "ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10 } }),
            usage(10, 0, 20, 10, 5, 0),
        ),
        (
            json!({ "input_tokens": 10, "output_tokens": 5, "cache_creation_5m_input_tokens": 20, "cache_creation_1h_input_tokens": 10 }),
            usage(10, 0, 20, 10, 5, 0),
        ),
        (
            json!({ "input_tokens": 10, "cache_creation_input_tokens": 30, "output_tokens": 5, "claude_cache_creation_5_m_tokens": 20, "claude_cache_creation_1_h_tokens": 10 }),
            usage(10, 0, 20, 10, 5, 0),
        ),
        (
            json!({ "input_tokens": 10, "output_tokens": 5, "server_tool_use": { "web_search_requests": 2, "web_fetch_requests": 1 } }),
            usage(10, 0, 0, 0, 5, 2),
        ),
        (
            json!({ "input_tokens": 10, "output_tokens": 5, "iterations": [
                { "type": "message", "input_tokens": 10, "output_tokens": 5 }, { "type": "compaction", "input_tokens": 7, "output_tokens": 3 }] }),
            Usage { read_apart: 7, ..usage(17, 0, 0, 0, 8, 0) },
        ),
        // A compaction has caches of its own. What another kind of pass costs nobody knows here.
        (
            json!({ "input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 5, "iterations": [
                { "type": "compaction", "input_tokens": 7, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 30,
                    "cache_creation": { "ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10 }, "output_tokens": 3 },
                { "type": "compaction", "input_tokens": 1, "cache_creation_input_tokens": 2, "output_tokens": 1 }, { "type": "message" }] }),
            Usage { read_apart: 18, ..usage(18, 45, 22, 10, 9, 0) },
        ),
        (
            json!({ "input_tokens": 10, "output_tokens": 5, "iterations": [{ "type": "advisor_message", "input_tokens": 7, "output_tokens": 3 }] }),
            Usage { contradictory: true, ..usage(10, 0, 0, 0, 5, 0) },
        ),
        // A part that exceeds its total.
        (
            json!({ "input_tokens": 10, "cache_creation_input_tokens": 5, "output_tokens": 5, "cache_creation": { "ephemeral_1h_input_tokens": 50 } }),
            Usage { contradictory: true, ..usage(10, 0, 0, 5, 5, 0) },
        ),
    ]
}

fn stream(events: &[Value]) -> String {
    events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or("x"))).collect()
}

fn start(usage: &Value) -> Value {
    json!({ "type": "message_start", "message": { "id": "msg_1", "model": "up/m", "content": [], "usage": usage } })
}

fn text(text: &str) -> Value {
    json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text } })
}

fn end(usage: &Value) -> Value {
    json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": usage })
}

fn stop() -> Value {
    json!({ "type": "message_stop" })
}

#[test]
fn every_path_of_the_report_is_read_whole_and_streamed() {
    for (report, expected) in reports() {
        let body =
            json!({ "type": "message", "model": "up", "content": [{ "type": "text", "text": "x" }], "usage": report });
        let body = body.to_string();
        let answer = AnswerBody { media: "", bytes: body.as_bytes() };
        assert_eq!(Messages.read_answer(answer, &Shape::default()), Ok(Reading::Reported(expected)), "{body}");
        // All of it at the end; the input at the start and the output at the end; zeros repeated.
        let mut early = report.clone();
        early["output_tokens"] = json!(1);
        let zeros =
            json!({ "input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": report["output_tokens"] });
        let late = json!({ "output_tokens": report["output_tokens"] });
        for (at_start, at_end) in
            [(&json!({ "input_tokens": 0, "output_tokens": 1 }), &report), (&early, &late), (&early, &zeros)]
        {
            let outcome = run(&Messages, &[&stream(&[start(at_start), text("héllo"), end(at_end), stop()])]);
            assert_eq!(outcome.reading, Reading::Reported(expected), "{report} {at_start} {at_end}");
            assert!(outcome.is_complete && outcome.has_content && !outcome.client.contains("up/m"));
            assert_eq!(outcome.client.matches("event: message_stop").count(), 1);
            let delta = outcome.client.lines().find(|line| line.contains("\"message_delta\"")).unwrap();
            let delta: Value = serde_json::from_str(delta.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(delta["usage"]["cost"]["total_msats"], 2475);
            assert!(outcome.client.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
        }
    }
}

#[test]
fn what_a_stream_is_worth_before_its_end() {
    let placeholder = json!({ "input_tokens": 10, "output_tokens": 1 });
    let estimated =
        |output| Reading::Reported(Usage { source: UsageSource::Estimated, ..usage(10, 0, 0, 0, output, 0) });
    for (events, reading, has_content, is_complete) in [
        // The placeholder is never taken for the output.
        (vec![start(&placeholder), text(&"x".repeat(40))], estimated(10), true, false),
        (vec![start(&placeholder)], estimated(0), false, false),
        (vec![start(&json!({})), text("abcd")], Reading::Unreported { output_chars: 4 }, true, false),
        (vec![stop()], Reading::Unreported { output_chars: 0 }, false, false),
        (vec![start(&placeholder), text("abcd"), stop()], estimated(1), true, true),
        (
            vec![start(&placeholder), text("abcd"), end(&json!({ "output_tokens": 7 }))],
            Reading::Reported(usage(10, 0, 0, 0, 7, 0)),
            true,
            true,
        ),
        (
            vec![
                start(&placeholder),
                json!({ "type": "content_block_start", "content_block": { "type": "tool_use", "id": "t", "name": "abcd", "input": {} } }),
            ],
            estimated(1),
            true,
            false,
        ),
    ] {
        let outcome = run(&Messages, &[&stream(&events)]);
        assert_eq!(outcome.reading, reading, "{events:?}");
        assert_eq!((outcome.has_content, outcome.is_complete), (has_content, is_complete), "{events:?}");
        assert_eq!(outcome.client.matches("event: message_stop").count(), usize::from(is_complete), "{events:?}");
    }
    let failed = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } });
    let outcome = run(&Messages, &[&stream(&[start(&placeholder), failed])]);
    assert_eq!(outcome.error.as_deref(), Some("Overloaded"));
    let told = Messages.meter(&Shape::default()).error_event("cut \"off\"", "upstream_error", "upstream_error");
    let told: Value = serde_json::from_slice(&sse::data_of(&told).unwrap()).unwrap();
    assert_eq!(
        told,
        json!({ "type": "error", "error": { "type": "api_error", "message": "cut \"off\"", "code": "upstream_error" } })
    );
}

#[test]
fn answers_are_told_from_failures() {
    for (body, expected) in [
        ("<html>", Err(BadAnswer::NotJson)),
        ("{}", Err(BadAnswer::Empty)),
        (r#"{"content":[]}"#, Err(BadAnswer::Empty)),
        (
            r#"{"type":"error","error":{"type":"x","message":"y"}}"#,
            Err(BadAnswer::Error(Complaint { kind: Some("x".into()), ..Complaint::from("y") })),
        ),
        (r#"{"content":[{"type":"text","text":"abc"}]}"#, Ok(Reading::Unreported { output_chars: 3 })),
    ] {
        let answer = AnswerBody { media: "", bytes: body.as_bytes() };
        assert_eq!(Messages.read_answer(answer, &Shape::default()), expected, "{body}");
    }
    let body = Bytes::from_static(br#"{"model":"up","content":[],"usage":{"input_tokens":1,"output_tokens":2}}"#);
    let stamped =
        Messages.stamp(&body, &Shape { model: "m".into(), ..Shape::default() }, &receipt(Usage::default(), None));
    let answer: Value = serde_json::from_slice(&stamped).unwrap();
    assert_eq!((&answer["model"], &answer["usage"]["output_tokens"]), (&json!("m"), &json!(2)));
    assert_eq!(answer["cost"]["total_msats"], 2475);
    let counted = AnswerBody { media: "", bytes: br#"{"input_tokens":7}"# };
    assert_eq!(CountTokens.read_answer(counted, &Shape::default()), Ok(Reading::Reported(Usage::default())));
    let failed = AnswerBody { media: "", bytes: b"{}" };
    assert_eq!(CountTokens.read_answer(failed, &Shape::default()), Err(BadAnswer::Empty));
}
