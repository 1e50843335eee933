//! The operator's side for programs: JSON below `/admin/api`, by the functions that the pages use.
//!
//! Each page's file has its calls, and names them in its `api`. A call is made with `Authorization: Bearer`, never
//! with the cookie of a browser, so no page of a stranger can make one. What is said in return is `{"detail", "code"}`
//! where it is a refusal.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;

use super::{AdminError, AdminState};

/// All calls, with their description.
pub(super) fn calls() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().merge(super::upstreams::api()).merge(super::requests::api()).merge(super::overview::api())
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
            error => {
                tracing::error!(%error, "a call of the admin API failed");
                let detail = "This failed. The log says why.".to_owned();
                (StatusCode::INTERNAL_SERVER_ERROR, Complaint { detail, code: "failed" })
            }
        };
        (status, Json(complaint)).into_response()
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
            Err(rejection) => Err(said(&rejection).into()),
        }
    }
}

fn said(rejection: &JsonRejection) -> AdminError {
    AdminError::Refused { status: rejection.status(), code: "invalid_request", message: rejection.body_text() }
}
