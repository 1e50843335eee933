//! Upstreams: how each is; those of the operator's own can be made, changed, removed and tried; what is held against
//! one can be forgotten. Keys, headers and proxies go in, and never come out.

mod calls;
mod page;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::operator::Actor;
use super::{AdminError, AdminState, format};
use crate::exchange::{Tested, Untested};
use crate::operator::upstreams as acts;
use crate::upstream::Condition;
use crate::upstream::stored::{Described, Intent, StoredError};

pub(super) use calls::api;
pub(super) use page::pages;

/// An upstream, as it is seen from this process.
#[derive(Serialize, ToSchema)]
struct View {
    name: String,
    /// Its preset.
    kind: String,
    /// In words.
    state: String,
    /// Whether it is left alone.
    is_alone: bool,
    /// There is something to forget.
    can_be_cleared: bool,
    is_enabled: bool,
    /// The environment describes it; it is changed there.
    from_environment: bool,
    has_key: bool,
    /// Names of headers that are set or left out.
    headers: Vec<String>,
    /// As `UPSTREAMS` would have it, without secrets.
    #[schema(value_type = Object)]
    spec: Map<String, Value>,
    /// USD.
    #[schema(value_type = String)]
    spent_today_usd: rust_decimal::Decimal,
    /// USD.
    #[schema(value_type = String)]
    spent_this_month_usd: rust_decimal::Decimal,
}

async fn view(state: &AdminState) -> Result<Vec<View>, AdminError> {
    let conditions = state.pool.conditions();
    let described = state.pool.described(state.ledger.store()).await.map_err(refused)?;
    let view = |one: Described| {
        let condition = conditions.iter().find(|condition| *condition.name == *one.name);
        let (said, is_alone) = match (condition, one.is_enabled) {
            (Some(condition), _) => state_of(condition),
            (None, false) => ("switched off".to_owned(), false),
            (None, true) => ("not in use: the log says why".to_owned(), true),
        };
        let kind = one.spec.get("provider_type").and_then(Value::as_str).unwrap_or("generic").to_owned();
        let spent =
            |spent: fn(&Condition) -> rust_decimal::Decimal| condition.map(spent).unwrap_or_default().normalize();
        View {
            kind,
            state: said,
            is_alone,
            can_be_cleared: condition.is_some_and(|one| one.bar.is_some() || one.rests || !one.out.is_empty()),
            is_enabled: one.is_enabled,
            from_environment: one.from_environment,
            has_key: one.has_key,
            headers: one.headers,
            spent_today_usd: spent(|condition| condition.today_usd),
            spent_this_month_usd: spent(|condition| condition.month_usd),
            name: one.name,
            spec: one.spec,
        }
    };
    Ok(described.into_iter().map(view).collect())
}

fn refused(error: StoredError) -> AdminError {
    match error {
        StoredError::Store(error) => error.into(),
        StoredError::Vault(error) => AdminError::invalid(format!("The stored upstreams cannot be read: {error}.")),
        StoredError::Invalid(_) => AdminError::invalid(format!("Not done: {error}.")),
        StoredError::Fixed | StoredError::Exists | StoredError::Changed => {
            AdminError::conflict(format!("Not done: {error}."))
        }
        StoredError::Unknown => AdminError::not_found("There is no such upstream."),
    }
}

/// Forgets what is held against an upstream.
async fn clear(state: &AdminState, actor: &Actor, name: &str) -> Result<(), AdminError> {
    acts::clear(state.desk(actor), name).await.map_err(refused)?;
    look(state).await
}

/// Makes an upstream, or changes some members of one; every node of the database takes it up, and requests under way
/// keep what they have. Returns its name.
async fn put(
    state: &AdminState,
    actor: &Actor,
    intent: Intent<'_>,
    given: &Map<String, Value>,
) -> Result<String, AdminError> {
    let name = acts::put(state.desk(actor), state.pool.tools(), intent, given).await.map_err(refused)?;
    look(state).await?;
    Ok(name)
}

/// Removes an upstream of the operator's own. Requests under way go on.
async fn remove(state: &AdminState, actor: &Actor, name: &str) -> Result<(), AdminError> {
    acts::remove(state.desk(actor), name).await.map_err(refused)?;
    look(state).await
}

/// Takes up what was changed.
async fn look(state: &AdminState) -> Result<(), AdminError> {
    Ok(state.pool.watch(state.ledger.store()).await?)
}

/// Asks an upstream one small question, at the operator's cost.
async fn test(state: &AdminState, actor: &Actor, name: &str) -> Result<Tested, AdminError> {
    let tested = acts::test(state.desk(actor), name, state.exchange.test_upstream(name)).await;
    tested.map_err(|error| match error {
        Untested::Store(error) => error.into(),
        why => AdminError::conflict(why.to_string()),
    })
}

/// How an upstream is, and whether that is bad.
pub(super) fn state_of(one: &Condition) -> (String, bool) {
    let out: Vec<String> = one.out.iter().map(|(model, secs)| format!("{model} for {secs} s")).collect();
    match (one.bar, one.is_capped) {
        (Some((bar, since_ms)), _) => (format!("barred since {}: {}", format::utc(since_ms), bar.text()), true),
        (None, true) => ("its spend cap is reached".to_owned(), true),
        (None, false) if !out.is_empty() => (format!("left alone: {}", out.join(", ")), true),
        (None, false) if one.rests => ("goes last for a while".to_owned(), false),
        (None, false) => ("is asked".to_owned(), false),
    }
}
