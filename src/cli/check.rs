//! `coinslot check`: validates the settings that are in force, the upstreams and the list of models. Changes nothing.

use std::process::ExitCode;

use crate::catalog::file;
use crate::config::{Config, Secret};
use crate::store::{Location, Reader};
use crate::tor::Tor;
use crate::upstream::Upstream;

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    words.is_empty().then(check)
}

/// What the environment says, over what the node was told.
fn in_force() -> Option<Config> {
    let config = super::configured()?;
    let found = super::block_on(async { Ok(super::looked_up(&config).await) });
    let (config, unread) = found.map_err(|error| eprintln!("{error}")).ok()?;
    for name in unread {
        println!("{name}: what the node was told cannot be read, and does not count");
    }
    Some(config)
}

/// Why a database server cannot be used now. A file is made by the first start.
async fn unreached(config: &Config) -> Option<String> {
    let url = config.storage.database_url.as_ref().map(Secret::expose);
    if !matches!(Location::of(&config.storage.data_dir, url), Location::Postgres(_)) {
        return None;
    }
    match Reader::open(&config.storage.data_dir, url).await {
        Ok(reader) => {
            reader.close().await;
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

fn check() -> ExitCode {
    let Some(config) = in_force() else { return ExitCode::FAILURE };
    for notice in config.notices() {
        println!("{notice}");
    }
    if let Ok(Some(why)) = super::block_on(async { Ok(unreached(&config).await) }) {
        println!("database: {why}");
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
    match file::configured(&config.pricing) {
        Ok(loaded) => {
            if loaded.source == file::Source::Bundled {
                println!("{}", file::NO_FILE);
            }
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
