//! What a node does first when its database is older than what was done with it.
//!
//! Such a copy believes in ecash that was spent since, does not know the ecash that came since, and
//! would derive outputs that mints have signed before. So before any money moves, everything that a
//! mint can witness is taken from the mints:
//!
//! 1. Operations that were open are ended by evidence (`operations`). Nothing is sent again: what
//!    is not known to have happened is put back on its account.
//! 2. Outputs that mints have signed are asked for again (NUT-09, NUT-13), counter by counter until
//!    long after the last one: ecash that came since is found, and no counter is used twice (`scan`).
//! 3. Every proof is shown to its mint (NUT-07). What was spent is marked so.
//! 4. What is left is exchanged for new proofs (`renew`): the original may have given some of the
//!    old ones away in tokens that nobody has spent yet, and no proof may be given twice.
//! 5. The ledger is brought in line with the ecash, visibly: what is missing is borne by the house,
//!    what was found is owed to clients that this copy does not know. One transfer each per mint and
//!    unit, of the kind `recovery`, in the transaction that ends the recovery.
//!
//! Steps 1 to 4 find out how things are, so after a crash in any of them they are all simply taken
//! again; step 5 happens once. A mint that does not answer leaves the recovery undone, and the node
//! serves nothing that costs money until it is done.
//!
//! What no mint can tell is what clients spent and were paid back since: their balances may be too
//! high. The operator is told so.

mod operations;
mod renew;
mod repo;
mod scan;

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use cdk::nuts::State;
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;

use super::holdings::{Holdings, PurseId, canonical};
use super::refusal::{MintError, Refusal};
use super::{Trusted, Wallet, WalletError};
use crate::ledger::account::house_account;
use crate::ledger::repo::{self as books, Transfer};
use crate::ledger::{AccountId, AccountKind, TransferKind};
use crate::money::{MintUnit, Msat};
use crate::store::{Durability, StoreError, Tx};

/// Proofs or outputs in one question to a mint.
const AT_A_TIME: usize = 200;
/// How long whoever recovers has for its next step, in ms.
const LEASE_MS: i64 = 180_000;
/// Longest pause that a mint may ask for, in seconds.
const MOST_PATIENCE_SECS: u64 = 120;

/// Whether money may move, and why not.
#[derive(Debug, Default)]
pub(super) struct Halt(RwLock<Option<String>>);

/// What came of a recovery, in msat and in numbers of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    pub id: String,
    pub reason: String,
    pub purses: Vec<Difference>,
    /// Operations that were open, and were ended.
    pub operations: usize,
    /// Proofs that the copy did not know.
    pub found: usize,
    /// Proofs that the copy took for unspent, and that were spent.
    pub spent: usize,
    /// When it was done; 0 before.
    #[serde(default)]
    pub ended_ms: i64,
}

/// What the ledger was off by, at one mint and in one unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub mint: String,
    pub unit: String,
    /// Borne by the house.
    pub missing_msat: i64,
    /// Owed to clients that are not known.
    pub found_msat: i64,
}

/// Why a recovery is not done yet.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("{mint} cannot be asked: {error}")]
    Silent { mint: String, error: MintError },
    /// Something of the original's is on its way there.
    #[error("{0} has not decided on some of the ecash yet")]
    Pending(String),
    #[error("another process is at it")]
    Busy,
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

impl From<StoreError> for RecoveryError {
    fn from(error: StoreError) -> Self {
        Self::Wallet(error.into())
    }
}

impl From<cdk_common::database::Error> for RecoveryError {
    fn from(error: cdk_common::database::Error) -> Self {
        Self::Wallet(error.into())
    }
}

impl Halt {
    fn set(&self, why: Option<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn get(&self) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why a recovery is due, if one is.
///
/// # Errors
/// When the database does not answer.
pub async fn due(connection: &mut AnyConnection) -> Result<Option<String>, StoreError> {
    Ok(repo::pending(connection).await?.map(|(_, reason)| reason))
}

impl Wallet {
    /// Why no money may move now, if it may not.
    #[must_use]
    pub fn halted(&self) -> Option<String> {
        self.inner.halt.get()
    }

    /// Lets no more money move.
    pub fn halt(&self, why: &str) {
        self.inner.halt.set(Some(why.to_owned()));
    }

    /// Lets no money move while a recovery is due.
    pub(super) async fn halt_if_restored(&self) -> Result<(), WalletError> {
        let mut reader = self.store().read().acquire().await?;
        if repo::pending(&mut reader).await?.is_some() {
            self.halt("this node was restored from a copy, and is finding out which of its ecash was spent since");
        }
        Ok(())
    }

    /// The recovery that was done last.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn last_recovery(&self) -> Result<Option<Recovered>, WalletError> {
        let mut reader = self.store().read().acquire().await?;
        Ok(repo::last(&mut reader).await?)
    }

    /// Does the recovery that is due, and lets money move again. `None`: none was due.
    ///
    /// # Errors
    /// When it is not done yet; it can be tried again at any time.
    pub async fn recover(&self) -> Result<Option<Recovered>, RecoveryError> {
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        let due = repo::pending(&mut reader).await?;
        drop(reader);
        let Some((id, reason)) = due else {
            self.inner.halt.set(None);
            return Ok(None);
        };
        let mut done = Recovered { id, reason, ..Recovered::default() };
        self.hold_on(&done.id).await?;
        for (url, trusted) in &self.inner.mints {
            let silent = |error: WalletError| silent(url, error);
            trusted.keysets.refresh_unless_changed(trusted.keysets.version()).await.map_err(silent)?;
        }
        self.free_leftovers().await?;
        done.operations = self.end_operations(&done.id).await?;
        for trusted in self.inner.mints.values() {
            done.found = done.found.saturating_add(self.scan(trusted, &done.id).await?);
            done.spent = done.spent.saturating_add(self.mark_spent(trusted, &done.id).await?);
            self.renew(trusted, &done.id).await?;
            for unit in [MintUnit::Sat, MintUnit::Msat] {
                self.recount(trusted, unit).await;
            }
        }
        self.bring_in_line(&mut done).await?;
        self.inner.halt.set(None);
        Ok(Some(done))
    }

    /// Keeps others from recovering at the same time.
    async fn hold_on(&self, id: &str) -> Result<(), RecoveryError> {
        let now_ms = self.clock().now_ms();
        let mut tx = self.store().begin(Durability::Full).await?;
        let until = now_ms.saturating_add(LEASE_MS);
        let ours = repo::claim(&mut tx, id, self.inner.ledger.owner(), now_ms, until).await?;
        tx.commit().await?;
        if ours { Ok(()) } else { Err(RecoveryError::Busy) }
    }

    /// Step 3.
    async fn mark_spent(&self, trusted: &Trusted, id: &str) -> Result<usize, RecoveryError> {
        let unspent = Some(vec![State::Unspent]);
        let proofs = self.inner.ecash.get_proofs(Some(trusted.url.clone()), None, unspent, None).await?;
        let ys: Vec<_> = proofs.iter().map(|info| info.y).collect();
        let mut spent = Vec::new();
        for batch in ys.chunks(AT_A_TIME) {
            let states = self.states(trusted, id, batch.to_vec()).await?;
            spent.extend(batch.iter().zip(states).filter(|(_, state)| *state == State::Spent).map(|(y, _)| *y));
        }
        for batch in spent.chunks(AT_A_TIME) {
            self.inner.ecash.update_proofs_state(batch.to_vec(), State::Spent).await?;
        }
        Ok(spent.len())
    }

    /// The states of proofs, none of which may be pending: it is not known what becomes of it.
    async fn states(
        &self,
        trusted: &Trusted,
        id: &str,
        ys: Vec<cdk::nuts::PublicKey>,
    ) -> Result<Vec<State>, RecoveryError> {
        let states = self.patiently(trusted, id, || trusted.http.states(ys.clone())).await?;
        if states.iter().any(|state| !matches!(state, State::Spent | State::Unspent)) {
            return Err(RecoveryError::Pending(trusted.http.url().to_owned()));
        }
        Ok(states)
    }

    /// Asks a mint, and waits where it wants its callers to.
    async fn patiently<T, F: Future<Output = Result<T, MintError>>>(
        &self,
        trusted: &Trusted,
        id: &str,
        ask: impl Fn() -> F,
    ) -> Result<T, RecoveryError> {
        self.hold_on(id).await?;
        let mint = || trusted.http.url().to_owned();
        match ask().await {
            Ok(answer) => Ok(answer),
            Err(MintError::Refused(Refusal::RateLimited(secs))) => {
                tokio::time::sleep(std::time::Duration::from_secs(secs.min(MOST_PATIENCE_SECS))).await;
                ask().await.map_err(|error| RecoveryError::Silent { mint: mint(), error })
            }
            Err(error) => Err(RecoveryError::Silent { mint: mint(), error }),
        }
    }

    /// Step 5.
    async fn bring_in_line(&self, done: &mut Recovered) -> Result<(), RecoveryError> {
        let now_ms = self.clock().now_ms();
        done.ended_ms = now_ms;
        let mut tx = self.store().begin(Durability::Full).await?;
        let holdings = Holdings::read(&mut tx.hand()).await?;
        let mut ledger: BTreeMap<PurseId, (AccountId, i64)> = BTreeMap::new();
        for (account, mint, unit, msat) in repo::ecash(&mut tx).await? {
            ledger.insert((canonical(&mint), unit), (account, msat));
        }
        let mut purses: Vec<PurseId> = ledger.keys().chain(holdings.purses.keys()).cloned().collect();
        purses.sort();
        purses.dedup();
        for purse in purses {
            let (held, ahead) = holdings.purses.get(&purse).map_or((0, 0), |found| {
                let (low, high) = found.ahead;
                (found.held, 0_i64.clamp(low.min(high), high.max(low)))
            });
            let booked = ledger.get(&purse).map_or(0, |(_, msat)| *msat);
            let surplus = held.saturating_sub(ahead).saturating_sub(booked);
            if surplus != 0 {
                let account = ledger.get(&purse).map(|(account, _)| *account);
                let difference = self.post(&mut tx, &done.id, &purse, account, surplus, now_ms).await?;
                done.purses.push(difference);
            }
        }
        let report = serde_json::to_string(done).map_err(|error| WalletError::Ecash(error.to_string()))?;
        if !repo::end(&mut tx, &done.id, &report, now_ms).await? {
            return Err(RecoveryError::Busy);
        }
        Ok(tx.commit().await?)
    }

    async fn post(
        &self,
        tx: &mut Tx,
        recovery: &str,
        (mint, unit): &PurseId,
        account: Option<AccountId>,
        surplus: i64,
        now_ms: i64,
    ) -> Result<Difference, RecoveryError> {
        let out_of_range = || StoreError::Inconsistent { table: "proof", what: format!("a surplus of {surplus}") };
        let ledger = &self.inner.ledger;
        let configured = self.inner.order.iter().find(|url| canonical(url) == *mint);
        let mint = configured.map_or(mint.as_str(), String::as_str);
        let ecash = match account {
            Some(account) => account,
            None => house_account(tx, ledger.next_id(), AccountKind::Mint, mint, unit, now_ms).await?,
        };
        let amount = i64::try_from(surplus.unsigned_abs()).ok().and_then(Msat::from_db).ok_or_else(out_of_range)?;
        let kind = if surplus > 0 { AccountKind::Change } else { AccountKind::MintFees };
        let house = house_account(tx, ledger.next_id(), kind, mint, unit, now_ms).await?;
        let (debit, credit) = if surplus > 0 { (ecash, house) } else { (house, ecash) };
        let (id, kind) = (ledger.next_id(), TransferKind::Recovery);
        let transfer = Transfer { id, debit, credit, amount, kind, reference: recovery };
        books::transfer(tx, transfer, now_ms).await?;
        Ok(Difference {
            mint: mint.to_owned(),
            unit: unit.clone(),
            missing_msat: surplus.min(0).saturating_neg(),
            found_msat: surplus.max(0),
        })
    }
}

fn silent(mint: &str, error: WalletError) -> RecoveryError {
    match error {
        WalletError::Mint(error) => RecoveryError::Silent { mint: mint.to_owned(), error },
        other => RecoveryError::Wallet(other),
    }
}
