//! `coinslot backup FILE`: writes a sealed copy of the database and the secret key to a new file. The
//! node may run.

use std::path::Path;
use std::process::ExitCode;

use super::{USAGE, passphrase};
use crate::backup;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, Secret};
use crate::store::Reader;
use crate::vault::SEED;

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    let file = super::read_file(words)?;
    let Some(config) = super::configured() else { return Some(ExitCode::from(USAGE)) };
    let Some(key) = passphrase::ask(&config, passphrase::For::Sealing) else { return Some(ExitCode::from(USAGE)) };
    Some(match super::block_on(make(&config, &key, Path::new(file))) {
        Ok(()) => {
            println!("{file} holds the database and the secret key. Whoever has its passphrase has the money.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("no backup was made: {error}");
            ExitCode::FAILURE
        }
    })
}

async fn make(config: &Config, key: &backup::Key, to: &Path) -> Result<(), String> {
    let url = config.storage.database_url.as_ref().map(Secret::expose);
    let reader = Reader::open(&config.storage.data_dir, url).await.map_err(|error| error.to_string())?;
    super::has_run(reader.setting(SEED).await)?;
    let made = backup::backup(config, &reader, key, to, SystemClock.now_ms()).await;
    reader.close().await;
    made.map_err(|error| error.to_string())
}
