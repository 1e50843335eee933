//! Old proofs become new ones, which nobody else can have been given.

use cdk::nuts::State;
use cdk_common::wallet::ProofInfo;

use super::super::change::{plain, sum_infos};
use super::super::keysets::{split_few, sum};
use super::super::refusal::{MintError, Refusal};
use super::super::swap::{self, Plan, Standing};
use super::super::{Trusted, Wallet, WalletError, currency};
use super::RecoveryError;
use crate::money::MintUnit;

/// Proofs in one swap.
const INPUTS: usize = 100;

impl Wallet {
    /// Exchanges all proofs of a mint that belong to no operation. A swap whose answer is lost is not
    /// in the journal: the next attempt at the recovery finds its outputs by their counters.
    pub(super) async fn renew(&self, trusted: &Trusted, recovery: &str) -> Result<(), RecoveryError> {
        for unit in [MintUnit::Sat, MintUnit::Msat] {
            let unspent = Some(vec![State::Unspent]);
            let url = Some(trusted.url.clone());
            let proofs = self.inner.ecash.get_proofs(url, Some(currency(unit)), unspent, None).await?;
            for batch in proofs.chunks(INPUTS) {
                self.hold_on(recovery).await?;
                self.renew_these(trusted, unit, batch.to_vec()).await?;
            }
        }
        Ok(())
    }

    async fn renew_these(&self, trusted: &Trusted, unit: MintUnit, old: Vec<ProofInfo>) -> Result<(), RecoveryError> {
        let mint = || trusted.http.url().to_owned();
        let fee = trusted.keysets.input_fee(old.iter().map(|info| info.proof.keyset_id)).await;
        let Some(net) = sum_infos(&old).checked_sub(fee).filter(|net| *net > 0) else {
            tracing::warn!(mint = mint(), "some ecash is worth less than the mint's fee for exchanging it");
            return Ok(());
        };
        let active = trusted.keysets.active(unit).await.map_err(|error| super::silent(trusted.http.url(), error))?;
        let outputs = split_few(net, &active.amounts);
        if sum(&outputs) != net {
            return Err(WalletError::Ecash("the ecash cannot be exchanged".into()).into());
        }
        let counter = self.reserve_counters(active.id, outputs.len()).await?;
        let inputs = plain(old);
        let keyset = active.id.to_string();
        let plan = Plan { inputs, keyset, counter, outputs, send: Vec::new(), fee, spare: 0, bonus: Vec::new() };
        match swap::send(&trusted.http, &trusted.keysets, &self.inner.seed, &plan).await? {
            Standing::Done(proofs) => {
                let mut infos = Vec::new();
                for (proof, counter) in proofs.into_iter().zip(plan.counter..) {
                    let info = ProofInfo::new(proof, trusted.url.clone(), State::Unspent, currency(unit));
                    let info = info.map_err(|error| WalletError::Ecash(error.to_string()))?;
                    infos.push(info.with_derivation_index(counter));
                }
                Ok(self.inner.ecash.update_proofs(infos, plan.input_ys()?).await?)
            }
            // Somebody was faster with some of them: look again.
            Standing::Denied | Standing::Refused(Refusal::Spent | Refusal::Pending) => {
                Err(RecoveryError::Pending(mint()))
            }
            Standing::Refused(refusal) | Standing::RefusedAgain(refusal) => {
                Err(RecoveryError::Silent { mint: mint(), error: MintError::Refused(refusal) })
            }
            Standing::NotSent(error) | Standing::Unknown(error) => Err(RecoveryError::Silent { mint: mint(), error }),
        }
    }
}
