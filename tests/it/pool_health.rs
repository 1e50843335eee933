//! What is held against an upstream: a connection that did not come about.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::pool::{World, entry};
use crate::support::node::{ask, ask_streaming};
use crate::support::proxy::Proxy;
use crate::support::upstream::Upstream;

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
