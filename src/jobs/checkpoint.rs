//! Folds SQLite's write-ahead log into the database, off the writers' path: the copying and its
//! syncs take milliseconds that no request should wait for. PostgreSQL does this by itself.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::store::Store;

/// Keeps the write-ahead log short.
pub struct Checkpoint {
    pub store: Store,
}

#[async_trait]
impl Job for Checkpoint {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn activate(&self) -> Result<(), String> {
        self.store.checkpoint().await.map_err(|error| error.to_string())
    }
}
