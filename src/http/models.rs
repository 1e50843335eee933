//! `GET /v1/models`, `GET /v1/models/{id}`: the price list. Public, and made once a second at most.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Response};
use serde_json::Value;

use super::Node;
use super::envelope::{self, Asked};
use crate::failure::{Code, Failure};

/// How long a listing is served before it is made anew.
const FRESH_MS: i64 = 1000;

/// The listing as it was last made.
#[derive(Debug, Default)]
pub struct Listing {
    made: Mutex<Option<(i64, Bytes, Arc<Value>)>>,
}

impl Listing {
    fn get(&self, node: &Node) -> (Bytes, Arc<Value>) {
        let now_ms = node.exchange.ledger.clock().now_ms();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at_ms, bytes, value)) = made.as_ref()
            && now_ms.saturating_sub(*at_ms) < FRESH_MS
        {
            return (bytes.clone(), Arc::clone(value));
        }
        let value = Arc::new(node.exchange.market.listing(&node.exchange.pool));
        let bytes = Bytes::from(value.to_string());
        *made = Some((now_ms, bytes.clone(), Arc::clone(&value)));
        (bytes, value)
    }
}

/// All models.
pub async fn list(State(node): State<Node>) -> Response<Body> {
    json(Body::from(node.listing.get(&node).0))
}

/// One model, by its id or an alias. Ids may contain slashes.
pub async fn one(State(node): State<Node>, Path(id): Path<String>) -> Response<Body> {
    let (_, listing) = node.listing.get(&node);
    let id = id.trim_end_matches('/');
    let canonical = node.exchange.market.canonical(id);
    let models = listing.get("data").and_then(Value::as_array);
    let found = models
        .zip(canonical)
        .and_then(|(models, id)| models.iter().find(|model| model.get("id").and_then(Value::as_str) == Some(&id)));
    match found {
        Some(model) => json(Body::from(model.to_string())),
        None => envelope::render(&Failure::client(Code::NotFound, "Model not found"), &Asked::default()),
    }
}

fn json(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
