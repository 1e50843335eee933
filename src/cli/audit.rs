//! `coinslot audit`: proves that the node has what it owes, whether it runs or not. Changes nothing.
//!
//! Exit codes: 0 proven; 1 something is off, and is named, or the ecash does not cover what is owed; 2 not begun: the words, the settings or
//! the database, also where the books in it cannot be read; 3 the books are right, and some mint could not be asked about its ecash.

use std::process::ExitCode;
use std::sync::Arc;

use super::USAGE;
use crate::audit::{Auditor, Report, Solvency};
use crate::clock::SystemClock;
use crate::config::{Config, Secret};
use crate::node;
use crate::store::Reader;
use crate::vault::SEED;

/// The books are right, and some mint could not be asked.
const NOT_ASKED: u8 = 3;

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    let json = match words {
        [] => false,
        ["--json"] => true,
        _ => return None,
    };
    let Some(config) = super::configured() else { return Some(ExitCode::from(USAGE)) };
    Some(match super::block_on(audit(&config)) {
        Ok(report) => {
            if json {
                println!("{}", report.to_json())
            } else {
                println!("{report}")
            }
            match report.verdict() {
                Solvency::Proven => ExitCode::SUCCESS,
                Solvency::Faulty | Solvency::Short => ExitCode::FAILURE,
                Solvency::NotAsked => ExitCode::from(NOT_ASKED),
            }
        }
        Err(error) => {
            eprintln!("the audit cannot be made: {error}");
            ExitCode::from(USAGE)
        }
    })
}

async fn audit(config: &Config) -> Result<Report, String> {
    let url = config.storage.database_url.as_ref().map(Secret::expose);
    let reader = Reader::open(&config.storage.data_dir, url).await.map_err(|error| error.to_string())?;
    super::has_run(reader.setting(SEED).await)?;
    let (ways, _open) = super::ways(config).await?;
    let inspector = node::inspector(config, &ways).map_err(|error| error.to_string())?;
    let auditor = Auditor {
        reader: reader.clone(),
        clock: Arc::new(SystemClock),
        inspector: Some(inspector),
        ledger: None,
        patience: config.storage.node_timeout,
        most_asked: usize::MAX,
    };
    let report = auditor.prove().await.map_err(|error| error.to_string());
    reader.close().await;
    report
}
