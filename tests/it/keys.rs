//! The terms of keys: child keys, limits, validity, where the rest goes, and what a key's owner sees.

use std::sync::Arc;

use coinslot::clock::Clock as _;
use coinslot::ledger::terms::{ExpiredPage, Expiry, repo};
use coinslot::money::Msat;
use futures_util::future::join_all;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::bearer::refund;
use crate::support::clock::Stepped;
use crate::support::mint::TestMint;
use crate::support::node::{TestNode, UPSTREAM_KEY, ask, ask_streaming};
use crate::support::purse::Purse;
use crate::support::tokens::account_key;
use crate::support::upstream::{Script, Upstream, sse, usage};

/// What the upstream's echo costs.
const COST: u64 = 2000;

/// A node with a key of 500 sat, and a clock to move.
struct World {
    mint: TestMint,
    purse: Purse,
    upstream: Upstream,
    node: TestNode,
    clock: Arc<Stepped>,
    /// A token that is a key.
    parent: String,
}

impl World {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(more: &[(&str, &str)]) -> Self {
        let mint = TestMint::start().await;
        let purse = Purse::new(&mint).await;
        purse.mint_sats(2000).await;
        let upstream = Upstream::start().await;
        let clock = Stepped::now();
        let more = [&[("UPSTREAM_API_KEY", UPSTREAM_KEY)][..], more].concat();
        let node = TestNode::with_clock(&mint.url(), &upstream, clock.clone(), &more).await;
        let parent = purse.send(500).await;
        assert_eq!(node.balance(&parent).await, (500_000, 0, 0));
        Self { mint, purse, upstream, node, clock, parent }
    }

    fn set_clock(&self, ms: i64) {
        self.clock.set(ms);
    }

    fn now_secs(&self) -> i64 {
        self.clock.now_secs()
    }

    /// Makes child keys of the parent.
    async fn children(&self, wanted: Value) -> Vec<String> {
        let (status, made) = self.post("/v1/balance/child-key", &self.parent, wanted).await;
        assert_eq!(status, 200, "{made}");
        made["api_keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect()
    }

    async fn child(&self, limit: u64) -> String {
        self.children(json!({ "count": 1, "balance_limit": limit })).await.remove(0)
    }

    async fn post(&self, path: &str, key: &str, body: Value) -> (u16, Value) {
        answer(self.node.post(path).bearer_auth(key).json(&body)).await
    }

    async fn info(&self, key: &str) -> Value {
        let (status, info) = answer(self.node.get("/v1/balance/info").bearer_auth(key)).await;
        assert_eq!(status, 200, "{info}");
        info
    }

    async fn chat(&self, key: &str) -> (u16, Value) {
        answer(self.node.chat(&ask("hi")).bearer_auth(key)).await
    }

    /// What is set aside for such a request.
    async fn hold(&self) -> u64 {
        let (status, asked) = answer(self.node.chat(&ask("hi")).header("Accept-Payment", "cashu")).await;
        assert_eq!(status, 402);
        asked["error"]["payment"]["required_msat"].as_u64().unwrap()
    }

    fn expiry_of(&self, request: RequestBuilder, address: &str, at: i64) -> RequestBuilder {
        request.header("Refund-LNURL", address).header("Key-Expiry-Time", at.to_string())
    }

    /// Keys that are due at this moment: address and msat.
    async fn due(&self, now_secs: i64) -> Vec<(String, u64)> {
        let ledger = &self.node.running().exchange().ledger;
        let mut reader = ledger.store().read().acquire().await.unwrap();
        let due = repo::expired_keys(&mut reader, now_secs * 1_000, page(10)).await.unwrap();
        due.into_iter().map(|key| (key.expiry.address, key.balance.get())).collect()
    }
}

/// The keys that were due first.
const fn page(limit: i64) -> ExpiredPage {
    ExpiredPage { least: Msat::ZERO, after: None, limit }
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer: Response = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[track_caller]
fn refused(answer: &(u16, Value), status: u16, code: &str) {
    assert_eq!((answer.0, &answer.1["error"]["code"]), (status, &json!(code)), "{}", answer.1);
}

/// Invariant 29: the limit is checked in the statement that places the hold.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_requests_at_once_never_pass_the_limit_of_a_child() {
    let world = World::new().await;
    let (hold, purse) = (world.hold().await, 500_000);
    let cap = 4 * hold + hold / 2;
    let child = world.child(cap).await;
    let answers = join_all((0..50).map(|at| {
        let body = if at % 2 == 0 { ask("hi") } else { ask_streaming("hi") };
        let request = world.node.chat(&body).bearer_auth(&child);
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        }
    }))
    .await;
    let served = u64::try_from(answers.iter().filter(|(status, _)| *status == 200).count()).unwrap();
    assert!(served >= 1);
    for (_, text) in answers.iter().filter(|(status, _)| *status != 200) {
        let body: Value = serde_json::from_str(text).unwrap();
        assert_eq!(body["error"]["code"], "balance_limit_exceeded", "{body}");
        assert_eq!(body["error"]["type"], "insufficient_quota");
        assert_eq!(body["error"]["payment"], Value::Null, "more money would not help");
    }
    world.node.settled().await;
    let info = world.info(&child).await;
    let spent = info["total_spent"].as_u64().unwrap();
    assert_eq!((spent, info["total_requests"].as_u64().unwrap()), (served * COST, served));
    assert!(spent <= cap);
    // The rest of it, one by one, until nothing fits any more.
    let mut more = 0;
    loop {
        let (status, body) = world.chat(&child).await;
        if status != 200 {
            refused(&(status, body), 402, "balance_limit_exceeded");
            break;
        }
        more += 1;
        let left = body["usage"]["remaining_balance_msats"].as_u64().unwrap();
        let info = world.info(&child).await;
        assert_eq!(info["balance"].as_u64(), Some(left), "one definition of what is there");
        assert_eq!(left, (cap - spent - more * COST).min(purse - spent - more * COST));
    }
    let spent = spent + more * COST;
    assert!(cap - spent < hold, "{spent} of {cap}");
    assert_eq!(world.node.balance(&world.parent).await, (purse - spent, 0, spent));
    // Another child, and the parent itself, are not bound by it.
    assert_eq!(world.chat(&world.child(purse).await).await.0, 200);
    assert_eq!(world.chat(&world.parent).await.0, 200);
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spent_is_forgotten_at_the_end_of_the_window() {
    // Wednesday the 30th of December 2026, 23:00 UTC.
    const START: i64 = 1_798_671_600_000;
    const HOUR: i64 = 3_600_000;
    let world = World::new().await;
    world.node.has_run("prune").await;
    let hold = world.hold().await;
    for (reset, first, second) in [
        // The next days, Mondays (4th and 11th of January), firsts of the month.
        ("daily", START + HOUR, START + 25 * HOUR),
        ("weekly", START + (24 * 4 + 1) * HOUR, START + (24 * 11 + 1) * HOUR),
        ("monthly", START + 25 * HOUR, START + (24 * 32 + 1) * HOUR),
    ] {
        world.set_clock(START);
        let wanted = json!({ "count": 1, "balance_limit": hold, "balance_limit_reset": reset });
        let child = world.children(wanted).await.remove(0);
        let spend_once = async || {
            assert_eq!(world.chat(&child).await.0, 200, "{reset}");
            refused(&world.chat(&child).await, 402, "balance_limit_exceeded");
        };
        spend_once().await;
        for next in [first, second] {
            world.set_clock(next - 1);
            refused(&world.chat(&child).await, 402, "balance_limit_exceeded");
            world.set_clock(next);
            assert_eq!(world.info(&child).await["balance"], json!(hold), "{reset}");
            spend_once().await;
        }
        assert_eq!(world.info(&child).await["total_spent"], json!(3 * COST));
        // The parent, and nobody else, may forgive it before.
        let body = json!({ "child_key": child });
        refused(&world.post("/v1/balance/child-key/reset", &child, body.clone()).await, 403, "not_your_child_key");
        let (status, done) = world.post("/v1/wallet/child-key/reset", &world.parent, body).await;
        assert_eq!((status, &done["success"]), (200, &json!(true)));
        assert!(done["message"].is_string());
        spend_once().await;
        // What a clock has begun that was ahead ends when that is right again, and nothing else does.
        world.set_clock(START + 24 * 70 * HOUR);
        spend_once().await;
        world.node.settled().await;
        world.set_clock(START);
        let ledger = &world.node.running().exchange().ledger;
        assert_eq!(ledger.end_windows_ahead().await.unwrap(), 1, "{reset}");
        spend_once().await;
        assert_eq!(ledger.end_windows_ahead().await.unwrap(), 0, "{reset}");
        refused(&world.chat(&child).await, 402, "balance_limit_exceeded");
    }
    // By the id that the parent sees, too; a stranger's child is a stranger's.
    let ids = world.info(&world.parent).await["child_keys"].clone();
    let id = ids[0]["api_key"].as_str().unwrap().to_owned();
    let reset = |key: String, child: Value| {
        let world = &world;
        async move { world.post("/v1/balance/child-key/reset", &key, json!({ "child_key": child })).await }
    };
    assert_eq!(reset(world.parent.clone(), json!(id)).await.0, 200);
    let stranger = world.purse.send(50).await;
    refused(&reset(stranger.clone(), json!(id)).await, 404, "child_key_not_found");
    refused(&reset(stranger, json!(world.child(1).await)).await, 403, "not_your_child_key");
    let nobody = format!("sk-{}", "0".repeat(64));
    refused(&reset(world.parent.clone(), json!(nobody)).await, 404, "child_key_not_found");
    refused(&reset(world.parent.clone(), json!("")).await, 404, "child_key_not_found");
    refused(&reset(world.parent.clone(), json!(null)).await, 400, "invalid_request");
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_refused_when_its_validity_has_ended() {
    let world = World::new().await;
    let now = world.now_secs();
    let child = world.children(json!({ "count": 1, "validity_date": now + 100 })).await.remove(0);
    let token = world.purse.send(100).await;
    let create = json!({ "initial_balance_token": token, "validity_date": now + 100 });
    assert_eq!(answer(world.node.post("/v1/balance/create").json(&create)).await.0, 200);
    for key in [&child, &token] {
        assert_eq!(world.chat(key).await.0, 200);
        assert_eq!(world.info(key).await["validity_date"], json!(now + 100));
    }
    world.set_clock((now + 100) * 1000 - 1);
    assert_eq!(world.chat(&child).await.0, 200);
    world.set_clock((now + 100) * 1000);
    for key in [&child, &token] {
        let end = world.chat(key).await;
        refused(&end, 403, "key_expired");
        assert_eq!(end.1["error"]["type"], "invalid_request_error");
    }
    assert_eq!(world.info(&child).await["balance"], json!(0), "it can spend nothing");
    let more = json!({ "count": 1 });
    refused(&world.post("/v1/balance/child-key", &token, more).await, 403, "key_expired");
    // Its money is its owner's.
    assert_eq!(refund(&world.node, &world.purse, &token).await, 98);
    assert_eq!(world.chat(&world.parent).await.0, 200);
    world.node.finish().await;
}

/// A child key that was made before works no longer than its parent, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_key_ends_with_its_parent() {
    let world = World::new().await;
    let end = world.now_secs() + 100;
    let token = world.purse.send(100).await;
    let create = json!({ "initial_balance_token": token, "validity_date": end });
    assert_eq!(answer(world.node.post("/v1/balance/create").json(&create)).await.0, 200);
    let mut children = Vec::new();
    for wanted in [json!({ "count": 1 }), json!({ "count": 1, "validity_date": end + 100 })] {
        let (status, made) = world.post("/v1/balance/child-key", &token, wanted).await;
        assert_eq!(status, 200, "{made}");
        children.push(made["api_keys"][0].as_str().unwrap().to_owned());
    }
    for child in &children {
        assert_eq!(world.chat(child).await.0, 200);
        assert_eq!(world.info(child).await["validity_date"], json!(end));
    }
    world.set_clock(end * 1000);
    for child in &children {
        refused(&world.chat(child).await, 403, "key_expired");
        assert_eq!(world.info(child).await["balance"], json!(0), "it can spend nothing");
    }
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_sees_what_it_may_spend_and_nothing_of_its_parent() {
    let world = World::new().await;
    let wanted = json!({ "count": 2, "balance_limit": 40_000, "balance_limit_reset": "monthly" });
    let children = world.children(wanted).await;
    for child in &children {
        let hex = child.strip_prefix("sk-").unwrap();
        assert!(hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{child}");
    }
    let (one, other) = (&children[0], &children[1]);
    assert_eq!(world.chat(one).await.0, 200);
    let info = world.info(one).await;
    assert_eq!(info["api_key"], json!(one));
    assert_eq!(info["is_child"], true);
    assert_eq!((&info["balance"], &info["reserved"]), (&json!(38_000), &json!(0)));
    assert_eq!((&info["total_spent"], &info["total_requests"]), (&json!(COST), &json!(1)));
    assert_eq!((&info["balance_limit"], &info["balance_limit_reset"]), (&json!(40_000), &json!("monthly")));
    assert_eq!(info["validity_date"], Value::Null);
    assert_eq!(info.get("child_keys"), None);
    let preview = info["parent_key_preview"].as_str().unwrap();
    assert!(preview.len() == 8 && preview.bytes().all(|byte| byte.is_ascii_hexdigit()), "{preview}");
    assert_eq!(world.info(other).await["parent_key_preview"], json!(preview));
    let secret = account_key(&world.parent);
    assert!(!secret.contains(preview), "no part of the secret either");
    for path in ["/v1/balance/", "/v1/wallet/info"] {
        let text = world.node.get(path).bearer_auth(one).send().await.unwrap().text().await.unwrap();
        assert!(!text.contains(&secret[3..]) && !text.contains(&world.parent) && !text.contains(&other[3..]), "{text}");
    }
    // The parent sees its children by stable ids, and not their secrets.
    let info = world.info(&world.parent).await;
    assert_eq!((&info["is_child"], &info["balance"]), (&json!(false), &json!(498_000)));
    assert_eq!(info.get("parent_key_preview"), None);
    let listed = info["child_keys"].as_array().unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[0]["total_spent"], &listed[1]["total_spent"]), (&json!(COST), &json!(0)));
    assert_eq!((&listed[0]["total_requests"], &listed[0]["balance_limit"]), (&json!(1), &json!(40_000)));
    assert_eq!((&listed[0]["balance_limit_reset"], &listed[0]["validity_date"]), (&json!("monthly"), &Value::Null));
    assert!(children.iter().all(|child| !info.to_string().contains(&child[3..])));
    assert_eq!(world.info(&world.parent).await["child_keys"], info["child_keys"]);
    // Nothing on the disk opens a child key.
    for entry in std::fs::read_dir(world.node.data_dir()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(children.iter().all(|child| !holds(&child[3..])));
    }
    // What the parent has bounds what a child can spend.
    let rich = world.child(1_000_000).await;
    assert_eq!(world.info(&rich).await["balance"], json!(498_000));
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_belongs_to_the_parent() {
    let world = World::new().await;
    let child = world.child(100_000).await;
    let more = world.purse.send(50).await;
    let (status, credited) = world.post("/v1/balance/topup", &child, json!({ "cashu_token": more })).await;
    assert_eq!((status, &credited["msats"]), (200, &json!(50_000)));
    assert_eq!(world.node.balance(&world.parent).await.0, 550_000);
    assert_eq!(world.info(&child).await["balance"], json!(100_000));
    refused(&world.post("/v1/balance/refund", &child, json!({})).await, 400, "child_key");
    refused(&answer(world.node.get("/v1/balance/history").bearer_auth(&child)).await, 400, "child_key");
    refused(&world.post("/v1/balance/child-key", &child, json!({ "count": 1 })).await, 400, "child_key");
    // An unlimited child of an empty parent needs money like anybody.
    let free = world.children(json!({ "count": 1 })).await.remove(0);
    assert_eq!(world.info(&free).await["balance_limit"], Value::Null);
    assert_eq!(refund(&world.node, &world.purse, &world.parent).await, 550);
    let empty = world.chat(&free).await;
    refused(&empty, 402, "insufficient_balance");
    assert_eq!(empty.1["error"]["type"], "insufficient_quota");
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn child_keys_are_bought() {
    let world = World::with(&[("CHILD_KEY_COST", "1500")]).await;
    let (_, about) = answer(world.node.get("/v1/info")).await;
    assert_eq!(about["child_key_cost_msats"], json!(1500));
    let (status, made) = world.post("/v1/wallet/child-key", &world.parent, json!({ "count": 3 })).await;
    assert_eq!(status, 200);
    assert_eq!(made["api_keys"].as_array().unwrap().len(), 3);
    assert_eq!((&made["count"], &made["cost_msats"], &made["cost_sats"]), (&json!(3), &json!(4500), &json!(4)));
    assert_eq!((&made["parent_balance"], &made["parent_balance_sats"]), (&json!(495_500), &json!(495)));
    assert_eq!(world.node.balance(&world.parent).await.0, 495_500);
    // None is made, and nothing taken, where the money is short or the request is wrong.
    let poor = world.purse.send(5).await;
    let short = world.post("/v1/balance/child-key", &poor, json!({ "count": 4 })).await;
    refused(&short, 402, "insufficient_balance");
    assert_eq!(short.1["error"]["payment"]["required_msat"], json!(6000));
    for wrong in [
        json!({}),
        json!({ "count": 0 }),
        json!({ "count": 51 }),
        json!({ "count": -1 }),
        json!({ "count": 1.5 }),
        json!({ "count": "many" }),
        json!({ "count": 1, "balance_limit": -1 }),
        json!({ "count": 1, "balance_limit": 2_100_000_000_000_000_001_u64 }),
        json!({ "count": 1, "balance_limit_reset": "hourly" }),
        json!({ "count": 1, "balance_limit_reset": 7 }),
        json!({ "count": 1, "validity_date": world.now_secs() }),
        json!({ "count": 1, "validity_date": 1_800_000_000_000_u64 }),
        json!({ "count": 1, "validity_date": "soon" }),
    ] {
        refused(&world.post("/v1/balance/child-key", &poor, wrong).await, 400, "invalid_request");
    }
    assert_eq!(world.node.balance(&poor).await.0, 5_000);
    assert_eq!(world.info(&poor).await.get("child_keys"), None);
    // Fifty a call, and an end to it.
    let free = World::new().await;
    for _ in 0..20 {
        assert_eq!(free.children(json!({ "count": 50 })).await.len(), 50);
    }
    refused(&free.post("/v1/balance/child-key", &free.parent, json!({ "count": 1 })).await, 400, "invalid_request");
    free.node.finish().await;
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_can_be_created_with_limits() {
    let world = World::new().await;
    let hold = world.hold().await;
    let until = world.now_secs() + 1000;
    let token = world.purse.send(200).await;
    // What is wrong is found before the token is touched.
    let swaps = world.mint.calls("/v1/swap");
    for query in
        ["balance_limit=x", "balance_limit=-1", "balance_limit_reset=yearly", "validity_date=1", "validity_date=x"]
    {
        let path = format!("/v1/balance/create?initial_balance_token={token}&{query}");
        refused(&answer(world.node.get(&path)).await, 400, "invalid_request");
    }
    assert_eq!(world.mint.calls("/v1/swap"), swaps);
    let query = format!("balance_limit={hold}&balance_limit_reset=weekly&validity_date={until}");
    let path = format!("/v1/balance/create?initial_balance_token={token}&{query}");
    let (status, made) = answer(world.node.get(&path)).await;
    assert_eq!(status, 200, "{made}");
    assert_eq!(made["balance"], json!(200_000));
    let key = made["api_key"].as_str().unwrap();
    assert_eq!(key, account_key(&token));
    let same = json!({ "initial_balance_token": token, "balance_limit": hold, "balance_limit_reset": "weekly", "validity_date": until });
    assert_eq!(answer(world.node.post("/v1/wallet/create").json(&same)).await, (200, made.clone()));
    let other = json!({ "initial_balance_token": token, "balance_limit": 10 * hold });
    refused(&answer(world.node.post("/v1/wallet/create").json(&other)).await, 400, "invalid_request");
    let info = world.info(key).await;
    assert_eq!((&info["balance"], &info["is_child"]), (&json!(200_000), &json!(false)));
    assert_eq!((&info["balance_limit"], &info["balance_limit_reset"]), (&json!(hold), &json!("weekly")));
    assert_eq!(info["validity_date"], json!(until));
    assert_eq!(world.chat(key).await.0, 200);
    refused(&world.chat(key).await, 402, "balance_limit_exceeded");
    assert_eq!(refund(&world.node, &world.purse, key).await, 198, "a limit is on spending only");
    world.node.finish().await;
}

/// `Refund-LNURL` and `Key-Expiry-Time`.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_rest_goes_is_noted_and_may_change() {
    let world = World::new().await;
    let now = world.now_secs();
    let token = world.purse.send(100).await;
    let chat = || world.node.chat(&ask("hi")).bearer_auth(&token);
    assert_eq!(answer(world.expiry_of(chat(), "Me@Wallet.Example", now + 50)).await.0, 200);
    let seen = world.upstream.last();
    assert!(seen.headers.keys().all(|name| !name.as_str().contains("refund") && !name.as_str().contains("expiry")));
    assert!(!format!("{:?}", seen.headers).to_lowercase().contains("wallet.example"));
    let info = world.info(&token).await;
    assert_eq!((&info["refund_lnurl"], &info["key_expiry_time"]), (&json!("me@wallet.example"), &json!(now + 50)));
    // The same again costs no write: it does not even undo what another process wrote meanwhile.
    let ledger = world.node.running().exchange().ledger.clone();
    let account = {
        let mut reader = ledger.store().read().acquire().await.unwrap();
        repo::expired_keys(&mut reader, (now + 51) * 1_000, page(1)).await.unwrap().remove(0).account
    };
    let theirs = Expiry { address: "other@process.example".into(), at: now + 70 };
    ledger.put_expiry(account, &theirs).await.unwrap();
    assert_eq!(answer(world.expiry_of(chat(), "me@wallet.example", now + 50)).await.0, 200);
    assert_eq!(world.info(&token).await["refund_lnurl"], json!("other@process.example"));
    // Another value is noted, on a balance route as well.
    let info = world.node.get("/v1/wallet/info").bearer_auth(&token);
    let (status, info) = answer(world.expiry_of(info, "you@wallet.example", now + 60)).await;
    assert_eq!(
        (status, &info["refund_lnurl"], &info["key_expiry_time"]),
        (200, &json!("you@wallet.example"), &json!(now + 60))
    );
    // Without a time, an address changes nothing.
    let alone = world.node.get("/v1/wallet/info").bearer_auth(&token).header("Refund-LNURL", "third@wallet.example");
    let (status, same) = answer(alone).await;
    assert_eq!(
        (status, &same["refund_lnurl"], &same["key_expiry_time"]),
        (200, &info["refund_lnurl"], &json!(now + 60))
    );
    // It is when the rest is paid out, not when the key ends.
    assert!(world.due(now + 60).await.is_empty());
    assert_eq!(world.due(now + 61).await, [("you@wallet.example".to_owned(), 96_000)]);
    world.set_clock((now + 500) * 1000);
    assert_eq!(answer(chat()).await.0, 200);
    assert_eq!(world.due(now + 500).await, [("you@wallet.example".to_owned(), 94_000)]);
    // What is busy, or empty, is not due.
    let mut pieces = sse("m", &["x"], Some(usage(100, 50)));
    // Nothing goes out before the first content.
    let after = pieces.split_off(2);
    world.upstream.next(Script::Paused { before: pieces, after });
    let busy = world.node.chat(&ask_streaming("hi")).bearer_auth(&token).send().await.unwrap();
    assert!(world.due(now + 500).await.is_empty());
    world.upstream.resume();
    busy.text().await.unwrap();
    assert_eq!(world.due(now + 500).await, [("you@wallet.example".to_owned(), 92_000)]);
    assert_eq!(refund(&world.node, &world.purse, &token).await, 92);
    assert!(world.due(now + 500).await.is_empty());
    // What a token that rides along leaves comes back at once, whatever they say.
    for (address, at) in [("me@wallet.example", now + 50), ("nobody", -1)] {
        let rides = world.node.chat(&ask("hi")).header("X-Cashu", world.purse.send(50).await);
        let answer = world.expiry_of(rides, address, at).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{address}");
        let change = answer.headers()["x-cashu"].to_str().unwrap().to_owned();
        assert_eq!(world.purse.receive(&change).await.unwrap(), 48, "{address}");
    }
    assert!(world.due(now + 500).await.is_empty());
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_expiry_costs_nothing() {
    let world = World::new().await;
    let token = world.purse.send(100).await;
    let swaps = world.mint.calls("/v1/swap");
    let asked = world.upstream.seen().len();
    let rows: [(Option<&str>, Option<&str>); 10] = [
        (Some("nobody"), None),
        (None, Some("1900000000")),
        (Some("me@wallet.example"), Some("tomorrow")),
        (Some("me@wallet.example"), Some("1900000000.5")),
        (Some("me@wallet.example"), Some("-1")),
        (Some("me@wallet.example"), Some("1900000000000")),
        (Some("me@wallet.example"), Some("")),
        (Some("https://wallet.example"), Some("1900000000")),
        (Some("lnurl1notbech32"), Some("1900000000")),
        (Some("nobody"), Some("1900000000")),
    ];
    for (address, at) in rows {
        let with = |mut request: RequestBuilder| {
            for (name, value) in [("Refund-LNURL", address), ("Key-Expiry-Time", at)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            request
        };
        let create = world.node.post("/v1/wallet/create").json(&json!({ "initial_balance_token": token }));
        for request in [
            world.node.chat(&ask("hi")).bearer_auth(&token),
            world.node.get("/v1/wallet/info").bearer_auth(&token),
            world.node.chat(&ask("hi")).header("x-api-key", &token),
            create,
        ] {
            refused(&answer(with(request)).await, 400, "invalid_request");
        }
    }
    let twice = world.node.chat(&ask("hi")).bearer_auth(&token).header("Key-Expiry-Time", "1");
    refused(&answer(world.expiry_of(twice, "me@wallet.example", 2)).await, 400, "invalid_request");
    // Not for a child, which has nothing to pay out.
    let child = world.child(100_000).await;
    for request in [world.node.chat(&ask("hi")), world.node.get("/v1/wallet/info")] {
        let request = request.bearer_auth(&child);
        refused(&answer(world.expiry_of(request, "me@wallet.example", 1_900_000_000)).await, 400, "child_key");
    }
    assert_eq!((world.mint.calls("/v1/swap"), world.upstream.seen().len()), (swaps, asked));
    assert_eq!(world.purse.receive(&token).await.unwrap(), 100, "the token is untouched");
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_says_what_came_and_went() {
    let world = World::with(&[("CHILD_KEY_COST", "1000")]).await;
    let start = world.now_secs();
    let later = |secs: i64| world.set_clock((start + secs) * 1000);
    later(1);
    let child = world.child(100_000).await;
    assert_eq!(world.chat(&child).await.0, 200);
    later(2);
    let more = world.purse.send(40).await;
    world.post("/v1/balance/topup", &world.parent, json!({ "cashu_token": more })).await;
    later(3);
    assert_eq!(refund(&world.node, &world.purse, &world.parent).await, 537);
    let read = async |query: &str| {
        let request = world.node.get(&format!("/v1/balance/history{query}")).bearer_auth(&world.parent);
        let (status, page) = answer(request).await;
        assert_eq!(status, 200, "{page}");
        assert!(!page.to_string().contains("cashuB"), "never a token: {page}");
        page["transactions"].as_array().unwrap().clone()
    };
    let all = read("").await;
    let shown: Vec<_> = all
        .iter()
        .map(|one| {
            let text = |name: &str| one[name].as_str().unwrap_or("-").to_owned();
            (text("type"), text("source"), one["amount"].as_u64().unwrap(), text("unit"), text("mint_url"))
        })
        .collect();
    let row = |kind: &str, source: &str, amount: u64, unit: &str, mint: &str| {
        (kind.to_owned(), source.to_owned(), amount, unit.to_owned(), mint.to_owned())
    };
    let mint = world.mint.url();
    assert_eq!(
        shown,
        [
            row("out", "apikey", 537, "sat", &mint),
            row("in", "apikey", 40, "sat", &mint),
            row("out", "child_key", 1000, "msat", "-"),
            row("in", "apikey", 500, "sat", &mint),
        ]
    );
    assert!(all.iter().all(|one| one["collected"] == true && one["swept"] == false));
    let times: Vec<_> = all.iter().map(|one| one["created_at"].as_i64().unwrap() - start).collect();
    assert_eq!(times, [3, 2, 1, 0]);
    // Page by page.
    let mut paged = read("?limit=3").await;
    assert_eq!(paged.len(), 3);
    paged.extend(read(&format!("?limit=3&before={}", paged[2]["id"].as_str().unwrap())).await);
    assert_eq!(paged, all);
    for wrong in ["?limit=0", "?limit=x", "?limit=501", "?before=x", "?before=-1"] {
        let request = world.node.get(&format!("/v1/balance/history{wrong}")).bearer_auth(&world.parent);
        refused(&answer(request).await, 400, "invalid_request");
    }
    refused(&answer(world.node.get("/v1/balance/history")).await, 401, "unauthorized");
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gift_is_income() {
    let world = World::new().await;
    let earned = async || world.node.running().exchange().ledger.books().await.unwrap().earnings;
    let give = async |request: RequestBuilder| {
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let thanks = (200, "Thanks!".to_owned());
    let gift = world.purse.send(30).await;
    let body = json!({ "token": gift, "ref": "a friend" });
    assert_eq!(give(world.node.post("/v1/wallet/donate").json(&body)).await, thanks);
    assert_eq!(earned().await, 30_000);
    assert_eq!(give(world.node.post("/v1/wallet/donate").json(&body)).await, thanks, "credited once");
    assert_eq!(earned().await, 30_000);
    let other = world.purse.send(7).await;
    assert_eq!(give(world.node.post(&format!("/v1/balance/donate?token={other}&ref=x"))).await, thanks);
    assert_eq!(earned().await, 37_000);
    // It opens nothing afterwards.
    refused(&world.chat(&gift).await, 400, "cashu_token_already_spent");
    let used = world.purse.send(5).await;
    world.purse.receive(&used).await.unwrap();
    for bad in
        [json!({ "token": used }), json!({ "token": "cashuBnonsense" }), json!({}), json!({ "token": world.parent })]
    {
        let refused = give(world.node.post("/v1/wallet/donate").json(&bad)).await;
        assert_eq!(refused, (400, "Invalid token.".to_owned()));
    }
    assert_eq!(earned().await, 37_000);
    let mut world = world;
    world.mint.stop().await;
    let kept = json!({ "token": world.purse.send(1).await });
    let (status, text) = give(world.node.post("/v1/wallet/donate").json(&kept)).await;
    assert_eq!(status, 503, "{text}");
    world.mint.restart().await;
    world.node.finish().await;
}

/// Without such a header, the history names the purchase, and its keys are had again.
#[tokio::test(flavor = "multi_thread")]
async fn child_keys_are_had_again_by_their_purchase() {
    let world = World::with(&[("CHILD_KEY_COST", "1000")]).await;
    let make = |body: Value| world.node.post("/v1/wallet/child-key").bearer_auth(&world.parent).json(&body);
    let (status, first) = answer(make(json!({ "count": 3, "balance_limit": 7_000 }))).await;
    assert_eq!(status, 200, "{first}");
    let named = make(json!({ "count": 1 })).header("idempotency-key", "named");
    let (_, second) = answer(named).await;
    let request = world.node.get("/v1/balance/history").bearer_auth(&world.parent);
    let (_, history) = answer(request).await;
    let bought: Vec<&Value> =
        history["transactions"].as_array().unwrap().iter().filter(|one| one["kind"] == "child_key").collect();
    for (entry, sold) in bought.iter().zip([&second, &first]) {
        let (status, again) = answer(make(json!({ "id": entry["id"] }))).await;
        assert_eq!((status, &again["api_keys"], &again["count"]), (200, &sold["api_keys"], &sold["count"]), "{again}");
        assert_eq!((&again["cost_msats"], &again["parent_balance"]), (&json!(0), &json!(496_000)));
    }
    let other = world.purse.send(20).await;
    assert_eq!(world.chat(&other).await.0, 200);
    for (who, id) in [(&world.parent, json!("7")), (&other, bought[0]["id"].clone())] {
        let request = world.node.post("/v1/wallet/child-key").bearer_auth(who).json(&json!({ "id": id }));
        refused(&answer(request).await, 404, "child_key_not_found");
    }
    let child = first["api_keys"][0].as_str().unwrap();
    let request = world.node.post("/v1/wallet/child-key").bearer_auth(child).json(&json!({ "id": bought[1]["id"] }));
    refused(&answer(request).await, 404, "child_key_not_found");
    world.node.finish().await;
}

/// A lost answer does not lose the keys that were bought: the same request gives them again.
#[tokio::test(flavor = "multi_thread")]
async fn child_keys_are_made_once_for_an_idempotency_key() {
    let world = World::with(&[("CHILD_KEY_COST", "1000")]).await;
    let body = json!({ "count": 3, "balance_limit": 7_000 });
    let make = |name: &str, body: &Value| {
        let request = world.node.post("/v1/wallet/child-key").bearer_auth(&world.parent).json(body);
        request.header("idempotency-key", name.to_owned())
    };
    // However many ask at once.
    let all = join_all((0..20).map(|_| answer(make("one", &body)))).await;
    let made: Vec<&Value> = all.iter().filter(|(status, _)| *status == 200).map(|(_, body)| body).collect();
    assert!(!made.is_empty() && made.iter().all(|one| *one == made[0]), "{all:?}");
    assert!(all.iter().all(|(status, body)| *status == 200 || body["error"]["code"] == "idempotency_in_progress"));
    assert_eq!(world.node.balance(&world.parent).await.0, 497_000, "paid once");
    let again = make("one", &body).send().await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(&again.json::<Value>().await.unwrap(), made[0]);
    // Under its other name it is the same call.
    let other = world.node.post("/v1/balance/child-key").bearer_auth(&world.parent).json(&body);
    assert_eq!(&answer(other.header("idempotency-key", "one")).await.1, made[0]);
    refused(&answer(make("one", &json!({ "count": 1 }))).await, 409, "idempotency_key_reused");
    refused(&answer(make("two", &json!({ "count": 51 }))).await, 400, "invalid_request");
    refused(&answer(make("two", &json!({ "count": 500 }))).await, 400, "invalid_request");
    refused(&answer(make("", &body)).await, 400, "invalid_request");

    // A process that died after the keys were made and before their answer was kept.
    let ledger = &world.node.running().exchange().ledger;
    let mut tx = ledger.store().begin(coinslot::store::Durability::Full).await.unwrap();
    sqlx::query("UPDATE replays SET state = 'running', outcome = ''").execute(tx.hand()).await.unwrap();
    tx.commit().await.unwrap();
    let (status, once_more) = answer(make("one", &body)).await;
    assert_eq!((status, &once_more["api_keys"]), (200, &made[0]["api_keys"]), "{once_more}");
    assert_eq!(world.node.balance(&world.parent).await.0, 497_000, "still paid once");
    let key = made[0]["api_keys"][2].as_str().unwrap();
    assert_eq!(world.info(key).await["balance"], 7_000);
    let (status, more) = answer(make("two", &body)).await;
    assert_eq!(status, 200);
    assert_ne!(more["api_keys"], made[0]["api_keys"]);
    assert_eq!(world.info(&world.parent).await["child_keys"].as_array().unwrap().len(), 6);
    world.node.finish().await;
}
