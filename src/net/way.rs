//! Which connections leave this machine through Tor.
//!
//! The way into Tor is a SOCKS proxy that looks names up itself: that of the Tor inside this program, or of
//! a daemon. There is no way around it: where it is not there, an `.onion` name is not even looked up
//! (RFC 7686), and nothing that should go through Tor goes out otherwise.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

use super::{NetError, is_loopback, is_onion, is_onion_name};

/// Circuits to an onion are built in many steps, some of which fail and are tried again.
const CONNECT: Duration = Duration::from_secs(45);

/// How the connections of one purpose leave. By default directly, and none into Tor.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Way {
    tor: Option<Url>,
    /// Everything goes through it.
    all: bool,
}

/// The ways of all purposes.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    pub upstreams: Way,
    pub mints: Way,
    pub relays: Way,
    pub prices: Way,
    pub strangers: Way,
    pub reports: Way,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The proxy's address holds a password.
        write!(f, "Way(tor: {}, all: {})", self.tor.is_some(), self.all)
    }
}

impl Way {
    /// Through this proxy (`socks5h`) into Tor; with `all`, everywhere. What is connected for different
    /// purposes shares no circuit, because each has a name of its own at the proxy (Tor's
    /// IsolateSOCKSAuth).
    #[must_use]
    pub fn through(mut proxy: Url, purpose: &str, all: bool) -> Self {
        if proxy.username().is_empty() {
            let has_password = proxy.password().is_some();
            let named = proxy.set_username(purpose);
            // RFC 1929 knows no empty password.
            let locked = if has_password { Ok(()) } else { proxy.set_password(Some("coinslot")) };
            if named.and(locked).is_err() {
                tracing::debug!("the proxy's address takes no name; all purposes share their circuits");
            }
        }
        Self { tor: Some(proxy), all }
    }

    /// Whether connections to `url` go through Tor.
    #[must_use]
    pub fn takes(&self, url: &Url) -> bool {
        self.tor.is_some() && (is_onion(url) || (self.all && !is_loopback(url)))
    }

    /// This way, through Tor wherever it leads.
    ///
    /// # Errors
    /// [`NetError::Address`] where there is no Tor.
    pub fn everywhere(&self) -> Result<Self, NetError> {
        let none = NetError::Address("it is to be reached through Tor, and this node has no way there: set TOR=true");
        if self.tor.is_some() { Ok(Self { all: true, ..self.clone() }) } else { Err(none) }
    }

    /// # Errors
    /// [`NetError::Address`] for an onion, where there is no Tor.
    pub fn check(&self, url: &Url) -> Result<(), NetError> {
        if self.tor.is_none() && is_onion(url) {
            return Err(NetError::Address("the address is in Tor, and this node has no way there: set TOR=true"));
        }
        Ok(())
    }

    /// For how long to wait for something that takes this long elsewhere, at most.
    #[must_use]
    pub fn patience(&self, usual: Duration, url: &Url) -> Duration {
        if self.takes(url) { usual.max(CONNECT) } else { usual }
    }

    /// For how long to wait for the slowest of several addresses; see [`Way::patience`].
    #[must_use]
    pub fn longest(&self, usual: Duration, addresses: &[String]) -> Duration {
        let urls = addresses.iter().filter_map(|address| Url::parse(address).ok());
        urls.map(|url| self.patience(usual, &url)).max().unwrap_or(usual)
    }

    pub(super) fn apply(&self, builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        let builder = builder.dns_resolver(Arc::new(NoOnions));
        let Some(proxy) = self.tor.clone() else { return builder };
        let way = self.clone();
        builder.proxy(reqwest::Proxy::custom(move |url| way.takes(url).then(|| proxy.clone())))
    }
}

/// The system's resolver, which is never asked for what is in Tor.
#[derive(Debug)]
struct NoOnions;

impl Resolve for NoOnions {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            if is_onion_name(name.as_str().trim_end_matches('.')) {
                return Err("a name in Tor is not looked up elsewhere".into());
            }
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn onions_go_through_tor_and_loopback_never_does() {
        let onions = Way::through(url("socks5h://127.0.0.1:9050"), "mints", false);
        let all = Way::through(url("socks5h://127.0.0.1:9050"), "mints", true);
        for (text, by_onions, by_all) in [
            ("http://abc.onion/v1", true, true),
            ("https://abc.ONION", true, true),
            ("http://abc.onion.:80/", true, true),
            ("https://api.example.com", false, true),
            ("https://10.0.0.1", false, true),
            ("http://127.0.0.1:3338", false, false),
            ("http://localhost:3338", false, false),
            ("http://[::1]:3338", false, false),
            ("https://onion.example.com", false, true),
        ] {
            let url = url(text);
            assert_eq!((onions.takes(&url), all.takes(&url)), (by_onions, by_all), "{text}");
            assert!(!Way::default().takes(&url));
            assert_eq!(Way::default().check(&url).is_err(), by_onions, "{text}");
            assert!(all.check(&url).is_ok() && onions.check(&url).is_ok());
        }
    }

    #[test]
    fn each_purpose_has_a_name_at_the_proxy_and_a_given_name_stays() {
        let of = |proxy: &str| Way::through(url(proxy), "mints", false).tor.unwrap().to_string();
        assert_eq!(of("socks5h://127.0.0.1:9050"), "socks5h://mints:coinslot@127.0.0.1:9050");
        assert_eq!(of("socks5h://:hunter2@127.0.0.1:9050"), "socks5h://mints:hunter2@127.0.0.1:9050");
        assert_eq!(of("socks5h://u:hunter2@127.0.0.1:9050"), "socks5h://u:hunter2@127.0.0.1:9050");
        let way = Way::through(url("socks5h://:hunter2@127.0.0.1:9050"), "mints", false);
        assert_eq!(format!("{way:?}"), "Way(tor: true, all: false)");
    }

    #[tokio::test]
    async fn a_name_in_tor_is_not_looked_up_here() {
        let resolve = |name: &str| NoOnions.resolve(name.parse().unwrap());
        for name in ["abc.onion", "x.abc.ONION", "abc.onion."] {
            let error = resolve(name).await.err().unwrap();
            assert_eq!(error.to_string(), "a name in Tor is not looked up elsewhere", "{name}");
        }
        assert!(resolve("localhost").await.unwrap().any(|address| address.ip().is_loopback()));
    }
}
