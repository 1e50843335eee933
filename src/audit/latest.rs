//! The outcome of the last audit of this process, for everybody who shows it or acts on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Auditor, Report, Solvency};
use crate::store::StoreError;

/// One place for the last outcome. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Latest {
    last: Arc<Mutex<Outcome>>,
    /// Held while somebody proves on request.
    proving: Arc<tokio::sync::Mutex<()>>,
    renewed: Arc<Notify>,
}

/// What came of it.
#[derive(Debug, Default)]
struct Outcome {
    /// The last one that could be made.
    report: Option<Arc<Report>>,
    /// None could be made since.
    lack: Option<Lack>,
}

/// Why the books could not be proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    pub at_ms: i64,
    /// It may repeat what stands in the database, so it is for the operator's eyes.
    pub why: String,
}

impl Latest {
    /// Proves anew, and notes the outcome: also that there is none, because then the one before says nothing any
    /// more. Returns the outcome, and the one before it.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn prove(&self, auditor: &Auditor) -> Result<(Arc<Report>, Option<Solvency>), StoreError> {
        let proven = auditor.prove().await;
        let noted = self.note(proven, auditor);
        self.renewed.notify_one();
        noted
    }

    fn note(
        &self,
        proven: Result<Report, StoreError>,
        auditor: &Auditor,
    ) -> Result<(Arc<Report>, Option<Solvency>), StoreError> {
        let mut last = self.lock();
        let before = last.verdict();
        match proven {
            Ok(report) => {
                let report = Arc::new(report);
                *last = Outcome { report: Some(Arc::clone(&report)), lack: None };
                Ok((report, before))
            }
            Err(error) => {
                last.lack = Some(Lack { at_ms: auditor.clock.now_ms(), why: error.to_string() });
                Err(error)
            }
        }
    }

    /// Proves anew because somebody asks for it. `None`: that is being done already.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn renew(&self, auditor: &Auditor) -> Result<Option<Arc<Report>>, StoreError> {
        let Ok(_proving) = self.proving.try_lock() else { return Ok(None) };
        Ok(Some(self.prove(auditor).await?.0))
    }

    /// Waits for the next outcome, or takes notice of one that nobody has waited for. For one who waits.
    pub async fn renewed(&self) {
        self.renewed.notified().await;
    }

    /// The last outcome; `None` before the first. Only its figures count where there is a [`Self::lack`].
    #[must_use]
    pub fn get(&self) -> Option<Arc<Report>> {
        self.lock().report.clone()
    }

    /// Why the books could not be proven when that was tried last; `None`: they could.
    #[must_use]
    pub fn lack(&self) -> Option<Lack> {
        self.lock().lack.clone()
    }

    /// What is known of the books; `None` before anything is.
    #[must_use]
    pub fn verdict(&self) -> Option<Solvency> {
        self.lock().verdict()
    }

    fn lock(&self) -> MutexGuard<'_, Outcome> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcome {
    fn verdict(&self) -> Option<Solvency> {
        if self.lack.is_some() { Some(Solvency::Faulty) } else { self.report.as_ref().map(|report| report.verdict()) }
    }
}
