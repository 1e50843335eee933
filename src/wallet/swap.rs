//! A swap (NUT-03) that can be finished whatever happens.
//!
//! Everything needed is in the [`Plan`], which the journal stores before the mint hears of it: the
//! inputs, and the counters from which the outputs derive (NUT-13). Deriving them again gives the
//! same blinded messages, so the mint can be asked for its signatures (NUT-09), and sending the
//! same swap twice cannot pay twice.

use std::str::FromStr;

use cdk::dhke::construct_proofs;
use cdk::nuts::{
    BlindSignature, BlindedMessage, Id, PreMint, PreMintSecrets, Proof, PublicKey, SecretKey, State, SwapRequest,
};
use cdk::secret::Secret;
use serde::{Deserialize, Serialize};

use super::keysets::{Keysets, amount};
use super::mint::HttpMint;
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
    fn keyset_id(&self) -> Result<Id, WalletError> {
        Id::from_str(&self.keyset).map_err(|error| WalletError::Ecash(error.to_string()))
    }

    /// NUT-07 identifiers of the inputs.
    ///
    /// # Errors
    /// When a secret does not hash to a point.
    pub fn input_ys(&self) -> Result<Vec<PublicKey>, WalletError> {
        self.inputs.iter().map(|proof| proof.y().map_err(crypto)).collect()
    }

    fn derive(&self, seed: &Seed) -> Result<PreMintSecrets, WalletError> {
        let keyset = self.keyset_id()?;
        let mut secrets = PreMintSecrets::new(keyset);
        for (counter, units) in (self.counter..).zip(&self.outputs) {
            let secret = Secret::from_seed(seed.expose(), keyset, counter).map_err(crypto)?;
            let factor = SecretKey::from_seed(seed.expose(), keyset, counter).map_err(crypto)?;
            let (blinded, r) = cdk::dhke::blind_message(&secret.to_bytes(), Some(factor)).map_err(crypto)?;
            secrets.secrets.push(PreMint {
                blinded_message: BlindedMessage::new(amount(*units), keyset, blinded),
                secret,
                r,
                amount: amount(*units),
                derivation_index: Some(counter),
            });
        }
        Ok(secrets)
    }
}

fn crypto(error: impl std::fmt::Display) -> WalletError {
    WalletError::Ecash(error.to_string())
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
    if let Some(standing) = restored(mint, keysets, seed, plan).await? {
        return Ok(standing);
    }
    let states = match mint.states(plan.input_ys()?).await {
        Ok(states) => states,
        Err(error) => return Ok(Standing::Unknown(error)),
    };
    if states.contains(&State::Pending) {
        return Ok(Standing::Unknown(MintError::Unknown("the inputs are pending at the mint".into())));
    }
    if states.contains(&State::Spent) {
        // Either our swap was signed after the first look, or somebody else spent the inputs.
        return Ok(match restored(mint, keysets, seed, plan).await? {
            Some(standing) => standing,
            None => Standing::Refused(Refusal::Spent),
        });
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

async fn post(mint: &HttpMint, keysets: &Keysets, seed: &Seed, plan: &Plan) -> Result<Standing, WalletError> {
    let secrets = plan.derive(seed)?;
    let request = SwapRequest::new(plan.inputs.clone(), secrets.blinded_messages());
    match mint.swap(&request).await {
        Ok(answer) => Ok(finish(keysets, plan, &secrets, answer.signatures).await?),
        Err(MintError::Refused(refusal)) => Ok(Standing::Refused(refusal)),
        Err(error) => Ok(Standing::Unknown(error)),
    }
}

/// Asks for the signatures on the plan's outputs. `None`: the mint has made none.
async fn restored(
    mint: &HttpMint,
    keysets: &Keysets,
    seed: &Seed,
    plan: &Plan,
) -> Result<Option<Standing>, WalletError> {
    let secrets = plan.derive(seed)?;
    let answer = match mint.restore(secrets.blinded_messages()).await {
        Ok(answer) => answer,
        Err(error) => return Ok(Some(Standing::Unknown(error))),
    };
    if answer.signatures.is_empty() {
        return Ok(None);
    }
    let mut signatures = Vec::with_capacity(secrets.secrets.len());
    for wanted in &secrets.secrets {
        let found = answer
            .outputs
            .iter()
            .zip(&answer.signatures)
            .find(|(output, _)| output.blinded_secret == wanted.blinded_message.blinded_secret);
        match found {
            Some((_, signature)) => signatures.push(signature.clone()),
            None => {
                let why = "the mint signed only some of the outputs";
                return Ok(Some(Standing::Unknown(MintError::Unknown(why.into()))));
            }
        }
    }
    Ok(Some(finish(keysets, plan, &secrets, signatures).await?))
}

/// Unblinds the signatures. An answer that is not what was asked for is kept as unknown: the
/// inputs are probably gone, and the plan is what can still get the outputs.
async fn finish(
    keysets: &Keysets,
    plan: &Plan,
    secrets: &PreMintSecrets,
    signatures: Vec<BlindSignature>,
) -> Result<Standing, WalletError> {
    let unusable = |why: &str| Ok(Standing::Unknown(MintError::Unknown(why.to_owned())));
    if signatures.len() != secrets.secrets.len() {
        return unusable("the number of signatures is wrong");
    }
    let keys = keysets.keys(plan.keyset_id()?).await?;
    for (signature, wanted) in signatures.iter().zip(&secrets.secrets) {
        if signature.keyset_id != secrets.keyset_id || signature.amount != wanted.amount {
            return unusable("a signature is for another amount");
        }
        let Some(key) = keys.amount_key(wanted.amount) else {
            return unusable("a signature is for an amount without a key");
        };
        // NUT-12, where the mint proves its signatures: proves that they are by the announced key.
        if signature.dleq.is_some() && signature.verify_dleq(key, wanted.blinded_message.blinded_secret).is_err() {
            return unusable("a signature's proof does not hold");
        }
    }
    match construct_proofs(signatures, secrets.rs(), secrets.secrets(), &keys) {
        Ok(proofs) => Ok(Standing::Done(proofs)),
        Err(_) => unusable("a signature does not unblind"),
    }
}
