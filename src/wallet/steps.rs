//! The steps that all operations have in common, each one synced transaction.

use serde::Serialize;

use super::journal::{self, Operation, State, Step};
use super::{Wallet, WalletError};
use crate::store::Durability;

/// For how long a mint must say, and nothing else, what would cost somebody money.
pub(super) const DENIED_MS: i64 = 10 * 60 * 1000;
/// How the note of such a word begins; since when it has been said follows.
const DENIED: &str = "denied since ";

/// Whether the act of an operation is tried by the caller that has just written it, and never was before; or may have
/// been sent before. A refusal is the whole answer only where there was one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    First,
    Later,
}

impl Wallet {
    /// Whether a mint's word that would cost somebody money has stood for `for_ms`, and is taken for
    /// true. If not, it is noted, and the operation is looked at again later: one answer can be a
    /// mistake, a lie, or that of a mint that is just coming up.
    pub(super) async fn is_believed(
        &self,
        operation: &Operation,
        denial: &str,
        for_ms: i64,
    ) -> Result<bool, WalletError> {
        let now_ms = self.clock().now_ms();
        let since_ms = denied_since(&operation.result, denial, now_ms);
        if now_ms.saturating_sub(since_ms) >= for_ms {
            tracing::warn!(operation = %operation.id, mint = %operation.mint, denial, "a mint is taken at its word");
            return Ok(true);
        }
        tracing::warn!(operation = %operation.id, mint = %operation.mint, denial, "a mint's word is not taken yet");
        self.postpone(operation, State::Unknown, &format!("{DENIED}{since_ms} ms: {denial}")).await?;
        Ok(false)
    }

    /// Writes a new operation that moves no money yet.
    pub(super) async fn write_plain(&self, mut operation: Operation) -> Result<Operation, WalletError> {
        let mut tx = self.store().begin(Durability::Full).await?;
        journal::insert(&mut tx, &mut operation, None, self.inner.ledger.owner(), self.clock().now_ms()).await?;
        tx.commit().await?;
        Ok(operation)
    }

    /// The operation as it is now.
    pub(super) async fn find_operation(&self, id: &str) -> Result<Option<Operation>, WalletError> {
        let mut reader = self.store().read().acquire().await?;
        Ok(journal::find(&mut *reader, id).await?)
    }

    /// The operation as it is now, to be worked on by this process. `None` when it has ended.
    ///
    /// # Errors
    /// When another process works on it.
    pub(super) async fn reopen(&self, operation: &Operation) -> Result<Option<Operation>, WalletError> {
        // Read afterwards: until then, another process may write to it.
        let ours = self.adopt(operation).await?;
        match self.find_operation(&operation.id).await?.filter(|now| now.state.is_open()) {
            Some(_) if !ours => Err(WalletError::Ecash("another process is working on it".into())),
            now => Ok(now),
        }
    }

    /// Whether this process may work on an operation; see [`journal::adopt`].
    pub(super) async fn adopt(&self, operation: &Operation) -> Result<bool, WalletError> {
        let mut tx = self.store().begin(Durability::Full).await?;
        let ours = journal::adopt(&mut tx, &operation.id, self.inner.ledger.owner(), self.dead_before_ms()).await?;
        tx.commit().await?;
        Ok(ours)
    }

    /// Writes down the act of an operation, before it.
    ///
    /// # Errors
    /// When the operation has ended, or is another process's: the act must not happen then.
    pub(super) async fn write_plan<T: Serialize>(&self, operation: &Operation, plan: &T) -> Result<(), WalletError> {
        let plan = write_json(plan)?;
        let ours = self.advance(operation, Step { state: State::Acting, plan: &plan, result: "" }).await?;
        if ours { Ok(()) } else { Err(WalletError::Ecash("another process finished this operation".into())) }
    }

    /// Ends an operation that moved no money, and surely will not.
    pub(super) async fn fail(&self, operation: &Operation, why: &str) -> Result<(), WalletError> {
        let step = Step { state: State::Failed, plan: &operation.plan, result: why };
        self.advance(operation, step).await.map(drop)
    }

    /// Takes an operation a step further, where nothing else is written with it. Whether it was this process's to take;
    /// see [`journal::advance`].
    pub(super) async fn advance(&self, operation: &Operation, step: Step<'_>) -> Result<bool, WalletError> {
        let mut tx = self.store().begin_short(Durability::Full).await?;
        let owner = self.inner.ledger.owner();
        let ours = journal::advance(&mut tx, &operation.id, owner, step, self.clock().now_ms()).await?;
        tx.commit().await?;
        Ok(ours)
    }

    /// Notes that an attempt ended without an outcome; see [`journal::postpone`].
    pub(super) async fn postpone(&self, operation: &Operation, state: State, why: &str) -> Result<(), WalletError> {
        let mut tx = self.store().begin(Durability::Full).await?;
        journal::postpone(&mut tx, operation, self.inner.ledger.owner(), state, why, self.clock().now_ms()).await?;
        Ok(tx.commit().await?)
    }

    /// Looks at an operation later that has failed before anything was known of it: others are due too.
    pub(super) async fn put_off(&self, operation: &Operation) {
        let written = async {
            let mut tx = self.store().begin(Durability::Full).await?;
            journal::put_off(&mut tx, operation, self.inner.ledger.owner(), self.clock().now_ms()).await?;
            tx.commit().await
        };
        if let Err(error) = written.await {
            tracing::warn!(operation = %operation.id, %error, "an operation stays due");
        }
    }

    /// Whether another process has taken this one for dead, and gone on with its operation or ended it.
    pub(super) async fn was_taken_over(&self, operation: &Operation) -> Result<bool, WalletError> {
        if !self.store().is_shared() {
            return Ok(false);
        }
        let now = self.find_operation(&operation.id).await?;
        Ok(now.is_none_or(|now| !now.state.is_open() || now.owner != self.inner.ledger.owner()))
    }

    /// Processes that were not seen since then are dead.
    pub(super) fn dead_before_ms(&self) -> i64 {
        self.inner.ledger.dead_before_ms()
    }
}

/// Since when the last answers to an operation have been this denial, in ms: since now where they were not, and where
/// the clock that noted them was ahead.
fn denied_since(note: &str, denial: &str, now_ms: i64) -> i64 {
    let noted = note.strip_prefix(DENIED).and_then(|note| note.split_once(" ms: "));
    let since = noted.filter(|(_, noted)| *noted == denial).and_then(|(since, _)| since.parse().ok());
    since.map_or(now_ms, |since: i64| since.min(now_ms))
}

/// A plan as the journal keeps it.
pub(super) fn write_json<T: Serialize>(value: &T) -> Result<String, WalletError> {
    serde_json::to_string(value).map_err(|error| WalletError::Ecash(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_of_a_denial_says_since_when() {
        let note = format!("{DENIED}17 ms: the inputs are spent");
        assert_eq!(denied_since(&note, "the inputs are spent", 20), 17);
        assert_eq!(denied_since(&note, "the inputs are spent", 10), 10, "the clock was ahead");
        assert_eq!(denied_since(&note, "it is not paid", 20), 20, "another word");
        for other in ["", "no answer in time", "denied since yesterday"] {
            assert_eq!(denied_since(other, "the inputs are spent", 20), 20, "{other}");
        }
    }
}
