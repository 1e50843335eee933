//! `GET /v1/providers`: the nodes that this one knows of, as the network's directory gives them out.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::refusals::Refusals;
use super::{Node, refuse, shapes};
use crate::dialect::Protocol;
use crate::failure::{Code, Failure};
use crate::http::extract::Query;
use crate::nostr::directory::{Health, Listed};

/// Nodes in one answer.
const MOST: usize = 42;

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    include_json: String,
    #[serde(default)]
    pubkey: String,
}

/// Nobody is asked for it: what is said here was found before. In no order, so that none is first.
#[utoipa::path(get, path = "/v1/providers", tag = "node", summary = "Other nodes that this one knows of", params(("include_json" = Option<String>, Query, description = "true: with how each answered"), ("pubkey" = Option<String>, Query)), responses((status = 200, body = shapes::Providers), Refusals), security(()))]
pub(super) async fn list(State(node): State<Node>, Query(asked): Query<Asked>) -> Response {
    let Some(directory) = &node.directory else {
        return refuse(&Failure::client(Code::NotFound, "This node keeps no list of providers."), Protocol::OpenAi)
            .into_response();
    };
    let pubkey = Some(asked.pubkey.as_str()).filter(|pubkey| !pubkey.is_empty());
    if pubkey.is_some_and(|pubkey| pubkey.contains(char::is_control)) {
        let failure = Failure::client(Code::InvalidRequest, "pubkey must be 64 hexadecimal digits.");
        return refuse(&failure, Protocol::OpenAi).into_response();
    }
    let mut listed = match directory.providers(pubkey, MOST).await {
        Ok(listed) => listed,
        Err(error) => {
            tracing::error!(%error, "the list of providers cannot be read");
            return refuse(&Failure::internal(), Protocol::OpenAi).into_response();
        }
    };
    listed.sort_by_cached_key(|_| rand::random::<u64>());
    let with_health = matches!(asked.include_json.to_ascii_lowercase().as_str(), "true" | "1" | "yes");
    let providers: Vec<Value> = listed.iter().map(|listed| row(listed, with_health)).collect();
    Json(json!({ "providers": providers })).into_response()
}

fn row(listed: &Listed, with_health: bool) -> Value {
    if !with_health {
        return json!(listed.provider);
    }
    json!({ "provider": listed.provider, "health": listed.health.as_ref().map(health) })
}

/// One that did not answer is shown as the network's other directories show it.
fn health(health: &Health) -> Value {
    match health.status {
        Some(status) => json!({ "status_code": status, "endpoint": health.endpoint, "json": health.answer }),
        None => json!({ "status_code": 500, "endpoint": "error", "json": { "error": "it did not answer" } }),
    }
}
