//! What the sources together would have: for each model the first that lists it, at no less than it costs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rust_decimal::Decimal;

use super::ask::{OWN, Place, own_name};
use super::listed::{List, Listed};
use super::repo::{State, Synced};
use crate::catalog::Catalog;
use crate::catalog::card::Card;
use crate::config::PriceSource;
use crate::upstream::{Calling, Names, Pool};

/// What a source's name ends with where the price is the operator's.
const BY_DEFAULT: &str = " by default";

/// Most models that one source has in force. One that lists others each time would have any number: what is gone
/// stays until the operator has decided.
const MAX_MODELS: usize = 5_000;

/// What each source said last, in the order of the settings.
#[derive(Debug)]
pub struct Lists(Vec<(String, List)>);

/// What they would have.
#[derive(Debug, Default)]
pub struct TargetList {
    pub models: BTreeMap<String, Synced>,
    /// Those that an upstream's list alone has a price for, while another one would be asked that says none.
    pub unsure: BTreeSet<String>,
    /// What is left out: the name of the list, and what and why.
    pub notes: Vec<(String, String)>,
}

/// A model under its one name.
pub(super) fn names<'a>(id: &'a str, forwarded: &'a str) -> Names<'a> {
    Names { asked: id, id, forwarded }
}

impl Lists {
    /// What is stored of them. A list that cannot be read says nothing until its source is asked again.
    #[must_use]
    pub fn of(state: &State, sources: &[PriceSource], pool: &Pool) -> Self {
        let mut lists = Vec::new();
        for place in Place::all(sources, pool) {
            let name = place.name();
            let kept = state.sources.iter().find(|source| source.name == name && !source.list.is_empty());
            if let Some(kept) = kept {
                match List::stored(&kept.list) {
                    Ok(list) => lists.push((name, list)),
                    Err(problem) => tracing::warn!(source = name, problem, "a stored price list cannot be read"),
                }
            }
        }
        Self(lists)
    }

    fn list_of(&self, upstream: &str) -> Option<&List> {
        let name = own_name(upstream);
        self.0.iter().find(|(source, _)| *source == name).map(|(_, list)| list)
    }

    /// What is sold at a loss below this: the dearest of what upstreams take for the model, by their own lists
    /// and with their fees, before our own. `None`: none of them says it.
    #[must_use]
    pub fn cost(&self, pool: &Pool, id: &str, forwarded: &str, provider_fee: Decimal) -> Option<Card> {
        let callings = pool.callings(names(id, forwarded));
        let costs = callings.iter().filter_map(|calling| {
            let listed = self.list_of(&calling.upstream)?.find(&calling.model)?;
            listed.card.times(calling.fee.checked_div(provider_fee)?)
        });
        costs.reduce(|one, other| one.meet(&other).0)
    }

    /// What cannot be read again of that which is stored.
    fn notes(&self) -> Vec<(String, String)> {
        let of_one = |(source, list): &(String, List)| {
            let notes: Vec<_> = list.notes.iter().map(|note| (source.clone(), note.clone())).collect();
            notes
        };
        self.0.iter().flat_map(of_one).collect()
    }

    /// Whether some upstream serves the model, and does not list others alone.
    fn is_had(&self, pool: &Pool, id: &str) -> bool {
        let has = |upstream: &str, model: &str| self.list_of(upstream).is_none_or(|list| list.names(model));
        pool.is_empty() || pool.callings(names(id, id)).iter().any(|calling| has(&calling.upstream, &calling.model))
    }

    /// Whether all that would be asked for the model say what they take, or have a price of the operator's for it. One
    /// whose list does not name it has not got it.
    fn is_priced(&self, callings: &[Calling], by_default: &[&str]) -> bool {
        callings.iter().all(|calling| {
            self.list_of(&calling.upstream).is_some_and(|list| {
                let is_default = by_default.contains(&&*calling.upstream) && list.unpriced.contains(&calling.model);
                is_default || list.find(&calling.model).is_some() || !list.names(&calling.model)
            })
        })
    }

    /// Every model that is to be offered beside the operator's own list, which has the first word. What no
    /// upstream has is not taken up.
    #[must_use]
    pub fn target(&self, state: &State, own: &Catalog, pool: &Pool, provider_fee: Decimal) -> TargetList {
        let (mut target, mut room) = (TargetList { notes: self.notes(), ..TargetList::default() }, Room::of(state));
        let upstreams = pool.upstreams();
        let defaults = upstreams.iter().filter(|upstream| upstream.default_price().is_some());
        let by_default: Vec<&str> = defaults.map(|upstream| &**upstream.name()).collect();
        let mut take = |source: &str, id: String, listed: Listed| {
            if is_own(own, &id)
                || target.models.contains_key(&id)
                || !(state.synced.contains_key(&id) || self.is_had(pool, &id))
            {
                return;
            }
            let below = state.choices.get(&id).is_some_and(|choice| choice.below_cost);
            let cost = self.cost(pool, &id, &id, provider_fee).filter(|_| !below);
            match sold(Listed { id: id.clone(), ..listed }, cost.as_ref()) {
                Ok(_) if !room.take(source, &id) => {}
                Ok(listed) => {
                    if source.starts_with(OWN) && !self.is_priced(&pool.callings(names(&id, &id)), &by_default) {
                        target.unsure.insert(id.clone());
                    }
                    target.models.insert(id, Synced { source: source.to_owned(), listed });
                }
                Err(problem) => target.note(source, format!("{id}: {problem}")),
            }
        };
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
            let (Some(price), Some(list)) = (upstream.default_price(), self.list_of(upstream.name())) else {
                continue;
            };
            let source = format!("{}{BY_DEFAULT}", own_name(upstream.name()));
            for id in list.unpriced.iter().flat_map(|called| upstream.public_names(called)) {
                if let Some(listed) = at_default(&id, price) {
                    take(&source, id, listed);
                }
            }
        }
        for (source, count) in room.over {
            let what = format!("{count} models are not taken up: it has {MAX_MODELS} in force, or that wait");
            target.note(&source, what);
        }
        target
    }
}

/// How many models each source has.
struct Room<'a> {
    state: &'a State,
    held: HashMap<String, usize>,
    /// How many more it would have than it may.
    over: BTreeMap<String, usize>,
}

impl<'a> Room<'a> {
    fn of(state: &'a State) -> Self {
        let mut room = Self { state, held: HashMap::new(), over: BTreeMap::new() };
        for one in state.synced.values() {
            add_one(room.held.entry(one.source.clone()).or_default());
        }
        room
    }

    /// Whether the source may have this model as well. What is taken over from another source counts like a new one.
    fn take(&mut self, source: &str, id: &str) -> bool {
        if self.state.synced.get(id).is_some_and(|one| one.source == source) {
            return true;
        }
        let held = self.held.entry(source.to_owned()).or_default();
        let fits = *held < MAX_MODELS;
        add_one(if fits { held } else { self.over.entry(source.to_owned()).or_default() });
        fits
    }
}

fn add_one(count: &mut usize) {
    *count = count.saturating_add(1);
}

impl TargetList {
    fn note(&mut self, source: &str, what: String) {
        self.notes.push((source.strip_suffix(BY_DEFAULT).unwrap_or(source).to_owned(), what));
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

/// The model at no less than it costs.
///
/// # Errors
/// When that is what no list may ask, so that it could not be read again, or its name is none.
fn sold(mut listed: Listed, cost: Option<&Card>) -> Result<Listed, String> {
    // An upstream's list may have called it otherwise.
    listed.derive()?;
    if let Some(cost) = cost {
        let raised = listed.card.at_least(cost);
        listed.derived.retain(|name| raised.get(name) == listed.card.get(name));
        listed.card = raised;
    }
    listed.check()?;
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: &str, prompt: &str) -> Listed {
        let entry = format!(r#"{{"id":"{id}","pricing":{{"prompt":"{prompt}","completion":"0.00001"}}}}"#);
        Listed::from_json(&entry).unwrap()
    }

    /// However often it lists others: those in force stay, and leave no room for more.
    #[test]
    fn a_source_has_no_more_models_than_it_may() {
        let mut state = State::default();
        for at in 0..MAX_MODELS - 1 {
            let row = Synced { source: "one".to_owned(), listed: Listed::default() };
            state.synced.insert(format!("old/{at}"), row);
        }
        let mut room = Room::of(&state);
        assert!(room.take("one", "new/0") && !room.take("one", "new/1") && !room.take("one", "new/2"));
        assert!(room.take("one", "old/0"), "it is there already");
        assert!(room.take("two", "new/1") && room.take("two", "old/1"));
        assert_eq!((room.held["two"], room.over["one"], room.over.len()), (2, 2, 1));
    }

    /// Another upstream may take any price for what one of them lists cheaply.
    #[test]
    fn a_model_is_priced_when_all_that_would_be_asked_say_what_they_take() {
        let mut named = List { unpriced: vec!["m".to_owned()], ..List::default() };
        named.models.push(listed("other", "0.001"));
        let cheap = List { models: vec![listed("m", "0.000001")], ..List::default() };
        let without = List { models: vec![listed("other", "0.001")], ..List::default() };
        let lists = [("cheap", cheap.clone()), ("named", named), ("dear", cheap), ("without", without)];
        let lists = Lists(lists.map(|(name, list)| (own_name(name), list)).into());
        let calling = |upstream: &str| Calling { upstream: upstream.into(), model: "m".to_owned(), fee: Decimal::ONE };
        for (asked, by_default, is_priced) in [
            (vec!["cheap"], vec![], true),
            (vec!["cheap", "dear"], vec![], true),
            (vec!["cheap", "without"], vec![], true),
            (vec!["cheap", "named"], vec![], false),
            (vec!["cheap", "named"], vec!["named"], true),
            // One whose list is not asked for, or has no such format.
            (vec!["cheap", "vendor"], vec!["vendor"], false),
        ] {
            let callings: Vec<Calling> = asked.iter().map(|upstream| calling(upstream)).collect();
            assert_eq!(lists.is_priced(&callings, &by_default), is_priced, "{asked:?} {by_default:?}");
        }
    }

    #[test]
    fn what_is_sold_can_be_read_again_when_it_is_stored() {
        let again = |sold: &Listed| Listed::from_json(&sold.to_json().to_string()).unwrap();
        let cost = |prompt: &str, fee: Decimal| listed("m", prompt).card.times(fee).unwrap();
        let fee = Decimal::new(11, 1);
        let raised = sold(listed("m", "0.001"), Some(&cost("0.009", fee))).unwrap();
        assert_eq!(raised.card.get("prompt"), Some(Decimal::new(99, 4)));
        assert_eq!(again(&raised), raised);
        let problem = sold(listed("m", "0.001"), Some(&cost("0.0095", fee))).unwrap_err();
        assert!(problem.contains("absurd for a token"), "{problem}");
        let mut pictures = listed("m", "0.001").card;
        pictures.set("request", Some(Decimal::ONE_THOUSAND));
        let dear = Listed { card: pictures.clone(), ..listed("m", "0.001") };
        assert!(sold(dear.clone(), None).is_ok() && sold(dear, pictures.times(fee).as_ref()).is_err());
        // Under a name that its upstream does not have for it.
        let renamed = sold(Listed { id: "claude-x".to_owned(), ..listed("fast", "0.001") }, None).unwrap();
        assert_eq!((renamed.derived.len(), again(&renamed)), (3, renamed.clone()));
        let long = Listed { id: format!("openai/{}", "x".repeat(128)), ..listed("m", "0.001") };
        assert!(sold(long, None).is_err());
    }
}
