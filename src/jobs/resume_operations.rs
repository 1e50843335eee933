//! Finishes redemptions, change and refunds that a crash or a silent mint left unfinished, and
//! gives back what is stranded on the account of a one-shot token.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::wallet::Wallet;

/// Drives the journal. What was left by the last run is taken up at once.
pub struct ResumeOperations {
    pub wallet: Wallet,
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
        match self.wallet.resume(self.started_ms).await {
            Ok(0) => Ok(()),
            Ok(open) => {
                tracing::info!(open, "operations wait for their mint");
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}
