//! `coinslot restore FILE`: puts a backup in place where no database is. At its next start the node
//! asks the mints what became of its ecash since, before it pays anything.

use std::path::Path;
use std::process::ExitCode;

use super::{USAGE, passphrase};
use crate::backup::{self, Key, Restored};
use crate::config::Config;
use crate::vault::Vault;

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    let (file, with_secret) = match words {
        ["--secret-key", rest @ ..] => (super::read_file(rest)?, true),
        words => (super::read_file(words)?, false),
    };
    let Some(config) = super::configured() else { return Some(ExitCode::from(USAGE)) };
    let key = if with_secret { vault_key(&config) } else { passphrase::ask(&config, passphrase::For::Opening) };
    let Some(key) = key else { return Some(ExitCode::from(USAGE)) };
    let restoring = async {
        let restored = backup::restore(&config, &key, Path::new(file)).await;
        restored.map_err(|error| error.to_string())
    };
    Some(match super::block_on(restoring) {
        Ok(restored) => {
            tell(&restored);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("nothing was restored: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Snapshots without a passphrase are sealed with the node's own secret key.
fn vault_key(config: &Config) -> Option<Key> {
    let (data_dir, configured) = (&config.storage.data_dir, config.storage.secret_key.as_ref());
    let vault = Vault::master(data_dir, configured).and_then(|secret| Vault::open(data_dir, Some(&secret)));
    vault.map(|vault| Key::Vault(vault.snapshot_key())).map_err(|error| eprintln!("SECRET_KEY: {error}")).ok()
}

fn tell(restored: &Restored) {
    println!("The database is in place. Never run the node that the backup is of at the same time.");
    println!("When this one starts, it asks its mints what became of its ecash since, and serves nothing before.");
    println!("Balances of clients may be too high then: what they spent after the backup is not known.");
    println!(
        "All sessions and tokens of operators end then. The password is the backup's: if it was changed since, make"
    );
    println!("another one with `coinslot admin reset-password`.");
    if restored.secret_wanted {
        println!("The backup was made with a SECRET_KEY of your own: set the same one before you start.");
    }
}
