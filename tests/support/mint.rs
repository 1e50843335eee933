//! cdk's own mint in this process: real keys, real signatures, a real HTTP port, invoices that pay
//! themselves at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use cdk::mint::{Mint, MintBuilder, MintMeltLimits};
use cdk::nuts::{CurrencyUnit, MeltQuoteState, PaymentMethod};
use cdk::types::{FeeReserve, QuoteTTL};
use cdk::{Amount, Bolt11Invoice};
use cdk_common::payment::{PaymentIdentifier, WaitPaymentResponse};
use cdk_fake_wallet::FakeWallet;
use coinslot::wallet::cdk_db::CdkSqliteConfig;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::port::Kept;
use super::store::{Made, SqliteMintDb, TempStore};

/// What a [`TestMint`] shall be like.
#[derive(Clone, Debug, Default)]
pub struct MintOptions {
    /// Input fee in thousandths of the unit per proof.
    pub fee_ppk: u64,
    /// Whether there is a keyset in msat beside the one in sat.
    pub msat: bool,
    /// `Some(false)` makes the old short keyset ids, as most mints still have them.
    pub keyset_v2: Option<bool>,
    /// What is set aside for the fee of a payment, in the unit; 1 when absent. It takes 1.
    pub fee_reserve: Option<u64>,
    /// Whether invoices wait for [`TestMint::pay`] instead of paying themselves.
    pub unpaid: bool,
}

/// The store of a mint that has just been opened.
static MADE: Made = Made::new();

type Calls = Arc<Mutex<BTreeMap<String, u64>>>;

/// A mint that serves on a loopback port until it is dropped.
pub struct TestMint {
    mint: Arc<Mint>,
    address: SocketAddr,
    router: Router,
    server: Option<JoinHandle<()>>,
    /// While it does not serve.
    port: Option<Kept>,
    calls: Calls,
    _store: TempStore,
}

impl TestMint {
    /// A mint for sat without fees.
    pub async fn start() -> Self {
        Self::with_options(MintOptions::default()).await
    }

    /// A mint for sat with an input fee.
    pub async fn with_fee_ppk(fee_ppk: u64) -> Self {
        Self::with_options(MintOptions { fee_ppk, ..Default::default() }).await
    }

    pub async fn with_options(options: MintOptions) -> Self {
        let store = TempStore::new();
        let mint = Arc::new(build(&store, &options).await);
        mint.set_quote_ttl(QuoteTTL::new(10_000, 10_000)).await.expect("quote ttl");
        mint.start().await.expect("mint start");
        let calls = Calls::default();
        let router = cdk_axum::create_mint_router(mint.clone(), vec!["bolt11".into()])
            .await
            .expect("mint router")
            .layer(from_fn_with_state(calls.clone(), count));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("address");
        let server = Some(tokio::spawn(serve(listener, router.clone())));
        Self { mint, address, router, server, port: None, calls, _store: store }
    }

    /// The URL by which wallets and tokens name this mint.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The mint itself, to look into or to rotate its keysets.
    pub fn mint(&self) -> &Arc<Mint> {
        &self.mint
    }

    /// Pays an invoice of this mint's, so many units.
    pub async fn pay(&self, bolt11: &str, units: u64) {
        self.payments().arrive(bolt11, units).await;
    }

    /// Where payments of its invoices arrive.
    pub fn payments(&self) -> Payments {
        Payments(self.mint.clone())
    }

    /// What it has signed and not taken back, in its smallest unit: what everybody holds together.
    pub async fn outstanding(&self) -> u64 {
        let issued = self.mint.total_issued().await.expect("issued");
        let redeemed = self.mint.total_redeemed().await.expect("redeemed");
        let sum = |amounts: &HashMap<_, Amount>| amounts.values().map(|amount| amount.to_u64()).sum::<u64>();
        sum(&issued) - sum(&redeemed)
    }

    /// The Lightning payments that it made.
    pub async fn paid(&self) -> Vec<u64> {
        let quotes = self.mint.melt_quotes().await.expect("melt quotes");
        quotes.iter().filter(|quote| quote.state == MeltQuoteState::Paid).map(|quote| quote.amount().value()).collect()
    }

    /// Its routes, to be served somewhere else too.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Cuts every connection and refuses new ones. What the mint knows stays.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            // The listener and the connections are closed once the task is really gone.
            let _cancelled = server.await;
            self.port = Some(Kept::at(self.address));
        }
    }

    /// Serves again, on the same port.
    pub async fn restart(&mut self) {
        self.stop().await;
        let listener = self.port.take().expect("it was kept").listen();
        self.server = Some(tokio::spawn(serve(listener, self.router.clone())));
    }

    /// How often a path was called, for example `/v1/swap`.
    pub fn calls(&self, path: &str) -> u64 {
        self.calls.lock().expect("calls").get(path).copied().unwrap_or(0)
    }

    /// All calls so far, by path.
    pub fn all_calls(&self) -> BTreeMap<String, u64> {
        self.calls.lock().expect("calls").clone()
    }

    /// Starts counting anew.
    pub fn reset_calls(&self) {
        self.calls.lock().expect("calls").clear();
    }
}

/// Where payments of a mint's invoices arrive.
pub struct Payments(Arc<Mint>);

impl Payments {
    /// Notes that an invoice was paid, so many units.
    pub async fn arrive(&self, bolt11: &str, units: u64) {
        let invoice = Bolt11Invoice::from_str(bolt11).expect("an invoice");
        let hash: [u8; 32] = *invoice.payment_hash().as_ref();
        let payment = WaitPaymentResponse {
            payment_identifier: PaymentIdentifier::PaymentHash(hash),
            payment_amount: Amount::new(units, CurrencyUnit::Sat),
            payment_id: invoice.payment_hash().to_string(),
        };
        self.0.pay_mint_quote_for_request_id(payment).await.expect("the payment is noted");
    }
}

impl Drop for TestMint {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}

async fn build(store: &TempStore, options: &MintOptions) -> Mint {
    let make = async |path: &Path| {
        let config = CdkSqliteConfig { path: path.to_owned(), ..store.config() };
        drop(SqliteMintDb::new(config).await.expect("mint store"));
    };
    MADE.copy_to(&store.path(), make).await;
    let db = Arc::new(SqliteMintDb::new(store.config()).await.expect("mint store"));
    let mut builder = MintBuilder::new(db.clone())
        .with_name("test mint".to_owned())
        .with_description("pays its own invoices".to_owned())
        .with_keyset_v2(options.keyset_v2);
    let mut units = vec![CurrencyUnit::Sat];
    if options.msat {
        units.push(CurrencyUnit::Msat);
    }
    for unit in units {
        let fees = FeeReserve { min_fee_reserve: options.fee_reserve.unwrap_or(1).into(), percent_fee_reserve: 0.0 };
        // Its delay also holds payments up that the mint makes, so it is for tests of invoices only.
        let delay = if options.unpaid { 1_000_000 } else { 0 };
        let payments = FakeWallet::new(fees, HashMap::new(), HashSet::new(), delay, unit.clone());
        let limits = MintMeltLimits::new(1, 1_000_000_000_000);
        builder
            .add_payment_processor(unit.clone(), PaymentMethod::BOLT11, limits, Arc::new(payments))
            .await
            .expect("payment processor");
        builder.set_unit_fee(&unit, options.fee_ppk).expect("fee");
    }
    builder.build_with_seed(db, &rand::random::<[u8; 64]>()).await.expect("mint")
}

async fn count(State(calls): State<Calls>, request: Request, next: Next) -> Response {
    *calls.lock().expect("calls").entry(request.uri().path().to_owned()).or_insert(0) += 1;
    next.run(request).await
}

/// Serves until the task is aborted; then the connections end with it.
async fn serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _peer)) = listener.accept().await else {
            continue;
        };
        stream.set_nodelay(true).ok();
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let http = Builder::new(TokioExecutor::new());
            http.serve_connection_with_upgrades(TokioIo::new(stream), service).await.ok();
        });
        while connections.try_join_next().is_some() {}
    }
}
