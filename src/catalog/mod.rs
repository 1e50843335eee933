//! The models on offer, and what each can cost.
//!
//! A [`Catalog`] is an immutable snapshot: build a new one to change it. Every model in it has
//! prices that can be charged. A name finds at most one model: names that could mean two find
//! none, and nothing is ever matched by likeness.

pub mod card;
pub mod file;
pub mod import;
pub mod limits;
pub mod listing;
pub mod model;
pub mod rivals;
pub mod route;
mod searching;
mod services;
pub mod sheet;
mod shelf;
pub mod support;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use limits::{Limits, Maxima, WorstCase, hold};
pub use model::Model;
pub use shelf::Shelf;

use crate::vault::hex;
use card::Card;

/// All models, and the names they are served under.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    models: Vec<Arc<Model>>,
    by_name: HashMap<String, Arc<Model>>,
}

impl Catalog {
    /// A catalog of `models`, in their order, and a line for each that is left out or each name
    /// that finds nothing because it could mean two models.
    #[must_use]
    pub fn new(models: Vec<Model>) -> (Self, Vec<String>) {
        Self::layered(vec![models])
    }

    /// A catalog of several lists of models. No list takes a name from one before it, whatever that is used for there:
    /// a model whose id is such a name is left out without a word.
    #[must_use]
    pub fn layered(layers: Vec<Vec<Model>>) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let mut catalog = Self::default();
        for models in layers {
            let before: HashSet<String> = catalog.models.iter().map(|model| model.id.clone()).collect();
            let (mut ids, mut layer) = (HashSet::new(), Vec::new());
            for model in models {
                if before.contains(&model.id) || catalog.by_name.contains_key(&model.id) {
                    continue;
                }
                if ids.insert(model.id.clone()) {
                    layer.push(Arc::new(model));
                } else {
                    problems.push(format!("{}: it is listed twice; the first entry counts", model.id));
                }
            }
            name(&layer, &mut catalog.by_name, &mut problems);
            catalog.models.extend(layer);
        }
        (catalog, problems)
    }

    /// The model on offer that this name means: a full id, an alias, or an id without its vendor.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Model>> {
        self.by_name.get(name).cloned()
    }

    /// Whether this is a name of a model that is switched off, here or at its upstream, and of none on offer.
    #[must_use]
    pub fn is_off(&self, name: &str) -> bool {
        let is_called = |model: &Arc<Model>| {
            model.id == name
                || model.bare_id() == Some(name)
                || model.alias_ids.iter().any(|alias| alias == name)
                || model.upstream_id() == name
        };
        let mut called = self.models.iter().filter(|model| is_called(model)).peekable();
        self.find(name).is_none() && called.peek().is_some() && called.all(|model| !model.enabled)
    }

    /// The other names under which a model is served.
    #[must_use]
    pub fn aliases(&self, model: &Model) -> Vec<String> {
        let is_new = |bare: &&str| !model.alias_ids.iter().any(|alias| alias == bare);
        let bare = model.bare_id().filter(is_new).map(str::to_owned);
        let names = model.alias_ids.iter().cloned().chain(bare);
        names.filter(|name| self.find(name).is_some_and(|found| found.id == model.id)).collect()
    }

    /// The models on offer, in the order of the list.
    pub fn offered(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.iter().filter(|model| model.enabled)
    }

    /// The models on offer that anybody may see.
    pub fn listed(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.offered().filter(|model| model.visible)
    }

    /// All models, those that are switched off included.
    #[must_use]
    pub fn all(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// The model of this id, on offer or not.
    #[must_use]
    pub fn model(&self, id: &str) -> Option<Arc<Model>> {
        self.models.iter().find(|model| model.id == id).cloned()
    }

    /// What recognises these prices, in hexadecimal digits. The order of the list makes no difference, nor does
    /// anything but what is on offer at which price.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut cards: Vec<String> = self.offered().map(|model| Card::of(&model.prices).digest(&model.id)).collect();
        cards.sort_unstable();
        hex(Sha256::digest(cards.join(" ")).get(..16).unwrap_or_default())
    }

    /// Whether nothing is on offer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// Gives names to models, as far as they are free. Ids come before aliases, aliases before ids without vendor.
fn name(models: &[Arc<Model>], found: &mut HashMap<String, Arc<Model>>, problems: &mut Vec<String>) {
    let offered = || models.iter().filter(|model| model.enabled);
    found.extend(offered().map(|model| (model.id.clone(), Arc::clone(model))));
    let aliases = offered().flat_map(|m| m.alias_ids.iter().map(move |alias| (alias.as_str(), m)));
    for name in claim(found, aliases) {
        problems.push(format!("{name}: it is an alias of several models and so of none"));
    }
    // Several vendors may well use one name; that is no fault of the list.
    claim(found, offered().filter_map(|model| Some((model.bare_id()?, model))));
}

/// Gives each free name to the model that alone claims it. Returns the contested ones.
fn claim<'a>(
    found: &mut HashMap<String, Arc<Model>>,
    claims: impl Iterator<Item = (&'a str, &'a Arc<Model>)>,
) -> Vec<String> {
    let mut claimed: HashMap<&str, Option<&Arc<Model>>> = HashMap::new();
    for (name, model) in claims.filter(|(name, _)| !name.is_empty()) {
        claimed
            .entry(name)
            .and_modify(|holder| *holder = holder.filter(|held| held.id == model.id))
            .or_insert(Some(model));
    }
    let mut contested = Vec::new();
    for (name, holder) in claimed {
        if found.contains_key(name) {
            continue;
        }
        match holder {
            Some(model) => drop(found.insert(name.to_owned(), Arc::clone(model))),
            None => contested.push(name.to_owned()),
        }
    }
    contested.sort_unstable();
    contested
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(id: &str, aliases: &[&str], enabled: bool) -> Model {
        let entry = serde_json::json!({
            "id": id, "alias_ids": aliases, "enabled": enabled,
            "pricing": {"prompt": "0.000001", "completion": "0.000002"},
        });
        let raw = serde_json::value::to_raw_value(&entry).unwrap();
        Model::from_entry(&raw).unwrap()
    }

    #[test]
    fn exact_names_only() {
        let (catalog, problems) = Catalog::new(vec![
            model("openai/gpt-4o", &["omni", "both"], true),
            model("openai/gpt-4o-mini", &["both"], true),
            model("one/shared", &[], true),
            model("two/shared", &[], true),
            model("plain", &["one/shared"], true),
            model("vendor/plain", &[], true),
            model("off/gone", &["away"], false),
            model("a/b/c", &[], true),
        ]);
        let id = |name: &str| catalog.find(name).map(|found| found.id.clone());
        for (name, expected) in [
            ("openai/gpt-4o", Some("openai/gpt-4o")),
            ("gpt-4o", Some("openai/gpt-4o")),
            ("omni", Some("openai/gpt-4o")),
            // An id is never taken over by another model's alias, nor by a bare id.
            ("one/shared", Some("one/shared")),
            ("plain", Some("plain")),
            ("b/c", Some("a/b/c")),
            ("both", None),
            ("shared", None),
            ("off/gone", None),
            ("gone", None),
            ("away", None),
            ("GPT-4o", None),
            ("gpt-4", None),
            (" gpt-4o", None),
            ("c", None),
            ("", None),
        ] {
            assert_eq!(id(name).as_deref(), expected, "{name}");
        }
        assert_eq!(problems, ["both: it is an alias of several models and so of none"]);
        let off = ["off/gone", "gone", "away", "openai/gpt-4o", "both", "off", ""].map(|name| catalog.is_off(name));
        assert_eq!(off, [true, true, true, false, false, false, false]);
        assert_eq!((catalog.offered().count(), catalog.all().len()), (7, 8));
    }

    #[test]
    fn a_model_that_is_off_is_so_under_its_upstreams_name_too() {
        for is_sold_elsewhere in [false, true] {
            let forwarded = |id: &str, enabled: bool| Model {
                forwarded_model_id: Some("vendor/far-2".to_owned()),
                ..model(id, &[], enabled)
            };
            let (catalog, _) = Catalog::new(vec![forwarded("my/far", false), forwarded("my/near", is_sold_elsewhere)]);
            assert!(catalog.is_off("my/far"));
            assert_eq!(catalog.is_off("vendor/far-2"), !is_sold_elsewhere);
        }
    }

    #[test]
    fn a_list_is_recognised_by_what_is_on_offer() {
        let digest = |models: Vec<Model>| Catalog::new(models).0.digest();
        let list = || vec![model("a", &[], true), model("b", &[], true), model("c", &[], false)];
        let mut other = list();
        other.reverse();
        other[0].enabled = false;
        other[1].description = "words".to_owned();
        assert_eq!(digest(list()), digest(other));
        let mut dearer = list();
        dearer[0].prices.prompt = 1.into();
        assert_ne!(digest(list()), digest(dearer));
        assert_ne!(digest(list()), digest(vec![model("a", &[], true)]));
    }

    #[test]
    fn a_list_takes_no_name_from_one_before_it() {
        let first = vec![model("openai/gpt-4o", &["omni"], true), model("off/gone", &[], false)];
        let second = vec![
            model("gpt-4o", &[], true),
            model("evil/gpt-4o", &["omni", "fresh"], true),
            model("openai/gpt-4o", &[], true),
            model("off/gone", &[], true),
            model("new/one", &[], true),
        ];
        let (catalog, problems) = Catalog::layered(vec![first, second]);
        assert_eq!(problems, Vec::<String>::new());
        let id = |name: &str| catalog.find(name).map(|found| found.id.clone());
        for (name, expected) in [
            ("gpt-4o", Some("openai/gpt-4o")),
            ("omni", Some("openai/gpt-4o")),
            ("evil/gpt-4o", Some("evil/gpt-4o")),
            ("fresh", Some("evil/gpt-4o")),
            ("off/gone", None),
            ("one", Some("new/one")),
        ] {
            assert_eq!(id(name).as_deref(), expected, "{name}");
        }
        assert_eq!(catalog.all().len(), 4);
    }

    #[test]
    fn the_first_of_two_entries_counts() {
        let mut second = model("m", &[], true);
        second.name = "second".to_owned();
        let (catalog, problems) = Catalog::new(vec![model("m", &["x", "x"], true), second]);
        assert_eq!(catalog.find("m").unwrap().name, "m");
        // The same alias twice on one model is still that model's.
        assert_eq!(catalog.find("x").unwrap().name, "m");
        assert_eq!(problems.len(), 1);
        assert!(!catalog.is_empty() && Catalog::default().is_empty());
    }
}
