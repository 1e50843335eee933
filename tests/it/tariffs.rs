//! Prices of some keys and of some hours, and the numbers that every charge is kept with.

use std::process::Output;
use std::sync::Arc;

use coinslot::catalog::import::Switch;
use coinslot::ledger::vouchers::Funds;
use coinslot::ledger::vouchers::repo::Which;
use coinslot::money::Msat;
use coinslot::money::tariff::{ALL_DAYS, Filter, Profile, Window};
use coinslot::payment::vouchers::BatchOrder;
use serde_json::{Value, json};

use crate::bearer::{refund, world};
use crate::lightning::{answer, ok};
use crate::receipts::{receipt, request_id};
use crate::support::answers::until;
use crate::support::clock::Stepped;
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, RICH, TestNode, ask};
use crate::support::operator::trail;
use crate::support::program::{fed, said};
use crate::support::purse::Purse;
use crate::support::reckon::{reckon, sheets};
use crate::support::upstream::{Script, Upstream, completion, usage};

/// Monday, the 5th of January 2026, 12:00 UTC.
const NOON_MS: i64 = 1_767_614_400_000;
const HOUR_MS: i64 = 3_600_000;

struct World {
    _mint: TestMint,
    purse: Purse,
    upstream: Upstream,
    clock: Arc<Stepped>,
    node: TestNode,
}

impl World {
    async fn with(more: &[(&str, &str)]) -> Self {
        let mint = TestMint::start().await;
        let upstream = Upstream::start().await;
        let clock = Stepped::at(NOON_MS);
        let node = TestNode::with_clock(&mint.url(), &upstream, clock.clone(), more).await;
        let purse = Purse::new(&mint).await;
        purse.mint_sats(10_000).await;
        Self { _mint: mint, purse, upstream, clock, node }
    }

    async fn key(&self, sats: u64) -> String {
        let token = self.purse.send(sats).await;
        ok(self.node.get("/v1/wallet/info").bearer_auth(token)).await["api_key"].as_str().unwrap().to_owned()
    }

    /// What a request of 100 tokens in and 50 out costs this key: 2,000 msat by the list. Its receipt and the
    /// numbers that it names come to the same.
    async fn cost(&self, key: &str) -> u64 {
        cost(&self.node, key, &ask("hi")).await
    }

    async fn attach(&self, profile: Option<&str>, keys: &str) {
        let words: Vec<&str> = profile.map_or_else(|| vec!["detach"], |name| vec!["attach", name]);
        done(&command(&self.node, "profiles", &words, keys));
        self.learn().await;
    }

    /// Looks now, as a job does every two seconds.
    async fn learn(&self) {
        self.node.running().exchange().learn_tariffs().await.unwrap();
    }

    async fn put(&self, profile: &Profile) {
        self.node.running().exchange().ledger.put_profile(profile).await.unwrap();
        self.learn().await;
    }

    async fn open(&self, window: &Window) {
        self.node.running().exchange().ledger.put_window(window).await.unwrap();
        self.learn().await;
    }
}

async fn cost(node: &TestNode, key: &str, body: &Value) -> u64 {
    let answer = node.chat(body).bearer_auth(key).send().await.unwrap();
    let id = request_id(&answer);
    let body: Value = answer.json().await.unwrap();
    let msat = body["usage"]["cost"]["total_msats"].as_u64().unwrap_or_else(|| panic!("{body}"));
    let receipt = receipt(node, &id, key).await;
    let (price, rate) = sheets(node, &receipt).await;
    assert_eq!((receipt["charged_msat"].as_u64(), reckon(&receipt, &price, &rate)), (Some(msat), msat), "{price}");
    msat
}

fn profile(name: &str, multiplier: &str, below_cost: bool) -> Profile {
    let models = Filter::default();
    Profile { name: name.to_owned(), multiplier: multiplier.parse().unwrap(), models, below_cost }
}

fn night(multiplier: &str) -> Window {
    Window {
        name: "night".to_owned(),
        multiplier: multiplier.parse().unwrap(),
        models: Filter::default(),
        below_cost: true,
        starts: 22 * 60,
        ends: 6 * 60,
        days: ALL_DAYS,
        utc_offset: 0,
    }
}

pub fn command(node: &TestNode, verb: &str, words: &[&str], input: &str) -> Output {
    fed(node.settings(), &[&[verb][..], words].concat(), input)
}

pub fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    said(output)
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", said(output));
    said(output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_is_kept_with_its_numbers_and_these_once() {
    let (_mint, purse, upstream, node) = world(500).await;
    let key = purse.send(200).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let answer = node.chat(&ask("hi")).bearer_auth(&key).send().await.unwrap();
        let receipt = receipt(&node, &request_id(&answer), &key).await;
        ids.push((receipt["price_id"].as_str().unwrap().to_owned(), receipt["rate_id"].as_str().unwrap().to_owned()));
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "the same numbers have one name: {ids:?}");
    assert_eq!(node.running().exchange().ledger.stats().sheets(), 3, "stored once, and no statement more");
    let (price, rate) = sheets(&node, &json!({ "price_id": ids[0].0, "rate_id": ids[0].1 })).await;
    assert_eq!(price["model"], MODEL);
    assert_eq!((&price["currency"], &price["pricing"]["prompt"]), (&json!("usd"), &json!("0.00001")));
    assert_eq!((&price["multiplier"], &price["minimum_msat"]), (&json!("1"), &json!(1)));
    assert_eq!(rate, json!({ "btc_usd": "100000", "state": "fixed" }));
    // Also what cost nothing is kept with its numbers.
    upstream.next(Script::Answer { status: 500, media: "application/json", body: "{}".to_owned() });
    let answer = node.chat(&ask("hi")).bearer_auth(&key).send().await.unwrap();
    let released = receipt(&node, &request_id(&answer), &key).await;
    assert_eq!((&released["status"], released["price_id"].as_str()), (&json!("released"), Some(ids[0].0.as_str())));
    for unknown in ["0".repeat(32), "nothing".to_owned(), ids[0].0.to_uppercase(), format!("{}0", ids[0].0)] {
        let (status, body) = answer_of(&node, &format!("/v1/prices/{unknown}")).await;
        assert_eq!((status, &body["error"]["code"]), (404, &json!("not_found")), "{unknown}");
    }
    let short = node.get(&format!("/prices/{}", ids[0].0)).send().await.unwrap();
    assert_eq!(
        (short.status().as_u16(), short.headers()["etag"].to_str().unwrap()),
        (200, &*format!("\"{}\"", ids[0].0))
    );
    node.finish().await;
}

async fn answer_of(node: &TestNode, path: &str) -> (u16, Value) {
    answer(node.get(path)).await
}

/// What a request was charged by is to be had when the prices are others, after a restart too.
#[tokio::test(flavor = "multi_thread")]
async fn past_numbers_stay_when_prices_change() {
    let (_mint, purse, _upstream, mut node) = world(500).await;
    let key = purse.send(200).await;
    let answer = node.chat(&ask("hi")).bearer_auth(&key).send().await.unwrap();
    let id = request_id(&answer);
    let before = receipt(&node, &id, &key).await;
    node.restart_with("UPSTREAM_PROVIDER_FEE", "2").await;
    node.restart_with("BTC_USD_FIXED", "50000").await;
    assert_eq!(cost(&node, &key, &ask("hi")).await, 8000);
    let after = receipt(&node, &id, &key).await;
    assert_eq!(after, before);
    let (price, rate) = sheets(&node, &after).await;
    assert_eq!(reckon(&after, &price, &rate), 2000);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_requests_fixed_prices_and_pictures_are_reckoned_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("models.json");
    let models = json!({ "models": [{
        "id": "toy/long", "context_length": 10_000_000,
        "pricing": {
            "prompt": "0.00000015", "completion": "0.0000006", "request": "0.0001", "input_cache_read": "0.00000003",
            "prompt_above_200k_tokens": "0.0000003", "completion_above_200k_tokens": "0.0000009",
            "input_cache_read_above_200k_tokens": "0.00000006", "prompt_above_500k_tokens": "0.0000005",
        },
        "top_provider": { "context_length": 10_000_000, "max_completion_tokens": 1_000 },
    }] });
    std::fs::write(&path, models.to_string()).unwrap();
    let world = World::with(&[
        ("MODELS_PATH", &path.display().to_string()),
        ("UPSTREAM_PROVIDER_FEE", "1.05"),
        ("EXCHANGE_FEE", "1.005"),
        ("BTC_USD_FIXED", "97531.24"),
    ])
    .await;
    let key = world.key(9_000).await;
    let mut body = ask(&"x".repeat(1_900_000));
    body["model"] = json!("long");
    let mut costs = Vec::new();
    for (input, cached) in [(1_000, 300), (200_000, 0), (200_001, 100_000), (600_000, 1)] {
        let mut used = usage(input, 7);
        used["prompt_tokens_details"] = json!({ "cached_tokens": cached });
        world.upstream.next(Script::Answer {
            status: 200,
            media: "application/json",
            body: completion("toy/long", "hi", Some(used)),
        });
        costs.push(cost(&world.node, &key, &body).await);
    }
    // (200000 × 0.00000015 + 7 × 0.0000006 + 0.0001) × 1.05525 × 10¹¹ ÷ 97531.24 is the second of them.
    assert_eq!(costs, [237, 32_572, 39066, 324701]);
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_a_factor_for_its_keys_and_their_children() {
    let world = World::with(&[]).await;
    world.put(&profile("club", "0.8", true)).await;
    let (key, other) = (world.key(500).await, world.key(500).await);
    let made = ok(world.node.post("/v1/wallet/child-key").bearer_auth(&key).json(&json!({ "count": 2 }))).await;
    let children: Vec<&str> = made["api_keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    assert_eq!((world.cost(&key).await, world.cost(children[0]).await), (2000, 2000));
    world.attach(Some("club"), &format!("{key}\n\n")).await;
    assert_eq!((world.cost(&key).await, world.cost(&other).await), (1600, 2000));
    assert_eq!(world.cost(children[0]).await, 1600, "children inherit");
    // A child may have one of its own.
    world.put(&profile("guest", "1.5", false)).await;
    world.attach(Some("guest"), children[1]).await;
    assert_eq!((world.cost(children[1]).await, world.cost(children[0]).await), (3000, 1600));
    // A change is one for all keys that have it, and a key can lose it.
    world.put(&profile("club", "0.5", true)).await;
    assert_eq!(world.cost(&key).await, 1000);
    world.attach(None, &key).await;
    assert_eq!(
        (world.cost(&key).await, world.cost(children[0]).await, world.cost(children[1]).await),
        (2000, 2000, 3000)
    );
    let info = ok(world.node.get("/v1/wallet/info").bearer_auth(children[1])).await;
    assert_eq!(info["price_profile"], "guest");
    // What was held for is what it may cost, not what the list says.
    world.attach(Some("club"), &key).await;
    let answer = world.node.chat(&ask("hi")).bearer_auth(&key).send().await.unwrap();
    let told = receipt(&world.node, &request_id(&answer), &key).await;
    assert_eq!((&told["price"]["input"], &told["price"]["multiplier"]), (&json!("0.000005"), &json!("0.5")));
    assert_eq!((&told["cost"]["input_msat"], &told["cost"]["usd"]), (&json!(500), &json!("0.001")));
    let (price, _) = sheets(&world.node, &told).await;
    assert_eq!(price["profile"], json!({ "name": "club", "multiplier": "0.5" }));
    assert_eq!(price["pricing"]["prompt"], "0.00001", "as listed");
    // And so its page says.
    let form = world
        .node
        .post("/shop/key")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("origin", world.node.url());
    let page = form.body(format!("key={key}")).send().await.unwrap().text().await.unwrap();
    let id = told["price_id"].as_str().unwrap();
    for said in
        ["“club”: 0.5 times those of the list.", &format!("href=\"/v1/prices/{id}\""), "The prices are 0.5 times"]
    {
        assert!(page.contains(said), "{said}: {page}");
    }
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_sees_its_own_prices() {
    let world = World::with(&[("UPSTREAM_PROVIDER_FEE", "1.05")]).await;
    let listed = async |request: reqwest::RequestBuilder| ok(request).await;
    let models = || world.node.get("/v1/models");
    let public = listed(models()).await;
    let (key, plain) = (world.key(100).await, world.key(100).await);
    let only = Filter { only: vec!["toy/*".to_owned()], not: vec![RICH.to_owned()] };
    world.put(&Profile { models: only, ..profile("club", "1.2", false) }).await;
    world.attach(Some("club"), &key).await;
    let of = |list: &Value, id: &str| list["data"].as_array().unwrap().iter().find(|model| model["id"] == id).cloned();
    let own = listed(models().bearer_auth(&key)).await;
    let model = of(&own, MODEL).unwrap();
    // 0.00001 × 1.2 × 1.05, in USD and in sats.
    assert_eq!((&model["pricing"]["prompt"], &model["sats_pricing"]["prompt"]), (&json!(0.000_012_6), &json!(0.0126)));
    assert_eq!(of(&public, MODEL).unwrap()["pricing"]["prompt"], json!(0.000_010_5));
    assert_eq!(
        own["price_profile"],
        json!({ "name": "club", "multiplier": "1.2", "models": "toy/*, but not toy/rich" })
    );
    assert!(of(&own, RICH).is_none() && of(&public, RICH).is_some(), "what is not sold to it is not listed");
    for same in
        [models(), models().bearer_auth(&plain), models().bearer_auth("sk-none"), models().header("api-key", "x")]
    {
        assert_eq!(listed(same).await, public);
    }
    let one = listed(world.node.get(&format!("/v1/models/{MODEL}")).header("api-key", &key)).await;
    assert_eq!(one, model);
    assert_eq!(answer(world.node.get(&format!("/v1/models/{RICH}")).bearer_auth(&key)).await.0, 404);
    let anthropic = listed(models().bearer_auth(&key).header("anthropic-version", "2023-06-01")).await;
    assert_eq!(of(&anthropic, MODEL).unwrap()["sats_pricing"]["prompt"], json!(0.0126));
    // What is not sold costs nothing to ask for, and reaches nobody.
    let (seen, before) = (world.upstream.seen().len(), world.node.balance(&key).await);
    let mut body = ask("hi");
    body["model"] = json!("rich");
    let (status, said) = answer(world.node.chat(&body).bearer_auth(&key)).await;
    assert_eq!((status, &said["error"]["code"]), (400, &json!("invalid_model")), "{said}");
    assert_eq!((world.upstream.seen().len(), world.node.balance(&key).await), (seen, before));
    assert_eq!(answer(world.node.chat(&body).bearer_auth(&plain)).await.0, 200);
    // Charged as shown: 100 × 12.6 + 50 × 25.2.
    assert_eq!(world.cost(&key).await, 2520);
    world.node.finish().await;
}

/// A profile that may not is raised to what the dearest upstream takes.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sold_below_cost_unless_told_so() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let list = json!([
        { "name": "a", "base_url": upstream.url(), "fee": 1.02 },
        { "name": "b", "base_url": upstream.url(), "fee": 1.04, "priority": 9 },
    ]);
    let settings = [
        ("CASHU_MINTS", mint.url()),
        ("UPSTREAMS", list.to_string()),
        ("UPSTREAM_PROVIDER_FEE", "1.25".to_owned()),
        ("EXCHANGE_FEE", "1.04".to_owned()),
    ];
    let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let clock = Stepped::at(NOON_MS);
    let node = TestNode::with_settings(settings, clock.clone()).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(2_000).await;
    let world = World { _mint: mint, purse, upstream, clock, node };
    let key = world.key(1_000).await;
    world.put(&profile("low", "0.7", false)).await;
    world.put(&profile("loss", "0.7", true)).await;
    world.attach(Some("low"), &key).await;
    // 2000 × 1.25 × 1.04 = 2600 by the list; b takes 2000 × 1.04 = 2080, so 0.8 is the least.
    assert_eq!(world.cost(&key).await, 2080);
    let told = ok(world.node.get("/v1/models").bearer_auth(&key)).await;
    assert_eq!(told["data"][0]["sats_pricing"]["prompt"], json!(0.0104));
    world.attach(Some("loss"), &key).await;
    assert_eq!(world.cost(&key).await, 1820);
    // The same for hours, and for both together.
    world.open(&Window { below_cost: false, ..night("0.5") }).await;
    world.clock.step(11 * HOUR_MS);
    assert_eq!(world.cost(&key).await, 2080, "one of the two may not");
    world.open(&night("0.5")).await;
    assert_eq!(world.cost(&key).await, 910);
    // The command says it beforehand, as far as it knows.
    for (verb, words) in [
        ("profiles", vec!["set", "x", "--multiplier", "0.79"]),
        ("windows", vec!["set", "x", "--multiplier", "0.79", "--from", "00:00", "--to", "01:00"]),
    ] {
        let why = refused(&command(&world.node, verb, &words, ""));
        assert!(why.contains("breaks even at 0.8"), "{why}");
        done(&command(&world.node, verb, &[&words[..], &["--allow-below-cost"]].concat(), ""));
        done(&command(
            &world.node,
            verb,
            &["set", "x", "--multiplier", "0.8", "--from", "00:00", "--to", "01:00"]
                [..if verb == "profiles" { 4 } else { 8 }],
            "",
        ));
    }
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn night_prices_are_those_of_the_moment_of_admission() {
    let world = World::with(&[]).await;
    let key = world.key(1_000).await;
    world
        .open(&Window { models: Filter { only: vec!["toy/echo*".to_owned()], not: Vec::new() }, ..night("0.75") })
        .await;
    assert_eq!(world.cost(&key).await, 2000, "noon");
    let shown = ok(world.node.get("/v1/models")).await;
    let of = |list: &Value, id: &str| list["data"].as_array().unwrap().iter().find(|model| model["id"] == id).cloned();
    let told = |open: bool| json!([{ "name": "night", "multiplier": "0.75", "hours": "every day from 22:00 to 06:00 UTC", "open": open }]);
    let model = of(&shown, MODEL).unwrap();
    assert_eq!((&model["price_windows"], &model["sats_pricing"]["prompt"]), (&told(false), &json!(0.01)));
    assert_eq!(of(&shown, RICH).unwrap().get("price_windows"), None);
    // A request that comes in at 21:59 and is answered at 22:01 has the price of the day, and one that
    // comes in before six that of the night.
    for (comes_in, answered, msat) in [(10 * HOUR_MS - 60_000, 120_000, 2000), (8 * HOUR_MS - 120_000, 120_000, 1500)] {
        world.clock.step(comes_in);
        let first = crate::support::upstream::sse(MODEL, &["one"], None);
        let last = crate::support::upstream::sse(MODEL, &["two"], Some(usage(100, 50)));
        world.upstream.next(Script::Paused { before: first[..2].to_vec(), after: last[1..].to_vec() });
        let mut body = ask("hi");
        body["stream"] = json!(true);
        let answer = world.node.chat(&body).bearer_auth(&key).send().await.unwrap();
        let id = request_id(&answer);
        world.clock.step(answered);
        world.upstream.resume();
        answer.text().await.unwrap();
        let receipt = receipt(&world.node, &id, &key).await;
        assert_eq!(receipt["charged_msat"], msat);
        let (price, rate) = sheets(&world.node, &receipt).await;
        assert_eq!(reckon(&receipt, &price, &rate), msat);
        assert_eq!(price.get("windows").is_some(), msat == 1500, "{price}");
    }
    // Six in the morning.
    assert_eq!(world.cost(&key).await, 2000);
    world.clock.step(17 * HOUR_MS);
    let model = of(&ok(world.node.get("/v1/models")).await, MODEL).unwrap();
    assert_eq!((&model["price_windows"], &model["sats_pricing"]["prompt"]), (&told(true), &json!(0.0075)));
    for address in ["/", "/docs/prices"] {
        let page = world.node.get(address).header("accept", "text/html").send().await.unwrap().text().await.unwrap();
        assert!(page.contains("toy/echo*: 0.75 times the price every day from 22:00 to 06:00 UTC."), "{page}");
        assert!(page.contains("It is such an hour now"), "{page}");
    }
    world.node.finish().await;
}

/// Anybody may ask for these pages: however often, the list is made once a second.
#[tokio::test(flavor = "multi_thread")]
async fn pages_and_documents_show_the_list_as_it_was_made_last() {
    let world = World::with(&[]).await;
    // The price list, the first page as JSON and in a browser, and a document with a model in it.
    let shown = async || {
        let listed = |list: &Value| list.as_array().unwrap().iter().any(|model| model["id"] == MODEL);
        let page = async |path: &str| {
            let answer = world.node.get(path).header("accept", "text/html").send().await.unwrap();
            answer.text().await.unwrap().contains(MODEL)
        };
        let (models, root) = (ok(world.node.get("/v1/models")).await, ok(world.node.get("/")).await);
        [listed(&models["data"]), listed(&root["models"]), page("/").await, page("/docs/openai").await]
    };
    assert_eq!(shown().await, [true; 4]);
    let importer = &world.node.running().exchange().importer;
    importer.switch(MODEL, Switch::Sold(false)).await.unwrap();
    // Made within this second; but a line to paste names nothing that is not sold any more.
    assert_eq!(shown().await, [true, true, true, false]);
    world.clock.step(1_000);
    assert_eq!(shown().await, [false; 4]);
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voucher_with_a_profile_makes_a_key_that_has_it() {
    let world = World::with(&[]).await;
    let gift = world.purse.send(500).await;
    let given = world.node.post("/v1/wallet/donate").json(&json!({ "token": gift })).send().await.unwrap();
    assert_eq!(given.status(), 200);
    world.put(&profile("fair", "0.5", true)).await;
    let issue = async |profile: Option<&str>| {
        let wanted = BatchOrder {
            batch: uuid::Uuid::new_v4().to_string(),
            count: 1,
            amount: Msat::new(50_000).unwrap(),
            note: String::new(),
            expires_ms: None,
            profile: profile.map(str::to_owned),
            funds: Funds::Earned,
        };
        let issued = world.node.running().exchange().till.issue_vouchers(&wanted).await;
        issued.map(|issued| issued[0].code.expose().to_owned())
    };
    assert!(issue(Some("none")).await.unwrap_err().to_string().contains("no profile none"));
    let redeem = |code: &str| world.node.post("/v1/wallet/voucher").json(&json!({ "code": code }));
    let code = issue(Some("fair")).await.unwrap();
    // It is no money for a key with other prices, and is not used up by asking.
    let plain = world.key(100).await;
    let (status, said) = answer(redeem(&code).bearer_auth(&plain)).await;
    assert_eq!((status, &said["error"]["code"]), (400, &json!("invalid_request")), "{said}");
    let key = ok(redeem(&code)).await["api_key"].as_str().unwrap().to_owned();
    assert_eq!((world.cost(&key).await, world.cost(&plain).await), (1000, 2000));
    // Its own kind, and what has no profile, can be put on it.
    let again = issue(Some("fair")).await.unwrap();
    assert_eq!(ok(redeem(&again).bearer_auth(&key)).await["balance"], 99_000);
    let any = issue(None).await.unwrap();
    assert_eq!(ok(redeem(&any).bearer_auth(&key)).await["balance"], 149_000);
    assert_eq!(refund(&world.node, &world.purse, &key).await, 149);
    // The command does the same.
    let made = done(&command(&world.node, "vouchers", &["create", "--sats", "20", "--profile", "fair", "--json"], ""));
    let made: Value = serde_json::from_str(&made).unwrap();
    let key = ok(redeem(made["vouchers"][0]["code"].as_str().unwrap())).await["api_key"].as_str().unwrap().to_owned();
    assert_eq!(world.cost(&key).await, 1000);
    assert!(
        refused(&command(&world.node, "vouchers", &["create", "--sats", "20", "--profile", "x"], ""))
            .contains("no profile x")
    );
    // One that was taken back, or put on another key, is no user of its profile any more.
    world.put(&profile("gone", "0.5", true)).await;
    let ledger = &world.node.running().exchange().ledger;
    let key = ok(redeem(&issue(Some("gone")).await.unwrap())).await["api_key"].as_str().unwrap().to_owned();
    let (onto, _open) = (issue(Some("gone")).await.unwrap(), issue(Some("gone")).await.unwrap());
    assert_eq!(ledger.profile_users("gone").await.unwrap(), 3);
    assert_eq!(ok(redeem(&onto).bearer_auth(&key)).await["balance"], 100_000);
    assert_eq!(ledger.profile_users("gone").await.unwrap(), 2);
    assert_eq!(ledger.revoke_vouchers(Which::Note("")).await.unwrap(), 1);
    assert!(refused(&command(&world.node, "profiles", &["remove", "gone"], "")).contains("1 keys"));
    world.attach(None, &key).await;
    done(&command(&world.node, "profiles", &["remove", "gone"], ""));
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_make_list_and_remove_beside_a_running_node() {
    let world = World::with(&[("UPSTREAM_PROVIDER_FEE", "1.5")]).await;
    // Each look at what it costs costs that.
    let (key, node) = (world.key(5_000).await, &world.node);
    let run = |verb: &str, words: &[&str]| command(node, verb, words, "");
    assert!(done(&run("profiles", &["list"])).contains("no profile"));
    done(&run("profiles", &["set", "club", "--multiplier", "0.8", "--models", "toy/*", "--not", "toy/rich"]));
    let attached = command(node, "profiles", &["attach", "club"], &format!("{key}\n"));
    assert!(done(&attached).contains("1 keys") && !said(&attached).contains(&key[3..]), "{}", said(&attached));
    let (_, action, detail) = trail(node).await.pop().unwrap();
    assert_eq!((action.as_str(), detail), ("profiles.attach", json!({ "profile": "club", "keys": 1 })));
    // The running node notices by itself.
    until("it costs 3000 × 0.8", async || world.cost(&key).await == 2400).await;
    let listed: Value = serde_json::from_str(&done(&run("profiles", &["list", "--json"]))).unwrap();
    assert_eq!(
        listed["profiles"],
        json!([{ "name": "club", "multiplier": "0.8", "models": ["toy/*"], "not": ["toy/rich"], "below_cost": false, "keys": 1 }])
    );
    assert!(done(&run("profiles", &["list"])).contains("toy/*, but not toy/rich"));
    assert!(refused(&run("profiles", &["remove", "club"])).contains("1 keys"));
    for unknown in ["sk-unknown", &format!("{key}\nsk-{}", "0".repeat(64)), ""] {
        let why = refused(&command(node, "profiles", &["attach", "club"], unknown));
        assert!(!why.contains("unknown") && !why.contains(&key[3..]), "{why}");
    }
    done(&command(node, "profiles", &["detach"], &key));
    done(&run("profiles", &["remove", "club"]));
    assert!(refused(&run("profiles", &["remove", "club"])).contains("no profile"));
    assert!(refused(&command(node, "profiles", &["attach", "club"], &key)).contains("no profile"));
    assert!(refused(&run("profiles", &["set", "Club", "--multiplier", "1"])).contains("a name is"));

    let parsed = |verb: &str, words: &[&str]| -> Value { serde_json::from_str(&done(&run(verb, words))).unwrap() };
    let made = parsed("profiles", &["set", "club", "--multiplier", "0.8", "--json"]);
    assert_eq!(made, json!({ "name": "club", "multiplier": "0.8", "models": [], "not": [], "below_cost": false }));
    assert_eq!(parsed("profiles", &["remove", "club", "--json"]), json!({ "removed": "club" }));
    let made = parsed("windows", &["set", "x", "--multiplier", "0.9", "--from", "00:00", "--to", "01:00", "--json"]);
    assert_eq!((&made["name"], &made["multiplier"]), (&json!("x"), &json!("0.9")));
    assert_eq!(parsed("windows", &["remove", "x", "--json"]), json!({ "removed": "x" }));

    assert!(done(&run("windows", &["list"])).contains("no window"));
    let made = run(
        "windows",
        &[
            "set",
            "sunday",
            "--multiplier",
            "0.9",
            "--from",
            "00:00",
            "--to",
            "00:00",
            "--days",
            "sun",
            "--offset",
            "+01:00",
        ],
    );
    assert!(done(&made).contains("on Sunday from 00:00 to 00:00 UTC+01:00"), "{}", said(&made));
    assert!(done(&run("windows", &["list"])).contains("sunday: 0.9 times the price of all models"));
    let listed: Value = serde_json::from_str(&done(&run("windows", &["list", "--json"]))).unwrap();
    assert_eq!(listed["windows"][0]["name"], "sunday");
    done(&run("windows", &["remove", "sunday"]));
    assert!(refused(&run("windows", &["remove", "sunday"])).contains("no window"));
    for words in [&["set", "x"][..], &["attach", "x", "y"], &["what"], &[]] {
        assert_eq!(run("profiles", words).status.code(), Some(2), "{words:?}");
    }
    assert!(done(&run("profiles", &["help"])).contains("--allow-below-cost"));
    assert!(done(&run("windows", &["help"])).contains("--offset"));
    world.learn().await;
    assert_eq!(world.cost(&key).await, 3000);
    world.node.finish().await;
}

/// Prices in sats are the operator's own, and nobody knows what they cost: only who may sell below cost
/// lowers them.
#[tokio::test(flavor = "multi_thread")]
async fn fixed_prices_in_sats_know_profiles_too() {
    let world = World::with(&[
        ("MODEL_BASED_PRICING", "false"),
        ("COST_PER_REQUEST", "1"),
        ("COST_PER_1K_INPUT_TOKENS", "5"),
        ("COST_PER_1K_OUTPUT_TOKENS", "7"),
    ])
    .await;
    let key = world.key(1_000).await;
    // 1 sat + 100 × 5 msat + 50 × 7 msat
    assert_eq!(world.cost(&key).await, 1850);
    for (factor, below_cost, msat) in [("2", false, 3700), ("0.5", false, 1850), ("0.5", true, 925)] {
        world.put(&profile("p", factor, below_cost)).await;
        world.attach(Some("p"), &key).await;
        assert_eq!(world.cost(&key).await, msat, "{factor} {below_cost}");
    }
    world.node.finish().await;
}

/// The worked example of the README, as a client meets it.
#[tokio::test(flavor = "multi_thread")]
async fn the_worked_example_is_what_is_charged() {
    let world = World::with(&[("UPSTREAM_PROVIDER_FEE", "1.05"), ("EXCHANGE_FEE", "1.005")]).await;
    let key = world.key(3_000).await;
    world.put(&profile("club", "0.96", false)).await;
    world.attach(Some("club"), &key).await;
    // 0.10 USD at list price.
    let mut body = ask(&"x".repeat(30_000));
    body["max_tokens"] = json!(1_000);
    world.upstream.next(Script::Answer {
        status: 200,
        media: "application/json",
        body: completion(MODEL, "hi", Some(usage(8_000, 1_000))),
    });
    let msat = cost(&world.node, &key, &body).await;
    let readme = include_str!("../../README.md");
    let line = readme.lines().map(str::trim).find(|line| line.starts_with("0.10 × ")).expect("the worked example");
    assert_eq!(line, "0.10 × 0.96 × 1.05 × 1.005 ÷ 100000 × 10¹¹ = 101304 msat");
    assert_eq!(msat, 101_304);
    world.node.finish().await;
}
