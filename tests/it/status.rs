//! `/status` and `/status.json`: what everybody may know of how the node does. Time is stepped.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Row;

use coinslot::clock::Clock as _;
use coinslot::status::{SLOT_MS, Traffic};

use crate::pool::{KEYS, NAMES, World, refuse};
use crate::shop::Page;
use crate::support::answers::{ok, until};
use crate::support::node::{MODEL, ask, ask_streaming};
use crate::support::upstream::{Script, delta, sse};

const SLOT: Duration = Duration::from_millis(SLOT_MS.unsigned_abs());

/// Steps to the beginning of a slot, so that none ends in the middle of a test.
fn to_slot(world: &World) {
    let into = world.clock.now_ms().rem_euclid(SLOT_MS);
    world.clock.step(Duration::from_millis((SLOT_MS - into).unsigned_abs()));
}

/// What the job does every few seconds.
async fn keep(world: &World) {
    let exchange = world.node.running().exchange();
    exchange.traffic.keep(exchange.ledger.store(), exchange.ledger.clock().now_ms()).await.unwrap();
}

async fn status(world: &World) -> Value {
    keep(world).await;
    ok(world.node.get("/status.json")).await
}

fn of<'a>(status: &'a Value, model: &str) -> &'a Value {
    let models = status["models"].as_array().unwrap();
    models.iter().find(|one| one["id"] == model).unwrap_or_else(|| panic!("no {model} in {status}"))
}

async fn send(world: &World, body: &Value, status: u16) {
    let reply = world.send(body).await;
    assert_eq!(reply.status, status, "{}", reply.text);
}

async fn rows(world: &World) -> i64 {
    let store = world.node.running().exchange().ledger.store().clone();
    sqlx::query("SELECT COUNT(*) FROM model_traffic").fetch_one(store.read()).await.unwrap().get(0)
}

/// When the last point is so, and no other is known.
fn only_last(points: &Value, percent: u64) -> bool {
    let points = points.as_array().unwrap();
    points.len() == 90 && points[89] == percent && points[..89].iter().all(Value::is_null)
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_as_requests_to_them_went() {
    let mut world = World::new(&[json!({})], &[]).await;
    to_slot(&world);
    let before = status(&world).await;
    assert_eq!(
        of(&before, MODEL),
        &json!({ "id": MODEL, "state": "no_data", "availability": { "24h": null, "7d": null },
        "points": { "24h": [], "7d": [] } })
    );
    for body in [ask("hi"), ask_streaming("hi"), ask("hi")] {
        send(&world, &body, 200).await;
    }
    let seen = status(&world).await;
    let model = of(&seen, MODEL);
    assert_eq!(
        (&model["state"], &model["availability"]),
        (&json!("operational"), &json!({ "24h": 100.0, "7d": 100.0 }))
    );
    assert!(only_last(&model["points"]["24h"], 100) && only_last(&model["points"]["7d"], 100));
    assert_eq!(of(&seen, "toy/cheap")["state"], "no_data");
    // One in four fails, be it before its stream begins or in the middle of it.
    world.upstreams[0].next(refuse(500));
    send(&world, &ask("hi"), 502).await;
    assert_eq!(of(&status(&world).await, MODEL)["availability"]["24h"], 75.0);
    let pieces = vec![sse(MODEL, &[], None)[0].clone(), delta(MODEL, "some words")];
    world.upstreams[0].next(Script::Stream { pieces, cut: true });
    send(&world, &ask_streaming("hi"), 200).await;
    world.node.settled().await;
    let seen = status(&world).await;
    assert_eq!(of(&seen, MODEL)["availability"]["24h"], 60.0, "three of five");
    assert_eq!((&of(&seen, MODEL)["state"], &seen["state"]), (&json!("degraded"), &json!("degraded")));
    // The next slot is good, and each counts as much as the other.
    world.clock.step(SLOT);
    send(&world, &ask("hi"), 200).await;
    let seen = status(&world).await;
    assert_eq!(of(&seen, MODEL)["availability"]["24h"], 80.0);
    assert_eq!(of(&seen, MODEL)["points"]["24h"].as_array().unwrap()[88..], [json!(60), json!(100)]);
    world.clock.step(SLOT);
    send(&world, &ask("hi"), 200).await;
    assert_eq!(of(&status(&world).await, MODEL)["state"], "operational", "the newest two slots tell");
    // It is all there after a new start.
    world.node.restart().await;
    let seen = status(&world).await;
    assert_eq!(of(&seen, MODEL)["availability"]["24h"], 86.66);
    // A day later nothing is known of the day, and a week later nothing at all.
    world.clock.step(Duration::from_secs(86_400));
    let seen = status(&world).await;
    assert_eq!(
        (&of(&seen, MODEL)["state"], &of(&seen, MODEL)["availability"]),
        (&json!("no_data"), &json!({ "24h": null, "7d": 86.66 }))
    );
    assert_eq!(rows(&world).await, 3);
    world.clock.step(Duration::from_secs(7 * 86_400));
    let seen = status(&world).await;
    assert_eq!((&of(&seen, MODEL)["availability"]["7d"], rows(&world).await), (&Value::Null, 0));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_do_wrong_counts_for_nothing() {
    let world = World::new(&[json!({})], &[]).await;
    to_slot(&world);
    world.upstreams[0].next(refuse(400));
    send(&world, &ask("hi"), 400).await;
    send(&world, &json!({ "model": "toy/unknown", "messages": [{ "role": "user", "content": "hi" }] }), 400).await;
    send(&world, &json!({ "model": MODEL, "messages": [], "max_tokens": "many" }), 400).await;
    assert_eq!(world.node.chat(&ask("hi")).send().await.unwrap().status(), 401);
    let poor = world.purse.send(1).await;
    assert_eq!(world.send_token(&ask("hi"), &poor).await.status, 402);
    let forged = poor.replace('a', "b");
    assert_ne!(world.send_token(&ask("hi"), &forged).await.status, 200);
    let seen = status(&world).await;
    assert_eq!((&of(&seen, MODEL)["state"], rows(&world).await), (&json!("no_data"), 0));
    // What the operator's account, or its limit, is to blame for does.
    for code in [401, 429] {
        world.upstreams[0].next(refuse(code));
        assert_ne!(world.send(&ask("hi")).await.status, 200);
    }
    let seen = status(&world).await;
    assert_eq!((&of(&seen, MODEL)["state"], rows(&world).await), (&json!("failed"), 1));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_add_up() {
    let world = World::new(&[json!({})], &[]).await;
    to_slot(&world);
    let (store, now_ms) = (world.node.running().exchange().ledger.store().clone(), world.clock.now_ms());
    let other = Traffic::default();
    other.note(MODEL, || true, false, now_ms);
    other.note("toy/cheap", || true, true, now_ms);
    send(&world, &ask("hi"), 200).await;
    keep(&world).await;
    other.keep(&store, now_ms).await.unwrap();
    let seen = status(&world).await;
    assert_eq!(
        (&of(&seen, MODEL)["availability"]["24h"], &of(&seen, "toy/cheap")["state"]),
        (&json!(50.0), &json!("operational"))
    );
    // The other one comes late with a slot that is over.
    other.note(MODEL, || true, false, now_ms);
    world.clock.step(SLOT);
    assert_eq!(of(&status(&world).await, MODEL)["availability"]["24h"], 50.0);
    other.keep(&store, world.clock.now_ms()).await.unwrap();
    assert_eq!(of(&status(&world).await, MODEL)["availability"]["24h"], 33.33);
    assert_eq!(other.board().models[MODEL].day.share.unwrap().to_string(), "33.33", "both show the same");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mints_and_the_rate_have_their_state() {
    let world = World::new(&[json!({})], &[]).await;
    let mut seen = Value::Null;
    until("the keysets are known", async || {
        seen = status(&world).await;
        seen["state"] == "operational"
    })
    .await;
    assert_eq!(seen["mints"], json!([{ "url": world.mint.url(), "state": "operational" }]));
    assert_eq!(seen["rate"], json!({ "state": "operational", "age_seconds": null, "fixed": true }));
    assert_eq!((&seen["reasons"], &seen["points"]), (&json!([]), &json!(90)));
    world.finish().await;
    // Nothing listens there.
    let dead = "http://127.0.0.1:9";
    let feeds = format!("kraken={dead}/0/public/Ticker");
    let settings = [("CASHU_MINTS", dead), ("BTC_USD_FIXED", ""), ("BTC_USD_FEEDS", feeds.as_str())];
    let mint = crate::support::mint::TestMint::start().await;
    let upstream = crate::support::upstream::Upstream::start().await;
    let node = crate::support::node::TestNode::with(&mint, &upstream, &settings).await;
    until("the mint is left alone", async || {
        seen = ok(node.get("/status.json")).await;
        seen["mints"][0]["state"] != "no_data"
    })
    .await;
    assert_ne!(seen["mints"][0]["state"], "operational", "{seen}");
    assert_eq!((&seen["state"], &seen["rate"]["state"]), (&json!("failed"), &json!("failed")), "{seen}");
    assert!(seen["reasons"].to_string().contains("the price of bitcoin is not known"), "{seen}");
    let page = Page::of(node.get("/status")).await;
    assert!(page.status == 200 && page.has("Nothing is sold right now") && page.has("Price of a bitcoin, not known"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_needs_no_script_and_names_no_upstream() {
    let world = World::new(&[json!({}), json!({})], &[]).await;
    to_slot(&world);
    let page = Page::of(world.node.get("/status")).await;
    assert!(page.status == 200 && page.has("No model had a request in the last 7 days"), "{}", page.html);
    send(&world, &ask("hi"), 200).await;
    world.upstreams[0].next(refuse(500));
    world.upstreams[1].next(refuse(500));
    send(&world, &ask("hi"), 502).await;
    world.clock.step(SLOT);
    send(&world, &ask("hi"), 200).await;
    let json = status(&world).await;
    let page = Page::of(world.node.get("/status")).await;
    for text in [
        MODEL,
        &world.mint.url(),
        "Degraded",
        "75.00 %",
        "90 points: 1 operational, 1 degraded, 88 no data",
        "90 points: 1 degraded, 89 no data",
        "set by the operator",
        "models without requests",
        // The last place of ninety, and the one before it.
        r#"<path class="is-operational" d="M356 0h3v24h-3z"/>"#,
        r#"<path class="is-degraded" d="M352 0h3v24h-3z"/>"#,
    ] {
        assert!(page.has(text), "no {text} in {}", page.html);
    }
    let secrets = NAMES.iter().chain(&KEYS).map(|text| (*text).to_owned()).chain([
        world.key.clone(),
        world.upstreams[0].url(),
        "fault-canary".to_owned(),
        "served".to_owned(),
    ]);
    for secret in secrets {
        assert!(!page.has(&secret) && !json.to_string().contains(&secret), "{secret}");
    }
    // Who looks costs nobody anything, and may come from any page.
    let answer = world.node.get("/status.json").header("origin", "https://elsewhere.example").send().await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    assert_eq!(world.node.post("/status").send().await.unwrap().status(), 403);
    world.finish().await;
}
