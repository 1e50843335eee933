//! Balances: `/v1/balance/*`, and `/v1/wallet/*`, which is the same by an older name. One verb a file;
//! what they share is here.

mod child_key;
mod create;
mod donate;
mod history;
mod info;
pub(super) mod limits;
mod refund;
mod reset;
mod top_up;
mod voucher;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Response};
use axum::routing::{any, get, post};
use serde_json::Value;

use super::envelope::{self, Asked};
use super::{Node, Spool, headers, proxy, watch};
use crate::failure::{Code, Failure};
use crate::ledger::terms::Expiry;
use crate::payment::{self, Payment};

/// Longest body of these calls.
const MAX_BODY: usize = 64 * 1024;
/// Names under which they are served.
const PREFIXES: [&str; 2] = ["/v1/balance", "/v1/wallet"];

pub(super) type Answer = Result<Value, Failure>;

/// The routes of all verbs.
pub fn mount(mut router: Router<Node>) -> Router<Node> {
    for prefix in PREFIXES {
        let at = |path: &str| format!("{prefix}{path}");
        router = router
            .route(&at(""), get(info::serve))
            .route(&at("/"), get(info::serve))
            .route(&at("/info"), get(info::serve))
            .route(&at("/create"), get(create::serve).post(create::serve))
            .route(&at("/topup"), post(top_up::serve))
            .route(&at("/refund"), post(refund::serve))
            .route(&at("/history"), get(history::serve))
            .route(&at("/child-key"), post(child_key::serve))
            .route(&at("/child-key/reset"), post(reset::serve))
            .route(&at("/donate"), post(donate::serve))
            .route(&at("/voucher"), post(voucher::serve))
            .route(&at("/{*other}"), any(unknown));
    }
    router
}

async fn unknown() -> Response<Body> {
    respond(Err(Failure::client(Code::NotFound, "Not found check /docs for available endpoints")))
}

/// The key that asks, and where it wants to be paid out in the end.
pub(super) fn paying(headers: &HeaderMap) -> Result<(Payment, Option<Expiry>), Failure> {
    let credentials = proxy::credentials(headers)?;
    match payment::read(credentials, |_| false)? {
        Payment::Asking => Err(Failure::payment(Code::Unauthorized, "Unauthorized")),
        payment => payment::expiry::read(credentials, &payment).map(|expiry| (payment, expiry)),
    }
}

pub(super) async fn read_json<T: Default + serde::de::DeserializeOwned>(request: Request) -> Result<T, Failure> {
    parse_json(&read_bytes(request).await?)
}

async fn read_bytes(request: Request) -> Result<Bytes, Failure> {
    let (parts, body) = request.into_parts();
    Spool::new(MAX_BODY, MAX_BODY).read(&parts.headers, body).await
}

fn parse_json<T: Default + serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(bytes).map_err(|_| Failure::client(Code::InvalidJson, "The request body is not valid JSON."))
}

/// Runs what touches money in a task of its own: a client that hangs up does not interrupt it.
pub(crate) async fn spawn<T, F>(node: &Node, work: impl FnOnce(Node) -> F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    node.exchange.tracker.spawn(watch::carried(work(node.clone()))).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a balance request's task failed");
        Err(Failure::internal())
    })
}

pub(super) fn respond(outcome: Answer) -> Response<Body> {
    let request_id = watch::id();
    match outcome {
        Ok(value) => {
            let mut response = Response::new(Body::from(value.to_string()));
            let out = response.headers_mut();
            out.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            out.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers::put(out, headers::REQUEST_ID, &request_id);
            response
        }
        Err(failure) => envelope::render(&failure, &Asked { request_id: &request_id, ..Asked::default() }),
    }
}
