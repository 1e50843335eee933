//! What an audit found: for a program as JSON, for a person as text.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Serialize;

use super::purse_id;
use crate::ledger::books::Books;
use crate::wallet::holdings::{Holdings, Purse};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Solvency {
    /// All of it is proven.
    Proven,
    /// The books are right, and some mint was not asked about its ecash, or not about all of it.
    NotAsked,
    /// The books are right, and they say that the ecash does not cover what is owed.
    Short,
    /// Something is off.
    Faulty,
}

impl Solvency {
    /// What the operator has to do something about, in a line that anybody may read.
    #[must_use]
    pub fn alarm(self) -> Option<&'static str> {
        match self {
            Self::Faulty => Some("the books are not proven"),
            Self::Short => Some("the ecash does not cover what is owed"),
            Self::NotAsked | Self::Proven => None,
        }
    }
}

/// The ecash of one mint and unit, by both sources, in msat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PurseReport {
    pub mint: String,
    pub unit: String,
    /// Proofs that are the node's.
    pub ecash_msat: i64,
    /// What of them is set aside for operations under way.
    pub reserved_msat: i64,
    pub ledger_msat: i64,
    /// By how much the proofs may be ahead of the ledger because of operations under way.
    pub may_differ_msat: (i64, i64),
}

/// What one mint was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Asked {
    pub mint: String,
    pub proofs: usize,
    pub asked: usize,
    /// Why it was not asked about the others; absent: nobody wanted to.
    pub silence: Option<String>,
}

/// One proof of solvency. Amounts are msat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// When the snapshot was taken.
    pub at_ms: i64,
    /// Everything that is off, one line each, naming the row.
    pub faults: Vec<String>,
    pub ecash_msat: i64,
    pub liabilities_msat: i64,
    /// The part of the liabilities that vouchers promise which nobody has redeemed.
    pub vouchers_msat: i64,
    pub earnings_msat: i64,
    pub held_msat: i64,
    pub open_holds: i64,
    pub open_operations: usize,
    pub purses: Vec<PurseReport>,
    /// Empty when no mint was to be asked, or there is no ecash to ask about.
    pub mints: Vec<Asked>,
}

impl PurseReport {
    /// A purse with nothing in it.
    #[must_use]
    pub fn empty(mint: &str, unit: &str) -> Self {
        Self { mint: mint.to_owned(), unit: unit.to_owned(), ..Self::default() }
    }

    /// What the proofs are worth beyond what the ledger and the operations under way explain.
    #[must_use]
    pub fn unexplained_msat(&self) -> i64 {
        let difference = self.ecash_msat.saturating_sub(self.ledger_msat);
        let (low, high) = self.may_differ_msat;
        difference.saturating_sub(difference.clamp(low.min(high), high.max(low)))
    }
}

impl Report {
    pub(super) fn new(at_ms: i64, books: &Books, holdings: &Holdings) -> Self {
        let mut purses: BTreeMap<(String, String), (Purse, i64)> = BTreeMap::new();
        for (id, purse) in &holdings.purses {
            purses.entry(id.clone()).or_default().0 = purse.clone();
        }
        for ((mint, unit), ledger) in &books.ecash {
            let entry = purses.entry(purse_id(mint, unit)).or_default();
            entry.1 = entry.1.saturating_add(*ledger);
        }
        let purses: Vec<PurseReport> = purses
            .into_iter()
            .map(|((mint, unit), (purse, ledger_msat))| PurseReport {
                mint,
                unit,
                ecash_msat: purse.held,
                reserved_msat: purse.reserved,
                ledger_msat,
                may_differ_msat: purse.ahead,
            })
            .collect();
        let mut faults: Vec<String> = books.faults.iter().chain(&holdings.faults).cloned().collect();
        for purse in &purses {
            let off = purse.unexplained_msat();
            if off != 0 {
                let (mint, unit) = (&purse.mint, &purse.unit);
                let side = if off > 0 { "more" } else { "less" };
                faults.push(format!(
                    "{mint} ({unit}): the proofs are worth {} sat {side} than the ledger's {} sat",
                    sat(off.saturating_abs()),
                    sat(purse.ledger_msat)
                ));
            }
        }
        let ecash = books.ecash.values().fold(0_i64, |sum, part| sum.saturating_add(*part));
        let due = books.liabilities.saturating_add(books.earnings);
        if ecash != due {
            faults.push(format!("the ledger's ecash is {ecash} msat, and {due} msat are owed or earned"));
        }
        let held = purses.iter().fold(0_i64, |sum, purse| sum.saturating_add(purse.ecash_msat));
        Self {
            at_ms,
            faults,
            ecash_msat: held,
            liabilities_msat: books.liabilities,
            vouchers_msat: books.vouchers,
            earnings_msat: books.earnings,
            held_msat: books.held,
            open_holds: books.open_holds,
            open_operations: holdings.open_operations,
            purses,
            mints: Vec::new(),
        }
    }

    #[must_use]
    pub fn verdict(&self) -> Solvency {
        if !self.faults.is_empty() {
            return Solvency::Faulty;
        }
        if self.shortfall_msat() > 0 {
            return Solvency::Short;
        }
        if self.mints.iter().any(|mint| mint.asked < mint.proofs) { Solvency::NotAsked } else { Solvency::Proven }
    }

    /// What is owed beyond the ecash there is, and beyond what is on its way out and not booked yet.
    #[must_use]
    pub fn shortfall_msat(&self) -> i64 {
        let on_its_way = self.purses.iter().map(|purse| purse.may_differ_msat.0.min(0));
        let on_its_way = on_its_way.fold(0_i64, i64::saturating_add);
        self.liabilities_msat.saturating_sub(self.ecash_msat).saturating_add(on_its_way).max(0)
    }

    /// As a program reads it.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = json.as_object_mut() {
            fields.insert("verdict".to_owned(), serde_json::to_value(self.verdict()).unwrap_or_default());
        }
        json
    }
}

/// msat as sat with three decimals.
fn sat(msat: i64) -> String {
    let sign = if msat < 0 { "-" } else { "" };
    let msat = msat.unsigned_abs();
    let (whole, rest) = (msat.checked_div(1000).unwrap_or(0), msat.checked_rem(1000).unwrap_or(0));
    format!("{sign}{whole}.{rest:03}")
}

/// As a person reads it.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        let figures = [
            ("ecash", self.ecash_msat),
            ("owed to clients", self.liabilities_msat),
            ("earned", self.earnings_msat),
            ("held for requests", self.held_msat),
        ];
        for (name, msat) in figures {
            writeln!(text, "{name:<18} {:>18} sat", sat(msat))?;
        }
        for purse in &self.purses {
            writeln!(text, "at {} ({}): {} sat of ecash", purse.mint, purse.unit, sat(purse.ecash_msat))?;
        }
        for mint in &self.mints {
            match &mint.silence {
                None => writeln!(text, "asked {} about {} of {} proofs", mint.mint, mint.asked, mint.proofs)?,
                Some(why) => {
                    let left = mint.proofs.saturating_sub(mint.asked);
                    writeln!(text, "not asked {} about {left} of {} proofs: {why}", mint.mint, mint.proofs)?;
                }
            }
        }
        if self.open_operations > 0 {
            writeln!(text, "{} operations are under way", self.open_operations)?;
        }
        for fault in &self.faults {
            writeln!(text, "FAULT: {fault}")?;
        }
        let verdict = match self.verdict() {
            Solvency::Proven => "proven: the ecash covers what is owed, and the rest was earned",
            Solvency::NotAsked => "the books are right; not all of the ecash could be shown to the mints",
            Solvency::Short => {
                writeln!(text, "SHORT: {} sat are owed beyond the ecash there is", sat(self.shortfall_msat()))?;
                "NOT SOLVENT: the books are right, and the ecash does not cover what is owed"
            }
            Solvency::Faulty => "NOT PROVEN",
        };
        write!(f, "{text}{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purse(ecash_msat: i64, ledger_msat: i64, may_differ_msat: (i64, i64)) -> PurseReport {
        PurseReport { ecash_msat, ledger_msat, may_differ_msat, ..PurseReport::empty("https://m", "sat") }
    }

    #[test]
    fn a_difference_is_explained_by_operations_under_way_or_not_at_all() {
        let rows = [
            (purse(5, 5, (0, 0)), 0),
            (purse(6, 5, (0, 0)), 1),
            (purse(4, 5, (0, 0)), -1),
            (purse(9, 5, (0, 4)), 0),
            (purse(10, 5, (0, 4)), 1),
            (purse(5, 5, (4, 4)), -4),
            (purse(2, 5, (-3, 0)), 0),
            (purse(1, 5, (-3, 0)), -1),
        ];
        for (purse, off) in rows {
            assert_eq!(purse.unexplained_msat(), off, "{purse:?}");
        }
        let report = |purse| Report { liabilities_msat: 7, ecash_msat: 5, purses: vec![purse], ..Report::default() };
        assert_eq!(report(purse(5, 5, (0, 0))).verdict(), Solvency::Short);
        assert_eq!(report(purse(5, 7, (-2, 0))).verdict(), Solvency::Proven, "on its way out");
        assert_eq!((sat(-1), sat(1_234_567)), ("-0.001".to_owned(), "1234.567".to_owned()));
    }
}
