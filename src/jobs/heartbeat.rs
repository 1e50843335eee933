//! Says that this process is alive, and releases the holds of those that are not.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::ledger::{Ledger, repo};

/// One process among those that share the database.
pub struct Heartbeat {
    pub ledger: Ledger,
}

#[async_trait]
impl Job for Heartbeat {
    fn name(&self) -> &'static str {
        "heartbeat"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(15)
    }

    async fn activate(&self) -> Result<(), String> {
        let now_ms = self.ledger.clock().now_ms();
        let before_ms = now_ms.saturating_sub(repo::DEAD_AFTER_MS);
        let dead = repo::heartbeat(self.ledger.store(), self.ledger.owner(), now_ms, before_ms)
            .await
            .map_err(|error| error.to_string())?;
        for node in dead {
            let released = self.ledger.release_orphans(&node).await.map_err(|error| error.to_string())?;
            if released > 0 {
                tracing::warn!(%node, released, "released the holds of a process that is gone");
            }
        }
        Ok(())
    }
}
