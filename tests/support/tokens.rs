//! Tokens taken apart and put together again, as no wallet would.

use std::str::FromStr;

use cdk::Amount;
use cdk::mint_url::MintUrl;
use cdk::nuts::{CurrencyUnit, Proof, Proofs, SecretKey, Token};
use cdk::secret::Secret;
use sha2::{Digest, Sha256};

use super::mint::TestMint;

/// The proofs of a token of this mint, without what tells their issuance.
pub fn proofs(mint: &TestMint, token: &Token) -> Proofs {
    let mut proofs = token.proofs(&mint.mint().keysets().keysets).expect("proofs of this mint");
    for proof in &mut proofs {
        proof.dleq = None;
    }
    proofs
}

/// A `cashuB` token of these proofs, whatever they are.
pub fn token(mint_url: &str, proofs: Proofs, unit: CurrencyUnit) -> String {
    Token::new(MintUrl::from_str(mint_url).expect("mint url"), proofs, None, unit).to_string()
}

/// A token of this mint whose one proof nobody signed.
pub fn invented(mint: &TestMint, sats: u64) -> String {
    let keysets = mint.mint().keysets().keysets;
    let id = keysets.iter().find(|keyset| keyset.unit == CurrencyUnit::Sat && keyset.active).expect("keyset").id;
    let proof = Proof::new(Amount::from(sats), id, Secret::generate(), SecretKey::generate().public_key());
    token(&mint.url(), vec![proof], CurrencyUnit::Sat)
}

/// The key that a token becomes.
pub fn account_key(token: &str) -> String {
    format!("sk-{}", coinslot::vault::hex(&Sha256::digest(token.as_bytes())))
}
