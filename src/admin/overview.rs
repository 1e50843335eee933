//! The first page: is the node solvent, what does it earn, is anything stuck.
//!
//! Solvency is proven anew for every visit, except that no mint is asked: what the mints said is in
//! the last outcome of the hourly proof.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Html;

use super::session::Session;
use super::{AdminError, AdminState, format, page, repo, upstreams};
use crate::audit::{Auditor, PurseReport, Report, Verdict};
use crate::ledger::{Ledger, ids};
use crate::upstream::Condition;
use crate::upstream::repo::{Margin, margins};
use crate::wallet::MintHealth;
use crate::wallet::recovery::Recovered;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// An operation older than this is stuck.
const YOUNG_MS: i64 = 10 * 60 * 1000;
const KEYS: i64 = 20;
/// How long a recovery is spoken of.
const TOLD_MS: i64 = 30 * DAY_MS;

#[derive(Template)]
#[template(path = "admin/overview.html")]
struct Page {
    name: String,
    version: &'static str,
    csrf: String,
    now: String,
    alarms: Vec<String>,
    notes: Vec<String>,
    proofs: String,
    liabilities: String,
    /// What vouchers promise, and what was taken back unclaimed; nothing is not shown.
    promised: Option<String>,
    unclaimed: Option<String>,
    earnings: String,
    held: String,
    open_holds: String,
    proven: bool,
    purses: Vec<PurseRow>,
    mints: Vec<MintRow>,
    upstreams: Vec<UpstreamRow>,
    unfinished: String,
    oldest: Option<String>,
    charges: [Charged; 2],
    keys: Vec<KeyRow>,
    key_count: String,
}

struct PurseRow {
    mint: String,
    unit: String,
    proofs: String,
    ledger: String,
    /// Zero is not shown.
    difference: Option<String>,
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

/// How an upstream is, and what was earned by it in the last 24 hours.
struct UpstreamRow {
    name: String,
    kind: &'static str,
    condition: String,
    /// Whether it is not asked now, for some model at least.
    alone: bool,
    today: String,
    month: String,
    requests: String,
    cost: String,
    charged: String,
}

struct Charged {
    span: &'static str,
    requests: String,
    earned: String,
}

struct KeyRow {
    hash: String,
    balance: String,
    held: String,
    spent: String,
    requests: String,
    created: String,
}

pub(super) async fn show(State(state): State<AdminState>, session: Session) -> Result<Html<String>, AdminError> {
    let now_ms = state.now_ms();
    let store = state.ledger.store();
    let unfinished = repo::unfinished(store).await?;
    let report = prove(&state.ledger).await?;
    let since_ms = now_ms.saturating_sub(DAY_MS);
    let charges = repo::charges(store, since_ms).await?;
    // What ended since then may have begun before: no request takes a day.
    let margins = margins(store, ids::first_at(since_ms.saturating_sub(DAY_MS)), since_ms).await?;
    let keys = repo::largest_keys(store, KEYS).await?;
    let age_ms = unfinished.oldest_ms.map(|oldest| now_ms.saturating_sub(oldest));
    let unclaimed = repo::taken_back(store).await?;
    let mut findings = judge(&report, state.audit.get().as_deref(), state.wallet.mints(), age_ms);
    findings.alarms.extend(state.wallet.astray().await?.iter().map(|(mint, open)| {
        format!(
            "{mint} is not configured, but {} operations wait for it: list it again in CASHU_MINTS.",
            format::count(*open)
        )
    }));
    findings.alarms.extend(state.wallet.halted());
    let recovered = state.wallet.last_recovery().await?.filter(|last| now_ms.saturating_sub(last.ended_ms) < TOLD_MS);
    findings.alarms.extend(recovered.iter().flat_map(recovery_lines));
    let mut rows = Vec::new();
    for purse in purses(&report, state.wallet.mints(), state.wallet.unit().as_str()) {
        rows.push(purse_row(&purse, &state).await);
    }
    page(&Page {
        name: state.name,
        version: state.version,
        csrf: session.csrf().to_owned(),
        now: format::utc(now_ms),
        alarms: findings.alarms,
        notes: findings.notes,
        proofs: format::sat(report.ecash_msat),
        liabilities: format::sat(report.liabilities_msat),
        promised: (report.vouchers_msat != 0).then(|| format::sat(report.vouchers_msat)),
        unclaimed: (unclaimed != 0).then(|| format::sat(unclaimed)),
        earnings: format::sat(report.earnings_msat),
        held: format::sat(report.held_msat),
        open_holds: format::count(report.open_holds),
        proven: report.verdict() != Verdict::Faulty,
        purses: rows,
        mints: state.wallet.health().iter().map(mint_row).collect(),
        upstreams: state.pool.conditions().iter().map(|one| upstream_row(one, &margins)).collect(),
        unfinished: format::count(unfinished.count),
        oldest: age_ms.map(format::age),
        charges: [
            charged("Last 24 hours", charges.recent_requests, charges.recent_msat),
            charged("In total", charges.requests, charges.msat),
        ],
        keys: keys.iter().map(key_row).collect(),
        key_count: format::count(repo::count_keys(store).await?),
    })
}

async fn prove(ledger: &Ledger) -> Result<Report, AdminError> {
    let auditor = Auditor {
        reader: ledger.store().reader(),
        clock: Arc::clone(ledger.clock()),
        inspector: None,
        ledger: Some(ledger.clone()),
        most_asked: 0,
    };
    Ok(auditor.prove().await?)
}

/// One purse for every mint that is configured, or that the report knows.
fn purses(report: &Report, mints: &[String], unit: &str) -> Vec<PurseReport> {
    let mut purses = report.purses.clone();
    for mint in mints {
        if purses.iter().all(|purse| purse.mint != *mint || purse.unit != unit) {
            purses.push(PurseReport::empty(mint, unit));
        }
    }
    purses.sort_by(|a, b| (&a.mint, &a.unit).cmp(&(&b.mint, &b.unit)));
    purses
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    alarms: Vec<String>,
    notes: Vec<String>,
}

/// What the operator must know. `last`: the outcome of the last proof for which the mints were asked.
/// `oldest_ms`: the age of the oldest operation that is unfinished.
fn judge(report: &Report, last: Option<&Report>, mints: &[String], oldest_ms: Option<i64>) -> Findings {
    let mut findings = Findings { alarms: report.faults.clone(), notes: Vec::new() };
    if let Some(last) = last {
        let at = format::utc(last.at_ms);
        let others = last.faults.iter().filter(|fault| !report.faults.contains(fault));
        findings.alarms.extend(others.map(|fault| format!("Found at {at}: {fault}")));
        for mint in &last.mints {
            if let Some(why) = &mint.silence {
                findings.notes.push(format!("At {at}, {} could not be asked about its ecash: {why}", mint.mint));
            }
        }
    }
    for purse in report.purses.iter().filter(|purse| purse.ledger_msat != 0 && !mints.contains(&purse.mint)) {
        let amount = format::sat(purse.ledger_msat);
        findings.alarms.push(format!("{} is not configured, but the ledger says it holds {amount} sat.", purse.mint));
    }
    if report.shortfall_msat() > 0 {
        let amount = format::sat(report.shortfall_msat());
        findings.alarms.push(format!("The ecash does not cover what is owed: {amount} sat are missing."));
    }
    match oldest_ms {
        Some(age) if age > YOUNG_MS => {
            findings.alarms.push(format!("An operation at a mint has been unfinished for {}.", format::age(age)));
        }
        Some(_) => findings.notes.push("Operations at mints are under way, which may explain differences.".into()),
        None => {}
    }
    findings
}

/// What a recovery came to, and what it could not know.
fn recovery_lines(done: &Recovered) -> Vec<String> {
    let at = format::utc(done.ended_ms);
    let mut lines = vec![format!(
        "Recovered at {at}, because {}. Balances of clients may be too high: what they spent after the copy was \
         made is not known.",
        done.reason
    )];
    for purse in &done.purses {
        if purse.missing_msat > 0 {
            let amount = format::sat(purse.missing_msat);
            lines.push(format!("{}: {amount} sat that the copy knew were gone. The house bears them.", purse.mint));
        }
        if purse.found_msat > 0 {
            let amount = format::sat(purse.found_msat);
            lines.push(format!(
                "{}: {amount} sat were found that belong to clients whom the copy does not know.",
                purse.mint
            ));
        }
    }
    lines
}

async fn purse_row(purse: &PurseReport, state: &AdminState) -> PurseRow {
    let keysets = match (state.wallet.mints().contains(&purse.mint), state.wallet.knows(&purse.mint).await) {
        (false, _) => "not configured",
        (true, true) => "known",
        (true, false) => "not loaded",
    };
    let difference = purse.ecash_msat.saturating_sub(purse.ledger_msat);
    PurseRow {
        mint: purse.mint.clone(),
        unit: purse.unit.clone(),
        proofs: format::sat(purse.ecash_msat),
        ledger: format::sat(purse.ledger_msat),
        difference: (difference != 0).then(|| format::sat(difference)),
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

fn upstream_row(one: &Condition, margins: &[Margin]) -> UpstreamRow {
    let (condition, alone) = upstreams::state_of(one);
    let margin = margins.iter().find(|margin| *margin.upstream == *one.name);
    UpstreamRow {
        name: one.name.to_string(),
        kind: one.kind,
        condition,
        alone,
        today: one.today_usd.normalize().to_string(),
        month: one.month_usd.normalize().to_string(),
        requests: format::count(margin.map_or(0, |margin| margin.requests)),
        cost: format::sat(margin.map_or(0, |margin| margin.cost_msat)),
        charged: format::sat(margin.map_or(0, |margin| margin.charged_msat)),
    }
}

fn charged(span: &'static str, requests: i64, msat: i64) -> Charged {
    Charged { span, requests: format::count(requests), earned: format::sat(msat) }
}

fn key_row(key: &repo::Key) -> KeyRow {
    KeyRow {
        hash: key.short_hash.clone(),
        balance: format::sat(key.posted),
        held: format::sat(key.held),
        spent: format::sat(key.spent),
        requests: format::count(key.requests),
        created: format::utc(key.created_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Now, last time, mints, age of the oldest operation; alarms, notes.
    type Row<'a> = (Report, Option<&'a Report>, &'a [String], Option<i64>, usize, usize);

    fn report(ecash: i64, faults: &[&str]) -> Report {
        let purse = PurseReport { ecash_msat: ecash, ledger_msat: ecash, ..PurseReport::empty("https://m", "sat") };
        Report {
            faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
            ecash_msat: ecash,
            liabilities_msat: 5_000,
            purses: vec![purse],
            ..Report::default()
        }
    }

    #[test]
    fn the_operator_is_told_what_is_off_and_what_takes_long() {
        let mints = ["https://m".to_owned()];
        let silent = Report {
            mints: vec![crate::audit::Asked { silence: Some("no answer".into()), ..Default::default() }],
            ..Report::default()
        };
        let rows: [Row<'_>; 9] = [
            (report(6_000, &[]), None, &mints, None, 0, 0),
            (report(6_000, &["a row"]), None, &mints, None, 1, 0),
            (report(6_000, &["a row"]), Some(&report(6_000, &["a row"])), &mints, None, 1, 0),
            (report(6_000, &[]), Some(&report(6_000, &["a proof"])), &mints, None, 1, 0),
            (report(6_000, &[]), Some(&silent), &mints, None, 0, 1),
            (report(6_000, &[]), None, &mints, Some(YOUNG_MS), 0, 1),
            (report(6_000, &[]), None, &mints, Some(YOUNG_MS + 1), 1, 0),
            (report(6_000, &[]), None, &[], None, 1, 0),
            (report(4_000, &[]), None, &mints, None, 1, 0),
        ];
        for (report, last, mints, oldest, alarms, notes) in rows {
            let findings = judge(&report, last, mints, oldest);
            assert_eq!((findings.alarms.len(), findings.notes.len()), (alarms, notes), "{report:?} {findings:?}");
        }
    }

    #[test]
    fn every_mint_has_a_purse_even_one_that_is_not_configured() {
        let known = report(6_000, &[]);
        let found = purses(&known, &["https://a".into(), "https://m".into()], "sat");
        let rows: Vec<_> = found.iter().map(|purse| (purse.mint.as_str(), purse.ecash_msat)).collect();
        assert_eq!(rows, [("https://a", 0), ("https://m", 6_000)]);
        assert_eq!(purses(&known, &[], "sat").len(), 1);
    }
}
