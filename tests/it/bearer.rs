//! A token, or the key it became, as the API key.

use std::sync::Arc;
use std::time::Duration;

use cdk::nuts::CurrencyUnit;
use serde_json::{Value, json};

use crate::support::answers::{decided, read};
use crate::support::chaos::{Chaos, Mode};
use crate::support::clock::Ahead;
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, TestNode, UPSTREAM_KEY, ask, ask_streaming};
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream, completion, delta, usage};

pub async fn world(sats: u64) -> (TestMint, Purse, Upstream, TestNode) {
    world_with(sats, &[]).await
}

pub async fn world_with(sats: u64, settings: &[(&str, &str)]) -> (TestMint, Purse, Upstream, TestNode) {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(sats).await;
    let upstream = Upstream::start().await;
    let node = TestNode::with(&mint, &upstream, settings).await;
    (mint, purse, upstream, node)
}

/// Takes back what is on a key, and checks at the mint that it is worth what was promised.
pub async fn refund(node: &TestNode, purse: &Purse, key: &str) -> u64 {
    let answer = node.post("/v1/wallet/refund").bearer_auth(key).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    let worth = purse.receive(answer["token"].as_str().unwrap()).await.unwrap();
    assert_eq!(answer["sats"], json!(worth.to_string()));
    worth
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_a_key_that_is_charged_exactly() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let token = purse.send(200).await;
    let answer = node.chat(&ask("hello")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    // 100 × 10 msat + 50 × 20 msat
    assert_eq!(answer.headers()["x-routstr-cost-msats"], "2000");
    assert_eq!(answer.headers()["x-routstr-input-cost-msats"], "1000");
    assert_eq!(answer.headers()["x-routstr-output-cost-msats"], "1000");
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "echo: hello");
    assert_eq!(body["usage"]["cost"]["total_msats"], 2000);
    assert_eq!(body["usage"]["remaining_balance_msats"], 198_000);
    assert_eq!(body["model"], MODEL);
    // The upstream saw the node's key and nothing of the client's.
    let seen = upstream.last();
    assert_eq!(seen.headers["authorization"], format!("Bearer {UPSTREAM_KEY}"));
    // The same token is the same key, and the key of its hash too.
    let answer = node.chat(&ask("again")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(node.balance(&token).await, (196_000, 0, 4000));
    let info: Value = node.get("/v1/balance/info").bearer_auth(&token).send().await.unwrap().json().await.unwrap();
    let key = info["api_key"].as_str().unwrap().to_owned();
    let answer = node.chat(&ask("third")).header("x-api-key", &key).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(node.balance(&key).await, (194_000, 0, 6000));
    assert_eq!(refund(&node, &purse, &key).await, 194);
    assert_eq!(purse.balance().await, 994);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_runs_live_and_ends_with_its_bill() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let token = purse.send(100).await;
    let answer = node.chat(&ask_streaming("hi")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
    let text = answer.text().await.unwrap();
    let events: Vec<&str> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
    assert_eq!(events.last(), Some(&"data: [DONE]"));
    assert_eq!(text.matches("[DONE]").count(), 1);
    let bill: Value = serde_json::from_str(events[events.len() - 2].strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(bill["usage"]["cost"]["total_msats"], 2000);
    // It did not ask for usage: the extra chunk is one that a naive client can index.
    assert_eq!(bill["choices"], json!([{ "index": 0, "delta": {}, "finish_reason": null }]));
    // Settled before the last byte was sent.
    assert_eq!(node.balance(&token).await, (98_000, 0, 2000));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_usage_is_estimated_and_says_so() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let token = purse.send(100).await;
    upstream.next(Script::Answer {
        status: 200,
        media: "application/json",
        body: completion(MODEL, &"x".repeat(400), None),
    });
    let body: Value = node.chat(&ask("hello")).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
    assert_eq!(body["usage"]["cost"]["estimated"], true);
    assert_eq!(body["usage"]["completion_tokens"], 100);
    assert_eq!(body["usage"]["cost"]["output_msats"], 2000);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_token_has_its_price() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let token = purse.send(100).await;
    let mut report = usage(1000, 100);
    report["prompt_tokens_details"] = json!({ "cached_tokens": 600, "cache_write_tokens": 300 });
    report["completion_tokens_details"] = json!({ "reasoning_tokens": 40 });
    upstream.next(Script::Answer {
        status: 200,
        media: "application/json",
        body: completion("toy/cached", "x", Some(report)),
    });
    let mut request = ask("hello");
    request["model"] = json!("cached");
    let body: Value = node.chat(&request).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
    // 100×10 + 600×1 + 300×12.5 + 60×20 + 40×30
    assert_eq!(body["usage"]["cost"]["total_msats"], 1000 + 600 + 3750 + 1200 + 1200);
    assert_eq!(body["usage"]["cost"]["cache_read_msats"], 600);
    assert_eq!(body["model"], "cached", "the answer has the name that was asked for");
    assert_eq!(upstream.last().json()["model"], "toy/cached", "the upstream is sent the whole id");
    node.finish().await;
}

/// By these codes and words the network's clients keep a key, or drop it.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_is_refused_in_the_networks_words() {
    let (_mint, purse, upstream, node) = world(103).await;
    let claim = async |key: &str| {
        let (status, body) = read(node.post("/v1/wallet/refund").bearer_auth(key).send().await.unwrap()).await;
        assert_eq!((status, &body["detail"]), (400, &body["error"]["message"]), "{body}");
        (body["error"]["code"].as_str().unwrap().to_owned(), body["detail"].as_str().unwrap().to_owned())
    };
    let said = |code: &str, words: &str| (code.to_owned(), words.to_owned());
    let running = purse.send(100).await;
    upstream.next(Script::Paused { before: vec![delta(MODEL, "first")], after: vec![delta(MODEL, "second")] });
    let answer = node.chat(&ask_streaming("hi")).bearer_auth(&running).send().await.unwrap();
    let words = "Cannot refund key. There are ongoing requests for this api key.";
    assert_eq!(claim(&running).await, said("refund_ongoing_requests", words));
    upstream.resume();
    answer.text().await.unwrap();
    // 4+4+7+3 characters are 6 tokens: 6 × 10 + 97 × 20 msat are held, and 2000 are charged.
    let spent = purse.send(2).await;
    let mut request = ask("xyz");
    request["max_tokens"] = json!(97);
    assert_eq!(node.chat(&request).bearer_auth(&spent).send().await.unwrap().status(), 200);
    assert_eq!(node.balance(&spent).await, (0, 0, 2000));
    assert_eq!(claim(&spent).await, said("no_balance_to_refund", "No balance to refund"));
    let rest = purse.send(1).await;
    request["model"] = json!("cheap");
    assert_eq!(node.chat(&request).bearer_auth(&rest).send().await.unwrap().status(), 200);
    assert_eq!(node.balance(&rest).await, (999, 0, 1));
    let words = "Balance too small to refund (less than 1 sat)";
    assert_eq!(claim(&rest).await, said("balance_too_small_to_refund", words));
    node.finish().await;
}

/// Invariant 11: while nobody knows whether the mint took a token, its key is neither empty nor full.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_waits_for_the_token_that_fills_the_key() {
    let mint = TestMint::start().await;
    let chaos = Chaos::before(&mint.url());
    let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
    purse.mint_sats(300).await;
    let upstream = Upstream::start().await;
    let node = TestNode::with(&mint, &upstream, &[("CASHU_MINTS", &chaos.url())]).await;
    // By then it knows the keys of the mint.
    assert_eq!(node.balance(&purse.send(10).await).await.0, 10_000);
    // The mint took it before it vanished, or it did not.
    for mode in [Mode::DropReply, Mode::Cut] {
        let token = purse.send(100).await;
        chaos.set("/v1/swap", mode);
        chaos.set("", Mode::Cut);
        assert_eq!(node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap().status(), 503, "{mode:?}");
        let early = node.post("/v1/wallet/refund").bearer_auth(&token).send().await.unwrap();
        assert_eq!(early.status(), 425, "{mode:?}");
        chaos.calm();
        let claim = || node.post("/v1/wallet/refund").bearer_auth(&token);
        let (status, body) = read(decided("the refund", Duration::from_secs(10), claim).await).await;
        assert_eq!((status, body["sats"].as_str()), (200, Some("100")), "{mode:?}: {body}");
        assert_eq!(purse.receive(body["token"].as_str().unwrap()).await.unwrap(), 100);
    }
    node.finish().await;
}

/// A token that was refused one way and comes in the other is a key, or rides on its request: as it is used then.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_refused_is_what_it_is_used_as_next() {
    let mint = TestMint::start().await;
    let chaos = Chaos::before(&mint.url());
    let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
    purse.mint_sats(300).await;
    let upstream = Upstream::start().await;
    let clock = Arc::new(Ahead::default());
    let node = TestNode::with_clock(&chaos.url(), &upstream, clock.clone(), &[]).await;
    let (key, once) = (purse.send(100).await, purse.send(50).await);
    let riding = |token: &str| node.chat(&ask("hi")).header("x-cashu", token);
    let bearer = |token: &str| node.chat(&ask("hi")).bearer_auth(token);
    chaos.set(
        "/v1/swap",
        Mode::Reply(
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 33\r\n\r\n\
             {\"code\":10001,\"detail\":\"not now\"}",
        ),
    );
    for refused in [riding(&key), bearer(&once)] {
        assert_eq!(refused.send().await.unwrap().status(), 400);
    }
    chaos.calm();
    assert_eq!(bearer(&key).send().await.unwrap().status(), 200);
    let answer = riding(&once).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(purse.receive(answer.headers()["x-cashu"].to_str().unwrap()).await.unwrap(), 48);
    // Long after, when what is left of tokens that rode on a request is given back.
    clock.step(Duration::from_secs(600));
    let wallet = node.running().exchange().till.wallet().clone();
    assert_eq!(wallet.resume(0).await.unwrap(), 0);
    assert_eq!(node.balance(&key).await, (98_000, 0, 2000), "it stays on the key");
    let mut reader = wallet.ledger().store().read().acquire().await.unwrap();
    let kinds = "SELECT kind FROM accounts WHERE kind IN ('key', 'token') ORDER BY posted";
    let kinds = sqlx::query(kinds).fetch_all(&mut *reader).await.unwrap();
    let kinds: Vec<String> = kinds.iter().map(|row| sqlx::Row::try_get(row, 0).unwrap()).collect();
    assert_eq!(kinds, ["token", "key"]);
    drop(reader);
    node.finish().await;
}
