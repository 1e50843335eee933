//! Ends vouchers whose time is over: their money goes back to where it came from.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::ledger::Ledger;

/// A voucher whose time is over cannot be redeemed even before this job comes by.
pub struct ExpireVouchers {
    pub ledger: Ledger,
}

#[async_trait]
impl Job for ExpireVouchers {
    fn name(&self) -> &'static str {
        "expire_vouchers"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(600)
    }

    async fn activate(&self) -> Result<(), String> {
        match self.ledger.expire_vouchers().await {
            Ok(0) => Ok(()),
            Ok(expired) => {
                tracing::info!(expired, "vouchers have expired; their money is again where it came from");
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}
