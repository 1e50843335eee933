//! One conversation with one relay (NIP-01), from its opening to its end.
//!
//! A relay is a stranger: what it says is bounded in size, number and time, and believed only where a
//! signature proves it. It is told who this node is (NIP-42) when it refuses to go on without, and not
//! before.
//!
//! The conversation is this module's own, over the event types and rules of the crate `nostr`: the pool
//! that comes with them runs on tasks and a clock of its own, and logs what relays send.

use std::time::Duration;

use nostr::{Event, EventId, Filter, JsonUtil, RelayMessage};
use serde_json::json;
use url::Url;

use super::limits::{Limits, MAX_DOCUMENT, MEDIA};
use super::{Draft, Identity, SignedEvent};
use crate::clock::SharedClock;
use crate::net::NetError;
use crate::net::dialer::{Bounds, Dialer, Socket};

/// Authentication to a relay (NIP-42).
const AUTH: u16 = 22242;
/// Longest challenge that is signed.
const MAX_CHALLENGE: usize = 256;
/// Letters that are kept of what a relay says.
const MAX_SAID: usize = 200;
/// How much a relay may say: in one message, and in one conversation.
const BOUNDS: Bounds = Bounds { message: 128 * 1024, total: 8 * 1024 * 1024 };

/// What this node brings to every conversation.
#[derive(Clone, Debug)]
pub struct Caller {
    pub dialer: Dialer,
    pub identity: Identity,
    pub clock: SharedClock,
    /// How long one conversation may take.
    pub patience: Duration,
}

/// Why a relay did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    #[error("{0}")]
    Net(#[from] NetError),
    #[error("it closed the connection")]
    Closed,
    #[error("it did not answer in time")]
    Silent,
    /// It said no, in these words.
    #[error("it refused: {0}")]
    Refused(String),
    /// It would say no, by its own description.
    #[error("{0}")]
    Unfit(&'static str),
    /// It asks who this node is, and does not take the answer.
    #[error("it did not accept this node's authentication: {0}")]
    Stranger(String),
    #[error("the node's Nostr key does not work")]
    Identity,
}

impl RelayError {
    /// Whether asking again soon is no use.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Refused(said) => !["rate-limited", "error"].iter().any(|prefix| said.starts_with(prefix)),
            Self::Unfit(_) | Self::Stranger(_) | Self::Net(NetError::Address(_)) => true,
            _ => false,
        }
    }
}

/// What a relay gave out.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Not verified yet.
    pub events: Vec<Event>,
    /// It sent more than it was asked for.
    pub is_flood: bool,
}

/// An open conversation.
pub struct Relay<'a> {
    caller: &'a Caller,
    url: &'a str,
    socket: Socket,
    challenge: Option<String>,
    authenticated: bool,
    /// The questions that stay open.
    followed: Vec<String>,
}

impl Caller {
    /// Has a conversation with a relay, within this node's patience.
    ///
    /// # Errors
    /// [`RelayError::Silent`] when it takes too long; otherwise what `talk` came to.
    pub async fn within<T>(&self, talk: impl Future<Output = Result<T, RelayError>>) -> Result<T, RelayError> {
        tokio::time::timeout(self.patience, talk).await.unwrap_or(Err(RelayError::Silent))
    }

    /// # Errors
    /// When the relay cannot be reached.
    pub async fn open<'a>(&'a self, url: &'a str) -> Result<Relay<'a>, RelayError> {
        let socket = self.dialer.socket(&parse(url)?, BOUNDS).await?;
        Ok(Relay { caller: self, url, socket, challenge: None, authenticated: false, followed: Vec::new() })
    }

    /// Whether a relay answers, and shows the event with this id.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn has(&self, url: &str, id: Option<&str>) -> Result<bool, RelayError> {
        let wanted = id.and_then(|id| EventId::from_hex(id).ok()).unwrap_or(EventId::all_zeros());
        let mut relay = self.open(url).await?;
        let found = relay.fetch("look", Filter::new().id(wanted), 1).await?;
        relay.close().await;
        Ok(found.events.iter().any(|event| event.id == wanted && event.verify().is_ok()))
    }

    /// What a relay says that it takes (NIP-11). One that says nothing takes everything.
    pub async fn limits(&self, url: &str) -> Limits {
        let Ok(url) = parse(url) else { return Limits::default() };
        let asked = self.dialer.document(&url, MEDIA, MAX_DOCUMENT);
        let asked = tokio::time::timeout(self.patience / 2, asked).await;
        asked.ok().and_then(Result::ok).map_or(Limits::default(), |document| Limits::read(&document.body))
    }
}

fn parse(url: &str) -> Result<Url, NetError> {
    Url::parse(url).map_err(|_| NetError::Address("the address cannot be read"))
}

impl Relay<'_> {
    /// Publishes an event, and waits until the relay says that it has it.
    ///
    /// # Errors
    /// When it does not say so.
    pub async fn publish(&mut self, event: &SignedEvent) -> Result<(), RelayError> {
        let message = format!(r#"["EVENT",{}]"#, event.as_json());
        match self.submit(message.clone(), event.id()).await {
            Err(RelayError::Refused(said)) if wants_auth(&said) && !self.authenticated => {
                self.authenticate().await?;
                self.submit(message, event.id()).await
            }
            outcome => outcome,
        }
    }

    /// Asks for stored events. Gets no more than `most` of them, whatever the relay sends.
    ///
    /// # Errors
    /// When the relay does not answer to its end.
    pub async fn fetch(&mut self, name: &str, filter: Filter, most: usize) -> Result<Fetched, RelayError> {
        let fetched = self.ask(name, filter, most).await?;
        if !fetched.is_flood {
            self.socket.send(format!(r#"["CLOSE",{}]"#, json!(name))).await?;
        }
        Ok(fetched)
    }

    /// Asks for stored events, and leaves the question open: [`Self::next_event`] is what the relay hears of from then
    /// on.
    /// What it hears of on other open questions in the meantime is in the answer.
    ///
    /// # Errors
    /// When the relay does not answer to its end.
    pub async fn follow(&mut self, name: &str, filter: Filter, most: usize) -> Result<Fetched, RelayError> {
        let fetched = self.ask(name, filter, most).await?;
        self.followed.push(name.to_owned());
        Ok(fetched)
    }

    /// The next event of an open question. Nothing is lost where this is not waited for to its end.
    ///
    /// # Errors
    /// When the connection ends, or the relay has closed the last of the questions.
    pub async fn next_event(&mut self) -> Result<Event, RelayError> {
        loop {
            match self.hear().await? {
                RelayMessage::Event { subscription_id, event } if self.follows(subscription_id.as_str()) => {
                    return Ok(event.into_owned());
                }
                RelayMessage::Closed { subscription_id, message } if self.follows(subscription_id.as_str()) => {
                    self.followed.retain(|name| name != subscription_id.as_str());
                    if self.followed.is_empty() {
                        return Err(RelayError::Refused(said(&message)));
                    }
                }
                _ => {}
            }
        }
    }

    fn follows(&self, name: &str) -> bool {
        self.followed.iter().any(|followed| followed == name)
    }

    pub async fn close(self) {
        self.socket.close().await;
    }

    /// Sends what is answered by `OK`.
    async fn submit(&mut self, message: String, id: &str) -> Result<(), RelayError> {
        self.socket.send(message).await?;
        loop {
            if let RelayMessage::Ok { event_id, status, message } = self.hear().await?
                && event_id.to_hex() == id
            {
                let has_it = status || message.starts_with("duplicate");
                return if has_it { Ok(()) } else { Err(RelayError::Refused(said(&message))) };
            }
        }
    }

    async fn ask(&mut self, name: &str, filter: Filter, most: usize) -> Result<Fetched, RelayError> {
        let filter = filter.limit(most);
        match self.query(name, &filter, most).await {
            Err(RelayError::Refused(said)) if wants_auth(&said) && !self.authenticated => {
                self.authenticate().await?;
                self.query(name, &filter, most).await
            }
            outcome => outcome,
        }
    }

    async fn query(&mut self, name: &str, filter: &Filter, most: usize) -> Result<Fetched, RelayError> {
        self.socket.send(format!(r#"["REQ",{},{}]"#, json!(name), filter.as_json())).await?;
        let mut fetched = Fetched::default();
        loop {
            match self.hear().await? {
                RelayMessage::Event { subscription_id, event }
                    if subscription_id.as_str() == name || self.follows(subscription_id.as_str()) =>
                {
                    if fetched.events.len() >= most {
                        fetched.is_flood = true;
                        return Ok(fetched);
                    }
                    fetched.events.push(event.into_owned());
                }
                RelayMessage::EndOfStoredEvents(id) if id.as_str() == name => return Ok(fetched),
                RelayMessage::Closed { subscription_id, message } if subscription_id.as_str() == name => {
                    return Err(RelayError::Refused(said(&message)));
                }
                _ => {}
            }
        }
    }

    /// Signs the relay's challenge. The event names this relay as it is configured here, so that no other
    /// can use it.
    async fn authenticate(&mut self) -> Result<(), RelayError> {
        self.authenticated = true;
        let challenge = loop {
            match self.challenge.take() {
                Some(challenge) => break challenge,
                None => drop(self.hear().await?),
            }
        };
        let tag = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
        let event = self.caller.identity.sign(Draft {
            kind: AUTH,
            created_at: u64::try_from(self.caller.clock.now_secs()).unwrap_or_default(),
            tags: vec![tag("relay", self.url), tag("challenge", &challenge)],
            content: String::new(),
        });
        let event = event.map_err(|_| RelayError::Identity)?;
        match self.submit(format!(r#"["AUTH",{}]"#, event.as_json()), event.id()).await {
            Err(RelayError::Refused(said)) => Err(RelayError::Stranger(said)),
            outcome => outcome,
        }
    }

    /// The next message that makes sense. A challenge is kept for when it is needed.
    async fn hear(&mut self) -> Result<RelayMessage<'static>, RelayError> {
        loop {
            let text = self.socket.next().await?.ok_or(RelayError::Closed)?;
            match RelayMessage::from_json(text.trim()) {
                Ok(RelayMessage::Auth { challenge }) => {
                    if challenge.len() <= MAX_CHALLENGE {
                        self.challenge = Some(challenge.clone().into_owned());
                    }
                    return Ok(RelayMessage::Auth { challenge });
                }
                Ok(message) => return Ok(message),
                Err(_) => tracing::trace!(relay = self.url, "a relay sent something that is no message"),
            }
        }
    }
}

fn wants_auth(said: &str) -> bool {
    said.starts_with("auth-required")
}

/// A relay's words, as they may be logged and shown: short, on one line.
#[must_use]
pub fn said(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(MAX_SAID).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_s_words_are_short_and_on_one_line() {
        let long = format!("blocked: \r\n\u{7}{}", "x".repeat(1_000));
        assert_eq!(said(&long).chars().count(), MAX_SAID);
        assert!(said(&long).starts_with("blocked: xxx"));
        for (error, lasting) in [
            (RelayError::Refused("blocked: no".into()), true),
            (RelayError::Refused("no".into()), true),
            (RelayError::Refused("rate-limited: slow down".into()), false),
            (RelayError::Refused("error: disk".into()), false),
            (RelayError::Unfit("too long"), true),
            (RelayError::Stranger("no".into()), true),
            (RelayError::Net(NetError::Address("in Tor")), true),
            (RelayError::Net(NetError::Connect), false),
            (RelayError::Silent, false),
            (RelayError::Closed, false),
        ] {
            assert_eq!(error.is_lasting(), lasting, "{error:?}");
        }
    }
}
