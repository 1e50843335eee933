//! The node's coins are exchanged for handier ones (NUT-03): the ladder that change is paid from
//! without asking the mint, few coins where many small ones have piled up, and before both, coins of
//! another keyset for those that the mint will not take any more (NUT-02, `final_expiry`).
//!
//! 1. In one synced transaction the operation is written. Its amount is the fee that the mint will
//!    take. The database lets one be open for each mint and unit, whichever process writes it.
//! 2. The coins are reserved, and the swap is planned, written and sent.
//! 3. The new coins are stored.
//! 4. In one synced transaction the operation is done, and the fee is booked as the node's cost.
//!
//! A fee is paid out of what was earned at this mint, like a payout, and never out of what clients
//! own: a node without earnings exchanges nothing where that costs something.

use cdk::nuts::{Proof, PublicKey, State as ProofState};
use cdk_common::wallet::ProofInfo;
use uuid::Uuid;

use super::change::{RefundError, plain, sum_infos};
use super::health::Priority;
use super::incoming::{Act, Ended};
use super::journal::{self, Kind, Operation, State, Step};
use super::keysets::{ActiveKeyset, sum};
use super::ladder::{Counts, Ladder, is_worth_it};
use super::refusal::{MintError, Refusal};
use super::select::consolidation_lane;
use super::steps::Attempt;
use super::swap::{self, Plan, Standing};
use super::{Trusted, Wallet, WalletError};
use crate::failpoint::failpoint;
use crate::ledger::TransferKind;
use crate::ledger::repo::{self as books, Transfer};
use crate::money::MintUnit;
use crate::store::Durability;

/// Exchanges of one mint and unit that are made at a time: a ladder may need a second one.
const AT_A_TIME: u32 = 3;

/// Coins, what they are exchanged for, and what the mint takes for it.
struct Consolidation {
    coins: Vec<ProofInfo>,
    outputs: Vec<u64>,
    fee: u64,
}

impl Wallet {
    /// Exchanges coins whose keyset ends, where the ladder is short, or where small ones have piled up. Returns
    /// how many exchanges were made.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refill(&self) -> Result<usize, WalletError> {
        let mut made: usize = 0;
        for trusted in self.inner.mints.values() {
            for unit in [MintUnit::Sat, MintUnit::Msat] {
                if self.inner.ladder.get().coins == 0 && trusted.keysets.ending(unit).await.is_empty() {
                    continue;
                }
                for _ in 0..AT_A_TIME {
                    let outcome = self.consolidate(trusted, unit).await?;
                    if let Some(state) = outcome {
                        self.counts().exchanges.note(match state {
                            State::Done => "done",
                            State::Failed => "failed",
                            _ => "open",
                        });
                    }
                    if outcome != Some(State::Done) {
                        break;
                    }
                    made = made.saturating_add(1);
                }
            }
        }
        Ok(made)
    }

    /// Keeps so many coins of each amount ready from now on; none, with 0.
    pub fn set_ladder(&self, coins: usize) {
        if self.inner.ladder.get().coins != coins {
            self.inner.ladder.put(Ladder { coins });
            self.inner.ladder_was_short.notify_one();
        }
    }

    /// Waits until change had to be swapped for: then the ladder is short.
    pub async fn ladder_was_short(&self) {
        self.inner.ladder_was_short.notified().await;
    }

    /// One exchange, if there is one to be made. Returns what became of it.
    async fn consolidate(&self, trusted: &Trusted, unit: MintUnit) -> Result<Option<State>, WalletError> {
        let lane = self.inner.redeeming.lane(&consolidation_lane(trusted.http.url(), unit));
        let _turn = lane.lock().await;
        if trusted.http.look(|health, now_ms| health.may_ask(now_ms, Priority::Background)).is_err() {
            return Ok(None);
        }
        let active = match trusted.keysets.active(unit).await {
            Ok(active) => active,
            Err(WalletError::Mint(error)) => {
                tracing::debug!(mint = trusted.http.url(), %error, "coins are not exchanged now");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let outcome = self.exchange(trusted, unit, &active).await;
        if !matches!(outcome, Ok(Some(State::Done))) {
            self.recount(trusted, unit).await;
        }
        outcome
    }

    /// What an exchange would be now. Other processes change what there is, so the coins are read anew.
    async fn look(
        &self,
        trusted: &Trusted,
        unit: MintUnit,
        active: &ActiveKeyset,
    ) -> Result<Option<Consolidation>, WalletError> {
        self.recount(trusted, unit).await;
        let ladder = *self.inner.ladder.get();
        if let Some((coins, left)) = self.pick_ending(trusted, unit, active).await? {
            if let Some(last_chance) = self.reckon(trusted, active, coins, &left, |net, _| net > 0).await {
                return Ok(Some(last_chance));
            }
            // They cannot be exchanged, and are still here.
            self.recount(trusted, unit).await;
        }
        let picked = self.pick(trusted, unit, |held| ladder.exchange(held, &active.amounts)).await?;
        let Some((coins, left)) = picked else { return Ok(None) };
        Ok(self.reckon(trusted, active, coins, &left, |net, fee| is_worth_it(net.saturating_add(fee), fee)).await)
    }

    /// What coins are exchanged for, and what that costs, if that is good enough: what comes of it, and the fee.
    async fn reckon(
        &self,
        trusted: &Trusted,
        active: &ActiveKeyset,
        coins: Vec<ProofInfo>,
        left: &Counts,
        is_good: impl Fn(u64, u64) -> bool,
    ) -> Option<Consolidation> {
        let fee = trusted.keysets.input_fee(coins.iter().map(|info| info.proof.keyset_id)).await;
        let net = sum_infos(&coins).checked_sub(fee).filter(|net| is_good(*net, fee))?;
        let outputs = self.inner.ladder.get().split(net, left, &active.amounts);
        (sum(&outputs) == net).then_some(Consolidation { coins, outputs, fee })
    }

    /// Coins of a keyset that ends, and what is left beside them; none while the mint signs with that one.
    async fn pick_ending(
        &self,
        trusted: &Trusted,
        unit: MintUnit,
        active: &ActiveKeyset,
    ) -> Result<Option<(Vec<ProofInfo>, Counts)>, WalletError> {
        let ending = trusted.keysets.ending(unit).await;
        if ending.contains(&active.id) {
            return Ok(None);
        }
        for keyset in ending {
            let picked = self.pick_of(trusted, unit, keyset).await?;
            if picked.is_some() {
                return Ok(picked);
            }
        }
        Ok(None)
    }

    async fn exchange(
        &self,
        trusted: &Trusted,
        unit: MintUnit,
        active: &ActiveKeyset,
    ) -> Result<Option<State>, WalletError> {
        let Some(Consolidation { fee, .. }) = self.look(trusted, unit, active).await? else { return Ok(None) };
        let id = Uuid::new_v4();
        let lane = self.inner.redeeming.lane(&id.to_string());
        let _turn = lane.lock().await;
        let Some(operation) = self.write_consolidation(trusted, unit, id, fee).await? else { return Ok(None) };
        failpoint!("consolidate.written");
        // Another process may have ended an exchange after the first look; from now on none begins one.
        let Some(now) = self.look(trusted, unit, active).await?.filter(|now| now.fee == fee) else {
            return self.undo_consolidation(trusted, &operation, "the coins have changed", Vec::new()).await.map(Some);
        };
        let Consolidation { coins, outputs, fee } = now;
        let ys = coins.iter().map(|info| info.y).collect();
        if let Err(error) = self.inner.ecash.reserve_proofs(ys, &id).await {
            tracing::debug!(%error, "coins to exchange were gone");
            return self.undo_consolidation(trusted, &operation, "the coins were gone", Vec::new()).await.map(Some);
        }
        failpoint!("consolidate.reserved");
        let counter = self.reserve_counters(active.id, outputs.len()).await?;
        let keyset = active.id.to_string();
        let inputs = plain(coins);
        let plan = Plan { inputs, keyset, counter, outputs, send: Vec::new(), fee, spare: 0, bonus: Vec::new() };
        self.write_plan(&operation, &plan).await?;
        failpoint!("consolidate.planned");
        let http = trusted.http.at(Priority::Background);
        let standing = swap::send(&http, &trusted.keysets, &self.inner.seed, &plan).await?;
        failpoint!("consolidate.swapped");
        self.finish_consolidation(trusted, &operation, &plan, standing, Attempt::First).await.map(Some)
    }

    /// Step 1. `None`: another exchange is under way, or the fee cannot be paid.
    async fn write_consolidation(
        &self,
        trusted: &Trusted,
        unit: MintUnit,
        id: Uuid,
        fee: u64,
    ) -> Result<Option<Operation>, WalletError> {
        let ledger = &self.inner.ledger;
        let mint = trusted.http.url();
        let Some(fee) = unit.to_msat(fee) else { return Ok(None) };
        let mut tx = self.store().begin(Durability::Full).await?;
        if !fee.is_zero() {
            match self.payable(&mut tx, mint, unit).await {
                Ok(free) if free >= fee => {}
                Ok(_) | Err(RefundError::Ongoing) => return Ok(None),
                Err(RefundError::Wallet(error)) => return Err(error),
                Err(error) => return Err(WalletError::Ecash(error.to_string())),
            }
        }
        let planned = Operation::planned(Kind::Consolidate, ledger.house().mint_fees, mint, unit, fee);
        let mut operation = Operation { id: id.to_string(), ..planned };
        match journal::insert(&mut tx, &mut operation, None, ledger.owner(), self.clock().now_ms()).await {
            Ok(()) => tx.commit().await?,
            Err(error) if error.is_duplicate() => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        Ok(Some(operation))
    }

    /// Steps 3 and 4, or what there is to be done instead. Returns what became of the operation.
    pub(super) async fn finish_consolidation(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        plan: &Plan,
        standing: Standing,
        attempt: Attempt,
    ) -> Result<State, WalletError> {
        match self.finish_act(trusted, operation, Act::of(plan), standing, attempt).await? {
            Ended::Kept { new, .. } => {
                failpoint!("consolidate.kept");
                self.book_consolidation(operation).await?;
                failpoint!("consolidate.done");
                self.restock(trusted, operation, &new, attempt).await;
                Ok(State::Done)
            }
            Ended::NotDone(error) => {
                let spent = self.spent_elsewhere(trusted, operation, &plan.inputs, &error).await?;
                let why = error.to_string();
                tracing::warn!(mint = %operation.mint, why, "coins could not be exchanged");
                let state = self.undo_consolidation(trusted, operation, &why, spent).await?;
                if error == MintError::Refused(Refusal::Stale) {
                    trusted.keysets.refresh_if_due().await?;
                }
                Ok(state)
            }
            Ended::Open(_) => Ok(State::Unknown),
        }
    }

    async fn book_consolidation(&self, operation: &Operation) -> Result<(), WalletError> {
        let now_ms = self.clock().now_ms();
        let ledger = &self.inner.ledger;
        let mut tx = self.store().begin(Durability::Full).await?;
        let done = Step { state: State::Done, plan: "", result: "" };
        if journal::advance(&mut tx, &operation.id, ledger.owner(), done, now_ms).await? {
            let fee = Transfer {
                id: ledger.next_id(),
                debit: ledger.house().mint_fees,
                credit: self.mint_account(&mut tx, &operation.mint, operation.unit, now_ms).await?,
                amount: operation.amount,
                kind: TransferKind::MintFee,
                reference: &operation.id,
            };
            books::transfer(&mut tx, fee, now_ms).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Ends an exchange that surely did not happen, and gives its coins free; unless another process has it in hand,
    /// with its coins.
    pub(super) async fn undo_consolidation(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        why: &str,
        spent: Vec<PublicKey>,
    ) -> Result<State, WalletError> {
        if !spent.is_empty() {
            self.inner.ecash.update_proofs_state(spent, ProofState::Spent).await?;
        }
        if !self.advance(operation, Step { state: State::Failed, plan: "", result: why }).await? {
            return Ok(State::Unknown);
        }
        self.set_free(trusted, operation).await?;
        Ok(State::Failed)
    }

    /// Which coins of this wallet were spent by somebody else, where the mint refused because of that.
    ///
    /// # Errors
    /// When the mint does not say.
    pub(super) async fn spent_elsewhere(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        inputs: &[Proof],
        error: &MintError,
    ) -> Result<Vec<PublicKey>, WalletError> {
        if *error != MintError::Refused(Refusal::Spent) {
            return Ok(Vec::new());
        }
        // Proofs that the books say are ours were spent: never silently.
        tracing::error!(operation = %operation.id, mint = %operation.mint, "ecash of this wallet was spent elsewhere");
        Ok(trusted.http.spent(swap::ys(inputs)?).await?)
    }

    /// Finds out how an exchange stands, and ends it. Returns whether it has ended.
    pub(super) async fn resume_consolidation(&self, operation: &Operation) -> bool {
        let Some(trusted) = self.trusted(&operation.mint) else { return false };
        let consolidating = self.inner.redeeming.lane(&consolidation_lane(&operation.mint, operation.unit));
        let _consolidating = consolidating.lock().await;
        let lane = self.inner.redeeming.lane(&operation.id);
        let _turn = lane.lock().await;
        let resumed = async {
            let Some(operation) = self.reopen(operation).await? else { return Ok(State::Done) };
            if operation.plan.is_empty() {
                return self.undo_consolidation(trusted, &operation, "it was not begun", Vec::new()).await;
            }
            let plan = operation.swap_plan()?;
            let standing = swap::resolve(&trusted.http, &trusted.keysets, &self.inner.seed, &plan).await?;
            self.finish_consolidation(trusted, &operation, &plan, standing, Attempt::Later).await
        };
        match resumed.await {
            Ok(state) => !state.is_open(),
            Err(error) => {
                tracing::warn!(operation = %operation.id, %error, "an exchange of coins is not decided yet");
                false
            }
        }
    }
}
