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

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Response};
use axum::routing::any;
use serde_json::Value;
use utoipa_axum::routes;

use super::envelope::{self, Asked};
use super::{Node, Spool, proxy, watch};
use crate::failure::{Code, Failure};
use crate::ledger::terms::Expiry;
use crate::openapi::Described;
use crate::payment::{self, Payment};

/// Longest body of these calls.
const MAX_BODY: usize = 64 * 1024;
/// Names under which they are served.
const PREFIXES: [&str; 2] = ["/v1/balance", "/v1/wallet"];

pub(super) type Answer = Result<Value, Failure>;

/// The routes of all verbs.
pub fn mount(routes: Described<Node>) -> Described<Node> {
    let at = |rest: &str| PREFIXES.map(|prefix| format!("{prefix}{rest}"));
    let bare = [at(""), at("/")].concat();
    let bare: Vec<&str> = bare.iter().map(String::as_str).collect();
    let routes = routes
        .under(routes!(info::serve), &PREFIXES, &bare)
        .under(routes!(create::serve, create::make), &PREFIXES, &[])
        .under(routes!(top_up::serve), &PREFIXES, &[])
        .under(routes!(refund::serve), &PREFIXES, &[])
        .under(routes!(history::serve), &PREFIXES, &[])
        .under(routes!(child_key::serve), &PREFIXES, &[])
        .under(routes!(reset::serve), &PREFIXES, &[])
        .under(routes!(donate::serve), &PREFIXES, &[])
        .under(routes!(voucher::serve), &PREFIXES, &[]);
    at("/{*other}").iter().fold(routes, |routes, path| routes.refusing(path, any(unknown)))
}

async fn unknown() -> Response<Body> {
    respond(Err(Failure::client(Code::NotFound, "Not found check /docs for available endpoints")))
}

/// The key that asks, and where it wants to be paid out in the end.
pub(super) fn paying(headers: &HeaderMap) -> Result<(Payment, Option<Expiry>), Failure> {
    let credentials = proxy::credentials(headers)?;
    match payment::read(credentials, |_| false)? {
        Payment::Asking => Err(payment::unauthorized()),
        payment => payment::expiry::read(credentials, &payment).map(|expiry| (payment, expiry)),
    }
}

pub(super) async fn read_json<T: Default + serde::de::DeserializeOwned>(request: Request) -> Result<T, Failure> {
    parse_json(&read_bytes(request).await?)
}

async fn read_bytes(request: Request) -> Result<Bytes, Failure> {
    let (parts, body) = request.into_parts();
    Spool::new(MAX_BODY, MAX_BODY).read(&parts.headers, body, false).await
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
    let asked = Asked { request_id: &watch::id(), ..Asked::default() };
    envelope::answer(outcome.map(|value| value.to_string()), &asked)
}
