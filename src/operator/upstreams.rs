//! Upstreams of the operator's own, made, changed, removed and tried; and what is held against one, forgotten.

use serde_json::{Map, Value, json};

use super::Desk;
use crate::exchange::{Tested, Untested};
use crate::upstream::repo;
use crate::upstream::stored::{self, Intent, StoredError, Tools};

/// Makes an upstream, or changes some members of one. Returns its name.
///
/// # Errors
/// See [`StoredError`].
pub async fn put(
    desk: Desk<'_>,
    tools: Tools<'_>,
    intent: Intent<'_>,
    given: &Map<String, Value>,
) -> Result<String, StoredError> {
    let stored = stored::put(desk.store, tools, (intent, given), desk.now_ms()).await?;
    let name = stored.0.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let action = if intent == Intent::Add { "upstreams.add" } else { "upstreams.set" };
    desk.note(action, &name, &stored::detail(&stored)).await?;
    Ok(name)
}

/// Removes one of the operator's.
///
/// # Errors
/// When there is none, or the environment describes it.
pub async fn remove(desk: Desk<'_>, name: &str) -> Result<(), StoredError> {
    stored::remove(desk.store, name, desk.now_ms()).await?;
    Ok(desk.note("upstreams.remove", name, &json!({})).await?)
}

/// Forgets what is held against one.
///
/// # Errors
/// When there is none.
pub async fn clear(desk: Desk<'_>, name: &str) -> Result<(), StoredError> {
    if !repo::clear(desk.store, name).await? {
        return Err(StoredError::Unknown);
    }
    Ok(desk.note("upstreams.clear", name, &json!({})).await?)
}

/// Asks one a small question by `testing`, at the operator's cost.
///
/// # Errors
/// Why it was not asked.
pub async fn test(
    desk: Desk<'_>,
    name: &str,
    testing: impl Future<Output = Result<Tested, Untested>>,
) -> Result<Tested, Untested> {
    let tested = testing.await?;
    let detail = json!({ "model": tested.model, "answered": tested.outcome.is_ok(), "ms": tested.took_ms() });
    desk.note("upstreams.test", name, &detail).await?;
    Ok(tested)
}
