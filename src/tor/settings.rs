//! arti's settings: its own defaults, the node's, and what the operator's file says over both.

use std::path::Path;

use arti_client::TorClientConfig;
use arti_client::config::TorClientConfigBuilder;
use arti_client::config::onion_service::OnionServiceConfigBuilder;
use toml::{Table, Value};
use tor_hsservice::{HsNickname, OnionServiceConfig};

use super::{TorError, folder};
use crate::config;

/// The onion's name among arti's keys: part of a path, so another one would make another address.
const NICKNAME: &str = "coinslot";
/// The table of the operator's file that is about the onion; all others are about the client.
const SERVICE: &str = "onion_service";
/// Connections that one circuit may have open. A browser has six to a host.
const MAX_STREAMS: i64 = 64;

/// What arti is started with.
pub(super) struct Settings {
    pub(super) client: TorClientConfig,
    pub(super) service: OnionServiceConfig,
}

impl Settings {
    pub(super) fn read(config: &config::Tor, data_dir: &Path) -> Result<Self, TorError> {
        let text = match &config.config {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| TorError::Config(format!("{}: {error}", path.display())))?,
            None => String::new(),
        };
        // The error's own text repeats the line.
        let mut table: Table =
            toml::from_str(&text).map_err(|error| TorError::Config(format!("is no TOML: {}", error.message())))?;
        let mut service = match table.remove(SERVICE) {
            Some(Value::Table(service)) => service,
            Some(_) => return Err(TorError::Config(format!("{SERVICE} is not a table"))),
            None => Table::new(),
        };
        service.entry("max_concurrent_streams_per_circuit").or_insert(Value::Integer(MAX_STREAMS));
        for (name, under) in [("cache_dir", "cache"), ("state_dir", "state")] {
            let storage = table.entry("storage").or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(storage) = storage else {
                return Err(TorError::Config("storage is not a table".to_owned()));
            };
            storage.entry(name).or_insert_with(|| literal(&folder(data_dir).join(under)));
        }
        let client: TorClientConfigBuilder = table.try_into().map_err(|error| unfit(&error))?;
        let mut service: OnionServiceConfigBuilder = service.try_into().map_err(|error| unfit(&error))?;
        let nickname: HsNickname =
            NICKNAME.to_owned().try_into().map_err(|_| TorError::Config("the onion has no name".to_owned()))?;
        service.nickname(nickname);
        Ok(Self {
            client: client.build().map_err(|error| TorError::Config(error.to_string()))?,
            service: service.build().map_err(|error| TorError::Config(error.to_string()))?,
        })
    }
}

fn unfit(error: &toml::de::Error) -> TorError {
    TorError::Config(format!("cannot be used: {}", error.message()))
}

/// A path in which `$` means nothing.
fn literal(path: &Path) -> Value {
    let path = Value::String(path.display().to_string());
    Value::Table(Table::from_iter([("literal".to_owned(), path)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, TorError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tor.toml");
        std::fs::write(&path, text).unwrap();
        let config = config::Tor { enabled: true, config: Some(path), proxy: None, purposes: Vec::new() };
        Settings::read(&config, dir.path())
    }

    #[test]
    fn the_operators_file_is_merged_into_artis_settings() {
        let plain = read("").unwrap();
        assert!(*plain.service.enabled() && plain.service.nickname().as_ref() == NICKNAME);
        read("[path_rules]\nipv4_subnet_family_prefix = 33\n[onion_service]\nnum_intro_points = 5\n").unwrap();
        let elsewhere =
            "[storage]\nstate_dir = \"/var/lib/x\"\n[storage.permissions]\ndangerously_trust_everyone = true";
        read(elsewhere).unwrap();
    }

    #[test]
    fn what_is_wrong_with_the_file_is_said_without_its_text() {
        for (text, problem) in [
            ("hunter2", "TOR_CONFIG: is no TOML: "),
            ("storage = \"hunter2\"", "TOR_CONFIG: storage is not a table"),
            ("onion_service = 1", "TOR_CONFIG: onion_service is not a table"),
            ("[path_rules]\nipv4_subnet_family_prefix = \"hunter3\"", "TOR_CONFIG: cannot be used: "),
            ("[onion_service]\nnum_intro_points = 99", "TOR_CONFIG: "),
        ] {
            let error = read(text).err().unwrap().to_string();
            assert!(error.starts_with(problem) && !error.contains("hunter2"), "{error}");
        }
        let missing =
            config::Tor { enabled: true, config: Some("/nowhere/tor.toml".into()), proxy: None, purposes: Vec::new() };
        let error = Settings::read(&missing, Path::new("/nowhere")).err().unwrap().to_string();
        assert!(error.starts_with("TOR_CONFIG: /nowhere/tor.toml: "), "{error}");
    }
}
