//! Outputs that can be made again (NUT-13), and the mint's signatures on them.
//!
//! Secrets and blinding factors derive from the seed and a counter. Whoever knows the counter can
//! ask the mint for its signatures again (NUT-09), so a lost answer loses no money.

use std::collections::HashSet;
use std::str::FromStr;

use cdk::dhke::construct_proofs;
use cdk::nuts::{BlindSignature, BlindedMessage, Id, PreMint, PreMintSecrets, Proof, RestoreResponse, SecretKey};
use cdk::secret::Secret;

use super::keysets::{Keysets, amount};
use super::mint::HttpMint;
use super::refusal::MintError;
use super::{Seed, WalletError};

/// What became of outputs at the mint.
#[derive(Debug)]
pub enum Signed {
    /// Here is the money.
    Proofs(Vec<Proof>),
    /// The mint has signed none of them.
    None,
    /// Nobody knows: no answer, or one that is not what was asked for. The counters keep what can
    /// still get the money.
    Unknown(MintError),
}

/// Blinded messages of one keyset, by their counters.
#[derive(Debug)]
pub struct Outputs {
    keyset: Id,
    secrets: PreMintSecrets,
    /// NUT-08: the mint decides the amounts, and may leave some unsigned.
    blank: bool,
}

impl Outputs {
    /// Derives the outputs of these amounts from `counter` on. Amounts of zero are blank (NUT-08).
    ///
    /// # Errors
    /// When the keyset's id is none, or a secret cannot be derived.
    pub fn derive(seed: &Seed, keyset: &str, counter: u32, amounts: &[u64]) -> Result<Self, WalletError> {
        let keyset = Id::from_str(keyset).map_err(unusable)?;
        let mut secrets = PreMintSecrets::new(keyset);
        for (counter, units) in (counter..).zip(amounts) {
            let secret = Secret::from_seed(seed.expose(), keyset, counter).map_err(unusable)?;
            let factor = SecretKey::from_seed(seed.expose(), keyset, counter).map_err(unusable)?;
            let (blinded, r) = cdk::dhke::blind_message(&secret.to_bytes(), Some(factor)).map_err(unusable)?;
            secrets.secrets.push(PreMint {
                blinded_message: BlindedMessage::new(amount(*units), keyset, blinded),
                secret,
                r,
                amount: amount(*units),
                derivation_index: Some(counter),
            });
        }
        Ok(Self { keyset, secrets, blank: amounts.contains(&0) })
    }

    /// As the mint is to sign them.
    #[must_use]
    pub fn messages(&self) -> Vec<BlindedMessage> {
        self.secrets.blinded_messages()
    }

    /// Asks the mint for the signatures that it has made (NUT-09).
    ///
    /// # Errors
    /// When the ecash store does not answer.
    pub async fn restore(&self, mint: &HttpMint, keysets: &Keysets) -> Result<Signed, WalletError> {
        if self.secrets.secrets.is_empty() {
            return Ok(Signed::None);
        }
        match ask(mint, self.messages()).await {
            Ok(answer) => self.pick(keysets, &answer).await,
            Err(error) => Ok(Signed::Unknown(error)),
        }
    }

    /// What an answer to [`ask`], perhaps about more than these, says of these outputs.
    ///
    /// # Errors
    /// When the ecash store does not answer.
    pub async fn pick(&self, keysets: &Keysets, answer: &RestoreResponse) -> Result<Signed, WalletError> {
        let found = self.secrets.secrets.iter().map(|wanted| {
            let pair = answer
                .outputs
                .iter()
                .zip(&answer.signatures)
                .find(|(output, _)| output.blinded_secret == wanted.blinded_message.blinded_secret);
            pair.map(|(_, signature)| signature.clone())
        });
        let found: Vec<_> = found.collect();
        if found.iter().all(Option::is_none) {
            return Ok(Signed::None);
        }
        if self.blank {
            // The mint signs as many as it needs, in order.
            return self.unblind(keysets, found.into_iter().map_while(|signature| signature).collect()).await;
        }
        match found.into_iter().collect::<Option<Vec<_>>>() {
            Some(signatures) => self.unblind(keysets, signatures).await,
            None => unknown("the mint signed only some of the outputs"),
        }
    }

    /// Those outputs that the mint's answer (NUT-09) has a signature for, by counter, with the proof
    /// that it makes; none where the signature is unusable.
    ///
    /// # Errors
    /// When the ecash store or the mint does not answer.
    pub async fn signed(
        &self,
        answer: RestoreResponse,
        keysets: &Keysets,
    ) -> Result<Vec<(u32, Option<Proof>)>, WalletError> {
        let mut signed = Vec::new();
        for (output, signature) in answer.outputs.iter().zip(answer.signatures) {
            let wanted = |one: &&PreMint| one.blinded_message.blinded_secret == output.blinded_secret;
            let Some(one) = self.secrets.secrets.iter().find(wanted) else { continue };
            let secrets = PreMintSecrets { secrets: vec![one.clone()], keyset_id: self.keyset };
            let alone = Self { keyset: self.keyset, secrets, blank: true };
            let proof = match alone.unblind(keysets, vec![signature]).await? {
                Signed::Proofs(proofs) => proofs.into_iter().next(),
                Signed::None | Signed::Unknown(_) => None,
            };
            if proof.is_none() {
                tracing::error!(keyset = %self.keyset, "the mint has signed an output in a way that is worth nothing");
            }
            signed.extend(one.derivation_index.map(|counter| (counter, proof)));
        }
        signed.sort_by_key(|(counter, _)| *counter);
        Ok(signed)
    }

    /// Turns signatures, in the order of the outputs, into proofs. An answer that is not what was
    /// asked for is kept as unknown: the inputs are probably gone, and the counters are what can
    /// still get the outputs.
    ///
    /// # Errors
    /// When the ecash store does not answer.
    pub async fn unblind(&self, keysets: &Keysets, signatures: Vec<BlindSignature>) -> Result<Signed, WalletError> {
        let fits = if self.blank {
            signatures.len() <= self.secrets.secrets.len()
        } else {
            signatures.len() == self.secrets.secrets.len()
        };
        if !fits {
            return unknown("the number of signatures is wrong");
        }
        let keys = keysets.keys(self.keyset).await?;
        for (signature, wanted) in signatures.iter().zip(&self.secrets.secrets) {
            if signature.keyset_id != self.keyset || (!self.blank && signature.amount != wanted.amount) {
                return unknown("a signature is for another amount");
            }
            let Some(key) = keys.amount_key(signature.amount) else {
                return unknown("a signature is for an amount without a key");
            };
            // NUT-12, where the mint proves its signatures: proves that they are by the announced key.
            if signature.dleq.is_some() && signature.verify_dleq(key, wanted.blinded_message.blinded_secret).is_err() {
                return unknown("a signature's proof does not hold");
            }
        }
        let count = signatures.len();
        let rs = self.secrets.rs().into_iter().take(count).collect();
        let secrets = self.secrets.secrets().into_iter().take(count).collect();
        match construct_proofs(signatures, rs, secrets, &keys) {
            Ok(proofs) => Ok(Signed::Proofs(proofs)),
            Err(_) => unknown("a signature does not unblind"),
        }
    }
}

/// Asks the mint which of these outputs it has signed (NUT-09). An answer about anything else is none.
///
/// # Errors
/// When there is no answer, or not to this question.
pub async fn ask(mint: &HttpMint, outputs: Vec<BlindedMessage>) -> Result<RestoreResponse, MintError> {
    let asked: HashSet<_> = outputs.iter().map(|output| output.blinded_secret).collect();
    let answer = mint.restore(outputs).await?;
    let about_these = answer.outputs.iter().all(|output| asked.contains(&output.blinded_secret));
    if about_these && answer.outputs.len() == answer.signatures.len() {
        Ok(answer)
    } else {
        Err(MintError::Unknown("the mint answered about other outputs".into()))
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of its callers")]
fn unknown(why: &str) -> Result<Signed, WalletError> {
    Ok(Signed::Unknown(MintError::Unknown(why.to_owned())))
}

fn unusable(error: impl std::fmt::Display) -> WalletError {
    WalletError::Ecash(error.to_string())
}
