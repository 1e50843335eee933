//! The maintenance switch: nothing is sold while it is on. Its button is on the page of the settings.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{ApiError, Body, Complaint};
use super::operator::{Actor, Operator, Scope};
use super::{AdminError, AdminState};
use crate::operator::maintenance as acts;

pub(super) fn api() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(show_call, turn_call))
}

/// How the switch stands.
#[derive(Serialize, ToSchema)]
pub(super) struct View {
    /// Nothing is sold, and no token is taken; balances and refunds are open.
    pub on: bool,
    /// The environment says so (MAINTENANCE), and wins.
    pub is_fixed: bool,
}

pub(super) fn view(state: &AdminState) -> View {
    let maintenance = &state.exchange.maintenance;
    View { on: maintenance.is_on(), is_fixed: maintenance.is_fixed() }
}

/// Turns the switch, for every node of the database.
pub(super) async fn turn(state: &AdminState, actor: &Actor, on: bool) -> Result<(), AdminError> {
    let maintenance = &state.exchange.maintenance;
    if maintenance.is_fixed() {
        let message = "MAINTENANCE is set in the environment, which wins; change it there and start the node anew.";
        return Err(AdminError::conflict(message));
    }
    acts::turn(state.desk(actor), on).await?;
    Ok(maintenance.look(state.ledger.store()).await?)
}

/// How the maintenance switch stands.
#[utoipa::path(get, path = "/admin/api/maintenance", tag = "admin", security(("operator" = ["read"])), responses(
    (status = 200, body = View), (status = 403, body = Complaint),
))]
async fn show_call(State(state): State<AdminState>, operator: Operator) -> Result<Json<View>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(view(&state)))
}

#[derive(Deserialize, ToSchema)]
struct Turn {
    on: bool,
}

/// Stops the sale, or resumes it.
#[utoipa::path(post, path = "/admin/api/maintenance", tag = "admin",
    security(("operator" = ["manage"])), request_body = Turn, responses(
    (status = 204), (status = 403, body = Complaint), (status = 409, body = Complaint),
))]
async fn turn_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<Turn>,
) -> Result<StatusCode, ApiError> {
    turn(&state, operator.may(Scope::Manage)?, call.on).await?;
    Ok(StatusCode::NO_CONTENT)
}
