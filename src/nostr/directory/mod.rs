//! The other nodes: heard of at the relays (`listen`), checked, kept, and looked at.
//!
//! A relay may flood, lie and replay. What it gives out counts when its author's signature holds, the
//! newest of each address wins, and there is room for so many addresses only: of one author, of all, and
//! those that answer before those that never did. Whether they answer is asked by the rules for addresses
//! of strangers ([`crate::net::public`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use nostr::{Event, PublicKey};
use serde_json::Value;
use tokio::sync::Notify;
use url::Url;

mod listen;
mod repo;

pub(super) use repo::about;

use super::provider::{Opinion, Provider};
use super::relay::Caller;
use crate::net::NetError;
use crate::net::public::{self, Answer, Reach};
use crate::net::way::Way;
use crate::store::{Store, StoreError};

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
    reach: Reach,
    /// How the others are reached.
    way: Way,
    heard: Mutex<BTreeMap<String, Heard>>,
    news: Notify,
    looked: Notify,
}

/// How the last conversation with a relay went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub at_ms: i64,
    /// Events that were taken.
    pub taken: usize,
    /// Events that were not what they should be.
    pub refused: usize,
    /// It sent more than it was asked for.
    pub is_flood: bool,
    /// It goes on: what the relay hears of is heard here.
    pub is_live: bool,
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
    pub fn new(store: Store, caller: Caller, reach: Reach, way: Way) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                caller,
                reach,
                way,
                heard: Mutex::default(),
                news: Notify::new(),
                looked: Notify::new(),
            }),
        }
    }

    /// Looks which nodes answer: those that were not looked at for longest, and for so long at least. What no
    /// relay shows any more is forgotten.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn probe(&self, age: Duration) -> Result<(), StoreError> {
        let inner = &self.inner;
        let now_ms = inner.caller.clock.now_ms();
        repo::prune(&inner.store, now_ms).await?;
        let before_ms = now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let due = repo::due(&inner.store, inner.now(), before_ms, MOST_PROBES).await?;
        let looks = due.into_iter().map(|provider| async move {
            let health = self.look_at(&provider).await;
            (provider.address(), health)
        });
        let looked: Vec<_> = futures_util::stream::iter(looks).buffer_unordered(PROBES_AT_ONCE).collect().await;
        for (address, health) in looked {
            repo::set_health(&inner.store, &address, &health, inner.caller.clock.now_ms()).await?;
        }
        inner.looked.notify_one();
        Ok(())
    }

    /// Waits until a relay has shown who is there.
    pub async fn news(&self) {
        self.inner.news.notified().await;
    }

    /// Waits until it was looked who answers.
    pub async fn looked(&self) {
        self.inner.looked.notified().await;
    }

    /// Under which key this node is known itself.
    #[must_use]
    pub fn pubkey(&self) -> String {
        self.inner.caller.identity.pubkey()
    }

    /// The nodes that are up by their own word, those that answer first. Of several that name one URL, one: the
    /// one whose key the node there calls its own, or else the first. `pubkey`: of this one only.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn providers(&self, pubkey: Option<&str>, most: usize) -> Result<Vec<Listed>, StoreError> {
        let mut listed = repo::listed(&self.inner.store, self.inner.now(), pubkey).await?;
        let mut owners: HashMap<String, String> = HashMap::new();
        for one in listed.iter().filter(|one| !one.provider.endpoint_url.is_empty()) {
            let owner = owners.entry(one.provider.endpoint_url.clone()).or_insert_with(|| one.provider.address());
            if one.is_owner() {
                *owner = one.provider.address();
            }
        }
        listed.retain(|one| owners.get(&one.provider.endpoint_url) == Some(&one.provider.address()));
        listed.truncate(most);
        Ok(listed)
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

    fn heard_of(&self, url: &str) -> Heard {
        self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner).get(url).cloned().unwrap_or_default()
    }

    fn note(&self, url: &str, heard: Heard) {
        self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(url.to_owned(), heard);
    }

    /// Asks a node for what it has at `path`, at the first of its addresses that may be asked.
    ///
    /// # Errors
    /// As for any request, and when there is no such address.
    pub async fn ask(&self, provider: &Provider, path: &str, max_bytes: usize) -> Result<Answer, NetError> {
        let nowhere = NetError::Address("it has no address that this node goes to");
        let open = |url: &&String| Url::parse(url).is_ok_and(|url| self.inner.way.check(&url).is_ok());
        let base = provider.endpoint_urls.iter().find(open).ok_or(nowhere)?;
        // Some name their API, some their host.
        let base = base.strip_suffix("/v1").unwrap_or(base);
        let url = Url::parse(&format!("{base}{path}")).map_err(|_| nowhere)?;
        public::look(&url, self.inner.reach, &self.inner.way, max_bytes).await
    }

    /// Asks a node what it is.
    async fn look_at(&self, provider: &Provider) -> Health {
        let mut last = Health { status: None, endpoint: "info".to_owned(), answer: None };
        for (endpoint, path) in [("info", "/v1/info"), ("root", "/")] {
            let Ok(answer) = self.ask(provider, path, MAX_ANSWER).await else { continue };
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

impl Listed {
    /// Whether the node that answers there says that it has this key.
    fn is_owner(&self) -> bool {
        let answer = self.health.as_ref().and_then(|health| health.answer.as_ref());
        let npub = answer.and_then(|answer| answer.get("npub")).and_then(Value::as_str);
        npub.and_then(|npub| PublicKey::parse(npub).ok()).is_some_and(|key| key.to_hex() == self.provider.pubkey)
    }
}

impl Health {
    /// Whether it answered as a node does.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.status == Some(200) && self.answer.is_some()
    }
}
