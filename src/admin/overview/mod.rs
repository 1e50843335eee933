//! The first page: does the node sell, is it solvent, what does it earn, is anything stuck.
//!
//! Solvency is proven by a job, and by a button, not by every visit: a proof reads all accounts and all ecash. The page
//! shows the last proof and its age, beside figures that cost nothing. What was earned comes from the sums
//! ([`crate::status::sums`]), so a visit costs the same with ten requests and with ten million.

mod chart;
mod findings;
mod prove;
mod repo;
mod usage;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{ApiError, Complaint, Search};
use super::frame::Frame;
use super::operator::{Operator, Scope};
use super::session::Session;
use super::{AdminError, AdminState, Notice, format, page, upstreams};
use crate::alerts;
use crate::audit::{PurseReport, Report, Solvency};
use crate::clock::{DAY_MS, HOUR_MS};
use crate::pages::WITH_SCRIPT;
use crate::status::Sum;
use crate::status::sums::Span;
use crate::status::sums::repo::{self as sums, By};
use crate::upstream::Condition;
use crate::wallet::MintHealth;
use chart::{Chart, Value};
use findings::{judge, lack_line, recovery_lines};

const PATH: &str = "/admin";
/// How long a recovery is spoken of.
const TOLD_MS: i64 = 30 * DAY_MS;
/// Columns of the two charts.
const HOURS: i64 = 24;
const DAYS: i64 = 30;
/// Places on a board of leaders.
const PLACES: i64 = 10;

pub(super) fn pages() -> Router<AdminState> {
    Router::new()
        .route(PATH, get(show))
        .route("/admin/prove", post(prove::press))
        .route("/admin/usage.csv", get(usage::csv_of_session))
}

pub(super) fn api() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(view_call))
        .routes(routes!(prove::prove_call))
        .routes(routes!(usage::usage_call))
        .routes(routes!(usage::csv_call))
}

/// How the node stands. Amounts are msat, times ms since the Unix epoch.
#[derive(Serialize, ToSchema)]
struct View {
    version: &'static str,
    now_ms: i64,
    /// Why a paid request could not be served now; empty: it could.
    reasons: Vec<String>,
    /// What wants to be done something about.
    alarms: Vec<String>,
    notes: Vec<String>,
    /// What the ledger says now.
    live: Live,
    /// The last proof of the books; absent: there was none since the start.
    proof: Option<Proof>,
    /// Operations at mints whose outcome is not known yet, and when the oldest began.
    unfinished: i64,
    unfinished_since_ms: Option<i64>,
    last_24_hours: Sum,
    last_30_days: Sum,
    ever: Sum,
    /// The last 24 hours, each with its beginning.
    hours: Vec<Point>,
    days: Vec<Point>,
    /// The span of the two boards: day, week, month or ever.
    leaders_of: &'static str,
    models: Vec<Leader>,
    upstreams: Vec<Leader>,
}

/// What the ledger says, without reading more than a few rows.
#[derive(Serialize, ToSchema)]
struct Live {
    ecash_msat: i64,
    owed_msat: i64,
    /// The part of it that vouchers promise.
    vouchers_msat: i64,
    earned_msat: i64,
    held_msat: i64,
    open_holds: i64,
    /// Ever earned by change that nobody claimed.
    unclaimed_msat: i64,
}

/// A proof of the books.
#[derive(Serialize, ToSchema)]
struct Proof {
    at_ms: i64,
    /// proven, not_asked, short or faulty.
    #[schema(value_type = String)]
    verdict: Solvency,
    ecash_msat: i64,
    owed_msat: i64,
    /// The part of it that vouchers promise.
    vouchers_msat: i64,
    earned_msat: i64,
}

/// One span of time.
#[derive(Serialize, ToSchema)]
struct Point {
    start_ms: i64,
    sum: Sum,
}

/// A place on a board.
#[derive(Serialize, ToSchema)]
struct Leader {
    name: String,
    sum: Sum,
}

/// The spans that boards can be of.
const SPANS: [(&str, &str); 4] = [("day", "24 hours"), ("week", "7 days"), ("month", "30 days"), ("ever", "in total")];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wanted {
    /// One of [`SPANS`].
    of: String,
}

/// From when on, and in which spans, a board counts.
fn leaders_of(wanted: &str, now_ms: i64) -> (&'static str, Span, (i64, i64)) {
    let days = |days: i64| (Span::Day.start(now_ms.saturating_sub(days.saturating_sub(1) * DAY_MS)), i64::MAX);
    match wanted {
        "week" => ("week", Span::Day, days(7)),
        "month" => ("month", Span::Day, days(DAYS)),
        "ever" => ("ever", Span::Ever, (0, i64::MAX)),
        _ => ("day", Span::Hour, (hours_from(now_ms), i64::MAX)),
    }
}

fn hours_from(now_ms: i64) -> i64 {
    Span::Hour.start(now_ms.saturating_sub((HOURS - 1) * HOUR_MS))
}

async fn view(state: &AdminState, wanted: &Wanted) -> Result<View, AdminError> {
    let (now_ms, store) = (state.now_ms(), state.ledger.store());
    let unfinished = state.wallet.unfinished(i64::MAX).await?;
    let oldest_ms = unfinished.iter().map(|at_mint| at_mint.oldest_ms).min();
    let age_ms = oldest_ms.map(|oldest| now_ms.saturating_sub(oldest));
    let (last, verdict) = (state.audit.get(), state.audit.verdict());
    let mut found = judge(last.as_deref(), state.wallet.mints(), age_ms);
    found.alarms.extend(state.audit.lack().iter().map(lack_line));
    found.alarms.extend(state.wallet.astray().await?.iter().map(|(mint, open)| {
        let open = format::count(*open);
        format!("{mint} is not configured, but {open} operations wait for it: list it again in CASHU_MINTS.")
    }));
    found.alarms.extend(alerts::open(store).await?.iter().map(ToString::to_string));
    found.alarms.extend(state.wallet.halted());
    let recovered = state.wallet.last_recovery().await?.filter(|last| now_ms.saturating_sub(last.ended_ms) < TOLD_MS);
    found.alarms.extend(recovered.iter().flat_map(recovery_lines));
    let (leaders_of, span, range) = leaders_of(&wanted.of, now_ms);
    let leaders = async |by| -> Result<Vec<Leader>, AdminError> {
        let groups = sums::grouped(store, by, span, range, PLACES).await?;
        Ok(groups.into_iter().map(|group| Leader { name: group.name, sum: group.sum }).collect())
    };
    let day_from = Span::Day.start(now_ms.saturating_sub((DAYS - 1) * DAY_MS));
    Ok(View {
        version: state.version,
        now_ms,
        reasons: state.exchange.reasons().await,
        alarms: found.alarms,
        notes: found.notes,
        live: repo::live(store).await?,
        // Of one that could not be made there are no figures.
        proof: last.as_deref().map(|last| Proof { verdict: verdict.unwrap_or_else(|| last.verdict()), ..proof(last) }),
        unfinished: unfinished.iter().map(|at_mint| at_mint.count).sum(),
        unfinished_since_ms: oldest_ms,
        last_24_hours: sums::total(store, Span::Hour, (hours_from(now_ms), i64::MAX)).await?,
        last_30_days: sums::total(store, Span::Day, (day_from, i64::MAX)).await?,
        ever: sums::total(store, Span::Ever, (0, i64::MAX)).await?,
        hours: points(state, Span::Hour, hours_from(now_ms), (HOURS, HOUR_MS)).await?,
        days: points(state, Span::Day, day_from, (DAYS, DAY_MS)).await?,
        leaders_of,
        models: leaders(By::Model).await?,
        upstreams: leaders(By::Upstream).await?,
    })
}

fn proof(report: &Report) -> Proof {
    Proof {
        at_ms: report.at_ms,
        verdict: report.verdict(),
        ecash_msat: report.ecash_msat,
        owed_msat: report.liabilities_msat,
        vouchers_msat: report.vouchers_msat,
        earned_msat: report.earnings_msat,
    }
}

/// So many spans from then on, those in which nothing happened too.
async fn points(
    state: &AdminState,
    span: Span,
    from_ms: i64,
    (count, length_ms): (i64, i64),
) -> Result<Vec<Point>, AdminError> {
    let groups = sums::grouped(state.ledger.store(), By::Start, span, (from_ms, i64::MAX), count + 1).await?;
    let point = |at: i64| {
        let start_ms = from_ms.saturating_add(at.saturating_mul(length_ms));
        let sum = groups.iter().find(|group| group.name == start_ms.to_string()).map(|group| group.sum);
        Point { start_ms, sum: sum.unwrap_or_default() }
    };
    Ok((0..count).map(point).collect())
}

#[derive(Template)]
#[template(path = "admin/overview.html")]
struct Page {
    frame: Frame,
    message: String,
    view: View,
    now: String,
    proof_age: Option<String>,
    /// Whether the books are right, by the last proof.
    is_proven: bool,
    oldest: Option<String>,
    charts: Vec<Chart>,
    tables: [(&'static str, Vec<SpanRow>); 2],
    spans: [SpanRow; 3],
    /// What the boards can be of, and whether they are.
    spans_of: [(&'static str, &'static str, bool); 4],
    boards: [(&'static str, Vec<SpanRow>); 2],
    purses: Vec<PurseRow>,
    mints: Vec<MintRow>,
    upstreams: Vec<UpstreamRow>,
}

/// A line of figures.
struct SpanRow {
    name: String,
    sum: Sum,
    success: String,
    first: String,
    took: String,
    cached: String,
    margin: i64,
}

struct PurseRow {
    mint: String,
    unit: String,
    proofs: i64,
    ledger: i64,
    difference: i64,
    keysets: &'static str,
}

/// How a mint is.
struct MintRow {
    mint: String,
    condition: String,
    /// Whether it is not asked now.
    alone: bool,
    calls: Option<String>,
    waiting: usize,
    trouble: Option<String>,
    answered: Option<String>,
}

/// How an upstream is.
struct UpstreamRow {
    name: String,
    kind: &'static str,
    condition: String,
    /// Whether it is not asked now, for some model at least.
    alone: bool,
    today: String,
    month: String,
}

async fn show(
    State(state): State<AdminState>,
    session: Session,
    Query(wanted): Query<Wanted>,
) -> Result<Response, AdminError> {
    render(&state, &session, &wanted, Notice::none()).await
}

async fn render(
    state: &AdminState,
    session: &Session,
    wanted: &Wanted,
    notice: Notice,
) -> Result<Response, AdminError> {
    let view = view(state, wanted).await?;
    let frame = Frame::of(state, session, PATH);
    let last = state.audit.get();
    let mut purses = Vec::new();
    for purse in all_purses(last.as_deref(), state.wallet.mints(), state.wallet.unit().as_str()) {
        purses.push(purse_row(&purse, state).await);
    }
    let row = |name: &str, sum: Sum| span_row(name.to_owned(), sum);
    let leaders = |all: &[Leader]| all.iter().map(|one| row(named(&one.name), one.sum)).collect::<Vec<_>>();
    let table =
        |all: &[Point]| all.iter().rev().map(|one| row(&format::utc(one.start_ms), one.sum)).collect::<Vec<_>>();
    let lack_ms = state.audit.lack().map(|lack| lack.at_ms);
    let proven_ms = lack_ms.or(view.proof.as_ref().map(|proof| proof.at_ms));
    let html = page(&Page {
        message: notice.message,
        now: format::utc(view.now_ms),
        proof_age: proven_ms.map(|at_ms| format::age(view.now_ms.saturating_sub(at_ms))),
        is_proven: view.proof.as_ref().is_some_and(|proof| proof.verdict != Solvency::Faulty),
        oldest: view.unfinished_since_ms.map(|since| format::age(view.now_ms.saturating_sub(since))),
        charts: charts(&view, &frame),
        tables: [("by hour", table(&view.hours)), ("by day", table(&view.days))],
        spans: [
            row("Last 24 hours", view.last_24_hours),
            row("Last 30 days", view.last_30_days),
            row("In total", view.ever),
        ],
        spans_of: SPANS.map(|(of, name)| (of, name, of == view.leaders_of)),
        boards: [("Model", leaders(&view.models)), ("Upstream", leaders(&view.upstreams))],
        purses,
        mints: state.wallet.health().iter().map(mint_row).collect(),
        upstreams: state.pool.conditions().iter().map(upstream_row).collect(),
        frame,
        view,
    })?;
    Ok((notice.status, [WITH_SCRIPT], html).into_response())
}

/// A group as people read it.
fn named(name: &str) -> &str {
    match name {
        "" => "none was asked",
        "_none" => "failed before its model was known",
        "_other" => "not on the price list",
        name => name,
    }
}

fn span_row(name: String, sum: Sum) -> SpanRow {
    let share =
        |share: Option<i64>| share.map_or("–".to_owned(), |share| format!("{}.{:02}", share / 100, share % 100));
    let ms = |ms: Option<i64>| ms.map_or("–".to_owned(), format::count);
    SpanRow {
        name,
        success: share(sum.success()),
        first: ms(sum.mean_first_ms()),
        took: ms(sum.mean_took_ms()),
        cached: share(sum.cache_share()),
        margin: sum.margin_msat(),
        sum,
    }
}

fn charts(view: &View, frame: &Frame) -> Vec<Chart> {
    let mark = |point: &Point, span: Span| {
        let text = format::utc(point.start_ms);
        let part = if span == Span::Hour { text.get(11..16) } else { text.get(5..10) };
        part.unwrap_or_default().to_owned()
    };
    let requests = |point: &Point, span| {
        let failed = point.sum.upstream_errors.saturating_add(point.sum.node_errors);
        let (at, all) = (format::utc(point.start_ms), format::count(point.sum.requests));
        let label = format!("{at}: {all} requests, {} failed", format::count(failed));
        Value { value: point.sum.requests, bad: failed, label, mark: mark(point, span) }
    };
    let earned = |point: &Point, span| {
        let (at, amount) = (format::utc(point.start_ms), frame.amount(&point.sum.charged_msat));
        let label = format!("{at}: {amount} {}", frame.unit_name());
        Value { value: point.sum.charged_msat, bad: 0, label, mark: mark(point, span) }
    };
    let count = |number: i64| format::count(number);
    let amount = |msat: i64| format!("{} {}", frame.amount(&msat), frame.unit_name());
    let (hours, days) = (&view.hours, &view.days);
    let of_hours = hours.iter().map(|point| requests(point, Span::Hour)).collect();
    let of_days = days.iter().map(|point| requests(point, Span::Day)).collect();
    let earned_hours = hours.iter().map(|point| earned(point, Span::Hour)).collect();
    let earned_days = days.iter().map(|point| earned(point, Span::Day)).collect();
    vec![
        Chart::of("requests-by-hour", "Requests, last 24 hours".to_owned(), of_hours, count),
        Chart::of("charged-by-hour", "Charged, last 24 hours".to_owned(), earned_hours, amount),
        Chart::of("requests-by-day", "Requests, last 30 days".to_owned(), of_days, count),
        Chart::of("charged-by-day", "Charged, last 30 days".to_owned(), earned_days, amount),
    ]
}

/// One purse for every mint that is configured, or that the last proof knows.
fn all_purses(last: Option<&Report>, mints: &[String], unit: &str) -> Vec<PurseReport> {
    let mut purses = last.map(|report| report.purses.clone()).unwrap_or_default();
    for mint in mints {
        if purses.iter().all(|purse| purse.mint != *mint || purse.unit != unit) {
            purses.push(PurseReport::empty(mint, unit));
        }
    }
    purses.sort_by(|a, b| (&a.mint, &a.unit).cmp(&(&b.mint, &b.unit)));
    purses
}

async fn purse_row(purse: &PurseReport, state: &AdminState) -> PurseRow {
    let keysets = match (state.wallet.mints().contains(&purse.mint), state.wallet.knows(&purse.mint).await) {
        (false, _) => "not configured",
        (true, true) => "known",
        (true, false) => "not loaded",
    };
    PurseRow {
        mint: purse.mint.clone(),
        unit: purse.unit.clone(),
        proofs: purse.ecash_msat,
        ledger: purse.ledger_msat,
        difference: purse.ecash_msat.saturating_sub(purse.ledger_msat),
        keysets,
    }
}

fn mint_row(health: &MintHealth) -> MintRow {
    let complaint = health.complaint();
    MintRow {
        mint: health.mint.clone(),
        alone: complaint.is_some(),
        condition: complaint.unwrap_or_else(|| "is asked".to_owned()),
        calls: health.calls.map(|(total, left)| format!("{left} of {total}")),
        waiting: health.waiting,
        trouble: health.trouble.map(|(trouble, at_ms)| format!("{}, {}", trouble.as_str(), format::utc(at_ms))),
        answered: health.answered_ms.map(format::utc),
    }
}

fn upstream_row(one: &Condition) -> UpstreamRow {
    let (condition, alone) = upstreams::state_of(one);
    UpstreamRow {
        name: one.name.to_string(),
        kind: one.kind,
        condition,
        alone,
        today: one.today_usd.normalize().to_string(),
        month: one.month_usd.normalize().to_string(),
    }
}

/// How the node stands.
#[utoipa::path(get, path = "/admin/api/overview", tag = "admin", security(("operator" = ["read"])),
    params(("of" = Option<String>, Query, description = "Of the boards: day, week, month or ever")),
    responses((status = 200, body = View), (status = 403, body = Complaint)),
)]
async fn view_call(
    State(state): State<AdminState>,
    operator: Operator,
    Search(wanted): Search<Wanted>,
) -> Result<Json<View>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(view(&state, &wanted).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mint_has_a_purse_even_one_that_is_not_configured() {
        let purse = PurseReport { ecash_msat: 6_000, ledger_msat: 6_000, ..PurseReport::empty("https://m", "sat") };
        let known = Report { purses: vec![purse], ..Report::default() };
        let found = all_purses(Some(&known), &["https://a".into(), "https://m".into()], "sat");
        let rows: Vec<_> = found.iter().map(|purse| (purse.mint.as_str(), purse.ecash_msat)).collect();
        assert_eq!(rows, [("https://a", 0), ("https://m", 6_000)]);
        assert_eq!(all_purses(Some(&known), &[], "sat").len(), 1);
        assert_eq!(all_purses(None, &["https://a".into()], "sat").len(), 1);
    }
}
