//! Looks which upstreams are barred or cleared: by the operator, from this process or beside it, and by
//! other processes of the same database.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::exchange::Exchange;

/// Keeps what this process knows of barred upstreams as it is stored, and the other way round.
pub struct WatchUpstreams {
    pub exchange: Arc<Exchange>,
}

#[async_trait]
impl Job for WatchUpstreams {
    fn name(&self) -> &'static str {
        "watch_upstreams"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn activate(&self) -> Result<(), String> {
        let exchange = &self.exchange;
        exchange.pool.watch(exchange.ledger.store()).await.map_err(|error| error.to_string())
    }
}
