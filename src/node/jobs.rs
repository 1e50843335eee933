//! Which jobs a node has, all of them: what keeps it up, what moves money, what it does on Nostr.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::OnNostr;
use crate::alerts::{Alerts, Watchman};
use crate::audit::{self, Auditor, Latest};
use crate::backup::Snapshots;
use crate::config::Config;
use crate::exchange::Exchange;
use crate::jobs::{self, Crew};
use crate::price::PriceBook;
use crate::store::Lineage;
use crate::tor::Onion;
use crate::wallet::Wallet;
use crate::wallet::holdings::Inspector;

/// What they are made of.
#[derive(Clone)]
pub(super) struct Parts {
    pub config: Arc<Config>,
    pub exchange: Arc<Exchange>,
    pub book: Arc<PriceBook>,
    pub lineage: Arc<Lineage>,
    pub snapshots: Option<Arc<Snapshots>>,
    pub alerts: Alerts,
    /// How the last look at the books went.
    pub latest: Latest,
    pub network: OnNostr,
    pub onion: Onion,
    pub started_ms: i64,
}

impl Parts {
    fn exchange(&self) -> Arc<Exchange> {
        Arc::clone(&self.exchange)
    }

    fn wallet(&self) -> Wallet {
        self.exchange.till.wallet().clone()
    }
}

/// Starts them all. What moves money waits until it is known how much there is, if that takes a recovery.
pub(super) fn start(tracker: &TaskTracker, stop: &CancellationToken, parts: &Parts) {
    let (metrics, clock) = (Arc::clone(&parts.exchange.metrics), Arc::clone(parts.exchange.ledger.clock()));
    let crew = Crew::new(tracker.clone(), metrics, clock, stop.clone());
    upkeep(&crew, parts);
    if parts.wallet().halted().is_none() {
        moves_money(&crew, parts);
    } else {
        let (crew, parts) = (crew.clone(), parts.clone());
        tracker.spawn(async move {
            if jobs::recover(&parts.wallet(), crew.stop()).await {
                moves_money(&crew, &parts);
            }
        });
    }
    on_nostr(&crew, parts);
}

/// Those that move no money.
fn upkeep(crew: &Crew, parts: &Parts) {
    let (config, exchange) = (&parts.config, || parts.exchange());
    crew.run(jobs::KeepEpoch { lineage: Arc::clone(&parts.lineage), wallet: parts.wallet() });
    crew.run(jobs::RefreshPrice::new(Arc::clone(&parts.book), config.pricing.refresh_interval));
    crew.run(jobs::RefreshKeysets { wallet: parts.wallet() });
    crew.run(jobs::Heartbeat { ledger: parts.exchange.ledger.clone() });
    crew.run(jobs::Prune { exchange: exchange(), retention: config.storage.retention });
    crew.run(jobs::ProbeUpstreams { exchange: exchange(), usual: config.upstreams.probe_interval });
    crew.run(jobs::KeepPrices { importer: Arc::clone(&parts.exchange.importer) });
    crew.run(jobs::WatchMaintenance { exchange: exchange() });
    crew.run(jobs::WatchSettings { exchange: exchange() });
    crew.run(jobs::WatchTariffs { exchange: exchange() });
    crew.run(jobs::WatchUpstreams { exchange: exchange() });
    crew.run(jobs::KeepOutlays { exchange: exchange() });
    crew.run(jobs::KeepTraffic { exchange: exchange() });
    if let Some(collector) = parts.exchange.traces.clone() {
        crew.run(jobs::ExportTraces { collector });
    }
    crew.run(jobs::Checkpoint { store: parts.exchange.ledger.store().clone() });
    if let Some(snapshots) = parts.snapshots.clone() {
        crew.run(jobs::TakeSnapshot { snapshots, clock: Arc::clone(parts.exchange.ledger.clock()) });
    }
    let (audit, announcer) = (parts.latest.clone(), parts.network.announcer.clone());
    let watchman = Watchman { exchange: exchange(), audit, announcer };
    crew.run(jobs::WatchAlarms { alerts: parts.alerts.clone(), watchman });
    crew.run(jobs::TellAlarms { alerts: parts.alerts.clone() });
}

/// Those that may move money, and the one that counts it.
fn moves_money(crew: &Crew, parts: &Parts) {
    let (payouts, latest, wallet) = (&parts.config.payouts, &parts.latest, || parts.wallet());
    let ledger = &parts.exchange.ledger;
    crew.run(jobs::PayOut::new(parts.exchange(), latest.clone(), payouts.interval));
    if let Some(period) = payouts.expiry_interval {
        crew.run(jobs::RefundExpired::new(wallet(), period));
    }
    if let Some(claim_time) = payouts.claim_time {
        crew.run(jobs::TakeBackUnclaimed { wallet: wallet(), claim_time });
    }
    crew.run(jobs::RefillLadder { wallet: wallet() });
    let auditor = Auditor::of(ledger.clone(), Inspector::of(&wallet()), audit::MOST_ASKED);
    crew.run(jobs::CheckBooks { auditor, latest: latest.clone() });
    crew.run(jobs::ResumeOperations { wallet: wallet(), started_ms: parts.started_ms });
    crew.run(jobs::ExpireVouchers { ledger: ledger.clone() });
    let idle = parts.exchange.pool.longest_silence().unwrap_or(Duration::from_secs(120));
    let patience = idle.saturating_mul(2).max(Duration::from_secs(240));
    crew.run(jobs::RescueStalled { exchange: parts.exchange(), patience });
}

/// What the node does on Nostr, if the operator names relays.
fn on_nostr(crew: &Crew, parts: &Parts) {
    let (announcer, directory) = (&parts.network.announcer, parts.network.directory.clone());
    if let (Some(directory), Some(period)) = (directory, parts.config.nostr.refresh_interval) {
        for relay in announcer.relays() {
            let (directory, relay, stop) = (directory.clone(), relay.clone(), crew.stop().clone());
            crew.run(jobs::Discover { directory, relay, period, stop });
        }
        crew.run(jobs::ProbeNodes { directory: directory.clone(), period });
        if let Some(rivals) = parts.network.rivals.clone() {
            crew.run(jobs::ComparePrices { directory, rivals, exchange: parts.exchange() });
        }
    }
    if !announcer.relays().is_empty() {
        let tells_apps = parts.config.nostr.handler;
        crew.run(jobs::Announce::new(announcer.clone(), parts.exchange(), tells_apps, parts.onion.clone()));
    }
}
