//! Requests to addresses that strangers name: Lightning addresses of clients, foreign mints.
//!
//! Such an address must not lead into the operator's own network. The name is resolved once, every
//! address it resolves to must be a public one, and the connection is made to those addresses and
//! no others, so a name that changes between the look and the connection gains nothing. TLS only,
//! no redirect, small limits on time and size.
//!
//! What goes through Tor is looked up at its other end, which leads to no private network of this side.
//! An onion needs no TLS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use url::{Host, Url};

use super::way::Way;
use super::{ClientOptions, NetError, builder, check_url, is_onion, read_limited};

/// For everything: name, connection, answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same through Tor.
const TIMEOUT_IN_TOR: Duration = Duration::from_secs(60);
/// Largest answer that is read.
const MAX_ANSWER: usize = 256 * 1024;

/// Which addresses strangers may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Public ones, over TLS.
    Public,
    /// Any: the operator named it, or the node is a test set-up on loopback.
    Anywhere,
}

/// Gets `url`, under the rules above.
///
/// # Errors
/// [`NetError::Address`] for an address that is not to be asked; others as for any request.
pub async fn get(url: &Url, reach: Reach, way: &Way) -> Result<Bytes, NetError> {
    let asked = async {
        let client = client_for(url, reach, way).await?;
        let response = client.get(url.clone()).send().await?;
        let status = response.status();
        // An error's body may say more than its status.
        if status.is_redirection() || status.is_server_error() {
            return Err(NetError::Other("the server answered with an error"));
        }
        read_limited(response, MAX_ANSWER).await
    };
    tokio::time::timeout(patience(url, way), asked).await.unwrap_or(Err(NetError::Timeout))
}

/// A server's answer, whatever it is.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

/// Gets `url` under the same rules, and no more than `max_bytes` of it.
///
/// # Errors
/// See [`get`].
pub async fn look(url: &Url, reach: Reach, way: &Way, max_bytes: usize) -> Result<Answer, NetError> {
    let asked = async {
        let response = client_for(url, reach, way).await?.get(url.clone()).send().await?;
        let status = response.status().as_u16();
        Ok(Answer { status, body: read_limited(response, max_bytes).await? })
    };
    tokio::time::timeout(patience(url, way), asked).await.unwrap_or(Err(NetError::Timeout))
}

/// A client that connects to the host of `url` alone, at addresses that were looked at.
///
/// # Errors
/// See [`get`].
pub async fn client_for(url: &Url, reach: Reach, way: &Way) -> Result<reqwest::Client, NetError> {
    check_url(url)?;
    way.check(url)?;
    let connect_timeout = patience(url, way);
    let options = ClientOptions { connect_timeout, idle_per_host: 1, way: way.clone(), ..ClientOptions::default() };
    let mut client = builder(&options)?;
    if reach == Reach::Public {
        if url.scheme() != "https" && !is_onion(url) {
            return Err(NetError::Address("the address must begin with https://"));
        }
        let named = way.takes(url) && matches!(url.host(), Some(Host::Domain(_)));
        if !named {
            let (name, addresses) = resolve(url).await?;
            if addresses.is_empty() || !addresses.iter().all(|address| is_public(address.ip())) {
                return Err(NetError::Address("the address is not a public one"));
            }
            client = client.resolve_to_addrs(&name, &addresses);
        }
    }
    client.build().map_err(|_| NetError::Other("the HTTP client could not be started"))
}

fn patience(url: &Url, way: &Way) -> Duration {
    if way.takes(url) { TIMEOUT_IN_TOR } else { TIMEOUT }
}

async fn resolve(url: &Url) -> Result<(String, Vec<SocketAddr>), NetError> {
    let port = url.port_or_known_default().unwrap_or(443);
    match url.host() {
        Some(Host::Ipv4(ip)) => Ok((ip.to_string(), vec![SocketAddr::new(IpAddr::V4(ip), port)])),
        Some(Host::Ipv6(ip)) => Ok((ip.to_string(), vec![SocketAddr::new(IpAddr::V6(ip), port)])),
        Some(Host::Domain(name)) => {
            let found = tokio::net::lookup_host((name, port)).await.map_err(|_| NetError::Connect)?;
            Ok((name.to_owned(), found.collect()))
        }
        None => Err(NetError::Address("the address must name a host")),
    }
}

/// Whether an address belongs to the public internet.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_broadcast()
        || ip.is_documentation()
        || ip.is_multicast()
        || a == 0
        || a >= 240
        // Shared by carriers, IETF protocols, old 6to4 relays, benchmarks.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b));
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([w, x], [y, z]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(w, x, y, z))
    };
    match (a, b) {
        // Translated IPv4 (NAT64).
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => embedded(g, h),
        // 6to4.
        (0x2002, high) => embedded(high, c),
        // Teredo and other protocols' own; documentation.
        (0x2001, 0..0x200 | 0xdb8) | (0x3fff, _) => false,
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At its other end, names lead to nothing of this side; written addresses are looked at.
    #[tokio::test]
    async fn through_tor_names_are_taken_and_private_addresses_are_not() {
        let proxy: Url = "socks5h://127.0.0.1:9".parse().unwrap();
        let (all, onions) = (Way::through(proxy.clone(), "strangers", true), Way::through(proxy, "strangers", false));
        for (text, by_all, by_onions) in [
            ("http://abcdef.onion/", true, true),
            ("https://abcdef.onion/", true, true),
            ("https://no.such.name.invalid/", true, false),
            ("http://no.such.name.invalid/", false, false),
            ("https://127.0.0.1/", false, false),
            ("https://localhost/", false, false),
            ("https://169.254.169.254/", false, false),
            ("https://[fd00::1]/", false, false),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(client_for(&url, Reach::Public, &all).await.is_ok(), by_all, "{text}");
            assert_eq!(client_for(&url, Reach::Public, &onions).await.is_ok(), by_onions, "{text}");
        }
    }

    #[test]
    fn only_the_public_internet_is_public() {
        for (text, public) in [
            ("1.1.1.1", true),
            ("93.184.216.34", true),
            ("127.0.0.1", false),
            ("127.1.2.3", false),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("10.0.0.1", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("100.127.255.255", false),
            ("100.128.0.1", true),
            ("192.0.0.8", false),
            ("192.0.2.1", false),
            ("192.88.99.1", false),
            ("198.18.0.1", false),
            ("198.51.100.7", false),
            ("203.0.113.7", false),
            ("224.0.0.1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("2606:4700:4700::1111", true),
            ("::1", false),
            ("::", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:1.1.1.1", false),
            ("::7f00:1", false),
            ("fc00::1", false),
            ("fd12:3456::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("2001:db8::1", false),
            ("2001::1", false),
            ("3fff::1", false),
            ("2002:7f00:1::", false),
            ("2002:101:101::", true),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b::101:101", true),
        ] {
            assert_eq!(is_public(text.parse().unwrap()), public, "{text}");
        }
    }

    /// Every way to write an address of this machine, or of its network.
    #[tokio::test]
    async fn no_spelling_of_a_private_address_is_asked() {
        for text in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://127.0.0.1./",
            "https://localhost/",
            "https://LOCALHOST:8443/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[fe80::1]/",
            "https://[fd00::1]/",
            "https://10.1.2.3/",
            "https://169.254.169.254/latest/meta-data",
            "https://192.168.0.1:443/",
            "https://0.0.0.0/",
            "https://0/",
            "https://0000.0.0.0/",
            "https://017700000001/",
            "https://0x7f.1/",
            "https://0xa9fea9fe/",
            "https://2852039166/",
            "https://169.254.169.254:8443/",
            "https://100.100.100.200/",
            "https://172.16.1.1/",
            "https://192.0.0.192/",
            "https://198.18.0.1/",
            "https://224.0.0.251/",
            "https://255.255.255.255/",
            "https://①②⑦.0.0.1/",
            "https://127。0。0。1/",
            "https://[::]/",
            "https://[::7f00:1]/",
            "https://[::ffff:a9fe:a9fe]/",
            "https://[::ffff:0:127.0.0.1]/",
            "https://[0:0:0:0:0:ffff:10.0.0.1]/",
            "https://[64:ff9b::10.0.0.1]/",
            "https://[64:ff9b:1::1]/",
            "https://[100::1]/",
            "https://[2001:db8::1]/",
            "https://[2001::1]/",
            "https://[2002:a9fe:a9fe::]/",
            "https://[3fff::1]/",
            "https://[5f00::1]/",
            "https://[fc00::1]/",
            "https://[fd00:ec2::254]/",
            "https://[fec0::1]/",
            "https://[ff02::1]/",
            "http://1.1.1.1/",
            "http://localhost/",
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://abcdef.onion/",
            "https://user@1.1.1.1/",
            "https://user:pw@1.1.1.1/",
            "https://1.1.1.1/#x",
            "ftp://1.1.1.1/",
            "file:///etc/passwd",
        ] {
            let url: Url = text.parse().unwrap();
            let refused = client_for(&url, Reach::Public, &Way::default()).await.err();
            assert!(matches!(refused, Some(NetError::Address(_))), "{text}: {refused:?}");
        }
    }
}
