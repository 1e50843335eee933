//! Which proofs to pay with.

use cdk::Amount;
use cdk_common::wallet::ProofInfo;

use super::token::MAX_PROOFS;

/// Proofs that are worth exactly `wanted`: largest first, which for powers of two finds a way
/// whenever there is one.
pub(super) fn exact(unspent: &[ProofInfo], wanted: u64) -> Option<Vec<ProofInfo>> {
    let mut sorted: Vec<&ProofInfo> = unspent.iter().collect();
    sorted.sort_unstable_by_key(|info| std::cmp::Reverse(info.proof.amount));
    let mut left = wanted;
    let mut chosen = Vec::new();
    for info in sorted {
        let amount = info.proof.amount.to_u64();
        if amount <= left && amount > 0 {
            left = left.saturating_sub(amount);
            chosen.push(info.clone());
        }
        if left == 0 {
            return (chosen.len() <= MAX_PROOFS).then_some(chosen);
        }
    }
    None
}

/// Proofs worth at least `wanted`: the smallest single one that is enough, or the largest ones.
pub(super) fn enough(mut unspent: Vec<ProofInfo>, wanted: u64) -> Option<Vec<ProofInfo>> {
    unspent.sort_unstable_by_key(|info| info.proof.amount);
    let target = Amount::from(wanted);
    if let Some(one) = unspent.iter().find(|info| info.proof.amount >= target) {
        return Some(vec![one.clone()]);
    }
    let mut chosen = Vec::new();
    let mut total = 0_u64;
    for info in unspent.into_iter().rev() {
        total = total.saturating_add(info.proof.amount.to_u64());
        chosen.push(info);
        if total >= wanted {
            return Some(chosen);
        }
    }
    None
}
