//! Answers on their way: whole, in pieces, cut, absurd, or never.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use coinslot::clock::{Clock, SystemClock};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::bearer::{refund, world, world_with};
use crate::support::answers::{PATIENCE, Patience, until};
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, TestNode, ask, ask_streaming};
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream, completion, delta, sse, usage};

const JSON: &str = "application/json";
const SSE: &str = "text/event-stream";

fn stream(pieces: Vec<String>) -> Script {
    Script::Stream { pieces, cut: false }
}

fn finish_chunk(usage: Option<Value>) -> String {
    let mut chunk = json!({
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL,
        "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }],
    });
    if let Some(usage) = usage {
        chunk["usage"] = usage;
    }
    format!("data: {chunk}\n\n")
}

const DONE: &str = "data: [DONE]\n\n";

/// The data of every event.
fn events(text: &str) -> Vec<String> {
    let text = text.replace("\r\n", "\n");
    text.split("\n\n")
        .filter(|event| !event.is_empty())
        .map(|event| event.trim_start_matches("data: ").to_owned())
        .collect()
}

/// What the deltas of a stream say together.
fn said(text: &str) -> String {
    let of = |event: &String| {
        let chunk: Value = serde_json::from_str(event).ok()?;
        chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned)
    };
    events(text).iter().filter_map(of).collect()
}

/// The bill at the end of a stream.
fn bill(text: &str) -> Value {
    let events = events(text);
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "{text}");
    assert_eq!(text.matches("[DONE]").count(), 1, "{text}");
    // In the usage, beside it, and in the metadata.
    assert_eq!(text.matches("total_msats").count(), 3, "one bill: {text}");
    serde_json::from_str(&events[events.len() - 2]).unwrap()
}

/// Reads until the stream has said this much.
async fn read_until(response: &mut Response, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await.expect("live").unwrap();
        text.push_str(std::str::from_utf8(&chunk.expect("more")).unwrap());
    }
    text
}

/// An upstream that sends the same bytes each time, cut at an offset that the request names.
struct Splitter {
    url: String,
    server: JoinHandle<()>,
}

impl Splitter {
    async fn start(bytes: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let route = post(move |body: Bytes| async move {
            let request: Value = serde_json::from_slice(&body).unwrap();
            let at = usize::try_from(request["split_at"].as_u64().unwrap()).unwrap();
            let pieces = [&bytes[..at], &bytes[at..]].map(Bytes::from_static);
            let pieces = futures_util::stream::iter(pieces.into_iter().filter(|piece| !piece.is_empty()));
            let paced = futures_util::StreamExt::then(pieces, |piece| async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                Ok::<_, std::io::Error>(piece)
            });
            ([(CONTENT_TYPE, SSE)], Body::from_stream(paced))
        });
        let router = Router::new().route("/v1/chat/completions", route);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, server }
    }
}

/// Takes out what differs from one request to the next by right: what is left on the key.
fn without_balance(text: &str) -> String {
    let mut parts = text.split("\"remaining_balance_msats\":");
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        out.push_str("\"remaining_balance_msats\":0");
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    out
}

/// Sends a fixture cut at every offset; gives what the client got, which must always be the same, for the same `msat`.
async fn cut_everywhere(bytes: &'static [u8], wants_usage: bool, msat: u64) -> String {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(100_000).await;
    let spare = Upstream::start().await;
    let splitter = Splitter::start(bytes).await;
    let node = TestNode::with(&mint, &spare, &[("UPSTREAM_BASE_URL", &splitter.url)]).await;
    let token = purse.send(65_536).await;
    let get = |at: usize| {
        let mut request = ask_streaming("hi");
        request["max_tokens"] = json!(100);
        request["split_at"] = json!(at);
        if wants_usage {
            request["stream_options"] = json!({ "include_usage": true });
        }
        let sent = node.chat(&request).bearer_auth(&token).send();
        async move {
            let answer = sent.await.unwrap();
            assert_eq!(answer.status(), 200, "cut at {at}");
            without_balance(&answer.text().await.unwrap())
        }
    };
    let expected = get(0).await;
    let offsets: Vec<usize> = (1..=bytes.len()).collect();
    for batch in offsets.chunks(32) {
        let answers = futures_util::future::join_all(batch.iter().map(|at| get(*at))).await;
        for (at, answer) in batch.iter().zip(answers) {
            assert_eq!(answer, expected, "cut at {at}");
        }
    }
    node.settled().await;
    let cost = u64::try_from(bytes.len() + 1).unwrap() * msat;
    assert_eq!(node.balance(&token).await, (65_536_000 - cost, 0, cost));
    node.finish().await;
    splitter.server.abort();
    expected
}

const PLAIN: &[u8] = concat!(
    "data: {\"id\":\"c\",\"model\":\"toy/echo-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"h\u{e9}\u{1f600}\"},\"finish_reason\":null}]}\n\n",
    ": keep-alive\n\n",
    "data: {\"id\":\"c\",\"odd\":0.10000000000000000001,\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":50,\"total_tokens\":150}}\n\n",
    "data: [DONE]\n\n",
)
.as_bytes();

const CRLF: &[u8] = concat!(
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ab\"}}]}\r\n\r\n",
    ":\r\n\r\nevent: x\r\ndata: {\"id\":\"c\",\r\ndata: \"choices\":[{\"index\":0,\"delta\":{\"content\":\"c\"},\"finish_reason\":\"stop\"}]}\r\n\r\n",
    "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":50}}\r\n\r\n",
    "data:[DONE]\r\n\r\n",
)
.as_bytes();

/// Content, and then trouble.
const BROKEN: &[u8] = concat!(
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"some text\"}}]}\n\n",
    "data: {\"error\":{\"message\":\"out of luck\"}}\n\n",
)
.as_bytes();

/// Invariant 34: an incremental parser, tried on every split point.
#[tokio::test(flavor = "multi_thread")]
async fn the_client_gets_the_same_bytes_wherever_the_stream_is_cut() {
    let text = cut_everywhere(PLAIN, true, 2000).await;
    assert_eq!(said(&text), "h\u{e9}\u{1f600}");
    assert!(text.contains("\"odd\":0.10000000000000000001,"), "{text}");
    assert!(!text.contains("keep-alive"));
    assert_eq!(bill(&text)["usage"]["cost"]["total_msats"], 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_does_with_other_line_ends() {
    let text = cut_everywhere(CRLF, false, 2000).await;
    assert_eq!(bill(&text)["usage"]["cost"]["total_msats"], 2000);
    assert!(text.contains("\"content\":\"ab\"") && text.contains("\"content\":\"c\""), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_does_before_an_error_in_the_stream() {
    // 17 characters are five tokens of 10 msat, and nine are three tokens of 20.
    let text = cut_everywhere(BROKEN, false, 50 + 60).await;
    assert_eq!(said(&text), "some text");
    assert!(text.contains("out of luck") && !text.contains("[DONE]"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_counts_wherever_it_is_reported() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let token = purse.send(500).await;
    let chunk = |text: &str, report: Value| {
        let chunk = json!({ "id": "c", "model": MODEL, "choices": [{ "index": 0, "delta": { "content": text } }], "usage": report });
        format!("data: {chunk}\n\n")
    };
    let deepseek = json!({
        "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
        "prompt_cache_hit_tokens": 40, "prompt_cache_miss_tokens": 60,
    });
    let mut groq: Value = serde_json::from_str(finish_chunk(None).trim_start_matches("data: ")).unwrap();
    groq["x_groq"] = json!({ "id": "r", "usage": usage(100, 50) });
    let shapes = [
        ("on the finish chunk", vec![delta(MODEL, "a"), finish_chunk(Some(usage(100, 50))), DONE.into()]),
        ("on the finish chunk without [DONE]", vec![delta(MODEL, "a"), finish_chunk(Some(usage(100, 50)))]),
        (
            "on every chunk, growing",
            vec![chunk("a", usage(100, 1)), chunk("b", usage(100, 2)), finish_chunk(Some(usage(100, 50))), DONE.into()],
        ),
        (
            "null until the last",
            vec![
                chunk("a", Value::Null),
                finish_chunk(None),
                sse(MODEL, &[], Some(usage(100, 50)))[2].clone(),
                DONE.into(),
            ],
        ),
        ("of DeepSeek", vec![delta(MODEL, "a"), finish_chunk(Some(deepseek)), DONE.into()]),
        ("of Groq", vec![delta(MODEL, "a"), format!("data: {groq}\n\n"), DONE.into()]),
        (
            "after the last event, without its blank line",
            vec![delta(MODEL, "a"), finish_chunk(Some(usage(100, 50))).trim_end().into()],
        ),
    ];
    let count = u64::try_from(shapes.len()).unwrap();
    for (name, pieces) in shapes {
        upstream.next(stream(pieces));
        let text = node.chat(&ask_streaming("hi")).bearer_auth(&token).send().await.unwrap().text().await.unwrap();
        let bill = bill(&text);
        // The toy model has no price for cached tokens: they cost what others do.
        assert_eq!(bill["usage"]["cost"]["total_msats"], 2000, "{name}: {text}");
        assert_eq!(bill["usage"]["cost"]["estimated"], Value::Null, "{name}");
        assert!(said(&text).starts_with('a'), "{name}: {text}");
    }
    assert_eq!(node.balance(&token).await, (500_000 - count * 2000, 0, count * 2000));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_passes_untouched() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let token = purse.send(500).await;
    let numbers = r#""a":0.10000000000000000001,"b":1e400,"c":-0.0,"d":123456789012345678901234567890,"e":1E+2,"f":"\u00e9\ud83d\ude00\/""#;
    let body = format!(
        r#"{{  "z":1, "model":"{MODEL}",{numbers},"messages":[{{"role":"user","content":"hi","x":1.50}}],"a2":{{"k":[1.0,null]}} }}"#
    );
    let answer = format!(
        r#"{{"id":"c",{numbers},"choices":[{{"index":0,"message":{{"role":"assistant","content":"x","odd":1e400}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":100,"completion_tokens":50,"rate":1e400,"cost":0.000000000000000000001}}}}"#
    );
    upstream.next(Script::Answer { status: 200, media: JSON, body: answer });
    let post = || node.post("/v1/chat/completions").header("content-type", JSON).bearer_auth(&token);
    let got = post().body(body.clone()).send().await.unwrap().text().await.unwrap();
    assert_eq!(upstream.last().body, body.as_bytes(), "the request's bytes");
    for text in [numbers, r#""odd":1e400"#, r#""rate":1e400"#] {
        assert!(got.contains(text), "{text} is not in {got}");
    }
    // Streamed, one member changes, and no other byte.
    let body = body.replacen("{  ", r#"{ "stream":true,"stream_options":{"include_obfuscation":false}, "#, 1);
    let chunk = format!(r#"{{{numbers},"choices":[{{"index":0,"delta":{{"content":"x","odd":1e400}}}}]}}"#);
    upstream.next(stream(vec![format!("data: {chunk}\n\n"), finish_chunk(Some(usage(100, 50))), DONE.into()]));
    let got = post().body(body.clone()).send().await.unwrap().text().await.unwrap();
    assert!(events(&got).contains(&chunk), "{got}");
    let seen = String::from_utf8(upstream.last().body.to_vec()).unwrap();
    let options: Value = serde_json::from_str::<Value>(&seen.replace("1e400", "1")).unwrap()["stream_options"].clone();
    assert_eq!(options, json!({ "include_obfuscation": false, "include_usage": true }));
    let start = seen.find(r#""stream_options":"#).unwrap();
    let end = start + seen[start..].find('}').unwrap() + 1;
    let undone = format!(r#"{}"stream_options":{{"include_obfuscation":false}}{}"#, &seen[..start], &seen[end..]);
    assert_eq!(undone, body);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_arrive_live() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let token = purse.send(500).await;
    let after = vec![delta(MODEL, "second"), finish_chunk(Some(usage(100, 50))), DONE.into()];
    upstream.next(Script::Paused { before: vec![delta(MODEL, "first")], after });
    let mut answer = node.chat(&ask_streaming("hi")).bearer_auth(&token).send().await.unwrap();
    let before = read_until(&mut answer, "\n\n").await;
    assert_eq!(said(&before), "first");
    // It runs, and its money is set aside.
    let (left, held, spent) = node.balance(&token).await;
    assert!(held > 0 && spent == 0 && left + held == 500_000, "{left} {held} {spent}");
    upstream.resume();
    let rest = answer.text().await.unwrap();
    assert_eq!(said(&rest), "second");
    assert_eq!(bill(&rest)["usage"]["remaining_balance_msats"], 498_000);
    node.finish().await;
}

/// Invariants 5 and 28: a client that leaves pays what its answer really cost.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_early_pays_what_it_cost() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let token = purse.send(500).await;
    let mut after: Vec<String> = (0..50).map(|_| delta(MODEL, "more")).collect();
    after.extend([finish_chunk(Some(usage(100, 50))), DONE.into()]);
    upstream.next(Script::Paused { before: vec![delta(MODEL, "first")], after });
    let mut answer = node.chat(&ask_streaming("hi")).bearer_auth(&token).send().await.unwrap();
    read_until(&mut answer, "first").await;
    drop(answer);
    upstream.resume();
    until("the real usage is billed", async || node.balance(&token).await == (498_000, 0, 2000)).await;
    // The same where nothing ever says what was used: counted, and never above the hold.
    let after = vec![delta(MODEL, &"x".repeat(3_000)), finish_chunk(None), DONE.into()];
    upstream.next(Script::Paused { before: vec![delta(MODEL, "first")], after });
    let mut answer = node.chat(&ask_streaming("hi")).bearer_auth(&token).send().await.unwrap();
    read_until(&mut answer, "first").await;
    let held = node.balance(&token).await.1;
    drop(answer);
    upstream.resume();
    until("the estimate is billed", async || node.balance(&token).await.1 == 0).await;
    // 17 characters are five tokens of 10 msat, and 3,005 are 752 tokens of 20.
    let estimate = 50 + 752 * 20;
    assert!(estimate <= held, "{held}");
    assert_eq!(node.balance(&token).await, (498_000 - estimate, 0, 2000 + estimate));
    node.finish().await;
}

/// What one bad stream must do.
struct Bad {
    name: &'static str,
    script: Script,
    /// 502, or 200 with an error event.
    status: u16,
    /// What is charged, in msat.
    cost: u64,
}

/// Invariant 25: no 2xx with content, no charge.
#[tokio::test(flavor = "multi_thread")]
async fn bad_streams_are_said_to_be_bad_and_cost_what_came() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let token = purse.send(500).await;
    let cut = |pieces: Vec<String>| Script::Stream { pieces, cut: true };
    let answer = |media: &'static str, body: &str| Script::Answer { status: 200, media, body: body.to_owned() };
    let error = "data: {\"error\":{\"message\":\"out of luck\",\"code\":500}}\n\n".to_owned();
    let role = sse(MODEL, &[], None)[0].clone();
    // 17 characters are five tokens of 10 msat, and 40 are ten tokens of 20.
    let text = delta(MODEL, &"x".repeat(40));
    let some = 50 + 200;
    let bad = |name, script, status, cost| Bad { name, script, status, cost };
    let cases = [
        bad("cut after some text", cut(vec![role.clone(), text.clone()]), 200, some),
        bad("ended after some text", stream(vec![role.clone(), text.clone()]), 200, some),
        bad(
            "half an event after some text",
            stream(vec![text.clone(), "data: {\"choices\":[{\"del".into()]),
            200,
            some,
        ),
        bad("an error after some text", stream(vec![text.clone(), error.clone()]), 200, some),
        bad("an error in the same piece as some text", stream(vec![format!("{text}{error}")]), 200, some),
        bad("an error in place of usage", stream(vec![text.clone(), error.clone(), DONE.into()]), 200, some),
        bad("cut after the role", cut(vec![role.clone()]), 502, 0),
        bad("cut at once", cut(vec![]), 502, 0),
        bad("cut in the first event", cut(vec!["data: {\"choices".into()]), 502, 0),
        bad("an error at once", stream(vec![error.clone()]), 502, 0),
        bad("empty", stream(vec![]), 502, 0),
        bad("nothing but comments", stream(vec![": wait\n\n".into(), ": wait\n\n".into()]), 502, 0),
        bad("HTML", answer("text/html", "<html><body>504</body></html>"), 502, 0),
        bad("HTML that calls itself a stream", answer(SSE, "<html><body>504</body></html>"), 502, 0),
        bad("HTML that calls itself JSON", answer(JSON, "<html><body>504</body></html>"), 502, 0),
        bad("an error as JSON", answer(JSON, "{\"error\":{\"message\":\"out of luck\"}}"), 502, 0),
        bad("an error as text", answer(JSON, "{\"error\":\"out of luck\"}"), 502, 0),
        bad("an empty object", answer(JSON, "{}"), 502, 0),
        bad("an empty body", answer(JSON, ""), 502, 0),
        bad("an empty body that calls itself a stream", answer(SSE, ""), 502, 0),
        bad(
            "no choices",
            answer(JSON, "{\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":9}}"),
            502,
            0,
        ),
        bad("half of a JSON answer", answer(JSON, &completion(MODEL, "x", None)[..60]), 502, 0),
    ];
    for Bad { name, script, status, cost } in cases {
        let (before, _, _) = node.balance(&token).await;
        upstream.next(script);
        let answer = node.chat(&ask_streaming("hi")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), status, "{name}");
        assert!(!answer.headers().contains_key("x-cashu"));
        let text = answer.text().await.unwrap();
        node.settled().await;
        let (after, held, _) = node.balance(&token).await;
        assert_eq!((before - after, held), (cost, 0), "{name}");
        assert!(!text.contains("[DONE]"), "{name}: {text}");
        let error: Value = if status == 200 {
            assert_eq!(said(&text), "x".repeat(40), "{name}: {text}");
            serde_json::from_str(events(&text).last().unwrap()).unwrap()
        } else {
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(error["error"]["type"], "upstream_error", "{name}: {text}");
        assert!(error["error"]["message"].as_str().is_some_and(|said| !said.is_empty()), "{name}");
    }
    node.finish().await;
}

/// The same where the answer was asked for whole.
#[tokio::test(flavor = "multi_thread")]
async fn bad_whole_answers_cost_nothing() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let token = purse.send(500).await;
    for (media, body) in [
        ("text/html", "<html>"),
        (JSON, ""),
        (JSON, "null"),
        (JSON, "[]"),
        (JSON, "{\"error\":{\"message\":\"out of luck\"}}"),
        (JSON, "[{\"error\":{\"message\":\"out of luck\"}}]"),
        (SSE, "data: {\"choices\":[]}\n\n"),
        ("text/plain", "hello"),
    ] {
        upstream.next(Script::Answer { status: 200, media, body: body.to_owned() });
        let answer = node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 502, "{media} {body}");
    }
    for (status, expected) in
        [(400, 400), (401, 502), (403, 502), (404, 404), (418, 418), (429, 429), (500, 502), (503, 502)]
    {
        let body = json!({ "error": { "message": "no", "type": "t", "code": "c" } }).to_string();
        upstream.next(Script::Answer { status, media: JSON, body });
        let answer = node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{status}");
        assert_eq!(answer.headers().contains_key("retry-after"), [429, 503].contains(&status));
    }
    assert_eq!(node.balance(&token).await, (500_000, 0, 0));
    node.finish().await;
}

/// A success in which nothing came, and nothing says that anything was used.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_delivered_is_free() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let token = purse.send(500).await;
    for script in [
        stream(vec![DONE.into()]),
        stream(sse(MODEL, &[], None)),
        Script::Answer { status: 200, media: JSON, body: completion(MODEL, "", None) },
    ] {
        let body =
            if matches!(script, Script::Stream { .. }) { ask_streaming("a question") } else { ask("a question") };
        let before = upstream.seen().len();
        upstream.next(script);
        let answer = node.chat(&body).bearer_auth(&token).send().await.unwrap();
        let text = answer.text().await.unwrap();
        assert!(upstream.is_idle(), "{text}");
        assert_eq!(upstream.seen().len(), before + 1, "{text}");
        assert_eq!(node.balance(&token).await, (500_000, 0, 0), "{text}");
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_may_answer_a_request_for_a_stream() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let token = purse.send(500).await;
    upstream.next(Script::Answer {
        status: 200,
        media: JSON,
        body: completion(MODEL, "all at once", Some(usage(100, 50))),
    });
    let answer = node.chat(&ask_streaming("hi")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], JSON);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "all at once");
    assert_eq!(node.balance(&token).await, (498_000, 0, 2000));
    node.finish().await;
}

/// Invariant 3: never above the hold, never below zero, whatever the upstream says.
#[tokio::test(flavor = "multi_thread")]
async fn usage_that_cannot_be_is_bounded_by_the_hold() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let token = purse.send(900).await;
    let big = 9_223_372_036_854_775_808_u64;
    // (usage, whether it counts and is simply too much)
    let reports = [
        (json!({ "prompt_tokens": 9_000_000, "completion_tokens": 9_000_000 }), true),
        (json!({ "prompt_tokens": 1_000_000_000_000_u64, "completion_tokens": 1_000_000_000_000_u64 }), true),
        (json!({ "prompt_tokens": -100, "completion_tokens": -50 }), false),
        (json!({ "prompt_tokens": big, "completion_tokens": big }), false),
        (json!({ "prompt_tokens": u64::MAX, "completion_tokens": u64::MAX, "total_tokens": u64::MAX }), false),
        (json!({ "prompt_tokens": "100", "completion_tokens": "50" }), false),
        (json!({ "prompt_tokens": 1.5, "completion_tokens": 1e300 }), false),
        (json!({ "prompt_tokens": null, "completion_tokens": [] }), false),
        (json!("lots"), false),
        (json!([1, 2]), false),
    ];
    for (report, too_much) in reports {
        for streamed in [false, true] {
            let (before, _, _) = node.balance(&token).await;
            let mut request = if streamed { ask_streaming("hi") } else { ask("hi") };
            request["max_tokens"] = json!(100);
            let text = "x".repeat(40);
            let script = if streamed {
                stream(vec![delta(MODEL, &text), finish_chunk(Some(report.clone())), DONE.into()])
            } else {
                Script::Answer { status: 200, media: JSON, body: completion(MODEL, &text, Some(report.clone())) }
            };
            upstream.next(script);
            let answer = node.chat(&request).bearer_auth(&token).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{report}");
            let text = answer.text().await.unwrap();
            let bill: Value = if streamed { bill(&text) } else { serde_json::from_str(&text).unwrap() };
            let charged = bill["usage"]["cost"]["total_msats"].as_u64().unwrap();
            let (after, held, _) = node.balance(&token).await;
            assert_eq!((before - after, held), (charged, 0), "{report}");
            assert_eq!(bill["usage"]["remaining_balance_msats"], after);
            // 100 tokens out at 20 msat, and at most a few of the prompt: that was held.
            if too_much {
                assert!((2000..10_000).contains(&charged), "{report}: the hold, {charged}");
            } else {
                assert_eq!(bill["usage"]["cost"]["estimated"], true, "{report}");
                assert!((200..400).contains(&charged), "{report}: {charged}");
            }
            for part in ["input_msats", "output_msats"] {
                assert!(bill["usage"]["cost"][part].as_u64().unwrap() <= charged);
            }
        }
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_never_answers_costs_nothing() {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(1000).await;
    let upstream = Upstream::start().await;
    let node = TestNode::with(
        &mint,
        &upstream,
        &[("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS", "3"), ("UPSTREAM_IDLE_TIMEOUT_SECONDS", "1")],
    )
    .await;
    let token = purse.send(500).await;
    for request in [ask("hi"), ask_streaming("hi")] {
        upstream.next(Script::Hang);
        let answer = node.chat(&request).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 504);
        let error: Value = answer.json().await.unwrap();
        assert_eq!(error["error"]["code"], "upstream_timeout");
    }
    assert_eq!(node.balance(&token).await, (500_000, 0, 0));
    // One that falls silent in the middle is the same as one that is cut.
    upstream.next(Script::Paused { before: vec![delta(MODEL, &"x".repeat(40))], after: vec![] });
    let text = node.chat(&ask_streaming("hi")).bearer_auth(&token).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("did not answer in time") && !text.contains("[DONE]"), "{text}");
    let told: Value = serde_json::from_str(events(&text).last().unwrap()).unwrap();
    assert_eq!(told["error"]["code"], "upstream_timeout", "{text}");
    // 17 characters are five tokens of 10 msat, and 40 are ten tokens of 20.
    assert_eq!(node.balance(&token).await, (500_000 - 250, 0, 250));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_lets_a_stream_finish() {
    let (_mint, purse, upstream, mut node) = world(1000).await;
    let token = purse.send(500).await;
    let after = vec![delta(MODEL, "second"), finish_chunk(Some(usage(100, 50))), DONE.into()];
    upstream.next(Script::Paused { before: vec![delta(MODEL, "first")], after });
    let mut answer = node.chat(&ask_streaming("hi")).bearer_auth(&token).send().await.unwrap();
    read_until(&mut answer, "first").await;
    let address = node.running().address();
    let rest = tokio::spawn(async move {
        // Nobody is taken in any more, and the stream goes on.
        let patience = Patience::new();
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            patience.pause("nobody is taken in").await;
        }
        upstream.resume();
        (answer.text().await.unwrap(), upstream)
    });
    tokio::time::timeout(PATIENCE, node.restart()).await.expect("it exits");
    let (rest, _upstream) = rest.await.unwrap();
    assert_eq!(said(&rest), "second");
    assert_eq!(bill(&rest)["usage"]["cost"]["total_msats"], 2000);
    assert_eq!(node.balance(&token).await, (498_000, 0, 2000));
    assert_eq!(refund(&node, &purse, &token).await, 498);
    node.finish().await;
}

/// A client that keeps its connection and stops reading must not keep the money on hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_is_settled_without() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let token = purse.send(500).await;
    // More than all the buffers on the way.
    let mut pieces: Vec<String> = (0..400).map(|_| delta(MODEL, &"x".repeat(60_000))).collect();
    pieces.extend([finish_chunk(Some(usage(100, 50))), DONE.into()]);
    upstream.next(stream(pieces));
    let mut answer = node.chat(&ask_streaming("hi")).bearer_auth(&token).send().await.unwrap();
    let first = answer.chunk().await.unwrap().unwrap();
    assert!(!first.is_empty());
    let held = node.balance(&token).await.1;
    assert!(held > 0);
    let exchange = node.running().exchange().clone();
    until("the stall is noticed", async || {
        let before_ms = SystemClock.now_ms() - 300;
        exchange.deliveries.take_stalled(&exchange.tracker, before_ms) == 1
    })
    .await;
    until("the hold has ended", async || node.balance(&token).await.1 == 0).await;
    let spent = node.balance(&token).await.2;
    assert!(spent > 0 && spent <= held, "{spent}, held {held}");
    assert_eq!(exchange.deliveries.take_stalled(&exchange.tracker, i64::MAX), 0, "only once");
    // Should it read on after all, it learns that this is not the whole answer.
    let mut ended = String::new();
    let broken = loop {
        match tokio::time::timeout(PATIENCE, answer.chunk()).await.expect("no hanging") {
            Ok(Some(chunk)) => ended = String::from_utf8_lossy(&chunk).into_owned(),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken, "the connection is cut: {}", &ended[ended.len().saturating_sub(200)..]);
    node.finish().await;
}

/// Invariant 2, over HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_requests_on_one_key_never_overspend() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let token = purse.send(40).await;
    assert_eq!(node.balance(&token).await, (40_000, 0, 0));
    let mut requests = Vec::new();
    for at in 0..50 {
        let mut request = if at % 2 == 0 { ask("hi") } else { ask_streaming("hi") };
        request["max_tokens"] = json!(150);
        let request = node.chat(&request).bearer_auth(&token);
        requests.push(tokio::spawn(async move {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            (status, answer.text().await.unwrap())
        }));
    }
    let mut served = 0;
    for request in requests {
        match request.await.unwrap() {
            (200, text) => {
                assert!(text.contains("\"total_msats\":2000"), "{text}");
                served += 1;
            }
            (402, text) => {
                let error: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(error["error"]["code"], "insufficient_balance");
                let (needed, had) =
                    (&error["error"]["payment"]["required_msat"], &error["error"]["payment"]["balance_msat"]);
                assert!(needed.as_u64().unwrap() > had.as_u64().unwrap(), "{text}");
            }
            (status, text) => panic!("{status} {text}"),
        }
    }
    // Each holds a little over 3,000 of the 40,000.
    assert!((11..=20).contains(&served), "{served}");
    assert_eq!(node.balance(&token).await, (40_000 - served * 2000, 0, served * 2000));
    let left = 40 - served * 2;
    if left > 0 {
        assert_eq!(refund(&node, &purse, &token).await, left);
    }
    assert_eq!(purse.balance().await, 1000 - served * 2);
    node.finish().await;
}

/// Invariant 1: one token, one credit.
#[tokio::test(flavor = "multi_thread")]
async fn racing_with_one_fresh_token_redeems_it_once() {
    let (mint, purse, _upstream, node) = world(1000).await;
    for round in 1..=5_u64 {
        let token = purse.send(100).await;
        mint.reset_calls();
        let requests: Vec<_> = (0..4)
            .map(|at| {
                let request = if at % 2 == 0 { ask("hi") } else { ask_streaming("hi") };
                let mut request = request;
                request["max_tokens"] = json!(100);
                let sent = node.chat(&request).bearer_auth(&token).send();
                tokio::spawn(async move {
                    let answer = sent.await.unwrap();
                    (answer.status().as_u16(), answer.text().await.unwrap())
                })
            })
            .collect();
        for request in requests {
            let (status, text) = request.await.unwrap();
            assert_eq!(status, 200, "round {round}: {text}");
        }
        assert_eq!(mint.calls("/v1/swap"), 1, "{:?}", mint.all_calls());
        assert_eq!(node.balance(&token).await, (92_000, 0, 8000));
    }
    node.finish().await;
}

/// A token that filled somebody's key is spent. It opens nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_top_up_token_is_no_key_to_the_account() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let (token, gift) = (purse.send(100).await, purse.send(50).await);
    assert_eq!(node.balance(&token).await.0, 100_000);
    let body = json!({ "cashu_token": gift });
    let topped: Value =
        node.post("/v1/wallet/topup").bearer_auth(&token).json(&body).send().await.unwrap().json().await.unwrap();
    assert_eq!(topped["msats"], 50_000);
    let answer = node.chat(&ask("hi")).bearer_auth(&gift).send().await.unwrap();
    assert_eq!(answer.status(), 400, "{}", answer.text().await.unwrap());
    let answer = node.get("/v1/wallet/info").bearer_auth(&gift).send().await.unwrap();
    assert_eq!(answer.status(), 400, "{}", answer.text().await.unwrap());
    let answer = node.post("/v1/wallet/refund").bearer_auth(&gift).send().await.unwrap();
    assert!(answer.status().is_client_error());
    let answer = node.post("/v1/wallet/refund").header("x-cashu", &gift).send().await.unwrap();
    assert!(answer.status().is_client_error());
    assert_eq!(node.balance(&token).await, (150_000, 0, 0));
    // The same top-up again answers the same, and adds nothing.
    let again: Value =
        node.post("/v1/wallet/topup").bearer_auth(&token).json(&body).send().await.unwrap().json().await.unwrap();
    assert_eq!(again["msats"], 50_000);
    assert_eq!(node.balance(&token).await, (150_000, 0, 0));
    node.finish().await;
}

/// While the answer is long in coming, the head of the stream and comments keep its client; the answer is
/// billed like any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_is_told_that_the_stream_lives() {
    let (_mint, purse, upstream, node) = world_with(500, &[("SSE_KEEP_ALIVE_SECONDS", "1")]).await;
    let key = purse.send(200).await;
    let pieces = vec![delta(MODEL, "at last"), finish_chunk(Some(usage(100, 50))), DONE.to_owned()];
    upstream.next(Script::Paused { before: vec![], after: pieces });
    let mut answer = node.chat(&ask_streaming("hi")).bearer_auth(&key).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()[CONTENT_TYPE], "text/event-stream; charset=utf-8");
    let before = read_until(&mut answer, ": ping\n\n: ping\n\n").await;
    assert_eq!(before.replace(": ping\n\n", ""), "", "nothing but comments: {before}");
    assert!(node.balance(&key).await.1 >= 2000, "the money is held");
    upstream.resume();
    let rest = read_until(&mut answer, DONE).await;
    let text = rest.replace(": ping\n\n", "");
    assert_eq!((said(&text).as_str(), bill(&text)["usage"]["cost"]["total_msats"].as_u64()), ("at last", Some(2000)));
    assert_eq!(node.balance(&key).await, (198_000, 0, 2000));
    node.finish().await;
}

/// What fails after the head went out is told in the stream, costs nothing, and the token comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waited_in_vain_is_told_in_the_stream() {
    let settings = [("SSE_KEEP_ALIVE_SECONDS", "1"), ("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS", "4")];
    let (_mint, purse, upstream, node) = world_with(500, &settings).await;
    let key = purse.send(200).await;
    upstream.next(Script::Hang);
    let answer = node.chat(&ask_streaming("hi")).bearer_auth(&key).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.unwrap();
    assert!(text.starts_with(": ping\n\n") && !text.contains("[DONE]"), "{text}");
    let failure: Value = serde_json::from_str(events(&text).last().unwrap()).unwrap();
    assert_eq!(failure["error"]["code"], "upstream_timeout", "{text}");
    assert_eq!(node.balance(&key).await, (200_000, 0, 0));

    // One that rode along: its change comes before the error.
    let once = purse.send(100).await;
    let request = |name: &'static str| {
        let request = node.chat(&ask_streaming("hi")).header("x-cashu", &once).header("x-cashu-change", "stream");
        request.header("idempotency-key", name)
    };
    upstream.next(Script::Hang);
    let text = request("a").send().await.unwrap().text().await.unwrap();
    let change = text.lines().find_map(|line| line.strip_prefix(": x-cashu ")).unwrap_or_else(|| panic!("{text}"));
    let again = request("a").send().await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(
        again.text().await.unwrap(),
        text.replace(": ping\n\n", ""),
        "what is kept has no comments but the change"
    );
    assert_eq!(purse.receive(change).await.unwrap(), 100);
    node.finish().await;
}
