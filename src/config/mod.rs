//! Configuration: the only reader of the environment.
//!
//! Every setting is an environment variable, or a line in `.env` that the environment overrides.
//! [`SETTINGS`] names them all, with older spellings and defaults; `.env.example` documents them
//! and a test compares the two. Reading collects *all* faults, so `coinslot check` can name each
//! in a line. A fault never repeats what was given: it may be a secret, or one pasted into the
//! wrong line.

mod address;
mod fault;
mod live;
mod password;
mod read;
mod secret;
mod settings;
mod sources;
mod statuses;
#[cfg(test)]
mod tests;
mod told;
mod tor;
mod upstreams;
mod values;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use rust_decimal::Decimal;
use url::Url;

pub use crate::money::MintUnit;
use crate::money::Msat;

pub use address::mint_url;
pub use fault::{Fault, Faults};
pub use live::Live;
pub use password::check_password;
pub use secret::Secret;
pub use settings::{MODELS_PATH, NOT_USED_YET, SETTINGS, Setting};
pub use statuses::Statuses;
pub use told::{EDITABLE, Editable, Environment, Force, Origin, Told};
pub use tor::{Purpose, Tor};
pub use upstreams::{Choice, ModelRule, Timeouts, Upstream, UpstreamKind, Upstreams};

/// Everything the node was told.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: Server,
    pub info: Info,
    pub storage: Storage,
    pub backups: Backups,
    pub upstreams: Upstreams,
    pub mints: Mints,
    pub payouts: Payouts,
    pub clients: Clients,
    pub key_limits: KeyLimits,
    pub pricing: Pricing,
    pub admin: Admin,
    pub nostr: Nostr,
    pub tor: Tor,
    pub alerts: Alerts,
    pub traces: Traces,
    pub log: Log,
    /// Names out of [`NOT_USED_YET`] that were given and ask for something.
    pub not_used: Vec<&'static str>,
    /// What all of it was read from.
    pub environment: Environment,
}

impl Config {
    /// Reads `.env` in the working directory and the environment over it.
    pub fn from_process() -> Result<Self, Faults> {
        let (vars, mut faults) = sources::gather();
        match Self::from_vars(&vars) {
            Ok(config) if faults.is_empty() => Ok(config),
            Ok(_) => Err(Faults(faults)),
            Err(Faults(more)) => {
                faults.extend(more);
                Err(Faults(faults))
            }
        }
    }

    /// What `vars` say. Reads nothing else but the files that `SECRET_KEY_FILE` and `BACKUP_PASSPHRASE_FILE` name.
    pub fn from_vars(vars: &BTreeMap<String, String>) -> Result<Self, Faults> {
        read::config(vars)
    }

    /// One line for each thing that keeps the node from selling, or that was asked for in vain.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.upstreams.listed.is_empty() {
            lines.push("no upstream: set UPSTREAM_BASE_URL".to_owned());
        }
        if self.mints.urls.is_empty() {
            lines.push("no mint: set CASHU_MINTS".to_owned());
        }
        let nowhere = self.info.http_url.is_empty() && self.info.onion_url.is_empty() && !self.tor.enabled;
        let unlisted = match (self.nostr.relays.is_empty(), nowhere) {
            (true, _) => Some("RELAYS"),
            (false, true) => Some("HTTP_URL"),
            (false, false) => None,
        };
        lines.extend(unlisted.map(|name| format!("not listed on Nostr, where clients look for nodes: set {name}")));
        if self.alerts.npub.is_some() && self.nostr.relays.is_empty() {
            lines.push("ALERT_NPUB cannot be told anything: set RELAYS".to_owned());
        }
        if !self.info.onion_url.is_empty() && !tor::is_onion_url(&self.info.onion_url) {
            lines.push("ONION_URL is no address in Tor, and is not announced: expected http://….onion".to_owned());
        }
        if self.storage.secret_key.as_ref().is_some_and(Secret::is_short) {
            lines.push("SECRET_KEY is short: no new database is made with less than 16 characters".to_owned());
        }
        let unused = |name| format!("{name} is set, but this version does not use it yet");
        lines.extend(self.not_used.iter().map(unused));
        lines
    }
}

/// Where the node listens, and what it takes.
#[derive(Clone, Debug)]
pub struct Server {
    /// `HOST`, 127.0.0.1.
    pub host: IpAddr,
    /// `PORT`, 8000. 0 picks a free one.
    pub port: u16,
    /// `CORS_ORIGINS`, comma list; empty (or `*` among them) means any.
    pub cors_origins: Vec<String>,
    /// `TRUSTED_PROXIES`: reverse proxies that say who asks.
    pub trusted_proxies: Vec<IpNet>,
    /// `MAX_BODY_BYTES`, 32 MiB.
    pub max_body_bytes: usize,
    /// `MAX_BUFFERED_BYTES`, 256 MiB: all large bodies together.
    pub max_buffered_bytes: usize,
    /// `MAX_KEPT_BYTES`, 1 GiB: all answers together that are kept for an `Idempotency-Key`.
    pub max_kept_bytes: usize,
    /// `SHUTDOWN_TIMEOUT_SECONDS`, 30: how long running streams may go on after a stop signal.
    pub shutdown_timeout: Duration,
    /// `SSE_KEEP_ALIVE_SECONDS`, 15
    pub keep_alive: Option<Duration>,
    /// `MAINTENANCE`; `None`: a stored switch decides.
    pub maintenance: Option<bool>,
    /// `PROTOCOLS`, all: whose endpoints are sold.
    pub protocols: Vec<crate::dialect::Protocol>,
    /// `ACCEPT_NEW_TOKENS`, true; otherwise no new money comes in.
    pub takes_money: bool,
}

/// What the node says about itself.
#[derive(Clone, Debug)]
pub struct Info {
    /// `NAME`
    pub name: String,
    /// `DESCRIPTION`
    pub description: String,
    /// `NPUB`
    pub npub: String,
    /// `HTTP_URL`
    pub http_url: String,
    /// `ONION_URL`
    pub onion_url: String,
}

/// Where things are kept.
#[derive(Clone, Debug)]
pub struct Storage {
    /// `DATA_DIR`, ./data
    pub data_dir: PathBuf,
    /// `DATABASE_URL`, `sqlite:…` or `postgres://…`; SQLite in the data directory when absent.
    pub database_url: Option<Secret>,
    /// `DURABILITY=strict` (else `normal`): every commit is synced.
    pub strict: bool,
    /// `NODE_TIMEOUT_SECONDS`, 90, at least 5: the silence after which another process is dead.
    pub node_timeout: Duration,
    /// `SECRET_KEY` or the contents of `SECRET_KEY_FILE`.
    pub secret_key: Option<Secret>,
    pub retention: Retention,
}

/// How long is kept what is no money. `None`: for ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// `RETENTION_REQUESTS_DAYS`, 90
    pub requests: Option<Duration>,
    /// `RETENTION_FAILED_DAYS`, 7: of requests that cost their client nothing.
    pub failed: Option<Duration>,
}

/// Copies of the database.
#[derive(Clone, Debug)]
pub struct Backups {
    /// `BACKUP_PASSPHRASE` or the contents of `BACKUP_PASSPHRASE_FILE`.
    pub passphrase: Option<Secret>,
    /// `SNAPSHOTS_KEEP`, 14; 0: none are made.
    pub keep: u64,
}

/// The mints whose ecash is taken.
#[derive(Clone, Debug)]
pub struct Mints {
    /// `CASHU_MINTS` (comma list; `MINT`) as [`mint_url`] writes them, without duplicates. The
    /// first is the primary; `PRIMARY_MINT_URL` puts one there.
    pub urls: Vec<String>,
    /// `PRIMARY_MINT_UNIT`, sat (`CURRENCY`).
    pub unit: MintUnit,
    /// `MINT_OPERATION_TIMEOUT_SECONDS`, 30
    pub timeout: Duration,
    /// `MINT_MAX_CONCURRENCY`, 4 (`MINT_OPERATION_CONCURRENCY`)
    pub max_concurrency: usize,
    /// `MINT_CALLS_PER_MINUTE`, 20
    pub calls_per_minute: CallLimits,
    /// `FOREIGN_MINT_MAX_FEE_PERCENT`, 5, with `FOREIGN_MINTS=swap`; `None`: `refuse`, the default.
    pub foreign_fee_percent: Option<u8>,
    /// `CHANGE_LADDER_COINS`, 4; 0: none.
    pub ladder_coins: usize,
}

/// How often mints are called: `20,https://mint.example=60`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// For public mints that are not named. 0: no limit.
    pub public: u32,
    /// By URL, as [`mint_url`] writes it. 0: no limit.
    pub named: BTreeMap<String, u32>,
}

/// What leaves the node over Lightning.
#[derive(Clone, Debug)]
pub struct Payouts {
    /// `RECEIVE_LN_ADDRESS`: where earnings go; none: they stay.
    pub recipient: Option<String>,
    /// `MINIMUM_PAYOUT` in sats, 100 (`MIN_PAYOUT_SAT`)
    pub minimum: Msat,
    /// `PAYOUT_INTERVAL` in seconds, 300 (`PAYOUT_INTERVAL_SECONDS`)
    pub interval: Duration,
    /// `REFUND_PROCESSING_INTERVAL` in seconds, 3600; `None` (0): expired keys keep their money.
    pub expiry_interval: Option<Duration>,
    /// `LIGHTNING_MAX_FEE_PERCENT`, 3
    pub max_fee_percent: u8,
    /// `CHANGE_CLAIM_DAYS`, 180: how long change that nobody fetched at the mint is left alone; `None` (0): for ever.
    pub claim_time: Option<Duration>,
}

/// What one address may do without paying. `None` (0): as much as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// `INVOICE_CREATES_PER_HOUR`, 10: invoices that make a key.
    pub creates_per_hour: Option<usize>,
    /// `INVOICE_MAX_PENDING`, 5: invoices that wait to be paid.
    pub max_pending: Option<usize>,
    /// `VOUCHER_TRIES_PER_HOUR`, 20: voucher codes that are none.
    pub wrong_vouchers_per_hour: Option<usize>,
    /// `QUOTES_PER_MINUTE`, 60: questions for the price of a request.
    pub quotes_per_minute: Option<usize>,
}

/// What one key may do in this process. `None` (0): as much as it can pay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// `KEY_REQUESTS_PER_MINUTE`
    pub requests_per_minute: Option<u64>,
    /// `KEY_TOKENS_PER_MINUTE`
    pub tokens_per_minute: Option<u64>,
    /// `KEY_MAX_STREAMS`
    pub max_streams: Option<usize>,
}

/// How dollars become sats.
#[derive(Clone, Debug)]
pub struct Pricing {
    /// `MODELS_PATH`, models.json
    pub models_path: PathBuf,
    /// `MODEL_BASED_PRICING` (inverse: `FIXED_PRICING`); `None`: yes where there is or was a list of models.
    pub model_based: Option<bool>,
    /// `COST_PER_REQUEST` in sats (`FIXED_COST_PER_REQUEST`)
    pub cost_per_request: Decimal,
    /// `COST_PER_1K_INPUT_TOKENS` in sats (`FIXED_PER_1K_INPUT_TOKENS`)
    pub cost_per_1k_input: Decimal,
    /// `COST_PER_1K_OUTPUT_TOKENS` in sats (`FIXED_PER_1K_OUTPUT_TOKENS`)
    pub cost_per_1k_output: Decimal,
    /// `EXCHANGE_FEE`, 1.005
    pub exchange_fee: Decimal,
    /// `UPSTREAM_PROVIDER_FEE`, 1.05
    pub provider_fee: Decimal,
    /// `TOLERANCE_PERCENTAGE`, 1
    pub tolerance_percent: Decimal,
    /// `MIN_REQUEST_MSAT`, 1
    pub min_request: Msat,
    /// `CHILD_KEY_COST`, 0
    pub child_key_cost: Msat,
    /// `MISSING_USAGE`, estimate
    pub missing_usage: MissingUsage,
    /// `BTC_USD_FIXED`
    pub btc_usd_fixed: Option<Decimal>,
    /// `BTC_USD_FEEDS`: `kraken=<url>,coinbase=<url>,…`; a bare name takes the feed's own URL.
    pub feeds: Vec<Feed>,
    pub rate: RateRules,
    /// `PRICING_REFRESH_INTERVAL_SECONDS` (`PRICING_REFRESH_INTERVAL`), 120
    pub refresh_interval: Duration,
    /// `PRICE_SOURCES`: `openrouter,litellm=<url>,upstreams`; none: the operator's own list alone.
    pub sources: Vec<PriceSource>,
    /// `MODELS_REFRESH_INTERVAL_SECONDS`; when absent, as the rate where that was set, or 3600.
    pub models_interval: Duration,
}

/// Somebody else's list of models and prices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceSource {
    pub kind: PriceSourceKind,
    /// Replaces its own URL.
    pub url: Option<Url>,
}

/// Selects the parser, and the default URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriceSourceKind {
    OpenRouter,
    LiteLlm,
    /// Every upstream's own list.
    Upstreams,
}

impl PriceSourceKind {
    pub const ALL: [Self; 3] = [Self::OpenRouter, Self::LiteLlm, Self::Upstreams];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenRouter => "openrouter",
            Self::LiteLlm => "litellm",
            Self::Upstreams => "upstreams",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(text))
    }
}

/// When a BTC/USD rate is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateRules {
    /// `BTC_USD_MAX_AGE`, seconds, 600
    pub max_age: Duration,
    /// `BTC_USD_MIN_FEEDS`, 2: so many must agree, or all where there are fewer.
    pub min_feeds: usize,
    /// `BTC_USD_MAX_SPREAD_PERCENT`, 10: how far from the median a feed may be.
    pub max_spread_percent: u8,
    /// `BTC_USD_GRACE_SECONDS`, 0: for how long after its age the last good rate still sells.
    pub grace: Option<Duration>,
    /// `BTC_USD_GRACE_MARGIN_PERCENT`, 5: by how much it is dearer then.
    pub grace_margin_percent: u8,
}

/// One source of the BTC/USD rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    pub kind: FeedKind,
    /// Replaces the feed's own URL.
    pub url: Option<Url>,
}

/// Selects the parser, and the default URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FeedKind {
    Kraken,
    Coinbase,
    Binance,
    Bitstamp,
    Mempool,
}

impl FeedKind {
    pub const ALL: [Self; 5] = [Self::Kraken, Self::Coinbase, Self::Binance, Self::Bitstamp, Self::Mempool];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kraken => "kraken",
            Self::Coinbase => "coinbase",
            Self::Binance => "binance",
            Self::Bitstamp => "bitstamp",
            Self::Mempool => "mempool",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(text))
    }
}

/// What to charge when an upstream reports no usage on a success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingUsage {
    /// Count the text, never above the hold.
    #[default]
    Estimate,
    /// The whole hold.
    Max,
    /// Nothing.
    Free,
}

/// The operator's pages.
#[derive(Clone, Debug)]
pub struct Admin {
    /// `ADMIN_PASSWORD`; generated and printed once when none was ever set.
    pub password: Option<Secret>,
    /// `ADMIN_NPUBS` (comma list): who may log in by signing.
    pub npubs: Vec<String>,
    /// `ADMIN_LISTEN`; `None`: where everything is served.
    pub listen: Option<SocketAddr>,
    /// `METRICS_TOKEN`: opens `/metrics`; without it, nothing is served there.
    pub metrics_token: Option<Secret>,
}

/// Who the node is on Nostr.
#[derive(Clone, Debug)]
pub struct Nostr {
    /// `NSEC`, nsec1… or 64 hexadecimal digits; made and kept in the database when absent.
    pub nsec: Option<Secret>,
    /// `RELAYS` (comma list), as `wss://…` without a slash at the end; none: the node is not on Nostr.
    pub relays: Vec<String>,
    /// `PROVIDER_ID`: the listing's `d` tag; the start of the public key when absent.
    pub provider_id: Option<String>,
    /// `NOSTR_HANDLER`, false: apps are told what opens the listing (NIP-89).
    pub handler: bool,
    /// `PROVIDERS_REFRESH_INTERVAL_SECONDS`, 900; `None` (0): others are not looked for.
    pub refresh_interval: Option<Duration>,
}

/// Who is told what is wrong.
#[derive(Clone, Debug)]
pub struct Alerts {
    /// `ALERT_WEBHOOK_URL`. Such addresses carry keys.
    pub webhook_url: Option<Secret>,
    /// `ALERT_WEBHOOK_SECRET`: the signing key.
    pub webhook_key: Option<Secret>,
    /// `ALERT_NPUB`
    pub npub: Option<String>,
    /// `ALERT_REPEAT_SECONDS`, 21600; `None` (0): never.
    pub repeat: Option<Duration>,
}

/// `OTEL_EXPORTER_OTLP_ENDPOINT`, `…_HEADERS`, `OTEL_SERVICE_NAME`
#[derive(Clone, Debug)]
pub struct Traces {
    /// Where traces are posted; `None`: there are none.
    pub url: Option<Url>,
    pub headers: Vec<(String, Secret)>,
    pub service: String,
}

/// `LOG_LEVEL`, `LOG_FORMAT`
#[derive(Clone, Debug)]
pub struct Log {
    pub level: String,
    pub json: bool,
}
