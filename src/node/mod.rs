//! The composition root: from a [`Config`] to a node that serves, and back down.
//!
//! Start: database, secrets, books (holds of the predecessor are released), wallet, prices,
//! upstream, routes, jobs. Stop: no new connections; running exchanges finish and settle within the
//! time limit; the ledger's queue is written out; the database is closed.

mod doors;
mod jobs;
mod network;
mod watching;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, AdminError, AdminState, OnNostr};
use crate::alerts::Alerts;
use crate::audit::Latest;
use crate::backup::{self, Snapshots};
use crate::catalog::import::{ImportError, Importer};
use crate::catalog::{file, route::Market};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Config, Mints, Secret};
use crate::exchange::{Deliveries, Exchange, Maintenance, Replays, Settings};
use crate::http;
use crate::ledger::Ledger;
use crate::net::public::Reach;
use crate::net::way::{Way, Ways};
use crate::net::{self, ClientOptions, NetError};
use crate::nostr::{Announcer, Identity, IdentityError};
use crate::openapi::Described;
use crate::payment::payer::Till;
use crate::payment::throttle::KeyThrottle;
use crate::price::PriceBook;
use crate::shop;
use crate::store::{FileLock, Lineage, Store, StoreError};
use crate::telemetry::Collector;
use crate::tor::{Onion, Tor, TorError};
use crate::upstream::{Pool, PoolError};
use crate::vault::{SEED, Vault, VaultError, hex, write_private};
use crate::wallet::holdings::Inspector;
use crate::wallet::mint::Limits;
use crate::wallet::{Options, Seed, Wallet, WalletError};
use doors::Doors;
use jobs::Parts;

pub(crate) use watching::caller_beside;

const NODE_ID: &str = "node.id";

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Wallet(#[from] WalletError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Tor(#[from] TorError),
    #[error("the price list: {0}")]
    Import(#[from] ImportError),
    #[error("{0}")]
    Models(#[from] file::LoadError),
    #[error("{0}")]
    Io(String),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: std::io::Error },
}

/// A node that serves.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    admin_address: SocketAddr,
    exchange: Arc<Exchange>,
    drain: CancellationToken,
    stop: CancellationToken,
    exchanges: TaskTracker,
    background: TaskTracker,
    writer: JoinHandle<()>,
    store: Store,
    shutdown_timeout: Duration,
    announcer: Announcer,
    admin_password: Option<Secret>,
    /// The public key of an identity that this start made.
    npub: Option<String>,
    _lock: FileLock,
}

/// Starts a node.
///
/// # Errors
/// When something that it cannot do without is not there.
pub async fn start(config: Config, clock: SharedClock) -> Result<Running, StartError> {
    net::install_crypto();
    let data_dir = config.storage.data_dir.clone();
    let url = config.storage.database_url.as_ref().map(Secret::expose);
    let store = Store::open(&data_dir, url, config.storage.strict).await?;
    let settings = Settings::open(&config, &store).await?;
    let config = settings.now();
    let lock = FileLock::take(&data_dir.join("node.lock"), &data_dir.display().to_string())?;
    let vault = open_vault(&config, &store).await?;
    let owner = node_id(&data_dir)?;

    let (ledger, writing) = Ledger::open(store.clone(), Arc::clone(&clock), owner.clone()).await?;
    let ledger = ledger.with_patience(config.storage.node_timeout);
    let background = TaskTracker::new();
    let writer = background.spawn(writing);
    let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
    let tor = Tor::open(&config, &background, &stop).await?;
    let ways = tor.ways();
    let started_ms = clock.now_ms();
    let lineage = take_over(&ledger, &data_dir, started_ms).await?;

    let wallet = open_wallet(&config, ways, &vault, &ledger).await?;
    backup::remove_leftovers(&data_dir, started_ms);
    let snapshots = Snapshots::new(&config, store.reader(), &vault).map(Arc::new);
    let book = Arc::new(PriceBook::from_config(&config.pricing, &ways.prices, Arc::clone(&clock))?);
    let (identity, is_new) = Identity::open(&config, &store, &vault, started_ms).await?;
    let exchange = open_exchange(settings, ways, &wallet, vault, Arc::clone(&book), identity).await?;
    let exchanges = exchange.tracker.clone();
    let network = network::open(&config, ways, &exchange)?;
    let (onion, visits) = tor.appear().await;
    let latest = Latest::default();
    let spool = http::Spool::new(config.server.max_body_bytes, config.server.max_buffered_bytes);
    let state = http::Node::new(Arc::clone(&exchange), spool, drain.clone())
        .showing(latest.clone())
        .on_nostr(Some(network.announcer.clone()), network.directory.clone())
        .in_tor(onion.clone());
    let alerts = watching::open(&config, ways, &exchange)?;
    let doors = Doors::open(&config, visits).await?;
    let (address, admin_address) = (doors.address, doors.admin_address);
    // Last of all that may fail or take a while: a password that was made is shown once, when the node has started.
    let (pages, admin_password) =
        admin_pages(&config, &exchange, &alerts, latest.clone(), network.clone(), onion.clone()).await?;
    let forms = shop::router(state.clone());
    let public = http::router(state, shop::front(), &config.server.cors_origins).merge(forms);

    let parts = Parts { config, exchange, book, lineage, snapshots, alerts, latest, network, onion, started_ms };
    jobs::start(&background, &stop, &parts);
    let Parts { config, exchange, network, .. } = parts;
    doors.serve(&config, &exchange, (public, pages), &background, (&drain, &stop));
    let npub = is_new.then(|| exchange.identity.npub().to_owned());
    Ok(Running {
        address,
        admin_address,
        exchange,
        drain,
        stop,
        exchanges,
        background,
        writer,
        store,
        shutdown_timeout: config.server.shutdown_timeout,
        announcer: network.announcer,
        admin_password,
        npub,
        _lock: lock,
    })
}

/// Everything that serving a request takes.
async fn open_exchange(
    settings: Settings,
    ways: &Ways,
    wallet: &Wallet,
    vault: Vault,
    book: Arc<PriceBook>,
    identity: Identity,
) -> Result<Arc<Exchange>, StartError> {
    let config = settings.now();
    let ledger = wallet.ledger().clone();
    let clock = Arc::clone(ledger.clock());
    let pool = Pool::open(&config.upstreams, ledger.store(), &vault, &ways.upstreams, &clock).await?;
    let maintenance = Maintenance::new(config.server.maintenance);
    maintenance.look(ledger.store()).await?;
    let importer = open_prices(&config, &ways.prices, ledger.store(), &pool, &clock).await?;
    let mut pricing = config.pricing.clone();
    if pricing.model_based.is_none() {
        pricing.model_based = Some(importer.has_list().await?);
    }
    let traces =
        Collector::from_config(&config.traces, &ways.reports, ledger.owner(), env!("CARGO_PKG_VERSION"), &clock)?;
    let exchange = Arc::new(Exchange {
        market: Market::new(importer.shelf().clone(), book, pricing, Arc::clone(&clock)),
        importer,
        tariffs_version: Mutex::default(),
        replays: Replays::new(ledger.clone(), vault.clone(), config.server.max_kept_bytes),
        identity,
        till: Till::new(wallet.clone(), vault, config.pricing.child_key_cost, config.clients),
        ledger,
        pool,
        settings,
        maintenance,
        throttle: KeyThrottle::new(config.key_limits, clock),
        tracker: TaskTracker::new(),
        deliveries: Deliveries::default(),
        keep_alive: config.server.keep_alive,
        drains: Exchange::drain_permits(),
        metrics: Arc::default(),
        traffic: Arc::default(),
        traces,
        ongoing: Arc::default(),
    });
    exchange.apply_settings();
    exchange.learn_tariffs().await?;
    Ok(exchange)
}

/// Everything that a process does before it may touch money that others may have touched: it says
/// that it is alive, lets go of what its last run held, and looks whether the database is the one
/// that it should be.
async fn take_over(ledger: &Ledger, data_dir: &Path, now_ms: i64) -> Result<Arc<Lineage>, StartError> {
    let (store, owner) = (ledger.store(), ledger.owner());
    let released = ledger.release_orphans(owner).await?;
    if released > 0 {
        tracing::warn!(released, "released the holds of the last run");
    }
    // Before anything is begun that another process could take for a dead one's.
    ledger.heartbeat().await?;
    let (lineage, objection) = Lineage::open(store, data_dir, owner, now_ms, ledger.dead_before_ms()).await?;
    if let Some(reason) = objection {
        tracing::error!(
            reason,
            "ALARM: the database was restored from a copy; nothing is paid before the mints are asked, and all \
             sessions and tokens of operators have ended"
        );
    }
    Ok(Arc::new(lineage))
}

/// The operator's pages, and their password if it was made just now.
async fn admin_pages(
    config: &Config,
    exchange: &Arc<Exchange>,
    alerts: &Alerts,
    audit: Latest,
    network: OnNostr,
    onion: Onion,
) -> Result<(Described<()>, Option<Secret>), StartError> {
    let ledger = exchange.ledger.clone();
    let admin = admin::ensure_password(ledger.store(), ledger.clock(), config.admin.password.as_ref()).await?;
    let state = AdminState {
        exchange: Arc::clone(exchange),
        ledger,
        wallet: exchange.till.wallet().clone(),
        till: exchange.till.clone(),
        pool: Arc::clone(&exchange.pool),
        importer: Arc::clone(&exchange.importer),
        password: admin.password,
        version: env!("CARGO_PKG_VERSION"),
        npubs: config.admin.npubs.clone().into(),
        origins: doors::origins(config),
        audit,
        network,
        onion,
    };
    let token = config.admin.metrics_token.clone();
    let metrics = admin::metrics_router(state.clone(), Arc::clone(exchange), alerts.clone(), token);
    Ok((admin::router(state).merge(metrics), admin.generated))
}

/// How long the relays may keep a node that stops.
const FAREWELL: Duration = Duration::from_secs(5);

impl Running {
    /// Where the node listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the operator's pages are.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The password of the operator's pages, if this start made it. It is nowhere else in clear.
    #[must_use]
    pub fn generated_password(&self) -> Option<&Secret> {
        self.admin_password.as_ref()
    }

    /// The public Nostr key of the node, if this start made it.
    #[must_use]
    pub fn generated_npub(&self) -> Option<&str> {
        self.npub.as_deref()
    }

    /// What serves requests; for tests and tools that look inside.
    #[must_use]
    pub fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// Stops the node. Running exchanges have the configured time to finish, and are ended then: what they have
    /// delivered is charged. `now` cuts it short.
    pub async fn shutdown(self, now: impl Future<Output = ()>) {
        let Self {
            exchange,
            drain,
            stop,
            exchanges,
            background,
            writer,
            store,
            shutdown_timeout,
            announcer,
            _lock,
            ..
        } = self;
        drain.cancel();
        exchange.ongoing.close();
        exchanges.close();
        let late = async {
            tokio::time::sleep(shutdown_timeout).await;
            tracing::warn!("some requests did not end in time, and are ended; what they delivered is charged");
            exchange.abort_all().await;
        };
        tokio::select! {
            _ = async { tokio::join!(exchanges.wait(), say_goodbye(&announcer, &exchange)) } => {}
            () = late => {}
            () = now => {}
        }
        stop.cancel();
        if let Err(error) = exchange.pool.flush(&store).await {
            tracing::warn!(%error, "what the last requests cost was not written down");
        }
        if let Err(error) = exchange.traffic.keep(&store, exchange.ledger.clock().now_ms()).await {
            tracing::warn!(%error, "how the last requests went was not written down");
        }
        if let Some(collector) = &exchange.traces
            && !matches!(tokio::time::timeout(FAREWELL, collector.export()).await, Ok(Ok(())))
        {
            tracing::warn!("the last traces did not reach the collector");
        }
        drop(exchange);
        background.close();
        let ended = async {
            background.wait().await;
            if writer.await.is_err() {
                tracing::error!("the ledger's writer had failed");
            }
        };
        if tokio::time::timeout(Duration::from_secs(5), ended).await.is_err() {
            tracing::warn!("some background work did not end in time");
        }
        store.close().await;
    }
}

/// Tells the relays that the node is down, unless another node of its database goes on.
async fn say_goodbye(announcer: &Announcer, exchange: &Exchange) {
    match exchange.ledger.has_company().await {
        Ok(false) => {}
        Ok(true) => return,
        Err(error) => return tracing::warn!(%error, "it is not known whether this is the last node"),
    }
    match tokio::time::timeout(FAREWELL, announcer.withdraw()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the listing on Nostr was not withdrawn"),
        Err(_) => tracing::warn!("the relays did not take the withdrawal of the listing in time"),
    }
}

/// The vault of this database: the configured secret key, or the file's, proven by the seed that is there.
pub(crate) async fn open_vault(config: &Config, store: &Store) -> Result<Vault, StartError> {
    let seed = store.setting(SEED).await?;
    Ok(Vault::open_proven(&config.storage.data_dir, config.storage.secret_key.as_ref(), seed.as_deref())?)
}

async fn open_wallet(config: &Config, ways: &Ways, vault: &Vault, ledger: &Ledger) -> Result<Wallet, StartError> {
    let fresh: [u8; 64] = std::array::from_fn(|_| rand::random());
    let sealed = vault.seal(SEED, &fresh)?;
    let stored = ledger.store().setting_or_insert(SEED, &sealed, ledger.clock().now_ms()).await?;
    let seed: [u8; 64] = vault.unseal(SEED, &stored)?.try_into().map_err(|_| VaultError::WrongKey)?;
    let options = Options {
        mints: config.mints.urls.clone(),
        unit: config.mints.unit,
        timeout: config.mints.timeout,
        concurrency: config.mints.max_concurrency,
        calls_per_minute: call_budgets(&config.mints),
        seed: Seed::new(seed),
        ladder_coins: config.mints.ladder_coins,
        lightning_fee_percent: config.payouts.max_fee_percent,
        strangers: strangers_reach(&config.mints.urls),
        to_strangers: ways.strangers.clone(),
        foreign_fee_percent: config.mints.foreign_fee_percent,
    };
    let wallet = Wallet::open(ledger.clone(), options, &net::client(&to_mints(config, &ways.mints))?).await?;
    for (mint, open) in wallet.astray().await? {
        tracing::error!(mint, open, "operations wait for a mint that is not in CASHU_MINTS");
    }
    Ok(wallet)
}

fn to_mints(config: &Config, way: &Way) -> ClientOptions {
    let usual = ClientOptions { way: way.clone(), ..ClientOptions::default() };
    let connect_timeout = way.longest(usual.connect_timeout, &config.mints.urls).min(config.mints.timeout);
    ClientOptions { connect_timeout, ..usual }
}

/// Asks the configured mints about ecash, for whoever audits a node from outside.
///
/// # Errors
/// When there can be no HTTP client.
pub fn inspector(config: &Config, ways: &Ways) -> Result<Inspector, NetError> {
    let Mints { urls, timeout, max_concurrency, .. } = &config.mints;
    let budgets = call_budgets(&config.mints);
    let limits = |url: &String| {
        let per_minute = budgets.get(url).copied();
        (url.clone(), Limits { timeout: *timeout, concurrency: *max_concurrency, per_minute })
    };
    let clock: SharedClock = Arc::new(SystemClock);
    Ok(Inspector::new(urls.iter().map(limits).collect(), &net::client(&to_mints(config, &ways.mints))?, &clock))
}

/// Public mints limit their callers; one on loopback is the operator's own, and does so only if it is
/// named.
fn call_budgets(mints: &Mints) -> HashMap<String, u32> {
    let limits = &mints.calls_per_minute;
    let budget = |url: &String| match limits.named.get(url) {
        Some(calls) => *calls,
        None if url::Url::parse(url).is_ok_and(|url| net::is_loopback(&url)) => 0,
        None => limits.public,
    };
    mints.urls.iter().map(|url| (url.clone(), budget(url))).filter(|(_, calls)| *calls > 0).collect()
}

/// On a node whose mints are all on loopback there is no money to be had, and a network to be tested.
fn strangers_reach(mints: &[String]) -> Reach {
    let local = |mint: &String| url::Url::parse(mint).is_ok_and(|url| net::is_loopback(&url));
    if !mints.is_empty() && mints.iter().all(local) { Reach::Anywhere } else { Reach::Public }
}

/// The price list: the operator's own, and what is stored of others'.
async fn open_prices(
    config: &Config,
    way: &Way,
    store: &Store,
    pool: &Arc<Pool>,
    clock: &SharedClock,
) -> Result<Arc<Importer>, StartError> {
    let loaded = file::configured(&config.pricing)?;
    if loaded.source == file::Source::Bundled {
        tracing::warn!("{}", file::NO_FILE);
    }
    for problem in &loaded.problems {
        tracing::warn!(%problem, "a model is not offered");
    }
    let importer = Importer::new(store.clone(), Arc::clone(pool), Arc::clone(clock), &config.pricing, way, &loaded)?;
    importer.look().await?;
    Ok(Arc::new(importer))
}

/// The name under which this data directory's node owns holds and operations.
fn node_id(data_dir: &Path) -> Result<String, StartError> {
    if let Some(id) = known_id(data_dir)? {
        return Ok(id);
    }
    let (path, id) = (data_dir.join(NODE_ID), hex(&rand::random::<[u8; 8]>()));
    write_private(&path, &id).map_err(|error| StartError::Io(format!("{}: {error}", path.display())))?;
    Ok(id)
}

/// The name of this data directory's node, where it has one: it has started before.
pub(crate) fn known_id(data_dir: &Path) -> Result<Option<String>, StartError> {
    let path = data_dir.join(NODE_ID);
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => Ok(Some(id.trim().to_owned())),
        Ok(_) => Err(StartError::Io(format!("{} is empty", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StartError::Io(format!("{}: {error}", path.display()))),
    }
}
