//! Proves every hour that the node has what it owes, and raises an alarm when it cannot: also when that cannot be
//! looked at, because the books cannot be read.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::audit::{Auditor, Latest, Solvency};

/// Runs the audit and keeps its outcome.
pub struct CheckBooks {
    pub auditor: Auditor,
    pub latest: Latest,
}

#[async_trait]
impl Job for CheckBooks {
    fn name(&self) -> &'static str {
        "check_books"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(3600)
    }

    /// It reads the whole database, also where that is what fails.
    fn retry(&self) -> Duration {
        Duration::from_secs(120)
    }

    async fn activate(&self) -> Result<(), String> {
        let proven = self.latest.prove(&self.auditor).await;
        let proven = proven.inspect_err(|error| tracing::error!(%error, "ALARM: the books cannot be read"));
        let (report, before) = proven.map_err(|error| error.to_string())?;
        for fault in &report.faults {
            tracing::error!(fault, "ALARM: the books are not proven");
        }
        for mint in report.mints.iter().filter(|mint| mint.silence.is_some()) {
            let silence = mint.silence.as_deref().unwrap_or_default();
            tracing::warn!(mint = mint.mint, silence, "the mint was not asked about its ecash");
        }
        let verdict = report.verdict();
        if verdict == Solvency::Short {
            tracing::error!(msat = report.shortfall_msat(), "ALARM: the ecash does not cover what is owed");
        }
        if verdict.alarm().is_none() && before.and_then(Solvency::alarm).is_some() {
            tracing::info!("the books are right again, and the ecash covers what is owed");
        }
        Ok(())
    }
}
