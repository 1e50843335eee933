//! The price feeds: one row each, with the default address and the pure parser of its answer.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::{FeedError, PriceFeed, decimal, is_sane};
use crate::config::{Feed, FeedKind};
use crate::net::way::Way;
use crate::net::{self, ClientOptions, NetError};

/// How long a feed may take from the first byte sent to the last byte read.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of a feed's answer that are read. Real ones have less than one KiB.
pub const MAX_BYTES: usize = 64 * 1024;

/// Name of the feed, its own address, and how its answer is read.
type Row = (&'static str, &'static str, fn(&[u8]) -> Option<Decimal>);

const fn row(kind: FeedKind) -> Row {
    match kind {
        FeedKind::Kraken => ("kraken", "https://api.kraken.com/0/public/Ticker?pair=XBTUSD", kraken),
        FeedKind::Coinbase => ("coinbase", "https://api.coinbase.com/v2/prices/BTC-USD/spot", coinbase),
        FeedKind::Binance => ("binance", "https://api.binance.com/api/v3/ticker/price?symbol=BTCUSDT", binance),
        FeedKind::Bitstamp => ("bitstamp", "https://www.bitstamp.net/api/v2/ticker/btcusd/", bitstamp),
        FeedKind::Mempool => ("mempool", "https://mempool.space/api/v1/prices", mempool),
    }
}

/// What the feeds' common client is built with.
#[must_use]
pub fn client_options(way: &Way) -> ClientOptions {
    ClientOptions { read_timeout: Some(TIMEOUT), idle_per_host: 1, way: way.clone(), ..ClientOptions::default() }
}

/// USD for one bitcoin in the answer of a `kind` of feed; `None` when it is not in its format or
/// out of any sensible range.
#[must_use]
pub fn parse(kind: FeedKind, body: &[u8]) -> Option<Decimal> {
    let (_, _, read) = row(kind);
    read(body).filter(|price| is_sane(*price))
}

/// A feed that is asked over HTTP.
#[derive(Debug, Clone)]
pub struct HttpFeed {
    kind: FeedKind,
    url: Url,
    client: reqwest::Client,
    timeout: Duration,
}

impl HttpFeed {
    /// The feed of this row of the configuration, at its own or the given address.
    ///
    /// # Errors
    /// When the address is not one that this node talks to.
    pub fn new(feed: &Feed, client: reqwest::Client, way: &Way) -> Result<Self, NetError> {
        let (_, own, _) = row(feed.kind);
        let url = match &feed.url {
            Some(url) => url.clone(),
            None => own.parse().map_err(|_| NetError::Address("the address cannot be read"))?,
        };
        net::check_url(&url)?;
        way.check(&url)?;
        let timeout = way.patience(TIMEOUT, &url);
        Ok(Self { kind: feed.kind, url, client, timeout })
    }

    /// The same feed with another limit on how long it may take.
    #[cfg(test)]
    fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn ask(&self) -> Result<Decimal, FeedError> {
        let sent = self.client.get(self.url.clone()).header("accept", "application/json").send();
        let response = sent.await.map_err(NetError::from)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FeedError::Status(response.status().as_u16()));
        }
        let body = net::read_limited(response, MAX_BYTES).await?;
        parse(self.kind, &body).ok_or(FeedError::Unreadable)
    }
}

impl fmt::Display for HttpFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(row(self.kind).0)
    }
}

#[async_trait]
impl PriceFeed for HttpFeed {
    async fn fetch(&self) -> Result<Decimal, FeedError> {
        match tokio::time::timeout(self.timeout, self.ask()).await {
            Ok(answer) => answer,
            Err(_) => Err(FeedError::Net(NetError::Timeout)),
        }
    }
}

fn kraken(body: &[u8]) -> Option<Decimal> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        result: Pairs<'a>,
    }
    #[derive(Deserialize)]
    struct Pairs<'a> {
        #[serde(borrow, rename = "XXBTZUSD")]
        pair: Ticker<'a>,
    }
    #[derive(Deserialize)]
    struct Ticker<'a> {
        /// Last trade: price, volume.
        #[serde(borrow)]
        c: Vec<&'a RawValue>,
    }
    let answer: Answer<'_> = serde_json::from_slice(body).ok()?;
    decimal::parse_json(answer.result.pair.c.first()?)
}

fn coinbase(body: &[u8]) -> Option<Decimal> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        data: Spot<'a>,
    }
    #[derive(Deserialize)]
    struct Spot<'a> {
        #[serde(borrow)]
        amount: &'a RawValue,
    }
    let answer: Answer<'_> = serde_json::from_slice(body).ok()?;
    decimal::parse_json(answer.data.amount)
}

fn binance(body: &[u8]) -> Option<Decimal> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        price: &'a RawValue,
    }
    decimal::parse_json(serde_json::from_slice::<Answer<'_>>(body).ok()?.price)
}

fn bitstamp(body: &[u8]) -> Option<Decimal> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        last: &'a RawValue,
    }
    decimal::parse_json(serde_json::from_slice::<Answer<'_>>(body).ok()?.last)
}

fn mempool(body: &[u8]) -> Option<Decimal> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow, rename = "USD")]
        usd: &'a RawValue,
    }
    decimal::parse_json(serde_json::from_slice::<Answer<'_>>(body).ok()?.usd)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::config::RateRules;
    use crate::price::PriceBook;

    const KINDS: [FeedKind; 5] =
        [FeedKind::Kraken, FeedKind::Coinbase, FeedKind::Binance, FeedKind::Bitstamp, FeedKind::Mempool];

    /// An answer as the feed really writes it, with `price` for its price.
    fn body(kind: FeedKind, price: &str) -> String {
        let template = match kind {
            FeedKind::Kraken => concat!(
                r#"{"error":[],"result":{"XXBTZUSD":{"a":["67012.30000","1","1.000"],"#,
                r#""b":["67012.20000","9","9.000"],"c":[PRICE,"0.00074627"],"#,
                r#""v":["612.19861127","2418.77042136"],"p":["66837.11984","66719.29671"],"#,
                r#""t":[21554,69877],"l":["66417.60000","65850.00000"],"#,
                r#""h":["67182.10000","67409.90000"],"o":"66846.00000"}}}"#,
            ),
            FeedKind::Coinbase => r#"{"data":{"amount":PRICE,"base":"BTC","currency":"USD"}}"#,
            FeedKind::Binance => r#"{"symbol":"BTCUSDT","price":PRICE}"#,
            FeedKind::Bitstamp => concat!(
                r#"{"timestamp":"1763690000","open":"66846","high":"67410","low":"65850","#,
                r#""last":PRICE,"volume":"1178.40417832","vwap":"66693","bid":"67010","#,
                r#""ask":"67011","side":"0","open_24":"66112","percent_change_24":"1.36"}"#,
            ),
            FeedKind::Mempool => concat!(
                r#"{"time":1763690403,"USD":PRICE,"EUR":58042,"GBP":50973,"CAD":94377,"#,
                r#""CHF":53931,"AUD":103770,"JPY":10493871}"#,
            ),
        };
        template.replace("PRICE", price)
    }

    #[test]
    fn every_feed_is_read_from_its_own_text() {
        for kind in KINDS {
            for (price, expected) in [
                ("\"67012.30000\"", Some("67012.3")),
                ("67012", Some("67012")),
                ("67012.155", Some("67012.155")),
                ("6.7e4", Some("67000")),
                ("1", Some("1")),
                ("100000000", Some("100000000")),
                // More digits than a float holds.
                ("\"67012.300000000000000001\"", Some("67012.300000000000000001")),
                ("0", None),
                ("\"0.00000\"", None),
                ("0.99", None),
                ("-67012", None),
                ("\"-67012\"", None),
                ("\"NaN\"", None),
                ("\"Infinity\"", None),
                ("1e999", None),
                ("100000000.01", None),
                ("999999999999999999999999999999999999", None),
                ("null", None),
                ("true", None),
                ("\"\"", None),
                ("[]", None),
                ("{}", None),
            ] {
                let expected = expected.map(|text| text.parse::<Decimal>().unwrap());
                assert_eq!(parse(kind, body(kind, price).as_bytes()), expected, "{kind:?} {price}");
            }
        }
    }

    #[test]
    fn what_is_not_an_answer_gives_no_price() {
        for kind in KINDS {
            let cut = body(kind, "67012.3");
            for hostile in [
                "",
                "{}",
                "[]",
                "null",
                "67012.3",
                "<!doctype html><title>Just a moment...</title>",
                r#"{"error":["EGeneral:Too many requests"]}"#,
                r#"{"code":0,"msg":"Service unavailable from a restricted location"}"#,
                cut.split_at(cut.len() / 2).0,
            ] {
                assert_eq!(parse(kind, hostile.as_bytes()), None, "{kind:?} {hostile}");
            }
            assert_eq!(parse(kind, b"\xff\xfe{}"), None);
        }
        // Kraken in trouble: the pair is there, its last trade is not.
        let empty = br#"{"error":[],"result":{"XXBTZUSD":{"c":[]}}}"#;
        assert_eq!(parse(FeedKind::Kraken, empty), None);
    }

    #[test]
    fn own_addresses_are_acceptable() {
        let client = net::client(&client_options(&Way::default())).unwrap();
        for kind in KINDS {
            let feed = HttpFeed::new(&Feed { kind, url: None }, client.clone(), &Way::default()).unwrap();
            assert!(!feed.to_string().is_empty());
        }
        let plain = Feed { kind: FeedKind::Kraken, url: Some("http://feeds.example.com/".parse().unwrap()) };
        assert!(matches!(HttpFeed::new(&plain, client, &Way::default()), Err(NetError::Address(_))));
    }

    fn read_request(stream: &mut TcpStream) {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
            seen.extend_from_slice(&byte);
        }
    }

    /// A server that answers every connection by `answer`; returns its address.
    fn serve(answer: impl Fn(TcpStream) + Send + 'static) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                read_request(&mut stream);
                answer(stream);
            }
        });
        url.parse().unwrap()
    }

    fn serve_text(head: &str, body: &str) -> Url {
        let length = body.len();
        let text = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        serve(move |mut stream| stream.write_all(text.as_bytes()).unwrap())
    }

    fn feed(kind: FeedKind, url: Url) -> HttpFeed {
        let client = net::client(&client_options(&Way::default())).unwrap();
        let row = Feed { kind, url: Some(url) };
        HttpFeed::new(&row, client, &Way::default()).unwrap().with_timeout(Duration::from_secs(10))
    }

    /// One whose server does not come to an end by itself.
    fn feed_in_a_hurry(url: Url) -> HttpFeed {
        feed(FeedKind::Binance, url).with_timeout(Duration::from_millis(400))
    }

    #[tokio::test]
    async fn a_real_exchange_over_http() {
        for kind in KINDS {
            let url = serve_text("200 OK", &body(kind, "\"67012.3\""));
            assert_eq!(feed(kind, url).fetch().await, Ok("67012.3".parse().unwrap()));
        }
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let target = serve_text("200 OK", &body(FeedKind::Binance, "67012"));
        let url = serve_text(&format!("302 Found\r\nlocation: {target}"), "");
        assert_eq!(feed(FeedKind::Binance, url).fetch().await, Err(FeedError::Status(302)));
    }

    #[tokio::test]
    async fn a_slow_an_endless_and_a_long_answer_end() {
        let slow = serve(|stream| {
            std::thread::sleep(Duration::from_secs(5));
            drop(stream);
        });
        let got = feed_in_a_hurry(slow).fetch().await;
        assert_eq!(got, Err(FeedError::Net(NetError::Timeout)));

        let endless = serve(|mut stream| {
            let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
            let mut going = stream.write_all(head);
            while going.is_ok() {
                going = stream.write_all(&[b' '; 4096]);
            }
        });
        let got = feed(FeedKind::Binance, endless).fetch().await;
        assert_eq!(got, Err(FeedError::Net(NetError::TooLarge(MAX_BYTES))));

        let long = serve_text("200 OK", &" ".repeat(MAX_BYTES + 1));
        let got = feed(FeedKind::Binance, long).fetch().await;
        assert_eq!(got, Err(FeedError::Net(NetError::TooLarge(MAX_BYTES))));
    }

    #[tokio::test]
    async fn a_dripping_answer_ends_too() {
        let drip = serve(|mut stream| {
            let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
            let mut going = stream.write_all(head);
            while going.is_ok() {
                std::thread::sleep(Duration::from_millis(50));
                going = stream.write_all(b" ");
            }
        });
        let got = feed_in_a_hurry(drip).fetch().await;
        assert_eq!(got, Err(FeedError::Net(NetError::Timeout)));
    }

    #[tokio::test]
    async fn good_feeds_carry_the_bad_ones() {
        let boxed = |kind, url| Box::new(feed(kind, url)) as Box<dyn PriceFeed>;
        let feeds = vec![
            boxed(FeedKind::Kraken, serve_text("200 OK", &body(FeedKind::Kraken, "\"67000\""))),
            boxed(FeedKind::Coinbase, serve_text("500 Oops", "")),
            boxed(FeedKind::Binance, serve_text("200 OK", "<html>")),
            boxed(FeedKind::Mempool, serve_text("200 OK", &body(FeedKind::Mempool, "67100"))),
        ];
        let clock: crate::clock::SharedClock = Arc::new(SystemClock);
        let rules = RateRules {
            max_age: Duration::from_secs(600),
            min_feeds: 2,
            max_spread_percent: 10,
            grace: None,
            grace_margin_percent: 0,
        };
        let book = PriceBook::new(feeds, None, rules, clock.clone());
        let faults = book.refresh().await;
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("coinbase: ") && faults[1].starts_with("binance: "));
        let rate = book.current(clock.now_ms()).unwrap();
        assert_eq!((rate.btc_usd, rate.sources), (Decimal::from(67_050), 2));
    }
}
