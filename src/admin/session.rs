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
use crate::net;
use crate::vault::hex;

pub(super) const COOKIE: &str = "coinslot_session";
const HOURS_24_IN_SECONDS: i64 = 24 * 60 * 60;
/// How long a program that logged in need not do so again.
pub(super) const HOUR_IN_SECONDS: i64 = 60 * 60;

/// How a session was opened. A cookie opens no call, and the token of a program no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Page,
    Api,
}

impl Via {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Api => "api",
        }
    }
}

/// An operator who is logged in.
pub(super) struct Session {
    id_hash: String,
    csrf: String,
    actor: Actor,
    unit: Unit,
}

impl Session {
    /// The session of the request's cookie, unless it has expired, or is of somebody who may not log in any more.
    pub(super) async fn find(state: &AdminState, headers: &HeaderMap) -> Result<Option<Self>, AdminError> {
        let Some(id_hash) = cookie(headers, COOKIE).map(hash) else {
            return Ok(None);
        };
        let found = repo::session(state.ledger.store(), &id_hash, Via::Page, state.now_ms()).await?;
        let found = found.filter(|found| found.actor.may_log_in(&state.npubs));
        let unit = Unit::of(headers);
        Ok(found.map(|found| Self { id_hash, csrf: found.csrf, actor: found.actor, unit }))
    }

    /// Makes a session in place of the one that the request had. Returns its cookie.
    pub(super) async fn begin(
        state: &AdminState,
        headers: &HeaderMap,
        actor: &Actor,
    ) -> Result<HeaderValue, AdminError> {
        let replaced = cookie(headers, COOKIE).map(hash);
        let id = open(state, actor, Via::Page, HOURS_24_IN_SECONDS, replaced.as_deref()).await?;
        set_cookie(COOKIE, &id, "/admin", HOURS_24_IN_SECONDS, is_secure(headers))
    }

    /// Ends it. Returns the cookie that makes the browser forget it.
    pub(super) async fn end(self, state: &AdminState, headers: &HeaderMap) -> Result<HeaderValue, AdminError> {
        repo::close_session(state.ledger.store(), &self.id_hash).await?;
        forget(headers)
    }

    /// As the database knows it.
    pub(super) fn id_hash(&self) -> &str {
        &self.id_hash
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

/// The cookie that makes the browser forget its session.
pub(super) fn forget(headers: &HeaderMap) -> Result<HeaderValue, AdminError> {
    set_cookie(COOKIE, "", "/admin", 0, is_secure(headers))
}

/// Opens a session, in place of another if there was one. Returns what opens it, which is nowhere else.
pub(super) async fn open(
    state: &AdminState,
    actor: &Actor,
    via: Via,
    seconds: i64,
    replaced: Option<&str>,
) -> Result<String, AdminError> {
    let (id, now_ms) = (random_token(), state.now_ms());
    let row = repo::NewSession {
        id_hash: &hash(&id),
        csrf: &random_token(),
        actor: actor.as_str(),
        via,
        expires_at: now_ms.saturating_add(seconds.saturating_mul(1000)),
    };
    repo::open_session(state.ledger.store(), row, replaced, now_ms).await?;
    Ok(id)
}

/// Whether a cookie that answers this request insists on HTTPS. It does, but where there is none: on this
/// machine, and behind an onion address, which is encrypted all the way. Where a reverse proxy asks for
/// `localhost`, the browser's `Origin` says how its page was reached.
pub(super) fn is_secure(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::ORIGIN).is_some_and(|origin| origin.starts_with("https://")) {
        return true;
    }
    !text(header::HOST).is_some_and(is_private)
}

/// Whether a browser is at a page of this node by an address on which a cookie that insists on HTTPS is lost.
pub(super) fn is_in_clear(headers: &HeaderMap) -> bool {
    let origin = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok());
    origin.and_then(|origin| origin.strip_prefix("http://")).is_some_and(|host| !is_private(host))
}

/// Whether what goes to this host (with or without a port) is read by nobody on the way.
fn is_private(host: &str) -> bool {
    url::Url::parse(&format!("http://{host}/")).is_ok_and(|url| net::is_loopback(&url) || net::is_onion(&url))
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
    fn cookies_insist_on_https_where_there_is_any() {
        let onion = format!("{}.onion", "a".repeat(56));
        let rows: &[(&str, Option<&str>, bool, bool)] = &[
            ("127.0.0.1:8000", None, false, false),
            ("localhost", Some("http://localhost"), false, false),
            ("[::1]:8000", Some("http://[::1]:8000"), false, false),
            (&onion, None, false, false),
            ("node.example", None, true, false),
            ("node.example", Some("https://node.example"), true, false),
            ("node.example", Some("http://node.example"), true, true),
            ("10.0.0.5:8000", Some("http://10.0.0.5:8000"), true, true),
            ("localhost.example", Some("http://localhost.example"), true, true),
            ("127.0.0.1:8000", Some("https://node.example"), true, false),
            ("", None, true, false),
        ];
        for (host, origin, secure, in_clear) in rows {
            let mut headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_str(host).unwrap())]);
            headers.extend(origin.map(|origin| (header::ORIGIN, HeaderValue::from_str(origin).unwrap())));
            assert_eq!((is_secure(&headers), is_in_clear(&headers)), (*secure, *in_clear), "{host} {origin:?}");
        }
        assert!(is_secure(&HeaderMap::new()));
    }

    #[test]
    fn tokens_are_256_random_bits() {
        assert_eq!(URL_SAFE_NO_PAD.decode(random_token()).unwrap().len(), 32);
        assert!(!same(&random_token(), &random_token()));
        assert!(same("a", "a") && !same("a", "") && !same("a", "ab"));
    }
}
