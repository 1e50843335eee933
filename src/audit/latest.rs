//! The outcome of the last audit of this process, for everybody who shows it or acts on it.

use std::sync::{Arc, Mutex, PoisonError};

use super::Report;

/// One place for the last outcome. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Latest(Arc<Mutex<Option<Arc<Report>>>>);

impl Latest {
    /// Notes an outcome. Returns the one before it.
    pub fn note(&self, report: Report) -> Option<Arc<Report>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(Arc::new(report))
    }

    /// The last outcome; `None` before the first.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Report>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
