//! The settings that are in force: what the environment says, over what the operator told the node since. What is
//! told comes into force within seconds, in every process of the database, or at the next start
//! ([`crate::config::EDITABLE`]). What cannot be read changes nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Exchange;
use crate::config::{Config, EDITABLE, Fault, Faults, Force, Live, Origin, SETTINGS, Told};
use crate::store::{Store, StoreError};

/// What is in force, and what it is made of.
#[derive(Debug)]
pub struct Settings {
    now: Live<Config>,
    /// What was told when this process started: what of it waits for a start is in force as it was then.
    at_start: Told,
    /// Of what this process has read.
    version: Mutex<Option<String>>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Untold {
    #[error(transparent)]
    Faults(#[from] Faults),
    #[error("{0} is set in the environment, which wins; change it there and start the node anew")]
    Fixed(String),
    /// What came along with the settings is wrong.
    #[error("{0}")]
    Other(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A value that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub name: String,
    /// What was told before; `None`: nothing.
    pub was: Option<String>,
    pub is: Option<String>,
}

/// What a changed value may have, in letters.
const MAX_VALUE: usize = 4_000;

impl Settings {
    /// These, and nothing that was told.
    #[must_use]
    pub fn of(config: Config) -> Self {
        Self { now: Live::new(config), at_start: Told::new(), version: Mutex::default() }
    }

    /// What the environment says, and what was told before this process started.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open(environment: &Config, store: &Store) -> Result<Self, StoreError> {
        let version = store.told_version().await?;
        let (config, at_start) = in_force(environment, store.told().await?);
        Ok(Self { now: Live::new(config), at_start, version: Mutex::new(version) })
    }

    /// What is in force.
    #[must_use]
    pub fn now(&self) -> Arc<Config> {
        self.now.get()
    }

    /// What of this comes into force only when the node starts again.
    #[must_use]
    pub fn waits(&self, name: &str, told: &Told) -> bool {
        is_later(name) && self.at_start.get(name) != told.get(name)
    }

    /// Reads anew what was told, if it is something else; whether it was.
    async fn look(&self, store: &Store) -> Result<bool, StoreError> {
        let version = store.told_version().await?;
        if *self.version.lock().unwrap_or_else(PoisonError::into_inner) == version {
            return Ok(false);
        }
        let mut told = store.told().await?;
        told.retain(|name, _| !is_later(name));
        told.extend(self.at_start.iter().filter(|(name, _)| is_later(name)).map(|(a, b)| (a.clone(), b.clone())));
        match self.now().over(&told) {
            Ok(config) => self.now.put(config),
            Err(faults) => tracing::error!(%faults, "stored settings cannot be read; the old ones stay in force"),
        }
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = version;
        Ok(true)
    }
}

fn is_later(name: &str) -> bool {
    EDITABLE.iter().any(|editable| editable.name == name && editable.force == Force::AtTheNextStart)
}

/// The environment over what was told, without what of it cannot be read (by this version): a stored value keeps no
/// node from starting.
#[must_use]
pub fn in_force(environment: &Config, mut told: Told) -> (Config, Told) {
    while let Err(Faults(faults)) = environment.over(&told) {
        for fault in &faults {
            tracing::error!(%fault, "a stored setting cannot be read, and does not count");
        }
        let before = told.len();
        told.retain(|name, _| faults.iter().all(|fault| fault.name != *name));
        if told.len() == before {
            told.clear();
        }
        if told.is_empty() {
            return (environment.clone(), told);
        }
    }
    let config = environment.over(&told).unwrap_or_else(|_| environment.clone());
    (config, told)
}

/// What would be changed by these: nothing is, yet. `None` for a value: it is told no more.
///
/// # Errors
/// All faults, or that the environment wins.
pub fn weigh(
    environment: &Config,
    told: &Told,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<(Vec<Changed>, Told), Untold> {
    let (mut next, mut changed) = (told.clone(), Vec::new());
    for (name, value) in changes {
        let setting = SETTINGS.iter().find(|setting| setting.name == *name && setting.editable().is_some());
        let fault = |problem: &str| Untold::Faults(Faults(vec![Fault::new(name.clone(), problem)]));
        let setting = setting.ok_or_else(|| match SETTINGS.iter().any(|setting| setting.is_spelled(name)) {
            true => fault("cannot be set here; expected in the environment"),
            false => fault("is no setting; expected one that `coinslot settings list` names"),
        })?;
        let value = value.as_deref().map(str::trim).filter(|value| !value.is_empty());
        if value.is_some() && environment.said(setting, told).0 == Origin::Environment {
            return Err(Untold::Fixed(name.clone()));
        }
        if value.is_some_and(|value| value.chars().count() > MAX_VALUE || value.chars().any(char::is_control)) {
            return Err(fault("is too long, or has more than one line; expected a line as in .env"));
        }
        let was = match value {
            Some(value) => next.insert(name.clone(), value.to_owned()),
            None => next.remove(name),
        };
        if was.as_deref() != value {
            changed.push(Changed { name: name.clone(), was, is: value.map(str::to_owned) });
        }
    }
    environment.over(&next)?;
    Ok((changed, next))
}

impl Exchange {
    /// Brings into force what was told since this process last looked.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn learn_settings(&self) -> Result<(), StoreError> {
        if self.settings.look(self.ledger.store()).await? {
            self.apply_settings();
        }
        Ok(())
    }

    /// Hands the settings to those who act by them. All else reads them where it needs them.
    pub fn apply_settings(&self) {
        let config = self.settings.now();
        self.market.set_pricing(config.pricing.clone());
        self.importer.set_provider_fee(config.pricing.provider_fee);
        self.throttle.set_limits(config.key_limits);
        self.till.set_terms(config.pricing.child_key_cost, config.clients, config.server.takes_money);
        self.till.wallet().set_ladder(config.mints.ladder_coins);
    }
}
