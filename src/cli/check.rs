//! `coinslot check`: validates the settings and the list of models, and changes nothing.

use std::process::ExitCode;

use crate::catalog::file;

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    words.is_empty().then(check)
}

fn check() -> ExitCode {
    let Some(config) = super::configured() else { return ExitCode::FAILURE };
    for notice in config.notices() {
        println!("{notice}");
    }
    match file::load(&config.pricing.models_path) {
        Ok(loaded) => {
            for problem in &loaded.problems {
                println!("models: {problem}");
            }
            println!("The configuration is valid; {} models are offered.", loaded.catalog.offered().count());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("MODELS_PATH: {error}");
            ExitCode::FAILURE
        }
    }
}
