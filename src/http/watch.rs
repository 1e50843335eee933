//! Around every request: its id, which each line of the log carries that the request causes, and the count of what
//! routes answer that nobody pays for. Paid ones are counted where a request ends.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response};
use axum::middleware::{Next, from_fn_with_state};
use tracing::{Instrument as _, Span};

use super::Router;
use super::headers::{REQUEST_ID, Writer};
use crate::dialect;
use crate::exchange::Exchange;

tokio::task_local! {
    static ID: String;
}

/// These routes, watched.
pub fn watched(routes: Router, exchange: &Arc<Exchange>) -> Router {
    routes.layer(from_fn_with_state(Arc::clone(exchange), watch))
}

async fn watch(State(exchange): State<Arc<Exchange>>, request: Request, next: Next) -> Response<Body> {
    let now_ms = u64::try_from(exchange.ledger.clock().now_ms()).unwrap_or_default();
    // Ids sort by time, so the index over them grows at its end.
    let id = uuid::Builder::from_unix_timestamp_millis(now_ms, &rand::random()).into_uuid().to_string();
    // At the level of errors: whatever is logged at all has it.
    let span = tracing::error_span!("request", id);
    // Those that are paid for say it themselves.
    let unpaid = (!is_paid(&request)).then(|| (request.uri().clone(), id.clone()));
    let mut response = ID.scope(id, next.run(request)).instrument(span).await;
    if let Some((address, id)) = unpaid {
        exchange.metrics.routes.answered(address.path(), response.status().as_u16());
        let out = response.headers_mut();
        // Clients quote it to the operator, who needs none to quote.
        if !address.path().starts_with("/admin") && !out.contains_key(REQUEST_ID) {
            Writer::new(out).put_request_id(&id);
        }
    }
    response
}

/// The id of the request that is being answered.
pub(super) fn id() -> String {
    ID.try_with(Clone::clone).unwrap_or_else(|_| uuid::Uuid::new_v4().to_string())
}

/// Work for another task, which is this request's all the same.
pub(super) fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let (id, span) = (id(), Span::current());
    ID.scope(id, work).instrument(span)
}

fn is_paid(request: &Request) -> bool {
    if request.method() != Method::POST {
        return false;
    }
    let path = request.uri().path();
    let path = path.strip_prefix("/v1beta/").or_else(|| path.strip_prefix("/v1/")).unwrap_or(path);
    let path = path.trim_start_matches('/');
    path.starts_with("models/") || dialect::REGISTRY.iter().any(|dialect| dialect.path() == path)
}
