//! Looks whether the operator has changed profiles or windows, from this process or beside it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::exchange::Exchange;

/// Keeps this process's prices as the stored profiles and windows say.
pub struct WatchTariffs {
    pub exchange: Arc<Exchange>,
}

#[async_trait]
impl Job for WatchTariffs {
    fn name(&self) -> &'static str {
        "watch_tariffs"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn activate(&self) -> Result<(), String> {
        self.exchange.learn_tariffs().await.map_err(|error| error.to_string())
    }
}
