//! Addresses of other servers: mints, upstreams, price feeds.
//!
//! Money and keys travel to them, so plain `http` is taken only where nobody is on the way:
//! on loopback, and inside Tor.

use url::{Host, Url};

const EXPECTED: &str = "expected https://host[:port][/path]";
const PLAIN: &str = "http:// only on loopback and .onion hosts";

/// A URL under the common rule; it may carry a query.
pub(super) fn parse(text: &str) -> Result<Url, String> {
    let start = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    let written_out = start.starts_with("https://") || start.starts_with("http://");
    // The parser would quietly drop line breaks and tabs.
    let clean = !text.contains(|c: char| c.is_whitespace() || c.is_control());
    let parsed = if written_out && clean { Url::parse(text).ok() } else { None };
    let url = parsed.ok_or_else(|| format!("is not a web address; {EXPECTED}, {PLAIN}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("carries a user name or password; {EXPECTED}"));
    }
    if url.fragment().is_some() {
        return Err(format!("carries a #fragment; {EXPECTED}"));
    }
    if url.scheme() == "http" && !plain_is_safe(&url) {
        return Err(format!("is plain http to a public host; {EXPECTED}, {PLAIN}"));
    }
    Ok(url)
}

/// A base that paths are joined to: no query, no slash at the end of the path.
pub(super) fn base(text: &str) -> Result<Url, String> {
    let mut url = parse(text)?;
    if url.query().is_some() {
        return Err(format!("carries a ?query; {EXPECTED}"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// The one spelling of a mint's address: scheme, lower-case host, port unless it is the usual
/// one, path without a slash at the end. Two texts name the same mint when this is equal.
pub fn mint_url(text: &str) -> Result<String, String> {
    base(text).map(|url| url.as_str().trim_end_matches('/').to_owned())
}

/// The one spelling of a relay's address.
pub(super) fn relay_url(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected wss://host[:port][/path], ws:// only on loopback and .onion hosts";
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let http = match scheme.to_ascii_lowercase().as_str() {
        "wss" => format!("https://{rest}"),
        "ws" => format!("http://{rest}"),
        _ => return Err(format!("is not the address of a relay; {EXPECTED}")),
    };
    let url = base(&http).map_err(|_| format!("is not an address that a relay may have; {EXPECTED}"))?;
    let text = url.as_str().trim_end_matches('/');
    Ok(text.replacen("http", "ws", 1))
}

fn plain_is_safe(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost") || name.ends_with(".onion"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.to_canonical().is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mint_has_one_spelling() {
        for (given, canonical) in [
            ("https://mint.example", "https://mint.example"),
            ("https://mint.example/", "https://mint.example"),
            ("HTTPS://Mint.Example:443//", "https://mint.example"),
            ("https://mint.example:8443/Bitcoin/", "https://mint.example:8443/Bitcoin"),
            ("http://127.0.0.1:3338", "http://127.0.0.1:3338"),
            ("http://[::1]:3338/", "http://[::1]:3338"),
            ("http://localhost/", "http://localhost"),
            ("http://mint.localhost:80", "http://mint.localhost"),
            ("http://abcdef.onion/x", "http://abcdef.onion/x"),
        ] {
            assert_eq!(mint_url(given).as_deref(), Ok(canonical), "{given}");
        }
    }

    #[test]
    fn a_relay_has_one_spelling_and_speaks_tls() {
        for (given, canonical) in [
            ("wss://Relay.example/", Some("wss://relay.example")),
            ("WSS://relay.example:443/inbox/", Some("wss://relay.example/inbox")),
            ("ws://127.0.0.1:7777", Some("ws://127.0.0.1:7777")),
            ("ws://abc.onion", Some("ws://abc.onion")),
            ("ws://relay.example", None),
            ("https://relay.example", None),
            ("relay.example", None),
            ("wss://user:hunter2@relay.example", None),
            ("wss://relay.example/?key=hunter2", None),
            ("wss://", None),
        ] {
            let read = relay_url(given);
            assert_eq!(read.as_deref().ok(), canonical, "{given}");
            assert!(read.err().is_none_or(|problem| !problem.contains("hunter2") && problem.contains("; expected ")));
        }
    }

    #[test]
    fn other_addresses_are_refused_with_the_reason() {
        for (given, reason) in [
            ("mint.example", "is not a web address"),
            ("https:mint.example", "is not a web address"),
            ("ftp://mint.example", "is not a web address"),
            ("https://", "is not a web address"),
            ("https://mint.exam\nple", "is not a web address"),
            ("é", "is not a web address"),
            ("http://mint.example", "is plain http"),
            ("http://10.0.0.1", "is plain http"),
            ("http://localhost.example", "is plain http"),
            ("http://127.0.0.1.example", "is plain http"),
            ("http://onion", "is plain http"),
            ("https://user@mint.example", "carries a user name"),
            ("https://user:hunter2@mint.example", "carries a user name"),
            ("https://mint.example/?unit=sat", "carries a ?query"),
            ("https://mint.example/#top", "carries a #fragment"),
        ] {
            let problem = mint_url(given).unwrap_err();
            assert!(problem.starts_with(reason), "{given}: {problem}");
            assert!(problem.contains("; expected "), "{given}: {problem}");
            assert!(!problem.contains("hunter2"));
        }
    }
}
