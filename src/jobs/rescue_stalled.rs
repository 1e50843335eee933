//! Settles streams whose client keeps the connection but has stopped reading.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::exchange::Exchange;

/// Takes stalled streams off their clients' hands.
pub struct RescueStalled {
    pub exchange: Arc<Exchange>,
    /// How long a client may not read; longer than an upstream may be silent.
    pub patience: Duration,
}

#[async_trait]
impl Job for RescueStalled {
    fn name(&self) -> &'static str {
        "rescue_stalled"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(10)
    }

    async fn activate(&self) -> Result<(), String> {
        let patience = i64::try_from(self.patience.as_millis()).unwrap_or(i64::MAX);
        let before_ms = self.exchange.ledger.clock().now_ms().saturating_sub(patience);
        let rescued = self.exchange.deliveries.take_stalled(&self.exchange.tracker, before_ms);
        if rescued > 0 {
            tracing::warn!(rescued, "streams are finished without their clients, which stopped reading");
        }
        Ok(())
    }
}
