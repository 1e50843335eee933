//! What other nodes charge for the same models, as the operator sees it.

use axum::Router;
use axum::routing::get;
use nostr::{EventBuilder, Keys, Kind, Tag};
use serde_json::{Value, json};

use crate::price_sync::Browser;
use crate::support::answers::until;
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, TestNode};
use crate::support::relay::RealRelay;
use crate::support::upstream::Upstream;

/// A node of the network with this list of models, and its listing.
async fn node(relay: &RealRelay, models: String) -> String {
    let info = async || r#"{"name":"n","mints":[]}"#;
    let router = Router::new().route("/v1/info", get(info)).route("/v1/models", get(async move || models.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let tags = [["d", "x"], ["u", url.as_str()]].map(|tag| Tag::parse(tag).unwrap());
    let event = EventBuilder::new(Kind::from_u16(38421), r#"{"name":"n"}"#).tags(tags);
    relay.put(&event.sign_with_keys(&Keys::generate()).unwrap()).await;
    url
}

fn list(entries: &[(&str, f64, f64)]) -> String {
    let entry = |(id, prompt, completion): &(&str, f64, f64)| json!({ "id": id, "name": "<b>", "sats_pricing": { "prompt": prompt, "completion": completion, "request": 0.001 } });
    json!({ "data": entries.iter().map(entry).collect::<Vec<Value>>() }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_what_others_charge_for_the_same_models() {
    let relay = RealRelay::start().await;
    // The node under test takes 0.01 sat for a token of MODEL that is sent, 0.02 for one that is received.
    let bare = MODEL.rsplit_once('/').unwrap().1;
    let cheap = node(&relay, list(&[(bare, 0.005, 1e-2), ("nobody/else", 1.0, 1.0)])).await;
    let dear = node(&relay, list(&[(MODEL, 0.05, 0.05), ("toy/cached", 0.01, 0.02), ("toy/cheap", -1.0, 1.0)])).await;
    let long = node(&relay, format!("{{\"data\":[],\"x\":\"{}\"}}", "x".repeat(5 * 1024 * 1024))).await;
    let none = node(&relay, "<html>".to_owned()).await;
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let node = TestNode::with(&mint, &upstream, &[("RELAYS", &relay.url())]).await;
    let browser = Browser::log_in(&node).await;
    let page = async || browser.page_at("/admin/network").await;
    let sees = async |said: &str| until(said, async || page().await.contains(said)).await;
    sees(&format!("{none}: its list of models cannot be read")).await;
    sees(&format!("{long}: the answer is longer than 4194304 bytes")).await;
    sees(&format!("<td class=\"wide\">{cheap}</td>")).await;
    sees(&format!("<td class=\"wide\">{dear}</td>")).await;
    let page = page().await;
    let row = |model: &str| {
        let start = page.find(&format!("<tr><th scope=\"row\" class=\"wide\">{model}</th>")).unwrap();
        let row = &page[start..];
        row[..row.find("</tr>").unwrap()].to_owned()
    };
    let both = row(MODEL);
    for cell in ["10,000.000 / 20,000.000", "5,000.000 / 10,000.000", &cheap, "2 of 3", "+100 %"] {
        assert!(both.contains(cell), "{cell}: {both}");
    }
    assert!(row("toy/cached").contains("1 of 2") && row("toy/cached").contains("0 %"), "{}", row("toy/cached"));
    for hidden in ["nobody/else", "toy/cheap</th>", "<b>"] {
        assert!(!page.contains(hidden), "{hidden} is in {page}");
    }
    node.finish().await;
}
