//! Logging in and out.
//!
//! The login form has no session yet: its token is repeated in a cookie that only this page sets.

use std::time::Duration;

use askama::Template;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::operator::Actor;
use super::password::Verdict;
use super::session::{self, Session};
use super::{AdminError, AdminState, page};
use crate::config::Secret;

const COOKIE: &str = "coinslot_login";
const PATH: &str = "/admin/login";
const HOUR_IN_SECONDS: i64 = 60 * 60;

#[derive(Template)]
#[template(path = "admin/login.html")]
struct Page<'a> {
    name: &'a str,
    csrf: &'a str,
    message: &'a str,
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

pub(super) async fn show(State(state): State<AdminState>, headers: HeaderMap) -> Result<Response, AdminError> {
    if Session::find(&state, &headers).await?.is_some() {
        return Ok(Redirect::to("/admin").into_response());
    }
    form(&state, StatusCode::OK, "")
}

pub(super) async fn log_in(
    State(state): State<AdminState>,
    headers: HeaderMap,
    Form(login): Form<Login>,
) -> Result<Response, AdminError> {
    let token = session::cookie(&headers, COOKIE).unwrap_or_default();
    if token.is_empty() || !session::same(token, &login.csrf) {
        return form(&state, StatusCode::FORBIDDEN, "This form was out of date. Please try again.");
    }
    match state.password.check(Secret::new(login.password)).await? {
        Verdict::Right => {
            let secure = state.secure_cookies;
            let cookies = AppendHeaders([
                (header::SET_COOKIE, Session::begin(&state, &headers, &Actor::new("password".to_owned())).await?),
                (header::SET_COOKIE, session::set_cookie(COOKIE, "", PATH, 0, secure)?),
            ]);
            tracing::info!("the operator logged in");
            Ok((cookies, Redirect::to("/admin")).into_response())
        }
        Verdict::Wrong => {
            tracing::warn!("a login to the admin pages failed");
            form(&state, StatusCode::UNAUTHORIZED, "That is not the password.")
        }
        Verdict::TooSoon(wait) => {
            let seconds = rounded_up(wait);
            let message = format!("Too many attempts. Try again in {seconds} s.");
            let mut response = form(&state, StatusCode::TOO_MANY_REQUESTS, &message)?;
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            Ok(response)
        }
    }
}

pub(super) async fn log_out(
    State(state): State<AdminState>,
    session: Session,
    Form(logout): Form<Logout>,
) -> Result<Response, AdminError> {
    session.confirm(&logout.csrf)?;
    let cookie = AppendHeaders([(header::SET_COOKIE, session.end(&state).await?)]);
    Ok((cookie, Redirect::to(PATH)).into_response())
}

/// The form, with a token of its own.
fn form(state: &AdminState, status: StatusCode, message: &str) -> Result<Response, AdminError> {
    let csrf = session::random_token();
    let cookie = session::set_cookie(COOKIE, &csrf, PATH, HOUR_IN_SECONDS, state.secure_cookies)?;
    let html = page(&Page { name: &state.name(), csrf: &csrf, message })?;
    Ok((status, AppendHeaders([(header::SET_COOKIE, cookie)]), html).into_response())
}

fn rounded_up(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}
