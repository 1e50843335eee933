//! Ecash that came in for an operation: kept first, then booked.
//!
//! Whatever brought it (a token, a paid invoice), two steps end it: [`Wallet::keep_incoming`] stores
//! the proofs, marked with the operation, and [`Wallet::credit`] books them in one synced
//! transaction with the outcome. A process that dies in between leaves proofs without credit, and an
//! open operation whose next attempt finds them.

use cdk::mint_url::MintUrl;
use cdk::nuts::{Proof, State as ProofState};
use cdk_common::wallet::ProofInfo;

use super::change::operation_uuid;
use super::journal::{self, Fate, Kind, Operation, State, Step};
use super::refusal::MintError;
use super::steps::DENIED_MS;
use super::{Trusted, Wallet, WalletError, currency};
use crate::ledger::account::house_account;
use crate::ledger::repo::{self as books, Transfer};
use crate::ledger::{Account, AccountId, AccountKind};
use crate::money::MintUnit;
use crate::store::{Durability, StoreError, Tx};

impl Wallet {
    /// Stores the proofs that came in for an operation; the first derives from `first_counter`
    /// (NUT-13). After a restart (not `first`) some may be there already. No other operation touches
    /// them before this one is booked, so the others must be unspent. Returns what was stored now.
    ///
    /// # Errors
    /// When the store or, after a restart, the mint does not answer, or says that they are spent.
    pub(super) async fn keep_incoming(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        first_counter: u32,
        proofs: Vec<Proof>,
        first: bool,
    ) -> Result<Vec<ProofInfo>, WalletError> {
        let mut infos = proof_infos(&trusted.url, operation, first_counter, proofs)?;
        if !first {
            let stored = self.inner.ecash.get_proofs_by_ys(infos.iter().map(|info| info.y).collect()).await?;
            infos.retain(|info| stored.iter().all(|old| old.y != info.y));
            let states = trusted.http.states(infos.iter().map(|info| info.y).collect()).await?;
            if states.iter().any(|state| *state != ProofState::Unspent) {
                let denial = "proofs that it has just signed are spent";
                if !self.is_believed(operation, denial, DENIED_MS).await? {
                    return Err(MintError::Unknown(denial.into()).into());
                }
                let mut states = states.into_iter();
                infos.retain(|_| states.next() == Some(ProofState::Unspent));
            }
        }
        self.inner.ecash.update_proofs(infos.clone(), Vec::new()).await?;
        Ok(infos)
    }

    /// Credits the operation's amount to its account and ends the operation, in one transaction.
    /// One that has ended is not credited again. Returns the account as it is then.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn credit(&self, operation: &Operation) -> Result<Account, WalletError> {
        let now_ms = self.clock().now_ms();
        let ledger = &self.inner.ledger;
        let mut tx = self.store().begin(Durability::Full).await?;
        // The inputs of a swap are worth nothing any more; of an invoice, its payer wants to read.
        let plan = if operation.kind == Kind::TopUp { operation.plan.as_str() } else { "" };
        let done = Step { state: State::Done, plan, result: "" };
        if journal::advance(&mut tx, &operation.id, ledger.owner(), done, now_ms).await? {
            let mint = self.mint_account(&mut tx, &operation.mint, operation.unit, now_ms).await?;
            let transfer = Transfer {
                id: ledger.next_id(),
                debit: mint,
                credit: operation.account,
                amount: operation.amount,
                kind: if operation.takes_back.is_some() { "unclaimed" } else { operation.kind.as_str() },
                reference: &operation.id,
            };
            books::transfer(&mut tx, transfer, now_ms).await?;
            if let Some(source) = &operation.takes_back {
                journal::note_fate(&mut tx, source, Fate::Sweeping, Fate::Swept).await?;
            }
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
