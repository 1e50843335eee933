//! What others say of themselves, and of nodes: from an event that anybody may have written to what this
//! node keeps of it. Pure, and bounded in everything.

use nostr::{Event, JsonUtil};
use serde::Serialize;
use serde_json::Value;
use url::Url;

use super::listing::{LISTING, is_public_host};
use crate::net::is_onion;
use crate::net::public::Reach;

/// Somebody recommends a listing (NIP-87).
pub const RECOMMENDATION: u16 = 38000;
/// The network's curator has looked at a node.
pub const REVIEW: u16 = 38425;
/// Who the network's curator is: reviews of others count for nothing.
pub const CURATOR: &str = "4ad6fa2d16e2a9b576c863b4cf7404a70d4dc320c0c447d10ad6ff58993eacc8";

/// Longest event that is kept, as JSON.
pub const MAX_EVENT: usize = 32 * 1024;
/// How far ahead of this node's clock another's may be, in seconds.
const MAX_AHEAD: i64 = 15 * 60;
const MAX_TAGS: usize = 200;
const MAX_URLS: usize = 8;
const MAX_URL: usize = 256;
const MAX_MINTS: usize = 32;
const MAX_NAME: usize = 100;
const MAX_TEXT: usize = 1_000;
const MAX_D: usize = 128;

/// A listing (kind 38421) of somebody else, written as the network's directories write one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Provider {
    /// The listing's name under its key. Clients know it as the provider's id.
    #[serde(rename = "id")]
    pub d: String,
    /// The event's.
    #[serde(rename = "event_id")]
    pub id: String,
    pub pubkey: String,
    /// In seconds, like the event's own.
    pub created_at: i64,
    pub kind: u16,
    /// The first of them; empty where there is none.
    pub endpoint_url: String,
    /// None: it says that it is down.
    pub endpoint_urls: Vec<String>,
    pub name: String,
    pub description: String,
    pub mint_urls: Vec<String>,
    pub version: String,
    pub content: String,
    /// In seconds.
    #[serde(skip)]
    pub expires_at: Option<i64>,
}

/// What somebody says of a node: kinds 38000 and 38425.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// `<kind>:<author>:<d>` (NIP-01): the newest counts.
    pub address: String,
    pub id: String,
    pub kind: u16,
    pub author: String,
    /// The address of a listing, a public key or a URL, as the author writes it.
    pub about: String,
    pub labels: Vec<String>,
    /// In seconds, like the event's own.
    pub created_at: i64,
}

/// Why an event is not taken.
pub type Refused = &'static str;

impl Provider {
    /// `38421:<public key>:<d>` (NIP-01)
    #[must_use]
    pub fn address(&self) -> String {
        format!("{LISTING}:{}:{}", self.pubkey, self.d)
    }

    /// What a listing says. Its signature is not looked at here.
    ///
    /// # Errors
    /// Why the event is no listing, or not for now.
    pub fn read(event: &Event, now: i64, reach: Reach) -> Result<Self, Refused> {
        let created_at = check(event, LISTING, now)?;
        let expires_at = tags(event, "expiration").next().map(|end| end.parse().map_err(|_| "its end is no time"));
        let expires_at: Option<i64> = expires_at.transpose()?;
        if expires_at.is_some_and(|end| end <= now) {
            return Err("it has expired");
        }
        let content: Value = serde_json::from_str(&event.content).unwrap_or_default();
        let said = |name: &str| content.get(name).and_then(Value::as_str).unwrap_or_default();
        let first = |names: [&str; 2], most| {
            let text = names.into_iter().map(said).find(|text| !text.is_empty()).unwrap_or_default();
            clean(text, most)
        };
        let named = tags(event, "u").chain(Some(said("endpoint_url")).filter(|url| !url.is_empty()));
        let mut endpoint_urls = Vec::new();
        for url in named.filter_map(|url| stranger_url(url, reach)).take(MAX_URLS) {
            if !endpoint_urls.contains(&url) {
                endpoint_urls.push(url);
            }
        }
        let mints = tags(event, "mint").filter_map(|url| stranger_url(url, reach)).take(MAX_MINTS).collect();
        Ok(Self {
            id: event.id.to_hex(),
            pubkey: event.pubkey.to_hex(),
            d: d_of(event)?,
            created_at,
            kind: LISTING,
            endpoint_url: endpoint_urls.first().cloned().unwrap_or_default(),
            endpoint_urls,
            name: first(["name", "display_name"], MAX_NAME),
            description: first(["about", "description"], MAX_TEXT),
            mint_urls: mints,
            version: tags(event, "version").next().map(|version| clean(version, 40)).unwrap_or_default(),
            content: if event.content.len() <= 8 * 1024 { event.content.clone() } else { String::new() },
            expires_at,
        })
    }
}

impl Opinion {
    /// What a recommendation or a review says. Its signature is not looked at here.
    ///
    /// # Errors
    /// Why the event is no opinion.
    pub fn read(event: &Event, now: i64) -> Result<Self, Refused> {
        let kind = event.kind.as_u16();
        let created_at = check(event, kind, now)?;
        let (author, d) = (event.pubkey.to_hex(), d_of(event)?);
        let listing = format!("{LISTING}:");
        let about = match kind {
            RECOMMENDATION => tags(event, "a").find(|address| address.starts_with(&listing)),
            REVIEW if author == CURATOR => tags(event, "node").next(),
            _ => None,
        };
        let labels = tags(event, "t").map(|label| clean(label, 40)).filter(|label| !label.is_empty()).take(8);
        Ok(Self {
            address: format!("{kind}:{author}:{d}"),
            id: event.id.to_hex(),
            kind,
            about: clean(about.ok_or("it is about no node")?, MAX_URL),
            author,
            labels: labels.collect(),
            created_at,
        })
    }
}

/// What every event must be. Answers with when it was made.
fn check(event: &Event, kind: u16, now: i64) -> Result<i64, Refused> {
    if event.kind.as_u16() != kind || ![LISTING, RECOMMENDATION, REVIEW].contains(&kind) {
        return Err("it is of another kind");
    }
    let created_at = i64::try_from(event.created_at.as_secs()).map_err(|_| "it is from the future")?;
    if created_at > now.saturating_add(MAX_AHEAD) {
        return Err("it is from the future");
    }
    if event.tags.len() > MAX_TAGS || event.as_json().len() > MAX_EVENT {
        return Err("it is too large");
    }
    Ok(created_at)
}

fn d_of(event: &Event) -> Result<String, Refused> {
    let d = tags(event, "d").next().unwrap_or_default();
    if d.len() > MAX_D || d.chars().any(char::is_control) {
        return Err("its name is too long");
    }
    Ok(d.to_owned())
}

/// The values of the tags of this name.
fn tags<'a>(event: &'a Event, name: &'a str) -> impl Iterator<Item = &'a str> {
    event.tags.iter().filter_map(move |tag| match tag.as_slice() {
        [first, value, ..] if first == name => Some(value.as_str()),
        _ => None,
    })
}

/// A text of somebody else: on one line, and short.
fn clean(text: &str, most: usize) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(most).collect()
}

/// An address that somebody else names, unless it leads into the reader's own network.
fn stranger_url(text: &str, reach: Reach) -> Option<String> {
    let url = Url::parse(text).ok().filter(|_| text.len() <= MAX_URL)?;
    let bare =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    let is_open = is_onion(&url) || reach == Reach::Anywhere || url.host().is_some_and(|host| is_public_host(&host));
    (bare && is_open && matches!(url.scheme(), "http" | "https")).then(|| url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use nostr::{EventBuilder, Keys, Kind, Tag, Timestamp};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn event(kind: u16, created_at: i64, tags: &[&[&str]], content: &str) -> Event {
        let tags = tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap());
        EventBuilder::new(Kind::from_u16(kind), content)
            .tags(tags)
            .custom_created_at(Timestamp::from_secs(created_at.unsigned_abs()))
            .sign_with_keys(&Keys::generate())
            .unwrap()
    }

    fn read(created_at: i64, tags: &[&[&str]], content: &str) -> Result<Provider, Refused> {
        Provider::read(&event(LISTING, created_at, tags, content), NOW, Reach::Public)
    }

    #[test]
    fn a_listing_is_read_as_the_network_writes_it() {
        let tags: &[&[&str]] = &[
            &["d", "abc"],
            &["u", "https://one.example.com/"],
            &["u", "http://xyz.onion"],
            &["mint", "https://m.example.com"],
            &["version", "0.4.8"],
        ];
        let provider = read(NOW, tags, r#"{"name":"N\n1","about":"A"}"#).unwrap();
        assert_eq!(provider.endpoint_urls, ["https://one.example.com", "http://xyz.onion"]);
        assert_eq!((provider.endpoint_url.as_str(), provider.name.as_str()), ("https://one.example.com", "N 1"));
        assert_eq!((provider.description.as_str(), provider.version.as_str()), ("A", "0.4.8"));
        assert_eq!(provider.mint_urls, ["https://m.example.com"]);
        assert!(provider.address().ends_with(":abc") && provider.address().starts_with("38421:"));
        let inside = read(NOW, &[&["d", "x"]], r#"{"endpoint_url":"https://in.example.com"}"#).unwrap();
        assert_eq!(inside.endpoint_urls, ["https://in.example.com"]);
        assert!(read(NOW, &[&["d", "x"], &["status", "down"]], "no JSON").unwrap().endpoint_urls.is_empty());
    }

    #[test]
    fn what_is_not_for_now_is_not_taken() {
        let end = |at: i64| at.to_string();
        assert!(read(NOW + MAX_AHEAD, &[], "").is_ok());
        assert_eq!(read(NOW + MAX_AHEAD + 1, &[], ""), Err("it is from the future"));
        assert_eq!(read(i64::MAX, &[], ""), Err("it is from the future"));
        assert_eq!(read(NOW, &[&["expiration", &end(NOW)]], ""), Err("it has expired"));
        assert_eq!(read(NOW, &[&["expiration", &end(NOW + 1)]], "").unwrap().expires_at, Some(NOW + 1));
        assert_eq!(read(NOW, &[&["expiration", "soon"]], ""), Err("its end is no time"));
        assert_eq!(Provider::read(&event(1, NOW, &[], ""), NOW, Reach::Public), Err("it is of another kind"));
    }

    #[test]
    fn nothing_that_a_stranger_writes_is_large_or_leads_inside() {
        assert_eq!(read(NOW, &[], &"x".repeat(MAX_EVENT)), Err("it is too large"));
        let many: Vec<&[&str]> = vec![&["u", "https://a.example.com"]; MAX_TAGS + 1];
        assert_eq!(read(NOW, &many, ""), Err("it is too large"));
        let long = "d".repeat(MAX_D + 1);
        assert_eq!(read(NOW, &[&["d", &long]], ""), Err("its name is too long"));
        let urls: Vec<String> = (0..50).map(|n| format!("https://n{n}.example.com")).collect();
        let tags: Vec<[&str; 2]> = urls.iter().map(|url| ["u", url.as_str()]).collect();
        let tags: Vec<&[&str]> = tags.iter().map(|tag| tag.as_slice()).collect();
        assert_eq!(read(NOW, &tags, "").unwrap().endpoint_urls.len(), MAX_URLS);
        let name = format!(r#"{{"name":"{}","about":"{}"}}"#, "n".repeat(5_000), "a".repeat(5_000));
        let long = read(NOW, &[], &name).unwrap();
        assert_eq!((long.name.len(), long.description.len(), long.content.len()), (MAX_NAME, MAX_TEXT, 0));
        for url in [
            "http://127.0.0.1:8000",
            "https://10.0.0.1",
            "http://localhost",
            "https://[::1]",
            "https://node.local",
            "https://u:p@a.example.com",
            "https://a.example.com/?x=1",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "//a.example.com",
        ] {
            assert!(read(NOW, &[&["u", url], &["mint", url]], "").unwrap().endpoint_urls.is_empty(), "{url}");
        }
    }

    #[test]
    fn an_opinion_is_about_a_node_and_reviews_are_the_curator_s() {
        let about = format!("{LISTING}:{CURATOR}:x");
        let recommended = event(RECOMMENDATION, NOW, &[&["d", "x"], &["k", "38421"], &["a", &about]], "good");
        assert_eq!(Opinion::read(&recommended, NOW).unwrap().about, about);
        let mint = event(RECOMMENDATION, NOW, &[&["d", "x"], &["a", "38172:abc:x"]], "");
        assert_eq!(Opinion::read(&mint, NOW), Err("it is about no node"));
        let review = event(REVIEW, NOW, &[&["d", "x"], &["node", "n"], &["t", "lgtm"]], "");
        assert_eq!(Opinion::read(&review, NOW), Err("it is about no node"));
    }
}
