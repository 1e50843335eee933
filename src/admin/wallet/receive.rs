//! Ecash that the operator brings: it becomes income, as a gift does. The same token comes in once.

use axum::Json;
use axum::extract::{Form, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::to_its_end;
use crate::admin::api::{ApiError, Body, Complaint};
use crate::admin::operator::{Actor, Operator, Scope};
use crate::admin::session::Session;
use crate::admin::{AdminError, AdminState, Notice, format};
use crate::failure::{Blame, Failure};
use crate::ledger::keys::short;
use crate::payment;

/// Redeems a token to the income. Noted before it is done, by the digest of the token.
async fn receive(state: &AdminState, actor: &Actor, text: &str) -> Result<Received, AdminError> {
    state.till.may_move().map_err(refused)?;
    let token = payment::read_token(text.trim()).map_err(refused)?;
    let hash = short(&state.till.token_hash(text.trim()));
    let detail = json!({ "mint": token.mint, "unit": token.unit.as_str(), "face_msat": token.face.get() });
    state.desk(actor).note("wallet.receive", &hash, &detail).await?;
    let till = state.till.clone();
    to_its_end(state, async move {
        let received = till.donate(&token).await.map_err(refused)?;
        Ok(Received { msat: received.to_db(), mint: token.mint })
    })
    .await
}

fn refused(failure: Failure) -> AdminError {
    match failure.blame {
        Blame::Node | Blame::Upstream => AdminError::conflict(failure.message),
        Blame::Client | Blame::Payment => AdminError::invalid(failure.message),
    }
}

#[derive(Deserialize)]
pub(super) struct ReceiveForm {
    csrf: String,
    token: String,
}

pub(super) async fn receive_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<ReceiveForm>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let (notice, news) = match receive(&state, session.actor(), &form.token).await {
        Ok(received) => (Notice::none(), format!("{} sat came in.", format::sat(received.msat))),
        Err(error) => (error.told()?, String::new()),
    };
    super::render(&state, &session, notice, news).await
}

/// Ecash that is brought.
#[derive(Deserialize, ToSchema)]
#[schema(as = Receive)]
pub(super) struct ReceiveCall {
    /// cashuA… or cashuB…
    token: String,
}

/// Ecash that came in.
#[derive(Serialize, ToSchema)]
#[schema(as = Received)]
pub(super) struct Received {
    /// What it was worth after the mint's fee.
    msat: i64,
    mint: String,
}

/// Redeems a token to the node's income. The same token comes in once.
#[utoipa::path(post, path = "/admin/api/wallet/receive", tag = "admin",
    security(("operator" = ["money"])), request_body = ReceiveCall, responses(
    (status = 200, body = Received), (status = 400, body = Complaint), (status = 403, body = Complaint),
    (status = 409, body = Complaint),
))]
pub(super) async fn receive_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<ReceiveCall>,
) -> Result<Json<Received>, ApiError> {
    Ok(Json(receive(&state, operator.may(Scope::Money)?, &call.token).await?))
}
