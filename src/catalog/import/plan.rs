//! From what is in force and what sources say to what is done by itself, and what waits for the operator.
//!
//! New models and higher prices come into force by themselves. Whoever would pay less than before, and what
//! would not be sold any more, waits; so does a new model that some upstream may take more for.

use std::collections::{BTreeMap, BTreeSet};

use super::listed::Listed;
use super::repo::{State, Synced};
use crate::catalog::card::{Card, Change};

/// Why something waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model that would be given away.
    Free,
    /// A new model at the price of one upstream, while another one would be asked that says none.
    Unsure,
    /// Some price is lower, or not there any more.
    Lower,
    /// No source lists the model any more.
    Gone,
}

impl Kind {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Unsure => "unsure",
            Self::Lower => "lower",
            Self::Gone => "gone",
        }
    }
}

/// A change that the operator applies or refuses.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    pub id: String,
    pub kind: Kind,
    /// Who says so; of a model that is gone, who had listed it.
    pub source: String,
    pub changes: Vec<Change>,
    /// What is decided about: another change of the model has another one.
    pub digest: String,
    /// It was refused before, and is kept in mind.
    pub is_refused: bool,
    /// What applying it brings into force; `None`: the model is not offered any more.
    pub wanted: Option<Synced>,
}

/// What follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What comes into force.
    pub put: Vec<Synced>,
    /// Models that are new.
    pub added: Vec<String>,
    /// Models that are dearer, and in what.
    pub raised: Vec<(String, Vec<Change>)>,
    /// What does not come into force by itself.
    pub proposals: Vec<Proposal>,
    /// Models that the operator's own list has by now.
    pub superseded: Vec<String>,
    /// What is left out: the name of the list, and what and why.
    pub notes: Vec<(String, String)>,
}

/// What follows for each model. `built_in`: what is offered beside that, at which prices; `unsure`: what
/// does not begin by itself; `is_own`: whether the operator's own list has it.
#[must_use]
pub fn plan(
    state: &State,
    built_in: &BTreeMap<String, Card>,
    wanted: &BTreeMap<String, Synced>,
    unsure: &BTreeSet<String>,
    is_own: impl Fn(&str) -> bool,
) -> Plan {
    let mut plan = Plan::default();
    let ids: BTreeSet<&String> = state.synced.keys().chain(wanted.keys()).collect();
    for id in ids {
        let current = state.synced.get(id);
        match wanted.get(id) {
            Some(wanted) => match current.map(|current| &current.listed.card).or_else(|| built_in.get(id)) {
                Some(card) => plan.change(current, card, wanted),
                None => plan.begin(wanted, unsure.contains(id)),
            },
            None if is_own(id) => plan.superseded.push(id.clone()),
            None => plan.end(id, current),
        }
    }
    for proposal in &mut plan.proposals {
        proposal.is_refused = state.choices.get(&proposal.id).is_some_and(|choice| choice.refused == proposal.digest);
    }
    plan
}

impl Plan {
    fn begin(&mut self, wanted: &Synced, is_unsure: bool) {
        let is_free = wanted.listed.is_given_away();
        let reason = if is_free { Some(Kind::Free) } else { is_unsure.then_some(Kind::Unsure) };
        if let Some(kind) = reason {
            let changes = wanted.listed.card.iter().map(|(name, price)| Change {
                name: name.to_owned(),
                was: None,
                is: Some(price),
            });
            return self.propose(kind, changes.collect(), wanted);
        }
        self.added.push(wanted.listed.id.clone());
        self.put.push(wanted.clone());
    }

    fn change(&mut self, current: Option<&Synced>, card: &Card, wanted: &Synced) {
        let (mut dearer, changes) = card.meet(&wanted.listed.card);
        let (drops, mut rises): (Vec<_>, Vec<_>) = changes.into_iter().partition(Change::is_drop);
        // Of a list that names other prices each time, they would pile up: what is new waits, then, with what is gone.
        if !drops.is_empty() && dearer.excess().is_some() {
            dearer = dearer.of_names_in(card);
            rises.retain(|rise| dearer.get(&rise.name).is_some());
        }
        let in_force = match drops.is_empty() {
            true => wanted.clone(),
            false => with_card(wanted, dearer),
        };
        // What a built-in model costs stays built in until something of it changes.
        let is_news = match current {
            Some(current) => *current != in_force,
            None => drops.is_empty() || !rises.is_empty(),
        };
        if is_news {
            self.put.push(in_force);
        }
        if !rises.is_empty() {
            self.raised.push((wanted.listed.id.clone(), rises));
        }
        if !drops.is_empty() {
            self.propose(Kind::Lower, drops, wanted);
        }
    }

    fn end(&mut self, id: &str, current: Option<&Synced>) {
        let Some(current) = current else { return };
        let changes = current.listed.card.iter().map(|(name, price)| Change {
            name: name.to_owned(),
            was: Some(price),
            is: None,
        });
        self.proposals.push(Proposal {
            id: id.to_owned(),
            kind: Kind::Gone,
            source: current.source.clone(),
            changes: changes.collect(),
            digest: current.listed.card.digest(Kind::Gone.name()),
            is_refused: false,
            wanted: None,
        });
    }

    fn propose(&mut self, kind: Kind, changes: Vec<Change>, wanted: &Synced) {
        self.proposals.push(Proposal {
            id: wanted.listed.id.clone(),
            kind,
            source: wanted.source.clone(),
            changes,
            digest: wanted.listed.card.digest(kind.name()),
            is_refused: false,
            wanted: Some(wanted.clone()),
        });
    }

    /// What waits and was not refused.
    pub fn waiting(&self) -> impl Iterator<Item = &Proposal> {
        self.proposals.iter().filter(|proposal| !proposal.is_refused)
    }
}

fn with_card(wanted: &Synced, card: Card) -> Synced {
    let mut derived = wanted.listed.derived.clone();
    derived.retain(|name| card.get(name) == wanted.listed.card.get(name));
    Synced { source: wanted.source.clone(), listed: Listed { card, derived, ..wanted.listed.clone() } }
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;
    use crate::catalog::import::repo::Choice;

    fn model(id: &str, prompt: &str, completion: &str) -> Synced {
        let entry = format!(
            r#"{{"id":"{id}","architecture":{{"output_modalities":["text"]}},"pricing":{{"prompt":"{prompt}","completion":"{completion}"}}}}"#
        );
        Synced { source: "somebody".to_owned(), listed: Listed::from_json(&entry).unwrap() }
    }

    fn by_id(models: &[Synced]) -> BTreeMap<String, Synced> {
        models.iter().map(|one| (one.listed.id.clone(), one.clone())).collect()
    }

    #[test]
    fn what_happens_by_itself_and_what_waits() {
        let mut state = State {
            synced: by_id(&[
                model("same", "1e-6", "2e-6"),
                model("dearer", "1e-6", "2e-6"),
                model("cheaper", "1e-6", "2e-6"),
                model("both", "1e-6", "2e-6"),
                model("gone", "1e-6", "2e-6"),
                model("now-free", "1e-6", "2e-6"),
            ]),
            ..State::default()
        };
        let built_in = [("built-in", "1e-6"), ("built-in-dearer", "3e-6")]
            .map(|(id, prompt)| (id.to_owned(), model(id, prompt, "2e-6").listed.card))
            .into();
        let wanted = by_id(&[
            model("same", "1e-6", "2e-6"),
            model("dearer", "2e-6", "2e-6"),
            model("cheaper", "1e-6", "1e-6"),
            model("both", "2e-6", "1e-6"),
            model("now-free", "0", "0"),
            model("new", "1e-6", "2e-6"),
            model("new-free", "0", "0"),
            model("built-in", "2e-6", "2e-6"),
            model("built-in-dearer", "2e-6", "2e-6"),
        ]);
        let sure = BTreeSet::new();
        let first = plan(&state, &built_in, &wanted, &sure, |_| false);
        assert_eq!(first.added, ["new"]);
        let ids = |raised: &[(String, Vec<Change>)]| raised.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&first.raised), ["both", "built-in", "dearer"]);
        let put = by_id(&first.put);
        assert_eq!(put.keys().collect::<Vec<_>>(), ["both", "built-in", "dearer", "new"]);
        assert_eq!(put["both"].listed.card, model("x", "2e-6", "2e-6").listed.card);
        let waiting: Vec<_> = first.waiting().map(|one| (one.id.as_str(), one.kind)).collect();
        let expected = [
            ("both", Kind::Lower),
            ("built-in-dearer", Kind::Lower),
            ("cheaper", Kind::Lower),
            ("gone", Kind::Gone),
            ("new-free", Kind::Free),
            ("now-free", Kind::Lower),
        ];
        assert_eq!(waiting, expected);

        // The same once more: nothing is put twice, what was refused is not asked again, another change is.
        let digest = |id: &str| first.proposals.iter().find(|one| one.id == id).unwrap().digest.clone();
        for id in ["cheaper", "gone"] {
            state.choices.insert(id.to_owned(), Choice { refused: digest(id), ..Choice::default() });
        }
        state.synced.extend(put);
        let second = plan(&state, &built_in, &wanted, &sure, |_| false);
        assert_eq!((second.put.len(), second.added.len(), second.raised.len()), (0, 0, 0));
        assert_eq!((second.waiting().count(), second.proposals.len()), (4, 6));
        let third = plan(&state, &built_in, &by_id(&[model("cheaper", "1e-6", "5e-7")]), &sure, |id| id == "gone");
        assert!(third.waiting().any(|one| one.id == "cheaper"));
        assert_eq!(third.superseded, ["gone"]);
    }

    #[test]
    fn what_one_upstream_alone_has_a_price_for_waits_while_another_would_be_asked() {
        let wanted = by_id(&[
            model("built-in", "2e-6", "2e-6"),
            model("free", "0", "0"),
            model("held", "2e-6", "2e-6"),
            model("sure", "1e-6", "2e-6"),
            model("unsure", "1e-6", "2e-6"),
        ]);
        let mut state = State { synced: by_id(&[model("held", "1e-6", "2e-6")]), ..State::default() };
        let built_in = [("built-in".to_owned(), model("x", "1e-6", "2e-6").listed.card)].into();
        let unsure = ["built-in", "free", "held", "unsure"].map(str::to_owned).into();
        let first = plan(&state, &built_in, &wanted, &unsure, |_| false);
        assert_eq!(first.added, ["sure"]);
        // Dearer than it was sold is no worse.
        assert_eq!(by_id(&first.put).keys().collect::<Vec<_>>(), ["built-in", "held", "sure"]);
        let waiting: Vec<_> = first.waiting().map(|one| (one.id.as_str(), one.kind)).collect();
        assert_eq!(waiting, [("free", Kind::Free), ("unsure", Kind::Unsure)]);
        // The operator agrees to it once.
        state.synced.extend(first.proposals.iter().filter_map(|one| Some((one.id.clone(), one.wanted.clone()?))));
        assert_eq!(plan(&state, &built_in, &wanted, &unsure, |_| false).waiting().count(), 0);
    }

    /// Prices that are gone stay until the operator has decided, but not those of any number of lists.
    #[test]
    fn prices_of_changing_names_do_not_pile_up() {
        let named = |round: u32, prompt: &str| {
            let mut model = model("m", prompt, "2e-6");
            for at in 0..40 {
                model.listed.card.set(&format!("output_image/{round}-{at}"), Some(Decimal::ONE));
            }
            model
        };
        let mut state = State { synced: by_id(&[named(0, "1e-6")]), ..State::default() };
        let made = plan(&state, &BTreeMap::new(), &by_id(&[named(1, "3e-6")]), &BTreeSet::new(), |_| false);
        state.synced.extend(by_id(&made.put));
        let card = &state.synced["m"].listed.card;
        assert_eq!((card.get("prompt"), card.excess()), (Some("0.000003".parse().unwrap()), None));
        assert!(card.get("output_image/0-0").is_some() && made.waiting().count() == 1);
    }
}
