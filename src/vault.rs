//! Secrets at rest: one key, from the environment or a file in the data directory, from which the
//! others derive.
//!
//! * Keys of clients are stored as an HMAC, so a stolen database opens no account.
//! * The wallet's seed and the node's Nostr key are stored sealed (XChaCha20-Poly1305).
//! * Answers that are kept for a client are sealed with its own credential as well.
//!
//! Losing the key means losing both: it belongs into the backup, apart from the database.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::config::Secret;

/// The setting that the wallet's seed is kept under, sealed: it proves the key.
pub const SEED: &str = "wallet_seed";
const FILE: &str = "secret.key";
const NONCE: usize = 24;

/// What went wrong with the secrets.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("{0}")]
    Io(String),
    #[error("{FILE} does not hold 64 hexadecimal digits")]
    Malformed,
    #[error("the secret key (SECRET_KEY, SECRET_KEY_FILE or {FILE}) is not the one that this database was made with")]
    WrongKey,
    #[error("SECRET_KEY is easy to guess: a new database takes 16 characters or more")]
    Short,
    #[error(
        "{0} is missing, and the database was made with a secret key: put it back, or set SECRET_KEY or \
         SECRET_KEY_FILE as the node has it"
    )]
    Missing(String),
}

/// The derived keys.
#[derive(Clone)]
pub struct Vault {
    /// With its key taken in: every request hashes one.
    hashing: Hmac<Sha256>,
    sealing: [u8; 32],
    deriving: Hmac<Sha256>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(…)")
    }
}

impl Vault {
    /// Uses the configured key, or the file's, or makes the file.
    ///
    /// # Errors
    /// When the file cannot be read or made.
    pub fn open(data_dir: &Path, configured: Option<&Secret>) -> Result<Self, VaultError> {
        Ok(match configured {
            Some(secret) => Self::of(secret.expose().as_bytes()),
            None => Self::of(&file_key(&data_dir.join(FILE))?),
        })
    }

    /// The vault of a database that keeps this seed, sealed: the key must open it, and is made only where there is
    /// no seed yet.
    ///
    /// # Errors
    /// When the key is missing, or another one, or too short for a new database.
    pub fn open_proven(data_dir: &Path, configured: Option<&Secret>, seed: Option<&str>) -> Result<Self, VaultError> {
        let Some(seed) = seed else {
            // A database that was made with such a key goes on.
            return if configured.is_some_and(Secret::is_short) {
                Err(VaultError::Short)
            } else {
                Self::open(data_dir, configured)
            };
        };
        let vault = Self::of(Self::master(data_dir, configured)?.expose().as_bytes());
        vault.unseal(SEED, seed)?;
        Ok(vault)
    }

    fn of(master: &[u8]) -> Self {
        Self {
            hashing: keyed(mac(master, b"coinslot key hash v1")),
            sealing: mac(master, b"coinslot sealing v1"),
            deriving: keyed(mac(master, b"coinslot derived keys v1")),
        }
    }

    /// The key that seals snapshots which stay with the node.
    #[must_use]
    pub fn snapshot_key(&self) -> [u8; 32] {
        mac(&self.sealing, b"coinslot snapshots v1")
    }

    /// The secret that all keys here derive from, as text: the configured one, or the file's.
    ///
    /// # Errors
    /// When the file is missing, or cannot be read.
    pub fn master(data_dir: &Path, configured: Option<&Secret>) -> Result<Secret, VaultError> {
        match configured {
            Some(secret) => Ok(secret.clone()),
            None => {
                let path = data_dir.join(FILE);
                let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => VaultError::Missing(path.display().to_string()),
                    _ => VaultError::Io(format!("{}: {error}", path.display())),
                })?;
                if is_key(text.trim()) { Ok(Secret::new(text.trim().to_owned())) } else { Err(VaultError::Malformed) }
            }
        }
    }

    /// Puts a secret that was read with [`Vault::master`] where [`Vault::open`] finds it. `false`: it is
    /// not one that the file can hold; it has to be configured.
    ///
    /// # Errors
    /// When there is another one, or the file cannot be written.
    pub fn put_master(data_dir: &Path, secret: &Secret) -> Result<bool, VaultError> {
        if !is_key(secret.expose()) {
            return Ok(false);
        }
        let path = data_dir.join(FILE);
        if path.exists() {
            let there = Self::master(data_dir, None)?;
            return if there.expose() == secret.expose() { Ok(true) } else { Err(VaultError::WrongKey) };
        }
        write_private(&path, secret.expose())
            .map_err(|error| VaultError::Io(format!("{}: {error}", path.display())))?;
        Ok(true)
    }

    /// What the database knows of a client's key.
    #[must_use]
    pub fn key_hash(&self, key: &str) -> String {
        hex(&hashed(self.hashing.clone(), key.as_bytes()))
    }

    /// The key of a client that belongs to this name: 64 hexadecimal digits that are stored nowhere.
    #[must_use]
    pub fn derived_key(&self, name: &str) -> String {
        hex(&hashed(self.deriving.clone(), name.as_bytes()))
    }

    /// What the database knows of several values together: their keyed hash.
    #[must_use]
    pub fn digest(&self, parts: &[&[u8]]) -> String {
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len().saturating_add(8)).sum());
        for part in parts {
            // With its length before it, no two lists of parts read the same.
            bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        hex(&hashed(self.hashing.clone(), &bytes))
    }

    /// Encrypts for the holder of a credential: it takes that, this vault and the name to open it.
    ///
    /// # Errors
    /// Never in practice, see [`Vault::seal`].
    pub fn seal_for(&self, credential: &str, name: &str, plain: &[u8]) -> Result<String, VaultError> {
        self.shared_with(credential).seal(name, plain)
    }

    /// Decrypts what [`Vault::seal_for`] made for the same credential and name.
    ///
    /// # Errors
    /// [`VaultError::WrongKey`] when it does not authenticate.
    pub fn unseal_for(&self, credential: &str, name: &str, sealed: &str) -> Result<Vec<u8>, VaultError> {
        self.shared_with(credential).unseal(name, sealed)
    }

    fn shared_with(&self, credential: &str) -> Self {
        let sealing = mac(&mac(&self.sealing, b"coinslot sealing for a client v1"), credential.as_bytes());
        Self { sealing, ..self.clone() }
    }

    /// Encrypts, bound to the name under which it is stored.
    ///
    /// # Errors
    /// Never in practice: the cipher refuses only absurd lengths.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<String, VaultError> {
        let nonce: [u8; NONCE] = rand::random();
        let payload = Payload { msg: plain, aad: name.as_bytes() };
        let sealed = self.cipher().encrypt(XNonce::from_slice(&nonce), payload).map_err(|_| VaultError::WrongKey)?;
        Ok(STANDARD.encode([&nonce[..], &sealed].concat()))
    }

    /// Decrypts what [`Vault::seal`] made under the same name.
    ///
    /// # Errors
    /// [`VaultError::WrongKey`] when it does not authenticate.
    pub fn unseal(&self, name: &str, sealed: &str) -> Result<Vec<u8>, VaultError> {
        let bytes = STANDARD.decode(sealed).map_err(|_| VaultError::WrongKey)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE).ok_or(VaultError::WrongKey)?;
        let payload = Payload { msg: sealed, aad: name.as_bytes() };
        self.cipher().decrypt(XNonce::from_slice(nonce), payload).map_err(|_| VaultError::WrongKey)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.sealing.into())
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length.
    <Hmac<Sha256> as Mac>::new_from_slice(key).map_or([0; 32], |hasher| hashed(hasher, message))
}

/// What hashes with this key.
fn keyed(key: [u8; 32]) -> Hmac<Sha256> {
    // HMAC fills keys up with zeros, to the length of a block.
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block.iter_mut().zip(key).for_each(|(place, byte)| *place = byte);
    <Hmac<Sha256> as Mac>::new(&block)
}

fn hashed(mut hasher: Hmac<Sha256>, message: &[u8]) -> [u8; 32] {
    hasher.update(message);
    hasher.finalize().into_bytes().into()
}

/// Letters of codes that people read and type: none is easily taken for another. 32 of them: five
/// bits each.
pub const LEGIBLE: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";

/// So many random letters out of [`LEGIBLE`].
#[must_use]
pub fn legible(letters: usize) -> String {
    let letter = || LEGIBLE.get(usize::from(rand::random::<u8>() & 31)).map(|letter| char::from(*letter));
    (0..letters).filter_map(|_| letter()).collect()
}

/// A text with a dash after every `size` letters.
#[must_use]
pub fn grouped(text: &str, size: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    letters.chunks(size.max(1)).map(|group| group.iter().collect()).collect::<Vec<String>>().join("-")
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let halves = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    text.extend(halves.filter_map(|half| char::from_digit(half.into(), 16)));
    text
}

fn file_key(path: &Path) -> Result<Vec<u8>, VaultError> {
    let io = |error: std::io::Error| VaultError::Io(format!("{}: {error}", path.display()));
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let text = text.trim();
            if is_key(text) { Ok(text.as_bytes().to_vec()) } else { Err(VaultError::Malformed) }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = hex(&rand::random::<[u8; 32]>());
            write_private(path, &text).map_err(io)?;
            Ok(text.into_bytes())
        }
        Err(error) => Err(io(error)),
    }
}

/// Whether this is what the file holds.
fn is_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Writes a new file that only its owner can read, and syncs it.
pub(crate) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_opens_under_its_key_and_name_only() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path(), None).unwrap();
        let again = Vault::open(dir.path(), None).unwrap();
        let other = Vault::open(dir.path(), Some(&Secret::new("another".to_owned()))).unwrap();
        let sealed = vault.seal("seed", b"plain").unwrap();
        assert!(!sealed.contains("plain"));
        assert_eq!(again.unseal("seed", &sealed).unwrap(), b"plain");
        assert!(again.unseal("other", &sealed).is_err());
        assert!(other.unseal("seed", &sealed).is_err());
        let shared = vault.seal_for("alice", "answer", b"plain").unwrap();
        assert_eq!(again.unseal_for("alice", "answer", &shared).unwrap(), b"plain");
        assert!(again.unseal_for("bob", "answer", &shared).is_err());
        assert!(again.unseal("answer", &shared).is_err());
        assert!(other.unseal_for("alice", "answer", &shared).is_err());
        assert_ne!(vault.digest(&[b"ab", b"c"]), vault.digest(&[b"a", b"bc"]));
        assert_eq!(vault.key_hash("k"), again.key_hash("k"));
        assert_ne!(vault.key_hash("k"), other.key_hash("k"));
    }

    #[test]
    fn no_key_is_made_for_a_seed_that_is_sealed_already() {
        let (dir, other) = (tempfile::tempdir().unwrap(), Secret::new("another".to_owned()));
        let vault = Vault::open_proven(dir.path(), None, None).unwrap();
        let seed = vault.seal(SEED, b"seed").unwrap();
        assert!(Vault::open_proven(dir.path(), None, Some(&seed)).is_ok());
        let wrong = Vault::open_proven(dir.path(), Some(&other), Some(&seed));
        assert!(matches!(wrong, Err(VaultError::WrongKey)));
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        let missing = Vault::open_proven(dir.path(), None, Some(&seed));
        assert!(matches!(missing, Err(VaultError::Missing(_))) && !dir.path().join(FILE).exists());
    }
}
