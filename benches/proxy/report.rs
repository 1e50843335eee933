//! The result as a table: numbers, ratios to the floor, targets.

use std::fmt::Write as _;

/// One line of the table.
struct Row {
    what: &'static str,
    direct: String,
    floor: String,
    coinslot: String,
    relation: String,
    target: &'static str,
    verdict: &'static str,
}

#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// A number that every peer has.
#[derive(Clone, Copy)]
pub struct Figure {
    /// `None`: was not measured.
    pub direct: Option<f64>,
    pub floor: f64,
    pub coinslot: f64,
}

/// What coinslot's number has to do with the floor's.
pub enum Target {
    /// At least so many times the floor's.
    AtLeast(f64),
    /// At most so many times the floor's.
    AtMost(f64),
    /// At most the floor's and so much more.
    Within(f64),
    /// Shown, without a target.
    None,
}

impl Report {
    pub fn compare(&mut self, what: &'static str, figure: Figure, target: &Target, wording: &'static str) {
        let Figure { direct, floor, coinslot } = figure;
        let met = match target {
            Target::AtLeast(times) => coinslot >= floor * times,
            Target::AtMost(times) => coinslot <= floor * times,
            Target::Within(more) => coinslot <= floor + more,
            Target::None => true,
        };
        let relation = match target {
            Target::Within(_) => format!("{:+.1}", coinslot - floor),
            _ => format!("{:.2} ×", coinslot / floor),
        };
        let verdict = match target {
            Target::None => "",
            _ => verdict(met),
        };
        let direct = direct.map_or_else(|| "–".to_owned(), shown);
        self.rows.push(Row {
            what,
            direct,
            floor: shown(floor),
            coinslot: shown(coinslot),
            relation,
            target: wording,
            verdict,
        });
    }

    /// A number of coinslot's own.
    pub fn absolute(
        &mut self,
        what: &'static str,
        beside: String,
        coinslot: String,
        wording: &'static str,
        met: Option<bool>,
    ) {
        let verdict = met.map_or("", verdict);
        let (direct, relation) = ("–".to_owned(), String::new());
        self.rows.push(Row { what, direct, floor: beside, coinslot, relation, target: wording, verdict });
    }

    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    pub fn print(&self) {
        let mut out = String::from(
            "\n| | direct | floor | coinslot | to the floor | target | |\n|---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let Row { what, direct, floor, coinslot, relation, target, verdict } = row;
            let _ok = writeln!(out, "| {what} | {direct} | {floor} | {coinslot} | {relation} | {target} | {verdict} |");
        }
        out.push('\n');
        for note in &self.notes {
            let _ok = writeln!(out, "- {note}");
        }
        println!("{out}");
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "PASS" } else { "MISS" }
}

/// Three digits that matter.
pub fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => {
            let digits = format!("{:.0}", value);
            let (front, back) = digits.split_at(digits.len() - 3);
            format!("{front},{back}")
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
