//! The price list, the rate behind it, and what happens when there is none.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::bearer::{world, world_with};
use crate::support::answers::until;
use crate::support::clock::Stepped;
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, TestNode, ask, models};
use crate::support::program::told;
use crate::support::purse::Purse;
use crate::support::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn the_price_list_is_what_is_charged() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let fees = [("EXCHANGE_FEE", "1.005"), ("UPSTREAM_PROVIDER_FEE", "1.05")];
    let node = TestNode::with(&mint, &upstream, &fees).await;
    let list: Value = node.get("/v1/models").send().await.unwrap().json().await.unwrap();
    let model = list["data"].as_array().unwrap().iter().find(|model| model["id"] == MODEL).unwrap().clone();
    assert_eq!(model["object"], "model");
    // 0.00001 USD × 1.05; in sats × 1.005 × 10⁸ ÷ 100000 too.
    assert_eq!(model["pricing"]["prompt"], json!(0.000_010_5));
    assert_eq!(model["sats_pricing"]["prompt"], json!(0.010_552_5));
    assert_eq!(model["sats_pricing"]["completion"], json!(0.021_105));
    // (10000 − 1000) × prompt + 1000 × completion
    assert_eq!(model["sats_pricing"]["max_cost"], json!(116.0775));
    for name in ["toy/echo-1", "echo-1"] {
        let one: Value = node.get(&format!("/v1/models/{name}")).send().await.unwrap().json().await.unwrap();
        assert_eq!((&one["id"], &one["pricing"]), (&json!(name), &model["pricing"]));
    }
    assert_eq!(node.get("/v1/models/nothing").send().await.unwrap().status(), 404);
    let purse = Purse::new(&mint).await;
    purse.mint_sats(200).await;
    let token = purse.send(200).await;
    let body: Value = node.chat(&ask("x")).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
    // 100 × 10.5525 + 50 × 21.105 = 2110.5, rounded up once
    assert_eq!(body["usage"]["cost"]["total_msats"], 2111);
    node.finish().await;
}

/// Clients of this network look for `gpt-4o` among the ids alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_list_has_a_model_by_its_bare_id_too_where_that_means_it_alone() {
    let template = models()["models"][0].clone();
    let entry = |id: &str, more: Value| {
        let mut model = template.clone();
        model["id"] = json!(id);
        model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        model
    };
    let list = [
        entry("one/plain", json!({ "alias_ids": ["nick"] })),
        entry("one/shared", json!({})),
        entry("two/shared", json!({ "alias_ids": ["one/shared-too"] })),
        entry("one/taken", json!({})),
        entry("taken", json!({})),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("models.json");
    std::fs::write(&path, json!({ "models": list }).to_string()).unwrap();
    let (_mint, _purse, _upstream, node) = world_with(1, &[("MODELS_PATH", path.to_str().unwrap())]).await;
    let get = async |path: &str| node.get(path).send().await.unwrap().json::<Value>().await.unwrap();
    let list = get("/v1/models").await;
    let data = list["data"].as_array().unwrap();
    let ids: Vec<&str> = data.iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["one/plain", "plain", "one/shared", "two/shared", "one/taken", "taken"]);
    assert_eq!(
        (&data[0]["alias_ids"], &data[1]["alias_ids"]),
        (&json!(["nick", "plain"]), &json!(["one/plain", "nick"]))
    );
    for prices in ["pricing", "sats_pricing", "top_provider", "context_length"] {
        assert!(data[0][prices] == data[1][prices] && !data[1][prices].is_null(), "{prices}");
    }
    // Each is shown as it was asked for; what is only an alias has no entry of its own.
    for (asked, id) in [("plain", "plain"), ("one/plain", "one/plain"), ("nick", "one/plain"), ("taken", "taken")] {
        assert_eq!(get(&format!("/v1/models/{asked}")).await["id"], id, "{asked}");
    }
    assert_eq!(node.get("/v1/models/shared").send().await.unwrap().status(), 404);
    // Whoever shows models to people shows each once.
    let shown = get("/").await["models"].as_array().unwrap().len();
    assert_eq!(shown, 5);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hold_is_what_the_networks_clients_deposit() {
    let (_mint, purse, upstream, node) = world_with(500, &[("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS", "6")]).await;
    let token = purse.send(500).await;
    upstream.next(crate::support::upstream::Script::Hang);
    let mut request = ask("hello there");
    request["max_tokens"] = json!(100);
    assert_eq!(node.balance(&token).await.0, 500_000, "the token has become a key");
    let running = tokio::spawn(node.chat(&request).bearer_auth(&token).send());
    // All characters of the messages, keys included: role user content "hello there" = 4+4+7+11 = 26; ÷ 3 = 8 tokens.
    // max_cost 110000 × 0.99 = 108900; unused prompt 9000×10×0.99 − 8×10 = 89020; unused completion
    // 1000×20×0.99 − 100×20 = 17800. 108900 − 89020 − 17800 = 2080.
    let mut held = 0;
    until("something is held", async || {
        held = node.balance(&token).await.1;
        held > 0
    })
    .await;
    assert_eq!(held, 2080);
    assert_eq!(running.await.unwrap().unwrap().status(), 504);
    assert_eq!(node.balance(&token).await, (500_000, 0, 0));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fresh_rate_nothing_is_sold_and_refunds_stay_open() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let feed = axum::Router::new().route(
        "/kraken",
        axum::routing::get(|| async { r#"{"error":[],"result":{"XXBTZUSD":{"c":["100000.0","1"]}}}"# }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let feeds = format!("kraken=http://{}/kraken", listener.local_addr().unwrap());
    let feed = tokio::spawn(async move { axum::serve(listener, feed).await.unwrap() });
    let clock = Stepped::at(1_790_000_000_000);
    let settings = [
        ("CASHU_MINTS", mint.url()),
        ("UPSTREAM_BASE_URL", upstream.url()),
        ("BTC_USD_FIXED", String::new()),
        ("BTC_USD_FEEDS", feeds),
        ("BTC_USD_MAX_AGE", "600".to_owned()),
    ];
    let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let node = TestNode::with_settings(settings, clock.clone()).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(300).await;
    let token = purse.send(200).await;
    let paid = async || node.chat(&ask("x")).bearer_auth(&token).send().await.unwrap().status() == 200;
    until("the feed is fetched at the start", paid).await;
    feed.abort();
    clock.step(601_000);
    let fresh = purse.send(50).await;
    for paid in [&token, &fresh] {
        let answer = node.chat(&ask("x")).bearer_auth(paid).send().await.unwrap();
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"));
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "price_unavailable");
    }
    assert_eq!(purse.receive(&fresh).await.unwrap(), 50, "the fresh token is untouched");
    assert_eq!(node.get("/readyz").send().await.unwrap().status(), 503);
    assert_eq!(crate::bearer::refund(&node, &purse, &token).await, 198);
    node.finish().await;
}

/// Feeds of a test's own: each says what was last written on it, nothing where that is empty.
async fn feeds(count: usize) -> (String, Arc<Vec<Mutex<String>>>) {
    const NAMES: [&str; 5] = ["binance", "kraken", "coinbase", "bitstamp", "mempool"];
    let said: Arc<Vec<Mutex<String>>> = Arc::new((0..count).map(|_| Mutex::default()).collect());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let spoken = Arc::clone(&said);
    let answer = move |axum::extract::Path(at): axum::extract::Path<usize>| async move {
        let price = spoken[at].lock().unwrap().clone();
        let body = match NAMES[at] {
            "binance" => format!(r#"{{"price":"{price}"}}"#),
            "kraken" => format!(r#"{{"error":[],"result":{{"XXBTZUSD":{{"c":["{price}","1"]}}}}}}"#),
            "coinbase" => format!(r#"{{"data":{{"amount":"{price}"}}}}"#),
            "bitstamp" => format!(r#"{{"last":"{price}"}}"#),
            _ => format!(r#"{{"USD":{price}}}"#),
        };
        let status = if price.is_empty() { 503 } else { 200 };
        (axum::http::StatusCode::from_u16(status).unwrap(), body)
    };
    let router = axum::Router::new().route("/{at}", axum::routing::get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let named: Vec<String> =
        NAMES.iter().take(count).enumerate().map(|(at, name)| format!("{name}=http://{address}/{at}")).collect();
    (named.join(","), said)
}

/// Feeds that fall silent, lie, or contradict each other: what a request costs, and when none is sold.
#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_what_enough_feeds_agree_on() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let (feeds, said) = feeds(3).await;
    let clock = Stepped::at(1_790_000_000_000);
    let settings = [
        ("CASHU_MINTS", mint.url()),
        ("UPSTREAM_BASE_URL", upstream.url()),
        ("BTC_USD_FIXED", String::new()),
        ("BTC_USD_FEEDS", feeds),
        ("BTC_USD_GRACE_SECONDS", "300".to_owned()),
        ("BTC_USD_GRACE_MARGIN_PERCENT", "25".to_owned()),
    ];
    let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let node = TestNode::with_settings(settings, clock.clone()).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(500).await;
    let key = purse.send(400).await;
    assert_eq!(node.balance(&key).await.0, 400_000);
    let market = &node.running().exchange().market;
    let say = async |prices: [&str; 3]| {
        for (slot, price) in said.iter().zip(prices) {
            *slot.lock().unwrap() = price.to_owned();
        }
        market.book().refresh().await;
    };
    let shown = async || {
        let answer = node.get("/v1/rate").send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let cost = async || {
        let answer = node.chat(&ask("x")).bearer_auth(&key).send().await.unwrap();
        let body: Value = answer.json().await.unwrap();
        body["usage"]["cost"]["total_msats"].as_u64().ok_or(body["error"]["code"].clone())
    };

    // The third lies, and is left out.
    say(["100000", "100000", "1"]).await;
    let (status, rate) = shown().await;
    assert_eq!((status, &rate["btc_usd"], &rate["state"]), (200, &json!("100000"), &json!("fresh")), "{rate}");
    assert_eq!((&rate["sats_per_usd"], &rate["age_seconds"]), (&json!("1000"), &json!(0)));
    let counts: Vec<_> = rate["sources"].as_array().unwrap().iter().map(|source| &source["counts"]).collect();
    assert_eq!(counts, [true, true, false]);
    assert_eq!(cost().await, Ok(2000));

    // Two of them fall silent: the last good rate, a quarter dearer, for five minutes.
    say(["", "", "100000"]).await;
    clock.step(601_000);
    say(["", "", "100000"]).await;
    let (status, rate) = shown().await;
    assert_eq!((status, &rate["btc_usd"], &rate["state"]), (200, &json!("80000"), &json!("grace")), "{rate}");
    assert_eq!(cost().await, Ok(2500));
    clock.step(300_000);
    let (status, rate) = shown().await;
    assert_eq!((status, &rate["btc_usd"], &rate["state"]), (503, &Value::Null, &json!("stale")), "{rate}");
    assert_eq!(cost().await, Err(json!("price_unavailable")));

    // They are back, and contradict each other.
    say(["100000", "50000", "200000"]).await;
    assert_eq!(cost().await, Err(json!("price_unavailable")));
    say(["50000", "50000", "200000"]).await;
    assert_eq!(cost().await, Ok(4000));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn static_prices_need_no_rate_and_no_list() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let settings = [
        ("MODEL_BASED_PRICING", "false"),
        ("COST_PER_REQUEST", "1"),
        ("COST_PER_1K_INPUT_TOKENS", "5"),
        ("COST_PER_1K_OUTPUT_TOKENS", "7"),
    ];
    let node = TestNode::with(&mint, &upstream, &settings).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(500).await;
    let token = purse.send(400).await;
    let request = json!({ "model": "never-heard-of", "max_tokens": 100, "messages": [{ "role": "user", "content": "x".repeat(400) }] });
    let body: Value = node.chat(&request).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
    // 1 sat + 100 × 5 msat + 50 × 7 msat
    assert_eq!(body["usage"]["cost"]["total_msats"], 1850);
    assert_eq!(body["usage"]["cost"].get("total_usd"), None);
    node.finish().await;
}

/// Whoever takes the last model out of the sale sells nothing, and not everything for a sat.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_which_nothing_is_on_offer_is_no_reason_for_fixed_prices() {
    let (_mint, purse, upstream, mut node) = world(500).await;
    let token = purse.send(400).await;
    assert_eq!(node.get("/v1/wallet/info").bearer_auth(&token).send().await.unwrap().status(), 200);
    let nothing_is_sold = async |node: &TestNode, ids: &[&str]| {
        for id in ids {
            let request = json!({ "model": id, "messages": [{ "role": "user", "content": "x" }] });
            let answer = node.chat(&request).bearer_auth(&token).send().await.unwrap();
            let (status, body) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
            assert_eq!((status, &body["error"]["code"]), (400, &json!("invalid_model")), "{id}: {body}");
        }
        assert_eq!(node.balance(&token).await, (400_000, 0, 0));
        assert!(upstream.seen().is_empty());
        let ready = node.get("/readyz").send().await.unwrap();
        assert!(ready.status() == 503 && ready.text().await.unwrap().contains("no model is priced"));
    };
    let list = models();
    let ids = list["models"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap());
    let words: Vec<&str> = ["models", "disable"].into_iter().chain(ids).collect();
    told(node.settings(), &words);
    node.restart().await;
    nothing_is_sold(&node, &[MODEL, "echo-1", "never-heard-of"]).await;

    // None of it can be sold, as it stands.
    let path = node.settings()["MODELS_PATH"].clone();
    let without_price = json!({ "id": "toy/gift", "name": "toy/gift" });
    let mut off = list["models"][0].clone();
    off["id"] = json!("toy/off");
    off["enabled"] = json!(false);
    for entries in [vec![without_price.clone()], vec![off.clone()], vec![without_price, off]] {
        std::fs::write(&path, json!({ "models": entries }).to_string()).unwrap();
        node.restart().await;
        nothing_is_sold(&node, &["toy/gift", "gift", "toy/off", "off", "never-heard-of"]).await;
    }

    // Without any list the operator's own prices are all that there are: 1 sat for a request.
    std::fs::write(&path, r#"{"models":[]}"#).unwrap();
    node.restart().await;
    let request = json!({ "model": "never-heard-of", "messages": [{ "role": "user", "content": "x" }] });
    let body: Value = node.chat(&request).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
    assert_eq!(body["usage"]["cost"]["total_msats"], 1_000);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_switched_off_is_not_sold_at_fixed_prices_either() {
    let settings = [("MODEL_BASED_PRICING", "false"), ("COST_PER_REQUEST", "1")];
    let (_mint, purse, upstream, mut node) = world_with(500, &settings).await;
    told(node.settings(), &["models", "disable", MODEL]);
    node.restart().await;
    let token = purse.send(400).await;
    let chat = async |id: &str| {
        let request = json!({ "model": id, "messages": [{ "role": "user", "content": "x" }] });
        let answer = node.chat(&request).bearer_auth(&token).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    for id in [MODEL, "echo-1"] {
        let (status, body) = chat(id).await;
        assert_eq!((status, &body["error"]["code"]), (400, &json!("invalid_model")), "{id}: {body}");
    }
    assert!(upstream.seen().is_empty());
    // All others are, in the list or not.
    for id in ["toy/cached", "never-heard-of"] {
        let (status, body) = chat(id).await;
        assert_eq!((status, &body["usage"]["cost"]["total_msats"]), (200, &json!(1_000)), "{id}: {body}");
    }
    assert_eq!(node.balance(&token).await, (398_000, 0, 2_000));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_says_what_it_is() {
    let (mint, _purse, _upstream, node) = world(10).await;
    for path in ["/v1/info", "/"] {
        let info: Value = node.get(path).send().await.unwrap().json().await.unwrap();
        assert_eq!(info["mints"], json!([mint.url()]), "{path}");
        for field in ["name", "description", "version", "npub", "http_url", "onion_url"] {
            assert!(info[field].is_string(), "{path} {field}");
        }
    }
    let root: Value = node.get("/").send().await.unwrap().json().await.unwrap();
    assert_eq!(root["mint"], mint.url());
    assert_eq!(root["models"].as_array().unwrap().len(), 4);
    assert_eq!(node.get("/healthz").send().await.unwrap().status(), 200);
    until("it is ready", async || node.get("/readyz").send().await.unwrap().status() == 200).await;
    node.finish().await;
}
