//! The same for programs: logging in and out, and all that the page does, in the shapes of this network's first
//! implementation where that has the call.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Scope, Token, View, Wanted, signing, tokens};
use crate::admin::api::{ApiError, Body, Complaint, Part, Raw, read_body};
use crate::admin::operator::{Actor, Operator};
use crate::admin::password::Door;
use crate::admin::session::{self, HOUR_IN_SECONDS, Via};
use crate::admin::{AdminError, AdminState, repo};
use crate::config::Secret;

const LOGIN: &str = "/admin/api/login";

pub(in crate::admin) fn api() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(log_in))
        .routes(routes!(log_out))
        .routes(routes!(change_password))
        .routes(routes!(list_tokens, create_token))
        .routes(routes!(revoke_token))
        .routes(routes!(access, log_out_everywhere))
}

#[derive(Deserialize, ToSchema)]
struct LoginCall {
    password: String,
}

#[derive(Serialize, ToSchema)]
struct LoggedIn {
    ok: bool,
    /// For `Authorization: Bearer`.
    token: String,
    /// In seconds.
    expires_in: i64,
}

#[derive(Serialize, ToSchema)]
struct Done {
    ok: bool,
}

const DONE: Json<Done> = Json(Done { ok: true });

/// Logs in, with the password or, without a body, by a signature (`Authorization: Nostr`, NIP-98).
#[utoipa::path(post, path = "/admin/api/login", tag = "admin", request_body = Option<LoginCall>, responses(
    (status = 200, body = LoggedIn),
    (status = 400, body = Complaint),
    (status = 401, description = "Not the password, or a signature that is not good here", body = Complaint),
    (status = 413, body = Complaint), (status = 415, body = Complaint), (status = 422, body = Complaint),
    (status = 429, description = "Too soon after a wrong one: Retry-After says when", body = Complaint),
), security(()))]
async fn log_in(
    State(state): State<AdminState>,
    door: Door,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Result<Json<LoggedIn>, ApiError> {
    let actor = match signature(&headers) {
        Some(encoded) => signing::check(&state, encoded, LOGIN, &body).await?,
        None => {
            let call: LoginCall = read_body(&headers, &body)?;
            state.password.check(Secret::new(call.password), door).await?.admit()?;
            Actor::of_password()
        }
    };
    let token = session::open(&state, &actor, Via::Api, HOUR_IN_SECONDS, None).await?;
    tracing::info!(actor = actor.as_str(), "a program logged in");
    Ok(Json(LoggedIn { ok: true, token, expires_in: HOUR_IN_SECONDS }))
}

fn signature(headers: &HeaderMap) -> Option<&str> {
    let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("nostr").then(|| encoded.trim())
}

/// Ends the session whose token is sent. A token for programs is revoked instead.
#[utoipa::path(post, path = "/admin/api/logout", tag = "admin", responses(
    (status = 200, body = Done), (status = 403, body = Complaint), (status = 409, body = Complaint),
))]
async fn log_out(State(state): State<AdminState>, operator: Operator) -> Result<Json<Done>, ApiError> {
    let id_hash = operator.session().ok_or_else(|| AdminError::conflict("A token is revoked, not logged out."))?;
    repo::close_session(state.ledger.store(), id_hash).await.map_err(AdminError::from)?;
    Ok(DONE)
}

#[derive(Deserialize, ToSchema)]
struct PasswordCall {
    old_password: String,
    /// 12 characters or more.
    new_password: String,
}

/// Sets another password. All other sessions end.
#[utoipa::path(patch, path = "/admin/api/password", tag = "admin",
    security(("operator" = ["manage"])), request_body = PasswordCall, responses(
    (status = 200, body = Done), (status = 400, body = Complaint),
    (status = 401, description = "Not the old password", body = Complaint), (status = 403, body = Complaint),
    (status = 409, description = "ADMIN_PASSWORD is set, and the environment wins", body = Complaint),
    (status = 413, body = Complaint), (status = 415, body = Complaint), (status = 422, body = Complaint),
    (status = 429, description = "Too soon after a wrong one: Retry-After says when", body = Complaint),
))]
async fn change_password(
    State(state): State<AdminState>,
    door: Door,
    operator: Operator,
    Body(call): Body<PasswordCall>,
) -> Result<Json<Done>, ApiError> {
    let actor = operator.may(Scope::Manage)?;
    let both = (Secret::new(call.old_password), Secret::new(call.new_password));
    super::change_password(&state, actor, (operator.session(), door), both).await?;
    Ok(DONE)
}

/// Who gets in: sessions, tokens, who may sign.
#[utoipa::path(get, path = "/admin/api/access", tag = "admin", security(("operator" = ["read"])), responses(
    (status = 200, body = View), (status = 403, body = Complaint),
))]
async fn access(State(state): State<AdminState>, operator: Operator) -> Result<Json<View>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(super::view(&state, operator.session()).await?))
}

/// Ends all sessions, this one too. Tokens for programs stay.
#[utoipa::path(delete, path = "/admin/api/access", tag = "admin", security(("operator" = ["manage"])), responses(
    (status = 200, body = Done), (status = 403, body = Complaint),
))]
async fn log_out_everywhere(State(state): State<AdminState>, operator: Operator) -> Result<Json<Done>, ApiError> {
    super::log_out_everywhere(&state, operator.may(Scope::Manage)?).await?;
    Ok(DONE)
}

/// The tokens for programs, without themselves.
#[utoipa::path(get, path = "/admin/api/cli-tokens", tag = "admin", security(("operator" = ["read"])), responses(
    (status = 200, body = Vec<Token>), (status = 403, body = Complaint),
))]
async fn list_tokens(State(state): State<AdminState>, operator: Operator) -> Result<Json<Vec<Token>>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(tokens::list(state.ledger.store()).await?))
}

#[derive(Deserialize, ToSchema)]
struct TokenCall {
    name: String,
    /// Of `read`, `manage` and `money`; `read` when absent.
    scopes: Option<Vec<String>>,
    /// Days that it lives for, 1 to 3650; as long as its maker, else without end, when absent.
    expires_in_days: Option<u64>,
}

/// A token that was made just now.
#[derive(Serialize, ToSchema)]
struct MadeToken {
    /// Shown once.
    token: String,
    #[serde(flatten)]
    about: Token,
}

/// Makes a token for programs. It may give no scope that its maker lacks, and ends with its maker at the latest.
#[utoipa::path(post, path = "/admin/api/cli-tokens", tag = "admin",
    security(("operator" = ["manage"])), request_body = TokenCall, responses(
    (status = 201, body = MadeToken), (status = 400, body = Complaint), (status = 403, body = Complaint),
    (status = 409, description = "There are as many as there may be", body = Complaint),
    (status = 413, body = Complaint), (status = 415, body = Complaint), (status = 422, body = Complaint),
))]
async fn create_token(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<TokenCall>,
) -> Result<(StatusCode, Json<MadeToken>), ApiError> {
    let actor = operator.may(Scope::Manage)?;
    let scopes = call.scopes.unwrap_or_else(|| vec![Scope::Read.as_str().to_owned()]);
    let wanted = Wanted { name: call.name, scopes, days: call.expires_in_days };
    let maker = tokens::Maker { scopes: operator.scopes(), ends_ms: operator.token_ends_ms() };
    let (about, secret) = tokens::create(state.desk(actor), &maker, &wanted).await?;
    Ok((StatusCode::CREATED, Json(MadeToken { token: secret.expose().to_owned(), about })))
}

/// Makes a token useless, at once.
#[utoipa::path(delete, path = "/admin/api/cli-tokens/{id}", tag = "admin", security(("operator" = ["manage"])),
    params(("id" = String, Path, description = "As the list has it")), responses(
    (status = 200, body = Done), (status = 403, body = Complaint), (status = 404, body = Complaint),
))]
async fn revoke_token(
    State(state): State<AdminState>,
    operator: Operator,
    Part(id): Part<String>,
) -> Result<Json<Done>, ApiError> {
    let actor = operator.may(Scope::Manage)?;
    tokens::revoke(state.desk(actor), &id).await?;
    Ok(DONE)
}
