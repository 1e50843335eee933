//! Sends what the node has earned to its operator.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::audit::{Latest, Solvency};
use crate::exchange::Exchange;
use crate::wallet::Change;

/// Pays out every mint's earnings above a minimum, where the settings say whereto and the books are right.
pub struct PayOut {
    exchange: Arc<Exchange>,
    books: Latest,
    period: Duration,
    /// It waits for the books.
    is_held: AtomicBool,
}

impl PayOut {
    #[must_use]
    pub fn new(exchange: Arc<Exchange>, books: Latest, period: Duration) -> Self {
        Self { exchange, books, period, is_held: AtomicBool::new(false) }
    }

    /// Whether the books say that nothing may go out: what was earned may be somebody else's, or not there.
    fn holds_back(&self) -> bool {
        let verdict = self.books.verdict();
        let is_held = verdict.is_none_or(|verdict| verdict.alarm().is_some());
        self.is_held.store(is_held, Ordering::Relaxed);
        if let Some(why) = verdict.and_then(Solvency::alarm) {
            tracing::warn!(why, "no earnings are paid out");
        }
        is_held
    }
}

#[async_trait]
impl Job for PayOut {
    fn name(&self) -> &'static str {
        "pay_out"
    }

    fn period(&self) -> Duration {
        self.period
    }

    /// What the books held back is tried again when they were looked at again: at every start that is soon.
    async fn nudged(&self) {
        if self.is_held.load(Ordering::Relaxed) {
            self.books.renewed().await;
        } else {
            std::future::pending().await
        }
    }

    async fn activate(&self) -> Result<(), String> {
        let settings = self.exchange.settings.now();
        let Some(recipient) = &settings.payouts.recipient else { return Ok(()) };
        if self.holds_back() {
            return Ok(());
        }
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
