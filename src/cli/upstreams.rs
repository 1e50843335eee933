//! `coinslot upstreams`: which APIs are behind the node, and which of them are barred until the operator
//! clears them. Works with the node stopped, and beside a running one, which notices within seconds (see
//! [`Store::open_beside`]). Rests and open circuits are the memory of each process: the page
//! `/admin/upstreams` shows them, and clearing ends them too.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::{beside, block_on, configured, done, note, tell};
use crate::config::Config;
use crate::pages::format;
use crate::store::Store;
use crate::upstream::repo::{self, Listed};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    List,
    Clear(String),
}

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    let (act, json) = read(words)?;
    let Some(config) = configured() else { return Some(ExitCode::FAILURE) };
    Some(tell(block_on(run(&config, act, json)).map(done)))
}

/// What the words ask for, and whether the answer is to be JSON.
fn read(words: &[&str]) -> Option<(Act, bool)> {
    let json = words.contains(&"--json");
    let words: Vec<&str> = words.iter().copied().filter(|word| *word != "--json").collect();
    match words[..] {
        [] | ["list"] => Some((Act::List, json)),
        ["clear", name] => Some((Act::Clear(name.to_owned()), json)),
        _ => None,
    }
}

async fn run(config: &Config, act: Act, json: bool) -> Result<String, String> {
    let store = beside(config).await?;
    let worked = work(&store, act, json).await;
    store.close().await;
    worked
}

async fn work(store: &Store, act: Act, json: bool) -> Result<String, String> {
    let lost = |error: crate::store::StoreError| error.to_string();
    match act {
        Act::List => {
            let listed = repo::listed(store).await.map_err(lost)?;
            Ok(if json { as_json(&listed) } else { as_text(&listed) })
        }
        Act::Clear(name) => {
            if !repo::clear(store, &name).await.map_err(lost)? {
                return Err(format!("there is no upstream {name}; coinslot upstreams list shows them"));
            }
            note(store, "upstreams.clear", &name, &json!({})).await?;
            Ok(if json { format!("{}\n", json!({ "cleared": name })) } else { format!("{name} is asked again.\n") })
        }
    }
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
            (&["clear"], None),
            (&["clear", "a", "b"], None),
            (&["drop", "a"], None),
        ] {
            assert_eq!(read(words), expected, "{words:?}");
        }
    }
}
