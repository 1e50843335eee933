//! Upstreams that the operator stores beside those of the environment: described like an entry of `UPSTREAMS`, by a
//! page, by the API, or by `coinslot upstreams`. Keys, headers and proxies are sealed, and shown to nobody.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::provider::{self, Upstream};
use super::repo::{self, Stored};
use super::sealed;
use crate::config::{self, Upstreams};
use crate::net::way::Way;
use crate::store::{Store, StoreError};
use crate::vault::{Vault, VaultError, hex};

/// Why nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// In words for the operator, without what was given.
    #[error("{0}")]
    Invalid(String),
    #[error("the environment describes an upstream of this name, and wins; change it there")]
    Fixed,
    #[error("there is an upstream of this name already")]
    Exists,
    #[error("there is no such upstream")]
    Unknown,
    #[error("somebody has changed it meanwhile; look again")]
    Changed,
}

/// A stored upstream, as its operator may see it.
#[derive(Clone, Debug)]
pub struct Described {
    pub name: String,
    /// As `UPSTREAMS` has it, without secrets.
    pub spec: Map<String, Value>,
    pub from_environment: bool,
    pub is_enabled: bool,
    pub has_key: bool,
    /// Headers that are set or left out: their names.
    pub headers: Vec<String>,
}

/// Members of an entry that are sealed: what is absent in a change stays as it is.
const SECRET: [&str; 3] = ["api_key", "headers", "proxy_url"];

/// All of them. Of two with one name, the environment's.
///
/// # Errors
/// When the database does not answer, or the secret key is another one.
pub async fn described(store: &Store, vault: &Vault) -> Result<Vec<Described>, StoredError> {
    let mut rows = repo::upstreams(store).await?;
    rows.sort_by_key(|row| !row.from_environment);
    let mut all: Vec<Described> = Vec::new();
    for row in rows {
        if all.iter().any(|other| other.name == row.name) {
            continue;
        }
        let (spec, secrets) = parts(&row, vault)?;
        let headers = secrets.get("headers").and_then(Value::as_object);
        all.push(Described {
            is_enabled: spec.get("enabled") != Some(&Value::Bool(false)),
            has_key: secrets.contains_key("api_key"),
            headers: headers.map(|headers| headers.keys().cloned().collect()).unwrap_or_default(),
            name: row.name,
            from_environment: row.from_environment,
            spec,
        });
    }
    Ok(all)
}

/// Members of an entry.
type Members = Map<String, Value>;

/// The open and the sealed members of a row.
fn parts(row: &Stored, vault: &Vault) -> Result<(Members, Members), StoredError> {
    let unreadable = || StoredError::Invalid(format!("the stored upstream {} cannot be read", row.name));
    let spec: Value = serde_json::from_str(&row.spec).map_err(|_| unreadable())?;
    let secrets = sealed::secrets(row, vault).map_err(|_| unreadable())?;
    match (spec, secrets) {
        (Value::Object(spec), Value::Object(secrets)) => Ok((spec, secrets)),
        _ => Err(unreadable()),
    }
}

/// What a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent<'a> {
    /// There is none of this name yet.
    Add,
    /// There is: members that are named are changed, null takes one away. With a [`digest`]: of the one that was seen,
    /// and of no other.
    Change(Option<&'a str>),
}

/// What recognises an upstream as it may be seen.
#[must_use]
pub fn digest(spec: &Map<String, Value>) -> String {
    hex(&Sha256::digest(json!(spec).to_string()))
}

/// What an entry is read, sealed and tried with.
#[derive(Clone, Copy, Debug)]
pub struct Tools<'a> {
    pub vault: &'a Vault,
    pub way: &'a Way,
    pub rules: &'a Upstreams,
}

/// How often a change is made anew of what another call has stored meanwhile.
const TRIES: usize = 5;

/// Stores an upstream of the operator's. Returns what of it may be seen, and whether its key or another secret was
/// among what was given. A change goes on top of those that come at the same time, and undoes none of them.
///
/// # Errors
/// When what is given is no upstream, or the environment has the name.
pub async fn put(
    store: &Store,
    tools: Tools<'_>,
    wanted: (Intent<'_>, &Map<String, Value>),
    now_ms: i64,
) -> Result<(Value, bool), StoredError> {
    for _ in 0..TRIES {
        if let Some(stored) = try_put(store, tools, wanted, now_ms).await? {
            return Ok(stored);
        }
    }
    Err(StoredError::Changed)
}

/// The same, once; nothing is stored where what it was made of is there no more.
async fn try_put(
    store: &Store,
    Tools { vault, way, rules }: Tools<'_>,
    (intent, given): (Intent<'_>, &Map<String, Value>),
    now_ms: i64,
) -> Result<Option<(Value, bool)>, StoredError> {
    let name = given.get("name").and_then(Value::as_str).unwrap_or_default().trim();
    let rows = repo::upstreams(store).await?;
    if rows.iter().any(|row| row.from_environment && row.name == name) {
        return Err(StoredError::Fixed);
    }
    let known = rows.iter().find(|row| !row.from_environment && row.name == name);
    let before = match (intent, known) {
        (Intent::Add, Some(_)) => return Err(StoredError::Exists),
        (Intent::Change(_), None) => return Err(StoredError::Unknown),
        (Intent::Add, None) => None,
        (Intent::Change(seen), Some(row)) => {
            let (mut spec, secrets) = parts(row, vault)?;
            if seen.is_some_and(|seen| seen != digest(&spec)) {
                return Err(StoredError::Changed);
            }
            spec.extend(secrets);
            Some(spec)
        }
    };
    let mut entry = before.clone().unwrap_or_default();
    for (member, value) in given {
        match value {
            Value::Null => drop(entry.remove(member)),
            value => drop(entry.insert(member.clone(), value.clone())),
        }
    }
    let read = |entry| config::Upstream::from_json(&Value::Object(entry), rules.timeouts).map_err(StoredError::Invalid);
    let described = read(entry)?;
    if let Some(before) = before {
        keeps_secrets_home(&read(before)?, &described, given)?;
    }
    // What could not be asked is not stored.
    Upstream::new(&described, way).map_err(|error| StoredError::Invalid(error.to_string()))?;
    let row = Stored { from_environment: false, ..sealed::seal(&described, vault)? };
    if !repo::put_own(store, known, &row, now_ms).await? {
        return Ok(None);
    }
    let secret_given = SECRET.iter().any(|member| given.contains_key(*member));
    Ok(Some((described.to_json().0, secret_given)))
}

/// Refuses a change that would send a secret, which nobody may read, to where it was not meant for: whoever may
/// change an upstream could read it there.
fn keeps_secrets_home(
    before: &config::Upstream,
    after: &config::Upstream,
    given: &Map<String, Value>,
) -> Result<(), StoredError> {
    let origin = |one| provider::origin(one).map_err(|error| StoredError::Invalid(error.to_string()));
    let moved = match (origin(before)? != origin(after)?, before.proxy_url != after.proxy_url) {
        (true, _) => "another address",
        (false, true) => "another proxy",
        (false, false) => return Ok(()),
    };
    let keeps = |member: &str, has: bool| has && !given.contains_key(member);
    let secret = if keeps("api_key", after.api_key.is_some()) {
        "api_key"
    } else if keeps("headers", after.headers.iter().any(|(_, value)| value.is_some())) {
        "headers"
    } else {
        return Ok(());
    };
    Err(StoredError::Invalid(format!("it gets {moved}, so say its {secret} again too, or have it forgotten")))
}

/// Removes an upstream of the operator's.
///
/// # Errors
/// When there is none, or the environment describes it.
pub async fn remove(store: &Store, name: &str, now_ms: i64) -> Result<(), StoredError> {
    match repo::remove_own(store, name, now_ms).await? {
        true => Ok(()),
        false if repo::upstreams(store).await?.iter().any(|row| row.name == name) => Err(StoredError::Fixed),
        false => Err(StoredError::Unknown),
    }
}

/// What the trail has of a stored upstream.
#[must_use]
pub fn detail((spec, secret_given): &(Value, bool)) -> Value {
    json!({ "upstream": spec, "secrets_were_given": secret_given })
}
