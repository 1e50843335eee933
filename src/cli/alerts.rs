//! `coinslot alerts`: what is wrong, and whether word of it would arrive. Works with the node stopped, and beside a
//! running one, which looks every two seconds.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{block_on, configured, in_force, split_json, tell, with_store};
use crate::alerts::{self, Note, Open, Sender};
use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::node;
use crate::store::Store;

pub(super) const HELP: &str = "list the alarms that go on, or send a test (0 all arrived)";

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    let (words, json) = split_json(words);
    let is_test = match words[..] {
        [] => false,
        ["--test"] => true,
        _ => return None,
    };
    let Some(config) = configured() else { return Some(ExitCode::FAILURE) };
    Some(tell(block_on(run(&config, is_test, json))))
}

async fn run(config: &Config, is_test: bool, json: bool) -> Result<(String, ExitCode), String> {
    with_store(config, async |store| work(config, store, is_test, json).await).await
}

async fn work(config: &Config, store: &Store, is_test: bool, json: bool) -> Result<(String, ExitCode), String> {
    if is_test { test(&in_force(config, store).await?, store, json).await } else { list(store, json).await }
}

async fn list(store: &Store, json: bool) -> Result<(String, ExitCode), String> {
    let open = alerts::open(store).await.map_err(|error| error.to_string())?;
    let text = match open.as_slice() {
        open if json => format!("{}\n", json!({ "alerts": open.iter().map(as_json).collect::<Vec<_>>() })),
        [] => "No alarm goes on.\n".to_owned(),
        open => open.iter().map(|one| format!("ALARM: {one}\n")).collect(),
    };
    Ok((text, ExitCode::SUCCESS))
}

fn as_json(open: &Open) -> Value {
    json!({
        "kind": open.kind.name(), "subject": open.subject, "message": open.said,
        "since": open.since_ms.div_euclid(1000), "told": open.told_ms.map(|at_ms| at_ms.div_euclid(1000)),
    })
}

/// Tells everybody that nothing is wrong, and says how that went.
async fn test(config: &Config, store: &Store, json: bool) -> Result<(String, ExitCode), String> {
    let clock: SharedClock = Arc::new(SystemClock);
    let now_ms = clock.now_ms();
    let (ways, _open) = super::ways(config).await?;
    let caller = node::caller_beside(config, &ways, store, &clock).await.map_err(|error| error.to_string())?;
    let sender = Sender::new(config, &ways.reports, &caller).map_err(|error| error.to_string())?;
    if sender.targets().is_empty() {
        return Err("nobody is told: set ALERT_WEBHOOK_URL or ALERT_NPUB".to_owned());
    }
    let note = Note::test(now_ms);
    let (mut text, mut outcomes, mut code) = (String::new(), Vec::new(), ExitCode::SUCCESS);
    for target in sender.targets() {
        let event = sender.event(target, &note, now_ms).unwrap_or_default();
        let outcome = sender.deliver(target, &note, &event).await.map_err(|error| error.to_string());
        let (name, error) = (target.name(), outcome.err());
        // Writing to a string does not fail.
        let _written = match &error {
            None => writeln!(text, "{name:<10} delivered"),
            Some(error) => writeln!(text, "{name:<10} NOT delivered: {error}"),
        };
        if error.is_some() {
            code = ExitCode::FAILURE;
        }
        outcomes.push(json!({ "target": name, "delivered": error.is_none(), "error": error }));
    }
    Ok((if json { format!("{}\n", json!({ "test": note.id, "targets": outcomes })) } else { text }, code))
}
