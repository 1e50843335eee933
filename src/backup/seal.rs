//! The sealed file: chunked authenticated encryption.
//!
//! ```text
//!   "coinslot" │ version 1 │ kind of key │ argon2 m, t, p │ salt, 16 │ nonce, 19     the header
//!   chunks of 64 KiB, each with its tag, 16; the last one may be shorter, or empty
//! ```
//!
//! XChaCha20-Poly1305; a chunk's nonce is the header's 19 bytes, its number (32 bits, big-endian) and
//! whether it is the last, the header is authenticated with each: the STREAM construction. So no chunk
//! can be changed, moved, left out or added, and the end cannot be cut off. The key is derived from a
//! passphrase with Argon2id, or is the vault's own.

use std::io::{self, Read, Write};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use super::BackupError;
use crate::config::Secret;

const MAGIC: &[u8; 8] = b"coinslot";
const VERSION: u8 = 1;
const HEADER: usize = 57;
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;
/// 64 MiB, three passes, one lane.
const COST: [u32; 3] = [64 * 1024, 3, 1];
/// A header that asks for more is not obeyed.
const MOST_COST: [u32; 3] = [1024 * 1024, 16, 16];

/// What a file is sealed with.
#[derive(Clone)]
pub enum Key {
    Passphrase(Secret),
    /// [`Vault::snapshot_key`](crate::vault::Vault::snapshot_key): whoever has the secret key opens it.
    Vault([u8; 32]),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    fn kind(&self) -> u8 {
        match self {
            Self::Passphrase(_) => 0,
            Self::Vault(_) => 1,
        }
    }
}

/// The state that both sides share.
struct Stream {
    cipher: XChaCha20Poly1305,
    header: [u8; HEADER],
    number: u32,
}

impl Stream {
    fn new(header: [u8; HEADER], key: &Key) -> Result<Self, BackupError> {
        let mut derived = [0; 32];
        match key {
            Key::Vault(key) => derived = *key,
            Key::Passphrase(phrase) => {
                let unusable = |_| BackupError::Format("this backup's key cannot be derived here");
                let [memory, passes, lanes] = costs(&header);
                let params = Params::new(memory, passes, lanes, Some(derived.len())).map_err(unusable)?;
                let salt = header.get(22..38).unwrap_or_default();
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(phrase.expose().as_bytes(), salt, &mut derived)
                    .map_err(unusable)?;
            }
        }
        Ok(Self { cipher: XChaCha20Poly1305::new(&derived.into()), header, number: 0 })
    }

    fn nonce(&mut self, last: bool) -> io::Result<XNonce> {
        let mut nonce = [0; 24];
        let number = self.number.to_be_bytes();
        let parts = self.header.iter().skip(38).chain(&number).copied().chain([u8::from(last)]);
        nonce.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        self.number = self.number.checked_add(1).ok_or_else(|| io::Error::other("the file is too large"))?;
        Ok(*XNonce::from_slice(&nonce))
    }

    fn seal(&mut self, plain: &[u8], last: bool) -> io::Result<Vec<u8>> {
        let nonce = self.nonce(last)?;
        let payload = Payload { msg: plain, aad: &self.header };
        self.cipher.encrypt(&nonce, payload).map_err(|_| io::Error::other("a chunk cannot be sealed"))
    }

    fn open(&mut self, sealed: &[u8], last: bool) -> io::Result<Option<Vec<u8>>> {
        let nonce = self.nonce(last)?;
        Ok(self.cipher.decrypt(&nonce, Payload { msg: sealed, aad: &self.header }).ok())
    }
}

fn costs(header: &[u8; HEADER]) -> [u32; 3] {
    let mut costs = [0; 3];
    let words = header.get(10..22).unwrap_or_default().as_chunks::<4>().0;
    costs.iter_mut().zip(words).for_each(|(cost, word)| *cost = u32::from_be_bytes(*word));
    costs
}

/// Encrypts what is written to it. Nothing is whole before [`Sealer::end`].
pub(super) struct Sealer<W> {
    out: W,
    stream: Stream,
    plain: Vec<u8>,
}

impl<W: Write> Sealer<W> {
    pub(super) fn begin(mut out: W, key: &Key) -> Result<Self, BackupError> {
        let random: [u8; 35] = std::array::from_fn(|_| rand::random());
        let mut header = [0; HEADER];
        let parts = MAGIC.iter().copied().chain([VERSION, key.kind()]);
        let parts = parts.chain(COST.into_iter().flat_map(u32::to_be_bytes)).chain(random);
        header.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        let stream = Stream::new(header, key)?;
        let unwritten = |error| BackupError::Io { path: "the backup".to_owned(), error };
        out.write_all(&header).map_err(unwritten)?;
        Ok(Self { out, stream, plain: Vec::with_capacity(CHUNK) })
    }

    /// Seals the last chunk.
    pub(super) fn end(mut self) -> Result<W, BackupError> {
        let sealed = self.stream.seal(&self.plain, true).and_then(|sealed| self.out.write_all(&sealed));
        sealed.map_err(|error| BackupError::Io { path: "the backup".to_owned(), error })?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.plain.len() == CHUNK {
            let sealed = self.stream.seal(&self.plain, false)?;
            self.out.write_all(&sealed)?;
            self.plain.clear();
        }
        let room = CHUNK.saturating_sub(self.plain.len());
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.plain.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Decrypts a sealed file chunk by chunk. What it gives is authentic; that it is all is known at its end.
pub(super) struct Opener<R> {
    from: R,
    stream: Stream,
    plain: std::collections::VecDeque<u8>,
    /// Read from the file and not opened yet.
    ahead: Vec<u8>,
    ended: bool,
}

impl<R: Read> Opener<R> {
    /// Reads the header, and opens the first chunk to see whether the key fits.
    pub(super) fn begin(mut from: R, key: &Key) -> Result<Self, BackupError> {
        let mut header = [0; HEADER];
        from.read_exact(&mut header).map_err(|_| BackupError::Format("this is no backup of coinslot's"))?;
        if !header.starts_with(MAGIC) {
            return Err(BackupError::Format("this is no backup of coinslot's"));
        }
        if header.get(8) != Some(&VERSION) {
            return Err(BackupError::Format("this backup was made by a later version of coinslot"));
        }
        if header.get(9) != Some(&key.kind()) {
            return Err(BackupError::Format(match key {
                Key::Passphrase(_) => "this file opens with the node's secret key, not with a passphrase",
                Key::Vault(_) => "this file opens with a passphrase",
            }));
        }
        if costs(&header).iter().zip(MOST_COST).any(|(cost, most)| *cost > most) {
            return Err(BackupError::Format("this backup's key cannot be derived here"));
        }
        let stream = Stream::new(header, key)?;
        let mut opener =
            Self { from, stream, plain: std::collections::VecDeque::new(), ahead: Vec::new(), ended: false };
        opener.fill().map_err(|_| BackupError::Sealed)?;
        Ok(opener)
    }

    fn fill(&mut self) -> io::Result<()> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "damaged");
        let whole = CHUNK.saturating_add(TAG);
        // One byte more than a chunk tells whether there is another.
        let wanted = whole.saturating_add(1).saturating_sub(self.ahead.len());
        (&mut self.from).take(u64::try_from(wanted).unwrap_or(u64::MAX)).read_to_end(&mut self.ahead)?;
        let last = self.ahead.len() <= whole;
        let rest = if last { Vec::new() } else { self.ahead.split_off(whole) };
        let sealed = std::mem::replace(&mut self.ahead, rest);
        let plain = self.stream.open(&sealed, last)?.ok_or_else(damaged)?;
        self.plain.extend(plain);
        self.ended = last;
        Ok(())
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.plain.is_empty() && !self.ended {
            self.fill()?;
        }
        self.plain.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phrase(text: &str) -> Key {
        Key::Passphrase(Secret::new(text.to_owned()))
    }

    fn sealed(plain: &[u8], key: &Key) -> Vec<u8> {
        let mut sealer = Sealer::begin(Vec::new(), key).unwrap();
        sealer.write_all(plain).unwrap();
        sealer.end().unwrap()
    }

    fn opened(sealed: &[u8], key: &Key) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        Opener::begin(sealed, key).ok()?.read_to_end(&mut plain).ok()?;
        Some(plain)
    }

    #[test]
    fn what_was_sealed_opens_whole_or_not_at_all() {
        let key = Key::Vault([7; 32]);
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let plain: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let file = sealed(&plain, &key);
            assert_eq!(opened(&file, &key).as_deref(), Some(&plain[..]), "{length}");
            assert!(opened(&file, &Key::Vault([8; 32])).is_none());
            // Cut anywhere, a whole chunk included.
            for cut in [1, TAG, CHUNK + TAG, HEADER] {
                assert!(opened(&file[..file.len().saturating_sub(cut)], &key).is_none(), "{length} − {cut}");
            }
            assert!(opened(&[&file[..], b"x"].concat(), &key).is_none(), "{length} + 1");
            // Any bit, in the header too.
            for at in [8, 9, 10, 30, 50, HEADER, file.len() - 1] {
                let mut changed = file.clone();
                changed[at] ^= 1;
                assert!(opened(&changed, &key).is_none(), "{length} at {at}");
            }
        }
        let file = sealed(&vec![1; 3 * CHUNK], &key);
        let (first, rest) = file[HEADER..].split_at(CHUNK + TAG);
        let (second, rest) = rest.split_at(CHUNK + TAG);
        assert!(opened(&[&file[..HEADER], second, first, rest].concat(), &key).is_none(), "chunks in another order");
        assert!(opened(&[&file[..HEADER], first, rest].concat(), &key).is_none(), "a chunk left out");
    }

    #[test]
    fn a_passphrase_opens_what_it_sealed() {
        let file = sealed(b"money", &phrase("a long passphrase"));
        assert_eq!(opened(&file, &phrase("a long passphrase")).as_deref(), Some(&b"money"[..]));
        assert!(matches!(Opener::begin(&file[..], &phrase("another phrase")), Err(BackupError::Sealed)));
        assert!(matches!(Opener::begin(&file[..], &Key::Vault([0; 32])), Err(BackupError::Format(_))));
        let mut greedy = file.clone();
        greedy[10] = 0xff;
        assert!(matches!(Opener::begin(&greedy[..], &phrase("a long passphrase")), Err(BackupError::Format(_))));
        assert_ne!(file, sealed(b"money", &phrase("a long passphrase")), "never the same twice");
    }
}
