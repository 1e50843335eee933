//! Logging in and out.
//!
//! The login form has no session yet: its token is repeated in a cookie that only this page sets.

use askama::Template;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::access::signing;
use super::operator::Actor;
use super::password::Door;
use super::session::{self, HOUR_IN_SECONDS, Session};
use super::{AdminError, AdminState, Notice, page};
use crate::config::Secret;

const COOKIE: &str = "coinslot_login";
const PATH: &str = "/admin/login";
const BY_SIGNATURE: &str = "/admin/login/nostr";

const SCRIPT: &str = include_str!("../../templates/admin/login.js");
/// For the one page of these that has a script: only where somebody may sign, and only that script.
const POLICY_WITH_SCRIPT: &str = "default-src 'none'; script-src 'self'; style-src 'self'; form-action 'self'; \
     frame-ancestors 'none'; base-uri 'none'";

#[derive(Template)]
#[template(path = "admin/login.html")]
struct Page<'a> {
    name: &'a str,
    csrf: &'a str,
    message: &'a str,
    /// Somebody may log in by a signature.
    signs: bool,
}

#[derive(Deserialize)]
pub(super) struct Login {
    csrf: String,
    password: String,
}

#[derive(Deserialize)]
pub(super) struct Logout {
    csrf: String,
}

#[derive(Deserialize)]
pub(super) struct Signed {
    csrf: String,
    /// An event in base64.
    event: String,
}

pub(super) async fn show(State(state): State<AdminState>, headers: HeaderMap) -> Result<Response, AdminError> {
    if Session::find(&state, &headers).await?.is_some() {
        return Ok(Redirect::to("/admin").into_response());
    }
    form(&state, &headers, &Notice::none())
}

pub(super) async fn log_in(
    State(state): State<AdminState>,
    door: Door,
    headers: HeaderMap,
    Form(login): Form<Login>,
) -> Result<Response, AdminError> {
    let entered = async {
        admit_form(&headers, &login.csrf)?;
        state.password.check(Secret::new(login.password), door).await?.admit()?;
        Ok(Actor::of_password())
    };
    enter(&state, &headers, entered.await).await
}

/// Logs the operator in by a signed Nostr event, which `login.js` has asked the browser's extension for. When it is
/// refused, the form is shown again with the reason.
pub(super) async fn by_signature(
    State(state): State<AdminState>,
    headers: HeaderMap,
    Form(signed): Form<Signed>,
) -> Result<Response, AdminError> {
    let entered = async {
        admit_form(&headers, &signed.csrf)?;
        // The event is in the form, so it cannot be about the form.
        signing::check(&state, &signed.event, BY_SIGNATURE, b"").await
    };
    enter(&state, &headers, entered.await).await
}

fn admit_form(headers: &HeaderMap, csrf: &str) -> Result<(), AdminError> {
    let token = session::cookie(headers, COOKIE).unwrap_or_default();
    if token.is_empty() || !session::same(token, csrf) {
        return Err(AdminError::forbidden("This form was out of date. Please try again."));
    }
    if session::is_in_clear(headers) {
        return Err(AdminError::forbidden(
            "Nothing encrypts the way to this address, and so no session can be kept on it. Use HTTPS, the onion \
             address, or localhost through a tunnel (ssh -L).",
        ));
    }
    Ok(())
}

/// Begins a session, or shows the form again with the reason.
async fn enter(
    state: &AdminState,
    headers: &HeaderMap,
    entered: Result<Actor, AdminError>,
) -> Result<Response, AdminError> {
    let actor = match entered {
        Ok(actor) => actor,
        Err(error) => {
            let retry = if let AdminError::TooSoon(secs) = error { Some(secs) } else { None };
            let mut response = form(state, headers, &error.told()?)?;
            response.headers_mut().extend(retry.map(|secs| (header::RETRY_AFTER, secs.into())));
            return Ok(response);
        }
    };
    let cookies = AppendHeaders([
        (header::SET_COOKIE, Session::begin(state, headers, &actor).await?),
        (header::SET_COOKIE, session::set_cookie(COOKIE, "", PATH, 0, session::is_secure(headers))?),
    ]);
    tracing::info!(actor = actor.as_str(), "the operator logged in");
    Ok((cookies, Redirect::to("/admin")).into_response())
}

pub(super) async fn log_out(
    State(state): State<AdminState>,
    session: Session,
    headers: HeaderMap,
    Form(logout): Form<Logout>,
) -> Result<Response, AdminError> {
    session.confirm(&logout.csrf)?;
    let cookie = AppendHeaders([(header::SET_COOKIE, session.end(&state, &headers).await?)]);
    Ok((cookie, Redirect::to(PATH)).into_response())
}

/// The form, with a token of its own.
fn form(state: &AdminState, headers: &HeaderMap, notice: &Notice) -> Result<Response, AdminError> {
    let csrf = session::random_token();
    let cookie = session::set_cookie(COOKIE, &csrf, PATH, HOUR_IN_SECONDS, session::is_secure(headers))?;
    let signs = !state.npubs.is_empty();
    let html = page(&Page { name: &state.name(), csrf: &csrf, message: &notice.message, signs })?;
    let mut response = (notice.status, AppendHeaders([(header::SET_COOKIE, cookie)]), html).into_response();
    if signs {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY_WITH_SCRIPT));
    }
    Ok(response)
}

/// What asks for the signature.
pub(super) async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT)
}
