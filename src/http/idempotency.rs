//! `Idempotency-Key`: the same request again gets the same answer, and is paid once.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::Value;

use super::proxy::{self, Asks};
use super::{Node, balance, headers, watch};
use crate::exchange::{Asked, Call, Head, Kept, Once, Reply, Served};
use crate::failure::{Code, Failure};
use crate::payment;

/// Longest key.
const MAX_KEY: usize = 255;

/// The key, if the client sent one.
///
/// # Errors
/// When it is not 1 to 255 visible ASCII characters, or there are two.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<&str>, Failure> {
    let bad = || {
        let message = format!("An Idempotency-Key has 1 to {MAX_KEY} visible ASCII characters, and is sent once.");
        Failure::client(Code::InvalidRequest, message)
    };
    let mut found = headers.get_all(headers::IDEMPOTENCY_KEY).iter();
    let Some(key) = found.next() else { return Ok(None) };
    let key = key.to_str().map_err(|_| bad())?;
    let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if found.next().is_some() || !visible || key.is_empty() || key.len() > MAX_KEY {
        return Err(bad());
    }
    Ok(Some(key))
}

/// Serves a request with a key: from what was kept, or once.
pub(super) async fn serve(node: &Node, call: Call, key: &str, asks: &Asks) -> Result<Response<Body>, Failure> {
    let target = call.target();
    let asked =
        Asked { payment: &call.payment, key, path: &target, body: &call.sent.body, request_id: &call.request_id };
    let (media, request_id) = (call.stream_media(), asks.request_id.clone());
    let head = move |served: &Served| head_of(StatusCode::OK, &proxy::stream_head(media, &request_id, served));
    let Some(once) = node.exchange.replays.once(asked, Box::new(head)) else {
        return proxy::run(node, call, asks).await;
    };
    let dialect = call.dialect;
    if let Some(kept) = once.recall().await.inspect_err(|failure| node.exchange.refused(dialect, failure))? {
        node.exchange.replayed(dialect);
        return Ok(again(kept));
    }
    let once = Arc::new(once);
    let call = Call { once: Some(Arc::clone(&once)), ..call };
    let (exchange, work) = (Arc::clone(&node.exchange), (node.clone(), asks.clone()));
    // What is kept is kept in the task: the client may be gone.
    let serving = exchange.tracker.spawn(watch::carried(async move {
        let (node, asks) = work;
        match Arc::clone(&node.exchange).serve(call).await {
            // Its pump keeps it.
            Ok(reply @ Reply::Stream(_)) => proxy::respond(reply, &asks),
            Ok(reply) => keep(&once, proxy::respond(reply, &asks)).await,
            Err(failure) if failure.took_a_token() => keep(&once, proxy::refuse(&node, &failure, &asks)).await,
            Err(failure) => {
                once.forget().await;
                proxy::refuse(&node, &failure, &asks)
            }
        }
    }));
    serving.await.map_err(|error| proxy::lost(node, dialect, &error, asks))
}

/// Runs a call of the balance API that answers with JSON: from what was kept, or once. `work` gets a
/// name that is the same for every repeat, also one that a crash made necessary.
pub(super) async fn once<F>(
    node: &Node,
    asked: Asked<'_>,
    work: impl FnOnce(String) -> F,
) -> Result<Response<Body>, Failure>
where
    F: Future<Output = Result<Value, Failure>> + Send + 'static,
{
    node.exchange.till.check_key(asked.payment).await?;
    let Some(once) = node.exchange.replays.once(asked, Box::new(|_| Head::default())) else {
        return Err(payment::unauthorized());
    };
    if let Some(kept) = once.recall().await? {
        return Ok(again(kept));
    }
    once.claim().await?;
    let work = work(once.name());
    let serving = node.exchange.tracker.spawn(watch::carried(async move {
        match work.await {
            Ok(value) => keep(&once, balance::respond(Ok(value))).await,
            Err(failure) => {
                once.forget().await;
                balance::respond(Err(failure))
            }
        }
    }));
    serving.await.map_err(|error| {
        tracing::error!(%error, "a balance request's task failed");
        Failure::internal()
    })
}

/// Keeps a whole response, and gives it on.
async fn keep(once: &Once, response: Response<Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    // It is in memory already.
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_else(|_| Bytes::new());
    once.keep(&Kept { head: head_of(parts.status, &parts.headers), body: body.clone() }).await;
    Response::from_parts(parts, Body::from(body))
}

fn head_of(status: StatusCode, map: &HeaderMap) -> Head {
    // How long it took is another matter each time.
    let lasting = map.iter().filter(|(name, _)| **name != headers::SERVER_TIMING);
    let pairs = lasting.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
    Head { status: status.as_u16(), headers: pairs.collect() }
}

fn again(kept: Kept) -> Response<Body> {
    let mut response = Response::new(Body::from(kept.body));
    *response.status_mut() = StatusCode::from_u16(kept.head.status).unwrap_or(StatusCode::OK);
    let out = response.headers_mut();
    for (name, value) in &kept.head.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value)) {
            out.append(name, value);
        }
    }
    headers::put(out, headers::IDEMPOTENT_REPLAYED, "true");
    response
}
