//! The ladder of ready coins: change and refunds without a call to the mint, refilled in the
//! background by exchanges that can be killed, lost and refused like everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use cdk::nuts::{CurrencyUnit, State};
use coinslot::clock::{Clock as _, SystemClock};
use coinslot::failpoint;
use serde_json::{Value, json};

use crate::process::ChildNode;
use crate::support::answers::{PATIENCE, decided, ok, read, until};
use crate::support::chaos::{Chaos, Mode};
use crate::support::lnurl::Recipient;
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, TestNode, ask};
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream, completion, usage};

const LADDER: &str = "CHANGE_LADDER_COINS";
const SWAP: &str = "/v1/swap";

/// Exchanges coins until there is nothing to exchange; gives how many exchanges there were, beside those of the start.
async fn refill(node: &TestNode) -> usize {
    node.has_run("refill_ladder").await;
    node.running().exchange().till.wallet().refill().await.unwrap()
}

/// The node's coins, by amount.
async fn coins(node: &TestNode) -> BTreeMap<u64, usize> {
    let ecash = coinslot::wallet::cdk_db::open(node.running().exchange().ledger.store()).await.unwrap();
    let mut coins = BTreeMap::new();
    for info in ecash.get_proofs(None, None, Some(vec![State::Unspent]), None).await.unwrap() {
        *coins.entry(info.proof.amount.to_u64()).or_default() += 1;
    }
    coins
}

/// Whether at least `wanted` coins of each amount up to `top` are there.
fn is_whole(coins: &BTreeMap<u64, usize>, wanted: usize, top: u64) -> bool {
    (0..).map(|bit| 1 << bit).take_while(|amount| *amount <= top).all(|amount| coins.get(&amount) >= Some(&wanted))
}

fn costing(prompt: u64) -> Script {
    Script::Answer { status: 200, media: "application/json", body: completion(MODEL, "fine", Some(usage(prompt, 0))) }
}

/// A key with so many sats in few coins: the node has no ladder yet.
async fn world(mint_url: &str, mint: &TestMint, sats: u64) -> (Purse, Upstream, TestNode, String) {
    let purse = Purse::with_unit(mint_url, CurrencyUnit::Sat).await;
    purse.mint_sats(sats * 3).await;
    let upstream = Upstream::start().await;
    let node = TestNode::with(mint, &upstream, &[("CASHU_MINTS", mint_url), (LADDER, "0")]).await;
    let key = purse.send(sats).await;
    ok(node.get("/v1/wallet/info").bearer_auth(&key)).await;
    (purse, upstream, node, key)
}

/// Takes back what is on a key, asking again while it is pending.
async fn refund(ask: impl Fn() -> reqwest::RequestBuilder) -> String {
    let (status, back) = read(decided("the refund", PATIENCE, ask).await).await;
    assert_eq!(status, 200, "{back}");
    back["token"].as_str().unwrap().to_owned()
}

/// With a whole ladder, the only call to the mint is the one that redeems what came in.
#[tokio::test(flavor = "multi_thread")]
async fn change_and_refunds_need_no_call_to_the_mint() {
    let mint = TestMint::start().await;
    let (purse, upstream, mut node, key) = world(&mint.url(), &mint, 1000).await;
    node.restart_with(LADDER, "4").await;
    node.quiet().await;
    refill(&node).await;
    assert!(is_whole(&coins(&node).await, 4, 64), "{:?}", coins(&node).await);
    let payee = Purse::new(&mint).await;
    for (round, cost) in [7, 1, 13, 18, 2, 14, 19, 11, 5, 16].into_iter().enumerate() {
        // On one request, with change; and as a key, with a refund.
        let (once, other) = (purse.send(40).await, purse.send(61).await);
        upstream.next(costing(cost * 100));
        let before = mint.all_calls();
        let answer = node.chat(&ask("hi")).header("x-cashu", &once).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        let change = answer.headers()["x-cashu"].to_str().unwrap().to_owned();
        upstream.next(costing(cost * 100));
        ok(node.chat(&ask("hi")).bearer_auth(&other)).await;
        let back = ok(node.post("/v1/wallet/refund").bearer_auth(&other)).await;
        let mut after = mint.all_calls();
        *after.get_mut(SWAP).unwrap() -= 2;
        assert_eq!(after, before, "round {round}: two tokens redeemed, change and refund made of what was there");
        assert_eq!(payee.receive(&change).await.unwrap(), 40 - cost);
        assert_eq!(payee.receive(back["token"].as_str().unwrap()).await.unwrap(), 61 - cost);
    }
    let before = mint.all_calls();
    let back = ok(node.post("/v1/wallet/refund").bearer_auth(&key)).await;
    assert_eq!(mint.all_calls(), before, "all that the first key had, in coins that were ready");
    assert_eq!(payee.receive(back["token"].as_str().unwrap()).await.unwrap(), 1000);
    node.finish().await;
}

/// What the ladder has need not come in again: a token is taken in few coins, and any change of it is paid all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_brings_what_the_ladder_lacks_for_its_change() {
    let mint = TestMint::start().await;
    let (purse, upstream, mut node, _) = world(&mint.url(), &mint, 1000).await;
    let count = async |node: &TestNode| coins(node).await.values().sum::<usize>();
    let pay = async |node: &TestNode, once: &str, cost: u64| {
        upstream.next(costing(cost * 100));
        let answer = node.chat(&ask("hi")).header("x-cashu", once).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        let change = answer.headers()["x-cashu"].to_str().unwrap().to_owned();
        assert_eq!(Purse::new(&mint).await.receive(&change).await.unwrap(), 40 - cost);
    };
    let before = count(&node).await;
    pay(&node, &purse.send(40).await, 7).await;
    // 1 + 2 + 4 + 8 + 16 + 1 + 8 came, 1 + 32 in coins went.
    let without = count(&node).await - before;
    node.restart_with(LADDER, "4").await;
    refill(&node).await;
    let before = count(&node).await;
    pay(&node, &purse.send(40).await, 7).await;
    // 8 + 32 came, and went as 1 + 32.
    assert_eq!(count(&node).await, before);
    assert!(without > 3, "{without}");
    // The 1 that went came with the next.
    let costs = [1, 2, 3, 5, 8, 13, 19];
    let mut tokens = Vec::new();
    for _ in costs {
        tokens.push(purse.send(40).await);
    }
    let before = mint.all_calls()[SWAP];
    for (token, cost) in tokens.iter().zip(costs) {
        pay(&node, token, cost).await;
    }
    assert_eq!(mint.all_calls()[SWAP] - before, 14, "each was redeemed, and its change received by whom it went to");
    node.finish().await;
}

/// The job makes the ladder whole by itself, with few coins in all.
#[tokio::test(flavor = "multi_thread")]
async fn a_ladder_is_built_in_the_background() {
    let mint = TestMint::start().await;
    let (purse, _upstream, mut node, key) = world(&mint.url(), &mint, 1000).await;
    let second = purse.send(100).await;
    ok(node.chat(&ask("hi")).bearer_auth(&second)).await;
    node.restart_with(LADDER, "2").await;
    until("it is whole", async || is_whole(&coins(&node).await, 2, 64)).await;
    node.quiet().await;
    let held = coins(&node).await;
    assert!(held.values().sum::<usize>() < 40, "{held:?}");
    let before = mint.all_calls();
    ok(node.post("/v1/wallet/refund").bearer_auth(&second)).await;
    ok(node.post("/v1/wallet/refund").bearer_auth(&key)).await;
    assert_eq!(mint.all_calls(), before);
    node.finish().await;
}

/// Many small coins become few large ones.
#[tokio::test(flavor = "multi_thread")]
async fn dust_is_collected() {
    let mint = TestMint::start().await;
    let (purse, upstream, mut node, key) = world(&mint.url(), &mint, 64).await;
    purse.mint_sats(1000).await;
    for _ in 0..24 {
        // 1 + 2 + 4 + 8 + 16, and later more: what it costs stays as a coin of 1.
        let once = purse.send(31).await;
        upstream.next(costing(100));
        let mut small = ask("hi");
        small["max_tokens"] = json!(100);
        let answer = node.chat(&small).header("x-cashu", &once).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }
    let before = coins(&node).await;
    assert_eq!(before.get(&1), Some(&24), "{before:?}");
    node.restart_with(LADDER, "1").await;
    refill(&node).await;
    let after = coins(&node).await;
    assert!(after[&1] <= 4 && after.values().sum::<usize>() <= 12, "{after:?}");
    assert_eq!(refill(&node).await, 0, "then there is nothing more to do");
    let payee = Purse::new(&mint).await;
    let back = ok(node.post("/v1/wallet/refund").bearer_auth(&key)).await;
    assert_eq!(payee.receive(back["token"].as_str().unwrap()).await.unwrap(), 64);
    node.finish().await;
}

/// An exchange costs a percent at most, and only what was earned: clients' money pays no fee of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_fee_is_paid_from_earnings_and_within_its_bound() {
    // Per coin: a tenth of a sat, one sat, ten sats.
    for (fee_ppk, exchanged) in [(100, true), (1_000, true), (10_000, false)] {
        let mint = TestMint::with_fee_ppk(fee_ppk).await;
        let (_purse, upstream, mut node, key) = world(&mint.url(), &mint, 1000).await;
        let (credited, _, _) = node.balance(&key).await;
        node.restart_with(LADDER, "4").await;
        assert_eq!(refill(&node).await, 0, "{fee_ppk}: nothing was earned yet");
        upstream.next(costing(1500));
        ok(node.chat(&ask("hi")).bearer_auth(&key)).await;
        assert_eq!(node.balance(&key).await.0, credited - 15_000);
        let made = refill(&node).await;
        assert_eq!(made > 0, exchanged, "{fee_ppk}");
        let books = node.running().exchange().ledger.books().await.unwrap();
        let fees = 15_000 - books.earnings;
        assert_eq!(fees > 0, exchanged, "{fee_ppk}: {fees}");
        assert!((0..=10_000).contains(&fees), "{fee_ppk}: a percent of what there is, at most: {fees}");
        assert_eq!(books.liabilities, i64::try_from(credited).unwrap() - 15_000, "no client pays it");
        let swaps = mint.calls(SWAP);
        let back = ok(node.post("/v1/wallet/refund").bearer_auth(&key)).await;
        if exchanged {
            assert_eq!(mint.calls(SWAP), swaps, "{fee_ppk}");
            assert_eq!(back["sats"], ((credited - 15_000) / 1000).to_string(), "{fee_ppk}");
        }
        node.finish().await;
    }
}

/// The mint has exchanged the coins, its answer is lost, and then it is gone for a while. Meanwhile
/// a refund that needs those coins waits, and is made when they are there.
#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_whose_answer_is_lost_is_finished() {
    let mint = TestMint::start().await;
    let chaos = Chaos::before(&mint.url());
    let (purse, _upstream, mut node, key) = world(&chaos.url(), &mint, 1000).await;
    chaos.set("", Mode::Cut);
    chaos.set(SWAP, Mode::DropReply);
    let swaps = chaos.hits(SWAP);
    node.restart_with(LADDER, "4").await;
    chaos.hit(SWAP, swaps).await;
    let early = node.post("/v1/wallet/refund").bearer_auth(&key).send().await.unwrap();
    assert_eq!(early.status(), 425, "{}", early.text().await.unwrap());
    assert_eq!(refill(&node).await, 0, "one exchange at a time");
    chaos.calm();
    let back = {
        let wallet = node.running().exchange().till.wallet().clone();
        until("it is finished", async || wallet.resume(i64::MAX).await.unwrap() == 0).await;
        refund(|| node.post("/v1/wallet/refund").bearer_auth(&key)).await
    };
    assert_eq!(chaos.hits(SWAP), swaps + 1, "it was not sent again, and the refund needed none");
    assert_eq!(purse.receive(&back).await.unwrap(), 1000);
    node.finish().await;
}

/// The mint's keysets were replaced: the exchange is refused, its coins are whole, and the next one
/// is for the new keyset.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_exchange_leaves_the_coins_as_they_were() {
    let mint = TestMint::start().await;
    let chaos = Chaos::before(&mint.url());
    let (purse, _upstream, mut node, key) = world(&chaos.url(), &mint, 1000).await;
    let amounts = (0..20).map(|bit| 1 << bit).collect();
    mint.mint().rotate_keyset(CurrencyUnit::Sat, amounts, 0, true, None).await.unwrap();
    // The node must not hear of it before it asks for the exchange.
    chaos.set("/v1/keysets", Mode::Hold);
    let swaps = chaos.hits(SWAP);
    node.restart_with(LADDER, "4").await;
    chaos.hit(SWAP, swaps).await;
    chaos.calm();
    until("it is whole", async || {
        refill(&node).await;
        is_whole(&coins(&node).await, 4, 64)
    })
    .await;
    let made = chaos.hits(SWAP);
    assert!(made >= swaps + 2, "one was refused, one was made");
    let back = refund(|| node.post("/v1/wallet/refund").bearer_auth(&key)).await;
    assert_eq!(chaos.hits(SWAP), made);
    // The payer's purse does not know the new keyset.
    drop(purse);
    let payee = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
    assert_eq!(payee.receive(&back).await.unwrap(), 1000);
    node.finish().await;
}

/// NUT-02: a keyset has an end, after which its coins are worth nothing. They are exchanged before, with a ladder or
/// without one, and not while nobody signs with another.
#[tokio::test(flavor = "multi_thread")]
async fn coins_of_a_keyset_that_ends_are_exchanged_in_time() {
    let mint = TestMint::start().await;
    let (purse, _upstream, node, key) = world(&mint.url(), &mint, 100).await;
    let rotate = async |ends_in_days: Option<i64>| {
        let ends = ends_in_days.map(|days| u64::try_from(SystemClock.now_ms() / 1000 + days * 86_400).unwrap());
        let amounts = (0..20).map(|bit| 1 << bit).collect();
        mint.mint().rotate_keyset(CurrencyUnit::Sat, amounts, 0, true, ends).await.unwrap();
        assert!(node.running().exchange().till.wallet().refresh(0).await.is_empty());
    };
    let keysets = async || {
        let ecash = coinslot::wallet::cdk_db::open(node.running().exchange().ledger.store()).await.unwrap();
        let held = ecash.get_proofs(None, None, Some(vec![State::Unspent]), None).await.unwrap();
        held.iter().map(|info| info.proof.keyset_id).collect::<BTreeSet<_>>()
    };
    let first = keysets().await;
    rotate(Some(7)).await;
    assert_eq!((refill(&node).await, keysets().await), (0, first.clone()), "a retired keyset without an end is good");

    // All that comes now is of the one that ends, and there is no other.
    let later = Purse::with_unit(&mint.url(), CurrencyUnit::Sat).await;
    later.mint_sats(60).await;
    let second = later.send(60).await;
    ok(node.get("/v1/wallet/info").bearer_auth(&second)).await;
    let both = keysets().await;
    assert_eq!((refill(&node).await, both.len()), (0, 2));

    // One that ends in a year is no reason to hurry; the one before it is.
    rotate(Some(365)).await;
    assert_eq!(refill(&node).await, 1);
    let now = keysets().await;
    assert_eq!((now.len(), now.is_superset(&first), now == both), (2, true, false));
    assert_eq!(refill(&node).await, 0);
    drop(purse);
    let payee = Purse::with_unit(&mint.url(), CurrencyUnit::Sat).await;
    for (key, worth) in [(&key, 100), (&second, 60)] {
        let back = refund(|| node.post("/v1/wallet/refund").bearer_auth(key)).await;
        assert_eq!(payee.receive(&back).await.unwrap(), worth);
    }
    node.finish().await;
}

/// An exchange has most of the coins in hand: a refund waits for it, and is made at once when it is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_waits_for_an_exchange() {
    let recipient = Recipient::start().await;
    let lightning = json!({ "lightning_address": recipient.name() });
    for to in [json!({}), lightning] {
        let mint = TestMint::start().await;
        let chaos = Chaos::before(&mint.url());
        let (purse, _upstream, mut node, key) = world(&chaos.url(), &mint, 1000).await;
        chaos.set(SWAP, Mode::Hold);
        let swaps = chaos.hits(SWAP);
        node.restart_with(LADDER, "4").await;
        chaos.hit(SWAP, swaps).await;
        let (ask, began) = (node.post("/v1/wallet/refund").bearer_auth(&key).json(&to), Instant::now());
        let first = ask.try_clone().unwrap().send();
        let waiting = tokio::spawn(async move { (first.await.unwrap(), began.elapsed()) });
        // The refund is written before it looks for coins.
        until("it is written", async || node.balance(&key).await.0 == 0).await;
        chaos.calm();
        let (mut answer, waited) = waiting.await.unwrap();
        if answer.status() == 425 {
            // A slow machine takes longer for the exchange than a refund waits, which is three seconds.
            assert!(waited >= Duration::from_secs(3), "{waited:?}");
            answer = decided("the refund", PATIENCE, || ask.try_clone().unwrap()).await;
        }
        let (status, back) = read(answer).await;
        assert_eq!(status, 200, "{back}");
        assert_eq!(chaos.hits(SWAP), swaps + 1, "the exchange, and none for the refund");
        match back["token"].as_str() {
            Some(token) => assert_eq!(purse.receive(token).await.unwrap(), 1000),
            None => assert_eq!(back["recipient"], recipient.name().as_str(), "{back}"),
        }
        node.finish().await;
    }
}

/// However many ask for it, and on PostgreSQL in two processes: one exchange at a time.
#[tokio::test(flavor = "multi_thread")]
async fn one_exchange_at_a_time() {
    let mint = TestMint::start().await;
    let chaos = Chaos::before(&mint.url());
    let url = chaos.url();
    let purse = Purse::with_unit(&url, CurrencyUnit::Sat).await;
    purse.mint_sats(1000).await;
    let upstream = Upstream::start().await;
    let secret = ("SECRET_KEY", "one secret key for both of the nodes");
    let mut node = TestNode::with(&mint, &upstream, &[("CASHU_MINTS", &url), secret]).await;
    let key = purse.send(1000).await;
    ok(node.get("/v1/wallet/info").bearer_auth(&key)).await;
    let swaps = chaos.hits(SWAP);
    chaos.set(SWAP, Mode::Hold);
    let database = node.settings().get("DATABASE_URL").cloned();
    let other = match &database {
        Some(database) => {
            let more = [("CASHU_MINTS", url.as_str()), secret, ("DATABASE_URL", database), (LADDER, "4")];
            Some(TestNode::with(&mint, &upstream, &more).await)
        }
        None => None,
    };
    node.restart_with(LADDER, "4").await;
    chaos.hit(SWAP, swaps).await;
    let wallets: Vec<_> =
        other.iter().chain([&node]).flat_map(|node| vec![node.running().exchange().till.wallet().clone(); 3]).collect();
    let refills: Vec<_> =
        wallets.into_iter().map(|wallet| tokio::spawn(async move { wallet.refill().await })).collect();
    if other.is_some() {
        // The process that is exchanging has its own wait. The other sees that there is an exchange, and
        // is done without one.
        let finished = || refills.iter().filter(|refill| refill.is_finished()).count();
        until("those of one process are done", async || finished() >= 3).await;
        assert_eq!(finished(), 3, "those of one process");
    }
    assert_eq!(chaos.hits(SWAP), swaps + 1);
    chaos.calm();
    for refill in refills {
        refill.await.unwrap().unwrap();
    }
    assert_eq!(chaos.hits(SWAP), swaps + 1, "it was enough");
    let asked = other.as_ref().unwrap_or(&node);
    let back = refund(|| asked.post("/v1/wallet/refund").bearer_auth(&key)).await;
    assert_eq!(purse.receive(&back).await.unwrap(), 1000);
    assert_eq!(chaos.hits(SWAP), swaps + 2, "the purse's own");
    if let Some(other) = other {
        other.finish().await;
    }
    node.finish().await;
}

/// `kill -9` at every step of an exchange: the money is all there, and goes back when it is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_of_an_exchange() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let points: Vec<_> = failpoint::POINTS.iter().filter(|point| point.starts_with("consolidate.")).collect();
    assert!(!points.is_empty());
    for point in points {
        let purse = Purse::new(&mint).await;
        purse.mint_sats(1000).await;
        let mut node = ChildNode::start(&mint.url(), &upstream, &[(LADDER, "0")]).await;
        let key = purse.send(1000).await;
        upstream.next(costing(200));
        ok(node.chat(&ask("hi")).bearer_auth(&key)).await;
        node.kill();
        node.set(LADDER, "4");
        if node.restart_armed(point).await {
            node.died().await;
        }
        node.set(LADDER, "0");
        node.restart().await;
        let back = refund(|| node.post("/v1/wallet/refund").bearer_auth(&key)).await;
        assert_eq!(purse.receive(&back).await.unwrap(), 998, "{point}");
        node.kill();
        let books = node.db.books().await;
        assert_eq!((books.liabilities, books.earnings, books.open_holds), (0, 2000, 0), "{point}");
        node.db.remove().await;
    }
}

/// What a mint's fee would take whole is not made into a token of nothing: it stays where it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_fee_would_take_whole_stays_on_the_key() {
    let mint = TestMint::with_fee_ppk(1000).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(300).await;
    let upstream = Upstream::start().await;
    let node = TestNode::with(&mint, &upstream, &[(LADDER, "0")]).await;
    // 64 + 32 + 16 + 8, which cost a sat each.
    let key = purse.send(120).await;
    assert_eq!(node.balance(&key).await.0, 116_000);
    let before = coins(&node).await;
    assert_eq!(before, BTreeMap::from([(4, 1), (16, 1), (32, 1), (64, 1)]));
    for sats in [19, 19, 19, 19, 19, 1, 19] {
        upstream.next(costing(sats * 100));
        ok(node.chat(&ask("hi")).bearer_auth(&key)).await;
    }
    let refused = node.post("/v1/wallet/refund").bearer_auth(&key).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    let refused: Value = refused.json().await.unwrap();
    assert_eq!(refused["error"]["code"], "mint_short", "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("fee takes all of this"), "{refused}");
    assert_eq!(node.balance(&key).await, (1000, 0, 115_000));
    assert_eq!(coins(&node).await, before);
    node.finish().await;
}

/// A mint refuses the coins that were chosen: the next attempt takes others.
#[tokio::test(flavor = "multi_thread")]
async fn coins_that_a_mint_refuses_keep_no_refund_back() {
    let mint = TestMint::start().await;
    let chaos = Chaos::before(&mint.url());
    let (purse, _upstream, node, key) = world(&chaos.url(), &mint, 100).await;
    ok(node.get("/v1/wallet/info").bearer_auth(&purse.send(200).await)).await;
    ok(node.chat(&ask("hi")).bearer_auth(&key)).await;
    assert_eq!(coins(&node).await, BTreeMap::from([(4, 1), (8, 1), (32, 1), (64, 2), (128, 1)]));
    let before = chaos.bodies(SWAP).len();
    chaos.set(
        SWAP,
        Mode::Reply(
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 35\r\n\r\n\
             {\"code\":10001,\"detail\":\"not valid\"}",
        ),
    );
    let ask = || node.post("/v1/wallet/refund").bearer_auth(&key);
    assert_eq!(ask().send().await.unwrap().status(), 425);
    chaos.calm();
    let token = refund(ask).await;
    let inputs = |body: &Value| {
        let inputs = body["inputs"].as_array().unwrap().iter();
        inputs.map(|input| input["amount"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    // No coins are worth 98: the smallest that is enough, and then the largest of the others.
    let tried: Vec<Vec<u64>> = chaos.bodies(SWAP)[before..].iter().map(inputs).collect();
    assert_eq!(tried, [vec![128], vec![64, 64]]);
    assert_eq!(purse.receive(&token).await.unwrap(), 98);
    node.finish().await;
}
