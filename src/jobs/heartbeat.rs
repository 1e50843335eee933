//! Says that this process is alive, and releases the holds of those that are not.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::ledger::Ledger;

/// One process among those that share the database.
pub struct Heartbeat {
    pub ledger: Ledger,
}

#[async_trait]
impl Job for Heartbeat {
    fn name(&self) -> &'static str {
        "heartbeat"
    }

    /// Several times before anybody takes this process for dead.
    fn period(&self) -> Duration {
        self.ledger.patience() / 6
    }

    async fn activate(&self) -> Result<(), String> {
        for node in self.ledger.heartbeat().await.map_err(|error| error.to_string())? {
            let released = self.ledger.release_orphans(&node).await.map_err(|error| error.to_string())?;
            if released > 0 {
                tracing::warn!(%node, released, "released the holds of a process that is gone");
            }
        }
        Ok(())
    }
}
