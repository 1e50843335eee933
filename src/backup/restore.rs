//! A backup becomes a node's files again.
//!
//! Nothing that is there is overwritten. The whole file is opened, to its end, before anything is put
//! in place; then the epoch says that a recovery is due, and the database comes last.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::Path;

use super::parcel::Unpacker;
use super::seal::{Key, Opener};
use super::{BackupError, DATABASE, MANIFEST, Manifest, NODE, SECRET, Scratch, at, create_private};
use crate::config::{Config, Secret};
use crate::store::{self, Lineage, Location, Store, latest_version};
use crate::vault::{Vault, write_private};
use crate::wallet::cdk_db;

/// What was put back.
#[derive(Debug)]
pub struct Restored {
    pub manifest: Manifest,
    /// The secret was not one that the node makes for itself: it has to be configured as before.
    pub secret_wanted: bool,
}

/// What was in the parcel, beside the database.
#[derive(Default)]
struct Contents {
    manifest: Option<Manifest>,
    secret: Option<Secret>,
    node: String,
    database: bool,
}

/// Puts a backup in place of a database that is not there.
///
/// # Errors
/// When the file does not open, or something is in the way: then nothing has changed. When the database does not take
/// it: then there may be a secret key, and tables with nothing in them, which are in no other try's way.
pub async fn restore(config: &Config, key: &Key, from: &Path) -> Result<Restored, BackupError> {
    let data_dir = &config.storage.data_dir;
    let location = Location::of(data_dir, config.storage.database_url.as_ref().map(Secret::expose));
    store::check_vacant(&location).await?;
    store::private_dir(data_dir)?;
    // Beside its place, so that it can be moved there in one step.
    let beside = match &location {
        Location::Sqlite(path) => path.parent().filter(|parent| !parent.as_os_str().is_empty()),
        Location::Postgres(_) => None,
    };
    let beside = beside.unwrap_or(data_dir);
    std::fs::create_dir_all(beside).map_err(at(beside))?;
    let copy = Scratch::within(beside);
    let contents = unpack(File::open(from).map_err(at(from))?, key, &copy)?;
    let Some(manifest) = contents.manifest.filter(|_| contents.database) else {
        return Err(BackupError::Format("the backup is not complete"));
    };
    check_kind(&manifest, &location)?;
    let secret_wanted = put_secret(config, contents.secret.as_ref())?;
    let node = data_dir.join(NODE);
    if !node.exists() && !contents.node.is_empty() {
        write_private(&node, &contents.node).map_err(at(&node))?;
    }
    Lineage::foretell_recovery(data_dir)?;
    match &location {
        Location::Sqlite(path) => store::move_into_place(&copy.0, path)?,
        Location::Postgres(url) => {
            let store = Store::open_at(url, manifest.schema_version).await?;
            let made = cdk_db::open(&store).await.map(drop);
            made.map_err(|error| BackupError::Refused(format!("the tables cannot be made: {error}")))?;
            store::load(&store, &copy.0).await?;
            store.close().await;
        }
    }
    Ok(Restored { manifest, secret_wanted })
}

fn unpack(file: File, key: &Key, copy: &Scratch) -> Result<Contents, BackupError> {
    let mut unpacker = Unpacker::new(Opener::begin(BufReader::new(file), key)?);
    let mut contents = Contents::default();
    while let Some((name, length)) = unpacker.next().map_err(|_| BackupError::Damaged)? {
        take(&mut unpacker, &mut contents, (&name, length), copy)?;
    }
    Ok(contents)
}

fn take(
    unpacker: &mut Unpacker<impl Read>,
    contents: &mut Contents,
    (name, length): (&str, u64),
    copy: &Scratch,
) -> Result<(), BackupError> {
    let damaged = |_| BackupError::Damaged;
    match name {
        MANIFEST => {
            let manifest = unpacker.text(length).map_err(damaged)?;
            let unreadable = |_| BackupError::Format("this backup was made by a later version of coinslot");
            contents.manifest = Some(serde_json::from_str(&manifest).map_err(unreadable)?);
        }
        SECRET => contents.secret = Some(Secret::new(unpacker.text(length).map_err(damaged)?)),
        NODE => contents.node = unpacker.text(length).map_err(damaged)?,
        DATABASE => {
            let mut out = BufWriter::new(create_private(&copy.0)?);
            unpacker.copy(length, &mut out).map_err(|error| not_copied(error, &copy.0))?;
            out.flush().map_err(at(&copy.0))?;
            out.get_ref().sync_all().map_err(at(&copy.0))?;
            contents.database = true;
        }
        _ => return Err(BackupError::Format("this backup was made by a later version of coinslot")),
    }
    Ok(())
}

/// A file that does not open, or ends, is damaged. Anything else is no fault of the backup's: there may be no room.
fn not_copied(error: io::Error, to: &Path) -> BackupError {
    match error.kind() {
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => BackupError::Damaged,
        _ => at(to)(error),
    }
}

fn check_kind(manifest: &Manifest, location: &Location) -> Result<(), BackupError> {
    let wanted = match location {
        Location::Sqlite(_) => "sqlite",
        Location::Postgres(_) => "postgres",
    };
    if manifest.database != wanted {
        let kind = &manifest.database;
        return Err(BackupError::Refused(format!("it is a backup of {kind}, and DATABASE_URL asks for {wanted}")));
    }
    if manifest.schema_version > latest_version() {
        let program = &manifest.program;
        return Err(BackupError::Refused(format!("it was made by coinslot {program}, which is newer than this one")));
    }
    Ok(())
}

/// Returns whether the operator has to configure the secret.
fn put_secret(config: &Config, secret: Option<&Secret>) -> Result<bool, BackupError> {
    let data_dir = &config.storage.data_dir;
    let Some(secret) = secret else {
        // A snapshot opened with the vault's key: the secret is there.
        return Ok(false);
    };
    match &config.storage.secret_key {
        Some(configured) if configured.expose() == secret.expose() => Ok(false),
        Some(_) => Err(BackupError::Refused("SECRET_KEY is not the one that the backup was made with".to_owned())),
        None => Ok(!Vault::put_master(data_dir, secret)?),
    }
}
