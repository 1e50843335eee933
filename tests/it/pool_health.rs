//! What is held against an upstream: a connection that did not come about, and refusals of the operator's
//! account, which stay until the operator clears them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::pool::{KEYS, NAMES, Reply, World, entry};
use crate::price_sync::{Browser, csrf};
use crate::process::ChildNode;
use crate::support::answers::{ok, until};
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, ask, ask_streaming};
use crate::support::proxy::Proxy;
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream, delta};

const BREAKER: [(&str, &str); 1] = [("UPSTREAM_BREAKER_FAILURES", "5")];
/// Longer than all that passes by itself.
const A_WEEK: Duration = Duration::from_secs(7 * 86_400);

fn refusal(status: u16, kind: &str, code: &str, message: &str) -> Script {
    let body = json!({ "error": { "message": message, "type": kind, "code": code } }).to_string();
    Script::Refuse { status, headers: Vec::new(), body }
}

fn bad_key() -> Script {
    refusal(401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-...")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_come_about_is_dialled_once_more() {
    let upstreams = vec![Upstream::start().await, Upstream::start().await];
    let socks = Proxy::socks5().await;
    let through = json!({ "proxy_url": format!("socks5h://{}", socks.address) });
    let entries = json!([entry(0, &upstreams[0].url(), &through), entry(1, &upstreams[1].url(), &json!({}))]);
    let world = World::of(upstreams, &entries, &[]).await;
    // Once more, and no more than that.
    socks.hang_up(2);
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!((world.asked(), socks.calls()), (vec![0, 1], 2));
    world.clock.step(Duration::from_secs(660));
    socks.hang_up(1);
    assert_eq!(world.send(&ask_streaming("hi")).await.status, 200);
    assert_eq!((world.asked(), socks.calls()), (vec![1, 0], 4));
    // Nothing is held against it for that.
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [1, 0]);
    assert_eq!(world.spent().await, 6_000);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_heard_is_not_said_twice_to_the_same_upstream() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    // Takes a request, and hangs up.
    let deaf = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let _read = client.read(&mut [0; 4096]).await;
        }
    });
    let upstream = Upstream::start().await;
    let entries = json!([entry(0, &format!("http://{address}/v1"), &json!({})), entry(1, &upstream.url(), &json!({}))]);
    let world = World::of(vec![upstream], &entries, &[]).await;
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!((calls.load(Ordering::SeqCst), world.asked()), (1, vec![1]));
    world.finish().await;
    deaf.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_refuses_the_account_stays_out_until_it_is_cleared() {
    let refusals = [
        (bad_key(), "key_refused"),
        (refusal(400, "invalid_request_error", "", "This organization has been disabled."), "account_shut"),
        (refusal(429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota"), "no_credit"),
        (refusal(400, "invalid_request_error", "", "Your credit balance is too low to access this."), "no_credit"),
    ];
    let mut world = World::new(&[json!({}), json!({})], &BREAKER).await;
    for (script, why) in refusals {
        world.upstreams[0].next(script);
        let reply = world.send(&ask("hi")).await;
        assert_eq!((reply.status, world.asked()), (200, vec![1, 1]), "{why}");
        for _ in 0..2 {
            world.clock.step(A_WEEK);
            assert_eq!(world.send(&ask_streaming("hi")).await.status, 200);
            assert_eq!(world.asked(), [0, 1], "{why}: time does not heal it");
        }
        // Neither does a new start.
        let exchange = world.node.running().exchange().clone();
        exchange.pool.watch(exchange.ledger.store()).await.unwrap();
        drop(exchange);
        world.node.restart().await;
        assert_eq!(world.send(&ask("hi")).await.status, 200);
        assert_eq!(world.asked(), [0, 1], "{why}");
        let exchange = world.node.running().exchange().clone();
        let store = exchange.ledger.store();
        let listed = coinslot::upstream::repo::listed(store).await.unwrap();
        let bars: Vec<_> = listed.iter().map(|one| one.bar.map(|(bar, _)| bar.name())).collect();
        assert_eq!(bars, [Some(why), None]);
        assert!(coinslot::upstream::repo::clear(store, NAMES[0]).await.unwrap());
        assert!(!coinslot::upstream::repo::clear(store, "nobody").await.unwrap());
        exchange.pool.watch(store).await.unwrap();
        assert_eq!(world.send(&ask("hi")).await.status, 200);
        assert_eq!(world.asked(), [1, 0], "{why}: it is cleared");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_to_one_request_is_not_held_against_its_upstream() {
    let world = World::new(&[json!({}), json!({})], &[("UPSTREAM_BREAKER_FAILURES", "1")]).await;
    let flagged = "openai/o3-mini requires moderation on OpenAI. Your input was flagged for \"harassment\". No credits \
                   were charged.";
    let xai = json!({
        "code": "The caller does not have permission to execute the specified operation",
        "error": "Content violates usage guidelines. Team: team-canary, API key ID: key-canary, Model: grok-4-0709, \
                  Failed check: SAFETY_CHECK_TYPE_BIO",
    });
    for (script, shown) in [
        (refusal(403, "", "", flagged), flagged),
        (
            Script::Refuse { status: 403, headers: Vec::new(), body: xai.to_string() },
            "The upstream does not serve this content.",
        ),
    ] {
        for body in [ask("hi"), ask_streaming("hi")] {
            world.upstreams[0].next(script.clone());
            let reply = world.send(&body).await;
            assert_eq!((reply.status, reply.json()["error"]["message"].as_str()), (403, Some(shown)), "{}", reply.text);
            assert!(!reply.has("canary"), "{}", reply.text);
            assert_eq!(world.asked(), [1, 0], "it is the same mistake everywhere");
        }
    }
    assert_eq!(world.spent().await, 0);
    let too_dear = "This request requires more credits, or fewer max_tokens. You requested up to 65536 tokens, but can \
                    only afford 30104. To increase, visit https://openrouter.ai/settings/credits and upgrade to a paid \
                    account";
    for _ in 0..3 {
        world.upstreams[0].next(refusal(402, "", "", too_dear));
        assert_eq!(world.send(&ask("hi")).await.status, 200);
        assert_eq!(world.asked(), [1, 1], "another one may have more, and this one is asked again");
    }
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [1, 0]);
    world.finish().await;
}

/// A refusal inside an answer that began with success.
fn inside(status: u16, message: &str, streamed: bool) -> Script {
    let body = json!({ "error": { "code": status, "message": message } }).to_string();
    if streamed {
        return Script::Stream { pieces: vec![": x\n\n".to_owned(), format!("data: {body}\n\n")], cut: false };
    }
    Script::Answer { status: 200, media: "application/json", body }
}

const NO_CREDIT: &str = "Insufficient credits. Add more using https://openrouter.ai/settings/credits";

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_inside_a_success_is_one_like_any_other() {
    let world = World::new(&[json!({}), json!({})], &BREAKER).await;
    for (streamed, body) in [(true, ask_streaming("hi")), (false, ask("hi"))] {
        for _ in 0..5 {
            world.upstreams[0].next(inside(400, "bad", streamed));
            let reply = world.send(&body).await;
            assert_eq!((reply.status, reply.json()["error"]["message"].as_str()), (400, Some("bad")), "{}", reply.text);
        }
        assert_eq!(world.asked(), [5, 0], "it is the same mistake everywhere");
        assert_eq!(world.send(&body).await.status, 200);
        assert_eq!(world.asked(), [1, 0], "and is not held against the upstream");
    }
    // OpenAI has a code for it, and no number.
    let failed =
        json!({ "status": "failed", "output": [], "error": { "code": "invalid_prompt", "message": "flagged" } });
    world.upstreams[0].next(Script::Answer { status: 200, media: "application/json", body: failed.to_string() });
    let request = world.node.post("/v1/responses").json(&json!({ "model": MODEL, "input": "hi" }));
    let reply = Reply::of(request.bearer_auth(&world.key).send().await.unwrap()).await;
    assert_eq!((reply.status, world.asked()), (400, vec![1, 0]), "{}", reply.text);
    // One that limits its callers rests, and one that wants money is not asked again.
    for (status, message, pause, asked) in [
        (429, "slow down", Duration::ZERO, [0, 1]),
        (429, "slow down", Duration::from_secs(660), [1, 0]),
        (402, NO_CREDIT, A_WEEK, [0, 1]),
    ] {
        world.clock.step(Duration::from_secs(660));
        world.upstreams[0].next(inside(status, message, true));
        assert_eq!(world.send(&ask_streaming("hi")).await.status, 200);
        assert_eq!(world.asked(), [1, 1], "{status}: another one may serve it");
        world.clock.step(pause);
        assert_eq!(world.send(&ask_streaming("hi")).await.status, 200);
        assert_eq!(world.asked(), asked, "{status} {pause:?}");
    }
    assert_eq!(world.spent().await, 16_000, "what was served");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_content_blames_whom_it_names() {
    let world = World::new(&[json!({}), json!({})], &[("UPSTREAM_BREAKER_FAILURES", "1")]).await;
    for (status, message, shown, asked) in
        [(400, "bad", "bad", [1, 0]), (402, NO_CREDIT, "The upstream did not accept this node's account.", [0, 1])]
    {
        let Script::Stream { mut pieces, cut } = inside(status, message, true) else { unreachable!() };
        pieces.insert(0, delta(MODEL, "one"));
        world.upstreams[0].next(Script::Stream { pieces, cut });
        let reply = world.send(&ask_streaming("hi")).await;
        assert_eq!((reply.status, reply.events().last().unwrap()["error"]["message"].as_str()), (200, Some(shown)));
        assert!(!reply.has("credits"), "{}", reply.text);
        assert_eq!(world.asked(), [1, 0]);
        assert_eq!(world.send(&ask("hi")).await.status, 200);
        assert_eq!(world.asked(), asked, "{status}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_own_mistakes_neither_count_as_failures_nor_end_a_row_of_them() {
    let world = World::new(&[json!({}), json!({})], &[("UPSTREAM_BREAKER_FAILURES", "3")]).await;
    let wrong = || refusal(400, "invalid_request_error", "", "messages: roles must alternate");
    for _ in 0..3 {
        world.upstreams[0].next(wrong());
        assert_eq!(world.send(&ask("hi")).await.status, 400);
        assert_eq!(world.asked(), [1, 0], "nobody else is asked");
        world.upstreams[0].next(refusal(500, "", "", ""));
        assert_eq!(world.send(&ask("hi")).await.status, 200);
        assert_eq!(world.asked(), [1, 1]);
        world.clock.step(Duration::from_secs(16));
    }
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [0, 1], "it failed three times, and never answered");
    world.clock.step(Duration::from_secs(61));
    world.upstreams[0].next(wrong());
    assert_eq!(world.send(&ask("hi")).await.status, 400);
    world.upstreams[0].next(refusal(500, "", "", ""));
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [2, 1], "the mistake has not answered the probe");
    world.clock.step(Duration::from_secs(61));
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [0, 1], "two minutes this time");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_says_after_which_statuses_the_next_is_asked() {
    let world = World::new(&[json!({}), json!({})], &[("UPSTREAM_RETRY_STATUSES", "400,5xx")]).await;
    for (status, shown, asked) in [(400, 200, [1, 1]), (500, 200, [1, 1]), (404, 404, [1, 0]), (429, 429, [1, 0])] {
        world.upstreams[0].next(refusal(status, "", "", "x"));
        assert_eq!((world.send(&ask("hi")).await.status, world.asked()), (shown, asked.to_vec()), "{status}");
        world.clock.step(Duration::from_secs(660));
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_ends_rests_and_open_circuits_too() {
    let world = World::new(&[json!({}), json!({})], &[("UPSTREAM_BREAKER_FAILURES", "1")]).await;
    world.upstreams[0].next(refusal(500, "", "", ""));
    world.send(&ask("hi")).await;
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [1, 2]);
    let exchange = world.node.running().exchange();
    assert!(coinslot::upstream::repo::clear(exchange.ledger.store(), NAMES[0]).await.unwrap());
    exchange.pool.watch(exchange.ledger.store()).await.unwrap();
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [1, 0]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_is_a_new_beginning() {
    let mut world = World::new(&[json!({}), json!({})], &BREAKER).await;
    world.upstreams[0].next(bad_key());
    world.send(&ask("hi")).await;
    let exchange = world.node.running().exchange().clone();
    exchange.pool.watch(exchange.ledger.store()).await.unwrap();
    drop(exchange);
    world.asked();
    let entries = world.node.settings()["UPSTREAMS"].clone();
    world.node.restart_with("UPSTREAMS", &entries.replace(KEYS[0], "sk-pool-delta-0123456789")).await;
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [1, 0]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_refuse_the_account_no_token_is_taken_and_the_node_is_not_ready() {
    let world = World::new(&[json!({})], &BREAKER).await;
    world.upstreams[0].next(bad_key());
    let reply = world.send(&ask("hi")).await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_error"));
    assert!(!reply.has("Incorrect"), "the operator's trouble is not the client's: {}", reply.text);
    let token = world.purse.send(30).await;
    let calls = world.mint.all_calls();
    world.clock.step(A_WEEK);
    let reply = world.send_token(&ask("hi"), &token).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "upstream_unavailable"));
    assert!(reply.headers["retry-after"].parse::<u64>().unwrap() > 0);
    assert_eq!((&reply.headers["x-cashu"], world.mint.all_calls()), (&token, calls));
    let ready = Reply::of(world.node.get("/readyz").send().await.unwrap()).await;
    assert_eq!((ready.status, ready.json()["upstreams"]["left_alone"].as_u64()), (503, Some(1)));
    assert!(ready.has("no upstream takes this node's account"), "{}", ready.text);
    assert_eq!(world.asked(), [1]);
    // With no breaker at all, none is ever left out: it goes last, and here that is first.
    world.finish().await;
    let world = World::new(&[json!({})], &[]).await;
    world.upstreams[0].next(bad_key());
    assert_eq!(world.send(&ask("hi")).await.status, 502);
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_how_upstreams_are_and_clears_them() {
    let world = World::new(&[json!({}), json!({})], &BREAKER).await;
    world.upstreams[0].next(bad_key());
    world.send(&ask("hi")).await;
    world.asked();
    let browser = Browser::log_in(&world.node).await;
    let page = browser.page_at("/admin/upstreams").await;
    assert!(page.contains(NAMES[0]) && page.contains(NAMES[1]) && page.contains("it does not take your key"));
    assert!(browser.page_at("/admin").await.contains("it does not take your key"));
    let csrf = csrf(&page);
    let path = "/admin/upstreams/clear";
    assert_eq!(browser.post(path, &[("csrf", "made-up"), ("name", NAMES[0])]).await.status(), 403);
    assert_eq!(browser.post(path, &[("csrf", &csrf), ("name", "nobody")]).await.status(), 404);
    world.send(&ask("hi")).await;
    assert_eq!(world.asked(), [0, 1]);
    assert_eq!(browser.post(path, &[("csrf", &csrf), ("name", NAMES[0])]).await.status(), 303);
    assert!(!browser.page_at("/admin/upstreams").await.contains("it does not take your key"));
    world.send(&ask("hi")).await;
    assert_eq!(world.asked(), [1, 0]);
    let stranger = world.node.get("/admin/upstreams").send().await.unwrap();
    assert_eq!(stranger.status(), 303, "to the login");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verb_lists_and_clears_beside_the_running_node() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let purse = Purse::new(&mint).await;
    purse.mint_sats(2_000).await;
    let mut node = ChildNode::start(&mint.url(), &upstream, &BREAKER).await;
    let token = purse.send(1_500).await;
    let status = async || node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap().status().as_u16();
    let list = async || {
        let outcome = node.verb(&["upstreams", "list", "--json"]).await;
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert!(!outcome.said.contains("sk-upstream-secret"), "{outcome:?}");
        let listed: Value = serde_json::from_str(&outcome.said).unwrap();
        listed["upstreams"][0].clone()
    };
    let listed = list().await;
    assert_eq!((&listed["name"], &listed["barred"]), (&json!("default"), &Value::Null));
    upstream.next(bad_key());
    assert_eq!((status().await, status().await), (502, 503));
    until("it is written down", async || list().await["barred"]["why"] == "key_refused").await;
    let shown = node.verb(&["upstreams"]).await;
    assert!(shown.said.contains("default") && shown.said.contains("BARRED since 2"), "{shown:?}");
    assert!(node.said().contains("ALARM: an upstream is not asked any more"));
    let outcome = node.verb(&["upstreams", "clear", "default"]).await;
    assert_eq!((outcome.code, outcome.said.as_str()), (0, "default is asked again.\n"));
    until("the node notices", async || status().await == 200).await;
    let outcome = node.verb(&["upstreams", "clear", "nobody"]).await;
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert_eq!(node.verb(&["upstreams", "drop"]).await.code, 2);
    let ready = ok(node.get("/readyz")).await;
    assert_eq!(ready["upstreams"]["left_alone"], 0);
    node.stop().await;
    let books = node.db.books().await;
    assert_eq!((books.liabilities, books.earnings, books.open_holds), (1_498_000, 2_000, 0));
    node.db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_says_of_the_account_is_not_passed_on() {
    let world = World::new(&[json!({})], &BREAKER).await;
    for (message, shown) in [
        (
            "Your organization must be verified to stream this model.",
            "The upstream does not let this node use this model so.",
        ),
        (
            "max_tokens is above what your plan allows (organization org-AbC123dEf456)",
            "The upstream's terms for this node do not cover this request.",
        ),
        ("Bad tools for org-AbC123dEf456, says ops@vendor.example", "Bad tools for [removed], says [removed]"),
        ("messages: roles must alternate", "messages: roles must alternate"),
    ] {
        world.upstreams[0].next(refusal(400, "invalid_request_error", "", message));
        let reply = world.send(&ask("hi")).await;
        assert_eq!((reply.status, reply.json()["error"]["message"].as_str()), (400, Some(shown)), "{}", reply.text);
        for word in ["organization", "org-AbC", "vendor", "your plan"] {
            assert!(!reply.has(word), "{word}: {}", reply.text);
        }
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_says_when_it_fails_is_told_where_the_operator_wants_it() {
    for (verbose, told) in [("false", "The upstream answered 500."), ("true", "The upstream answered 500: out of luck")]
    {
        let world = World::new(&[json!({})], &[("UPSTREAM_ERRORS_VERBOSE", verbose)]).await;
        for (said, expected) in [
            ("out of luck".to_owned(), told),
            (
                format!("out of luck with {}", KEYS[0]),
                if verbose == "true" { "out of luck with [removed]" } else { told },
            ),
            ("Your organization org-AbC123dEf456 is out of luck".to_owned(), "The upstream answered 500."),
            (String::new(), "The upstream answered 500."),
        ] {
            world.upstreams[0].next(refusal(500, "", "", &said));
            let reply = world.send(&ask("hi")).await;
            let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
            assert!(reply.status == 502 && message.ends_with(expected), "{verbose} {said}: {message}");
            assert!(!reply.has(KEYS[0]) && !reply.has("org-AbC"), "{}", reply.text);
        }
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_upstreams_all_fail_is_not_ready_until_one_may_be_tried() {
    let world = World::new(&[json!({}), json!({})], &[("UPSTREAM_BREAKER_FAILURES", "1")]).await;
    let ready = async || Reply::of(world.node.get("/readyz").send().await.unwrap()).await;
    let before = ready().await;
    assert_eq!((before.status, before.json()["version"].as_str()), (200, Some(env!("CARGO_PKG_VERSION"))));
    assert!(before.json()["commit"].is_null() || before.json()["commit"].is_string());
    // One of two is enough.
    world.upstreams[0].next(refusal(500, "", "", ""));
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(ready().await.status, 200);
    world.upstreams[1].next(refusal(500, "", "", ""));
    assert_eq!(world.send(&ask("hi")).await.status, 502);
    let down = ready().await;
    assert_eq!((down.status, down.has("no upstream answers at the moment")), (503, true), "{}", down.text);
    // Their time is over: requests may come, and find out.
    world.clock.step(Duration::from_secs(61));
    assert_eq!(ready().await.status, 200);
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(ready().await.status, 200);
    world.finish().await;
}

/// Where the operator lets none be left alone, too: until the rest after a failure is over.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_breaker_a_node_whose_upstreams_all_fail_is_not_ready_either() {
    let world = World::new(&[json!({})], &[("UPSTREAM_BREAKER_FAILURES", "0")]).await;
    let ready = async || Reply::of(world.node.get("/readyz").send().await.unwrap()).await;
    for status in [200, 200, 200, 200, 503] {
        world.upstreams[0].next(refusal(500, "", "", ""));
        assert_eq!(world.send(&ask("hi")).await.status, 502);
        let ready = ready().await;
        assert_eq!((ready.status, ready.has("no upstream answers at the moment")), (status, status == 503));
    }
    assert_eq!(world.asked(), [5], "it was asked each time");
    world.clock.step(Duration::from_secs(15));
    assert_eq!(ready().await.status, 200);
    world.upstreams[0].next(refusal(500, "", "", ""));
    assert_eq!(world.send(&ask("hi")).await.status, 502);
    assert_eq!(ready().await.status, 503);
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(ready().await.status, 200);
    world.finish().await;
}
