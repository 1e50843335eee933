//! Takes change and refunds back that nobody claimed at their mint for a long time.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::wallet::{TakenBack, Wallet};

/// Looks for unclaimed tokens, a few at a time.
pub struct TakeBackUnclaimed {
    pub wallet: Wallet,
    /// How long they are left alone.
    pub claim_time: Duration,
}

#[async_trait]
impl Job for TakeBackUnclaimed {
    fn name(&self) -> &'static str {
        "take_back_unclaimed"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(600)
    }

    async fn activate(&self) -> Result<(), String> {
        let done = self.wallet.take_back_unclaimed(self.claim_time).await.map_err(|error| error.to_string())?;
        if done != TakenBack::default() {
            tracing::info!(collected = done.collected, swept = done.reclaimed, "looked at old change");
        }
        Ok(())
    }
}
