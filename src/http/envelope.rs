//! The one place that gives a failure its shape; [`facts`] has its status.
//!
//! The envelope is that of the protocol that the client speaks ([`Protocol`], `http::envelope_of`): Anthropic's,
//! Google's, or OpenAI's, `{"error": {"message", "type", "code"}, "request_id"}`, with what the
//! network's clients look for beside it: the same again under `detail` where its first
//! implementation puts it, `error.refund_token` for money that comes back, and `error.payment`
//! with what is needed where money is the problem.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::headers;
use crate::dialect::Protocol;
use crate::failure::{About, Blame, Code, Failure, Funds, Retry, facts};
use crate::wallet::PaymentRequest;

/// What Anthropic answers where others say 503.
pub(super) const OVERLOADED: u16 = 529;

/// Anthropic's `error.type` for a status.
const fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        504 => "timeout_error",
        503 | OVERLOADED => "overloaded_error",
        _ => "api_error",
    }
}

/// Google's `error.status` for a status.
const fn google_status(status: u16) -> &'static str {
    match status {
        400 | 413 | 422 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        402 | 429 => "RESOURCE_EXHAUSTED",
        403 => "PERMISSION_DENIED",
        404 | 410 => "NOT_FOUND",
        409 => "ABORTED",
        405..=499 => "FAILED_PRECONDITION",
        502 | 503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    }
}

/// What the envelope needs to know of the request.
#[derive(Clone, Debug, Default)]
pub struct Asked<'a> {
    pub protocol: Protocol,
    pub request_id: &'a str,
    /// The token that rode on the request.
    pub one_shot: Option<&'a str>,
    /// A request for payment, where more is needed.
    pub payment_request: Option<PaymentRequest>,
    /// The client pays ecash with its requests, or said that it can: it gets that request itself too.
    pub pays_ecash: bool,
}

/// The response to a call of this node's own: what came of it as JSON, or the failure.
#[must_use]
pub fn answer(outcome: Result<String, Failure>, asked: &Asked<'_>) -> Response<Body> {
    match outcome {
        Ok(body) => json(body, asked.request_id),
        Err(failure) => render(&failure, asked),
    }
}

/// A body of JSON that is for nobody else.
fn json(body: String, request_id: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    out.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers::Writer::new(out).put_request_id(request_id);
    response
}

/// The response that tells a client of a failure.
#[must_use]
pub fn render(failure: &Failure, asked: &Asked<'_>) -> Response<Body> {
    let status = match (failure.code, asked.protocol) {
        // The vendors' own answer. In OpenAI's shape, clients of this network look for 400.
        (Code::InvalidModel, Protocol::Anthropic | Protocol::Gemini) => 404,
        (Code::UpstreamUnavailable | Code::Overloaded, Protocol::Anthropic) => OVERLOADED,
        // What is worth trying again after a while: the others are told 502, as clients of this network expect.
        (Code::UpstreamFailed, Protocol::Anthropic) if failure.retry != Retry::Never => OVERLOADED,
        _ => facts(failure.code).status,
    };
    let status = failure.upstream.as_ref().map_or(status, |answer| answer.status);
    let mut error = error_object(failure);
    if let Funds::Returned(token) = &failure.funds {
        error.insert("refund_token".into(), json!(token));
    }
    if let Some(payment) = payment_object(failure, asked) {
        error.insert("payment".into(), payment);
    }
    let body = match asked.protocol {
        Protocol::OpenAi => openai(failure, asked, error),
        Protocol::Anthropic => anthropic(failure, asked, error, status),
        Protocol::Gemini => google(failure, asked, error, status),
    };
    let mut response = json(Value::Object(body).to_string(), asked.request_id);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let out = response.headers_mut();
    if let Retry::After(secs) = failure.retry {
        out.insert(RETRY_AFTER, HeaderValue::from(secs));
    }
    if status == 429 && asked.protocol == Protocol::Anthropic {
        headers::put(out, headers::ANTHROPIC_UNIFIED_STATUS, "rejected");
    }
    let source = if failure.blame == Blame::Upstream { "upstream" } else { "proxy" };
    headers::put(out, headers::ERROR_SOURCE, source);
    if let Some(token) = cashu_header(failure, asked) {
        headers::put(out, headers::X_CASHU, token);
    }
    let decided = matches!(
        failure.code,
        Code::IdempotencyKeyReused | Code::IdempotentOutcomeNotKept | Code::VoucherRedeemed | Code::Maintenance
    );
    if decided || asked.one_shot.is_some() && failure.funds != Funds::Untouched {
        // SDKs retry 5xx, 409 and 429 unasked; here a second try could only confuse.
        headers::put(out, headers::SHOULD_RETRY, "false");
    }
    response
}

fn openai(failure: &Failure, asked: &Asked<'_>, error: Map<String, Value>) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("error".into(), Value::Object(error.clone()));
    if let Some(detail) = detail(failure, asked, error) {
        body.insert("detail".into(), detail);
    }
    body.insert("request_id".into(), json!(asked.request_id));
    body
}

fn anthropic(failure: &Failure, asked: &Asked<'_>, mut error: Map<String, Value>, status: u16) -> Map<String, Value> {
    // An upstream that speaks this protocol has named its type itself.
    let own = failure.upstream.as_ref().and_then(|answer| answer.kind.clone());
    error.insert("type".into(), json!(own.unwrap_or_else(|| anthropic_type(status).to_owned())));
    error.shift_remove("param");
    let mut body = Map::new();
    body.insert("type".into(), json!("error"));
    body.insert("error".into(), Value::Object(error));
    body.insert("request_id".into(), json!(asked.request_id));
    body
}

fn google(failure: &Failure, asked: &Asked<'_>, mut error: Map<String, Value>, status: u16) -> Map<String, Value> {
    let own = failure.upstream.as_ref().and_then(|answer| answer.kind.clone());
    let reason = error.insert("code".into(), json!(status));
    error.insert("status".into(), json!(own.unwrap_or_else(|| google_status(status).to_owned())));
    error.shift_remove("type");
    error.shift_remove("param");
    let mut detail = json!({ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "coinslot" });
    if let (Some(detail), Some(reason)) = (detail.as_object_mut(), reason) {
        detail.insert("reason".into(), reason);
    }
    error.insert("details".into(), json!([detail]));
    let mut body = Map::new();
    body.insert("error".into(), Value::Object(error));
    body.insert("request_id".into(), json!(asked.request_id));
    body
}

fn error_object(failure: &Failure) -> Map<String, Value> {
    let answer = failure.upstream.as_deref();
    let member = match failure.about.as_deref() {
        Some(About::Member(member)) => Some(*member),
        _ => None,
    };
    let (kind, code) = failure.names();
    let mut error = Map::new();
    error.insert("message".into(), json!(failure.message));
    error.insert("type".into(), json!(kind));
    error.insert("param".into(), json!(answer.and_then(|answer| answer.param.as_deref()).or(member)));
    error.insert("code".into(), json!(code));
    match failure.about.as_deref() {
        Some(About::Receipt(request)) => drop(error.insert("receipt".into(), json!(format!("/v1/receipts/{request}")))),
        Some(About::Limit { model, secs }) => {
            error.insert("details".into(), json!({ "model": model, "retry_after_seconds": secs }));
        }
        Some(About::Member(_)) | None => {}
    }
    if let Funds::Pending(id) = &failure.funds {
        error.insert("operation".into(), json!(id));
    }
    error
}

fn payment_object(failure: &Failure, asked: &Asked<'_>) -> Option<Value> {
    let hint = failure.payment.as_deref()?;
    let mut payment = Map::new();
    payment.insert("required_msat".into(), json!(hint.required.get()));
    payment.insert("balance_msat".into(), json!(hint.available.map(|available| available.get())));
    if let Some(request) = &asked.payment_request {
        payment.insert("unit".into(), json!(request.unit.as_str()));
        payment.insert("mints".into(), json!(request.mints));
        if asked.pays_ecash {
            payment.insert("amount".into(), json!(request.amount));
            payment.insert("request".into(), json!(request.encoded));
        }
    }
    Some(Value::Object(payment))
}

/// What the first implementation of this network has under `detail`.
fn detail(failure: &Failure, asked: &Asked<'_>, error: Map<String, Value>) -> Option<Value> {
    match failure.code {
        Code::Unauthorized => Some(json!("Unauthorized")),
        Code::RefundNotFound
        | Code::RefundSwept
        | Code::RefundPending
        | Code::RefundNothing
        | Code::RefundTooSmall
        | Code::RefundOngoing
        | Code::InvoiceNotFound
        | Code::ChildKey
        | Code::NotYourChild
        | Code::ChildNotFound
        | Code::NotFound => Some(json!(failure.message)),
        Code::InsufficientBalance if asked.one_shot.is_some() => {
            let hint = failure.payment.as_deref();
            Some(json!({
                "reason": "Insufficient balance",
                "amount_required_msat": hint.map(|hint| hint.required.get()),
                "model": hint.and_then(|hint| hint.model.as_deref()),
                "type": "minimum_balance_required",
                "error": error,
            }))
        }
        _ if failure.blame == Blame::Payment => Some(json!({ "error": error })),
        _ => None,
    }
}

/// The money header of a failure: what comes back, what is asked for, or the token itself while
/// it is untouched and only the node is in trouble.
fn cashu_header<'a>(failure: &'a Failure, asked: &'a Asked<'_>) -> Option<&'a str> {
    match &failure.funds {
        Funds::Returned(token) => Some(token),
        Funds::Untouched => match asked.payment_request.as_ref().filter(|_| asked.pays_ecash) {
            Some(request) => Some(&request.encoded),
            None if failure.blame == Blame::Node => asked.one_shot,
            None => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Money problems are 402 and nothing else is; retryable trouble of ours is 503.
    #[test]
    fn statuses_follow_the_rules() {
        for code in [Code::PaymentRequired, Code::InsufficientBalance, Code::BalanceLimitExceeded] {
            assert_eq!(facts(code).status, 402);
            assert_eq!(facts(code).kind, "insufficient_quota");
        }
        for code in [Code::MintUnreachable, Code::RedemptionPending, Code::PriceUnavailable] {
            assert_eq!(facts(code).status, 503);
        }
    }

    #[test]
    fn a_refund_is_in_header_and_body() {
        let failure = Failure::upstream(Code::UpstreamFailed, "x").funds(Funds::Returned("cashuBx".into()));
        let asked = Asked { request_id: "r", one_shot: Some("cashuBy"), ..Asked::default() };
        let response = render(&failure, &asked);
        assert_eq!(response.status(), 502);
        assert_eq!(response.headers()[headers::X_CASHU], "cashuBx");
        assert_eq!(response.headers()[headers::SHOULD_RETRY], "false");
    }

    /// Each protocol has its own words; the status, the code and the money are the same in all.
    #[tokio::test]
    async fn a_failure_in_every_envelope() {
        let hint = crate::failure::PaymentHint::default();
        for (failure, status, anthropic, google, code) in [
            (
                Failure::payment(Code::PaymentRequired, "x").needing(hint),
                402,
                "billing_error",
                "RESOURCE_EXHAUSTED",
                "payment_required",
            ),
            (Failure::payment(Code::Unauthorized, "x"), 401, "authentication_error", "UNAUTHENTICATED", "unauthorized"),
            (
                Failure::client(Code::InvalidRequest, "x"),
                400,
                "invalid_request_error",
                "INVALID_ARGUMENT",
                "invalid_request",
            ),
            (Failure::client(Code::UnsupportedPath, "x"), 404, "not_found_error", "NOT_FOUND", "unsupported_path"),
            (
                Failure::client(Code::PayloadTooLarge, "x"),
                413,
                "request_too_large",
                "INVALID_ARGUMENT",
                "payload_too_large",
            ),
            (
                Failure::upstream(Code::UpstreamRateLimited, "x"),
                429,
                "rate_limit_error",
                "RESOURCE_EXHAUSTED",
                "UPSTREAM_RATE_LIMIT",
            ),
            (Failure::upstream(Code::UpstreamFailed, "x"), 502, "api_error", "UNAVAILABLE", "upstream_error"),
            (Failure::internal(), 500, "api_error", "INTERNAL", "internal_error"),
            (
                Failure::upstream(Code::UpstreamUnavailable, "x"),
                503,
                "overloaded_error",
                "UNAVAILABLE",
                "upstream_unavailable",
            ),
            (Failure::client(Code::Maintenance, "x"), 503, "overloaded_error", "UNAVAILABLE", "maintenance"),
        ] {
            let shown = async |protocol| {
                let response = render(&failure, &Asked { protocol, request_id: "r", ..Asked::default() });
                let is_overloaded = (protocol, code) == (Protocol::Anthropic, "upstream_unavailable");
                assert_eq!(response.status(), if is_overloaded { 529 } else { status }, "{code}");
                assert_eq!(response.headers()["request-id"], "r");
                let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
                serde_json::from_slice::<Value>(&body).unwrap()
            };
            let openai = shown(Protocol::OpenAi).await;
            assert_eq!((&openai["error"]["code"], &openai["request_id"]), (&json!(code), &json!("r")));
            let body = shown(Protocol::Anthropic).await;
            assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!(anthropic)), "{code}");
            assert_eq!((&body["error"]["code"], &body["request_id"]), (&json!(code), &json!("r")));
            assert_eq!(body["error"]["payment"], openai["error"]["payment"]);
            let body = shown(Protocol::Gemini).await;
            assert_eq!((&body["error"]["code"], &body["error"]["status"]), (&json!(status), &json!(google)), "{code}");
            assert_eq!(body["error"]["details"][0]["reason"], code);
            assert_eq!(
                (&body["error"]["message"], &body["error"]["payment"]),
                (&openai["error"]["message"], &openai["error"]["payment"])
            );
        }
    }
}
