//! What `coinslot profiles` and `coinslot windows` share.

use rust_decimal::Decimal;
use serde_json::json;

use super::{beside, books, in_force};
use crate::config::Config;
use crate::ledger::Ledger;
use crate::money::tariff::Filter;
use crate::operator::tariffs::{ActError, Floor};
use crate::price::decimal;
use crate::store::Store;

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

/// The highest fee of an upstream that the environment names.
pub(super) fn dearest(config: &Config) -> Option<Decimal> {
    config.upstreams.listed.iter().map(|upstream| upstream.fee).max()
}

/// What a factor is held against.
pub(super) fn floor(config: &Config) -> Floor<'_> {
    Floor { pricing: &config.pricing, dearest: dearest(config) }
}

/// Why it was not done, to the profile or window of this name.
pub(super) fn refused(name: &str, error: ActError) -> String {
    match error {
        ActError::BelowCost(problem) => format!("{problem}. Give it --allow-below-cost if you want that"),
        ActError::NoSuchProfile => format!("there is no profile {name}"),
        ActError::NoSuchWindow => format!("there is no window {name}"),
        ActError::InUse(_) => format!("{name} stays: {error}"),
        ActError::Invalid(problem) => problem,
        ActError::Store(error) => error.to_string(),
    }
}

/// What is said of one that is gone.
pub(super) fn removed(name: &str, json: bool) -> String {
    if json { format!("{}\n", json!({ "removed": name })) } else { format!("{name} is removed\n") }
}

/// The books, beside a node that may run, and the settings that are in force there.
pub(super) async fn opened(config: &Config) -> Result<(Store, Ledger, Config), String> {
    let store = beside(config).await?;
    let config = in_force(config, &store).await?;
    let ledger = books(&config, &store, "tariffs").await?;
    Ok((store, ledger, config))
}
