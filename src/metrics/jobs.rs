//! When each background job last did its work.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// One job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobRecord {
    /// In ms since the Unix epoch; `None`: not yet.
    pub succeeded_ms: Option<i64>,
    pub failures: u64,
    /// Whether it was the last activation that failed.
    pub fails: bool,
}

/// All jobs of this process, by name.
#[derive(Debug, Default)]
pub struct JobLog(Mutex<BTreeMap<&'static str, JobRecord>>);

impl JobLog {
    /// Notes the end of an activation.
    pub fn note(&self, job: &'static str, succeeded: bool, now_ms: i64) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = log.entry(job).or_default();
        record.fails = !succeeded;
        if succeeded {
            record.succeeded_ms = Some(now_ms);
        } else {
            record.failures = record.failures.saturating_add(1);
        }
    }

    /// Whether a job failed when it was last run.
    #[must_use]
    pub fn fails(&self, job: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(job).is_some_and(|record| record.fails)
    }

    #[must_use]
    pub fn all(&self) -> BTreeMap<&'static str, JobRecord> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
