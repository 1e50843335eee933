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
use super::journal::{self, Kind, Operation, State, Step};
use super::{Trusted, Wallet, WalletError, currency};
use crate::ledger::account::house_account;
use crate::ledger::repo::{self as books, Transfer};
use crate::ledger::{Account, AccountId, AccountKind};
use crate::money::{MintUnit, Msat};
use crate::store::{Durability, StoreError, Tx};

impl Wallet {
    /// Stores the proofs that came in for an operation; the first derives from `first_counter`
    /// (NUT-13). After a restart (not `first`) some may be there already, or may even be spent
    /// again: then the mint says which are still worth something.
    ///
    /// # Errors
    /// When the store or, after a restart, the mint does not answer.
    pub(super) async fn keep_incoming(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        first_counter: u32,
        proofs: Vec<Proof>,
        first: bool,
    ) -> Result<(), WalletError> {
        let mut infos = proof_infos(&trusted.url, operation, first_counter, proofs)?;
        if !first {
            let ys: Vec<_> = infos.iter().map(|info| info.y).collect();
            let stored = self.inner.ecash.get_proofs_by_ys(ys.clone()).await?;
            let states = trusted.http.states(ys).await?;
            let unspent: Vec<bool> = states.iter().map(|state| *state == ProofState::Unspent).collect();
            let mut fresh = unspent.into_iter();
            infos.retain(|info| fresh.next() == Some(true) && stored.iter().all(|old| old.y != info.y));
        }
        self.inner.ecash.update_proofs(infos.clone(), Vec::new()).await?;
        self.stock(trusted, operation.unit, &infos).await;
        Ok(())
    }

    /// Credits the operation's amount to its account, and the `bonus` of a shared swap to the house,
    /// and ends the operation, in one transaction. One that has ended is not credited again. Returns
    /// the account as it is then.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn credit(&self, operation: &Operation, bonus: Msat) -> Result<Account, WalletError> {
        let now_ms = self.clock().now_ms();
        let ledger = &self.inner.ledger;
        let mut tx = self.store().begin(Durability::Full).await?;
        // The inputs of a swap are worth nothing any more; of an invoice, its payer wants to read.
        let plan = if operation.kind == Kind::TopUp { operation.plan.as_str() } else { "" };
        let done = Step { state: State::Done, plan, result: "" };
        if journal::advance(&mut tx, &operation.id, ledger.owner(), done, now_ms).await? {
            let mint = self.mint_account(&mut tx, &operation.mint, operation.unit, now_ms).await?;
            let income = ledger.house().income;
            let credits = [(operation.account, operation.amount, operation.kind.as_str()), (income, bonus, "rounding")];
            for (credit, amount, kind) in credits {
                let id = ledger.next_id();
                let transfer = Transfer { id, debit: mint, credit, amount, kind, reference: &operation.id };
                books::transfer(&mut tx, transfer, now_ms).await?;
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
