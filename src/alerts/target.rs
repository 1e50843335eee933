//! Whom notes are told, and how.

use super::note::{Note, Teller};
use super::webhook::Webhook;
use crate::clock::SharedClock;
use crate::config::Config;
use crate::net::NetError;
use crate::net::post::PostError;
use crate::net::way::Way;
use crate::nostr::Caller;
use crate::nostr::message::{Courier, MessageError};

/// One way to the operator.
#[derive(Clone, Debug)]
pub enum Target {
    Webhook(Webhook),
    Nostr(Box<Courier>),
}

/// Why a note did not arrive. Holds no address and nothing that a server said.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error(transparent)]
    Post(#[from] PostError),
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl Target {
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Nostr(_) => "nostr",
        }
    }
}

/// Everybody who is told, and who tells it.
#[derive(Clone, Debug)]
pub struct Sender {
    targets: Vec<Target>,
    names: Vec<&'static str>,
    teller: Teller,
    clock: SharedClock,
}

impl Sender {
    /// Whom the configuration names.
    ///
    /// # Errors
    /// When there can be no HTTP client, or `ALERT_NPUB` is no key.
    pub fn new(config: &Config, way: &Way, caller: &Caller) -> Result<Self, NetError> {
        let mut targets = Vec::new();
        let alerts = &config.alerts;
        if let Some(url) = &alerts.webhook_url {
            targets.push(Target::Webhook(Webhook::new(way, url.clone(), alerts.webhook_key.clone())?));
        }
        if let Some(npub) = &alerts.npub {
            let courier = Courier::new(caller.clone(), config.nostr.relays.clone(), npub);
            let courier = courier.ok_or(NetError::Address("ALERT_NPUB is no public key"))?;
            targets.push(Target::Nostr(Box::new(courier)));
        }
        let teller = Teller {
            name: config.info.name.clone(),
            npub: caller.identity.npub().to_owned(),
            version: env!("CARGO_PKG_VERSION"),
        };
        let names = targets.iter().map(Target::name).collect();
        Ok(Self { targets, names, teller, clock: caller.clock.clone() })
    }

    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    pub(super) fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// What goes to relays, where a target is reached by them. Another one each time.
    #[must_use]
    pub fn event(&self, target: &Target, note: &Note, now_ms: i64) -> Option<String> {
        match target {
            Target::Webhook(_) => None,
            Target::Nostr(courier) => courier.wrap(&note.text(&self.teller), note.made_ms, now_ms),
        }
    }

    /// Tells a note, once.
    ///
    /// # Errors
    /// When it did not arrive, as far as is known.
    pub async fn deliver(&self, target: &Target, note: &Note, event: &str) -> Result<(), TargetError> {
        match target {
            Target::Webhook(webhook) => {
                let body = note.json(&self.teller).to_string();
                Ok(webhook.deliver(&note.id, self.clock.now_secs(), body).await?)
            }
            Target::Nostr(courier) => Ok(courier.deliver(event).await?),
        }
    }
}
