//! Settings that a node is told while it runs: on the page, by the API, by the command.

use reqwest::Method;
use serde_json::{Value, json};

use crate::bearer::{refund, world};
use crate::price_sync::{Browser, csrf};
use crate::support::node::{MODEL, TestNode, UPSTREAM_KEY, ask};
use crate::support::program::{Program, coinslot, told};
use crate::support::purse::Purse;

/// One setting as the API shows it.
async fn setting(program: &Program<'_>, name: &str) -> Value {
    let all = program.get("/admin/api/settings").await;
    all.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone()
}

async fn set(program: &Program<'_>, name: &str, value: Value) -> (u16, Value) {
    program.call(Method::PATCH, "/admin/api/settings", &json!({ "settings": { name: value } })).await
}

async fn cost(node: &TestNode, key: &str) -> String {
    let answer = node.chat(&ask("what is it")).bearer_auth(key).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let cost = answer.headers()["x-routstr-cost-msats"].to_str().unwrap().to_owned();
    answer.bytes().await.unwrap();
    cost
}

async fn info(node: &TestNode) -> Value {
    node.get("/v1/info").send().await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_is_in_force_at_once_and_the_environment_wins() {
    let (_mint, purse, _upstream, mut node) = world(1000).await;
    let token = purse.send(200).await;
    assert_eq!(cost(&node, &token).await, "2000");
    {
        let manager = Program::with(&node, "read manage").await;
        // The test's environment says these.
        let fee = setting(&manager, "UPSTREAM_PROVIDER_FEE").await;
        assert_eq!(
            (&fee["origin"], &fee["value"], &fee["can_be_set"]),
            (&json!("environment"), &json!("1"), &json!(false))
        );
        let (status, refusal) = set(&manager, "UPSTREAM_PROVIDER_FEE", json!("2")).await;
        assert_eq!(status, 409, "{refusal}");
        // What is no number, and what only the environment may say, changes nothing.
        for (name, value) in
            [("MIN_REQUEST_MSAT", "x"), ("ADMIN_PASSWORD", "hunter2"), ("CASHU_MINTS", "https://m"), ("PATH", "/")]
        {
            let (status, refusal) = set(&manager, name, json!(value)).await;
            assert_eq!((status, &refusal["code"]), (400, &json!("invalid_request")), "{refusal}");
            assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
        }
        let both = json!({ "settings": { "NAME": "other", "MIN_REQUEST_MSAT": "x" } });
        assert_eq!(manager.call(Method::PATCH, "/admin/api/settings", &both).await.0, 400);
        assert_eq!(info(&node).await["name"], "coinslot", "all of it or nothing");

        let (status, done) = set(&manager, "MIN_REQUEST_MSAT", json!("5000")).await;
        assert_eq!((status, &done["changed"]), (200, &json!(["MIN_REQUEST_MSAT"])), "{done}");
        assert_eq!(cost(&node, &token).await, "5000");
        let (status, _) = set(&manager, "KEY_REQUESTS_PER_MINUTE", json!("1")).await;
        assert_eq!(status, 200);
        assert_eq!(node.chat(&ask("first")).bearer_auth(&token).send().await.unwrap().status(), 200);
        assert_eq!(node.chat(&ask("second")).bearer_auth(&token).send().await.unwrap().status(), 429);
        set(&manager, "KEY_REQUESTS_PER_MINUTE", Value::Null).await;
        // Where money goes takes another scope.
        assert_eq!(set(&manager, "RECEIVE_LN_ADDRESS", json!("thief@example.com")).await.0, 403);
        // So does the address at which clients pay, and for which signed logins are good.
        for (name, value) in [("HTTP_URL", "https://thief.example"), ("ONION_URL", "http://thief.onion")] {
            assert_eq!(set(&manager, name, json!(value)).await.0, 403, "{name}");
        }
        let rich = Program::with(&node, "read manage money").await;
        assert_eq!(set(&rich, "RECEIVE_LN_ADDRESS", json!("no address")).await.0, 400);
        assert_eq!(set(&rich, "MINIMUM_PAYOUT", json!("9999")).await.0, 200);
        assert_eq!(node.running().exchange().settings.now().payouts.minimum.get(), 9_999_000);
        // What waits for the next start says so.
        assert_eq!(set(&manager, "UPSTREAM_MAX_ATTEMPTS", json!("7")).await.0, 200);
        let attempts = setting(&manager, "UPSTREAM_MAX_ATTEMPTS").await;
        assert_eq!((&attempts["waits"], &attempts["force"]), (&json!(true), &json!("at_the_next_start")));
        assert_eq!(node.running().exchange().settings.now().upstreams.max_attempts, 4);
        let trail = manager.get("/admin/api/trail?action=settings.set&limit=500").await;
        let subjects: Vec<&str> =
            trail["acts"].as_array().unwrap().iter().map(|act| act["subject"].as_str().unwrap()).collect();
        let expected = [
            "UPSTREAM_MAX_ATTEMPTS",
            "MINIMUM_PAYOUT",
            "KEY_REQUESTS_PER_MINUTE",
            "KEY_REQUESTS_PER_MINUTE",
            "MIN_REQUEST_MSAT",
        ];
        assert_eq!(subjects, expected);
    }
    node.restart().await;
    assert_eq!(node.running().exchange().settings.now().upstreams.max_attempts, 7);
    assert_eq!(cost(&node, &token).await, "5000", "what was told outlives the process");
    node.restart_with("MIN_REQUEST_MSAT", "6000").await;
    assert_eq!(cost(&node, &token).await, "6000", "the environment wins");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_sets_exports_and_imports_and_shows_no_secret() {
    let (_mint, _purse, _upstream, node) = world(10).await;
    assert_eq!(node.get("/admin/settings").send().await.unwrap().status(), 303);
    assert_eq!(node.get("/admin/settings/export").send().await.unwrap().status(), 303);
    let browser = Browser::log_in(&node).await;
    let page = browser.page_at("/admin/settings").await;
    let form = csrf(&page);
    assert!(page.contains("UPSTREAM_API_KEY") && !page.contains(UPSTREAM_KEY) && !page.contains("an admin password"));
    let hostile = "<script>alert(1)</script>\"";
    assert_eq!(browser.post("/admin/settings", &[("csrf", "x"), ("name", "NAME"), ("value", "y")]).await.status(), 403);
    let named = [("csrf", &*form), ("name", "NAME"), ("value", hostile)];
    assert_eq!(browser.post("/admin/settings", &named).await.status(), 303);
    let page = browser.page_at("/admin/settings").await;
    assert!(!page.contains("<script>") && page.contains("&#60;script&#62;"), "{page}");
    let shop = node.get("/").header("accept", "text/html").send().await.unwrap().text().await.unwrap();
    assert!(!shop.contains("<script>") && shop.contains("&#60;script&#62;"), "{shop}");
    assert_eq!(info(&node).await["name"], hostile);
    let refused = browser.post("/admin/settings", &[("csrf", &form), ("name", "EXCHANGE_FEE"), ("value", "3")]).await;
    assert_eq!(refused.status(), 409);
    assert!(refused.text().await.unwrap().contains("role=\"alert\""));

    let exported: Value = serde_json::from_str(&browser.page_at("/admin/settings/export").await).unwrap();
    assert_eq!(exported["settings"]["NAME"], hostile);
    let secrets = exported["secrets"].as_array().unwrap();
    assert!(secrets.contains(&json!("UPSTREAM_API_KEY")) && secrets.contains(&json!("ADMIN_PASSWORD")));
    let text = exported.to_string();
    assert!(!text.contains(UPSTREAM_KEY) && !text.contains("an admin password"), "{text}");
    let (mut document, unchanged) = (exported.clone(), exported.to_string());
    document["settings"]["NAME"] = json!("imported");
    document["profiles"] = json!([{ "name": "club", "multiplier": "1.5" }]);
    let text = document.to_string();
    let import = async |act: &str, document: &str| {
        let sent = [("csrf", &*form), ("document", document), ("act", act)];
        let answer = browser.post("/admin/settings/import", &sent).await;
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, page) = import("look", &unchanged).await;
    assert!(status == 200 && page.contains("It would change nothing"), "{page}");
    let (status, page) = import("look", &text).await;
    assert!(status == 200 && page.contains("It would change</h3>") && page.contains("profile club"), "{page}");
    assert!(page.contains("not <code>UPSTREAM_API_KEY</code>"), "{page}");
    assert_eq!(info(&node).await["name"], hostile, "looking changes nothing");
    let (status, page) = import("import", &text).await;
    assert!(status == 200 && page.contains("It changed"), "{page}");
    assert_eq!(info(&node).await["name"], "imported");
    assert!(browser.page_at("/admin/profiles").await.contains("club"));
    assert_eq!(import("import", "{\"settings\": 1}").await.0, 400);
    assert_eq!(import("import", "{\"settings\": {\"CHILD_KEY_COST\": \"x\"}, \"profiles\": []}").await.0, 400);

    // Maintenance is a button.
    let turn = [("csrf", &*form), ("on", "yes")];
    assert_eq!(browser.post("/admin/settings/maintenance", &turn).await.status(), 303);
    let ready = node.get("/readyz").send().await.unwrap();
    assert!(ready.status() == 503 && ready.text().await.unwrap().contains("being maintained"));
    let manager = Program::with(&node, "read manage").await;
    assert_eq!(manager.get("/admin/api/maintenance").await, json!({ "on": true, "is_fixed": false }));
    assert_eq!(manager.post("/admin/api/maintenance", &json!({ "on": false })).await.0, 204);
    assert_eq!(manager.get("/admin/api/maintenance").await["on"], false);
    let reader = Program::with(&node, "read").await;
    assert_eq!(reader.post("/admin/api/maintenance", &json!({ "on": true })).await.0, 403);
    node.finish().await;
}

/// What one node exports, another takes, by the call and on the page.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_document_is_taken() {
    let (_mint, _purse, _upstream, node) = world(10).await;
    let manager = Program::with(&node, "read manage").await;
    let profile = |number: usize| {
        let models: Vec<String> = (0..5).map(|at| format!("provider-{at}/a-model-of-some-length-{number}-*")).collect();
        json!({ "name": format!("club-{number}"), "multiplier": "1.5", "models": models })
    };
    let document = json!({ "profiles": (0..100).map(profile).collect::<Vec<_>>() });
    assert!(document.to_string().len() > 16 * 1024);
    let (status, taken) = manager.post("/admin/api/settings/export", &document).await;
    assert_eq!((status, taken["profiles"].as_array().map(Vec::len)), (200, Some(100)), "{taken}");
    let browser = Browser::log_in(&node).await;
    let form = csrf(&browser.page_at("/admin/settings").await);
    let exported = browser.page_at("/admin/settings/export").await;
    assert!(exported.contains("club-59") && exported.len() > 16 * 1024);
    let sent = [("csrf", &*form), ("document", &*exported), ("act", "look")];
    let answer = browser.post("/admin/settings/import", &sent).await;
    let (status, page) = (answer.status().as_u16(), answer.text().await.unwrap());
    assert!(status == 200 && page.contains("It would change nothing"), "{status} {page}");
    let description = "x".repeat(20_000);
    let named = [("csrf", &*form), ("name", "DESCRIPTION"), ("value", &*description)];
    assert_ne!(browser.post("/admin/settings", &named).await.status(), 413);
    let endless = json!({ "coinslot": "x".repeat(70_000) });
    assert_eq!(manager.post("/admin/api/settings/export", &endless).await.0, 413);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_fixes_the_maintenance_switch() {
    let (mint, upstream) =
        (crate::support::mint::TestMint::start().await, crate::support::upstream::Upstream::start().await);
    let node = TestNode::with(&mint, &upstream, &[("MAINTENANCE", "false")]).await;
    let manager = Program::with(&node, "read manage").await;
    assert_eq!(manager.get("/admin/api/maintenance").await, json!({ "on": false, "is_fixed": true }));
    assert_eq!(manager.post("/admin/api/maintenance", &json!({ "on": true })).await.0, 409);
    assert!(Browser::log_in(&node).await.page_at("/admin/settings").await.contains("The environment says so"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tells_a_running_node() {
    let (_mint, _purse, _upstream, node) = world(10).await;
    let settings = node.settings();
    assert!(told(settings, &["settings", "list"]).contains("NAME=coinslot  [default; can be told at once]"));
    let done = told(settings, &["settings", "set", "DESCRIPTION", "told by the command"]);
    assert!(done.contains("within seconds"), "{done}");
    assert!(told(settings, &["settings", "get", "DESCRIPTION"]).contains("told by the command  [told]"));
    // What the node's own job does every two seconds.
    node.running().exchange().learn_settings().await.unwrap();
    assert_eq!(info(&node).await["description"], "told by the command");
    for words in [["set", "DESCRIPTION", "a\nb"], ["set", "EXCHANGE_FEE", "2"], ["set", "MODELS_PATH", "x"]] {
        assert_eq!(coinslot(settings, &[&["settings"][..], &words].concat()).status.code(), Some(1), "{words:?}");
    }
    for words in [&["settings", "set", "FOO", "x"][..], &["settings", "unset", "FOO"]] {
        let refused = coinslot(settings, words);
        let why = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(1) && why.contains("FOO: is no setting; expected one that"), "{why}");
    }
    told(settings, &["settings", "unset", "DESCRIPTION"]);
    node.running().exchange().learn_settings().await.unwrap();
    assert_eq!(info(&node).await["description"], "");
    // What the node was told counts for the other verbs, too.
    assert!(told(settings, &["check"]).contains("set RELAYS"));
    told(settings, &["settings", "set", "RELAYS", "ws://127.0.0.1:9"]);
    let checked = told(settings, &["check"]);
    assert!(!checked.contains("set RELAYS") && checked.contains("set HTTP_URL"), "{checked}");
    let examined = String::from_utf8(coinslot(settings, &["doctor"]).stdout).unwrap();
    assert!(examined.contains("ws://127.0.0.1:9"), "{examined}");
    told(settings, &["settings", "unset", "RELAYS"]);
    // The file that it prints is the one in the repository, and documents every setting.
    let file = told(settings, &["settings", "init"]);
    assert!(coinslot::config::SETTINGS.iter().all(|setting| file.contains(&format!("{}=", setting.name))));
    let exported: Value = serde_json::from_str(&told(settings, &["settings", "export"])).unwrap();
    assert!(!exported.to_string().contains(UPSTREAM_KEY));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_winds_down_takes_no_new_money_and_gives_all_back() {
    let (mint, purse, _upstream, node) = world(1000).await;
    let (old, fresh) = (purse.send(200).await, purse.send(100).await);
    node.chat(&ask("before")).bearer_auth(&old).send().await.unwrap().bytes().await.unwrap();
    let manager = Program::with(&node, "read manage").await;
    assert_eq!(info(&node).await["accepts_new_tokens"], true);
    assert_eq!(set(&manager, "ACCEPT_NEW_TOKENS", json!("false")).await.0, 200);
    assert_eq!(info(&node).await["accepts_new_tokens"], false);
    let shop = node.get("/").header("accept", "text/html").send().await.unwrap().text().await.unwrap();
    assert!(shop.contains("takes no new money"), "{shop}");

    let calls = mint.calls("/v1/swap");
    let refused = async |request: reqwest::RequestBuilder, what: &str| {
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status == 403 && text.contains("new_money_not_taken"), "{what}: {status} {text}");
    };
    refused(node.chat(&ask("new")).bearer_auth(&fresh), "a token as a key").await;
    refused(node.chat(&ask("new")).header("x-cashu", &fresh), "a token that rides along").await;
    refused(node.post("/v1/wallet/create").json(&json!({ "initial_balance_token": fresh })), "a key").await;
    refused(node.post("/v1/wallet/topup").bearer_auth(&old).json(&json!({ "cashu_token": fresh })), "a top-up").await;
    refused(node.post("/v1/wallet/donate").json(&json!({ "token": fresh })), "a gift").await;
    refused(node.post("/lightning/invoice").json(&json!({ "amount_sats": 5, "purpose": "create" })), "an invoice")
        .await;
    let more = json!({ "amount_sats": 5, "purpose": "topup", "api_key": old });
    refused(node.post("/lightning/invoice").bearer_auth(&old).json(&more), "an invoice for a key").await;
    assert_eq!(mint.calls("/v1/swap"), calls, "nothing was redeemed");
    assert_eq!(worth(&purse, &fresh).await, 100, "the token is as good as before");

    // What is there is spent and paid back.
    let answer = node.chat(&ask("after")).bearer_auth(&old).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json::<Value>().await.unwrap()["model"], MODEL);
    assert_eq!(refund(&node, &purse, &old).await, 196);
    node.finish().await;
}

async fn worth(purse: &Purse, token: &str) -> u64 {
    purse.receive(token).await.unwrap()
}
