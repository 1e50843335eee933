//! The steps by which money goes back as a token.
//!
//! 1. In one transaction the amount leaves the account and the operation is written: from then on it is owed, and
//!    can be fetched however the process fares. It is synced with the next step that is; before that, a power loss
//!    leaves the amount where it was.
//! 2. Proofs are chosen and reserved. If they fit exactly, no mint is asked. Otherwise one swap is
//!    planned, written, and sent.
//! 3. In one synced transaction the token is stored and the ecash leaves the books. Only then does
//!    anybody see the token, and anybody entitled sees the same one again.
//!
//! Where the coins are there that make what is owed, all three are one transaction ([`super::ready`]).

use cdk::nuts::{Proof, PublicKey, State as ProofState, Token as CdkToken};
use cdk_common::wallet::ProofInfo;
use uuid::Uuid;

use super::change::{Change, Destination, RefundError, Source, operation_uuid, plain, returned};
use super::change::{sum_infos, without_dleq};
use super::incoming::{Act, Ended};
use super::journal::{self, Kind, Operation, State, Step};
use super::keysets::split_few;
use super::ladder::worth;
use super::refusal::{MintError, Refusal};
use super::select::at_once;
use super::steps::Attempt;
use super::swap::{self, Plan, Standing};
use super::{Trusted, Wallet, WalletError, currency};
use crate::failpoint::failpoint;
use crate::ledger::repo::{self as books, Transfer};
use crate::ledger::{AccountId, TransferKind};
use crate::money::{MintUnit, Msat};
use crate::store::{Durability, Tx};

/// What is to go back, and where to.
pub(super) struct Wanted<'a> {
    /// The name of the operation.
    pub id: String,
    pub account: AccountId,
    pub kind: Kind,
    pub to: &'a Destination,
    pub source: Source,
}

impl Wallet {
    /// All three steps, for a new operation. Nobody else can come between: its lane is taken before
    /// it is there to be seen.
    pub(super) async fn begin(
        &self,
        account: AccountId,
        kind: Kind,
        to: &Destination,
        source: Source,
    ) -> Result<Change, RefundError> {
        self.begin_as(Uuid::new_v4().to_string(), account, kind, to, source).await
    }

    /// Takes all three steps for a new operation, under the id that the caller has for it. What fails once the
    /// operation is written down stays owed, and is no error.
    pub(super) async fn begin_as(
        &self,
        id: String,
        account: AccountId,
        kind: Kind,
        to: &Destination,
        source: Source,
    ) -> Result<Change, RefundError> {
        let lane = self.inner.redeeming.lane(&id);
        let _turn = lane.lock().await;
        let wanted = Wanted { id, account, kind, to, source };
        if let Some(change) = self.give_ready(&wanted).await? {
            return Ok(change);
        }
        let operation = self.write_operation(&wanted).await?;
        failpoint!("return.written");
        Ok(self.attempt(&operation, Attempt::First).await)
    }

    /// Step 1: the amount leaves the account, and is owed.
    async fn write_operation(&self, wanted: &Wanted<'_>) -> Result<Operation, RefundError> {
        let now_ms = self.clock().now_ms();
        // Nothing leaves this database before a plan, or the token, is written down and synced; that syncs this too.
        let mut tx = self.store().begin_short(Durability::ProcessSafe).await?;
        let mut operation = self.owe(&mut tx, wanted, now_ms).await?;
        journal::insert(&mut tx, &mut operation, None, self.inner.ledger.owner(), now_ms).await?;
        tx.commit().await?;
        Ok(operation)
    }

    /// Takes what is to go off its account. Returns the operation, to be written.
    pub(super) async fn owe(&self, tx: &mut Tx, wanted: &Wanted<'_>, now_ms: i64) -> Result<Operation, RefundError> {
        let Wanted { id, account, kind, to, source } = wanted;
        if !to.mint.is_empty() && self.trusted(&to.mint).is_none() {
            return Err(RefundError::NoSuchMint);
        }
        let (mint, unit, owed) = match *source {
            Source::Balance => balance_owed(tx, *account, to).await?,
            Source::Earnings { unit, minimum } => {
                let payable = self.payable(tx, &to.mint, unit).await?;
                if payable < minimum {
                    return Err(RefundError::TooSmall);
                }
                (to.mint.clone(), unit, whole_units(unit, payable).ok_or(RefundError::TooSmall)?)
            }
            Source::Part { unit, amount } => {
                if self.payable(tx, &to.mint, unit).await? < amount {
                    return Err(RefundError::TooSmall);
                }
                (to.mint.clone(), unit, amount)
            }
        };
        // Money of a mint that is gone stays where it is; a mint that was named is one of the node's.
        if self.trusted(&mint).is_none() {
            return Err(RefundError::MintGone);
        }
        let recipient = to.recipient.clone();
        let planned = Operation::planned(*kind, *account, &mint, unit, owed);
        let operation = Operation { id: id.clone(), recipient, ..planned };
        let ledger = &self.inner.ledger;
        let transfer = Transfer {
            id: ledger.next_id(),
            debit: *account,
            credit: ledger.house().change,
            amount: owed,
            kind: (*kind).into(),
            reference: id,
        };
        books::transfer(tx, transfer, now_ms).await?;
        Ok(operation)
    }

    /// Steps 2 and 3 of an operation that may have been worked on before: one attempt at a time in
    /// this process, and one process at a time.
    pub(super) async fn perform(&self, operation: &Operation) -> Change {
        let lane = self.inner.redeeming.lane(&operation.id);
        let _turn = lane.lock().await;
        // Who had the lane before may have moved it to another mint.
        match self.find_operation(&operation.id).await {
            Ok(Some(now)) => self.attempt(&now, Attempt::Later).await,
            Ok(None) => Change::Owed,
            Err(error) => {
                tracing::warn!(operation = %operation.id, %error, "what is owed could not be looked up");
                Change::Owed
            }
        }
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
        match made {
            Ok(change) => change,
            Err(error) => {
                tracing::warn!(operation = %operation.id, %error, "money could not be given back yet");
                if attempt == Attempt::Later {
                    self.put_off(operation).await;
                }
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
        let Some(operation) = self.reopen(operation).await? else {
            return self.ended(&operation.id).await;
        };
        if !operation.plan.is_empty() {
            let plan = operation.swap_plan()?;
            let standing = swap::resolve(&trusted.http, &trusted.keysets, &self.inner.seed, &plan).await?;
            return self.finish_swap(trusted, &operation, &plan, standing, Attempt::Later).await;
        }
        let id = operation_uuid(&operation)?;
        let reserved = self.inner.ecash.get_reserved_proofs(&id).await?;
        if sum_infos(&reserved) == owed {
            return self.finish(trusted, &operation, plain(reserved), None).await;
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
            // Of earnings, each mint gives what was earned there.
            Err(WalletError::Short) if operation.kind != Kind::Payout => {
                return self.go_elsewhere(trusted, operation, owed).await;
            }
            chosen => chosen?,
        };
        failpoint!("return.reserved");
        if sum_infos(&chosen) == owed {
            return self.finish(trusted, operation, plain(chosen), None).await;
        }
        let fee = trusted.keysets.input_fee(chosen.iter().map(|info| info.proof.keyset_id)).await;
        let Some(send) = owed.checked_sub(fee).filter(|send| *send > 0) else {
            return self.put_back(trusted, operation, "the mint's fee takes all of this").await;
        };
        let Some(plan) = self.plan_swap(trusted, operation, chosen, (owed, send)).await? else {
            return self.put_back(trusted, operation, "the mint has no coins that make this amount").await;
        };
        failpoint!("return.planned");
        let standing = swap::send(&trusted.http, &trusted.keysets, &self.inner.seed, &plan).await?;
        failpoint!("return.swapped");
        self.finish_swap(trusted, operation, &plan, standing, Attempt::First).await
    }

    /// There is not enough ecash at the mint: it may have been filled at another one. The token is made there then.
    /// Where only all of them together have a key's balance, it is of as much as the fullest has; the rest is back on
    /// the key, to be asked for next. Nothing stays owed that nobody has.
    async fn go_elsewhere(&self, trusted: &Trusted, operation: &Operation, owed: u64) -> Result<Change, WalletError> {
        let mut fullest = (operation.mint.as_str(), 0);
        let (mut is_busy, mut all) = (false, Msat::ZERO);
        for mint in self.mints() {
            let Some(trusted) = self.trusted(mint) else { continue };
            for unit in [MintUnit::Sat, MintUnit::Msat] {
                let held = self.in_stock(trusted, unit).await?;
                all = unit.to_msat(worth(&held)).and_then(|held| all.checked_add(held)).unwrap_or(all);
                let there = if unit == operation.unit { at_once(&held) } else { 0 };
                if there > fullest.1 {
                    fullest = (mint, there);
                }
            }
            is_busy = is_busy || self.in_hand(&Operation { mint: mint.clone(), ..operation.clone() }).await?;
        }
        let (mint, there) = fullest;
        let amount = match operation.unit.to_msat(there) {
            Some(_) if there >= owed => operation.amount,
            _ if is_busy => return Err(WalletError::Busy),
            Some(part) if operation.kind == Kind::Refund && !part.is_zero() && all >= operation.amount => part,
            _ => {
                let why =
                    format!("no mint of this node has all of it now: {mint} has {there} {}", operation.unit.as_str());
                return self.put_back(trusted, operation, &why).await;
            }
        };
        self.rehome(operation, mint, amount).await?;
        let Some(moved) = self.find_operation(&operation.id).await? else { return Err(WalletError::Short) };
        let trusted = self.trusted(&moved.mint).ok_or(WalletError::Short)?;
        Box::pin(self.make_token(trusted, &moved, Attempt::Later)).await
    }

    /// Moves what is owed to another mint, and what is not owed any more back to its account.
    async fn rehome(&self, operation: &Operation, mint: &str, amount: Msat) -> Result<(), WalletError> {
        let ledger = &self.inner.ledger;
        let rest = operation.amount.excess_over(amount);
        let mut tx = self.store().begin(Durability::Full).await?;
        let ours = journal::rehome(&mut tx, &operation.id, ledger.owner(), mint, amount).await?;
        if ours && !rest.is_zero() {
            let transfer = Transfer {
                id: ledger.next_id(),
                debit: ledger.house().change,
                credit: operation.account,
                amount: rest,
                kind: TransferKind::Returned,
                reference: &operation.id,
            };
            books::transfer(&mut tx, transfer, self.clock().now_ms()).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Plans one swap into what is sent, which is what is owed less the fee of this swap, and the rest; writes it down.
    /// `None`: there are no outputs that add up to it.
    async fn plan_swap(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        chosen: Vec<ProofInfo>,
        (owed, send): (u64, u64),
    ) -> Result<Option<Plan>, WalletError> {
        let active = trusted.keysets.active(operation.unit).await?;
        let total = sum_infos(&chosen);
        let keep = total.checked_sub(owed).ok_or_else(|| WalletError::Ecash("too little was chosen".into()))?;
        let mut outputs: Vec<(u64, bool)> =
            split_few(send, &active.amounts).into_iter().map(|part| (part, true)).collect();
        let kept = self.split_kept(trusted, operation.unit, keep, &active.amounts).await?;
        outputs.extend(kept.into_iter().map(|part| (part, false)));
        outputs.sort_unstable();
        if outputs.iter().fold(0, |sum: u64, (part, _)| sum.saturating_add(*part)) != send.saturating_add(keep) {
            return Ok(None);
        }
        let counter = self.reserve_counters(active.id, outputs.len()).await?;
        let plan = Plan {
            inputs: plain(chosen),
            keyset: active.id.to_string(),
            counter,
            send: outputs.iter().enumerate().filter(|(_, (_, sent))| *sent).map(|(at, _)| at).collect(),
            outputs: outputs.into_iter().map(|(part, _)| part).collect(),
            fee: owed.saturating_sub(send),
            spare: 0,
            bonus: Vec::new(),
        };
        self.write_plan(operation, &plan).await?;
        Ok(Some(plan))
    }

    pub(super) async fn finish_swap(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        plan: &Plan,
        standing: Standing,
        attempt: Attempt,
    ) -> Result<Change, WalletError> {
        let (proofs, new) = match self.finish_act(trusted, operation, Act::of(plan), standing, attempt).await? {
            Ended::Kept { proofs, new } => (proofs, new),
            Ended::NotDone(error) => {
                let spent = self.spent_elsewhere(trusted, operation, &plan.inputs, &error).await?;
                if let MintError::Refused(Refusal::Other(_) | Refusal::Unclear(_)) = &error {
                    self.doubt(trusted, operation.unit, &plan.inputs).await?;
                }
                self.replan(trusted, operation, &spent).await?;
                if error == MintError::Refused(Refusal::Stale) {
                    trusted.keysets.refresh_if_due().await?;
                }
                return Err(error.into());
            }
            Ended::Open(error) => return Err(error.into()),
        };
        failpoint!("return.kept");
        self.inner.ladder_was_short.notify_one();
        let sent = proofs.into_iter().enumerate().filter(|(at, _)| plan.send.contains(at)).map(|(_, proof)| proof);
        let change = self.finish(trusted, operation, sent.map(without_dleq).collect(), Some(plan)).await?;
        self.restock(trusted, operation, &new, attempt).await;
        Ok(change)
    }

    /// Forgets an act that surely did not happen; the next attempt plans anew. Proofs that were
    /// `spent` elsewhere are not chosen again. The plan is forgotten before its proofs are free for
    /// others: a plan that were carried out later could spend what others have by then.
    pub(super) async fn replan(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        spent: &[PublicKey],
    ) -> Result<(), WalletError> {
        if !spent.is_empty() {
            self.inner.ecash.update_proofs_state(spent.to_vec(), ProofState::Spent).await?;
        }
        let ours = self.advance(operation, Step { state: State::Planned, plan: "", result: "" }).await?;
        failpoint!("return.replanned");
        // Otherwise another process works by that plan, with these proofs.
        if ours { self.set_free(trusted, operation).await } else { Ok(()) }
    }

    /// Gives free what is reserved for an operation, unless another process has taken it over by now: what is reserved
    /// may be in that one's plan, or in the token that it has made.
    pub(super) async fn set_free(&self, trusted: &Trusted, operation: &Operation) -> Result<(), WalletError> {
        let mut tx = self.store().begin(Durability::ProcessSafe).await?;
        journal::release_proofs(&mut tx, &operation.id, self.inner.ledger.owner()).await?;
        tx.commit().await?;
        self.recount(trusted, operation.unit).await;
        Ok(())
    }

    /// Step 3: the token is stored and the ecash leaves the books. The plan of the swap that made it is
    /// kept: it says what the mint took.
    async fn finish(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        proofs: Vec<Proof>,
        swapped: Option<&Plan>,
    ) -> Result<Change, WalletError> {
        let token = write_token(trusted, operation.unit, proofs);
        let fee = operation.unit.to_msat(swapped.map_or(0, |plan| plan.fee)).unwrap_or_default();
        let plan = swapped.map(|plan| serde_json::to_string(&Plan { inputs: Vec::new(), ..plan.clone() }));
        let plan = plan.transpose().map_err(|error| WalletError::Ecash(error.to_string()))?.unwrap_or_default();
        let now_ms = self.clock().now_ms();
        let ledger = &self.inner.ledger;
        let mut tx = self.store().begin_short(Durability::Full).await?;
        let done = Step { state: State::Done, plan: &plan, result: &token };
        if journal::advance(&mut tx, &operation.id, ledger.owner(), done, now_ms).await? {
            self.let_go(&mut tx, operation, fee, now_ms).await?;
        }
        let stored = journal::find(tx.hand(), &operation.id).await?;
        tx.commit().await?;
        self.counts().change.note(if swapped.is_some() { "swapped" } else { "ready" });
        failpoint!("return.done");
        stored.map(|stored| returned(&stored)).ok_or_else(|| WalletError::Ecash("the operation is gone".into()))
    }

    /// The ecash that is owed leaves the books: in a token, and by the mint's `fee` for it.
    pub(super) async fn let_go(
        &self,
        tx: &mut Tx,
        operation: &Operation,
        fee: Msat,
        now_ms: i64,
    ) -> Result<(), WalletError> {
        let ledger = &self.inner.ledger;
        let mint = self.mint_account(tx, &operation.mint, operation.unit, now_ms).await?;
        let sent = operation.amount.excess_over(fee);
        for (amount, kind) in [(sent, TransferKind::PaidOut), (fee, TransferKind::MintFee)] {
            let (id, debit) = (ledger.next_id(), ledger.house().change);
            let transfer = Transfer { id, debit, credit: mint, amount, kind, reference: &operation.id };
            books::transfer(tx, transfer, now_ms).await?;
        }
        Ok(())
    }
}

/// These proofs as a token; no text for none.
pub(super) fn write_token(trusted: &Trusted, unit: MintUnit, proofs: Vec<Proof>) -> String {
    if proofs.is_empty() {
        return String::new();
    }
    CdkToken::new(trusted.url.clone(), proofs, None, currency(unit)).to_string()
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
