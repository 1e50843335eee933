//! Upstreams that the operator adds, changes, tries and removes while the node runs; and the backup to take home.

use std::process::Command;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::Row as _;

use crate::bearer::world;
use crate::price_sync::{Browser, csrf, field};
use crate::support::node::{MODEL, TestNode, ask, ask_streaming};
use crate::support::program::{Program, fed, said, told};
use crate::support::upstream::{Script, Upstream, delta};

const KEY: &str = "sk-of-the-second-upstream-0123456789";

fn refusal() -> Script {
    Script::Answer { status: 500, media: "application/json", body: "{}".to_owned() }
}

fn entry(upstream: &Upstream) -> Value {
    json!({
        "name": "second", "provider_type": "generic", "base_url": upstream.url(), "api_key": KEY,
        "priority": 5, "daily_usd": "3",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_comes_changes_and_goes_beside_running_requests() {
    let (_mint, purse, first, node) = world(1000).await;
    let second = Upstream::start().await;
    let token = purse.send(500).await;
    let send = async || node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap().status().as_u16();
    first.next(refusal());
    assert_eq!(send().await, 502, "there is one upstream");

    let manager = Program::with(&node, "read manage").await;
    let reader = Program::with(&node, "read").await;
    assert_eq!(reader.post("/admin/api/upstreams", &entry(&second)).await.0, 403);
    let path = "/admin/api/upstreams";
    for (member, value, status) in [
        ("base_url", json!("http://10.0.0.1/v1"), 400),
        ("base_url", json!("https://u:hunter2@n.example"), 400),
        ("api_key", json!("two words"), 400),
        ("nonsense", json!(1), 400),
        ("name", json!("default"), 409),
        ("name", json!("<b>"), 400),
    ] {
        let mut bad = entry(&second);
        bad[member] = value;
        let (got, refusal) = manager.post(path, &bad).await;
        assert_eq!(got, status, "{member}: {refusal}");
        let text = refusal.to_string();
        assert!(!text.contains(KEY) && !text.contains("hunter2") && !text.contains("two words"), "{text}");
    }
    let added = manager.post(path, &entry(&second)).await;
    assert_eq!(added, (200, json!({ "name": "second" })));
    assert_eq!(manager.post(path, &entry(&second)).await.0, 409);
    first.next(refusal());
    assert_eq!(send().await, 200);
    assert_eq!(second.last().headers["authorization"], format!("Bearer {KEY}"));

    // What is seen of it, and what is not.
    let listed = manager.get(path).await;
    let one = |name: &str| listed.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone();
    assert_eq!((&one("second")["has_key"], &one("second")["spec"]["daily_usd"]), (&json!(true), &json!("3")));
    assert_eq!(
        (&one("default")["from_environment"], &one("second")["from_environment"]),
        (&json!(true), &json!(false))
    );
    let browser = Browser::log_in(&node).await;
    let page = browser.page_at("/admin/upstreams").await;
    assert!(page.contains("second") && page.contains("of 3"), "{page}");

    // A test is one small question.
    let before = second.seen().len();
    let (status, tested) = manager.post("/admin/api/upstreams/test", &json!({ "name": "second" })).await;
    assert_eq!((status, &tested["answered"], &tested["model"]), (200, &json!(true), &json!("toy/cheap")), "{tested}");
    assert_eq!((second.seen().len(), &second.last().json()["max_tokens"]), (before + 1, &json!(1)));
    second.next(Script::Answer {
        status: 401,
        media: "application/json",
        body: json!({ "error": { "message": format!("bad key {KEY}") } }).to_string(),
    });
    let (status, tested) = manager.post("/admin/api/upstreams/test", &json!({ "name": "second" })).await;
    assert_eq!((status, &tested["answered"]), (200, &json!(false)), "{tested}");
    assert!(tested["error"].as_str().unwrap().contains("401") && !tested.to_string().contains(KEY), "{tested}");
    assert_eq!(manager.post("/admin/api/upstreams/test", &json!({ "name": "none" })).await.0, 409);

    // A change keeps the key, and null takes a member away.
    let patch = async |body: Value| manager.call(reqwest::Method::PATCH, path, &body).await;
    assert_eq!(patch(json!({ "name": "second", "daily_usd": null, "priority": 7 })).await.0, 200);
    assert_eq!(patch(json!({ "name": "default", "priority": 7 })).await.0, 409, "the environment's is changed there");
    assert_eq!(patch(json!({ "name": "none", "priority": 7 })).await.0, 404);
    first.next(refusal());
    assert_eq!(send().await, 200);
    assert_eq!(second.last().headers["authorization"], format!("Bearer {KEY}"));

    // A stream that runs keeps its upstream, though that is removed.
    first.next(refusal());
    let end = vec!["data: [DONE]\n\n".to_owned()];
    second.next(Script::Paused {
        before: vec![delta(MODEL, "begun")],
        after: [vec![delta(MODEL, " ended")], end].concat(),
    });
    let mut stream = node.chat(&ask_streaming("long")).bearer_auth(&token).send().await.unwrap();
    let mut text = String::from_utf8(stream.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    let form = csrf(&page);
    let removal = [("csrf", &*form), ("name", "second")];
    assert_eq!(browser.post("/admin/upstreams/remove", &[("csrf", "x"), removal[1]]).await.status(), 403);
    assert_eq!(browser.post("/admin/upstreams/remove", &removal).await.status(), 303);
    assert_eq!(browser.post("/admin/upstreams/remove", &removal).await.status(), 404);
    second.resume();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(text.contains(" ended"), "{text}");
    node.settled().await;
    first.next(refusal());
    assert_eq!(send().await, 502, "it is gone");

    let acts = manager.get("/admin/api/trail?limit=500").await.to_string();
    for act in ["upstreams.add", "upstreams.set", "upstreams.test", "upstreams.remove"] {
        assert!(acts.contains(act), "{act}");
    }
    assert!(!acts.contains(KEY), "{acts}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_and_the_command_do_the_same_and_it_outlives_the_process() {
    let (_mint, purse, first, mut node) = world(1000).await;
    let second = Upstream::start().await;
    let token = purse.send(500).await;
    {
        let browser = Browser::log_in(&node).await;
        let form = csrf(&browser.page_at("/admin/upstreams").await);
        let (url, bad) = (second.url(), [("csrf", &*form), ("name", "by-form"), ("provider_type", "generic")]);
        let refused = browser.post("/admin/upstreams/add", &bad).await;
        assert!(refused.status() == 400 && refused.text().await.unwrap().contains("base_url"));
        let good =
            [&bad[..], &[("base_url", &*url), ("api_key", KEY), ("models", "toy/echo-1=other"), ("priority", "9")]];
        assert_eq!(browser.post("/admin/upstreams/add", &good.concat()).await.status(), 303);
        let page = browser.page_at("/admin/upstreams").await;
        assert!(page.contains("toy/echo-1=other") && !page.contains(KEY), "{page}");
        let off = [("csrf", &*form), ("name", "by-form"), ("on", "no")];
        assert_eq!(browser.post("/admin/upstreams/switch", &off).await.status(), 303);
        assert!(browser.page_at("/admin/upstreams").await.contains("switched off"));
        first.next(refusal());
        assert_eq!(status(&node, &token).await, 502);
    }
    told(node.settings(), &["upstreams", "enable", "by-form"]);
    let listed = told(node.settings(), &["upstreams", "list", "--json"]);
    assert!(listed.contains("by-form") && !listed.contains(KEY), "{listed}");
    let said = told(node.settings(), &["upstreams", "test", "by-form"]);
    assert!(said.contains("answered with other"), "{said}");
    let store = node.running().exchange().ledger.store().clone();
    let costs = sqlx::query("SELECT nano_usd FROM outlays WHERE upstream = 'by-form'").fetch_all(store.read()).await;
    let costs: Vec<i64> = costs.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(matches!(costs[..], [1..=i64::MAX]), "what a command asks counts for spend caps, too: {costs:?}");
    drop(store);
    with_input(&node, &["upstreams", "set"], &json!({ "name": "by-form", "weight": 3 }).to_string());
    node.restart().await;
    first.next(refusal());
    assert_eq!(status(&node, &token).await, 200, "stored, and asked after a restart");
    assert_eq!(second.last().json()["model"], "other");
    told(node.settings(), &["upstreams", "remove", "by-form"]);
    let exchange = node.running().exchange();
    exchange.pool.watch(exchange.ledger.store()).await.unwrap();
    first.next(refusal());
    assert_eq!(status(&node, &token).await, 502);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn further_members_count_where_no_field_is_filled_in_and_are_refused_where_one_is() {
    let (_mint, _purse, _first, node) = world(10).await;
    let (second, reader) = (Upstream::start().await, Program::with(&node, "read").await);
    let browser = Browser::log_in(&node).await;
    let (form, url) = (csrf(&browser.page_at("/admin/upstreams").await), second.url());
    let filled = [
        ("csrf", &*form),
        ("name", "by-form"),
        ("provider_type", "generic"),
        ("base_url", &*url),
        ("priority", "9"),
        ("tags", ""),
    ];
    let post_seen = async |verb: &str, more: &str, seen: &str| {
        let more = [("more", more), ("seen", seen)];
        let answer = browser.post(&format!("/admin/upstreams/{verb}"), &[&filled[..], &more].concat()).await;
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let post = async |verb: &str, more: &str| post_seen(verb, more, "").await;
    let spec = async || {
        let listed = reader.get("/admin/api/upstreams").await;
        let found =
            listed.as_array().unwrap().iter().find(|one| one["name"] == "by-form").map(|one| one["spec"].clone());
        found.unwrap_or_default()
    };
    for (clash, name) in [(r#"{"fee": 1.2, "priority": 3}"#, "priority"), (r#"{"name": "x"}"#, "name")] {
        let (status, page) = post("add", clash).await;
        assert!(status == 400 && page.contains(&format!("{name} has a field here")), "{page}");
    }
    assert_eq!((post("add", "[]").await.0, spec().await), (400, Value::Null));

    let (status, page) = post("add", r#"{"convert_from": ["messages"]}"#).await;
    assert!(status == 400 && page.contains("its convert_from has messages, and there is no conversion"), "{page}");

    let more = r#"{"fee": 1.2, "monthly_usd": 40, "weight": 3, "max_concurrency": 2, "tags": ["eu"]}"#;
    assert_eq!(post("add", more).await.0, 303);
    let kept = spec().await;
    for (member, value) in [("fee", "1.2"), ("monthly_usd", "40"), ("weight", "3"), ("max_concurrency", "2")] {
        assert_eq!(kept[member].to_string().trim_matches('"'), value, "{kept}");
    }
    assert_eq!((&kept["tags"], &kept["priority"]), (&json!(["eu"]), &json!(9)), "{kept}");

    // A field that is emptied takes its member away, unless it is said there.
    let opened = field(&browser.page_at("/admin/upstreams").await, "seen");
    let change = r#"{"tags": ["us"]}"#;
    assert_eq!(post_seen("set", change, &opened).await.0, 303);
    let kept = spec().await;
    assert_eq!((&kept["tags"], kept["fee"].as_str()), (&json!(["us"]), Some("1")), "{kept}");

    // A tag may have spaces in it, and stays one when the form is sent again as it is shown.
    let mut sent = "eu west, gpu ,".to_owned();
    for _ in 0..2 {
        let seen = field(&browser.page_at("/admin/upstreams").await, "seen");
        let tagged = [&filled[..5], &[("tags", &*sent), ("seen", &*seen)]].concat();
        assert_eq!(browser.post("/admin/upstreams/set", &tagged).await.status(), 303);
        assert_eq!(spec().await["tags"], json!(["eu west", "gpu"]));
        sent = "eu west, gpu".to_owned();
        assert!(browser.page_at("/admin/upstreams").await.contains(&format!("name=\"tags\" value=\"{sent}\"")));
    }

    // A form of before it was changed changes nothing.
    let opened = field(&browser.page_at("/admin/upstreams").await, "seen");
    let manager = Program::with(&node, "manage").await;
    let capped = json!({ "name": "by-form", "daily_usd": "3" });
    assert_eq!(manager.call(reqwest::Method::PATCH, "/admin/api/upstreams", &capped).await.0, 200);
    let (status, page) = post_seen("set", change, &opened).await;
    assert!(status == 409 && page.contains("somebody has changed it meanwhile; look again"), "{status} {page}");
    assert_eq!((post("set", change).await.0, &spec().await["daily_usd"]), (409, &json!("3")));
    assert_eq!(post_seen("set", change, &field(&page, "seen")).await.0, 303);
    assert_eq!(spec().await["daily_usd"], Value::Null);
    node.finish().await;
}

/// Whoever may change an upstream may not read its key: it does not go to another address, or by another proxy,
/// unless it is said again.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_kept_goes_to_no_other_address() {
    let (_mint, _purse, _first, node) = world(10).await;
    let (second, theirs) = (Upstream::start().await, Upstream::start().await);
    let manager = Program::with(&node, "read manage").await;
    let path = "/admin/api/upstreams";
    let mut stored = entry(&second);
    stored["headers"] = json!({ "x-secret": "of the operator", "x-left-out": null });
    assert_eq!(manager.post(path, &stored).await.0, 200);
    let patch = async |mut body: Value| {
        body["name"] = json!("second");
        manager.call(reqwest::Method::PATCH, path, &body).await
    };
    let (url, proxy) = (theirs.url(), "socks5h://127.0.0.1:9");
    for (change, said) in [
        (json!({ "base_url": url }), "another address, so say its api_key"),
        (json!({ "base_url": url, "headers": null }), "another address, so say its api_key"),
        (json!({ "base_url": url, "api_key": "sk-another" }), "another address, so say its headers"),
        (json!({ "base_url": null, "provider_type": "groq" }), "another address, so say its api_key"),
        (json!({ "proxy_url": proxy }), "another proxy, so say its api_key"),
        (json!({ "proxy_url": proxy, "api_key": null }), "another proxy, so say its headers"),
    ] {
        let (status, refusal) = patch(change.clone()).await;
        let text = refusal.to_string();
        assert!(status == 400 && text.contains(said), "{change}: {status} {text}");
        assert!(!text.contains(KEY) && !text.contains("of the operator"), "{text}");
    }
    let browser = Browser::log_in(&node).await;
    let page = browser.page_at("/admin/upstreams").await;
    let (form, seen) = (csrf(&page), field(&page, "seen"));
    let moved = [("csrf", &*form), ("name", "second"), ("seen", &*seen), ("base_url", &*url)];
    let refused = browser.post("/admin/upstreams/set", &moved).await;
    assert!(refused.status() == 400 && refused.text().await.unwrap().contains("say its api_key"));

    // What goes to the same place as before keeps them; and what is said anew goes where it is said.
    assert_eq!(patch(json!({ "base_url": second.url(), "priority": 7 })).await.0, 200);
    assert_eq!(patch(json!({ "base_url": url, "api_key": "sk-another", "headers": null })).await.0, 200);
    assert_eq!(manager.post("/admin/api/upstreams/test", &json!({ "name": "second" })).await.0, 200);
    assert_eq!(theirs.last().headers["authorization"], "Bearer sk-another");
    let seen = theirs.seen();
    assert!(seen.iter().all(|one| !one.headers.contains_key("x-secret")), "{seen:?}");
    assert!(!format!("{seen:?}").contains(KEY), "{seen:?}");
    assert_eq!(patch(json!({ "base_url": second.url(), "api_key": null })).await.0, 200);
    let acts = manager.get("/admin/api/trail?limit=500").await.to_string();
    assert!(!acts.contains("sk-another") && !acts.contains(KEY), "{acts}");
    node.finish().await;
}

/// Of changes that come at once none undoes another, and a name is given once.
#[tokio::test(flavor = "multi_thread")]
async fn changes_that_come_at_once_are_all_kept() {
    let (_mint, _purse, _first, node) = world(10).await;
    let second = Upstream::start().await;
    let manager = Program::with(&node, "read manage").await;
    let (path, stored) = ("/admin/api/upstreams", entry(&second));
    let added = join_all((0..4).map(|_| manager.post(path, &stored))).await;
    let mut statuses: Vec<u16> = added.iter().map(|(status, _)| *status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409]);
    for round in 10..14 {
        let changes = [
            json!({ "name": "second", "priority": round }),
            json!({ "name": "second", "weight": round }),
            json!({ "name": "second", "max_concurrency": round }),
            json!({ "name": "second", "enabled": round % 2 == 0 }),
        ];
        let patched = join_all(changes.iter().map(|change| manager.call(reqwest::Method::PATCH, path, change))).await;
        assert!(patched.iter().all(|(status, _)| *status == 200), "{patched:?}");
        let listed = manager.get(path).await;
        let one = listed.as_array().unwrap().iter().find(|one| one["name"] == "second").unwrap();
        for member in ["priority", "weight", "max_concurrency"] {
            assert_eq!(one["spec"][member], round, "{member}: {one}");
        }
        assert_eq!((&one["is_enabled"], &one["has_key"]), (&json!(round % 2 == 0), &json!(true)), "{one}");
    }
    node.finish().await;
}

async fn status(node: &TestNode, token: &str) -> u16 {
    node.chat(&ask("hi")).bearer_auth(token).send().await.unwrap().status().as_u16()
}

fn with_input(node: &TestNode, words: &[&str], input: &str) {
    let output = fed(node.settings(), words, input);
    assert!(output.status.success(), "{words:?}: {}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_taken_home_by_who_may_move_money() {
    let (_mint, _purse, _upstream, node) = world(10).await;
    let path = "/admin/api/backup";
    let call = json!({ "passphrase": "a long enough passphrase" });
    let manager = Program::with(&node, "read manage").await;
    assert_eq!(manager.post(path, &call).await.0, 403);
    let rich = Program::with(&node, "money read").await;
    assert_eq!(rich.post(path, &json!({ "passphrase": "short" })).await.0, 400);
    let browser = Browser::log_in(&node).await;
    let form = csrf(&browser.page_at("/admin/settings").await);
    let typed = [("csrf", &*form), ("passphrase", "a long enough passphrase"), ("again", "a long enough passphrase")];
    assert_eq!(browser.post("/admin/backup", &[typed[0], typed[1], ("again", "another")]).await.status(), 400);
    assert_eq!(browser.post("/admin/backup", &[("csrf", "x"), typed[1], typed[2]]).await.status(), 403);
    let answer = browser.post("/admin/backup", &typed).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.headers()["content-disposition"].to_str().unwrap().contains(".backup"));
    let bytes = answer.bytes().await.unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"SQLite"), "it is sealed");

    // It is a backup: a node is made of it.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("home.backup");
    std::fs::write(&file, &bytes).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_coinslot"));
    command.env_clear().current_dir(dir.path()).env("DATA_DIR", dir.path().join("data"));
    command.env("BACKUP_PASSPHRASE", "a long enough passphrase").arg("restore").arg(&file);
    if let Some(url) = node.settings().get("DATABASE_URL") {
        // Of a database elsewhere there is no second one to put it into.
        assert!(!url.is_empty());
    } else {
        let restored = command.output().unwrap();
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        assert!(dir.path().join("data").read_dir().unwrap().count() > 1);
    }
    let left = std::fs::read_dir(node.data_dir()).unwrap();
    assert!(left.flatten().all(|entry| !entry.file_name().to_string_lossy().starts_with("download-")));
    let acts = rich.get("/admin/api/trail?action=backup.make").await;
    assert_eq!(acts["acts"].as_array().unwrap().len(), 1);
    assert!(!acts.to_string().contains("long enough"));
    node.finish().await;
}
