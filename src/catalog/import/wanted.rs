//! What the sources together would have: for each model the first that lists it, at no less than it costs.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use super::ImportError;
use super::ask::{Place, own_name};
use super::listed::{List, Listed};
use super::repo::{State, Synced};
use crate::catalog::Catalog;
use crate::catalog::card::Card;
use crate::config::PriceSource;
use crate::upstream::{Names, Pool};

/// What each source said last, in the order of the settings.
#[derive(Debug)]
pub struct Lists(Vec<(String, List)>);

/// A model under its one name.
pub(super) fn names<'a>(id: &'a str, forwarded: &'a str) -> Names<'a> {
    Names { asked: id, id, forwarded }
}

impl Lists {
    /// # Errors
    /// When what is stored cannot be read.
    pub fn of(state: &State, sources: &[PriceSource], pool: &Pool) -> Result<Self, ImportError> {
        let mut lists = Vec::new();
        for place in Place::all(sources, pool) {
            let name = place.name();
            let kept = state.sources.iter().find(|source| source.name == name && !source.list.is_empty());
            if let Some(kept) = kept {
                let list = List::stored(&kept.list).map_err(|why| ImportError::Unreadable(format!("{name}: {why}")))?;
                lists.push((name, list));
            }
        }
        Ok(Self(lists))
    }

    fn own_list(&self, upstream: &str) -> Option<&List> {
        let name = own_name(upstream);
        self.0.iter().find(|(source, _)| *source == name).map(|(_, list)| list)
    }

    /// What is sold at a loss below this: the dearest of what upstreams take for the model, by their own lists
    /// and with their fees, before our own. `None`: none of them says it.
    #[must_use]
    pub fn cost(&self, pool: &Pool, id: &str, forwarded: &str, provider_fee: Decimal) -> Option<Card> {
        let callings = pool.callings(names(id, forwarded));
        let costs = callings.iter().filter_map(|calling| {
            let listed = self.own_list(&calling.upstream)?.find(&calling.model)?;
            listed.card.times(calling.fee.checked_div(provider_fee)?)
        });
        costs.reduce(|one, other| one.meet(&other).0)
    }

    /// Whether some upstream serves the model, and does not list others alone.
    fn is_had(&self, pool: &Pool, id: &str) -> bool {
        let has = |upstream: &str, model: &str| self.own_list(upstream).is_none_or(|list| list.names(model));
        pool.is_empty() || pool.callings(names(id, id)).iter().any(|calling| has(&calling.upstream, &calling.model))
    }

    /// Every model that is to be offered beside the operator's own list, which has the first word. What no
    /// upstream has is not taken up.
    #[must_use]
    pub fn wanted(&self, state: &State, own: &Catalog, pool: &Pool, provider_fee: Decimal) -> BTreeMap<String, Synced> {
        let mut wanted = BTreeMap::new();
        let mut take = |source: &str, id: String, listed: Listed| {
            if is_own(own, &id)
                || wanted.contains_key(&id)
                || !(state.synced.contains_key(&id) || self.is_had(pool, &id))
            {
                return;
            }
            let below = state.choices.get(&id).is_some_and(|choice| choice.below_cost);
            let cost = self.cost(pool, &id, &id, provider_fee).filter(|_| !below);
            let listed = floored(Listed { id: id.clone(), ..listed }, cost.as_ref());
            wanted.insert(id, Synced { source: source.to_owned(), listed });
        };
        let upstreams = pool.upstreams();
        for (source, list) in &self.0 {
            let upstream = upstreams.iter().find(|upstream| own_name(upstream.name()) == *source);
            for listed in &list.models {
                match upstream {
                    Some(upstream) => {
                        upstream.public_names(&listed.id).into_iter().for_each(|id| take(source, id, listed.clone()));
                    }
                    None => take(source, listed.id.clone(), listed.clone()),
                }
            }
        }
        // Last of all, what nobody has a price for but the operator.
        for upstream in &upstreams {
            let (Some(price), Some(list)) = (upstream.default_price(), self.own_list(upstream.name())) else {
                continue;
            };
            let source = format!("{} by default", own_name(upstream.name()));
            for id in list.unpriced.iter().flat_map(|called| upstream.public_names(called)) {
                if let Some(listed) = at_default(&id, price) {
                    take(&source, id, listed);
                }
            }
        }
        wanted
    }
}

fn at_default(id: &str, (prompt, completion): (Decimal, Decimal)) -> Option<Listed> {
    let mut listed = Listed::new(id)?;
    listed.card.set("prompt", Some(prompt));
    listed.card.set("completion", Some(completion));
    Some(listed)
}

/// Whether the operator's own list has something to say about this name.
pub(super) fn is_own(own: &Catalog, id: &str) -> bool {
    own.find(id).is_some() || own.all().iter().any(|model| model.id == id)
}

fn floored(mut listed: Listed, cost: Option<&Card>) -> Listed {
    if let Some(cost) = cost {
        let raised = listed.card.at_least(cost);
        listed.derived.retain(|name| raised.get(name) == listed.card.get(name));
        listed.card = raised;
    }
    listed
}
