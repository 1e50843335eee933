//! Finding requests: a page of them, or one page after the other until there are no more.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::filter::{Filter, Places, Status};
use super::repo::{self, Row, Way};
use crate::clock::HOUR_MS;
use crate::status::sums;
use crate::store::ids;
use crate::store::{Store, StoreError};

/// Most requests that are looked at for one page.
pub(crate) const PAGE_LOOKS: i64 = 40_000;
/// How many of them in one statement, and as how many one counts that had less to look at.
const LOOKS: i64 = 4_000;
const LEAST_LOOKS: i64 = 1_000;
/// Most hours in a row that are looked at as one.
const HOURS: i64 = 48;
/// Most keys that a prefix may mean, and charges of each that are looked at for a page.
const MOST_KEYS: i64 = 20;
const KEY_LOOKS: usize = 1_000;
/// Most charges that are looked at for a page.
const MOST_CHARGES: usize = 2_000;
/// Most requests that are listed as running.
const MOST_RUNNING: i64 = 1_000;

/// How far to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Requests on a page.
    pub limit: i64,
    /// Most that are looked at.
    pub looks: i64,
    /// Hours in which the sums say that there was nothing are left out. They know a model by its id.
    pub skips: bool,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub rows: Vec<Row>,
    /// Go on below this hold; `None`: there is no more.
    pub next: Option<i64>,
    /// And along the charges of keys from there.
    pub places: Places,
}

impl Found {
    /// What to look for next, if there is more.
    pub(crate) fn rest(self, filter: Filter) -> Option<Filter> {
        self.next.map(|next| Filter { below: Some(next), places: self.places, ..filter })
    }
}

/// The requests that the filter takes, the newest first.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn find(store: &Store, filter: &Filter, manner: Manner) -> Result<Found, StoreError> {
    let (below, down_to) = filter.ids();
    let way = Way { below, down_to };
    match (&filter.key, &filter.status) {
        (key, Some(Status::Running)) => {
            let mut rows = repo::running(store, MOST_RUNNING).await?;
            rows.retain(|row| row.hold < below && row.hold >= down_to);
            rows.retain(|row| key.as_ref().is_none_or(|key| row.key.starts_with(key.get(..8).unwrap_or(key))));
            Ok(Found { rows, ..Found::default() })
        }
        (Some(key), _) => of_key(store, filter, way, (key, manner.limit)).await,
        (None, _) => along(store, filter, way, manner).await,
    }
}

/// Along the charges of a key.
async fn of_key(store: &Store, filter: &Filter, way: Way, (prefix, limit): (&str, i64)) -> Result<Found, StoreError> {
    let (mut ids, mut floor, mut chains) = (Vec::new(), None, Vec::new());
    for key in repo::keys(store, prefix, MOST_KEYS).await? {
        let from = match filter.places.get(&key.id) {
            Some(place) => *place,
            None => repo::latest_charge(store, key).await?,
        };
        let chain = repo::charges(store, key, way, from, KEY_LOOKS).await?;
        if chain.ids.len() >= KEY_LOOKS {
            // Below it there are more of this key, which come before what is known of the others.
            floor = floor.max(chain.ids.last().copied());
        }
        ids.extend_from_slice(&chain.ids);
        chains.push((key.id, chain));
    }
    ids.retain(|id| floor.is_none_or(|floor| *id >= floor));
    ids.sort_unstable_by(|one, other| other.cmp(one));
    ids.dedup();
    if ids.len() > MOST_CHARGES {
        ids.truncate(MOST_CHARGES);
        floor = ids.last().copied();
    }
    let rows = repo::among(store, filter, &ids).await?;
    let found = cut(rows, limit, floor);
    let place = |next: i64| chains.iter().map(|(key, chain)| (*key, chain.place(next))).collect();
    Ok(Found { places: found.next.map(place).unwrap_or_default(), ..found })
}

/// Along all requests.
async fn along(store: &Store, filter: &Filter, way: Way, manner: Manner) -> Result<Found, StoreError> {
    let Filter { model, upstream, status, .. } = filter;
    let (model, upstream) = (model.as_deref(), upstream.as_deref());
    let takes_all = model.is_none() && upstream.is_none() && status.is_none();
    let skips = manner.skips && (model.is_some() || upstream.is_some());
    let more = manner.limit.saturating_add(1);
    let (mut way, mut left, mut rows) = (way, manner.looks, Vec::new());
    loop {
        let stretch = if skips { busy(store, (model, upstream), way).await? } else { Some(way) };
        let Some(stretch) = stretch else { return Ok(Found { rows, ..Found::default() }) };
        let looks = if takes_all { more } else { LOOKS };
        let found = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let part = repo::walk(store, filter, stretch, looks, more.saturating_sub(found)).await?;
        rows.extend(part.rows);
        left = left.saturating_sub(part.looked_at.max(LEAST_LOOKS));
        let is_full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= more;
        // Where a stretch ends there may be another one below it.
        let rest = part.reached.or((stretch.down_to > way.down_to).then_some(stretch.down_to));
        match rest {
            Some(reached) if !is_full && left > 0 => way.below = reached,
            rest => return Ok(cut(rows, manner.limit, rest)),
        }
    }
}

/// The latest part of the way in which the sums have such requests in every hour; `None`: there are none.
async fn busy(
    store: &Store,
    (model, upstream): (Option<&str>, Option<&str>),
    way: Way,
) -> Result<Option<Way>, StoreError> {
    let before_ms = ids::made_ms(way.below.saturating_sub(1)).saturating_add(1);
    let hours = sums::repo::hours(store, model, upstream, before_ms, HOURS).await?;
    let Some(last) = hours.first() else { return Ok(None) };
    let in_a_row = |(at, hour): &(i64, &i64)| last.saturating_sub(**hour) == at.saturating_mul(HOUR_MS);
    let first = (0..).zip(&hours).take_while(in_a_row).last().map_or(last, |(_, hour)| hour);
    let (down_to, below) = (ids::first_at(*first), ids::first_at(last.saturating_add(HOUR_MS)));
    if below <= way.down_to {
        return Ok(None);
    }
    Ok(Some(Way { below: way.below.min(below), down_to: way.down_to.max(down_to) }))
}

fn cut(mut rows: Vec<Row>, limit: i64, rest: Option<i64>) -> Found {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if rows.len() > limit {
        rows.truncate(limit);
        let next = rows.last().map(|row| row.hold);
        return Found { rows, next, ..Found::default() };
    }
    Found { rows, next: rest, ..Found::default() }
}

/// A request, as a list has it. Amounts are msat, times ms since the Unix epoch.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Listed {
    /// As the client has it in `x-request-id`.
    pub id: String,
    pub began_ms: i64,
    /// How long it took, if it has ended.
    pub took_ms: Option<i64>,
    /// As the client called it; of a running one, if it runs in this process.
    pub model: Option<String>,
    pub upstream: Option<String>,
    /// running, charged, free or failed.
    pub status: &'static str,
    /// The code of the failure.
    pub failure: Option<String>,
    pub held_msat: i64,
    pub charged_msat: i64,
    /// What the upstream took, if it is known.
    pub cost_msat: Option<i64>,
    pub input_tokens: i64,
    pub cached_tokens: i64,
    pub output_tokens: i64,
    /// The first digits of the hash of the key.
    pub key: String,
    /// key, or a token that rode along.
    pub paid_by: &'static str,
}

impl Listed {
    pub(crate) fn of(row: Row) -> Self {
        let record: Value = serde_json::from_str(&row.record).unwrap_or_default();
        let text = |name: &str| record.get(name).and_then(Value::as_str).map(str::to_owned);
        let used = |names: &[&str]| {
            let used = |name: &&str| record.get("usage").and_then(|usage| usage.get(*name)).and_then(Value::as_i64);
            names.iter().filter_map(used).fold(0, i64::saturating_add)
        };
        let failure = text("failure");
        Self {
            status: status_of(&row, failure.is_some()),
            id: row.id,
            began_ms: row.began_ms,
            took_ms: row.ended_ms.map(|ended| ended.saturating_sub(row.began_ms)),
            model: text("model"),
            upstream: row.upstream,
            failure,
            held_msat: row.held_msat,
            charged_msat: row.charged_msat,
            cost_msat: row.cost_msat,
            input_tokens: used(&INPUT),
            cached_tokens: used(&["cache_read", "audio_cached"]),
            output_tokens: used(&["output", "reasoning", "audio_out", "image_out"]),
            key: row.key,
            paid_by: if row.is_token { "token" } else { "key" },
        }
    }
}

const INPUT: [&str; 7] =
    ["input", "cache_read", "cache_write", "cache_write_1h", "audio_in", "audio_cached", "image_in"];

pub(super) fn status_of(row: &Row, has_failed: bool) -> &'static str {
    match (row.state.as_str(), has_failed, row.charged_msat) {
        ("open", ..) => "running",
        (_, true, _) => "failed",
        (.., 0) => "free",
        _ => "charged",
    }
}
