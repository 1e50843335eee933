//! Looks for other nodes on Nostr, and whether they answer.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::nostr::Directory;

/// Keeps the directory fresh.
pub struct Discover {
    pub directory: Directory,
    pub period: Duration,
}

#[async_trait]
impl Job for Discover {
    fn name(&self) -> &'static str {
        "discover"
    }

    fn period(&self) -> Duration {
        self.period
    }

    /// A relay that fails is asked again when its time has come, which is not the job's failure.
    async fn activate(&self) -> Result<(), String> {
        let troubles = self.directory.refresh().await.map_err(|error| error.to_string())?;
        for trouble in troubles {
            tracing::warn!(%trouble, "a relay does not say which nodes there are");
        }
        self.directory.probe().await.map_err(|error| error.to_string())
    }
}
