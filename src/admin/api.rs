//! The operator's side for programs: JSON below `/admin/api`, by the functions that the pages use.
//!
//! Each page's file has its calls, and names them in its `api`. A call is made with `Authorization: Bearer`, never
//! with the cookie of a browser, so no page of a stranger can make one. What is said in return is `{"detail", "code"}`
//! where it is a refusal.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{AdminError, AdminState};
use crate::openapi::Described;

/// All calls, with their description. One line each.
pub(super) fn calls() -> Described<AdminState> {
    let all = Described::new();
    let all = all.calls(super::access::api());
    let all = all.calls(super::announcements::api());
    let all = all.calls(super::backup::api());
    let all = all.calls(super::keys::api());
    let all = all.calls(super::maintenance::api());
    let all = all.calls(super::models::api());
    let all = all.calls(super::overview::api());
    let all = all.calls(super::requests::api());
    let all = all.calls(super::settings::api());
    let all = all.calls(super::tariffs::api());
    let all = all.calls(super::trail::api());
    let all = all.calls(super::upstreams::api());
    let all = all.calls(super::vouchers::api());
    let all = all.calls(super::wallet::api());
    // What is none of them, and how none of them is called, is refused here and not by the pages.
    let all = ["/admin/api", "/admin/api/", "/admin/api/{*rest}"]
        .iter()
        .fold(all, |all, path| all.refusing(path, any(unknown)));
    all.each(complete).map(|router| router.method_not_allowed_fallback(not_allowed))
}

async fn unknown() -> ApiError {
    AdminError::not_found("There is no such call. /openapi.json lists those that there are.").into()
}

async fn not_allowed(method: Method) -> ApiError {
    let (status, code) = (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
    AdminError::Refused { status, code, message: format!("{method} is not allowed here.") }.into()
}

/// Says of every call what is true of all: whom it serves, and how it refuses what it cannot read.
fn complete(path: &str, call: &mut Map<String, Value>) {
    call.entry("security").or_insert_with(|| json!([{ "operator": [] }]));
    name_scope(call);
    let mut usual = vec![("403", "Nobody who may do this"), ("500", "A fault of this node")];
    if call.contains_key("parameters") || path.contains('{') {
        usual.push(("400", "Not what this call takes"));
    }
    if call.contains_key("requestBody") {
        usual.extend([
            ("400", "Not what this call takes"),
            ("413", "More than a call may be"),
            ("415", "Not JSON"),
            ("422", "JSON, but not what this call takes"),
        ]);
    }
    let responses = call.entry("responses").or_insert_with(|| json!({}));
    for (status, says) in usual {
        if let Some(responses) = responses.as_object_mut() {
            let body = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Complaint" } } });
            responses.entry(status).or_insert_with(|| json!({ "description": says, "content": body }));
        }
    }
}

/// Says in words which scope a token must have: viewers show none for bearer tokens.
fn name_scope(call: &mut Map<String, Value>) {
    let scope = call.get("security").and_then(|all| all.pointer("/0/operator/0")).and_then(Value::as_str);
    let Some(scope) = scope else { return };
    let known = call.get("description").and_then(Value::as_str).unwrap_or_default();
    let text = format!("{known}\n\nTakes the scope `{scope}`.");
    call.insert("description".to_owned(), json!(text.trim()));
}

/// A refusal, as every call says it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Complaint {
    /// For a person.
    pub detail: String,
    /// For a program.
    pub code: &'static str,
}

/// [`AdminError`] in the words of the API.
#[derive(Debug)]
pub(super) struct ApiError(AdminError);

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> Self {
        Self(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, complaint) = match self.0 {
            AdminError::Refused { status, code, message } => (status, Complaint { detail: message, code }),
            AdminError::TooSoon(secs) => {
                let complaint = Complaint { detail: super::too_soon(secs), code: "too_many_attempts" };
                let retry = [(header::RETRY_AFTER, secs.to_string())];
                return (StatusCode::TOO_MANY_REQUESTS, retry, Json(complaint)).into_response();
            }
            error => {
                tracing::error!(%error, "a call of the admin API failed");
                let detail = "This failed. The log says why.".to_owned();
                (StatusCode::INTERNAL_SERVER_ERROR, Complaint { detail, code: "failed" })
            }
        };
        (status, Json(complaint)).into_response()
    }
}

/// What stands in the address in place of `{…}`; what cannot be read is said as every refusal is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Part<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(read)) => Ok(Self(read)),
            Err(_) => Err(AdminError::invalid("The address cannot be read.").into()),
        }
    }
}

/// What stands behind the `?` of the address; the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Search<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(read)) => Ok(Self(read)),
            Err(_) => Err(AdminError::invalid("What stands behind the ? of the address cannot be read.").into()),
        }
    }
}

/// A body of JSON; what is wrong with it is said as every refusal is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(said(rejection.status(), rejection.body_text()).into()),
        }
    }
}

/// A body as it came; one that is too long is refused as everything is.
#[derive(Clone, Debug)]
pub(super) struct Raw(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let read = Bytes::from_request(request, state).await;
        read.map(Self).map_err(|rejection| said(rejection.status(), rejection.body_text()).into())
    }
}

/// Whether what is sent says that it is JSON, in any of the ways that [`Json`] takes.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.strip_prefix("application/").is_some_and(|kind| kind == "json" || kind.ends_with("+json"))
}

/// The body of a call that may come without one.
pub(super) fn read_body<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, AdminError> {
    if !is_json(headers) {
        return Err(AdminError::Refused {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code: "invalid_request",
            message: "Expected request with `Content-Type: application/json`".to_owned(),
        });
    }
    // What was sent is a password: it is not repeated.
    serde_json::from_slice(body).map_err(|_| AdminError::invalid("The body is not what this call takes."))
}

const fn said(status: StatusCode, message: String) -> AdminError {
    AdminError::Refused { status, code: "invalid_request", message }
}
