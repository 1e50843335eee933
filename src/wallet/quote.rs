//! A Lightning invoice of the mint's, and the ecash that its payment brings (NUT-04, NUT-23).
//!
//! The quote is locked to a key of this wallet (NUT-20), so its id alone is worth nothing. The
//! outputs are planned, and written down, before the mint is asked to sign them.

use std::str::FromStr as _;

use cdk::Bolt11Invoice;
use cdk::nuts::{MintQuoteState, MintRequest, SecretKey};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::keysets::Keysets;
use super::mint::HttpMint;
use super::outputs::{Outputs, Signed};
use super::refusal::{MintError, Refusal};
use super::swap::Standing;
use super::{Seed, WalletError};

/// A quote, and once it is paid what to mint on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Quote {
    /// The mint's name for it.
    pub id: String,
    pub bolt11: String,
    /// Unix time in seconds after which the invoice is not to be paid any more.
    pub expires_at: i64,
    /// Keyset of the outputs; empty until the quote is known to be paid.
    #[serde(default)]
    pub keyset: String,
    #[serde(default)]
    pub counter: u32,
    #[serde(default)]
    pub outputs: Vec<u64>,
}

impl Quote {
    /// Unix time in seconds after which nobody can pay the invoice: it may take payments for longer than it is offered.
    /// `None`: it cannot be read.
    pub fn ends_at(&self) -> Option<i64> {
        let ends = Bolt11Invoice::from_str(&self.bolt11).ok()?.expires_at()?;
        i64::try_from(ends.as_secs()).ok().map(|ends| ends.max(self.expires_at))
    }

    /// The outputs, derived anew.
    ///
    /// # Errors
    /// See [`Outputs::derive`].
    pub fn outputs(&self, seed: &Seed) -> Result<Outputs, WalletError> {
        Outputs::derive(seed, &self.keyset, self.counter, &self.outputs)
    }
}

/// The key to which the quote of an operation is locked (NUT-20).
///
/// # Errors
/// Never in practice: one in 2^128 hashes is no key.
pub fn lock(seed: &Seed, operation: &str) -> Result<SecretKey, WalletError> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(seed.expose()).map_err(|error| unusable(&error))?;
    mac.update(b"coinslot quote lock v1");
    mac.update(operation.as_bytes());
    SecretKey::from_slice(&mac.finalize().into_bytes()).map_err(|error| unusable(&error))
}

/// Mints on a quote that is paid.
///
/// # Errors
/// When the plan itself is unusable.
pub async fn mint(
    mint: &HttpMint,
    keysets: &Keysets,
    seed: &Seed,
    quote: &Quote,
    lock: &SecretKey,
) -> Result<Standing, WalletError> {
    match post(mint, keysets, seed, quote, lock).await? {
        Standing::Done(proofs) => Ok(Standing::Done(proofs)),
        // Issued before (20002), signed before, or an answer that was lost: what counts is whether
        // these outputs were signed.
        other => match quote.outputs(seed)?.restore(mint, keysets).await? {
            Signed::Proofs(proofs) => Ok(Standing::Done(proofs)),
            Signed::None => Ok(other),
            Signed::Unknown(error) => Ok(Standing::Unknown(error.unanswered())),
        },
    }
}

async fn post(
    mint: &HttpMint,
    keysets: &Keysets,
    seed: &Seed,
    quote: &Quote,
    lock: &SecretKey,
) -> Result<Standing, WalletError> {
    let outputs = quote.outputs(seed)?;
    let mut request = MintRequest { quote: quote.id.clone(), outputs: outputs.messages(), signature: None };
    request.sign(lock).map_err(|error| unusable(&error))?;
    let mut answer = mint.mint(&request).await;
    if matches!(answer, Err(MintError::Refused(Refusal::Signature))) {
        // Mints from before the message was given a domain of its own.
        request.sign_legacy(lock.clone()).map_err(|error| unusable(&error))?;
        answer = mint.mint(&request).await;
    }
    match answer {
        Ok(answer) => Ok(match outputs.unblind(keysets, answer.signatures).await? {
            Signed::Proofs(proofs) => Standing::Done(proofs),
            Signed::None => Standing::Unknown(MintError::Unknown("the mint signed nothing".into())),
            Signed::Unknown(error) => Standing::Unknown(error),
        }),
        Err(MintError::Refused(refusal)) => Ok(Standing::Refused(refusal)),
        // An earlier request may have arrived.
        Err(error) => Ok(Standing::Unknown(error)),
    }
}

/// How far a quote is.
///
/// # Errors
/// When the mint does not answer, or does not know it.
pub async fn state(mint: &HttpMint, quote: &Quote) -> Result<MintQuoteState, MintError> {
    Ok(mint.mint_quote(&quote.id).await?.state)
}

fn unusable(error: &dyn std::fmt::Display) -> WalletError {
    WalletError::Ecash(error.to_string())
}
