//! Tokens for programs: a name, what it may be used for, and for how long. The token is shown once, and kept as its hash.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::repo;
use crate::admin::operator::Scope;
use crate::admin::{AdminError, session};
use crate::clock::DAY_MS;
use crate::config::Secret;
use crate::operator::Desk;
use crate::store::Store;

/// What all of them begin with, so that a scanner of secrets knows one.
const PREFIX: &str = "coinslot_";
const MOST_TOKENS: i64 = 200;
const LONGEST_NAME: usize = 64;
const MOST_DAYS: u64 = 3_650;

/// A token, but for itself.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Token {
    pub id: String,
    pub name: String,
    /// What the token may do: one or more of `read`, `manage` and `money`.
    pub scopes: Vec<String>,
    /// In ms since the Unix epoch.
    pub created_at: i64,
    /// In ms since the Unix epoch; `null`: never.
    pub expires_at: Option<i64>,
    /// In ms since the Unix epoch, to the minute; `null`: never.
    pub last_used_at: Option<i64>,
}

/// What a token is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    /// Words: `read`, `manage`, `money`.
    pub scopes: Vec<String>,
    pub days: Option<u64>,
}

/// What whoever makes a token may do: it gives no more than it has, and for no longer.
pub(in crate::admin) struct Maker<'a> {
    pub scopes: &'a [Scope],
    /// In ms since the Unix epoch; `None`: never.
    pub ends_ms: Option<i64>,
}

impl Maker<'_> {
    /// All of it.
    pub(in crate::admin) const OF_ALL: Self = Self { scopes: &Scope::ALL, ends_ms: None };
}

/// All tokens, the oldest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(store: &Store) -> Result<Vec<Token>, AdminError> {
    Ok(repo::tokens(store).await?)
}

/// Makes a token. It is nowhere else in clear.
///
/// # Errors
/// [`AdminError::Refused`] for what makes no sense, and for more than its maker may do itself.
pub(in crate::admin) async fn create(
    desk: Desk<'_>,
    maker: &Maker<'_>,
    wanted: &Wanted,
) -> Result<(Token, Secret), AdminError> {
    let token = checked(maker, wanted, desk.now_ms())?;
    let secret = Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())));
    if !repo::add_token(desk.store, &token, &session::hash(secret.expose()), MOST_TOKENS).await? {
        return Err(AdminError::conflict(format!("There are {MOST_TOKENS} tokens already. Revoke some first.")));
    }
    let detail = json!({ "id": token.id, "scopes": token.scopes, "expires_at": token.expires_at });
    desk.note("tokens.create", &token.name, &detail).await?;
    Ok((token, secret))
}

fn checked(maker: &Maker<'_>, wanted: &Wanted, now_ms: i64) -> Result<Token, AdminError> {
    let name = wanted.name.trim();
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(AdminError::invalid(format!("A token needs a name of at most {LONGEST_NAME} characters.")));
    }
    let scopes = Scope::read_all(&wanted.scopes.join(" "));
    let known = |word: &String| Scope::ALL.iter().any(|scope| scope.as_str() == word);
    if scopes.is_empty() || !wanted.scopes.iter().all(known) {
        return Err(AdminError::invalid("A token needs scopes: some of read, manage and money."));
    }
    // Who may read shall not make itself a token that moves money.
    if let Some(scope) = scopes.iter().find(|scope| !maker.scopes.contains(scope)) {
        return Err(AdminError::forbidden(format!(
            "This token lacks the scope \"{}\" and cannot give it.",
            scope.as_str()
        )));
    }
    let days = wanted.days.map(|days| match days {
        1..=MOST_DAYS => Ok(i64::try_from(days).unwrap_or(i64::MAX).saturating_mul(DAY_MS)),
        _ => Err(AdminError::invalid(format!("A token lives for 1 to {MOST_DAYS} days, or without end."))),
    });
    let asked_ms = days.transpose()?.map(|span| now_ms.saturating_add(span));
    Ok(Token {
        id: uuid::Uuid::new_v4().to_string(),
        name: name.to_owned(),
        scopes: scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        created_at: now_ms,
        // Else one that is to end would go on as its own heir.
        expires_at: asked_ms.into_iter().chain(maker.ends_ms).min(),
        last_used_at: None,
    })
}

/// Makes a token useless, at once.
///
/// # Errors
/// [`AdminError::Refused`] when there is none.
pub(in crate::admin) async fn revoke(desk: Desk<'_>, id: &str) -> Result<(), AdminError> {
    let unknown = || AdminError::not_found("There is no such token.");
    let id = uuid::Uuid::parse_str(id).map_err(|_| unknown())?.to_string();
    let name = repo::remove_token(desk.store, &id).await?.ok_or_else(unknown)?;
    Ok(desk.note("tokens.revoke", &name, &json!({ "id": id })).await?)
}
