//! Looks which of the other nodes answer.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::nostr::Directory;

/// Asks the other nodes what they are; those that were just found, at once.
pub struct ProbeNodes {
    pub directory: Directory,
    pub period: Duration,
}

#[async_trait]
impl Job for ProbeNodes {
    fn name(&self) -> &'static str {
        "probe_nodes"
    }

    fn period(&self) -> Duration {
        self.period
    }

    async fn nudged(&self) {
        self.directory.news().await;
    }

    async fn activate(&self) -> Result<(), String> {
        self.directory.probe(self.period / 2).await.map_err(|error| error.to_string())
    }
}
