//! Looks whether the operator has turned the maintenance switch, from this process or beside it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::exchange::Exchange;

/// Keeps this process's switch as the stored one.
pub struct WatchMaintenance {
    pub exchange: Arc<Exchange>,
}

#[async_trait]
impl Job for WatchMaintenance {
    fn name(&self) -> &'static str {
        "watch_maintenance"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn activate(&self) -> Result<(), String> {
        let exchange = &self.exchange;
        exchange.maintenance.look(exchange.ledger.store()).await.map_err(|error| error.to_string())
    }
}
