//! Ecash of mints that are not on the list: refused with the token intact, or swapped to a trusted
//! mint over Lightning. Two real mints, and a wire between them that carries what one pays the other.

use std::net::Ipv4Addr;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use cdk::nuts::{CurrencyUnit, Id, Token};
use coinslot::failpoint;
use serde_json::{Value, json};

use crate::lightning::node_ahead;
use crate::process::ChildNode;
use crate::shop::filled;
use crate::support::answers::{self, PATIENCE};
use crate::support::chaos::{Chaos, Mode};
use crate::support::clock::Ahead;
use crate::support::mint::{MintOptions, TestMint};
use crate::support::node::{MODEL, TestNode, ask};
use crate::support::purse::Purse;
use crate::support::tokens;
use crate::support::upstream::{Script, Upstream, completion, usage};
use crate::support::wire::Wire;

const SWAP: (&str, &str) = ("FOREIGN_MINTS", "swap");
const MELT: &str = "/v1/melt/bolt11";

/// A trusted mint whose invoices wait for their payment.
async fn home() -> TestMint {
    TestMint::with_options(MintOptions { unpaid: true, ..MintOptions::default() }).await
}

/// A foreign mint that was given so many sats, in a purse.
async fn away(options: MintOptions, sats: u64) -> (TestMint, Purse) {
    let away = TestMint::with_options(options).await;
    let purse = Purse::new(&away).await;
    purse.mint_sats(sats).await;
    (away, purse)
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Option<String>, Value) {
    told(request.send().await.unwrap()).await
}

async fn told(response: reqwest::Response) -> (u16, Option<String>, Value) {
    let status = response.status().as_u16();
    let header = response.headers().get("x-cashu").map(|value| value.to_str().unwrap().to_owned());
    let text = response.text().await.unwrap();
    (status, header, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text}")))
}

/// Asks until the answer is not that it is pending: a slow machine takes longer for a payment than a client is kept
/// waiting.
async fn decided(ask: impl Fn() -> reqwest::RequestBuilder) -> (u16, Option<String>, Value) {
    told(answers::decided("it", PATIENCE, ask).await).await
}

async fn ok(request: reqwest::RequestBuilder) -> Value {
    let (status, _, body) = decided(|| request.try_clone().expect("a body that can be sent again")).await;
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_ecash_is_refused_by_default_and_stays_good() {
    let (home, upstream) = (home().await, Upstream::start().await);
    let (away, purse) = away(MintOptions::default(), 100).await;
    let node = TestNode::start(&home, &upstream).await;
    let token = purse.send(100).await;
    away.reset_calls();
    for request in [
        node.chat(&ask("hi")).bearer_auth(&token),
        node.chat(&ask("hi")).header("x-cashu", &token),
        node.post("/v1/wallet/create").json(&json!({ "initial_balance_token": token })),
    ] {
        let (status, _, body) = answer(request).await;
        assert_eq!((status, body["error"]["code"].as_str()), (400, Some("cashu_untrusted_source_mint")), "{body}");
    }
    assert!(away.all_calls().is_empty(), "a mint that is not trusted is not even asked");
    assert_eq!(purse.receive(&token).await.unwrap(), 100);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_ecash_becomes_credit_at_a_trusted_mint() {
    let (home, upstream) = (home().await, Upstream::start().await);
    let (away, purse) = away(MintOptions::default(), 1000).await;
    let _wire = Wire::between(&away, &home);
    let node = TestNode::with(&home, &upstream, &[SWAP]).await;
    let payee = Purse::new(&home).await;

    // As a key: the network's fee of one sat is the payer's, and nothing else.
    let key = purse.send(200).await;
    ok(node.chat(&ask("hi")).bearer_auth(&key)).await;
    assert_eq!(node.balance(&key).await, (197_000, 0, 2000));
    let info = ok(node.get("/v1/wallet/info").bearer_auth(&key)).await;
    assert_eq!(info["mint"], home.url().as_str(), "{info}");
    purse.receive(&key).await.expect_err("its mint has paid with it");
    // Again and again: the same key.
    ok(node.chat(&ask("hi")).bearer_auth(&key)).await;
    assert_eq!(away.calls(MELT), 1);
    let back = ok(node.post("/v1/wallet/refund").bearer_auth(&key)).await;
    assert_eq!(back["mint"], home.url().as_str(), "{back}");
    assert!(back.get("foreign_remainders").is_none(), "{back}");
    assert_eq!(payee.receive(back["token"].as_str().unwrap()).await.unwrap(), 195);

    // On one request: change comes from the trusted mint.
    let once = purse.send(60).await;
    let (status, change, body) = decided(|| node.chat(&ask("hi")).header("x-cashu", &once)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(payee.receive(&change.unwrap()).await.unwrap(), 57);
    let (status, ..) = answer(node.chat(&ask("hi")).header("x-cashu", &once)).await;
    assert_eq!(status, 400, "it was used here before");

    // As a top-up of another key, from several requests at once: one credit.
    let (first, more) = (purse.send(50).await, purse.send(40).await);
    ok(node.get("/v1/wallet/info").bearer_auth(&first)).await;
    let top_up = || node.post("/v1/wallet/topup").bearer_auth(&first).json(&json!({ "cashu_token": more }));
    let all = futures_util::future::join_all((0..4).map(|_| decided(top_up))).await;
    assert!(all.iter().all(|(status, _, body)| *status == 200 && body["msats"] == 39_000), "{all:?}");
    assert_eq!(node.balance(&first).await.0, 49_000 + 39_000);
    node.finish().await;
}

/// What the foreign mint gives back of its fee reserve is the client's.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_the_fee_goes_back_to_the_client() {
    let (home, upstream) = (home().await, Upstream::start().await);
    // It sets four sats aside, and takes one.
    let (away, purse) = away(MintOptions { fee_reserve: Some(4), ..MintOptions::default() }, 200).await;
    let _wire = Wire::between(&away, &home);
    let node = TestNode::with(&home, &upstream, &[SWAP]).await;
    let (key, once) = (purse.send(100).await, purse.send(90).await);
    ok(node.get("/v1/wallet/info").bearer_auth(&key)).await;
    assert_eq!(node.balance(&key).await.0, 96_000);
    let back = ok(node.post("/v1/wallet/refund").bearer_auth(&key)).await;
    assert_eq!(back["sats"], "96", "{back}");
    assert_eq!(purse.receive(back["foreign_remainders"][0].as_str().unwrap()).await.unwrap(), 3);
    // Of a token that rode on a request, with its change.
    let (status, _, body) = decided(|| node.chat(&ask("hi")).header("x-cashu", &once)).await;
    assert_eq!(status, 200, "{body}");
    let back = ok(node.post("/v1/wallet/refund").header("x-cashu", &once)).await;
    assert_eq!(back["sats"], "84", "{back}");
    assert_eq!(purse.receive(back["foreign_remainders"][0].as_str().unwrap()).await.unwrap(), 3);
    node.finish().await;
}

/// And it is had where a request has taken the whole credit, so that nothing else is left to ask for.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_the_fee_is_had_when_the_credit_is_used_up() {
    let (home, upstream) = (home().await, Upstream::start().await);
    // It sets two sats aside, and takes one.
    let (away, purse) = away(MintOptions { fee_reserve: Some(2), ..MintOptions::default() }, 100).await;
    let _wire = Wire::between(&away, &home);
    let node = TestNode::with(&home, &upstream, &[SWAP]).await;
    let mut request = ask("hi");
    request["max_tokens"] = json!(1000);
    let (_, _, asked) = answer(node.chat(&request).header("x-cashu", "")).await;
    let price = asked["error"]["payment"]["amount"].as_u64().expect("an amount");
    assert!(price < 38, "two sats are the most that a swap of this may cost");
    let (key, once) = (purse.send(price + 2).await, purse.send(price + 2).await);
    // The answers use more than was held.
    let dear = || Script::Answer {
        status: 200,
        media: "application/json",
        body: completion(MODEL, "fine", Some(usage(9000, 1000))),
    };
    let left = |back: (u16, Option<String>, Value)| {
        let (status, header, body) = back;
        assert_eq!((status, header, &body["token"], &body["sats"]), (200, None, &Value::Null, &json!("0")), "{body}");
        body["foreign_remainders"][0].as_str().unwrap().to_owned()
    };

    ok(node.get("/v1/wallet/info").bearer_auth(&key)).await;
    assert_eq!(node.balance(&key).await.0, price * 1000);
    upstream.next(dear());
    ok(node.chat(&request).bearer_auth(&key)).await;
    assert!(node.balance(&key).await.0 < 1000);
    let refund = || node.post("/v1/wallet/refund").bearer_auth(&key);
    let remainder = left(answer(refund()).await);
    assert_eq!(left(answer(refund()).await), remainder, "an answer can be lost");
    assert_eq!(purse.receive(&remainder).await.unwrap(), 1);
    // On the page, too.
    let page = filled(&node, "/shop/refund", &[("key", &key)]).header("origin", node.url()).send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.text().await.unwrap().contains(&remainder));

    upstream.next(dear());
    let (status, change, body) = decided(|| node.chat(&request).header("x-cashu", &once)).await;
    assert_eq!((status, change), (200, None), "{body}");
    let remainder = left(answer(node.post("/v1/wallet/refund").header("x-cashu", &once)).await);
    assert_eq!(purse.receive(&remainder).await.unwrap(), 1);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_swapped_stays_good() {
    let (home, upstream) = (home().await, Upstream::start().await);
    // One sat for every coin that is spent.
    let (dear, purse) = away(MintOptions { fee_ppk: 1000, ..MintOptions::default() }, 200).await;
    let (mut down, other) = away(MintOptions::default(), 300).await;
    let (_wires, node) =
        ((Wire::between(&dear, &home), Wire::between(&down, &home)), TestNode::with(&home, &upstream, &[SWAP]).await);
    let code = |body: &Value| body["error"]["code"].as_str().unwrap_or_default().to_owned();

    // 63 sats are six coins: six sats are more than five percent.
    let token = purse.send(63).await;
    let (status, _, body) = answer(node.chat(&ask("hi")).bearer_auth(&token)).await;
    assert_eq!((status, &*code(&body)), (422, "cashu_token_swap_fees_exceed_amount"), "{body}");
    assert_eq!(dear.calls(MELT), 0, "it is told before anything is paid");
    assert_eq!(purse.receive(&token).await.unwrap(), 57);

    // Spent elsewhere.
    let spent = other.send(100).await;
    other.receive(&spent).await.unwrap();
    let (status, _, body) = answer(node.chat(&ask("hi")).header("x-cashu", &spent)).await;
    assert_eq!((status, &*code(&body)), (400, "cashu_token_already_spent"), "{body}");

    // Gone: the token is handed back, and good when its mint is.
    let token = other.send(100).await;
    down.stop().await;
    let (status, header, body) = answer(node.chat(&ask("hi")).header("x-cashu", &token)).await;
    assert_eq!((status, &*code(&body)), (503, "cashu_source_mint_unreachable"), "{body}");
    assert_eq!(header.as_deref(), Some(&*token));
    down.restart().await;
    let (status, change, body) = decided(|| node.chat(&ask("hi")).header("x-cashu", &token)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(Purse::new(&home).await.receive(&change.unwrap()).await.unwrap(), 97);
    node.finish().await;
}

/// A foreign mint's word brings no credit. What the trusted mint says counts: paid late is credited,
/// not paid at all is told, when time is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_does_not_arrive_is_never_credited() {
    let (home, upstream) = (home().await, Upstream::start().await);
    let (away, purse) = away(MintOptions::default(), 300).await;
    let wire = Wire::between(&away, &home);
    let clock = Arc::new(Ahead::default());
    let node = node_ahead(&home, &upstream, &clock, &[SWAP]).await;
    let wallet = node.running().exchange().till.wallet().clone();

    wire.set(false);
    let late = purse.send(100).await;
    for _ in 0..2 {
        let (status, header, body) = answer(node.chat(&ask("hi")).bearer_auth(&late)).await;
        assert_eq!((status, body["error"]["code"].as_str()), (503, Some("cashu_mint_timeout")), "{body}");
        assert_eq!(header, None, "it may be spent");
    }
    assert_eq!(away.calls(MELT), 1, "it is not paid twice");
    wallet.resume(i64::MAX).await.unwrap();
    wire.set(true);
    let (status, _, body) = decided(|| node.chat(&ask("hi")).bearer_auth(&late)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(node.balance(&late).await, (97_000, 0, 2000));

    wire.set(false);
    let lost = purse.send(100).await;
    let (status, ..) = answer(node.chat(&ask("hi")).header("x-cashu", &lost)).await;
    assert_eq!(status, 503);
    let (status, ..) = answer(node.post("/v1/wallet/refund").header("x-cashu", &lost)).await;
    assert_eq!(status, 425);
    clock.step(Duration::from_secs(26 * 3600));
    wallet.resume(i64::MAX).await.unwrap();
    for _ in 0..2 {
        let (status, header, body) = answer(node.chat(&ask("hi")).header("x-cashu", &lost)).await;
        assert_eq!((status, body["error"]["code"].as_str()), (502, Some("cashu_foreign_mint_swap_failed")), "{body}");
        assert_eq!(header, None);
    }
    let books = node.running().exchange().ledger.books().await.unwrap();
    assert_eq!(books.liabilities + books.earnings, 99_000, "only what arrived");
    node.finish().await;
}

/// The answer to the payment is lost: the foreign mint is asked what became of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_the_payment_is_no_loss() {
    let (home, upstream) = (home().await, Upstream::start().await);
    let away = TestMint::start().await;
    let chaos = Chaos::before(&away.url());
    let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
    purse.mint_sats(300).await;
    let _wire = Wire::between(&away, &home);
    let node = TestNode::with(&home, &upstream, &[SWAP]).await;
    chaos.set(MELT, Mode::DropReply);
    let key = purse.send(100).await;
    ok(node.get("/v1/wallet/info").bearer_auth(&key)).await;
    assert_eq!(node.balance(&key).await.0, 99_000);
    assert_eq!(chaos.hits(MELT), 1);
    // Never arrived, and then its mint is gone: it is not known. It is paid when its mint is back.
    chaos.set(MELT, Mode::Cut);
    chaos.set("", Mode::Cut);
    let key = {
        chaos.set("/v1/checkstate", Mode::Pass);
        chaos.set("/v1/melt/quote/bolt11", Mode::Pass);
        let token = purse_token(&chaos, &purse).await;
        let (status, _, body) = answer(node.get("/v1/wallet/info").bearer_auth(&token)).await;
        assert_eq!((status, body["error"]["code"].as_str()), (503, Some("cashu_mint_timeout")), "{body}");
        token
    };
    chaos.calm();
    let (status, _, body) = decided(|| node.get("/v1/wallet/info").bearer_auth(&key)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(node.balance(&key).await.0, 99_000);
    assert_eq!(purse.balance().await, 100);
    node.finish().await;
}

/// A token made while the proxy behaves.
async fn purse_token(chaos: &Chaos, purse: &Purse) -> String {
    chaos.set("", Mode::Pass);
    let token = purse.send(100).await;
    chaos.set("", Mode::Cut);
    token
}

/// Servers that are no mints, or want to be too much of one.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_mints_cost_nothing_but_a_moment() {
    let (home, upstream) = (home().await, Upstream::start().await);
    let (away, purse) = away(MintOptions::default(), 100).await;
    let node = TestNode::with(&home, &upstream, &[SWAP]).await;
    let id = away.mint().keysets().keysets[0].id.to_string();
    let keysets = |count: usize| {
        let one = json!({ "id": id, "unit": "sat", "active": true, "input_fee_ppk": 0 });
        json!({ "keysets": vec![one; count] }).to_string()
    };
    let huge = format!("{{\"keysets\":[],\"x\":\"{}\"}}", "x".repeat(300 * 1024));
    for (what, body) in [("nonsense", "<html>".to_owned()), ("huge", huge), ("too many keysets", keysets(65))] {
        let router = Router::new().route("/v1/keysets", get(move || std::future::ready(body.clone())));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let proofs = tokens::proofs(&away, &purse.send_token(30).await);
        let token = tokens::token(&url, proofs, CurrencyUnit::Sat);
        let (status, _, body) = answer(node.chat(&ask("hi")).bearer_auth(&token)).await;
        assert_eq!((status, body["error"]["code"].as_str()), (503, Some("cashu_source_mint_unreachable")), "{what}");
        server.abort();
    }
    // One whose keysets are those of the trusted mint: its outputs would use up that one's counters.
    let double = Chaos::before(&home.url());
    assert!(
        node.running().exchange().till.wallet().refresh(0).await.is_empty(),
        "the node has the keysets of its mint"
    );
    let proofs = tokens::proofs(&home, &Token::from_str(&tokens::invented(&home, 32)).unwrap());
    let token = tokens::token(&double.url(), proofs, CurrencyUnit::Sat);
    let (status, _, body) = answer(node.chat(&ask("hi")).bearer_auth(&token)).await;
    assert_eq!((status, body["error"]["code"].as_str()), (422, Some("cashu_foreign_mint_swap_failed")), "{body}");
    assert_eq!(double.hits("/v1/melt/quote/bolt11"), 0);
    node.finish().await;
}

/// Of an old id, secrets and blinding factors derive from 31 bits: whoever has another keyset with the same would be
/// given outputs that are the trusted mint's, whatever the rest of its id.
#[tokio::test(flavor = "multi_thread")]
async fn a_keyset_whose_outputs_would_be_a_trusted_mint_s_is_refused() {
    let options = MintOptions { unpaid: true, keyset_v2: Some(false), ..MintOptions::default() };
    let (home, upstream) = (TestMint::with_options(options).await, Upstream::start().await);
    let node = TestNode::with(&home, &upstream, &[SWAP]).await;
    assert!(node.running().exchange().till.wallet().refresh(0).await.is_empty());
    let id = home.mint().keysets().keysets[0].id;
    let number = u64::from_str_radix(&id.to_string(), 16).unwrap();
    let twin = Id::from_str(&format!("{:016x}", number - ((1 << 31) - 1))).unwrap();
    assert!(twin != id && u32::from(twin) == u32::from(id));
    let other = Id::from_str(&format!("{:016x}", number - (1 << 31))).unwrap();
    for (listed, status, code) in
        [(other, 503, "cashu_source_mint_unreachable"), (twin, 422, "cashu_foreign_mint_swap_failed")]
    {
        // It knows its keysets and nothing else.
        let one = json!({ "id": listed, "unit": "sat", "active": true, "input_fee_ppk": 0 });
        let body = json!({ "keysets": [one] }).to_string();
        let router = Router::new()
            .route("/v1/keysets", get(move || std::future::ready(body.clone())))
            .fallback(|| std::future::ready(StatusCode::INTERNAL_SERVER_ERROR));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let mut proofs = tokens::proofs(&home, &Token::from_str(&tokens::invented(&home, 32)).unwrap());
        proofs[0].keyset_id = listed;
        let token = tokens::token(&url, proofs, CurrencyUnit::Sat);
        let (answered, _, body) = answer(node.chat(&ask("hi")).bearer_auth(&token)).await;
        assert_eq!((answered, body["error"]["code"].as_str()), (status, Some(code)), "{body}");
        server.abort();
    }
    node.finish().await;
}

/// `kill -9` at every step: the token is credited once, or is still good.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_of_a_swap_from_a_foreign_mint() {
    let upstream = Upstream::start().await;
    let points: Vec<_> = failpoint::POINTS.iter().filter(|point| point.starts_with("import.")).collect();
    assert!(!points.is_empty());
    for point in points {
        let home = home().await;
        let (away, purse) = away(MintOptions::default(), 100).await;
        let _wire = Wire::between(&away, &home);
        let mut node = ChildNode::start(&home.url(), &upstream, &[SWAP, ("COINSLOT_FAILPOINT", *point)]).await;
        let token = purse.send(100).await;
        assert!(node.chat(&ask("hi")).bearer_auth(&token).send().await.is_err(), "{point}: it dies of that");
        node.kill();
        node.set("COINSLOT_FAILPOINT", "");
        node.restart().await;
        let (status, _, body) = decided(|| node.get("/v1/wallet/info").bearer_auth(&token)).await;
        assert_eq!(status, 200, "{point}: {body}");
        assert_eq!(node.balance(&token).await, (99_000, 0, 0), "{point}");
        assert_eq!(
            away.mint().melt_quotes().await.unwrap().iter().filter(|quote| quote.paid_time.is_some()).count(),
            1
        );
        let (_, _, back) = decided(|| node.post("/v1/wallet/refund").bearer_auth(&token)).await;
        let payee = Purse::new(&home).await;
        assert_eq!(payee.receive(back["token"].as_str().unwrap()).await.unwrap(), 99, "{point}");
        node.kill();
        let books = node.db.books().await;
        assert_eq!((books.liabilities, books.earnings, books.open_holds), (0, 0, 0), "{point}");
        node.db.remove().await;
    }
}
