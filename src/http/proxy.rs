//! Paid routes: one handler for every dialect.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TE, TRAILER};
use axum::http::{HeaderMap, HeaderValue, Response};
use futures_util::Stream;
use http_body::Frame;

use super::envelope::{self, Asked};
use super::{Node, headers};
use crate::dialect::Dialect;
use crate::dialect::Receipt;
use crate::exchange::{Aborted, Call, Delivery, Out, Reply, Whole};
use crate::failure::{Code, Failure, Funds};
use crate::payment::{self, Credentials};
use crate::wallet::Change;

/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// Serves one request of a dialect.
pub async fn serve(State(node): State<Node>, dialect: &'static dyn Dialect, request: Request) -> Response<Body> {
    let request_id = uuid::Uuid::new_v4().to_string();
    let (parts, body) = request.into_parts();
    let one_shot = headers::text(&parts.headers, headers::X_CASHU).map(|token| token.trim().to_owned());
    let outcome = answer(&node, dialect, &parts.headers, body, &request_id).await;
    outcome.unwrap_or_else(|failure| {
        let asks = one_shot.is_some() || accepts_cashu(&parts.headers);
        let payment_request =
            failure.payment.as_deref().filter(|_| asks).map(|hint| node.exchange.till.wallet().request(hint.required));
        let one_shot = one_shot.as_deref().filter(|token| !token.is_empty());
        envelope::render(&failure, &Asked { request_id: &request_id, one_shot, payment_request })
    })
}

async fn answer(
    node: &Node,
    dialect: &'static dyn Dialect,
    headers: &HeaderMap,
    body: Body,
    request_id: &str,
) -> Result<Response<Body>, Failure> {
    if headers::asks_for_websocket(headers) {
        return Err(Failure::client(Code::UpgradeRequired, "This node speaks HTTP only."));
    }
    let till = &node.exchange.till;
    let credentials = credentials(headers)?;
    let payment = payment::read(credentials, |id| till.remembers(id))?;
    let expiry = payment::expiry::read(credentials, &payment)?;
    till.check_mint(&payment).await?;
    let body = read_body(headers, body, node.max_body_bytes).await?;
    let call = Call {
        dialect,
        body,
        payment,
        expiry,
        change_in_stream: headers::text(headers, headers::X_CASHU_CHANGE)
            .is_some_and(|mode| mode.trim().eq_ignore_ascii_case("stream")),
        request_id: request_id.to_owned(),
    };
    // In a task of its own: whatever the client does, a request that was admitted is finished.
    let serving = node.exchange.tracker.spawn(Arc::clone(&node.exchange).serve(call));
    let reply = match serving.await {
        Ok(reply) => reply?,
        Err(error) => {
            // A token may have been redeemed before that: it must not be called untouched.
            tracing::error!(%error, request = request_id, "a request's task failed");
            return Err(Failure::internal().funds(Funds::Claimable));
        }
    };
    Ok(match reply {
        Reply::Whole(whole) => whole_response(whole, request_id),
        Reply::Stream(delivery) => stream_response(delivery, request_id, wants_trailers(headers)),
    })
}

/// Reads the payment headers. Header values that are not text are no credentials.
pub(super) fn credentials(headers: &HeaderMap) -> Result<Credentials<'_>, Failure> {
    let unreadable = || Failure::client(Code::InvalidRequest, "A payment header is not plain text.");
    let read = |name: &axum::http::HeaderName| match headers.get_all(name).iter().collect::<Vec<_>>()[..] {
        [] => Ok(None),
        [one] => one.to_str().map(Some).map_err(|_| unreadable()),
        _ => Err(Failure::client(Code::InvalidRequest, "A payment header was sent more than once.")),
    };
    Ok(Credentials {
        authorization: read(&AUTHORIZATION)?,
        api_key: read(&headers::X_API_KEY)?,
        cashu: read(&headers::X_CASHU)?,
        accepts_cashu: accepts_cashu(headers),
        refund_lnurl: read(&headers::REFUND_LNURL)?,
        key_expiry: read(&headers::KEY_EXPIRY_TIME)?,
    })
}

fn accepts_cashu(headers: &HeaderMap) -> bool {
    headers::text(headers, headers::ACCEPT_PAYMENT)
        .is_some_and(|accepted| accepted.split(',').any(|one| one.trim().eq_ignore_ascii_case("cashu")))
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    headers::text(headers, TE).is_some_and(|te| te.split(',').any(|one| one.trim().eq_ignore_ascii_case("trailers")))
}

pub(super) async fn read_body(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Failure> {
    let too_large =
        || Failure::client(Code::PayloadTooLarge, format!("The request body is larger than {limit} bytes."));
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Failure::client(Code::InvalidRequest, "Compressed request bodies are not taken."));
    }
    let declared = headers::text(headers, CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let cut = || Failure::client(Code::InvalidRequest, "The request body was cut short.");
    let read = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, limit)).await;
    read.map_err(|_| cut())?.map_err(|error| if is_length_limit(&error) { too_large() } else { cut() })
}

fn is_length_limit(error: &axum::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.to_string().contains("length limit exceeded") {
            return true;
        }
        source = error.source();
    }
    false
}

fn whole_response(whole: Whole, request_id: &str) -> Response<Body> {
    let media = if whole.event_stream { "text/event-stream" } else { "application/json" };
    let mut response = Response::new(Body::from(whole.body));
    let out = response.headers_mut();
    start(out, media, request_id);
    bill(out, &whole.receipt);
    if let Some(change) = &whole.change {
        headers::put(out, headers::SHOULD_RETRY, "false");
        if let Change::Token { token, .. } = change {
            headers::put(out, headers::X_CASHU, token);
        }
    }
    response
}

fn stream_response(delivery: Delivery, request_id: &str, trailers: bool) -> Response<Body> {
    let mut response = Response::new(Body::new(Streamed { delivery, trailers, trailer: None, ended: false }));
    let out = response.headers_mut();
    start(out, "text/event-stream", request_id);
    headers::put(out, headers::ACCEL_BUFFERING, "no");
    if trailers {
        out.insert(TRAILER, HeaderValue::from_static("x-cashu"));
    }
    response
}

fn start(out: &mut HeaderMap, media: &'static str, request_id: &str) {
    out.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    out.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers::put(out, headers::REQUEST_ID, request_id);
    headers::put(out, headers::X_REQUEST_ID, request_id);
}

fn bill(out: &mut HeaderMap, receipt: &Receipt) {
    let cost = &receipt.cost;
    let input =
        [cost.input, cost.cache_read, cost.cache_write].iter().fold(0_u64, |sum, part| sum.saturating_add(part.get()));
    out.insert(headers::COST_MSATS, HeaderValue::from(cost.total.get()));
    out.insert(headers::INPUT_COST_MSATS, HeaderValue::from(input));
    out.insert(headers::OUTPUT_COST_MSATS, HeaderValue::from(cost.output.get()));
    if let Some(usd) = cost.usd {
        headers::put(out, headers::COST_USD, &usd.to_string());
    }
    if let Some(remaining) = receipt.remaining {
        out.insert(headers::BALANCE_MSATS, HeaderValue::from(remaining.get()));
    }
    headers::put(out, headers::PROVIDER, &receipt.provider);
}

/// A delivery as an HTTP body: its bytes, and the change as a trailer where the client takes one.
struct Streamed {
    delivery: Delivery,
    trailers: bool,
    trailer: Option<HeaderMap>,
    ended: bool,
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            match std::task::ready!(Pin::new(&mut self.delivery).poll_next(cx)) {
                Some(Ok(Out::Data(bytes))) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Ok(Out::Settled { change, .. })) => {
                    if let (Some(Change::Token { token, .. }), true) = (change, self.trailers) {
                        let mut trailer = HeaderMap::new();
                        headers::put(&mut trailer, headers::X_CASHU, &token);
                        self.trailer = Some(trailer);
                    }
                }
                Some(Err(aborted)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(aborted)));
                }
                None => {
                    self.ended = true;
                    return Poll::Ready(self.trailer.take().map(|trailer| Ok(Frame::trailers(trailer))));
                }
            }
        }
    }
}
