//! Money goes back as a token: change of one request, or the balance of a key.
//!
//! 1. In one synced transaction the amount leaves the account and the operation is written: from
//!    then on it is owed, and can be fetched however the process fares.
//! 2. Proofs are chosen and reserved. If they fit exactly, no mint is asked. Otherwise one swap is
//!    planned, written, and sent.
//! 3. In one synced transaction the token is stored and the ecash leaves the books. Only then does
//!    anybody see the token, and anybody entitled sees the same one again.

use cdk::nuts::{Proof, State as ProofState, Token as CdkToken};
use cdk_common::wallet::ProofInfo;
use uuid::Uuid;

use super::journal::{self, Kind, Operation, State, Step};
use super::keysets::{split_few, sum};
use super::refusal::{MintError, Refusal};
use super::swap::{self, Plan, Standing};
use super::{Trusted, Wallet, WalletError, currency, incoming};
use crate::failpoint::failpoint;
use crate::ledger::repo::{self as books, Transfer};
use crate::ledger::{Account, AccountId};
use crate::money::Msat;
use crate::store::{Durability, StoreError};

/// Money on its way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Less than the smallest coin of the mint is left: it stays on the account.
    Nothing,
    /// Here it is. `amount` is what the token is worth, which a mint's fee may have made smaller
    /// than what was owed.
    Token { token: String, amount: Msat },
    /// It is owed, and will be made; the refund endpoint gives it out.
    Owed,
}

/// Whether an operation was just written by the caller, or may have been worked on before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    First,
    Later,
}

/// Why a balance cannot be paid back now.
#[derive(Debug, thiserror::Error)]
pub enum RefundError {
    /// Requests are running on this key.
    #[error("requests are running on this key")]
    Ongoing,
    #[error("there is nothing on it")]
    Nothing,
    /// Less than the smallest coin of the mint.
    #[error("the balance is smaller than one coin")]
    TooSmall,
    /// The token was never accepted here.
    #[error("nothing is known of this token")]
    Unknown,
    /// It is being made; ask again.
    #[error("it is being made")]
    Pending,
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

impl From<StoreError> for RefundError {
    fn from(error: StoreError) -> Self {
        Self::Wallet(WalletError::Store(error))
    }
}

impl Wallet {
    /// Gives back what is left on the account of a token that rode on one request.
    ///
    /// The request itself and a client that asks for its change may come here at the same moment:
    /// one of them finds the account empty, and gets what the other is giving.
    ///
    /// # Errors
    /// Only before anything was written: then the money is still on the account.
    pub async fn give_change(&self, account: AccountId) -> Result<Change, RefundError> {
        match self.begin(account, Kind::Change).await {
            Ok(change) => Ok(change),
            Err(RefundError::Nothing | RefundError::TooSmall) => match self.last_return(account).await? {
                Some(given) => Ok(self.perform(&given).await),
                None => Ok(Change::Nothing),
            },
            Err(error) => Err(error),
        }
    }

    /// Pays back the balance of a key. With less than a coin on it, the last refund is given out
    /// again, unless money came in after it: a client whose answer was lost asks once more.
    ///
    /// # Errors
    /// See [`RefundError`].
    pub async fn refund(&self, account: AccountId) -> Result<Change, RefundError> {
        match self.last_return(account).await? {
            // It was begun before: finish that one, so that a repeated call gets one answer.
            Some(begun) if begun.state.is_open() => {
                return pending_if_owed(self.perform(&begun).await);
            }
            _ => {}
        }
        match self.begin(account, Kind::Refund).await {
            Ok(change) => pending_if_owed(change),
            Err(little @ (RefundError::Nothing | RefundError::TooSmall)) => match self.last_return(account).await? {
                Some(last) => pending_if_owed(self.perform(&last).await),
                None => Err(little),
            },
            Err(error) => Err(error),
        }
    }

    /// Looks up the change of the token whose key hash this is, making it now if it is still owed.
    ///
    /// # Errors
    /// [`RefundError::Unknown`] for a token never seen, [`RefundError::Pending`] while its request
    /// runs or the mint has not answered, [`RefundError::Nothing`] when nothing was left.
    pub async fn claim(&self, key_hash: &str) -> Result<Change, RefundError> {
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        let account = books::find_by_key(&mut reader, key_hash).await?.ok_or(RefundError::Unknown)?;
        let redeemed = journal::find_by_token(&mut reader, key_hash).await?;
        let newest = journal::newest(&mut reader, account.id).await?;
        drop(reader);
        match (redeemed, newest) {
            (None, None) => Err(RefundError::Unknown),
            (_, Some(last)) if last.kind == Kind::Redeem && last.state.is_open() => {
                self.claim_undecided(key_hash, &last).await
            }
            (_, Some(last)) if last.kind != Kind::Redeem => {
                if last.state.is_open() {
                    pending_if_owed(self.perform(&last).await)
                } else {
                    Ok(returned(&last))
                }
            }
            _ if !account.balance.held.is_zero() => Err(RefundError::Pending),
            _ => match self.give_change(account.id).await? {
                Change::Nothing => Err(RefundError::Nothing),
                Change::Owed => Err(RefundError::Pending),
                token @ Change::Token { .. } => Ok(token),
            },
        }
    }

    /// What the token was worth that the account last gave back, if one was made.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn change_given(&self, account: AccountId) -> Result<Option<Msat>, RefundError> {
        Ok(match self.last_return(account).await?.as_ref().map(returned) {
            Some(Change::Token { amount, .. }) => Some(amount),
            _ => None,
        })
    }

    /// The mint had not said whether it took the token: asks again, unless a request is just
    /// doing that.
    async fn claim_undecided(&self, key_hash: &str, redemption: &Operation) -> Result<Change, RefundError> {
        let lane = self.inner.redeeming.lane(key_hash);
        let Ok(_turn) = lane.try_lock() else { return Err(RefundError::Pending) };
        if !self.resume_redemption(redemption).await {
            return Err(RefundError::Pending);
        }
        Box::pin(self.claim(key_hash)).await
    }

    async fn last_return(&self, account: AccountId) -> Result<Option<Operation>, RefundError> {
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        let newest = journal::newest(&mut reader, account).await?;
        Ok(newest.filter(|operation| operation.kind != Kind::Redeem))
    }

    /// All three steps, for a new operation. Nobody else can come between: its lane is taken before
    /// it is there to be seen.
    async fn begin(&self, account: AccountId, kind: Kind) -> Result<Change, RefundError> {
        let id = Uuid::new_v4().to_string();
        let lane = self.inner.redeeming.lane(&id);
        let _turn = lane.lock().await;
        let operation = self.write_operation(id, account, kind).await?;
        failpoint!("return.written");
        Ok(self.attempt(&operation, Attempt::First).await)
    }

    /// Step 1: the amount leaves the account, and is owed.
    async fn write_operation(&self, id: String, account: AccountId, kind: Kind) -> Result<Operation, RefundError> {
        let now_ms = self.clock().now_ms();
        let ledger = &self.inner.ledger;
        let mut tx = self.store().begin(Durability::Full).await?;
        let found = books::find_locked(&mut tx, account).await?.ok_or(RefundError::Unknown)?;
        if !found.balance.held.is_zero() {
            return Err(RefundError::Ongoing);
        }
        let unit = crate::money::MintUnit::parse(&found.unit)
            .ok_or_else(|| WalletError::Ecash(format!("account {} has no unit", account.get())))?;
        let owed = unit.to_msat(unit.floor(found.balance.available())).unwrap_or_default();
        if owed.is_zero() {
            return Err(if found.balance.posted.is_zero() { RefundError::Nothing } else { RefundError::TooSmall });
        }
        let mut operation = Operation { id, ..Operation::planned(kind, account, &found.mint, unit, owed) };
        let transfer = Transfer {
            id: ledger.next_id(),
            debit: account,
            credit: ledger.house().change,
            amount: owed,
            kind: kind.as_str(),
            reference: &operation.id,
        };
        books::transfer(&mut tx, transfer, now_ms).await?;
        journal::insert(&mut tx, &mut operation, None, ledger.owner(), now_ms).await?;
        tx.commit().await?;
        Ok(operation)
    }

    /// Steps 2 and 3 of an operation that may have been worked on before: one attempt at a time in
    /// this process, and one process at a time.
    pub(super) async fn perform(&self, operation: &Operation) -> Change {
        let lane = self.inner.redeeming.lane(&operation.id);
        let _turn = lane.lock().await;
        self.attempt(operation, Attempt::Later).await
    }

    /// Steps 2 and 3, with the operation's lane taken. What fails here stays owed; the next attempt
    /// finishes it.
    async fn attempt(&self, operation: &Operation, attempt: Attempt) -> Change {
        let Some(trusted) = self.trusted(&operation.mint) else {
            tracing::error!(operation = %operation.id, mint = %operation.mint, "owed at a mint that is not configured any more");
            return Change::Owed;
        };
        match self.make_token(trusted, operation, attempt).await {
            Ok(change) => change,
            Err(error) => {
                tracing::warn!(operation = %operation.id, %error, "change could not be made yet");
                Change::Owed
            }
        }
    }

    async fn make_token(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        attempt: Attempt,
    ) -> Result<Change, WalletError> {
        let owed = operation.unit.floor(operation.amount);
        if attempt == Attempt::First {
            return self.choose_and_make(trusted, operation, owed).await;
        }
        let mut reader = self.store().read().acquire().await?;
        let now = journal::find(&mut reader, &operation.id).await?;
        drop(reader);
        let Some(operation) = now else {
            return Err(WalletError::Ecash("the operation is gone".into()));
        };
        if !operation.state.is_open() {
            return Ok(returned(&operation));
        }
        if !self.adopt(&operation).await? {
            return Ok(Change::Owed);
        }
        if !operation.plan.is_empty() {
            let plan = read_plan(&operation)?;
            let standing = swap::resolve(&trusted.http, &trusted.keysets, &self.inner.seed, &plan).await?;
            return self.finish_swap(trusted, &operation, &plan, standing, false).await;
        }
        let id = operation_uuid(&operation)?;
        let reserved = self.inner.ecash.get_reserved_proofs(&id).await?;
        if sum_infos(&reserved) == owed {
            return self.finish(trusted, &operation, plain(reserved), 0).await;
        }
        self.inner.ecash.release_proofs(&id).await?;
        self.recount(trusted, operation.unit).await;
        self.choose_and_make(trusted, &operation, owed).await
    }

    async fn choose_and_make(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        owed: u64,
    ) -> Result<Change, WalletError> {
        let chosen = self.choose(trusted, operation, owed).await?;
        failpoint!("return.reserved");
        if sum_infos(&chosen) == owed {
            return self.finish(trusted, operation, plain(chosen), 0).await;
        }
        let plan = self.plan_swap(trusted, operation, chosen, owed).await?;
        failpoint!("return.planned");
        let standing = swap::send(&trusted.http, &trusted.keysets, &self.inner.seed, &plan).await?;
        failpoint!("return.swapped");
        self.finish_swap(trusted, operation, &plan, standing, true).await
    }

    /// Plans one swap into what is owed, less the fee of this swap, and the rest; writes it down.
    async fn plan_swap(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        chosen: Vec<ProofInfo>,
        owed: u64,
    ) -> Result<Plan, WalletError> {
        let active = trusted.keysets.active(operation.unit).await?;
        let fee = trusted.keysets.input_fee(chosen.iter().map(|info| info.proof.keyset_id)).await;
        let total = sum_infos(&chosen);
        let send = owed.saturating_sub(fee);
        let keep = total.checked_sub(owed).ok_or_else(|| WalletError::Ecash("too little was chosen".into()))?;
        let mut outputs: Vec<(u64, bool)> =
            split_few(send, &active.amounts).into_iter().map(|part| (part, true)).collect();
        outputs.extend(split_few(keep, &active.amounts).into_iter().map(|part| (part, false)));
        outputs.sort_unstable();
        let counter = self.reserve_counters(active.id, outputs.len()).await?;
        let plan = Plan {
            inputs: plain(chosen),
            keyset: active.id.to_string(),
            counter,
            send: outputs.iter().enumerate().filter(|(_, (_, sent))| *sent).map(|(at, _)| at).collect(),
            outputs: outputs.into_iter().map(|(part, _)| part).collect(),
            fee: owed.saturating_sub(send),
        };
        let text = serde_json::to_string(&plan).map_err(|error| WalletError::Ecash(error.to_string()))?;
        let mut tx = self.store().begin(Durability::Full).await?;
        let acting = Step { state: State::Acting, plan: &text, result: "" };
        let owner = self.inner.ledger.owner();
        let ours = journal::advance(&mut tx, &operation.id, owner, acting, self.clock().now_ms()).await?;
        tx.commit().await?;
        if ours { Ok(plan) } else { Err(WalletError::Ecash("another process finished this operation".into())) }
    }

    async fn finish_swap(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        plan: &Plan,
        standing: Standing,
        first: bool,
    ) -> Result<Change, WalletError> {
        let proofs = match standing {
            Standing::Done(proofs) => proofs,
            Standing::Unknown(MintError::NotSent) if first => {
                self.replan(trusted, operation).await?;
                return Err(MintError::NotSent.into());
            }
            Standing::Refused(Refusal::Spent) => {
                // Proofs that the books say are ours were spent: never silently.
                tracing::error!(operation = %operation.id, mint = %operation.mint, "ecash of this wallet was spent elsewhere");
                self.inner.ecash.update_proofs_state(plan.input_ys()?, ProofState::Spent).await?;
                self.replan(trusted, operation).await?;
                return Err(MintError::Refused(Refusal::Spent).into());
            }
            Standing::Refused(refusal) => {
                self.replan(trusted, operation).await?;
                if refusal == Refusal::Stale {
                    trusted.keysets.refresh_if_due().await?;
                }
                return Err(MintError::Refused(refusal).into());
            }
            Standing::Unknown(error) => {
                self.postpone(operation, State::Unknown, &error.to_string()).await?;
                return Err(error.into());
            }
        };
        let id = operation_uuid(operation)?;
        let mut infos = incoming::proof_infos(&trusted.url, operation, plan.counter, proofs.clone())?;
        for (at, info) in infos.iter_mut().enumerate() {
            if plan.send.contains(&at) {
                info.state = ProofState::Reserved;
                info.used_by_operation = Some(id);
            }
        }
        if !first {
            let ys: Vec<_> = infos.iter().map(|info| info.y).collect();
            let stored = self.inner.ecash.get_proofs_by_ys(ys).await?;
            infos.retain(|info| stored.iter().all(|old| old.y != info.y));
        }
        self.inner.ecash.update_proofs(infos.clone(), plan.input_ys()?).await?;
        failpoint!("return.kept");
        self.stock(trusted, operation.unit, &infos).await;
        let sent = proofs.into_iter().enumerate().filter(|(at, _)| plan.send.contains(at)).map(|(_, proof)| proof);
        self.finish(trusted, operation, sent.map(without_dleq).collect(), plan.fee).await
    }

    /// Forgets a swap that surely did not happen; the next attempt plans anew.
    async fn replan(&self, trusted: &Trusted, operation: &Operation) -> Result<(), WalletError> {
        self.inner.ecash.release_proofs(&operation_uuid(operation)?).await?;
        self.recount(trusted, operation.unit).await;
        let mut tx = self.store().begin(Durability::Full).await?;
        let again = Step { state: State::Planned, plan: "", result: "" };
        journal::advance(&mut tx, &operation.id, self.inner.ledger.owner(), again, self.clock().now_ms()).await?;
        Ok(tx.commit().await?)
    }

    /// Notes that an attempt ended without an outcome; see [`journal::postpone`].
    pub(super) async fn postpone(&self, operation: &Operation, state: State, why: &str) -> Result<(), WalletError> {
        let mut tx = self.store().begin(Durability::Full).await?;
        journal::postpone(&mut tx, operation, self.inner.ledger.owner(), state, why, self.clock().now_ms()).await?;
        Ok(tx.commit().await?)
    }

    /// Step 3: the token is stored and the ecash leaves the books.
    async fn finish(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        proofs: Vec<Proof>,
        fee: u64,
    ) -> Result<Change, WalletError> {
        let token = if proofs.is_empty() {
            String::new()
        } else {
            CdkToken::new(trusted.url.clone(), proofs, None, currency(operation.unit)).to_string()
        };
        let fee = operation.unit.to_msat(fee).unwrap_or_default();
        let now_ms = self.clock().now_ms();
        let ledger = &self.inner.ledger;
        let mut tx = self.store().begin(Durability::Full).await?;
        let done = Step { state: State::Done, plan: &operation.plan, result: &token };
        if journal::advance(&mut tx, &operation.id, ledger.owner(), done, now_ms).await? {
            let mint = self.mint_account(&mut tx, &operation.mint, operation.unit, now_ms).await?;
            for (amount, kind) in [(operation.amount.excess_over(fee), "paid_out"), (fee, "mint_fee")] {
                let transfer = Transfer {
                    id: ledger.next_id(),
                    debit: ledger.house().change,
                    credit: mint,
                    amount,
                    kind,
                    reference: &operation.id,
                };
                books::transfer(&mut tx, transfer, now_ms).await?;
            }
        }
        let stored = journal::find(&mut tx, &operation.id).await?;
        tx.commit().await?;
        failpoint!("return.done");
        stored.map(|stored| returned(&stored)).ok_or_else(|| WalletError::Ecash("the operation is gone".into()))
    }

    /// The kind of account that a key hash opens, for callers that only want to look.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn account(&self, key_hash: &str) -> Result<Option<Account>, StoreError> {
        let mut reader = self.store().read().acquire().await?;
        books::find_by_key(&mut reader, key_hash).await
    }
}

fn pending_if_owed(change: Change) -> Result<Change, RefundError> {
    match change {
        Change::Owed => Err(RefundError::Pending),
        change => Ok(change),
    }
}

/// What a finished operation gave.
fn returned(operation: &Operation) -> Change {
    if operation.state != State::Done {
        return Change::Owed;
    }
    if operation.result.is_empty() {
        return Change::Nothing;
    }
    let fee = read_plan(operation).map_or(0, |plan| plan.fee);
    let fee = operation.unit.to_msat(fee).unwrap_or_default();
    Change::Token { token: operation.result.clone(), amount: operation.amount.excess_over(fee) }
}

pub(super) fn read_plan(operation: &Operation) -> Result<Plan, WalletError> {
    serde_json::from_str(&operation.plan)
        .map_err(|_| WalletError::Ecash(format!("operation {} has an unreadable plan", operation.id)))
}

pub(super) fn operation_uuid(operation: &Operation) -> Result<Uuid, WalletError> {
    Uuid::parse_str(&operation.id).map_err(|error| WalletError::Ecash(error.to_string()))
}

fn sum_infos(infos: &[ProofInfo]) -> u64 {
    let parts: Vec<u64> = infos.iter().map(|info| info.proof.amount.to_u64()).collect();
    sum(&parts)
}

fn plain(infos: Vec<ProofInfo>) -> Vec<Proof> {
    infos.into_iter().map(|info| without_dleq(info.proof)).collect()
}

/// A token need not say which issuance its proofs came from.
fn without_dleq(mut proof: Proof) -> Proof {
    proof.dleq = None;
    proof
}
