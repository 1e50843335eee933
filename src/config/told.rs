//! Settings that the operator sets while the node has its database: on the pages, by the API, with `coinslot
//! settings`. They lie beneath the environment, which wins, and are read by the same reader.

use std::collections::BTreeMap;
use std::fmt;

use super::fault::{Fault, Faults};
use super::settings::{SETTINGS, Setting};
use super::sources::{is_blank, merge};
use super::{Config, Secret};

/// When a changed value comes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Within seconds, in every process of the database.
    AtOnce,
    AtTheNextStart,
}

/// A setting that can be told to a node that has its database.
#[derive(Clone, Copy, Debug)]
pub struct Editable {
    pub name: &'static str,
    pub force: Force,
    /// It says where money goes, or by which address: where clients pay, and for which one a signed login is good.
    pub moves_money: bool,
}

const fn at_once(name: &'static str) -> Editable {
    Editable { name, force: Force::AtOnce, moves_money: false }
}

const fn later(name: &'static str) -> Editable {
    Editable { name, force: Force::AtTheNextStart, moves_money: false }
}

const fn money(editable: Editable) -> Editable {
    Editable { moves_money: true, ..editable }
}

/// Those settings. All others are told by the environment alone: what is needed to open the database, what is secret,
/// whose ecash is trusted, where the node listens, who hears of it.
#[rustfmt::skip]
pub const EDITABLE: &[Editable] = &[
    at_once("NAME"), at_once("DESCRIPTION"), at_once("NPUB"),
    at_once("PROTOCOLS"), at_once("ACCEPT_NEW_TOKENS"),
    at_once("EXCHANGE_FEE"), at_once("UPSTREAM_PROVIDER_FEE"), at_once("TOLERANCE_PERCENTAGE"),
    at_once("MIN_REQUEST_MSAT"), at_once("CHILD_KEY_COST"), at_once("MISSING_USAGE"),
    at_once("COST_PER_REQUEST"), at_once("COST_PER_1K_INPUT_TOKENS"), at_once("COST_PER_1K_OUTPUT_TOKENS"),
    at_once("KEY_REQUESTS_PER_MINUTE"), at_once("KEY_TOKENS_PER_MINUTE"), at_once("KEY_MAX_STREAMS"),
    at_once("INVOICE_CREATES_PER_HOUR"), at_once("INVOICE_MAX_PENDING"), at_once("VOUCHER_TRIES_PER_HOUR"),
    at_once("QUOTES_PER_MINUTE"),
    at_once("CHANGE_LADDER_COINS"),
    money(at_once("RECEIVE_LN_ADDRESS")), money(at_once("MINIMUM_PAYOUT")),
    money(later("PAYOUT_INTERVAL")), money(later("LIGHTNING_MAX_FEE_PERCENT")),
    money(later("REFUND_PROCESSING_INTERVAL")), money(later("CHANGE_CLAIM_DAYS")),
    money(later("FOREIGN_MINTS")), money(later("FOREIGN_MINT_MAX_FEE_PERCENT")),
    later("MODEL_BASED_PRICING"), later("PRICE_SOURCES"), later("MODELS_REFRESH_INTERVAL_SECONDS"),
    later("BTC_USD_FEEDS"), later("BTC_USD_FIXED"), later("BTC_USD_MAX_AGE"), later("BTC_USD_MIN_FEEDS"),
    later("BTC_USD_MAX_SPREAD_PERCENT"), later("BTC_USD_GRACE_SECONDS"), later("BTC_USD_GRACE_MARGIN_PERCENT"),
    later("PRICING_REFRESH_INTERVAL_SECONDS"),
    later("UPSTREAM_CONNECT_TIMEOUT_SECONDS"), later("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS"),
    later("UPSTREAM_IDLE_TIMEOUT_SECONDS"), later("UPSTREAM_TOTAL_TIMEOUT_SECONDS"), later("UPSTREAM_CHOICE"),
    later("UPSTREAM_MAX_ATTEMPTS"), later("UPSTREAM_RETRY_STATUSES"), at_once("UPSTREAM_ERRORS_VERBOSE"),
    later("UPSTREAM_BREAKER_FAILURES"), later("UPSTREAM_QUEUE_SECONDS"), later("UPSTREAM_PROBE_SECONDS"),
    later("MINT_OPERATION_TIMEOUT_SECONDS"), later("MINT_MAX_CONCURRENCY"), later("MINT_CALLS_PER_MINUTE"),
    money(later("HTTP_URL")), money(later("ONION_URL")), later("RELAYS"), later("PROVIDER_ID"),
    later("PROVIDERS_REFRESH_INTERVAL_SECONDS"),
    later("CORS_ORIGINS"), later("MAX_BODY_BYTES"), later("MAX_BUFFERED_BYTES"), later("MAX_KEPT_BYTES"),
    later("SHUTDOWN_TIMEOUT_SECONDS"), later("SSE_KEEP_ALIVE_SECONDS"), later("SNAPSHOTS_KEEP"),
];

/// What the operator may see of the others. Of what is in neither list, it is only shown whether it is set: a
/// setting that is new is a secret until somebody says that it is none.
#[rustfmt::skip]
const SHOWN: &[&str] = &[
    "UPSTREAM_BASE_URL", "CHAT_COMPLETIONS_API_VERSION", "OLLAMA_BASE_URL", "CASHU_MINTS", "PRIMARY_MINT_URL",
    "PRIMARY_MINT_UNIT", "MODELS_PATH", "DATA_DIR", "DURABILITY", "NODE_TIMEOUT_SECONDS", "HOST", "PORT",
    "TRUSTED_PROXIES", "MAINTENANCE", "LOG_LEVEL", "LOG_FORMAT", "ADMIN_NPUBS", "ADMIN_LISTEN",
    "RETENTION_REQUESTS_DAYS", "RETENTION_FAILED_DAYS", "TOR", "TOR_CONFIG", "TOR_FOR", "NOSTR_HANDLER", "ALERT_NPUB",
    "ALERT_REPEAT_SECONDS", "OTEL_SERVICE_NAME",
];

impl Setting {
    /// Whether it can be told to a node that has its database, and what follows.
    #[must_use]
    pub fn editable(&self) -> Option<Editable> {
        EDITABLE.iter().copied().find(|editable| editable.name == self.name)
    }

    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.editable().is_some() || SHOWN.contains(&self.name)
    }
}

/// What is told beneath the environment: values by name.
pub type Told = BTreeMap<String, String>;

/// What the environment said, to be read again with something beneath it.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Without the variables that are none of ours.
    pub(super) fn of(vars: &BTreeMap<String, String>) -> Self {
        let ours = |name: &str| SETTINGS.iter().any(|setting| setting.is_spelled(name));
        let vars = vars.iter().filter(|(name, text)| ours(name) && !is_blank(text));
        Self(vars.map(|(name, text)| (name.clone(), text.clone())).collect())
    }

    /// A setting in whatever spelling.
    fn find(&self, setting: &Setting) -> Option<&str> {
        setting.spellings().find_map(|name| self.0.get(name)).map(String::as_str)
    }

    /// What was read of a file when the process started is not read again: the file may be gone.
    pub(super) fn with_contents(mut self, direct: &str, file: &str, contents: Option<&Secret>) -> Self {
        let of = |name: &str| SETTINGS.iter().find(|setting| setting.name == name);
        if let (Some(file), Some(contents)) = (of(file), contents) {
            for name in file.spellings() {
                if self.0.remove(name).is_some() {
                    self.0.insert(direct.to_owned(), contents.expose().to_owned());
                }
            }
        }
        self
    }
}

impl fmt::Debug for Environment {
    /// Some of it is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Environment").field(&self.0.keys()).finish()
    }
}

/// Who says what a setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The environment, or `.env`.
    Environment,
    /// The operator, on a page or by a command.
    Told,
    Default,
}

impl Origin {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Told => "told",
            Self::Default => "default",
        }
    }
}

impl Config {
    /// The configuration with what the operator has told beneath the environment.
    ///
    /// # Errors
    /// All faults, which a setting of the environment may have now too.
    pub fn over(&self, told: &Told) -> Result<Self, Faults> {
        let foreign = told.keys().filter(|name| EDITABLE.iter().all(|editable| editable.name != **name));
        let faults: Vec<Fault> =
            foreign.map(|name| Fault::new(name.clone(), "cannot be set here; expected in the environment")).collect();
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        Self::from_vars(&merge(told.clone(), self.environment.0.clone())).map(|config| Self {
            environment: self.environment.clone(),
            not_used: self.not_used.clone(),
            ..config
        })
    }

    /// Who says what a setting is, and what it is as it would be written.
    #[must_use]
    pub fn said<'a>(&'a self, setting: &Setting, told: &'a Told) -> (Origin, &'a str) {
        match (self.environment.find(setting), told.get(setting.name)) {
            (Some(text), _) => (Origin::Environment, text),
            (None, Some(text)) => (Origin::Told, text),
            (None, None) => (Origin::Default, setting.default),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pairs: &[(&str, &str)]) -> Told {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_environment_wins_in_any_spelling() {
        let unused = ("DEVS_DONATION_RATE", "5");
        let vars = told(&[("MIN_PAYOUT_SAT", "7"), ("NAME", "env"), ("PATH", "/bin"), ("DESCRIPTION", " "), unused]);
        let config = Config::from_vars(&vars).unwrap();
        let told = told(&[("MINIMUM_PAYOUT", "9"), ("NAME", "page"), ("DESCRIPTION", "page"), ("EXCHANGE_FEE", "2")]);
        let over = config.over(&told).unwrap();
        assert_eq!((over.payouts.minimum.get(), &*over.info.name, &*over.info.description), (7_000, "env", "page"));
        assert_eq!(over.pricing.exchange_fee, rust_decimal::Decimal::TWO);
        assert_eq!(over.not_used, [unused.0], "it is still told that nothing acts on it");
        let setting = |name: &str| SETTINGS.iter().find(|setting| setting.name == name).unwrap();
        assert_eq!(over.said(setting("MINIMUM_PAYOUT"), &told), (Origin::Environment, "7"));
        assert_eq!(over.said(setting("EXCHANGE_FEE"), &told), (Origin::Told, "2"));
        assert_eq!(over.said(setting("PORT"), &told), (Origin::Default, "8000"));
        // What lies beneath can be taken away again.
        assert_eq!(over.over(&Told::new()).unwrap().pricing.exchange_fee, config.pricing.exchange_fee);
    }

    #[test]
    fn what_is_told_is_read_as_strictly_and_no_secret_can_be() {
        let config = Config::from_vars(&Told::new()).unwrap();
        let names = |faults: Faults| faults.0.into_iter().map(|fault| fault.name).collect::<Vec<_>>();
        let bad = told(&[("EXCHANGE_FEE", "much"), ("MINIMUM_PAYOUT", "-1")]);
        assert_eq!(names(config.over(&bad).unwrap_err()), ["MINIMUM_PAYOUT", "EXCHANGE_FEE"]);
        for name in ["ADMIN_PASSWORD", "DATABASE_URL", "CASHU_MINTS", "MIN_PAYOUT_SAT", "PATH"] {
            assert_eq!(names(config.over(&told(&[(name, "x")])).unwrap_err()), [name]);
        }
    }

    #[test]
    fn a_file_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "a secret key of a file\n").unwrap();
        let config = Config::from_vars(&told(&[("SECRET_KEY_FILE", path.to_str().unwrap())])).unwrap();
        std::fs::remove_file(&path).unwrap();
        let over = config.over(&told(&[("NAME", "x")])).unwrap();
        assert_eq!(over.storage.secret_key, config.storage.secret_key);
        assert!(over.storage.secret_key.is_some() && !format!("{over:?}").contains("of a file"));
    }

    #[test]
    fn every_one_is_a_setting_and_listed_once() {
        for (at, editable) in EDITABLE.iter().enumerate() {
            assert!(SETTINGS.iter().any(|setting| setting.name == editable.name), "{}", editable.name);
            let again = EDITABLE.iter().skip(at + 1).any(|other| other.name == editable.name);
            assert!(!again && !SHOWN.contains(&editable.name), "{}", editable.name);
        }
        assert!(SHOWN.iter().all(|name| SETTINGS.iter().any(|setting| setting.name == *name)));
        let secret = ["KEY", "SECRET", "PASSWORD", "PASSPHRASE", "TOKEN", "NSEC"];
        let harmless = ["KEY_", "CHILD_KEY_COST", "COST_PER_1K", "ACCEPT_NEW_TOKENS"];
        for setting in SETTINGS.iter().filter(|setting| setting.is_shown()) {
            let looks_secret = secret.iter().any(|word| setting.name.contains(word));
            let is_harmless = harmless.iter().any(|start| setting.name.starts_with(start));
            assert!(!looks_secret || is_harmless, "{} is shown", setting.name);
        }
        // An address may have a password in it.
        let may_be = [&secret[..], &["URL", "ENDPOINT", "HEADERS", "UPSTREAMS"]].concat();
        for setting in SETTINGS.iter().filter(|setting| !setting.is_shown()) {
            assert!(may_be.iter().any(|word| setting.name.contains(word)), "{} is hidden", setting.name);
        }
    }
}
