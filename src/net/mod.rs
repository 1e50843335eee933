//! The only builder of HTTP clients, and the rules for what they may talk to.
//!
//! Every outgoing connection is TLS by rustls, or plain HTTP on loopback and `.onion` hosts. No
//! client follows a redirect (a redirect would carry a key or a payment to somebody else), keeps
//! cookies, reads proxy settings from the environment, repeats a request, or trusts a body to be
//! short. What is in Tor is reached through Tor or not at all ([`way`]). A [`NetError`] never contains an address: addresses carry keys in their query.

pub mod alarm;
pub mod dialer;
pub mod fetch;
pub mod local_node;
pub mod post;
pub mod public;
mod trust;
pub mod way;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use url::{Host, Url};

use way::Way;

/// The most that is believed of a `Retry-After`, in seconds.
const MAX_RETRY_AFTER: u64 = 3_600;
/// What every client calls itself.
const USER_AGENT: &str = concat!("coinslot/", env!("CARGO_PKG_VERSION"));

/// How one client behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// For the TCP and TLS handshakes together.
    pub connect_timeout: Duration,
    /// Longest silence between two reads of an answer; `None` waits for ever.
    pub read_timeout: Option<Duration>,
    /// Never offer HTTP/2, which puts all requests to a host on one connection and queues those
    /// above its stream limit.
    pub http1_only: bool,
    /// Idle connections kept for each host.
    pub idle_per_host: usize,
    /// Does not say what it is (`User-Agent`).
    pub nameless: bool,
    /// How its connections leave.
    pub way: Way,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: None,
            http1_only: true,
            idle_per_host: 512,
            nameless: false,
            way: Way::default(),
        }
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Address(IpAddr),
    /// A circuit to the node's own onion, by its number in this process. Nobody knows who is behind it.
    Circuit(u64),
}

/// What one customer of a network has: an address, or a whole /64 of IPv6.
#[must_use]
pub fn customer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & (u128::MAX << 64))),
    }
}

/// Why a request or the reading of its answer failed. Holds no address and no foreign text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// No connection came about: nothing was sent.
    #[error("no connection could be made")]
    Connect,
    /// The connection was made, the answer (or the next part of it) did not come in time.
    #[error("no answer came in time")]
    Timeout,
    /// The body is longer than this many bytes.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
    /// The address is not one that this node talks to.
    #[error("{0}")]
    Address(&'static str),
    /// Something else, by kind.
    #[error("{0}")]
    Other(&'static str),
}

impl From<&reqwest::Error> for NetError {
    fn from(error: &reqwest::Error) -> Self {
        // A timeout of the handshake is both; what matters is that nothing was sent.
        if error.is_connect() {
            Self::Connect
        } else if error.is_timeout() {
            Self::Timeout
        } else if error.is_builder() {
            Self::Other("the request could not be built")
        } else if error.is_body() || error.is_decode() {
            Self::Other("the answer's body was cut short")
        } else {
            Self::Other("the exchange broke off")
        }
    }
}

impl From<reqwest::Error> for NetError {
    fn from(error: reqwest::Error) -> Self {
        Self::from(&error)
    }
}

/// How long a client may take to send a body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes one cryptography provider the default of this process. The dependencies bring two, and
/// rustls refuses to choose; `main` and tests call this before anything speaks TLS. Calling it
/// again changes nothing.
pub fn install_crypto() {
    // The error means that a provider is installed already, which is all that is wanted.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

/// A client with its own connection pool. Clones share the pool.
///
/// # Errors
/// When the TLS backend does not start (no usable certificate store).
pub fn client(options: &ClientOptions) -> Result<reqwest::Client, NetError> {
    builder(options)?.build().map_err(|_| NetError::Other("the HTTP client could not be started"))
}

/// A client all of whose connections go through a proxy (`http`, `https`, `socks5`, or `socks5h`, which
/// looks names up as well). When the proxy is not there, nothing is: no connection goes around it.
///
/// # Errors
/// When the address is not that of a proxy, or the TLS backend does not start.
pub fn client_through(options: &ClientOptions, proxy: &str) -> Result<reqwest::Client, NetError> {
    // The error repeats the address, which may hold a password.
    let proxy = reqwest::Proxy::all(proxy).map_err(|_| NetError::Address("the proxy's address cannot be used"))?;
    let direct = ClientOptions { way: Way::default(), ..options.clone() };
    let client = builder(&direct)?.proxy(proxy).build();
    client.map_err(|_| NetError::Other("the HTTP client could not be started"))
}

fn builder(options: &ClientOptions) -> Result<reqwest::ClientBuilder, NetError> {
    install_crypto();
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .tls_backend_preconfigured(trust::tls(options.http1_only)?)
        .tcp_nodelay(true)
        .connect_timeout(options.connect_timeout)
        .pool_max_idle_per_host(options.idle_per_host);
    if !options.nameless {
        builder = builder.user_agent(USER_AGENT);
    }
    if let Some(idle) = options.read_timeout {
        builder = builder.read_timeout(idle);
    }
    if options.http1_only {
        builder = builder.http1_only();
    }
    Ok(options.way.apply(builder))
}

/// Whether this node may talk to `url`: `https` anywhere, `http` on loopback and `.onion` hosts,
/// without user name, password or fragment.
///
/// # Errors
/// [`NetError::Address`] with the rule that is broken.
pub fn check_url(url: &Url) -> Result<(), NetError> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(NetError::Address("the address must not contain a user name or password"));
    }
    if url.fragment().is_some() {
        return Err(NetError::Address("the address must not contain a fragment"));
    }
    match (url.scheme(), url.host()) {
        (_, None) => Err(NetError::Address("the address must name a host")),
        ("https", Some(_)) => Ok(()),
        ("http", Some(host)) if may_be_plain(&host) => Ok(()),
        ("http", Some(_)) => {
            Err(NetError::Address("plain http is accepted for loopback and .onion hosts only; use https"))
        }
        _ => Err(NetError::Address("the address must begin with https://")),
    }
}

/// Whether `url` names this machine.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether `url` names a host that is reached through Tor alone.
#[must_use]
pub fn is_onion(url: &Url) -> bool {
    url.host().is_some_and(|host| matches!(host, Host::Domain(name) if is_onion_name(name)))
}

fn is_onion_name(name: &str) -> bool {
    let parts = name.trim_end_matches('.').rsplit_once('.');
    parts.is_some_and(|(before, top)| top.eq_ignore_ascii_case("onion") && !before.is_empty())
}

fn may_be_plain(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name.eq_ignore_ascii_case("localhost") || is_onion_name(name),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

/// The seconds that an answer asks its caller to wait (`Retry-After`, RFC 9110 §10.2.3): as a number,
/// or as a date, which counts from the answer's own `Date`, so that the two clocks need not agree.
#[must_use]
pub fn retry_after(response: &reqwest::Response) -> Option<u64> {
    let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    wait_of(text("retry-after")?, text("date"))
}

fn wait_of(retry_after: &str, date: Option<&str>) -> Option<u64> {
    if let Ok(seconds) = retry_after.trim().parse() {
        return Some(seconds);
    }
    let until = httpdate::parse_http_date(retry_after).ok()?;
    let sent = httpdate::parse_http_date(date?).ok()?;
    Some(until.duration_since(sent).map_or(0, |wait| wait.as_secs()))
}

/// The seconds that are believed of a `Retry-After`: by who asks again, and by the client that is told of it.
#[must_use]
pub fn believed(retry_after: u64) -> u64 {
    retry_after.clamp(1, MAX_RETRY_AFTER)
}

/// The whole body of `response`, unless it is longer than `max_bytes`.
///
/// # Errors
/// [`NetError::TooLarge`] as soon as that is known; otherwise what broke the transfer.
pub async fn read_limited(mut response: reqwest::Response, max_bytes: usize) -> Result<Bytes, NetError> {
    let announced = response.content_length().map(usize::try_from);
    if let Some(length) = announced
        && length.is_ok_and(|bytes| bytes > max_bytes)
    {
        return Err(NetError::TooLarge(max_bytes));
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        let room = max_bytes.saturating_sub(body.len());
        if chunk.len() > room {
            return Err(NetError::TooLarge(max_bytes));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_addresses_are_accepted() {
        for (text, ok) in [
            ("https://api.example.com/v1?x=1", true),
            ("https://10.0.0.1/", true),
            ("http://127.0.0.1:8000/v1", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]:3338/", true),
            ("http://localhost:3338", true),
            ("http://LOCALHOST/", true),
            ("http://abcdef.onion/v1", true),
            ("http://sub.abcdef.ONION/", true),
            ("http://abcdef.onion./", true),
            ("http://api.example.com/", false),
            ("http://10.0.0.1/", false),
            ("http://0.0.0.0/", false),
            ("http://128.0.0.1/", false),
            ("http://localhost.example.com/", false),
            ("http://notonion/", false),
            ("http://onion/", false),
            ("http://x.onion.example.com/", false),
            ("http://[::ffff:10.0.0.1]/", false),
            ("https://user@api.example.com/", false),
            ("https://user:secret@api.example.com/", false),
            ("http://:secret@127.0.0.1/", false),
            ("https://api.example.com/#part", false),
            ("ftp://127.0.0.1/", false),
            ("ws://127.0.0.1/", false),
            ("file:///etc/passwd", false),
            ("data:text/plain,x", false),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(check_url(&url).is_ok(), ok, "{text}");
        }
    }

    #[test]
    fn how_long_an_answer_asks_to_wait() {
        let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (retry_after, date, wait) in [
            ("7", None, Some(7)),
            (" 120 ", now, Some(120)),
            ("0", now, Some(0)),
            ("Sun, 06 Nov 1994 08:49:38 GMT", now, Some(1)),
            ("Mon, 07 Nov 1994 08:49:37 GMT", now, Some(86_400)),
            // The older forms that RFC 9110 wants understood.
            ("Sunday, 06-Nov-94 08:50:37 GMT", now, Some(60)),
            ("Sun Nov  6 08:50:37 1994", now, Some(60)),
            // It is over already.
            ("Sun, 06 Nov 1994 08:00:00 GMT", now, Some(0)),
            // A date without a clock to compare it with says nothing.
            ("Sun, 06 Nov 1994 08:49:38 GMT", None, None),
            ("Sun, 06 Nov 1994 08:49:38 GMT", Some("today"), None),
            ("-1", now, None),
            ("1.5", now, None),
            ("soon", now, None),
            ("", now, None),
        ] {
            assert_eq!(wait_of(retry_after, date), wait, "{retry_after} {date:?}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_named_and_the_address_is_not() {
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let client = client(&ClientOptions::default()).unwrap();
        let error = client
            .get(format!("http://127.0.0.1:{port}/v1?key=hunter2"))
            .send()
            .await
            .map_err(NetError::from)
            .unwrap_err();
        assert_eq!(error, NetError::Connect);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("127.0.0.1"), "{shown}");
    }

    #[test]
    fn installing_the_provider_twice_is_harmless() {
        install_crypto();
        install_crypto();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }
}
