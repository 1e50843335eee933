//! Writes down what requests cost at the upstreams, and learns what other processes have spent there.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::exchange::Exchange;

/// Keeps the sums that spend caps look at.
pub struct KeepOutlays {
    pub exchange: Arc<Exchange>,
}

#[async_trait]
impl Job for KeepOutlays {
    fn name(&self) -> &'static str {
        "keep_outlays"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn activate(&self) -> Result<(), String> {
        self.exchange.pool.flush(self.exchange.ledger.store()).await.map_err(|error| error.to_string())
    }
}
