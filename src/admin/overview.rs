//! The first page: is the node solvent, what does it earn, is anything stuck.
//!
//! Solvency is shown twice, from two sources: the proofs in the ecash store and the ledger. They
//! agree at rest; while an operation at a mint is young, a difference is no alarm.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use askama::Template;
use axum::extract::State;
use axum::response::Html;

use super::session::Session;
use super::{AdminError, AdminState, format, page, repo};
use crate::ledger::books::Books;
use crate::money::{MintUnit, Msat};
use crate::wallet::MintHealth;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// An operation older than this is stuck, and explains no difference any more.
const YOUNG_MS: i64 = 10 * 60 * 1000;
const KEYS: i64 = 20;
/// How often the figures are read again when the two sources differ: they are read one after the
/// other, and money may move in between.
const READINGS: usize = 3;

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
    unfinished: String,
    oldest: Option<String>,
    charges: [Charged; 2],
    keys: Vec<KeyRow>,
    key_count: String,
}

struct PurseRow {
    mint: String,
    unit: String,
    /// `None`: the mint is not configured, so its proofs are not counted.
    proofs: Option<String>,
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
    let (books, purses) = count_money(&state).await?;
    let charges = repo::charges(store, now_ms.saturating_sub(DAY_MS)).await?;
    let keys = repo::largest_keys(store, KEYS).await?;
    let age_ms = unfinished.oldest_ms.map(|oldest| now_ms.saturating_sub(oldest));
    let unclaimed = repo::taken_back(store).await?;
    let mut findings = judge(&books, &purses, age_ms);
    findings.alarms.extend(state.wallet.astray().await?.iter().map(|(mint, open)| {
        format!(
            "{mint} is not configured, but {} operations wait for it: list it again in CASHU_MINTS.",
            format::count(*open)
        )
    }));
    let mut rows = Vec::with_capacity(purses.len());
    for purse in &purses {
        rows.push(purse_row(purse, &state).await);
    }
    page(&Page {
        name: state.name,
        version: state.version,
        csrf: session.csrf().to_owned(),
        now: format::utc(now_ms),
        alarms: findings.alarms,
        notes: findings.notes,
        proofs: format::sat(proofs(&purses)),
        liabilities: format::sat(books.liabilities),
        promised: (books.vouchers != 0).then(|| format::sat(books.vouchers)),
        unclaimed: (unclaimed != 0).then(|| format::sat(unclaimed)),
        earnings: format::sat(books.earnings),
        held: format::sat(books.held),
        open_holds: format::count(books.open_holds),
        proven: books.faults.is_empty(),
        purses: rows,
        mints: state.wallet.health().iter().map(mint_row).collect(),
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

/// Ecash of one mint and unit, in msat, according to both sources.
#[derive(Debug, PartialEq, Eq)]
struct Purse {
    mint: String,
    unit: String,
    proofs: Option<i64>,
    ledger: i64,
}

impl Purse {
    /// What the proofs are worth beyond what the ledger says.
    fn difference(&self) -> i64 {
        self.proofs.map_or(0, |proofs| proofs.saturating_sub(self.ledger))
    }
}

async fn count_money(state: &AdminState) -> Result<(Books, Vec<Purse>), AdminError> {
    let mut reading = 1;
    loop {
        let books = state.ledger.books().await?;
        let proofs = state.wallet.ecash().await?;
        let purses = purses(state.wallet.mints(), state.wallet.unit(), &proofs, &books.ecash);
        let agree = purses.iter().all(|purse| purse.difference() == 0);
        if agree || reading == READINGS {
            return Ok((books, purses));
        }
        reading += 1;
    }
}

/// One purse for every mint that is configured, or that either source knows.
fn purses(
    mints: &[String],
    unit: MintUnit,
    proofs: &HashMap<(String, MintUnit), Msat>,
    ledger: &BTreeMap<(String, String), i64>,
) -> Vec<Purse> {
    let proofs: HashMap<(String, String), i64> = proofs
        .iter()
        .map(|((mint, unit), amount)| ((mint.clone(), unit.as_str().to_owned()), amount.to_db()))
        .collect();
    let configured = mints.iter().map(|mint| (mint.clone(), unit.as_str().to_owned()));
    let known: BTreeSet<(String, String)> =
        configured.chain(proofs.keys().cloned()).chain(ledger.keys().cloned()).collect();
    known
        .into_iter()
        .map(|key| Purse {
            proofs: mints.contains(&key.0).then(|| proofs.get(&key).copied().unwrap_or(0)),
            ledger: ledger.get(&key).copied().unwrap_or(0),
            mint: key.0,
            unit: key.1,
        })
        .collect()
}

fn proofs(purses: &[Purse]) -> i64 {
    purses.iter().filter_map(|purse| purse.proofs).fold(0, i64::saturating_add)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    alarms: Vec<String>,
    notes: Vec<String>,
}

/// What the operator must know. `oldest_ms`: the age of the oldest operation that is unfinished.
fn judge(books: &Books, purses: &[Purse], oldest_ms: Option<i64>) -> Findings {
    let mut findings = Findings { alarms: books.faults.clone(), notes: Vec::new() };
    let mut doubts = Vec::new();
    for purse in purses {
        let (mint, difference) = (&purse.mint, purse.difference());
        if difference != 0 {
            let amount = format::sat(difference.saturating_abs());
            let side = if difference > 0 { "more" } else { "less" };
            doubts.push(format!("{mint}: the proofs are worth {amount} sat {side} than the ledger says."));
        }
        if purse.proofs.is_none() && purse.ledger != 0 {
            let amount = format::sat(purse.ledger);
            findings.alarms.push(format!("{mint} is not configured, but the ledger says it holds {amount} sat."));
        }
    }
    let short = books.liabilities.saturating_sub(proofs(purses));
    if short > 0 {
        doubts.push(format!("The ecash does not cover what is owed: {} sat are missing.", format::sat(short)));
    }
    match oldest_ms {
        Some(age) if age <= YOUNG_MS => {
            findings.notes.extend(doubts);
            findings.notes.push("Operations at mints are under way, which may explain differences.".into());
        }
        Some(age) => {
            findings.alarms.extend(doubts);
            findings.alarms.push(format!("An operation at a mint has been unfinished for {}.", format::age(age)));
        }
        None => findings.alarms.extend(doubts),
    }
    findings
}

async fn purse_row(purse: &Purse, state: &AdminState) -> PurseRow {
    let keysets = match (purse.proofs, state.wallet.knows(&purse.mint).await) {
        (None, _) => "not configured",
        (_, true) => "known",
        (_, false) => "not loaded",
    };
    let difference = purse.difference();
    PurseRow {
        mint: purse.mint.clone(),
        unit: purse.unit.clone(),
        proofs: purse.proofs.map(format::sat),
        ledger: format::sat(purse.ledger),
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

    fn purse(proofs: Option<i64>, ledger: i64) -> Purse {
        Purse { mint: "https://m".into(), unit: "sat".into(), proofs, ledger }
    }

    #[test]
    fn a_difference_is_an_alarm_unless_a_young_operation_explains_it() {
        let books = Books { liabilities: 5_000, ..Books::default() };
        let rows = [
            (purse(Some(6_000), 6_000), None, 0, 0),
            (purse(Some(5_000), 6_000), None, 1, 0),
            (purse(Some(7_000), 6_000), None, 1, 0),
            (purse(Some(4_000), 6_000), None, 2, 0),
            (purse(Some(4_000), 6_000), Some(YOUNG_MS), 0, 3),
            (purse(Some(4_000), 6_000), Some(YOUNG_MS + 1), 3, 0),
            (purse(Some(6_000), 6_000), Some(0), 0, 1),
            (purse(None, 6_000), None, 2, 0),
        ];
        for (purse, oldest, alarms, notes) in rows {
            let purses = [purse];
            let findings = judge(&books, &purses, oldest);
            assert_eq!((findings.alarms.len(), findings.notes.len()), (alarms, notes), "{purses:?} {findings:?}");
        }
    }

    #[test]
    fn every_mint_has_a_purse_even_one_that_only_the_ledger_knows() {
        let key = |mint: &str, unit: &str| (mint.to_owned(), unit.to_owned());
        let proofs = HashMap::from([(("https://a".to_owned(), MintUnit::Msat), Msat::new(7).unwrap())]);
        let ledger = BTreeMap::from([(key("https://a", "msat"), 7), (key("https://old", "sat"), 1_000)]);
        let found = purses(&["https://a".into(), "https://b".into()], MintUnit::Sat, &proofs, &ledger);
        let rows: Vec<_> = found.iter().map(|p| (p.mint.as_str(), p.unit.as_str(), p.proofs, p.ledger)).collect();
        let expected = [
            ("https://a", "msat", Some(7), 7),
            ("https://a", "sat", Some(0), 0),
            ("https://b", "sat", Some(0), 0),
            ("https://old", "sat", None, 1_000),
        ];
        assert_eq!(rows, expected);
    }
}
