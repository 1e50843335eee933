//! Copies of everything that a node cannot be without, sealed, and back.
//!
//! A backup is one file: the database as it was at one moment, taken while the node runs or not, and
//! the secret key that the wallet's seed is sealed with. It is encrypted with a passphrase (`seal`),
//! so whoever finds it has found nothing.
//!
//! SQLite is copied by `VACUUM INTO`, PostgreSQL row by row in one transaction (`store::dump`).
//!
//! A restored node knows that it is one: the data directory's epoch says so before the database is
//! in its place (`store::lineage`), and `wallet::recovery` comes before any money moves.

mod parcel;
mod restore;
mod seal;
mod snapshots;

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock::HOUR_MS;
use crate::config::{Config, Secret};
use crate::failpoint::failpoint;
use crate::store::{self, Location, Reader, StoreError, latest_version};
use crate::vault::{SEED, Vault, VaultError};
use parcel::Packer;
pub use restore::{Restored, restore};
pub use seal::Key;
use seal::Sealer;
pub use snapshots::{SNAPSHOTS, Snapshots};

/// Shortest passphrase that is typed for a backup, in characters.
pub const SHORTEST: usize = 12;

/// Names of what is in a parcel.
const MANIFEST: &str = "manifest";
const SECRET: &str = "secret";
const NODE: &str = "node.id";
const DATABASE: &str = "database";

/// Why a copy was not made, or not put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error("{path}: {error}")]
    Io { path: String, error: std::io::Error },
    /// The file is no backup, or was made by a later version.
    #[error("{0}")]
    Format(&'static str),
    #[error("the passphrase is not the one that it was made with, or the file was changed")]
    Sealed,
    #[error("the file ends too early, or was changed")]
    Damaged,
    /// There is something in the way.
    #[error("{0}")]
    Refused(String),
}

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `sqlite` or `postgres`.
    pub database: String,
    pub schema_version: i64,
    /// The version of the program that made it.
    pub program: String,
    pub made_ms: i64,
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> BackupError + '_ {
    move |error| BackupError::Io { path: path.display().to_string(), error }
}

/// A file that is removed when this goes.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _gone = std::fs::remove_file(&self.0);
        }
    }
}

impl Scratch {
    /// A name in this directory that nobody uses.
    fn within(dir: &Path) -> Self {
        Self(dir.join(format!("copy-{}.tmp", crate::vault::hex(&rand::random::<[u8; 8]>()))))
    }

    /// It stays.
    fn keep(mut self) {
        self.0 = PathBuf::new();
    }
}

/// Removes what a process has left that died over a backup: copies of the whole database. What was written to within
/// the hour may be in use, also by a `coinslot backup` beside the node.
pub fn remove_leftovers(data_dir: &Path, now_ms: i64) {
    let is_scratch = |name: &str| {
        let begins = ["copy-", "download-"].iter().any(|begin| name.starts_with(begin));
        begins && Path::new(name).extension().is_some_and(|ending| ending == "tmp")
    };
    for dir in [data_dir.to_owned(), data_dir.join(SNAPSHOTS)] {
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_str().is_some_and(is_scratch)) {
            if written_ms(&entry).is_some_and(|at_ms| now_ms.saturating_sub(at_ms).saturating_abs() > HOUR_MS) {
                let path = entry.path();
                let removed = std::fs::remove_file(&path).is_ok();
                tracing::info!(path = %path.display(), removed, "a backup that was broken off left a file");
            }
        }
    }
}

/// When a file was written to last.
fn written_ms(entry: &std::fs::DirEntry) -> Option<i64> {
    let written = entry.metadata().ok().filter(std::fs::Metadata::is_file)?.modified().ok()?;
    i64::try_from(written.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// Writes a backup of the node's database and secret to a new file, readable by its owner alone.
/// The node may run. The file has its name when it is whole.
///
/// # Errors
/// When there is such a file, the secret key is not the database's, or something cannot be read or written. What was
/// begun is removed.
pub async fn backup(config: &Config, reader: &Reader, key: &Key, to: &Path, now_ms: i64) -> Result<(), BackupError> {
    let data_dir = &config.storage.data_dir;
    let unused = || match to.symlink_metadata() {
        Ok(_) => Err(at(to)(ErrorKind::AlreadyExists.into())),
        Err(_) => Ok(()),
    };
    unused()?;
    // Where the secret itself seals the file, it is not in it.
    let secret = match key {
        Key::Passphrase(_) => Some(proven(config, reader).await?),
        Key::Vault(_) => None,
    };
    let copy = Scratch::within(data_dir);
    store::dump(reader, &copy.0).await?;
    let manifest = Manifest {
        database: match reader.location() {
            Location::Sqlite(_) => "sqlite",
            Location::Postgres(_) => "postgres",
        }
        .to_owned(),
        schema_version: latest_version(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        made_ms: now_ms,
    };
    let node = std::fs::read_to_string(data_dir.join(NODE)).unwrap_or_default();
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // It goes also where nobody waits any longer.
    let begun = Scratch::within(dir);
    let file = create_private(&begun.0)?;
    let (key, database) = (key.clone(), copy.0.clone());
    let work = move || pack(file, &key, &manifest, secret.as_ref(), &node, &database);
    match tokio::task::spawn_blocking(work).await {
        Ok(written) => written?,
        Err(error) => return Err(BackupError::Io { path: to.display().to_string(), error: error.into() }),
    }
    failpoint!("backup.packed");
    unused()?;
    std::fs::rename(&begun.0, to).map_err(at(to))?;
    begun.keep();
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
}

/// The secret key, if it opens what the database keeps sealed: with another one, a backup would be worth nothing.
async fn proven(config: &Config, reader: &Reader) -> Result<Secret, BackupError> {
    let (data_dir, configured) = (&config.storage.data_dir, config.storage.secret_key.as_ref());
    let secret = Vault::master(data_dir, configured)?;
    let seed = reader.setting(SEED).await?;
    Vault::open_proven(data_dir, Some(&secret), seed.as_deref())?;
    Ok(secret)
}

fn create_private(path: &Path) -> Result<File, BackupError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(at(path))
}

fn pack(
    file: File,
    key: &Key,
    manifest: &Manifest,
    secret: Option<&Secret>,
    node: &str,
    database: &Path,
) -> Result<(), BackupError> {
    let unwritten = |error| BackupError::Io { path: "the backup".to_owned(), error };
    let text = serde_json::to_vec(manifest).map_err(|_| BackupError::Format("the manifest cannot be written"))?;
    let mut packer = Packer::new(Sealer::begin(BufWriter::new(file), key)?);
    packer.add(MANIFEST, &text).map_err(unwritten)?;
    if let Some(secret) = secret {
        packer.add(SECRET, secret.expose().as_bytes()).map_err(unwritten)?;
    }
    packer.add(NODE, node.trim().as_bytes()).map_err(unwritten)?;
    let source = File::open(database).map_err(at(database))?;
    let length = source.metadata().map_err(at(database))?.len();
    packer.add_from(DATABASE, length, &mut BufReader::new(source)).map_err(unwritten)?;
    let mut out = packer.end().map_err(unwritten)?.end()?;
    out.flush().map_err(unwritten)?;
    let file = out.into_inner().map_err(|error| unwritten(error.into_error()))?;
    file.sync_all().map_err(unwritten)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_broken_off_is_removed_and_what_may_be_in_use_is_not() {
        let dir = std::env::temp_dir().join(format!("coinslot-{}", crate::vault::hex(&rand::random::<[u8; 8]>())));
        let within = dir.join(SNAPSHOTS);
        std::fs::create_dir_all(&within).unwrap();
        let stale = [dir.join("copy-1.tmp"), dir.join("download-1.tmp"), within.join("copy-2.tmp")];
        let others = [dir.join("coinslot.db"), dir.join("x.tmp"), within.join("coinslot-1.backup")];
        stale.iter().chain(&others).for_each(|path| std::fs::write(path, "x").unwrap());
        let there = |paths: &[PathBuf]| paths.iter().filter(|path| path.exists()).count();
        let entry = std::fs::read_dir(&within).unwrap().next().unwrap().unwrap();
        let now_ms = written_ms(&entry).unwrap();
        remove_leftovers(&dir, now_ms + HOUR_MS - 60_000);
        assert_eq!((there(&stale), there(&others)), (3, 3));
        remove_leftovers(&dir, now_ms + HOUR_MS + 60_000);
        assert_eq!((there(&stale), there(&others)), (0, 3));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
