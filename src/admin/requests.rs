//! Requests: the latest ones, and of any past one all that the books keep: what was held and charged, what was used,
//! by which prices and rate it was reckoned, and which upstreams were asked. Nothing of what was asked or answered is
//! kept anywhere.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Html;
use serde::Deserialize;
use serde_json::Value;

use super::repo::Outlay;
use super::session::Session;
use super::{AdminError, AdminState, format, page, repo};
use crate::ledger::repo::{Entry, HoldState, find_request};

/// Requests that are listed.
const MOST: i64 = 50;

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    id: String,
}

#[derive(Template)]
#[template(path = "admin/requests.html")]
struct Page {
    name: String,
    csrf: String,
    /// The id that was looked for; empty: none.
    id: String,
    /// The request, part by part.
    found: Option<Vec<Chapter>>,
    latest: Vec<Row>,
}

struct Chapter {
    title: &'static str,
    facts: Vec<(String, String)>,
}

struct Row {
    id: String,
    time: String,
    model: String,
    state: &'static str,
    held: String,
    charged: String,
    key: String,
}

pub(super) async fn show(
    State(state): State<AdminState>,
    session: Session,
    Query(wanted): Query<Wanted>,
) -> Result<Html<String>, AdminError> {
    // Ids are looked up as they are made.
    let id = uuid::Uuid::try_parse(wanted.id.trim()).map(|id| id.to_string()).unwrap_or_default();
    let found = if id.is_empty() { None } else { story(&state, &id).await? };
    let latest = repo::latest_requests(state.ledger.store(), MOST).await?;
    page(&Page {
        name: state.name,
        csrf: session.csrf().to_owned(),
        id: wanted.id.trim().chars().take(100).collect(),
        found,
        latest: latest.into_iter().map(row).collect(),
    })
}

fn row(request: repo::Request) -> Row {
    let record: Value = serde_json::from_str(&request.record).unwrap_or_default();
    Row {
        time: format::utc(request.created_ms),
        model: text(&record, "model").unwrap_or("–").to_owned(),
        state: match (request.is_open, request.charged) {
            (true, _) => "running",
            (false, 0) => "free",
            (false, _) => "charged",
        },
        held: format::sat(request.held),
        charged: format::sat(request.charged),
        key: request.key,
        id: request.id,
    }
}

async fn story(state: &AdminState, id: &str) -> Result<Option<Vec<Chapter>>, AdminError> {
    let store = state.ledger.store();
    let entry = find_request(&mut *store.read().acquire().await?, id).await?;
    let Some(entry) = entry else { return Ok(None) };
    let record = Value::Object(state.ledger.spell_out(&entry.record).await?);
    let mut chapters = vec![money(&entry), chapter("As it is on the receipt", &record)];
    for (title, key) in [("The prices it was reckoned by", "price_id"), ("The rate it was reckoned by", "rate_id")] {
        let Some(id) = text(&record, key) else { continue };
        if let Some(sheet) = state.ledger.sheet(id).await? {
            chapters.push(chapter(title, &serde_json::from_str(&sheet).unwrap_or_default()));
        }
    }
    chapters.extend(repo::outlay(store, id).await?.as_ref().map(upstreams));
    Ok(Some(chapters))
}

fn money(entry: &Entry) -> Chapter {
    let state = match entry.state {
        HoldState::Open => "open",
        HoldState::Captured => "captured",
        HoldState::Released => "released",
    };
    let ended = if entry.ended_ms == 0 { "–".to_owned() } else { format::utc(entry.ended_ms) };
    let facts = [
        ("Hold", state.to_owned()),
        ("Held", format!("{} msat", entry.held.get())),
        ("Charged", format!("{} msat", entry.charged.get())),
        ("Began", format::utc(entry.created_ms)),
        ("Ended", ended),
    ];
    Chapter { title: "Money", facts: facts.map(|(name, said)| (name.to_owned(), said)).into() }
}

fn upstreams(outlay: &Outlay) -> Chapter {
    let attempts: Value = serde_json::from_str(&outlay.attempts).unwrap_or_default();
    let mut facts = vec![("upstream".to_owned(), outlay.upstream.clone()), ("model".to_owned(), outlay.model.clone())];
    flatten("attempts", &attempts, &mut facts);
    facts.extend(outlay.msat.map(|msat| ("cost".to_owned(), format!("{msat} msat"))));
    Chapter { title: "Upstreams", facts }
}

fn text<'a>(record: &'a Value, name: &str) -> Option<&'a str> {
    record.get(name).and_then(Value::as_str)
}

fn chapter(title: &'static str, said: &Value) -> Chapter {
    let mut facts = Vec::new();
    flatten("", said, &mut facts);
    Chapter { title, facts }
}

/// All texts and numbers in a value, each under the names that lead to it.
fn flatten(name: &str, value: &Value, facts: &mut Vec<(String, String)>) {
    let below = |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") };
    match value {
        Value::Null => {}
        Value::Object(members) => members.iter().for_each(|(part, value)| flatten(&below(part), value, facts)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| flatten(&below(&at.to_string()), value, facts));
        }
        Value::String(text) => facts.push((name.to_owned(), text.clone())),
        other => facts.push((name.to_owned(), other.to_string())),
    }
}
