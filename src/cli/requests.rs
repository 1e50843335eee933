//! `coinslot requests`: finds requests, tells the story of one, writes them out, and forgets what is old of them.
//! Works with the node stopped, and beside a running one (see [`Store::open_beside`]).

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use serde_json::json;

use super::{done, with_page, with_store};
use crate::admin::requests::csv;
use crate::admin::requests::filter::{Filter, Said};
use crate::admin::requests::list::{self, Listed, Manner};
use crate::admin::requests::story::{self, Story};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::pages::format;
use crate::store::Store;
use crate::upstream::retention;

pub(super) const ARGUMENTS: &str = "list|show|export|prune …";

pub(super) const HELP: &str = "past requests; `coinslot requests help` says more";

pub(super) const PAGE: &str = "\
coinslot requests: what was charged for requests, and by which numbers

  coinslot requests list [FILTERS] [--limit N]
  coinslot requests show ID
  coinslot requests export [FILTERS]
  coinslot requests prune [--dry-run]

  FILTERS  --model NAME  --upstream NAME  --status running|charged|free|failed|CODE
           --from TIME  --to TIME         (UTC: 2026-11-26 or 2026-11-26T10:00)
           --key DIGITS                   (the first of the hash of a key: what it was charged for)

list shows the newest first, 50 unless you say otherwise. export writes all of them, as CSV. prune forgets what
requests cost at the upstreams where that is older than RETENTION_REQUESTS_DAYS and RETENTION_FAILED_DAYS, as the node
does every hour; --dry-run only counts it. What was held and charged is never forgotten. With --json, everything is
printed as JSON, of export one object a line; with --csv, list is CSV too.
";

/// Requests that are listed, where nothing else is said.
const LISTED: i64 = 50;
const MOST_LISTED: i64 = 10_000;
/// Requests that are written out at a time.
const CHUNK: i64 = 1_000;

/// What is to be done.
#[derive(Clone, Debug)]
enum Act {
    List { said: Said, limit: i64, csv: bool },
    Show(String),
    Export(Said),
    Prune { dry_run: bool },
}

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    with_page(PAGE, words, read, async |config, act, json| {
        with_store(config, async |store| work(store, config, act, json).await).await.map(done)
    })
}

/// What the words ask for, and whether the answer is to be JSON.
fn read(words: &[&str]) -> Option<(Act, bool)> {
    let (verb, rest) = words.split_first()?;
    let (mut said, mut limit, mut id, mut json, mut csv, mut dry_run) =
        (Said::default(), None, None, false, false, false);
    let mut filters = false;
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        let field = match *word {
            "--model" => &mut said.model,
            "--upstream" => &mut said.upstream,
            "--status" => &mut said.status,
            "--from" => &mut said.from,
            "--to" => &mut said.to,
            "--key" => &mut said.key,
            other => {
                match other {
                    "--json" => json = true,
                    "--csv" => csv = true,
                    "--dry-run" => dry_run = true,
                    "--limit" => {
                        limit = Some(rest.next()?.parse().ok().filter(|limit| (1..=MOST_LISTED).contains(limit))?)
                    }
                    word if id.is_none() && !word.starts_with("--") => id = Some(word.to_owned()),
                    _ => return None,
                }
                continue;
            }
        };
        *field = (*rest.next()?).to_owned();
        filters = true;
    }
    let act = match (*verb, id, limit, csv, dry_run) {
        ("list", None, limit, csv, false) if !(csv && json) => Act::List { said, limit: limit.unwrap_or(LISTED), csv },
        ("show", Some(id), None, false, false) if !filters => Act::Show(id),
        ("export", None, None, csv, false) if !(csv && json) => Act::Export(said),
        ("prune", None, None, false, dry_run) if !filters => Act::Prune { dry_run },
        _ => return None,
    };
    Some((act, json))
}

async fn work(store: &Store, config: &Config, act: Act, json: bool) -> Result<String, String> {
    let lost = |error: crate::store::StoreError| error.to_string();
    match act {
        Act::List { said, limit, csv } => {
            let found = find(store, &filter(&said)?, limit).await?;
            Ok(match (json, csv) {
                (true, _) => format!("{}\n", json!({ "requests": found })),
                (_, true) => csv::head() + &found.iter().map(csv::line).collect::<String>(),
                _ => as_text(&found),
            })
        }
        Act::Show(id) => {
            let story = story::of(store, id.trim()).await.map_err(lost)?;
            let story = story.ok_or_else(|| format!("no money was ever set aside for a request {id}"))?;
            Ok(if json { format!("{}\n", json!(story)) } else { told(&story) })
        }
        Act::Export(said) => export(store, filter(&said)?, json).await,
        Act::Prune { dry_run } => {
            let (retention, now_ms) = (config.storage.retention, SystemClock.now_ms());
            let gone = match dry_run {
                true => retention::preview(store, retention, now_ms).await.map_err(lost)?,
                false => retention::prune(store, retention, now_ms).await.map_err(lost)?,
            };
            let (verb, requests, failed) =
                (if dry_run { "would be forgotten" } else { "are forgotten" }, gone.requests, gone.failed);
            Ok(match json {
                true => format!("{}\n", json!({ "dry_run": dry_run, "requests": requests, "failed": failed })),
                false => format!(
                    "What {requests} old requests cost at the upstreams, and {failed} that cost their client nothing: {verb}.\n"
                ),
            })
        }
    }
}

fn filter(said: &Said) -> Result<Filter, String> {
    said.read().map_err(|error| error.to_string())
}

/// So many requests, however far one has to look for them.
async fn find(store: &Store, filter: &Filter, limit: i64) -> Result<Vec<Listed>, String> {
    let (mut filter, mut found) = (filter.clone(), Vec::new());
    loop {
        let left = limit.saturating_sub(i64::try_from(found.len()).unwrap_or(i64::MAX));
        let manner = Manner { limit: left, looks: list::PAGE_LOOKS, skips: false };
        let mut page = list::find(store, &filter, manner).await.map_err(|error| error.to_string())?;
        found.extend(std::mem::take(&mut page.rows).into_iter().map(Listed::of));
        match page.rest(filter) {
            Some(rest) if i64::try_from(found.len()).unwrap_or(i64::MAX) < limit => filter = rest,
            _ => return Ok(found),
        }
    }
}

/// All of them, page by page, so that no number of them is too many.
async fn export(store: &Store, mut filter: Filter, json: bool) -> Result<String, String> {
    let mut out = std::io::stdout().lock();
    let mut write = |text: String| out.write_all(text.as_bytes()).map_err(|error| format!("stdout: {error}"));
    if !json {
        write(csv::head())?;
    }
    loop {
        let manner = Manner { limit: CHUNK, looks: list::PAGE_LOOKS, skips: false };
        let mut page = list::find(store, &filter, manner).await.map_err(|error| error.to_string())?;
        let lines = std::mem::take(&mut page.rows).into_iter().map(Listed::of);
        write(match json {
            true => lines.map(|one| format!("{}\n", json!(one))).collect(),
            false => lines.map(|one| csv::line(&one)).collect(),
        })?;
        match page.rest(filter) {
            Some(rest) => filter = rest,
            None => return Ok(String::new()),
        }
    }
}

fn as_text(found: &[Listed]) -> String {
    if found.is_empty() {
        return "There is none like that.\n".to_owned();
    }
    let mut text = String::new();
    for one in found {
        let status = one.failure.as_deref().unwrap_or(one.status);
        let (model, upstream) = (one.model.as_deref().unwrap_or("–"), one.upstream.as_deref().unwrap_or("–"));
        // Writing to a string does not fail.
        let _written = writeln!(
            text,
            "{}  {}  {status:<20} {:>14} sat  {:<8}  {model}  {upstream}",
            one.id,
            format::utc(one.began_ms),
            format::sat(one.charged_msat),
            one.key
        );
    }
    text
}

fn told(story: &Story) -> String {
    let mut text = String::new();
    let mut say = |name: &str, said: String| {
        let _written = writeln!(text, "{name:<24} {said}");
    };
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "–".to_owned());
    say("request", story.id.clone());
    say("status", story.failure.clone().unwrap_or_else(|| story.status.to_owned()));
    say("model", or_dash(&story.model));
    say("paid by", format!("{} {}, at {}", story.payment.by, story.payment.key, story.payment.mint));
    if let Some(worth) = story.payment.token_msat {
        say("the token was worth", format!("{} sat", format::sat(worth)));
    }
    say("held", format!("{} sat, {}", format::sat(story.hold.amount_msat), story.hold.state));
    say("began", format::utc(story.hold.began_ms));
    if let Some(ended) = story.hold.ended_ms {
        say("ended", format::utc(ended));
    }
    for one in &story.attempts {
        let status = one.status.map(|status| format!(" ({status})")).unwrap_or_default();
        say("asked", format!("{}: {}{status}, {} ms", one.upstream, one.outcome, one.ms));
    }
    for (name, used) in &story.usage {
        say(&format!("used, {name}"), used.to_string());
    }
    for (name, price) in &story.prices {
        say(&format!("price, {name}"), price.clone());
    }
    if let Some(settled) = &story.settlement {
        say("charged", format!("{} sat", format::sat(settled.charged_msat)));
        if let Some(cost) = settled.cost_msat {
            say("the upstream took", format!("{} sat", format::sat(cost)));
        }
    }
    for one in &story.change {
        say("change", format!("{} sat, {}, {}", format::sat(one.amount_msat), one.state, format::utc(one.at_ms)));
    }
    say("price_id", or_dash(&story.price_id));
    say("rate_id", or_dash(&story.rate_id));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let list = |words: &[&str]| match read(words) {
            Some((Act::List { said, limit, csv }, json)) => Some((said.model, said.key, limit, csv, json)),
            _ => None,
        };
        assert_eq!(list(&["list"]), Some((String::new(), String::new(), 50, false, false)));
        assert_eq!(
            list(&["list", "--model", "m", "--limit", "7", "--key", "abcd", "--csv"]),
            Some(("m".to_owned(), "abcd".to_owned(), 7, true, false))
        );
        assert!(matches!(read(&["show", "x", "--json"]), Some((Act::Show(id), true)) if id == "x"));
        assert!(
            matches!(read(&["export", "--status", "failed"]), Some((Act::Export(said), false)) if said.status == "failed")
        );
        assert!(matches!(read(&["prune", "--dry-run"]), Some((Act::Prune { dry_run: true }, false))));
        for words in [
            &["list", "x"][..],
            &["list", "--json", "--csv"],
            &["list", "--limit", "0"],
            &["list", "--model"],
            &["show"],
            &["show", "x", "--model", "m"],
            &["export", "--limit", "5"],
            &["prune", "x"],
            &["prune", "--key", "abcd"],
            &["list", "--dry-run"],
            &[],
        ] {
            assert!(read(words).is_none(), "{words:?}");
        }
    }
}
