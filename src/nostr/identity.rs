//! The key pair under which the node is known on Nostr: `NSEC`, or one that was made at the first
//! start and is kept sealed in the database. Events are signed as NIP-01 says, without auxiliary
//! randomness (BIP-340 allows it): the same text gives the same event.

use nostr::nips::nip19::ToBech32;
use nostr::nips::nip44;
use nostr::secp256k1::{Keypair, Message};
use nostr::{Event, JsonUtil, Keys, Kind, PublicKey, SECP256K1, SecretKey, Tag, Timestamp, UnsignedEvent};

use crate::config::{Config, Fault, Faults};
use crate::store::{Store, StoreError};
use crate::vault::{Vault, VaultError};

/// Name of the sealed key among the settings.
const SETTING: &str = "nostr_key";

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Settings(#[from] Faults),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The stored key is none, or an event could not be made.
    #[error("the node's Nostr key does not work")]
    Broken,
}

/// The node's key pair. Shows its public half only.
#[derive(Clone)]
pub struct Identity {
    keys: Keys,
    npub: String,
}

/// An event to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub kind: u16,
    /// Seconds since the Unix epoch.
    pub created_at: u64,
    pub tags: Vec<Vec<String>>,
    pub content: String,
}

/// A complete event (NIP-01) as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedEvent {
    id: String,
    json: String,
}

impl SignedEvent {
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.json
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// One that was signed before.
    pub(super) fn kept(id: String, json: String) -> Self {
        Self { id, json }
    }

    #[cfg(test)]
    pub(super) fn test(json: &str) -> Self {
        Self::kept(String::new(), json.to_owned())
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.npub).finish()
    }
}

impl Identity {
    /// The identity that `NSEC` asks for, if it is given.
    ///
    /// # Errors
    /// When it is no key, or `NPUB` is another's.
    pub fn configured(config: &Config) -> Result<Option<Self>, Faults> {
        let fault =
            |name: &str, problem: &str| Faults(vec![Fault { name: name.to_owned(), problem: problem.to_owned() }]);
        let Some(nsec) = &config.nostr.nsec else { return Ok(None) };
        let keys = Keys::parse(nsec.expose()).ok();
        let identity = keys.and_then(|keys| Self::of(keys).ok());
        let identity = identity.ok_or_else(|| {
            fault("NSEC", "is not a secret Nostr key (a letter may be wrong); expected nsec1… or 64 hexadecimal digits")
        })?;
        let npub = &config.info.npub;
        if !npub.is_empty() && !npub.eq_ignore_ascii_case(&identity.npub) {
            return Err(fault("NPUB", "is not the public key of NSEC; expected that one, or nothing"));
        }
        Ok(Some(identity))
    }

    /// The configured identity, or the stored one, which is made when there is none. The second
    /// value is whether it was made now.
    ///
    /// # Errors
    /// When the database does not answer, or the stored key cannot be opened.
    pub async fn open(
        config: &Config,
        store: &Store,
        vault: &Vault,
        now_ms: i64,
    ) -> Result<(Self, bool), IdentityError> {
        if let Some(identity) = Self::configured(config)? {
            return Ok((identity, false));
        }
        let sealed = vault.seal(SETTING, Keys::generate().secret_key().as_secret_bytes())?;
        let stored = store.setting_or_insert(SETTING, &sealed, now_ms).await?;
        let secret = SecretKey::from_slice(&vault.unseal(SETTING, &stored)?).map_err(|_| IdentityError::Broken)?;
        Ok((Self::of(Keys::new(secret))?, stored == sealed))
    }

    /// A key of nobody, for who asks without being known.
    ///
    /// # Errors
    /// Never in practice.
    pub fn throwaway() -> Result<Self, IdentityError> {
        Self::of(Keys::generate())
    }

    fn of(keys: Keys) -> Result<Self, IdentityError> {
        let npub = keys.public_key().to_bech32().map_err(|_| IdentityError::Broken)?;
        Ok(Self { keys, npub })
    }

    /// The public key as people see it (NIP-19).
    #[must_use]
    pub fn npub(&self) -> &str {
        &self.npub
    }

    /// The public key as events carry it: 64 hexadecimal digits.
    #[must_use]
    pub fn pubkey(&self) -> String {
        self.keys.public_key().to_hex()
    }

    /// For the eyes of one person (NIP-44). `None`: the keys do not work.
    pub(super) fn encrypt(&self, to: &PublicKey, text: &str) -> Option<String> {
        nip44::encrypt(self.keys.secret_key(), to, text, nip44::Version::V2).ok()
    }

    /// An event that is not to be signed, as JSON, with its id. `None`: a tag is empty.
    pub(super) fn unsigned(&self, draft: Draft) -> Option<String> {
        let mut event = self.event(draft).ok()?;
        event.ensure_id();
        Some(event.as_json())
    }

    fn event(&self, draft: Draft) -> Result<UnsignedEvent, IdentityError> {
        let tags: Result<Vec<Tag>, _> = draft.tags.into_iter().map(Tag::parse).collect();
        Ok(UnsignedEvent::new(
            self.keys.public_key(),
            Timestamp::from_secs(draft.created_at),
            Kind::from_u16(draft.kind),
            tags.map_err(|_| IdentityError::Broken)?,
            draft.content,
        ))
    }

    /// Signs an event. The same draft gives the same event.
    ///
    /// # Errors
    /// When a tag is empty.
    pub fn sign(&self, draft: Draft) -> Result<SignedEvent, IdentityError> {
        let mut event = self.event(draft)?;
        let message = Message::from_digest(event.id().to_bytes());
        let pair = Keypair::from_secret_key(SECP256K1, self.keys.secret_key());
        let signature = SECP256K1.sign_schnorr_no_aux_rand(&message, &pair);
        let signed: Event = event.add_signature(signature).map_err(|_| IdentityError::Broken)?;
        Ok(SignedEvent { id: signed.id.to_hex(), json: signed.as_json() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The example of NIP-19.
    const NSEC: &str = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5";
    const HEX: &str = "67dea2ed018072d675f5415ecfaed7d2597555e202d85b3d65ea4e58d2d92ffa";

    fn config(vars: &[(&str, &str)]) -> Result<Option<Identity>, Faults> {
        let vars: BTreeMap<String, String> = vars.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Identity::configured(&Config::from_vars(&vars)?)
    }

    #[test]
    fn nsec_and_hex_are_the_same_key() {
        let (one, two) = (config(&[("NSEC", NSEC)]).unwrap().unwrap(), config(&[("NSEC", HEX)]).unwrap().unwrap());
        assert_eq!(one.npub(), two.npub());
        assert!(one.npub().starts_with("npub1"));
        assert!(!format!("{one:?}").contains(HEX));
        assert!(config(&[("NSEC", NSEC), ("NPUB", one.npub())]).unwrap().is_some());
        assert!(config(&[]).unwrap().is_none());
    }

    #[test]
    fn a_key_that_is_none_or_another_s_is_a_fault() {
        let other = "npub180cvv07tjdrrgpa0j7j7tmnyl2yr6yr7l8j4s3evf6u64th6gkwsyjh6w6";
        let zero = "0".repeat(64);
        let damaged = NSEC.replace("nsec1vl", "nsec1vv");
        for (vars, name) in [
            (vec![("NSEC", NSEC), ("NPUB", other)], "NPUB"),
            (vec![("NSEC", zero.as_str())], "NSEC"),
            (vec![("NSEC", damaged.as_str())], "NSEC"),
            (vec![("NSEC", "hunter2")], "NSEC"),
        ] {
            let faults = config(&vars).unwrap_err();
            assert_eq!(faults.0.len(), 1);
            assert_eq!(faults.0[0].name, name);
            assert!(!faults.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_signed_event_holds_and_a_changed_one_does_not() {
        let identity = config(&[("NSEC", NSEC)]).unwrap().unwrap();
        let draft = Draft {
            kind: 4402,
            created_at: 1_790_000_000,
            tags: vec![vec!["request".to_owned(), "r".to_owned()]],
            content: "{\"charged_msat\":1}".to_owned(),
        };
        let signed = identity.sign(draft.clone()).unwrap();
        assert_eq!(signed, identity.sign(draft).unwrap(), "the same draft gives the same event");
        let event = Event::from_json(signed.as_json()).unwrap();
        assert!(event.verify().is_ok());
        for (from, to) in
            [("charged_msat\\\":1", "charged_msat\\\":2"), ("\"r\"", "\"s\""), ("1790000000", "1790000001")]
        {
            let forged = signed.as_json().replace(from, to);
            assert_ne!(forged, signed.as_json());
            assert!(Event::from_json(&forged).unwrap().verify().is_err(), "{from}");
        }
    }
}
