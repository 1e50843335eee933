//! Asks upstreams that were not heard of for a while how they are, where the operator pays for that.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::exchange::Exchange;

/// Keeps what is known of upstreams fresh.
pub struct ProbeUpstreams {
    pub exchange: Arc<Exchange>,
    pub period: Duration,
}

#[async_trait]
impl Job for ProbeUpstreams {
    fn name(&self) -> &'static str {
        "probe_upstreams"
    }

    fn period(&self) -> Duration {
        self.period
    }

    async fn activate(&self) -> Result<(), String> {
        self.exchange.probe(self.period).await;
        Ok(())
    }
}
