//! `GET /v1/models/paths`: by which ways each model is reached ([`ModelPath`]), as this network's clients read it.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use serde_json::{Value, json};

use super::refusals::Refusals;
use super::{Node, balance, shapes};
use crate::failure::{Code, Failure};
use crate::http::extract::Query;
use crate::upstream::ModelPath;

/// All models.
#[utoipa::path(get, path = "/v1/models/paths", tag = "node", summary = "By which ways each model is reached", responses((status = 200, body = shapes::Paths)), security(()))]
pub async fn list(State(node): State<Node>) -> Response<Body> {
    let market = &node.exchange.market;
    let entry = |(id, ways): (String, Vec<ModelPath>)| json!({ "id": id, "paths": shown(&ways) });
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
        Some((_, ways)) => Ok(json!({ "data": shown(&ways), "updated_at": now_secs(&node) })),
        None => Err(Failure::client(Code::NotFound, "Model not found")),
    })
}

fn shown(ways: &[ModelPath]) -> Vec<Value> {
    let shown = |way: &ModelPath| {
        json!({
            "path": way.path,
            "provider": { "id": way.number, "slug": way.kind, "type": way.kind },
            "endpoint": null,
        })
    };
    ways.iter().map(shown).collect()
}

fn now_secs(node: &Node) -> i64 {
    node.exchange.ledger.clock().now_ms().div_euclid(1000)
}
