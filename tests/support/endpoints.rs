//! What the toy upstream answers at each endpoint when a test has no script for it, and the pieces
//! of which such answers are made.

use serde_json::{Value, json};

use super::upstream::{self, Script, usage};

/// The default answer of `target`, which is a path below `/v1` or `/v1beta` and a query.
pub fn echo(target: &str, request: &Value) -> Script {
    let path = target.split('?').next().unwrap_or_default();
    let path = path.trim_start_matches("/v1beta/").trim_start_matches("/v1/");
    match path {
        "completions" => completion(request),
        "embeddings" => embedding(request),
        "responses" => response(request),
        "messages" => message(request),
        "messages/count_tokens" => answer(&json!({ "input_tokens": 42 })),
        "moderations" => answer(
            &json!({ "id": "modr-1", "model": model(request), "results": [{ "flagged": false, "categories": {}, "category_scores": {} }] }),
        ),
        "rerank" => answer(
            &json!({ "id": "r", "results": [{ "index": 0, "relevance_score": 0.5 }], "meta": { "billed_units": { "search_units": 1 } } }),
        ),
        "images/generations" | "images/edits" | "images/variations" => picture(request),
        "audio/speech" => speech(request),
        "audio/transcriptions" | "audio/translations" => {
            answer(&json!({ "text": "echo", "usage": { "type": "duration", "seconds": 3 } }))
        }
        _ => match path.rsplit_once(':') {
            Some((_, method)) => google(method, target.contains("alt=sse"), request),
            None => upstream::echo(request),
        },
    }
}

pub fn answer(body: &Value) -> Script {
    Script::Answer { status: 200, media: "application/json", body: body.to_string() }
}

fn model(request: &Value) -> &str {
    request["model"].as_str().unwrap_or("?")
}

fn is_stream(request: &Value) -> bool {
    request["stream"] == json!(true)
}

/// A legacy completion: 100 tokens in, 50 out.
fn completion(request: &Value) -> Script {
    let object = |text: &str, finish: Value, usage: Option<Value>| {
        let choices = json!([{ "index": 0, "text": text, "logprobs": null, "finish_reason": finish }]);
        let mut object = json!({ "id": "cmpl-1", "object": "text_completion", "created": 1, "model": model(request), "choices": choices });
        if let Some(usage) = usage {
            object["usage"] = usage;
        }
        object
    };
    if !is_stream(request) {
        return answer(&object("echo", json!("stop"), Some(usage(100, 50))));
    }
    let mut last = object("", Value::Null, Some(usage(100, 50)));
    last["choices"] = json!([]);
    let objects =
        [object("ec", Value::Null, None), object("ho", Value::Null, None), object("", json!("stop"), None), last];
    let mut pieces: Vec<String> = objects.iter().map(|object| format!("data: {object}\n\n")).collect();
    pieces.push("data: [DONE]\n\n".to_owned());
    Script::Stream { pieces, cut: false }
}

/// One vector for each input, as numbers or in base64: 100 tokens in.
fn embedding(request: &Value) -> Script {
    // 1.0 and -2.0 as little-endian 32-bit floats.
    let vector = match request["encoding_format"].as_str() {
        Some("base64") => json!("AACAPwAAAMA="),
        _ => json!([1.0, -2.0]),
    };
    let count = request["input"].as_array().map_or(1, Vec::len);
    let data: Vec<Value> =
        (0..count).map(|index| json!({ "object": "embedding", "index": index, "embedding": vector })).collect();
    answer(&json!({
        "object": "list", "data": data, "model": model(request),
        "usage": { "prompt_tokens": 100, "total_tokens": 100 },
    }))
}

/// Events with their names, which are their `type`.
pub fn events(events: &[Value]) -> Script {
    let piece = |event: &Value| match event["type"].as_str() {
        Some(name) => format!("event: {name}\ndata: {event}\n\n"),
        None => format!("data: {event}\n\n"),
    };
    Script::Stream { pieces: events.iter().map(piece).collect(), cut: false }
}

/// A response with one message: 100 tokens in, 50 out.
fn response(request: &Value) -> Script {
    let usage = json!({
        "input_tokens": 100, "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens": 50, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": 150,
    });
    let response = |status: &str, output: Value, usage: Value| {
        json!({
            "id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": model(request),
            "output": output, "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "store": false,
            "error": null, "incomplete_details": null, "instructions": null, "metadata": {}, "usage": usage,
        })
    };
    let part = |text: &str| json!({ "type": "output_text", "text": text, "annotations": [] });
    let item = |status: &str, content: Value| json!({ "id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": content });
    let whole = item("completed", json!([part("echo")]));
    let completed = response("completed", json!([whole]), usage);
    if !is_stream(request) {
        return answer(&completed);
    }
    let begun = response("in_progress", json!([]), Value::Null);
    let delta = |text: &str| json!({ "type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": text, "logprobs": [] });
    let mut all = [
        json!({ "type": "response.created", "response": begun }),
        json!({ "type": "response.in_progress", "response": begun }),
        json!({ "type": "response.output_item.added", "output_index": 0, "item": item("in_progress", json!([])) }),
        json!({ "type": "response.content_part.added", "item_id": "msg_1", "output_index": 0, "content_index": 0, "part": part("") }),
        delta("ec"),
        delta("ho"),
        json!({ "type": "response.output_text.done", "item_id": "msg_1", "output_index": 0, "content_index": 0, "text": "echo", "logprobs": [] }),
        json!({ "type": "response.content_part.done", "item_id": "msg_1", "output_index": 0, "content_index": 0, "part": part("echo") }),
        json!({ "type": "response.output_item.done", "output_index": 0, "item": whole }),
        json!({ "type": "response.completed", "response": completed }),
    ];
    for (number, event) in all.iter_mut().enumerate() {
        event["sequence_number"] = json!(number);
    }
    events(&all)
}

/// A message: 100 tokens in, 50 out.
fn message(request: &Value) -> Script {
    let message = |content: Value, stop: Value, output: u64| {
        json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": model(request), "content": content,
            "stop_reason": stop, "stop_sequence": null,
            "usage": {
                "input_tokens": 100, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                "cache_creation": { "ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0 },
                "output_tokens": output, "service_tier": "standard",
            },
        })
    };
    if !is_stream(request) {
        return answer(&message(json!([{ "type": "text", "text": "echo" }]), json!("end_turn"), 50));
    }
    let delta = |text: &str| json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text } });
    events(&[
        json!({ "type": "message_start", "message": message(json!([]), Value::Null, 1) }),
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
        json!({ "type": "ping" }),
        delta("ec"),
        delta("ho"),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn", "stop_sequence": null }, "usage": { "output_tokens": 50 } }),
        json!({ "type": "message_stop" }),
    ])
}

/// A picture of 50 tokens, for 100 of text.
fn picture(request: &Value) -> Script {
    let usage = json!({
        "input_tokens": 100, "input_tokens_details": { "text_tokens": 100, "image_tokens": 0 },
        "output_tokens": 50, "total_tokens": 150,
    });
    if is_stream(request) {
        return events(&[
            json!({ "type": "image_generation.partial_image", "b64_json": "AAAA", "partial_image_index": 0 }),
            json!({ "type": "image_generation.completed", "b64_json": "AAAA", "created_at": 1, "usage": usage }),
        ]);
    }
    answer(&json!({ "created": 1, "data": [{ "b64_json": "AAAA" }], "usage": usage }))
}

/// A sound.
fn speech(request: &Value) -> Script {
    if request["stream_format"] == "sse" {
        return events(&[
            json!({ "type": "speech.audio.delta", "audio": "AAAA" }),
            json!({ "type": "speech.audio.done", "usage": { "input_tokens": 1, "output_tokens": 2, "total_tokens": 3 } }),
        ]);
    }
    Script::Answer { status: 200, media: "audio/mpeg", body: "sound".to_owned() }
}

/// What a method of Google's says: 100 tokens in, 50 out.
fn google(method: &str, as_events: bool, request: &Value) -> Script {
    let chunk = |text: &str, finish: Value, output: u64| {
        json!({
            "candidates": [{ "content": { "parts": [{ "text": text }], "role": "model" }, "finishReason": finish, "index": 0 }],
            "usageMetadata": { "promptTokenCount": 100, "candidatesTokenCount": output, "totalTokenCount": 100 + output },
            "modelVersion": "upstream-name", "responseId": "r",
        })
    };
    match method {
        "generateContent" => answer(&chunk("echo", json!("STOP"), 50)),
        "streamGenerateContent" => {
            assert!(as_events, "streams are asked for as events");
            events(&[chunk("ec", Value::Null, 1), chunk("ho", Value::Null, 2), chunk("", json!("STOP"), 50)])
        }
        "countTokens" => answer(&json!({ "totalTokens": 42 })),
        "embedContent" => answer(&json!({ "embedding": { "values": [1.0, -2.0] } })),
        "batchEmbedContents" => {
            let count = request["requests"].as_array().map_or(0, Vec::len);
            answer(&json!({ "embeddings": vec![json!({ "values": [1.0, -2.0] }); count] }))
        }
        other => panic!("{other} is asked of the upstream"),
    }
}
