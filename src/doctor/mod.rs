//! What an operator gets wrong, found by looking from outside: a line each, with the remedy.
//!
//! Every check asks the same servers that the node or its clients would, and changes nothing. It runs
//! beside the node or without it.

mod address;
mod network;
mod parts;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::clock::SharedClock;
use crate::config::{Config, Secret};
use crate::net::dialer::Dialer;
use crate::net::way::{Way, Ways};
use crate::net::{ClientOptions, NetError};
use crate::store::{Reader, StoreError};

/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Good,
    /// Neither good nor bad, or not to be known.
    Note,
    /// It works, and not as well as it could.
    Warning,
    /// Clients cannot use the node, or money is at risk.
    Fault,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `url`, `cors`, `mint`, `clock`, `rate`, `relay`, `onion`, `reviews`, `database`.
    pub check: &'static str,
    /// Which of several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    pub verdict: Verdict,
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// All lines.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
}

/// What the checks share.
struct Doctor<'a> {
    config: &'a Config,
    clock: SharedClock,
    ways: &'a Ways,
    /// The node's database, where there is one.
    reader: Result<Reader, StoreError>,
    /// By how many seconds other servers' clocks are ahead of this one's.
    offsets: std::sync::Mutex<Vec<i64>>,
}

/// Looks at everything.
///
/// # Errors
/// When there can be no HTTP client.
pub async fn examine(config: &Config, ways: &Ways, clock: SharedClock) -> Result<Report, NetError> {
    let url = config.storage.database_url.as_ref().map(Secret::expose);
    let doctor = Doctor {
        config,
        clock,
        ways,
        reader: Reader::open(&config.storage.data_dir, url).await,
        offsets: std::sync::Mutex::default(),
    };
    let mut report = Report::default();
    report.findings.extend(doctor.address().await?);
    report.findings.extend(doctor.mints().await?);
    report.findings.extend(doctor.rate().await?);
    report.findings.extend(doctor.relays().await?);
    report.findings.extend(doctor.onion().await?);
    report.findings.extend(doctor.reviews().await);
    report.findings.extend(doctor.database().await);
    // Last, because the others have asked for the time.
    report.findings.push(doctor.time());
    if let Ok(reader) = &doctor.reader {
        reader.close().await;
    }
    Ok(report)
}

fn dialer(way: &Way, patience: Duration) -> Result<Dialer, NetError> {
    let way = way.clone();
    Dialer::new(&ClientOptions {
        connect_timeout: patience,
        read_timeout: Some(patience),
        way,
        ..ClientOptions::default()
    })
}

impl Doctor<'_> {
    fn data_dir(&self) -> PathBuf {
        self.config.storage.data_dir.clone()
    }
}

impl Report {
    /// The worst of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Good)
    }

    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "verdict": self.verdict(), "findings": self.findings })
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, finding) in self.findings.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mark = match self.verdict {
            Verdict::Good => "good",
            Verdict::Note => "note",
            Verdict::Warning => "WARN",
            Verdict::Fault => "FAULT",
        };
        write!(f, "{mark:<6}{:<9}", self.check)?;
        if !self.subject.is_empty() {
            write!(f, "{}: ", self.subject)?;
        }
        write!(f, "{}", self.found)?;
        if !self.remedy.is_empty() {
            write!(f, ". {}", self.remedy)?;
        }
        Ok(())
    }
}

impl Finding {
    fn new(check: &'static str, subject: impl Into<String>, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { check, subject: subject.into(), verdict, found: found.into(), remedy: String::new() }
    }

    /// The same, with what to do about it.
    fn so(self, remedy: impl Into<String>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_as_bad_as_its_worst_line() {
        let finding = |verdict| Finding::new("url", "", verdict, "x").so("Do y.");
        let of = |verdicts: &[Verdict]| Report { findings: verdicts.iter().copied().map(finding).collect() }.verdict();
        assert_eq!(of(&[]), Verdict::Good);
        assert_eq!(of(&[Verdict::Good, Verdict::Note]), Verdict::Note);
        assert_eq!(of(&[Verdict::Fault, Verdict::Warning, Verdict::Good]), Verdict::Fault);
        assert_eq!(finding(Verdict::Fault).to_string(), "FAULT url      x. Do y.");
    }
}
