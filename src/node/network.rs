//! The node on Nostr.

use std::sync::Arc;
use std::time::Duration;

use super::strangers_reach;
use crate::admin::OnNostr;
use crate::catalog::rivals::Rivals;
use crate::clock::SharedClock;
use crate::config::Config;
use crate::exchange::Exchange;
use crate::net::dialer::Dialer;
use crate::net::way::{Way, Ways};
use crate::net::{ClientOptions, NetError};
use crate::nostr::{Announcer, Caller, Directory, Identity};

/// How long a conversation with a relay may take.
const RELAY_PATIENCE: Duration = Duration::from_secs(20);

/// Who talks to these relays, for `identity`.
pub(super) fn caller(
    relays: &[String],
    way: &Way,
    identity: Identity,
    clock: &SharedClock,
) -> Result<Caller, NetError> {
    let options = ClientOptions { read_timeout: Some(RELAY_PATIENCE), way: way.clone(), ..ClientOptions::default() };
    let connect_timeout = way.longest(options.connect_timeout, relays);
    // What it takes to get there longer than usual comes on top.
    let patience = RELAY_PATIENCE.saturating_add(connect_timeout.saturating_sub(options.connect_timeout));
    Ok(Caller {
        dialer: Dialer::new(&ClientOptions { connect_timeout, ..options })?,
        identity,
        clock: Arc::clone(clock),
        patience,
    })
}

/// The node on Nostr. It looks for the others if there is somebody to ask for them and the operator
/// wants it.
pub(super) fn open(config: &Config, ways: &Ways, exchange: &Exchange) -> Result<OnNostr, NetError> {
    let (relays, name) = (&config.nostr.relays, config.nostr.provider_id.clone());
    let (store, clock) = (exchange.ledger.store(), exchange.ledger.clock());
    let caller = caller(relays, &ways.relays, exchange.identity.clone(), clock)?;
    let looks = config.nostr.refresh_interval.is_some() && !relays.is_empty();
    let reach = strangers_reach(&config.mints.urls);
    let directory = looks.then(|| Directory::new(store.clone(), caller.clone(), reach, ways.strangers.clone()));
    Ok(OnNostr {
        npub: exchange.identity.npub().to_owned(),
        http_url: config.info.http_url.clone(),
        announcer: Announcer::new(store.clone(), caller, relays.clone(), name, env!("CARGO_PKG_VERSION")),
        rivals: directory.is_some().then(|| Rivals::new(store.clone(), Arc::clone(clock))),
        directory,
    })
}
