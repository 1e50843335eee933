//! Ecash that a mint has signed for this wallet (NUT-09), found by its counters (NUT-13).

use cdk::nuts::{Id, Proof, State};
use cdk_common::wallet::ProofInfo;

use super::super::outputs::Outputs;
use super::super::{Trusted, Wallet, WalletError, currency};
use super::{AT_A_TIME, RecoveryError, silent};
use crate::money::MintUnit;

/// So many counters in a row without a signature, beyond all that are known, and the rest is looked at here and there
/// only. Every redemption that its mint refused has left some.
const GAP: u32 = 2_000;
/// So far beyond a gap it is looked on. Whoever presents forged tokens widens a gap, and must not hide what came after.
const FAR: u32 = 1_000_000;
/// Counters of one such look.
const LOOK: usize = 25;
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
        let mut scan = Scan { wallet: self, trusted, recovery, keyset, unit, used: known, found: 0 };
        let mut at = known.saturating_sub(LOOK_BACK);
        while at < known {
            scan.look(at, AT_A_TIME).await?;
            at = beyond(at, AT_A_TIME)?;
        }
        at = scan.up(at).await?;
        while let Some(hit) = scan.far(at).await? {
            scan.down(hit, at).await?;
            at = scan.up(hit).await?;
        }
        if scan.used > known {
            let on = scan.used.saturating_sub(known).saturating_add(MARGIN);
            self.inner.ecash.increment_keyset_counter(&keyset, on).await?;
        }
        Ok(scan.found)
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

/// The search through the counters of one keyset.
struct Scan<'a> {
    wallet: &'a Wallet,
    trusted: &'a Trusted,
    recovery: &'a str,
    keyset: Id,
    unit: MintUnit,
    /// Past the last counter in use, as far as is known.
    used: u32,
    found: usize,
}

impl Scan<'_> {
    /// Looks at so many counters from `at` on. Returns whether the mint has signed any.
    async fn look(&mut self, at: u32, count: usize) -> Result<bool, RecoveryError> {
        let (wallet, trusted) = (self.wallet, self.trusted);
        let outputs = Outputs::derive(&wallet.inner.seed, &self.keyset.to_string(), at, &vec![0; count])?;
        let ask = || trusted.http.restore(outputs.messages());
        let answer = wallet.patiently(trusted, self.recovery, ask).await?;
        let signed =
            outputs.signed(answer, &trusted.keysets).await.map_err(|error| silent(trusted.http.url(), error))?;
        let Some((last, _)) = signed.last() else { return Ok(false) };
        self.used = self.used.max(last.saturating_add(1));
        let proofs = signed.into_iter().filter_map(|(counter, proof)| proof.map(|proof| (counter, proof))).collect();
        let kept = wallet.keep_found(trusted, self.recovery, self.unit, proofs).await?;
        self.found = self.found.saturating_add(kept);
        Ok(true)
    }

    /// Looks at all from `at` up to a gap. Returns where that ends.
    async fn up(&mut self, mut at: u32) -> Result<u32, RecoveryError> {
        let mut silence: u32 = 0;
        while silence < GAP {
            let next = beyond(at, AT_A_TIME)?;
            let heard = self.look(at, AT_A_TIME).await?;
            silence = if heard { 0 } else { silence.saturating_add(next.saturating_sub(at)) };
            at = next;
        }
        Ok(at)
    }

    /// Looks at all below `at` down to a gap, or to where that was looked at.
    async fn down(&mut self, mut at: u32, floor: u32) -> Result<(), RecoveryError> {
        let step = u32::try_from(AT_A_TIME).unwrap_or(u32::MAX);
        let mut silence: u32 = 0;
        while at > floor && silence < GAP {
            at = at.saturating_sub(step).max(floor);
            silence = if self.look(at, AT_A_TIME).await? { 0 } else { silence.saturating_add(step) };
        }
        Ok(())
    }

    /// Looks on from `at`, in steps of a tenth of the way: a stretch in use that is as long as that is met. Returns
    /// where one was.
    async fn far(&mut self, at: u32) -> Result<Option<u32>, RecoveryError> {
        let step = u32::try_from(AT_A_TIME).unwrap_or(u32::MAX);
        let mut way: u32 = 0;
        while way <= FAR {
            let Some(there) = at.checked_add(way) else { break };
            if self.look(there, LOOK).await? {
                return Ok(Some(there));
            }
            way = way.saturating_add(step.max(way / 10));
        }
        Ok(None)
    }
}

/// The counter so many after this one.
fn beyond(at: u32, count: usize) -> Result<u32, WalletError> {
    let next = u32::try_from(count).ok().and_then(|count| at.checked_add(count));
    next.ok_or_else(|| WalletError::Ecash("a keyset's counters are used up".into()))
}
