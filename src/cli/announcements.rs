//! `coinslot announcements`: what the shop window says to everybody. Works with the node stopped, and beside a
//! running one, which shows it at once.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{desk, done, read_date, split_json, with_page, with_store};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::news::{self, Announcement, Level, Text};
use crate::operator::announcements as acts;
use crate::pages::format;
use crate::store::Store;

pub(super) const ARGUMENTS: &str = "list|set|remove …";

pub(super) const HELP: &str = "what is said to everybody; `coinslot announcements help` says more";

pub(super) const PAGE: &str = "\
coinslot announcements: what the shop window says above all else, and /v1/announcements says to programs

  coinslot announcements list
  coinslot announcements set --title TEXT [--body MARKDOWN] [--level info|warning|critical]
                             [--from TIME] [--until TIME] [--id ID]
  coinslot announcements remove ID

Times are in UTC, like 2026-01-31T18:00. Without --from it is shown at once, without --until until it is removed.
--id changes an existing one. HTML in a text is shown as text. With --json, everything is printed as JSON.
";

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    List,
    Set { id: Option<String>, title: String, body: String, level: Level, from: Option<i64>, until: Option<i64> },
    Remove(String),
}

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    with_page(PAGE, words, read, async |config, act, json| run(config, act, json).await.map(done))
}

/// What the words ask for, and whether the answer is to be JSON.
fn read(words: &[&str]) -> Option<(Act, bool)> {
    let (words, json) = split_json(words);
    let act = match words[..] {
        ["list"] => Act::List,
        ["remove", id] => Act::Remove(id.to_owned()),
        ["set", ..] => set(words.get(1..)?)?,
        _ => return None,
    };
    Some((act, json))
}

fn set(words: &[&str]) -> Option<Act> {
    let (mut id, mut title, mut body, mut level, mut from, mut until) =
        (None, None, String::new(), Level::Info, None, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = *words.next()?;
        match *word {
            "--id" => id = Some(value.to_owned()),
            "--title" => title = Some(value.to_owned()),
            "--body" => value.clone_into(&mut body),
            "--level" => level = Level::parse(value)?,
            "--from" => from = Some(read_date(value)?),
            "--until" => until = Some(read_date(value)?),
            _ => return None,
        }
    }
    Some(Act::Set { id, title: title?, body, level, from, until })
}

async fn run(config: &Config, act: Act, json: bool) -> Result<String, String> {
    with_store(config, async |store| work(store, act, json).await).await
}

async fn work(store: &Store, act: Act, json: bool) -> Result<String, String> {
    let now_ms = SystemClock.now_ms();
    match act {
        Act::List => {
            let all = news::all(store).await.map_err(|error| error.to_string())?;
            if json {
                let all: Vec<Value> = all.iter().map(|one| as_json(one, now_ms)).collect();
                return Ok(format!("{}\n", json!({ "announcements": all })));
            }
            Ok(if all.is_empty() {
                "nothing is announced\n".to_owned()
            } else {
                all.iter().map(|one| line(one, now_ms)).collect()
            })
        }
        Act::Set { id, title, body, level, from, until } => {
            let text = Text { title, body, level, starts_ms: from.unwrap_or(now_ms), ends_ms: until };
            let id = acts::set(desk(store), id.as_deref(), &text).await.map_err(|error| error.to_string())?;
            Ok(if json { format!("{}\n", json!({ "id": id })) } else { format!("{id} is announced\n") })
        }
        Act::Remove(id) => {
            acts::remove(desk(store), &id).await.map_err(|error| error.to_string())?;
            Ok(if json { format!("{}\n", json!({ "removed": id })) } else { format!("{id} is removed\n") })
        }
    }
}

fn as_json(one: &Announcement, now_ms: i64) -> Value {
    json!({
        "id": one.id, "title": one.text.title, "body": one.text.body, "level": one.text.level,
        "from_ms": one.text.starts_ms, "until_ms": one.text.ends_ms, "is_shown": one.is_shown(now_ms),
    })
}

fn line(one: &Announcement, now_ms: i64) -> String {
    let until = one.text.ends_ms.map_or_else(|| "until it is removed".to_owned(), format::utc);
    let now = if one.is_shown(now_ms) { " (shown now)" } else { "" };
    let level = one.text.level.as_str();
    format!("{} {level:<8} {} to {until}: {}{now}\n", one.id, format::utc(one.text.starts_ms), one.text.title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_make_sense_or_nothing_is_done() {
        let hello = Act::Set {
            id: None,
            title: "hello".to_owned(),
            body: "*b*".to_owned(),
            level: Level::Warning,
            from: None,
            until: Some(951_782_400_000),
        };
        let set = ["set", "--title", "hello", "--body", "*b*", "--level", "warning", "--until", "2000-02-29"];
        for (words, expected) in [
            (&["list", "--json"][..], Some((Act::List, true))),
            (&["remove", "x"], Some((Act::Remove("x".to_owned()), false))),
            (&set, Some((hello, false))),
            (&["set"], None),
            (&["set", "--title"], None),
            (&["set", "--title", "a", "--level", "loud"], None),
            (&["set", "--title", "a", "--until", "soon"], None),
            (&["set", "--title", "a", "--until", "1900000000"], None),
            (&[], None),
        ] {
            assert_eq!(read(words), expected, "{words:?}");
        }
    }
}
