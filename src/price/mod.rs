//! What a bitcoin costs in dollars, right now or not at all.
//!
//! Several public feeds are asked side by side; the rate is the median of the answers that are
//! young enough, without those that stray too far from it, if enough of them agree. A [`PriceBook`]
//! never answers with a made-up number: without a current rate there is no price, and without a price
//! no sale. Where the operator allows it, the last good rate sells on for a while when the feeds fall
//! silent, made dearer by a margin; not when they contradict each other. Prices are decimals read from
//! the feeds' own text; no float is involved.
//!
//! `refresh` (called by a job) is the only thing that waits; [`PriceBook::current`] reads what was
//! last published.

pub mod decimal;
pub mod feeds;
pub mod median;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use rust_decimal::Decimal;

use crate::clock::SharedClock;
use crate::config::{Pricing, RateRules};
use crate::net::NetError;
use crate::net::way::Way;
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
    pub basis: RateBasis,
}

/// What a rate rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateBasis {
    /// Feeds that answered lately and agree.
    Fresh,
    /// The operator's word.
    Fixed,
    /// The last good rate, made dearer, while the feeds are silent.
    Grace,
}

impl RateBasis {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Fixed => "fixed",
            Self::Grace => "grace",
        }
    }
}

/// What one feed said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    /// USD for one bitcoin, and when it was fetched, in ms since the Unix epoch. `None`: never.
    pub answer: Option<(Decimal, i64)>,
    /// Whether it is behind the present rate.
    pub counts: bool,
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
    rules: RateRules,
    clock: SharedClock,
    quotes: RwLock<Arc<Quotes>>,
    /// How often the feeds were asked.
    refreshes: AtomicU64,
    /// The rate that was good last.
    last: RwLock<Option<Rate>>,
}

/// What the answers that are young enough come to.
enum Verdict {
    Agreed(Rate, Vec<Decimal>),
    /// Too few are young enough.
    Silent,
    /// Too few of them agree.
    Contradictory,
}

impl PriceBook {
    /// A book over `feeds`, whose answers are believed by these rules. A `fixed` rate (USD for a
    /// bitcoin) replaces them all and never ages.
    #[must_use]
    pub fn new(feeds: Vec<Box<dyn PriceFeed>>, fixed: Option<Decimal>, rules: RateRules, clock: SharedClock) -> Self {
        let quotes = RwLock::new(Arc::new(vec![None; feeds.len()]));
        let fixed = fixed.filter(|rate| is_sane(*rate));
        Self { feeds, fixed, rules, clock, quotes, refreshes: AtomicU64::default(), last: RwLock::default() }
    }

    /// The book that the configuration asks for, with its own HTTP client.
    ///
    /// # Errors
    /// When a feed's address is not acceptable, or the HTTP client does not start.
    pub fn from_config(pricing: &Pricing, way: &Way, clock: SharedClock) -> Result<Self, NetError> {
        let mut feeds: Vec<Box<dyn PriceFeed>> = Vec::new();
        if pricing.btc_usd_fixed.is_none() {
            let client = crate::net::client(&feeds::client_options(way))?;
            for feed in &pricing.feeds {
                feeds.push(Box::new(HttpFeed::new(feed, client.clone(), way)?));
            }
        }
        Ok(Self::new(feeds, pricing.btc_usd_fixed, pricing.rate.clone(), clock))
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
        let verdict = self.judge(&quotes, self.clock.now_ms());
        *self.quotes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(quotes);
        self.refreshes.fetch_add(1, Ordering::Relaxed);
        match verdict {
            Verdict::Agreed(rate, _) => *self.last.write().unwrap_or_else(PoisonError::into_inner) = Some(rate),
            Verdict::Contradictory => faults.push("the feeds contradict each other".to_owned()),
            Verdict::Silent => {}
        }
        faults
    }

    /// The rate at `now_ms` (ms since the Unix epoch). Cheap, and never waits for a feed.
    ///
    /// # Errors
    /// When too few answers are young enough and the last good rate may not be used, or when they
    /// contradict each other.
    pub fn current(&self, now_ms: i64) -> Result<Rate, StaleRate> {
        if let Some(btc_usd) = self.fixed {
            return Ok(Rate { btc_usd, as_of_ms: now_ms, sources: 0, basis: RateBasis::Fixed });
        }
        let quotes = self.quotes();
        let stale = || StaleRate { last_seen_ms: quotes.iter().flatten().map(|quote| quote.at_ms).max() };
        match self.judge(&quotes, now_ms) {
            Verdict::Agreed(rate, _) => Ok(rate),
            Verdict::Contradictory => Err(stale()),
            Verdict::Silent => self.in_grace(now_ms).ok_or_else(stale),
        }
    }

    /// Whether there is a rate now.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.current(self.clock.now_ms()).is_ok()
    }

    /// How old an answer may be that counts.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        self.rules.max_age
    }

    /// How often the feeds were asked: as long as it is the same, they said the same.
    #[must_use]
    pub fn refreshes(&self) -> u64 {
        self.refreshes.load(Ordering::Relaxed)
    }

    /// What every feed said last, in their order.
    #[must_use]
    pub fn sources(&self, now_ms: i64) -> Vec<Source> {
        let quotes = self.quotes();
        let kept = match self.judge(&quotes, now_ms) {
            Verdict::Agreed(_, kept) => kept,
            Verdict::Silent | Verdict::Contradictory => Vec::new(),
        };
        let counts = |quote: &Quote| self.is_young(quote, now_ms) && kept.contains(&quote.btc_usd);
        let both = self.feeds.iter().zip(quotes.iter());
        both.map(|(feed, quote)| Source {
            name: feed.to_string(),
            answer: quote.map(|quote| (quote.btc_usd, quote.at_ms)),
            counts: quote.as_ref().is_some_and(counts),
        })
        .collect()
    }

    fn judge(&self, quotes: &Quotes, now_ms: i64) -> Verdict {
        let young: Vec<Quote> = quotes.iter().flatten().filter(|quote| self.is_young(quote, now_ms)).copied().collect();
        let wanted = self.rules.min_feeds.min(self.feeds.len()).max(1);
        if young.len() < wanted {
            return Verdict::Silent;
        }
        let prices = young.iter().map(|quote| quote.btc_usd).collect();
        let agreed = robust_median(prices, self.rules.max_spread_percent).filter(|(_, kept)| kept.len() >= wanted);
        let Some((btc_usd, kept)) = agreed else { return Verdict::Contradictory };
        let used = young.iter().filter(|quote| kept.contains(&quote.btc_usd));
        let as_of_ms = used.map(|quote| quote.at_ms).min().unwrap_or(now_ms);
        Verdict::Agreed(Rate { btc_usd, as_of_ms, sources: kept.len(), basis: RateBasis::Fresh }, kept)
    }

    /// An answer from the future (the clock was set back) is as doubtful as an old one.
    fn is_young(&self, quote: &Quote, now_ms: i64) -> bool {
        now_ms.saturating_sub(quote.at_ms).saturating_abs() <= millis(self.rules.max_age)
    }

    /// The last good rate, dearer for the client: fewer dollars for a bitcoin.
    fn in_grace(&self, now_ms: i64) -> Option<Rate> {
        let last = (*self.last.read().unwrap_or_else(PoisonError::into_inner))?;
        let most = millis(self.rules.max_age.checked_add(self.rules.grace?)?);
        if now_ms.saturating_sub(last.as_of_ms).saturating_abs() > most {
            return None;
        }
        let margin = Decimal::ONE_HUNDRED.checked_add(Decimal::from(self.rules.grace_margin_percent))?;
        let dearer = last.btc_usd.checked_mul(Decimal::ONE_HUNDRED)?.checked_div(margin)?.round_dp(2);
        Some(Rate { btc_usd: dearer, basis: RateBasis::Grace, ..last })
    }

    fn quotes(&self) -> Arc<Quotes> {
        Arc::clone(&self.quotes.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A feed that tests write on.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Mutex;

    use super::*;

    /// Answers what the test last wrote on it.
    #[derive(Debug, Clone)]
    pub(crate) struct Slate(Arc<Mutex<Result<Decimal, FeedError>>>);

    impl Slate {
        pub(crate) fn of(answer: Result<Decimal, FeedError>) -> Self {
            Self(Arc::new(Mutex::new(answer)))
        }

        pub(crate) fn say(&self, answer: Result<Decimal, FeedError>) {
            *self.0.lock().unwrap() = answer;
        }
    }

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

    pub(crate) const RULES: RateRules = RateRules {
        max_age: Duration::from_secs(600),
        min_feeds: 1,
        max_spread_percent: 10,
        grace: None,
        grace_margin_percent: 5,
    };
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::testing::{RULES, Slate};
    use super::*;
    use crate::clock::Clock;

    #[derive(Debug, Default)]
    struct Stepped(AtomicI64);

    impl Clock for Stepped {
        fn now_ms(&self) -> i64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn slate(price: u64) -> Slate {
        Slate::of(Ok(Decimal::from(price)))
    }

    fn book(slates: &[Slate]) -> (PriceBook, Arc<Stepped>) {
        book_by(slates, RULES)
    }

    fn book_by(slates: &[Slate], rules: RateRules) -> (PriceBook, Arc<Stepped>) {
        let clock = Arc::new(Stepped::default());
        let feeds = slates.iter().map(|s| Box::new(s.clone()) as Box<dyn PriceFeed>).collect();
        let shared: SharedClock = clock.clone();
        (PriceBook::new(feeds, None, rules, shared), clock)
    }

    fn fresh(btc_usd: u64, as_of_ms: i64, sources: usize) -> Rate {
        Rate { btc_usd: Decimal::from(btc_usd), as_of_ms, sources, basis: RateBasis::Fresh }
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
        two.say(Err(FeedError::Status(503)));
        clock.0.store(301_000, Ordering::SeqCst);
        assert_eq!(book.refresh().await, ["slate: the feed answered with status 503"]);
        // Both still count; the older one dates the rate.
        let rate = book.current(301_000).unwrap();
        assert_eq!(rate, fresh(101_000, 1_000, 2));
        // The last moment of the older one, and the first without it.
        assert_eq!(book.current(601_000).unwrap().sources, 2);
        let rate = book.current(601_001).unwrap();
        assert_eq!(rate, fresh(100_000, 301_000, 1));
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
        c.say(Err(FeedError::Unreadable));
        clock.0.store(5_000, Ordering::SeqCst);
        book.refresh().await;
        let rate = book.current(5_000).unwrap();
        assert_eq!(rate, fresh(100_500, 5_000, 2));
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
        let book = PriceBook::new(Vec::new(), fixed, RateRules { max_age: Duration::ZERO, ..RULES }, clock);
        let rate = book.current(i64::MAX).unwrap();
        assert_eq!((rate.btc_usd, rate.sources), (Decimal::from(60_000), 0));
    }

    #[tokio::test]
    async fn so_many_must_agree_or_all_that_there_are() {
        let (a, b, c) = (slate(100_000), slate(101_000), slate(102_000));
        let two = RateRules { min_feeds: 2, ..RULES };
        let (book, clock) = book_by(&[a.clone(), b.clone(), c.clone()], two.clone());
        book.refresh().await;
        assert_eq!(book.current(0).unwrap(), fresh(101_000, 0, 3));
        for slate in [&a, &b] {
            slate.say(Err(FeedError::Status(503)));
        }
        clock.0.store(601_000, Ordering::SeqCst);
        book.refresh().await;
        assert!(book.current(601_000).is_err(), "one alone is not believed");
        assert!(book.sources(601_000).iter().all(|source| !source.counts));
        b.say(Ok(Decimal::from(50_000)));
        assert_eq!(book.refresh().await.len(), 2, "one is silent, and two contradict each other");
        assert!(book.current(601_000).is_err());
        // Where there is but one, it has to do.
        let (alone, _) = book_by(&[slate(100_000)], two);
        alone.refresh().await;
        assert_eq!(alone.current(0).unwrap(), fresh(100_000, 0, 1));
    }

    #[tokio::test]
    async fn the_last_good_rate_sells_on_for_a_while_and_dearer() {
        let (one, two) = (slate(100_000), slate(110_000));
        let rules = RateRules { min_feeds: 2, grace: Some(Duration::from_secs(300)), ..RULES };
        let (book, clock) = book_by(&[one.clone(), two.clone()], rules);
        clock.0.store(1_000, Ordering::SeqCst);
        book.refresh().await;
        one.say(Err(FeedError::Unreadable));
        two.say(Err(FeedError::Unreadable));
        clock.0.store(601_001, Ordering::SeqCst);
        book.refresh().await;
        assert_eq!(book.current(601_000).unwrap(), fresh(105_000, 1_000, 2));
        let grace = Rate { basis: RateBasis::Grace, ..fresh(100_000, 1_000, 2) };
        assert_eq!(book.current(601_001).unwrap(), grace, "105 to 100: five percent dearer");
        assert_eq!(book.current(901_000).unwrap(), grace);
        assert_eq!(book.current(901_001), Err(StaleRate { last_seen_ms: Some(1_000) }));
        // Feeds that are heard and contradict each other are no reason to go on.
        one.say(Ok(Decimal::from(50_000)));
        two.say(Ok(Decimal::from(100_000)));
        book.refresh().await;
        assert!(book.current(601_001).is_err());
    }

    #[tokio::test]
    async fn what_each_feed_said_can_be_seen() {
        let (book, _) = book(&[slate(100_000), slate(0), slate(101_000), slate(300_000)]);
        book.refresh().await;
        let seen: Vec<_> = book.sources(0).into_iter().map(|source| (source.answer, source.counts)).collect();
        let said = |price: u64| Some((Decimal::from(price), 0));
        assert_eq!(seen, [(said(100_000), true), (None, false), (said(101_000), true), (said(300_000), false)]);
    }
}
