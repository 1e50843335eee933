//! Daily copies beside the database, for the mistakes that need no fire.
//!
//! SQLite only: several processes may share a PostgreSQL, whose operators have better means to copy
//! it every day. `coinslot backup` copies either.

use std::path::{Path, PathBuf};

use super::{BackupError, Key, at, backup};
use crate::clock::DAY_MS;
use crate::config::Config;
use crate::store::{Location, Reader, private_dir};
use crate::vault::Vault;

/// Where they are, in the data directory.
pub const SNAPSHOTS: &str = "snapshots";
const ENDING: &str = ".backup";

/// Keeps so many of them.
#[derive(Debug)]
pub struct Snapshots {
    config: Config,
    reader: Reader,
    key: Key,
}

impl Snapshots {
    /// `None` where none are to be made.
    #[must_use]
    pub fn new(config: &Config, reader: Reader, vault: &Vault) -> Option<Self> {
        let sqlite = matches!(reader.location(), Location::Sqlite(_));
        if !sqlite || config.backups.keep == 0 {
            return None;
        }
        let key = match &config.backups.passphrase {
            Some(phrase) => Key::Passphrase(phrase.clone()),
            None => Key::Vault(vault.snapshot_key()),
        };
        Some(Self { config: config.clone(), reader, key })
    }

    /// Removes what processes have left that died over one.
    pub fn remove_leftovers(&self, now_ms: i64) {
        super::remove_leftovers(&self.config.storage.data_dir, now_ms);
    }

    /// Makes one when the newest is a day old, and removes the oldest. Returns where it is: it has its name
    /// when it is whole.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub async fn take_if_due(&self, now_ms: i64) -> Result<Option<PathBuf>, BackupError> {
        let dir = self.config.storage.data_dir.join(SNAPSHOTS);
        let mut there = list(&dir)?;
        if !is_due(&there, now_ms) || self.reader.is_blank().await? {
            return Ok(None);
        }
        private_dir(&dir)?;
        let path = dir.join(format!("coinslot-{now_ms}{ENDING}"));
        backup(&self.config, &self.reader, &self.key, &path, now_ms).await?;
        there.push((now_ms, path.clone()));
        let keep = usize::try_from(self.config.backups.keep).unwrap_or(usize::MAX);
        for old in surplus(there, keep, now_ms) {
            std::fs::remove_file(&old).map_err(at(&old))?;
        }
        Ok(Some(path))
    }
}

/// Whether none is of the last day. One from further ahead than a day was made by a clock that was set back since.
fn is_due(there: &[(i64, PathBuf)], now_ms: i64) -> bool {
    !there.iter().any(|(made_ms, _)| now_ms.saturating_sub(*made_ms).saturating_abs() < DAY_MS)
}

/// Those that go: the oldest, and before them those from the future, of which nobody knows how old they are.
fn surplus(mut there: Vec<(i64, PathBuf)>, keep: usize, now_ms: i64) -> Vec<PathBuf> {
    there.sort_by_key(|(made_ms, _)| (*made_ms <= now_ms, *made_ms));
    let count = there.len().saturating_sub(keep);
    there.into_iter().take(count).map(|(_, path)| path).collect()
}

/// When each was made, and where it is.
fn list(dir: &Path) -> Result<Vec<(i64, PathBuf)>, BackupError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(dir)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(at(dir))?.path();
        let name = path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
        let made = name.strip_prefix("coinslot-").and_then(|rest| rest.strip_suffix(ENDING));
        if let Some(made_ms) = made.and_then(|made| made.parse().ok()) {
            found.push((made_ms, path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_stops_no_copies() {
        let copies = |days: &[i64]| -> Vec<(i64, PathBuf)> {
            days.iter().map(|day| (day * DAY_MS, PathBuf::from(day.to_string()))).collect()
        };
        for (days, due) in [(&[][..], true), (&[9], true), (&[10], false), (&[400], true), (&[400, 10], false)] {
            assert_eq!(is_due(&copies(days), 10 * DAY_MS), due, "{days:?}");
        }
        // The one that was just made stays, whatever the others are called.
        let gone = surplus(copies(&[400, 8, 401, 9, 10]), 2, 10 * DAY_MS);
        assert_eq!(gone, ["400", "401", "8"].map(PathBuf::from));
        assert_eq!(surplus(copies(&[400, 10]), 2, 10 * DAY_MS), Vec::<PathBuf>::new());
    }
}
