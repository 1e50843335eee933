//! `coinslot doctor`: looks at what operators get wrong, whether the node runs or not. Changes nothing.
//!
//! Exit codes: 0 nothing is wrong (there may be warnings); 1 something is, and is named with its remedy; 2
//! not begun: the words or the settings.

use std::process::ExitCode;
use std::sync::Arc;

use super::USAGE;
use crate::clock::SystemClock;
use crate::doctor::{self, Verdict};

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    let json = match words {
        [] => false,
        ["--json"] => true,
        _ => return None,
    };
    let Some(config) = super::configured() else { return Some(ExitCode::from(USAGE)) };
    let examined = super::block_on(async {
        let (config, _) = super::looked_up(&config).await;
        let (ways, _open) = super::ways(&config).await?;
        doctor::examine(&config, &ways, Arc::new(SystemClock)).await.map_err(|error| error.to_string())
    });
    Some(match examined {
        Ok(report) => {
            if json {
                println!("{}", report.to_json())
            } else {
                println!("{report}")
            }
            if report.verdict() == Verdict::Fault { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("nothing can be looked at: {error}");
            ExitCode::from(USAGE)
        }
    })
}
