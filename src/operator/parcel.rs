//! A node's settings, profiles and windows in one document, without secrets, for another node; and what taking it
//! would change.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::entry::{ProfileEntry, WindowEntry};
use super::tariffs::{self, Floor};
use super::{Desk, settings};
use crate::config::{Config, Origin, SETTINGS, Told};
use crate::exchange::{Changed, Untold, weigh};
use crate::ledger::Ledger;
use crate::money::tariff::Tariffs;
use crate::store::StoreError;

/// The document.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Parcel {
    /// The version that wrote it.
    #[serde(default)]
    pub coinslot: String,
    /// What is set, by name, as it would be written in the environment.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// What is set too, and is a secret: it has to be set by hand.
    #[serde(default)]
    pub secrets: Vec<String>,
    #[serde(default)]
    pub profiles: Vec<ProfileEntry>,
    #[serde(default)]
    pub windows: Vec<WindowEntry>,
}

/// What was changed, or would be.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Taken {
    /// Nothing was changed.
    pub dry_run: bool,
    pub settings: Vec<Difference>,
    /// Profiles that are new or others.
    pub profiles: Vec<String>,
    /// Windows that are new or others.
    pub windows: Vec<String>,
    /// What is left as it is, and why.
    pub skipped: BTreeMap<String, String>,
}

impl Taken {
    /// Whether all of the document is so already, or left out.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.settings.is_empty() && self.profiles.is_empty() && self.windows.is_empty()
    }
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Difference {
    pub name: String,
    pub was: Option<String>,
    pub is: Option<String>,
}

/// What is to be done.
#[derive(Debug)]
pub struct Plan<'a> {
    changed: Vec<Changed>,
    profiles: Vec<&'a ProfileEntry>,
    windows: Vec<&'a WindowEntry>,
    skipped: BTreeMap<String, String>,
}

impl Parcel {
    /// What a node with this configuration says.
    #[must_use]
    pub fn of(config: &Config, told: &Told, tariffs: &Tariffs) -> Self {
        let mut parcel = Self { coinslot: env!("CARGO_PKG_VERSION").to_owned(), ..Self::default() };
        for setting in SETTINGS {
            match config.said(setting, told) {
                (Origin::Default, _) => {}
                (_, text) if setting.is_shown() => drop(parcel.settings.insert(setting.name.into(), text.into())),
                _ => parcel.secrets.push(setting.name.to_owned()),
            }
        }
        parcel.profiles = tariffs.profiles.iter().map(|profile| ProfileEntry::of(profile)).collect();
        parcel.windows = tariffs.windows.iter().map(|window| WindowEntry::of(window)).collect();
        parcel
    }

    /// What taking it changes, all of which was checked.
    ///
    /// # Errors
    /// What is wrong with it; then nothing of it is taken.
    pub fn plan(
        &self,
        config: &Config,
        told: &Told,
        tariffs: &Tariffs,
        dearest: Option<Decimal>,
    ) -> Result<Plan<'_>, Untold> {
        let (mut changes, mut skipped) = (BTreeMap::new(), BTreeMap::new());
        for name in &self.secrets {
            skipped.insert(name.clone(), "it is a secret, and not in the document".to_owned());
        }
        for (name, value) in &self.settings {
            let setting = SETTINGS.iter().find(|setting| setting.name == *name);
            let why = match setting.map(|setting| (setting.editable(), config.said(setting, told).0)) {
                None => "this version does not know it",
                Some((None, _)) => "only the environment can say it",
                Some((_, Origin::Environment)) => "the environment says what it is here",
                Some(_) => {
                    changes.insert(name.clone(), Some(value.clone()));
                    continue;
                }
            };
            skipped.insert(name.clone(), why.to_owned());
        }
        let (changed, next) = weigh(config, told, &changes)?;
        let pricing = config.over(&next)?.pricing;
        let floor = Floor { pricing: &pricing, dearest };
        let wrong = |what: &str, name: &str, problem: String| Untold::Other(format!("{what} {name}: {problem}"));
        let (mut profiles, mut windows) = (Vec::new(), Vec::new());
        for entry in &self.profiles {
            let profile = entry.read().map_err(|problem| wrong("profile", &entry.name, problem))?;
            floor
                .check(&profile.name, (profile.multiplier, profile.below_cost))
                .map_err(|problem| wrong("profile", &entry.name, problem))?;
            if tariffs.profiles.iter().all(|known| **known != profile) {
                profiles.push(entry);
            }
        }
        for entry in &self.windows {
            let window = entry.read().map_err(|problem| wrong("window", &entry.name, problem))?;
            floor
                .check(&window.name, (window.multiplier, window.below_cost))
                .map_err(|problem| wrong("window", &entry.name, problem))?;
            if tariffs.windows.iter().all(|known| **known != window) {
                windows.push(entry);
            }
        }
        Ok(Plan { changed, profiles, windows, skipped })
    }
}

impl Plan<'_> {
    /// In words.
    #[must_use]
    pub fn told(&self, dry_run: bool) -> Taken {
        let difference =
            |one: &Changed| Difference { name: one.name.clone(), was: one.was.clone(), is: one.is.clone() };
        Taken {
            dry_run,
            settings: self.changed.iter().map(difference).collect(),
            profiles: self.profiles.iter().map(|entry| entry.name.clone()).collect(),
            windows: self.windows.iter().map(|entry| entry.name.clone()).collect(),
            skipped: self.skipped.clone(),
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// When the database does not answer. Done again, it does what is left.
    pub async fn carry_out(&self, desk: Desk<'_>, ledger: &Ledger) -> Result<(), StoreError> {
        settings::write(desk, &self.changed).await?;
        for entry in &self.profiles {
            if let Ok(profile) = entry.read() {
                tariffs::write_profile(desk, ledger, &profile).await?;
            }
        }
        for entry in &self.windows {
            if let Ok(window) = entry.read() {
                tariffs::write_window(desk, ledger, &window).await?;
            }
        }
        Ok(())
    }
}
