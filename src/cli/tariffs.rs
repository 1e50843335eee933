//! What `coinslot profiles` and `coinslot windows` share.

use std::sync::Arc;

use rust_decimal::Decimal;

use super::beside;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::ledger::Ledger;
use crate::money::tariff::{Filter, break_even};
use crate::price::decimal;
use crate::store::Store;
use crate::vault::hex;

/// The words that both know.
#[derive(Debug, Default)]
pub(super) struct Factors {
    pub multiplier: Option<Decimal>,
    pub models: Filter,
    pub below_cost: bool,
    pub json: bool,
}

impl Factors {
    /// Reads the words, and the name among them. `other` takes those that are not known here, with their
    /// value. `None`: they make no sense.
    pub fn read(&mut self, words: &[&str], mut other: impl FnMut(&str, &str) -> Option<()>) -> Option<Option<String>> {
        let mut name = None;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--json" => self.json = true,
                "--allow-below-cost" => self.below_cost = true,
                "--multiplier" => self.multiplier = Some(decimal::parse(words.next()?)?),
                "--models" => self.models.only.push((*words.next()?).to_owned()),
                "--not" => self.models.not.push((*words.next()?).to_owned()),
                word if word.starts_with("--") => other(word, words.next()?)?,
                word if name.is_none() => name = Some(word.to_owned()),
                _ => return None,
            }
        }
        Some(name)
    }

    /// Whether any of what a factor is made of was there.
    pub fn are_given(&self) -> bool {
        self.multiplier.is_some() || self.below_cost || self.models != Filter::default()
    }
}

/// The factor at which the dearest upstream that the environment names takes all that is charged; 1 where the
/// operator's own prices in sats replace the list, whose cost nobody knows.
fn least_factor(config: &Config) -> Decimal {
    let pricing = &config.pricing;
    if pricing.model_based == Some(false) {
        return Decimal::ONE;
    }
    let fee = config.upstreams.listed.iter().map(|upstream| upstream.fee).max().unwrap_or(Decimal::ONE);
    let margins = pricing.exchange_fee.checked_mul(pricing.provider_fee);
    margins.and_then(|margins| break_even(fee, margins)).unwrap_or(Decimal::ONE)
}

/// Refuses a factor below break-even, unless the operator allows it.
pub(super) fn check_cost(config: &Config, name: &str, multiplier: Decimal, below_cost: bool) -> Result<(), String> {
    if below_cost || multiplier >= Decimal::ONE {
        return Ok(());
    }
    let least = least_factor(config);
    if multiplier >= least {
        return Ok(());
    }
    Err(format!(
        "{name} would sell below cost: the node breaks even at {least}. Give it --allow-below-cost if you want that"
    ))
}

/// The books, beside a node that may run.
pub(super) async fn opened(config: &Config) -> Result<(Store, Ledger), String> {
    let store = beside(config).await?;
    // No hold is placed here, so its writer never runs.
    let owner = format!("tariffs-{}", hex(&rand::random::<[u8; 4]>()));
    let opened = Ledger::open(store.clone(), Arc::new(SystemClock), owner).await;
    let (ledger, _writer) = opened.map_err(|error| error.to_string())?;
    Ok((store, ledger))
}
