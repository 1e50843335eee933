//! Sends what the node has earned to its operator.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::exchange::Exchange;
use crate::wallet::Change;

/// Pays out every mint's earnings above a minimum, where the settings say whereto.
pub struct PayOut {
    pub exchange: Arc<Exchange>,
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
        let settings = self.exchange.settings.now();
        let Some(recipient) = &settings.payouts.recipient else { return Ok(()) };
        let wallet = self.exchange.till.wallet();
        let outcomes = wallet.pay_out(recipient, settings.payouts.minimum).await.map_err(|error| error.to_string())?;
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
