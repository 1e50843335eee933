//! A swap (NUT-03) that can be finished whatever happens.
//!
//! Everything needed is in the [`Plan`], which the journal stores before the mint hears of it: the
//! inputs, and the counters from which the outputs derive. Deriving them again gives the same
//! blinded messages, so the mint can be asked for its signatures, and sending the same swap twice
//! cannot pay twice.

use cdk::nuts::{Proof, PublicKey, State, SwapRequest};
use serde::{Deserialize, Serialize};

use super::keysets::Keysets;
use super::mint::HttpMint;
use super::outputs::{Outputs, Signed};
use super::refusal::{MintError, Refusal};
use super::{Seed, WalletError};

/// Inputs and outputs of one swap.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub inputs: Vec<Proof>,
    /// Keyset of the outputs.
    pub keyset: String,
    /// NUT-13 counter of the first output.
    pub counter: u32,
    /// Units of each output, ascending (so that their order gives nothing away).
    pub outputs: Vec<u64>,
    /// How many of the outputs, by position, are to leave the wallet in a token.
    #[serde(default)]
    pub send: Vec<usize>,
    /// Input fee, in units.
    pub fee: u64,
}

/// How a swap that was sent (once or more) stands.
#[derive(Debug)]
pub enum Standing {
    /// The mint signed; these are the proofs, in the order of the plan's outputs.
    Done(Vec<Proof>),
    /// The mint surely did not and will not: the inputs are still whole, or spent by somebody else.
    Refused(Refusal),
    /// Nobody knows. Try again later.
    Unknown(MintError),
}

impl Plan {
    /// NUT-07 identifiers of the inputs.
    ///
    /// # Errors
    /// When a secret does not hash to a point.
    pub fn input_ys(&self) -> Result<Vec<PublicKey>, WalletError> {
        ys(&self.inputs)
    }

    /// The outputs, derived anew.
    ///
    /// # Errors
    /// See [`Outputs::derive`].
    pub fn outputs(&self, seed: &Seed) -> Result<Outputs, WalletError> {
        Outputs::derive(seed, &self.keyset, self.counter, &self.outputs)
    }
}

/// NUT-07 identifiers of proofs.
///
/// # Errors
/// When a secret does not hash to a point.
pub fn ys(proofs: &[Proof]) -> Result<Vec<PublicKey>, WalletError> {
    proofs.iter().map(|proof| proof.y().map_err(|error| WalletError::Ecash(error.to_string()))).collect()
}

/// Sends the swap for the first time.
///
/// # Errors
/// When the plan itself is unusable; what the mint says is in the [`Standing`].
pub async fn send(mint: &HttpMint, keysets: &Keysets, seed: &Seed, plan: &Plan) -> Result<Standing, WalletError> {
    match post(mint, keysets, seed, plan).await? {
        // The first time it is asked, the mint's "spent" can only mean somebody else.
        Standing::Refused(Refusal::OutputsSigned) => resolve(mint, keysets, seed, plan).await,
        Standing::Unknown(MintError::NotSent) => Ok(Standing::Unknown(MintError::NotSent)),
        Standing::Unknown(why) => {
            tracing::warn!(%why, mint = mint.url(), "the answer to a swap was lost; asking the mint what became of it");
            match resolve(mint, keysets, seed, plan).await? {
                Standing::Unknown(_) => Ok(Standing::Unknown(why)),
                known => Ok(known),
            }
        }
        known => Ok(known),
    }
}

/// Finds out from evidence how a swap stands that may have been sent before, and finishes it.
///
/// # Errors
/// When the plan itself is unusable.
pub async fn resolve(mint: &HttpMint, keysets: &Keysets, seed: &Seed, plan: &Plan) -> Result<Standing, WalletError> {
    if let Some(standing) = look(mint, keysets, seed, plan).await? {
        return Ok(standing);
    }
    // All unspent: nothing has happened yet. The same swap again is safe: it can succeed once.
    match post(mint, keysets, seed, plan).await? {
        Standing::Refused(Refusal::Spent | Refusal::OutputsSigned | Refusal::Pending) => {
            Ok(match restored(mint, keysets, seed, plan).await? {
                Some(standing) => standing,
                None => Standing::Unknown(MintError::Unknown("the mint contradicts itself".into())),
            })
        }
        standing => Ok(standing),
    }
}

/// Finds out from evidence how a swap stands, and sends nothing. `None`: its inputs are unspent and
/// its outputs are not signed.
///
/// # Errors
/// When the plan itself is unusable.
pub async fn look(
    mint: &HttpMint,
    keysets: &Keysets,
    seed: &Seed,
    plan: &Plan,
) -> Result<Option<Standing>, WalletError> {
    if let Some(standing) = restored(mint, keysets, seed, plan).await? {
        return Ok(Some(standing));
    }
    let states = match mint.states(plan.input_ys()?).await {
        Ok(states) => states,
        Err(error) => return Ok(Some(Standing::Unknown(error))),
    };
    if states.contains(&State::Pending) {
        return Ok(Some(Standing::Unknown(MintError::Unknown("the inputs are pending at the mint".into()))));
    }
    if states.contains(&State::Spent) {
        // Either our swap was signed after the first look, or somebody else spent the inputs.
        return Ok(Some(match restored(mint, keysets, seed, plan).await? {
            Some(standing) => standing,
            None => Standing::Refused(Refusal::Spent),
        }));
    }
    Ok(None)
}

async fn post(mint: &HttpMint, keysets: &Keysets, seed: &Seed, plan: &Plan) -> Result<Standing, WalletError> {
    let outputs = plan.outputs(seed)?;
    let request = SwapRequest::new(plan.inputs.clone(), outputs.messages());
    match mint.swap(&request).await {
        Ok(answer) => Ok(standing(outputs.unblind(keysets, answer.signatures).await?)),
        Err(MintError::Refused(refusal)) => Ok(Standing::Refused(refusal)),
        Err(error) => Ok(Standing::Unknown(error)),
    }
}

/// What the mint has signed of the plan's outputs. `None`: nothing.
async fn restored(
    mint: &HttpMint,
    keysets: &Keysets,
    seed: &Seed,
    plan: &Plan,
) -> Result<Option<Standing>, WalletError> {
    Ok(match plan.outputs(seed)?.restore(mint, keysets).await? {
        Signed::None => None,
        signed => Some(standing(signed)),
    })
}

fn standing(signed: Signed) -> Standing {
    match signed {
        Signed::Proofs(proofs) => Standing::Done(proofs),
        Signed::None => Standing::Unknown(MintError::Unknown("the mint signed nothing".into())),
        Signed::Unknown(error) => Standing::Unknown(error),
    }
}
