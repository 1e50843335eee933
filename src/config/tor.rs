//! What the settings say of Tor: the node's own place there, and which connections go that way.

use std::path::PathBuf;

use url::Url;

use super::fault::Fault;
use super::{Config, Secret};

/// The node in Tor.
#[derive(Clone, Debug)]
pub struct Tor {
    /// `TOR`, false: an onion address of the node's own, and a way out, by the Tor inside this program.
    pub enabled: bool,
    /// `TOR_CONFIG`: settings of that Tor, in TOML.
    pub config: Option<PathBuf>,
    /// `TOR_PROXY_URL`, a SOCKS proxy that looks names up itself. What goes out through Tor goes through
    /// it.
    pub proxy: Option<Secret>,
    /// `TOR_FOR`: what goes through Tor wherever it leads; `.onion` addresses always do.
    pub purposes: Vec<Purpose>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Upstreams,
    Mints,
    Relays,
    /// The rate, and others' price lists.
    Prices,
    /// Lightning addresses, foreign mints, other nodes.
    Strangers,
    /// What the operator is told: alarms by webhook, traces.
    Reports,
}

impl Purpose {
    pub const ALL: [Self; 6] =
        [Self::Upstreams, Self::Mints, Self::Relays, Self::Prices, Self::Strangers, Self::Reports];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Upstreams => "upstreams",
            Self::Mints => "mints",
            Self::Relays => "relays",
            Self::Prices => "prices",
            Self::Strangers => "strangers",
            Self::Reports => "reports",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name().eq_ignore_ascii_case(text))
    }
}

impl Tor {
    /// Whether there is a way into Tor.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        self.enabled || self.proxy.is_some()
    }
}

/// Settings that need Tor where there is none, under their own names.
pub(super) fn stranded(config: &Config) -> Vec<Fault> {
    const REMEDY: &str = "expected TOR=true or TOR_PROXY_URL with it";
    if config.tor.is_there() {
        return Vec::new();
    }
    let mut faults = Vec::new();
    let mut look = |name: &str, addresses: &mut dyn Iterator<Item = Option<&Url>>| {
        if addresses.flatten().any(is_onion) {
            faults.push(Fault::new(name, format!("leads into Tor, and there is no way there; {REMEDY}")));
        }
    };
    let parsed = |texts: &[String]| -> Vec<Url> { texts.iter().filter_map(|text| Url::parse(text).ok()).collect() };
    // Who names a proxy of an upstream's own says how it is reached.
    let mut alone = config.upstreams.listed.iter().filter(|one| one.enabled && one.proxy_url.is_none());
    let is_one = |name: &str| name == super::Upstream::ONE;
    if let Some(one) = alone.clone().find(|one| is_one(&one.name)) {
        look("UPSTREAM_BASE_URL", &mut std::iter::once(one.base_url.as_ref()));
    }
    look("UPSTREAMS", &mut alone.by_ref().filter(|one| !is_one(&one.name)).map(|one| one.base_url.as_ref()));
    look("CASHU_MINTS", &mut parsed(&config.mints.urls).iter().map(Some));
    look("BTC_USD_FEEDS", &mut config.pricing.feeds.iter().map(|feed| feed.url.as_ref()));
    look("PRICE_SOURCES", &mut config.pricing.sources.iter().map(|source| source.url.as_ref()));
    look("RELAYS", &mut parsed(&config.nostr.relays).iter().map(Some));
    let recipient = config.payouts.recipient.as_deref().unwrap_or_default();
    if recipient.rsplit_once('@').is_some_and(|(_, host)| host.to_ascii_lowercase().ends_with(".onion")) {
        faults.push(Fault::new("RECEIVE_LN_ADDRESS", format!("is in Tor, and there is no way there; {REMEDY}")));
    }
    if !config.tor.purposes.is_empty() {
        faults.push(Fault::new("TOR_FOR", format!("names what goes through Tor, and there is none; {REMEDY}")));
    }
    faults
}

/// Whether this is an address in Tor.
pub(super) fn is_onion_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| is_onion(&url))
}

fn is_onion(url: &Url) -> bool {
    url.host_str().is_some_and(|host| host.to_ascii_lowercase().trim_end_matches('.').ends_with(".onion"))
}
