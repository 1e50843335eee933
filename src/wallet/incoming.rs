//! Ecash that came in for an operation: kept first, then booked.
//!
//! Whatever brought it (a token, a paid invoice, an exchange of the node's own coins), two steps end
//! it: [`Wallet::finish_act`] stores the proofs, marked with the operation, and then they are booked
//! in one synced transaction with the outcome; for what is a client's, by [`Wallet::credit`]. A
//! process that dies in between leaves proofs that no book knows, and an open operation whose next
//! attempt finds them.

use cdk::mint_url::MintUrl;
use cdk::nuts::{Proof, State as ProofState};
use cdk_common::wallet::ProofInfo;

use super::change::operation_uuid;
use super::journal::{self, Fate, Operation, State, Step};
use super::quote::Quote;
use super::refusal::{MintError, Refusal};
use super::steps::{Attempt, DENIED_MS};
use super::swap::{self, Plan, Standing};
use super::{Trusted, Wallet, WalletError, currency};
use crate::ledger::account::house_account;
use crate::ledger::repo::{self as books, Transfer};
use crate::ledger::{Account, AccountId, AccountKind, TransferKind};
use crate::money::{MintUnit, Msat};
use crate::store::{Durability, StoreError, Tx};

/// What an act at the mint takes and brings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Act<'a> {
    /// NUT-13 counter of the first proof that it brings.
    counter: u32,
    /// Proofs of this wallet that it spends.
    inputs: &'a [Proof],
    /// Which of the proofs that it brings, by position, leave the wallet in a token.
    send: &'a [usize],
}

/// What a mint says that would cost somebody money, and is not believed at once.
const SPENT_ELSEWHERE: &str = "the proofs were spent by somebody else";
const REFUSED_AGAIN: &str = "what it was asked to do, it refuses";
const SPENT_AT_ONCE: &str = "proofs that it has just signed are spent";

impl<'a> Act<'a> {
    /// A swap of this wallet's proofs.
    pub(super) fn of(plan: &'a Plan) -> Self {
        Self { counter: plan.counter, inputs: &plan.inputs, send: &plan.send }
    }

    /// A swap of a client's proofs.
    pub(super) fn received(plan: &Plan) -> Self {
        Self { counter: plan.counter, inputs: &[], send: &[] }
    }

    /// Proofs minted on a quote.
    pub(super) fn minted(quote: &Quote) -> Self {
        Self { counter: quote.counter, inputs: &[], send: &[] }
    }
}

/// How the act of an operation ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was done, and its proofs are stored: all of them in the order of the plan's outputs, and those
    /// that are `new` to the store, which the inventory learns of once the operation is booked.
    Kept { proofs: Vec<Proof>, new: Vec<ProofInfo> },
    /// Surely nothing happened: the mint refused, or the request was not sent.
    NotDone(MintError),
    /// Nobody knows; this is noted, and the journal tries again.
    Open(MintError),
}

impl Wallet {
    /// The end that all acts have in common which bring proofs: they are stored, or it is certain that
    /// there are none, or the operation stays open.
    ///
    /// # Errors
    /// When the store or, after a restart, the mint does not answer.
    pub(super) async fn finish_act(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        act: Act<'_>,
        standing: Standing,
        attempt: Attempt,
    ) -> Result<Ended, WalletError> {
        match standing {
            Standing::Done(proofs) => Ok(match self.keep(trusted, operation, act, proofs.clone(), attempt).await? {
                Some(new) => Ended::Kept { proofs, new },
                None => Ended::Open(MintError::Unknown(SPENT_AT_ONCE.to_owned())),
            }),
            Standing::NotSent(error) => Ok(Ended::NotDone(error)),
            // Of a client's proofs, the mint's answer to the only request that there was.
            Standing::Refused(Refusal::Spent) if act.inputs.is_empty() => {
                Ok(Ended::NotDone(MintError::Refused(Refusal::Spent)))
            }
            Standing::Denied | Standing::Refused(Refusal::Spent) => {
                Ok(match self.is_believed(operation, SPENT_ELSEWHERE, DENIED_MS).await? {
                    true => Ended::NotDone(MintError::Refused(Refusal::Spent)),
                    false => Ended::Open(MintError::Refused(Refusal::Spent)),
                })
            }
            Standing::RefusedAgain(refusal) => {
                let is_over = self.is_believed(operation, REFUSED_AGAIN, DENIED_MS).await?;
                let error = MintError::Refused(refusal);
                Ok(if is_over { Ended::NotDone(error) } else { Ended::Open(error) })
            }
            Standing::Refused(refusal) => Ok(Ended::NotDone(MintError::Refused(refusal))),
            Standing::Unknown(error) => {
                let (id, kind) = (&operation.id, operation.kind.as_str());
                tracing::warn!(operation = %id, kind, %error, "an operation is not decided yet");
                self.postpone(operation, State::Unknown, &error.to_string()).await?;
                Ok(Ended::Open(error))
            }
        }
    }

    /// Stores the proofs that an act brought, in place of those that it spent. Some may be there already:
    /// after a restart, or because another process took this one for dead and went on. No
    /// other operation touches them before this one is booked, so the others must be unspent. Returns what
    /// was stored now; `None` where the mint's word that some are spent is not taken yet.
    async fn keep(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        act: Act<'_>,
        proofs: Vec<Proof>,
        attempt: Attempt,
    ) -> Result<Option<Vec<ProofInfo>>, WalletError> {
        let id = operation_uuid(operation)?;
        let mut infos = proof_infos(&trusted.url, operation, act.counter, proofs)?;
        for (_, info) in infos.iter_mut().enumerate().filter(|(at, _)| act.send.contains(at)) {
            info.state = ProofState::Reserved;
            info.used_by_operation = Some(id);
        }
        if attempt == Attempt::First && self.was_taken_over(operation).await? {
            return Err(WalletError::Ecash("another process works on this operation".into()));
        }
        self.drop_stored(&mut infos).await?;
        if attempt == Attempt::Later && !infos.is_empty() {
            let states = trusted.http.states(infos.iter().map(|info| info.y).collect()).await?;
            if states.iter().any(|state| *state != ProofState::Unspent) {
                // Of a restored copy, they may have been given out and spent since.
                let is_copy = self.halted().is_some();
                if !is_copy && !self.is_believed(operation, SPENT_AT_ONCE, DENIED_MS).await? {
                    return Ok(None);
                }
                let mut states = states.into_iter();
                infos.retain(|_| states.next() == Some(ProofState::Unspent));
            }
        }
        self.inner.ecash.update_proofs(infos.clone(), swap::ys(act.inputs)?).await?;
        Ok(Some(infos))
    }

    /// Leaves those out that are stored. They may have been given away since, and must not become unspent again.
    pub(super) async fn drop_stored(&self, infos: &mut Vec<ProofInfo>) -> Result<(), WalletError> {
        // The store takes a question about no proofs for an error.
        if infos.is_empty() {
            return Ok(());
        }
        let stored = self.inner.ecash.get_proofs_by_ys(infos.iter().map(|info| info.y).collect()).await?;
        infos.retain(|info| stored.iter().all(|old| old.y != info.y));
        Ok(())
    }

    /// Credits the operation's amount to its account, and the `bonus` of a shared swap to the house,
    /// and ends the operation, in one transaction. What is kept of its plan, and its result, are the
    /// caller's. One that has ended is not credited again. Returns the account as it is then.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn credit(
        &self,
        operation: &Operation,
        bonus: Msat,
        (plan, result): (&str, &str),
        durability: Durability,
    ) -> Result<Account, WalletError> {
        let now_ms = self.clock().now_ms();
        let ledger = &self.inner.ledger;
        let mut tx = self.store().begin_short(durability).await?;
        let done = Step { state: State::Done, plan, result };
        if journal::advance(&mut tx, &operation.id, ledger.owner(), done, now_ms).await? {
            let mint = self.mint_account(&mut tx, &operation.mint, operation.unit, now_ms).await?;
            let income = ledger.house().income;
            let kind = operation.kind.into();
            let rest = TransferKind::Rounding;
            for (credit, amount, kind) in [(operation.account, operation.amount, kind), (income, bonus, rest)] {
                let id = ledger.next_id();
                let transfer = Transfer { id, debit: mint, credit, amount, kind, reference: &operation.id };
                books::transfer(&mut tx, transfer, now_ms).await?;
            }
            if let Some(source) = &operation.takes_back {
                journal::note_fate(&mut tx, source, Fate::Reclaiming, Fate::Reclaimed).await?;
            }
        }
        let account = books::find(tx.hand(), operation.account).await?;
        tx.commit().await?;
        account.ok_or_else(|| WalletError::Ecash("the account is gone".into()))
    }

    /// The account of the ecash at a mint.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn mint_account(
        &self,
        tx: &mut Tx,
        mint: &str,
        unit: MintUnit,
        now_ms: i64,
    ) -> Result<AccountId, StoreError> {
        house_account(tx, self.inner.ledger.next_id(), AccountKind::Mint, mint, unit.as_str(), now_ms).await
    }
}

/// New proofs as the ecash store keeps them, marked with the operation that brought them.
///
/// # Errors
/// When a secret does not hash to a point.
pub(super) fn proof_infos(
    url: &MintUrl,
    operation: &Operation,
    first_counter: u32,
    proofs: Vec<Proof>,
) -> Result<Vec<ProofInfo>, WalletError> {
    let id = operation_uuid(operation)?;
    let unit = currency(operation.unit);
    proofs
        .into_iter()
        .zip(first_counter..)
        .map(|(proof, counter)| {
            ProofInfo::new_with_operations(proof, url.clone(), ProofState::Unspent, unit.clone(), None, Some(id))
                .map(|info| info.with_derivation_index(counter))
                .map_err(|error| WalletError::Ecash(error.to_string()))
        })
        .collect()
}
