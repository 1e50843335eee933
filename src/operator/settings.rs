//! Settings that a node is told.

use std::collections::BTreeMap;

use serde_json::json;

use super::Desk;
use crate::config::Config;
use crate::exchange::{Changed, Untold, weigh};
use crate::store::StoreError;

/// Tells a node with this configuration other settings: all of them or none. Nothing for a value takes it back.
///
/// # Errors
/// All faults, or that the environment wins; when the database does not answer.
pub async fn set(
    desk: Desk<'_>,
    config: &Config,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<Vec<Changed>, Untold> {
    let (changed, _) = weigh(config, &desk.store.told().await?, changes)?;
    write(desk, &changed).await?;
    Ok(changed)
}

/// Stores settings that were weighed.
pub(super) async fn write(desk: Desk<'_>, changed: &[Changed]) -> Result<(), StoreError> {
    if !changed.is_empty() {
        let changes = changed.iter().map(|one| (one.name.clone(), one.is.clone())).collect();
        desk.store.tell(&changes, desk.now_ms()).await?;
    }
    for one in changed {
        // None of these is a secret: those are never told.
        desk.note("settings.set", &one.name, &json!({ "was": one.was, "is": one.is })).await?;
    }
    Ok(())
}
