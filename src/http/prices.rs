//! `GET /v1/prices/{id}`: the numbers that a request was charged by. Its receipt names two such ids.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
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
    match find(&node, &id).await {
        Ok(content) => {
            let mut response = Response::new(Body::from(content));
            let out = response.headers_mut();
            out.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            out.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
            if let Ok(tag) = HeaderValue::from_str(&format!("\"{id}\"")) {
                out.insert(ETAG, tag);
            }
            response
        }
        Err(failure) => {
            let request_id = super::watch::id();
            envelope::render(&failure, &Asked { request_id: &request_id, ..Asked::default() })
        }
    }
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
