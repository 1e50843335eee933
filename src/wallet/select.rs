//! Which proofs to pay with, chosen from an inventory of coins by amount.
//!
//! The inventory is a memory of what the ecash store holds, so that giving change does not read all
//! proofs of the wallet. The store decides: a coin that is gone (another process took it) fails its
//! reservation, and the inventory is read anew.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use cdk::nuts::{Id, Proof, PublicKey, State};
use cdk_common::wallet::ProofInfo;

use super::journal::{self, Coins, Operation};
use super::keysets::{split_ladder, sum};
use super::ladder::{Counts, MAX_INPUTS, at_most, pays_any, worth};
use super::steps::Attempt;
use super::token::MAX_PROOFS;
use super::{Trusted, Wallet, WalletError, swap};
use crate::money::MintUnit;

/// Unspent proofs by amount. `None`: to be read from the store.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    coins: Option<Coins>,
    /// Coins of plans that the mint has refused, for a reason of theirs perhaps: the last to be taken.
    doubted: HashSet<[u8; 33]>,
}

/// Times that a choice is made again because its coins were gone.
const ATTEMPTS: u32 = 3;
/// How long a payment waits for an exchange of coins that is under way.
const PATIENCE: Duration = Duration::from_secs(3);

impl Inventory {
    /// Reads the store anew where nothing is remembered.
    async fn load(&mut self, wallet: &Wallet, trusted: &Trusted, unit: MintUnit) -> Result<(), WalletError> {
        if self.coins.is_none() {
            let mut reader = wallet.store().read().acquire().await?;
            let mut coins = journal::coins(&mut reader, &trusted.url.to_string(), unit).await?;
            // They are taken from the end.
            coins.values_mut().for_each(|ys| ys.sort_by_key(|y| !self.doubted.contains(y)));
            self.coins = Some(coins);
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        let coins = self.coins.iter().flatten().filter(|(_, ys)| !ys.is_empty());
        coins.map(|(amount, ys)| (*amount, ys.len())).collect()
    }

    /// The same without those that are doubted.
    fn good_counts(&self) -> Counts {
        if self.doubted.is_empty() {
            return self.counts();
        }
        let is_good = |y: &&[u8; 33]| !self.doubted.contains(*y);
        let coins = self.coins.iter().flatten().map(|(amount, ys)| (*amount, ys.iter().filter(is_good).count()));
        coins.filter(|(_, count)| *count > 0).collect()
    }

    /// Takes coins worth exactly `wanted`, or else at least that much, no more of them than a mint takes at once.
    fn take(&mut self, wanted: u64) -> Result<Option<Vec<PublicKey>>, WalletError> {
        let choice = |counts: &Counts| exact(counts, wanted).or_else(|| enough_at_once(counts, wanted));
        let mut plan = choice(&self.good_counts());
        if plan.is_none() && !self.doubted.is_empty() {
            plan = choice(&self.counts());
        }
        let Some(plan) = plan else { return Ok(None) };
        self.take_these(plan)
    }

    /// Takes so many coins of these amounts.
    fn take_these(
        &mut self,
        plan: impl IntoIterator<Item = (u64, usize)>,
    ) -> Result<Option<Vec<PublicKey>>, WalletError> {
        let Some(coins) = self.coins.as_mut() else { return Ok(None) };
        let mut taken = Vec::new();
        for (amount, count) in plan {
            let Some(ys) = coins.get_mut(&amount) else { return Ok(None) };
            let kept = ys.len().saturating_sub(count);
            for y in ys.split_off(kept) {
                taken.push(read_y(&y)?);
            }
        }
        Ok(Some(taken))
    }

    /// Takes coins worth exactly `wanted`, if it is known that there are some.
    fn take_exactly(&mut self, wanted: u64) -> Result<Option<Vec<PublicKey>>, WalletError> {
        exact(&self.good_counts(), wanted).map_or(Ok(None), |plan| self.take_these(plan))
    }

    fn remove(&mut self, gone: &[[u8; 33]]) {
        for ys in self.coins.iter_mut().flat_map(Coins::values_mut) {
            ys.retain(|y| !gone.contains(y));
        }
    }
}

impl Trusted {
    /// Takes coins worth exactly so much, if that is known to be possible and nobody else is at them now: who waited
    /// would keep others waiting for the database.
    pub(super) fn take_ready(&self, unit: MintUnit, wanted: u64) -> Result<Option<Vec<PublicKey>>, WalletError> {
        let Ok(mut inventories) = self.inventories.try_lock() else { return Ok(None) };
        inventories.get_mut(&unit).map_or(Ok(None), |inventory| inventory.take_exactly(wanted))
    }
}

impl Wallet {
    /// Chooses proofs worth at least what is owed, exactly if possible, and reserves them. What other
    /// operations have in hand for the moment is waited for.
    ///
    /// # Errors
    /// [`WalletError::Short`] when there is too little; [`WalletError::Busy`] when there may be enough
    /// once others are done.
    pub(super) async fn choose(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        owed: u64,
    ) -> Result<Vec<ProofInfo>, WalletError> {
        match self.choose_now(trusted, operation, owed).await {
            Err(WalletError::Short) => {}
            chosen => return chosen,
        }
        // Looked at before waiting: what ends between the two is seen by the second choice.
        let busy = self.in_hand(operation).await?;
        let consolidating = self.inner.redeeming.lane(&consolidation_lane(&operation.mint, operation.unit));
        // Whoever still exchanges coins after that is waited for by the journal.
        drop(tokio::time::timeout(PATIENCE, consolidating.lock()).await);
        match self.choose_now(trusted, operation, owed).await {
            Err(WalletError::Short) if busy => Err(WalletError::Busy),
            chosen => chosen,
        }
    }

    /// Whether other operations have ecash of this one's mint and unit in hand.
    pub(super) async fn in_hand(&self, operation: &Operation) -> Result<bool, WalletError> {
        let mut reader = self.store().read().acquire().await?;
        Ok(journal::in_hand(&mut reader, operation).await?)
    }

    async fn choose_now(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        owed: u64,
    ) -> Result<Vec<ProofInfo>, WalletError> {
        let id = super::change::operation_uuid(operation)?;
        let mut inventories = trusted.inventories.lock().await;
        let inventory = inventories.entry(operation.unit).or_default();
        for _ in 0..ATTEMPTS {
            inventory.load(self, trusted, operation.unit).await?;
            let Some(ys) = inventory.take(owed)? else { break };
            match self.inner.ecash.reserve_proofs(ys.clone(), &id).await {
                Ok(()) => return Ok(self.inner.ecash.get_proofs_by_ys(ys).await?),
                Err(error) => {
                    tracing::debug!(%error, "chosen coins were gone; looking again");
                    inventory.coins = None;
                }
            }
        }
        inventory.coins = None;
        Err(WalletError::Short)
    }

    /// Takes what `pick` picks out of this process's inventory, and says what is left in it. The coins
    /// are not reserved yet: whether they are still there, the store says.
    pub(super) async fn pick(
        &self,
        trusted: &Trusted,
        unit: MintUnit,
        pick: impl FnOnce(&Counts) -> Option<Counts>,
    ) -> Result<Option<(Vec<ProofInfo>, Counts)>, WalletError> {
        let mut inventories = trusted.inventories.lock().await;
        let inventory = inventories.entry(unit).or_default();
        inventory.load(self, trusted, unit).await?;
        let Some(picked) = pick(&inventory.counts()) else { return Ok(None) };
        let Some(ys) = inventory.take_these(picked)? else { return Ok(None) };
        Ok(Some((self.inner.ecash.get_proofs_by_ys(ys).await?, inventory.counts())))
    }

    /// Takes coins of a keyset, as many as one exchange may have, out of this process's inventory, and says what is
    /// left; `None`: there are none. The coins are not reserved yet: whether they are still there, the store says.
    pub(super) async fn pick_of(
        &self,
        trusted: &Trusted,
        unit: MintUnit,
        keyset: Id,
    ) -> Result<Option<(Vec<ProofInfo>, Counts)>, WalletError> {
        let mut inventories = trusted.inventories.lock().await;
        let inventory = inventories.entry(unit).or_default();
        inventory.load(self, trusted, unit).await?;
        let mut reader = self.store().read().acquire().await?;
        let (mint, keyset) = (trusted.url.to_string(), keyset.to_string());
        let found = journal::coins_of_keyset(&mut reader, &mint, unit, &keyset, MAX_INPUTS).await?;
        drop(reader);
        if found.is_empty() {
            return Ok(None);
        }
        inventory.remove(&found);
        let ys = found.iter().map(read_y).collect::<Result<_, _>>()?;
        Ok(Some((self.inner.ecash.get_proofs_by_ys(ys).await?, inventory.counts())))
    }

    /// Unspent ecash of a unit at this mint, by amount.
    pub(super) async fn in_stock(&self, trusted: &Trusted, unit: MintUnit) -> Result<Counts, WalletError> {
        let mut inventories = trusted.inventories.lock().await;
        let inventory = inventories.entry(unit).or_default();
        inventory.load(self, trusted, unit).await?;
        Ok(inventory.counts())
    }

    /// `total` in the amounts that this wallet wants to hold it in: what its ladder lacks first.
    pub(super) async fn split_kept(
        &self,
        trusted: &Trusted,
        unit: MintUnit,
        total: u64,
        amounts: &[u64],
    ) -> Result<Vec<u64>, WalletError> {
        let held = self.in_stock(trusted, unit).await?;
        Ok(self.inner.ladder.get().split(total, &held, amounts))
    }

    /// `total` of a token that rides on one request: so that whatever change is due can be paid at once, out of these
    /// coins alone, or of fewer and those of the ladder, if that has enough for all requests that run.
    pub(super) async fn split_for_change(
        &self,
        trusted: &Trusted,
        unit: MintUnit,
        total: u64,
        amounts: &[u64],
    ) -> Result<Vec<u64>, WalletError> {
        let alone = split_ladder(total, amounts);
        let mut held = self.in_stock(trusted, unit).await?;
        let few = self.inner.ladder.get().split(total, &held, amounts);
        for part in &few {
            let count = held.entry(*part).or_default();
            *count = count.saturating_add(1);
        }
        let running = self.inner.ledger.live_holds().saturating_add(self.inner.riding.count());
        let is_enough = sum(&few) == total && pays_any(&held, total, running);
        Ok(if is_enough && few.len() < alone.len() { few } else { alone })
    }

    /// Remembers what an operation that is booked now has brought. After a restart some of it was in
    /// the store before.
    pub(super) async fn restock(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        infos: &[ProofInfo],
        attempt: Attempt,
    ) {
        if attempt == Attempt::Later {
            return self.recount(trusted, operation.unit).await;
        }
        let mut inventories = trusted.inventories.lock().await;
        let Some(coins) = inventories.entry(operation.unit).or_default().coins.as_mut() else { return };
        for info in infos.iter().filter(|info| info.state == State::Unspent) {
            coins.entry(info.proof.amount.to_u64()).or_default().push(info.y.to_bytes());
        }
    }

    /// Takes other coins than these from now on, as long as there are others: the mint has refused a plan with them,
    /// and one of them may be why.
    pub(super) async fn doubt(&self, trusted: &Trusted, unit: MintUnit, inputs: &[Proof]) -> Result<(), WalletError> {
        let ys = swap::ys(inputs)?;
        let mut inventories = trusted.inventories.lock().await;
        let inventory = inventories.entry(unit).or_default();
        inventory.doubted.extend(ys.iter().map(PublicKey::to_bytes));
        inventory.coins = None;
        Ok(())
    }

    /// Forgets the inventory: it is not what it was.
    pub(super) async fn recount(&self, trusted: &Trusted, unit: MintUnit) {
        trusted.inventories.lock().await.entry(unit).or_default().coins = None;
    }
}

fn read_y(y: &[u8; 33]) -> Result<PublicKey, WalletError> {
    PublicKey::from_slice(y).map_err(|error| WalletError::Ecash(error.to_string()))
}

/// Names the lane of those who exchange coins of a mint and unit in this process.
pub(super) fn consolidation_lane(mint: &str, unit: MintUnit) -> String {
    format!("consolidate {} {mint}", unit.as_str())
}

/// Coins that are worth exactly `wanted`: largest first, which for powers of two finds a way whenever
/// there is one.
pub(super) fn exact(counts: &BTreeMap<u64, usize>, wanted: u64) -> Option<Vec<(u64, usize)>> {
    let mut left = wanted;
    let mut plan = Vec::new();
    let mut coins = 0_usize;
    for (amount, available) in counts.iter().rev().filter(|(amount, _)| **amount > 0) {
        let fitting = usize::try_from(left.checked_div(*amount)?).unwrap_or(usize::MAX).min(*available);
        if fitting > 0 {
            left = left.checked_sub(amount.checked_mul(u64::try_from(fitting).ok()?)?)?;
            coins = coins.saturating_add(fitting);
            plan.push((*amount, fitting));
        }
    }
    (left == 0 && coins <= MAX_PROOFS).then_some(plan)
}

/// Coins worth at least `wanted`: the smallest single one that is enough, or the largest ones.
pub(super) fn enough(counts: &BTreeMap<u64, usize>, wanted: u64) -> Option<Vec<(u64, usize)>> {
    if let Some((amount, _)) = counts.range(wanted..).find(|(_, available)| **available > 0) {
        return Some(vec![(*amount, 1)]);
    }
    let mut left = wanted;
    let mut plan = Vec::new();
    for (amount, available) in counts.iter().rev().filter(|(amount, _)| **amount > 0) {
        let needed = usize::try_from(left.div_ceil(*amount)).unwrap_or(usize::MAX).min(*available);
        plan.push((*amount, needed));
        left = left.saturating_sub(amount.saturating_mul(u64::try_from(needed).ok()?));
        if left == 0 {
            return Some(plan);
        }
    }
    None
}

/// The same, of no more coins than a mint takes at once.
fn enough_at_once(counts: &Counts, wanted: u64) -> Option<Vec<(u64, usize)>> {
    let count = |plan: &Vec<(u64, usize)>| plan.iter().fold(0_usize, |sum, (_, count)| sum.saturating_add(*count));
    enough(counts, wanted).filter(|plan| count(plan) <= MAX_INPUTS)
}

/// The most that coins can pay at once.
pub(super) fn at_once(counts: &Counts) -> u64 {
    worth(&at_most(counts.clone(), MAX_INPUTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_coins_are_taken_than_a_mint_takes_at_once() {
        let counts = Counts::from([(1, 200), (2, 28)]);
        assert_eq!(at_once(&counts), 156);
        assert_eq!(enough_at_once(&counts, 156), Some(vec![(2, 28), (1, 100)]));
        assert_eq!(enough_at_once(&counts, 157), None);
    }

    #[test]
    fn doubted_coins_are_the_last_to_be_taken() {
        let y = || cdk::nuts::SecretKey::generate().public_key().to_bytes();
        let (bad, small, large) = (y(), y(), y());
        let coins = Coins::from([(4, vec![bad, small]), (8, vec![large])]);
        let mut inventory = Inventory { coins: Some(coins), doubted: HashSet::from([bad]) };
        let mut take = |wanted| {
            let taken = inventory.take(wanted).unwrap().unwrap();
            taken.iter().map(PublicKey::to_bytes).collect::<Vec<_>>()
        };
        assert_eq!(take(4), [small]);
        assert_eq!(take(4), [large], "rather too much than that");
        assert_eq!(take(4), [bad]);
    }

    #[test]
    fn the_exact_sum_is_found_or_else_enough() {
        let counts = BTreeMap::from([(1, 2), (4, 1), (8, 3)]);
        for (wanted, found) in
            [(13, Some(vec![(8, 1), (4, 1), (1, 1)])), (24, Some(vec![(8, 3)])), (3, None), (31, None)]
        {
            assert_eq!(exact(&counts, wanted), found, "{wanted}");
        }
        assert_eq!(enough(&counts, 3), Some(vec![(4, 1)]));
        assert_eq!(enough(&counts, 27), Some(vec![(8, 3), (4, 1)]));
        assert_eq!(enough(&counts, 31), None);
    }
}
