//! What a request would have to be paid with, before anything is paid.

use std::sync::Arc;
use std::time::Duration;

use coinslot::clock::SystemClock;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sqlx::Row as _;

use super::World;
use super::walls::every;
use crate::pool::{Reply, World as Pool, entry};
use crate::support::answers::read;
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, RICH, TestNode, ask};
use crate::support::purse::Purse;
use crate::support::tokens::account_key;
use crate::support::upstream::Upstream;
use crate::xcashu::header;

async fn start() -> World {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(20_000).await;
    let upstream = Upstream::start().await;
    // So that one sat less is a token still.
    let node = TestNode::with(&mint, &upstream, &[("MIN_REQUEST_MSAT", "3000")]).await;
    node.quiet().await;
    World { _mint: mint, purse, upstream, node, key: String::new() }
}

fn quoted(path: &str) -> String {
    let path = path.trim_start_matches("/v1beta/").trim_start_matches("/v1/");
    format!("/v1/quote/{path}")
}

/// Calls about money; keysets are looked at in the background.
fn paid_calls(mint: &TestMint) -> u64 {
    ["/v1/swap", "/v1/checkstate", "/v1/restore"].iter().map(|path| mint.calls(path)).sum()
}

async fn rows(node: &TestNode) -> i64 {
    let sql =
        "SELECT (SELECT COUNT(*) FROM accounts) + (SELECT COUNT(*) FROM holds) + (SELECT COUNT(*) FROM transfers)";
    let store = node.running().exchange().ledger.store();
    sqlx::query(sql).fetch_one(store.read()).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_what_was_quoted_is_enough_at_every_endpoint_and_one_sat_less_is_not() {
    let world = start().await;
    let mint = &world._mint;
    for (path, media, body) in &every() {
        let post =
            |path: &str| -> RequestBuilder { world.node.post(path).header("content-type", *media).body(body.clone()) };
        let (before, calls, asked) = (rows(&world.node).await, paid_calls(mint), world.upstream.seen().len());
        let (status, quote) = read(post(&quoted(path)).send().await.unwrap()).await;
        assert_eq!(status, 200, "{path}: {quote}");
        assert_eq!(
            (&quote["object"], &quote["model"], &quote["unit"]),
            (&json!("quote"), &quote["model"], &json!("sat"))
        );
        assert_eq!(quote["mints"], json!([mint.url()]), "{path}");
        let amount = quote["amount"].as_u64().unwrap();
        let required = quote["required_msat"].as_u64().unwrap();
        assert!(amount >= 3 && required <= amount * 1000 && required > (amount - 1) * 1000, "{path}: {quote}");
        let now = (rows(&world.node).await, paid_calls(mint), world.upstream.seen().len());
        assert_eq!(now, (before, calls, asked), "{path}: nothing is kept, and nobody is asked");
        // It is the payment request of the 402.
        let unpaid = post(path).header("x-cashu", "").send().await.unwrap();
        assert_eq!(unpaid.status(), 402, "{path}");
        assert_eq!(unpaid.headers()["x-cashu"].to_str().unwrap(), quote["request"].as_str().unwrap(), "{path}");
        let less = world.purse.send(amount - 1).await;
        let (status, said) = read(post(path).header("x-cashu", &less).send().await.unwrap()).await;
        assert_eq!(status, 402, "{path}: {said}");
        assert_eq!(Purse::new(mint).await.receive(&less).await.unwrap(), amount - 1, "{path}: it is untouched");
        let enough = world.purse.send(amount).await;
        let paid = post(path).header("x-cashu", &enough).send().await.unwrap();
        let change = header(&paid, "x-cashu").map(str::to_owned);
        let (status, text) = (paid.status(), paid.text().await.unwrap());
        assert_eq!(status, 200, "{path}: {text}");
        // All that it did not cost comes back, but for less than a coin.
        let (rest, held, cost) = world.node.balance(&account_key(&enough)).await;
        let back = match change {
            Some(change) => Purse::new(mint).await.receive(&change).await.unwrap(),
            None => 0,
        };
        assert!(cost > 0, "{path}");
        assert_eq!((back, held), (amount - cost.div_ceil(1000), 0), "{path}: {cost} msat of {amount} sat");
        assert_eq!(rest, (amount - back) * 1000 - cost, "{path}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_is_refused_as_its_request_would_be() {
    let world = start().await;
    let chat = ask("hi");
    let other = |more: Value| super::with(chat.clone(), more);
    let contents = json!({ "contents": [{ "parts": [{ "text": "x" }] }] });
    for (path, body, status, code) in [
        ("/v1/quote", other(json!({ "model": "none" })), 400, "invalid_model"),
        ("/v1/quote/chat/completions", other(json!({ "messages": [] })), 400, "invalid_request"),
        ("/v1/quote/chat/completions", other(json!({ "modalities": ["audio"] })), 400, "modality_not_priced"),
        (
            "/v1/quote/messages",
            json!({ "model": "none", "max_tokens": 1, "messages": chat["messages"] }),
            400,
            "invalid_model",
        ),
        ("/v1/quote/v1/files", json!({}), 404, "not_found"),
        ("/v1/quote/nothing", json!({}), 404, "not_found"),
    ] {
        let (got, said) = read(world.node.post(path).json(&body).send().await.unwrap()).await;
        assert_eq!((got, &said["error"]["code"]), (status, &json!(code)), "{path}: {said}");
    }
    let gone = world.node.post("/v1/quote/models/none:generateContent").json(&contents).send().await.unwrap();
    let (status, said) = read(gone).await;
    assert_eq!((status, &said["error"]["status"]), (404, &json!("NOT_FOUND")), "{said}");
    assert_eq!(world.node.get("/v1/quote").send().await.unwrap().status(), 405);
    // Without a path it is a chat, and the prefix of the route may stay.
    let (_, one) = read(world.node.post("/v1/quote").json(&chat).send().await.unwrap()).await;
    let (_, same) = read(world.node.post("/quote/v1/chat/completions").json(&chat).send().await.unwrap()).await;
    assert_eq!((&one["request"], &one["model"]), (&same["request"], &json!(MODEL)));
    assert_ne!(RICH, MODEL);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_to_pay_for_what_is_not_served_or_with_what_is_not_taken() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let listed = |more: Value| json!([entry(0, &upstream.url(), &more)]).to_string();
    let (any, mints) = (listed(json!({})), mint.url());
    let mints = mints.as_str();
    for (upstreams, mints, takes, status, code) in [
        (&listed(json!({ "models": ["toy/cheap"] })), mints, "true", 503, "upstream_unavailable"),
        (&listed(json!({ "protocols": ["messages"] })), mints, "true", 400, "invalid_model"),
        (&any, "", "true", 503, "mint_not_configured"),
        (&any, mints, "false", 403, "new_money_not_taken"),
        (&any, mints, "true", 402, "payment_required"),
    ] {
        let settings = [("UPSTREAMS", upstreams.as_str()), ("CASHU_MINTS", mints), ("ACCEPT_NEW_TOKENS", takes)];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let node = TestNode::with_settings(settings.into(), Arc::new(SystemClock)).await;
        let (quoted, quote) = read(node.post("/v1/quote").json(&ask("hi")).send().await.unwrap()).await;
        for (name, value) in [("X-Cashu", ""), ("Accept-Payment", "cashu")] {
            let unpaid = Reply::of(node.chat(&ask("hi")).header(name, value).send().await.unwrap()).await;
            assert_eq!((unpaid.status, unpaid.code().as_str()), (status, code), "{name}: {}", unpaid.text);
            let asks = unpaid.headers.get("x-cashu").map(String::as_str);
            match status {
                402 => assert_eq!((quoted, asks), (200, quote["request"].as_str()), "{quote}"),
                _ => assert_eq!((quoted, &quote["error"]["code"], asks), (status, &json!(code), None), "{quote}"),
            }
        }
        assert!(upstream.seen().is_empty());
        node.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_asks_for_so_many_quotes_a_minute() {
    let world = Pool::new(&[json!({})], &[("QUOTES_PER_MINUTE", "2")]).await;
    let quote = async || Reply::of(world.node.post("/v1/quote").json(&ask("hi")).send().await.unwrap()).await;
    assert_eq!((quote().await.status, quote().await.status), (200, 200));
    let reply = quote().await;
    assert_eq!((reply.status, reply.code().as_str()), (429, "rate_limit_exceeded"));
    assert!((1..=60).contains(&reply.headers["retry-after"].parse::<u64>().unwrap()));
    assert_eq!(world.send(&ask("hi")).await.status, 200, "requests that are paid are not concerned");
    world.clock.step(Duration::from_secs(61));
    assert_eq!(quote().await.status, 200);
    world.finish().await;
}
