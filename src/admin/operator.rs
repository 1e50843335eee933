//! Who asks for something on the operator's side, and what they may: a person with a session, or a program with a
//! token. What is done is done by the same functions for both ([`super`]).

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::api::ApiError;
use super::session::Via;
use super::{AdminError, AdminState, access, repo, session};
use crate::clock::MINUTE_MS;

/// What a token may be used for. The password, and who is listed in its place, may all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// To look at everything that is no secret.
    Read,
    /// To change how the node works: keys, vouchers, upstreams, models, settings.
    Manage,
    /// To take money out of it, or to move it.
    Money,
}

impl Scope {
    pub(super) const ALL: [Self; 3] = [Self::Read, Self::Manage, Self::Money];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Manage => "manage",
            Self::Money => "money",
        }
    }

    /// The scopes in a text of words. Words that are none are passed over: they allow nothing.
    pub(super) fn read_all(text: &str) -> Vec<Self> {
        Self::ALL.into_iter().filter(|scope| text.split_whitespace().any(|word| word == scope.as_str())).collect()
    }
}

/// Whose sessions those are that the password began.
pub(super) const PASSWORD: &str = "password";

/// Whose act something is, as the trail has it: `password`, an npub, or `token NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Actor(String);

impl Actor {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// Whoever has the password.
    pub(super) fn of_password() -> Self {
        Self(PASSWORD.to_owned())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it may still log in: its session is of no use any longer than that. Where it had the password, the
    /// session ends with that ([`super::ensure_password`]).
    pub(super) fn may_log_in(&self, npubs: &[String]) -> bool {
        self.0 == PASSWORD || npubs.contains(&self.0)
    }
}

/// A program that calls the API, or whoever logged in there.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub actor: Actor,
    scopes: Vec<Scope>,
    /// The hash of the session, for who has one.
    session: Option<String>,
    /// When its token ends, for who has one that does.
    token_ends_ms: Option<i64>,
}

impl Operator {
    /// What it may do.
    pub(super) fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// The hash of its session, for who logged in and has no token.
    pub(super) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// When its token ends. A session is of somebody who can begin another one.
    pub(super) fn token_ends_ms(&self) -> Option<i64> {
        self.token_ends_ms
    }

    /// Lets pass who may do this.
    ///
    /// # Errors
    /// [`AdminError::Refused`] with 403 for others.
    pub(super) fn may(&self, scope: Scope) -> Result<&Actor, AdminError> {
        if self.scopes.contains(&scope) {
            return Ok(&self.actor);
        }
        Err(AdminError::forbidden(format!("This token lacks the scope \"{}\".", scope.as_str())))
    }

    async fn find(state: &AdminState, headers: &HeaderMap) -> Result<Option<Self>, AdminError> {
        let Some(hash) = bearer(headers).map(session::hash) else { return Ok(None) };
        let (store, now_ms) = (state.ledger.store(), state.now_ms());
        if let Some(found) = repo::token(store, &hash, now_ms).await? {
            // To the minute: a program that calls often shall not write as often.
            if found.used_ms.is_none_or(|used_ms| now_ms.saturating_sub(used_ms) >= MINUTE_MS) {
                access::note_use(store, &hash, now_ms).await?;
            }
            let scopes = Scope::read_all(&found.scopes);
            let actor = Actor::new(format!("token {}", found.name));
            return Ok(Some(Self { actor, scopes, session: None, token_ends_ms: found.ends_ms }));
        }
        let session = repo::session(store, &hash, Via::Api, now_ms).await?;
        let session = session.filter(|found| found.actor.may_log_in(&state.npubs));
        Ok(session.map(|found| Self {
            actor: found.actor,
            scopes: Scope::ALL.to_vec(),
            session: Some(hash),
            token_ends_ms: None,
        }))
    }
}

impl FromRequestParts<AdminState> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, ApiError> {
        Self::find(state, &parts.headers).await?.ok_or_else(|| AdminError::forbidden("Unauthorized").into())
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_what_its_scopes_say_and_no_more() {
        assert_eq!(Scope::read_all("read  money"), [Scope::Read, Scope::Money]);
        assert_eq!(Scope::read_all("all readmoney *"), []);
        let operator = Operator {
            actor: Actor::new("token a".to_owned()),
            scopes: Scope::read_all("read"),
            session: None,
            token_ends_ms: None,
        };
        assert!(operator.may(Scope::Read).is_ok());
        assert!(operator.may(Scope::Money).is_err() && operator.may(Scope::Manage).is_err());
    }
}
