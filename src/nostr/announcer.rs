//! Keeps the node's listing on its relays, and says no more than is needed.
//!
//! What was said, and which relay has it, is in the database: a node that starts again, after a crash as
//! well, says nothing that its relays have heard. Something new is said when the listing says something
//! else, when the last one comes near its end, and when the node stops.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use nostr::{Filter, Kind, PublicKey};

use super::listing::{CLIENT, LISTING, Listing, RELAY_LIST, relay_list, retired_handler, withdrawal};
use super::relay::{Caller, Relay, RelayError};
use super::repo::{self, RelayStatus, Said};
use super::{Draft, IdentityError, SignedEvent};
use crate::clock::{HOUR_MS, MINUTE_MS, doubled, has_come};
use crate::store::{Store, StoreError};

/// How long a listing holds: nodes that died vanish after it.
pub const LIFE: Duration = Duration::from_secs(48 * 3600);
/// When it is said anew.
const REFRESH: Duration = Duration::from_secs(12 * 3600);
/// After a relay's first failure, doubled by each that follows.
const FIRST_PAUSE_MS: i64 = 30_000;
pub(super) const LONGEST_PAUSE_MS: i64 = 15 * MINUTE_MS;
/// After a refusal that asking again soon does not change.
const LASTING_PAUSE_MS: i64 = HOUR_MS;
/// Longest time that a relay is left alone.
pub(super) const MOST_PAUSE_MS: i64 = HOUR_MS;
/// How far ahead an event may be, in seconds: relays refuse what is from further. The clock that it was made by
/// was ahead, and set back since.
const MOST_AHEAD: i64 = 15 * 60;

/// Why nothing could be said.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Says on Nostr what the node is. Clones are the same announcer.
#[derive(Clone, Debug)]
pub struct Announcer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    caller: Caller,
    relays: Vec<String>,
    d: String,
    version: String,
    /// What this process said last. Another one of the same name and database that is set up otherwise
    /// would answer each change with its own for ever.
    last: Mutex<Option<String>>,
}

/// What is known of the node's own listing.
#[derive(Clone, Debug, Default)]
pub struct Announced {
    /// `38421:<public key>:<d>` (NIP-01).
    pub address: String,
    /// The event as JSON, and in seconds when it was made and when it ends.
    pub event: Option<(String, i64, i64)>,
    /// The event says that the node is down.
    pub is_down: bool,
    /// Each configured relay, and whether it has the event.
    pub relays: Vec<(RelayStatus, bool)>,
}

impl Announcer {
    #[must_use]
    pub fn new(store: Store, caller: Caller, relays: Vec<String>, provider_id: Option<String>, version: &str) -> Self {
        let pubkey = caller.identity.pubkey();
        let d = provider_id.unwrap_or_else(|| pubkey.get(..12).unwrap_or(&pubkey).to_owned());
        let version = version.to_owned();
        Self { inner: Arc::new(Inner { store, caller, relays, d, version, last: Mutex::default() }) }
    }

    /// `38421:<public key>:<d>`
    #[must_use]
    pub fn address(&self) -> String {
        format!("{LISTING}:{}:{}", self.inner.caller.identity.pubkey(), self.inner.d)
    }

    #[must_use]
    pub fn relays(&self) -> &[String] {
        &self.inner.relays
    }

    /// Sees to it that the relays have this listing; `None`: that they have none. Answers with what is
    /// wrong with single relays.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keep(&self, listing: Option<&Listing>) -> Result<Vec<String>, AnnounceError> {
        if self.inner.relays.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.now_secs();
        let said = repo::said(&self.inner.store, &self.address()).await?;
        let wanted = listing.map(|listing| listing.fingerprint(&self.inner.d)).unwrap_or_default();
        if wanted.is_empty() && said.as_ref().is_none_or(|said| said.fingerprint.is_empty()) {
            return Ok(Vec::new());
        }
        let said = match said {
            Some(said) if !self.is_due(&said, &wanted, now) => said,
            before => self.say(listing, wanted.clone(), before.as_ref(), now).await?,
        };
        *self.inner.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanted);
        self.spread(&said, self.inner.caller.clock.now_ms()).await
    }

    /// Says that the node is down, to the relays that say it is up. Asks each once.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn withdraw(&self) -> Result<(), AnnounceError> {
        let said = repo::said(&self.inner.store, &self.address()).await?;
        let Some(said) = said.filter(|said| !said.fingerprint.is_empty()) else { return Ok(()) };
        let down = self.say(None, String::new(), Some(&said), self.now_secs()).await?;
        self.spread(&down, self.inner.caller.clock.now_ms()).await?;
        Ok(())
    }

    /// What is known of the listing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn announced(&self) -> Result<Announced, StoreError> {
        let address = self.address();
        let said = repo::said(&self.inner.store, &address).await?;
        let known = repo::statuses(&self.inner.store, &address).await?;
        let has = |status: &RelayStatus| said.as_ref().is_some_and(|said| said.event.id() == status.event_id);
        let relays = self.inner.relays.iter().map(|url| {
            let status = known.iter().find(|known| known.url == *url).cloned();
            let status = status.unwrap_or_else(|| RelayStatus { url: url.clone(), ..RelayStatus::default() });
            let has = has(&status);
            (status, has)
        });
        Ok(Announced {
            relays: relays.collect(),
            is_down: said.as_ref().is_some_and(|said| said.fingerprint.is_empty()),
            event: said.map(|said| (said.event.as_json().to_owned(), said.created_at, said.expires_at)),
            address,
        })
    }

    fn now_secs(&self) -> i64 {
        self.inner.caller.clock.now_secs()
    }

    /// Whether something new is to be said.
    fn is_due(&self, said: &Said, wanted: &str, now: i64) -> bool {
        if said.fingerprint.is_empty() {
            return !wanted.is_empty();
        }
        let last = self.inner.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // What differs without a change here was said by another process.
        let changed = said.fingerprint != wanted && last.is_none_or(|last| last != wanted);
        let said_at = said.expires_at.saturating_sub(secs(LIFE));
        let is_old = said_at.saturating_add(secs(REFRESH)) <= now || is_ahead(said_at, now);
        changed || (!wanted.is_empty() && is_old)
    }

    /// Makes a new event, and keeps it before anybody hears of it.
    async fn say(
        &self,
        listing: Option<&Listing>,
        fingerprint: String,
        before: Option<&Said>,
        now: i64,
    ) -> Result<Said, AnnounceError> {
        let inner = &self.inner;
        let created_at = moment_after(before.map(|before| before.created_at), now);
        let expires_at = created_at.saturating_add(secs(LIFE));
        let (from, to) = (unsigned(created_at), unsigned(expires_at));
        let draft = match listing {
            Some(listing) => listing.draft(&inner.d, from, to),
            None => withdrawal(&inner.d, &inner.version, from, to),
        };
        let sign = |draft: Draft| inner.caller.identity.sign(draft);
        let relay_list = sign(relay_list(&inner.relays, from))?.as_json().to_owned();
        let handler = match listing.and_then(|listing| listing.handler(&inner.d, from, to)) {
            Some(draft) => Some(draft),
            // Apps that were told of one are told that it is gone.
            None => before.filter(|before| opens(&before.handler)).map(|_| retired_handler(&inner.d, from, to)),
        };
        let handler = handler.map(sign).transpose()?.map(|event| event.as_json().to_owned()).unwrap_or_default();
        let said = Said { fingerprint, event: sign(draft)?, relay_list, handler, created_at, expires_at };
        let address = self.address();
        repo::say(&inner.store, &address, &said, now.saturating_add(MOST_AHEAD)).await?;
        // Another process may have been quicker: its event is the one, then.
        Ok(repo::said(&inner.store, &address).await?.unwrap_or(said))
    }

    /// Brings what was said to the relays that do not have it and may be asked.
    async fn spread(&self, said: &Said, now_ms: i64) -> Result<Vec<String>, AnnounceError> {
        let known = repo::statuses(&self.inner.store, &self.address()).await?;
        let status = |url: &String| known.iter().find(|known| known.url == *url).cloned();
        let due = self.inner.relays.iter().filter_map(|url| {
            let status = status(url).unwrap_or_else(|| RelayStatus { url: url.clone(), ..RelayStatus::default() });
            let is_due = has_come(status.retry_ms, now_ms, MOST_PAUSE_MS);
            (status.event_id != said.event.id() && is_due).then_some(status)
        });
        let outcomes = join_all(due.map(|status| async {
            let outcome = self.inner.caller.within(self.tell(&status.url, said)).await;
            (status, outcome)
        }));
        let mut troubles = Vec::new();
        for (before, outcome) in outcomes.await {
            let after = judge(&before, &outcome, said, self.inner.caller.clock.now_ms());
            // Said once, not at every attempt.
            if outcome.is_err() && after.said != before.said {
                troubles.push(format!("{}: {}", after.url, after.said));
            }
            repo::set_status(&self.inner.store, &self.address(), &after).await?;
        }
        Ok(troubles)
    }

    /// One conversation with one relay.
    async fn tell(&self, url: &str, said: &Said) -> Result<(), RelayError> {
        let caller = &self.inner.caller;
        if let Some(objection) = caller.limits(url).await.objection(&said.event) {
            return Err(RelayError::Unfit(objection));
        }
        let mut relay = caller.open(url).await?;
        relay.publish(&said.event).await?;
        if let Some(id) = super::id_of(&said.handler)
            && let Err(error) = relay.publish(&SignedEvent::kept(id, said.handler.clone())).await
        {
            tracing::debug!(%error, "a relay does not take the handler");
        }
        if !said.fingerprint.is_empty() {
            self.tell_relays(&mut relay, said).await;
        }
        relay.close().await;
        Ok(())
    }

    /// The list of relays (NIP-65). If the key is somebody's who has published one elsewhere, that stays.
    /// A relay may do without it, so its failure is none.
    async fn tell_relays(&self, relay: &mut Relay<'_>, said: &Said) {
        let Ok(author) = PublicKey::from_hex(&self.inner.caller.identity.pubkey()) else { return };
        let filter = Filter::new().kind(Kind::from_u16(RELAY_LIST)).author(author);
        let there = match relay.fetch("relay-list", filter, 1).await {
            Ok(fetched) => fetched.events,
            Err(error) => return tracing::debug!(%error, "a relay does not say which list of relays it has"),
        };
        let is_foreign = |event: &nostr::Event| {
            let tags = event.tags.iter().map(nostr::Tag::as_slice);
            event.pubkey == author && !tags.into_iter().any(|tag| tag.iter().map(String::as_str).eq(CLIENT))
        };
        if there.iter().any(is_foreign) {
            return;
        }
        let Some(id) = super::id_of(&said.relay_list) else { return };
        if there.iter().any(|event| event.id.to_hex() == id) {
            return;
        }
        if let Err(error) = relay.publish(&SignedEvent::kept(id, said.relay_list.clone())).await {
            tracing::debug!(%error, "a relay does not take the list of relays");
        }
    }
}

fn is_ahead(created_at: i64, now: i64) -> bool {
    created_at.saturating_sub(now) > MOST_AHEAD
}

/// When an event is made that follows another. Of two events of one second, relays keep either.
fn moment_after(before: Option<i64>, now: i64) -> i64 {
    before.filter(|before| !is_ahead(*before, now)).map_or(now, |before| now.max(before.saturating_add(1)))
}

/// Whether a handler names a page.
fn opens(handler: &str) -> bool {
    handler.contains(r#"["web","#)
}

/// How a relay stands after an attempt.
fn judge(before: &RelayStatus, outcome: &Result<(), RelayError>, said: &Said, now_ms: i64) -> RelayStatus {
    let url = before.url.clone();
    match outcome {
        Ok(()) => RelayStatus {
            url,
            event_id: said.event.id().to_owned(),
            ok_ms: Some(now_ms),
            failures: 0,
            retry_ms: 0,
            said: String::new(),
        },
        Err(error) => {
            let failures = before.failures.saturating_add(1);
            RelayStatus {
                url,
                failures,
                retry_ms: now_ms.saturating_add(pause_ms(error, failures)),
                said: error.to_string(),
                ..before.clone()
            }
        }
    }
}

/// How long a relay that has failed so often in a row is left alone.
pub(super) fn pause_ms(error: &RelayError, failures: i64) -> i64 {
    if error.is_lasting() {
        return LASTING_PAUSE_MS;
    }
    doubled(FIRST_PAUSE_MS, u32::try_from(failures.saturating_sub(1)).unwrap_or(0), LONGEST_PAUSE_MS)
}

fn secs(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

fn unsigned(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_newer_than_the_last_unless_that_is_from_too_far_ahead() {
        for (before, made) in [(None, 1_000), (Some(10), 1_000), (Some(1_000), 1_001), (Some(1_900), 1_901)] {
            assert_eq!(moment_after(before, 1_000), made, "{before:?}");
        }
        assert_eq!(moment_after(Some(1_901), 1_000), 1_000);
        assert_eq!(LASTING_PAUSE_MS.max(LONGEST_PAUSE_MS), MOST_PAUSE_MS);
    }

    #[test]
    fn a_relay_that_fails_is_asked_less_and_less_and_one_that_refuses_hardly() {
        let said = Said {
            fingerprint: "f".into(),
            event: SignedEvent::kept("id".into(), "{}".into()),
            relay_list: String::new(),
            handler: String::new(),
            created_at: 0,
            expires_at: 0,
        };
        let mut status = RelayStatus { url: "wss://r".into(), event_id: "old".into(), ..RelayStatus::default() };
        let mut pauses = Vec::new();
        for _ in 0..7 {
            status = judge(&status, &Err(RelayError::Silent), &said, 1_000);
            pauses.push((status.retry_ms - 1_000) / 1_000);
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 900, 900]);
        assert_eq!((status.event_id.as_str(), status.failures), ("old", 7));
        let refused = judge(&status, &Err(RelayError::Refused("blocked: you".into())), &said, 1_000);
        assert_eq!((refused.retry_ms, refused.said.as_str()), (3_601_000, "it refused: blocked: you"));
        let told = judge(&refused, &Ok(()), &said, 2_000);
        assert_eq!((told.event_id.as_str(), told.ok_ms, told.failures, told.retry_ms), ("id", Some(2_000), 0, 0));
        assert_eq!(told.said, "");
    }
}
