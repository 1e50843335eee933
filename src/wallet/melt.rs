//! A payment over Lightning with ecash (NUT-05, NUT-08, NUT-23) that can be finished whatever
//! happens.
//!
//! The mint pays a quote once, so the same melt can be sent again. What the payment did not use
//! comes back on blank outputs, whose counters are in the [`Plan`] that the journal stores before
//! the mint hears of it.

use cdk::nuts::{BlindSignature, MeltQuoteState, MeltRequest, Proof, State};
use serde::{Deserialize, Serialize};

use super::keysets::Keysets;
use super::mint::HttpMint;
use super::outputs::{Outputs, Signed};
use super::refusal::{MintError, Refusal};
use super::{Seed, WalletError, swap};

/// Everything about one payment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The mint's name for the payment.
    pub quote: String,
    pub inputs: Vec<Proof>,
    /// Keyset of the blank outputs.
    pub keyset: String,
    /// NUT-13 counter of the first of them.
    pub counter: u32,
    pub blanks: usize,
    /// What the recipient gets, in units.
    pub amount: u64,
    /// What the inputs are worth, in units.
    pub total: u64,
    /// NUT-02 fee of the inputs, in units.
    pub input_fee: u64,
}

/// How a payment that was sent (once or more) stands.
#[derive(Debug)]
pub enum Standing {
    /// Paid; this came back, in the order of the outputs.
    Paid { change: Vec<Proof>, preimage: String },
    /// Not paid: the quote is unpaid and the inputs are unspent. With the mint's refusal, if that is
    /// its answer to the request that was just sent.
    Unpaid(Option<Refusal>),
    /// The inputs were spent by somebody else.
    Spent,
    /// Nobody knows. Try again later.
    Unknown(MintError),
}

impl Plan {
    fn blank_outputs(&self, seed: &Seed) -> Result<Outputs, WalletError> {
        Outputs::derive(seed, &self.keyset, self.counter, &vec![0; self.blanks])
    }

    /// The most that can come back, in units.
    fn most_change(&self) -> u64 {
        self.total.saturating_sub(self.amount).saturating_sub(self.input_fee)
    }
}

/// Blank outputs enough for any change up to `units`.
#[must_use]
pub fn blanks_for(units: u64) -> usize {
    usize::try_from(u64::BITS.saturating_sub(units.leading_zeros())).unwrap_or(0)
}

/// Sends the payment, for the first time or again.
///
/// # Errors
/// When the plan itself is unusable; what the mint says is in the [`Standing`].
pub async fn send(mint: &HttpMint, keysets: &Keysets, seed: &Seed, plan: &Plan) -> Result<Standing, WalletError> {
    let outputs = plan.blank_outputs(seed)?;
    let messages = Some(outputs.messages()).filter(|messages| !messages.is_empty());
    let request = MeltRequest::new(plan.quote.clone(), plan.inputs.clone(), messages);
    match mint.melt(&request).await {
        Ok(answer) if answer.state == MeltQuoteState::Paid => {
            let preimage = answer.payment_preimage.unwrap_or_default();
            paid(mint, keysets, seed, plan, answer.change.unwrap_or_default(), preimage).await
        }
        Ok(_) => resolve(mint, keysets, seed, plan, None).await,
        Err(error) if error.was_not_sent() => Ok(Standing::Unknown(error)),
        Err(MintError::Refused(limited @ Refusal::RateLimited(_))) => {
            Ok(Standing::Unknown(MintError::Refused(limited)))
        }
        Err(MintError::Refused(refusal)) => resolve(mint, keysets, seed, plan, Some(refusal)).await,
        Err(error) => {
            tracing::warn!(%error, mint = mint.url(), "the answer to a payment was lost; asking the mint what became of it");
            resolve(mint, keysets, seed, plan, None).await
        }
    }
}

/// Finds out from evidence how a payment stands. `refused` is what the mint just said to it. A question
/// that was not answered says nothing of the payment.
///
/// # Errors
/// When the plan itself is unusable.
pub async fn resolve(
    mint: &HttpMint,
    keysets: &Keysets,
    seed: &Seed,
    plan: &Plan,
    refused: Option<Refusal>,
) -> Result<Standing, WalletError> {
    let unknown = |why: &str| Ok(Standing::Unknown(MintError::Unknown(why.to_owned())));
    match mint.melt_quote_state(&plan.quote).await {
        Ok(quote) => match quote.state {
            MeltQuoteState::Paid => {
                let preimage = quote.payment_preimage.unwrap_or_default();
                return paid(mint, keysets, seed, plan, quote.change.unwrap_or_default(), preimage).await;
            }
            MeltQuoteState::Pending | MeltQuoteState::Unknown => return unknown("the payment is on its way"),
            MeltQuoteState::Unpaid | MeltQuoteState::Failed => {}
        },
        // A quote that the mint does not know was never paid; the inputs tell the rest.
        Err(MintError::Refused(Refusal::UnknownQuote)) => {}
        Err(error) => return Ok(Standing::Unknown(error.unanswered())),
    }
    let states = match mint.states(swap::ys(&plan.inputs)?).await {
        Ok(states) => states,
        Err(error) => return Ok(Standing::Unknown(error.unanswered())),
    };
    if states.contains(&State::Pending) {
        return unknown("the inputs are pending at the mint");
    }
    if states.contains(&State::Spent) {
        // Were it this payment that spent them, the quote would be paid.
        return Ok(Standing::Spent);
    }
    Ok(Standing::Unpaid(refused))
}

/// What the mint gives back of a payment that it made. An answer without usable change is asked for
/// again by the outputs' counters.
async fn paid(
    mint: &HttpMint,
    keysets: &Keysets,
    seed: &Seed,
    plan: &Plan,
    signatures: Vec<BlindSignature>,
    preimage: String,
) -> Result<Standing, WalletError> {
    let outputs = plan.blank_outputs(seed)?;
    if !signatures.is_empty()
        && let Signed::Proofs(change) = outputs.unblind(keysets, signatures).await?
    {
        return Ok(Standing::Paid { change, preimage });
    }
    if plan.most_change() == 0 {
        return Ok(Standing::Paid { change: Vec::new(), preimage });
    }
    Ok(match outputs.restore(mint, keysets).await? {
        Signed::Proofs(change) => Standing::Paid { change, preimage },
        Signed::None => Standing::Paid { change: Vec::new(), preimage },
        Signed::Unknown(error) => Standing::Unknown(error.unanswered()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_outputs_hold_any_change() {
        for (units, blanks) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (255, 8), (256, 9)] {
            assert_eq!(blanks_for(units), blanks, "{units}");
        }
    }
}
