//! Cashu tokens as they come in (NUT-00): decoded strictly, before anything costs anything.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use cdk::nuts::{Id, KeySetInfo, Proof, Token as CdkToken, TokenV3, TokenV4};
use sha2::{Digest, Sha256};

use crate::config::mint_url;
use crate::money::{MintUnit, Msat};
use crate::vault::hex;

/// Longest token, in characters.
pub const MAX_CHARS: usize = 16 * 1024;
/// Most proofs in a token.
pub const MAX_PROOFS: usize = 64;
/// Longest secret of a proof. Mints refuse to spend more than 1,024 bytes.
const MAX_SECRET: usize = 512;
/// Nesting that a token may have.
const MAX_CBOR_DEPTH: usize = 16;

/// Why a token is no good, as far as can be told without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    #[error("The Cashu token is malformed: {0}.")]
    Malformed(&'static str),
    #[error("The Cashu token is too large: at most 16 KiB and 64 proofs are taken.")]
    TooLarge,
    #[error("The Cashu token's unit is not taken here; send sat or msat.")]
    Unit,
    #[error("The Cashu token is worth nothing.")]
    ZeroValue,
    #[error("The Cashu token is locked to a key that this node does not hold.")]
    Locked,
    #[error("The Cashu token uses a keyset that its mint does not know.")]
    UnknownKeyset,
}

/// A decoded token. Its proofs are neither verified nor known to be unspent.
#[derive(Clone)]
pub struct Token {
    /// sha256 of the token's text, in hex: what the key `sk-…` is made of.
    pub id: String,
    /// Canonical URL of its mint.
    pub mint: String,
    pub unit: MintUnit,
    /// Sum of its proofs, before fees.
    pub face: Msat,
    /// sha256 of each secret, in hex, sorted: the same for any encoding of the same proofs.
    pub secret_hashes: Vec<String>,
    inner: CdkToken,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("mint", &self.mint).field("face", &self.face).finish_non_exhaustive()
    }
}

/// Whether a credential looks like a token rather than a key.
#[must_use]
pub fn looks_like_token(text: &str) -> bool {
    text.starts_with("cashu")
}

/// sha256 of a token's text, in hex.
#[must_use]
pub fn token_id(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Decodes a token: cheap checks first, no I/O at all.
///
/// # Errors
/// See [`TokenFault`].
pub fn read(text: &str) -> Result<Token, TokenFault> {
    if text.len() > MAX_CHARS {
        return Err(TokenFault::TooLarge);
    }
    let inner = decode(text)?;
    let mint = mint_of(&inner)?;
    let unit = inner.unit().map_or(Some(MintUnit::Sat), |unit| MintUnit::parse(&unit.to_string()));
    let unit = unit.ok_or(TokenFault::Unit)?;
    let secrets = inner.token_secrets();
    if secrets.len() > MAX_PROOFS {
        return Err(TokenFault::TooLarge);
    }
    if secrets.is_empty() {
        return Err(TokenFault::ZeroValue);
    }
    for secret in &secrets {
        if secret.as_bytes().len() > MAX_SECRET {
            return Err(TokenFault::Malformed("a secret is too long"));
        }
        // NUT-10: a well-known secret is a JSON array. Nobody but its owner can spend it.
        if secret.as_bytes().trim_ascii_start().starts_with(b"[") {
            return Err(TokenFault::Locked);
        }
    }
    let mut secret_hashes: Vec<String> = secrets.iter().map(|secret| hex(&Sha256::digest(secret.as_bytes()))).collect();
    secret_hashes.sort_unstable();
    if secret_hashes.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(TokenFault::Malformed("it contains the same proof twice"));
    }
    let value = inner.value().map_err(|_| TokenFault::Malformed("its amounts do not add up"))?;
    let face = unit.to_msat(value.to_u64()).ok_or(TokenFault::Malformed("its value is absurd"))?;
    if face.is_zero() || has_zero(&inner) {
        return Err(TokenFault::ZeroValue);
    }
    Ok(Token { id: token_id(text), mint, unit, face, secret_hashes, inner })
}

impl Token {
    /// Its proofs, with the short ids of newer keysets made whole. Ambiguous ids are refused
    /// (NUT-02), and so is a proof whose keyset has another unit than the token claims.
    ///
    /// # Errors
    /// [`TokenFault::UnknownKeyset`] or [`TokenFault::Malformed`].
    pub fn proofs(&self, keysets: &[KeySetInfo]) -> Result<Vec<Proof>, TokenFault> {
        if self.has_ambiguous_id(keysets) {
            return Err(TokenFault::Malformed("a keyset id is ambiguous"));
        }
        let proofs = self.inner.proofs(keysets).map_err(|_| TokenFault::UnknownKeyset)?;
        for proof in &proofs {
            let keyset = keysets.iter().find(|keyset| keyset.id == proof.keyset_id).ok_or(TokenFault::UnknownKeyset)?;
            if MintUnit::parse(&keyset.unit.to_string()) != Some(self.unit) {
                return Err(TokenFault::Unit);
            }
        }
        Ok(proofs)
    }

    fn has_ambiguous_id(&self, keysets: &[KeySetInfo]) -> bool {
        let prefixes: Vec<Vec<u8>> = match &self.inner {
            CdkToken::TokenV3(token) => token
                .token
                .iter()
                .flat_map(|entry| entry.proofs.iter().map(|proof| proof.keyset_id.to_bytes()))
                .collect(),
            CdkToken::TokenV4(token) => token.token.iter().map(|entry| entry.keyset_id.to_bytes()).collect(),
        };
        prefixes.iter().any(|prefix| {
            let matching = keysets.iter().filter(|keyset: &&KeySetInfo| Id::to_bytes(&keyset.id).starts_with(prefix));
            matching.count() > 1
        })
    }
}

fn decode(text: &str) -> Result<CdkToken, TokenFault> {
    const ENCODED: &str = "it is not base64url";
    let (v3, payload) = match (text.strip_prefix("cashuA"), text.strip_prefix("cashuB")) {
        (Some(payload), _) => (true, payload),
        (_, Some(payload)) => (false, payload),
        _ => return Err(TokenFault::Malformed("it starts with neither cashuA nor cashuB")),
    };
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::URL_SAFE, config);
    let bytes = engine.decode(payload).map_err(|_| TokenFault::Malformed(ENCODED))?;
    if v3 {
        let token: TokenV3 =
            serde_json::from_slice(&bytes).map_err(|_| TokenFault::Malformed("its JSON is not a token"))?;
        return Ok(CdkToken::TokenV3(token));
    }
    let mut rest: &[u8] = &bytes;
    let token: TokenV4 = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_CBOR_DEPTH)
        .map_err(|_| TokenFault::Malformed("its CBOR is not a token"))?;
    if !rest.is_empty() {
        return Err(TokenFault::Malformed("something follows its CBOR"));
    }
    Ok(CdkToken::TokenV4(token))
}

fn mint_of(token: &CdkToken) -> Result<String, TokenFault> {
    const URL: TokenFault = TokenFault::Malformed("its mint is not a URL");
    let urls: Vec<String> = match token {
        CdkToken::TokenV3(token) => token.token.iter().map(|entry| entry.mint.to_string()).collect(),
        CdkToken::TokenV4(token) => vec![token.mint_url.to_string()],
    };
    let mut mints = urls.iter().map(|url| mint_url(url).map_err(|_| URL));
    let first = mints.next().ok_or(TokenFault::ZeroValue)??;
    for mint in mints {
        if mint? != first {
            return Err(TokenFault::Malformed("it is of several mints"));
        }
    }
    Ok(first)
}

fn has_zero(token: &CdkToken) -> bool {
    match token {
        CdkToken::TokenV3(token) => {
            token.token.iter().any(|entry| entry.proofs.iter().any(|proof| proof.amount.to_u64() == 0))
        }
        CdkToken::TokenV4(token) => {
            token.token.iter().any(|entry| entry.proofs.iter().any(|proof| proof.amount.to_u64() == 0))
        }
    }
}
