//! Sends what the node has earned to its operator.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::money::Msat;
use crate::wallet::{Change, Wallet};

/// Pays out every mint's earnings above a minimum.
pub struct PayOut {
    pub wallet: Wallet,
    /// A Lightning address or an LNURL.
    pub recipient: String,
    pub minimum: Msat,
    pub period: Duration,
}

#[async_trait]
impl Job for PayOut {
    fn name(&self) -> &'static str {
        "pay_out"
    }

    fn period(&self) -> Duration {
        self.period
    }

    async fn activate(&self) -> Result<(), String> {
        let outcomes = self.wallet.pay_out(&self.recipient, self.minimum).await.map_err(|error| error.to_string())?;
        for outcome in outcomes {
            match outcome {
                Change::Sent { amount, fee, .. } => {
                    tracing::info!(msat = amount.get(), fee_msat = fee.get(), "paid out earnings");
                }
                Change::Failed(why) => tracing::warn!(why, "earnings could not be paid out"),
                _ => {}
            }
        }
        Ok(())
    }
}
