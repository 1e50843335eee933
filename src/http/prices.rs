//! `GET /v1/prices/{id}`: the numbers that a request was charged by. Its receipt names two such ids.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::{HeaderValue, Response};

use super::Node;
use super::envelope::{self, Asked};
use super::refusals::Refusals;
use crate::failure::{Code, Failure};
use crate::http::extract::Path;
use crate::ledger::sheets;

/// The text whose hash the id is. It never changes.
#[utoipa::path(get, path = "/v1/prices/{id}", tag = "node", summary = "The numbers that requests were charged by", params(("id" = String, Path, description = "As a receipt has it")), responses((status = 200, description = "The text whose hash the id is", body = Object), Refusals), security(()))]
pub async fn one(State(node): State<Node>, Path(id): Path<String>) -> Response<Body> {
    let found = find(&node, &id).await;
    let is_found = found.is_ok();
    let mut response = envelope::answer(found, &Asked { request_id: &super::watch::id(), ..Asked::default() });
    if is_found {
        let out = response.headers_mut();
        out.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{id}\"")) {
            out.insert(ETAG, tag);
        }
    }
    response
}

async fn find(node: &Node, id: &str) -> Result<String, Failure> {
    let unknown = || Failure::client(Code::NotFound, "No request was charged by prices of this id.");
    if !sheets::is_id(id) {
        return Err(unknown());
    }
    let found = node.exchange.ledger.sheet(id).await.map_err(|error| {
        tracing::error!(%error, "prices could not be looked up");
        Failure::internal()
    })?;
    found.ok_or_else(unknown)
}
