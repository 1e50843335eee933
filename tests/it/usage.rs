//! `GET /v1/usage`: what is left on a key, and what it has used.

use std::time::Duration;

use coinslot::clock::Clock as _;
use serde_json::{Value, json};

use crate::pool::{Reply, World};
use crate::support::answers::ok;
use crate::support::node::ask;
use crate::support::purse::Purse;

impl World {
    async fn usage(&self, key: &str) -> Value {
        ok(self.node.get("/v1/usage").bearer_auth(key)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_has_left_and_has_used() {
    let world = World::new(&[json!({})], &[]).await;
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    world.node.settled().await;
    // 100,000 USD for a bitcoin.
    let expected = json!({
        "remaining": 998_000, "unit": "msat", "is_active": true, "total_used": 2_000, "total_requests": 1,
        "expires_at": null, "remaining_sats": 998, "remaining_usd": "0.998", "total_used_sats": 2,
        "total_used_usd": "0.002", "btc_usd": "100000",
    });
    assert_eq!(world.usage(&world.key).await, expected);
    for name in ["x-api-key", "x-anthropic-api-key", "api-key", "x-goog-api-key"] {
        assert_eq!(ok(world.node.get("/usage").header(name, &world.key)).await, expected, "{name}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_key_sees_its_limits_and_its_end() {
    let world = World::new(&[json!({})], &[]).await;
    let end = world.clock.now_ms() / 1000 + 100;
    let wanted = json!({ "count": 1, "balance_limit": 50_000, "validity_date": end });
    let made = ok(world.node.post("/v1/wallet/child-key").bearer_auth(&world.key).json(&wanted)).await;
    let child = made["api_keys"][0].as_str().unwrap();
    let mut small = ask("hi");
    small["max_tokens"] = json!(1_000);
    let reply = Reply::of(world.node.chat(&small).bearer_auth(child).send().await.unwrap()).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    world.node.settled().await;
    let usage = world.usage(child).await;
    assert_eq!(
        (&usage["remaining"], &usage["total_used"], &usage["expires_at"]),
        (&json!(48_000), &json!(2_000), &json!(end))
    );
    assert_eq!(usage["is_active"], true);
    world.clock.step(Duration::from_secs(200));
    let usage = world.usage(child).await;
    assert_eq!((&usage["is_active"], &usage["remaining"]), (&json!(false), &json!(0)));
    assert_eq!(world.usage(&world.key).await["is_active"], true);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_takes_nothing_and_a_key_is_in_no_address() {
    let world = World::new(&[json!({})], &[]).await;
    let token = world.purse.send(50).await;
    let swaps = world.mint.calls("/v1/swap");
    let usage = world.usage(&token).await;
    assert_eq!((&usage["remaining"], &usage["total_used"]), (&json!(50_000), &json!(0)));
    assert_eq!(world.mint.calls("/v1/swap"), swaps);
    assert_eq!(Purse::new(&world.mint).await.receive(&token).await.unwrap(), 50);
    let get = async |path: String| world.node.get(&path).send().await.unwrap().status().as_u16();
    assert_eq!(get("/v1/usage".to_owned()).await, 401);
    assert_eq!(get(format!("/v1/usage?key={}", world.key)).await, 401);
    assert_eq!(get(format!("/v1/usage/{}", world.key)).await, 404);
    let unknown = world.node.get("/v1/usage").bearer_auth(format!("sk-{}", "0".repeat(64))).send().await.unwrap();
    assert_eq!(unknown.status(), 401);
    world.finish().await;
}
