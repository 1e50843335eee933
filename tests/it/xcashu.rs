//! A token that rides on one request: the answer brings back what it did not cost.
//!
//! Every test ends by taking the change to the mint and adding up to the msat.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use cdk::mint_url::MintUrl;
use cdk::nuts::{CurrencyUnit, Token};
use serde_json::{Value, json};
use sqlx::Row;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bearer::world;
use crate::lightning::node_ahead;
use crate::process::ChildNode;
use crate::support::answers::{Patience, found, until};
use crate::support::clock::Ahead;
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, TestNode, ask, ask_streaming, client};
use crate::support::purse::Purse;
use crate::support::tokens::{self, account_key};
use crate::support::upstream::{Script, Upstream, completion, sse, usage};

/// What a token is worth on its face, in sats.
fn face(token: &str) -> u64 {
    Token::from_str(token).expect("a token").value().expect("its value").into()
}

/// A JSON answer with this usage.
fn answer_with(prompt: u64, output: u64) -> Script {
    Script::Answer {
        status: 200,
        media: "application/json",
        body: completion(MODEL, "fine", Some(usage(prompt, output))),
    }
}

pub fn header<'a>(answer: &'a reqwest::Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name).map(|value| value.to_str().expect("text"))
}

/// Asks for the change of a token that rode on a request.
async fn claim(url: &str, token: &str) -> reqwest::Response {
    client().post(format!("{url}/v1/wallet/refund")).header("X-Cashu", token).send().await.expect("an answer")
}

/// Asks for change until it is there: the request that owes it may still be running.
pub async fn claimed(url: &str, token: &str) -> String {
    let answer = found("the change", async || {
        let answer = claim(url, token).await;
        if answer.status() != 425 {
            return Some(answer);
        }
        assert_eq!(header(&answer, "retry-after"), Some("2"));
        None
    });
    let answer = answer.await;
    assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    let header = header(&answer, "x-cashu").expect("the change is in the header too").to_owned();
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!(body["token"], header);
    assert_eq!(body["sats"], face(&header).to_string());
    header
}

/// Waits until the upstream has been asked so often.
pub async fn asked(upstream: &Upstream, times: usize) {
    let patience = Patience::new();
    while upstream.seen().len() < times {
        patience.pause("the upstream is asked").await;
    }
}

/// Checks that change, what stays on the account, and cost are what was paid, and redeems it.
pub async fn adds_up(node: &TestNode, payee: &Purse, token: &str, change: &str, cost_msat: u64) {
    let paid_msat = face(token) * 1000;
    let change_msat = payee.receive(change).await.expect("the change is good") * 1000;
    let (rest_msat, held, spent) = node.balance(&account_key(token)).await;
    assert_eq!((held, spent), (0, cost_msat));
    assert_eq!(change_msat + rest_msat + cost_msat, paid_msat);
    assert!(rest_msat < 1000, "only what is smaller than a coin stays: {rest_msat}");
}

#[tokio::test(flavor = "multi_thread")]
async fn change_of_a_json_answer_comes_in_the_header() {
    // Invariant 18: what is less than a sat stays on the account; nothing vanishes.
    let (mint, purse, upstream, node) = world(1000).await;
    let payee = Purse::new(&mint).await;
    for (prompt, output, cost) in [(100, 50, 2000), (33, 7, 470), (1, 0, 10), (100, 450, 10_000)] {
        upstream.next(answer_with(prompt, output));
        let token = purse.send(100).await;
        let swaps = mint.calls("/v1/swap");
        let answer = node.chat(&ask("hello")).header("X-Cashu", &token).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(mint.calls("/v1/swap"), swaps + 1, "redeemed in one call, change made in none");
        assert_eq!(header(&answer, "x-routstr-cost-msats"), Some(cost.to_string().as_str()));
        assert_eq!(header(&answer, "x-should-retry"), Some("false"));
        let change = header(&answer, "x-cashu").expect("change").to_owned();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["usage"]["cost"]["total_msats"], cost);
        assert_eq!(claimed(&node.url(), &token).await, change, "it can be fetched again");
        adds_up(&node, &payee, &token, &change, cost).await;
        // The upstream sees nothing of the payment.
        let seen = upstream.last();
        assert!(seen.headers.get("x-cashu").is_none());
        assert!(!format!("{:?}", seen.headers).contains("cashu"));
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_is_held_back_until_its_change_is_known() {
    let (mint, purse, _upstream, node) = world(100).await;
    let payee = Purse::new(&mint).await;
    let token = purse.send(40).await;
    let swaps = mint.calls("/v1/swap");
    let answer = node.chat(&ask_streaming("hi")).header("X-Cashu", &token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(header(&answer, "x-routstr-cost-msats"), Some("2000"));
    assert_eq!(header(&answer, "x-should-retry"), Some("false"));
    assert_eq!(mint.calls("/v1/swap"), swaps + 1);
    let change = header(&answer, "x-cashu").expect("change").to_owned();
    let text = answer.text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(text.matches("[DONE]").count(), 1);
    assert!(text.contains("echo: ") && text.contains("\"total_msats\":2000"), "{text}");
    adds_up(&node, &payee, &token, &change, 2000).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_brings_its_change_before_the_end() {
    let (mint, purse, upstream, node) = world(100).await;
    let payee = Purse::new(&mint).await;
    let mut pieces = sse(MODEL, &["one", "two"], Some(usage(33, 7)));
    let after = pieces.split_off(2);
    upstream.next(Script::Paused { before: pieces, after });
    let token = purse.send(40).await;
    let swaps = mint.calls("/v1/swap");
    let request = node.chat(&ask_streaming("hi")).header("X-Cashu", &token).header("X-Cashu-Change", "stream");
    let mut answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(header(&answer, "x-cashu").is_none(), "the change is not known yet");
    assert!(header(&answer, "trailer").is_none());
    // The upstream waits to be told to go on, and yet the first words are here.
    let mut text = String::new();
    while !text.contains("one") {
        text.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().expect("more")).unwrap());
    }
    assert!(!text.contains("two"));
    // Until the request ends its change is not due.
    let early = claim(&node.url(), &token).await;
    assert_eq!(early.status(), 425);
    assert_eq!(header(&early, "retry-after"), Some("2"));
    let early: Value = early.json().await.unwrap();
    assert_eq!(early["error"]["code"], "refund_pending");
    assert_eq!(early["detail"], "Refund is pending; retry shortly.");
    upstream.resume();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let events: Vec<&str> = text.split("\n\n").collect();
    let [bill, comment, "data: [DONE]", ""] = events[events.len() - 4..] else { panic!("{text}") };
    let change = comment.strip_prefix(": x-cashu ").expect("the change, as a comment");
    let bill: Value = serde_json::from_str(bill.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(bill["usage"]["cost"]["total_msats"], 470);
    assert_eq!(mint.calls("/v1/swap"), swaps + 1);
    assert_eq!(claimed(&node.url(), &token).await, change);
    adds_up(&node, &payee, &token, change, 470).await;
    node.finish().await;
}

/// One request over a bare connection: all that HTTP/1.1 shows, trailers included.
async fn raw(node: &TestNode, body: &Value, headers: &[(&str, &str)]) -> String {
    let address = node.running().address();
    let body = body.to_string();
    let mut request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.push_str(&body);
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn change_is_a_trailer_for_clients_that_take_trailers() {
    let (mint, purse, _upstream, node) = world(100).await;
    let payee = Purse::new(&mint).await;
    for trailers in [true, false] {
        let token = purse.send(40).await;
        let mut headers = vec![("X-Cashu", token.as_str()), ("X-Cashu-Change", "Stream")];
        headers.push(if trailers { ("TE", "gzip, trailers") } else { ("TE", "gzip") });
        headers.push(("Connection", if trailers { "TE, close" } else { "close" }));
        let answer = raw(&node, &ask_streaming("hi"), &headers).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let (_, comment) = answer.split_once(": x-cashu ").expect("the comment is there in any case");
        let change = comment.lines().next().unwrap();
        let (_, end) = answer.rsplit_once("\r\n0\r\n").expect("a chunked body");
        if trailers {
            assert!(answer.to_lowercase().contains("\r\ntrailer: x-cashu\r\n"), "{answer}");
            assert_eq!(end, format!("x-cashu: {change}\r\n\r\n"));
        } else {
            assert_eq!(end, "\r\n");
        }
        adds_up(&node, &payee, &token, change, 2000).await;
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn change_can_be_fetched_again_and_is_the_same_token() {
    // Invariant 23: change that was not received is fetched, not lost.
    let (_mint, purse, _upstream, mut node) = world(100).await;
    let token = purse.send(40).await;
    let answer = node.chat(&ask("hello")).header("X-Cashu", &token).send().await.unwrap();
    let change = header(&answer, "x-cashu").expect("change").to_owned();
    for _ in 0..3 {
        assert_eq!(claimed(&node.url(), &token).await, change);
    }
    node.restart().await;
    assert_eq!(claimed(&node.url(), &token).await, change);
    assert_eq!(purse.receive(&change).await.unwrap(), 38);
    assert_eq!(claimed(&node.url(), &token).await, change, "spent or not: the node tells what it gave");
    node.finish().await;
}

/// The clock is set back while the upstream is at it, and the answer is lost.
#[tokio::test(flavor = "multi_thread")]
async fn change_is_found_again_when_the_clock_was_set_back() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let purse = Purse::new(&mint).await;
    purse.mint_sats(100).await;
    let clock = Arc::new(Ahead::default());
    let node = node_ahead(&mint, &upstream, &clock, &[]).await;
    upstream.next(Script::Held { media: "application/json", body: completion(MODEL, "fine", Some(usage(100, 50))) });
    let token = purse.send(40).await;
    let waiting = tokio::spawn(node.chat(&ask("hello")).header("X-Cashu", &token).send());
    asked(&upstream, 1).await;
    clock.step_back(Duration::from_secs(60));
    upstream.resume();
    let lost = waiting.await.unwrap().unwrap();
    let change = header(&lost, "x-cashu").expect("change").to_owned();
    assert_eq!((lost.status().as_u16(), face(&change)), (200, 38));
    assert_eq!(claimed(&node.url(), &token).await, change);
    adds_up(&node, &Purse::new(&mint).await, &token, &change, 2000).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_used_up_is_told_so_and_an_unknown_one_is_not_found() {
    // Invariant 24: the question for change has an end.
    let (mint, purse, upstream, node) = world(100).await;
    let mut request = ask("hello");
    request["max_tokens"] = json!(50);
    let asking = node.chat(&request).header("X-Cashu", "").send().await.unwrap();
    assert_eq!(asking.status(), 402);
    let asking: Value = asking.json().await.unwrap();
    let price = asking["error"]["payment"]["amount"].as_u64().expect("an amount");
    let token = purse.send(price).await;
    // The answer uses more than was held: all that was held is charged, and nothing else.
    upstream.next(answer_with(9000, 1000));
    let answer = node.chat(&request).header("X-Cashu", &token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(header(&answer, "x-cashu").is_none(), "nothing is left");
    let (rest, _, spent) = node.balance(&account_key(&token)).await;
    assert_eq!(rest + spent, price * 1000);
    for _ in 0..2 {
        let answer = claim(&node.url(), &token).await;
        assert_eq!(answer.status(), 400);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["type"], "token_already_spent");
        assert_eq!(body["error"]["code"], "cashu_token_already_spent");
        assert_eq!(body["detail"]["error"]["type"], "token_already_spent");
    }
    // Invariant 30: asking for a refund never redeems.
    let unseen = purse.send(5).await;
    let answer = claim(&node.url(), &unseen).await;
    assert_eq!(answer.status(), 404);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["detail"], "Refund not found");
    assert_eq!(body["error"]["message"], "Refund not found");
    assert_eq!(Purse::new(&mint).await.receive(&unseen).await.unwrap(), 5);
    node.finish().await;
}

/// Upstream failures, and the status that the client gets.
fn failures() -> Vec<(&'static str, Script, u16)> {
    let answer = |status, media, body: &str| Script::Answer { status, media, body: body.to_owned() };
    let json = "application/json";
    vec![
        (
            "400",
            answer(400, json, r#"{"error":{"message":"bad temperature","type":"invalid_request_error","code":"x"}}"#),
            400,
        ),
        ("401", answer(401, json, r#"{"error":{"message":"Incorrect API key"}}"#), 502),
        ("429", answer(429, json, r#"{"error":{"message":"slow down"}}"#), 429),
        ("500", answer(500, json, r#"{"error":{"message":"boom"}}"#), 502),
        ("503 HTML", answer(503, "text/html", "<html>down</html>"), 502),
        ("HTML in 200", answer(200, "text/html", "<html>hello</html>"), 502),
        ("HTML that says JSON", answer(200, json, "<html>hello</html>"), 502),
        ("empty", answer(200, json, ""), 502),
        ("empty object", answer(200, json, "{}"), 502),
        (
            "no choices",
            answer(200, json, r#"{"id":"x","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#),
            502,
        ),
        ("error in 200", answer(200, json, r#"{"error":{"message":"no credit"}}"#), 502),
        ("error in an array", answer(200, json, r#"[{"error":{"message":"no credit"}}]"#), 502),
        (
            "an error in a stream",
            Script::Stream { pieces: vec!["data: {\"error\":{\"message\":\"no credit\"}}\n\n".into()], cut: false },
            502,
        ),
        ("a cut stream", Script::Stream { pieces: sse(MODEL, &["one"], None)[..2].to_vec(), cut: true }, 502),
        ("a stream without end", Script::Stream { pieces: sse(MODEL, &["one"], None)[..2].to_vec(), cut: false }, 502),
        ("an empty stream", Script::Stream { pieces: vec![], cut: false }, 502),
        ("a stream of nothing", Script::Stream { pieces: vec!["data: [DONE]\n\n".into()], cut: false }, 502),
    ]
}

/// A failed request gives all of the token back, in the header and in the body.
async fn fully_refunded(
    node: &TestNode,
    payee: &Purse,
    token: &str,
    answer: reqwest::Response,
    status: u16,
    what: &str,
) {
    assert_eq!(answer.status(), status, "{what}");
    assert_eq!(header(&answer, "x-should-retry"), Some("false"), "{what}");
    assert_eq!(header(&answer, "x-proxy-error-source"), Some("upstream"), "{what}");
    let change = header(&answer, "x-cashu").unwrap_or_else(|| panic!("{what}: no refund")).to_owned();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["refund_token"], change, "{what}");
    for field in ["message", "type", "code"] {
        assert!(body["error"][field].is_string(), "{what}: {body}");
    }
    assert_eq!(face(&change), face(token), "{what}");
    assert_eq!(claimed(&node.url(), token).await, change, "{what}");
    adds_up(node, payee, token, &change, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_failure_gives_everything_back() {
    // Invariant 25: no answer, no charge. Invariant 36: every failed attempt is refunded in full.
    let (mint, purse, upstream, node) = world(2000).await;
    let payee = Purse::new(&mint).await;
    for (what, script, status) in failures() {
        for stream in [false, true] {
            let token = purse.send(21).await;
            upstream.next(script.clone());
            let request = if stream { ask_streaming("hi") } else { ask("hi") };
            let answer = node.chat(&request).header("X-Cashu", &token).send().await.unwrap();
            fully_refunded(&node, &payee, &token, answer, status, what).await;
        }
    }
    // A stream that runs live fails plainly as long as nothing was sent.
    let token = purse.send(21).await;
    upstream.next(failures().remove(3).1);
    let request = node.chat(&ask_streaming("hi")).header("X-Cashu", &token).header("X-Cashu-Change", "stream");
    fully_refunded(&node, &payee, &token, request.send().await.unwrap(), 502, "live").await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_silent_or_gone_gives_everything_back() {
    let mint = TestMint::start().await;
    let (purse, payee) = (Purse::new(&mint).await, Purse::new(&mint).await);
    purse.mint_sats(200).await;
    let upstream = Upstream::start().await;
    let times = [("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS", "3"), ("UPSTREAM_IDLE_TIMEOUT_SECONDS", "1")];
    let node = TestNode::with(&mint, &upstream, &times).await;
    let token = purse.send(21).await;
    upstream.next(Script::Hang);
    let answer = node.chat(&ask("hi")).header("X-Cashu", &token).send().await.unwrap();
    fully_refunded(&node, &payee, &token, answer, 504, "no answer").await;
    let token = purse.send(21).await;
    upstream.next(Script::Paused { before: sse(MODEL, &["one"], None)[..2].to_vec(), after: vec![] });
    let answer = node.chat(&ask_streaming("hi")).header("X-Cashu", &token).send().await.unwrap();
    fully_refunded(&node, &payee, &token, answer, 504, "no end").await;
    drop(upstream);
    let token = purse.send(21).await;
    // The listener closes a moment after its task is aborted; any failure gives all back.
    let answer = node.chat(&ask("hi")).header("X-Cashu", &token).send().await.unwrap();
    fully_refunded(&node, &payee, &token, answer, 502, "nobody there").await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_that_is_cut_costs_at_most_what_was_delivered() {
    // Invariant 28: what was delivered is counted, bounded by the hold.
    let (mint, purse, upstream, node) = world(100).await;
    let payee = Purse::new(&mint).await;
    let token = purse.send(40).await;
    upstream.next(Script::Stream { pieces: sse(MODEL, &["x".repeat(40).as_str()], None)[..2].to_vec(), cut: true });
    let request = node.chat(&ask_streaming("hi")).header("X-Cashu", &token).header("X-Cashu-Change", "stream");
    let text = request.send().await.unwrap().text().await.unwrap();
    assert!(text.contains("\"error\""), "{text}");
    let (_, comment) = text.split_once(": x-cashu ").expect("change");
    let change = comment.lines().next().unwrap();
    let (_, _, spent) = node.balance(&account_key(&token)).await;
    // 10 output tokens of 20 msat, and a handful of input tokens.
    assert!((200..400).contains(&spent), "{spent}");
    adds_up(&node, &payee, &token, change, spent).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_token_many_times_at_once_is_served_once() {
    // Invariant 1: one token, at most one credit.
    let (mint, purse, upstream, node) = world(100).await;
    let token = purse.send(40).await;
    let swaps = mint.calls("/v1/swap");
    let requests = (0..20).map(|_| node.chat(&ask("hello")).header("X-Cashu", &token).send());
    let mut changes = Vec::new();
    for answer in futures_util::future::join_all(requests).await {
        let answer = answer.unwrap();
        if answer.status() == 200 {
            changes.push(header(&answer, "x-cashu").expect("change").to_owned());
            continue;
        }
        already_spent(answer).await;
    }
    assert_eq!(changes.len(), 1, "exactly one is served");
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(mint.calls("/v1/swap"), swaps + 1, "and redeemed once");
    adds_up(&node, &Purse::new(&mint).await, &token, &changes[0], 2000).await;
    node.finish().await;
}

/// The refusal of a token that was used here before.
async fn already_spent(answer: reqwest::Response) {
    assert_eq!(answer.status(), 400);
    assert!(header(&answer, "x-cashu").is_none(), "a spent token is not handed back");
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["type"], "token_already_spent", "{body}");
    assert_eq!(body["error"]["code"], "cashu_token_already_spent");
    assert_eq!(body["detail"]["error"]["code"], "cashu_token_already_spent");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_proofs_in_any_encoding_are_the_same_money() {
    let (mint, purse, upstream, node) = world(100).await;
    let token = purse.send_token(40).await;
    let (v4, v3) = (token.to_string(), token.to_v3_string());
    let mut shuffled = tokens::proofs(&mint, &token);
    shuffled.reverse();
    let shuffled = tokens::token(&mint.url(), shuffled, CurrencyUnit::Sat);
    let answer = node.chat(&ask("hello")).header("X-Cashu", &v4).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let change = header(&answer, "x-cashu").unwrap().to_owned();
    let swaps = mint.calls("/v1/swap");
    for again in [&v4, &v3, &shuffled] {
        already_spent(node.chat(&ask("hello")).header("X-Cashu", again).send().await.unwrap()).await;
    }
    assert_eq!((upstream.seen().len(), mint.calls("/v1/swap")), (1, swaps), "refused without asking anybody");
    adds_up(&node, &Purse::new(&mint).await, &v4, &change, 2000).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_shares_a_proof_is_refused_whole() {
    // Invariant 1: the set of secrets decides, in the database, before the mint is asked.
    let (mint, purse, upstream, node) = world(200).await;
    let first = purse.send_token(40).await;
    let answer = node.chat(&ask("hello")).header("X-Cashu", first.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let change = header(&answer, "x-cashu").unwrap().to_owned();
    let others = tokens::proofs(&mint, &purse.send_token(50).await);
    let mut mixed = others.clone();
    mixed.push(tokens::proofs(&mint, &first).remove(0));
    let mixed = tokens::token(&mint.url(), mixed, CurrencyUnit::Sat);
    let swaps = mint.calls("/v1/swap");
    already_spent(node.chat(&ask("hello")).header("X-Cashu", &mixed).send().await.unwrap()).await;
    already_spent(node.chat(&ask("hello")).bearer_auth(&mixed).send().await.unwrap()).await;
    assert_eq!((upstream.seen().len(), mint.calls("/v1/swap")), (1, swaps));
    let answer = claim(&node.url(), &mixed).await;
    assert_eq!(answer.status(), 404, "it never became anything here");
    let payee = Purse::new(&mint).await;
    let others = tokens::token(&mint.url(), others, CurrencyUnit::Sat);
    assert_eq!(payee.receive(&others).await.unwrap(), 50, "the other proofs are still the payer's");
    adds_up(&node, &payee, &first.to_string(), &change, 2000).await;
    node.finish().await;
}

/// Counters of which nothing comes hide ecash from a recovery: nobody uses them up with what was taken before.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_taken_before_uses_up_no_counters() {
    let (mint, purse, upstream, node) = world(100).await;
    node.quiet().await;
    let token = purse.send_token(40).await;
    let answer = node.chat(&ask("hello")).header("X-Cashu", token.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let change = header(&answer, "x-cashu").unwrap().to_owned();
    let proofs = tokens::proofs(&mint, &token);
    let url = MintUrl::from_str(&mint.url()).unwrap();
    let noted = |number: usize| Token::new(url.clone(), proofs.clone(), Some(format!("{number}")), CurrencyUnit::Sat);
    let mut again: Vec<String> = (0..50).map(|number| noted(number).to_string()).collect();
    let invented = Token::from_str(&tokens::invented(&mint, 32)).unwrap();
    let joined = proofs.iter().cloned().chain(tokens::proofs(&mint, &invented)).collect();
    again.push(tokens::token(&mint.url(), joined, CurrencyUnit::Sat));
    let store = node.running().exchange().ledger.store().clone();
    let used = async || {
        let sum = sqlx::query("SELECT CAST(SUM(counter) AS BIGINT) FROM keyset_counter").fetch_one(store.read()).await;
        sum.unwrap().get::<i64, _>(0)
    };
    let (before, calls) = (used().await, mint.all_calls());
    assert!(before > 0);
    for again in &again {
        already_spent(node.chat(&ask("hello")).header("X-Cashu", again).send().await.unwrap()).await;
    }
    assert_eq!((used().await, mint.all_calls(), upstream.seen().len()), (before, calls, 1));
    drop(store);
    adds_up(&node, &Purse::new(&mint).await, &token.to_string(), &change, 2000).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credit_is_what_a_mint_with_fees_leaves() {
    // Invariant 19: credit = value of the proofs that were really received.
    let mint = TestMint::with_fee_ppk(1000).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(500).await;
    let upstream = Upstream::start().await;
    let node = TestNode::start(&mint, &upstream).await;
    // 100 = 64 + 32 + 4: three proofs of one sat fee each.
    let token = purse.send_token(100).await;
    let fee = tokens::proofs(&mint, &token).len() as u64;
    let token = token.to_string();
    let swaps = mint.calls("/v1/swap");
    let answer = node.chat(&ask("hello")).header("X-Cashu", &token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(mint.calls("/v1/swap"), swaps + 1);
    let change = header(&answer, "x-cashu").unwrap().to_owned();
    assert_eq!(face(&change), 100 - fee - 2, "2 sats were the answer's cost");
    let change = Token::from_str(&change).unwrap();
    let fee_again = tokens::proofs(&mint, &change).len() as u64;
    let got = Purse::new(&mint).await.receive(&change.to_string()).await.unwrap();
    assert_eq!(got, 100 - fee - 2 - fee_again);
    // As a key the same holds.
    let token = purse.send_token(100).await;
    let fee = tokens::proofs(&mint, &token).len() as u64;
    assert_eq!(node.balance(&token.to_string()).await, ((100 - fee) * 1000, 0, 0));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_after_redemption_owes_the_money_and_pays_it() {
    // Invariant 5: a hold ends with its process; invariant 10: what was redeemed is never lost.
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(100).await;
    let upstream = Upstream::start().await;
    let mut node = ChildNode::start(&mint.url(), &upstream, &[]).await;
    let token = purse.send(40).await;
    upstream.next(Script::Hang);
    let waiting = tokio::spawn(node.chat(&ask("hello")).header("X-Cashu", &token).send());
    asked(&upstream, 1).await;
    assert_eq!(claim(node.url(), &token).await.status(), 425);
    node.kill();
    waiting.await.unwrap().expect_err("the connection broke");
    node.restart().await;
    let change = claimed(node.url(), &token).await;
    assert_eq!(purse.receive(&change).await.unwrap(), 40);
    assert_eq!(node.balance(&account_key(&token)).await, (0, 0, 0));
    node.stop().await;
    let books = node.db.books().await;
    assert_eq!((books.liabilities, books.earnings, books.open_holds), (0, 0, 0));
    node.db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_the_answer_can_fetch_its_change() {
    let (mint, purse, upstream, node) = world(200).await;
    let payee = Purse::new(&mint).await;
    for (mode, headers) in [("buffered", vec![]), ("live", vec![("X-Cashu-Change", "stream")])] {
        let pieces = sse(MODEL, &["one", "two"], Some(usage(100, 50)));
        upstream.next(Script::Paused { before: pieces[..2].to_vec(), after: pieces[2..].to_vec() });
        let token = purse.send(40).await;
        let mut request = node.chat(&ask_streaming("hi")).header("X-Cashu", &token);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let before = upstream.seen().len();
        let client = tokio::spawn(async move {
            let mut answer = request.send().await.unwrap();
            answer.chunk().await.unwrap();
            std::future::pending::<()>().await;
        });
        asked(&upstream, before + 1).await;
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled(), "{mode}");
        upstream.resume();
        let change = claimed(&node.url(), &token).await;
        adds_up(&node, &payee, &token, &change, 2000).await;
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_change_at_whatever_moment_gets_the_same_token() {
    // Invariant 8: one balance, one refund. The network's SDK sweeps tokens whose request still runs.
    let (mint, purse, _upstream, node) = world(1000).await;
    let payee = Purse::new(&mint).await;
    for _ in 0..8 {
        let token = purse.send(40).await;
        let served = node.chat(&ask("hello")).header("X-Cashu", &token).send();
        let sweep = async {
            let mut found = Vec::new();
            for _ in 0..40 {
                let answer = node.post("/v1/wallet/refund").header("X-Cashu", &token).send().await.unwrap();
                match answer.status().as_u16() {
                    200 => found.push(header(&answer, "x-cashu").unwrap().to_owned()),
                    // Not redeemed yet; or in flight.
                    404 => assert!(found.is_empty()),
                    425 => assert!(found.is_empty()),
                    other => panic!("{other}: {:?}", answer.text().await),
                }
            }
            found
        };
        let (served, first, second) =
            tokio::join!(served, sweep, async { claimed_once_seen(&node.url(), &token).await });
        let served = served.unwrap();
        let change = header(&served, "x-cashu").expect("change").to_owned();
        // A sweep between redemption and hold takes all of it back; then nothing is served.
        let cost = if served.status() == 200 { 2000 } else { 0 };
        assert!(cost > 0 || served.status() == 402, "{}", served.status());
        assert!(first.iter().chain([&second]).all(|found| *found == change), "one change for one token");
        adds_up(&node, &payee, &token, &change, cost).await;
    }
    node.finish().await;
}

/// As [`claimed`], from before the token was ever seen.
async fn claimed_once_seen(url: &str, token: &str) -> String {
    until("the token is redeemed", async || claim(url, token).await.status() != 404).await;
    claimed(url, token).await
}
