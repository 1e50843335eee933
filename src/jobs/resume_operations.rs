//! Finishes redemptions, change and refunds that a crash or a silent mint left unfinished, and
//! gives back what is stranded on the account of a one-shot token.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::clock::SharedClock;
use crate::wallet::Wallet;

/// How long an operation is left to whoever is working on it.
const IDLE_MS: i64 = 30_000;

/// Drives the journal. What was left by the last run is taken up at once.
pub struct ResumeOperations {
    pub wallet: Wallet,
    pub clock: SharedClock,
    /// When this process began: whatever was touched before then is nobody's work any more.
    pub started_ms: i64,
}

#[async_trait]
impl Job for ResumeOperations {
    fn name(&self) -> &'static str {
        "resume_operations"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(10)
    }

    async fn activate(&self) -> Result<(), String> {
        let before_ms = self.clock.now_ms().saturating_sub(IDLE_MS).max(self.started_ms);
        match self.wallet.resume(before_ms).await {
            Ok(0) => Ok(()),
            Ok(open) => {
                tracing::info!(open, "operations wait for their mint");
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}
