//! The mint over HTTP: the handful of calls a node makes (NUT-01, 02, 03, 04, 05, 07, 09), each with
//! a time limit, a size limit, no redirects, and an answer that says whether the mint acted.
//!
//! Every call passes one gate: so many at a time, and what [`super::health`] lets through. cdk's own
//! client-side limiter is not in the way, because no call goes through cdk's client.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdk::nuts::{
    BlindedMessage, CheckStateRequest, CheckStateResponse, Id, KeySet, KeysResponse, KeysetResponse,
    MeltQuoteBolt11Request, MeltQuoteBolt11Response, MeltRequest, MintQuoteBolt11Request, MintQuoteBolt11Response,
    MintRequest, MintResponse, PublicKey, RestoreRequest, RestoreResponse, State, SwapRequest, SwapResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::health::{Cause, Health, Held, Outcome, Priority, Ticket, Trouble};
use super::refusal::{MintError, Refusal, read_refusal};
use crate::clock::SharedClock;
use crate::metrics::Histogram;
use crate::net;

/// Largest answer that is read. 500 signatures with proofs are about 200 KiB. How deep it may be
/// nested is bounded by `serde_json`, at 128.
const MAX_ANSWER: usize = 2 * 1024 * 1024;
/// Most keysets and keys that are believed.
const MAX_KEYSETS: usize = 256;
const MAX_KEYS: usize = 256;
/// The longest that a call waits for its turn before it is kept back.
const PATIENCE: Duration = Duration::from_secs(5);
const SHORTEST_WAIT_MS: u64 = 10;
/// NUT-05: where payments are asked for.
const MELT: &str = "v1/melt/bolt11";
const LATE: &str = "no answer in time";
/// What clients have left of the budget is plenty above this part of it, and at most so many calls: each
/// redemption then makes a call of its own.
const PLENTY: u32 = 2;
const ENOUGH: u32 = 16;

/// How much may be asked of a mint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For one call, from the first byte sent to the last one read.
    pub timeout: Duration,
    /// Calls that may run at a time; half of them, payments over Lightning.
    pub concurrency: usize,
    /// Calls in any 60 s. `None`: no limit.
    pub per_minute: Option<u32>,
}

/// One mint. Clones are the same mint; each has a priority of its own.
#[derive(Clone, Debug)]
pub struct HttpMint {
    gate: Arc<Gate>,
    client: reqwest::Client,
    priority: Priority,
    max_answer: usize,
}

/// What all calls to a mint go through.
#[derive(Debug)]
struct Gate {
    url: String,
    limits: Limits,
    clock: SharedClock,
    lines: Lines,
    /// Half of as many: payments that hang leave the rest to everything else.
    payments: Lines,
    health: Mutex<Health>,
    /// How long calls took.
    took: Histogram,
}

/// Places for so many at a time.
#[derive(Debug)]
struct Lines {
    all: Semaphore,
    /// One fewer, where there are several: nothing in the background has them all.
    background: Semaphore,
}

/// A place, until it is dropped.
type Line<'a> = (SemaphorePermit<'a>, Option<SemaphorePermit<'a>>);

/// A call under way. Dropped without an outcome, it counts as given up.
struct Call<'a> {
    gate: &'a Gate,
    ticket: Option<Ticket>,
    _line: Line<'a>,
}

impl HttpMint {
    /// A mint at a canonical URL.
    #[must_use]
    pub fn new(url: String, client: reqwest::Client, limits: Limits, clock: SharedClock) -> Self {
        let concurrency = limits.concurrency.max(1);
        let gate = Gate {
            url,
            limits,
            clock,
            lines: Lines::new(concurrency),
            payments: Lines::new((concurrency / 2).max(1)),
            health: Mutex::new(Health::new(limits.per_minute)),
            took: Histogram::default(),
        };
        Self { gate: Arc::new(gate), client, priority: Priority::Client, max_answer: MAX_ANSWER }
    }

    /// This mint, of which no answer with more than `max_answer` bytes is read.
    #[must_use]
    pub fn bounded(self, max_answer: usize) -> Self {
        Self { max_answer, ..self }
    }

    /// This mint, for whoever has this priority. Questions of the journal are [`Priority::Evidence`] at least.
    #[must_use]
    pub fn at(&self, priority: Priority) -> Self {
        Self { priority, ..self.clone() }
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.gate.url
    }

    #[must_use]
    pub fn limits(&self) -> Limits {
        self.gate.limits
    }

    /// How long calls took, whatever came of them.
    #[must_use]
    pub fn took(&self) -> &Histogram {
        &self.gate.took
    }

    /// Looks at its health, at the time that goes with it, in ms.
    pub fn look<T>(&self, look: impl FnOnce(&mut Health, i64) -> T) -> T {
        look(&mut self.gate.health(), self.gate.clock.now_ms())
    }

    /// Whether clients' calls are so plentiful that `more` of them may be made one by one.
    #[must_use]
    pub fn has_plenty(&self, more: usize) -> bool {
        self.look(|health, now_ms| match (health.left(now_ms, Priority::Client), health.per_minute()) {
            (Some(left), Some(total)) => {
                let spare = (total / PLENTY).min(ENOUGH);
                usize::try_from(left.saturating_sub(spare)).unwrap_or(usize::MAX) >= more
            }
            _ => true,
        })
    }

    /// Whether so few of clients' calls are left that they should not be made one by one, but some.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.look(|health, now_ms| match (health.left(now_ms, Priority::Client), health.per_minute()) {
            (Some(left), Some(total)) => left > 0 && left <= (total / PLENTY / 2).min(ENOUGH / 2),
            _ => false,
        })
    }

    /// Waits until a call would go through, no longer than a call itself would wait.
    ///
    /// # Errors
    /// Why a call would still be kept back, and for how long, in ms.
    pub async fn ready(&self) -> Result<(), Held> {
        self.gate.pass(self.priority, |health, now_ms| health.may_ask(now_ms, self.priority)).await.map(drop)
    }

    /// Why a call would not be made at all, if the mint is left alone for longer than one waits.
    #[must_use]
    pub fn rests(&self) -> Option<Held> {
        let held = self.look(|health, now_ms| health.may_ask(now_ms, self.priority)).err()?;
        let is_left_alone = matches!(held.cause, Cause::Down | Cause::Limited);
        (is_left_alone && u128::from(held.wait_ms) > PATIENCE.as_millis()).then_some(held)
    }

    /// NUT-03: exchanges the inputs for signatures on the outputs, all or nothing.
    ///
    /// # Errors
    /// [`MintError::Unknown`] when the mint may have done it.
    pub async fn swap(&self, request: &SwapRequest) -> Result<SwapResponse, MintError> {
        self.call("v1/swap", Some(request)).await
    }

    /// NUT-09: the signatures that the mint has made on any of these outputs.
    ///
    /// # Errors
    /// When the mint does not answer.
    pub async fn restore(&self, outputs: Vec<BlindedMessage>) -> Result<RestoreResponse, MintError> {
        self.evidence().call("v1/restore", Some(&RestoreRequest { outputs })).await
    }

    /// NUT-07: the states of proofs, in the order of `ys`, to find out what became of them.
    ///
    /// # Errors
    /// When the mint does not answer, or not about all of them.
    pub async fn states(&self, ys: Vec<PublicKey>) -> Result<Vec<State>, MintError> {
        self.evidence().states_now(ys).await
    }

    /// NUT-07: the states of proofs, in the order of `ys`, before anything was done with them. Asks at this mint's own
    /// priority (see [`Self::at`]).
    ///
    /// # Errors
    /// When the mint does not answer, or not about all of them.
    pub async fn states_now(&self, ys: Vec<PublicKey>) -> Result<Vec<State>, MintError> {
        if ys.is_empty() {
            return Ok(Vec::new());
        }
        let asked = CheckStateRequest { ys };
        let answer: CheckStateResponse = self.call("v1/checkstate", Some(&asked)).await?;
        asked
            .ys
            .iter()
            .map(|y| {
                let found = answer.states.iter().find(|state| state.y == *y);
                found.map(|state| state.state).ok_or_else(|| MintError::Unknown("a proof's state is missing".into()))
            })
            .collect()
    }

    /// NUT-07: those of these proofs that are spent.
    ///
    /// # Errors
    /// See [`HttpMint::states`].
    pub async fn spent(&self, ys: Vec<PublicKey>) -> Result<Vec<PublicKey>, MintError> {
        let states = self.states(ys.clone()).await?;
        Ok(ys.into_iter().zip(states).filter(|(_, state)| *state == State::Spent).map(|(y, _)| y).collect())
    }

    /// NUT-04: an invoice whose payment lets ecash be minted. It has a name that can be asked for.
    ///
    /// # Errors
    /// When the mint does not answer. A quote that nobody has seen is worth nothing.
    pub async fn quote_mint(
        &self,
        request: &MintQuoteBolt11Request,
    ) -> Result<MintQuoteBolt11Response<String>, MintError> {
        let quote: MintQuoteBolt11Response<String> = self.call("v1/mint/quote/bolt11", Some(request)).await?;
        path_part(&quote.quote)?;
        Ok(quote)
    }

    /// NUT-04: how far such an invoice is.
    ///
    /// # Errors
    /// When the mint does not answer, or does not know it.
    pub async fn mint_quote(&self, id: &str) -> Result<MintQuoteBolt11Response<String>, MintError> {
        self.call(&format!("v1/mint/quote/bolt11/{}", path_part(id)?), None::<&()>).await
    }

    /// NUT-04: signatures for a quote that is paid, once.
    ///
    /// # Errors
    /// [`MintError::Unknown`] when the mint may have made them.
    pub async fn mint(&self, request: &MintRequest<String>) -> Result<MintResponse, MintError> {
        self.call("v1/mint/bolt11", Some(request)).await
    }

    /// NUT-05: what it takes to pay an invoice. The quote has a name that can be asked for.
    ///
    /// # Errors
    /// When the mint does not answer, or cannot pay it.
    pub async fn quote_melt(
        &self,
        request: &MeltQuoteBolt11Request,
    ) -> Result<MeltQuoteBolt11Response<String>, MintError> {
        let quote: MeltQuoteBolt11Response<String> = self.call("v1/melt/quote/bolt11", Some(request)).await?;
        path_part(&quote.quote)?;
        Ok(quote)
    }

    /// NUT-05: how far a payment is.
    ///
    /// # Errors
    /// When the mint does not answer, or does not know it.
    pub async fn melt_quote_state(&self, id: &str) -> Result<MeltQuoteBolt11Response<String>, MintError> {
        self.evidence().call(&format!("v1/melt/quote/bolt11/{}", path_part(id)?), None::<&()>).await
    }

    /// NUT-05: pays a quote with ecash, once. Its recipient may let it hang for as long as they like, so payments wait
    /// for each other before they take a line.
    ///
    /// # Errors
    /// [`MintError::Unknown`] when the mint may have paid it.
    pub async fn melt(&self, request: &MeltRequest<String>) -> Result<MeltQuoteBolt11Response<String>, MintError> {
        let patience = match self.priority {
            // Nobody waits for it, and who was not paid now may not be tried again before tomorrow.
            Priority::Background => PATIENCE.max(self.gate.limits.timeout),
            Priority::Client | Priority::Evidence => PATIENCE,
        };
        let _turn = self.gate.payments.take(self.priority, patience).await.map_err(|held| self.hold_back(held))?;
        self.call(MELT, Some(request)).await
    }

    /// NUT-02: all keysets, active or not.
    ///
    /// # Errors
    /// When the mint does not answer.
    pub async fn keysets(&self) -> Result<KeysetResponse, MintError> {
        let mut answer: KeysetResponse = self.call("v1/keysets", None::<&()>).await?;
        answer.keysets.truncate(MAX_KEYSETS);
        Ok(answer)
    }

    /// NUT-01: the keys of one keyset. Its id is verified to be that of the keys.
    ///
    /// # Errors
    /// When the mint does not answer, or with other keys.
    pub async fn keys(&self, id: Id) -> Result<KeySet, MintError> {
        let answer: KeysResponse = self.call(&format!("v1/keys/{id}"), None::<&()>).await?;
        let keyset = answer
            .keysets
            .into_iter()
            .find(|keyset| keyset.id == id)
            .ok_or_else(|| MintError::Unknown("the keyset is missing from the answer".into()))?;
        if keyset.keys.len() > MAX_KEYS || keyset.verify_id().is_err() {
            return Err(MintError::Unknown("the keyset's keys do not match its id".into()));
        }
        Ok(keyset)
    }

    /// Asking what became of an operation goes before everything but what a client waits for, and
    /// has a part of the budget to itself.
    fn evidence(&self) -> Self {
        self.at(Priority::Evidence)
    }

    /// A call that is not made.
    fn hold_back(&self, held: Held) -> MintError {
        self.gate.health().hold_back();
        MintError::Held(held)
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(&self, path: &str, body: Option<&Q>) -> Result<A, MintError> {
        let call = self.gate.enter(self.priority).await.map_err(|held| self.hold_back(held))?;
        let url = format!("{}/{path}", self.gate.url);
        let request = match body {
            Some(body) => self.client.post(url).json(body),
            None => self.client.get(url),
        };
        let (began, sent) = (Instant::now(), exchange(request, self.max_answer));
        let answer = match tokio::time::timeout(self.gate.limits.timeout, sent).await {
            Ok(Ok(bytes)) => serde_json::from_slice(&bytes)
                .map_err(|_| failed(Trouble::Broken, "the answer is not what the call returns")),
            Ok(Err(failure)) => Err(failure),
            // The recipient of a payment takes that long, not the mint: the call counts as given up.
            Err(_) if path == MELT => {
                self.gate.took.note(began.elapsed());
                return Err(MintError::Unknown(LATE.to_owned()));
            }
            Err(_) => Err(failed(Trouble::Timeout, LATE)),
        };
        self.gate.took.note(began.elapsed());
        match answer {
            Ok(answer) => {
                call.finish(Outcome::Answered);
                Ok(answer)
            }
            Err((error, outcome)) => Err(match (error, call.finish(outcome)) {
                // It may not say for how long; then it is for as long as it is left alone.
                (MintError::Refused(Refusal::RateLimited(_)), Some(pause_ms)) => {
                    MintError::Refused(Refusal::RateLimited(pause_ms.div_ceil(1_000)))
                }
                (error, _) => error,
            }),
        }
    }
}

impl Gate {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enter(&self, priority: Priority) -> Result<Call<'_>, Held> {
        let admit = |health: &mut Health, now_ms| health.admit(now_ms, priority);
        let (ticket, line) = self.pass(priority, admit).await?;
        Ok(Call { gate: self, ticket: Some(ticket), _line: line })
    }

    /// Waits, for a bounded time, for a free line and until `may` says yes. Nobody keeps a line while
    /// it waits for that: others may have some budget left. Nothing in the background waits for it.
    async fn pass<T>(
        &self,
        priority: Priority,
        may: impl Fn(&mut Health, i64) -> Result<T, Held>,
    ) -> Result<(T, Line<'_>), Held> {
        let until = Instant::now().checked_add(PATIENCE);
        let left = || until.map_or(PATIENCE, |until| until.saturating_duration_since(Instant::now()));
        loop {
            let line = self.lines.take(priority, left()).await?;
            let held = match may(&mut self.health(), self.clock.now_ms()) {
                Ok(passed) => return Ok((passed, line)),
                Err(held) => held,
            };
            drop(line);
            let wait = Duration::from_millis(held.wait_ms.max(SHORTEST_WAIT_MS));
            if priority == Priority::Background || wait > left() {
                return Err(held);
            }
            tokio::time::sleep(wait).await;
        }
    }
}

impl Lines {
    fn new(count: usize) -> Self {
        Self { all: Semaphore::new(count), background: Semaphore::new(count.saturating_sub(1).max(1)) }
    }

    /// Waits for a place, no longer than this.
    async fn take(&self, priority: Priority, patience: Duration) -> Result<Line<'_>, Held> {
        // `None` only if they were closed, which they never are.
        let line = async {
            let first = match priority {
                Priority::Background => Some(self.background.acquire().await.ok()?),
                Priority::Client | Priority::Evidence => None,
            };
            Some((self.all.acquire().await.ok()?, first))
        };
        let held = Held { cause: Cause::Busy, wait_ms: 5_000 };
        tokio::time::timeout(patience, line).await.ok().flatten().ok_or(held)
    }
}

impl Call<'_> {
    fn finish(mut self, outcome: Outcome) -> Option<u64> {
        let ticket = self.ticket.take()?;
        self.gate.health().finish(self.gate.clock.now_ms(), &ticket, outcome)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.gate.health().abandon(self.gate.clock.now_ms(), &ticket);
        }
    }
}

/// A mint's own name for something, as a part of a path: nothing that could lead elsewhere.
fn path_part(id: &str) -> Result<&str, MintError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=');
    if !id.is_empty() && id.len() <= 256 && id.bytes().all(plain) {
        Ok(id)
    } else {
        Err(MintError::Unknown("the quote has no usable id".into()))
    }
}

/// An error, and what it says of the mint's health.
type Failure = (MintError, Outcome);

fn failed(trouble: Trouble, why: &str) -> Failure {
    (MintError::Unknown(why.to_owned()), Outcome::Failed(trouble, None))
}

async fn exchange(request: reqwest::RequestBuilder, max_answer: usize) -> Result<bytes::Bytes, Failure> {
    let response = request.send().await.map_err(|error| {
        // Only a failed connection attempt is sure not to have delivered anything.
        if error.is_connect() || error.is_builder() {
            (MintError::NotSent, Outcome::Failed(Trouble::Unreachable, None))
        } else {
            failed(Trouble::Broken, "the connection broke")
        }
    })?;
    let status = response.status().as_u16();
    let retry_after = net::retry_after(&response);
    let body = net::read_limited(response, max_answer).await;
    let why = || MintError::Unknown(format!("status {status}"));
    match status {
        200..=299 => body.map_err(|error| failed(Trouble::Broken, &error.to_string())),
        400..=499 => {
            let error = read_refusal(status, retry_after, &body.unwrap_or_default());
            let outcome = match &error {
                MintError::Refused(Refusal::RateLimited(_)) => Outcome::Limited(retry_after),
                MintError::Refused(_) => Outcome::Answered,
                _ => Outcome::Failed(Trouble::Broken, None),
            };
            Err((error, outcome))
        }
        // The mint itself, over this request. What stands before it says 502, 503 or 504.
        500 | 501 => Err((why(), Outcome::Stumbled)),
        _ => Err((why(), Outcome::Failed(Trouble::Broken, retry_after))),
    }
}
