//! What the node says of itself on Nostr: a listing of the Routstr network (kind 38421), addressable by
//! its `d` tag (NIP-01), and the list of its relays (NIP-65).
//!
//! A listing expires (NIP-40), so that a node which died without a word vanishes. Tags that older clients
//! do not know are ignored by them.

use serde_json::json;
use sha2::{Digest, Sha256};
use url::{Host, Url};

use super::Draft;
use crate::net::public::is_public;
use crate::vault::hex;

/// A provider of the Routstr network.
pub const LISTING: u16 = 38421;
/// The relays that somebody writes to (NIP-65).
pub const RELAY_LIST: u16 = 10002;

/// What opens events of some kind (NIP-89).
pub const HANDLER: u16 = 31990;

/// The tag and value by which a node knows a relay list of its own making (NIP-89).
pub(super) const CLIENT: [&str; 2] = ["client", "coinslot"];

/// What is said. Two that are equal need not be said twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub name: String,
    pub about: String,
    /// Where clients find the node, as [`public_url`] gives them.
    pub urls: Vec<String>,
    pub mints: Vec<String>,
    pub version: String,
    pub models: usize,
    /// The web page that Nostr apps open for this listing (NIP-89); `None`: they are told of none.
    pub page: Option<String>,
}

impl Listing {
    /// Tells one listing from another, whenever it is made.
    #[must_use]
    pub fn fingerprint(&self, d: &str) -> String {
        let draft = self.draft(d, 0, 0);
        let mut said = vec![json!(draft.tags), json!(draft.content)];
        said.extend(self.page.as_ref().map(|page| json!(page)));
        hex(&Sha256::digest(json!(said).to_string().as_bytes()))
    }

    /// Where Nostr apps may send who wants to see this listing, if they are to be told.
    #[must_use]
    pub fn handler(&self, d: &str, created_at: u64, expires_at: u64) -> Option<Draft> {
        let page = self.page.as_ref()?;
        let mut draft = retired_handler(d, created_at, expires_at);
        // What the app knows stands in place of the word in brackets; the page takes no notice of it.
        draft.tags.push(["web", &format!("{page}/#<bech32>"), "naddr"].map(str::to_owned).to_vec());
        draft.content = self.profile();
        Some(draft)
    }

    /// The event, from `created_at` to `expires_at` in seconds.
    #[must_use]
    pub fn draft(&self, d: &str, created_at: u64, expires_at: u64) -> Draft {
        let mut tags = vec![tag("d", d)];
        tags.extend(self.urls.iter().map(|url| tag("u", url)));
        tags.extend(self.mints.iter().map(|mint| tag("mint", mint)));
        tags.push(tag("version", &self.version));
        tags.push(tag("model-count", &self.models.to_string()));
        tags.push(tag("expiration", &expires_at.to_string()));
        Draft { kind: LISTING, created_at, tags, content: self.profile() }
    }

    /// In the shape of a profile (kind 0).
    fn profile(&self) -> String {
        json!({ "name": self.name, "about": self.about }).to_string()
    }
}

/// What takes a listing's place when the node stops: it names no address, so clients pass it over, and it
/// is newer, so relays replace the other by it.
#[must_use]
pub fn withdrawal(d: &str, version: &str, created_at: u64, expires_at: u64) -> Draft {
    let tags =
        vec![tag("d", d), tag("version", version), tag("status", "down"), tag("expiration", &expires_at.to_string())];
    Draft { kind: LISTING, created_at, tags, content: "{}".to_owned() }
}

/// What takes a handler's place when the node stops: it opens nothing.
#[must_use]
pub fn retired_handler(d: &str, created_at: u64, expires_at: u64) -> Draft {
    let tags = vec![tag("d", d), tag("k", &LISTING.to_string()), tag("expiration", &expires_at.to_string())];
    Draft { kind: HANDLER, created_at, tags, content: "{}".to_owned() }
}

/// The list of the relays that a node writes to.
#[must_use]
pub fn relay_list(relays: &[String], created_at: u64) -> Draft {
    let mut tags: Vec<Vec<String>> = relays.iter().map(|relay| tag("r", relay)).collect();
    tags.push(CLIENT.map(str::to_owned).to_vec());
    Draft { kind: RELAY_LIST, created_at, tags, content: String::new() }
}

fn tag(name: &str, value: &str) -> Vec<String> {
    vec![name.to_owned(), value.to_owned()]
}

/// An address of this node as it is announced: whole, on the public internet over TLS or in Tor.
///
/// # Errors
/// Why it is none that strangers are sent to.
pub fn public_url(text: &str) -> Result<String, &'static str> {
    let url = Url::parse(text).map_err(|_| "is not a web address")?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("carries more than a host and a path");
    }
    let host = url.host().ok_or("names no host")?;
    let is_onion = crate::net::is_onion(&url);
    match url.scheme() {
        "https" => {}
        "http" if is_onion => {}
        "http" => return Err("is plain http: clients would send their ecash in the clear"),
        _ => return Err("is not a web address"),
    }
    if !is_onion && !is_public_host(&host) {
        return Err("leads into a private network");
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Endings that no public name has (RFC 6761, RFC 6762, RFC 8375, and what routers use).
const PRIVATE: [&str; 11] =
    ["localhost", "local", "localdomain", "internal", "intranet", "lan", "home", "corp", "private", "arpa", "test"];

/// Whether a host can be one of the public internet, as far as its name tells.
#[must_use]
pub fn is_public_host(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(ip) => is_public((*ip).into()),
        Host::Ipv6(ip) => is_public((*ip).into()),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            name.rsplit_once('.').is_some_and(|(before, top)| {
                !before.is_empty() && !PRIVATE.iter().any(|ending| top.eq_ignore_ascii_case(ending))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Listing {
        Listing {
            name: "a \"node\"".into(),
            about: "sells".into(),
            urls: vec!["https://n.example.com".into(), "http://abc.onion".into()],
            mints: vec!["https://m.example.com".into()],
            version: "0.1.0".into(),
            models: 3,
            page: None,
        }
    }

    #[test]
    fn a_listing_has_the_tags_that_clients_read() {
        let draft = listing().draft("west", 5, 9);
        assert_eq!((draft.kind, draft.created_at), (38421, 5));
        let tags: Vec<String> = draft.tags.iter().map(|tag| tag.join("=")).collect();
        assert_eq!(
            tags,
            [
                "d=west",
                "u=https://n.example.com",
                "u=http://abc.onion",
                "mint=https://m.example.com",
                "version=0.1.0",
                "model-count=3",
                "expiration=9"
            ]
        );
        assert_eq!(draft.content, r#"{"name":"a \"node\"","about":"sells"}"#);
        let down = withdrawal("west", "0.1.0", 6, 9);
        assert!(down.tags.iter().all(|tag| tag[0] != "u") && down.tags.contains(&tag("status", "down")));
    }

    #[test]
    fn apps_are_told_of_a_page_if_there_is_one() {
        assert_eq!(listing().handler("west", 5, 9), None);
        let draft = Listing { page: Some("https://n.example.com".into()), ..listing() }.handler("west", 5, 9).unwrap();
        let tags: Vec<String> = draft.tags.iter().map(|tag| tag.join("=")).collect();
        assert_eq!(tags, ["d=west", "k=38421", "expiration=9", "web=https://n.example.com/#<bech32>=naddr"]);
        assert_eq!((draft.kind, draft.content), (31990, listing().profile()));
    }

    #[test]
    fn what_is_said_has_a_fingerprint_and_when_it_is_said_has_none() {
        let same = listing();
        assert_eq!(same.fingerprint("d"), listing().fingerprint("d"));
        assert_ne!(same.fingerprint("d"), listing().fingerprint("e"));
        let changes: [fn(&mut Listing); 6] = [
            |listing| listing.name.clear(),
            |listing| listing.about.push('.'),
            |listing| listing.urls.clear(),
            |listing| listing.mints.push("https://other.example.com".into()),
            |listing| listing.models = 4,
            |listing| listing.page = Some("https://n.example.com".into()),
        ];
        for change in changes {
            let mut other = listing();
            change(&mut other);
            assert_ne!(same.fingerprint("d"), other.fingerprint("d"));
        }
    }

    #[test]
    fn no_private_address_is_announced() {
        for (given, announced) in [
            ("https://Node.example.com/", Some("https://node.example.com")),
            ("https://node.example.com:8443/api/", Some("https://node.example.com:8443/api")),
            ("https://1.1.1.1", Some("https://1.1.1.1")),
            ("http://abcdef.onion", Some("http://abcdef.onion")),
            ("https://abcdef.onion/", Some("https://abcdef.onion")),
            ("http://node.example.com", None),
            ("http://localhost:8000", None),
            ("https://localhost", None),
            ("https://LOCALHOST.", None),
            ("https://a.localhost", None),
            ("https://node", None),
            ("https://node.local", None),
            ("https://node.lan.", None),
            ("https://nas.home.arpa", None),
            ("https://vault.internal", None),
            ("https://127.0.0.1", None),
            ("https://2130706433", None),
            ("https://0x7f.1", None),
            ("https://10.1.2.3", None),
            ("https://192.168.1.2", None),
            ("https://169.254.169.254", None),
            ("https://100.64.0.1", None),
            ("https://[::1]", None),
            ("https://[fd00::1]", None),
            ("https://[::ffff:10.0.0.1]", None),
            ("https://user:pw@node.example.com", None),
            ("https://node.example.com/?key=1", None),
            ("wss://node.example.com", None),
            ("node.example.com", None),
            ("", None),
        ] {
            assert_eq!(public_url(given).ok().as_deref(), announced, "{given}");
        }
    }
}
