//! `Idempotency-Key`: one request, one charge, one answer, however often it is sent.

use coinslot::exchange::KEPT_MS;
use coinslot::store::Durability;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::bearer::{world, world_with};
use crate::process::ChildNode;
use crate::receipts::{receipt, request_id};
use crate::support::answers::found;
use crate::support::clock::Stepped;
use crate::support::db::on_postgres;
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, TestNode, ask, ask_streaming};
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream, completion, delta, sse, usage};

/// What of an answer must be the same when it is given again.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    replayed: bool,
    headers: Vec<(String, String)>,
    body: String,
}

async fn send(request: RequestBuilder, key: &str) -> Answer {
    read(request.header("Idempotency-Key", key).send().await.unwrap()).await
}

async fn read(answer: Response) -> Answer {
    let status = answer.status().as_u16();
    let mut headers: Vec<(String, String)> = answer
        .headers()
        .iter()
        .filter(|(name, _)| name.as_str().starts_with('x') || *name == "content-type" || *name == "cache-control")
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    let replayed = answer.headers().contains_key("idempotent-replayed");
    Answer { status, replayed, headers, body: answer.text().await.unwrap() }
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        body["error"]["code"].as_str().unwrap().to_owned()
    }

    /// Checks that this is `first` once more.
    fn repeats(&self, first: &Self) {
        assert!(self.replayed && !first.replayed);
        assert_eq!((self.status, &self.headers, &self.body), (first.status, &first.headers, &first.body));
    }
}

/// Asks until the first request has ended.
async fn until_ended(request: impl Fn() -> RequestBuilder, key: &str) -> Answer {
    found("the first request's end", async || {
        let answer = send(request(), key).await;
        (answer.status != 409 || answer.code() != "idempotency_in_progress").then_some(answer)
    })
    .await
}

/// The change of a token that rode along, once it is made.
async fn refunded(node: &ChildNode, token: &str) -> String {
    found("the change", async || {
        let answer = read(node.post("/v1/wallet/refund").header("X-Cashu", token).send().await.unwrap()).await;
        if answer.status == 200 {
            return Some(answer.header("x-cashu").unwrap().to_owned());
        }
        assert_eq!(answer.status, 425, "{}", answer.body);
        None
    })
    .await
}

fn broken() -> Script {
    Script::Answer { status: 500, media: "application/json", body: "{}".to_owned() }
}

/// A statement on the node's database.
async fn sql(node: &TestNode, statement: &'static str) -> u64 {
    let store = node.running().exchange().ledger.store();
    sqlx::query(statement)
        .execute(&mut *store.desk(Durability::Full).turn().await.unwrap())
        .await
        .unwrap()
        .rows_affected()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_same_answer_and_is_not_paid_again() {
    let (_mint, purse, upstream, mut node) = world(1000).await;
    let (token, other) = (purse.send(200).await, purse.send(200).await);
    let first = send(node.chat(&ask("hello")).bearer_auth(&token), "k-1").await;
    assert_eq!((first.status, first.header("x-routstr-cost-msats")), (200, Some("2000")));
    send(node.chat(&ask("hello")).bearer_auth(&token), "k-1").await.repeats(&first);
    // The same key by its other name, the same path by its other name.
    let key = crate::support::tokens::account_key(&token);
    send(node.post("/chat/completions").json(&ask("hello")).header("x-api-key", key), "k-1").await.repeats(&first);
    assert_eq!((upstream.seen().len(), node.balance(&token).await), (1, (198_000, 0, 2000)));

    let changed = send(node.chat(&ask("hullo")).bearer_auth(&token), "k-1").await;
    assert_eq!((changed.status, changed.code().as_str()), (409, "idempotency_key_reused"));
    assert_eq!(changed.header("x-should-retry"), Some("false"));
    assert_eq!(upstream.seen().len(), 1);

    // Another key, another payer, no key: requests of their own.
    assert!(!send(node.chat(&ask("hello")).bearer_auth(&token), "k-2").await.replayed);
    assert!(!send(node.chat(&ask("hullo")).bearer_auth(&other), "k-1").await.replayed);
    assert!(!read(node.chat(&ask("hello")).bearer_auth(&token).send().await.unwrap()).await.replayed);
    assert_eq!((upstream.seen().len(), node.balance(&token).await.0), (4, 194_000));

    node.restart().await;
    send(node.chat(&ask("hello")).bearer_auth(&token), "k-1").await.repeats(&first);
    assert_eq!((upstream.seen().len(), node.balance(&token).await.0), (4, 194_000));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_given_again_byte_by_byte() {
    let (_mint, purse, upstream, node) = world(500).await;
    let token = purse.send(200).await;
    let first = send(node.chat(&ask_streaming("hello")).bearer_auth(&token), "s").await;
    assert!(first.body.ends_with("data: [DONE]\n\n"), "{}", first.body);
    let again = send(node.chat(&ask_streaming("hello")).bearer_auth(&token), "s").await;
    again.repeats(&first);
    assert_eq!(again.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!((upstream.seen().len(), node.balance(&token).await), (1, (198_000, 0, 2000)));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_left_its_stream_gets_all_of_it_later() {
    let (_mint, purse, upstream, node) = world(500).await;
    let token = purse.send(200).await;
    let mut before = sse(MODEL, &["one", "two", "three"], Some(usage(100, 50)));
    let after = before.split_off(2);
    upstream.next(Script::Paused { before, after });
    let request = || node.chat(&ask_streaming("hello")).bearer_auth(&token);
    let mut answer = request().header("Idempotency-Key", "left").send().await.unwrap();
    let id = request_id(&answer);
    assert!(answer.chunk().await.unwrap().is_some());
    let early = send(request(), "left").await;
    assert_eq!((early.status, early.code().as_str()), (409, "idempotency_in_progress"));
    let waiting = request().header("Idempotency-Key", "left").send().await.unwrap();
    assert_eq!(waiting.headers()["retry-after"], "1");
    let changed = send(node.chat(&ask_streaming("hullo")).bearer_auth(&token), "left").await;
    assert_eq!(changed.code(), "idempotency_key_reused");
    drop(answer);
    upstream.resume();
    let whole = until_ended(request, "left").await;
    assert!(whole.replayed);
    assert_eq!(whole.header("x-routstr-request-id"), Some(id.as_str()));
    assert!(whole.body.contains("one") && whole.body.contains("three") && whole.body.contains("[DONE]"));
    assert_eq!((upstream.seen().len(), node.balance(&token).await), (1, (198_000, 0, 2000)));
    node.finish().await;
}

/// What is read of a stream for a client that left before it began is paid for, up to where nobody reads on; who asks
/// again pays no second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_left_before_its_stream_began_pays_once() {
    let (_mint, purse, upstream, node) = world_with(500, &[("SSE_KEEP_ALIVE_SECONDS", "1")]).await;
    let token = purse.send(200).await;
    let long = "x".repeat(1 << 20);
    let words = vec![long.as_str(); 6];
    upstream.next(Script::Paused { before: vec![], after: sse(MODEL, &words, Some(usage(100, 50))) });
    let request = || node.chat(&ask_streaming("hello")).bearer_auth(&token);
    let answer = request().header("Idempotency-Key", "late").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(answer);
    // Meanwhile it is noticed that the client is gone.
    assert_eq!(send(request(), "late").await.code(), "idempotency_in_progress");
    assert!(node.balance(&token).await.1 > 0, "the money is held");
    upstream.resume();
    let again = until_ended(request, "late").await;
    assert_eq!(again.code(), "idempotent_outcome_not_kept", "that much is not kept");
    let (left, held, spent) = node.balance(&token).await;
    assert!(spent > 0 && held == 0, "{spent} spent, {held} held");
    assert_eq!((upstream.seen().len(), left), (1, 200_000 - spent));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_rode_along_gives_its_change_again() {
    let (_mint, purse, upstream, node) = world(1000).await;
    for (body, mode) in [(ask("hi"), ""), (ask_streaming("hi"), ""), (ask_streaming("hi"), "stream")] {
        upstream.clear();
        let token = purse.send(100).await;
        let request = || node.chat(&body).header("X-Cashu", &token).header("X-Cashu-Change", mode);
        let first = send(request(), "x").await;
        assert_eq!(first.status, 200);
        send(request(), "x").await.repeats(&first);
        assert_eq!(upstream.seen().len(), 1);
        let change = match first.header("x-cashu") {
            Some(change) => change.to_owned(),
            None => first.body.lines().find_map(|line| line.strip_prefix(": x-cashu ")).unwrap().to_owned(),
        };
        // Without the key, or with another, the token is what it was: used up.
        let plain = read(request().send().await.unwrap()).await;
        assert_eq!((plain.status, plain.code().as_str()), (400, "cashu_token_already_spent"));
        assert_eq!(send(request(), "y").await.code(), "cashu_token_already_spent");
        assert_eq!(purse.receive(&change).await.unwrap(), 98);
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_took_a_token_is_kept_and_one_that_took_nothing_is_not() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let (once, key) = (purse.send(100).await, purse.send(100).await);
    upstream.next(broken());
    let ridden = || node.chat(&ask("hi")).header("X-Cashu", &once);
    let first = send(ridden(), "f").await;
    assert_eq!(first.status, 502);
    let back = first.header("x-cashu").unwrap().to_owned();
    send(ridden(), "f").await.repeats(&first);
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(purse.receive(&back).await.unwrap(), 100);

    upstream.clear();
    for script in [broken(), Script::Stream { pieces: vec![], cut: true }] {
        upstream.next(script);
        let failed = send(node.chat(&ask_streaming("hi")).bearer_auth(&key), "f").await;
        assert_eq!((failed.status, failed.replayed), (502, false));
    }
    let served = send(node.chat(&ask_streaming("hi")).bearer_auth(&key), "f").await;
    assert_eq!((served.status, served.replayed), (200, false));
    send(node.chat(&ask_streaming("hi")).bearer_auth(&key), "f").await.repeats(&served);
    assert_eq!((upstream.seen().len(), node.balance(&key).await), (3, (98_000, 0, 2000)));

    // Too little: nothing is taken, and more money makes it run.
    let small = purse.send(1).await;
    let poor = || node.chat(&ask("hi")).bearer_auth(&small);
    assert_eq!(send(poor(), "p").await.status, 402);
    assert_eq!(send(poor(), "p").await.status, 402);
    assert_eq!(purse.receive(&small).await.unwrap(), 1);
    // No such key: refused, and nothing is written down for it.
    let nobody = format!("sk-{}", "ab".repeat(32));
    assert_eq!(send(node.chat(&ask("hi")).bearer_auth(&nobody), "n").await.status, 401);
    assert_eq!(sql(&node, "DELETE FROM replays WHERE state = 'running'").await, 0);
    node.finish().await;
}

/// A stream that broke after content is charged for it: that is its outcome.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_broke_is_given_again_as_it_was_paid() {
    let (_mint, purse, upstream, node) = world(500).await;
    let token = purse.send(200).await;
    upstream.next(Script::Stream { pieces: vec![delta(MODEL, "half of an answer")], cut: true });
    let request = || node.chat(&ask_streaming("hi")).bearer_auth(&token);
    let first = send(request(), "b").await;
    assert!(first.body.contains("half of an answer") && first.body.contains("error"));
    let (_, _, spent) = node.balance(&token).await;
    assert!(spent > 0);
    send(request(), "b").await.repeats(&first);
    assert_eq!((upstream.seen().len(), node.balance(&token).await.2), (1, spent));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_at_once_one_runs() {
    let (_mint, purse, upstream, node) = world(1000).await;
    let (key, fresh) = (purse.send(100).await, purse.send(100).await);
    node.balance(&key).await;
    for (name, value) in [("Authorization", format!("Bearer {key}")), ("X-Cashu", fresh.clone())] {
        upstream.clear();
        let request = || node.chat(&ask("race")).header(name, &value);
        let answers = futures_util::future::join_all((0..20).map(|_| async { send(request(), "twenty").await })).await;
        let run = answers.iter().filter(|answer| answer.status == 200 && !answer.replayed).count();
        assert_eq!((run, upstream.seen().len()), (1, 1));
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            assert_eq!((answer.status, answer.code().as_str()), (409, "idempotency_in_progress"));
            assert_eq!(answer.header("x-cashu"), None);
        }
        assert!(until_ended(request, "twenty").await.replayed);
    }
    assert_eq!(node.balance(&key).await, (98_000, 0, 2000));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_none_is_refused_before_anything_happens() {
    let (_mint, purse, upstream, node) = world(500).await;
    let token = purse.send(50).await;
    for keys in [vec![""], vec!["a b"], vec!["ü"], vec!["a", "b"], vec![&*"x".repeat(256)]] {
        let mut request = node.chat(&ask("hi")).header("X-Cashu", &token);
        for key in &keys {
            request = request.header("Idempotency-Key", *key);
        }
        let answer = read(request.send().await.unwrap()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{keys:?}");
    }
    assert!(upstream.seen().is_empty());
    let longest = send(node.chat(&ask("hi")).header("X-Cashu", &token), &"x".repeat(255)).await;
    assert_eq!(longest.status, 200);
    // Asking for the price pays nothing, with a key or without.
    let asking = send(node.chat(&ask("hi")).header("Accept-Payment", "cashu"), "k").await;
    assert_eq!(asking.status, 402);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_too_long_to_keep_is_not_paid_again_either() {
    let (_mint, purse, upstream, node) = world(500).await;
    let token = purse.send(200).await;
    let text = "y".repeat(64 * 1024);
    let many: Vec<&str> = std::iter::repeat_n(text.as_str(), 70).collect();
    for stream in [false, true] {
        upstream.clear();
        upstream.next(if stream {
            Script::Stream { pieces: sse(MODEL, &many, Some(usage(100, 50))), cut: false }
        } else {
            let body = completion(MODEL, &many.concat(), Some(usage(100, 50)));
            Script::Answer { status: 200, media: "application/json", body }
        });
        let body = if stream { ask_streaming("hi") } else { ask("hi") };
        let key = if stream { "long-stream" } else { "long" };
        let first = send(node.chat(&body).bearer_auth(&token), key).await;
        assert_eq!(first.status, 200);
        assert!(first.body.len() > coinslot::exchange::MAX_KEPT_BODY);
        let again = send(node.chat(&body).bearer_auth(&token), key).await;
        assert_eq!((again.status, again.code().as_str()), (409, "idempotent_outcome_not_kept"));
        let error: Value = serde_json::from_str(&again.body).unwrap();
        let id = first.header("x-routstr-request-id").unwrap();
        assert_eq!(error["error"]["receipt"], format!("/v1/receipts/{id}"));
        assert_eq!(receipt(&node, id, &token).await["charged_msat"], 2000);
        assert_eq!(upstream.seen().len(), 1);
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_beyond_what_is_kept_together_are_not_kept() {
    // Room for one such answer, as it is stored, and not for two.
    let (_mint, purse, upstream, mut node) = world_with(500, &[("MAX_KEPT_BYTES", "250000")]).await;
    node.has_run("prune").await;
    let token = purse.send(200).await;
    let long = completion(MODEL, &"y".repeat(100_000), Some(usage(100, 50)));
    let ask_long = async |node: &TestNode, key: &str| {
        upstream.next(Script::Answer { status: 200, media: "application/json", body: long.clone() });
        let first = send(node.chat(&ask("hi")).bearer_auth(&token), key).await;
        assert_eq!(first.status, 200, "{}", first.body);
        first
    };
    let again = async |node: &TestNode, key: &str| send(node.chat(&ask("hi")).bearer_auth(&token), key).await;
    let kept = ask_long(&node, "a").await;
    ask_long(&node, "b").await;
    let short = again(&node, "c").await;
    again(&node, "a").await.repeats(&kept);
    assert_eq!(again(&node, "b").await.code(), "idempotent_outcome_not_kept");
    again(&node, "c").await.repeats(&short);
    // What is there counts after a new start as well.
    node.restart().await;
    node.has_run("prune").await;
    ask_long(&node, "d").await;
    assert_eq!(again(&node, "d").await.code(), "idempotent_outcome_not_kept");
    assert_eq!(node.balance(&token).await, (192_000, 0, 8000), "each was paid once");
    // There is room again when something is gone.
    assert_eq!(sql(&node, "DELETE FROM replays").await, 4);
    node.running().exchange().replays.prune().await.unwrap();
    let kept = ask_long(&node, "e").await;
    again(&node, "e").await.repeats(&kept);
    assert!(upstream.is_idle());
    node.finish().await;
}

/// What a crash leaves behind: the claim, and its request's hold or no hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_a_dead_process_is_judged_by_its_hold() {
    let (_mint, purse, upstream, mut node) = world(1000).await;
    let token = purse.send(200).await;
    let request = |node: &TestNode| node.chat(&ask("hi")).bearer_auth(&token);
    let first = send(request(&node), "c").await;
    let id = first.header("x-routstr-request-id").unwrap().to_owned();

    // Between settlement and keeping: it was paid, so it does not run again.
    let lost = "UPDATE replays SET state = 'running', outcome = ''";
    assert_eq!(sql(&node, lost).await, 1);
    node.restart().await;
    for _ in 0..2 {
        let again = send(request(&node), "c").await;
        assert_eq!((again.status, again.code().as_str()), (409, "idempotent_outcome_not_kept"));
        assert!(again.body.contains(&format!("/v1/receipts/{id}")));
    }
    assert_eq!(upstream.seen().len(), 1);

    // Another process that is alive may still be at it; a dead one is not.
    sql(&node, "UPDATE replays SET request = 'never held', owner = 'another'").await;
    sql(&node, "INSERT INTO nodes (id, seen_at) VALUES ('another', 9000000000000)").await;
    assert_eq!(send(request(&node), "c").await.code(), "idempotency_in_progress");
    sql(&node, "UPDATE nodes SET seen_at = 1 WHERE id = 'another'").await;
    // Before the hold: it cost nothing, so it runs, once.
    let served = send(request(&node), "c").await;
    assert_eq!((served.status, served.replayed), (200, false));
    send(request(&node), "c").await.repeats(&served);
    assert_eq!((upstream.seen().len(), node.balance(&token).await), (2, (196_000, 0, 4000)));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_it_runs_again_and_is_paid_once() {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(500).await;
    let upstream = Upstream::start().await;
    let mut node = ChildNode::start(&mint.url(), &upstream, &[]).await;
    let token = purse.send(100).await;
    upstream.next(Script::Paused { before: vec![delta(MODEL, "first")], after: vec![] });
    let request = |node: &ChildNode| node.chat(&ask_streaming("hi")).bearer_auth(&token);
    let mut answer = request(&node).header("Idempotency-Key", "k").send().await.unwrap();
    let id = request_id(&answer);
    assert!(answer.chunk().await.unwrap().is_some());
    node.kill();
    drop(answer);
    node.restart().await;
    let receipt = node.get(&format!("/v1/receipts/{id}")).bearer_auth(&token).send().await.unwrap();
    let receipt: Value = receipt.json().await.unwrap();
    assert_eq!((&receipt["receipt"]["status"], &receipt["receipt"]["charged_msat"]), (&json!("released"), &json!(0)));
    let served = send(request(&node), "k").await;
    assert_eq!((served.status, served.replayed), (200, false));
    node.kill();
    node.restart().await;
    send(request(&node), "k").await.repeats(&served);
    assert_eq!((upstream.seen().len(), node.balance(&token).await), (2, (98_000, 0, 2000)));
    node.kill();
    assert_eq!(node.db.books().await.earnings, 2000);
}

/// The one moment at which a request is paid and its answer is nowhere yet.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_settlement_and_keeping_it_is_not_paid_again() {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(500).await;
    let upstream = Upstream::start().await;
    let point = [("COINSLOT_FAILPOINT", "exchange.settled")];
    for (name, scheme) in [("Authorization", "Bearer "), ("X-Cashu", "")] {
        for stream in [false, true] {
            upstream.clear();
            let value = format!("{scheme}{}", purse.send(50).await);
            let mut node = ChildNode::start(&mint.url(), &upstream, &point).await;
            let body = if stream { ask_streaming("hi") } else { ask("hi") };
            let request = |node: &ChildNode| node.chat(&body).header(name, &value).header("X-Cashu-Change", "stream");
            let dying = request(&node).header("Idempotency-Key", "k").send().await;
            if let Ok(answer) = dying {
                assert!(!answer.text().await.is_ok_and(|text| text.contains("[DONE]")));
            }
            node.kill();
            node.restart().await;
            let again = send(request(&node), "k").await;
            assert_eq!((again.status, again.code().as_str()), (409, "idempotent_outcome_not_kept"));
            assert_eq!(upstream.seen().len(), 1);
            if scheme.is_empty() {
                // Its change is not lost with the answer.
                let back = refunded(&node, &value).await;
                assert_eq!(purse.receive(&back).await.unwrap(), 48);
            }
            node.kill();
            assert_eq!(node.db.books().await.earnings, 2000);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_day_it_is_a_new_request_and_the_old_one_is_gone() {
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let clock = Stepped::at(1_790_000_000_000);
    let node = TestNode::with_clock(&mint.url(), &upstream, clock.clone(), &[]).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(300).await;
    let token = purse.send(200).await;
    let request = || node.chat(&ask("hi")).bearer_auth(&token);
    let first = send(request(), "d").await;
    let other = send(request(), "e").await;
    clock.step(KEPT_MS);
    send(request(), "d").await.repeats(&first);
    clock.step(1);
    let second = send(node.chat(&ask("something else")).bearer_auth(&token), "d").await;
    assert_eq!((second.status, second.replayed), (200, false));
    assert_eq!(upstream.seen().len(), 3);
    // What is over is removed, what is not stays.
    assert_eq!(node.running().exchange().replays.prune().await.unwrap(), 1);
    send(node.chat(&ask("something else")).bearer_auth(&token), "d").await.repeats(&second);
    assert_eq!(other.status, 200);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_alone_tells_neither_question_nor_answer_nor_key() {
    if on_postgres() {
        return;
    }
    let (_mint, purse, upstream, node) = world(500).await;
    let (key, once) = (purse.send(100).await, purse.send(100).await);
    const CANARIES: [&str; 3] = ["canary-question-17", "canary-answer-83", "canary-key-44"];
    let mut change = String::new();
    for (name, value) in [("Authorization", format!("Bearer {key}")), ("X-Cashu", once.clone())] {
        upstream.next(Script::Answer {
            status: 200,
            media: "application/json",
            body: completion(MODEL, CANARIES[1], Some(usage(100, 50))),
        });
        let request = || node.chat(&ask(CANARIES[0])).header(name, &value);
        let first = send(request(), CANARIES[2]).await;
        assert!(first.body.contains(CANARIES[1]));
        send(request(), CANARIES[2]).await.repeats(&first);
        change = first.header("x-cashu").unwrap_or_default().to_owned();
    }
    assert!(!change.is_empty());
    let mut looked = 0;
    for entry in std::fs::read_dir(node.data_dir()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        looked += bytes.len();
        for canary in CANARIES.into_iter().chain([key.as_str(), once.as_str()]) {
            assert!(memchr::memmem::find(&bytes, canary.as_bytes()).is_none(), "{canary} is in the database");
        }
    }
    assert!(looked > 100_000);
    node.finish().await;
}
