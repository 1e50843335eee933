//! What the operator does with keys: by pages, by calls, by the command line.

use coinslot::ledger::keys::Filter;
use coinslot::store::Durability;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::alerts::tamper;
use crate::bearer::{refund, world};
use crate::support::answers::until;
use crate::support::node::{MODEL, TestNode, ask, ask_streaming, client};
use crate::support::operator::{Operator, call, program, trail};
use crate::support::program::coinslot;
use crate::support::upstream::{Script, delta};

/// What the upstream's echo costs.
const COST: i64 = 2_000;

/// A new id for an act.
fn act() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The keys that are listed for this query.
async fn list(operator: &Operator, query: &str) -> Vec<Value> {
    operator.get(&format!("/admin/api/keys{query}")).await["keys"].as_array().unwrap().clone()
}

/// The id of the only key that there is.
async fn only_key(operator: &Operator) -> String {
    let keys = list(operator, "").await;
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys[0]["id"].as_str().unwrap().to_owned()
}

async fn chat(node: &TestNode, key: &str) -> (u16, Value) {
    let answer = node.chat(&ask("hi")).bearer_auth(key).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_key_pays_for_nothing_and_its_owner_is_paid_back() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let key = purse.send(200).await;
    assert_eq!(chat(&node, &key).await.0, 200);
    let made = node.post("/v1/wallet/child-key").bearer_auth(&key).json(&json!({ "count": 1 })).send().await.unwrap();
    let made: Value = made.json().await.unwrap();
    let child = made["api_keys"][0].as_str().unwrap().to_owned();
    let operator = Operator::log_in(&node.url()).await;
    let parent = list(&operator, "?state=funded").await[0].clone();
    let (id, page) = (parent["id"].as_str().unwrap(), format!("/admin/keys/{}", parent["id"].as_str().unwrap()));

    // A request that runs is finished and charged.
    upstream.next(Script::Paused { before: vec![delta(MODEL, "first")], after: vec![delta(MODEL, "second")] });
    let mut running = node.chat(&ask_streaming("hi")).bearer_auth(&key).send().await.unwrap();
    assert!(running.chunk().await.unwrap().is_some());
    let answer = operator.fill(&page, &format!("{page}/block"), &[]).await;
    assert_eq!((answer.status().as_u16(), answer.headers()["location"].to_str().unwrap()), (303, page.as_str()));
    upstream.resume();
    while running.chunk().await.unwrap().is_some() {}
    node.settled().await;
    let (balance, held, spent) = node.balance(&key).await;
    assert!(held == 0 && spent > u64::try_from(COST).unwrap(), "{balance} {held} {spent}");

    for paying in [&key, &child] {
        let (status, body) = chat(&node, paying).await;
        assert_eq!((status, &body["error"]["code"]), (403, &json!("key_blocked")), "{body}");
        let message = json!({ "model": MODEL, "max_tokens": 9, "messages": [{ "role": "user", "content": "hi" }] });
        let text = json!({ "model": MODEL, "input": "hi" });
        let parts = json!({ "contents": [{ "parts": [{ "text": "hi" }] }] });
        let gemini = format!("/v1beta/models/{MODEL}:generateContent");
        for (path, body) in [("/v1/messages", &message), ("/v1/responses", &text), (gemini.as_str(), &parts)] {
            let answer = node.post(path).bearer_auth(paying).json(body).send().await.unwrap();
            assert_eq!(answer.status(), 403, "{path}");
            let said = answer.text().await.unwrap();
            assert!(said.contains("has blocked this key"), "{path}: {said}");
        }
        let answer = node.chat(&ask_streaming("hi")).bearer_auth(paying).send().await.unwrap();
        assert_eq!(answer.status(), 403);
        let usage: Value = node.get("/v1/usage").bearer_auth(paying).send().await.unwrap().json().await.unwrap();
        assert_eq!(usage["is_active"], false);
    }
    let more = node.post("/v1/wallet/child-key").bearer_auth(&key).json(&json!({ "count": 1 })).send().await.unwrap();
    assert_eq!(more.status(), 403);
    let info: Value = node.get("/v1/wallet/info").bearer_auth(&key).send().await.unwrap().json().await.unwrap();
    assert_eq!(info["blocked"], true);
    assert_eq!(node.balance(&child).await.0, 0, "a child has nothing to spend");
    let seen = list(&operator, "?state=blocked").await;
    assert_eq!((seen.len(), &seen[0]["id"], &seen[0]["state"]), (1, &json!(id), &json!("blocked")));
    assert_eq!(list(&operator, "?state=usable").await.len(), 0, "the child neither");
    assert_eq!(list(&operator, "?state=child").await[0]["state"], "parent blocked");

    let (status, _) = operator.call("POST", &format!("/admin/api/keys/{id}/unblock"), None).await;
    assert_eq!(status, 204);
    for paying in [&key, &child] {
        assert_eq!(chat(&node, paying).await.0, 200);
    }
    let (status, _) = operator.call("POST", &format!("/admin/api/keys/{id}/block"), None).await;
    assert_eq!(status, 204);
    let left = node.balance(&key).await.0;
    assert_eq!(refund(&node, &purse, &key).await, left / 1000, "a blocked key is paid back");

    let acts: Vec<_> = trail(&node).await.into_iter().map(|(actor, action, _)| (actor, action)).collect();
    let wanted = ["keys.block", "keys.unblock", "keys.block"].map(|act| ("password".to_owned(), act.to_owned()));
    assert_eq!(acts, wanted);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_never_filled_is_not_listed() {
    let (mut mint, purse, _upstream, node) = world(1000).await;
    let operator = Operator::log_in(&node.url()).await;
    let key = purse.send(100).await;
    assert_eq!(node.balance(&key).await.0, 100_000);
    let id = only_key(&operator).await;
    // One that was emptied was somebody's.
    assert_eq!(refund(&node, &purse, &key).await, 100);
    mint.stop().await;
    let invoice = node.post("/lightning/invoice").json(&json!({ "amount_sats": 9, "purpose": "create" }));
    assert_eq!(invoice.send().await.unwrap().status(), 503);
    mint.restart().await;
    assert_eq!(only_key(&operator).await, id);
    assert_eq!(list(&operator, "?state=usable").await.len(), 1);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_found_and_their_terms_changed() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let operator = Operator::log_in(&node.url()).await;
    let mut ids = Vec::new();
    for sats in [100, 110, 120] {
        let key = purse.send(sats).await;
        node.balance(&key).await;
        let newest = list(&operator, "?limit=1").await[0].clone();
        assert_eq!(newest["balance_msat"], json!(sats * 1000));
        ids.push((key, newest["id"].as_str().unwrap().to_owned(), newest["hash"].as_str().unwrap().to_owned()));
    }
    // The newest first, part by part.
    let first = operator.get("/admin/api/keys?limit=2").await;
    assert_eq!((&first["keys"][0]["id"], &first["keys"][1]["id"]), (&json!(ids[2].1), &json!(ids[1].1)));
    let after = first["next"].as_str().unwrap();
    let second = operator.get(&format!("/admin/api/keys?limit=2&after={after}")).await;
    assert_eq!((&second["keys"][0]["id"], &second["next"]), (&json!(ids[0].1), &Value::Null));
    for (_, id, hash) in &ids {
        let found = list(&operator, &format!("?hash={hash}")).await;
        assert_eq!((found.len(), &found[0]["id"]), (1, &json!(id)));
    }
    for query in ["?hash=abc", "?hash=zzzzzzzz", "?state=gone", "?after=x"] {
        let (status, said) = operator.call("GET", &format!("/admin/api/keys{query}"), None).await;
        assert_eq!((status, &said["code"]), (400, &json!("invalid_request")), "{query}");
    }
    assert!(operator.page("/admin/keys?hash=00000000").await.contains("There is none."));

    // By a form, all terms at once.
    let (key, id, hash) = &ids[0];
    let page = format!("/admin/keys/{id}");
    let terms = [
        ("label", "<b>bob's</b> 100%"),
        ("profile", ""),
        ("limit", "3.5"),
        ("reset", "daily"),
        ("valid_until", "2999-01-01"),
    ];
    assert_eq!(operator.fill(&page, &page, &terms).await.status(), 303);
    let shown = operator.page(&page).await;
    assert!(shown.contains("&#60;b&#62;bob&#39;s&#60;/b&#62; 100%") && !shown.contains("<b>"), "{shown}");
    assert!(shown.contains(r#"value="3.5""#) && shown.contains(r#"value="2999-01-01T00:00:00Z""#), "{shown}");
    assert!(!shown.contains(key.as_str()), "never the key itself");
    for wrong in [
        ("limit", "much"),
        ("reset", "hourly"),
        ("valid_until", "soon"),
        ("valid_until", "1900000000"),
        ("profile", "none such"),
    ] {
        let mut terms = terms.to_vec();
        terms.retain(|(name, _)| *name != wrong.0);
        terms.push(wrong);
        assert_eq!(operator.fill(&page, &page, &terms).await.status(), 400, "{wrong:?}");
    }
    for label in ["?label=BOB", "?label=0%25", "?label=%3Cb%3E"] {
        assert_eq!(list(&operator, label).await[0]["hash"], json!(hash), "{label}");
    }
    assert_eq!(list(&operator, "?label=b_b").await.len(), 0, "no wildcards");
    let (status, body) = chat(&node, key).await;
    assert_eq!((status, &body["error"]["code"]), (402, &json!("balance_limit_exceeded")), "{body}");

    // By a call, one at a time; null takes away.
    let path = format!("/admin/api/keys/{id}");
    let (status, one) = operator.call("PATCH", &path, Some(json!({ "limit_msat": null, "label": "bob" }))).await;
    let now = &one["key"];
    assert_eq!((status, &now["limit_msat"], &now["label"]), (200, &Value::Null, &json!("bob")));
    assert_eq!((&now["limit_reset"], &now["valid_until_ms"]), (&json!("daily"), &json!(32_472_144_000_000_i64)));
    assert_eq!(chat(&node, key).await.0, 200);
    let (_, one) = operator.call("PATCH", &path, Some(json!({ "valid_until_ms": 1 }))).await;
    assert_eq!((&one["key"]["state"], one["requests"].as_array().unwrap().len()), (&json!("ended"), 1));
    assert_eq!(list(&operator, "?state=ended").await.len(), 1);
    assert_eq!(chat(&node, key).await.1["error"]["code"], "key_expired");
    for (body, code) in [
        (json!({ "refund_at_ms": 1 }), 400),
        (json!({ "profile": "none such" }), 400),
        (json!({ "limit": 1 }), 422),
        (json!({ "label": "a\nb" }), 400),
    ] {
        assert_eq!(operator.call("PATCH", &path, Some(body.clone())).await.0, code, "{body}");
    }
    assert_eq!(operator.call("PATCH", "/admin/api/keys/1", Some(json!({ "label": "x" }))).await.0, 404);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_address_is_shown_shortened_and_its_time_can_be_moved() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let key = purse.send(50).await;
    let request = node.get("/v1/wallet/info").bearer_auth(&key);
    let request = request.header("refund-lnurl", "satoshi@example.com").header("key-expiry-time", "32472144000");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let operator = Operator::log_in(&node.url()).await;
    let id = only_key(&operator).await;
    let path = format!("/admin/api/keys/{id}");
    let one = operator.get(&path).await;
    assert_eq!(one["key"]["refund_to"], "s…@example.com");
    assert!(!operator.page(&format!("/admin/keys/{id}")).await.contains("satoshi"));
    let (status, one) = operator.call("PATCH", &path, Some(json!({ "refund_at_ms": 32_503_680_000_000_i64 }))).await;
    assert_eq!((status, &one["key"]["refund_at_ms"]), (200, &json!(32_503_680_000_000_i64)));
    let info: Value = node.get("/v1/wallet/info").bearer_auth(&key).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&info["refund_lnurl"], &info["key_expiry_time"]),
        (&json!("satoshi@example.com"), &json!(32_503_680_000_i64))
    );
    // Seconds that are meant for ms, or a year that was mistyped, would send all of it away.
    let over = "That time is over, and the balance would be paid out at once";
    for wrong in [1_900_000_000, 1_577_836_800_000_i64] {
        let (status, said) = operator.call("PATCH", &path, Some(json!({ "refund_at_ms": wrong }))).await;
        assert!(status == 400 && said["detail"].as_str().unwrap().starts_with(over), "{status} {said}");
    }
    let page = format!("/admin/keys/{id}");
    let terms = [("label", ""), ("profile", ""), ("limit", ""), ("reset", ""), ("valid_until", "")];
    for (refund_at, status) in [("1900000000", 400), ("2020-01-01", 400), ("2999-12-31", 303)] {
        let fields = [terms.as_slice(), &[("refund_at", refund_at)]].concat();
        assert_eq!(operator.fill(&page, &page, &fields).await.status(), status, "{refund_at}");
    }
    let said = "1900000000 is not a valid time. Times are written like 2026-12-31 or 2026-12-31T12:00:00Z, in UTC.";
    for (refund_at, code, why) in [("1900000000", 2, said), ("2020-01-01", 1, "give a refund time that lies ahead")] {
        let refused = coinslot(node.settings(), &["keys", "set", &id, "--refund-at", refund_at]);
        let complaint = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(code) && complaint.contains(why), "{complaint}");
    }
    let one = operator.get(&path).await;
    assert_eq!(one["key"]["refund_at_ms"], 32_503_593_600_000_i64, "the last that was taken");
    // What is over already is no hindrance for another term.
    let store = node.running().exchange().ledger.store();
    let mut tx = store.begin(coinslot::store::Durability::Full).await.unwrap();
    sqlx::query("UPDATE key_terms SET expires_at = 1").execute(tx.hand()).await.unwrap();
    tx.commit().await.unwrap();
    let fields = [&terms[1..], &[("label", "bob"), ("refund_at", "1970-01-01T00:00:01Z")]].concat();
    assert_eq!(operator.fill(&page, &page, &fields).await.status(), 303);
    node.finish().await;
}

/// What is wrong is looked for where the error says that it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_figure_that_cannot_be_is_blamed_on_its_own_table() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let key = purse.send(100).await;
    assert_eq!(chat(&node, &key).await.0, 200);
    let ledger = node.running().exchange().ledger.clone();
    let id = ledger.keys(&Filter::default(), None, 1).await.unwrap().keys[0].id;
    // Done twice, it is as it was.
    let turn = async || {
        let mut tx = ledger.store().begin(Durability::Full).await.unwrap();
        sqlx::query("UPDATE accounts SET spent = -1 - spent WHERE kind = 'key'").execute(tx.hand()).await.unwrap();
        tx.commit().await.unwrap();
    };
    turn().await;
    let wrong = ledger.one_key(id).await.unwrap_err().to_string();
    assert_eq!(wrong, "inconsistent row in accounts: amount -2001");
    turn().await;
    assert!(ledger.one_key(id).await.unwrap().is_some());
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_is_adjusted_out_of_what_was_earned_and_no_further() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let key = purse.send(200).await;
    for _ in 0..2 {
        assert_eq!(chat(&node, &key).await.0, 200);
    }
    let operator = Operator::log_in(&node.url()).await;
    let id = only_key(&operator).await;
    let (page, path) = (format!("/admin/keys/{id}"), format!("/admin/api/keys/{id}/adjust"));
    let adjust = async |act: &str, msat: i64| {
        operator.call("POST", &path, Some(json!({ "id": act, "msat": msat, "reason": "sorry" }))).await
    };
    // By the form, which is sent twice.
    let form = operator.page(&page).await;
    let hidden = |name: &str| {
        let form = form.split_once("/adjust\"").unwrap().1;
        let rest = form.split_once(&format!("name=\"{name}\" value=\"")).unwrap().1;
        rest.split_once('"').unwrap().0.to_owned()
    };
    let (csrf, first) = (hidden("csrf"), hidden("act"));
    let fields = [("csrf", &*csrf), ("act", &*first), ("way", "credit"), ("sats", "1.5"), ("reason", "an <outage>")];
    let action = format!("{page}/adjust");
    let send = async || operator.send(&action, &fields).await.status().as_u16();
    assert_eq!(join_all([send(), send()]).await, [303, 303]);
    assert_eq!(node.balance(&key).await.0, 197_500);
    assert!(operator.page(&page).await.contains("an &#60;outage&#62;"));
    // 2.5 sat are left of what was earned.
    let (status, said) = adjust(&act(), 2_501).await;
    assert_eq!(status, 409);
    assert!(said["detail"].as_str().unwrap().contains("only 2.500 sat were earned"), "{said}");
    let (status, _) = adjust(&first, 1_500).await;
    assert_eq!(status, 409, "the id is another act's");
    // At once: what was earned is given once.
    let acts: Vec<String> = (0..8).map(|_| act()).collect();
    let given = join_all(acts.iter().map(|act| adjust(act, 1_000))).await;
    assert_eq!(given.iter().filter(|(status, _)| *status == 200).count(), 2, "{given:?}");
    assert_eq!(node.balance(&key).await.0, 199_500);

    // While a request runs, what is held stays.
    upstream.next(Script::Paused { before: vec![delta(MODEL, "first")], after: vec![delta(MODEL, "second")] });
    let mut running = node.chat(&ask_streaming("hi")).bearer_auth(&key).send().await.unwrap();
    assert!(running.chunk().await.unwrap().is_some());
    let (available, held, _) = node.balance(&key).await;
    assert!(held > 0);
    let available = i64::try_from(available).unwrap();
    let (status, said) = adjust(&act(), -available - 1).await;
    assert_eq!(status, 409, "{said}");
    let off = act();
    let (status, one) = adjust(&off, -available).await;
    assert_eq!((status, one["adjustments"][0]["msat"].as_i64()), (200, Some(-available)), "{one}");
    assert_eq!(adjust(&off, -available).await.0, 200, "again, and once");
    assert_eq!(node.balance(&key).await.0, 0);
    upstream.resume();
    while running.chunk().await.unwrap().is_some() {}
    node.settled().await;

    for (body, code) in [
        (json!({ "id": act(), "msat": 0, "reason": "x" }), 400),
        (json!({ "id": act(), "msat": 1, "reason": " " }), 400),
        (json!({ "id": "x", "msat": 1, "reason": "x" }), 400),
        (json!({ "id": act(), "msat": i64::MIN, "reason": "x" }), 400),
    ] {
        assert_eq!(operator.call("POST", &path, Some(body.clone())).await.0, code, "{body}");
    }
    // Every act is in the trail before it moved anything: one note for each id that moved money, at least.
    let notes: Vec<Value> = trail(&node).await.into_iter().map(|(_, _, detail)| detail).collect();
    let one = operator.get(&format!("/admin/api/keys/{id}")).await;
    let moved = one["adjustments"].as_array().unwrap();
    assert_eq!(moved.len(), 4);
    assert!(
        moved.iter().all(|made| notes.iter().any(|note| note["act"] == made["id"] && note["msat"] == made["msat"]))
    );
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_it_does_it() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let key = purse.send(100).await;
    assert_eq!(chat(&node, &key).await.0, 200);
    let operator = Operator::log_in(&node.url()).await;
    let id = only_key(&operator).await;
    assert_eq!(node.get("/admin/keys").send().await.unwrap().status(), 303, "only for the operator");
    for verb in ["block", "unblock", "adjust"] {
        let (path, act) = (format!("/admin/keys/{id}/{verb}"), act());
        let fields = [("csrf", "made up"), ("act", &*act), ("way", "credit"), ("sats", "1"), ("reason", "x")];
        assert_eq!(operator.send(&path, &fields).await.status(), 403, "{verb}");
    }
    let (client, url) = (client(), node.url());
    let tokens = [program(&node, "read").await, program(&node, "manage").await, program(&node, "money").await];
    let [read, manage, money] = tokens.each_ref().map(String::as_str);
    let paths = ["", "/block", "/adjust"].map(|verb| format!("/admin/api/keys/{id}{verb}"));
    let [one, block, adjust] = paths.each_ref().map(String::as_str);
    let body = || Some(json!({ "id": act(), "msat": 1000, "reason": "x" }));
    let label = || Some(json!({ "label": "x" }));
    let rows = [
        ("nobody", "GET", one, None, 403),
        (read, "GET", "/admin/api/keys", None, 200),
        (read, "GET", one, None, 200),
        (manage, "GET", one, None, 403),
        (read, "POST", block, None, 403),
        (money, "POST", block, None, 403),
        (read, "PATCH", one, label(), 403),
        (manage, "PATCH", one, label(), 200),
        (read, "POST", adjust, body(), 403),
        (manage, "POST", adjust, body(), 403),
        (money, "POST", adjust, body(), 200),
        (manage, "POST", block, None, 204),
    ];
    for (token, method, path, body, expected) in rows {
        let (status, said) = call(&client, &url, token, method, path, body).await;
        assert_eq!(status, expected, "{token} {method} {path}: {said}");
    }
    assert_eq!(chat(&node, &key).await.0, 403);
    // What a voucher waits on is no key, and a child has nothing to adjust.
    let operator_keys = list(&operator, "").await.len();
    let answer =
        operator.fill("/admin/vouchers", "/admin/vouchers", &[("sats", "1"), ("count", "1"), ("days", "")]).await;
    assert_eq!(answer.status(), 200, "issued");
    assert_eq!(list(&operator, "").await.len(), operator_keys);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_does_the_same_beside_the_node() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let key = purse.send(100).await;
    assert_eq!(chat(&node, &key).await.0, 200);
    let run = |words: &[&str]| {
        let output = coinslot(node.settings(), words);
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let listed: Value = serde_json::from_str(&run(&["keys", "list", "--json"]).1).unwrap();
    let id = listed["keys"][0]["id"].as_str().unwrap();
    assert_eq!(listed["keys"][0]["balance_msat"], 98_000);
    assert_eq!(run(&["keys", "block", id]).0, 0);
    assert_eq!(chat(&node, &key).await.1["error"]["code"], "key_blocked");
    assert!(run(&["keys", "list", "--state", "blocked"]).1.contains(id));
    assert_eq!(run(&["keys", "unblock", id]).0, 0);
    let one = act();
    for _ in 0..2 {
        let (code, said, why) = run(&["keys", "adjust", id, "--sats", "1.5", "--reason", "sorry", "--act", &one]);
        assert_eq!(code, 0, "{said}{why}");
        assert!(said.contains("99.500 sat"), "{said}");
    }
    let (code, _, why) = run(&["keys", "adjust", id, "--sats", "1", "--reason", "more"]);
    assert_eq!(code, 1, "{why}");
    assert!(why.contains("only 500 msat were earned"), "{why}");
    let (code, said, _) = run(&["keys", "set", id, "--label", "bob", "--limit", "50", "--reset", "weekly", "--json"]);
    let set: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &set["label"], &set["limit_msat"]), (0, &json!("bob"), &json!(50_000)));
    assert!(run(&["keys", "show", id]).1.contains("(weekly)"));
    assert_eq!(run(&["keys", "show", "1"]).0, 1);
    assert_eq!(run(&["keys", "list", "--hash", "abc"]).0, 2);
    assert_eq!(chat(&node, &key).await.0, 200);
    // The trail has the same members as what is done by a page.
    let (actors, notes): (Vec<String>, Vec<Value>) =
        trail(&node).await.into_iter().map(|(actor, _, detail)| (actor, detail)).unzip();
    assert_eq!(actors, ["cli"; 5], "block, unblock, two adjustments, set");
    assert_eq!(notes[0], json!({ "id": id, "was": "usable" }));
    assert_eq!(notes[1], json!({ "id": id, "was": "blocked" }));
    let given = json!({ "id": id, "act": one, "msat": 1_500, "reason": "sorry", "balance_msat": 98_000 });
    assert_eq!(notes[2], given);
    let (before, after) = (&notes[4]["before"], &notes[4]["after"]);
    assert_eq!((&before["limit_msat"], &before["limit_reset"]), (&Value::Null, &Value::Null));
    assert_eq!((&after["label"], &after["limit_msat"]), (&json!("bob"), &json!(50_000)));
    node.finish().await;
}

/// As by a page: what there is here says so, or the alarm that a node's last proof has left.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_gives_nothing_while_the_books_are_not_proven() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let key = purse.send(100).await;
    for _ in 0..2 {
        assert_eq!(chat(&node, &key).await.0, 200);
    }
    let operator = Operator::log_in(&node.url()).await;
    let id = only_key(&operator).await;
    let adjust = |words: &[&str]| {
        let always = ["keys", "adjust", id.as_str(), "--sats", "1", "--reason", "sorry"];
        let output = coinslot(node.settings(), &[&always[..], words].concat());
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let prove = async || operator.call("POST", "/admin/api/prove", None).await.0;
    let store = node.running().exchange().ledger.store().clone();
    let alarms = async || coinslot::alerts::open(&store).await.unwrap().len();
    tamper(&node, 1).await;
    let (code, why) = adjust(&[]);
    assert!(code == 1 && why.contains("nothing was moved: the books were not proven at"), "{why}");
    assert_eq!(prove().await, 200);
    until("there is an alarm", async || alarms().await > 0).await;
    // The figures are right again, and the node has not looked since.
    tamper(&node, -1).await;
    let (code, why) = adjust(&[]);
    assert!(code == 1 && why.contains("the books were not proven at"), "{why}");
    assert_eq!(node.balance(&key).await.0, 96_000);
    let acts: Vec<String> = trail(&node).await.into_iter().map(|(_, action, _)| action).collect();
    assert!(!acts.contains(&"keys.adjust".to_owned()), "{acts:?}");
    assert_eq!(adjust(&["--write-off"]).0, 0, "what is taken back is given to nobody");
    assert_eq!(prove().await, 200);
    until("the alarm is over", async || alarms().await == 0).await;
    assert_eq!(adjust(&[]).0, 0);
    assert_eq!(node.balance(&key).await.0, 96_000);
    node.finish().await;
}
