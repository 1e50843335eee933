//! Answers of the benchmark's upstream in the wire formats that are not chat completions. All of them
//! report 60 tokens in and 40 out, or what costs the same.

use super::upstream::{EVENTS, now_ns};

const SENTENCE: &str = "The quick brown fox jumps over the lazy dog, and nobody minds the gap. ";

pub const RESPONSES: fn() -> String = || response("bench/responses", "completed", true);
pub const MESSAGES: fn() -> String = || message("bench/messages", &SENTENCE.repeat(3), 40);
pub const EMBEDDINGS: fn() -> String = || {
    let vector = vec!["-0.012345678"; 32].join(",");
    format!(
        r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":[{vector}]}}],"model":"bench/embeddings","usage":{{"prompt_tokens":60,"total_tokens":60}}}}"#
    )
};

fn response(model: &str, status: &str, is_done: bool) -> String {
    let (output, usage) = if is_done {
        let text = SENTENCE.repeat(3);
        let item = format!(
            r#"{{"type":"message","id":"msg_1","role":"assistant","status":"completed","content":[{{"type":"output_text","text":"{text}","annotations":[]}}]}}"#
        );
        let usage = r#"{"input_tokens":60,"input_tokens_details":{"cached_tokens":0},"output_tokens":40,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":100}"#;
        (item, usage)
    } else {
        (String::new(), "null")
    };
    format!(
        r#"{{"id":"resp_1","object":"response","created_at":1700000000,"status":"{status}","model":"{model}","output":[{output}],"usage":{usage}}}"#
    )
}

fn message(model: &str, text: &str, output_tokens: u32) -> String {
    let content = if text.is_empty() { String::new() } else { format!(r#"{{"type":"text","text":"{text}"}}"#) };
    let stop = if text.is_empty() { "null" } else { "\"end_turn\"" };
    format!(
        r#"{{"id":"msg_1","type":"message","role":"assistant","model":"{model}","content":[{content}],"stop_reason":{stop},"stop_sequence":null,"usage":{{"input_tokens":60,"output_tokens":{output_tokens}}}}}"#
    )
}

fn event(kind: &str, rest: &str) -> String {
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\",{rest}}}\n\n")
}

/// A stream of Responses: [`EVENTS`] pieces of text.
pub fn responses_events() -> Vec<String> {
    let model = "bench/responses-burst";
    let mut events =
        vec![event("response.created", &format!("\"response\":{}", response(model, "in_progress", false)))];
    events.extend((0..EVENTS).map(|_| {
        let delta = format!("@{:015}@ word", now_ns());
        let rest = format!(r#""item_id":"msg_1","output_index":0,"content_index":0,"delta":"{delta}""#);
        event("response.output_text.delta", &rest)
    }));
    events.push(event("response.completed", &format!("\"response\":{}", response(model, "completed", true))));
    events
}

/// A stream of Messages: [`EVENTS`] pieces of text.
pub fn messages_events() -> Vec<String> {
    let mut events = vec![
        event("message_start", &format!("\"message\":{}", message("bench/messages-burst", "", 1))),
        event("content_block_start", r#""index":0,"content_block":{"type":"text","text":""}"#),
    ];
    events.extend((0..EVENTS).map(|_| {
        let text = format!("@{:015}@ word", now_ns());
        event("content_block_delta", &format!(r#""index":0,"delta":{{"type":"text_delta","text":"{text}"}}"#))
    }));
    events.push(event("content_block_stop", r#""index":0"#));
    let delta = r#""delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":40}"#;
    events.push(event("message_delta", delta));
    events.push("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n".to_owned());
    events
}
