//! Logging in by a signature (NIP-98): whoever is listed signs this node's address, and that event is good once.
//!
//! Which address counts is the operator's to say (`HTTP_URL`, `ONION_URL`, `ADMIN_LISTEN`), or is this machine's, or the
//! node's own onion: what a request says in `Host` proves nothing, and a signature for another site must not open this
//! one.

use url::Url;

use super::repo;
use crate::admin::operator::Actor;
use crate::admin::{AdminError, AdminState};
use crate::net;
use crate::nostr::SignedRequest;
use crate::nostr::signed_request::Expected;

/// Whose signature of this very request it is.
///
/// # Errors
/// [`AdminError::Refused`] where it is nobody's who may log in.
pub(in crate::admin) async fn check(
    state: &AdminState,
    encoded: &str,
    path: &str,
    body: &[u8],
) -> Result<Actor, AdminError> {
    if state.npubs.is_empty() {
        return Err(AdminError::unauthorized("ADMIN_NPUBS is not set: nobody can log in by a signature here."));
    }
    let now_ms = state.now_ms();
    let signed = SignedRequest::read(encoded, Expected { method: "POST", body, now_ms });
    let signed = signed.map_err(AdminError::unauthorized)?;
    if !is_ours(&state.origins, &state.onion.own_url(), &signed.url, path) {
        let why = "The signed event is for another address. Those of this node are in HTTP_URL and ONION_URL, and its \
                   own onion.";
        return Err(AdminError::unauthorized(why));
    }
    if !state.npubs.contains(&signed.npub) {
        tracing::warn!(npub = signed.npub, "somebody who is not listed tried to log in by a signature");
        return Err(AdminError::unauthorized("This key is not in ADMIN_NPUBS."));
    }
    if !repo::use_event(state.ledger.store(), &signed.id, signed.expires_ms, now_ms).await? {
        return Err(AdminError::unauthorized("This signature was used before. Sign again."));
    }
    Ok(Actor::new(signed.npub))
}

/// Whether an address is `path` of this node.
fn is_ours(origins: &[String], onion: &str, signed: &str, path: &str) -> bool {
    let Ok(url) = Url::parse(signed) else { return false };
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let known = |origin: &str| Url::parse(origin).is_ok_and(|origin| origin.origin() == url.origin());
    plain
        && matches!(url.scheme(), "http" | "https")
        && url.path() == path
        && (net::is_loopback(&url) || known(onion) || origins.iter().any(|origin| known(origin)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_nodes_addresses_count() {
        let origins = ["https://node.example/".to_owned(), "http://abc.onion".to_owned(), String::new()];
        for (signed, ours) in [
            ("https://node.example/admin/api/login", true),
            ("https://NODE.example:443/admin/api/login", true),
            ("http://abc.onion/admin/api/login", true),
            ("http://own.onion/admin/api/login", true),
            ("https://own.onion/admin/api/login", false),
            ("http://other.onion/admin/api/login", false),
            ("http://127.0.0.1:8000/admin/api/login", true),
            ("http://localhost:1/admin/api/login", true),
            ("http://node.example/admin/api/login", false),
            ("https://node.example:444/admin/api/login", false),
            ("https://node.example/admin/login/nostr", false),
            ("https://node.example/admin/api/login?x=1", false),
            ("https://node.example.evil/admin/api/login", false),
            ("https://evil.example/admin/api/login", false),
            ("https://user@node.example/admin/api/login", false),
            ("ftp://localhost/admin/api/login", false),
            ("/admin/api/login", false),
        ] {
            assert_eq!(is_ours(&origins, "http://own.onion", signed, "/admin/api/login"), ours, "{signed}");
        }
        assert!(!is_ours(&origins, "", "http://own.onion/admin/api/login", "/admin/api/login"), "it has no onion");
    }
}
