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
use super::journal::{self, Operation, State, Step};
use super::quote::Quote;
use super::refusal::{MintError, Refusal};
use super::swap::{self, Plan, Standing};
use super::{Trusted, Wallet, WalletError, currency};
use crate::ledger::account::house_account;
use crate::ledger::repo::{self as books, Transfer};
use crate::ledger::{Account, AccountId, AccountKind};
use crate::money::MintUnit;
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
    /// It was done, and its proofs are stored. In the order of the plan's outputs.
    Kept(Vec<Proof>),
    /// Surely nothing happened: the mint said why, or was never reached.
    NotDone(Option<Refusal>),
    /// Nobody knows; this is noted, and the journal tries again.
    Open(MintError),
}

impl Wallet {
    /// The end that all acts have in common which bring proofs: they are stored, or it is certain that
    /// there are none, or the operation stays open. `first` says that the act was sent just now, and
    /// never before.
    ///
    /// # Errors
    /// When the store or, after a restart, the mint does not answer.
    pub(super) async fn finish_act(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        act: Act<'_>,
        standing: Standing,
        first: bool,
    ) -> Result<Ended, WalletError> {
        match standing {
            Standing::Done(proofs) => {
                self.keep(trusted, operation, act, proofs.clone(), first).await?;
                Ok(Ended::Kept(proofs))
            }
            Standing::Refused(refusal) => Ok(Ended::NotDone(Some(refusal))),
            Standing::Unknown(MintError::NotSent) if first => Ok(Ended::NotDone(None)),
            Standing::Unknown(error) => {
                let (id, kind) = (&operation.id, operation.kind.as_str());
                tracing::warn!(operation = %id, kind, %error, "an operation is not decided yet");
                self.postpone(operation, State::Unknown, &error.to_string()).await?;
                Ok(Ended::Open(error))
            }
        }
    }

    /// Stores the proofs that an act brought, in place of those that it spent. After a restart (not
    /// `first`) some may be there already, or may even be spent again: then the mint says which are
    /// still worth something.
    async fn keep(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        act: Act<'_>,
        proofs: Vec<Proof>,
        first: bool,
    ) -> Result<(), WalletError> {
        let id = operation_uuid(operation)?;
        let mut infos = proof_infos(&trusted.url, operation, act.counter, proofs)?;
        for (_, info) in infos.iter_mut().enumerate().filter(|(at, _)| act.send.contains(at)) {
            info.state = ProofState::Reserved;
            info.used_by_operation = Some(id);
        }
        if !first {
            let stored = self.inner.ecash.get_proofs_by_ys(infos.iter().map(|info| info.y).collect()).await?;
            infos.retain(|info| stored.iter().all(|old| old.y != info.y));
        }
        if !first && !infos.is_empty() {
            let states = trusted.http.states(infos.iter().map(|info| info.y).collect()).await?;
            let mut states = states.into_iter();
            infos.retain(|_| states.next() == Some(ProofState::Unspent));
        }
        self.inner.ecash.update_proofs(infos.clone(), swap::ys(act.inputs)?).await?;
        self.stock(trusted, operation.unit, &infos).await;
        Ok(())
    }

    /// Credits the operation's amount to its account and ends the operation, in one transaction. What
    /// is kept of its plan, and its result, are the caller's. One that has ended is not credited again.
    /// Returns the account as it is then.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn credit(&self, operation: &Operation, plan: &str, result: &str) -> Result<Account, WalletError> {
        let now_ms = self.clock().now_ms();
        let ledger = &self.inner.ledger;
        let mut tx = self.store().begin(Durability::Full).await?;
        let done = Step { state: State::Done, plan, result };
        if journal::advance(&mut tx, &operation.id, ledger.owner(), done, now_ms).await? {
            let mint = self.mint_account(&mut tx, &operation.mint, operation.unit, now_ms).await?;
            let transfer = Transfer {
                id: ledger.next_id(),
                debit: mint,
                credit: operation.account,
                amount: operation.amount,
                kind: operation.kind.as_str(),
                reference: &operation.id,
            };
            books::transfer(&mut tx, transfer, now_ms).await?;
        }
        let account = books::find(&mut tx, operation.account).await?;
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
