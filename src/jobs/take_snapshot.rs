//! Makes a sealed copy of the database every day, and keeps some.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::backup::Snapshots;
use crate::clock::SharedClock;

/// Looks every hour whether one is due.
pub struct TakeSnapshot {
    pub snapshots: Arc<Snapshots>,
    pub clock: SharedClock,
}

#[async_trait]
impl Job for TakeSnapshot {
    fn name(&self) -> &'static str {
        "take_snapshot"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(3600)
    }

    /// A copy takes twice the room of the database while it is made. Where there is none left, trying at once again
    /// would take it from the database itself.
    fn retry(&self) -> Duration {
        Duration::from_secs(900)
    }

    async fn activate(&self) -> Result<(), String> {
        self.snapshots.remove_leftovers(self.clock.now_ms());
        let taken = self.snapshots.take_if_due(self.clock.now_ms()).await.map_err(|error| error.to_string())?;
        if let Some(path) = taken {
            tracing::info!(path = %path.display(), "made the day's copy of the database");
        }
        Ok(())
    }
}
