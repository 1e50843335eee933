//! What a bitcoin costs in dollars, right now or not at all.
//!
//! Several public feeds are asked side by side; the rate is the median of the answers that are
//! young enough, without those that stray too far from it. A [`PriceBook`] never answers with an
//! old or a made-up number: without a current rate there is no price, and without a price no
//! sale. Prices are decimals read from the feeds' own text; no float is involved.
//!
//! `refresh` (called by a job) is the only thing that waits; [`PriceBook::current`] reads what was
//! last published.

pub mod decimal;
pub mod feeds;
pub mod median;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use rust_decimal::Decimal;

use crate::clock::SharedClock;
use crate::config::Pricing;
use crate::net::NetError;
use feeds::HttpFeed;
use median::robust_median;

/// Least USD for a bitcoin that is believed.
pub const MIN_BTC_USD: Decimal = Decimal::ONE;
/// Most USD for a bitcoin that is believed.
pub const MAX_BTC_USD: Decimal = Decimal::from_parts(100_000_000, 0, 0, false, 0);

/// Whether `price` (USD for a bitcoin) is in the range that is believed.
#[must_use]
pub fn is_sane(price: Decimal) -> bool {
    (MIN_BTC_USD..=MAX_BTC_USD).contains(&price)
}

/// Why a feed gave no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    #[error(transparent)]
    Net(#[from] NetError),
    /// The feed answered with this HTTP status instead of 200.
    #[error("the feed answered with status {0}")]
    Status(u16),
    /// The answer is not in the feed's format, or its price is out of any sensible range.
    #[error("the feed's answer holds no usable price")]
    Unreadable,
}

/// A source of the price of one bitcoin in USD. Displays as its name.
#[async_trait]
pub trait PriceFeed: fmt::Debug + fmt::Display + Send + Sync {
    /// USD for one bitcoin, at this moment.
    async fn fetch(&self) -> Result<Decimal, FeedError>;
}

/// The price of a bitcoin that requests are charged at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// USD for one bitcoin, above zero.
    pub btc_usd: Decimal,
    /// When the oldest of the answers behind it was fetched, in ms since the Unix epoch.
    pub as_of_ms: i64,
    /// How many answers are behind it; 0 for a rate that the operator fixed.
    pub sources: usize,
}

/// There is no current rate, so nothing can be priced in USD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no current price of bitcoin is known")]
pub struct StaleRate {
    /// When any feed last answered, in ms since the Unix epoch.
    pub last_seen_ms: Option<i64>,
}

/// The latest answer of one feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quote {
    btc_usd: Decimal,
    at_ms: i64,
}

/// The latest answer of every feed, in the order of the feeds.
type Quotes = Vec<Option<Quote>>;

/// Keeps the latest answer of every feed, and derives the rate.
#[derive(Debug)]
pub struct PriceBook {
    feeds: Vec<Box<dyn PriceFeed>>,
    fixed: Option<Decimal>,
    max_age_ms: i64,
    clock: SharedClock,
    quotes: RwLock<Arc<Quotes>>,
}

impl PriceBook {
    /// A book over `feeds`, whose answers are good for `max_age`. A `fixed` rate (USD for a
    /// bitcoin) replaces them all and never ages.
    #[must_use]
    pub fn new(feeds: Vec<Box<dyn PriceFeed>>, fixed: Option<Decimal>, max_age: Duration, clock: SharedClock) -> Self {
        let quotes = RwLock::new(Arc::new(vec![None; feeds.len()]));
        let max_age_ms = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
        Self { feeds, fixed: fixed.filter(|rate| is_sane(*rate)), max_age_ms, clock, quotes }
    }

    /// The book that the configuration asks for, with its own HTTP client.
    ///
    /// # Errors
    /// When a feed's address is not acceptable, or the HTTP client does not start.
    pub fn from_config(pricing: &Pricing, clock: SharedClock) -> Result<Self, NetError> {
        let mut feeds: Vec<Box<dyn PriceFeed>> = Vec::new();
        if pricing.btc_usd_fixed.is_none() {
            let client = crate::net::client(&feeds::client_options())?;
            for feed in &pricing.feeds {
                feeds.push(Box::new(HttpFeed::new(feed, client.clone())?));
            }
        }
        Ok(Self::new(feeds, pricing.btc_usd_fixed, pricing.max_age, clock))
    }

    /// Asks all feeds at once and publishes what they say. A feed that fails keeps its last
    /// answer, which goes on ageing. Returns a line for each failure, for the log.
    pub async fn refresh(&self) -> Vec<String> {
        let asked = self.feeds.iter().map(|feed| async move {
            let answer = feed.fetch().await;
            (answer, self.clock.now_ms())
        });
        let answers = futures_util::future::join_all(asked).await;
        let mut quotes = Quotes::clone(&self.quotes());
        let mut faults = Vec::new();
        for ((answer, at_ms), (feed, slot)) in answers.into_iter().zip(self.feeds.iter().zip(quotes.iter_mut())) {
            match answer {
                Ok(btc_usd) if is_sane(btc_usd) => *slot = Some(Quote { btc_usd, at_ms }),
                Ok(_) => faults.push(format!("{feed}: {}", FeedError::Unreadable)),
                Err(error) => faults.push(format!("{feed}: {error}")),
            }
        }
        *self.quotes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(quotes);
        faults
    }

    /// The rate at `now_ms` (ms since the Unix epoch). Cheap, and never waits for a feed.
    ///
    /// # Errors
    /// When no answer is young enough, or those that are contradict each other.
    pub fn current(&self, now_ms: i64) -> Result<Rate, StaleRate> {
        if let Some(btc_usd) = self.fixed {
            return Ok(Rate { btc_usd, as_of_ms: now_ms, sources: 0 });
        }
        let quotes = self.quotes();
        let fresh: Vec<Quote> = quotes
            .iter()
            .flatten()
            // An answer from the future (the clock was set back) is as doubtful as an old one.
            .filter(|quote| now_ms.saturating_sub(quote.at_ms).saturating_abs() <= self.max_age_ms)
            .copied()
            .collect();
        let prices = fresh.iter().map(|quote| quote.btc_usd).collect();
        let stale = || StaleRate { last_seen_ms: quotes.iter().flatten().map(|q| q.at_ms).max() };
        let (btc_usd, kept) = robust_median(prices).ok_or_else(stale)?;
        let used = fresh.iter().filter(|quote| kept.contains(&quote.btc_usd));
        let as_of_ms = used.map(|quote| quote.at_ms).min().ok_or_else(stale)?;
        Ok(Rate { btc_usd, as_of_ms, sources: kept.len() })
    }

    fn quotes(&self) -> Arc<Quotes> {
        Arc::clone(&self.quotes.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::clock::Clock;

    #[derive(Debug, Default)]
    struct Stepped(AtomicI64);

    impl Clock for Stepped {
        fn now_ms(&self) -> i64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    /// Answers what the test last wrote on it.
    #[derive(Debug, Clone)]
    struct Slate(Arc<Mutex<Result<Decimal, FeedError>>>);

    impl fmt::Display for Slate {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("slate")
        }
    }

    #[async_trait]
    impl PriceFeed for Slate {
        async fn fetch(&self) -> Result<Decimal, FeedError> {
            *self.0.lock().unwrap()
        }
    }

    fn slate(price: u64) -> Slate {
        Slate(Arc::new(Mutex::new(Ok(Decimal::from(price)))))
    }

    fn book(slates: &[Slate]) -> (PriceBook, Arc<Stepped>) {
        let clock = Arc::new(Stepped::default());
        let feeds = slates.iter().map(|s| Box::new(s.clone()) as Box<dyn PriceFeed>).collect();
        let shared: SharedClock = clock.clone();
        (PriceBook::new(feeds, None, Duration::from_secs(600), shared), clock)
    }

    #[tokio::test]
    async fn nothing_is_known_before_the_first_refresh() {
        let (book, _) = book(&[slate(100_000)]);
        assert_eq!(book.current(0), Err(StaleRate { last_seen_ms: None }));
        assert!(book.refresh().await.is_empty());
        let rate = book.current(0).unwrap();
        assert_eq!((rate.btc_usd, rate.sources), (Decimal::from(100_000), 1));
    }

    #[tokio::test]
    async fn answers_age_and_a_failing_feed_keeps_its_last() {
        let (one, two) = (slate(100_000), slate(102_000));
        let (book, clock) = book(&[one.clone(), two.clone()]);
        clock.0.store(1_000, Ordering::SeqCst);
        book.refresh().await;
        *two.0.lock().unwrap() = Err(FeedError::Status(503));
        clock.0.store(301_000, Ordering::SeqCst);
        assert_eq!(book.refresh().await, ["slate: the feed answered with status 503"]);
        // Both still count; the older one dates the rate.
        let rate = book.current(301_000).unwrap();
        assert_eq!(rate, Rate { btc_usd: Decimal::from(101_000), as_of_ms: 1_000, sources: 2 });
        // The last moment of the older one, and the first without it.
        assert_eq!(book.current(601_000).unwrap().sources, 2);
        let rate = book.current(601_001).unwrap();
        assert_eq!(rate, Rate { btc_usd: Decimal::from(100_000), as_of_ms: 301_000, sources: 1 });
        // And the end of the other.
        assert!(book.current(901_000).is_ok());
        assert_eq!(book.current(901_001), Err(StaleRate { last_seen_ms: Some(301_000) }));
    }

    #[tokio::test]
    async fn an_answer_from_the_future_does_not_count_for_ever() {
        let (book, clock) = book(&[slate(100_000)]);
        clock.0.store(10_000_000, Ordering::SeqCst);
        book.refresh().await;
        assert!(book.current(9_500_000).is_ok());
        assert!(book.current(5_000_000).is_err());
    }

    #[tokio::test]
    async fn an_outlier_is_dropped_and_does_not_date_the_rate() {
        let (a, b, c) = (slate(100_000), slate(101_000), slate(50_000));
        let (book, clock) = book(&[a.clone(), b.clone(), c.clone()]);
        book.refresh().await;
        *c.0.lock().unwrap() = Err(FeedError::Unreadable);
        clock.0.store(5_000, Ordering::SeqCst);
        book.refresh().await;
        let rate = book.current(5_000).unwrap();
        assert_eq!(rate, Rate { btc_usd: Decimal::from(100_500), as_of_ms: 5_000, sources: 2 });
    }

    #[tokio::test]
    async fn a_mad_price_is_not_taken() {
        let (book, _) = book(&[slate(0), slate(100_000_001)]);
        assert_eq!(book.refresh().await.len(), 2);
        assert!(book.current(0).is_err());
    }

    #[test]
    fn a_fixed_rate_never_ages() {
        let clock: SharedClock = Arc::new(Stepped::default());
        let fixed = Some(Decimal::from(60_000));
        let book = PriceBook::new(Vec::new(), fixed, Duration::ZERO, clock);
        let rate = book.current(i64::MAX).unwrap();
        assert_eq!((rate.btc_usd, rate.sources), (Decimal::from(60_000), 0));
    }
}
