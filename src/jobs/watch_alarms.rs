//! Looks whether anything is wrong, and writes down what the operator is to be told.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::alerts::{Alerts, Watchman};

/// Keeps the alarms as things are.
pub struct WatchAlarms {
    pub alerts: Alerts,
    pub watchman: Watchman,
}

#[async_trait]
impl Job for WatchAlarms {
    fn name(&self) -> &'static str {
        "watch_alarms"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn activate(&self) -> Result<(), String> {
        let readings = self.watchman.look().await.map_err(|error| error.to_string())?;
        self.alerts.take(&readings).await.map_err(|error| error.to_string())
    }
}
