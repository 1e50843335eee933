//! Ecash: the only importer of cdk.
//!
//! cdk brings the cryptography, the wire types and the ecash store, which lives in the node's own
//! database ([`cdk_db`]). The swaps are driven from here, not by cdk's wallet, because the journal
//! must own inputs and outputs from before the mint hears of them until the money is booked: cdk's
//! own sagas drop inputs on a failure, and commit apart from the ledger.
//!
//! Invariants:
//! * A secret is claimed in the database before the mint is asked, and credited at most once.
//! * The credit is what the node really received, input fees deducted.
//! * Change and refunds leave the account in the same transaction that writes the operation which
//!   makes the token, and the token is stored before anybody sees it.
//! * Proofs are chosen for paying only when the operation that brought them is booked.
//! * What a mint says against somebody's money must stand for a while before it counts.
//! * At rest, the ledger's `mint` accounts equal the unspent proofs in the ecash store.
#![deny(clippy::arithmetic_side_effects, clippy::as_conversions)]

mod batch;
pub mod cdk_db;
mod change;
mod condition;
mod consolidate;
pub mod examine;
mod foreign;
mod give;
pub mod health;
pub mod holdings;
mod import;
mod incoming;
mod journal;
mod keysets;
mod ladder;
mod melt;
pub mod mint;
mod outputs;
mod pay;
mod payout;
mod plan;
mod quote;
mod ready;
pub mod recovery;
mod redeem;
mod refusal;
mod request;
mod resume;
mod select;
mod steps;
pub mod stock;
mod swap;
pub mod token;
mod topup;
mod unclaimed;
pub mod underway;
pub mod watch;
pub mod withdraw;

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use cdk::mint_url::MintUrl;
use cdk::nuts::{CurrencyUnit, State};
use cdk_common::database::WalletDatabase;
use futures_util::future::join_all;

use crate::clock::SharedClock;
use crate::config::Live;
use crate::ledger::{AccountId, Ledger};
use crate::metrics::Money;
use crate::money::{MintUnit, Msat};
use crate::net::public::Reach;
use crate::net::way::Way;
use crate::store::{Store, StoreError};

pub use change::{Change, Destination, RefundError};
pub use condition::{Condition, MintHealth};
pub use journal::Movement;
use keysets::{Keysets, Listed};
use mint::{HttpMint, Limits};
pub use redeem::RedeemError;
pub use refusal::{MintError, Refusal};
pub use request::PaymentRequest;
pub use resume::Retried;
pub use token::{Token, TokenFault};
pub use topup::{Invoice, InvoiceError, InvoiceStatus, OFFERED_SECS};
pub use unclaimed::TakenBack;

/// cdk's proof store.
pub type EcashStore = Arc<dyn WalletDatabase<cdk_common::database::Error> + Send + Sync>;

/// The wallet's seed: all blinded secrets derive from it.
#[derive(Clone)]
pub struct Seed([u8; 64]);

impl Seed {
    #[must_use]
    pub fn new(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    fn expose(&self) -> &[u8; 64] {
        &self.0
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(…)")
    }
}

/// Something that is nobody's decision: a store or a mint that does not work.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("ecash store: {0}")]
    Ecash(String),
    #[error("there is not enough ecash at this mint")]
    Short,
    /// Others have it in hand just now.
    #[error("other operations have the ecash of this mint in hand; try again")]
    Busy,
    /// A stranger's mint is where nobody is asked: in a private network, or without TLS.
    #[error("the address of this mint is not one that is asked")]
    Address,
    #[error(transparent)]
    Mint(#[from] MintError),
}

impl From<cdk_common::database::Error> for WalletError {
    fn from(error: cdk_common::database::Error) -> Self {
        Self::Ecash(error.to_string())
    }
}

impl From<sqlx::Error> for WalletError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(StoreError::Sql(error))
    }
}

/// One mint that is trusted, with its keysets.
#[derive(Debug)]
struct Trusted {
    http: HttpMint,
    /// Where redemptions of each unit wait for each other.
    desks: batch::Desks,
    keysets: Keysets,
    url: MintUrl,
    /// Selecting and reserving proofs is one step; held for database work only.
    inventories: tokio::sync::Mutex<HashMap<MintUnit, select::Inventory>>,
}

/// The node's ecash at all its mints.
#[derive(Clone, Debug)]
pub struct Wallet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    mints: HashMap<String, Trusted>,
    /// In the order of the configuration.
    order: Vec<String>,
    unit: MintUnit,
    /// The keysets of the trusted mints.
    listed: Arc<Listed>,
    ecash: EcashStore,
    ledger: Ledger,
    seed: Seed,
    ladder: Live<ladder::Ladder>,
    /// Change had to be swapped for.
    ladder_was_short: tokio::sync::Notify,
    /// See [`Options`].
    lightning_fee_percent: u8,
    strangers: Reach,
    to_strangers: Way,
    /// `None`: ecash of mints that are not trusted is refused.
    foreigners: Option<foreign::Foreigners>,
    /// One redemption of a token at a time.
    redeeming: redeem::Lanes,
    /// Tokens that are redeemed for one request each, at this moment.
    riding: redeem::Riding,
    /// Why no money may move.
    halt: recovery::Halt,
    /// What happens to money, for the operator's metrics.
    counts: Money,
}

/// What [`Wallet::open`] needs.
#[derive(Debug)]
pub struct Options {
    /// Canonical URLs, the primary first.
    pub mints: Vec<String>,
    pub unit: MintUnit,
    pub timeout: std::time::Duration,
    pub concurrency: usize,
    /// Calls in any 60 s, by mint; one that is not here has no limit.
    pub calls_per_minute: HashMap<String, u32>,
    pub seed: Seed,
    /// Coins of each amount that are kept ready for change.
    pub ladder_coins: usize,
    /// The most that a Lightning payment may cost, in percent of it.
    pub lightning_fee_percent: u8,
    /// Which addresses clients may name.
    pub strangers: Reach,
    /// How they are reached.
    pub to_strangers: Way,
    /// The most that swapping ecash of a foreign mint may cost, in percent of it; `None`: it is refused.
    pub foreign_fee_percent: Option<u8>,
}

impl Wallet {
    /// Opens the ecash store in the ledger's database. Asks no mint.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub async fn open(ledger: Ledger, options: Options, client: &reqwest::Client) -> Result<Self, WalletError> {
        let ecash = cdk_db::open(ledger.store()).await?;
        let listed = Arc::new(Listed::default());
        let mut mints = HashMap::new();
        for url in &options.mints {
            let limits = Limits {
                timeout: options.timeout,
                concurrency: options.concurrency,
                per_minute: options.calls_per_minute.get(url).copied(),
            };
            let http = HttpMint::new(url.clone(), client.clone(), limits, Arc::clone(ledger.clock()));
            let (store, clock) = (Arc::clone(&ecash), Arc::clone(ledger.clock()));
            let keysets = Keysets::load(http.clone(), store, clock, Arc::clone(&listed)).await?;
            let parsed = MintUrl::from_str(url).map_err(|error| WalletError::Ecash(error.to_string()))?;
            mints.insert(
                url.clone(),
                Trusted {
                    http,
                    desks: batch::Desks::new(options.concurrency),
                    keysets,
                    url: parsed,
                    inventories: tokio::sync::Mutex::default(),
                },
            );
        }
        let inner = Inner {
            mints,
            order: options.mints,
            unit: options.unit,
            listed,
            ecash,
            ledger,
            seed: options.seed,
            ladder: Live::new(ladder::Ladder { coins: options.ladder_coins }),
            ladder_was_short: tokio::sync::Notify::new(),
            lightning_fee_percent: options.lightning_fee_percent,
            strangers: options.strangers,
            to_strangers: options.to_strangers,
            foreigners: options.foreign_fee_percent.map(foreign::Foreigners::new),
            redeeming: redeem::Lanes::default(),
            riding: redeem::Riding::default(),
            halt: recovery::Halt::default(),
            counts: Money::default(),
        };
        let wallet = Self { inner: Arc::new(inner) };
        wallet.halt_if_restored().await?;
        Ok(wallet)
    }

    /// URLs of the mints whose ecash is taken, the primary first.
    #[must_use]
    pub fn mints(&self) -> &[String] {
        &self.inner.order
    }

    /// What has happened to money in this process, for the operator's metrics.
    #[must_use]
    pub fn counts(&self) -> &Money {
        &self.inner.counts
    }

    /// The unit that the node asks to be paid in.
    #[must_use]
    pub fn unit(&self) -> MintUnit {
        self.inner.unit
    }

    /// Asks the mints for their keysets, unless they told them within the last `max_age_ms`: side by
    /// side, so that a silent one keeps nobody waiting. Returns those that did not answer.
    pub async fn refresh(&self, max_age_ms: i64) -> Vec<(String, WalletError)> {
        let mut asked = Vec::new();
        for (url, mint) in &self.inner.mints {
            asked.push(self.refresh_one(url, mint, max_age_ms));
        }
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn refresh_one(&self, url: &str, mint: &Trusted, max_age_ms: i64) -> Option<(String, WalletError)> {
        let warm = async {
            mint.keysets.refresh_if_older(max_age_ms).await?;
            mint.keysets.active(self.inner.unit).await
        };
        warm.await.err().map(|error| (url.to_owned(), error))
    }

    /// Whether the keysets of this mint are known, so that its tokens can be judged.
    pub async fn knows(&self, url: &str) -> bool {
        match self.inner.mints.get(url) {
            Some(mint) => mint.keysets.is_warm().await,
            None => false,
        }
    }

    /// Unspent ecash by mint and unit, from the proofs in the store.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn ecash(&self) -> Result<HashMap<(String, MintUnit), Msat>, WalletError> {
        let mut held = HashMap::new();
        for (url, mint) in &self.inner.mints {
            for unit in [MintUnit::Sat, MintUnit::Msat] {
                let units = self
                    .inner
                    .ecash
                    .get_balance(Some(mint.url.clone()), Some(currency(unit)), Some(vec![State::Unspent]))
                    .await?;
                let amount = unit
                    .to_msat(units)
                    .ok_or_else(|| WalletError::Ecash(format!("{units} {} is absurd", unit.as_str())))?;
                if !amount.is_zero() {
                    held.insert((url.clone(), unit), amount);
                }
            }
        }
        Ok(held)
    }

    /// What came and went on an account with an id below `before`, newest first. Charges of requests
    /// are left out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn history(&self, account: AccountId, before: i64, limit: i64) -> Result<Vec<Movement>, StoreError> {
        let mut reader = self.store().read().acquire().await?;
        journal::movements(&mut reader, account, before, limit).await
    }

    /// The books that the ecash is in.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    /// What the token was worth that the account last gave back, if one was made.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn change_given(&self, account: AccountId) -> Result<Option<Msat>, RefundError> {
        Ok(match self.last_return(account).await?.as_ref().map(change::returned) {
            Some(Change::Token { amount, .. }) => Some(amount),
            _ => None,
        })
    }

    fn store(&self) -> &Store {
        self.inner.ledger.store()
    }

    fn clock(&self) -> &SharedClock {
        self.inner.ledger.clock()
    }

    /// Which addresses the recipient of an operation may have: the operator's own, any.
    fn reach_of(&self, operation: &journal::Operation) -> Reach {
        if operation.kind == journal::Kind::Payout { Reach::Anywhere } else { self.inner.strangers }
    }

    fn trusted(&self, url: &str) -> Option<&Trusted> {
        self.inner.mints.get(url)
    }
}

fn currency(unit: MintUnit) -> CurrencyUnit {
    match unit {
        MintUnit::Sat => CurrencyUnit::Sat,
        MintUnit::Msat => CurrencyUnit::Msat,
    }
}
