//! Profiles and windows for programs.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::api::{ApiError, Body, Complaint};
use super::super::operator::{Operator, Scope};
use super::super::{AdminError, AdminState};
use super::{Holder, View, attach, remove_profile, remove_window, set_profile, set_window, view};
use crate::operator::entry::{ProfileEntry, WindowEntry};

pub(in crate::admin) fn api() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(list_call))
        .routes(routes!(put_profile_call))
        .routes(routes!(remove_profile_call))
        .routes(routes!(attach_call))
        .routes(routes!(put_window_call))
        .routes(routes!(remove_window_call))
}

/// Profiles and windows.
#[utoipa::path(get, path = "/admin/api/profiles", tag = "admin", security(("operator" = ["read"])), responses(
    (status = 200, body = View), (status = 403, body = Complaint),
))]
async fn list_call(State(state): State<AdminState>, operator: Operator) -> Result<Json<View>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(view(&state).await?))
}

/// Makes a profile, or changes the one of that name for all keys that have it.
#[utoipa::path(post, path = "/admin/api/profiles/set", tag = "admin",
    security(("operator" = ["manage"])), request_body = ProfileEntry, responses(
    (status = 204), (status = 400, body = Complaint), (status = 403, body = Complaint),
    (status = 409, body = Complaint),
))]
async fn put_profile_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(entry): Body<ProfileEntry>,
) -> Result<StatusCode, ApiError> {
    set_profile(&state, operator.may(Scope::Manage)?, &entry).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
struct Named {
    name: String,
}

/// Removes a profile that no key has.
#[utoipa::path(post, path = "/admin/api/profiles/remove", tag = "admin",
    security(("operator" = ["manage"])), request_body = Named, responses(
    (status = 204), (status = 403, body = Complaint), (status = 404, body = Complaint),
    (status = 409, body = Complaint),
))]
async fn remove_profile_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<Named>,
) -> Result<StatusCode, ApiError> {
    remove_profile(&state, operator.may(Scope::Manage)?, &call.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Name a key or a voucher.
#[derive(Deserialize, ToSchema)]
struct AttachCall {
    /// The profile; the prices of the list, if absent.
    #[serde(default)]
    profile: Option<String>,
    /// The first digits of a key's hash.
    #[serde(default)]
    key: Option<String>,
    /// The id of an open voucher.
    #[serde(default)]
    voucher: Option<String>,
}

/// Gives a key, or the key that a voucher will make, a profile, or takes it away.
#[utoipa::path(post, path = "/admin/api/profiles/attach", tag = "admin",
    security(("operator" = ["manage"])), request_body = AttachCall, responses(
    (status = 204), (status = 400, body = Complaint), (status = 403, body = Complaint),
    (status = 404, body = Complaint), (status = 409, body = Complaint),
))]
async fn attach_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<AttachCall>,
) -> Result<StatusCode, ApiError> {
    let actor = operator.may(Scope::Manage)?;
    let holder = match (&call.key, &call.voucher) {
        (Some(key), None) => Holder::Key(key),
        (None, Some(voucher)) => Holder::Voucher(voucher),
        _ => return Err(AdminError::invalid("Name a key or a voucher, and not both.").into()),
    };
    attach(&state, actor, holder, call.profile.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a window, or changes the one of that name.
#[utoipa::path(post, path = "/admin/api/windows/set", tag = "admin",
    security(("operator" = ["manage"])), request_body = WindowEntry, responses(
    (status = 204), (status = 400, body = Complaint), (status = 403, body = Complaint),
    (status = 409, body = Complaint),
))]
async fn put_window_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(entry): Body<WindowEntry>,
) -> Result<StatusCode, ApiError> {
    set_window(&state, operator.may(Scope::Manage)?, &entry).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a window.
#[utoipa::path(post, path = "/admin/api/windows/remove", tag = "admin",
    security(("operator" = ["manage"])), request_body = Named, responses(
    (status = 204), (status = 403, body = Complaint), (status = 404, body = Complaint),
))]
async fn remove_window_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<Named>,
) -> Result<StatusCode, ApiError> {
    remove_window(&state, operator.may(Scope::Manage)?, &call.name).await?;
    Ok(StatusCode::NO_CONTENT)
}
