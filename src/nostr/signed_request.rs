//! A request that somebody signed with a Nostr key (NIP-98).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nostr::nips::nip19::ToBech32;
use nostr::{Event, JsonUtil};
use sha2::{Digest, Sha256};

use crate::vault::hex;

const KIND: u16 = 27_235;
/// How far the signer's clock may be from ours.
const SECONDS_OFF: i64 = 60;
/// Such an event has two short tags.
const MAX_BYTES: usize = 8 * 1024;

/// What a signature must be for.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub method: &'a str,
    /// Hashed into the signature, where there is one that does not carry the event itself.
    pub body: &'a [u8],
    pub now_ms: i64,
}

/// A signature that holds. Whether it was used before is the caller's to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRequest {
    /// Who signed.
    pub npub: String,
    /// What address it was signed for.
    pub url: String,
    pub id: String,
    /// When it can be used no more.
    pub expires_ms: i64,
}

impl SignedRequest {
    /// Reads what stands behind `Nostr` in `Authorization`: an event in base64.
    ///
    /// # Errors
    /// What is wrong with it, for whoever sent it. It repeats nothing of what was sent.
    pub fn read(encoded: &str, wanted: Expected<'_>) -> Result<Self, &'static str> {
        if encoded.len() > MAX_BYTES {
            return Err("The signed event is too long.");
        }
        let no_event = "This is no Nostr event in base64.";
        let json = STANDARD.decode(encoded.trim()).map_err(|_| no_event)?;
        let event = Event::from_json(json).map_err(|_| no_event)?;
        if event.kind.as_u16() != KIND {
            return Err("The signed event is of another kind than 27235.");
        }
        let created_secs = i64::try_from(event.created_at.as_secs()).map_err(|_| no_event)?;
        let off = wanted.now_ms.div_euclid(1000).saturating_sub(created_secs);
        if off.unsigned_abs() > SECONDS_OFF.unsigned_abs() {
            return Err("The event was not signed within the last minute, or a clock is wrong.");
        }
        if !only(&event, "method").is_some_and(|method| method.eq_ignore_ascii_case(wanted.method)) {
            return Err("The signed event is for another method.");
        }
        let is_for_body = match only(&event, "payload") {
            Some(hash) => hash.eq_ignore_ascii_case(&hex(&Sha256::digest(wanted.body))),
            None => wanted.body.is_empty(),
        };
        if !is_for_body {
            return Err("The signed event is for another body: its payload tag is the body's SHA-256.");
        }
        let url = only(&event, "u").ok_or("The signed event names no address, or several.")?.to_owned();
        event.verify().map_err(|_| "The event's signature does not hold.")?;
        let npub = event.pubkey.to_bech32().map_err(|_| no_event)?;
        let expires_ms = created_secs.saturating_add(SECONDS_OFF).saturating_add(1).saturating_mul(1000);
        Ok(Self { npub, url, id: event.id.to_hex(), expires_ms })
    }
}

/// The value of a tag that must be there once.
fn only<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    let mut values = event.tags.iter().filter_map(|tag| match tag.as_slice() {
        [found, value, ..] if found == name => Some(value.as_str()),
        _ => None,
    });
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use nostr::{EventBuilder, Keys, Kind, Tag, Timestamp};

    use super::*;

    const NOW_MS: i64 = 1_790_000_000_500;
    const URL: &str = "https://node.example/admin/api/login";

    fn signed(keys: &Keys, kind: u16, at: u64, tags: &[[&str; 2]]) -> String {
        let tags = tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap());
        let event = EventBuilder::new(Kind::from_u16(kind), "").tags(tags).custom_created_at(Timestamp::from_secs(at));
        STANDARD.encode(event.sign_with_keys(keys).unwrap().as_json())
    }

    fn read(encoded: &str, body: &[u8]) -> Result<SignedRequest, &'static str> {
        SignedRequest::read(encoded, Expected { method: "POST", body, now_ms: NOW_MS })
    }

    #[test]
    fn a_signature_is_good_for_its_request_and_for_a_minute() {
        let keys = Keys::generate();
        let usual = [["u", URL], ["method", "POST"]];
        let good = read(&signed(&keys, KIND, 1_790_000_000, &usual), b"").unwrap();
        assert_eq!((good.npub, good.url), (keys.public_key().to_bech32().unwrap(), URL.to_owned()));
        assert_eq!(good.expires_ms, 1_790_000_061_000);
        for at in [1_789_999_940, 1_790_000_060] {
            assert!(read(&signed(&keys, KIND, at, &usual), b"").is_ok(), "{at}");
        }
        let hash = hex(&Sha256::digest(b"{}"));
        let with_body = signed(&keys, KIND, 1_790_000_000, &[["u", URL], ["method", "post"], ["payload", &hash]]);
        assert!(read(&with_body, b"{}").is_ok());

        for (encoded, body) in [
            (signed(&keys, KIND, 1_789_999_939, &usual), &b""[..]),
            (signed(&keys, KIND, 1_790_000_061, &usual), b""),
            (signed(&keys, KIND, u64::MAX, &usual), b""),
            (signed(&keys, 1, 1_790_000_000, &usual), b""),
            (signed(&keys, KIND, 1_790_000_000, &[["u", URL], ["method", "GET"]]), b""),
            (signed(&keys, KIND, 1_790_000_000, &[["u", URL]]), b""),
            (signed(&keys, KIND, 1_790_000_000, &[["method", "POST"]]), b""),
            (signed(&keys, KIND, 1_790_000_000, &[["u", URL], ["u", URL], ["method", "POST"]]), b""),
            (signed(&keys, KIND, 1_790_000_000, &usual), b"{}"),
            (with_body, b""),
            ("e30=".to_owned(), b""),
            ("no base64".to_owned(), b""),
            ("A".repeat(9_000), b""),
        ] {
            assert!(read(&encoded, body).is_err(), "{encoded}");
        }
    }

    #[test]
    fn what_was_changed_after_signing_is_refused() {
        let keys = Keys::generate();
        let encoded = signed(&keys, KIND, 1_790_000_000, &[["u", URL], ["method", "POST"]]);
        let json = String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap();
        let other = Keys::generate().public_key().to_hex();
        for (from, to) in [
            (URL.to_owned(), "https://evil.example/admin/api/login".to_owned()),
            (keys.public_key().to_hex(), other),
            ("1790000000".to_owned(), "1790000001".to_owned()),
        ] {
            let forged = json.replace(&from, &to);
            assert_ne!(forged, json);
            assert!(read(&STANDARD.encode(forged), b"").is_err(), "{from}");
        }
    }
}
