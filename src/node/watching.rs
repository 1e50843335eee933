//! Who looks whether anything is wrong, and whom that is told.

use std::sync::Arc;

use super::network::caller;
use super::{StartError, open_vault};
use crate::alerts::{Alerts, Sender};
use crate::clock::SharedClock;
use crate::config::Config;
use crate::exchange::Exchange;
use crate::net::NetError;
use crate::net::way::Ways;
use crate::nostr::{Caller, Identity};
use crate::store::Store;

/// What a conversation with a relay takes, for who stands beside the node, with the node's own key.
///
/// # Errors
/// When that key cannot be opened.
pub(crate) async fn caller_beside(
    config: &Config,
    ways: &Ways,
    store: &Store,
    clock: &SharedClock,
) -> Result<Caller, StartError> {
    let vault = open_vault(config, store).await?;
    let (identity, _) = Identity::open(config, store, &vault, clock.now_ms()).await?;
    Ok(caller(&config.nostr.relays, &ways.relays, identity, clock)?)
}

/// What is wrong, and who is told.
pub(super) fn open(config: &Config, ways: &Ways, exchange: &Exchange) -> Result<Alerts, NetError> {
    let (relays, clock) = (&config.nostr.relays, exchange.ledger.clock());
    let caller = caller(relays, &ways.relays, exchange.identity.clone(), clock)?;
    let sender = Sender::new(config, &ways.reports, &caller)?;
    let (ledger, repeat) = (&exchange.ledger, config.alerts.repeat);
    Ok(Alerts::new(ledger.store().clone(), Arc::clone(ledger.clock()), ledger.owner().to_owned(), repeat, sender))
}
