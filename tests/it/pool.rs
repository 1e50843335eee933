//! Several upstreams: who is asked, who is next, and that a client neither notices nor pays for what
//! failed on the way. Time is stepped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};
use sqlx::Row;

use coinslot::config::Retention;
use coinslot::upstream::retention::{self, Forgotten};

use crate::support::answers::until;
use crate::support::clock::Ahead;
use crate::support::endpoints::events;
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, TestNode, ask, ask_streaming};
use crate::support::port::Kept;
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream, completion, delta, sse, usage};

pub const KEYS: [&str; 3] = ["sk-pool-alpha-0123456789", "sk-pool-bravo-0123456789", "sk-pool-charlie-0123456789"];
pub const NAMES: [&str; 3] = ["alpha-canary", "bravo-canary", "charlie-canary"];
const JSON: &str = "application/json";
const SSE: &str = "text/event-stream";
/// Longer than any rest after a single failure.
const RESTED: Duration = Duration::from_secs(660);

/// A node in front of several upstreams.
pub struct World {
    pub mint: TestMint,
    pub purse: Purse,
    pub upstreams: Vec<Upstream>,
    pub clock: Arc<Ahead>,
    pub node: TestNode,
    pub key: String,
}

/// The entry of an upstream: its address and key, and what `more` says beside it.
pub fn entry(at: usize, url: &str, more: &Value) -> Value {
    let mut entry = json!({ "name": NAMES[at], "base_url": url, "api_key": KEYS[at], "priority": at });
    entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    entry
}

impl World {
    /// One upstream for each of `more`, in this order of priority unless it says otherwise.
    pub async fn new(more: &[Value], settings: &[(&str, &str)]) -> Self {
        let mut upstreams = Vec::new();
        for _ in more {
            upstreams.push(Upstream::start().await);
        }
        let entries = more.iter().zip(&upstreams).enumerate();
        let entries: Vec<Value> = entries.map(|(at, (more, one))| entry(at, &one.url(), more)).collect();
        Self::of(upstreams, &Value::from(entries), settings).await
    }

    pub async fn of(upstreams: Vec<Upstream>, entries: &Value, settings: &[(&str, &str)]) -> Self {
        let mint = TestMint::start().await;
        let purse = Purse::new(&mint).await;
        purse.mint_sats(5_000).await;
        let clock = Arc::new(Ahead::default());
        let mut all: BTreeMap<String, String> =
            [("CASHU_MINTS", mint.url()), ("UPSTREAMS", entries.to_string())].map(|(n, v)| (n.to_owned(), v)).into();
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let node = TestNode::with_settings(all, clock.clone()).await;
        node.quiet().await;
        let key = purse.send(1_000).await;
        let world = Self { mint, purse, upstreams, clock, node, key };
        world.node.balance(&world.key).await;
        world
    }

    /// How often each upstream was asked since this was last looked at.
    pub fn asked(&self) -> Vec<usize> {
        let count = |upstream: &Upstream| {
            let seen = upstream.seen().len();
            upstream.clear();
            seen
        };
        self.upstreams.iter().map(count).collect()
    }

    pub async fn send(&self, body: &Value) -> Reply {
        Reply::of(self.node.chat(body).bearer_auth(&self.key).send().await.unwrap()).await
    }

    /// Paid with a token of its own.
    pub async fn send_token(&self, body: &Value, token: &str) -> Reply {
        Reply::of(self.node.chat(body).header("X-Cashu", token).send().await.unwrap()).await
    }

    /// Steps to the next noon, so that a day does not end in the middle of a test.
    fn to_noon(&self) {
        let second_of_day = (coinslot::clock::Clock::now_ms(&*self.clock) / 1000).rem_euclid(86_400);
        self.clock.step(Duration::from_secs(u64::try_from((43_200 - second_of_day).rem_euclid(86_400)).unwrap()));
    }

    pub async fn spent(&self) -> u64 {
        self.node.settled().await;
        self.node.balance(&self.key).await.2
    }

    pub async fn finish(self) {
        self.node.finish().await;
        drop(self.mint);
    }
}

/// A response, read to its end.
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub text: String,
}

impl Reply {
    pub async fn of(response: Response) -> Self {
        let text = |value: &reqwest::header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        Self { status: response.status().as_u16(), headers, text: response.text().await.unwrap() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The objects of a stream's events.
    pub fn events(&self) -> Vec<Value> {
        self.text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect()
    }

    pub fn has(&self, needle: &str) -> bool {
        self.text.contains(needle) || self.headers.iter().any(|(_, value)| value.contains(needle))
    }
}

pub fn refuse(status: u16) -> Script {
    let body = json!({ "error": { "message": "fault-canary", "type": "t", "code": "c" } }).to_string();
    Script::Refuse { status, headers: Vec::new(), body }
}

pub fn asks_for(status: u16, secs: u64) -> Script {
    let headers = vec![("retry-after", secs.to_string()), ("x-ratelimit-remaining-requests", "0".to_owned())];
    Script::Refuse { status, headers, body: json!({ "error": { "message": "fault-canary" } }).to_string() }
}

/// Everything that an upstream can do wrong before its first content. `true`: only to a stream.
pub fn faults() -> Vec<(String, bool, Script)> {
    let answer = |media: &'static str, body: &str| Script::Answer { status: 200, media, body: body.to_owned() };
    let stream = |pieces: Vec<String>, cut| Script::Stream { pieces, cut };
    let error = "data: {\"error\":{\"message\":\"fault-canary\",\"code\":529}}\n\n".to_owned();
    let role = sse(MODEL, &[], None)[0].clone();
    let mut faults: Vec<(String, bool, Script)> =
        [307, 401, 402, 403, 404, 408, 409, 425, 429, 500, 502, 503, 504, 529]
            .into_iter()
            .map(|status| (status.to_string(), false, refuse(status)))
            .collect();
    for (name, only_streams, script) in [
        ("an error in 200", false, answer(JSON, "{\"error\":{\"message\":\"fault-canary\"}}")),
        (
            "an error beside a choice that is empty",
            false,
            answer(
                JSON,
                r#"{"error":{"message":"fault-canary"},"choices":[{"message":{"content":""},"finish_reason":"error"}]}"#,
            ),
        ),
        (
            "an error in a choice",
            false,
            answer(JSON, r#"{"choices":[{"error":{"message":"fault-canary"},"message":{"content":""}}]}"#),
        ),
        ("HTML in 200", false, answer("text/html", "<html>fault-canary</html>")),
        ("HTML that says JSON", false, answer(JSON, "<html>fault-canary</html>")),
        ("an empty body", false, answer(JSON, "")),
        ("an empty object", false, answer(JSON, "{}")),
        ("half a body", false, answer(JSON, &completion(MODEL, "fault-canary", None)[..60])),
        ("silence", false, Script::Hang),
        ("an error event first", true, stream(vec![error.clone()], false)),
        ("an error event after the role", true, stream(vec![role.clone(), error.clone()], false)),
        ("role and error in one piece", true, stream(vec![format!("{role}{error}")], false)),
        ("a cut after the role", true, stream(vec![role.clone()], true)),
        ("a cut at once", true, stream(vec![], true)),
        ("an empty stream", true, stream(vec![], false)),
        ("an end after the role", true, stream(vec![role.clone()], false)),
        ("nothing but [DONE]", true, stream(vec!["data: [DONE]\n\n".to_owned()], false)),
        ("HTML that says stream", true, answer(SSE, "<html>fault-canary</html>")),
        ("a stall after the role", true, Script::Paused { before: vec![role.clone()], after: vec![] }),
    ] {
        faults.push((name.to_owned(), only_streams, script));
    }
    faults
}

/// An upstream that may be silent for so many seconds.
fn given(secs: u64) -> Value {
    json!({ "first_byte_timeout": secs, "idle_timeout": secs })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_before_content_is_made_good_by_the_next() {
    let world = World::new(&[given(2), json!({})], &[]).await;
    let mut served = 0;
    for (name, only_streams, script) in faults() {
        for streamed in [false, true] {
            if only_streams && !streamed {
                continue;
            }
            world.upstreams[0].next(script.clone());
            let body = if streamed { ask_streaming("hi") } else { ask("hi") };
            let reply = world.send(&body).await;
            assert_eq!(reply.status, 200, "{name}: {}", reply.text);
            assert!(!reply.has("fault-canary"), "{name}: {}", reply.text);
            assert!(reply.text.contains("echo: ") && reply.text.contains("\"total_msats\":2000"), "{name}");
            if streamed {
                assert_eq!(reply.text.matches("\"role\":\"assistant\"").count(), 1, "{name}: {}", reply.text);
                assert_eq!(reply.text.matches("[DONE]").count(), 1, "{name}");
            }
            assert_eq!(world.asked(), [1, 1], "{name}");
            served += 1;
            assert_eq!(world.spent().await, served * 2000, "{name}: one attempt is paid for");
            world.clock.step(RESTED);
        }
    }
    world.finish().await;
}

/// The same in the words of others: what a stream begins with is no content, and nobody is told of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_behind_the_head_of_a_stream_is_made_good_by_the_next_in_every_protocol() {
    let world = World::new(&[json!({}), json!({})], &[]).await;
    let error = json!({ "type": "overloaded_error", "code": "server_error", "message": "fault-canary" });
    let begun =
        json!({ "id": "resp_canary", "object": "response", "status": "in_progress", "model": MODEL, "output": [] });
    let failed =
        json!({ "id": "resp_canary", "object": "response", "status": "failed", "error": error, "usage": null });
    let message = json!({
        "id": "msg_canary", "type": "message", "role": "assistant", "model": MODEL, "content": [],
        "usage": { "input_tokens": 100, "output_tokens": 1 },
    });
    for (path, more, head, fault) in [
        (
            "/v1/responses",
            json!({ "input": "hi" }),
            json!({ "type": "response.created", "response": begun }),
            json!({ "type": "response.failed", "response": failed }),
        ),
        (
            "/v1/messages",
            json!({ "max_tokens": 100, "messages": [{ "role": "user", "content": "hi" }] }),
            json!({ "type": "message_start", "message": message }),
            json!({ "type": "error", "error": error }),
        ),
    ] {
        let mut body = json!({ "model": MODEL, "stream": true });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let before = world.spent().await;
        world.upstreams[0].next(events(&[head.clone(), fault]));
        let reply = Reply::of(world.node.post(path).json(&body).bearer_auth(&world.key).send().await.unwrap()).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        assert!(!reply.has("canary"), "{path}: {}", reply.text);
        let heads = reply.events().iter().filter(|event| event["type"] == head["type"]).count();
        assert_eq!((heads, world.asked()), (1, vec![1, 1]), "{path}: {}", reply.text);
        assert_eq!(world.spent().await - before, 2000, "{path}: one attempt is paid for");
        world.clock.step(RESTED);
    }
    world.finish().await;
}

/// In time it would have been sold as it is; once the head of a stream is out, it is no answer.
#[tokio::test(flavor = "multi_thread")]
async fn json_that_comes_after_the_head_of_a_stream_is_made_good_by_the_next() {
    let settings = [("SSE_KEEP_ALIVE_SECONDS", "1"), ("UPSTREAM_BREAKER_FAILURES", "1")];
    let world = World::new(&[json!({}), json!({})], &settings).await;
    let body = completion(MODEL, "fault-canary", Some(usage(100, 50)));
    world.upstreams[0].next(Script::Held { media: "application/json", body });
    let mut answer = world.node.chat(&ask_streaming("hi")).bearer_auth(&world.key).send().await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), ": ping\n\n");
    world.upstreams[0].resume();
    let reply = Reply::of(answer).await;
    assert!(reply.has("echo: ") && reply.has("[DONE]") && !reply.has("fault-canary"), "{}", reply.text);
    assert_eq!((world.asked(), world.spent().await), (vec![1, 1], 2_000));
    assert_eq!(world.send(&ask_streaming("hi")).await.status, 200);
    assert_eq!(world.asked(), [0, 1], "it counts as a failure");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_rides_along_is_redeemed_once_for_all_attempts() {
    let world = World::new(&[json!({}), json!({}), json!({})], &[]).await;
    for (streamed, live) in [(false, false), (true, false), (true, true)] {
        world.upstreams[0].next(refuse(500));
        world.upstreams[1].next(Script::Stream { pieces: vec![], cut: true });
        let token = world.purse.send(100).await;
        let swaps = world.mint.calls("/v1/swap");
        let body = if streamed { ask_streaming("hi") } else { ask("hi") };
        let mut request = world.node.chat(&body).header("X-Cashu", &token);
        if live {
            request = request.header("X-Cashu-Change", "stream");
        }
        let reply = Reply::of(request.send().await.unwrap()).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(world.asked(), [1, 1, 1]);
        let in_stream = || reply.text.lines().find_map(|line| line.strip_prefix(": x-cashu "));
        let change = reply.headers.get("x-cashu").map(String::as_str).or_else(in_stream).expect("change");
        assert!(world.mint.calls("/v1/swap") <= swaps + 2, "{:?}", world.mint.all_calls());
        assert_eq!(Purse::new(&world.mint).await.receive(change).await.unwrap(), 98);
        world.clock.step(RESTED);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_refused_leads_to_the_next() {
    let upstream = Upstream::start().await;
    let gone = Kept::free();
    let entries =
        json!([entry(0, &format!("http://{}/v1", gone.address()), &json!({})), entry(1, &upstream.url(), &json!({})),]);
    let world = World::of(vec![upstream], &entries, &[]).await;
    for body in [ask("hi"), ask_streaming("hi")] {
        assert_eq!(world.send(&body).await.status, 200);
        world.clock.step(RESTED);
    }
    assert_eq!(world.asked(), [2]);
    assert_eq!(world.spent().await, 4000);
    world.finish().await;
    drop(gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_knows_no_stream_options_gets_none() {
    let world = World::new(&[json!({ "stream_options": false }), json!({})], &[]).await;
    let mut asked = ask_streaming("hi");
    for wanted in [false, true] {
        if wanted {
            asked["stream_options"] = json!({ "include_usage": true });
        }
        let before = world.spent().await;
        world.upstreams[0].next(Script::Stream { pieces: sse(MODEL, &["x"], None), cut: false });
        let reply = world.send(&asked).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(world.upstreams[0].last().json(), ask_streaming("hi"));
        // 17 characters are five tokens of 10 msat, and one is a token of 20.
        assert_eq!(world.spent().await - before, 50 + 20);
        // The next one is asked as always.
        world.upstreams[0].next(refuse(500));
        assert_eq!(world.send(&asked).await.status, 200);
        assert_eq!(world.upstreams[1].last().json()["stream_options"], json!({ "include_usage": true }));
        world.clock.step(RESTED);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_of_the_clients_is_its_own_everywhere() {
    let world = World::new(&[json!({}), json!({})], &[("UPSTREAM_BREAKER_FAILURES", "1")]).await;
    for status in [400, 405, 413, 415, 422] {
        for body in [ask("hi"), ask_streaming("hi")] {
            world.upstreams[0].next(refuse(status));
            let reply = world.send(&body).await;
            assert_eq!((reply.status, reply.json()["error"]["message"].as_str()), (status, Some("fault-canary")));
            assert_eq!(world.asked(), [1, 0], "{status}: nobody else is asked, and nothing is held against it");
        }
    }
    assert_eq!(world.spent().await, 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_fail_the_last_failure_is_shown_and_everything_is_given_back() {
    let world = World::new(&[json!({}), json!({}), given(3)], &[]).await;
    let last = [
        (refuse(500), 502, "upstream_error"),
        (refuse(401), 502, "upstream_error"),
        (asks_for(429, 17), 429, "UPSTREAM_RATE_LIMIT"),
        (Script::Hang, 504, "upstream_timeout"),
        (Script::Answer { status: 200, media: JSON, body: "{}".to_owned() }, 502, "upstream_error"),
    ];
    for (script, status, code) in last {
        for paid_by_token in [false, true] {
            world.upstreams[0].next(refuse(503));
            world.upstreams[1].next(refuse(529));
            world.upstreams[2].next(script.clone());
            let reply = if paid_by_token {
                let token = world.purse.send(40).await;
                let reply = world.send_token(&ask("hi"), &token).await;
                assert_eq!(reply.headers["x-should-retry"], "false", "{script:?}");
                let back = Purse::new(&world.mint).await.receive(&reply.headers["x-cashu"]).await.unwrap();
                assert_eq!(back, 40, "{script:?}");
                reply
            } else {
                world.send(&ask_streaming("hi")).await
            };
            assert_eq!((reply.status, reply.code().as_str()), (status, code), "{script:?}: {}", reply.text);
            assert_eq!(reply.headers.get("retry-after").map(String::as_str), (status == 429).then_some("17"));
            let details = json!({ "model": MODEL, "retry_after_seconds": 17 });
            let details = if status == 429 { details } else { Value::Null };
            assert_eq!(reply.json()["error"]["details"], details, "{script:?}");
            assert!(!reply.headers.keys().any(|name| name.starts_with("x-ratelimit")), "the operator's own limits");
            assert_eq!(world.asked(), [1, 1, 1]);
            world.clock.step(RESTED);
        }
    }
    assert_eq!(world.spent().await, 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_tries_more_upstreams_than_it_may() {
    let world = World::new(&[json!({}), json!({}), json!({})], &[("UPSTREAM_MAX_ATTEMPTS", "2")]).await;
    world.upstreams[0].next(refuse(500));
    world.upstreams[1].next(refuse(500));
    assert_eq!(world.send(&ask("hi")).await.status, 502);
    assert_eq!(world.asked(), [1, 1, 0]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_after_content_is_reported_and_not_begun_again() {
    let world = World::new(&[json!({}), json!({})], &[]).await;
    let text = delta(MODEL, &"x".repeat(40));
    let error = "data: {\"error\":{\"message\":\"out of luck\"}}\n\n".to_owned();
    let broken = [
        Script::Stream { pieces: vec![text.clone()], cut: true },
        Script::Stream { pieces: vec![text.clone()], cut: false },
        Script::Stream { pieces: vec![text.clone(), error.clone()], cut: false },
        Script::Stream { pieces: vec![format!("{text}{error}")], cut: false },
    ];
    for script in broken {
        let before = world.spent().await;
        world.upstreams[0].next(script.clone());
        let reply = world.send(&ask_streaming("hi")).await;
        assert_eq!(reply.status, 200);
        let events = reply.events();
        assert_eq!(events.last().unwrap()["error"]["type"], "upstream_error", "{script:?}: {}", reply.text);
        assert!(!reply.text.contains("[DONE]") && reply.text.contains(&"x".repeat(40)));
        assert_eq!(world.asked(), [1, 0], "{script:?}");
        // 17 characters are five tokens of 10 msat, and 40 are ten tokens of 20.
        assert_eq!(world.spent().await - before, 50 + 200, "{script:?}: what came");
        // It is not the first choice for a while.
        assert_eq!(world.send(&ask("hi")).await.status, 200);
        assert_eq!(world.asked(), [0, 1]);
        world.clock.step(RESTED);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_opens_is_probed_by_one_request_and_closes() {
    let world = World::new(&[json!({}), json!({})], &[("UPSTREAM_BREAKER_FAILURES", "3")]).await;
    let rested = Duration::from_secs(16);
    for _ in 0..3 {
        world.upstreams[0].next(refuse(500));
        assert_eq!(world.send(&ask("hi")).await.status, 200);
        assert_eq!(world.asked(), [1, 1]);
        world.clock.step(rested);
    }
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [0, 1], "it is open");
    // For this model alone.
    let other = json!({ "model": "toy/cheap", "messages": [{ "role": "user", "content": "hi" }] });
    assert_eq!(world.send(&other).await.status, 200);
    assert_eq!(world.asked(), [1, 0]);
    world.clock.step(Duration::from_secs(60));
    // One request goes and finds out; others do not wait for it.
    let after = vec![delta(MODEL, "there"), "data: [DONE]\n\n".to_owned()];
    world.upstreams[0].next(Script::Paused { before: vec![], after });
    let probe = tokio::spawn(world.node.chat(&ask_streaming("hi")).bearer_auth(&world.key).send());
    until("it is asked", async || !world.upstreams[0].seen().is_empty()).await;
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [1, 1]);
    world.upstreams[0].resume();
    assert_eq!(probe.await.unwrap().unwrap().text().await.unwrap().matches("there").count(), 1);
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [1, 0], "it is closed");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_probe_opens_the_circuit_for_longer() {
    let world = World::new(&[json!({}), json!({})], &[("UPSTREAM_BREAKER_FAILURES", "1")]).await;
    world.upstreams[0].next(refuse(500));
    world.send(&ask("hi")).await;
    world.clock.step(Duration::from_secs(61));
    world.upstreams[0].next(refuse(500));
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [2, 2]);
    world.clock.step(Duration::from_secs(61));
    world.send(&ask("hi")).await;
    assert_eq!(world.asked(), [0, 1], "two minutes this time");
    world.clock.step(Duration::from_secs(61));
    world.send(&ask("hi")).await;
    assert_eq!(world.asked(), [1, 0]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_time_gets_it_and_no_token_is_taken_meanwhile() {
    let world = World::new(&[json!({})], &[("UPSTREAM_BREAKER_FAILURES", "5")]).await;
    for (status, shown) in [(429, 429), (503, 502), (529, 502)] {
        world.upstreams[0].next(asks_for(status, 30));
        assert_eq!(world.send(&ask("hi")).await.status, shown);
        let token = world.purse.send(30).await;
        let calls = world.mint.all_calls();
        for body in [ask("hi"), ask_streaming("hi")] {
            let reply = world.send_token(&body, &token).await;
            assert_eq!((reply.status, reply.code().as_str()), (503, "upstream_unavailable"));
            let wait: u64 = reply.headers["retry-after"].parse().unwrap();
            assert!((1..=30).contains(&wait), "{wait}");
            assert_eq!(reply.headers["x-cashu"], token, "it is untouched");
            assert!(!reply.headers.contains_key("x-should-retry"), "trying again is right");
        }
        assert_eq!(world.mint.all_calls(), calls);
        assert_eq!(world.asked(), [1]);
        world.clock.step(Duration::from_secs(31));
        let reply = world.send_token(&ask("hi"), &token).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(world.asked(), [1]);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_stays_with_its_upstream() {
    let equal = json!({ "priority": 0 });
    let world = World::new(&[equal.clone(), equal.clone(), equal], &[]).await;
    let in_header = |name: &'static str| {
        let request = world.node.chat(&ask("hi")).bearer_auth(&world.key).header(name, "talk-1");
        async move { request.send().await.unwrap().status() }
    };
    for name in ["X-Claude-Code-Session-Id", "Session_id", "session-id"] {
        for _ in 0..12 {
            assert_eq!(in_header(name).await, 200);
        }
    }
    let mut asked = world.asked();
    let first = asked.iter().position(|count| *count > 0).unwrap();
    assert_eq!(asked[first], 36, "{asked:?}");
    let mut body = ask_streaming("hi");
    body["prompt_cache_key"] = json!("talk-2");
    for _ in 0..12 {
        assert_eq!(world.send(&body).await.status, 200);
    }
    asked = world.asked();
    let home = asked.iter().position(|count| *count > 0).unwrap();
    assert_eq!(asked[home], 12, "{asked:?}");
    // When it fails, the conversation moves, and stays where it went.
    world.upstreams[home].next(refuse(500));
    assert_eq!(world.send(&body).await.status, 200);
    asked = world.asked();
    let other = (0..3).find(|at| *at != home && asked[*at] > 0).unwrap();
    world.clock.step(Duration::from_secs(20));
    for _ in 0..12 {
        assert_eq!(world.send(&body).await.status, 200);
    }
    assert_eq!(world.asked()[other], 12);
    // What the client calls it went nowhere else.
    for seen in world.upstreams.iter().flat_map(Upstream::seen) {
        assert!(!format!("{:?}", seen.headers).contains("talk-"));
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_turns_that_come_at_once_go_to_one_upstream() {
    let equal = json!({ "priority": 0 });
    let world = World::new(&[equal.clone(), equal.clone(), equal], &[]).await;
    for talk in 0..4 {
        let turn = || {
            let request = world.node.chat(&ask("hi")).bearer_auth(&world.key);
            request.header("X-Claude-Code-Session-Id", format!("talk-{talk}")).send()
        };
        let answers = futures_util::future::join_all((0..8).map(|_| turn())).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap().status() == 200));
        let mut asked = world.asked();
        asked.sort_unstable();
        assert_eq!(asked, [0, 0, 8]);
        // Where the first came to nothing, it binds nobody.
        for upstream in &world.upstreams {
            upstream.next(refuse(500));
        }
        let lost = world.node.chat(&ask("hi")).bearer_auth(&world.key).header("Session_id", format!("lost-{talk}"));
        assert_eq!(lost.send().await.unwrap().status(), 502);
        assert_eq!(world.asked(), [1, 1, 1]);
        world.clock.step(RESTED);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_turn_that_was_not_paid_binds_nobody() {
    let weighs = |weight: u32| json!({ "priority": 0, "weight": weight });
    let world = World::new(&[weighs(5), weighs(0)], &[]).await;
    let small = world.purse.send(10).await;
    let turn = async |body: &Value| {
        let request = world.node.chat(body).bearer_auth(&small).header("Session_id", "talk");
        request.send().await.unwrap().status().as_u16()
    };
    // While the first rests, the second is the one to be asked.
    world.upstreams[0].next(refuse(500));
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [1, 1]);
    assert_eq!(turn(&ask("hi")).await, 402);
    world.clock.step(Duration::from_secs(20));
    let mut body = ask("hi");
    body["max_tokens"] = json!(50);
    assert_eq!(turn(&body).await, 200);
    assert_eq!(world.asked(), [1, 0]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_conversation_weights_decide() {
    let world = World::new(&[json!({ "priority": 0, "weight": 0 }), json!({ "priority": 0, "weight": 5 })], &[]).await;
    for _ in 0..10 {
        assert_eq!(world.send(&ask("hi")).await.status, 200);
    }
    assert_eq!(world.asked(), [0, 10]);
    world.finish().await;
    let fees = [json!({ "priority": 0, "weight": 90, "fee": "1.2" }), json!({ "priority": 0, "fee": 0.9 })];
    let world = World::new(&fees, &[("UPSTREAM_CHOICE", "cheapest")]).await;
    for _ in 0..10 {
        assert_eq!(world.send(&ask("hi")).await.status, 200);
    }
    assert_eq!(world.asked(), [0, 10]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_turn_each_is_asked_as_often_as_the_others() {
    let same = [7, 1, 1].map(|weight| json!({ "priority": 0, "weight": weight }));
    let world = World::new(&same, &[("UPSTREAM_CHOICE", "round_robin")]).await;
    for _ in 0..9 {
        // Who is told a price first, or has too little, takes nobody's turn.
        assert_eq!(world.node.post("/v1/quote").json(&ask("hi")).send().await.unwrap().status(), 200);
        assert_eq!(world.send_token(&ask("hi"), &world.purse.send(1).await).await.status, 402);
        assert_eq!(world.send(&ask("hi")).await.status, 200);
    }
    assert_eq!(world.asked(), [3, 3, 3]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_with_as_much_as_it_takes_is_passed_over() {
    let one = json!({ "max_concurrency": 1 });
    let world = World::new(&[one.clone(), one], &[("UPSTREAM_QUEUE_SECONDS", "0")]).await;
    let paused = || Script::Paused {
        before: vec![delta(MODEL, "first")],
        after: vec![sse(MODEL, &["second"], Some(usage(100, 50))).concat()],
    };
    let mut running = Vec::new();
    for at in 0..2 {
        world.upstreams[at].next(paused());
        let mut answer = world.node.chat(&ask_streaming("hi")).bearer_auth(&world.key).send().await.unwrap();
        assert!(String::from_utf8_lossy(&answer.chunk().await.unwrap().unwrap()).contains("first"));
        running.push(answer);
    }
    assert_eq!(world.asked(), [1, 1], "the second found the first one full");
    let token = world.purse.send(30).await;
    let reply = world.send_token(&ask("hi"), &token).await;
    assert_eq!((reply.status, reply.code().as_str()), (429, "UPSTREAM_RATE_LIMIT"));
    assert_eq!((reply.headers["retry-after"].as_str(), &reply.headers["x-cashu"]), ("1", &token));
    assert_eq!(world.asked(), [0, 0]);
    for (upstream, answer) in world.upstreams.iter().zip(running) {
        upstream.resume();
        assert!(answer.text().await.unwrap().contains("[DONE]"));
    }
    assert_eq!(world.send_token(&ask("hi"), &token).await.status, 200);
    assert_eq!(world.asked(), [1, 0], "the places are free again");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_a_while_for_a_place() {
    let world = World::new(&[json!({ "max_concurrency": 1 })], &[("UPSTREAM_QUEUE_SECONDS", "60")]).await;
    let after = vec![sse(MODEL, &["second"], Some(usage(100, 50))).concat()];
    world.upstreams[0].next(Script::Paused { before: vec![delta(MODEL, "first")], after });
    let mut running = world.node.chat(&ask_streaming("hi")).bearer_auth(&world.key).send().await.unwrap();
    assert!(running.chunk().await.unwrap().is_some());
    let waiting: Vec<_> =
        (0..3).map(|_| tokio::spawn(world.node.chat(&ask("hi")).bearer_auth(&world.key).send())).collect();
    world.upstreams[0].resume();
    assert!(running.text().await.unwrap().contains("[DONE]"));
    for request in waiting {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(world.asked(), [4]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spend_cap_turns_to_the_next_until_its_day_or_month_is_over() {
    // One request is 0.002 USD at list price.
    let capped = json!({ "daily_usd": "0.003", "monthly_usd": "0.007", "fee": "1" });
    let mut world = World::new(&[capped, json!({})], &[]).await;
    let day = Duration::from_secs(86_400);
    // The month's first, so that the days of this test are all in it.
    let now_secs = coinslot::clock::Clock::now_ms(&*world.clock) / 1000;
    let seconds_left = u64::try_from(days_to_next_month(now_secs / 86_400) * 86_400 - now_secs % 86_400).unwrap();
    world.clock.step(Duration::from_secs(seconds_left + 3_600));
    for (asked, spent) in [([2, 1], "two of three a day"), ([2, 1], "the next day")] {
        for _ in 0..3 {
            assert_eq!(world.send(&ask("hi")).await.status, 200);
        }
        assert_eq!(world.asked(), asked, "{spent}");
        world.clock.step(day);
    }
    // 0.008 of 0.007 in this month; and a restart forgets nothing.
    world.node.restart().await;
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [0, 1], "the month's");
    world.clock.step(day * 31);
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [1, 0], "another month");
    world.finish().await;
}

/// Days from this one to the next first of a month.
fn days_to_next_month(day: i64) -> i64 {
    let date = |day: i64| {
        let seconds = u64::try_from(day * 86_400).unwrap();
        httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(seconds))
    };
    (1..40).find(|ahead| date(day + ahead)[5..7] == *"01").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_is_kept_from_the_client_in_every_frame() {
    let secret = "deployment-canary-77";
    let models = json!({ "models": { "toy/echo-1": secret, "toy/*": "behind-*" } });
    let world = World::new(&[models], &[]).await;
    for asked in [MODEL, "echo-1"] {
        let body =
            |stream| json!({ "model": asked, "stream": stream, "messages": [{ "role": "user", "content": "hi" }] });
        let whole = world.send(&body(false)).await;
        assert_eq!((whole.status, whole.json()["model"].as_str()), (200, Some(asked)));
        assert_eq!(world.upstreams[0].last().json()["model"], secret);
        let streamed = world.send(&body(true)).await;
        let events = streamed.events();
        assert!(events.len() >= 4);
        for event in &events {
            assert_eq!(event["model"], asked, "{event}");
        }
        let message = format!("The model `{secret}` does not like this");
        let error = json!({ "error": { "message": message } }).to_string();
        world.upstreams[0].next(Script::Answer { status: 400, media: JSON, body: error });
        let refused = world.send(&body(false)).await;
        assert_eq!(refused.json()["error"]["message"], format!("The model `{asked}` does not like this"));
        for reply in [&whole, &streamed, &refused] {
            assert!(!reply.has(secret), "{}", reply.text);
        }
    }
    let cheap = json!({ "model": "toy/cheap", "messages": [{ "role": "user", "content": "hi" }] });
    assert_eq!(world.send(&cheap).await.json()["model"], "toy/cheap");
    assert_eq!(world.upstreams[0].last().json()["model"], "behind-cheap");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_nobody_serves_costs_nothing() {
    let world = World::new(&[json!({ "models": ["toy/cheap"] }), json!({ "protocols": ["messages"] })], &[]).await;
    let token = world.purse.send(30).await;
    let reply = world.send_token(&ask("hi"), &token).await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "invalid_model"));
    assert_eq!(world.asked(), [0, 0]);
    assert_eq!(Purse::new(&world.mint).await.receive(&token).await.unwrap(), 30);
    world.finish().await;
    let world = World::new(&[json!({ "models": ["toy/cheap"] }), json!({ "models": ["toy/cach*"] })], &[]).await;
    // It has a price, so it may be served again.
    let token = world.purse.send(30).await;
    let reply = world.send_token(&ask("hi"), &token).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "upstream_unavailable"));
    assert_eq!((reply.headers["retry-after"].as_str(), &reply.headers["x-cashu"]), ("60", &token));
    let list: Value = world.node.get("/v1/models").send().await.unwrap().json().await.unwrap();
    let ids: Vec<&str> = list["data"].as_array().unwrap().iter().filter_map(|model| model["id"].as_str()).collect();
    assert_eq!(ids, ["toy/cached", "cached", "toy/cheap", "cheap"], "the list names what can be had");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_cost_is_beside_what_was_charged() {
    let fee = json!({ "fee": "1.5" });
    let world = World::new(&[json!({}), fee], &[("UPSTREAM_PROVIDER_FEE", "1.05"), ("EXCHANGE_FEE", "1.005")]).await;
    world.upstreams[0].next(refuse(500));
    let reply = world.send(&ask("hi")).await;
    let id = reply.headers["x-routstr-request-id"].clone();
    // 0.002 USD × 1.05 × 1.005 at 100,000 USD for a bitcoin, rounded up.
    assert_eq!(reply.headers["x-routstr-cost-msats"], "2111");
    world.clock.step(RESTED);
    world.upstreams[0].next(refuse(400));
    let failed = world.send(&ask("hi")).await.headers["x-routstr-request-id"].clone();
    let store = world.node.running().exchange().ledger.store();
    world.node.running().exchange().pool.flush(store).await.unwrap();
    let row = async |id: &str| {
        sqlx::query("SELECT upstream, model, nano_usd, msat, attempts, o.charged FROM outlays o JOIN holds h ON h.id = o.id WHERE request = $1")
            .bind(id.to_owned())
            .fetch_one(store.read())
            .await
            .unwrap()
    };
    let served = row(&id).await;
    assert_eq!((served.get::<String, _>(0), served.get::<String, _>(1)), (NAMES[1].to_owned(), MODEL.to_owned()));
    assert_eq!((served.get::<i64, _>(2), served.get::<i64, _>(3)), (3_000_000, 3_000));
    let attempts: Value = serde_json::from_str(&served.get::<String, _>(4)).unwrap();
    assert_eq!((&attempts[0]["upstream"], &attempts[0]["status"]), (&json!(NAMES[0]), &json!(500)));
    assert_eq!((&attempts[1]["upstream"], &attempts[1]["outcome"]), (&json!(NAMES[1]), &json!("answered")));
    assert_eq!(served.get::<i64, _>(5), 2_111, "the margin is the difference");
    let refused = row(&failed).await;
    assert_eq!(refused.get::<i64, _>(5), 0);
    assert_eq!((refused.get::<Option<i64>, _>(2), refused.get::<Option<i64>, _>(3)), (None, None));
    // One hold for all attempts.
    let holds = sqlx::query("SELECT COUNT(*) FROM holds WHERE request = $1").bind(id.clone());
    assert_eq!(holds.fetch_one(store.read()).await.unwrap().get::<i64, _>(0), 1);
    // The receipt, which the client can have, says nothing of it.
    let receipt = world.node.get(&format!("/v1/receipts/{id}")).bearer_auth(&world.key).send().await.unwrap();
    let receipt = receipt.text().await.unwrap();
    assert!(receipt.contains("captured") && NAMES.iter().all(|name| !receipt.contains(name)), "{receipt}");
    // It is kept for ninety days, for seven where nothing was charged, and the sums for ever.
    let day = Duration::from_secs(86_400);
    let retention = Retention { requests: Some(90 * day), failed: Some(7 * day) };
    let count = async |sql: &'static str| sqlx::query(sql).fetch_one(store.read()).await.unwrap().get::<i64, _>(0);
    for (days, requests, failed, left) in [(6, 0, 0, 2), (2, 0, 1, 1), (81, 0, 0, 1), (2, 1, 0, 0)] {
        world.clock.step(days * day);
        let now_ms = coinslot::clock::Clock::now_ms(&*world.clock);
        let expected = Forgotten { requests, failed };
        assert_eq!(retention::preview(store, retention, now_ms).await.unwrap(), expected, "after {days} days more");
        assert_eq!(retention::prune(store, Retention::default(), now_ms).await.unwrap(), Forgotten::default());
        assert_eq!(retention::prune(store, retention, now_ms).await.unwrap(), expected, "after {days} days more");
        assert_eq!(count("SELECT COUNT(*) FROM outlays").await, left, "after {days} days more");
    }
    assert_eq!(count("SELECT CAST(SUM(requests) AS BIGINT) FROM upstream_days").await, 2);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_finds_out_at_the_operators_cost() {
    let probed = json!({ "probe_model": "toy/echo-1", "daily_usd": "0.01" });
    let world = World::new(&[probed, json!({})], &[("UPSTREAM_BREAKER_FAILURES", "1")]).await;
    let exchange = world.node.running().exchange().clone();
    let quarter = Duration::from_secs(900);
    world.to_noon();
    world.upstreams[0].next(refuse(500));
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [1, 1]);
    assert_eq!(exchange.probe(Some(quarter)).await, 0, "it was heard of, and the other has no model to be asked for");
    world.clock.step(quarter);
    assert_eq!(exchange.probe(Some(quarter)).await, 1);
    let seen = world.upstreams[0].last();
    assert_eq!((&seen.json()["model"], &seen.json()["max_tokens"]), (&json!(MODEL), &json!(1)));
    assert_eq!(world.asked(), [1, 0]);
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [1, 0], "it has recovered before a client needed it");
    // It counts for the cap: 0.002 USD each, of 0.01.
    for _ in 0..6 {
        world.clock.step(quarter);
        exchange.probe(Some(quarter)).await;
    }
    assert_eq!(world.asked(), [3, 0]);
    assert_eq!(world.spent().await, 4000, "nobody else pays for it");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_says_itself_after_how_long_it_is_probed() {
    let probed = |seconds| json!({ "probe_model": MODEL, "probe_seconds": seconds });
    let world = World::new(&[probed(3_600), json!({ "probe_model": MODEL }), probed(0)], &[]).await;
    let exchange = world.node.running().exchange().clone();
    // Whoever was never heard of is asked; and the job may have asked the first already.
    exchange.probe(Some(Duration::from_secs(60))).await;
    world.asked();
    for (secs, usual, asked) in
        [(61, Some(60), [0, 1, 0]), (61, None, [0, 0, 0]), (3_600, None, [1, 0, 0]), (1, Some(60), [0, 1, 0])]
    {
        world.clock.step(Duration::from_secs(secs));
        exchange.probe(usual.map(Duration::from_secs)).await;
        until("they are asked", async || world.upstreams[0].seen().len() == asked[0]).await;
        assert_eq!(world.asked(), asked, "{secs} {usual:?}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_says_what_it_takes_is_believed() {
    let upstream = Upstream::start().await;
    let url = upstream.url().replace("/v1", "/api/v1");
    let entries = json!([entry(0, &url, &json!({ "provider_type": "openrouter", "fee": "9" }))]);
    let world = World::of(vec![upstream], &entries, &[]).await;
    let mut report = usage(100, 50);
    report["cost"] = json!(0.00123);
    let mut ids = Vec::new();
    for streamed in [false, true] {
        let script = match streamed {
            true => Script::Stream { pieces: sse(MODEL, &["a"], Some(report.clone())), cut: false },
            false => Script::Answer { status: 200, media: JSON, body: completion(MODEL, "a", Some(report.clone())) },
        };
        world.upstreams[0].next(script);
        let body = if streamed { ask_streaming("hi") } else { ask("hi") };
        let reply = world.send(&body).await;
        assert!(reply.text.contains("\"total_msats\":2000"), "the price is the list's: {}", reply.text);
        ids.push(reply.headers["x-routstr-request-id"].clone());
    }
    world.node.settled().await;
    let store = world.node.running().exchange().ledger.store();
    world.node.running().exchange().pool.flush(store).await.unwrap();
    for id in ids {
        let row =
            sqlx::query("SELECT nano_usd, msat FROM outlays o JOIN holds h ON h.id = o.id WHERE request = $1").bind(id);
        let row = row.fetch_one(store.read()).await.unwrap();
        assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (1_230_000, 1_230));
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_takes_for_nothing_is_not_the_next_ones_cost() {
    let upstreams = vec![Upstream::start().await, Upstream::start().await];
    let router = json!({ "provider_type": "openrouter", "fee": "1" });
    let url = |at: usize| upstreams[at].url().replace("/v1", "/api/v1");
    let entries = json!([entry(0, &url(0), &router), entry(1, &url(1), &router)]);
    let world = World::of(upstreams, &entries, &[]).await;
    let store = world.node.running().exchange().ledger.store();
    let mut rows = 0;
    // What no request can have cost is not believed, and nothing is written of it.
    for (cost, noted) in [(json!(0.5), Some(500_000_000)), (json!(9e9), None)] {
        let mut report = usage(100, 50);
        report["cost"] = cost;
        let billed = json!({ "id": "chatcmpl-1", "model": MODEL, "choices": [], "usage": report });
        let error = "data: {\"error\":{\"message\":\"fault-canary\",\"code\":529}}\n\n".to_owned();
        world.upstreams[0].next(Script::Stream { pieces: vec![format!("data: {billed}\n\n"), error], cut: false });
        assert_eq!(world.send(&ask_streaming("hi")).await.status, 200);
        assert_eq!(world.asked(), [1, 1]);
        world.node.settled().await;
        world.node.running().exchange().pool.flush(store).await.unwrap();
        let found = sqlx::query("SELECT upstream, nano_usd FROM outlays ORDER BY id").fetch_all(store.read()).await;
        let found: Vec<(String, i64)> = found.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
        // The second said nothing of its cost: 0.002 USD by the list.
        let mut expected = vec![(NAMES[1].to_owned(), 2_000_000)];
        expected.extend(noted.map(|nano| (NAMES[0].to_owned(), nano)));
        assert_eq!(found[rows..], expected);
        rows = found.len();
        world.clock.step(RESTED);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_alone_is_spared_and_so_are_tokens() {
    let world = World::new(&[json!({})], &[("UPSTREAM_BREAKER_FAILURES", "2")]).await;
    for _ in 0..2 {
        world.upstreams[0].next(refuse(500));
        assert_eq!(world.send(&ask("hi")).await.status, 502);
    }
    let token = world.purse.send(30).await;
    let swaps = world.mint.calls("/v1/swap");
    let reply = world.send_token(&ask("hi"), &token).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "upstream_unavailable"));
    let wait: u64 = reply.headers["retry-after"].parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!((world.mint.calls("/v1/swap"), world.asked()), (swaps, vec![2]));
    let ready: Value = world.node.get("/readyz").send().await.unwrap().json().await.unwrap();
    assert_eq!(ready["upstreams"], json!({ "configured": 1, "left_alone": 1 }));
    world.clock.step(Duration::from_secs(61));
    assert_eq!(world.send_token(&ask("hi"), &token).await.status, 200);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_money_is_held_through_all_attempts() {
    let world = World::new(&[json!({}), json!({}), json!({})], &[]).await;
    world.upstreams[0].next(refuse(500));
    world.upstreams[1].next(Script::Paused { before: vec![], after: vec![] });
    let request = tokio::spawn(world.node.chat(&ask_streaming("hi")).bearer_auth(&world.key).send());
    until("it is asked", async || !world.upstreams[1].seen().is_empty()).await;
    let (left, held, spent) = world.node.balance(&world.key).await;
    assert!(held > 0 && left + held == 1_000_000 && spent == 0, "{left} {held} {spent}");
    world.upstreams[1].resume();
    assert!(request.await.unwrap().unwrap().text().await.unwrap().contains("[DONE]"));
    assert_eq!(world.asked(), [1, 1, 1]);
    assert_eq!(world.node.balance(&world.key).await, (998_000, 0, 2_000));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_stops_nothing_and_blames_nobody() {
    let world = World::new(&[json!({}), json!({})], &[("UPSTREAM_BREAKER_FAILURES", "1")]).await;
    // Before anything came: the next one is asked all the same, and paid for.
    world.upstreams[0].next(Script::Paused { before: vec![], after: vec![] });
    let request = tokio::spawn(world.node.chat(&ask_streaming("hi")).bearer_auth(&world.key).send());
    until("it is asked", async || !world.upstreams[0].seen().is_empty()).await;
    request.abort();
    world.upstreams[0].resume();
    until("it is asked", async || !world.upstreams[1].seen().is_empty()).await;
    assert_eq!((world.spent().await, world.asked()), (2_000, vec![1, 1]));
    world.clock.step(RESTED);
    // After content: what it cost is learnt, and the upstream has done nothing wrong.
    let after = vec![sse(MODEL, &["more"], Some(usage(100, 50))).concat()];
    world.upstreams[0].next(Script::Paused { before: vec![delta(MODEL, "first")], after });
    let mut answer = world.node.chat(&ask_streaming("hi")).bearer_auth(&world.key).send().await.unwrap();
    assert!(answer.chunk().await.unwrap().is_some());
    drop(answer);
    world.upstreams[0].resume();
    assert_eq!((world.spent().await, world.asked()), (4_000, vec![1, 0]));
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [1, 0]);
    world.finish().await;
}
