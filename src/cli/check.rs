//! `coinslot check`: validates the settings, the upstreams and the list of models, and changes nothing.

use std::process::ExitCode;

use crate::catalog::file;
use crate::tor::Tor;
use crate::upstream::Upstream;

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    words.is_empty().then(check)
}

fn check() -> ExitCode {
    let Some(config) = super::configured() else { return ExitCode::FAILURE };
    for notice in config.notices() {
        println!("{notice}");
    }
    let ways = match Tor::check(&config) {
        Ok(ways) => ways,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut usable = true;
    for one in &config.upstreams.listed {
        if let Err(error) = Upstream::new(one, &ways.upstreams) {
            eprintln!("upstream {}: {error}", one.name);
            usable = false;
        }
    }
    match file::load(&config.pricing.models_path) {
        Ok(loaded) => {
            for problem in &loaded.problems {
                println!("models: {problem}");
            }
            if !usable {
                return ExitCode::FAILURE;
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
