//! `GET /v1/models/paths`: by which ways each model is reached, as this network's clients read it.
//!
//! There an entry says which upstream it is. Here it says no more than its kind: one way for each kind of
//! upstream that serves the model, and an address that is nobody's, as for upstreams that are private.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use serde_json::{Value, json};

use super::refusals::Refusals;
use super::{Node, balance, shapes};
use crate::failure::{Code, Failure};
use crate::http::extract::Query;

/// All models.
#[utoipa::path(get, path = "/v1/models/paths", tag = "node", summary = "By which ways each model is reached", responses((status = 200, body = shapes::Paths)), security(()))]
pub async fn list(State(node): State<Node>) -> Response<Body> {
    let market = &node.exchange.market;
    let entry = |(id, kinds): (String, Vec<&'static str>)| json!({ "id": id, "paths": paths(&node, &id, &kinds) });
    let data: Vec<Value> = market.reached(&node.exchange.pool).into_iter().map(entry).collect();
    balance::respond(Ok(json!({ "data": data, "updated_at": now_secs(&node) })))
}

/// The model that the query names as `model_id`.
#[utoipa::path(get, path = "/v1/models/paths/model", tag = "node", summary = "By which ways a model is reached", params(("model_id" = Option<String>, Query)), responses((status = 200, body = shapes::Paths), Refusals), security(()))]
pub async fn one(State(node): State<Node>, Query(query): Query<BTreeMap<String, String>>) -> Response<Body> {
    let market = &node.exchange.market;
    let wanted = query.get("model_id").and_then(|name| market.canonical(name));
    let found = market.reached(&node.exchange.pool).into_iter().find(|(id, _)| wanted.as_ref() == Some(id));
    balance::respond(match found {
        Some((id, kinds)) => Ok(json!({ "data": paths(&node, &id, &kinds), "updated_at": now_secs(&node) })),
        None => Err(Failure::client(Code::NotFound, "Model not found")),
    })
}

fn paths(node: &Node, id: &str, kinds: &[&'static str]) -> Vec<Value> {
    let all = node.exchange.pool.kinds();
    let path = |kind: &&'static str| {
        let number = all.iter().position(|known| known == kind).unwrap_or(0).saturating_add(1);
        let mut path = url::form_urlencoded::Serializer::new(String::new());
        path.append_pair("url", "http://localhost");
        path.append_pair("provider-id", &number.to_string()).append_pair("model-id", id);
        json!({
            "path": path.finish(),
            "provider": { "id": number, "slug": kind, "type": kind },
            "endpoint": null,
        })
    };
    kinds.iter().map(path).collect()
}

fn now_secs(node: &Node) -> i64 {
    node.exchange.ledger.clock().now_ms().div_euclid(1000)
}
