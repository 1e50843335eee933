//! `coinslot maintenance`: stops and resumes the sale. Works with the node stopped, and beside a running
//! one, which notices within seconds (see [`crate::store::Store::open_beside`]).

use std::process::ExitCode;

use serde_json::json;

use super::{block_on, configured, done, note, tell, with_store};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::exchange::turn_maintenance;
use crate::store::Store;

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    let on = match words {
        ["on"] => true,
        ["off"] => false,
        _ => return None,
    };
    let Some(config) = configured() else { return Some(ExitCode::FAILURE) };
    Some(tell(block_on(run(&config, on)).map(|said| done(format!("{said}\n")))))
}

async fn run(config: &Config, on: bool) -> Result<&'static str, String> {
    if config.server.maintenance.is_some() {
        return Err("MAINTENANCE is set, and the environment wins; change it there and start the node anew".to_owned());
    }
    with_store(config, async |store| turn(store, on).await).await?;
    Ok(match on {
        true => "Maintenance is on: nothing is sold, no token is taken; balances and refunds are open.",
        false => "Maintenance is off.",
    })
}

async fn turn(store: &Store, on: bool) -> Result<(), String> {
    turn_maintenance(store, on, SystemClock.now_ms()).await.map_err(|error| error.to_string())?;
    note(store, "maintenance.turn", "", &json!({ "on": on })).await
}
