//! Keeps the keysets of the mints at hand, so that no request has to wait for them.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::wallet::Wallet;

/// How old they may become, in ms. When one mint does not answer, this runs again soon; the others are
/// not asked again for that.
const MAX_AGE_MS: i64 = 540_000;

/// Asks the mints for their keysets.
pub struct RefreshKeysets {
    pub wallet: Wallet,
}

#[async_trait]
impl Job for RefreshKeysets {
    fn name(&self) -> &'static str {
        "refresh_keysets"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(600)
    }

    async fn activate(&self) -> Result<(), String> {
        let failed = self.wallet.refresh(MAX_AGE_MS).await;
        if failed.is_empty() {
            return Ok(());
        }
        let failed: Vec<String> = failed.iter().map(|(mint, error)| format!("{mint}: {error}")).collect();
        Err(failed.join("; "))
    }
}
