//! What the operator must know: alarms, which want something done, and notes.

use super::super::format;
use crate::audit::{Lack, Report};
use crate::wallet::recovery::Recovered;
use crate::wallet::underway::YOUNG_MS;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub alarms: Vec<String>,
    pub notes: Vec<String>,
}

/// What the operator must know. `last`: the last proof of the books. `oldest_ms`: the age of the oldest operation that
/// is unfinished.
pub(super) fn judge(last: Option<&Report>, mints: &[String], oldest_ms: Option<i64>) -> Findings {
    let mut findings = Findings::default();
    if let Some(last) = last {
        let at = format::utc(last.at_ms);
        findings.alarms.extend(last.faults.iter().map(|fault| format!("Found at {at}: {fault}")));
        for mint in &last.mints {
            if let Some(why) = &mint.silence {
                findings.notes.push(format!("At {at}, {} could not be asked about its ecash: {why}", mint.mint));
            }
        }
        for purse in last.purses.iter().filter(|purse| purse.ledger_msat != 0 && !mints.contains(&purse.mint)) {
            let amount = format::sat(purse.ledger_msat);
            findings
                .alarms
                .push(format!("{} is not configured, but the ledger says it holds {amount} sat.", purse.mint));
        }
        if last.shortfall_msat() > 0 {
            let amount = format::sat(last.shortfall_msat());
            findings.alarms.push(format!("The ecash does not cover what is owed: {amount} sat are missing."));
        }
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

/// That nothing is known of the books.
pub(super) fn lack_line(lack: &Lack) -> String {
    format!("At {} the books could not be read, so they are not proven: {}", format::utc(lack.at_ms), lack.why)
}

/// What a recovery came to, and what it could not know.
pub(super) fn recovery_lines(done: &Recovered) -> Vec<String> {
    let at = format::utc(done.ended_ms);
    let mut lines = vec![format!(
        "Recovered at {at}, because {}. Balances of clients may be too high: what they spent after the copy was \
         made is not known.",
        done.reason
    )];
    lines.push(
        "All sessions and tokens ended then, as the copy had those again that were revoked. Its password counts: if \
         you have changed that since, coinslot admin reset-password makes another one."
            .to_owned(),
    );
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::PurseReport;

    /// The last proof, mints, age of the oldest operation; alarms, notes.
    type Row<'a> = (Option<&'a Report>, &'a [String], Option<i64>, usize, usize);

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
        let asked = crate::audit::Asked { silence: Some("no answer".into()), ..Default::default() };
        let silent = Report { mints: vec![asked], ..Report::default() };
        let rows: [Row<'_>; 8] = [
            (None, &mints, None, 0, 0),
            (Some(&report(6_000, &[])), &mints, None, 0, 0),
            (Some(&report(6_000, &["a row"])), &mints, None, 1, 0),
            (Some(&silent), &mints, None, 0, 1),
            (Some(&report(6_000, &[])), &mints, Some(YOUNG_MS), 0, 1),
            (Some(&report(6_000, &[])), &mints, Some(YOUNG_MS + 1), 1, 0),
            (Some(&report(6_000, &[])), &[], None, 1, 0),
            (Some(&report(4_000, &[])), &mints, None, 1, 0),
        ];
        for (last, mints, oldest, alarms, notes) in rows {
            let findings = judge(last, mints, oldest);
            assert_eq!((findings.alarms.len(), findings.notes.len()), (alarms, notes), "{last:?} {findings:?}");
        }
    }
}
