//! Who asks: the address at the other end of the socket, or, where that is one of the operator's own
//! reverse proxies, the one that the proxy names in `X-Forwarded-For`.
//!
//! Anybody can write that header, so it is read from its end, which the nearest proxy wrote, and only as
//! far as proxies that are trusted vouch for it. Through the onion nobody has an address, and nobody is
//! believed to have one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::HeaderMap;
use ipnet::IpNet;

use crate::net::Peer;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The operator's own reverse proxies.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Arc<[IpNet]>);

impl Proxies {
    #[must_use]
    pub fn new(trusted: &[IpNet]) -> Self {
        Self(trusted.into())
    }

    /// Who asks through this socket.
    pub(super) fn client(&self, socket: IpAddr, headers: &HeaderMap) -> Peer {
        let socket = socket.to_canonical();
        if !self.trusts(socket) {
            return Peer::Address(socket);
        }
        let values: Vec<&str> =
            headers.get_all(X_FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or_default()).collect();
        let mut nearest = socket;
        for entry in values.iter().rev().flat_map(|value| value.rsplit(',')) {
            // What cannot be read was not written by a proxy that can be relied on.
            let Some(address) = read(entry.trim()) else { break };
            nearest = address;
            if !self.trusts(address) {
                break;
            }
        }
        Peer::Address(nearest)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// An address, with or without a port.
fn read(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

/// Who sent a request, where a socket is behind it.
pub(super) fn of(request: &Request) -> Option<Peer> {
    request.extensions().get::<Peer>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_say_who_asks() {
        let trusted: Vec<IpNet> =
            ["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"].iter().map(|net| net.parse().unwrap()).collect();
        let proxies = Proxies::new(&trusted);
        let rows: &[(&str, &[&str], &str)] = &[
            // A stranger may write what it likes.
            ("203.0.113.5", &["198.51.100.1"], "203.0.113.5"),
            ("203.0.113.5", &[], "203.0.113.5"),
            // A proxy names its client; what that client wrote before is nobody's word.
            ("127.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", &["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
            // Behind one proxy another.
            ("127.0.0.1", &["1.1.1.1, 198.51.100.1, 10.1.2.3"], "198.51.100.1"),
            ("fd00::1", &["198.51.100.1,10.1.2.3", "10.9.9.9"], "198.51.100.1"),
            // All of them trusted: the farthest.
            ("127.0.0.1", &["10.1.2.3"], "10.1.2.3"),
            // Ports, brackets, IPv4 in IPv6.
            ("::ffff:127.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("127.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("127.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("127.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            // Nothing that can be read.
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &[""], "127.0.0.1"),
            ("127.0.0.1", &["unknown"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1, _hidden, 10.1.2.3"], "10.1.2.3"),
        ];
        for (socket, values, client) in rows {
            let mut headers = HeaderMap::new();
            for value in *values {
                headers.append(X_FORWARDED_FOR, value.parse().unwrap());
            }
            let found = proxies.client(socket.parse().unwrap(), &headers);
            assert_eq!(found, Peer::Address(client.parse().unwrap()), "{socket} {values:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, "198.51.100.1".parse().unwrap());
        let nobody = Proxies::default().client("127.0.0.1".parse().unwrap(), &headers);
        assert_eq!(nobody, Peer::Address("127.0.0.1".parse().unwrap()), "none is trusted unless it is named");
    }
}
