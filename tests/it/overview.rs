//! The overview: what it says of requests and earnings comes from sums, and the news of requests come as they happen.

use std::time::Duration;

use serde_json::{Value, json};

use coinslot::clock::Clock as _;
use coinslot::store::Durability;

use crate::pool::{NAMES, World, refuse};
use crate::price_sync::{Browser, csrf};
use crate::requests_page::{token, written};
use crate::support::answers::ok;
use crate::support::node::{MODEL, ask, ask_streaming};

const DAY: Duration = Duration::from_secs(86_400);

/// Steps to the next time that is so long after midnight.
fn to(world: &World, after_midnight: Duration) {
    let day = i64::try_from(DAY.as_millis()).unwrap();
    let into = world.clock.now_ms().rem_euclid(day);
    let wanted = i64::try_from(after_midnight.as_millis()).unwrap();
    world.clock.step(Duration::from_millis((wanted - into).rem_euclid(day).unsigned_abs()));
}

/// Sums of so many days, the first ones of all, and of a model each.
async fn more_days(world: &World, count: i64) {
    let columns = [
        "requests, served, client_errors, payment_errors, upstream_errors, node_errors, clients_gone",
        "charged_requests, input_tokens, cached_tokens, output_tokens, charged_msat, cost_msat, nano_usd",
        "unpriced, first_ms, firsts, took_ms, tooks",
    ];
    let sql = format!(
        "WITH RECURSIVE days (n) AS (SELECT CAST($1 AS BIGINT) UNION ALL SELECT n - 1 FROM days WHERE n > 1) \
         INSERT INTO request_sums (span, start, model, upstream, {}) \
         SELECT 'day', (n - 1) * 86400000, 'model ' || n, '', 1{} FROM days",
        columns.join(", "),
        ", 0".repeat(18)
    );
    let mut tx = world.node.running().exchange().ledger.store().begin(Durability::Full).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(sql)).bind(count).execute(tx.hand()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_tell_what_was_earned_when_the_requests_are_forgotten() {
    let mut world = World::new(&[json!({}), json!({})], &[]).await;
    to(&world, Duration::from_secs(23 * 3600));
    let reader = token(&world.node, "read").await;
    let overview = async |world: &World, query: &str| {
        written(&world.node).await;
        ok(world.node.get(&format!("/admin/api/overview?{query}")).bearer_auth(&reader)).await
    };
    let quiet = overview(&world, "").await;
    assert_eq!((&quiet["ever"]["requests"], &quiet["reasons"]), (&json!(0), &json!([])));
    assert_eq!((quiet["hours"].as_array().unwrap().len(), quiet["days"].as_array().unwrap().len()), (24, 30));
    // Two are served, one of them by the second upstream; one is wrong, and one is for no model that there is.
    world.send(&ask("hi")).await;
    world.upstreams[0].next(refuse(400));
    world.send(&ask("hi")).await;
    world.upstreams[0].next(refuse(500));
    world.send(&ask_streaming("hi")).await;
    let mut unknown = ask("hi");
    unknown["model"] = "toy/unknown".into();
    assert_eq!(world.send(&unknown).await.status, 400);
    // A payment that is no good.
    assert_eq!(world.node.chat(&ask("hi")).bearer_auth("sk-nonsense").send().await.unwrap().status(), 401);
    let seen = overview(&world, "").await;
    let day = &seen["last_24_hours"];
    for (name, number) in [
        ("requests", 5),
        ("served", 2),
        ("client_errors", 2),
        ("payment_errors", 1),
        ("upstream_errors", 0),
        ("charged_requests", 2),
        ("charged_msat", 4_000),
        ("cost_msat", 4_000),
        ("unpriced", 0),
        ("input_tokens", 200),
        ("output_tokens", 100),
        ("firsts", 1),
        ("tooks", 3),
    ] {
        assert_eq!(day[name], number, "{name}: {day}");
    }
    assert_eq!((day, day), (&seen["ever"], &seen["hours"][23]["sum"]));
    assert_eq!(&seen["days"][29]["sum"], day);
    assert_eq!(seen["live"]["earned_msat"], 4_000);
    let names = |board: &str, seen: &Value| -> Vec<String> {
        seen[board].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("models", &seen), [MODEL, "_none", "_other"]);
    assert_eq!(names("upstreams", &seen), [NAMES[0], NAMES[1], ""]);
    // It is all there after a new start, and the next day too; but not in the last 24 hours.
    world.node.restart().await;
    world.clock.step(DAY + DAY);
    world.send(&ask("hi")).await;
    let seen = overview(&world, "of=week").await;
    assert_eq!((&seen["last_24_hours"]["charged_msat"], &seen["ever"]["charged_msat"]), (&json!(2_000), &json!(6_000)));
    assert_eq!((&seen["days"][27]["sum"]["requests"], &seen["days"][28]["sum"]["requests"]), (&json!(5), &json!(0)));
    assert_eq!((&seen["leaders_of"], &seen["models"][0]["sum"]["charged_msat"]), (&json!("week"), &json!(6_000)));
    assert_eq!(names("models", &overview(&world, "of=day").await), [MODEL]);
    assert_eq!(names("models", &overview(&world, "of=ever").await).len(), 3);

    let usage = async |query: &str| {
        let parts = ok(world.node.get(&format!("/admin/api/usage?{query}")).bearer_auth(&reader)).await;
        let parts: Vec<(Value, i64)> = parts
            .as_array()
            .unwrap()
            .iter()
            .map(|part| {
                let of = [&part["start_ms"], &part["model"], &part["upstream"]].into_iter().find(|of| !of.is_null());
                (of.unwrap().clone(), part["sum"]["requests"].as_i64().unwrap())
            })
            .collect();
        parts
    };
    assert_eq!(usage("").await.iter().map(|(_, requests)| *requests).collect::<Vec<_>>(), [5, 1]);
    assert_eq!(usage("by=model").await[0], (json!(MODEL), 4));
    assert_eq!(usage("by=upstream").await.len(), 3);
    assert_eq!(usage(&format!("by=hour&from={}", world.clock.now_ms() - 3_600_000)).await.len(), 1);
    for wrong in ["by=week", "from=x", "by=hour&from=2020-01-01"] {
        let refused = world.node.get(&format!("/admin/api/usage?{wrong}")).bearer_auth(&reader).send().await.unwrap();
        assert_eq!(refused.status(), 400, "{wrong}");
    }
    // What begins before `from` is in neither form of it.
    let hour = usage(&format!("by=hour&from={}", world.clock.now_ms() - 3_600_000)).await[0].0.as_i64().unwrap();
    for (from, sums) in [(hour, 1), (hour + 1, 0)] {
        assert_eq!(usage(&format!("by=hour&from={from}")).await.len(), sums);
        let path = format!("/admin/api/usage.csv?by=hour&from={from}");
        let csv = world.node.get(&path).bearer_auth(&reader).send().await.unwrap().text().await.unwrap();
        assert_eq!(csv.lines().count(), 1 + sums, "{csv}");
    }
    // More than an answer has are refused, and not the newest of them left out.
    more_days(&world, 1_001).await;
    for by in ["day", "model"] {
        let asked = |to: &str| world.node.get(&format!("/admin/api/usage?by={by}&from=0&to={to}")).bearer_auth(&reader);
        let refused = asked("1979-01-01").send().await.unwrap();
        assert_eq!(refused.status(), 400, "{by}");
        assert!(refused.text().await.unwrap().contains("more than 1000 sums"), "{by}");
        assert_eq!(ok(asked("1972-09-27")).await.as_array().unwrap().len(), 1_000, "{by}");
    }
    // The page draws it, and says the same in a table.
    let browser = Browser::log_in(&world.node).await;
    let page = browser.page_at("/admin?of=ever").await;
    for shown in [
        "The node sells.",
        "6.000",
        "<title id=\"requests-by-day-title\">",
        "role=\"img\"",
        "not on the price list",
        "<summary>The figures by hour</summary>",
        "<script src=\"/admin/live.js\" defer></script>",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(!page.contains("style="), "no style but by class");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_are_proven_at_the_press_of_a_button() {
    let world = World::new(&[json!({})], &[]).await;
    let (reader, manager) = (token(&world.node, "read").await, token(&world.node, "manage").await);
    let prove = async |token: &str| world.node.post("/admin/api/prove").bearer_auth(token).send().await.unwrap();
    assert_eq!(prove(&reader).await.status(), 403);
    let proof: Value = prove(&manager).await.json().await.unwrap();
    assert_eq!((&proof["verdict"], &proof["ecash_msat"]), (&json!("proven"), &json!(1_000_000)));
    let browser = Browser::log_in(&world.node).await;
    assert_eq!(browser.post("/admin/prove", &[("csrf", "made up")]).await.status(), 403);
    let page = browser.page_at("/admin").await;
    assert_eq!(browser.post("/admin/prove", &[("csrf", &csrf(&page))]).await.status(), 303);
    assert!(browser.page_at("/admin").await.contains("The books were proven"));
    let trail = sqlx::query("SELECT COUNT(*) FROM admin_trail WHERE action = 'books.prove'");
    let acts: i64 =
        sqlx::Row::get(&trail.fetch_one(world.node.running().exchange().ledger.store().read()).await.unwrap(), 0);
    assert_eq!(acts, 2);
    world.finish().await;
}

/// Reads events until there is one of this name, and gives its data.
async fn event(stream: &mut reqwest::Response, text: &mut String, name: &str) -> Value {
    loop {
        while let Some((event, rest)) = text.split_once("\n\n") {
            let (event, rest) = (event.to_owned(), rest.to_owned());
            *text = rest;
            if let Some(data) = event.strip_prefix(&format!("event: {name}\ndata: ")) {
                return serde_json::from_str(data).unwrap();
            }
        }
        let chunk = stream.chunk().await.unwrap().expect("the stream goes on");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn news_of_requests_come_as_they_happen() {
    let world = World::new(&[json!({}), json!({})], &[]).await;
    let stranger = world.node.get("/admin/events").send().await.unwrap();
    assert_eq!(stranger.status(), 303, "only for the operator");
    let browser = Browser::log_in(&world.node).await;
    let mut stream = browser.open("/admin/events").await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    event(&mut stream, &mut text, "ready").await;
    world.upstreams[0].next(refuse(500));
    world.send(&ask_streaming("a secret question")).await;
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(event(&mut stream, &mut text, "request").await);
    }
    let told: Vec<_> =
        all.iter().map(|news| (news["event"].as_str().unwrap(), news["upstream"].as_str().unwrap())).collect();
    assert_eq!(told, [("start", NAMES[0]), ("attempt", NAMES[0]), ("attempt", NAMES[1]), ("end", NAMES[1])]);
    assert!(all.iter().all(|news| news["id"] == all[0]["id"] && news["model"] == MODEL), "{all:?}");
    assert!(all.iter().all(|news| news["key"].as_str().unwrap().len() == 8 && news["key"] == all[0]["key"]), "{all:?}");
    assert_eq!(
        (&all[1]["status"], &all[2]["status"], &all[3]["status"]),
        (&json!("refused"), &json!("answered"), &json!("served"))
    );
    assert_eq!(all[3]["charged_msat"], 2_000);
    assert!(all[3]["first_ms"].is_i64() && all[3]["took_ms"].is_i64(), "{all:?}");
    assert!(!format!("{all:?}").contains("secret"));

    // Only so many listen at a time.
    let mut others = Vec::new();
    for _ in 0..15 {
        others.push(browser.open("/admin/events").await);
    }
    assert!(others.iter().all(|other| other.status() == 200));
    assert_eq!(browser.open("/admin/events").await.status(), 503);
    // The script is this node's, and so is the policy that lets it run.
    let page = browser.open("/admin").await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("script-src 'self'; connect-src 'self';") && !policy.contains("unsafe"), "{policy}");
    let script = browser.page_at("/admin/live.js").await;
    assert!(script.contains("EventSource") && !script.contains("innerHTML"));
    // Who listens does not keep the node from stopping.
    let began = std::time::Instant::now();
    world.finish().await;
    assert!(began.elapsed() < Duration::from_secs(10));
    let rest = stream.text().await.unwrap();
    assert!(!rest.contains("event: request"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_who_is_busy_is_told_that_it_missed_some() {
    let world = World::new(&[json!({})], &[]).await;
    let exchange = world.node.running().exchange().clone();
    let mut news = exchange.ongoing.listen().unwrap();
    for _ in 0..100 {
        world.send(&ask("hi")).await;
    }
    // 300 pieces of news, of which 256 are kept.
    let heard = news.recv().await;
    assert!(matches!(heard, Err(tokio::sync::broadcast::error::RecvError::Lagged(44))), "{heard:?}");
    drop((news, exchange));
    world.finish().await;
}

/// What had been earned before there were sums is in them after the migration.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_earned_before_is_in_the_sums_after_a_migration() {
    let world = World::new(&[json!({})], &[]).await;
    // So that no hour ends in between.
    to(&world, DAY / 2);
    for _ in 0..3 {
        world.send(&ask("hi")).await;
    }
    world.upstreams[0].next(refuse(400));
    world.send(&ask("hi")).await;
    written(&world.node).await;
    let store = world.node.running().exchange().ledger.store().clone();
    let sums = async || {
        let rows = sqlx::query(
            "SELECT span, start, model, upstream, requests, charged_requests, charged_msat, cost_msat, input_tokens, \
             output_tokens FROM request_sums WHERE upstream <> '' ORDER BY span, start, model, upstream",
        );
        let rows = rows.fetch_all(store.read()).await.unwrap();
        let row = |row: &sqlx::any::AnyRow| {
            let texts: [String; 3] = [0, 2, 3].map(|at| sqlx::Row::get(row, at));
            let numbers: [i64; 7] = [1, 4, 5, 6, 7, 8, 9].map(|at| sqlx::Row::get(row, at));
            (texts, numbers)
        };
        rows.iter().map(row).collect::<Vec<_>>()
    };
    let counted = sums().await;
    assert_eq!(counted.len(), 3);
    let own = if std::env::var("TEST_DATABASE").as_deref() == Ok("postgres") {
        include_str!("../../src/migrations/0031_request_sums.postgres.sql")
    } else {
        include_str!("../../src/migrations/0031_request_sums.sqlite.sql")
    };
    let mut tx = store.begin(Durability::Full).await.unwrap();
    sqlx::query("DELETE FROM request_sums").execute(tx.hand()).await.unwrap();
    sqlx::raw_sql(own).execute(tx.hand()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(sums().await, counted);
    world.finish().await;
}
