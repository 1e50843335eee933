//! The operator's password: the configured one, or one that the node made for itself.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Argon2, password_hash};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::throttle::Throttles;
use super::{AdminError, AdminState, repo};
use crate::clock::SharedClock;
use crate::config::Secret;
use crate::net::{self, Peer};
use crate::pages;
use crate::store::Store;
use crate::vault::{grouped, legible};

/// Under which the hash is stored.
pub(super) const SETTING: &str = "admin_password_hash";

/// Under which the hash of the configured password is stored, by which a start knows whether it is still the same one.
/// Empty: the last start had none.
pub(super) const CONFIGURED: &str = "admin_password_configured";

/// 150 bits.
const LETTERS: usize = 30;
const GROUP: usize = 5;

/// The password, and the one that was made just now.
#[derive(Debug)]
pub struct PasswordState {
    pub password: Password,
    /// To be shown to the operator, once: nobody can read it again.
    pub generated: Option<Secret>,
}

/// What a login is compared with. Clones share the throttles.
#[derive(Clone)]
pub struct Password {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    clock: SharedClock,
    /// Hash of the configured password; the database's counts when there is none.
    configured: Option<String>,
    throttles: Mutex<Throttles>,
}

/// By which way somebody comes to the login. Strangers who guess at one make nobody wait at the other: an
/// operator whose onion is known to all still gets in by HTTP, and the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// From the machine that the node runs on, such as by a tunnel. Also those whom a proxy on it brings that
    /// `TRUSTED_PROXIES` does not name: they cannot be told apart.
    Machine,
    /// From elsewhere: the address, or the /64.
    Address(IpAddr),
    Onion,
}

/// A tor daemon's visitors look like anybody else. So where there is one, who says that he asked an onion is believed;
/// elsewhere nobody is, and a stranger's `Host` closes no door but the one that he came by.
impl FromRequestParts<AdminState> for Door {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Infallible> {
        let by_daemon = state.onion.is_given() && pages::is_in_tor(&parts.headers);
        Ok(match parts.extensions.get::<Peer>() {
            Some(Peer::Circuit(_)) => Self::Onion,
            _ if by_daemon => Self::Onion,
            Some(Peer::Address(address)) if !address.is_loopback() => Self::Address(net::customer(*address)),
            _ => Self::Machine,
        })
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// Not looked at.
    TooSoon(Duration),
}

/// Settles what the password is. The configured one wins; else the database's hash; else one is
/// made, and of several processes that start together only the one whose hash was stored learns it. Where the
/// environment says another one than at the last start, or none any more, the sessions of the old one end.
///
/// # Errors
/// When the database does not answer, or holds something that is no hash.
pub async fn ensure_password(
    store: &Store,
    clock: &SharedClock,
    configured: Option<&Secret>,
) -> Result<PasswordState, AdminError> {
    let mut generated = None;
    let configured = match configured.filter(|secret| !secret.expose().is_empty()) {
        Some(secret) => Some(of_environment(store, clock, secret).await?),
        None => {
            if store.setting(CONFIGURED).await?.is_some_and(|hash| !hash.is_empty()) {
                repo::put_configured(store, "", clock.now_ms()).await?;
            }
            let stored = match store.setting(SETTING).await? {
                Some(stored) => stored,
                None => {
                    let secret = generate();
                    let own = hash(secret.clone()).await?;
                    let stored = store.setting_or_insert(SETTING, &own, clock.now_ms()).await?;
                    generated = (stored == own).then_some(secret);
                    stored
                }
            };
            PasswordHash::new(&stored).map_err(bad_hash)?;
            None
        }
    };
    let inner = Inner { store: store.clone(), clock: Arc::clone(clock), configured, throttles: Mutex::default() };
    Ok(PasswordState { password: Password { inner: Arc::new(inner) }, generated })
}

/// The hash of the configured password: the stored one, where it is the same password.
async fn of_environment(store: &Store, clock: &SharedClock, secret: &Secret) -> Result<String, AdminError> {
    if let Some(stored) = store.setting(CONFIGURED).await?
        && matches!(verify(secret.clone(), stored.clone()).await, Ok(true))
    {
        return Ok(stored);
    }
    let hash = hash(secret.clone()).await?;
    repo::put_configured(store, &hash, clock.now_ms()).await?;
    Ok(hash)
}

impl Password {
    /// Compares in constant time, off the threads that serve requests.
    pub(super) async fn check(&self, attempt: Secret, door: Door) -> Result<Verdict, AdminError> {
        if let Err(wait) = self.throttles().admit(door, self.inner.clock.now_ms()) {
            return Ok(Verdict::TooSoon(wait));
        }
        let hash = match &self.inner.configured {
            Some(hash) => hash.clone(),
            None => self
                .inner
                .store
                .setting(SETTING)
                .await?
                .ok_or_else(|| AdminError::Hash("there is none in the database".into()))?,
        };
        if verify(attempt, hash).await? {
            self.throttles().succeeded(door);
            Ok(Verdict::Right)
        } else {
            Ok(Verdict::Wrong)
        }
    }

    /// Whether the environment says what it is, and nothing here can change it.
    pub(super) fn is_configured(&self) -> bool {
        self.inner.configured.is_some()
    }

    fn throttles(&self) -> MutexGuard<'_, Throttles> {
        self.inner.throttles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a new password, whose hash takes the place of the stored one.
pub(super) async fn made() -> Result<(Secret, String), AdminError> {
    let secret = generate();
    let hash = hash(secret.clone()).await?;
    Ok((secret, hash))
}

pub(super) async fn hash(password: Secret) -> Result<String, AdminError> {
    blocking(move || {
        let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>())?;
        Ok(Argon2::default().hash_password(password.expose().as_bytes(), &salt)?.to_string())
    })
    .await
}

async fn verify(attempt: Secret, hash: String) -> Result<bool, AdminError> {
    blocking(move || {
        let hash = PasswordHash::new(&hash)?;
        match Argon2::default().verify_password(attempt.expose().as_bytes(), &hash) {
            Ok(()) => Ok(true),
            Err(password_hash::Error::Password) => Ok(false),
            Err(error) => Err(error),
        }
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, password_hash::Error> + Send + 'static,
) -> Result<T, AdminError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(bad_hash),
        Err(error) => Err(AdminError::Hash(error.to_string())),
    }
}

fn bad_hash(error: password_hash::Error) -> AdminError {
    AdminError::Hash(error.to_string())
}

fn generate() -> Secret {
    Secret::new(grouped(&legible(LETTERS), GROUP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_password_is_long_and_legible() {
        let (one, other) = (generate(), generate());
        assert_ne!(one, other);
        let groups: Vec<&str> = one.expose().split('-').collect();
        assert_eq!(groups.len(), LETTERS / GROUP);
        assert!(groups.iter().all(|group| group.len() == GROUP), "{groups:?}");
        let distinct: std::collections::HashSet<&u8> = crate::vault::LEGIBLE.iter().collect();
        assert_eq!(distinct.len(), 32);
    }

    #[tokio::test]
    async fn only_the_right_password_fits_its_hash() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let one = hash(secret("right")).await.unwrap();
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_ne!(one, hash(secret("right")).await.unwrap());
        assert!(verify(secret("right"), one.clone()).await.unwrap());
        assert!(!verify(secret("wrong"), one.clone()).await.unwrap());
        assert!(!verify(secret(""), one).await.unwrap());
        assert!(verify(secret("right"), "nonsense".to_owned()).await.is_err());
    }
}
