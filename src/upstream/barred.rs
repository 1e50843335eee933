//! Which upstreams are barred: known to this process, stored for all of them, cleared by the operator.
//!
//! Each clearing counts the row's generation up. A process that finds another generation than its own
//! forgets all that it held against the upstream, soft or hard; what it has not written yet was seen before.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::bar::Bar;
use super::repo::{self, StoredBar};
use crate::config;
use crate::store::{Store, StoreError};
use crate::vault::Vault;

/// What one process knows of one upstream.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// For the way of a request, which looks at nothing else.
    is_barred: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    generation: i64,
    /// Why, and since when.
    bar: Option<(Bar, i64)>,
    is_written: bool,
}

impl Marks {
    pub(super) fn is_barred(&self) -> bool {
        self.is_barred.load(Ordering::Relaxed)
    }

    pub(super) fn bar(&self) -> Option<(Bar, i64)> {
        self.state().bar
    }

    /// Bars it. Returns whether that is new.
    pub(super) fn set(&self, bar: Bar, now_ms: i64) -> bool {
        let mut state = self.state();
        if state.bar.is_some() {
            return false;
        }
        state.bar = Some((bar, now_ms));
        state.is_written = false;
        self.is_barred.store(true, Ordering::Relaxed);
        true
    }

    /// Takes over what is stored. Returns whether the operator has cleared it.
    fn take(&self, stored: &StoredBar) -> bool {
        let mut state = self.state();
        let is_cleared = state.generation != stored.generation;
        if is_cleared || stored.bar.is_some() {
            *state = State { generation: stored.generation, bar: stored.bar, is_written: true };
            self.is_barred.store(stored.bar.is_some(), Ordering::Relaxed);
        }
        is_cleared
    }

    /// What is to be written: why, since when, and of which generation.
    fn unwritten(&self) -> Option<(Bar, i64, i64)> {
        let state = self.state();
        state.bar.filter(|_| !state.is_written).map(|(bar, since_ms)| (bar, since_ms, state.generation))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a row for each upstream. With another address or key than before, nothing is held against it.
pub(super) async fn enrol(
    store: &Store,
    vault: &Vault,
    upstreams: impl Iterator<Item = &config::Upstream>,
) -> Result<(), StoreError> {
    let identity = |upstream: &config::Upstream| {
        let address = upstream.base_url.as_ref().map_or("", url::Url::as_str);
        let key = upstream.api_key.as_ref().map_or("", config::Secret::expose);
        let parts = ["upstream", upstream.kind.name(), address, key].map(str::as_bytes);
        (upstream.name.clone(), vault.digest(&parts))
    };
    let rows: Vec<(String, String)> = upstreams.map(identity).collect();
    repo::enrol(store, &rows).await
}

/// Brings what this process knows and what is stored together. Returns the upstreams that were cleared.
pub(super) async fn watch<'a>(
    store: &Store,
    known: impl Iterator<Item = (&'a str, &'a Marks)>,
) -> Result<Vec<&'a str>, StoreError> {
    let stored: HashMap<String, StoredBar> = repo::bars(store).await?.into_iter().collect();
    let mut cleared = Vec::new();
    for (name, marks) in known {
        let Some(row) = stored.get(name) else { continue };
        if marks.take(row) {
            cleared.push(name);
        }
        if let Some((bar, since_ms, generation)) = marks.unwritten() {
            repo::write_bar(store, name, generation, bar, since_ms).await?;
        }
    }
    Ok(cleared)
}
