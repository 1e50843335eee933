//! The operator's wallet: what there is, what is under way, what goes out and comes in, and that all of it happens
//! once, whatever is lost or killed.

use cdk::nuts::CurrencyUnit;
use cdk_common::MeltQuoteState;
use cdk_fake_wallet::{FakeInvoiceDescription, create_fake_invoice};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::alerts::tamper;
use crate::bearer::{world, world_with};
use crate::process::ChildNode;
use crate::support::answers::until;
use crate::support::chaos::{Chaos, Mode};
use crate::support::lnurl::{Mood, Recipient};
use crate::support::mint::TestMint;
use crate::support::node::{TestNode, ask, client};
use crate::support::operator::{Operator, PASSWORD, call, program, trail};
use crate::support::program::{coinslot, told};
use crate::support::purse::Purse;
use crate::support::upstream::Upstream;

/// What the upstream's echo costs, in sat.
const COST: u64 = 2;
const WITHDRAW: &str = "/admin/api/wallet/withdraw";

/// A new id for an act.
fn act() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Asks so often that so many sats are earned.
async fn earn(node: &TestNode, purse: &Purse, sats: u64) -> String {
    let key = purse.send(sats + 50).await;
    for _ in 0..sats / COST {
        let answer = node.chat(&ask("hi")).bearer_auth(&key).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
    }
    key
}

async fn free_msat(operator: &Operator) -> i64 {
    operator.get("/admin/api/wallet").await["purses"][0]["free_msat"].as_i64().unwrap()
}

/// A bolt11 invoice of a fake network for so many msat.
fn invoice(msat: u64) -> String {
    let outcome = FakeInvoiceDescription {
        pay_invoice_state: MeltQuoteState::Paid,
        check_payment_state: MeltQuoteState::Paid,
        pay_err: false,
        check_err: false,
    };
    create_fake_invoice(msat, serde_json::to_string(&outcome).unwrap()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn earnings_are_taken_out_as_ecash_that_is_there_until_it_is_spent() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    earn(&node, &purse, 20).await;
    let operator = Operator::log_in(&node.url()).await;
    assert_eq!(free_msat(&operator).await, 20_000);
    let before = purse.balance().await;

    // The form is sent twice at once, and a third time later.
    let page = operator.page("/admin/wallet").await;
    let hidden = |name: &str| {
        let form = page.split_once("action=\"/admin/wallet/withdraw\"").unwrap().1;
        let rest = form.split_once(&format!("name=\"{name}\" value=\"")).unwrap().1;
        rest.split_once('"').unwrap().0.to_owned()
    };
    let purse_name = page.split_once("<option value=\"").unwrap().1.split_once('"').unwrap().0.to_owned();
    let (csrf, id) = (hidden("csrf"), hidden("act"));
    let fields = [("csrf", &*csrf), ("act", &*id), ("purse", &*purse_name), ("sats", "15"), ("to", "")];
    let send = async || {
        let answer = operator.send("/admin/wallet/withdraw", &fields).await;
        (answer.status().as_u16(), answer.headers()["location"].to_str().unwrap().to_owned())
    };
    let to = format!("/admin/wallet/payouts/{id}");
    assert_eq!(join_all([send(), send()]).await, vec![(303, to.clone()); 2]);
    assert_eq!(send().await, (303, to.clone()));
    assert_eq!(free_msat(&operator).await, 5_000);

    let shown = operator.page(&to).await;
    let token = shown.split_once("id=\"token\">").unwrap().1.split_once('<').unwrap().0.to_owned();
    assert!(shown.contains("<svg class=\"qr\""), "{shown}");
    assert_eq!(operator.get(&format!("/admin/api/wallet/payouts/{id}")).await["token"], json!(token));
    let asked = operator.fill(&to, &to, &[]).await.text().await.unwrap();
    assert!(asked.contains("still there") && asked.contains(&token));
    // It is no secret of lists.
    for page in ["/admin/wallet", "/admin/wallet/payouts"] {
        assert!(!operator.page(page).await.contains(&token), "{page}");
    }
    let list = operator.get("/admin/api/wallet/payouts").await;
    assert_eq!(list["payouts"].as_array().unwrap().len(), 1, "{list}");
    assert!(!list.to_string().contains(&token));

    assert_eq!(purse.receive(&token).await.unwrap(), 15);
    assert_eq!(purse.balance().await, before + 15);
    let (status, one) = operator.call("POST", &format!("/admin/api/wallet/payouts/{id}/look"), None).await;
    assert_eq!((status, &one["is_claimed"], &one["token"]), (200, &json!(true), &Value::Null));
    assert!(!operator.page(&to).await.contains(&token));

    // No more than was earned; and one id is one act.
    for (body, code) in [
        (json!({ "id": act(), "msat": 6_000 }), 409),
        (json!({ "id": id, "msat": 5_000 }), 409),
        (json!({ "id": act(), "msat": 500 }), 400),
        (json!({ "id": act() }), 400),
        (json!({ "id": "x", "msat": 1_000 }), 400),
        (json!({ "id": act(), "msat": 1_000, "unit": "usd" }), 400),
        (json!({ "id": act(), "msat": 1_000, "mint": "https://other.example" }), 400),
        (json!({ "id": act(), "msat": 1_000, "to": "nobody" }), 400),
    ] {
        let (status, said) = operator.call("POST", WITHDRAW, Some(body.clone())).await;
        assert_eq!(status, code, "{body}: {said}");
    }
    let acts = trail(&node).await;
    let noted = acts.iter().find(|(_, action, _)| action == "wallet.withdraw").unwrap();
    assert_eq!((&noted.2["msat"], noted.0.as_str()), (&json!(15_000), "password"));
    assert!(acts.iter().all(|(_, _, detail)| !detail.to_string().contains("cashu")), "{acts:?}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_or_promised_cannot_be_taken_out() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let key = earn(&node, &purse, 10).await;
    let operator = Operator::log_in(&node.url()).await;
    let vouchers = "/admin/vouchers";
    let issued = operator.fill(vouchers, vouchers, &[("sats", "4"), ("count", "1"), ("days", "")]).await;
    assert_eq!(issued.status(), 200);
    assert_eq!(free_msat(&operator).await, 6_000);
    let take = async |msat: u64| operator.call("POST", WITHDRAW, Some(json!({ "id": act(), "msat": msat }))).await.0;
    assert_eq!(take(7_000).await, 409);
    // All at once: what was earned goes out once.
    let taken = join_all((0..4).map(|_| take(3_000))).await;
    let done = taken.iter().filter(|status| **status == 200).count();
    assert!((1..=2).contains(&done), "{taken:?}");
    while free_msat(&operator).await >= 3_000 {
        assert_eq!(take(3_000).await, 200);
    }
    assert_eq!(take(1_000).await, 409);
    // Clients' money is all there.
    let answer = node.post("/v1/wallet/refund").bearer_auth(&key).send().await.unwrap();
    assert_eq!(answer.status(), 200);

    node.running().exchange().till.wallet().halt("a test says so");
    let (status, said) = operator.call("POST", WITHDRAW, Some(json!({ "id": act(), "msat": 1_000 }))).await;
    assert_eq!(status, 409, "{said}");
    assert!(said["detail"].as_str().unwrap().contains("a test says so"));
    assert!(operator.page("/admin/wallet").await.contains("a test says so"));
    // What is given away would be missing there, too.
    let open = operator.get("/admin/api/vouchers").await["vouchers"][0]["id"].clone();
    let calls = [("/admin/api/vouchers", json!({ "sats": 1 })), ("/admin/api/vouchers/revoke", json!({ "id": open }))];
    for (path, body) in calls {
        let (status, said) = operator.call("POST", path, Some(body)).await;
        assert!(
            status == 409 && said["detail"].as_str().unwrap().contains("a test says so"),
            "{path}: {status} {said}"
        );
    }
    let refused = operator.fill(vouchers, vouchers, &[("sats", "1"), ("count", "1"), ("days", "")]).await;
    assert_eq!(refused.status(), 409);
    assert!(refused.text().await.unwrap().contains("a test says so"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_out_while_the_books_are_not_proven() {
    let (mint, purse, _upstream, node) = world_with(1000, &[("PAYOUT_INTERVAL", "1"), ("MINIMUM_PAYOUT", "10")]).await;
    node.has_run("check_books").await;
    earn(&node, &purse, 40).await;
    node.settled().await;
    let operator = Operator::log_in(&node.url()).await;
    let prove = async || operator.call("POST", "/admin/api/prove", None).await.1["verdict"].clone();
    tamper(&node, 5_000_000).await;
    assert_eq!(prove().await, "faulty");
    let recipient = Recipient::start().await;
    let told = json!({ "settings": { "RECEIVE_LN_ADDRESS": recipient.name() } });
    assert_eq!(operator.call("PATCH", "/admin/api/settings", Some(told)).await.0, 200);

    let refused = [(WITHDRAW, json!({ "id": act(), "msat": 1_000 })), ("/admin/api/vouchers", json!({ "sats": 1 }))];
    for (path, body) in refused {
        let (status, said) = operator.call("POST", path, Some(body)).await;
        assert!(status == 409 && said["detail"].as_str().unwrap().contains("were not proven"), "{path}: {said}");
    }
    // The job was begun and ended since then.
    let paid_out = || node.running().exchange().metrics.jobs.all()["pay_out"].succeeded_ms;
    for _ in 0..2 {
        let before = paid_out();
        until("the job is run again", async || paid_out() > before).await;
    }
    assert_eq!(recipient.asked(), Vec::<u64>::new());

    tamper(&node, -5_000_000).await;
    assert_eq!(prove().await, "proven");
    until("the earnings are paid out", async || mint.paid().await.len() == 1).await;
    assert_eq!(recipient.asked().len(), 1);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn earnings_go_to_an_address_and_to_an_invoice() {
    let (mint, purse, _upstream, node) = world(1000).await;
    earn(&node, &purse, 100).await;
    let operator = Operator::log_in(&node.url()).await;
    let recipient = Recipient::start().await;
    let take = async |body: Value| operator.call("POST", WITHDRAW, Some(body)).await;
    let first = json!({ "id": act(), "msat": 30_000, "to": recipient.name() });
    let (status, sent) = take(first.clone()).await;
    assert_eq!((status, &sent["state"], &sent["to"]), (200, &json!("done"), &json!(recipient.name())), "{sent}");
    let [arrived, fee] = ["arrived_msat", "fee_msat"].map(|name| sent[name].as_i64().unwrap());
    assert!(arrived > 25_000 && fee <= 2_000, "{sent}");
    // What the fee did not need is income again.
    assert_eq!(free_msat(&operator).await, 100_000 - arrived - fee);
    let (status, again) = take(first).await;
    assert_eq!((status, &again), (200, &sent), "asked again, it is looked up");
    assert_eq!(mint.paid().await.len(), 1);

    let bolt11 = invoice(20_000);
    let (status, paid) = take(json!({ "id": act(), "to": bolt11 })).await;
    assert_eq!((status, &paid["state"], &paid["arrived_msat"]), (200, &json!("done"), &json!(20_000)), "{paid}");
    let fee = paid["fee_msat"].as_i64().unwrap();
    assert_eq!(free_msat(&operator).await, 100_000 - arrived - sent["fee_msat"].as_i64().unwrap() - 20_000 - fee);
    let (status, said) = take(json!({ "id": act(), "msat": 5_000, "to": invoice(5_000) })).await;
    assert_eq!(status, 400, "{said}");
    assert_eq!(take(json!({ "id": act(), "to": invoice(500_000) })).await.0, 409, "more than was earned");

    // What cannot be paid is income again, and says why.
    recipient.set(Mood::Refuses);
    let before = free_msat(&operator).await;
    let (status, failed) = take(json!({ "id": act(), "msat": 5_000, "to": recipient.name() })).await;
    assert_eq!((status, &failed["state"]), (200, &json!("failed")), "{failed}");
    assert!(failed["why"].as_str().unwrap().contains("not today"), "{failed}");
    assert_eq!(free_msat(&operator).await, before);

    let list = operator.get("/admin/api/wallet/payouts?limit=2").await;
    assert_eq!((&list["payouts"][0]["id"], &list["payouts"][1]["id"]), (&failed["id"], &paid["id"]));
    let older = format!("/admin/api/wallet/payouts?before={}", list["next"].as_str().unwrap());
    assert_eq!(operator.get(&older).await["payouts"][0]["id"], sent["id"]);
    let page = operator.page("/admin/wallet/payouts").await;
    assert!(page.contains(&recipient.name()) && page.contains("not today"), "{page}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_operator_s_becomes_income_once() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let operator = Operator::log_in(&node.url()).await;
    let token = purse.send(40).await;
    let receive = async |text: &str| {
        let answer = operator.fill("/admin/wallet", "/admin/wallet/receive", &[("token", text)]).await;
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for _ in 0..2 {
        let (status, page) = receive(&token).await;
        assert!(status == 200 && page.contains("40.000 sat came in.") && !page.contains(&token), "{page}");
    }
    assert_eq!(free_msat(&operator).await, 40_000);
    let (status, page) = receive("cashuBnonsense").await;
    assert!(status == 400 && page.contains("role=\"alert\""), "{status}");
    // A client's token is not the operator's to receive again.
    let key = purse.send(10).await;
    node.balance(&key).await;
    let (status, said) = operator.call("POST", "/admin/api/wallet/receive", Some(json!({ "token": key }))).await;
    assert_eq!(status, 400, "{said}");
    // A token of many coins is long, and is looked at.
    let long = json!({ "token": format!("cashuB{}", "x".repeat(20_000)) });
    let (status, said) = operator.call("POST", "/admin/api/wallet/receive", Some(long)).await;
    assert_eq!(status, 400, "{said}");
    let acts = trail(&node).await;
    assert!(acts.iter().all(|(_, action, detail)| action == "wallet.receive" && !detail.to_string().contains("cashu")));

    let (client, url) = (client(), node.url());
    let tokens = [program(&node, "read").await, program(&node, "manage").await, program(&node, "money").await];
    let [read, manage, money] = tokens.each_ref().map(String::as_str);
    let body = |msat: u64| Some(json!({ "id": act(), "msat": msat }));
    let brought = Some(json!({ "token": purse.send(1).await }));
    let retry = format!("/admin/api/wallet/operations/{}/retry", act());
    let one = format!("/admin/api/wallet/payouts/{}", act());
    for (token, method, path, body, expected) in [
        ("nobody", "GET", "/admin/api/wallet", None, 403),
        (read, "GET", "/admin/api/wallet", None, 200),
        (read, "GET", "/admin/api/wallet/payouts", None, 200),
        (read, "GET", one.as_str(), None, 403),
        (money, "GET", one.as_str(), None, 404),
        (read, "POST", WITHDRAW, body(1_000), 403),
        (manage, "POST", WITHDRAW, body(1_000), 403),
        (money, "POST", WITHDRAW, body(1_000), 200),
        (manage, "POST", "/admin/api/wallet/receive", brought.clone(), 403),
        (money, "POST", "/admin/api/wallet/receive", brought.clone(), 200),
        (manage, "POST", retry.as_str(), None, 403),
        (money, "POST", retry.as_str(), None, 404),
    ] {
        let (status, said) = call(&client, &url, token, method, path, body).await;
        assert_eq!(status, expected, "{token} {method} {path}: {said}");
    }
    for (action, fields) in [
        ("/admin/wallet/withdraw", vec![("act", "x"), ("purse", "sat x"), ("sats", "1")]),
        ("/admin/wallet/receive", vec![("token", "x")]),
        ("/admin/wallet/retry", vec![("id", "x")]),
    ] {
        let fields = [fields, vec![("csrf", "made up")]].concat();
        assert_eq!(operator.send(action, &fields).await.status(), 403, "{action}");
    }
    assert_eq!(node.get("/admin/wallet").send().await.unwrap().status(), 303, "only for the operator");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_says_what_it_waits_for_and_a_retry_decides_it() {
    let mint = TestMint::start().await;
    let chaos = Chaos::before(&mint.url());
    let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
    purse.mint_sats(1000).await;
    let upstream = Upstream::start().await;
    let node = TestNode::with(&mint, &upstream, &[("CASHU_MINTS", &chaos.url())]).await;
    earn(&node, &purse, 20).await;
    let operator = Operator::log_in(&node.url()).await;
    // Coins by amount and keyset are all that there is.
    let purse_of = operator.get("/admin/api/wallet").await["purses"][0].clone();
    let sum = |list: &str, worth: &dyn Fn(&Value) -> u64| -> u64 {
        purse_of[list].as_array().unwrap().iter().map(worth).sum()
    };
    let coins = sum("ladder", &|rung| rung["amount"].as_u64().unwrap() * rung["coins"].as_u64().unwrap());
    let keysets = sum("keysets", &|keyset| keyset["msat"].as_u64().unwrap());
    assert_eq!((coins * 1000, keysets), (70_000, 70_000), "{purse_of}");

    // The mint swaps, and its answer is lost; what it is asked afterwards is not answered.
    chaos.set("/v1/swap", Mode::DropReply);
    chaos.set("/v1/restore", Mode::Cut);
    chaos.set("/v1/checkstate", Mode::Cut);
    let id = act();
    let body = json!({ "id": id, "msat": 13_000 });
    let (status, open) = operator.call("POST", WITHDRAW, Some(body.clone())).await;
    assert_eq!((status, &open["token"]), (200, &Value::Null), "{open}");
    let seen = operator.get("/admin/api/wallet").await;
    let one = &seen["operations"][0];
    assert_eq!((&one["id"], &one["kind"], &one["msat"]), (&json!(id), &json!("payout"), &json!(13_000)), "{seen}");
    assert!(one["awaited"].as_str().unwrap().contains("NUT-09"), "{one}");
    assert_eq!(seen["purses"][0]["is_paying"], true);
    let page = operator.page("/admin/wallet").await;
    assert!(page.contains(&id) && page.contains("NUT-09"), "{page}");
    let (status, said) = operator.call("POST", WITHDRAW, Some(json!({ "id": act(), "msat": 1_000 }))).await;
    assert_eq!(status, 409, "another has to wait: {said}");
    let retry = format!("/admin/api/wallet/operations/{id}/retry");
    let (status, outcome) = operator.call("POST", &retry, None).await;
    assert!((status, &outcome["ended"]) == (200, &json!(false)) || status == 409, "{status} {outcome}");

    chaos.calm();
    let swaps = chaos.hits("/v1/swap");
    until("the retry decides it", async || {
        // The mint may be left alone for a while, since it failed.
        operator.call("POST", &retry, None).await.1["ended"] == true
    })
    .await;
    let (status, done) = operator.call("POST", WITHDRAW, Some(body)).await;
    assert_eq!((status, &done["state"]), (200, &json!("done")), "{done}");
    assert_eq!(purse.receive(done["token"].as_str().unwrap()).await.unwrap(), 13);
    assert_eq!(chaos.hits("/v1/swap"), swaps + 1, "the purse's own; the node's was not sent again");
    assert_eq!(operator.get("/admin/api/wallet").await["operations"], json!([]));
    node.finish().await;
}

/// Everywhere a withdrawal can be cut off: the same form again gives the same ecash, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_while_it_pays_out_pays_once() {
    let points =
        ["return.written", "return.reserved", "return.planned", "return.swapped", "return.kept", "return.done"];
    for point in points {
        let mint = TestMint::start().await;
        let purse = Purse::new(&mint).await;
        purse.mint_sats(200).await;
        let upstream = Upstream::start().await;
        let mut node = ChildNode::start(&mint.url(), &upstream, &[("ADMIN_PASSWORD", PASSWORD)]).await;
        let gift = json!({ "token": purse.send(100).await });
        let operator = Operator::log_in(node.url()).await;
        assert_eq!(operator.call("POST", "/admin/api/wallet/receive", Some(gift)).await.0, 200);
        node.stop().await;
        assert!(node.restart_armed(point).await, "{point}");
        let operator = Operator::log_in(node.url()).await;
        // 100 sat in coins of powers of two: 4, 32 and 64. To give 7, one is split.
        let body = json!({ "id": act(), "msat": 7_000 });
        let answer =
            client().post(format!("{}{WITHDRAW}", node.url())).bearer_auth(operator.token()).json(&body).send().await;
        assert!(answer.is_err(), "{point}");
        node.died().await;
        node.restart().await;
        let operator = Operator::log_in(node.url()).await;
        let mut last = Value::Null;
        until(point, async || {
            last = operator.call("POST", WITHDRAW, Some(body.clone())).await.1;
            last["token"].is_string()
        })
        .await;
        assert_eq!(purse.receive(last["token"].as_str().unwrap()).await.unwrap(), 7, "{point}");
        assert_eq!(free_msat(&operator).await, 93_000, "{point}");
        assert_eq!(operator.get("/admin/api/wallet/payouts").await["payouts"].as_array().unwrap().len(), 1);
        node.kill();
        let books = node.db.books().await;
        assert_eq!((books.faults, books.earnings, books.liabilities), (Vec::new(), 93_000, 0), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_the_wallet_beside_the_node() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    earn(&node, &purse, 20).await;
    let operator = Operator::log_in(&node.url()).await;
    let (status, out) = operator.call("POST", WITHDRAW, Some(json!({ "id": act(), "msat": 4_000 }))).await;
    assert_eq!(status, 200);
    let run = |words: &[&str]| {
        let output = coinslot(node.settings(), words);
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = run(&["wallet", "--json"]);
    let seen: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &seen["purses"][0]["msat"], &seen["operations"]), (0, &json!(66_000), &json!([])), "{said}");
    assert!(run(&["wallet"]).1.contains("66.000 sat in"));
    let (code, said) = run(&["wallet", "payouts", "--json"]);
    let payouts: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &payouts["payouts"][0]["id"]), (0, &out["id"]));
    assert!(!said.contains(out["token"].as_str().unwrap()) && run(&["wallet", "payouts"]).1.contains("ecash"));
    assert_eq!(run(&["wallet", "retry", &act()]).0, 1, "there is none");
    node.finish().await;
}

/// A retry by the command is a time in the journal: the node does the rest.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_hurries_what_the_node_has_put_off() {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(100).await;
    let upstream = Upstream::start().await;
    let recipient = Recipient::start().await;
    let node = TestNode::start(&mint, &upstream).await;
    earn(&node, &purse, 20).await;
    let operator = Operator::log_in(&node.url()).await;
    recipient.set(Mood::Pending);
    let id = act();
    let body = json!({ "id": id, "msat": 10_000, "to": recipient.name() });
    let (_, open) = operator.call("POST", WITHDRAW, Some(body)).await;
    assert!(["acting", "unknown"].contains(&open["state"].as_str().unwrap()), "{open}");
    let look = async || {
        let one = operator.get("/admin/api/wallet").await["operations"][0].clone();
        (one["due_ms"].as_i64().unwrap(), one["attempts"].as_u64().unwrap())
    };
    let (due, attempts) = look().await;
    told(node.settings(), &["wallet", "retry", &id]);
    let now = look().await;
    assert!(now.0 < due || now.1 > attempts, "it is due sooner, or was looked at already");
    node.finish().await;
}
