//! Looks whether the operator has told the node other settings, from this process or beside it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::exchange::Exchange;

/// Keeps this process's settings as the stored ones say.
pub struct WatchSettings {
    pub exchange: Arc<Exchange>,
}

#[async_trait]
impl Job for WatchSettings {
    fn name(&self) -> &'static str {
        "watch_settings"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn activate(&self) -> Result<(), String> {
        self.exchange.learn_settings().await.map_err(|error| error.to_string())
    }
}
