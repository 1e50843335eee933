//! The node's own address, for lines to paste. They end in shells and files of settings, so an address
//! with any other character than addresses need is not used.

use axum::http::{HeaderMap, Uri, header};
use url::Url;

use crate::pages;

/// Shown where nobody knows better.
const FALLBACK: &str = "http://127.0.0.1:8000";

/// Where clients reach this node, without `/v1`: as the operator says, else as this one reached it. Who came
/// by Tor is not sent out of it.
pub(super) fn own(http_url: &str, headers: &HeaderMap, uri: &Uri) -> String {
    let inside = if pages::is_in_tor(headers) { asked(headers, uri) } else { None };
    let found = inside.or_else(|| configured(http_url)).or_else(|| asked(headers, uri));
    found.unwrap_or_else(|| FALLBACK.to_owned())
}

fn configured(text: &str) -> Option<String> {
    let url = Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return None;
    }
    let text = url.as_str().trim_end_matches('/');
    let text = text.strip_suffix("/v1").unwrap_or(text).trim_end_matches('/');
    is_harmless(text).then(|| text.to_owned())
}

fn asked(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST.as_str()).or_else(|| uri.authority().map(|authority| authority.as_str()))?;
    if host.contains(['/', '@', '?', '#']) || !is_harmless(host) {
        return None;
    }
    // Anybody can say this of a proxy; who does shows it to himself.
    let scheme = if text("x-forwarded-proto").map(str::trim) == Some("https") { "https" } else { "http" };
    let url = Url::parse(&format!("{scheme}://{host}")).ok().filter(Url::has_host)?;
    Some(url.as_str().trim_end_matches('/').to_owned())
}

fn is_harmless(text: &str) -> bool {
    text.len() <= 300 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:/[]-_~%".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_word_counts_and_no_address_breaks_out_of_a_line() {
        let rows = [
            ("https://node.example", "other", "https://node.example"),
            ("https://node.example/v1/", "other", "https://node.example"),
            ("https://node.example/ai", "other", "https://node.example/ai"),
            ("https://node.example", "abcdef.onion", "http://abcdef.onion"),
            ("https://node.example", "abcdef.onion.example", "https://node.example"),
            ("", "node.example", "http://node.example"),
            ("", "127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("", "[::1]:8000", "http://[::1]:8000"),
            ("ftp://node.example", "node.example", "http://node.example"),
            ("https://user:pass@node.example", "node.example", "http://node.example"),
            ("https://node.example/'$(id)'", "node.example", "http://node.example"),
            ("", "node.example/$(id)", FALLBACK),
            ("", "node.example\" onload=\"x", FALLBACK),
            ("", "a@b", FALLBACK),
            ("", "';id;'", FALLBACK),
            ("", "", FALLBACK),
            ("", ":::", FALLBACK),
        ];
        for (http_url, host, expected) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            assert_eq!(own(http_url, &headers, &Uri::from_static("/")), expected, "{http_url} {host}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(own("", &headers, &Uri::from_static("/")), FALLBACK);
        assert_eq!(own("", &headers, &Uri::from_static("http://node.example/")), "http://node.example", "HTTP/2");
        headers.insert(header::HOST, "node.example".parse().unwrap());
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        assert_eq!(own("", &headers, &Uri::from_static("/")), "https://node.example");
    }
}
