//! Forgets the outcomes of requests with an Idempotency-Key when their time is over.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::exchange::Replays;

/// Keeps the table of outcomes short.
pub struct PruneReplays {
    pub replays: Arc<Replays>,
}

#[async_trait]
impl Job for PruneReplays {
    fn name(&self) -> &'static str {
        "prune_replays"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(3600)
    }

    async fn activate(&self) -> Result<(), String> {
        self.replays.prune().await.map(|_| ()).map_err(|error| error.to_string())
    }
}
