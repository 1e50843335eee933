//! Forgets what its time is over of: outcomes of requests with an Idempotency-Key, what requests cost at the
//! upstreams, and what keys used in windows that a wrong clock has begun.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::config::Retention;
use crate::exchange::Exchange;
use crate::upstream::retention;

/// Keeps the tables short that need not grow.
pub struct Prune {
    pub exchange: Arc<Exchange>,
    pub retention: Retention,
}

#[async_trait]
impl Job for Prune {
    fn name(&self) -> &'static str {
        "prune"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(3600)
    }

    async fn activate(&self) -> Result<(), String> {
        self.exchange.replays.prune().await.map_err(|error| error.to_string())?;
        let ledger = &self.exchange.ledger;
        let pruning = retention::prune(ledger.store(), self.retention, ledger.clock().now_ms());
        let gone = pruning.await.map_err(|error| error.to_string())?;
        if gone.requests > 0 || gone.failed > 0 {
            tracing::info!(
                requests = gone.requests,
                failed = gone.failed,
                "forgot what old requests cost at upstreams"
            );
        }
        let ended = ledger.end_windows_ahead().await.map_err(|error| error.to_string())?;
        if ended > 0 {
            tracing::warn!(ended, "ended the windows of keys that a clock has begun which was ahead");
        }
        Ok(())
    }
}
