//! Redemptions that wait for the same mint share one swap (NUT-03).
//!
//! A mint that limits its callers counts requests, not tokens. As long as calls are plentiful, each
//! redemption sends its own swap at once. When they are short, or all lines to the mint are busy,
//! redemptions of one unit wait at its [`Desk`]; whoever gets its turn sends for all that wait:
//!
//! 1. One question (NUT-07) about all their proofs: what is spent, or being spent, is refused by
//!    itself and keeps nobody else from being served.
//! 2. One swap of the rest.
//! 3. If the mint refuses it, nothing has happened: it is tried again in two halves, down to single
//!    tokens. What a token is refused for alone is its own refusal.
//!
//! Each redemption keeps its own operation, claimed secrets and plan, all written before. A request
//! that is shared is all or nothing, but its parts are told apart by their outputs, so an answer that
//! is lost, or a process that dies, leaves operations that are each resolved from their own evidence
//! (see [`swap`]). No row of a batch is needed.
//!
//! **Fees** are rounded up once for each request (NUT-02). A shared one costs at most what its parts
//! would cost alone, and what was written as their credit does not change: the difference is an
//! output more (`bonus`) of one of the plans, written before the swap is sent, and belongs to the
//! house. That output exists exactly if the shared swap was signed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdk::nuts::{Id, State as ProofState};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot};
use tokio::time::Instant;

use super::health::{Cause, Held};
use super::journal::{Operation, State, Step};
use super::keysets::{split_few, sum};
use super::mint::HttpMint;
use super::refusal::{MintError, Refusal};
use super::steps::write_json;
use super::swap::{self, Plan, Posted, Standing};
use super::{Trusted, Wallet, WalletError};
use crate::failpoint::failpoint;
use crate::money::MintUnit;

/// Most tokens in one swap, and most inputs and outputs.
const MAX_TOKENS: usize = 32;
const MAX_PARTS: usize = 500;
/// From so many on, sharing takes fewer calls than going alone, the question before it included.
const WORTHWHILE: usize = 3;
/// So many are not kept waiting for more.
const ENOUGH: usize = 8;
/// The longest that a shared swap waits for more, after the one before.
const GATHERING: Duration = Duration::from_secs(3);
/// How long a redemption waits at the desk before it is kept back, its token untouched.
const PATIENCE: Duration = Duration::from_secs(10);
/// Counters that a plan keeps for the bonus: fewer than [`MAX_TOKENS`] units, in powers of two.
pub(super) const SPARE: usize = 5;

/// A redemption that waits.
struct Waiting {
    number: u64,
    operation: Operation,
    plan: Plan,
    answer: oneshot::Sender<Standing>,
}

/// Where redemptions of one unit at one mint wait.
struct Desk {
    queue: Mutex<VecDeque<Waiting>>,
    numbers: AtomicU64,
    came: Notify,
    /// Whoever holds it sends. When that was last done.
    turn: tokio::sync::Mutex<Option<Instant>>,
    /// Redemptions that go alone, past the desk: as many as there are lines to the mint.
    alone: Semaphore,
    lines: usize,
}

/// The desks of one mint.
#[derive(Debug)]
pub(super) struct Desks {
    sat: Desk,
    msat: Desk,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("waiting", &self.queue().len()).finish_non_exhaustive()
    }
}

impl Desks {
    /// For a mint to which so many calls may run at a time.
    pub(super) fn new(lines: usize) -> Self {
        Self { sat: Desk::new(lines), msat: Desk::new(lines) }
    }

    /// How many redemptions wait.
    pub(super) fn waiting(&self) -> usize {
        self.sat.queue().len().saturating_add(self.msat.queue().len())
    }

    fn of(&self, unit: MintUnit) -> &Desk {
        match unit {
            MintUnit::Sat => &self.sat,
            MintUnit::Msat => &self.msat,
        }
    }
}

impl Desk {
    fn new(lines: usize) -> Self {
        Self {
            queue: Mutex::default(),
            numbers: AtomicU64::new(0),
            came: Notify::new(),
            turn: tokio::sync::Mutex::new(None),
            alone: Semaphore::new(lines.max(1)),
            lines: lines.max(1),
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leave to go alone, where nobody waits and calls are plentiful.
    fn pass_by(&self, mint: &HttpMint) -> Option<SemaphorePermit<'_>> {
        if !self.queue().is_empty() {
            return None;
        }
        let alone = self.alone.try_acquire().ok()?;
        let under_way = self.lines.saturating_sub(self.alone.available_permits());
        mint.has_plenty(under_way).then_some(alone)
    }

    fn join(&self, operation: &Operation, plan: &Plan) -> (u64, oneshot::Receiver<Standing>) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (answer, outcome) = oneshot::channel();
        self.queue().push_back(Waiting { number, operation: operation.clone(), plan: plan.clone(), answer });
        self.came.notify_one();
        (number, outcome)
    }

    /// Goes away without having been served. Whether that was still possible.
    fn leave(&self, number: u64) -> bool {
        let mut queue = self.queue();
        let before = queue.len();
        queue.retain(|waiting| waiting.number != number);
        queue.len() < before
    }

    fn has(&self, number: u64) -> bool {
        self.queue().iter().any(|waiting| waiting.number == number)
    }

    /// Takes who is to be served now: of few, only the one with this number; else the longest waiting,
    /// as many as fit into one request.
    fn take(&self, number: u64) -> Vec<Waiting> {
        let mut queue = self.queue();
        // Nobody waits for these any more, and nothing was sent: the journal finds out.
        queue.retain(|waiting| !waiting.answer.is_closed());
        if queue.len() < WORTHWHILE {
            let at = queue.iter().position(|waiting| waiting.number == number);
            return at.and_then(|at| queue.remove(at)).into_iter().collect();
        }
        let (mut inputs, mut outputs) = (0_usize, 0_usize);
        let mut taken = Vec::new();
        while let Some(next) = queue.front() {
            inputs = inputs.saturating_add(next.plan.inputs.len());
            outputs = outputs.saturating_add(next.plan.outputs.len()).saturating_add(next.plan.spare);
            let full = taken.len() == MAX_TOKENS || inputs > MAX_PARTS || outputs > MAX_PARTS;
            if full && !taken.is_empty() {
                break;
            }
            taken.extend(queue.pop_front());
        }
        taken
    }

    /// While calls are short, lets the ones after the last swap gather for a moment, so that a steady
    /// stream of tokens does not use the calls up one by one.
    async fn gather(&self, mint: &HttpMint, last: Option<Instant>) {
        let Some((last, per_minute)) = last.zip(mint.limits().per_minute) else { return };
        if !mint.is_short() {
            return;
        }
        // A shared swap is two calls.
        let pace = Duration::from_secs(120).checked_div(per_minute).unwrap_or(GATHERING).min(GATHERING);
        let Some(until) = last.checked_add(pace) else { return };
        while Instant::now() < until && self.queue().len() < ENOUGH {
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = self.came.notified() => {}
            }
        }
    }
}

impl Waiting {
    /// Tells it how its swap stands. Nobody listens any more only when the node is stopping; then the
    /// journal finds out.
    fn tell(self, standing: Standing) {
        if self.answer.send(standing).is_err() {
            tracing::debug!(operation = %self.operation.id, "nobody waits for this redemption any more");
        }
    }
}

fn tell_all(all: impl IntoIterator<Item = Waiting>, standing: impl Fn() -> Standing) {
    all.into_iter().for_each(|waiting| waiting.tell(standing()));
}

impl Wallet {
    /// Sends the swap of a redemption that was just written, alone or with others, for the first time.
    ///
    /// # Errors
    /// When the plan itself is unusable, or the request that was shared broke off: then the mint may
    /// have acted, and the journal finds out.
    pub(super) async fn send_redemption(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        plan: &Plan,
    ) -> Result<Standing, WalletError> {
        let desk = trusted.desks.of(operation.unit);
        if let Some(_alone) = desk.pass_by(&trusted.http) {
            return swap::send(&trusted.http, &trusted.keysets, &self.inner.seed, plan).await;
        }
        let (number, mut outcome) = desk.join(operation, plan);
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        // Once it is taken, somebody serves it: all that is left is to wait for that.
        while desk.has(number) {
            tokio::select! {
                biased;
                told = &mut outcome => return told.map_err(broke_off),
                turn = desk.turn.lock() => {
                    // Whoever was taken and not told is left to the journal; so it says to them itself.
                    if desk.has(number)
                        && let Err(error) = self.serve(trusted, desk, turn, number).await
                    {
                        tracing::error!(%error, mint = trusted.http.url(), "a shared swap broke off");
                    }
                }
                () = &mut patience => {
                    if desk.leave(number) {
                        let held = Held { cause: Cause::Busy, wait_ms: 5_000 };
                        return Ok(Standing::NotSent(MintError::Held(held)));
                    }
                }
            }
        }
        outcome.await.map_err(broke_off)
    }

    /// Serves those who wait at a desk, with its turn taken.
    async fn serve(
        &self,
        trusted: &Trusted,
        desk: &Desk,
        mut turn: tokio::sync::MutexGuard<'_, Option<Instant>>,
        number: u64,
    ) -> Result<(), WalletError> {
        desk.gather(&trusted.http, *turn).await;
        // Only then is it decided who comes along: more may come while a call is waited for.
        if let Err(held) = trusted.http.ready().await {
            let all: Vec<Waiting> = desk.queue().drain(..).collect();
            tell_all(all, || Standing::NotSent(MintError::Held(held)));
            return Ok(());
        }
        *turn = Some(Instant::now());
        let mut batch = desk.take(number);
        if batch.len() >= WORTHWHILE {
            batch = self.sift(trusted, batch).await?;
            failpoint!("batch.sifted");
        }
        let lost = self.swap_shared(trusted, batch).await?;
        // The next may go; what became of these may take a while to find out.
        drop(turn);
        for (group, why) in lost {
            let plans: Vec<&Plan> = group.iter().map(|waiting| &waiting.plan).collect();
            let (http, keysets, seed) = (&trusted.http, &trusted.keysets, &self.inner.seed);
            let standings = match (why, plans.as_slice()) {
                (MintError::Refused(refusal), [plan]) => {
                    vec![swap::refused(http, keysets, seed, plan, refusal).await?]
                }
                (why, plans) => swap::resolve_lost(http, keysets, seed, plans, &why).await?,
            };
            group.into_iter().zip(standings).for_each(|(waiting, standing)| waiting.tell(standing));
        }
        Ok(())
    }

    /// Step 1: refuses what the mint says is spent or being spent. Returns the others.
    async fn sift(&self, trusted: &Trusted, batch: Vec<Waiting>) -> Result<Vec<Waiting>, WalletError> {
        let mut ys = Vec::new();
        for waiting in &batch {
            ys.extend(waiting.plan.input_ys()?);
        }
        let states = match trusted.http.states_now(ys).await {
            Ok(states) => states,
            Err(MintError::Refused(Refusal::RateLimited(secs))) => {
                tell_all(batch, || Standing::Refused(Refusal::RateLimited(secs)));
                return Ok(Vec::new());
            }
            // It does not answer such questions; the halves will tell.
            Err(MintError::Refused(_)) => return Ok(batch),
            // No swap was sent, and none is to a mint that does not even answer this.
            Err(error) => {
                let error = if error.was_not_sent() { error } else { MintError::NotSent };
                tell_all(batch, || Standing::NotSent(error.clone()));
                return Ok(Vec::new());
            }
        };
        let mut states = states.into_iter();
        let mut good = Vec::new();
        for waiting in batch {
            let states: Vec<ProofState> = states.by_ref().take(waiting.plan.inputs.len()).collect();
            if states.contains(&ProofState::Spent) {
                waiting.tell(Standing::Refused(Refusal::Spent));
            } else if states.iter().all(|state| *state == ProofState::Unspent) {
                good.push(waiting);
            } else {
                waiting.tell(Standing::Refused(Refusal::Pending));
            }
        }
        Ok(good)
    }

    /// Steps 2 and 3. Returns the groups whose answer was lost, and why.
    async fn swap_shared(
        &self,
        trusted: &Trusted,
        batch: Vec<Waiting>,
    ) -> Result<Vec<(Vec<Waiting>, MintError)>, WalletError> {
        let (http, keysets, seed) = (&trusted.http, &trusted.keysets, &self.inner.seed);
        let mut lost = Vec::new();
        let mut looked = false;
        let mut groups = vec![batch];
        while let Some(mut group) = groups.pop() {
            if group.is_empty() {
                continue;
            }
            if !self.balance(trusted, &mut group).await? {
                groups.extend(group.into_iter().map(|waiting| vec![waiting]));
                continue;
            }
            let alone = group.len() == 1;
            let plans: Vec<&Plan> = group.iter().map(|waiting| &waiting.plan).collect();
            let posted = swap::post(http, keysets, seed, &plans).await?;
            if !alone {
                failpoint!("batch.swapped");
            }
            match posted {
                Posted::Signed(standings) => {
                    group.into_iter().zip(standings).for_each(|(waiting, standing)| waiting.tell(standing));
                }
                Posted::NotSent(error) => tell_all(group, || Standing::NotSent(error.clone())),
                Posted::Lost(why) => lost.push((group, why)),
                Posted::Refused(refusal @ Refusal::RateLimited(_)) => {
                    tell_all(group, || Standing::Refused(refusal.clone()));
                }
                // What it means is found out below; so is what does not say whether the mint acted.
                Posted::Refused(refusal) if alone || matches!(refusal, Refusal::Foreign(_) | Refusal::Unclear(_)) => {
                    lost.push((group, MintError::Refused(refusal)));
                }
                Posted::Refused(Refusal::Stale) => {
                    groups.extend(outdated(trusted, group, &mut looked).await);
                }
                Posted::Refused(Refusal::Spent | Refusal::OutputsSigned) => {
                    match swap::signed_before(http, keysets, seed, &plans).await? {
                        Some(found) => group.into_iter().zip(found).for_each(|(waiting, found)| waiting.tell(found)),
                        None => groups.extend(halves(group)),
                    }
                }
                Posted::Refused(_) => groups.extend(halves(group)),
            }
        }
        Ok(lost)
    }

    /// Makes the sum of a shared swap right, by a bonus for one of its plans; writes that down. Returns
    /// whether the group can be sent as one.
    async fn balance(&self, trusted: &Trusted, group: &mut [Waiting]) -> Result<bool, WalletError> {
        group.iter_mut().for_each(|waiting| waiting.plan.bonus.clear());
        if group.len() < 2 {
            return Ok(true);
        }
        let mut keysets = Vec::new();
        for waiting in group.iter() {
            keysets.extend(input_keysets(&waiting.plan));
        }
        let fee = trusted.keysets.input_fee(keysets).await;
        let fees = group.iter().fold(0_u64, |fees, waiting| fees.saturating_add(waiting.plan.fee));
        let bonus = match fees.checked_sub(fee) {
            None => return Ok(false),
            Some(0) => return Ok(true),
            Some(bonus) => bonus,
        };
        let Some(carrier) = group.iter_mut().find(|waiting| waiting.plan.spare > 0) else { return Ok(false) };
        let Ok(active) = trusted.keysets.active(carrier.operation.unit).await else { return Ok(false) };
        let outputs = split_few(bonus, &active.amounts);
        if active.id.to_string() != carrier.plan.keyset || sum(&outputs) != bonus || outputs.len() > carrier.plan.spare
        {
            return Ok(false);
        }
        carrier.plan.bonus = outputs;
        let text = write_json(&carrier.plan)?;
        let ours = self.advance(&carrier.operation, Step { state: State::Acting, plan: &text, result: "" }).await?;
        failpoint!("batch.balanced");
        Ok(ours)
    }
}

/// A swap was refused for its keysets or its sum. Where the mint has changed, all that this touches plan
/// anew; what is left is tried in halves. Returns those. The mint is asked once, then it has been
/// `looked`.
async fn outdated(trusted: &Trusted, group: Vec<Waiting>, looked: &mut bool) -> Vec<Vec<Waiting>> {
    if !std::mem::replace(looked, true)
        && let Err(error) = trusted.keysets.refresh_unless_changed(trusted.keysets.version()).await
    {
        tracing::warn!(%error, "keysets could not be looked at again");
    }
    let mut current = Vec::new();
    for waiting in group {
        let plan = &waiting.plan;
        if trusted.keysets.still_holds(&plan.keyset, input_keysets(plan), plan.fee).await {
            current.push(waiting);
        } else {
            waiting.tell(Standing::Refused(Refusal::Stale));
        }
    }
    halves(current)
}

fn input_keysets(plan: &Plan) -> Vec<Id> {
    plan.inputs.iter().map(|proof| proof.keyset_id).collect()
}

fn halves(mut group: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    let rest = group.split_off(group.len().div_ceil(2));
    vec![rest, group]
}

fn broke_off(_: oneshot::error::RecvError) -> WalletError {
    WalletError::Ecash("the swap that was shared broke off".into())
}
