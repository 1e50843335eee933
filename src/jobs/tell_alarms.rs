//! Tells the operator what was written down.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::alerts::Alerts;

/// Brings notes to their targets.
pub struct TellAlarms {
    pub alerts: Alerts,
}

#[async_trait]
impl Job for TellAlarms {
    fn name(&self) -> &'static str {
        "tell_alarms"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(10)
    }

    async fn nudged(&self) {
        self.alerts.written().await;
    }

    /// A target that fails is asked again when its time has come, which is not the job's failure.
    async fn activate(&self) -> Result<(), String> {
        let troubles = self.alerts.tell().await.map_err(|error| error.to_string())?;
        for trouble in troubles {
            tracing::warn!(%trouble, "the operator could not be told what is wrong");
        }
        Ok(())
    }
}
