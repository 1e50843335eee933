//! `coinslot trail`: what operators changed, on the pages, by the API or from here. Works with the node stopped,
//! and beside a running one.

use std::process::ExitCode;

use serde_json::json;

use super::{block_on, configured, done, tell, with_store};
use crate::admin::trail::{Noted, Wanted, latest};
use crate::config::Config;
use crate::pages::format;

/// Acts that are shown, unless another number is asked for.
const USUAL: i64 = 50;
const MOST: i64 = 10_000;

/// What is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    actor: String,
    action: String,
    limit: i64,
    json: bool,
}

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    let asked = read(words)?;
    let Some(config) = configured() else { return Some(ExitCode::FAILURE) };
    Some(tell(block_on(run(&config, &asked)).map(done)))
}

fn read(words: &[&str]) -> Option<Asked> {
    let mut asked = Asked { limit: USUAL, ..Asked::default() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--json" => asked.json = true,
            "--actor" => (*words.next()?).clone_into(&mut asked.actor),
            "--action" => (*words.next()?).clone_into(&mut asked.action),
            "--limit" => asked.limit = words.next()?.parse().ok().filter(|limit| (1..=MOST).contains(limit))?,
            _ => return None,
        }
    }
    Some(asked)
}

async fn run(config: &Config, asked: &Asked) -> Result<String, String> {
    let wanted = Wanted { actor: &asked.actor, action: &asked.action, after: "" };
    let found =
        with_store(config, async |store| latest(store, wanted, asked.limit).await.map_err(|error| error.to_string()));
    let found = found.await?;
    Ok(match found.as_slice() {
        found if asked.json => format!("{}\n", json!({ "acts": found })),
        [] => "There is none like that.\n".to_owned(),
        found => found.iter().map(line).collect(),
    })
}

fn line(act: &Noted) -> String {
    let detail = match &act.detail {
        serde_json::Value::Object(detail) if detail.is_empty() => String::new(),
        detail => detail.to_string(),
    };
    let line = format!("{} {:<16} {:<20} {} {detail}", format::utc(act.at_ms), act.actor, act.action, act.subject);
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let asked = |actor: &str, action: &str, limit, json| {
            Some(Asked { actor: actor.to_owned(), action: action.to_owned(), limit, json })
        };
        for (words, expected) in [
            (&[][..], asked("", "", 50, false)),
            (&["--json", "--actor", "token a b"], asked("token a b", "", 50, true)),
            (&["--action", "vouchers.issue", "--limit", "3"], asked("", "vouchers.issue", 3, false)),
            (&["--limit", "0"], None),
            (&["--actor"], None),
            (&["list"], None),
        ] {
            assert_eq!(read(words), expected, "{words:?}");
        }
    }
}
