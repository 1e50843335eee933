//! The requests on the operator's side: finding them, the story of one, ending one, CSV.

use std::time::Duration;

use serde_json::{Value, json};

use coinslot::store::Durability;

use crate::bearer::world;
use crate::pool::{NAMES, World, refuse};
use crate::price_sync::Browser;
use crate::support::answers::{ok, until};
use crate::support::node::{MODEL, TestNode, ask, ask_streaming};
pub use crate::support::operator::program as token;
use crate::support::upstream::{Script, delta, sse};
use crate::tariffs::{command, done};

/// What the job does every few seconds.
pub async fn written(node: &TestNode) {
    let exchange = node.running().exchange();
    node.settled().await;
    exchange.pool.flush(exchange.ledger.store()).await.unwrap();
    exchange.traffic.keep(exchange.ledger.store(), exchange.ledger.clock().now_ms()).await.unwrap();
}

/// The ids of a list, the newest first.
fn ids(list: &Value) -> Vec<&str> {
    list["requests"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_by_which_numbers_any_request_was_charged() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let key = purse.send(200).await;
    let mut request = ask("a secret question");
    request["user"] = "<b>".into();
    let answer = node.chat(&request).bearer_auth(&key).send().await.unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    answer.bytes().await.unwrap();
    let receipt = ok(node.get(&format!("/v1/receipts/{id}")).bearer_auth(&key)).await;
    let receipt = &receipt["receipt"];
    let sheet = ok(node.get(&format!("/v1/prices/{}", receipt["price_id"].as_str().unwrap()))).await;
    written(&node).await;

    let stranger = node.get(&format!("/admin/requests?id={id}")).send().await.unwrap();
    assert_eq!(stranger.status(), 303, "only for the operator");
    let browser = Browser::log_in(&node).await;
    let list = browser.page_at("/admin/requests").await;
    assert!(list.contains(&format!("href=\"/admin/requests?id={id}\"")) && list.contains(MODEL), "{list}");
    let page = browser.page_at(&format!("/admin/requests?id={id}")).await;
    let has = |text: &str| assert!(page.contains(text), "{text}: {page}");
    for chapter in [
        "What was asked for",
        "Payment",
        "Money set aside",
        "Upstreams that were asked",
        "What was used",
        "The prices, frozen when it came in",
        "Settlement",
        "Receipt",
    ] {
        has(&format!("<h3>{chapter}</h3>"));
    }
    has("<dt>Hold</dt><dd class=\"wide\">captured</dd>");
    has("<dt>Charged</dt><dd class=\"wide\">2.000 <small>sat</small></dd>");
    has("<dt>input</dt><dd>100</dd>");
    has(receipt["price_id"].as_str().unwrap());
    has(&format!("<dt>pricing.prompt</dt><dd class=\"wide\">{}</dd>", sheet["pricing"]["prompt"].as_str().unwrap()));
    has(&format!("<dt>USD a bitcoin</dt><dd class=\"wide\">{}</dd>", receipt["btc_usd"].as_str().unwrap()));
    has("<td>answered</td>");
    assert!(!page.contains("secret question") && !page.contains(&key));

    for unknown in ["no-id", "%3Cb%3E", "01900000-0000-7000-8000-000000000000"] {
        let page = browser.page_at(&format!("/admin/requests?id={unknown}")).await;
        assert!(page.contains("No money was ever set aside") && !page.contains("<b>"), "{unknown}: {page}");
    }

    // One that was paid with a token of its own: what it was worth, and its change.
    let one_shot = purse.send(100).await;
    let answer = node.chat(&ask("hi")).header("X-Cashu", &one_shot).send().await.unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    answer.bytes().await.unwrap();
    written(&node).await;
    let reader = token(&node, "read").await;
    let story = ok(node.get(&format!("/admin/api/requests/{id}")).bearer_auth(&reader)).await;
    assert_eq!((&story["status"], &story["payment"]["by"]), (&json!("charged"), &json!("token")));
    assert_eq!(story["payment"]["token_msat"], 100_000);
    assert_eq!(story["settlement"]["charged_msat"], 2_000);
    assert_eq!(story["change"][0]["amount_msat"], 98_000);
    assert_eq!(story["attempts"][0]["outcome"], "answered");
    assert!(story["payment"]["mint"].as_str().unwrap().starts_with("http"));
    let page = browser.page_at(&format!("/admin/requests?id={id}")).await;
    assert!(page.contains("a token in X-Cashu") && page.contains("98.000") && !page.contains(&one_shot), "{page}");
    let nobody = node.get("/admin/api/requests/no-id").bearer_auth(&reader).send().await.unwrap();
    assert_eq!(nobody.status(), 404);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_found_by_what_they_were_and_paged() {
    let world = World::new(&[json!({}), json!({})], &[]).await;
    let reader = token(&world.node, "read").await;
    let find = async |query: &str| {
        written(&world.node).await;
        ok(world.node.get(&format!("/admin/api/requests?{query}")).bearer_auth(&reader)).await
    };
    let mut sent = Vec::new();
    let mut send = async |body: &Value, key: &str| {
        let answer = world.node.chat(body).bearer_auth(key).send().await.unwrap();
        sent.push(answer.headers()["x-request-id"].to_str().unwrap().to_owned());
        answer.bytes().await.unwrap();
        world.node.settled().await;
        // Ids are told apart by the millisecond.
        world.clock.step(Duration::from_millis(5));
        sent.last().unwrap().clone()
    };
    let plain = send(&ask("hi"), &world.key).await;
    let mut other = ask("hi");
    other["model"] = "toy/cheap".into();
    let cheap = send(&other, &world.key).await;
    // The first upstream refuses what is the client's mistake: nobody else is asked.
    world.upstreams[0].next(refuse(400));
    let wrong = send(&ask("hi"), &world.key).await;
    world.clock.step(Duration::from_secs(2 * 3600));
    world.upstreams[0].next(refuse(500));
    let second = send(&ask("hi"), &world.key).await;
    let key = world.purse.send(50).await;
    let theirs = send(&ask("hi"), &key).await;

    let all = find("").await;
    assert_eq!(ids(&all), [&theirs, &second, &wrong, &cheap, &plain]);
    assert!(all["next"].is_null());
    let one = &all["requests"][1];
    assert_eq!((&one["status"], &one["upstream"], &one["model"]), (&json!("charged"), &json!(NAMES[1]), &json!(MODEL)));
    assert_eq!(
        (&one["charged_msat"], &one["input_tokens"], &one["output_tokens"]),
        (&json!(2000), &json!(100), &json!(50))
    );
    assert_eq!(one["paid_by"], "key");
    let failed = &all["requests"][2];
    assert_eq!((&failed["status"], &failed["failure"]), (&json!("failed"), &json!("upstream_rejected")));

    assert_eq!(ids(&find("model=toy/cheap").await), [&cheap]);
    assert_eq!(ids(&find(&format!("model={MODEL}")).await), [&theirs, &second, &wrong, &plain]);
    assert_eq!(ids(&find("model=toy/%25").await), Vec::<&str>::new(), "a pattern is text");
    assert_eq!(ids(&find(&format!("upstream={}", NAMES[1])).await), [&theirs, &second], "the first one rests");
    assert_eq!(ids(&find(&format!("upstream={}", NAMES[0])).await), [&wrong, &cheap, &plain]);
    assert_eq!(ids(&find("status=failed").await), [&wrong]);
    assert_eq!(ids(&find("status=upstream_rejected").await), [&wrong]);
    assert_eq!(ids(&find("status=upstream_error").await), Vec::<&str>::new());
    assert_eq!(ids(&find("status=charged").await), [&theirs, &second, &cheap, &plain]);
    assert_eq!(ids(&find("status=free").await), Vec::<&str>::new());
    assert_eq!(ids(&find("status=running").await), Vec::<&str>::new());
    let began = |at: usize| all["requests"][at]["began_ms"].as_i64().unwrap();
    assert_eq!(ids(&find(&format!("from={}&to={}", began(3), began(1))).await), [&wrong, &cheap]);
    let own = one["key"].as_str().unwrap();
    assert_eq!(ids(&find(&format!("key={own}")).await), [&second, &cheap, &plain], "what it was charged for");
    assert_eq!(ids(&find(&format!("key={own}&model=toy/cheap")).await), [&cheap]);
    assert_eq!(ids(&find(&format!("key={own}&to={}", began(2))).await), [&cheap, &plain]);
    let hash = all["requests"][0]["key"].as_str().unwrap();
    assert_eq!(ids(&find(&format!("key={hash}")).await), [&theirs]);
    for wrong in ["from=yesterday", "key=xyz1", "key=ab", "status=a%25", "status=bogus", "after=x"] {
        let refused =
            world.node.get(&format!("/admin/api/requests?{wrong}")).bearer_auth(&reader).send().await.unwrap();
        assert_eq!(refused.status(), 400, "{wrong}");
    }

    // A page goes on where the one before has ended, whatever is looked for.
    for _ in 0..55 {
        send(&ask("hi"), &world.key).await;
    }
    for query in [String::new(), format!("model={MODEL}"), format!("key={own}"), format!("upstream={}", NAMES[1])] {
        let first = find(&query).await;
        assert_eq!(ids(&first).len(), 50, "{query}");
        let rest = find(&format!("{query}&after={}", first["next"].as_str().unwrap())).await;
        assert!(rest["next"].is_null());
        let whole = [ids(&first), ids(&rest)].concat();
        let distinct: std::collections::BTreeSet<_> = whole.iter().collect();
        assert_eq!(distinct.len(), whole.len(), "{query}");
        assert!(whole.is_sorted_by(|one, other| one > other), "ids of requests sort by time");
        let browser = Browser::log_in(&world.node).await;
        let page = browser.page_at(&format!("/admin/requests?{query}")).await;
        assert!(page.contains("Earlier ones") && page.contains(whole[49]) && !page.contains(whole[50]), "{page}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_ends_a_request_that_runs() {
    let world = World::new(&[json!({})], &[]).await;
    let reader = token(&world.node, "read").await;
    let manager = token(&world.node, "manage").await;
    let running = async || ok(world.node.get("/admin/api/requests/running").bearer_auth(&reader)).await;
    let abort = async |id: &str, token: &str| {
        world.node.post(&format!("/admin/api/requests/{id}/abort")).bearer_auth(token).send().await.unwrap().status()
    };
    assert_eq!(running().await, json!([]));

    // A stream of which some came: that is charged, and its client is told.
    let before = vec![sse(MODEL, &[], None)[0].clone(), delta(MODEL, "some words that were read")];
    world.upstreams[0].next(Script::Paused { before, after: Vec::new() });
    let mut stream = world.node.chat(&ask_streaming("hi")).bearer_auth(&world.key).send().await.unwrap();
    let id = stream.headers()["x-request-id"].to_str().unwrap().to_owned();
    let mut text = String::new();
    while !text.contains("some words") {
        text.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()));
    }
    let list = running().await;
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!((&list[0]["request"]["id"], &list[0]["is_here"]), (&json!(id), &json!(true)));
    assert_eq!((&list[0]["request"]["model"], &list[0]["request"]["upstream"]), (&json!(MODEL), &json!(NAMES[0])));
    assert_eq!(abort(&id, &reader).await, 403);
    assert_eq!(abort("no such", &manager).await, 404);
    let browser = Browser::log_in(&world.node).await;
    let page = browser.page_at("/admin/requests").await;
    assert!(page.contains(&format!("aria-label=\"Abort {id}\"")), "{page}");
    let wrong = browser.post("/admin/requests/abort", &[("csrf", "made up"), ("id", &id)]).await;
    assert_eq!(wrong.status(), 403);
    let csrf = crate::price_sync::csrf(&page);
    assert_eq!(browser.post("/admin/requests/abort", &[("csrf", &csrf), ("id", &id)]).await.status(), 303);
    while let Some(chunk) = stream.chunk().await.unwrap() {
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    let last = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["error"]["message"], "The operator of this node has ended this request.", "{text}");
    assert_eq!((&last["error"]["type"], &last["error"]["code"]), (&json!("api_error"), &json!("request_aborted")));
    world.node.settled().await;
    let (balance, held, spent) = world.node.balance(&world.key).await;
    assert!(held == 0 && spent > 0 && spent < 1_000 && balance + spent == 1_000_000, "{balance} {held} {spent}");

    // One that has nothing yet: it costs nothing, and says so.
    world.upstreams[0].next(Script::Hang);
    let asking = tokio::spawn(world.node.chat(&ask("hi")).bearer_auth(&world.key).send());
    until("it runs", async || running().await[0]["request"]["upstream"] == NAMES[0]).await;
    let id = running().await[0]["request"]["id"].as_str().unwrap().to_owned();
    assert_eq!(abort(&id, &manager).await, 204);
    let answer = asking.await.unwrap().unwrap();
    assert_eq!(answer.status(), 503);
    let told: Value = answer.json().await.unwrap();
    assert_eq!(told["error"]["code"], "request_aborted");
    assert_eq!(world.spent().await, spent);
    assert_eq!((running().await, abort(&id, &manager).await.as_u16()), (json!([]), 404));
    written(&world.node).await;
    let found = ok(world.node.get("/admin/api/requests?status=request_aborted").bearer_auth(&reader)).await;
    assert_eq!(found["requests"].as_array().unwrap().len(), 2);
    let trail = sqlx::query("SELECT COUNT(*) FROM admin_trail WHERE action = 'requests.abort'");
    let acts: i64 =
        sqlx::Row::get(&trail.fetch_one(world.node.running().exchange().ledger.store().read()).await.unwrap(), 0);
    assert_eq!(acts, 2);
    // The upstream is not blamed.
    assert!(!browser.page_at("/admin/upstreams").await.contains("left alone"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_come_as_csv_in_which_nothing_is_a_formula() {
    let world = World::new(&[json!({})], &[]).await;
    world.send(&ask("hi")).await;
    world.upstreams[0].next(refuse(400));
    world.send(&ask("hi")).await;
    written(&world.node).await;
    let exchange = world.node.running().exchange();
    let mut tx = exchange.ledger.store().begin(Durability::Full).await.unwrap();
    sqlx::query("UPDATE outlays SET upstream = '=HYPERLINK(\"http://evil\")'").execute(tx.hand()).await.unwrap();
    tx.commit().await.unwrap();
    let reader = token(&world.node, "read").await;
    let get = async |path: &str| {
        let answer = world.node.get(path).bearer_auth(&reader).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"].to_str().unwrap()[..8]),
            (200, "text/csv")
        );
        answer.text().await.unwrap()
    };
    let text = get("/admin/api/requests.csv").await;
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(lines.len(), 4, "a head, two requests, and the end: {text}");
    assert!(lines[0].starts_with("id,began,took_ms,model,upstream,status"));
    assert!(lines[1].contains(",failed,upstream_rejected,key,") && lines[2].contains(",charged,,key,"), "{text}");
    assert!(lines[1..3].iter().all(|line| line.contains("\"'=HYPERLINK(\"\"http://evil\"\")\"")), "{text}");
    assert_eq!(get("/admin/api/requests.csv?status=charged").await.lines().count(), 2);
    let usage = get("/admin/api/usage.csv").await;
    assert!(usage.starts_with("start,model,upstream,requests,served,"), "{usage}");
    assert_eq!(usage.lines().count(), 2, "{usage}");
    let browser = Browser::log_in(&world.node).await;
    assert_eq!(browser.page_at("/admin/requests.csv").await, text);
    assert_eq!(world.node.get("/admin/requests.csv").send().await.unwrap().status(), 303);
    let manager = token(&world.node, "manage").await;
    for path in ["/admin/api/requests.csv", "/admin/api/usage.csv", "/admin/api/requests", "/admin/api/overview"] {
        assert_eq!(world.node.get(path).bearer_auth(&manager).send().await.unwrap().status(), 403, "{path}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_finds_tells_writes_and_forgets() {
    let world = World::new(&[json!({})], &[("RETENTION_FAILED_DAYS", "3")]).await;
    let id = world.send(&ask("hi")).await.headers["x-request-id"].clone();
    world.upstreams[0].next(refuse(400));
    let wrong = world.send(&ask("hi")).await.headers["x-request-id"].clone();
    written(&world.node).await;
    let run = |words: &[&str]| done(&command(&world.node, "requests", words, ""));
    let list = run(&["list"]);
    assert!(list.contains(&id) && list.contains(&wrong) && list.contains("upstream_rejected"), "{list}");
    let charged: Value = serde_json::from_str(&run(&["list", "--status", "charged", "--json"])).unwrap();
    assert_eq!(ids(&charged), [&id]);
    assert_eq!(run(&["list", "--model", MODEL, "--limit", "1", "--csv"]).lines().count(), 2);
    assert_eq!(run(&["export"]).lines().count(), 3);
    let lines = run(&["export", "--json", "--upstream", NAMES[0]]);
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["upstream"] == NAMES[0]), "{lines}");
    assert_eq!(lines.lines().count(), 2);
    let story = run(&["show", &id]);
    assert!(story.contains("charged") && story.contains("2.000 sat") && story.contains("answered"), "{story}");
    let refused = command(&world.node, "requests", &["list", "--from", "yesterday"], "");
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(command(&world.node, "requests", &["show", "nobody"], "").status.code(), Some(1));
    assert_eq!(command(&world.node, "requests", &["list", "--what"], "").status.code(), Some(2));
    // One has failed a long time ago.
    let mut tx = world.node.running().exchange().ledger.store().begin(Durability::Full).await.unwrap();
    sqlx::query("UPDATE outlays SET id = id - 724775731200000").execute(tx.hand()).await.unwrap();
    sqlx::query("DELETE FROM settings WHERE name = 'failed_pruned_below'").execute(tx.hand()).await.unwrap();
    tx.commit().await.unwrap();
    let counted = |words: &[&str]| -> Value { serde_json::from_str(&run(words)).unwrap() };
    let expected = |dry_run: bool| json!({ "dry_run": dry_run, "requests": 0, "failed": 1 });
    assert_eq!(counted(&["prune", "--dry-run", "--json"]), expected(true));
    assert_eq!(counted(&["prune", "--json"]), expected(false));
    assert_eq!(counted(&["prune", "--json"])["failed"], 0);
    assert!(run(&["list"]).contains(&wrong), "what was held for it is kept");
    world.finish().await;
}
