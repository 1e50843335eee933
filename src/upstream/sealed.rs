//! An upstream as a row: what anybody may see of it, and what is sealed.

use serde_json::Value;

use super::pool::PoolError;
use super::repo::{self, Stored};
use crate::config::{self, Secret, Upstreams};
use crate::store::Store;
use crate::vault::{Vault, VaultError};

/// What binds the sealed part of an upstream to its row.
fn seal_name(name: &str) -> String {
    format!("upstream {name}")
}

/// As it is stored.
pub(super) fn seal(upstream: &config::Upstream, vault: &Vault) -> Result<Stored, VaultError> {
    let (spec, secrets) = upstream.to_json();
    Ok(Stored {
        name: upstream.name.clone(),
        from_environment: true,
        spec: spec.to_string(),
        sealed: vault.seal(&seal_name(&upstream.name), secrets.to_string().as_bytes())?,
    })
}

/// The sealed part.
pub(super) fn secrets(row: &Stored, vault: &Vault) -> Result<Value, PoolError> {
    let unreadable = || PoolError::Unreadable(row.name.clone());
    let plain =
        Secret::new(String::from_utf8(vault.unseal(&seal_name(&row.name), &row.sealed)?).map_err(|_| unreadable())?);
    serde_json::from_str(plain.expose()).map_err(|_| unreadable())
}

/// As it was described.
fn unseal(row: &Stored, config: &Upstreams, vault: &Vault) -> Result<config::Upstream, PoolError> {
    let unreadable = || PoolError::Unreadable(row.name.clone());
    let mut entry: Value = serde_json::from_str(&row.spec).map_err(|_| unreadable())?;
    let secrets = secrets(row, vault)?;
    if let (Some(entry), Value::Object(secrets)) = (entry.as_object_mut(), secrets) {
        entry.extend(secrets);
    }
    config::Upstream::from_json(&entry, config.timeouts).map_err(|_| unreadable())
}

/// What this process's environment says, or else the last one said, and what is stored beside it.
pub(super) async fn described(
    config: &Upstreams,
    store: &Store,
    vault: &Vault,
) -> Result<Vec<config::Upstream>, PoolError> {
    // Another process may have another environment: what this one says is not read back.
    let mut described = config.listed.clone();
    let (environment, operator): (Vec<_>, Vec<_>) =
        repo::upstreams(store).await?.into_iter().partition(|row| row.from_environment);
    let remembered = environment.iter().filter(|_| config.listed.is_empty());
    for row in remembered.chain(&operator) {
        if described.iter().all(|other| other.name != row.name) {
            described.push(unseal(row, config, vault)?);
        }
    }
    Ok(described)
}
