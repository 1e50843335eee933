//! Money in and out over Lightning: keys filled by invoices, refunds to Lightning addresses, keys
//! whose time is over, and the operator's earnings. The mint is real, its Lightning network is not.

use std::sync::Arc;
use std::time::Duration;

use cdk::nuts::CurrencyUnit;
use coinslot::clock::Clock;
use coinslot::money::Msat;
use coinslot::store::Durability;
use coinslot::wallet::Change;
use serde_json::{Value, json};

use crate::support::answers::found;
use crate::support::chaos::{Chaos, Lie, Mode};
use crate::support::clock::Ahead;
use crate::support::lnurl::{Mood, Recipient};
use crate::support::mint::{MintOptions, TestMint};
use crate::support::node::{TestNode, ask};
use crate::support::purse::Purse;
use crate::support::tokens;
use crate::support::upstream::Upstream;

pub async fn node_ahead(mint: &TestMint, upstream: &Upstream, clock: &Arc<Ahead>, more: &[(&str, &str)]) -> TestNode {
    TestNode::with_clock(&mint.url(), upstream, clock.clone(), more).await
}

pub async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text}")))
}

pub async fn ok(request: reqwest::RequestBuilder) -> Value {
    let (status, body) = answer(request).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// Drives the journal until nothing is due, as the job does.
pub async fn resume(node: &TestNode) -> usize {
    node.running().exchange().till.wallet().resume(0).await.unwrap()
}

async fn status_until(node: &TestNode, id: &str, wanted: &str) -> Value {
    found(&format!("the invoice is {wanted}"), async || {
        let body = ok(node.get(&format!("/lightning/invoice/{id}/status"))).await;
        if body["status"] == wanted {
            return Some(body);
        }
        resume(node).await;
        None
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_makes_a_key_that_works_and_refunds_exactly() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let node = TestNode::start(&mint, &upstream).await;
    let made = ok(node.post("/lightning/invoice").json(&json!({ "amount_sats": 500, "purpose": "create" }))).await;
    assert!(made["bolt11"].as_str().unwrap().starts_with("lnbc"), "{made}");
    assert_eq!(made["amount_sats"], 500);
    assert_eq!(made["payment_hash"].as_str().unwrap().len(), 64, "{made}");
    let id = made["invoice_id"].as_str().unwrap();
    let paid = status_until(&node, id, "paid").await;
    let key = paid["api_key"].as_str().unwrap().to_owned();
    assert!(paid["paid_at"].as_i64().is_some(), "{paid}");
    assert_eq!(node.balance(&key).await, (500_000, 0, 0));
    ok(node.chat(&ask("hi")).bearer_auth(&key)).await;
    let (balance, _, spent) = node.balance(&key).await;
    assert_eq!(balance + spent, 500_000);
    // Found again by its text, by whoever has only that.
    let found = ok(node.post("/v1/balance/lightning/recover").json(&json!({ "bolt11": made["bolt11"] }))).await;
    assert_eq!(found["api_key"], key.as_str());
    let back = ok(node.post("/v1/wallet/refund").bearer_auth(&key)).await;
    assert_eq!(back["mint"], mint.url().as_str(), "{back}");
    let purse = Purse::new(&mint).await;
    assert_eq!(purse.receive(back["token"].as_str().unwrap()).await.unwrap(), balance / 1000);
    node.finish().await;
}

/// Invariant 13: the payment of an invoice is credited whether or not its client ever asks again.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_credited_without_a_client_and_after_a_restart() {
    let mint = TestMint::with_options(MintOptions { unpaid: true, ..MintOptions::default() }).await;
    let upstream = Upstream::start().await;
    let clock = Arc::new(Ahead::default());
    let mut node = node_ahead(&mint, &upstream, &clock, &[]).await;
    let wanted = json!({ "amount_sats": 30, "purpose": "create" });
    let one = ok(node.post("/v1/balance/lightning/invoice").json(&wanted)).await;
    let two = ok(node.post("/v1/balance/lightning/invoice").json(&wanted)).await;
    let id = |made: &Value| made["invoice_id"].as_str().unwrap().to_owned();
    let pending = ok(node.get(&format!("/lightning/invoice/{}/status", id(&one)))).await;
    assert_eq!((pending["status"].as_str(), &pending["api_key"]), (Some("pending"), &Value::Null));

    mint.pay(one["bolt11"].as_str().unwrap(), 30).await;
    clock.step(Duration::from_secs(11));
    resume(&node).await;
    let paid = ok(node.get(&format!("/lightning/invoice/{}/status", id(&one)))).await;
    assert_eq!(paid["status"], "paid");

    // While the node is down, and long after the invoice's time, but within a day.
    mint.pay(two["bolt11"].as_str().unwrap(), 30).await;
    clock.step(Duration::from_secs(3600 * 20));
    node.restart().await;
    let paid = status_until(&node, &id(&two), "paid").await;
    assert_eq!(node.balance(paid["api_key"].as_str().unwrap()).await, (30_000, 0, 0));

    // Made by a clock that was ahead and has been set right: the journal looks at one, its client at the other.
    let ahead = Duration::from_secs(3600 * 24 * 30);
    clock.step(ahead);
    let three = ok(node.post("/v1/balance/lightning/invoice").json(&wanted)).await;
    let four = ok(node.post("/v1/balance/lightning/invoice").json(&wanted)).await;
    clock.step_back(ahead);
    mint.pay(three["bolt11"].as_str().unwrap(), 30).await;
    clock.step(Duration::from_secs(11));
    resume(&node).await;
    let wallet = node.running().exchange().till.wallet().clone();
    assert_eq!(wallet.waiting_of(vec![id(&three), id(&four)]).await.unwrap(), [id(&four)]);
    mint.pay(four["bolt11"].as_str().unwrap(), 30).await;
    clock.step(Duration::from_secs(3));
    let paid = ok(node.get(&format!("/lightning/invoice/{}/status", id(&four)))).await;
    assert_eq!(paid["status"], "paid");
    drop(wallet);
    node.finish().await;
}

/// A node that was down for long asks a mint whose own backend is not up yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_not_given_up_for_one_answer() {
    let mint = TestMint::with_options(MintOptions { unpaid: true, ..MintOptions::default() }).await;
    let upstream = Upstream::start().await;
    let chaos = Chaos::before(&mint.url());
    let clock = Arc::new(Ahead::default());
    let mut node = node_ahead(&mint, &upstream, &clock, &[("CASHU_MINTS", &chaos.url())]).await;
    let made = ok(node.post("/lightning/invoice").json(&json!({ "amount_sats": 30, "purpose": "create" }))).await;
    let id = made["invoice_id"].as_str().unwrap();
    node.stop().await;
    mint.pay(made["bolt11"].as_str().unwrap(), 30).await;
    clock.step(Duration::from_secs(3600 * 30));
    chaos.set("/v1/mint/quote/bolt11/*", Mode::Lie(Lie::State("UNPAID")));
    node.restart().await;
    // Nobody is still waiting for the lie when it has stood for ten minutes.
    node.has_run("resume_operations").await;
    resume(&node).await;
    assert!(chaos.hits("/v1/mint/quote/bolt11/*") > 0);
    let unpaid = ok(node.get(&format!("/lightning/invoice/{id}/status"))).await;
    assert_eq!(unpaid["status"], "expired", "{unpaid}");
    chaos.calm();
    clock.step(Duration::from_secs(660));
    let paid = status_until(&node, id, "paid").await;
    assert_eq!(node.balance(paid["api_key"].as_str().unwrap()).await, (30_000, 0, 0));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_that_nobody_pays_ends() {
    let mint = TestMint::with_options(MintOptions { unpaid: true, ..MintOptions::default() }).await;
    let upstream = Upstream::start().await;
    let clock = Arc::new(Ahead::default());
    let node = node_ahead(&mint, &upstream, &clock, &[]).await;
    let made = ok(node.post("/lightning/invoice").json(&json!({ "amount_sats": 1, "purpose": "create" }))).await;
    let path = format!("/lightning/invoice/{}/status", made["invoice_id"].as_str().unwrap());
    // After a day the mint's word must stand for ten minutes.
    for (minutes, status) in [(0, "pending"), (120, "expired"), (1_800, "expired"), (9, "expired"), (2, "cancelled")] {
        clock.step(Duration::from_secs(60 * minutes));
        resume(&node).await;
        assert_eq!(ok(node.get(&path)).await["status"], status, "after {minutes} min more");
    }
    assert_eq!(resume(&node).await, 0, "nothing waits any more");
    node.finish().await;
}

/// Wire §1.4: a top-up names its key, and what is wrong costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_topped_up_and_bad_requests_say_why() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let node = TestNode::start(&mint, &upstream).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(100).await;
    let token = purse.send(100).await;
    let key = ok(node.get("/v1/wallet/info").bearer_auth(&token)).await["api_key"].as_str().unwrap().to_owned();
    let wanted = json!({ "amount_sats": 50, "purpose": "topup" });
    let made = ok(node.post("/lightning/invoice").json(&wanted).bearer_auth(&key)).await;
    let paid = status_until(&node, made["invoice_id"].as_str().unwrap(), "paid").await;
    assert_eq!(paid["api_key"], Value::Null, "whoever knows an invoice does not come into the key");
    let named = json!({ "amount_sats": 7, "purpose": "topup", "api_key": key });
    let made = ok(node.post("/lightning/invoice").json(&named)).await;
    status_until(&node, made["invoice_id"].as_str().unwrap(), "paid").await;
    assert_eq!(node.balance(&key).await.0, 157_000);

    let nobody = format!("sk-{}", "0".repeat(64));
    for (body, status, code) in [
        (json!({ "amount_sats": 0, "purpose": "create" }), 400, "invalid_request"),
        (json!({ "amount_sats": 1_000_001, "purpose": "create" }), 400, "invalid_request"),
        (json!({ "amount_sats": -1, "purpose": "create" }), 400, "invalid_request"),
        (json!({ "purpose": "create" }), 400, "invalid_request"),
        (json!({ "amount_sats": 1, "purpose": "gift" }), 400, "invalid_request"),
        (json!({ "amount_sats": 1, "purpose": "topup" }), 401, "topup_authorization_required"),
        (json!({ "amount_sats": 1, "purpose": "topup", "api_key": "x" }), 400, "topup_invalid_api_key_format"),
        (json!({ "amount_sats": 1, "purpose": "topup", "api_key": nobody }), 404, "topup_api_key_not_found"),
    ] {
        let (found, answer) = answer(node.post("/lightning/invoice").json(&body)).await;
        assert_eq!((found, answer["error"]["code"].as_str()), (status, Some(code)), "{body}: {answer}");
    }
    let (status, body) = answer(node.get("/lightning/invoice/nothing/status")).await;
    assert_eq!((status, &body["detail"]), (404, &json!("Invoice not found")));
    let (status, _) = answer(node.post("/lightning/recover").json(&json!({ "bolt11": "lnbc1" }))).await;
    assert_eq!(status, 404);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_invoices_wait_for_one_key() {
    let mint = TestMint::with_options(MintOptions { unpaid: true, ..MintOptions::default() }).await;
    let upstream = Upstream::start().await;
    let node = TestNode::with(&mint, &upstream, &[("INVOICE_MAX_PENDING", "0")]).await;
    let made = ok(node.post("/lightning/invoice").json(&json!({ "amount_sats": 9, "purpose": "create" }))).await;
    mint.pay(made["bolt11"].as_str().unwrap(), 9).await;
    let key = status_until(&node, made["invoice_id"].as_str().unwrap(), "paid").await["api_key"].clone();
    let wanted = json!({ "amount_sats": 1, "purpose": "topup", "api_key": key });
    for _ in 0..5 {
        ok(node.post("/lightning/invoice").json(&wanted)).await;
    }
    let (status, body) = answer(node.post("/lightning/invoice").json(&wanted)).await;
    assert_eq!((status, body["error"]["code"].as_str()), (429, Some("rate_limit_exceeded")));
    node.finish().await;
}

/// Keys of invented tokens, for which nothing was ever paid, share what an address may leave unpaid; and invoices
/// whose time is over stand in nobody's way, though a late payment would still count.
#[tokio::test(flavor = "multi_thread")]
async fn invented_keys_and_invoices_that_are_over_stand_in_nobodys_way() {
    let mint = TestMint::with_options(MintOptions { unpaid: true, ..MintOptions::default() }).await;
    let upstream = Upstream::start().await;
    let clock = Arc::new(Ahead::default());
    let node = node_ahead(&mint, &upstream, &clock, &[("INVOICE_MAX_PENDING", "3")]).await;
    let wanted = |key: &Value| {
        node.post("/lightning/invoice").json(&json!({ "amount_sats": 1, "purpose": "topup", "api_key": key }))
    };
    let mut invented = Vec::new();
    for _ in 0..4 {
        let token = tokens::invented(&mint, 8);
        let (status, body) = answer(node.get("/v1/wallet/info").bearer_auth(&token)).await;
        assert!(status >= 400, "{body}");
        invented.push(json!(token));
    }
    for key in &invented[..3] {
        ok(wanted(key)).await;
    }
    let (status, body) = answer(wanted(&invented[3])).await;
    assert_eq!((status, body["error"]["code"].as_str()), (429, Some("rate_limit_exceeded")), "{body}");
    clock.step(Duration::from_secs(3_601));
    let made = ok(wanted(&invented[3])).await;

    // All places are taken, until the time of those is over.
    let store = node.running().exchange().ledger.store().clone();
    let mut tx = store.begin(Durability::Full).await.unwrap();
    for at in 0..999 {
        let copy = "INSERT INTO operations (id, kind, state, account, mint, unit, amount, plan, owner, due_at, \
                    created_at, updated_at) SELECT $1, kind, state, account, mint, unit, amount, plan, owner, \
                    due_at + 1000000000, created_at, updated_at FROM operations WHERE id = $2";
        let copy = sqlx::query(copy).bind(format!("copy {at}")).bind(made["invoice_id"].as_str().unwrap());
        copy.execute(tx.hand()).await.unwrap();
    }
    tx.commit().await.unwrap();
    let create = || node.post("/lightning/invoice").json(&json!({ "amount_sats": 9, "purpose": "create" }));
    assert_eq!(answer(create()).await.0, 429);
    clock.step(Duration::from_secs(3_601));
    ok(create()).await;
    drop(store);
    node.finish().await;
}

/// The balance of a key goes to a Lightning address; what the fees did not need stays on the key.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_goes_to_a_lightning_address() {
    for fee_ppk in [0, 100] {
        let mint = TestMint::with_fee_ppk(fee_ppk).await;
        let upstream = Upstream::start().await;
        let recipient = Recipient::start().await;
        let node = TestNode::start(&mint, &upstream).await;
        let purse = Purse::new(&mint).await;
        purse.mint_sats(2_000).await;
        let token = purse.send(1_000).await;
        let (before, ..) = node.balance(&token).await;
        let wanted = json!({ "lightning_address": recipient.name() });
        let back = ok(node.post("/v1/wallet/refund").json(&wanted).bearer_auth(&token)).await;
        assert_eq!(back["recipient"], recipient.name().as_str(), "{back}");
        let sent: u64 = back["sats"].as_str().unwrap().parse().unwrap();
        assert_eq!(*recipient.asked().last().unwrap(), sent * 1000);
        let (left, held, _) = node.balance(&token).await;
        let fee = back["fee_msats"].as_u64().unwrap();
        assert_eq!(sent * 1000 + fee + left, before, "to the msat");
        assert_eq!(held, 0);
        assert!(fee <= 30_000 && sent >= 970, "{back}");
        node.finish().await;
    }
}

/// Of small payments the mint takes all that it reserved: there is no change, and it ends all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_leaves_nothing_over_ends() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let recipient = Recipient::start().await;
    let node = TestNode::start(&mint, &upstream).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(100).await;
    let token = purse.send(58).await;
    assert_eq!(node.balance(&token).await.0, 58_000);
    let wanted = json!({ "lightning_address": recipient.name() });
    let back = ok(node.post("/v1/wallet/refund").json(&wanted).bearer_auth(&token)).await;
    assert_eq!((back["sats"].as_str(), back["fee_msats"].as_u64()), (Some("57"), Some(1_000)), "{back}");
    assert_eq!(node.balance(&token).await, (0, 0, 0));
    node.finish().await;
}

/// Whatever keeps a payment from being made, the money is where it was, and the client is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_cannot_be_made_changes_nothing() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let recipient = Recipient::start().await;
    let node = TestNode::start(&mint, &upstream).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(300).await;
    let token = purse.send(256).await;
    node.balance(&token).await;
    for mood in [Mood::Refuses, Mood::Greedy, Mood::Broken, Mood::Unpayable] {
        recipient.set(mood);
        let wanted = json!({ "lightning_address": recipient.name() });
        let (status, body) = answer(node.post("/v1/wallet/refund").json(&wanted).bearer_auth(&token)).await;
        assert_eq!(
            (status, body["error"]["code"].as_str()),
            (502, Some("lightning_payment_failed")),
            "{mood:?} {body}"
        );
        assert_eq!(node.balance(&token).await, (256_000, 0, 0), "{mood:?}");
    }
    for address in ["nobody", "me@", "LNURL1", "me@10.0.0.1/x"] {
        let wanted = json!({ "lightning_address": address });
        let (status, body) = answer(node.post("/v1/wallet/refund").json(&wanted).bearer_auth(&token)).await;
        assert_eq!((status, body["error"]["code"].as_str()), (400, Some("invalid_request")), "{address} {body}");
    }
    let (status, _) =
        answer(node.post("/v1/wallet/refund").json(&json!({ "mint": "https://m.example" })).bearer_auth(&token)).await;
    assert_eq!(status, 400, "a mint that the node does not hold ecash of");
    // The coins are free again: the same money goes back as a token.
    let back = ok(node.post("/v1/wallet/refund").bearer_auth(&token)).await;
    assert_eq!(purse.receive(back["token"].as_str().unwrap()).await.unwrap(), 256);
    node.finish().await;
}

/// Invariant 11: a payment under way is neither paid again nor taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_under_way_stays_under_way() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let recipient = Recipient::start().await;
    let node = TestNode::start(&mint, &upstream).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(300).await;
    let token = purse.send(256).await;
    node.balance(&token).await;
    recipient.set(Mood::Pending);
    let wanted = json!({ "lightning_address": recipient.name() });
    for _ in 0..3 {
        let (status, body) = answer(node.post("/v1/wallet/refund").json(&wanted).bearer_auth(&token)).await;
        assert_eq!((status, body["error"]["code"].as_str()), (425, Some("refund_pending")), "{body}");
    }
    assert_eq!(recipient.asked().len(), 1, "one payment, one invoice");
    assert_eq!(node.balance(&token).await, (0, 0, 0));
    assert_eq!(resume(&node).await, 0, "not due yet");
    // Its ecash is reserved, neither spent nor free, for as long as the mint cannot say.
    let books = node.running().exchange().ledger.books().await.unwrap();
    assert_eq!((books.liabilities, books.ecash.values().sum::<i64>()), (256_000, 256_000));
    node.finish().await;
}

/// The seed's promise, which never worked over HTTP: a key with a date and an address pays itself out.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_time_is_over_goes_to_its_owner() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let recipient = Recipient::start().await;
    let clock = Arc::new(Ahead::default());
    let node = node_ahead(&mint, &upstream, &clock, &[]).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(600).await;
    let token = purse.send(500).await;
    let ends = clock.now_ms() / 1000 + 3600;
    let request = node.chat(&ask("hi")).bearer_auth(&token);
    ok(request.header("refund-lnurl", recipient.name()).header("key-expiry-time", ends.to_string())).await;
    let wallet = node.running().exchange().till.wallet().clone();
    let sweep = || coinslot::jobs::refund_expired(&wallet);
    node.has_run("refund_expired").await;
    assert_eq!(sweep().await.unwrap(), 0, "not yet");
    clock.step(Duration::from_secs(3601));
    recipient.set(Mood::Refuses);
    sweep().await.unwrap();
    let (before, _, spent) = node.balance(&token).await;
    assert_eq!(before + spent, 500_000, "its server refused; the money stays");
    recipient.set(Mood::Good);
    assert_eq!(sweep().await.unwrap(), 0, "not before tomorrow");
    clock.step(Duration::from_secs(86_400));
    let all = futures_util::future::join_all((0..4).map(|_| sweep())).await;
    assert_eq!(all.into_iter().map(Result::unwrap).sum::<usize>(), 1, "one of them pays it");
    // A hundredth is kept back for fees. The test's Lightning network takes one sat.
    let (sent, fee) = (494_000, 1_000);
    assert_eq!(recipient.asked(), [sent]);
    assert_eq!(mint.paid().await, [sent / 1000]);
    let (left, ..) = node.balance(&token).await;
    assert_eq!(sent + fee + left, before, "to the msat");
    assert_eq!(sweep().await.unwrap(), 0);
    assert_eq!((recipient.asked(), mint.paid().await), (vec![sent], vec![sent / 1000]), "never twice, nor for crumbs");
    // The key is still there, and can be filled again.
    let more = purse.send(50).await;
    ok(node.post("/v1/wallet/topup").bearer_auth(&token).json(&json!({ "cashu_token": more }))).await;
    node.finish().await;
}

/// Keys that cannot be paid are due again a day later, and those that are not worth it stay due; the others behind
/// them are paid all the same.
#[tokio::test(flavor = "multi_thread")]
async fn expired_keys_that_cannot_be_paid_hide_no_other() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let (dead, good) = (Recipient::start().await, Recipient::start().await);
    dead.set(Mood::Refuses);
    let clock = Arc::new(Ahead::default());
    let node = node_ahead(&mint, &upstream, &clock, &[]).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(2_000).await;
    let ends = clock.now_ms() / 1000 + 3_600;
    node.has_run("refund_expired").await;
    // Three of crumbs, three whose server refuses, and two that can be paid.
    let wanted = [(5, &dead, 0), (5, &good, 0), (9, &good, 0), (100, &dead, 0), (100, &dead, 0), (100, &dead, 1)];
    for (sats, to, later) in wanted.into_iter().chain([(200, &good, 2), (200, &good, 3)]) {
        let token = purse.send(sats).await;
        let noted = node.get("/v1/wallet/info").bearer_auth(&token).header("refund-lnurl", to.name());
        ok(noted.header("key-expiry-time", (ends + later).to_string())).await;
    }
    clock.step(Duration::from_secs(3_700));
    let wallet = node.running().exchange().till.wallet().clone();
    let mut round = coinslot::jobs::RefundRound::new(2, 2);
    for paid in [0, 1, 1] {
        assert_eq!(round.go_on(&wallet).await.unwrap(), paid);
    }
    assert!(good.asked().iter().all(|msat| *msat > 100_000), "not for crumbs: {:?}", good.asked());
    // After the last it is the first one's turn again, a day after it could not be paid.
    dead.set(Mood::Good);
    let operations = async || {
        let count = sqlx::query("SELECT COUNT(*) FROM operations WHERE kind = 'expiry'");
        let count = count.fetch_one(wallet.ledger().store().read()).await.unwrap();
        sqlx::Row::get::<i64, _>(&count, 0)
    };
    assert_eq!(operations().await, 5);
    clock.step(Duration::from_secs(3_600));
    assert_eq!(round.go_on(&wallet).await.unwrap(), 0);
    assert_eq!((operations().await, dead.asked().len()), (5, 0), "nothing was tried");
    clock.step(Duration::from_secs(82_801));
    for paid in [2, 1, 0] {
        assert_eq!(round.go_on(&wallet).await.unwrap(), paid);
    }
    assert_eq!(operations().await, 8);
    node.finish().await;
}

/// A mint that cannot be asked when a key's time is over keeps nobody's money back for longer than that.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_is_paid_when_the_mint_is_back() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let (chaos, recipient) = (Chaos::before(&mint.url()), Recipient::start().await);
    let clock = Arc::new(Ahead::default());
    let node = node_ahead(&mint, &upstream, &clock, &[("CASHU_MINTS", &chaos.url())]).await;
    node.quiet().await;
    let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
    purse.mint_sats(1_000).await;
    let token = purse.send(200).await;
    let noted = node.get("/v1/wallet/info").bearer_auth(&token).header("refund-lnurl", recipient.name());
    ok(noted.header("key-expiry-time", (clock.now_ms() / 1000 + 3_600).to_string())).await;
    clock.step(Duration::from_secs(3_700));
    chaos.set("/v1/melt/quote/bolt11", Mode::Limit(Some(1)));
    let wallet = node.running().exchange().till.wallet().clone();
    assert_eq!(coinslot::jobs::refund_expired(&wallet).await.unwrap(), 0);
    assert!(chaos.hits("/v1/melt/quote/bolt11") > 0);
    chaos.calm();
    found("the key is paid out", async || {
        clock.step(Duration::from_secs(60));
        resume(&node).await;
        let done = sqlx::query("SELECT COUNT(*) FROM operations WHERE kind = 'expiry' AND state = 'done'");
        let done = done.fetch_one(wallet.ledger().store().read()).await.unwrap();
        (sqlx::Row::get::<i64, _>(&done, 0) == 1).then_some(())
    })
    .await;
    // It had 200 sat; what the payment did not cost is still there.
    let (left, held, _) = node.balance(&token).await;
    assert!(left < 3_000 && held == 0, "{left}");
    node.finish().await;
}

/// Invariant 31: a payout takes what was earned and nothing else, however often it is tried.
#[tokio::test(flavor = "multi_thread")]
async fn earnings_are_paid_out_and_clients_money_is_not() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let recipient = Recipient::start().await;
    let node = TestNode::with(&mint, &upstream, &[("MODEL_BASED_PRICING", "false"), ("COST_PER_REQUEST", "50")]).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(1_000).await;
    let token = purse.send(900).await;
    let wallet = node.running().exchange().till.wallet().clone();
    let minimum = Msat::new(100_000).unwrap();
    let pay_out = || wallet.pay_out(Box::leak(recipient.name().into_boxed_str()), minimum);
    ok(node.chat(&ask("hi")).bearer_auth(&token)).await;
    assert_eq!(pay_out().await.unwrap(), [], "50 sats are too little");
    for _ in 0..3 {
        ok(node.chat(&ask("hi")).bearer_auth(&token)).await;
    }
    let outcomes = futures_util::future::join_all((0..4).map(|_| pay_out())).await;
    let sent: Vec<u64> = outcomes
        .into_iter()
        .flat_map(Result::unwrap)
        .filter_map(|change| if let Change::Sent { amount, .. } = change { Some(amount.get()) } else { None })
        .collect();
    assert_eq!(sent.len(), 1, "once: {sent:?}");
    assert!(sent[0] <= 200_000 && sent[0] >= 190_000, "{sent:?}");
    assert_eq!(node.balance(&token).await.0, 700_000);
    let books = node.running().exchange().ledger.books().await.unwrap();
    assert!(books.earnings >= 0 && books.earnings <= 10_000, "{books:?}");
    // All that clients have can still be paid back.
    let back = ok(node.post("/v1/wallet/refund").bearer_auth(&token)).await;
    assert_eq!(purse.receive(back["token"].as_str().unwrap()).await.unwrap(), 700);
    node.finish().await;
}

/// H24: so many invoices for new keys an hour, and so many of all that wait, for one address.
#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_so_many_invoices_an_hour_and_waiting() {
    let mint = TestMint::with_options(MintOptions { unpaid: true, ..MintOptions::default() }).await;
    let upstream = Upstream::start().await;
    let clock = Arc::new(Ahead::default());
    let node = node_ahead(&mint, &upstream, &clock, &[("INVOICE_CREATES_PER_HOUR", "8")]).await;
    let create = || node.post("/lightning/invoice").json(&json!({ "amount_sats": 9, "purpose": "create" }));
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(ok(create()).await);
    }
    let refused = create().send().await.unwrap();
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3_500..=3_600).contains(&wait), "until the first is over: {wait}");
    let quotes = mint.calls("/v1/mint/quote/bolt11");
    let (status, body) = answer(create()).await;
    assert_eq!((status, body["error"]["code"].as_str()), (429, Some("rate_limit_exceeded")), "{body}");
    assert_eq!(mint.calls("/v1/mint/quote/bolt11"), quotes, "the mint is not asked");
    // One is paid, so another may wait: also for a key that was paid for, which is not counted by the hour.
    mint.pay(made[0]["bolt11"].as_str().unwrap(), 9).await;
    let key = status_until(&node, made[0]["invoice_id"].as_str().unwrap(), "paid").await["api_key"].clone();
    let fill = || {
        node.post("/lightning/invoice").json(&json!({ "amount_sats": 1, "purpose": "topup", "api_key": key.clone() }))
    };
    let filling = ok(fill()).await;
    assert_eq!((answer(create()).await.0, answer(fill()).await.0), (429, 429));
    mint.pay(filling["bolt11"].as_str().unwrap(), 1).await;
    status_until(&node, filling["invoice_id"].as_str().unwrap(), "paid").await;
    ok(create()).await;
    assert_eq!((answer(create()).await.0, answer(fill()).await.0), (429, 429));
    // Their time is over, and two of eight are left for this hour; then the hour is over.
    clock.step(Duration::from_secs(3_600 - 60));
    assert_eq!(answer(create()).await.0, 429, "five wait");
    clock.step(Duration::from_secs(61));
    for _ in 0..5 {
        ok(create()).await;
    }
    node.finish().await;

    let node =
        node_ahead(&mint, &upstream, &clock, &[("INVOICE_CREATES_PER_HOUR", "2"), ("INVOICE_MAX_PENDING", "0")]).await;
    let create = || node.post("/lightning/invoice").json(&json!({ "amount_sats": 9, "purpose": "create" }));
    let outcomes = futures_util::future::join_all((0..10).map(|_| answer(create()))).await;
    assert_eq!(outcomes.iter().filter(|(status, _)| *status == 200).count(), 2, "also when they come at once");
    node.finish().await;

    // Behind a proxy of the operator's, everybody has an address of their own, and nobody another's.
    let settings = [("INVOICE_CREATES_PER_HOUR", "1"), ("TRUSTED_PROXIES", "127.0.0.1")];
    let node = node_ahead(&mint, &upstream, &clock, &settings).await;
    let create = async |forwarded: &'static str| {
        let request = node.post("/lightning/invoice").header("x-forwarded-for", forwarded);
        answer(request.json(&json!({ "amount_sats": 9, "purpose": "create" }))).await.0
    };
    assert_eq!([create("198.51.100.1").await, create("198.51.100.2").await], [200, 200]);
    assert_eq!([create("1.1.1.1, 198.51.100.1").await, create("198.51.100.2, 127.0.0.1").await], [429, 429]);
    node.finish().await;
}
