//! `GET /` and `GET /v1/info`: what this node is.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::{Node, shapes};

/// `GET /v1/info`
#[utoipa::path(get, path = "/v1/info", tag = "node", summary = "What this node is", responses((status = 200, body = shapes::Info)), security(()))]
pub async fn info(State(node): State<Node>) -> Json<Value> {
    Json(Value::Object(about(&node)))
}

/// `GET /` for programs: everything of `/v1/info`, the models, and the names that the network's
/// first release used.
pub async fn root(State(node): State<Node>) -> Json<Value> {
    let mut about = about(&node);
    about.insert("mint".into(), json!(node.exchange.till.wallet().mints().first()));
    about.insert("models".into(), node.price_list().get("data").cloned().unwrap_or_else(|| json!([])));
    about.insert("status".into(), json!("running"));
    about.insert("ui".into(), json!("not available"));
    Json(Value::Object(about))
}

fn about(node: &Node) -> Map<String, Value> {
    let info = node.info();
    let wallet = node.exchange.till.wallet();
    let mut about = Map::new();
    about.insert("name".into(), json!(info.name));
    about.insert("description".into(), json!(info.description));
    about.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
    about.insert("npub".into(), json!(info.npub));
    about.insert("receipt_pubkey".into(), json!(node.exchange.identity.pubkey()));
    about.insert("mints".into(), json!(wallet.mints()));
    about.insert("http_url".into(), json!(info.http_url));
    about.insert("onion_url".into(), json!(node.onion.url()));
    about.insert("child_key_cost_msats".into(), json!(node.exchange.till.child_key_cost().get()));
    about.insert("accepts_new_tokens".into(), json!(node.exchange.till.takes_money()));
    about.insert("software".into(), json!("coinslot"));
    about.insert("unit".into(), json!(wallet.unit().as_str()));
    about
}
