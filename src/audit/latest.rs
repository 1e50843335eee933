//! The outcome of the last audit of this process, for everybody who shows it or acts on it.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Auditor, Report};
use crate::store::StoreError;

/// One place for the last outcome. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Latest {
    last: Arc<Mutex<Option<Arc<Report>>>>,
    /// Held while somebody proves on request.
    proving: Arc<tokio::sync::Mutex<()>>,
}

impl Latest {
    /// Notes an outcome. Returns the one before it.
    pub fn note(&self, report: Report) -> Option<Arc<Report>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(Arc::new(report))
    }

    /// Proves anew because somebody asks for it, and notes the outcome. `None`: that is being done already.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn renew(&self, auditor: &Auditor) -> Result<Option<Arc<Report>>, StoreError> {
        let Ok(_proving) = self.proving.try_lock() else { return Ok(None) };
        let report = auditor.prove().await?;
        self.note(report);
        Ok(self.get())
    }

    /// The last outcome; `None` before the first.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Report>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
