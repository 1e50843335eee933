//! Names of the headers that this node reads and writes.

use std::fmt::{Display, Formatter, Write as _};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::BytesMut;
use rust_decimal::Decimal;

use super::models::date_time;
use crate::dialect::Protocol;
use crate::exchange::Timing;
use crate::payment::throttle::{Allowances, Left};

pub const X_CASHU: HeaderName = HeaderName::from_static("x-cashu");
pub const X_CASHU_CHANGE: HeaderName = HeaderName::from_static("x-cashu-change");
pub const ACCEPT_PAYMENT: HeaderName = HeaderName::from_static("accept-payment");
/// By which way of `/v1/models/paths` the model is to be reached.
pub const MODEL_PATH: HeaderName = HeaderName::from_static("x-routstr-model-path");
pub const REFUND_LNURL: HeaderName = HeaderName::from_static("refund-lnurl");
pub const KEY_EXPIRY_TIME: HeaderName = HeaderName::from_static("key-expiry-time");
pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub const X_ANTHROPIC_API_KEY: HeaderName = HeaderName::from_static("x-anthropic-api-key");
pub const API_KEY: HeaderName = HeaderName::from_static("api-key");
pub const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
pub const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
/// The name under which Anthropic's clients look for the request id.
pub const BARE_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-routstr-request-id");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const COST_MSATS: HeaderName = HeaderName::from_static("x-routstr-cost-msats");
pub const COST_USD: HeaderName = HeaderName::from_static("x-routstr-cost-usd");
pub const INPUT_COST_MSATS: HeaderName = HeaderName::from_static("x-routstr-input-cost-msats");
pub const OUTPUT_COST_MSATS: HeaderName = HeaderName::from_static("x-routstr-output-cost-msats");
/// The model that served, as the price list has it.
pub const MODEL: HeaderName = HeaderName::from_static("x-routstr-model");
/// The price of one bitcoin that was used, where prices are in USD.
pub const USD_PER_BTC: HeaderName = HeaderName::from_static("x-routstr-price-usd-per-btc");
pub const PROVIDER: HeaderName = HeaderName::from_static("x-routstr-provider");
pub const BALANCE_MSATS: HeaderName = HeaderName::from_static("x-routstr-balance-msats");
pub const ERROR_SOURCE: HeaderName = HeaderName::from_static("x-proxy-error-source");
pub const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
pub const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// The id that the client gave its request.
pub const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");

/// What the client's request is a part of (W3C Trace Context).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What [`RATE_LIMITS`] tell, under the names and in the order that Anthropic's clients know.
pub const ANTHROPIC_RATE_LIMITS: [HeaderName; 6] = [
    HeaderName::from_static("anthropic-ratelimit-requests-limit"),
    HeaderName::from_static("anthropic-ratelimit-requests-remaining"),
    HeaderName::from_static("anthropic-ratelimit-requests-reset"),
    HeaderName::from_static("anthropic-ratelimit-tokens-limit"),
    HeaderName::from_static("anthropic-ratelimit-tokens-remaining"),
    HeaderName::from_static("anthropic-ratelimit-tokens-reset"),
];

/// Beside a 429, for Anthropic's clients: without it some ask again at once, and again.
pub const ANTHROPIC_UNIFIED_STATUS: HeaderName = HeaderName::from_static("anthropic-ratelimit-unified-status");

/// Limit, remaining and reset of requests in a minute, or of tokens where requests have no limit.
pub const PLAIN_RATE_LIMITS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
];

/// Limit, remaining and reset of requests, then of tokens, in a minute.
pub const RATE_LIMITS: [HeaderName; 6] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// So long are the values of an answer's headers together, or shorter.
const USUAL_VALUES: usize = 384;

/// What a page of another origin may read.
#[must_use]
pub fn exposed() -> Vec<HeaderName> {
    let own = [
        X_CASHU,
        REQUEST_ID,
        X_REQUEST_ID,
        BARE_REQUEST_ID,
        COST_MSATS,
        COST_USD,
        INPUT_COST_MSATS,
        OUTPUT_COST_MSATS,
        MODEL,
        USD_PER_BTC,
        PROVIDER,
        BALANCE_MSATS,
        ERROR_SOURCE,
        SHOULD_RETRY,
        IDEMPOTENT_REPLAYED,
        SERVER_TIMING,
        CLIENT_REQUEST_ID,
        ANTHROPIC_UNIFIED_STATUS,
        axum::http::header::RETRY_AFTER,
    ];
    own.into_iter().chain(PLAIN_RATE_LIMITS).chain(RATE_LIMITS).chain(ANTHROPIC_RATE_LIMITS).collect()
}

/// What is left to a key in this minute. The upstream account's own limits are nobody's business.
pub fn put_allowances(headers: &mut HeaderMap, allowances: &Allowances, protocol: Protocol, now_ms: i64) {
    let now = u64::try_from(now_ms.div_euclid(1000)).unwrap_or(0);
    if let Some(left) = allowances.requests.or(allowances.tokens) {
        put_left(headers, PLAIN_RATE_LIMITS, left, &now.saturating_add(left.reset_secs).to_string());
    }
    put_allowances_as(headers, allowances, RATE_LIMITS, |secs| format!("{secs}s"));
    if protocol == Protocol::Anthropic {
        put_allowances_as(headers, allowances, ANTHROPIC_RATE_LIMITS, |secs| date_time(now.saturating_add(secs)));
    }
}

fn put_allowances_as(
    headers: &mut HeaderMap,
    allowances: &Allowances,
    names: [HeaderName; 6],
    when: impl Fn(u64) -> String,
) {
    let [limit, remaining, reset, token_limit, tokens_remaining, token_reset] = names;
    let rows = [
        (allowances.requests, [limit, remaining, reset]),
        (allowances.tokens, [token_limit, tokens_remaining, token_reset]),
    ];
    for (left, names) in rows {
        if let Some(left) = left {
            put_left(headers, names, left, &when(left.reset_secs));
        }
    }
}

fn put_left(headers: &mut HeaderMap, [limit, remaining, reset]: [HeaderName; 3], left: Left, when: &str) {
    headers.insert(limit, HeaderValue::from(left.limit));
    headers.insert(remaining, HeaderValue::from(left.remaining));
    put(headers, reset, when);
}

/// Writes the values of one answer's headers into one piece of memory.
pub struct Writer<'h> {
    headers: &'h mut HeaderMap,
    values: BytesMut,
}

impl<'h> Writer<'h> {
    /// For these headers.
    pub fn new(headers: &'h mut HeaderMap) -> Self {
        Self { headers, values: BytesMut::with_capacity(USUAL_VALUES) }
    }

    /// Sets a header, unless the value cannot be one.
    pub fn put(&mut self, name: HeaderName, value: impl Display) {
        if let Some(value) = self.value(value) {
            self.headers.insert(name, value);
        }
    }

    /// The request id, under every name that clients look for.
    pub fn put_request_id(&mut self, id: &str) {
        let Some(id) = self.value(id) else { return };
        for name in [REQUEST_ID, X_REQUEST_ID] {
            self.headers.insert(name, id.clone());
        }
        self.headers.insert(BARE_REQUEST_ID, id);
    }

    fn value(&mut self, value: impl Display) -> Option<HeaderValue> {
        let written = write!(self.values, "{value}");
        let value = self.values.split().freeze();
        written.ok().and_then(|()| HeaderValue::from_maybe_shared(value).ok())
    }

    /// Which model serves, and at which rate.
    pub fn put_served(&mut self, model: &str, btc_usd: Option<Decimal>) {
        self.put(MODEL, model);
        if let Some(rate) = btc_usd {
            self.put(USD_PER_BTC, rate.normalize());
        }
    }

    /// Durations in ms (Server-Timing, W3C): of what is over, and of all of it where that is. Nothing about who
    /// served.
    pub fn put_timing(&mut self, timing: &Timing, total: Option<Duration>) {
        self.put(
            SERVER_TIMING,
            Durations([("admission", timing.admission), ("upstream", timing.upstream), ("total", total)]),
        );
    }
}

struct Durations([(&'static str, Option<Duration>); 3]);

impl Display for Durations {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let known = self.0.iter().filter_map(|(name, took)| Some((name, (*took)?.as_micros())));
        for (at, (name, micros)) in known.enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{name};dur={}.{}", micros / 1000, micros / 100 % 10)?;
        }
        Ok(())
    }
}

/// Where a client says what it calls its request.
const CLIENT_IDS: [HeaderName; 3] = [CLIENT_REQUEST_ID, X_REQUEST_ID, BARE_REQUEST_ID];
const MAX_CLIENT_ID: usize = 128;

/// What the client calls its request, if that is plain. It is told it again, and nothing else follows from it.
#[must_use]
pub fn client_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let good =
        |value: &&HeaderValue| (1..=MAX_CLIENT_ID).contains(&value.len()) && value.as_bytes().iter().all(is_plain);
    CLIENT_IDS.iter().filter_map(|name| headers.get(name)).find(good).cloned()
}

/// The way to the model that the client wants, in whatever bytes: an unknown one is refused.
#[must_use]
pub fn model_path(headers: &HeaderMap) -> Option<String> {
    let path = String::from_utf8_lossy(headers.get(MODEL_PATH)?.as_bytes()).trim().to_owned();
    (!path.is_empty()).then_some(path)
}

/// Where clients say which conversation a request belongs to.
const CONVERSATION: [&str; 5] =
    ["x-claude-code-session-id", "x-session-id", "session-id", "session_id", "conversation_id"];
/// Longest name of a conversation.
const MAX_CONVERSATION: usize = 256;

/// What the client calls the conversation.
#[must_use]
pub fn conversation(headers: &HeaderMap) -> Option<&str> {
    let named = CONVERSATION.iter().find_map(|name| text(headers, *name));
    named.map(str::trim).filter(|name| !name.is_empty() && name.len() <= MAX_CONVERSATION)
}

/// Sets a header, unless the value cannot be one.
pub fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A header's text, if it is text.
#[must_use]
pub fn text(headers: &HeaderMap, name: impl axum::http::header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A header's text, joined where it was sent in several lines.
#[must_use]
pub fn all(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}

/// Whether the client wants to leave HTTP. Offers of HTTP/2 (`h2c`) may be ignored, and are.
#[must_use]
pub fn asks_for_websocket(headers: &HeaderMap) -> bool {
    text(headers, axum::http::header::UPGRADE)
        .is_some_and(|protocols| protocols.split(',').any(|one| one.trim().eq_ignore_ascii_case("websocket")))
}
