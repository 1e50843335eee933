//! Paid routes: one handler for every dialect.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, TE, TRAILER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response};
use futures_util::Stream;
use http_body::Frame;
use tokio::time::Instant;

use super::envelope::{self, Asked};
use super::headers::Writer;
use super::{Node, envelope_of, headers, idempotency, watch};
use crate::dialect::{self, Dialect, Protocol, Receipt};
use crate::exchange::{Aborted, Call, Delivery, Out, Reply, Sent, Served, Timing, Whole};
use crate::failure::{Code, Failure, Funds};
use crate::payment::{self, Credentials};
use crate::telemetry::Link;
use crate::wallet::Change;

/// Headers that an answer has room for from the start.
const USUAL_HEADERS: usize = 16;

/// What the answer to a request depends on beside its outcome.
#[derive(Clone, Debug)]
pub(super) struct Asks {
    /// Whose envelope failures come in.
    envelope: Protocol,
    pub request_id: String,
    /// The token that rode on the request.
    one_shot: Option<String>,
    accepts_cashu: bool,
    trailers: bool,
    began: Instant,
}

/// Where a request goes: a dialect, and the model where the path names it.
#[derive(Clone, Debug)]
pub struct Target {
    pub dialect: &'static dyn Dialect,
    pub model: Option<String>,
}

impl Target {
    /// `{model}:{method}`, as it stands behind `models/`.
    pub fn of_a_model(rest: &str) -> Option<Self> {
        let (model, method) = rest.rsplit_once(':')?;
        Some(Self { dialect: dialect::for_method(method)?, model: Some(model.to_owned()) })
    }
}

/// Serves one request of a dialect.
pub async fn serve(State(node): State<Node>, target: Target, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let protocol = target.dialect.protocol();
    let asks = Asks {
        envelope: envelope_of(protocol, &parts.headers),
        request_id: watch::id(),
        one_shot: headers::text(&parts.headers, headers::X_CASHU).map(|token| token.trim().to_owned()),
        accepts_cashu: accepts_cashu(&parts.headers),
        trailers: wants_trailers(&parts.headers),
        began: Instant::now(),
    };
    let client_id = headers::client_id(&parts.headers);
    let mut key = None;
    let outcome = answer(&node, target, &parts, body, &asks, &mut key).await;
    let mut response = outcome.unwrap_or_else(|failure| refuse(&node, &failure, &asks));
    let out = response.headers_mut();
    if let Some(key) = key {
        let now_ms = node.exchange.ledger.clock().now_ms();
        headers::put_allowances(out, &node.exchange.throttle.allowances(&key, protocol), protocol, now_ms);
    }
    if !out.contains_key(headers::SERVER_TIMING) {
        Writer::new(out).put_timing(&Timing::default(), Some(asks.began.elapsed()));
    }
    if let Some(id) = client_id {
        out.insert(headers::CLIENT_REQUEST_ID, id);
    }
    response
}

/// A failure as this client can read it.
pub(super) fn refuse(node: &Node, failure: &Failure, asks: &Asks) -> Response<Body> {
    let payment = failure.payment.as_deref();
    let payment_request = payment.and_then(|hint| node.exchange.till.ask_for(hint.required).ok());
    let one_shot = asks.one_shot.as_deref().filter(|token| !token.is_empty());
    let (protocol, request_id) = (asks.envelope, asks.request_id.as_str());
    let pays_ecash = asks.one_shot.is_some() || asks.accepts_cashu;
    envelope::render(failure, &Asked { protocol, request_id, one_shot, payment_request, pays_ecash })
}

async fn answer(
    node: &Node,
    Target { dialect, model }: Target,
    parts: &Parts,
    body: Body,
    asks: &Asks,
    limited: &mut Option<String>,
) -> Result<Response<Body>, Failure> {
    let read = read_call(node, Target { dialect, model }, parts, body, asks, limited).await;
    let (call, key) = read.inspect_err(|failure| node.exchange.refused(dialect, failure))?;
    match key {
        None => run(node, call, asks).await,
        Some(key) => Box::pin(idempotency::serve(node, call, key, asks)).await,
    }
}

/// The request as it is served, and its `Idempotency-Key`.
async fn read_call<'a>(
    node: &Node,
    Target { dialect, model }: Target,
    parts: &'a Parts,
    body: Body,
    asks: &Asks,
    limited: &mut Option<String>,
) -> Result<(Call, Option<&'a str>), Failure> {
    let headers = &parts.headers;
    check_sold(node, dialect)?;
    if headers::asks_for_websocket(headers) {
        return Err(Failure::client(Code::UpgradeRequired, "This node speaks HTTP only."));
    }
    let query = Query::of(parts, dialect.protocol())?;
    let key = idempotency::key(headers)?;
    let till = &node.exchange.till;
    let credentials = Credentials { query_key: query.key.as_deref(), ..credentials(headers)? };
    let payment = payment::read(credentials, |id| till.remembers(id))?;
    *limited = node.exchange.throttle.key_of(&payment).map(str::to_owned);
    let expiry = payment::expiry::read(credentials, &payment)?;
    till.check_mint(&payment).await?;
    // Before its body takes room, and before its allowance is counted: keys are easily invented.
    let known = till.check_key(&payment).await;
    let source = known.inspect_err(|failure| node.exchange.count_payment(payment.method(), Some(failure)))?;
    let body = node.spool.read(headers, body, source.is_some()).await?;
    let sent = Sent {
        model,
        wants_events: query.wants_events,
        media: headers::text(headers, CONTENT_TYPE).unwrap_or_default().to_owned(),
        body,
        headers: dialect.headers(&|name| headers::all(headers, name)),
    };
    let call = Call {
        dialect,
        sent,
        payment,
        source,
        expiry,
        change_in_stream: headers::text(headers, headers::X_CASHU_CHANGE)
            .is_some_and(|mode| mode.trim().eq_ignore_ascii_case("stream")),
        request_id: asks.request_id.clone(),
        conversation: headers::conversation(headers).map(str::to_owned),
        model_path: headers::model_path(headers),
        link: node
            .exchange
            .traces
            .as_ref()
            .and_then(|_| headers::text(headers, headers::TRACEPARENT))
            .and_then(Link::parse),
        once: None,
    };
    Ok((call, key))
}

/// Refuses endpoints of whose vendor the operator sells none.
pub(super) fn check_sold(node: &Node, dialect: &dyn Dialect) -> Result<(), Failure> {
    if node.exchange.settings.now().server.protocols.contains(&dialect.protocol()) {
        return Ok(());
    }
    Err(Failure::client(Code::UnsupportedPath, "The operator of this node does not sell these endpoints."))
}

/// What is read of a query, at Google's routes alone.
#[derive(Default)]
struct Query {
    key: Option<String>,
    wants_events: bool,
}

impl Query {
    fn of(parts: &Parts, protocol: Protocol) -> Result<Self, Failure> {
        let mut found = Self::default();
        if protocol != Protocol::Gemini {
            return Ok(found);
        }
        for (name, value) in url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            match name.as_ref() {
                "key" if found.key.as_ref().is_some_and(|key| *key != value) => {
                    return Err(Failure::client(Code::InvalidRequest, "The query carries two different keys."));
                }
                "key" => found.key = Some(value.into_owned()),
                "alt" => found.wants_events = value == "sse",
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Serves a request in a task of its own: whatever the client does, one that was admitted is
/// finished.
pub(super) async fn run(node: &Node, call: Call, asks: &Asks) -> Result<Response<Body>, Failure> {
    let dialect = call.dialect;
    // On the heap: a task is moved several times before it runs, and its result again.
    let work = Box::pin(Arc::clone(&node.exchange).serve(call));
    let serving = node.exchange.tracker.spawn(watch::carried(work));
    let reply = serving.await.map_err(|error| lost(node, dialect, &error, asks))?;
    Ok(respond(reply?, asks))
}

/// The task of a request did not end well. A token may have been redeemed before that: it must not
/// be called untouched.
pub(super) fn lost(node: &Node, dialect: &dyn Dialect, error: &tokio::task::JoinError, asks: &Asks) -> Failure {
    tracing::error!(%error, request = %asks.request_id, "a request's task failed");
    let failure = Failure::internal().funds(Funds::Claimable);
    node.exchange.refused(dialect, &failure);
    failure
}

/// A success as a response.
pub(super) fn respond(reply: Reply, asks: &Asks) -> Response<Body> {
    match reply {
        Reply::Whole(whole) => whole_response(*whole, asks),
        Reply::Stream(delivery) => stream_response(*delivery, asks),
    }
}

/// Reads the payment headers. Header values that are not text are no credentials.
pub(super) fn credentials(headers: &HeaderMap) -> Result<Credentials<'_>, Failure> {
    let unreadable = || Failure::client(Code::InvalidRequest, "A payment header is not plain text.");
    let read = |name: &axum::http::HeaderName| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(one), None) => one.to_str().map(Some).map_err(|_| unreadable()),
            _ => Err(Failure::client(Code::InvalidRequest, "A payment header was sent more than once.")),
        }
    };
    Ok(Credentials {
        authorization: read(&AUTHORIZATION)?,
        api_key: read(&headers::X_API_KEY)?,
        anthropic_key: read(&headers::X_ANTHROPIC_API_KEY)?,
        azure_key: read(&headers::API_KEY)?,
        google_key: read(&headers::X_GOOG_API_KEY)?,
        query_key: None,
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

fn whole_response(whole: Whole, asks: &Asks) -> Response<Body> {
    let mut response = Response::new(Body::from(whole.body));
    let out = response.headers_mut();
    out.reserve(USUAL_HEADERS);
    let mut writer = Writer::new(out);
    start(&mut writer, &whole.media, &asks.request_id);
    writer.put_timing(&whole.timing, Some(asks.began.elapsed()));
    bill(&mut writer, &whole.receipt);
    if let Some(change) = &whole.change {
        headers::put(out, headers::SHOULD_RETRY, "false");
        if let Change::Token { token, .. } = change {
            headers::put(out, headers::X_CASHU, token);
        }
    }
    response
}

fn stream_response(delivery: Delivery, asks: &Asks) -> Response<Body> {
    let (trailers, media, timing) = (asks.trailers, delivery.media(), delivery.timing());
    let head = stream_head(media, &asks.request_id, delivery.served());
    let mut response = Response::new(Body::new(Streamed { delivery, trailers, trailer: None, ended: false }));
    *response.headers_mut() = head;
    Writer::new(response.headers_mut()).put_timing(&timing, None);
    if trailers {
        response.headers_mut().insert(TRAILER, HeaderValue::from_static("x-cashu"));
    }
    response
}

/// The headers of a live stream.
pub(super) fn stream_head(media: &str, request_id: &str, served: &Served) -> HeaderMap {
    let mut out = HeaderMap::new();
    let mut writer = Writer::new(&mut out);
    start(&mut writer, media, request_id);
    writer.put_served(&served.model, served.btc_usd);
    headers::put(&mut out, headers::ACCEL_BUFFERING, "no");
    out
}

fn start(out: &mut Writer<'_>, media: &str, request_id: &str) {
    out.put(CONTENT_TYPE, media);
    out.put(CACHE_CONTROL, "no-cache");
    out.put_request_id(request_id);
}

fn bill(out: &mut Writer<'_>, receipt: &Receipt) {
    let cost = &receipt.cost;
    let input =
        [cost.input, cost.cache_read, cost.cache_write].iter().fold(0_u64, |sum, part| sum.saturating_add(part.get()));
    out.put(headers::COST_MSATS, cost.total.get());
    out.put(headers::INPUT_COST_MSATS, input);
    out.put(headers::OUTPUT_COST_MSATS, cost.output.get());
    if let Some(usd) = cost.usd {
        out.put(headers::COST_USD, usd);
    }
    if let Some(remaining) = receipt.remaining {
        out.put(headers::BALANCE_MSATS, remaining.get());
    }
    out.put(headers::PROVIDER, &receipt.provider);
    out.put_served(&receipt.model, receipt.btc_usd);
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
