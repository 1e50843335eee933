//! The one place that gives a failure its status and its shape.
//!
//! The envelope is that of the protocol that the client speaks ([`Protocol`]): Anthropic's, Google's,
//! or OpenAI's, `{"error": {"message", "type", "code"}, "request_id"}`, with what the
//! network's clients look for beside it: the same again under `detail` where its first
//! implementation puts it, `error.refund_token` for money that comes back, and `error.payment`
//! with what is needed where money is the problem.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::headers;
use crate::dialect::Protocol;
use crate::failure::{About, Blame, Code, Failure, Funds, Retry};
use crate::wallet::PaymentRequest;

/// Status, `type` and `code` of a failure.
#[must_use]
#[expect(clippy::too_many_lines, reason = "a table")]
pub const fn facts(code: Code) -> (u16, &'static str, &'static str) {
    const INVALID: &str = "invalid_request_error";
    match code {
        Code::MissingApiKey => (401, INVALID, "missing_api_key"),
        Code::Unauthorized => (401, INVALID, "unauthorized"),
        Code::InvalidApiKey => (401, INVALID, "invalid_api_key"),
        Code::KeyNotFound => (401, INVALID, "key_not_found"),
        Code::PaymentRequired => (402, "insufficient_quota", "payment_required"),
        Code::InsufficientBalance => (402, "insufficient_quota", "insufficient_balance"),
        Code::BalanceLimitExceeded => (402, "insufficient_quota", "balance_limit_exceeded"),
        Code::KeyExpired => (403, INVALID, "key_expired"),
        Code::ChildKey => (400, INVALID, "child_key"),
        Code::NotYourChild => (403, INVALID, "not_your_child_key"),
        Code::ChildNotFound => (404, INVALID, "child_key_not_found"),
        Code::InvalidRequest => (400, INVALID, "invalid_request"),
        Code::InvalidJson => (400, INVALID, "invalid_json"),
        Code::InvalidModel => (400, INVALID, "invalid_model"),
        Code::ModalityNotPriced => (400, INVALID, "modality_not_priced"),
        Code::UnsupportedParameter => (400, INVALID, "unsupported_parameter"),
        Code::UnsupportedPath => (404, INVALID, "unsupported_path"),
        Code::PayloadTooLarge => (413, INVALID, "payload_too_large"),
        Code::InvalidToken => (400, "invalid_token", "invalid_cashu_token"),
        Code::UntrustedMint => (400, "untrusted_mint", "cashu_untrusted_source_mint"),
        Code::TokenAlreadySpent => (400, "token_already_spent", "cashu_token_already_spent"),
        Code::TokenZeroValue => (400, "cashu_error", "cashu_token_zero_value"),
        Code::TokenRedemptionFailed => (400, "cashu_error", "cashu_token_redemption_failed"),
        Code::TokenFeesExceedAmount => (422, "mint_error", "cashu_token_swap_fees_exceed_amount"),
        Code::MintUnreachable => (503, "mint_unreachable", "cashu_mint_unreachable"),
        Code::MintRateLimited => (503, "mint_rate_limited", "cashu_mint_rate_limited"),
        Code::RedemptionPending => (503, "mint_timeout", "cashu_mint_timeout"),
        Code::SourceMintUnreachable => (503, "mint_unreachable", "cashu_source_mint_unreachable"),
        Code::ForeignSwapFailed => (422, "mint_error", "cashu_foreign_mint_swap_failed"),
        Code::ForeignSwapLost => (502, "mint_error", "cashu_foreign_mint_swap_failed"),
        Code::PriceUnavailable => (503, "api_error", "price_unavailable"),
        Code::UpstreamUnavailable => (503, "upstream_error", "upstream_unavailable"),
        Code::UpstreamFailed => (502, "upstream_error", "upstream_error"),
        Code::UpstreamTimedOut => (504, "upstream_error", "upstream_timeout"),
        Code::UpstreamRejected => (400, INVALID, "upstream_rejected"),
        Code::UpstreamRateLimited => (429, "rate_limit_error", "UPSTREAM_RATE_LIMIT"),
        Code::ReceiptNotFound => (404, INVALID, "receipt_not_found"),
        Code::ReceiptPending => (425, INVALID, "receipt_pending"),
        Code::IdempotencyKeyReused => (409, INVALID, "idempotency_key_reused"),
        Code::IdempotencyInProgress => (409, INVALID, "idempotency_in_progress"),
        Code::IdempotentOutcomeNotKept => (409, INVALID, "idempotent_outcome_not_kept"),
        Code::MintGone => (503, "mint_error", "mint_not_configured"),
        Code::VoucherNotFound => (404, INVALID, "voucher_not_found"),
        Code::VoucherRedeemed => (409, INVALID, "voucher_already_redeemed"),
        Code::VoucherRevoked => (410, INVALID, "voucher_revoked"),
        Code::VoucherExpired => (410, INVALID, "voucher_expired"),
        Code::RefundNotFound => (404, INVALID, "refund_not_found"),
        Code::RefundSwept => (410, INVALID, "refund_swept"),
        Code::RefundPending => (425, INVALID, "refund_pending"),
        Code::RefundNothing => (400, INVALID, "no_balance"),
        Code::RefundTooSmall => (400, INVALID, "balance_too_small"),
        Code::RefundOngoing => (400, INVALID, "requests_ongoing"),
        Code::LightningFailed => (502, "lightning_error", "lightning_payment_failed"),
        Code::InvoiceNotFound => (404, INVALID, "invoice_not_found"),
        Code::InvoiceFailed => (503, "mint_error", "invoice_creation_failed"),
        Code::TopUpUnauthorized => (401, INVALID, "topup_authorization_required"),
        Code::TopUpKeyFormat => (400, INVALID, "topup_invalid_api_key_format"),
        Code::TopUpKeyNotFound => (404, INVALID, "topup_api_key_not_found"),
        Code::NotFound => (404, "not_found", "not_found"),
        Code::MethodNotAllowed => (405, INVALID, "method_not_allowed"),
        Code::UpgradeRequired => (426, INVALID, "upgrade_required"),
        Code::TooManyRequests => (429, "rate_limit_error", "rate_limit_exceeded"),
        Code::ShuttingDown => (503, "api_error", "shutting_down"),
        Code::Overloaded => (503, "api_error", "overloaded"),
        Code::Maintenance => (503, "api_error", "maintenance"),
        Code::NotTaken => (403, INVALID, "new_money_not_taken"),
        Code::Recovering => (503, "api_error", "recovering"),
        Code::Internal => (500, "api_error", "internal_error"),
    }
}

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
        503 | 529 => "overloaded_error",
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
    /// A request for payment, for a client that said it can pay ecash.
    pub payment_request: Option<PaymentRequest>,
}

/// The response that tells a client of a failure.
#[must_use]
pub fn render(failure: &Failure, asked: &Asked<'_>) -> Response<Body> {
    let (status, kind, code) = facts(failure.code);
    let status = match (failure.code, asked.protocol) {
        // The vendors' own answer. In OpenAI's shape, clients of this network look for 400.
        (Code::InvalidModel, Protocol::Anthropic | Protocol::Gemini) => 404,
        _ => status,
    };
    let status = failure.upstream.as_ref().map_or(status, |answer| answer.status);
    let mut error = error_object(failure, kind, code);
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
    let mut response = Response::new(Body::from(Value::Object(body).to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    out.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers::put_request_id(out, asked.request_id);
    if let Retry::After(secs) = failure.retry {
        out.insert(RETRY_AFTER, HeaderValue::from(secs));
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

fn error_object(failure: &Failure, kind: &str, code: &str) -> Map<String, Value> {
    let answer = failure.upstream.as_deref();
    let member = match failure.about.as_deref() {
        Some(About::Member(member)) => Some(*member),
        _ => None,
    };
    let mut error = Map::new();
    error.insert("message".into(), json!(failure.message));
    error.insert("type".into(), json!(answer.and_then(|answer| answer.kind.as_deref()).unwrap_or(kind)));
    error.insert("param".into(), json!(answer.and_then(|answer| answer.param.as_deref()).or(member)));
    error.insert("code".into(), json!(answer.and_then(|answer| answer.code.as_deref()).unwrap_or(code)));
    if let Some(About::Receipt(request)) = failure.about.as_deref() {
        error.insert("receipt".into(), json!(format!("/v1/receipts/{request}")));
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
        payment.insert("amount".into(), json!(request.amount));
        payment.insert("unit".into(), json!(request.unit.as_str()));
        payment.insert("mints".into(), json!(request.mints));
        payment.insert("request".into(), json!(request.encoded));
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
        Funds::Untouched => match &asked.payment_request {
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
            assert_eq!(facts(code).0, 402);
            assert_eq!(facts(code).1, "insufficient_quota");
        }
        for code in [Code::MintUnreachable, Code::RedemptionPending, Code::PriceUnavailable] {
            assert_eq!(facts(code).0, 503);
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
        ] {
            let shown = async |protocol| {
                let response = render(&failure, &Asked { protocol, request_id: "r", ..Asked::default() });
                assert_eq!(response.status(), status, "{code}");
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
