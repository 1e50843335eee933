//! What all pages share that are rendered here, the operator's and the visitors': their headers, whose
//! forms are taken, how figures are written, and codes to scan.

pub(crate) mod csv;
pub(crate) mod format;
pub(crate) mod qr;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use url::Url;

/// With `no-referrer`, browsers send `Origin: null` on POST, and a form of this node could not be
/// told from a stranger's: hence `same-origin`, which tells other sites nothing either.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

/// The policy of a page that is whole without its script, which comes from this node.
pub(crate) const WITH_SCRIPT: (HeaderName, &str) = (
    header::CONTENT_SECURITY_POLICY,
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; \
     frame-ancestors 'none'; base-uri 'none'",
);

/// Sets the headers of a page, as far as the page has not set them itself.
pub(crate) async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Whether a browser asked an onion, by whatever way that leads here.
pub(crate) fn is_in_tor(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    Url::parse(&format!("http://{host}")).is_ok_and(|url| crate::net::is_onion(&url))
}

/// Lets a form through only if a page of this node sent it.
pub(crate) async fn refuse_foreign_posts(request: Request, next: Next) -> Response {
    // No other method does anything.
    let acts = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    if !acts || is_from_here(request.headers(), request.uri()) {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "This request does not come from a page of this node.").into_response()
}

/// Whether the browser says that a page of this very host sent the request. Where a proxy rewrites
/// `Host`, browsers on HTTPS still say so by `Sec-Fetch-Site`.
fn is_from_here(headers: &HeaderMap, uri: &Uri) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).or_else(|| uri.authority().map(|authority| authority.as_str()));
    let origin = text(header::ORIGIN);
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    match (site, origin.and_then(|origin| origin.split_once("://")), host) {
        (Some(site), _, _) if site != b"none" => site == b"same-origin",
        (_, Some((_scheme, origin)), Some(host)) => origin.eq_ignore_ascii_case(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_an_onion_is_in_tor() {
        for (host, in_tor) in [
            ("abcdef.onion", true),
            ("abcdef.onion:8080", true),
            ("ABCDEF.ONION", true),
            ("node.example", false),
            ("abcdef.onion.example", false),
            ("onion", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            assert_eq!(is_in_tor(&headers), in_tor, "{host}");
        }
        assert!(!is_in_tor(&HeaderMap::new()));
    }

    #[test]
    fn only_a_page_of_this_host_may_post() {
        let rows: &[(&[(&str, &str)], bool)] = &[
            (&[("host", "node:8000"), ("origin", "http://node:8000")], true),
            (&[("host", "Node.example"), ("origin", "https://node.EXAMPLE")], true),
            (&[("host", "node:8000"), ("origin", "http://node")], false),
            (&[("host", "node"), ("origin", "http://node.evil")], false),
            (&[("host", "node"), ("origin", "null")], false),
            (&[("host", "node"), ("origin", "http://user@node")], false),
            (&[("host", "node")], false),
            (&[("origin", "http://node")], false),
            (&[("host", "127.0.0.1:8000"), ("origin", "https://node"), ("sec-fetch-site", "same-origin")], true),
            (&[("host", "node"), ("origin", "http://node"), ("sec-fetch-site", "cross-site")], false),
            (&[("host", "node"), ("origin", "http://node"), ("sec-fetch-site", "same-site")], false),
            (&[("host", "node"), ("origin", "http://node"), ("sec-fetch-site", "none")], true),
            (&[("host", "node"), ("sec-fetch-site", "none")], false),
        ];
        for (pairs, allowed) in rows {
            let headers: HeaderMap = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap()))
                .collect();
            assert_eq!(is_from_here(&headers, &Uri::from_static("/admin/login")), *allowed, "{pairs:?}");
        }
        let headers = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static("https://node"))]);
        assert!(is_from_here(&headers, &Uri::from_static("https://node/admin/login")));
    }
}
