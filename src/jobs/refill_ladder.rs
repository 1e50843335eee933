//! Keeps coins of every amount ready, so that change needs no call to a mint, and few coins in all.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::wallet::Wallet;

/// Exchanges the wallet's coins for handier ones.
pub struct RefillLadder {
    pub wallet: Wallet,
}

#[async_trait]
impl Job for RefillLadder {
    fn name(&self) -> &'static str {
        "refill_ladder"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn nudged(&self) {
        self.wallet.ladder_was_short().await;
    }

    async fn activate(&self) -> Result<(), String> {
        let made = self.wallet.refill().await.map_err(|error| error.to_string())?;
        if made > 0 {
            tracing::debug!(made, "exchanged coins for handier ones");
        }
        Ok(())
    }
}
