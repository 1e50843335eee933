//! Settings: what is in force and who says so, and those that can be changed here. All of it is written down as one
//! document that another node can take.

mod calls;
mod page;

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::operator::Actor;
use super::{AdminError, AdminState, tariffs};
use crate::config::{Config, Force, Origin, SETTINGS, Setting, Told};
use crate::exchange::{Changed, Untold};
use crate::operator::parcel::{Parcel, Taken};
use crate::operator::settings as acts;

pub(super) use calls::api;
pub(super) use page::pages;

/// A setting, and who says what it is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct View {
    pub name: &'static str,
    /// What it is for.
    pub help: &'static str,
    /// As it would be written; empty: none.
    pub default: &'static str,
    /// `environment` (or `.env`), `told` (here, or by `coinslot settings`) or `default`.
    pub origin: &'static str,
    /// As it would be written. Absent, where it is a secret, or where nothing is set.
    pub value: Option<String>,
    /// Something is set.
    pub is_set: bool,
    /// It can be changed here: it can be told, and the environment does not say what it is.
    pub can_be_set: bool,
    /// It says where money goes, or at which address clients pay, and takes the scope `money`.
    pub moves_money: bool,
    /// `at_once` or `at_the_next_start`, where it can be told.
    pub force: Option<&'static str>,
    /// What was told last comes into force when the node starts again.
    pub waits: bool,
}

/// All settings. `waits` says whether what was told of one is not in force yet.
#[must_use]
pub fn view(config: &Config, told: &Told, waits: impl Fn(&str) -> bool) -> Vec<View> {
    SETTINGS.iter().map(|setting| one(setting, config, told, &waits)).collect()
}

fn one(setting: &Setting, config: &Config, told: &Told, waits: impl Fn(&str) -> bool) -> View {
    let (origin, text) = config.said(setting, told);
    let editable = setting.editable();
    View {
        name: setting.name,
        help: setting.help,
        default: setting.default,
        origin: origin.as_str(),
        value: Some(text.to_owned()).filter(|text| setting.is_shown() && !text.is_empty()),
        is_set: !text.is_empty(),
        can_be_set: editable.is_some() && origin != Origin::Environment,
        moves_money: editable.is_some_and(|editable| editable.moves_money),
        force: editable.map(|editable| match editable.force {
            Force::AtOnce => "at_once",
            Force::AtTheNextStart => "at_the_next_start",
        }),
        waits: origin != Origin::Environment && waits(setting.name),
    }
}

async fn views(state: &AdminState) -> Result<Vec<View>, AdminError> {
    let told = state.ledger.store().told().await?;
    let settings = &state.exchange.settings;
    Ok(view(&settings.now(), &told, |name| settings.waits(name, &told)))
}

/// Whether one of these says where money goes, or at which address clients pay.
fn move_money<'a>(mut names: impl Iterator<Item = &'a String>) -> bool {
    let of = |name: &str| SETTINGS.iter().find(|setting| setting.name == name).and_then(Setting::editable);
    names.any(|name| of(name).is_some_and(|editable| editable.moves_money))
}

/// Tells the node other settings: all of them or none. Nothing for a value takes it back.
async fn set(
    state: &AdminState,
    actor: &Actor,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<Vec<Changed>, AdminError> {
    let config = state.exchange.settings.now();
    let changed = acts::set(state.desk(actor), &config, changes).await.map_err(refused)?;
    state.exchange.learn_settings().await?;
    Ok(changed)
}

/// The document of this node.
async fn pack(state: &AdminState) -> Result<Parcel, AdminError> {
    let (told, tariffs) = (state.ledger.store().told().await?, state.ledger.tariffs().await?);
    Ok(Parcel::of(&state.exchange.settings.now(), &told, &tariffs))
}

/// Takes the document of another node.
async fn take(state: &AdminState, actor: &Actor, parcel: &Parcel, dry_run: bool) -> Result<Taken, AdminError> {
    let (told, known) = (state.ledger.store().told().await?, state.ledger.tariffs().await?);
    let dearest = tariffs::dearest(state);
    let plan = parcel.plan(&state.exchange.settings.now(), &told, &known, dearest).map_err(refused)?;
    if !dry_run {
        plan.carry_out(state.desk(actor), &state.ledger).await?;
        state.exchange.learn_settings().await?;
        state.exchange.learn_tariffs().await?;
    }
    Ok(plan.told(dry_run))
}

fn refused(error: Untold) -> AdminError {
    match error {
        Untold::Store(error) => error.into(),
        Untold::Fixed(_) => AdminError::conflict(format!("Nothing was changed: {error}.")),
        Untold::Other(problem) => AdminError::invalid(format!("Nothing was changed. {problem}.")),
        Untold::Faults(faults) => {
            let faults: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
            AdminError::invalid(format!("Nothing was changed. {}.", faults.join(". ")))
        }
    }
}
