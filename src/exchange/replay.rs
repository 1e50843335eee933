//! One request, one outcome: what an `Idempotency-Key` promises for [`KEPT_MS`].
//!
//! ```text
//!            ┌── charged, or a token taken ──► kept (sealed) ── repeat ──► the same answer
//!   claim ───┤                            └──► not kept (too long, no room, or lost in a crash) ── 409
//!            └── nothing taken ──────────────► removed ── repeat ──► runs
//! ```
//!
//! The claim is written before the payment is admitted and carries the request's id. A claim whose
//! process is gone is judged by the hold of that request: captured means that it was charged, and
//! must not run again; released or absent means that it cost nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::delivery::Served;
use super::repo::{self, Claim, Row, State};
use crate::clock::DAY_MS;
use crate::failpoint::failpoint;
use crate::failure::{About, Code, Failure};
use crate::ledger::Ledger;
use crate::ledger::repo::{self as books, HoldState};
use crate::payment::Payment;
use crate::store::StoreError;
use crate::vault::Vault;

/// How long an outcome is kept, in ms: 24 hours.
pub const KEPT_MS: i64 = DAY_MS;
/// Longest answer that is kept.
pub const MAX_BODY: usize = 4 * 1024 * 1024;
/// Longest outcome that is kept however much is kept already: keys that were made, and most answers. It takes little
/// more than what stays of its request anyway.
const SMALL: usize = 16 * 1024;
/// Seconds after which to ask again for the outcome of a request that runs.
const RETRY: u64 = 1;

/// All that repeats of requests take.
#[derive(Debug)]
pub struct Replays {
    ledger: Ledger,
    vault: Vault,
    /// Most that all kept outcomes may take, in bytes as they are stored.
    most_bytes: u64,
    /// What they take, as it was last summed up, and what this process has kept since.
    kept_bytes: AtomicU64,
    /// The claims of this process: id to fingerprint. One of this process that is not here is dead.
    running: Mutex<HashMap<String, String>>,
}

/// A request that came with an Idempotency-Key.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub payment: &'a Payment,
    pub key: &'a str,
    pub path: &'a str,
    pub body: &'a [u8],
    pub request_id: &'a str,
}

/// An answer as it is given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub head: Head,
    pub body: Bytes,
}

/// Status and headers of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

/// Makes the head of a live stream, once it is known what is served.
pub type StreamHead = Box<dyn Fn(&Served) -> Head + Send + Sync>;

/// The claim of one request, or what will become it.
pub struct Once {
    replays: Arc<Replays>,
    id: String,
    fingerprint: String,
    /// What the payer showed; half of the key to the kept outcome.
    credential: String,
    request: String,
    /// How a live stream begins.
    stream: StreamHead,
    claimed: AtomicBool,
}

impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Once").field("request", &self.request).finish_non_exhaustive()
    }
}

/// What a claim that is there means for a repeat.
enum Standing {
    Kept(Kept),
    /// Its request, of a process that is gone, cost nothing.
    Abandoned(String),
}

impl Replays {
    #[must_use]
    pub fn new(ledger: Ledger, vault: Vault, most_bytes: usize) -> Arc<Self> {
        let most_bytes = u64::try_from(most_bytes).unwrap_or(u64::MAX);
        Arc::new(Self { ledger, vault, most_bytes, kept_bytes: AtomicU64::new(0), running: Mutex::default() })
    }

    /// The claim that this request would make; `None` for one that pays nothing. `stream` is how
    /// its answer begins if it is a live stream.
    #[must_use]
    pub fn once(self: &Arc<Self>, asked: Asked<'_>, stream: StreamHead) -> Option<Once> {
        let credential = asked.payment.key_hex()?.to_owned();
        let payer = credential.as_bytes();
        Some(Once {
            id: self.vault.digest(&[b"replay", payer, asked.key.as_bytes()]),
            fingerprint: self.vault.digest(&[b"request", payer, b"POST", asked.path.as_bytes(), asked.body]),
            replays: Arc::clone(self),
            credential,
            request: asked.request_id.to_owned(),
            stream,
            claimed: AtomicBool::new(false),
        })
    }

    /// Forgets what is older than [`KEPT_MS`], and sums up what the rest takes. Returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn prune(&self) -> Result<u64, StoreError> {
        let store = self.ledger.store();
        let gone = repo::prune(store, self.after_ms()).await?;
        self.kept_bytes.store(repo::kept_bytes(store).await?, Ordering::Relaxed);
        Ok(gone)
    }

    /// Takes room for an outcome of so many bytes, unless it is a long one and too little is left.
    fn takes(&self, bytes: usize) -> bool {
        let (is_small, bytes) = (bytes <= SMALL, u64::try_from(bytes).unwrap_or(u64::MAX));
        let more = |kept: u64| Some(kept.saturating_add(bytes)).filter(|all| is_small || *all <= self.most_bytes);
        self.kept_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn after_ms(&self) -> i64 {
        self.ledger.clock().now_ms().saturating_sub(KEPT_MS)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Once {
    /// The outcome of the same request before, if there is one. Changes nothing.
    ///
    /// # Errors
    /// When the first still runs, asked for something else, or has an outcome that was not kept.
    pub async fn recall(&self) -> Result<Option<Kept>, Failure> {
        if let Some(fingerprint) = self.replays.running().get(&self.id) {
            return Err(self.is_same(fingerprint).err().unwrap_or_else(in_progress));
        }
        match self.find().await? {
            None => Ok(None),
            Some(row) => match self.judge(row).await? {
                Standing::Kept(kept) => Ok(Some(kept)),
                Standing::Abandoned(_) => Ok(None),
            },
        }
    }

    /// Claims the right to run. Every way out of it afterwards is [`Once::keep`] or
    /// [`Once::forget`]; a claim that is dropped is judged by its hold.
    ///
    /// # Errors
    /// As [`Once::recall`]; a request that has just ended is still in progress.
    pub async fn claim(&self) -> Result<(), Failure> {
        {
            let mut running = self.replays.running();
            if let Some(fingerprint) = running.get(&self.id) {
                return Err(self.is_same(fingerprint).err().unwrap_or_else(in_progress));
            }
            running.insert(self.id.clone(), self.fingerprint.clone());
        }
        self.claimed.store(true, Ordering::SeqCst);
        let outcome = self.write_claim().await;
        if outcome.is_err() {
            self.leave();
        }
        outcome
    }

    async fn write_claim(&self) -> Result<(), Failure> {
        let ledger = &self.replays.ledger;
        let claim = Claim {
            id: &self.id,
            fingerprint: &self.fingerprint,
            request: &self.request,
            owner: ledger.owner(),
            now_ms: ledger.clock().now_ms(),
        };
        if repo::insert(ledger.store(), claim, self.replays.after_ms()).await.map_err(|error| self.broken(&error))? {
            failpoint!("replay.claimed");
            return Ok(());
        }
        let Some(row) = self.find().await? else { return Err(in_progress()) };
        let Standing::Abandoned(before) = self.judge(row).await? else { return Err(in_progress()) };
        match repo::take_over(ledger.store(), claim, &before).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(in_progress()),
            Err(error) => Err(self.broken(&error)),
        }
    }

    /// A name for what this request makes, the same for every repeat of it. Nobody can guess it.
    #[must_use]
    pub fn name(&self) -> String {
        self.replays.vault.digest(&[b"once", self.id.as_bytes(), self.fingerprint.as_bytes()])
    }

    /// Keeps the outcome, sealed. Without it (too long, too many, or the database does not answer) a repeat
    /// is told so.
    pub async fn keep(&self, kept: &Kept) {
        if !self.claimed.load(Ordering::SeqCst) {
            return;
        }
        let sealed = if kept.body.len() > MAX_BODY { None } else { self.seal(kept) };
        let sealed = sealed.filter(|outcome| self.replays.takes(outcome.len()));
        let (state, outcome) = match &sealed {
            Some(outcome) => (State::Kept, outcome.as_str()),
            None => (State::NotKept, ""),
        };
        let store = self.replays.ledger.store();
        if let Err(error) = repo::finish(store, &self.id, &self.request, state, outcome).await {
            tracing::error!(%error, request = %self.request, "an outcome could not be kept");
        }
        failpoint!("replay.kept");
        self.leave();
    }

    /// Ends the claim of a request that cost nothing: a repeat runs.
    pub async fn forget(&self) {
        if !self.claimed.load(Ordering::SeqCst) {
            return;
        }
        if let Err(error) = repo::remove(self.replays.ledger.store(), &self.id, &self.request).await {
            tracing::error!(%error, request = %self.request, "a claim could not be removed");
        }
        failpoint!("replay.removed");
        self.leave();
    }

    /// A recorder of a live stream's bytes.
    pub(super) fn tape(self: &Arc<Self>, served: Served) -> Tape {
        Tape { once: Arc::clone(self), served, body: BytesMut::new() }
    }

    fn leave(&self) {
        if self.claimed.swap(false, Ordering::SeqCst) {
            self.replays.running().remove(&self.id);
        }
    }

    async fn find(&self) -> Result<Option<Row>, Failure> {
        let find = async {
            let mut reader = self.replays.ledger.store().read().acquire().await?;
            repo::find(&mut reader, &self.id, self.replays.after_ms()).await
        };
        find.await.map_err(|error| self.broken(&error))
    }

    async fn judge(&self, row: Row) -> Result<Standing, Failure> {
        self.is_same(&row.fingerprint)?;
        match row.state {
            State::Kept => self.unseal(&row.outcome).map(Standing::Kept).ok_or_else(|| not_kept(&row.request)),
            State::NotKept => Err(not_kept(&row.request)),
            State::Running => match self.hold_of(&row).await.map_err(|error| self.broken(&error))? {
                Some(HoldState::Open) => Err(in_progress()),
                Some(HoldState::Captured) => Err(not_kept(&row.request)),
                Some(HoldState::Released) | None => Ok(Standing::Abandoned(row.request)),
            },
        }
    }

    /// How the request of a claim ended whose process is gone; open as long as it is not.
    async fn hold_of(&self, row: &Row) -> Result<Option<HoldState>, StoreError> {
        let ledger = &self.replays.ledger;
        let mut reader = ledger.store().read().acquire().await?;
        if row.owner != ledger.owner() && books::is_alive(&mut reader, &row.owner, ledger.dead_before_ms()).await? {
            return Ok(Some(HoldState::Open));
        }
        Ok(books::find_request(&mut reader, &row.request).await?.map(|entry| entry.state))
    }

    fn is_same(&self, fingerprint: &str) -> Result<(), Failure> {
        if self.fingerprint == fingerprint {
            return Ok(());
        }
        Err(Failure::client(
            Code::IdempotencyKeyReused,
            "This Idempotency-Key was used for another request. Use a new one for each request.",
        ))
    }

    fn seal(&self, kept: &Kept) -> Option<String> {
        let mut plain = serde_json::to_vec(&kept.head).ok()?;
        // JSON of one line: the first line break ends it.
        plain.push(b'\n');
        plain.extend_from_slice(&kept.body);
        self.replays.vault.seal_for(&self.credential, &self.id, &plain).ok()
    }

    fn unseal(&self, sealed: &str) -> Option<Kept> {
        let plain = self.replays.vault.unseal_for(&self.credential, &self.id, sealed).ok()?;
        let end = memchr::memchr(b'\n', &plain)?;
        let (head, body) = plain.split_at_checked(end)?;
        let head = serde_json::from_slice(head).ok()?;
        Some(Kept { head, body: Bytes::copy_from_slice(body.get(1..)?) })
    }

    fn broken(&self, error: &StoreError) -> Failure {
        tracing::error!(%error, request = %self.request, "a claim could not be looked up or written");
        Failure::internal().retrying(RETRY)
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The bytes of a live stream, as they are delivered, or would be to a client that has left.
pub(super) struct Tape {
    once: Arc<Once>,
    served: Served,
    body: BytesMut,
}

impl Tape {
    /// Takes the next bytes; beyond the limit there is no use in more.
    pub(super) fn record(&mut self, bytes: &[u8]) {
        if !self.is_full() {
            self.body.extend_from_slice(bytes);
        }
    }

    /// Whether it is too long to be kept.
    pub(super) fn is_full(&self) -> bool {
        self.body.len() > MAX_BODY
    }

    pub(super) async fn keep(self) {
        let kept = Kept { head: (self.once.stream)(&self.served), body: self.body.freeze() };
        self.once.keep(&kept).await;
    }

    pub(super) async fn forget(self) {
        self.once.forget().await;
    }
}

fn in_progress() -> Failure {
    let message = "The first request with this Idempotency-Key is still running; ask again.";
    Failure::client(Code::IdempotencyInProgress, message).retrying(RETRY)
}

fn not_kept(request: &str) -> Failure {
    let message = format!(
        "The first request with this Idempotency-Key was served and paid, but its answer was not kept. \
         Its receipt is at /v1/receipts/{request}."
    );
    let mut failure = Failure::client(Code::IdempotentOutcomeNotKept, message);
    failure.about = Some(Box::new(About::Receipt(request.to_owned())));
    failure
}
