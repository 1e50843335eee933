//! Promises that older implementations of this network broke, and that no other file here is named
//! after. The numbers are those of the list that the other tests' comments use too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cdk::nuts::CurrencyUnit;
use coinslot::store::Durability;
use serde_json::{Value, json};
use sqlx::Executor;

use crate::bearer::{refund, world};
use crate::support::answers::{ok, read, until};
use crate::support::chaos::Chaos;
use crate::support::mint::{MintOptions, TestMint};
use crate::support::node::{MODEL, TestNode, ask, ask_streaming};
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream, delta, sse, usage};
use crate::xcashu::asked;

async fn top_up(node: &TestNode, key: &str, token: &str) -> u64 {
    let request = node.post("/v1/wallet/topup").bearer_auth(key).json(&json!({ "cashu_token": token }));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    answer["msats"].as_u64().unwrap()
}

async fn refund_token(node: &TestNode, key: &str) -> (u16, Value) {
    let answer = node.post("/v1/wallet/refund").bearer_auth(key).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Invariant 8: a refund is given out again only while no money came in after it.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_refund_is_not_given_for_a_new_balance() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let key = purse.send(100).await;
    assert_eq!(node.balance(&key).await.0, 100_000);
    let (status, first) = refund_token(&node, &key).await;
    assert_eq!((status, &first["sats"]), (200, &json!("100")));
    assert_eq!(refund_token(&node, &key).await.1["token"], first["token"], "asked again, it is the same");
    assert_eq!(top_up(&node, &key, &purse.send(30).await).await, 30_000);
    let (status, second) = refund_token(&node, &key).await;
    assert_eq!((status, &second["sats"]), (200, &json!("30")));
    assert_ne!(second["token"], first["token"]);
    for (token, worth) in [(&first, 100), (&second, 30)] {
        assert_eq!(purse.receive(token["token"].as_str().unwrap()).await.unwrap(), worth);
    }
    node.finish().await;
}

/// The answer to a refund was lost, and the key was filled again: the history names the refund, and it is had
/// again, by its owner and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_was_lost_is_had_again_after_a_top_up() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let (key, other) = (purse.send(100).await, purse.send(10).await);
    assert_eq!((node.balance(&key).await.0, node.balance(&other).await.0), (100_000, 10_000));
    let (_, lost) = refund_token(&node, &key).await;
    assert_eq!(top_up(&node, &key, &purse.send(30).await).await, 30_000);
    let history = ok(node.get("/v1/wallet/history").bearer_auth(&key)).await;
    let entry = |kind: &str| {
        let all = history["transactions"].as_array().unwrap();
        all.iter().find(|one| one["type"] == kind).unwrap()["id"].as_str().unwrap().to_owned()
    };
    let again = |key: &str, id: Value| node.post("/v1/wallet/refund").bearer_auth(key).json(&json!({ "id": id }));
    for _ in 0..2 {
        let had = ok(again(&key, json!(entry("out")))).await;
        assert_eq!((&had["token"], &had["sats"]), (&lost["token"], &json!("100")));
    }
    assert_eq!(node.balance(&key).await.0, 30_000, "nothing new is paid");
    for (who, id, status, code) in [
        (&key, json!(entry("in")), 404, "refund_not_found"),
        (&other, json!(entry("out")), 404, "refund_not_found"),
        (&key, json!("1"), 404, "refund_not_found"),
        (&key, json!("x"), 400, "invalid_request"),
        (&key, json!(""), 400, "invalid_request"),
    ] {
        let (got, answer) = read(again(who, id.clone()).send().await.unwrap()).await;
        assert_eq!((got, answer["error"]["code"].as_str()), (status, Some(code)), "{id}: {answer}");
    }
    assert_eq!(refund_token(&node, &key).await.1["sats"], "30");
    assert_eq!(ok(again(&key, json!(entry("out")))).await["token"], lost["token"]);
    // Change of a token that rode on a request is named in the same way.
    let once = purse.send(50).await;
    let answer = node.chat(&ask("hello")).header("x-cashu", &once).send().await.unwrap();
    let change = answer.headers()["x-cashu"].to_str().unwrap().to_owned();
    let history = ok(node.get("/v1/wallet/history").header("x-cashu", &once)).await;
    let id = &history["transactions"][0]["id"];
    assert_eq!(history["transactions"][0]["type"], "out", "{history}");
    let had = ok(node.post("/v1/wallet/refund").header("x-cashu", &once).json(&json!({ "id": id }))).await;
    assert_eq!(had["token"], change.as_str());
    node.finish().await;
}

/// Invariant 9: a top-up that races a refund is in the refund or on the key, never lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_top_up_may_race_a_refund() {
    let (_mint, purse, _upstream, node) = world(2000).await;
    for _ in 0..5 {
        let key = purse.send(100).await;
        assert_eq!(node.balance(&key).await.0, 100_000);
        let more = purse.send(50).await;
        let (credited, (status, answer)) = tokio::join!(top_up(&node, &key, &more), refund_token(&node, &key));
        assert_eq!((credited, status), (50_000, 200));
        let returned = purse.receive(answer["token"].as_str().unwrap()).await.unwrap();
        let left = node.balance(&key).await.0 / 1000;
        assert_eq!(returned + left, 150);
    }
    node.finish().await;
}

/// Invariant 12: an error of the database on the way of the money stops the request.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_books_the_node_serves_nothing() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let key = purse.send(100).await;
    assert_eq!(node.balance(&key).await.0, 100_000);
    let store = node.running().exchange().ledger.store().clone();
    let rename = async |sql| {
        let mut tx = store.begin(Durability::Full).await.unwrap();
        tx.hand().execute(sql).await.unwrap();
        tx.commit().await.unwrap();
    };
    rename("ALTER TABLE holds RENAME TO holds_gone").await;
    let answer = node.chat(&ask("hello")).bearer_auth(&key).send().await.unwrap();
    assert_eq!(answer.status(), 500);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "internal_error");
    assert!(upstream.seen().is_empty(), "nothing was forwarded");
    rename("ALTER TABLE holds_gone RENAME TO holds").await;
    assert_eq!(node.chat(&ask("hello")).bearer_auth(&key).send().await.unwrap().status(), 200);
    node.finish().await;
}

/// Invariants 16 and 17: an amount has its unit, and money goes back to the mint and unit it came from.
#[tokio::test(flavor = "multi_thread")]
async fn money_keeps_its_unit_and_its_mint() {
    let sats = TestMint::start().await;
    let msats = TestMint::with_options(MintOptions { msat: true, ..MintOptions::default() }).await;
    let upstream = Upstream::start().await;
    let mints = format!("{},{}", sats.url(), msats.url());
    let node = TestNode::with(&sats, &upstream, &[("CASHU_MINTS", &mints)]).await;
    let purse = Purse::with_unit(&msats.url(), CurrencyUnit::Msat).await;
    purse.mint_sats(500_000).await;
    let token = purse.send(150_500).await;
    let answer = node.chat(&ask("hello")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(node.balance(&token).await, (148_500, 0, 2000));
    let (status, answer) = refund_token(&node, &token).await;
    assert_eq!((status, &answer["msats"]), (200, &json!("148500")), "in msat, to the msat");
    assert_eq!(purse.receive(answer["token"].as_str().unwrap()).await.unwrap(), 148_500);
    node.finish().await;
}

/// Invariant 21: a mint is not asked for its keysets by every request.
#[tokio::test(flavor = "multi_thread")]
async fn keysets_are_remembered() {
    let (mint, purse, _upstream, node) = world(1000).await;
    node.quiet().await;
    let first = purse.send(50).await;
    assert_eq!(node.balance(&first).await.0, 50_000);
    let mut tokens = Vec::new();
    for _ in 0..5 {
        tokens.push(purse.send(50).await);
    }
    mint.reset_calls();
    for token in &tokens {
        assert_eq!(node.chat(&ask("hello")).bearer_auth(token).send().await.unwrap().status(), 200);
    }
    let calls: Vec<_> = mint.all_calls().into_iter().collect();
    assert_eq!(calls, [("/v1/swap".to_owned(), 5)], "nothing but one swap for each token");
    node.finish().await;
}

/// Invariant 26: cached tokens are billed at their own price (see also the usage tables of the dialects).
#[tokio::test(flavor = "multi_thread")]
async fn cached_tokens_are_not_billed_twice() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let token = purse.send(100).await;
    let report = json!({ "prompt_tokens": 1000, "completion_tokens": 0, "total_tokens": 1000, "prompt_tokens_details": { "cached_tokens": 1000 } });
    let body = crate::support::upstream::completion("toy/cached", "x", Some(report));
    upstream.next(Script::Answer { status: 200, media: "application/json", body });
    let mut request = ask("hello");
    request["model"] = json!("toy/cached");
    let body: Value = node.chat(&request).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
    assert_eq!(body["usage"]["cost"]["total_msats"], 1000);
    node.finish().await;
}

/// Invariant 33: no transaction is open while an upstream thinks; others are served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_thinking_upstream_blocks_nobody() {
    let (_mint, purse, upstream, node) = world(3000).await;
    let slow = purse.send(1000).await;
    assert_eq!(node.balance(&slow).await.0, 1_000_000);
    let waiting: Vec<_> = (0..30)
        .map(|_| {
            upstream.next(Script::Hang);
            tokio::spawn(node.chat(&ask("slow")).bearer_auth(&slow).send())
        })
        .collect();
    asked(&upstream, 30).await;
    let fresh = purse.send(100).await;
    assert_eq!(node.chat(&ask("quick")).bearer_auth(&fresh).send().await.unwrap().status(), 200);
    assert_eq!(refund(&node, &purse, &fresh).await, 98);
    assert!(waiting.iter().all(|one| !one.is_finished()), "they wait still");
    let exchange = node.running().exchange();
    until("the quick one is off the list", async || exchange.ongoing.list().len() == 30).await;
    let running = exchange.ongoing.list();
    assert!(running.iter().all(|one| exchange.abort(&one.request)));
    for request in waiting {
        assert_eq!(request.await.unwrap().unwrap().status(), 503);
    }
    assert_eq!(node.balance(&slow).await, (1_000_000, 0, 0));
    node.finish().await;
}

/// Invariant 35: every surface names the same balance.
#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_balance() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let token = purse.send(100).await;
    let answer = node.chat(&ask("hello")).bearer_auth(&token).send().await.unwrap();
    let header = answer.headers()["x-routstr-balance-msats"].to_str().unwrap().to_owned();
    let body: Value = answer.json().await.unwrap();
    let (balance, reserved, spent) = node.balance(&token).await;
    assert_eq!((balance, reserved, spent), (98_000, 0, 2000));
    assert_eq!(header, balance.to_string());
    assert_eq!(body["usage"]["remaining_balance_msats"], balance);
    assert_eq!(body["model"], MODEL);
    let wallet: Value = node.get("/v1/wallet/").bearer_auth(&token).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&wallet["balance"], &wallet["available"], &wallet["total"]),
        (&json!(balance), &json!(balance), &json!(balance))
    );
    node.finish().await;
}

/// Invariant 27: a request is billed at the price it was admitted at, whatever changes meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn the_rate_is_frozen_at_the_hold() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let price = Arc::new(AtomicU64::new(100_000));
    let shown = Arc::clone(&price);
    let feed = axum::routing::get(move || async move {
        format!(r#"{{"data":{{"amount":"{}.00","base":"BTC","currency":"USD"}}}}"#, shown.load(Ordering::SeqCst))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let feeds = format!("coinbase=http://{}/spot", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/spot", feed);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let settings =
        [("BTC_USD_FIXED", ""), ("BTC_USD_FEEDS", feeds.as_str()), ("PRICING_REFRESH_INTERVAL_SECONDS", "1")];
    let node = TestNode::with(&mint, &upstream, &settings).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(500).await;
    let token = purse.send(400).await;
    shows_price(&node, 0.01).await;
    upstream.next(Script::Paused {
        before: vec![delta(MODEL, "slowly")],
        after: sse(MODEL, &["said"], Some(usage(100, 50))),
    });
    let mut answer = node.chat(&ask_streaming("hi")).bearer_auth(&token).send().await.unwrap();
    assert!(answer.chunk().await.unwrap().is_some());
    price.store(10_000, Ordering::SeqCst);
    shows_price(&node, 0.1).await;
    upstream.resume();
    answer.text().await.unwrap();
    assert_eq!(node.balance(&token).await, (398_000, 0, 2000), "at the old rate");
    node.finish().await;
}

/// Waits until a prompt token of the test model is listed at so many sats.
async fn shows_price(node: &TestNode, sats: f64) {
    until(&format!("the price list shows {sats}"), async || {
        let list: Value = node.get("/v1/models").send().await.unwrap().json().await.unwrap();
        list["data"][0]["sats_pricing"]["prompt"] == json!(sats)
    })
    .await;
}

/// Every number of the list has a test that names it. 32 is of something that is not built.
#[test]
fn every_invariant_is_named_by_a_test() {
    let mut named = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        for rest in text.split("Invariant").skip(1) {
            let numbers = rest.split_once([':', '\n']).map_or("", |(numbers, _)| numbers);
            named.extend(numbers.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u32>().ok()));
        }
    }
    let all = (1..=36).filter(|number| *number != 32);
    assert_eq!(all.filter(|number| !named.contains(number)).collect::<Vec<_>>(), Vec::<u32>::new());
}

/// A key that was filled at two mints: no refund stays owed that no mint can give, and with a mint that was named and
/// has too little, none is begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_filled_at_two_mints_is_refunded_mint_by_mint() {
    let (near, far) = (TestMint::start().await, TestMint::start().await);
    let upstream = Upstream::start().await;
    let mints = format!("{},{}", near.url(), far.url());
    let settings = [("CASHU_MINTS", mints.as_str()), ("CHANGE_LADDER_COINS", "0")];
    let node = TestNode::with(&near, &upstream, &settings).await;
    let (purse, other) = (Purse::new(&near).await, Purse::new(&far).await);
    purse.mint_sats(100).await;
    other.mint_sats(150).await;
    let key = purse.send(100).await;
    assert_eq!(node.balance(&key).await.0, 100_000);
    assert_eq!(top_up(&node, &key, &other.send(150).await).await, 150_000);
    for (mint, there) in [(&near, "100000 msat"), (&far, "150000 msat")] {
        let named = node.post("/v1/wallet/refund").json(&json!({ "mint": mint.url() })).bearer_auth(&key);
        let (status, body) = read(named.send().await.unwrap()).await;
        assert_eq!((status, &body["error"]["code"]), (503, &json!("mint_short")), "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(there), "{body}");
        assert_eq!(node.balance(&key).await, (250_000, 0, 0), "it is where it was");
    }
    for (mint, payee, sats, left) in [(&far, &other, 150, 100_000), (&near, &purse, 100, 0)] {
        let (status, body) = refund_token(&node, &key).await;
        assert_eq!((status, &body["sats"]), (200, &json!(sats.to_string())), "{body}");
        assert_eq!(body["mint"], mint.url(), "the fullest first");
        assert_eq!(payee.receive(body["token"].as_str().unwrap()).await.unwrap(), sats);
        assert_eq!(node.balance(&key).await, (left, 0, 0));
    }
    node.finish().await;
}

/// A second mint says that the keysets of the first are its own: they stay the first one's, and so does its ecash.
#[tokio::test(flavor = "multi_thread")]
async fn a_keyset_stays_with_the_mint_that_listed_it_first() {
    let mint = TestMint::start().await;
    let double = Chaos::before(&mint.url());
    let upstream = Upstream::start().await;
    let mut node = TestNode::with(&mint, &upstream, &[]).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(100).await;
    let key = purse.send(100).await;
    assert_eq!(node.balance(&key).await.0, 100_000);
    node.restart_with("CASHU_MINTS", &format!("{},{}", mint.url(), double.url())).await;
    let wallet = node.running().exchange().till.wallet().clone();
    let without: Vec<String> = wallet.refresh(0).await.into_iter().map(|(mint, _)| mint).collect();
    assert_eq!(without, [double.url()]);
    let mut reader = wallet.ledger().store().read().acquire().await.unwrap();
    let listed = sqlx::query("SELECT DISTINCT mint_url FROM keyset").fetch_all(&mut *reader).await.unwrap();
    let listed: Vec<String> = listed.iter().map(|row| sqlx::Row::try_get(row, 0).unwrap()).collect();
    assert_eq!(listed, [mint.url()]);
    drop(reader);
    assert_eq!(refund(&node, &purse, &key).await, 100);
    node.finish().await;
}
