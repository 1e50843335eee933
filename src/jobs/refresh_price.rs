//! Asks the price feeds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::price::PriceBook;

/// Keeps the BTC/USD rate fresh.
pub struct RefreshPrice {
    book: Arc<PriceBook>,
    period: Duration,
    /// What was wrong with single feeds the last time.
    troubles: Mutex<Vec<String>>,
}

impl RefreshPrice {
    /// One that asks at least so often, and twice before an answer is too old: nothing could be sold in between.
    #[must_use]
    pub fn new(book: Arc<PriceBook>, period: Duration) -> Self {
        let period = period.min(book.max_age() / 2);
        Self { book, period, troubles: Mutex::default() }
    }

    /// Says what is wrong with feeds, if it was not so the last time.
    fn say(&self, failed: Vec<String>) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if *troubles == failed {
            return;
        }
        if failed.is_empty() {
            tracing::info!("all price feeds answer again");
        } else {
            tracing::warn!(troubles = failed.join("; "), "not all price feeds answer; there is a rate without them");
        }
        *troubles = failed;
    }
}

#[async_trait]
impl Job for RefreshPrice {
    fn name(&self) -> &'static str {
        "refresh_price"
    }

    fn period(&self) -> Duration {
        self.period
    }

    /// As long as there is a rate, a feed that fails is no reason to ask them all again at once.
    async fn activate(&self) -> Result<(), String> {
        let failed = self.book.refresh().await;
        if !failed.is_empty() && !self.book.is_current() {
            return Err(failed.join("; "));
        }
        self.say(failed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::config::RateRules;
    use crate::price::testing::{RULES, Slate};
    use crate::price::{FeedError, PriceFeed};

    #[test]
    fn answers_are_replaced_before_they_are_too_old() {
        for (max_age, period, expected) in [(600, 120, 120), (60, 120, 30), (600, 3_600, 300), (240, 120, 120)] {
            let rules = RateRules { max_age: Duration::from_secs(max_age), ..RULES };
            let book = Arc::new(PriceBook::new(Vec::new(), None, rules, Arc::new(SystemClock)));
            let job = RefreshPrice::new(book, Duration::from_secs(period));
            assert_eq!(job.period(), Duration::from_secs(expected), "{max_age} {period}");
        }
    }

    #[tokio::test]
    async fn a_feed_that_is_dead_does_not_hurry_the_others() {
        let silent = || Slate::of(Err(FeedError::Status(503)));
        let (dead, alive) = (silent(), silent());
        let feeds: Vec<Box<dyn PriceFeed>> = vec![Box::new(dead.clone()), Box::new(alive.clone())];
        let book = Arc::new(PriceBook::new(feeds, None, RULES, Arc::new(SystemClock)));
        let job = RefreshPrice::new(Arc::clone(&book), Duration::from_secs(120));
        let line = "slate: the feed answered with status 503";
        assert_eq!(job.activate().await, Err(format!("{line}; {line}")), "there is no rate: soon again");
        alive.say(Ok(100_000_u32.into()));
        assert_eq!(job.activate().await, Ok(()));
        assert_eq!(*job.troubles.lock().unwrap(), [line]);
        dead.say(Ok(50_000_u32.into()));
        assert_eq!(job.activate().await, Err("the feeds contradict each other".to_owned()));
        dead.say(Ok(100_000_u32.into()));
        assert_eq!(job.activate().await, Ok(()));
        assert!(job.troubles.lock().unwrap().is_empty() && book.is_current());
    }
}
