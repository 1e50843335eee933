//! Money goes back: change of one request, the balance of a key, the operator's earnings. As a token
//! it is made here; over Lightning, in [`super::pay`].
//!
//! 1. In one synced transaction the amount leaves the account and the operation is written: from
//!    then on it is owed, and can be fetched however the process fares.
//! 2. Proofs are chosen and reserved. If they fit exactly, no mint is asked. Otherwise one swap is
//!    planned, written, and sent.
//! 3. In one synced transaction the token is stored and the ecash leaves the books. Only then does
//!    anybody see the token, and anybody entitled sees the same one again.

use cdk::nuts::{Proof, PublicKey, State as ProofState, Token as CdkToken};
use cdk_common::wallet::ProofInfo;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::journal::{self, Kind, Operation, State, Step};
use super::keysets::{split_few, sum};
use super::refusal::{MintError, Refusal};
use super::swap::{self, Plan, Standing};
use super::{Trusted, Wallet, WalletError, currency, incoming};
use crate::failpoint::failpoint;
use crate::ledger::repo::{self as books, Transfer};
use crate::ledger::{Account, AccountId};
use crate::money::{MintUnit, Msat};
use crate::store::{Durability, StoreError, Tx};

/// Money on its way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Less than the smallest coin of the mint is left: it stays on the account.
    Nothing,
    /// Here it is. `amount` is what the token is worth, which a mint's fee may have made smaller
    /// than what was owed.
    Token { token: String, amount: Msat, mint: String },
    /// It was paid over Lightning. `amount` is what the recipient got.
    Sent { recipient: String, amount: Msat, fee: Msat },
    /// It could not be paid over Lightning, for this reason; it is back on the account.
    Failed(String),
    /// It is owed, and will be made; the refund endpoint gives it out.
    Owed,
}

/// Where money is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// A mint of the node's whose ecash is wanted; empty: the one that was paid at.
    pub mint: String,
    /// A Lightning address or an LNURL; empty: a token.
    pub recipient: String,
}

/// How much is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// All that is on the account, in whole coins. What is less than a coin stays.
    Balance,
    /// All that the operator has earned of this unit at the mint, if it is worth it.
    Earnings { unit: MintUnit, minimum: Msat },
}

/// What is kept of a Lightning payment when it is over, in msat.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Paid {
    pub sent: u64,
    pub fee: u64,
    /// The mint's name for it.
    pub quote: String,
}

/// Whether an operation was just written by the caller, or may have been worked on before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
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
    /// This node holds no ecash of that mint.
    #[error("this node does not hold ecash of that mint")]
    NoSuchMint,
    /// The Lightning payment was not made; the money is where it was.
    #[error("{0}")]
    Undeliverable(String),
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
        match self.begin(account, Kind::Change, &Destination::default(), Source::Balance).await {
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
    pub async fn refund(&self, account: AccountId, to: &Destination) -> Result<Change, RefundError> {
        match self.last_return(account).await? {
            // It was begun before: finish that one, so that a repeated call gets one answer.
            Some(begun) if begun.state.is_open() => {
                return pending_if_owed(self.perform(&begun).await);
            }
            _ => {}
        }
        match self.begin(account, Kind::Refund, to, Source::Balance).await {
            Ok(change) => pending_if_owed(change),
            Err(little @ (RefundError::Nothing | RefundError::TooSmall)) => match self.last_return(account).await? {
                Some(last) => pending_if_owed(self.perform(&last).await),
                None => Err(little),
            },
            Err(error) => Err(error),
        }
    }

    /// Sends the balance of a key whose time is over to its owner's Lightning address.
    ///
    /// # Errors
    /// See [`RefundError`].
    pub async fn expire(&self, account: AccountId, recipient: &str) -> Result<Change, RefundError> {
        let to = Destination { mint: String::new(), recipient: recipient.to_owned() };
        match self.last_return(account).await? {
            // Under way already; the journal's own schedule carries it on.
            Some(begun) if begun.state.is_open() => Ok(Change::Owed),
            _ => self.begin(account, Kind::Expiry, &to, Source::Balance).await,
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
            (_, Some(last)) if last.kind.is_return() => {
                if last.state.is_open() {
                    pending_if_owed(self.perform(&last).await)
                } else {
                    Ok(returned(&last))
                }
            }
            _ if !account.balance.held.is_zero() => Err(RefundError::Pending),
            _ => match self.give_change(account.id).await? {
                Change::Nothing => Err(RefundError::Nothing),
                change => pending_if_owed(change),
            },
        }
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

    pub(super) async fn last_return(&self, account: AccountId) -> Result<Option<Operation>, RefundError> {
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        let newest = journal::newest(&mut reader, account).await?;
        Ok(newest.filter(|operation| operation.kind.is_return()))
    }

    /// All three steps, for a new operation. Nobody else can come between: its lane is taken before
    /// it is there to be seen.
    pub(super) async fn begin(
        &self,
        account: AccountId,
        kind: Kind,
        to: &Destination,
        source: Source,
    ) -> Result<Change, RefundError> {
        let id = Uuid::new_v4().to_string();
        let lane = self.inner.redeeming.lane(&id);
        let _turn = lane.lock().await;
        let operation = self.write_operation(id, account, kind, to, source).await?;
        failpoint!("return.written");
        Ok(self.attempt(&operation, Attempt::First).await)
    }

    /// Step 1: the amount leaves the account, and is owed.
    async fn write_operation(
        &self,
        id: String,
        account: AccountId,
        kind: Kind,
        to: &Destination,
        source: Source,
    ) -> Result<Operation, RefundError> {
        if !to.mint.is_empty() && self.trusted(&to.mint).is_none() {
            return Err(RefundError::NoSuchMint);
        }
        let now_ms = self.clock().now_ms();
        let ledger = &self.inner.ledger;
        let mut tx = self.store().begin(Durability::Full).await?;
        let (mint, unit, owed) = match source {
            Source::Balance => balance_owed(&mut tx, account, to).await?,
            Source::Earnings { unit, minimum } => {
                let payable = self.payable(&mut tx, &to.mint, unit).await?;
                if payable < minimum {
                    return Err(RefundError::TooSmall);
                }
                (to.mint.clone(), unit, whole_units(unit, payable).ok_or(RefundError::TooSmall)?)
            }
        };
        let recipient = to.recipient.clone();
        let mut operation = Operation { id, recipient, ..Operation::planned(kind, account, &mint, unit, owed) };
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
        let made = if operation.recipient.is_empty() {
            self.make_token(trusted, operation, attempt).await
        } else {
            self.pay(trusted, operation, attempt).await
        };
        made.unwrap_or_else(|error| {
            tracing::warn!(operation = %operation.id, %error, "money could not be given back yet");
            Change::Owed
        })
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
        let Some(operation) = self.reopen(operation).await? else {
            return self.ended(&operation.id).await;
        };
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
        self.set_free(trusted, &operation).await?;
        self.choose_and_make(trusted, &operation, owed).await
    }

    async fn choose_and_make(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        owed: u64,
    ) -> Result<Change, WalletError> {
        let chosen = match self.choose(trusted, operation, owed).await {
            Err(WalletError::Short) => return self.go_elsewhere(operation, owed).await,
            chosen => chosen?,
        };
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

    /// There is not enough ecash at the mint: it may have been filled at another one. The token is
    /// made there then, at the next attempt.
    async fn go_elsewhere(&self, operation: &Operation, owed: u64) -> Result<Change, WalletError> {
        for (mint, trusted) in self.inner.mints.iter().filter(|(mint, _)| **mint != operation.mint) {
            if self.in_stock(trusted, operation.unit).await? < owed {
                continue;
            }
            let mut tx = self.store().begin(Durability::Full).await?;
            journal::rehome(&mut tx, &operation.id, self.inner.ledger.owner(), mint).await?;
            tx.commit().await?;
            let Some(operation) = self.find_operation(&operation.id).await? else { break };
            return Box::pin(self.make_token(trusted, &operation, Attempt::Later)).await;
        }
        Err(WalletError::Short)
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
                self.replan(trusted, operation, None).await?;
                return Err(MintError::NotSent.into());
            }
            Standing::Refused(Refusal::Spent) => {
                // Proofs that the books say are ours were spent: never silently.
                tracing::error!(operation = %operation.id, mint = %operation.mint, "ecash of this wallet was spent elsewhere");
                self.replan(trusted, operation, Some(plan.input_ys()?)).await?;
                return Err(MintError::Refused(Refusal::Spent).into());
            }
            Standing::Refused(refusal) => {
                self.replan(trusted, operation, None).await?;
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

    /// Forgets an act that surely did not happen; the next attempt plans anew. Proofs that were
    /// `spent` elsewhere are not chosen again. The plan is forgotten before its proofs are free for
    /// others: a plan that were carried out later could spend what others have by then.
    pub(super) async fn replan(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        spent: Option<Vec<PublicKey>>,
    ) -> Result<(), WalletError> {
        let mut tx = self.store().begin(Durability::Full).await?;
        let again = Step { state: State::Planned, plan: "", result: "" };
        journal::advance(&mut tx, &operation.id, self.inner.ledger.owner(), again, self.clock().now_ms()).await?;
        tx.commit().await?;
        if let Some(ys) = spent {
            self.inner.ecash.update_proofs_state(ys, ProofState::Spent).await?;
        }
        self.set_free(trusted, operation).await
    }

    /// Gives free what is reserved for an operation.
    pub(super) async fn set_free(&self, trusted: &Trusted, operation: &Operation) -> Result<(), WalletError> {
        self.inner.ecash.release_proofs(&operation_uuid(operation)?).await?;
        self.recount(trusted, operation.unit).await;
        Ok(())
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

/// Mint, unit and amount of what an account can be paid back.
async fn balance_owed(
    tx: &mut Tx,
    account: AccountId,
    to: &Destination,
) -> Result<(String, MintUnit, Msat), RefundError> {
    let found = books::find_locked(tx, account).await?.ok_or(RefundError::Unknown)?;
    if !found.balance.held.is_zero() {
        return Err(RefundError::Ongoing);
    }
    let unit = MintUnit::parse(&found.unit)
        .ok_or_else(|| WalletError::Ecash(format!("account {} has no unit", account.get())))?;
    let little = if found.balance.posted.is_zero() { RefundError::Nothing } else { RefundError::TooSmall };
    let owed = whole_units(unit, found.balance.available()).ok_or(little)?;
    let mint = if to.mint.is_empty() { found.mint } else { to.mint.clone() };
    Ok((mint, unit, owed))
}

/// The part of an amount that is whole coins, if there is any.
fn whole_units(unit: MintUnit, amount: Msat) -> Option<Msat> {
    unit.to_msat(unit.floor(amount)).filter(|whole| !whole.is_zero())
}

fn pending_if_owed(change: Change) -> Result<Change, RefundError> {
    match change {
        Change::Owed => Err(RefundError::Pending),
        Change::Failed(why) => Err(RefundError::Undeliverable(why)),
        change => Ok(change),
    }
}

/// What an operation gave.
pub(super) fn returned(operation: &Operation) -> Change {
    match operation.state {
        State::Done => {}
        State::Failed => return Change::Failed(operation.result.clone()),
        _ => return Change::Owed,
    }
    if !operation.recipient.is_empty() {
        let recipient = operation.recipient.clone();
        let paid = serde_json::from_str::<Paid>(&operation.plan).ok();
        let msat = |of: fn(&Paid) -> u64| paid.as_ref().and_then(|paid| Msat::new(of(paid))).unwrap_or_default();
        return Change::Sent { recipient, amount: msat(|paid| paid.sent), fee: msat(|paid| paid.fee) };
    }
    if operation.result.is_empty() {
        return Change::Nothing;
    }
    let fee = read_plan(operation).map_or(0, |plan| plan.fee);
    let fee = operation.unit.to_msat(fee).unwrap_or_default();
    Change::Token {
        token: operation.result.clone(),
        amount: operation.amount.excess_over(fee),
        mint: operation.mint.clone(),
    }
}

pub(super) fn read_plan(operation: &Operation) -> Result<Plan, WalletError> {
    serde_json::from_str(&operation.plan)
        .map_err(|_| WalletError::Ecash(format!("operation {} has an unreadable plan", operation.id)))
}

pub(super) fn operation_uuid(operation: &Operation) -> Result<Uuid, WalletError> {
    Uuid::parse_str(&operation.id).map_err(|error| WalletError::Ecash(error.to_string()))
}

pub(super) fn sum_infos(infos: &[ProofInfo]) -> u64 {
    let parts: Vec<u64> = infos.iter().map(|info| info.proof.amount.to_u64()).collect();
    sum(&parts)
}

pub(super) fn plain(infos: Vec<ProofInfo>) -> Vec<Proof> {
    infos.into_iter().map(|info| without_dleq(info.proof)).collect()
}

/// A token need not say which issuance its proofs came from.
fn without_dleq(mut proof: Proof) -> Proof {
    proof.dleq = None;
    proof
}
