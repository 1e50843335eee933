//! Asks upstreams that were not heard of for a while how they are, where the operator pays for that.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::exchange::Exchange;

/// Keeps what is known of upstreams fresh.
pub struct ProbeUpstreams {
    pub exchange: Arc<Exchange>,
    /// After how much silence, where an upstream says nothing else.
    pub usual: Option<Duration>,
}

/// How often it is looked whether one was silent for long enough.
const PERIOD: Duration = Duration::from_secs(10);

#[async_trait]
impl Job for ProbeUpstreams {
    fn name(&self) -> &'static str {
        "probe_upstreams"
    }

    fn period(&self) -> Duration {
        PERIOD
    }

    async fn activate(&self) -> Result<(), String> {
        self.exchange.probe(self.usual).await;
        Ok(())
    }
}
