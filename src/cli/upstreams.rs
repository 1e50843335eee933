//! `coinslot upstreams`: which APIs are behind the node, and which of them are barred until the operator
//! clears them; adds, changes, removes and tries those of the operator's own. Works with the node stopped, and beside
//! a running one, which notices within seconds (see [`Store::open_beside`]). Rests and open circuits are the memory
//! of each process: the page `/admin/upstreams` shows them, and clearing ends them too.

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{books, desk, done, in_force, split_json, vault, with_page, with_store};
use crate::catalog::file;
use crate::catalog::import::Importer;
use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::exchange::{Beside, Tested, Untested, test_beside};
use crate::operator::upstreams as acts;
use crate::pages::format;
use crate::store::Store;
use crate::upstream::Pool;
use crate::upstream::repo::{self, Listed};
use crate::upstream::stored::{Intent, StoredError, Tools};

pub(super) const ARGUMENTS: &str = "list|clear|add|set|remove|test …";

pub(super) const HELP: &str = "who is asked; `coinslot upstreams help` says more";

pub(super) const PAGE: &str = "\
coinslot upstreams: who is behind the node, and why one is barred

  coinslot upstreams [list]
  coinslot upstreams clear NAME
  coinslot upstreams add < entry
  coinslot upstreams set < entry
  coinslot upstreams enable|disable|remove NAME
  coinslot upstreams test NAME

clear forgets what is held against an upstream, and it is asked again. An entry is a JSON object with the members that
UPSTREAMS knows (see the README), read from the standard input, so that no list of commands shows a key. set
changes the members that it names; null takes one away. Upstreams of the environment are changed there. test asks for
one token, at your cost, and says how long the answer took. With --json, everything is printed as JSON.
";

/// Longest entry that is read, in bytes.
const MAX_ENTRY: u64 = 64 * 1024;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    List,
    Clear(String),
    Put(Intent<'static>),
    Switch(String, bool),
    Remove(String),
    Test(String),
}

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    with_page(PAGE, words, read, run)
}

/// What the words ask for, and whether the answer is to be JSON.
fn read(words: &[&str]) -> Option<(Act, bool)> {
    let (words, json) = split_json(words);
    let act = match words[..] {
        [] | ["list"] => Act::List,
        ["clear", name] => Act::Clear(name.to_owned()),
        ["add"] => Act::Put(Intent::Add),
        ["set"] => Act::Put(Intent::Change(None)),
        ["enable", name] => Act::Switch(name.to_owned(), true),
        ["disable", name] => Act::Switch(name.to_owned(), false),
        ["remove", name] => Act::Remove(name.to_owned()),
        ["test", name] => Act::Test(name.to_owned()),
        _ => return None,
    };
    Some((act, json))
}

async fn run(config: &Config, act: Act, json: bool) -> Result<(String, ExitCode), String> {
    with_store(config, async |store| work(config, store, act, json).await).await
}

async fn work(config: &Config, store: &Store, act: Act, json: bool) -> Result<(String, ExitCode), String> {
    let said = |name: &str, word: &str, text: &str| {
        done(if json { format!("{}\n", json!({ word: name })) } else { format!("{name} {text}\n") })
    };
    match act {
        Act::List => {
            let listed = repo::listed(store).await.map_err(|error| error.to_string())?;
            Ok(done(if json { as_json(&listed) } else { as_text(&listed) }))
        }
        Act::Clear(name) => {
            acts::clear(desk(store), &name).await.map_err(|error| match error {
                StoredError::Unknown => format!("there is no upstream {name}; coinslot upstreams list shows them"),
                error => error.to_string(),
            })?;
            Ok(said(&name, "cleared", "is asked again."))
        }
        Act::Put(intent) => {
            let mut text = String::new();
            std::io::stdin().take(MAX_ENTRY).read_to_string(&mut text).map_err(|error| error.to_string())?;
            // What is wrong with it is not repeated: there is a key in it.
            let entry: Map<String, Value> =
                serde_json::from_str(&text).map_err(|_| "the standard input is no JSON object".to_owned())?;
            let name = put(config, store, intent, &entry).await?;
            Ok(said(&name, "stored", "is stored; a running node takes it up within seconds."))
        }
        Act::Switch(name, on) => {
            let entry = Map::from_iter([("name".to_owned(), json!(name)), ("enabled".to_owned(), json!(on))]);
            let name = put(config, store, Intent::Change(None), &entry).await?;
            let (word, text) = if on { ("enabled", "is asked.") } else { ("disabled", "is not asked any more.") };
            Ok(said(&name, word, text))
        }
        Act::Remove(name) => {
            acts::remove(desk(store), &name).await.map_err(|error| error.to_string())?;
            Ok(said(&name, "removed", "is removed."))
        }
        Act::Test(name) => test(&in_force(config, store).await?, store, &name, json).await,
    }
}

async fn put(config: &Config, store: &Store, intent: Intent<'_>, entry: &Map<String, Value>) -> Result<String, String> {
    let vault = vault(config, store).await?;
    let (ways, _open) = super::ways(config).await?;
    let tools = Tools { vault: &vault, way: &ways.upstreams, rules: &config.upstreams };
    acts::put(desk(store), tools, intent, entry).await.map_err(|error| error.to_string())
}

async fn test(config: &Config, store: &Store, name: &str, json: bool) -> Result<(String, ExitCode), String> {
    let tested = ask(config, store, name).await?;
    let (answered, model, ms) = (tested.outcome.is_ok(), &tested.model, tested.took_ms());
    let text = match (&tested.outcome, json) {
        (outcome, true) => {
            let error = outcome.as_ref().err();
            format!("{}\n", json!({ "answered": answered, "model": model, "took_ms": ms, "error": error }))
        }
        (Ok(()), _) => format!("{name} answered with {model} after {ms} ms\n"),
        (Err(why), _) => format!("{name}, asked for {model}: {why} ({ms} ms)\n"),
    };
    Ok((text, if answered { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

/// Asks an upstream one small question.
async fn ask(config: &Config, store: &Store, name: &str) -> Result<Tested, String> {
    let clock: SharedClock = Arc::new(SystemClock);
    let vault = vault(config, store).await?;
    let (ways, _open) = super::ways(config).await?;
    let pool = Pool::beside(&config.upstreams, store, &vault, &ways.upstreams, &clock).await;
    let pool = pool.map_err(|error| error.to_string())?;
    let loaded = file::configured(&config.pricing).map_err(|error| error.to_string())?;
    let importer = Importer::new(store.clone(), Arc::clone(&pool), clock, &config.pricing, &ways.prices, &loaded);
    let importer = importer.map_err(|error| error.to_string())?;
    importer.look().await.map_err(|error| error.to_string())?;
    let (ledger, catalog) = (books(config, store, "upstreams").await?, importer.shelf().now());
    let beside = Beside { pool: &pool, ledger: &ledger, catalog: &catalog, pricing: &config.pricing };
    let tested = acts::test(desk(store), name, test_beside(beside, name)).await;
    tested.map_err(|error| match error {
        Untested::Unknown => format!("there is no upstream {name}, or it is switched off"),
        Untested::NoModel => "it has no model of the price list to ask for".to_owned(),
        error => error.to_string(),
    })
}

/// What is told of an upstream: its entry without secrets, and why it is barred.
fn as_json(listed: &[Listed]) -> String {
    let one = |one: &Listed| {
        let mut entry: Map<String, Value> = serde_json::from_str(&one.spec).unwrap_or_default();
        let bar = one.bar.map(|(bar, since_ms)| json!({ "why": bar.name(), "since": since_ms.div_euclid(1000) }));
        entry.insert("name".to_owned(), json!(one.name));
        entry.insert("barred".to_owned(), bar.unwrap_or_default());
        Value::Object(entry)
    };
    format!("{}\n", json!({ "upstreams": listed.iter().map(one).collect::<Vec<_>>() }))
}

fn as_text(listed: &[Listed]) -> String {
    if listed.is_empty() {
        return "No upstream is known yet: they are written down when the node starts.\n".to_owned();
    }
    let mut text = String::new();
    for Listed { name, spec, bar } in listed {
        let entry: Value = serde_json::from_str(spec).unwrap_or_default();
        let kind = entry.get("provider_type").and_then(Value::as_str).unwrap_or("generic");
        let priority = entry.get("priority").and_then(Value::as_u64).unwrap_or(0);
        let state = match bar {
            Some((bar, since_ms)) => format!("BARRED since {}: {}", format::utc(*since_ms), bar.text()),
            None if entry.get("enabled") == Some(&Value::Bool(false)) => "switched off".to_owned(),
            None => "is asked".to_owned(),
        };
        // Writing to a string does not fail.
        let _written = writeln!(text, "{name:<24} {kind:<12} priority {priority:<4} {state}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let clear = |name: &str| Act::Clear(name.to_owned());
        for (words, expected) in [
            (&[][..], Some((Act::List, false))),
            (&["list"], Some((Act::List, false))),
            (&["--json"], Some((Act::List, true))),
            (&["clear", "a"], Some((clear("a"), false))),
            (&["clear", "--json", "a"], Some((clear("a"), true))),
            (&["add"], Some((Act::Put(Intent::Add), false))),
            (&["set", "--json"], Some((Act::Put(Intent::Change(None)), true))),
            (&["disable", "a"], Some((Act::Switch("a".to_owned(), false), false))),
            (&["remove", "a"], Some((Act::Remove("a".to_owned()), false))),
            (&["test", "a"], Some((Act::Test("a".to_owned()), false))),
            (&["add", "key"], None),
            (&["clear"], None),
            (&["clear", "a", "b"], None),
            (&["drop", "a"], None),
        ] {
            assert_eq!(read(words), expected, "{words:?}");
        }
    }
}
