//! The holds that this process has to end: from before they are placed until their end is written.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Their ids.
#[derive(Debug, Default)]
pub(super) struct Live(Mutex<HashSet<i64>>);

impl Live {
    pub(super) fn insert(&self, id: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    pub(super) fn remove(&self, id: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn contains(&self, id: i64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }
}
