//! Upstreams for programs.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::AdminState;
use super::super::api::{ApiError, Body, Complaint};
use super::super::operator::{Operator, Scope};
use super::{View, clear, put, remove, test, view};
use crate::upstream::stored::Intent;

pub(in crate::admin) fn api() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(list_call, add_call, change_call))
        .routes(routes!(clear_call))
        .routes(routes!(remove_call))
        .routes(routes!(test_call))
}

/// The upstreams, and how each is.
#[utoipa::path(get, path = "/admin/api/upstreams", tag = "admin", security(("operator" = ["read"])), responses(
    (status = 200, body = Vec<View>), (status = 403, body = Complaint),
))]
async fn list_call(State(state): State<AdminState>, operator: Operator) -> Result<Json<Vec<View>>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(view(&state).await?))
}

/// An entry as `UPSTREAMS` has it: `name`, `provider_type`, `base_url`, `api_key` and so on.
#[derive(Deserialize, ToSchema)]
struct Entry {
    #[serde(flatten)]
    #[schema(value_type = Object)]
    members: Map<String, Value>,
}

#[derive(Serialize, ToSchema)]
struct Stored {
    name: String,
}

/// Makes an upstream. It is asked from now on.
#[utoipa::path(post, path = "/admin/api/upstreams", tag = "admin",
    security(("operator" = ["manage"])), request_body = Entry, responses(
    (status = 200, body = Stored), (status = 400, body = Complaint), (status = 403, body = Complaint),
    (status = 409, body = Complaint),
))]
async fn add_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(entry): Body<Entry>,
) -> Result<Json<Stored>, ApiError> {
    let name = put(&state, operator.may(Scope::Manage)?, Intent::Add, &entry.members).await?;
    Ok(Json(Stored { name }))
}

/// Changes the members of an upstream that are named; null takes one away, and what is absent stays.
#[utoipa::path(patch, path = "/admin/api/upstreams", tag = "admin",
    security(("operator" = ["manage"])), request_body = Entry, responses(
    (status = 200, body = Stored), (status = 400, body = Complaint), (status = 403, body = Complaint),
    (status = 404, body = Complaint), (status = 409, body = Complaint),
))]
async fn change_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(entry): Body<Entry>,
) -> Result<Json<Stored>, ApiError> {
    let name = put(&state, operator.may(Scope::Manage)?, Intent::Change(None), &entry.members).await?;
    Ok(Json(Stored { name }))
}

#[derive(Deserialize, ToSchema)]
struct NamedUpstream {
    name: String,
}

/// Forgets what is held against an upstream.
#[utoipa::path(post, path = "/admin/api/upstreams/clear", tag = "admin",
    security(("operator" = ["manage"])), request_body = NamedUpstream, responses(
    (status = 204), (status = 403, body = Complaint), (status = 404, body = Complaint),
))]
async fn clear_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<NamedUpstream>,
) -> Result<StatusCode, ApiError> {
    clear(&state, operator.may(Scope::Manage)?, &call.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes an upstream of the operator's own. Requests under way go on.
#[utoipa::path(post, path = "/admin/api/upstreams/remove", tag = "admin",
    security(("operator" = ["manage"])), request_body = NamedUpstream, responses(
    (status = 204), (status = 403, body = Complaint), (status = 404, body = Complaint),
    (status = 409, body = Complaint),
))]
async fn remove_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<NamedUpstream>,
) -> Result<StatusCode, ApiError> {
    remove(&state, operator.may(Scope::Manage)?, &call.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How a question went.
#[derive(Serialize, ToSchema)]
struct TestedView {
    answered: bool,
    /// As the upstream calls it.
    model: String,
    took_ms: u64,
    /// What it cost, where that is known.
    usd: Option<String>,
    /// What went wrong.
    error: Option<String>,
}

/// Asks an upstream one small question, at the operator's cost.
#[utoipa::path(post, path = "/admin/api/upstreams/test", tag = "admin",
    security(("operator" = ["manage"])), request_body = NamedUpstream, responses(
    (status = 200, body = TestedView), (status = 403, body = Complaint), (status = 409, body = Complaint),
))]
async fn test_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<NamedUpstream>,
) -> Result<Json<TestedView>, ApiError> {
    let tested = test(&state, operator.may(Scope::Manage)?, &call.name).await?;
    Ok(Json(TestedView {
        answered: tested.outcome.is_ok(),
        took_ms: tested.took_ms(),
        model: tested.model,
        usd: tested.usd.map(|usd| usd.normalize().to_string()),
        error: tested.outcome.err(),
    }))
}
