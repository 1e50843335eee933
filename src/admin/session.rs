//! Who is logged in: a random cookie, of which the database knows the hash.
//!
//! A session is made anew at every login, ends at logout or after a day, and carries the token
//! that its forms must repeat.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::frame::Unit;
use super::operator::Actor;
use super::{AdminError, AdminState, repo};
use crate::vault::hex;

pub(super) const COOKIE: &str = "coinslot_session";
const HOURS_24_IN_SECONDS: i64 = 24 * 60 * 60;

/// An operator who is logged in.
pub(super) struct Session {
    id_hash: String,
    csrf: String,
    actor: Actor,
    unit: Unit,
}

impl Session {
    /// The session of the request's cookie, unless it has expired.
    pub(super) async fn find(state: &AdminState, headers: &HeaderMap) -> Result<Option<Self>, AdminError> {
        let Some(id_hash) = cookie(headers, COOKIE).map(hash) else {
            return Ok(None);
        };
        let found = repo::session(state.ledger.store(), &id_hash, state.now_ms()).await?;
        let unit = Unit::of(headers);
        Ok(found.map(|found| Self { id_hash, csrf: found.csrf, actor: Actor::new(found.actor), unit }))
    }

    /// Makes a session in place of the one that the request had. Returns its cookie.
    pub(super) async fn begin(
        state: &AdminState,
        headers: &HeaderMap,
        actor: &Actor,
    ) -> Result<HeaderValue, AdminError> {
        let id = random_token();
        let replaced = cookie(headers, COOKIE).map(hash);
        let now_ms = state.now_ms();
        let row = repo::NewSession {
            id_hash: &hash(&id),
            csrf: &random_token(),
            actor: actor.as_str(),
            expires_at: now_ms.saturating_add(HOURS_24_IN_SECONDS.saturating_mul(1000)),
        };
        repo::open_session(state.ledger.store(), row, replaced.as_deref(), now_ms).await?;
        set_cookie(COOKIE, &id, "/admin", HOURS_24_IN_SECONDS, state.may_insist(headers))
    }

    /// Ends it. Returns the cookie that makes the browser forget it.
    pub(super) async fn end(self, state: &AdminState, headers: &HeaderMap) -> Result<HeaderValue, AdminError> {
        repo::close_session(state.ledger.store(), &self.id_hash).await?;
        set_cookie(COOKIE, "", "/admin", 0, state.may_insist(headers))
    }

    /// What every form of this session carries.
    pub(super) fn csrf(&self) -> &str {
        &self.csrf
    }

    /// Whose session it is.
    pub(super) fn actor(&self) -> &Actor {
        &self.actor
    }

    /// What this browser is shown amounts in.
    pub(super) fn unit(&self) -> Unit {
        self.unit
    }

    /// Whether a form that came in is one of this session's.
    ///
    /// # Errors
    /// [`AdminError::OutOfDate`] when it is not.
    pub(super) fn confirm(&self, csrf: &str) -> Result<(), AdminError> {
        if same(&self.csrf, csrf) { Ok(()) } else { Err(AdminError::OutOfDate) }
    }
}

impl FromRequestParts<AdminState> for Session {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Response> {
        match Self::find(state, &parts.headers).await {
            Ok(Some(session)) => Ok(session),
            Ok(None) => Err(Redirect::to("/admin/login").into_response()),
            Err(error) => Err(error.into_response()),
        }
    }
}

/// 256 random bits, as text for cookies and forms.
pub(super) fn random_token() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// Whether two tokens are the same, in constant time.
pub(super) fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// The value of the request's cookie of that name, unless it is empty.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(found, value)| (found == name && !value.is_empty()).then_some(value))
}

pub(super) fn set_cookie(
    name: &str,
    value: &str,
    path: &str,
    max_age_seconds: i64,
    secure: bool,
) -> Result<HeaderValue, AdminError> {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; HttpOnly; SameSite=Strict; Path={path}; Max-Age={max_age_seconds}{secure}");
    HeaderValue::from_str(&text).map_err(|error| AdminError::Cookie(error.to_string()))
}

/// As the database knows a cookie or a token.
pub(super) fn hash(id: &str) -> String {
    hex(&Sha256::digest(id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_its_cookie_among_others() {
        let rows = [
            ("coinslot_session=a", Some("a")),
            ("x=1; coinslot_session=a=b ; y=2", Some("a=b")),
            ("xcoinslot_session=a; coinslot_sessionx=b", None),
            ("coinslot_session=", None),
            ("coinslot_session", None),
        ];
        for (line, value) in rows {
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(line))]);
            assert_eq!(cookie(&headers, COOKIE), value, "{line}");
        }
    }

    #[test]
    fn tokens_are_256_random_bits() {
        assert_eq!(URL_SAFE_NO_PAD.decode(random_token()).unwrap().len(), 32);
        assert!(!same(&random_token(), &random_token()));
        assert!(same("a", "a") && !same("a", "") && !same("a", "ab"));
    }
}
