//! Price lists of others: asked on a schedule and by hand, kept in the database, merged with the operator's
//! own list, which always wins.
//!
//! Kept are what each source said last, what of it is in force, and what the operator decided. Everything
//! else (what is wanted, what waits) follows from these ([`plan`]), so a restart without a network sells
//! at the same prices, and nodes on one database sell at the same prices.
//!
//! A price in force is never below what the dearest upstream takes that serves the model, by its own list
//! and with its fee, unless the operator said so of that model.

mod ask;
pub mod listed;
mod litellm;
mod overrides;
pub mod plan;
pub mod repo;
mod target;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rust_decimal::Decimal;
use tokio::sync::Mutex;

use super::card::Card;
use super::file::{self, Loaded};
use super::{Catalog, Model, Shelf};
use crate::clock::SharedClock;
use crate::config::{Live, PriceSource, Pricing};
use crate::net::NetError;
use crate::net::fetch::Fetcher;
use crate::net::way::Way;
use crate::store::{Store, StoreError};
use crate::upstream::Pool;
use ask::Place;
pub use overrides::Overrides;
use plan::{Plan, Proposal};
use repo::{Changes, Choice, Source, State};
pub use target::Lists;

/// A source that did not answer is asked again after so long.
const RETRY: Duration = Duration::from_secs(300);

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("others are changing the price list; try again")]
    Busy,
    #[error("no model is called that")]
    Unknown,
    #[error("nothing waits to be decided about this model")]
    NothingWaits,
    #[error("something else waits by now; look again")]
    Changed,
    #[error("somebody has changed it meanwhile; look again")]
    Outdated,
    /// What the operator says of a model cannot be.
    #[error("{0}")]
    Own(String),
}

/// What the operator says to a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Apply,
    /// Apply it, and sell this model below cost from now on.
    ApplyBelowCost,
    Refuse,
}

/// What came of asking the sources.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub plan: Plan,
    /// Name, and why it could not be asked.
    pub troubles: Vec<(String, String)>,
}

/// What the operator can switch of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Whether it is sold at all.
    Sold(bool),
    /// Whether it is in the list. One that is not is sold to whoever names it.
    Listed(bool),
}

/// One model for the operator.
#[derive(Clone, Debug)]
pub struct Offer {
    pub model: Arc<Model>,
    /// Who says what it costs.
    pub source: String,
    pub card: Card,
    /// Those of its prices that the operator said.
    pub own_prices: Card,
    /// Those of its further names that the operator said.
    pub own_names: Vec<String>,
    /// Prices that no source says.
    pub derived: Vec<String>,
    /// The operator switched it off.
    pub is_off: bool,
    /// Some upstream takes more for it.
    pub is_below_cost: bool,
    /// The operator lets it be sold below cost.
    pub may_be_below_cost: bool,
    /// Some upstream serves it.
    pub is_served: bool,
}

/// Everything, for the operator.
#[derive(Clone, Debug)]
pub struct Overview {
    pub offers: Vec<Offer>,
    pub plan: Plan,
    pub sources: Vec<Source>,
}

/// The price lists of others, and the operator's decisions about them.
#[derive(Debug)]
pub struct Importer {
    store: Store,
    pool: Arc<Pool>,
    clock: SharedClock,
    fetcher: Fetcher,
    sources: Vec<PriceSource>,
    interval: Duration,
    provider_fee: Live<Decimal>,
    /// The operator's file, or the list in the program.
    listed: Vec<Model>,
    origin: file::Source,
    /// Something stands in that list.
    has_entries: bool,
    shelf: Shelf,
    /// The revision that lies on the shelf.
    seen: AtomicI64,
    /// One at a time, so that an older list does not come after a newer one.
    loading: Mutex<()>,
}

impl Importer {
    /// # Errors
    /// When there can be no HTTP client.
    pub fn new(
        store: Store,
        pool: Arc<Pool>,
        clock: SharedClock,
        pricing: &Pricing,
        way: &Way,
        loaded: &Loaded,
    ) -> Result<Self, NetError> {
        Ok(Self {
            store,
            pool,
            clock,
            fetcher: Fetcher::new(way)?,
            sources: pricing.sources.clone(),
            interval: pricing.models_interval,
            provider_fee: Live::new(pricing.provider_fee),
            listed: loaded.catalog.all().iter().map(|model| (**model).clone()).collect(),
            origin: loaded.source,
            has_entries: loaded.has_entries,
            shelf: Shelf::new(loaded.catalog.clone()),
            seen: AtomicI64::new(-1),
            loading: Mutex::default(),
        })
    }

    /// Where the price list lies.
    #[must_use]
    pub fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Reckons with this fee of the operator's from now on.
    pub fn set_provider_fee(&self, fee: Decimal) {
        self.provider_fee.put(fee);
    }

    /// Whether any source is asked at all.
    #[must_use]
    pub fn has_sources(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Whether there is a list to sell by, or was one. What of it is on offer makes no difference: where all of it is
    /// switched off or unusable, nothing is to be sold, and not everything at another price.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn has_list(&self) -> Result<bool, ImportError> {
        Ok(self.has_entries || self.has_sources() || repo::has_list(&self.store).await?)
    }

    /// Puts the list as it is stored on the shelf, if that is another one; whether it was.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn look(&self) -> Result<bool, ImportError> {
        let _alone = self.loading.lock().await;
        if repo::revision(&self.store).await? == self.seen.load(Ordering::Acquire) {
            return Ok(false);
        }
        let state = repo::load(&self.store).await?;
        self.shelf.put(self.assemble(&state));
        self.seen.store(state.revision, Ordering::Release);
        Ok(true)
    }

    /// The operator's list, then what is in force of others', then the list in the program.
    fn assemble(&self, state: &State) -> Catalog {
        let mut own = self.listed.clone();
        let mut synced = Vec::new();
        if self.has_sources() {
            for one in state.synced.values() {
                match one.listed.model() {
                    Ok(mut model) => {
                        // The operator's name of an upstream is nobody else's business.
                        let source = one.source.split(' ').next().unwrap_or_default();
                        model.extra.insert("price_source".to_owned(), source.into());
                        synced.push(model);
                    }
                    Err(problem) => tracing::warn!(%problem, "a model is not offered"),
                }
            }
        }
        for model in own.iter_mut().chain(&mut synced) {
            let choice = state.choices.get(&model.id).cloned().unwrap_or_default();
            model.enabled &= !choice.is_off;
            model.visible &= !choice.is_hidden;
            if let Err(problem) = overrides::apply(model, &choice) {
                // It could be sold for less than the operator says.
                tracing::warn!(model = %model.id, %problem, "a model is not sold: its own prices do not go with its source's");
                model.enabled = false;
            } else if !choice.prices.is_empty() && model.extra.contains_key("price_source") {
                model.extra.insert("price_source".to_owned(), "operator".into());
            }
        }
        let (catalog, problems) = match self.origin {
            file::Source::File => Catalog::layered(vec![own, synced]),
            file::Source::Bundled => Catalog::layered(vec![synced, own]),
        };
        for problem in problems {
            tracing::debug!(%problem, "in the price list");
        }
        catalog
    }

    /// Whether some source was not asked for so long that it is time.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn is_due(&self) -> Result<bool, ImportError> {
        let places = Place::all(&self.sources, &self.pool);
        if places.is_empty() {
            return Ok(false);
        }
        let (checked, now_ms) = (repo::checked(&self.store).await?, self.clock.now_ms());
        let is_due = |place: &Place| {
            let name = place.name();
            let Some((_, at_ms, well)) = checked.iter().find(|(known, _, _)| *known == name) else { return true };
            let pause = if *well { self.interval } else { self.interval.min(RETRY) };
            let pause_ms = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
            now_ms < *at_ms || now_ms.saturating_sub(*at_ms) >= pause_ms
        };
        Ok(places.iter().any(is_due))
    }

    /// Asks all sources, and brings into force what needs no decision.
    ///
    /// # Errors
    /// When the database does not answer. That a source does not is no error: what it said last still counts.
    pub async fn sync(&self) -> Result<Outcome, ImportError> {
        let places = Place::all(&self.sources, &self.pool);
        let (known, now_ms) = (repo::load(&self.store).await?.sources, self.clock.now_ms());
        let before = |name: &str| known.iter().find(|source| source.name == name);
        let asking = places.iter().map(|place| place.ask(&self.fetcher, before(&place.name()), now_ms));
        let asked = futures_util::future::join_all(asking).await;
        let troubled = asked.iter().filter(|(source, _)| !source.trouble.is_empty());
        let troubles = troubled.map(|(source, _)| (source.name.clone(), source.trouble.clone())).collect();
        let plan = self
            .revise(|state| {
                let mut changes = Changes::default();
                for (source, is_new) in &asked {
                    let kept = state.sources.iter_mut().find(|kept| kept.name == source.name);
                    match (kept, is_new) {
                        (Some(kept), true) => *kept = source.clone(),
                        (None, true) => state.sources.push(source.clone()),
                        (_, false) => {}
                    }
                    if *is_new { &mut changes.sources } else { &mut changes.asked }.push(source.clone());
                }
                let plan = self.plan(state);
                changes.put.clone_from(&plan.put);
                changes.gone.clone_from(&plan.superseded);
                changes.is_news = !changes.put.is_empty() || !changes.gone.is_empty() || !changes.sources.is_empty();
                Ok((changes, plan))
            })
            .await?;
        Ok(Outcome { plan, troubles })
    }

    /// Decides about what waits for this model: the change of this digest, or whatever it is.
    ///
    /// # Errors
    /// When there is no such change, or the database does not answer.
    pub async fn decide(&self, id: &str, digest: Option<&str>, decision: Decision) -> Result<Proposal, ImportError> {
        self.revise(|state| {
            let waits = |state: &State| self.plan(state).proposals.into_iter().find(|proposal| proposal.id == id);
            let mut found = waits(state);
            // What was looked at is the change as things are: below cost, there would be another one.
            match (digest, &found) {
                (Some(_), None) => return Err(ImportError::NothingWaits),
                (Some(digest), Some(seen)) if digest != seen.digest => return Err(ImportError::Changed),
                _ => {}
            }
            let mut choice = state.choices.get(id).cloned().unwrap_or_default();
            if decision == Decision::ApplyBelowCost && !choice.below_cost {
                choice.below_cost = true;
                state.choices.insert(id.to_owned(), choice.clone());
                found = waits(state);
            }
            let found = found.ok_or(ImportError::NothingWaits)?;
            let mut changes = Changes { is_news: true, ..Changes::default() };
            choice.refused.clear();
            match (decision, &found.wanted) {
                (Decision::Refuse, _) => choice.refused.clone_from(&found.digest),
                (_, Some(wanted)) => changes.put.push(wanted.clone()),
                (_, None) => changes.gone.push(id.to_owned()),
            }
            changes.choices.push((id.to_owned(), choice));
            Ok((changes, found))
        })
        .await
    }

    /// Sells a model at cost again that was allowed below it.
    ///
    /// # Errors
    /// When it was not, or the database does not answer.
    pub async fn take_back(&self, id: &str) -> Result<(), ImportError> {
        self.revise(|state| {
            let choice =
                state.choices.get_mut(id).filter(|choice| choice.below_cost).ok_or(ImportError::NothingWaits)?;
            choice.below_cost = false;
            let choices = vec![(id.to_owned(), choice.clone())];
            let mut put = self.plan(state).put;
            put.retain(|one| one.listed.id == id);
            Ok((Changes { put, choices, is_news: true, ..Changes::default() }, ()))
        })
        .await
    }

    /// Switches a model, wherever its prices come from.
    ///
    /// # Errors
    /// When there is no such model, or the database does not answer.
    pub async fn switch(&self, id: &str, switch: Switch) -> Result<(), ImportError> {
        self.revise(|state| {
            self.assemble(state).model(id).ok_or(ImportError::Unknown)?;
            let mut choice = state.choices.get(id).cloned().unwrap_or_default();
            match switch {
                Switch::Sold(on) => choice.is_off = !on,
                Switch::Listed(on) => choice.is_hidden = !on,
            }
            Ok((Changes { choices: vec![(id.to_owned(), choice)], is_news: true, ..Changes::default() }, ()))
        })
        .await
    }

    /// Gives a model prices and names of the operator's, wherever its others come from.
    ///
    /// # Errors
    /// When there is no such model, such a price or name cannot be or is another model's, what was seen is no more,
    /// or the database does not answer.
    pub async fn set_own(&self, id: &str, own: &Overrides) -> Result<(), ImportError> {
        self.revise(|state| {
            let choice = state.choices.get(id).cloned().unwrap_or_default();
            let changed = own.change(&choice)?;
            let had = choice.names.clone();
            let plain = Choice { prices: Card::default(), names: Vec::new(), ..choice };
            state.choices.insert(id.to_owned(), plain);
            let before = self.assemble(state);
            let mut model = before.model(id).map(|model| Model::clone(&model)).ok_or(ImportError::Unknown)?;
            overrides::apply(&mut model, &changed).map_err(ImportError::Own)?;
            state.choices.insert(id.to_owned(), changed.clone());
            let catalog = self.assemble(state);
            // A name that is given goes before the id without its vendor, so the other model would lose it untold.
            let was_taken =
                |name: &String| before.find(name).is_some_and(|found| found.id != id) && !had.contains(name);
            let is_taken = |name: &&String| was_taken(name) || catalog.find(name).is_none_or(|found| found.id != id);
            if model.enabled
                && let Some(name) = changed.names.iter().find(is_taken)
            {
                return Err(ImportError::Own(format!("another model is called {name}")));
            }
            Ok((Changes { choices: vec![(id.to_owned(), changed)], is_news: true, ..Changes::default() }, ()))
        })
        .await
    }

    /// Everything, for the operator.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn overview(&self) -> Result<Overview, ImportError> {
        let state = repo::load(&self.store).await?;
        let lists = Lists::of(&state, &self.sources, &self.pool);
        let catalog = self.assemble(&state);
        let offers = catalog.all().iter().map(|model| {
            let synced = state.synced.get(&model.id).filter(|_| model.extra.contains_key("price_source"));
            let source = match (synced, self.origin) {
                (Some(synced), _) => synced.source.clone(),
                (None, file::Source::File) => "file".to_owned(),
                (None, file::Source::Bundled) => "built in".to_owned(),
            };
            let card = Card::of(&model.prices);
            let choice = state.choices.get(&model.id).cloned().unwrap_or_default();
            let cost = lists.cost(&self.pool, &model.id, model.upstream_id(), *self.provider_fee.get());
            Offer {
                source,
                derived: synced.map(|synced| synced.listed.derived.clone()).unwrap_or_default(),
                is_off: choice.is_off,
                may_be_below_cost: choice.below_cost,
                own_prices: choice.prices,
                own_names: choice.names,
                is_below_cost: cost.is_some_and(|cost| card.at_least(&cost) != card),
                is_served: self.pool.is_empty()
                    || self.pool.serves(target::names(&model.id, model.upstream_id()), &model.upstream_tags),
                card,
                model: Arc::clone(model),
            }
        });
        let offers = offers.collect();
        let plan = if self.has_sources() { self.plan(&state) } else { Plan::default() };
        let known: Vec<String> = Place::all(&self.sources, &self.pool).iter().map(Place::name).collect();
        let mut sources: Vec<Source> = state.sources;
        sources.retain(|source| known.contains(&source.name));
        sources.sort_by_key(|source| known.iter().position(|name| *name == source.name));
        for source in &mut sources {
            add_notes(source, &plan);
        }
        Ok(Overview { offers, plan, sources })
    }

    fn plan(&self, state: &State) -> Plan {
        let lists = Lists::of(state, &self.sources, &self.pool);
        let (own, built_in) = match self.origin {
            file::Source::File => (Catalog::new(self.listed.clone()).0, BTreeMap::new()),
            file::Source::Bundled => {
                let cards = self.listed.iter().map(|model| (model.id.clone(), Card::of(&model.prices)));
                (Catalog::default(), cards.collect())
            }
        };
        let target = lists.target(state, &own, &self.pool, *self.provider_fee.get());
        let plan = plan::plan(state, &built_in, &target.models, &target.unsure, |id| target::is_own(&own, id));
        Plan { notes: target.notes, ..plan }
    }

    /// Writes what follows from the state as it is, and puts the new list on the shelf.
    async fn revise<T>(
        &self,
        follow: impl Fn(&mut State) -> Result<(Changes, T), ImportError>,
    ) -> Result<T, ImportError> {
        const TRIES: u32 = 16;
        for _ in 0..TRIES {
            let mut state = repo::load(&self.store).await?;
            let revision = state.revision;
            let (changes, outcome) = follow(&mut state)?;
            if repo::write(&self.store, revision, &changes, self.clock.now_ms()).await? {
                self.look().await?;
                return Ok(outcome);
            }
        }
        Err(ImportError::Busy)
    }
}

/// Adds what is left out of the source's list as it is read now, before what could not be taken of it then. Last in
/// the plan, so first here, is what it has too much of.
fn add_notes(source: &mut Source, plan: &Plan) {
    let left_out = plan.notes.iter().rev().filter(|(list, _)| *list == source.name).map(|(_, note)| note.clone());
    let all: Vec<String> = left_out.chain(source.notes.lines().map(str::to_owned)).take(listed::MAX_NOTES).collect();
    source.notes = all.join("\n");
}
