//! Messages to one person (NIP-17): what is said is sealed with the node's key, and the seal is wrapped by a key of
//! nobody (NIP-59, NIP-44), so that relays see neither who writes nor what.

use futures_util::future::join_all;
use nostr::nips::nip19::FromBech32 as _;
use nostr::{Event, Filter, Kind, PublicKey};

use super::relay::{Caller, RelayError};
use super::{Draft, Identity, SignedEvent};

/// What is said, its seal, and the wrap around that.
const SAID: u16 = 14;
const SEAL: u16 = 13;
const WRAP: u16 = 1059;
/// Where somebody wants to be written to.
const INBOX: u16 = 10050;
/// Most relays that are told. Who names more has them all the same.
const MOST_RELAYS: usize = 5;
/// How far seals and wraps are put into the past, in seconds, so that nobody sees when they were made.
const BLUR: i64 = 2 * 24 * 3_600;

/// Why a message did not arrive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("the message could not be sealed")]
    Sealing,
    #[error("there is no relay to send it by: set RELAYS")]
    NoRelay,
    /// In this node's words, not the relays'.
    #[error("none of {0} relays took the message")]
    Refused(usize),
}

/// Brings messages to one person.
#[derive(Clone, Debug)]
pub struct Courier {
    caller: Caller,
    relays: Vec<String>,
    to: PublicKey,
}

impl Courier {
    /// `None`: `npub` is no public key.
    #[must_use]
    pub fn new(caller: Caller, relays: Vec<String>, npub: &str) -> Option<Self> {
        let to = PublicKey::from_bech32(npub).ok()?;
        Some(Self { caller, relays, to })
    }

    /// A text as it goes to relays. `None`: the node's key does not work.
    #[must_use]
    pub fn wrap(&self, text: &str, said_ms: i64, now_ms: i64) -> Option<String> {
        let identity = &self.caller.identity;
        let to = vec![vec!["p".to_owned(), self.to.to_hex()]];
        let said = Draft { kind: SAID, created_at: secs(said_ms / 1000), tags: to.clone(), content: text.to_owned() };
        let seal = |by: &Identity, kind, tags, text: &str| {
            let content = by.encrypt(&self.to, text)?;
            by.sign(Draft { kind, created_at: blurred(now_ms), tags, content }).ok()
        };
        let sealed = seal(identity, SEAL, Vec::new(), &identity.unsigned(said)?)?;
        let nobody = Identity::throwaway().ok()?;
        Some(seal(&nobody, WRAP, to, sealed.as_json())?.as_json().to_owned())
    }

    /// Brings an event to where the recipient wants to be written to, or else to the node's own relays.
    ///
    /// # Errors
    /// When no relay has it.
    pub async fn deliver(&self, event: &str) -> Result<(), MessageError> {
        let id = super::id_of(event).ok_or(MessageError::Sealing)?;
        let event = SignedEvent::kept(id, event.to_owned());
        let inbox = self.inbox().await;
        let relays = if inbox.is_empty() { &self.relays } else { &inbox };
        if relays.is_empty() {
            return Err(MessageError::NoRelay);
        }
        let told = relays.iter().take(MOST_RELAYS).map(|url| self.caller.within(self.publish(url, &event)));
        let outcomes = join_all(told).await;
        for (url, outcome) in relays.iter().zip(&outcomes) {
            if let Err(error) = outcome {
                tracing::debug!(relay = url, %error, "a relay does not take a message");
            }
        }
        if outcomes.iter().any(Result::is_ok) { Ok(()) } else { Err(MessageError::Refused(outcomes.len())) }
    }

    async fn publish(&self, url: &str, event: &SignedEvent) -> Result<(), RelayError> {
        let mut relay = self.caller.open(url).await?;
        relay.publish(event).await?;
        relay.close().await;
        Ok(())
    }

    /// The relays that the recipient names, by its newest word.
    async fn inbox(&self) -> Vec<String> {
        let asked = join_all(self.relays.iter().map(|url| self.caller.within(self.ask(url)))).await;
        let is_its =
            |event: &Event| event.pubkey == self.to && event.kind == Kind::from_u16(INBOX) && event.verify().is_ok();
        let found = asked.into_iter().filter_map(Result::ok).flatten().filter(is_its);
        let Some(newest) = found.max_by_key(|event| event.created_at) else { return Vec::new() };
        let tags = newest.tags.iter().map(nostr::Tag::as_slice);
        let named = tags.filter_map(|tag| match tag {
            [name, url, ..] if name == "relay" => Some(url.trim_end_matches('/').to_owned()),
            _ => None,
        });
        named.take(MOST_RELAYS).collect()
    }

    async fn ask(&self, url: &str) -> Result<Vec<Event>, RelayError> {
        let mut relay = self.caller.open(url).await?;
        let filter = Filter::new().kind(Kind::from_u16(INBOX)).author(self.to);
        let found = relay.fetch("inbox", filter, 1).await?;
        relay.close().await;
        Ok(found.events)
    }
}

fn secs(secs: i64) -> u64 {
    u64::try_from(secs).unwrap_or_default()
}

/// Some time in the last two days.
fn blurred(now_ms: i64) -> u64 {
    let back = i64::from(rand::random::<u32>()) % BLUR;
    secs((now_ms / 1000).saturating_sub(back))
}
