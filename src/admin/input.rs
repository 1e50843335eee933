//! What no input of an operator may have in it: PostgreSQL stores no text with a NUL, and SQLite would.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use memchr::memmem;

use super::AdminError;
use super::api::{ApiError, is_json};
use crate::net::BODY_TIMEOUT;

/// The most that any route takes; whose limit is lower refuses by itself.
const MAX_BYTES: usize = super::MAX_LONG_FORM_BYTES;

/// A body, of a client that may not be known yet.
async fn read(body: Body, within: Duration) -> Result<Bytes, AdminError> {
    let code = "invalid_request";
    let read = tokio::time::timeout(within, to_bytes(body, MAX_BYTES)).await.map_err(|_| {
        let status = StatusCode::REQUEST_TIMEOUT;
        AdminError::Refused { status, code, message: "This did not come in time.".to_owned() }
    })?;
    let status = StatusCode::PAYLOAD_TOO_LARGE;
    read.map_err(|_| AdminError::Refused { status, code, message: "This is too long.".to_owned() })
}

/// Refuses a NUL in the address, in a form, and in JSON, before anybody reads them.
pub(super) async fn refuse_nul(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let is_call = parts.uri.path().starts_with("/admin/api/");
    let refuse = |refusal: AdminError| match is_call {
        true => ApiError::from(refusal).into_response(),
        false => refusal.into_response(),
    };
    let body = match read(body, BODY_TIMEOUT).await {
        Ok(body) => body,
        Err(refusal) => return refuse(refusal),
    };
    let in_body = if is_json(&parts.headers) { in_json(&body) } else { in_form(&body) };
    let in_address =
        [parts.uri.path(), parts.uri.query().unwrap_or_default()].iter().any(|part| in_form(part.as_bytes()));
    if in_body || in_address {
        return refuse(AdminError::invalid("A text with the character NUL in it is not taken."));
    }
    next.run(Request::from_parts(parts, Body::from(body))).await
}

/// `%00` cannot be text: its `%` would be `%25`.
fn in_form(text: &[u8]) -> bool {
    memchr::memchr(0, text).is_some() || memmem::find(text, b"%00").is_some()
}

fn in_json(text: &[u8]) -> bool {
    memmem::find_iter(text, b"\\u0000").any(|at| {
        let before = text.get(..at).unwrap_or_default();
        // Where the backslash is itself escaped, it is text.
        before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who sends no more is not waited for, for ever: nobody knows yet who it is.
    #[tokio::test]
    async fn a_body_that_does_not_come_is_refused() {
        let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::convert::Infallible>>());
        let refused = read(never, Duration::from_millis(10)).await;
        assert!(matches!(refused, Err(AdminError::Refused { status: StatusCode::REQUEST_TIMEOUT, .. })));
        assert_eq!(read(Body::from("a=b"), Duration::from_secs(60)).await.unwrap(), "a=b");
    }

    #[test]
    fn a_nul_is_seen_however_it_is_written() {
        for (text, expected) in [("", false), ("a=%2500b&c=100%25", false), ("a=%00b", true), ("a=\0", true)] {
            assert_eq!(in_form(text.as_bytes()), expected, "{text}");
        }
        for (text, expected) in [
            (r#"{"title":"a\u0000b"}"#, true),
            (r#"{"title":"a\\u0000b"}"#, false),
            (r#"{"title":"a\\\u0000b"}"#, true),
            (r#"{"title":"\u0001, and 100%00"}"#, false),
        ] {
            assert_eq!(in_json(text.as_bytes()), expected, "{text}");
        }
    }
}
