//! `coinslot windows`: prices of some hours. Works with the node stopped, and beside a running one, which
//! notices within seconds (see [`crate::store::Store::open_beside`]).

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use super::tariffs::{Factors, floor, opened, refused, removed};
use super::{desk, done, with_page};
use crate::config::Config;
use crate::ledger::Ledger;
use crate::money::tariff::{ALL_DAYS, Window};
use crate::operator::entry::{clock_time, utc_offset, weekdays};
use crate::operator::tariffs as acts;

pub(super) const ARGUMENTS: &str = "set|list|remove …";

pub(super) const HELP: &str = "prices of some hours; `coinslot windows help` says more";

pub(super) const PAGE: &str = "\
coinslot windows: a factor on prices at some hours, like a night rate

  coinslot windows set NAME --multiplier 0.95 --from 22:00 --to 06:00 [--days mon,tue,…] [--offset +02:00]
                       [--models PATTERN]… [--not PATTERN]… [--allow-below-cost]
  coinslot windows list [--json]
  coinslot windows remove NAME

Hours are UTC, or ahead of it by --offset; they go on after midnight where --to is no later than --from. --days
are those on which the window starts. Patterns are of model ids, with * for anything: the window is about the
models that it names (all, without --models) except those given with --not. A request has the price of the moment
at which it comes in. Factors of all that apply are multiplied, those of a key's profile too. None lowers a
price below what the dearest upstream of the model takes, unless it is made with --allow-below-cost: a factor
below that is refused without. With --json, what was done is printed as JSON.
";

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    Set(Window),
    List,
    Remove(String),
}

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    with_page(PAGE, words, read, async |config, act, json| work(config, act, json).await.map(done))
}

/// What the words ask for, and whether the answer is to be JSON.
fn read(words: &[&str]) -> Option<(Act, bool)> {
    let (verb, rest) = words.split_first()?;
    let mut factors = Factors::default();
    let (mut from, mut to, mut days, mut offset) = (None, None, None, None);
    let name = factors.read(rest, |word, value| {
        match word {
            "--from" => from = Some(clock_time(value)?),
            "--to" => to = Some(clock_time(value)?),
            "--days" => days = Some(weekdays(value)?),
            "--offset" => offset = Some(utc_offset(value)?),
            _ => return None,
        }
        Some(())
    })?;
    let json = factors.json;
    let hours = from.is_some() || to.is_some() || days.is_some() || offset.is_some();
    let act = match (*verb, name) {
        ("set", Some(name)) => Act::Set(Window {
            name,
            multiplier: factors.multiplier?,
            models: factors.models,
            below_cost: factors.below_cost,
            starts: from?,
            ends: to?,
            days: days.unwrap_or(ALL_DAYS),
            utc_offset: offset.unwrap_or(0),
        }),
        (_, _) if hours || factors.are_given() => return None,
        ("list", None) => Act::List,
        ("remove", Some(name)) => Act::Remove(name),
        _ => return None,
    };
    Some((act, json))
}

async fn work(config: &Config, act: Act, json: bool) -> Result<String, String> {
    let (store, ledger, config) = opened(config).await?;
    let config = &config;
    let done = match act {
        Act::Set(window) => set(config, &ledger, &window, json).await,
        Act::List => list(&ledger, json).await,
        Act::Remove(name) => match acts::remove_window(desk(&store), &ledger, &name).await {
            Ok(()) => Ok(removed(&name, json)),
            Err(error) => Err(refused(&name, error)),
        },
    };
    store.close().await;
    done
}

async fn set(config: &Config, ledger: &Ledger, window: &Window, json: bool) -> Result<String, String> {
    let done = acts::set_window(desk(ledger.store()), ledger, window, floor(config)).await;
    done.map_err(|error| refused(&window.name, error))?;
    Ok(match json {
        true => format!("{}\n", as_json(window)),
        false => format!("{}: {} times the price, {}\n", window.name, window.multiplier.normalize(), window.hours()),
    })
}

fn as_json(window: &Window) -> Value {
    json!({
        "name": window.name, "multiplier": window.multiplier, "hours": window.hours(),
        "models": window.models.only, "not": window.models.not, "below_cost": window.below_cost,
    })
}

async fn list(ledger: &Ledger, json: bool) -> Result<String, String> {
    let tariffs = ledger.tariffs().await.map_err(|error| error.to_string())?;
    if json {
        let windows: Vec<Value> = tariffs.windows.iter().map(|window| as_json(window)).collect();
        return Ok(format!("{}\n", json!({ "windows": windows })));
    }
    if tariffs.windows.is_empty() {
        return Ok("no window was made yet\n".to_owned());
    }
    let line = |window: &Arc<Window>| {
        let models = match window.models.describe() {
            models if models.is_empty() => "all models".to_owned(),
            models => models,
        };
        let cost = if window.below_cost { ", below cost too" } else { "" };
        format!("{}: {} times the price of {models}, {}{cost}\n", window.name, window.multiplier, window.hours())
    };
    Ok(tariffs.windows.iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;
    use crate::money::tariff::Filter;

    #[test]
    fn words_make_sense_or_nothing_is_done() {
        let night = Window {
            name: "night".to_owned(),
            multiplier: Decimal::new(8, 1),
            models: Filter::default(),
            below_cost: false,
            starts: 22 * 60,
            ends: 6 * 60 + 30,
            days: ALL_DAYS,
            utc_offset: 0,
        };
        let set = "set night --multiplier 0.8 --from 22:00 --to 06:30";
        for (line, wanted) in [
            (set.to_owned(), Some((Act::Set(night.clone()), false))),
            (
                format!("{set} --days sat,Sun --offset -05:30"),
                Some((Act::Set(Window { days: 0b110_0000, utc_offset: -330, ..night.clone() }), false)),
            ),
            ("list".to_owned(), Some((Act::List, false))),
            ("remove night".to_owned(), Some((Act::Remove("night".to_owned()), false))),
            (format!("{set} --days sat,one"), None),
            (format!("{set} --offset 2"), None),
            ("set night --multiplier 0.8 --from 22:00".to_owned(), None),
            ("set night --multiplier 0.8 --from 24:00 --to 06:00".to_owned(), None),
            ("set night --multiplier 0.8 --from 2:00 --to 06:00".to_owned(), None),
            ("set night --from 22:00 --to 06:00".to_owned(), None),
            ("list --from 22:00".to_owned(), None),
            ("attach night".to_owned(), None),
        ] {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(read(&words), wanted, "{line}");
        }
    }
}
