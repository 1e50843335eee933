//! Hears from one relay which other nodes there are.

use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::Job;
use crate::nostr::Directory;

/// Shortest time between two conversations.
const BREATH: Duration = Duration::from_secs(1);

/// Keeps a conversation with one relay going, so that the directory is fresh. One per relay.
pub struct Discover {
    pub directory: Directory,
    pub relay: String,
    /// How long a conversation lasts before it is begun anew.
    pub period: Duration,
    /// Ends it, when the node stops.
    pub stop: CancellationToken,
}

#[async_trait]
impl Job for Discover {
    fn name(&self) -> &'static str {
        "discover"
    }

    /// The next conversation follows at once, unless the relay is to be left alone.
    fn period(&self) -> Duration {
        self.directory.pause(&self.relay).max(BREATH)
    }

    /// A relay that fails is asked again when its time has come, which is not the job's failure.
    async fn activate(&self) -> Result<(), String> {
        let end = async {
            tokio::select! {
                () = tokio::time::sleep(self.period) => {}
                () = self.stop.cancelled() => {}
            }
        };
        let trouble = self.directory.listen(&self.relay, end).await.map_err(|error| error.to_string())?;
        if let Some(trouble) = trouble {
            tracing::warn!(%trouble, "a relay does not say which nodes there are");
        }
        Ok(())
    }
}
