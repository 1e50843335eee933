//! The button that proves the books now, mints included. The job does the same every hour.

use axum::Json;
use axum::extract::{Form, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::super::api::{ApiError, Complaint};
use super::super::operator::{Actor, Operator, Scope};
use super::super::session::Session;
use super::super::{AdminError, AdminState, shown_again};
use super::{PATH, Proof, Wanted, proof, render};
use crate::audit::{Auditor, MOST_ASKED};
use crate::wallet::holdings::Inspector;

async fn prove(state: &AdminState, actor: &Actor) -> Result<Proof, AdminError> {
    let auditor = Auditor::of(state.ledger.clone(), Inspector::of(&state.wallet), MOST_ASKED);
    let Some(report) = state.audit.renew(&auditor).await? else {
        return Err(AdminError::conflict("The books are being proven just now."));
    };
    let proof = proof(&report);
    let found = json!({ "verdict": proof.verdict, "faults": report.faults.len() });
    state.desk(actor).note("books.prove", "", &found).await?;
    Ok(proof)
}

#[derive(Deserialize)]
pub(super) struct Press {
    csrf: String,
}

pub(super) async fn press(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Press>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let proven = prove(&state, session.actor()).await;
    let refused = async |notice| render(&state, &session, &Wanted::default(), notice).await;
    shown_again(proven.map(|_| PATH), refused).await
}

/// Proves the books now, and asks the mints about the ecash.
#[utoipa::path(post, path = "/admin/api/prove", tag = "admin", security(("operator" = ["manage"])), responses(
    (status = 200, body = Proof), (status = 403, body = Complaint), (status = 409, body = Complaint),
))]
pub(super) async fn prove_call(State(state): State<AdminState>, operator: Operator) -> Result<Json<Proof>, ApiError> {
    Ok(Json(prove(&state, operator.may(Scope::Manage)?).await?))
}
