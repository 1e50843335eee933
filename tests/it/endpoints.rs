//! Every endpoint through the front door: what is forwarded, what is charged, and that no more is
//! charged than was held.

mod anthropic;
mod gemini;
mod left;
mod media;
mod models;
mod openai;
mod quotes;
mod responses;
mod searching;
mod services;
mod unpriced;
mod uploads;
mod walls;

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::bearer::world;
use crate::support::mint::TestMint;
use crate::support::node::TestNode;
use crate::support::purse::Purse;
use crate::support::reckon::{reckon, sheets};
use crate::support::upstream::Upstream;

/// A node, and a key with money on it.
struct World {
    _mint: TestMint,
    purse: Purse,
    upstream: Upstream,
    node: TestNode,
    key: String,
}

/// What came back of a request that was charged.
struct Charged {
    body: String,
    media: String,
    msat: u64,
}

impl Charged {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    /// The objects of a stream.
    fn events(&self) -> Vec<Value> {
        assert_eq!(self.media, "text/event-stream; charset=utf-8", "{}", self.body);
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| panic!("not JSON: {data}"))).collect()
    }
}

async fn start() -> World {
    let (mint, purse, upstream, node) = world(20_000).await;
    let key = purse.send(5_000).await;
    World { _mint: mint, purse, upstream, node, key }
}

impl World {
    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.node.post(path).json(body).bearer_auth(&self.key)
    }

    /// Sends a request, and checks that the bill is the same wherever it is told: on the key, in the
    /// header of a whole answer, and in the receipt, which also says that the hold was enough.
    async fn charged(&self, what: &str, request: RequestBuilder) -> Charged {
        let before = self.spent().await;
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let headers = answer.headers().clone();
        let body = answer.text().await.unwrap();
        assert_eq!(status, 200, "{what}: {body}");
        let msat = self.spent().await - before;
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        if let Some(told) = text("x-routstr-cost-msats") {
            assert_eq!(told, msat.to_string(), "{what}");
        }
        let id = text("x-routstr-request-id").expect("a request id");
        let receipt = self.node.get(&format!("/v1/receipts/{id}")).bearer_auth(&self.key).send().await.unwrap();
        let receipt: Value = receipt.json().await.unwrap();
        let receipt = &receipt["receipt"];
        assert_eq!(receipt["charged_msat"], json!(msat), "{what}: {receipt}");
        assert!(receipt["held_msat"].as_u64().unwrap() >= msat, "{what}: {receipt}");
        assert_eq!(receipt["shortfall_msat"], Value::Null, "{what}: more was used than was held: {receipt}");
        let (price, rate) = sheets(&self.node, receipt).await;
        assert_eq!(reckon(receipt, &price, &rate), msat, "{what}: reckoned again: {receipt} {price}");
        Charged { body, media: text("content-type").unwrap_or_default(), msat }
    }

    /// Sends a request that is refused, and checks that it cost nothing and that nobody was asked.
    async fn refused(&self, what: &str, request: RequestBuilder, status: u16) -> Value {
        let (before, seen) = (self.spent().await, self.upstream.seen().len());
        let answer = request.send().await.unwrap();
        let got = answer.status();
        let body = answer.text().await.unwrap();
        assert_eq!(got, status, "{what}: {body}");
        assert_eq!((self.spent().await, self.upstream.seen().len()), (before, seen), "{what}");
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("{what}: not JSON: {body}"))
    }

    async fn spent(&self) -> u64 {
        // Before it was used the first time there is no key.
        let info = self.node.get("/v1/wallet/info").bearer_auth(&self.key).send().await.unwrap();
        let info: Value = info.json().await.unwrap();
        info["total_spent"].as_u64().unwrap_or_default()
    }

    fn next(&self, body: &Value) {
        self.upstream.next(crate::support::endpoints::answer(body));
    }

    fn next_events(&self, events: &[Value]) {
        self.upstream.next(crate::support::endpoints::events(events));
    }

    async fn finish(self) {
        self.node.finish().await;
    }
}

/// An object with further members.
fn with(mut object: Value, more: Value) -> Value {
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}
