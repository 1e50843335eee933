//! `coinslot settings`: what is in force and who says so; tells a node other settings. Works with the node stopped,
//! and beside a running one, which notices within seconds (see [`crate::store::Store::open_beside`]).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::process::ExitCode;

use serde_json::json;

use super::tariffs::{dearest, opened};
use super::{desk, done, split_json, with_page};
use crate::admin::settings::{View, view};
use crate::config::{Config, Told};
use crate::ledger::Ledger;
use crate::operator::parcel::{Parcel, Taken};
use crate::operator::settings as acts;

pub(super) const ARGUMENTS: &str = "list|get|set|unset|init|export|import …";

pub(super) const HELP: &str = "what is in force; `coinslot settings help` says more";

pub(super) const PAGE: &str = "\
coinslot settings: what is in force and who says so, and settings that a node is told beside its environment

  coinslot settings list [--json]
  coinslot settings get NAME [--json]
  coinslot settings set NAME VALUE
  coinslot settings unset NAME
  coinslot settings init
  coinslot settings export
  coinslot settings import [--dry-run] < document

The environment (or .env) wins. What is told is kept in the database, and comes into force within seconds, or at
the next start: list says which. Secrets, and what is needed to open the database, are told by the environment
alone. init prints a commented file for .env. export prints settings, profiles and windows without secrets, for
another node to import; with --dry-run, import says what it would change.
";

/// Longest document that is read, in bytes.
const MAX_DOCUMENT: u64 = 1024 * 1024;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    List,
    Get(String),
    /// `None`: it is told no more.
    Set(String, Option<String>),
    Export,
    Import {
        dry_run: bool,
    },
}

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    if words == ["init"] {
        print!("{}", include_str!("../../.env.example"));
        return Some(ExitCode::SUCCESS);
    }
    with_page(PAGE, words, read, async |config, act, json| work(config, act, json).await.map(done))
}

/// What the words ask for, and whether the answer is to be JSON.
fn read(words: &[&str]) -> Option<(Act, bool)> {
    let (mut words, json) = split_json(words);
    let dry_run = words.contains(&"--dry-run");
    words.retain(|word| *word != "--dry-run");
    let act = match words[..] {
        ["import"] => Act::Import { dry_run },
        _ if dry_run => return None,
        ["list"] => Act::List,
        ["get", name] => Act::Get(name.to_owned()),
        ["set", name, value] => Act::Set(name.to_owned(), Some(value.to_owned())),
        ["unset", name] => Act::Set(name.to_owned(), None),
        ["export"] => Act::Export,
        _ => return None,
    };
    Some((act, json))
}

async fn work(environment: &Config, act: Act, json: bool) -> Result<String, String> {
    let (store, ledger, config) = opened(environment).await?;
    let told = store.told().await.map_err(|error| error.to_string());
    let worked = match told {
        Ok(told) => perform((&config, &told), &ledger, act, json).await,
        Err(error) => Err(error),
    };
    store.close().await;
    worked
}

async fn perform((config, told): (&Config, &Told), ledger: &Ledger, act: Act, json: bool) -> Result<String, String> {
    let desk = desk(ledger.store());
    // Which of them wait for the next start only the process that runs can say.
    let views = || view(config, told, |_| false);
    match act {
        Act::List if json => Ok(format!("{}\n", json!({ "settings": views() }))),
        Act::List => Ok(views().iter().map(line).collect()),
        Act::Get(name) => {
            let found = views().into_iter().find(|one| one.name == name);
            let found = found.ok_or_else(|| format!("there is no setting {name}"))?;
            Ok(if json { format!("{}\n", json!(found)) } else { format!("{}# {}\n", line(&found), found.help) })
        }
        Act::Set(name, value) => {
            let changes = BTreeMap::from([(name.clone(), value)]);
            let changed = acts::set(desk, config, &changes).await.map_err(|error| error.to_string())?;
            let view = views().into_iter().find(|one| one.name == name);
            let when = match view.and_then(|view| view.force) {
                Some("at_once") => "a running node takes it up within seconds",
                _ => "it comes into force at the next start",
            };
            Ok(if json {
                format!("{}\n", json!({ "changed": changed.iter().map(|one| &one.name).collect::<Vec<_>>() }))
            } else if changed.is_empty() {
                format!("{name} is so already\n")
            } else {
                format!("{name} is changed; {when}\n")
            })
        }
        Act::Export => {
            let tariffs = ledger.tariffs().await.map_err(|error| error.to_string())?;
            let parcel = Parcel::of(config, told, &tariffs);
            Ok(format!("{}\n", serde_json::to_string_pretty(&parcel).map_err(|error| error.to_string())?))
        }
        Act::Import { dry_run } => {
            let mut text = String::new();
            std::io::stdin().take(MAX_DOCUMENT).read_to_string(&mut text).map_err(|error| error.to_string())?;
            let parcel: Parcel =
                serde_json::from_str(&text).map_err(|error| format!("this is no such document: {error}"))?;
            let tariffs = ledger.tariffs().await.map_err(|error| error.to_string())?;
            let plan = parcel.plan(config, told, &tariffs, dearest(config)).map_err(|error| error.to_string())?;
            if !dry_run {
                plan.carry_out(desk, ledger).await.map_err(|error| error.to_string())?;
            }
            let taken = plan.told(dry_run);
            Ok(if json { format!("{}\n", json!(taken)) } else { differences(&taken) })
        }
    }
}

fn line(one: &View) -> String {
    let value = match (&one.value, one.is_set) {
        (Some(value), _) => value.as_str(),
        (None, true) => "(not shown)",
        (None, false) => "",
    };
    let how = match (one.origin, one.force) {
        ("environment", _) => "environment",
        ("told", Some("at_once")) => "told",
        ("told", _) => "told, at the next start",
        (_, Some("at_once")) => "default; can be told at once",
        (_, Some(_)) => "default; can be told for the next start",
        (_, None) => "default",
    };
    format!("{}={value}  [{how}]\n", one.name)
}

fn differences(taken: &Taken) -> String {
    let mut text = String::new();
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(nothing)".to_owned());
    // Writing to a string does not fail.
    for one in &taken.settings {
        let _written = writeln!(text, "{}: {} -> {}", one.name, shown(&one.was), shown(&one.is));
    }
    for name in &taken.profiles {
        let _written = writeln!(text, "profile {name}");
    }
    for name in &taken.windows {
        let _written = writeln!(text, "window {name}");
    }
    for (name, why) in &taken.skipped {
        let _written = writeln!(text, "not {name}: {why}");
    }
    let end = if taken.dry_run { "nothing was changed (--dry-run)" } else { "done" };
    format!("{text}{end}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_make_sense_or_nothing_is_done() {
        let set = |value: Option<&str>| Act::Set("NAME".to_owned(), value.map(str::to_owned));
        for (words, expected) in [
            (&["list"][..], Some((Act::List, false))),
            (&["get", "NAME", "--json"], Some((Act::Get("NAME".to_owned()), true))),
            (&["set", "NAME", "a b"], Some((set(Some("a b")), false))),
            (&["unset", "NAME"], Some((set(None), false))),
            (&["import", "--dry-run"], Some((Act::Import { dry_run: true }, false))),
            (&["import"], Some((Act::Import { dry_run: false }, false))),
            (&["export"], Some((Act::Export, false))),
            (&["set", "NAME"], None),
            (&["list", "--dry-run"], None),
            (&[], None),
        ] {
            assert_eq!(read(words), expected, "{words:?}");
        }
    }
}
