//! Asks the price feeds.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::price::PriceBook;

/// Keeps the BTC/USD rate fresh.
pub struct RefreshPrice {
    pub book: Arc<PriceBook>,
    pub period: Duration,
}

#[async_trait]
impl Job for RefreshPrice {
    fn name(&self) -> &'static str {
        "refresh_price"
    }

    fn period(&self) -> Duration {
        self.period
    }

    async fn activate(&self) -> Result<(), String> {
        let failed = self.book.refresh().await;
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }
}
