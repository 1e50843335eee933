//! One conversation with one relay: what it has, and then what it hears of.
//!
//! The questions stay open when they are answered, so nothing falls between what was there and what comes. A
//! conversation lasts as long as who had it says, and is then had anew, from the beginning: what a relay did
//! not pass on, or a broken connection lost, comes with the next. So one that passes on nothing, or hangs up,
//! is merely asked now and then.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use nostr::{Alphabet, Event, Filter, Kind, PublicKey, SingleLetterTag};

use super::{Directory, Harvest, Heard, repo};
use crate::clock::has_come;
use crate::nostr::announcer::{LONGEST_PAUSE_MS, MOST_PAUSE_MS, pause_ms};
use crate::nostr::listing::LISTING;
use crate::nostr::provider::{CURATOR, Opinion, Provider, RECOMMENDATION, REVIEW};
use crate::nostr::relay::{Relay, RelayError};
use crate::store::StoreError;

/// Events of one kind that a relay is asked for.
const MOST_EVENTS: usize = 300;
/// Events that a relay may pass on after that, in one conversation.
const MOST_NEWS: usize = 1_000;
/// What comes within such a time is kept together.
const GATHER: Duration = Duration::from_millis(200);
/// Or so much of it.
const MOST_GATHERED: usize = 50;

/// What a conversation gave so far.
struct Opened<'a> {
    harvest: Harvest,
    /// It goes on.
    relay: Option<Relay<'a>>,
    /// Why it does not.
    error: Option<RelayError>,
}

impl Directory {
    /// Has a conversation with a relay until `end`, if it may be asked now. Answers with what is wrong with it,
    /// unless that was said before.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn listen(&self, url: &str, end: impl Future<Output = ()>) -> Result<Option<String>, StoreError> {
        let clock = &self.inner.caller.clock;
        let before = self.heard_of(url);
        if !has_come(before.retry_ms, clock.now_ms(), MOST_PAUSE_MS) {
            return Ok(None);
        }
        let outcome = self.converse(url, &before, end).await?;
        let now_ms = clock.now_ms();
        // As the conversation left it.
        let mut heard = Heard { is_live: false, ..self.heard_of(url) };
        let news = match outcome {
            Ok(()) => {
                heard.failures = 0;
                None
            }
            Err(error) => {
                heard.failures = before.failures.saturating_add(1);
                heard.retry_ms = now_ms.saturating_add(pause_ms(&error, heard.failures));
                heard.trouble = Some(error.to_string());
                before.trouble.is_none().then(|| format!("{url}: {error}"))
            }
        };
        if heard.is_flood {
            heard.retry_ms = now_ms.saturating_add(LONGEST_PAUSE_MS);
        }
        self.note(url, heard);
        Ok(news)
    }

    /// How long a relay is left alone from now on.
    #[must_use]
    pub fn pause(&self, url: &str) -> Duration {
        let (retry_ms, now_ms) = (self.heard_of(url).retry_ms, self.inner.caller.clock.now_ms());
        let left = if has_come(retry_ms, now_ms, MOST_PAUSE_MS) { 0 } else { retry_ms.saturating_sub(now_ms) };
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
    }

    async fn converse(
        &self,
        url: &str,
        before: &Heard,
        end: impl Future<Output = ()>,
    ) -> Result<Result<(), RelayError>, StoreError> {
        let opened = match self.inner.caller.within(self.open(url)).await {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        let harvest = &opened.harvest;
        let taken = self.keep(harvest).await?;
        let heard = Heard {
            at_ms: self.inner.caller.clock.now_ms(),
            taken,
            refused: harvest.refused,
            is_flood: harvest.is_flood,
            is_live: opened.relay.is_some(),
            failures: before.failures,
            ..Heard::default()
        };
        self.note(url, heard);
        if !harvest.providers.is_empty() {
            self.inner.news.notify_one();
        }
        match opened.relay {
            Some(relay) => self.hear_on(url, relay, end).await,
            None => Ok(opened.error.map_or(Ok(()), Err)),
        }
    }

    /// Asks for what the relay has.
    async fn open<'a>(&'a self, url: &'a str) -> Result<Opened<'a>, RelayError> {
        let caller = &self.inner.caller;
        let most = caller.limits(url).await.results(MOST_EVENTS);
        let mut relay = caller.open(url).await?;
        let mut events = HashMap::new();
        for (place, (name, filter)) in questions().into_iter().enumerate() {
            match relay.follow(name, filter, most).await {
                Ok(fetched) => {
                    events.extend(fetched.events.into_iter().map(|event| (event.id, event)));
                    if fetched.is_flood {
                        // It would drown the next answer.
                        let harvest = Harvest { is_flood: true, ..self.sift(events.into_values()) };
                        return Ok(Opened { harvest, relay: None, error: None });
                    }
                }
                Err(error) if place == 0 => return Err(error),
                // It may take one question and not another.
                Err(error @ RelayError::Refused(_)) => {
                    tracing::debug!(relay = url, %error, "a relay does not answer to {name}");
                }
                Err(error) => {
                    let harvest = self.sift(events.into_values());
                    return Ok(Opened { harvest, relay: None, error: Some(error) });
                }
            }
        }
        Ok(Opened { harvest: self.sift(events.into_values()), relay: Some(relay), error: None })
    }

    /// Keeps what the relay passes on, until `end`.
    async fn hear_on(
        &self,
        url: &str,
        mut relay: Relay<'_>,
        end: impl Future<Output = ()>,
    ) -> Result<Result<(), RelayError>, StoreError> {
        let mut end = pin!(end);
        let (mut gathered, mut count) = (Vec::new(), 0_usize);
        let outcome = loop {
            tokio::select! {
                biased;
                () = &mut end => break Ok(()),
                event = relay.next_event() => match event {
                    Ok(event) => gathered.push(event),
                    Err(error) => break Err(error),
                },
                () = tokio::time::sleep(GATHER), if !gathered.is_empty() => {
                    count = count.saturating_add(gathered.len());
                    self.keep_news(url, &mut gathered).await?;
                }
            }
            if gathered.len() >= MOST_GATHERED {
                count = count.saturating_add(gathered.len());
                self.keep_news(url, &mut gathered).await?;
            }
            if count >= MOST_NEWS {
                self.note(url, Heard { is_flood: true, ..self.heard_of(url) });
                break Ok(());
            }
        };
        self.keep_news(url, &mut gathered).await?;
        relay.close().await;
        Ok(outcome)
    }

    async fn keep_news(&self, url: &str, gathered: &mut Vec<Event>) -> Result<(), StoreError> {
        let harvest = self.sift(gathered.drain(..));
        let taken = self.keep(&harvest).await?;
        let mut heard = self.heard_of(url);
        heard.taken = heard.taken.saturating_add(taken);
        heard.refused = heard.refused.saturating_add(harvest.refused);
        self.note(url, heard);
        Ok(())
    }

    /// What holds: of the right kind, for now, and signed. The signature is looked at last, as it costs most.
    fn sift(&self, events: impl Iterator<Item = Event>) -> Harvest {
        let now = self.inner.caller.clock.now_secs();
        let mut harvest = Harvest::default();
        for event in events {
            let is_listing = event.kind.as_u16() == LISTING;
            let provider = is_listing.then(|| Provider::read(&event, now, self.inner.reach).ok()).flatten();
            let opinion = if is_listing { None } else { Opinion::read(&event, now).ok() };
            if (provider.is_none() && opinion.is_none()) || event.verify().is_err() {
                harvest.refused = harvest.refused.saturating_add(1);
                continue;
            }
            harvest.opinions.extend(opinion);
            harvest.providers.extend(provider.map(|provider| (provider, event)));
        }
        harvest
    }

    /// Answers with how much it was.
    async fn keep(&self, harvest: &Harvest) -> Result<usize, StoreError> {
        let Harvest { providers, opinions, .. } = harvest;
        if !providers.is_empty() || !opinions.is_empty() {
            repo::merge(&self.inner.store, providers, opinions, self.inner.caller.clock.now_ms()).await?;
        }
        Ok(providers.len().saturating_add(opinions.len()))
    }
}

/// What a relay is asked for.
fn questions() -> Vec<(&'static str, Filter)> {
    let kind = |kind| Filter::new().kind(Kind::from_u16(kind));
    let about_listings = kind(RECOMMENDATION).custom_tag(SingleLetterTag::lowercase(Alphabet::K), LISTING.to_string());
    let mut questions = vec![("listings", kind(LISTING)), ("recommendations", about_listings)];
    questions.extend(PublicKey::from_hex(CURATOR).ok().map(|curator| ("reviews", kind(REVIEW).author(curator))));
    questions
}
