//! A payment over Lightning with ecash (NUT-05, NUT-08, NUT-23) that can be finished whatever
//! happens.
//!
//! The mint pays a quote once, so the same melt can be sent again. What the payment did not use
//! comes back on blank outputs, whose counters are in the [`Plan`] that the journal stores before
//! the mint hears of it.

use cdk::nuts::{BlindSignature, MeltQuoteState, MeltRequest, Proof, State};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::keysets::{Keysets, sum_proofs};
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
    /// What the mint sets aside for the network's fees, in units.
    #[serde(default)]
    pub fee_reserve: u64,
    /// Hash whose preimage proves the payment, in hexadecimal digits.
    #[serde(default)]
    pub payment_hash: String,
}

/// How a payment that was sent (once or more) stands.
#[derive(Debug)]
pub enum Standing {
    /// Paid; this came back, in the order of the outputs.
    Paid { change: Vec<Proof>, preimage: String },
    /// Not paid, by the mint's word: the quote is unpaid and the inputs are unspent. With the mint's
    /// refusal, if that is its answer to the request that was just sent. A request before it may be
    /// under way still.
    Unpaid(Option<Refusal>),
    /// The quote is unpaid, and the inputs are spent: somebody else spent them, or the payment was made
    /// and the mint does not say so.
    Denied,
    /// This request surely never got as far as the payment.
    NotSent(MintError),
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

    /// Whether less came back than the mint owes when the network took all that was set aside for it.
    #[must_use]
    pub fn is_short(&self, change: &[Proof]) -> bool {
        sum_proofs(change) < self.most_change().saturating_sub(self.fee_reserve)
    }

    /// Whether so much can have come back: the mint may take less for the inputs by now, but the recipient got theirs.
    fn can_bring(&self, came: u64) -> bool {
        came <= self.total.saturating_sub(self.amount)
    }

    /// A payment that was made and brought this back.
    fn paid(&self, change: Vec<Proof>, preimage: String) -> Standing {
        if self.can_bring(sum_proofs(&change)) {
            Standing::Paid { change, preimage }
        } else {
            Standing::Unknown(MintError::Unknown("more came back of a payment than was left of it".into()))
        }
    }

    /// Whether this preimage proves the payment. Mints that settle among their own accounts have none.
    fn is_proven_by(&self, preimage: &str) -> bool {
        let Ok(bytes) = cdk::util::hex::decode(preimage) else { return false };
        !self.payment_hash.is_empty() && cdk::util::hex::encode(Sha256::digest(bytes)) == self.payment_hash
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
        Err(error) if error.was_not_sent() => Ok(Standing::NotSent(error)),
        Err(MintError::Refused(limited @ Refusal::RateLimited(_))) => {
            Ok(Standing::NotSent(MintError::Refused(limited)))
        }
        // The same payment is under way, or nothing is said of whether the mint acted.
        Err(MintError::Refused(
            Refusal::Pending | Refusal::Quote(20_005) | Refusal::Foreign(_) | Refusal::Unclear(_),
        )) => resolve(mint, keysets, seed, plan, None).await,
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
        // Signatures on this payment's own change are there only if it was made.
        return Ok(match plan.blank_outputs(seed)?.restore(mint, keysets).await? {
            Signed::Proofs(change) if !change.is_empty() => plan.paid(change, String::new()),
            Signed::Proofs(_) | Signed::None => Standing::Denied,
            Signed::Unknown(error) => Standing::Unknown(error.unanswered()),
        });
    }
    Ok(Standing::Unpaid(refused))
}

/// What the mint says that it gave back of a payment.
///
/// # Errors
/// When the plan itself is unusable.
pub async fn change(mint: &HttpMint, keysets: &Keysets, seed: &Seed, plan: &Plan) -> Result<Signed, WalletError> {
    plan.blank_outputs(seed)?.restore(mint, keysets).await
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
    if !plan.is_proven_by(&preimage) {
        // Its word alone: a payment takes its inputs.
        let states = match mint.states(swap::ys(&plan.inputs)?).await {
            Ok(states) => states,
            Err(error) => return Ok(Standing::Unknown(error.unanswered())),
        };
        if states.iter().any(|state| *state != State::Spent) {
            return Ok(Standing::Unknown(MintError::Unknown(
                "the mint calls a payment made whose inputs are not spent".into(),
            )));
        }
    }
    let outputs = plan.blank_outputs(seed)?;
    if !signatures.is_empty()
        && let Signed::Proofs(change) = outputs.unblind(keysets, signatures).await?
    {
        return Ok(plan.paid(change, preimage));
    }
    if plan.most_change() == 0 {
        return Ok(Standing::Paid { change: Vec::new(), preimage });
    }
    Ok(match change(mint, keysets, seed, plan).await? {
        Signed::Proofs(change) => plan.paid(change, preimage),
        Signed::None => Standing::Paid { change: Vec::new(), preimage },
        Signed::Unknown(error) => Standing::Unknown(error.unanswered()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preimage_proves_its_payment_only() {
        let hash = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";
        let plan = Plan {
            quote: "q".into(),
            inputs: Vec::new(),
            keyset: String::new(),
            counter: 0,
            blanks: 0,
            amount: 90,
            total: 100,
            input_fee: 1,
            fee_reserve: 4,
            payment_hash: hash.into(),
        };
        assert!(plan.is_proven_by(&"00".repeat(32)));
        for other in ["", "00", "zz", &"01".repeat(32)] {
            assert!(!plan.is_proven_by(other), "{other}");
        }
        assert!(plan.is_short(&[]), "5 of 9 must come back");
        // All that was not sent, should the mint take nothing for its inputs any more; not a unit of what was sent.
        assert!(plan.can_bring(9) && plan.can_bring(10) && !plan.can_bring(11));
        assert!(!Plan { payment_hash: String::new(), ..plan }.is_proven_by(&"00".repeat(32)));
    }

    #[test]
    fn blank_outputs_hold_any_change() {
        for (units, blanks) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (255, 8), (256, 9)] {
            assert_eq!(blanks_for(units), blanks, "{units}");
        }
    }
}
