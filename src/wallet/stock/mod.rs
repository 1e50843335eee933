//! What coins there are, for the operator: by mint, unit, keyset and amount, beside what the ladder wants.

pub mod repo;

use std::collections::BTreeMap;

use sqlx::AnyConnection;

use super::holdings::canonical;
use super::ladder::{Counts, worth};
use super::{Wallet, WalletError, journal, payout};
use crate::money::{MintUnit, Msat};
use crate::store::{Hand, StoreError};

/// Coins of one amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coins {
    /// What each of these coins is worth, in [`Stock::unit`].
    pub amount: u64,
    pub count: u64,
    /// How many the ladder wants; `None` where nobody knows.
    pub wanted: Option<u64>,
}

/// Coins of one keyset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfKeyset {
    pub id: String,
    /// The mint still signs with it.
    pub is_active: bool,
    /// Until when the mint takes its coins (NUT-02, `final_expiry`), in ms.
    pub ends_ms: Option<i64>,
    pub count: u64,
    pub worth: Msat,
}

/// The ecash of one mint and unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stock {
    pub mint: String,
    pub unit: MintUnit,
    pub keysets: Vec<OfKeyset>,
    /// From the smallest amount up, those that are wanted and not there included.
    pub coins: Vec<Coins>,
    pub count: u64,
    /// What can be spent.
    pub worth: Msat,
    /// What operations under way have set aside.
    pub in_hand: Msat,
    /// What of it the operator may take: earned, and owed to nobody.
    pub free: Msat,
    /// Earnings are on their way out of this mint, so no more go before that has ended.
    pub is_paying: bool,
}

/// The ecash of all mints and units where there is some.
///
/// # Errors
/// When the database does not answer.
pub async fn read(connection: &mut AnyConnection) -> Result<Vec<Stock>, StoreError> {
    let mut stocks: BTreeMap<(String, &'static str), Stock> = BTreeMap::new();
    for row in repo::coins(connection).await? {
        let stock = entry(&mut stocks, &row.mint, &row.unit)?;
        let count = u64::try_from(row.count).map_err(|_| bad("a count is below zero"))?;
        let amount = u64::try_from(row.amount).map_err(|_| bad("an amount is below zero"))?;
        let worth = stock.unit.to_msat(amount.saturating_mul(count)).ok_or_else(|| bad("an amount is absurd"))?;
        stock.count = stock.count.saturating_add(count);
        stock.worth = sum(stock.worth, worth)?;
        match stock.keysets.iter_mut().find(|keyset| keyset.id == row.keyset) {
            Some(keyset) => {
                keyset.count = keyset.count.saturating_add(count);
                keyset.worth = sum(keyset.worth, worth)?;
            }
            None => {
                let (id, is_active) = (row.keyset, row.is_active);
                let ends_ms = row.ends_at.map(|secs| secs.saturating_mul(1_000));
                stock.keysets.push(OfKeyset { id, is_active, ends_ms, count, worth });
            }
        }
        match stock.coins.iter_mut().find(|coins| coins.amount == amount) {
            Some(coins) => coins.count = coins.count.saturating_add(count),
            None => stock.coins.push(Coins { amount, count, wanted: None }),
        }
    }
    for (mint, unit, units) in repo::in_hand(connection).await? {
        let stock = entry(&mut stocks, &mint, &unit)?;
        let units = u64::try_from(units).map_err(|_| bad("an amount is below zero"))?;
        stock.in_hand = stock.unit.to_msat(units).ok_or_else(|| bad("an amount is absurd"))?;
    }
    let mut stocks: Vec<Stock> = stocks.into_values().collect();
    for stock in &mut stocks {
        stock.coins.sort_by_key(|coins| coins.amount);
    }
    Ok(stocks)
}

fn entry<'a>(
    stocks: &'a mut BTreeMap<(String, &'static str), Stock>,
    mint: &str,
    unit: &str,
) -> Result<&'a mut Stock, StoreError> {
    let unit = MintUnit::parse(unit).ok_or_else(|| bad("another unit"))?;
    let mint = canonical(mint);
    Ok(stocks.entry((mint.clone(), unit.as_str())).or_insert_with(|| Stock::empty(mint, unit)))
}

fn sum(one: Msat, other: Msat) -> Result<Msat, StoreError> {
    one.checked_add(other).ok_or_else(|| bad("an amount is absurd"))
}

fn bad(what: &str) -> StoreError {
    StoreError::Inconsistent { table: "proof", what: what.to_owned() }
}

impl Stock {
    fn empty(mint: String, unit: MintUnit) -> Self {
        Self {
            mint,
            unit,
            keysets: Vec::new(),
            coins: Vec::new(),
            count: 0,
            worth: Msat::ZERO,
            in_hand: Msat::ZERO,
            free: Msat::ZERO,
            is_paying: false,
        }
    }

    /// Notes what the ladder wants, amounts that are not there included.
    fn want(&mut self, wants: &Counts) {
        for coins in &mut self.coins {
            coins.wanted = Some(0);
        }
        for (amount, wanted) in wants {
            let wanted = Some(u64::try_from(*wanted).unwrap_or(u64::MAX));
            match self.coins.iter_mut().find(|coins| coins.amount == *amount) {
                Some(coins) => coins.wanted = wanted,
                None => self.coins.push(Coins { amount: *amount, count: 0, wanted }),
            }
        }
        self.coins.sort_by_key(|coins| coins.amount);
    }
}

impl Wallet {
    /// The ecash of all mints of this node, one without any included, with what the ladder wants and what the
    /// operator may take. Asks no mint.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn stock(&self) -> Result<Vec<Stock>, WalletError> {
        let mut reader = self.store().read().acquire().await?;
        let mut stocks = read(&mut reader).await?;
        for mint in self.mints() {
            if stocks.iter().all(|stock| stock.mint != canonical(mint)) {
                stocks.push(Stock::empty(canonical(mint), self.unit()));
            }
        }
        for stock in &mut stocks {
            let Some(mint) = self.mints().iter().find(|mint| canonical(mint) == stock.mint) else { continue };
            stock.mint.clone_from(mint);
            stock.free = payout::free_at(&mut Hand::Pooled(&mut reader), mint, stock.unit).await?;
            stock.is_paying = journal::payout_under_way(&mut *reader, mint, stock.unit).await?;
        }
        drop(reader);
        for stock in &mut stocks {
            let Some(trusted) = self.trusted(&stock.mint) else { continue };
            if let Some(amounts) = trusted.keysets.known_amounts(stock.unit).await {
                let coins = stock.coins.iter().map(|coins| {
                    let count = usize::try_from(coins.count).unwrap_or(usize::MAX);
                    (coins.amount, count)
                });
                let held: Counts = coins.collect();
                stock.want(&self.inner.ladder.get().wants(worth(&held), &amounts));
            }
        }
        Ok(stocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gaps_of_the_ladder_are_shown() {
        let mut stock = Stock::empty("https://m".to_owned(), MintUnit::Sat);
        stock.coins = vec![Coins { amount: 1, count: 5, wanted: None }, Coins { amount: 64, count: 1, wanted: None }];
        stock.want(&Counts::from([(1, 2), (2, 2)]));
        let rows: Vec<_> = stock.coins.iter().map(|coins| (coins.amount, coins.count, coins.wanted)).collect();
        assert_eq!(rows, [(1, 5, Some(2)), (2, 0, Some(2)), (64, 1, Some(0))]);
    }
}
