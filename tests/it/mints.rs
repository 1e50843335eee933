//! Mints that limit their callers, fail, or are slow: what is asked of them, what clients are told,
//! and redemptions that share one swap. Every token is credited exactly, or is still its owner's.

use std::sync::Arc;

use cdk::nuts::{CurrencyUnit, SecretKey};
use coinslot::wallet::Condition;
use futures_util::future::join_all;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::process::ChildNode;
use crate::support::answers::{PATIENCE, decided, until};
use crate::support::chaos::{Chaos, Mode};
use crate::support::clock::Stepped;
use crate::support::lnurl::Recipient;
use crate::support::mint::{MintOptions, TestMint};
use crate::support::node::{TestNode, ask};
use crate::support::purse::Purse;
use crate::support::tokens;
use crate::support::upstream::Upstream;

const SWAP: &str = "/v1/swap";
const STATES: &str = "/v1/checkstate";
const RESTORE: &str = "/v1/restore";
const MELT: &str = "/v1/melt/bolt11";
/// Coins are exchanged in the background otherwise: calls that these tests would have to tell apart.
const NO_LADDER: (&str, &str) = ("CHANGE_LADDER_COINS", "0");
const BAD_GATEWAY: Mode = Mode::Reply("HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbad");

/// A node in front of the mint at this URL, whose clock stands still, and which has its keysets.
async fn node_at(mint_url: &str, upstream: &Upstream, clock: &Arc<Stepped>, more: &[(&str, &str)]) -> TestNode {
    let more = [&[NO_LADDER][..], more].concat();
    let node = TestNode::with_clock(mint_url, upstream, clock.clone(), &more).await;
    ready(&node).await;
    node
}

/// Waits until the node has asked for keysets and keys, and asks for nothing more by itself.
async fn ready(node: &TestNode) {
    node.quiet().await;
    until("it is ready", async || node.get("/readyz").send().await.unwrap().status() == 200).await;
    let wallet = node.running().exchange().till.wallet();
    assert!(wallet.refresh(i64::MAX).await.is_empty(), "the mint tells its keys");
}

/// What a client sees of an answer: status, code, and when to come again.
async fn told(request: RequestBuilder) -> (u16, String, Option<u64>) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
    let text = answer.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text}"));
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned(), retry_after)
}

/// Presents a token: the answer tells what is on it, and asks the mint only if it is new.
fn present(node: &TestNode, token: &str) -> RequestBuilder {
    node.get("/v1/wallet/info").bearer_auth(token)
}

fn limited(secs: u64) -> (u16, String, Option<u64>) {
    (503, "cashu_mint_rate_limited".to_owned(), Some(secs))
}

fn unreachable(secs: u64) -> (u16, String, Option<u64>) {
    (503, "cashu_mint_unreachable".to_owned(), Some(secs))
}

async fn send_many(purse: &Purse, count: usize, sats: u64) -> Vec<String> {
    let mut tokens = Vec::new();
    for _ in 0..count {
        tokens.push(purse.send(sats).await);
    }
    tokens
}

/// Holds the swap of the first of these tokens back until all others wait for their turn. Then `go` is
/// called, and the rest takes its course. Returns the answers in the order of the tokens.
async fn together(
    node: &TestNode,
    chaos: &Chaos,
    first: &str,
    others: &[String],
    go: impl FnOnce(&Chaos),
) -> Vec<(u16, String)> {
    let swaps = chaos.hits(SWAP);
    chaos.set(SWAP, Mode::Hold);
    let mut running = vec![tokio::spawn(present(node, first).send())];
    chaos.hit(SWAP, swaps).await;
    running.extend(others.iter().map(|token| tokio::spawn(present(node, token).send())));
    let wallet = node.running().exchange().till.wallet();
    until("all others wait", async || wallet.health()[0].waiting == others.len()).await;
    go(chaos);
    let mut answers = Vec::new();
    for answer in join_all(running).await {
        let answer = answer.unwrap().unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        answers.push((status, body["error"]["code"].as_str().unwrap_or_default().to_owned()));
    }
    answers
}

async fn world(options: MintOptions, sats: u64) -> (TestMint, Chaos, Purse, Upstream) {
    let mint = TestMint::with_options(options).await;
    let chaos = Chaos::before(&mint.url());
    let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
    purse.mint_sats(sats).await;
    (mint, chaos, purse, Upstream::start().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_calls_than_the_budget_and_what_is_refused_is_untouched() {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(300).await;
    let key = purse.send(100).await;
    let tokens = send_many(&purse, 7, 10).await;
    let upstream = Upstream::start().await;
    let clock = Stepped::now();
    mint.reset_calls();
    let budget = format!("{}=8", mint.url());
    let node = node_at(&mint.url(), &upstream, &clock, &[("MINT_CALLS_PER_MINUTE", &budget)]).await;
    // Two calls told the keysets; one is kept for the journal.
    assert_eq!(node.balance(&key).await, (100_000, 0, 0));
    for token in &tokens[..4] {
        assert_eq!(node.balance(token).await, (10_000, 0, 0));
    }
    assert_eq!((mint.calls(SWAP), mint.calls(STATES)), (5, 0), "a token that comes alone costs one call");
    for token in &tokens[4..6] {
        assert_eq!(told(present(&node, token)).await, limited(60));
    }
    // Keys that have money need no mint.
    assert_eq!(node.chat(&ask("hi")).bearer_auth(&key).send().await.unwrap().status(), 200);
    assert_eq!(mint.all_calls().values().sum::<u64>(), 7, "{:?}", mint.all_calls());
    assert_eq!(node.running().exchange().till.wallet().health()[0].calls, Some((8, 0)));
    assert_eq!(purse.receive(&tokens[4]).await.unwrap(), 10, "it is still its owner's");
    let swaps = mint.calls(SWAP);
    clock.step(54_000);
    assert_eq!(told(present(&node, &tokens[5])).await, limited(6));
    assert_eq!(mint.calls(SWAP), swaps);
    clock.step(6_000);
    assert_eq!(node.balance(&tokens[5]).await, (10_000, 0, 0));
    assert_eq!(node.balance(&tokens[6]).await, (10_000, 0, 0));
    node.finish().await;
}

/// Invariant 21: a 429 storm does not fail everything, and is not answered with a storm.
#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_says_when_to_come_again_is_not_asked_before() {
    let (_mint, chaos, purse, upstream) = world(MintOptions::default(), 300).await;
    let clock = Stepped::now();
    let node = node_at(&chaos.url(), &upstream, &clock, &[]).await;
    let tokens = send_many(&purse, 9, 10).await;
    let key = purse.send(100).await;
    assert_eq!(node.balance(&key).await, (100_000, 0, 0));
    let replies = [
        ("HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", 7),
        (
            "HTTP/1.1 429 Too Many Requests\r\nretry-after: Sun, 06 Nov 1994 08:49:46 GMT\r\n\
             date: Sun, 06 Nov 1994 08:49:37 GMT\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            9,
        ),
        ("HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", 60),
    ];
    for ((reply, secs), tokens) in replies.into_iter().zip(tokens.chunks(3)) {
        let before = chaos.hits(SWAP);
        chaos.set(SWAP, Mode::Reply(reply));
        assert_eq!(told(present(&node, &tokens[0])).await, limited(secs));
        chaos.calm();
        for token in tokens {
            assert_eq!(told(present(&node, token)).await, limited(secs));
        }
        assert_eq!(node.chat(&ask("hi")).bearer_auth(&key).send().await.unwrap().status(), 200);
        let ready = node.get("/readyz").send().await.unwrap();
        assert_eq!(ready.status(), 503);
        let ready: Value = ready.json().await.unwrap();
        assert_eq!(ready["mints"][0]["circuit"], "open", "{ready}");
        let reason = ready["reasons"][0].as_str().unwrap();
        assert!(reason.ends_with(&format!("is left alone for {secs} s: it limits its callers")), "{reason}");
        // Longer than a request waits for its turn.
        clock.step(i64::try_from(secs).unwrap() * 1000 - 5_500);
        assert_eq!(told(present(&node, &tokens[1])).await, limited(6));
        assert_eq!(chaos.hits(SWAP), before + 1, "it was left alone");
        clock.step(5_500);
        assert_eq!(node.balance(&tokens[0]).await, (10_000, 0, 0));
        assert_eq!(node.get("/readyz").send().await.unwrap().status(), 200);
        assert_eq!(purse.receive(&tokens[1]).await.unwrap(), 10, "it was never taken");
        assert_eq!(node.balance(&tokens[2]).await, (10_000, 0, 0));
        // Past the time in which a relapse counts.
        clock.step(60_000);
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_fails_is_left_alone_then_tried_with_one_call() {
    let (_mint, chaos, purse, upstream) = world(MintOptions::default(), 300).await;
    let clock = Stepped::now();
    let node = node_at(&chaos.url(), &upstream, &clock, &[]).await;
    let (key, tokens) = (purse.send(100).await, send_many(&purse, 7, 10).await);
    assert_eq!(node.balance(&key).await, (100_000, 0, 0));
    chaos.set("", BAD_GATEWAY);
    // A swap, and the question what became of it; then the third failure in a row.
    for token in &tokens[1..3] {
        let (status, code, _) = told(present(&node, token)).await;
        assert_eq!((status, code.as_str()), (503, "cashu_mint_timeout"));
    }
    let hits = (chaos.hits(SWAP), chaos.hits(RESTORE), chaos.hits(STATES));
    assert_eq!(told(present(&node, &tokens[3])).await, unreachable(1), "it has waited long enough");
    // Undecided ones stay so, and keys that have money are served.
    assert_eq!(told(present(&node, &tokens[1])).await.1, "cashu_mint_timeout");
    assert_eq!(node.chat(&ask("hi")).bearer_auth(&key).send().await.unwrap().status(), 200);
    assert_eq!((chaos.hits(SWAP), chaos.hits(RESTORE), chaos.hits(STATES)), hits, "it was left alone");
    let health = &node.running().exchange().till.wallet().health()[0];
    assert_eq!(health.condition, Condition::Open { secs: 1, limited: false });
    assert!(health.trouble.is_some() && health.answered_ms.is_some());

    // Its time is over: one call goes, and the others wait for what comes of it.
    chaos.calm();
    chaos.set(SWAP, Mode::Hold);
    clock.step(1_000);
    let probe = tokio::spawn(present(&node, &tokens[3]).send());
    chaos.hit(SWAP, hits.0).await;
    let others = [told(present(&node, &tokens[4])), told(present(&node, &tokens[5]))];
    for other in join_all(others).await {
        assert_eq!(other, unreachable(1), "patience has an end");
    }
    assert_eq!(chaos.hits(SWAP), hits.0 + 1, "one probe");
    chaos.calm();
    assert_eq!(probe.await.unwrap().unwrap().status(), 200);
    for token in &tokens[1..6] {
        assert_eq!(node.balance(token).await, (10_000, 0, 0));
    }
    assert_eq!(purse.receive(&tokens[6]).await.unwrap(), 10);
    node.finish().await;
}

/// A recipient may let a payment hang for as long as they like: that takes the mint from nobody else, and says nothing
/// of it.
#[tokio::test(flavor = "multi_thread")]
async fn payments_that_hang_leave_the_mint_to_others() {
    let (mint, chaos, purse, upstream) = world(MintOptions::default(), 1_000).await;
    let (recipient, clock) = (Recipient::start().await, Stepped::now());
    let mut node = node_at(&chaos.url(), &upstream, &clock, &[]).await;
    let (keys, fresh) = (send_many(&purse, 7, 100).await, purse.send(50).await);
    for key in &keys {
        assert_eq!(node.balance(key).await, (100_000, 0, 0));
    }
    let wanted = json!({ "lightning_address": recipient.name() });
    let refund = |node: &TestNode, key: &String| node.post("/v1/wallet/refund").json(&wanted).bearer_auth(key);
    chaos.set(MELT, Mode::Hold);
    let running: Vec<_> = keys[..4].iter().map(|key| tokio::spawn(refund(&node, key).send())).collect();
    until("all know what it takes", async || chaos.hits("/v1/melt/quote/bolt11") >= 4 && chaos.hits(MELT) >= 2).await;
    assert_eq!(told(node.chat(&ask("hi")).bearer_auth(&fresh)).await.0, 200);
    assert_eq!(chaos.hits(MELT), 2, "half of the lines");
    chaos.calm();
    let ended = join_all(running).await.into_iter().map(|answer| answer.unwrap().unwrap().status().as_u16());
    let (paid, held): (Vec<_>, Vec<_>) = ended.partition(|status| *status == 200);
    // Those that waited for too long were not sent.
    assert!(paid.len() >= 2 && held.iter().all(|status| *status == 502), "{held:?}");
    assert_eq!(mint.paid().await.len(), paid.len());

    node.restart_with("MINT_OPERATION_TIMEOUT_SECONDS", "2").await;
    ready(&node).await;
    chaos.set(MELT, Mode::Hold);
    for (status, code, _) in join_all(keys[4..].iter().map(|key| told(refund(&node, key)))).await {
        assert_eq!((status, code.as_str()), (425, "refund_pending"));
    }
    let wallet = node.running().exchange().till.wallet().clone();
    let health = &wallet.health()[0];
    assert_eq!((health.condition, health.trouble), (Condition::Closed, None));
    assert_eq!((health.tally.failed, health.tally.abandoned), (0, 3));
    chaos.calm();
    until("they are paid", async || {
        clock.step(60_000);
        wallet.resume(0).await.unwrap();
        wallet.unfinished(i64::MAX).await.unwrap().is_empty()
    })
    .await;
    assert_eq!(mint.paid().await.len(), paid.len() + 3);
    drop(wallet);
    node.finish().await;
}

/// Thirty tokens at once, at a mint that allows twenty calls a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_rush_of_tokens_shares_a_few_swaps() {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(1_000).await;
    let mut tokens = Vec::new();
    for sats in 11..41 {
        tokens.push(purse.send(sats).await);
    }
    let upstream = Upstream::start().await;
    let clock = Stepped::now();
    mint.reset_calls();
    let budget = format!("{}=20", mint.url());
    let node = node_at(&mint.url(), &upstream, &clock, &[("MINT_CALLS_PER_MINUTE", &budget)]).await;
    let answers = join_all(tokens.iter().map(|token| told(present(&node, token)))).await;
    assert!(answers.iter().all(|(status, ..)| *status == 200), "{answers:?}");
    let calls = mint.all_calls();
    // How many arrive together is the machine's doing; that the budget is enough for all is not.
    assert!(mint.calls(SWAP) <= 15, "{calls:?}");
    assert!(calls.values().sum::<u64>() <= 20, "{calls:?}");
    for (sats, token) in (11..41).zip(&tokens) {
        assert_eq!(node.balance(token).await, (sats * 1_000, 0, 0));
        purse.receive(token).await.expect_err("it is the node's");
    }
    node.finish().await;
}

/// A token of the same face whose proofs nobody signed.
fn forged(mint: &TestMint, mint_url: &str, from: &cdk::nuts::Token) -> String {
    let mut proofs = tokens::proofs(mint, from);
    for proof in &mut proofs {
        proof.secret = cdk::secret::Secret::generate();
    }
    tokens::token(mint_url, proofs, CurrencyUnit::Sat)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_token_does_not_fail_its_neighbours() {
    let (mint, chaos, purse, upstream) = world(MintOptions::default(), 1_000).await;
    let budget = format!("{}=30", chaos.url());
    let settings = [("MINT_CALLS_PER_MINUTE", budget.as_str()), ("MINT_MAX_CONCURRENCY", "1")];
    let clock = Stepped::now();
    // Few enough that they are all there before the first of them has waited for five seconds.
    let tokens = send_many(&purse, 11, 10).await;
    let fake = forged(&mint, &chaos.url(), &purse.send_token(10).await);
    let locked = purse.send_locked(10, SecretKey::generate().public_key()).await;
    let spent = purse.send(10).await;
    purse.receive(&spent).await.unwrap();
    let node = node_at(&chaos.url(), &upstream, &clock, &settings).await;
    mint.reset_calls();

    let mut others = tokens[1..].to_vec();
    others.insert(3, spent);
    others.insert(8, fake);
    // What can be told without a mint does not wait for one.
    assert_eq!(told(present(&node, &locked)).await.1, "invalid_cashu_token");
    let answers = together(&node, &chaos, &tokens[0], &others, Chaos::calm).await;
    for (at, (status, code)) in answers.iter().skip(1).enumerate() {
        let expected = match at {
            3 => (400, "cashu_token_already_spent"),
            8 => (400, "cashu_token_redemption_failed"),
            _ => (200, ""),
        };
        assert_eq!((*status, code.as_str()), expected, "token {at}");
    }
    let calls = mint.all_calls();
    assert_eq!((mint.calls(STATES), mint.calls(RESTORE)), (1, 0), "{calls:?}");
    assert!(mint.calls(SWAP) <= 11, "the halves of the halves: {calls:?}");
    for token in &tokens {
        assert_eq!(node.balance(token).await, (10_000, 0, 0));
    }
    node.finish().await;
}

/// Tokens of 21 sats; how many proofs each has, and its credit in msat: what is left after its own fee.
async fn send_with_terms(mint: &TestMint, purse: &Purse, count: usize, fee_ppk: u64) -> (Vec<String>, Vec<(u64, u64)>) {
    let (mut tokens, mut terms) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let token = purse.send_token(21).await;
        let proofs = u64::try_from(tokens::proofs(mint, &token).len()).unwrap();
        terms.push((proofs, (21 - (proofs * fee_ppk).div_ceil(1_000)) * 1_000));
        tokens.push(token.to_string());
    }
    (tokens, terms)
}

/// What one swap of all these costs less than one for each, in msat.
fn saved(terms: &[(u64, u64)], fee_ppk: u64) -> i64 {
    let fee = |proofs: u64| (proofs * fee_ppk).div_ceil(1_000);
    let alone: u64 = terms.iter().map(|(proofs, _)| fee(*proofs)).sum();
    let together = fee(terms.iter().map(|(proofs, _)| proofs).sum());
    i64::try_from((alone - together) * 1_000).unwrap()
}

/// Input fees are rounded up once for each swap. What a shared one saves is the house's; the mint's
/// sum is right, and so is every credit. Also when the answer is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_shared_swap_pays_one_fee_and_credits_are_what_was_promised() {
    for (fee_ppk, mode) in [(0, Mode::DropReply), (100, Mode::Pass), (100, Mode::DropReply), (1_000, Mode::Pass)] {
        let (mint, chaos, purse, upstream) = world(MintOptions { fee_ppk, ..Default::default() }, 1_000).await;
        let budget = format!("{}=30", chaos.url());
        let settings = [("MINT_CALLS_PER_MINUTE", budget.as_str()), ("MINT_MAX_CONCURRENCY", "1")];
        let node = node_at(&chaos.url(), &upstream, &Stepped::now(), &settings).await;
        let (tokens, terms) = send_with_terms(&mint, &purse, 7, fee_ppk).await;
        let saved = saved(&terms[1..], fee_ppk);
        assert_eq!(saved > 0, fee_ppk == 100);
        mint.reset_calls();
        let swaps = chaos.hits(SWAP);
        let answers = together(&node, &chaos, &tokens[0], &tokens[1..], |chaos| chaos.set(SWAP, mode)).await;
        assert!(answers.iter().all(|(status, _)| *status == 200), "{fee_ppk} {mode:?} {answers:?}");
        assert_eq!(chaos.hits(SWAP), swaps + 2, "{fee_ppk} {mode:?}");
        assert_eq!(mint.calls(RESTORE), u64::from(mode == Mode::DropReply), "one question for all");
        chaos.calm();
        for (token, (_, credit)) in tokens.iter().zip(&terms) {
            assert_eq!(node.balance(token).await, (*credit, 0, 0), "{fee_ppk} {mode:?}");
        }
        let books = node.running().exchange().ledger.books().await.unwrap();
        assert_eq!(books.earnings, saved, "{fee_ppk} {mode:?}");
        // All of it is real: the node gives it back, less the fees of doing so.
        for token in &tokens {
            let answer = node.post("/v1/wallet/refund").bearer_auth(token).send().await.unwrap();
            let body: Value = answer.json().await.unwrap();
            purse.receive(body["token"].as_str().unwrap_or_else(|| panic!("{body}"))).await.unwrap();
        }
        node.finish().await;
    }
}

/// Asks until the answer is not that it is pending.
async fn until_decided(ask: impl Fn() -> RequestBuilder) {
    let answer = decided("it", PATIENCE, ask).await;
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
}

/// The same as [`together`], at a node of its own process; returns when `go` was called.
async fn gather(
    node: &ChildNode,
    chaos: &Chaos,
    tokens: &[String],
    go: impl FnOnce(&Chaos),
) -> Vec<tokio::task::JoinHandle<reqwest::Result<reqwest::Response>>> {
    let info = |token: &String| node.get("/v1/wallet/info").bearer_auth(token);
    let swaps = chaos.hits(SWAP);
    chaos.set(SWAP, Mode::Hold);
    let mut running = vec![tokio::spawn(info(&tokens[0]).send())];
    chaos.hit(SWAP, swaps).await;
    running.extend(tokens[1..].iter().map(|token| tokio::spawn(info(token).send())));
    until("all others wait", async || {
        let ready: Value = node.get("/readyz").send().await.unwrap().json().await.unwrap();
        ready["mints"][0]["waiting"] == json!(tokens.len() - 1)
    })
    .await;
    go(chaos);
    running
}

/// What a child node was left with when it was killed for good: each of these keys has its credit, and
/// the house that much.
async fn left_with(mut node: ChildNode, tokens: &[String], terms: &[(u64, u64)], earned: i64) {
    let mut owed = 0;
    for (token, (_, credit)) in tokens.iter().zip(terms) {
        until_decided(|| node.get("/v1/wallet/info").bearer_auth(token)).await;
        assert_eq!(node.balance(token).await, (*credit, 0, 0));
        owed += i64::try_from(*credit).unwrap();
    }
    node.kill();
    let books = node.db.books().await;
    assert_eq!((books.liabilities, books.earnings), (owed, earned));
    node.db.remove().await;
}

/// The process dies around a swap that is shared: each token is credited, once, and what the shared
/// fee saved is there exactly if the mint signed it.
#[tokio::test(flavor = "multi_thread")]
async fn killed_around_a_shared_swap() {
    for (point, signed) in [("batch.sifted", false), ("batch.balanced", false), ("batch.swapped", true)] {
        let (mint, chaos, purse, upstream) = world(MintOptions { fee_ppk: 100, ..Default::default() }, 500).await;
        let (tokens, terms) = send_with_terms(&mint, &purse, 6, 100).await;
        let saved = saved(&terms[1..], 100);
        assert!(saved > 0);
        let settings = [NO_LADDER, ("MINT_MAX_CONCURRENCY", "1"), ("COINSLOT_FAILPOINT", point)];
        let mut node = ChildNode::start(&chaos.url(), &upstream, &settings).await;
        until_decided(|| node.get("/readyz")).await;
        let running = gather(&node, &chaos, &tokens, Chaos::calm).await;
        for answer in running.into_iter().skip(1) {
            assert!(answer.await.unwrap().is_err(), "{point}: it died");
        }
        node.kill();
        node.restart().await;
        left_with(node, &tokens, &terms, if signed { saved } else { 0 }).await;
    }
}

/// A shared swap is on its way for so long that the node is killed and starts again. One of its tokens
/// is sent again alone, and taken; then the shared swap arrives, and does nothing; the others are
/// resolved from what the mint says of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_shared_swap_that_arrives_late_harms_nobody() {
    let (mint, chaos, purse, upstream) = world(MintOptions { fee_ppk: 100, ..Default::default() }, 500).await;
    let (tokens, terms) = send_with_terms(&mint, &purse, 5, 100).await;
    let mut node = ChildNode::start(&chaos.url(), &upstream, &[NO_LADDER, ("MINT_MAX_CONCURRENCY", "1")]).await;
    until_decided(|| node.get("/readyz")).await;
    let swaps = chaos.hits(SWAP);
    let running = gather(&node, &chaos, &tokens, |chaos| chaos.set(SWAP, Mode::Park)).await;
    chaos.hit(SWAP, swaps + 1).await;
    node.kill();
    drop(running);
    // Of what is sent again at the start, the first gets through and the others do not.
    chaos.set(SWAP, Mode::Once);
    node.restart().await;
    chaos.hit(SWAP, swaps + 5).await;
    let signed = mint.calls(SWAP);
    chaos.release().await;
    assert_eq!(mint.calls(SWAP), signed + 1, "the shared swap has arrived");
    chaos.calm();
    left_with(node, &tokens, &terms, 0).await;
}

/// A payment whose answer is lost, at a mint that then says only that it is asked too often: it may
/// have been made, so the money is not given back a second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_not_answered_says_nothing_of_a_payment() {
    let (_mint, chaos, purse, upstream) = world(MintOptions::default(), 500).await;
    let recipient = Recipient::start().await;
    let clock = Stepped::now();
    let node = node_at(&chaos.url(), &upstream, &clock, &[]).await;
    let token = purse.send(256).await;
    assert_eq!(node.balance(&token).await, (256_000, 0, 0));
    clock.step(1);
    chaos.set(
        "",
        Mode::Reply(
            "HTTP/1.1 429 Too Many Requests\r\nretry-after: 3\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        ),
    );
    chaos.set("/v1/melt/quote/bolt11", Mode::Pass);
    chaos.set(MELT, Mode::DropReply);
    let to = json!({ "lightning_address": recipient.name() });
    let refund = || node.post("/v1/wallet/refund").json(&to).bearer_auth(&token);
    assert_eq!(told(refund()).await.1, "refund_pending");
    assert_eq!(node.balance(&token).await.0, 0, "it is not known to be there");
    // Kept back by the node itself: still nothing is known.
    chaos.calm();
    assert_eq!(told(refund()).await.1, "refund_pending");
    clock.step(3_000);
    let paid: Value = refund().send().await.unwrap().json().await.unwrap();
    assert_eq!(paid["recipient"], recipient.name().as_str(), "{paid}");
    assert_eq!((recipient.asked().len(), chaos.hits(MELT)), (1, 1), "paid once");
    node.finish().await;
}
