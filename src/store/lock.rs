//! One process per data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use super::StoreError;
use super::open::restrict;

/// An exclusive advisory lock on a file, held as long as the value lives.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock, or says who cannot have it.
    pub fn take(path: &Path, what: &str) -> Result<Self, StoreError> {
        let io = |error: std::io::Error| StoreError::Io(format!("{}: {error}", path.display()));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(io)?;
        restrict(path, 0o600).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(what.to_owned())),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }
}
