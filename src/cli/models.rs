//! `coinslot models`: what is sold at which price, and what the price lists of others would have. Works with
//! the node stopped, and beside a running one, which takes changes up within seconds (see
//! [`Store::open_beside`]).

use std::process::ExitCode;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{beside, desk, done, in_force, vault, with_page};
use crate::catalog::card::{self, Change};
use crate::catalog::file;
use crate::catalog::import::plan::Proposal;
use crate::catalog::import::{Decision, Importer, Offer, Outcome, Overrides, Switch};
use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::operator::{Desk, models as acts};
use crate::store::Store;
use crate::upstream::Pool;

pub(super) const ARGUMENTS: &str = "list|sync|diff|apply|refuse …";

pub(super) const HELP: &str = "prices and their sources; `coinslot models help` says more";

pub(super) const PAGE: &str = "\
coinslot models: what is sold at which price, and what the lists of PRICE_SOURCES would have

  coinslot models list
  coinslot models sync
  coinslot models diff
  coinslot models apply ID… | --all
  coinslot models apply --below-cost|--at-cost ID…
  coinslot models refuse ID… | --all
  coinslot models enable|disable ID…
  coinslot models show|hide ID…
  coinslot models price ID NAME=USD…
  coinslot models names ID [NAME…]

sync asks the sources now. New models and higher prices come into force by themselves; lower ones, models that
are given away, and models that are gone wait, and diff shows them. With --below-cost a model may be sold for
less than an upstream takes for it; --at-cost takes that back. Prices are in USD, of a million tokens or of one
of anything else. What is hidden is in no list, and sold to whoever names it.

price says what a model costs over what its source says (prompt=2.5 completion=10), also below cost; NAME= takes
a price back. names says all further names that you sell it under. With --json, everything is printed as JSON,
prices of one token.
";

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    List,
    Sync,
    Diff,
    Decide(Decision, Which),
    TakeBack(Vec<String>),
    Switch { ids: Vec<String>, what: Switch },
    Overrides { id: String, own: Overrides },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Which {
    All,
    These(Vec<String>),
}

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    with_page(PAGE, words, read, run)
}

/// What the words ask for, and whether the answer is to be JSON.
fn read(words: &[&str]) -> Option<(Act, bool)> {
    let (verb, rest) = words.split_first()?;
    let (mut ids, mut all, mut below, mut at, mut json) = (Vec::new(), false, false, false, false);
    for word in rest {
        match *word {
            "--json" => json = true,
            "--all" => all = true,
            "--below-cost" => below = true,
            "--at-cost" => at = true,
            word if word.starts_with('-') => return None,
            word => ids.push(word.to_owned()),
        }
    }
    let has_cost = below || at;
    let is_bare = ids.is_empty() && !all && !has_cost;
    let which = match (all, ids.is_empty()) {
        (true, true) => Some(Which::All),
        (false, false) => Some(Which::These(ids.clone())),
        _ => None,
    };
    let act = match *verb {
        "list" if is_bare => Act::List,
        "sync" if is_bare => Act::Sync,
        "diff" if is_bare => Act::Diff,
        // Whoever sells below cost names the model.
        "apply" if has_cost && (all || ids.is_empty() || below == at) => return None,
        "apply" if at => Act::TakeBack(ids),
        "apply" if below => Act::Decide(Decision::ApplyBelowCost, which?),
        "apply" => Act::Decide(Decision::Apply, which?),
        "price" | "names" if !all && !has_cost => own(verb, &ids)?,
        "refuse" if !has_cost => Act::Decide(Decision::Refuse, which?),
        _ if !ids.is_empty() && !all && !has_cost => {
            Act::Switch { ids, what: SWITCHES.iter().find(|(word, ..)| word == verb)?.1 }
        }
        _ => return None,
    };
    Some((act, json))
}

/// What the operator says of a model: its prices, or its further names.
fn own(verb: &str, words: &[String]) -> Option<Act> {
    let (id, rest) = words.split_first()?;
    let own = match verb {
        "names" => Overrides { names: Some(rest.to_vec()), ..Overrides::default() },
        _ => {
            let prices = rest.iter().map(|word| match word.split_once('=')? {
                (name, "") => Some((name.to_owned(), None)),
                (name, price) => Some((name.to_owned(), Some(card::read(name, price)?))),
            });
            Overrides {
                prices: prices.collect::<Option<Vec<_>>>().filter(|prices| !prices.is_empty())?,
                ..Overrides::default()
            }
        }
    };
    Some(Act::Overrides { id: id.clone(), own })
}

/// Words for switches, and for what is done then.
const SWITCHES: [(&str, Switch, &str); 4] = [
    ("enable", Switch::Sold(true), "enabled"),
    ("disable", Switch::Sold(false), "disabled"),
    ("show", Switch::Listed(true), "shown"),
    ("hide", Switch::Listed(false), "hidden"),
];

async fn run(config: &Config, act: Act, json: bool) -> Result<(String, ExitCode), String> {
    let store = beside(config).await?;
    let performed = perform(&in_force(config, &store).await?, &store, act, json).await;
    store.close().await;
    performed
}

async fn perform(config: &Config, store: &Store, act: Act, json: bool) -> Result<(String, ExitCode), String> {
    let clock: SharedClock = Arc::new(SystemClock);
    let vault = vault(config, store).await?;
    let (ways, _open) = super::ways(config).await?;
    let pool = Pool::beside(&config.upstreams, store, &vault, &ways.upstreams, &clock).await.map_err(said)?;
    let loaded = file::configured(&config.pricing).map_err(said)?;
    let importer =
        Importer::new(store.clone(), pool, Arc::clone(&clock), &config.pricing, &ways.prices, &loaded).map_err(said)?;
    let desk = desk(store);
    let well = |text: String| Ok(done(text));
    match act {
        Act::List => {
            let overview = importer.overview().await.map_err(said)?;
            well(if json {
                lines(&json!({ "models": overview.offers.iter().map(offer_json).collect::<Vec<_>>() }))
            } else {
                table(&overview.offers)
            })
        }
        Act::Sync => {
            let outcome = acts::sync(desk, &importer).await.map_err(said)?;
            let code = if outcome.troubles.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            Ok((if json { lines(&outcome_json(&outcome)) } else { told(&outcome) }, code))
        }
        Act::Diff => {
            let plan = importer.overview().await.map_err(said)?.plan;
            well(if json {
                lines(&json!({ "waiting": plan.waiting().map(proposal_json).collect::<Vec<_>>() }))
            } else {
                diff(plan.waiting())
            })
        }
        Act::Decide(verdict, which) => well(decide(desk, &importer, verdict, which, json).await?),
        Act::TakeBack(ids) => {
            for id in &ids {
                acts::take_back(desk, &importer, id).await.map_err(|error| format!("{id}: {error}"))?;
            }
            well(if json { lines(&json!({ "at_cost": ids })) } else { format!("at cost again: {}\n", ids.join(", ")) })
        }
        Act::Overrides { id, own } => {
            acts::set_own(desk, &importer, &id, &own).await.map_err(|error| format!("{id}: {error}"))?;
            let offers = importer.overview().await.map_err(said)?.offers;
            let offer: Vec<Offer> = offers.into_iter().filter(|offer| offer.model.id == id).collect();
            well(match (json, offer.first()) {
                (true, Some(offer)) => lines(&offer_json(offer)),
                _ => table(&offer),
            })
        }
        Act::Switch { ids, what } => {
            let word = SWITCHES.iter().find(|(_, switch, _)| *switch == what).map_or("", |(_, _, word)| *word);
            for id in &ids {
                acts::switch(desk, &importer, id, what).await.map_err(|error| format!("{id}: {error}"))?;
            }
            well(if json { lines(&json!({ word: ids })) } else { format!("{word}: {}\n", ids.join(", ")) })
        }
    }
}

/// One after the other; what was decided before something went wrong stays decided.
async fn decide(
    desk: Desk<'_>,
    importer: &Importer,
    verdict: Decision,
    which: Which,
    json: bool,
) -> Result<String, String> {
    let ids: Vec<(String, Option<String>)> = match which {
        Which::These(ids) => ids.into_iter().map(|id| (id, None)).collect(),
        Which::All => {
            let plan = importer.overview().await.map_err(said)?.plan;
            plan.waiting().map(|one| (one.id.clone(), Some(one.digest.clone()))).collect()
        }
    };
    let word = if verdict == Decision::Refuse { "refused" } else { "applied" };
    let mut decided = Vec::new();
    for (id, digest) in ids {
        let one = acts::decide(desk, importer, &id, digest.as_deref(), verdict).await;
        let one = one.map_err(|error| format!("{id}: {error}; {} were decided before it", decided.len()))?;
        decided.push(one);
    }
    Ok(if json {
        lines(&json!({ word: decided.iter().map(proposal_json).collect::<Vec<_>>() }))
    } else {
        format!("{word}: {}\n{}", decided.len(), listed(decided.iter()))
    })
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn lines(value: &Value) -> String {
    format!("{value}\n")
}

fn text(price: Option<Decimal>) -> Value {
    price.map_or(Value::Null, |price| json!(price.to_string()))
}

fn change_json(change: &Change) -> Value {
    json!({ "name": change.name, "was": text(change.was), "is": text(change.is) })
}

fn proposal_json(proposal: &Proposal) -> Value {
    let changes: Vec<Value> = proposal.changes.iter().map(change_json).collect();
    json!({ "id": proposal.id, "kind": proposal.kind.name(), "source": proposal.source, "changes": changes })
}

fn offer_json(offer: &Offer) -> Value {
    json!({
        "id": offer.model.id,
        "source": offer.source,
        "enabled": offer.model.enabled,
        "listed": offer.model.enabled && offer.model.visible,
        "served": offer.is_served,
        "below_cost": offer.is_below_cost,
        "below_cost_allowed": offer.may_be_below_cost,
        "derived_prices": offer.derived,
        "pricing": offer.card.texts(),
        "own_prices": offer.own_prices.texts(),
        "own_names": offer.own_names,
    })
}

fn outcome_json(outcome: &Outcome) -> Value {
    let raised = outcome.plan.raised.iter().map(|(id, changes)| {
        let changes: Vec<Value> = changes.iter().map(change_json).collect();
        json!({ "id": id, "changes": changes })
    });
    let troubles = outcome.troubles.iter().map(|(source, why)| json!({ "source": source, "error": why }));
    json!({
        "new": outcome.plan.added,
        "raised": raised.collect::<Vec<_>>(),
        "waiting": outcome.plan.waiting().map(proposal_json).collect::<Vec<_>>(),
        "errors": troubles.collect::<Vec<_>>(),
    })
}

fn change_line(change: &Change) -> String {
    let Change { name, was, is } = change;
    format!("  {name} {} -> {}\n", card::shown(name, *was), card::shown(name, *is))
}

fn listed<'a>(proposals: impl Iterator<Item = &'a Proposal>) -> String {
    let one = |proposal: &Proposal| {
        let changes: String = proposal.changes.iter().map(change_line).collect();
        format!("{} ({}, {})\n{changes}", proposal.id, proposal.kind.name(), proposal.source)
    };
    proposals.map(one).collect()
}

fn diff<'a>(waiting: impl Iterator<Item = &'a Proposal>) -> String {
    let shown = listed(waiting);
    if shown.is_empty() { "nothing waits\n".to_owned() } else { shown }
}

fn told(outcome: &Outcome) -> String {
    let plan = &outcome.plan;
    let raised: String = plan
        .raised
        .iter()
        .map(|(id, changes)| format!("{id} (raised)\n{}", changes.iter().map(change_line).collect::<String>()))
        .collect();
    let troubles: String = outcome.troubles.iter().map(|(source, why)| format!("{source}: {why}\n")).collect();
    let waiting = plan.waiting().count();
    format!(
        "{raised}{troubles}{} new, {} raised, {waiting} waiting (coinslot models diff)\n",
        plan.added.len(),
        plan.raised.len()
    )
}

fn table(offers: &[Offer]) -> String {
    if offers.is_empty() {
        return "no model has a price\n".to_owned();
    }
    let row = |cells: [&str; 5]| {
        let [id, source, input, output, notes] = cells;
        format!("{id:<48} {source:<20} {input:>10} {output:>10}  {notes}").trim_end().to_owned() + "\n"
    };
    let head = row(["id", "source", "input", "output", "notes"]);
    let rows = offers.iter().map(|offer| {
        let price = |name: &str| card::shown(name, offer.card.get(name));
        let notes = [
            (!offer.model.enabled, "off"),
            (!offer.own_prices.is_empty(), "your prices"),
            (!offer.derived.is_empty(), "cache price derived"),
            (offer.is_below_cost, "below cost"),
            (offer.may_be_below_cost, "below cost allowed"),
            (!offer.is_served, "no upstream has it"),
        ];
        let notes: Vec<&str> = notes.into_iter().filter_map(|(is_so, note)| is_so.then_some(note)).collect();
        row([&offer.model.id, &offer.source, &price("prompt"), &price("completion"), &notes.join(", ")])
    });
    std::iter::once(head).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_make_sense_or_nothing_is_done() {
        let these = |ids: &[&str]| Which::These(ids.iter().map(|id| (*id).to_owned()).collect());
        let switch = |id: &str, what| Act::Switch { ids: vec![id.to_owned()], what };
        let rows: &[(&str, Option<(Act, bool)>)] = &[
            ("list", Some((Act::List, false))),
            ("list --json", Some((Act::List, true))),
            ("sync", Some((Act::Sync, false))),
            ("--json sync", None),
            ("diff --json", Some((Act::Diff, true))),
            ("apply a/b c", Some((Act::Decide(Decision::Apply, these(&["a/b", "c"])), false))),
            ("apply --all", Some((Act::Decide(Decision::Apply, Which::All), false))),
            ("apply --below-cost a", Some((Act::Decide(Decision::ApplyBelowCost, these(&["a"])), false))),
            ("apply a --at-cost", Some((Act::TakeBack(vec!["a".to_owned()]), false))),
            ("apply --at-cost --below-cost a", None),
            ("apply --at-cost", None),
            ("disable --at-cost a", None),
            ("apply --below-cost --all", None),
            ("apply", None),
            ("apply --all a", None),
            ("refuse --all --json", Some((Act::Decide(Decision::Refuse, Which::All), true))),
            ("refuse --below-cost a", None),
            ("enable a", Some((switch("a", Switch::Sold(true)), false))),
            ("disable a", Some((switch("a", Switch::Sold(false)), false))),
            ("hide a", Some((switch("a", Switch::Listed(false)), false))),
            ("vanish a", None),
            ("disable --all", None),
            ("list a", None),
            ("sync --all", None),
            ("apply --force a", None),
            ("", None),
        ];
        for (line, wanted) in rows {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(read(&words), *wanted, "{line}");
        }
    }
}
