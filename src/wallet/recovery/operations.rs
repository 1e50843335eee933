//! Operations that were open when the copy was made: the original may have finished them since, in
//! this way or in another. They are ended by what the mint can witness, and nothing is sent again.

use cdk::nuts::{MintQuoteState, Proof, State as ProofState};

use super::super::incoming::{Act, Ended};
use super::super::journal::{self, Kind, Operation};
use super::super::outputs::Signed;
use super::super::plan::Plan;
use super::super::refusal::{MintError, Refusal};
use super::super::steps::{Attempt, write_json};
use super::super::swap::{self, Standing};
use super::super::{Trusted, Wallet, melt, quote, redeem};
use super::{RecoveryError, silent};
use crate::money::Msat;
use crate::store::{Durability, StoreError};

const UNKNOWN: &str = "the node was restored from a copy, and nothing shows that this was done";

impl Wallet {
    /// Ends what is open, as far as it can be known. Returns how many have ended.
    pub(super) async fn end_operations(&self, recovery: &str) -> Result<usize, RecoveryError> {
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        let open = journal::all_open(&mut *reader).await?;
        drop(reader);
        let mut ended: usize = 0;
        for operation in open {
            self.hold_on(recovery).await?;
            let Some(trusted) = self.trusted(&operation.mint) else {
                tracing::error!(operation = %operation.id, mint = %operation.mint, "an operation is open at a mint that is not configured any more");
                continue;
            };
            let Some(operation) = self.reopen(&operation).await? else { continue };
            let over = match operation.kind {
                Kind::Redeem | Kind::Reclaim => self.end_redemption(trusted, &operation).await?,
                Kind::TopUp => self.end_topup(trusted, &operation).await?,
                Kind::Consolidate => self.end_consolidation(trusted, &operation).await?,
                Kind::Change | Kind::Refund | Kind::Expiry | Kind::Payout => {
                    self.end_return(trusted, &operation).await?
                }
            };
            ended = ended.saturating_add(usize::from(over));
        }
        Ok(ended)
    }

    /// Credited where the mint has signed its outputs; else the token is its owner's to present again.
    async fn end_redemption(&self, trusted: &Trusted, operation: &Operation) -> Result<bool, RecoveryError> {
        let plan = match Plan::of(operation) {
            // What its mint is to pay is paid once, and what that brings is minted once: where it is not yet, it goes on.
            Plan::Import(import) => {
                let kept = write_json(&import.clone().spent())?;
                return self.end_minting(trusted, operation, &import.quote, &kept).await;
            }
            Plan::Swap(plan) => plan,
            _ => return Err(operation.unreadable().into()),
        };
        let standing = match self.trace(trusted, &plan).await? {
            Some(Standing::Unknown(error)) => return self.leave_open(trusted, &plan.inputs, error).await,
            Some(standing) => standing,
            None => Standing::Refused(Refusal::Other(UNKNOWN.to_owned())),
        };
        match self.finish_redemption(trusted, operation, &plan, standing, Attempt::Later).await {
            Err(redeem::RedeemError::Wallet(error)) => Err(silent(trusted.http.url(), error)),
            _ => Ok(true),
        }
    }

    /// Given up where nobody saw an invoice.
    async fn end_topup(&self, trusted: &Trusted, operation: &Operation) -> Result<bool, RecoveryError> {
        if operation.plan.is_empty() {
            self.fail(operation, UNKNOWN).await?;
            return Ok(true);
        }
        let quote = operation.quote()?;
        self.end_minting(trusted, operation, &quote, &operation.plan).await
    }

    /// Credited where the mint says that it was issued: the quote is locked to this wallet. One that
    /// is not paid, or not issued, goes on waiting; it can be issued once. `kept` is what stays of the plan.
    async fn end_minting(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        quote: &quote::Quote,
        kept: &str,
    ) -> Result<bool, RecoveryError> {
        if !quote.outputs.is_empty() {
            let signed = quote.outputs(&self.inner.seed)?.restore(&trusted.http, &trusted.keysets).await?;
            match signed {
                Signed::Proofs(proofs) => {
                    let done = Standing::Done(proofs);
                    return match self.finish_act(trusted, operation, Act::minted(quote), done, Attempt::Later).await? {
                        Ended::Kept { .. } => {
                            self.credit(operation, Msat::ZERO, (kept, ""), Durability::Full).await?;
                            Ok(true)
                        }
                        _ => Ok(false),
                    };
                }
                Signed::None => {}
                Signed::Unknown(error) => return Err(silent(trusted.http.url(), error.into())),
            }
        }
        match quote::state(&trusted.http, quote).await {
            // With other outputs, which the scan finds.
            Ok(MintQuoteState::Issued) => {
                self.credit(operation, Msat::ZERO, (kept, ""), Durability::Full).await?;
                Ok(true)
            }
            Ok(_) | Err(MintError::Refused(_)) => Ok(false),
            Err(error) => Err(silent(trusted.http.url(), error.into())),
        }
    }

    /// Done where the mint has exchanged the coins; else it has not happened. What was spent meanwhile is
    /// found with all other coins.
    async fn end_consolidation(&self, trusted: &Trusted, operation: &Operation) -> Result<bool, RecoveryError> {
        if operation.plan.is_empty() {
            self.undo_consolidation(trusted, operation, UNKNOWN, Vec::new()).await?;
            return Ok(true);
        }
        let plan = operation.swap_plan()?;
        match self.trace(trusted, &plan).await? {
            Some(Standing::Unknown(error)) => Err(silent(trusted.http.url(), error.into())),
            Some(done @ Standing::Done(_)) => {
                self.finish_consolidation(trusted, operation, &plan, done, Attempt::Later).await?;
                Ok(true)
            }
            _ => {
                self.undo_consolidation(trusted, operation, UNKNOWN, Vec::new()).await?;
                Ok(true)
            }
        }
    }

    /// Done where the mint has signed or paid what was planned; else the money is back on its
    /// account. A payment that the mint has under way stays open.
    async fn end_return(&self, trusted: &Trusted, operation: &Operation) -> Result<bool, RecoveryError> {
        if operation.plan.is_empty() {
            self.put_back(trusted, operation, UNKNOWN).await?;
            return Ok(true);
        }
        if operation.recipient.is_empty() {
            let plan = operation.swap_plan()?;
            return match self.trace(trusted, &plan).await? {
                // It must be known: a swap that was sent again later could pay what was put back.
                Some(Standing::Unknown(error)) => Err(silent(trusted.http.url(), error.into())),
                Some(done @ Standing::Done(_)) => {
                    self.finish_swap(trusted, operation, &plan, done, Attempt::Later).await?;
                    Ok(true)
                }
                Some(Standing::Refused(_) | Standing::RefusedAgain(_) | Standing::Denied | Standing::NotSent(_))
                | None => {
                    self.put_back(trusted, operation, UNKNOWN).await?;
                    Ok(true)
                }
            };
        }
        let plan = operation.melt_plan()?;
        match melt::resolve(&trusted.http, &trusted.keysets, &self.inner.seed, &plan, None).await? {
            melt::Standing::Paid { change, preimage } => {
                self.book_payment(trusted, operation, &plan, change, &preimage).await?;
                Ok(true)
            }
            melt::Standing::Unpaid(_) | melt::Standing::Denied => {
                self.put_back(trusted, operation, UNKNOWN).await?;
                Ok(true)
            }
            melt::Standing::NotSent(error) => Err(silent(trusted.http.url(), error.into())),
            melt::Standing::Unknown(error) => self.leave_open(trusted, &plan.inputs, error).await,
        }
    }

    /// The mint has not said what came of an operation. It may stay open while its inputs are not spent, for nothing has
    /// come of it then, and somebody may let a payment hang for as long as they like. Otherwise that must be known first:
    /// the scan would find what came of it, and it would be booked now and once more when the operation ends.
    async fn leave_open(&self, trusted: &Trusted, inputs: &[Proof], error: MintError) -> Result<bool, RecoveryError> {
        let silent = |error: MintError| silent(trusted.http.url(), error.into());
        let states = trusted.http.states(swap::ys(inputs)?).await.map_err(silent)?;
        if states.contains(&ProofState::Spent) { Err(silent(error)) } else { Ok(false) }
    }

    /// What a mint shows of a swap. `None`: nothing of it ever happened.
    async fn trace(&self, trusted: &Trusted, plan: &swap::Plan) -> Result<Option<Standing>, RecoveryError> {
        Ok(swap::look(&trusted.http, &trusted.keysets, &self.inner.seed, plan).await?)
    }
}
