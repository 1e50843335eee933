//! `coinslot maintenance`: stops and resumes the sale. Works with the node stopped, and beside a running
//! one, which notices within seconds (see [`crate::store::Store::open_beside`]).

use std::process::ExitCode;

use super::{block_on, configured, desk, done, tell, with_store};
use crate::config::Config;
use crate::operator::maintenance::turn;

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
    with_store(config, async |store| turn(desk(store), on).await.map_err(|error| error.to_string())).await?;
    Ok(match on {
        true => "Maintenance is on: nothing is sold, no token is taken; balances and refunds are open.",
        false => "Maintenance is off.",
    })
}
