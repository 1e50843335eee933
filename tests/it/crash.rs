//! `kill -9` at the worst moments, and mints whose answers are lost. No money may be lost with
//! them: what came in is what was charged, what went back, and what is left on keys.

use std::collections::HashSet;
use std::time::Duration;

use cdk::nuts::CurrencyUnit;
use reqwest::Response;
use serde_json::{Value, json};

use crate::bearer::world_with;
use crate::process::ChildNode;
use crate::support::answers::{PATIENCE, decided, found, until};
use crate::support::chaos::{Chaos, Mode};
use crate::support::lnurl::Recipient;
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, TestNode, ask, ask_streaming};
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream, completion, delta, usage};

const START: u64 = 1_000;
const SWAP: &str = "/v1/swap";

/// A mint behind a proxy, a purse with [`START`] sats that knows it by the proxy's name.
async fn mint_behind_chaos() -> (TestMint, Chaos, Purse, Upstream) {
    let mint = TestMint::start().await;
    let chaos = Chaos::before(&mint.url());
    let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
    purse.mint_sats(START).await;
    (mint, chaos, purse, Upstream::start().await)
}

async fn json_of(answer: Response) -> Value {
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Proves the books of a node that was killed, and that nothing is missing: what the purse and the
/// node hold together is what there was. Returns what is owed to clients and what was earned.
async fn conserved(mut node: ChildNode, purse: &Purse) -> (i64, i64) {
    node.kill();
    let books = node.db.books().await;
    assert_eq!(books.open_holds, 0, "nothing is held");
    let held: i64 = books.ecash.values().sum();
    let purse = i64::try_from(purse.balance().await).unwrap() * 1000;
    assert_eq!(purse + held, i64::try_from(START).unwrap() * 1000, "nothing is lost and nothing made");
    (books.liabilities, books.earnings)
}

/// Policy: process killed mid-stream: hold released, client keeps its money.
/// Invariant 5: a crash releases reservations at boot.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_a_stream() {
    let (_mint, chaos, purse, upstream) = mint_behind_chaos().await;
    let mut node = ChildNode::start(&chaos.url(), &upstream, &[]).await;
    let token = purse.send(100).await;
    node.chat(&ask("one")).bearer_auth(&token).send().await.unwrap().text().await.unwrap();
    assert_eq!(node.balance(&token).await, (98_000, 0, 2000));
    upstream.next(Script::Paused { before: vec![delta(MODEL, "first")], after: vec![] });
    let mut answer = node.chat(&ask_streaming("hi")).bearer_auth(&token).send().await.unwrap();
    assert!(answer.chunk().await.unwrap().is_some());
    assert!(node.balance(&token).await.1 > 0);
    node.kill();
    assert!(matches!(answer.chunk().await, Err(_) | Ok(None)));
    node.restart().await;
    assert_eq!(node.balance(&token).await, (98_000, 0, 2000));
    // The key works as before, and its money is real.
    node.chat(&ask("two")).bearer_auth(&token).send().await.unwrap().text().await.unwrap();
    let back = json_of(node.post("/v1/wallet/refund").bearer_auth(&token).send().await.unwrap()).await;
    assert_eq!(purse.receive(back["token"].as_str().unwrap()).await.unwrap(), 96);
    assert_eq!(conserved(node, &purse).await, (0, 4000));
}

/// Invariants 22 and 23: a token that was redeemed is never lost with its request.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_redemption_and_answer() {
    let (_mint, chaos, purse, upstream) = mint_behind_chaos().await;
    let mut node = ChildNode::start(&chaos.url(), &upstream, &[]).await;
    let token = purse.send(150).await;
    upstream.next(Script::Hang);
    let request = node.chat(&ask("hi")).header("x-cashu", &token);
    let waiting = tokio::spawn(request.send());
    until("the upstream is asked", async || !upstream.seen().is_empty()).await;
    // It is the node's now, and its request runs: nothing can be taken back yet.
    let early = node.post("/v1/wallet/refund").header("x-cashu", &token).send().await.unwrap();
    assert_eq!(early.status(), 425);
    assert!(early.headers().contains_key("retry-after"));
    node.kill();
    assert!(waiting.await.unwrap().is_err());
    node.restart().await;
    let claim = || node.post("/v1/wallet/refund").header("x-cashu", &token);
    let answer = decided("the refund", PATIENCE, claim).await;
    let header = answer.headers()["x-cashu"].to_str().unwrap().to_owned();
    let back = json_of(answer).await;
    assert_eq!((back["token"].as_str(), back["sats"].as_str()), (Some(&*header), Some("150")));
    // The same again, as often as it is asked for.
    assert_eq!(json_of(claim().send().await.unwrap()).await["token"], back["token"]);
    assert_eq!(purse.receive(&header).await.unwrap(), 150);
    assert_eq!(conserved(node, &purse).await, (0, 0));
}

/// The mint has swapped, the node never learned it, and died.
#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_mint_s_answer_arrived() {
    let (_mint, chaos, purse, upstream) = mint_behind_chaos().await;
    let mut node = ChildNode::start(&chaos.url(), &upstream, &[]).await;
    let (once, key) = (purse.send(150).await, purse.send(200).await);
    chaos.set(SWAP, Mode::StallReply);
    let before = chaos.hits(SWAP);
    let waiting = [
        tokio::spawn(node.chat(&ask("hi")).header("x-cashu", &once).send()),
        tokio::spawn(node.chat(&ask("hi")).bearer_auth(&key).send()),
    ];
    chaos.hit(SWAP, before + 1).await;
    node.kill();
    chaos.calm();
    for request in waiting {
        assert!(request.await.unwrap().is_err());
    }
    purse.receive(&once).await.expect_err("the mint has taken it");
    node.restart().await;
    // Invariant 1: credited once, whoever asks and how often.
    let answer = decided("the key", PATIENCE, || node.chat(&ask("hi")).bearer_auth(&key)).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(node.balance(&key).await, (198_000, 0, 2000));
    let claim = || node.post("/v1/wallet/refund").header("x-cashu", &once);
    let back = json_of(decided("the refund", PATIENCE, claim).await).await;
    assert_eq!(purse.receive(back["token"].as_str().unwrap()).await.unwrap(), 150);
    let again = node.chat(&ask("hi")).header("x-cashu", &once).send().await.unwrap();
    assert_eq!(again.status(), 400, "{}", again.text().await.unwrap());
    assert_eq!(conserved(node, &purse).await, (198_000, 2000));
}

/// The mint has paid, the node never learned it, and died.
#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_answer_to_a_payment_arrived() {
    let (mint, chaos, purse, upstream) = mint_behind_chaos().await;
    let recipient = Recipient::start().await;
    let mut node = ChildNode::start(&chaos.url(), &upstream, &[]).await;
    let token = purse.send(500).await;
    node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap().text().await.unwrap();
    let to = json!({ "lightning_address": recipient.name() });
    chaos.set("/v1/melt/bolt11", Mode::StallReply);
    let waiting = tokio::spawn(node.post("/v1/wallet/refund").json(&to).bearer_auth(&token).send());
    chaos.hit("/v1/melt/bolt11", 0).await;
    node.kill();
    chaos.calm();
    assert!(waiting.await.unwrap().is_err());
    assert_eq!(mint.paid().await.len(), 1);
    node.restart().await;
    let pay = || node.post("/v1/wallet/refund").json(&to).bearer_auth(&token);
    let back = json_of(decided("the payment", PATIENCE, pay).await).await;
    let sent: u64 = back["sats"].as_str().unwrap().parse().unwrap();
    assert_eq!(mint.paid().await, [sent], "paid once");
    let (left, held, _) = node.balance(&token).await;
    assert_eq!((sent * 1000 + back["fee_msats"].as_u64().unwrap() + left, held), (498_000, 0));
    assert_eq!(chaos.hits("/v1/melt/bolt11"), 1, "the mint was asked what became of it");
    node.kill();
    let held = u64::try_from(node.db.books().await.ecash.values().sum::<i64>()).unwrap();
    assert_eq!(purse.balance().await + held / 1000, mint.outstanding().await);
}

/// The mint has issued what an invoice paid for, the node never learned it, and died.
#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_answer_to_a_lightning_top_up_arrived() {
    let (mint, chaos, purse, upstream) = mint_behind_chaos().await;
    let mut node = ChildNode::start(&chaos.url(), &upstream, &[]).await;
    let before = chaos.hits("/v1/mint/bolt11");
    chaos.set("/v1/mint/bolt11", Mode::StallReply);
    let wanted = json!({ "amount_sats": 30, "purpose": "create" });
    let made = json_of(node.post("/lightning/invoice").json(&wanted).send().await.unwrap()).await;
    // The invoice pays itself, and the node finds out by itself.
    chaos.hit("/v1/mint/bolt11", before).await;
    node.kill();
    chaos.calm();
    node.restart().await;
    let path = format!("/lightning/invoice/{}/status", made["invoice_id"].as_str().unwrap());
    let paid = found("it is paid", async || {
        let invoice = json_of(node.get(&path).send().await.unwrap()).await;
        (invoice["status"] == "paid").then_some(invoice)
    })
    .await;
    let key = paid["api_key"].as_str().unwrap_or_else(|| panic!("{paid}"));
    assert_eq!(node.balance(key).await, (30_000, 0, 0));
    assert_eq!(chaos.hits("/v1/mint/bolt11") - before, 2, "asked once more, and told that it was issued");
    let back = json_of(node.post("/v1/wallet/refund").bearer_auth(key).send().await.unwrap()).await;
    assert_eq!(purse.receive(back["token"].as_str().unwrap()).await.unwrap(), 30);
    assert_eq!(purse.balance().await, mint.outstanding().await);
    node.kill();
    assert_eq!(node.db.books().await.liabilities, 0);
}

/// Invariant 10: debit and token are one; a refund that was begun is finished, and given out as
/// often as it is asked for.
async fn killed_while_a_refund_is_made(mode: Mode) {
    let (_mint, chaos, purse, upstream) = mint_behind_chaos().await;
    let mut node = ChildNode::start(&chaos.url(), &upstream, &[]).await;
    // 64 + 32 + 4, of which 98 cannot be paid without a swap.
    let token = purse.send(100).await;
    node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap().text().await.unwrap();
    assert_eq!(node.balance(&token).await, (98_000, 0, 2000));
    let swaps = chaos.hits(SWAP);
    chaos.set("", Mode::Cut);
    chaos.set(SWAP, mode);
    let waiting = tokio::spawn(node.post("/v1/wallet/refund").bearer_auth(&token).send());
    chaos.hit(SWAP, swaps).await;
    node.kill();
    chaos.calm();
    // Where the exchange with the mint broke off, the node may have said that it is pending.
    if let Ok(answer) = waiting.await.unwrap() {
        assert_eq!(answer.status(), 425);
    }
    node.restart().await;
    let claim = || node.post("/v1/wallet/refund").bearer_auth(&token);
    let back = json_of(decided("the refund", PATIENCE, claim).await).await;
    assert_eq!(back["sats"], "98");
    assert_eq!(json_of(claim().send().await.unwrap()).await["token"], back["token"]);
    assert_eq!(purse.receive(back["token"].as_str().unwrap()).await.unwrap(), 98);
    assert_eq!(conserved(node, &purse).await, (0, 2000));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_answer_to_a_refund_s_swap() {
    killed_while_a_refund_is_made(Mode::StallReply).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_answer_to_a_refund_s_swap_was_lost() {
    killed_while_a_refund_is_made(Mode::DropReply).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_a_refund_s_swap_reached_the_mint() {
    killed_while_a_refund_is_made(Mode::Cut).await;
}

/// The job that finishes what is unfinished must not meddle with what is being done.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_is_on_its_way_is_not_sent_by_another() {
    let (mint, chaos, purse, upstream) = mint_behind_chaos().await;
    let key = ("SECRET_KEY", "one secret key for both of the nodes");
    let mint_url = chaos.url();
    let node = TestNode::with(&mint, &upstream, &[("CASHU_MINTS", &mint_url), key]).await;
    // On PostgreSQL there is another process on the same database.
    let url = node.settings().get("DATABASE_URL").cloned();
    let other = match &url {
        Some(url) => {
            Some(TestNode::with(&mint, &upstream, &[("CASHU_MINTS", &mint_url), key, ("DATABASE_URL", url)]).await)
        }
        None => None,
    };
    for round in 0..6 {
        let (key, once) = (purse.send(30).await, purse.send(33).await);
        chaos.set(SWAP, Mode::Hold);
        let swaps = chaos.hits(SWAP);
        let mut small = ask("hi");
        small["max_tokens"] = json!(100);
        let waiting = [
            tokio::spawn(node.chat(&small).bearer_auth(&key).send()),
            tokio::spawn(node.chat(&small).header("x-cashu", &once).send()),
        ];
        chaos.hit(SWAP, swaps + 1).await;
        let wallets: Vec<_> =
            other.iter().chain([&node]).map(|node| node.running().exchange().till.wallet().clone()).collect();
        let resuming: Vec<_> =
            wallets.into_iter().map(|wallet| tokio::spawn(async move { wallet.resume(i64::MAX).await })).collect();
        let asked = other.as_ref().unwrap_or(&node);
        let early = asked.post("/v1/wallet/refund").header("x-cashu", &once).send().await.unwrap();
        assert_eq!(early.status(), 425, "round {round}");
        if let Some(other) = &other {
            let early = other.chat(&small).bearer_auth(&key).send().await.unwrap();
            assert_eq!(early.status(), 503, "round {round}");
        }
        chaos.calm();
        for request in waiting {
            let answer = request.await.unwrap().unwrap();
            assert_eq!(answer.status(), 200, "round {round}: {}", answer.text().await.unwrap());
        }
        for task in resuming {
            task.await.unwrap().unwrap();
        }
        // A node may have exchanged other coins meanwhile, to have change again.
        let sent = chaos.bodies(SWAP);
        let sent: Vec<&str> = sent
            .iter()
            .flat_map(|body| body["inputs"].as_array().unwrap())
            .map(|coin| coin["secret"].as_str().unwrap())
            .collect();
        let once_each: HashSet<&&str> = sent.iter().collect();
        assert_eq!(once_each.len(), sent.len(), "round {round}: a coin went to the mint twice");
        assert!(chaos.hits(SWAP) - swaps >= 2, "round {round}");
        assert_eq!(node.balance(&key).await, (28_000, 0, 2000));
        // Two processes pay back one key at once: one token.
        let refunds = [asked, &node, asked, &node].map(|node| node.post("/v1/wallet/refund").bearer_auth(&key));
        let refunds = futures_util::future::join_all(refunds.map(reqwest::RequestBuilder::send)).await;
        for refund in refunds {
            let status = refund.unwrap().status().as_u16();
            assert!([200, 425].contains(&status), "round {round}: {status}");
        }
        let back = decided("the refund", PATIENCE, || node.post("/v1/wallet/refund").bearer_auth(&key)).await;
        assert_eq!(purse.receive(json_of(back).await["token"].as_str().unwrap()).await.unwrap(), 28);
        let change = decided("the change", PATIENCE, || asked.post("/v1/wallet/refund").header("x-cashu", &once)).await;
        assert_eq!(purse.receive(json_of(change).await["token"].as_str().unwrap()).await.unwrap(), 31);
        node.prove().await;
    }
    assert_eq!(purse.balance().await, START - 6 * 4);
    if let Some(other) = other {
        other.finish().await;
    }
    node.finish().await;
}

/// Invariants 14 and 22: the mint swapped, its answer got lost, nobody died. The same outputs derive again,
/// so the mint is asked for its signatures instead of being asked to sign twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_for_again() {
    let (mint, chaos, purse, upstream) = mint_behind_chaos().await;
    let node = TestNode::with(&mint, &upstream, &[("CASHU_MINTS", &chaos.url())]).await;
    chaos.set(SWAP, Mode::DropReply);
    let (key, once) = (purse_token(&chaos, &purse, 100).await, purse_token(&chaos, &purse, 130).await);
    let swaps = chaos.hits(SWAP);
    let answer = node.chat(&ask("hi")).bearer_auth(&key).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    let answer = node.chat(&ask("hi")).header("x-cashu", &once).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let change = answer.headers()["x-cashu"].to_str().unwrap().to_owned();
    assert_eq!(chaos.hits(SWAP) - swaps, 2, "no swap was sent twice");
    // The refund's swap is lost too.
    let back: Value = node.post("/v1/wallet/refund").bearer_auth(&key).send().await.unwrap().json().await.unwrap();
    assert_eq!(back["sats"], "98", "{back}");
    chaos.calm();
    assert_eq!(purse.receive(&change).await.unwrap(), 128);
    assert_eq!(purse.receive(back["token"].as_str().unwrap()).await.unwrap(), 98);
    assert_eq!(purse.balance().await, START - 4);
    node.finish().await;
}

/// A token made while the proxy behaves.
async fn purse_token(chaos: &Chaos, purse: &Purse, amount: u64) -> String {
    chaos.set(SWAP, Mode::Pass);
    let token = purse.send(amount).await;
    chaos.set(SWAP, Mode::DropReply);
    token
}

/// Invariant 11: an unknown outcome is pending, and decided by evidence.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_of_a_mint_that_is_gone_is_pending_until_it_is_back() {
    let (mint, chaos, purse, upstream) = mint_behind_chaos().await;
    let mut node = TestNode::with(&mint, &upstream, &[("CASHU_MINTS", &chaos.url())]).await;
    // A mint whose keysets are not known yet is sent nothing.
    node.quiet().await;
    // The mint took the token before it vanished, or it did not.
    for mode in [Mode::DropReply, Mode::Cut] {
        let before = purse.balance().await;
        let (key, once, lost) = (purse.send(100).await, purse.send(130).await, purse.send(60).await);
        chaos.set(SWAP, mode);
        chaos.set("", Mode::Cut);
        for round in 0..2 {
            for request in [
                node.chat(&ask("hi")).bearer_auth(&key),
                node.chat(&ask("hi")).header("x-cashu", &once),
                node.post("/v1/wallet/create").json(&json!({ "initial_balance_token": lost })),
            ] {
                // A mint that has failed too often is left alone for a while: then a token was not sent at all.
                until("the mint is asked", async || {
                    let answer = request.try_clone().unwrap().send().await.unwrap();
                    assert_eq!(answer.status(), 503, "{mode:?}");
                    assert!(answer.headers().contains_key("retry-after"));
                    let is_back = answer.headers().contains_key("x-cashu");
                    let error: Value = answer.json().await.unwrap();
                    let code = error["error"]["code"].as_str().unwrap().to_owned();
                    let was_not_sent = code == "cashu_mint_unreachable" && round == 0;
                    assert!(was_not_sent || code == "cashu_mint_timeout", "{mode:?} {round}: {error}");
                    // A token that may be spent is not handed back as if it were good.
                    assert!(was_not_sent || !is_back, "{mode:?}");
                    !was_not_sent
                })
                .await;
            }
            let early = node.post("/v1/wallet/refund").header("x-cashu", &once).send().await.unwrap();
            assert_eq!(early.status(), 425, "{mode:?}");
        }
        let served = upstream.seen().len();
        node.restart().await;
        chaos.calm();
        // Invariant 24: pending has an end. The same token again, twice: credited once.
        for _ in 0..2 {
            let answer = decided("the key", PATIENCE, || node.chat(&ask("hi")).bearer_auth(&key)).await;
            assert_eq!(answer.status(), 200, "{mode:?}: {}", answer.text().await.unwrap());
        }
        assert_eq!(node.balance(&key).await, (96_000, 0, 4000));
        assert_eq!(node.balance(&lost).await, (60_000, 0, 0));
        let claim = || node.post("/v1/wallet/refund").header("x-cashu", &once);
        let change = json_of(decided("the change", PATIENCE, claim).await).await;
        assert_eq!(change["sats"], "130");
        assert_eq!(upstream.seen().len(), served + 2, "a request that was not served is not charged");
        purse.receive(change["token"].as_str().unwrap()).await.unwrap();
        for (key, worth) in [(&key, 96), (&lost, 60)] {
            let back = json_of(node.post("/v1/wallet/refund").bearer_auth(key).send().await.unwrap()).await;
            assert_eq!(purse.receive(back["token"].as_str().unwrap()).await.unwrap(), worth);
        }
        assert_eq!(purse.balance().await, before - 4);
    }
    node.finish().await;
}

/// A stop signal in the middle of a request, to the real program.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_signal_lets_the_answer_finish() {
    let (_mint, chaos, purse, upstream) = mint_behind_chaos().await;
    let mut node = ChildNode::start(&chaos.url(), &upstream, &[("SHUTDOWN_TIMEOUT_SECONDS", "20")]).await;
    let token = purse.send(150).await;
    let after = vec![delta(MODEL, "second"), format!("data: {}\n\n", completion_end()), "data: [DONE]\n\n".into()];
    upstream.next(Script::Paused { before: vec![delta(MODEL, "first")], after });
    let mut answer = node
        .chat(&ask_streaming("hi"))
        .header("x-cashu", &token)
        .header("x-cashu-change", "stream")
        .send()
        .await
        .unwrap();
    assert!(answer.chunk().await.unwrap().is_some());
    let ended = tokio::spawn(async move {
        node.stop().await;
        node
    });
    upstream.resume();
    let rest = tokio::time::timeout(PATIENCE, answer.text()).await.expect("it finishes").unwrap();
    let mut node = ended.await.unwrap();
    let change = rest.split_once(": x-cashu ").expect("change in the stream").1.split_once('\n').unwrap().0;
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    assert_eq!(purse.receive(change).await.unwrap(), 148);
    node.restart().await;
    assert_eq!(conserved(node, &purse).await, (0, 2000));
}

/// The time for it is up: what came so far is charged, and what brought nothing is undone.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_charges_for_what_was_delivered() {
    let (_mint, purse, upstream, mut node) = world_with(1_000, &[("SHUTDOWN_TIMEOUT_SECONDS", "1")]).await;
    let token = purse.send(500).await;
    let begin = |before: Vec<String>| {
        upstream.next(Script::Paused { before, after: Vec::new() });
        tokio::spawn(node.chat(&ask_streaming("hi")).bearer_auth(&token).send())
    };
    let silent = begin(Vec::new());
    until("the upstream is asked", async || upstream.seen().len() == 1).await;
    let mut read = begin(vec![delta(MODEL, &"x".repeat(3_000))]).await.unwrap().unwrap();
    assert!(read.chunk().await.unwrap().is_some());
    let reading = tokio::spawn(async move { read.text().await.unwrap() });
    node.restart().await;
    let told = reading.await.unwrap();
    assert!(told.contains("has ended this request"), "{told}");
    assert_eq!(silent.await.unwrap().unwrap().status(), 503);
    let (left, held, spent) = node.balance(&token).await;
    assert_eq!((left + spent, held), (500_000, 0));
    // 750 tokens at 20 msat, and a short question of five at 10.
    assert_eq!(spent, 15_050);
    node.finish().await;
}

fn completion_end() -> Value {
    json!({ "id": "c", "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }], "usage": usage(100, 50) })
}

/// Requests of all kinds, and the process killed at a moment that nobody chose. Whatever a client
/// holds afterwards is worth what it should be: it asks for all of its money back, and the mint
/// says that nothing is missing but what was charged.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment() {
    let (_mint, chaos, purse, upstream) = mint_behind_chaos().await;
    let mut node = ChildNode::start(&chaos.url(), &upstream, &[]).await;
    let mut keys = Vec::new();
    for round in 0..6_u64 {
        let body = completion("toy/cheap", "x", Some(usage(100, 50)));
        for _ in 0..3 {
            upstream.next(Script::Answer { status: 200, media: "application/json", body: body.clone() });
        }
        let (key, once, live) = (purse.send(20).await, purse.send(23).await, purse.send(27).await);
        let mut cheap = ask("hi");
        cheap["model"] = json!("toy/cheap");
        cheap["max_tokens"] = json!(100);
        let requests = [
            node.chat(&cheap).bearer_auth(&key),
            node.chat(&cheap).header("x-cashu", &once),
            node.chat(&cheap).header("x-cashu", &live),
            node.post("/v1/wallet/refund").bearer_auth(&key),
        ];
        let running: Vec<_> = requests.into_iter().map(|request| tokio::spawn(request.send())).collect();
        // From "nothing has arrived" to "all is done", in this round's step.
        tokio::time::sleep(Duration::from_millis(round * 12)).await;
        node.kill();
        for request in running {
            // What a client was told before the end is of no use to it here: it asks again.
            let _any = request.await.unwrap();
        }
        node.restart().await;
        for token in [&once, &live] {
            let answer =
                decided("the change", PATIENCE, || node.post("/v1/wallet/refund").header("x-cashu", token)).await;
            match answer.status().as_u16() {
                200 => {
                    let back = json_of(answer).await;
                    purse.receive(back["token"].as_str().unwrap()).await.expect("change is good");
                }
                // It never arrived, so it still is what it was.
                404 => {
                    purse.receive(token).await.expect("a token that was not taken is good");
                }
                status => panic!("round {round}: {status} {}", answer.text().await.unwrap()),
            }
        }
        keys.push(key);
    }
    for key in keys {
        let answer = decided("the refund", PATIENCE, || node.post("/v1/wallet/refund").bearer_auth(&key)).await;
        match answer.status().as_u16() {
            200 => {
                let back = json_of(answer).await;
                purse.receive(back["token"].as_str().unwrap()).await.expect("a refund is good");
            }
            401 => {
                purse.receive(&key).await.expect("a token that was not taken is good");
            }
            status => panic!("{status} {}", answer.text().await.unwrap()),
        }
    }
    let (owed, earned) = conserved(node, &purse).await;
    // A fraction of a sat stays on each account that was charged one msat.
    assert!((0..18_000).contains(&(owed + earned)), "{owed} {earned}");
    assert!(purse.balance().await >= START - 18);
    assert!(earned <= 18, "one msat for each request: {earned}");
}
