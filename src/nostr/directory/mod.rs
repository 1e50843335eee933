//! The other nodes: asked for at the relays, checked, kept, and looked at.
//!
//! A relay may flood, lie and replay. What it gives out counts when its author's signature holds, the
//! newest of each address wins, and there is room for so many addresses only: of one author, of all, and
//! those that answer before those that never did. Whether they answer is asked by the rules for addresses
//! of strangers ([`crate::net::public`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use nostr::{Alphabet, Event, Filter, Kind, PublicKey, SingleLetterTag};
use serde_json::Value;
use url::Url;

mod repo;

pub(super) use repo::about;

use super::announcer::pause_ms;
use super::listing::LISTING;
use super::provider::{CURATOR, Opinion, Provider, RECOMMENDATION, REVIEW};
use super::relay::{Caller, RelayError};
use crate::net::public::{self, Reach};
use crate::net::way::Way;
use crate::store::{Store, StoreError};

/// Events of one kind that a relay is asked for.
const MOST_EVENTS: usize = 300;
/// Nodes that are asked whether they answer, in one round.
const MOST_PROBES: usize = 42;
/// Of them at a time.
const PROBES_AT_ONCE: usize = 4;
/// Largest answer of a node that is read, and that is kept.
const MAX_ANSWER: usize = 64 * 1024;
const MAX_KEPT: usize = 16 * 1024;

/// The other nodes. Clones are the same directory.
#[derive(Clone, Debug)]
pub struct Directory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    caller: Caller,
    relays: Vec<String>,
    reach: Reach,
    /// How the others are reached.
    way: Way,
    heard: Mutex<BTreeMap<String, Heard>>,
}

/// How the last question to a relay went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub at_ms: i64,
    /// Events that were taken.
    pub taken: usize,
    /// Events that were not what they should be.
    pub refused: usize,
    /// It sent more than it was asked for.
    pub is_flood: bool,
    /// In a row.
    pub failures: i64,
    pub trouble: Option<String>,
    retry_ms: i64,
}

/// Whether a node answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// `None`: there was no answer.
    pub status: Option<i64>,
    /// What was asked: `info` or `root`.
    pub endpoint: String,
    /// The answer, where it is JSON and short.
    pub answer: Option<Value>,
}

/// A node, and whether it answers, if that was asked.
#[derive(Clone, Debug)]
pub struct Listed {
    pub provider: Provider,
    pub health: Option<Health>,
}

/// What a relay gave out that holds.
#[derive(Debug, Default)]
struct Harvest {
    providers: Vec<(Provider, Event)>,
    opinions: Vec<Opinion>,
    refused: usize,
    is_flood: bool,
}

impl Inner {
    /// The moment at which events are judged, and which addresses of strangers are let through.
    fn now(&self) -> repo::Judge {
        repo::Judge { now: self.caller.clock.now_secs(), reach: self.reach }
    }
}

impl Directory {
    #[must_use]
    pub fn new(store: Store, caller: Caller, relays: Vec<String>, reach: Reach, way: Way) -> Self {
        Self { inner: Arc::new(Inner { store, caller, relays, reach, way, heard: Mutex::default() }) }
    }

    /// Asks the relays that may be asked, and keeps what holds. Names those that fail for the first time.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refresh(&self) -> Result<Vec<String>, StoreError> {
        let inner = &self.inner;
        let now_ms = inner.caller.clock.now_ms();
        let known = self.heard();
        let due = inner.relays.iter().filter(|url| known.get(*url).is_none_or(|heard| heard.retry_ms <= now_ms));
        let harvests = join_all(due.map(|url| async move { (url, inner.caller.within(self.harvest(url)).await) }));
        let mut troubles = Vec::new();
        for (url, harvest) in harvests.await {
            let before = known.get(url).cloned().unwrap_or_default();
            let now_ms = inner.caller.clock.now_ms();
            let heard = match harvest {
                Ok(harvest) => self.store(&harvest, now_ms).await?,
                Err(error) => {
                    if before.trouble.is_none() {
                        troubles.push(format!("{url}: {error}"));
                    }
                    failed(&before, &error, now_ms)
                }
            };
            inner.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(url.clone(), heard);
        }
        repo::prune(&inner.store, now_ms).await?;
        Ok(troubles)
    }

    /// Looks which nodes answer: those that were not looked at for longest.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let inner = &self.inner;
        let due = repo::due(&inner.store, inner.now(), MOST_PROBES).await?;
        let looks = due.into_iter().map(|provider| async move {
            let health = self.look_at(&provider).await;
            (provider.address(), health)
        });
        let looked: Vec<_> = futures_util::stream::iter(looks).buffer_unordered(PROBES_AT_ONCE).collect().await;
        for (address, health) in looked {
            repo::set_health(&inner.store, &address, &health, inner.caller.clock.now_ms()).await?;
        }
        Ok(())
    }

    /// The nodes that are up by their own word, those that answer first. `pubkey`: of this one only.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn providers(&self, pubkey: Option<&str>, most: usize) -> Result<Vec<Listed>, StoreError> {
        repo::listed(&self.inner.store, self.inner.now(), pubkey, most).await
    }

    /// How many nodes are up by their own word, and how many of them answered.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count(&self) -> Result<(i64, i64), StoreError> {
        repo::count(&self.inner.store, self.inner.caller.clock.now_secs()).await
    }

    /// What is said of a node by any of these names.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn opinions(&self, names: &[String]) -> Result<Vec<Opinion>, StoreError> {
        repo::opinions(&self.inner.store, names).await
    }

    /// How the relays answered last.
    #[must_use]
    pub fn heard(&self) -> BTreeMap<String, Heard> {
        self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One conversation with one relay.
    async fn harvest(&self, url: &str) -> Result<Harvest, RelayError> {
        let caller = &self.inner.caller;
        let most = caller.limits(url).await.results(MOST_EVENTS);
        let mut relay = caller.open(url).await?;
        let mut events = HashMap::new();
        for (place, (name, filter)) in questions().into_iter().enumerate() {
            let fetched = match relay.fetch(name, filter, most).await {
                Ok(fetched) => fetched,
                // It may take one question and not another.
                Err(error) if place > 0 => {
                    tracing::debug!(relay = url, %error, "a relay does not answer to {name}");
                    break;
                }
                Err(error) => return Err(error),
            };
            events.extend(fetched.events.into_iter().map(|event| (event.id, event)));
            if fetched.is_flood {
                // It would drown the next answer.
                return Ok(Harvest { is_flood: true, ..self.sift(events.into_values()) });
            }
        }
        relay.close().await;
        Ok(self.sift(events.into_values()))
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

    async fn store(&self, harvest: &Harvest, now_ms: i64) -> Result<Heard, StoreError> {
        repo::merge(&self.inner.store, &harvest.providers, &harvest.opinions, now_ms).await?;
        Ok(Heard {
            at_ms: now_ms,
            taken: harvest.providers.len().saturating_add(harvest.opinions.len()),
            refused: harvest.refused,
            is_flood: harvest.is_flood,
            ..Heard::default()
        })
    }

    /// Asks a node what it is, at the first of its addresses that may be asked.
    async fn look_at(&self, provider: &Provider) -> Health {
        let mut last = Health { status: None, endpoint: "info".to_owned(), answer: None };
        let open = |url: &&String| Url::parse(url).is_ok_and(|url| self.inner.way.check(&url).is_ok());
        let Some(base) = provider.endpoint_urls.iter().find(open) else { return last };
        // Some name their API, some their host.
        let base = base.strip_suffix("/v1").unwrap_or(base);
        for (endpoint, path) in [("info", "/v1/info"), ("root", "/")] {
            let Ok(url) = Url::parse(&format!("{base}{path}")) else { return last };
            let Ok(answer) = public::look(&url, self.inner.reach, &self.inner.way, MAX_ANSWER).await else { continue };
            let json = serde_json::from_slice(&answer.body).ok().filter(Value::is_object);
            let kept = json.filter(|json: &Value| json.to_string().len() <= MAX_KEPT);
            last = Health { status: Some(answer.status.into()), endpoint: endpoint.to_owned(), answer: kept };
            if last.is_good() {
                break;
            }
        }
        last
    }
}

impl Health {
    /// Whether it answered as a node does.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.status == Some(200) && self.answer.is_some()
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

fn failed(before: &Heard, error: &RelayError, now_ms: i64) -> Heard {
    let failures = before.failures.saturating_add(1);
    Heard {
        failures,
        trouble: Some(error.to_string()),
        retry_ms: now_ms.saturating_add(pause_ms(error, failures)),
        ..before.clone()
    }
}
