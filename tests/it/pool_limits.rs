//! How fast a key may spend, and the switch that stops the sale.

use std::time::Duration;

use coinslot::clock::Clock as _;
use serde_json::json;

use crate::bearer::refund;
use crate::pool::{Reply, World, asks_for};
use crate::process::ChildNode;
use crate::support::answers::until;
use crate::support::node::{MODEL, ask, ask_streaming};
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream, delta, sse, usage};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_makes_so_many_requests_a_minute() {
    let world = World::new(&[json!({})], &[("KEY_REQUESTS_PER_MINUTE", "3")]).await;
    for remaining in ["2", "1", "0"] {
        let body = if remaining == "1" { ask("hi") } else { ask_streaming("hi") };
        let reply = world.send(&body).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.headers["x-ratelimit-limit-requests"], "3");
        assert_eq!(reply.headers["x-ratelimit-remaining-requests"], remaining);
        assert!(reply.headers["x-ratelimit-reset-requests"].ends_with('s'));
        // And under the plain names, with a time of the Unix epoch.
        assert_eq!((&*reply.headers["x-ratelimit-limit"], &*reply.headers["x-ratelimit-remaining"]), ("3", remaining));
        let (now, reset) = (world.clock.now_ms() / 1000, reply.headers["x-ratelimit-reset"].parse::<i64>().unwrap());
        assert!((now..=now + 61).contains(&reset), "{now} {reset}");
        assert!(!reply.headers.contains_key("x-ratelimit-limit-tokens"));
    }
    let spent = world.spent().await;
    let reply = world.send(&ask("hi")).await;
    assert_eq!((reply.status, reply.code().as_str()), (429, "rate_limit_exceeded"));
    let wait: u64 = reply.headers["retry-after"].parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(reply.headers["x-ratelimit-remaining-requests"], "0");
    assert_eq!(reply.headers["x-proxy-error-source"], "proxy");
    assert_eq!((world.spent().await, world.asked()), (spent, vec![3]), "it cost nothing, and nobody was asked");
    // Others are not concerned, and a token that rides along is no key.
    let other = world.purse.send(100).await;
    let request = world.node.chat(&ask("hi")).bearer_auth(&other);
    assert_eq!(request.send().await.unwrap().status(), 200);
    for _ in 0..4 {
        let token = world.purse.send(30).await;
        let reply = world.send_token(&ask("hi"), &token).await;
        assert_eq!(reply.status, 200);
        assert!(!reply.headers.contains_key("x-ratelimit-limit-requests"));
    }
    world.clock.step(Duration::from_secs(61));
    assert_eq!(world.send(&ask("hi")).await.headers["x-ratelimit-remaining-requests"], "2");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropics_clients_find_their_limits_under_the_names_they_know() {
    let settings = [("KEY_REQUESTS_PER_MINUTE", "2"), ("KEY_TOKENS_PER_MINUTE", "100000")];
    let world = World::new(&[json!({})], &settings).await;
    let body = json!({ "model": MODEL, "max_tokens": 100, "messages": [{ "role": "user", "content": "hi" }] });
    let send = async || {
        let request = world.node.post("/v1/messages").header("x-api-key", &world.key).json(&body);
        Reply::of(request.send().await.unwrap()).await
    };
    for (remaining, status) in [("1", 200), ("0", 200), ("0", 429)] {
        let reply = send().await;
        assert_eq!(reply.status, status, "{}", reply.text);
        let names = [("requests", "limit", "2"), ("requests", "remaining", remaining), ("tokens", "limit", "100000")];
        for (what, of, expected) in names {
            assert_eq!(reply.headers[&format!("anthropic-ratelimit-{what}-{of}")], expected);
            assert_eq!(reply.headers[&format!("x-ratelimit-{of}-{what}")], expected);
        }
        for what in ["requests", "tokens"] {
            let reset = &reply.headers[&format!("anthropic-ratelimit-{what}-reset")];
            let form: String = reset.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            assert_eq!(form, "0000-00-00T00:00:00Z", "{reset}");
        }
        if status == 429 {
            assert!(reply.headers["retry-after"].parse::<u64>().unwrap() <= 60);
            assert_eq!(reply.json()["error"]["type"], "rate_limit_error");
        }
        let unified = reply.headers.get("anthropic-ratelimit-unified-status").map(String::as_str);
        assert_eq!(unified, (status == 429).then_some("rejected"));
    }
    // What was asked for there stops nobody at other vendors' endpoints.
    let others = world.send(&ask("hi")).await;
    assert_eq!((others.status, others.headers["x-ratelimit-remaining-requests"].as_str()), (200, "1"));
    assert_eq!(send().await.status, 429);
    assert!(!others.headers.keys().any(|name| name.starts_with("anthropic-")));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_token_that_is_too_fast_for_itself_is_not_redeemed_for_it() {
    let world = World::new(&[json!({})], &[("KEY_TOKENS_PER_MINUTE", "1000")]).await;
    let mut large = ask("hi");
    large["max_tokens"] = json!(900);
    assert_eq!(world.send(&large).await.status, 200);
    // 150 were used of the 900 that were asked for.
    let reply = world.send(&ask("hi")).await;
    assert_eq!((reply.status, reply.headers["x-ratelimit-remaining-tokens"].as_str()), (429, "850"));
    large["max_tokens"] = json!(500);
    let reply = world.send(&large).await;
    assert_eq!((reply.status, reply.headers["x-ratelimit-remaining-tokens"].as_str()), (200, "700"));
    // An attempt that failed has used nothing.
    world.upstreams[0].next(Script::Answer { status: 500, media: "application/json", body: String::new() });
    let reply = world.send(&large).await;
    assert_eq!((reply.status, reply.headers["x-ratelimit-remaining-tokens"].as_str()), (502, "700"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_so_many_streams_at_a_time() {
    let world = World::new(&[json!({})], &[("KEY_MAX_STREAMS", "1")]).await;
    let after = vec![sse(MODEL, &["second"], Some(usage(100, 50))).concat()];
    world.upstreams[0].next(Script::Paused { before: vec![delta(MODEL, "first")], after });
    let mut running = world.node.chat(&ask_streaming("hi")).bearer_auth(&world.key).send().await.unwrap();
    assert!(running.chunk().await.unwrap().is_some());
    let reply = world.send(&ask_streaming("hi")).await;
    assert_eq!((reply.status, reply.code().as_str()), (429, "rate_limit_exceeded"));
    assert_eq!(reply.headers["retry-after"], "1");
    assert_eq!(world.send(&ask("hi")).await.status, 200, "a whole answer is no stream");
    world.upstreams[0].resume();
    assert!(running.text().await.unwrap().contains("[DONE]"));
    assert_eq!(world.send(&ask_streaming("hi")).await.status, 200, "the place is free again");
    // Also when the client has left.
    let pieces = sse(MODEL, &["x"], Some(usage(100, 50)));
    world.upstreams[0].next(Script::Stream { pieces, cut: false });
    drop(world.node.chat(&ask_streaming("hi")).bearer_auth(&world.key).send().await.unwrap());
    world.node.settled().await;
    assert_eq!(world.send(&ask_streaming("hi")).await.status, 200);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_the_operators_account_is_not_shown_as_the_clients() {
    let world = World::new(&[json!({})], &[("KEY_REQUESTS_PER_MINUTE", "50")]).await;
    world.upstreams[0].next(asks_for(429, 9));
    let reply = world.send(&ask("hi")).await;
    assert_eq!((reply.status, reply.headers["retry-after"].as_str()), (429, "9"));
    assert_eq!(reply.headers["x-ratelimit-remaining-requests"], "49", "ours, not the upstream's 0");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_is_told_to_wait_for_longer_than_an_upstream_is_believed() {
    let world = World::new(&[json!({})], &[]).await;
    for (asked, told) in [(0, "1"), (3_600, "3600"), (86_400, "3600"), (u64::MAX, "3600")] {
        world.upstreams[0].next(asks_for(429, asked));
        let reply = world.send(&ask("hi")).await;
        assert_eq!((reply.status, reply.headers["retry-after"].as_str()), (429, told), "{asked}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_stops_the_sale_and_nothing_else() {
    let mut world = World::new(&[json!({})], &[]).await;
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    world.asked();
    world.node.restart_with("MAINTENANCE", "true").await;
    let token = world.purse.send(30).await;
    let swaps = world.mint.calls("/v1/swap");
    for body in [ask("hi"), ask_streaming("hi")] {
        for reply in [world.send(&body).await, world.send_token(&body, &token).await] {
            assert_eq!((reply.status, reply.code().as_str()), (503, "maintenance"));
            assert_eq!(reply.headers["x-should-retry"], "false");
            assert!(reply.headers["retry-after"].parse::<u64>().unwrap() > 0);
        }
    }
    assert_eq!(world.send_token(&ask("hi"), &token).await.headers["x-cashu"], token, "it is untouched");
    assert_eq!((world.mint.calls("/v1/swap"), world.asked()), (swaps, vec![0]));
    let ready = Reply::of(world.node.get("/readyz").send().await.unwrap()).await;
    assert_eq!(ready.status, 503);
    assert!(ready.has("maintained"), "{}", ready.text);
    // What is a client's stays within its reach.
    assert_eq!(world.node.balance(&world.key).await.0, 998_000);
    assert_eq!(refund(&world.node, &world.purse, &world.key).await, 998);
    assert_eq!(world.node.get("/v1/models").send().await.unwrap().status(), 200);
    world.node.restart_with("MAINTENANCE", "").await;
    assert_eq!(world.send_token(&ask("hi"), &token).await.status, 200);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stored_switch_is_turned_beside_the_running_node() {
    let world = World::new(&[json!({})], &[]).await;
    let exchange = world.node.running().exchange().clone();
    let store = exchange.ledger.store();
    for (on, status) in [(true, 503), (false, 200)] {
        coinslot::exchange::turn_maintenance(store, on, 1).await.unwrap();
        exchange.maintenance.look(store).await.unwrap();
        assert_eq!(world.send(&ask("hi")).await.status, status);
    }
    world.finish().await;
    // The verb does the same, and yields to the environment.
    let upstream = Upstream::start().await;
    let mint = crate::support::mint::TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(2_000).await;
    let mut node = ChildNode::start(&mint.url(), &upstream, &[]).await;
    let token = purse.send(1_500).await;
    let status = async || node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap().status().as_u16();
    assert_eq!(status().await, 200);
    for (word, expected) in [("on", 503), ("off", 200)] {
        let outcome = node.verb(&["maintenance", word]).await;
        assert_eq!(outcome.code, 0, "{outcome:?}");
        until(&format!("maintenance is {word}"), async || status().await == expected).await;
    }
    let outcome = node.verb_with("MAINTENANCE", "false", &["maintenance", "on"]).await;
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.complained.contains("the environment wins"), "{outcome:?}");
    node.stop().await;
    let (served, books) = (i64::try_from(upstream.seen().len()).unwrap(), node.db.books().await);
    assert_eq!((books.earnings, books.open_holds), (served * 2_000, 0));
    assert_eq!(books.liabilities + books.earnings, 1_500_000);
    node.db.remove().await;
}
