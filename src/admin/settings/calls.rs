//! Settings for programs.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{DefaultBodyLimit, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::api::{ApiError, Body, Complaint, Search};
use super::super::operator::{Operator, Scope};
use super::super::{AdminState, MAX_LONG_FORM_BYTES};
use super::{View, move_money, pack, set, take, views};
use crate::operator::parcel::{Parcel, Taken};

pub(in crate::admin) fn api() -> OpenApiRouter<AdminState> {
    let calls = OpenApiRouter::new().routes(routes!(list_call, change_call)).routes(routes!(export_call, import_call));
    calls.layer(DefaultBodyLimit::max(MAX_LONG_FORM_BYTES))
}

/// All settings, what they are, and who says so. Secrets are never shown.
#[utoipa::path(get, path = "/admin/api/settings", tag = "admin", security(("operator" = ["read"])), responses(
    (status = 200, body = Vec<View>), (status = 403, body = Complaint),
))]
async fn list_call(State(state): State<AdminState>, operator: Operator) -> Result<Json<Vec<View>>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(views(&state).await?))
}

/// Values by name, as they would be written in the environment; null takes one back.
#[derive(Deserialize, ToSchema)]
struct Changes {
    settings: BTreeMap<String, Option<String>>,
}

/// What was changed.
#[derive(Serialize, ToSchema)]
struct Done {
    changed: Vec<String>,
}

/// Changes settings: all of them or none. What says where money goes, or at which address clients
/// pay, takes the scope `money`.
#[utoipa::path(patch, path = "/admin/api/settings", tag = "admin",
    security(("operator" = ["manage"])), request_body = Changes, responses(
    (status = 200, body = Done), (status = 400, body = Complaint), (status = 403, body = Complaint),
    (status = 409, body = Complaint),
))]
async fn change_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(changes): Body<Changes>,
) -> Result<Json<Done>, ApiError> {
    let actor = operator.may(Scope::Manage)?;
    if move_money(changes.settings.keys()) {
        operator.may(Scope::Money)?;
    }
    let changed = set(&state, actor, &changes.settings).await?;
    Ok(Json(Done { changed: changed.into_iter().map(|one| one.name).collect() }))
}

/// The settings, profiles and windows of this node, for another one. No secret is in it.
#[utoipa::path(get, path = "/admin/api/settings/export", tag = "admin", security(("operator" = ["read"])), responses(
    (status = 200, body = Parcel), (status = 403, body = Complaint),
))]
async fn export_call(State(state): State<AdminState>, operator: Operator) -> Result<Json<Parcel>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(pack(&state).await?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// Says what would be changed, and changes nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Takes over what another node exported: all of it or nothing. What the environment says stays. What says where money
/// goes, or at which address clients pay, takes the scope `money`.
#[utoipa::path(post, path = "/admin/api/settings/export", tag = "admin",
    security(("operator" = ["manage"])), params(Asked), request_body = Parcel, responses(
    (status = 200, body = Taken), (status = 400, body = Complaint), (status = 403, body = Complaint),
))]
async fn import_call(
    State(state): State<AdminState>,
    operator: Operator,
    Search(asked): Search<Asked>,
    Body(parcel): Body<Parcel>,
) -> Result<Json<Taken>, ApiError> {
    let actor = operator.may(Scope::Manage)?;
    if move_money(parcel.settings.keys()) {
        operator.may(Scope::Money)?;
    }
    Ok(Json(take(&state, actor, &parcel, asked.dry_run).await?))
}
