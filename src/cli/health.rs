//! `coinslot health`: whether a node answers where these settings have it listen, for what looks after it.
//!
//! Exit codes: 0 it lives, or with `--ready` could serve a paid request; 1 it does not, and why.

use std::net::SocketAddr;
use std::process::ExitCode;

use serde_json::Value;

use crate::net::local_node;

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    let path = match words {
        [] => "/healthz",
        ["--ready"] => "/readyz",
        _ => return None,
    };
    let Some(config) = super::configured() else { return Some(ExitCode::FAILURE) };
    let address = SocketAddr::new(config.server.host, config.server.port);
    Some(super::tell(super::block_on(async move { look(address, path).await.map(super::done) })))
}

async fn look(address: SocketAddr, path: &str) -> Result<String, String> {
    if address.port() == 0 {
        return Err("PORT=0 is another port at every start; name one to have the node looked after".to_owned());
    }
    let answer =
        local_node::get(address, path).await.map_err(|error| format!("no node answers on {address}: {error}"))?;
    if answer.status == 200 {
        return Ok("the node is well\n".to_owned());
    }
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let reasons = said.get("reasons").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let reasons: Vec<&str> = reasons.collect();
    match reasons.is_empty() {
        true => Err(format!("what listens on {address} answered with status {}", answer.status)),
        false => Err(reasons.join("\n")),
    }
}
