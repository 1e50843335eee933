//! A look at a mint from outside: whether it does what a node needs of it.

use super::mint::HttpMint;
use super::refusal::MintError;
use crate::money::MintUnit;

/// What a mint shows of itself without being paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// Active keysets of the unit.
    pub active: usize,
    /// The lowest fee among them, in thousandths of the unit for each coin spent.
    pub fee_ppk: u64,
    /// Whether the keys of one of them are what its id says, down to the smallest coin.
    pub has_small_coins: bool,
}

/// Reads keysets (NUT-02) and keys (NUT-01), and verifies that they belong together.
///
/// # Errors
/// When the mint does not answer, or with keys of another id.
pub async fn examine(mint: &HttpMint, unit: MintUnit) -> Result<Examined, MintError> {
    let keysets = mint.keysets().await?.keysets;
    let mut active: Vec<_> =
        keysets.iter().filter(|keyset| keyset.active && keyset.unit.to_string() == unit.as_str()).collect();
    active.sort_by_key(|keyset| keyset.input_fee_ppk);
    let Some(first) = active.first() else {
        return Ok(Examined { active: 0, fee_ppk: 0, has_small_coins: false });
    };
    let keys = mint.keys(first.id).await?;
    let has_small_coins = keys.keys.iter().any(|(amount, _)| amount.to_u64() == 1);
    Ok(Examined { active: active.len(), fee_ppk: first.input_fee_ppk, has_small_coins })
}
