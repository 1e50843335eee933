//! Money that goes back in coins that are there: the three steps of [`super::give`] in one synced transaction. Nothing is
//! owed in between: a process that dies has done all of it, or nothing.

use cdk::nuts::PublicKey;

use super::change::{Change, RefundError, Source, returned};
use super::give::{Wanted, write_token};
use super::journal::{self, Operation, State};
use super::keysets::sum_proofs;
use super::{Trusted, Wallet, WalletError};
use crate::failpoint::failpoint;
use crate::money::Msat;
use crate::store::{Durability, Tx};

impl Wallet {
    /// Gives a balance back as a token of coins that make it exactly. `None`: there are none, or somebody else is at
    /// them; nothing has happened then.
    pub(super) async fn give_ready(&self, wanted: &Wanted<'_>) -> Result<Option<Change>, RefundError> {
        if !wanted.to.recipient.is_empty() || wanted.source != Source::Balance {
            return Ok(None);
        }
        let now_ms = self.clock().now_ms();
        let mut tx = self.store().begin_short(Durability::Full).await?;
        let operation = self.owe(&mut tx, wanted, now_ms).await?;
        let trusted = self.trusted(&operation.mint).ok_or(RefundError::MintGone)?;
        let owed = operation.unit.floor(operation.amount);
        let Some(ys) = trusted.take_ready(operation.unit, owed)? else { return Ok(None) };
        let unit = operation.unit;
        let given = self.give_these(tx, trusted, operation, &ys, now_ms).await;
        if !matches!(given, Ok(Some(_))) {
            // They are still here, as far as is known.
            self.recount(trusted, unit).await;
        }
        Ok(given?)
    }

    async fn give_these(
        &self,
        mut tx: Tx,
        trusted: &Trusted,
        mut operation: Operation,
        ys: &[PublicKey],
        now_ms: i64,
    ) -> Result<Option<Change>, WalletError> {
        // The ecash store is not asked for them: its connections are with those who wait until this ends.
        let Some(proofs) = journal::reserve_proofs(&mut tx, &operation.id, ys).await? else { return Ok(None) };
        if sum_proofs(&proofs) != operation.unit.floor(operation.amount) {
            return Ok(None);
        }
        operation.state = State::Done;
        operation.result = write_token(trusted, operation.unit, proofs);
        journal::insert(&mut tx, &mut operation, None, self.inner.ledger.owner(), now_ms).await?;
        self.let_go(&mut tx, &operation, Msat::ZERO, now_ms).await?;
        failpoint!("return.ready");
        tx.commit().await?;
        self.counts().change.note("ready");
        failpoint!("return.given");
        Ok(Some(returned(&operation)))
    }
}
