//! Counts on, in the database and beside it, so that a database which is put back is noticed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::store::Lineage;
use crate::wallet::Wallet;

/// Takes the data directory and the database one step on together.
pub struct KeepEpoch {
    pub lineage: Arc<Lineage>,
    pub wallet: Wallet,
}

#[async_trait]
impl Job for KeepEpoch {
    fn name(&self) -> &'static str {
        "keep_epoch"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn activate(&self) -> Result<(), String> {
        if !self.lineage.step().await.map_err(|error| error.to_string())? {
            self.wallet.halt("the database was replaced while the node ran; it has to be started anew");
            return Err("ALARM: the database is not the one that this node has written to; start it anew".to_owned());
        }
        Ok(())
    }
}
