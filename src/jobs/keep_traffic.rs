//! Writes down how requests to models went, and draws up what the status page shows.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::exchange::Exchange;

/// Keeps the numbers of the status page.
pub struct KeepTraffic {
    pub exchange: Arc<Exchange>,
}

#[async_trait]
impl Job for KeepTraffic {
    fn name(&self) -> &'static str {
        "keep_traffic"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(10)
    }

    async fn activate(&self) -> Result<(), String> {
        let ledger = &self.exchange.ledger;
        self.exchange.traffic.keep(ledger.store(), ledger.clock().now_ms()).await.map_err(|error| error.to_string())
    }
}
