//! Ecash that a mint has signed for this wallet (NUT-09), found by its counters (NUT-13).

use cdk::nuts::{Id, Proof, State};
use cdk_common::wallet::ProofInfo;

use super::super::outputs::Outputs;
use super::super::{Trusted, Wallet, WalletError, currency};
use super::{AT_A_TIME, RecoveryError, silent};
use crate::money::MintUnit;

/// So many counters in a row without a signature, beyond all that are known, and there are no more. Every redemption that
/// its mint refused has left some.
const GAP: u32 = 2_000;
/// So many counters before the known one are looked at as well: outputs that were on their way when
/// the copy was made. For most nodes that is all of them.
const LOOK_BACK: u32 = 20_000;
/// Counters that are left out after the last one in use.
const MARGIN: u32 = 100;

impl Wallet {
    /// Asks for everything that the mint has signed, keeps what is unspent and not known, and moves
    /// the counters past it. Returns how many proofs were found.
    pub(super) async fn scan(&self, trusted: &Trusted, recovery: &str) -> Result<usize, RecoveryError> {
        let mut found: usize = 0;
        for keyset in trusted.keysets.infos().await {
            if let Some(unit) = MintUnit::parse(&keyset.unit.to_string()) {
                found = found.saturating_add(self.scan_keyset(trusted, recovery, keyset.id, unit).await?);
            }
        }
        Ok(found)
    }

    async fn scan_keyset(
        &self,
        trusted: &Trusted,
        recovery: &str,
        keyset: Id,
        unit: MintUnit,
    ) -> Result<usize, RecoveryError> {
        let known = self.inner.ecash.increment_keyset_counter(&keyset, 0).await?;
        let step = u32::try_from(AT_A_TIME).unwrap_or(1);
        let mut at = known.saturating_sub(LOOK_BACK);
        let mut used = known;
        let mut silence: u32 = 0;
        let mut found: usize = 0;
        while at < known || silence < GAP {
            let outputs = Outputs::derive(&self.inner.seed, &keyset.to_string(), at, &vec![0; AT_A_TIME])?;
            let answer = self.patiently(trusted, recovery, || trusted.http.restore(outputs.messages())).await?;
            let signed =
                outputs.signed(answer, &trusted.keysets).await.map_err(|error| silent(trusted.http.url(), error))?;
            silence = if signed.is_empty() && at >= known { silence.saturating_add(step) } else { 0 };
            if let Some((counter, _)) = signed.last() {
                used = used.max(counter.saturating_add(1));
            }
            let proofs =
                signed.into_iter().filter_map(|(counter, proof)| proof.map(|proof| (counter, proof))).collect();
            found = found.saturating_add(self.keep_found(trusted, recovery, unit, proofs).await?);
            at = at.checked_add(step).ok_or_else(|| WalletError::Ecash("a keyset's counters are used up".into()))?;
        }
        if used > known {
            let on = used.saturating_sub(known).saturating_add(MARGIN);
            self.inner.ecash.increment_keyset_counter(&keyset, on).await?;
        }
        Ok(found)
    }

    /// Keeps what is unspent, and not in the store in whatever state.
    async fn keep_found(
        &self,
        trusted: &Trusted,
        recovery: &str,
        unit: MintUnit,
        proofs: Vec<(u32, Proof)>,
    ) -> Result<usize, RecoveryError> {
        let unusable = |error: &dyn std::fmt::Display| WalletError::Ecash(error.to_string());
        let mut infos = Vec::new();
        for (counter, proof) in proofs {
            let info = ProofInfo::new(proof, trusted.url.clone(), State::Unspent, currency(unit));
            infos.push(info.map_err(|error| unusable(&error))?.with_derivation_index(counter));
        }
        if infos.is_empty() {
            return Ok(0);
        }
        let stored = self.inner.ecash.get_proofs_by_ys(infos.iter().map(|info| info.y).collect()).await?;
        infos.retain(|info| stored.iter().all(|old| old.y != info.y));
        if infos.is_empty() {
            return Ok(0);
        }
        let states = self.states(trusted, recovery, infos.iter().map(|info| info.y).collect()).await?;
        let mut unspent = states.into_iter().map(|state| state == State::Unspent);
        infos.retain(|_| unspent.next() == Some(true));
        let found = infos.len();
        self.inner.ecash.update_proofs(infos, Vec::new()).await?;
        Ok(found)
    }
}
