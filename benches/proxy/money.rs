//! The customer's side: a mint, tokens, and keys filled with them. Nothing is short-cut: every
//! key was opened by a token that the node redeemed at the mint.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cdk::Amount;
use cdk::amount::SplitTarget;
use cdk::mint_url::MintUrl;
use cdk::nuts::{CurrencyUnit, MintQuoteState, PaymentMethod, PreMintSecrets, Proof, SwapRequest, Token};
use cdk::secret::Secret;
use coinslot::clock::SystemClock;
use coinslot::net::{self, ClientOptions};
use coinslot::wallet::mint::{HttpMint, Limits};
use tokio::runtime::{Builder, Runtime};

use crate::support::mint::TestMint;
use crate::support::purse::Purse;
use crate::wire::{self, Connection};

/// Proofs in one call to the mint.
const BATCH: usize = 500;
/// Keys opened at a time.
const OPENERS: usize = 16;

/// A mint and a customer at it, on threads of their own.
pub struct Bank {
    runtime: Runtime,
    mint: Arc<TestMint>,
    purse: Arc<Purse>,
}

impl Bank {
    pub fn open() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
        let (mint, purse) = runtime.block_on(async {
            let mint = TestMint::start().await;
            let purse = Purse::new(&mint).await;
            (Arc::new(mint), Arc::new(purse))
        });
        Self { runtime, mint, purse }
    }

    pub fn url(&self) -> String {
        self.mint.url()
    }

    /// Swaps that the mint made so far.
    pub fn swaps(&self) -> u64 {
        self.mint.calls("/v1/swap")
    }

    /// All calls that the mint answered so far.
    pub fn calls(&self) -> u64 {
        self.mint.all_calls().values().sum()
    }

    /// `count` tokens that each consist of proofs of these values.
    pub async fn tokens(&self, values: &[u64], count: usize) -> Vec<String> {
        let (purse, url, values) = (Arc::clone(&self.purse), self.url(), values.to_vec());
        let making = self.runtime.spawn(async move {
            let mut columns = Vec::new();
            for value in values {
                columns.push(proofs(&purse, value, count).await);
            }
            let row = |index: usize| columns.iter().map(|column: &Vec<Proof>| column[index].clone()).collect();
            (0..count).map(|index| token(&url, row(index))).collect()
        });
        making.await.expect("tokens")
    }

    /// Time that one swap of a token of these values takes at the mint, `count` times, in µs.
    pub async fn round_trips(&self, values: &[u64], count: usize) -> Vec<u64> {
        let (purse, url, values) = (Arc::clone(&self.purse), self.url(), values.to_vec());
        let client = net::client(&ClientOptions::default()).expect("client");
        let limits = Limits { timeout: Duration::from_secs(10), concurrency: 1, per_minute: None };
        let mint = HttpMint::new(url, client, limits, Arc::new(SystemClock));
        let swapping = self.runtime.spawn(async move {
            let mut times = Vec::new();
            let mut columns = Vec::new();
            for value in &values {
                columns.push(proofs(&purse, *value, count).await);
            }
            for index in 0..count {
                let inputs: Vec<Proof> = columns.iter().map(|column| column[index].clone()).collect();
                let request = swap(inputs, &values);
                let begin = Instant::now();
                mint.swap(&request).await.expect("swap");
                times.push(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
            times
        });
        swapping.await.expect("swaps")
    }
}

/// Mints `count` proofs of one value.
async fn proofs(purse: &Purse, value: u64, count: usize) -> Vec<Proof> {
    let wallet = purse.wallet();
    let mut proofs = Vec::with_capacity(count);
    while proofs.len() < count {
        let amount = Amount::from(value * BATCH.min(count - proofs.len()) as u64);
        let quote = wallet.mint_quote(PaymentMethod::BOLT11, Some(amount), None, None).await.expect("quote");
        while wallet.check_mint_quote_status(&quote.id).await.expect("state").state != MintQuoteState::Paid {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let split = SplitTarget::Value(Amount::from(value));
        proofs.extend(wallet.mint(&quote.id, split, None).await.expect("mint"));
    }
    assert!(proofs.iter().all(|proof| u64::from(proof.amount) == value), "proofs of another value");
    proofs
}

fn token(url: &str, proofs: Vec<Proof>) -> String {
    Token::new(MintUrl::from_str(url).expect("mint url"), proofs, None, CurrencyUnit::Sat).to_string()
}

fn swap(inputs: Vec<Proof>, outputs: &[u64]) -> SwapRequest {
    let keyset = inputs.first().expect("inputs").keyset_id;
    let amounts = outputs.iter().map(|value| Amount::from(*value)).collect();
    let secrets = outputs.iter().map(|_| Secret::generate()).collect();
    let blinded = PreMintSecrets::from_secrets(keyset, amounts, secrets).expect("outputs");
    SwapRequest::new(inputs, blinded.blinded_messages())
}

/// Opens a key with each token, as many as there is time for. Returns the keys.
pub async fn open_keys(node: SocketAddr, tokens: Vec<String>, limit: Duration) -> Vec<String> {
    let end = Instant::now() + limit;
    let tokens = Rc::new(tokens);
    let next = Rc::new(Cell::new(0));
    let openers = (0..OPENERS).map(|_| {
        let (tokens, next) = (Rc::clone(&tokens), Rc::clone(&next));
        tokio::task::spawn_local(async move {
            let mut connection = Connection::open(node).await.expect("connection");
            let mut keys = Vec::new();
            while let Some(token) = tokens.get(next.get()).filter(|_| Instant::now() < end) {
                next.set(next.get() + 1);
                keys.push(open_key(&mut connection, token).await);
            }
            keys
        })
    });
    let mut keys = Vec::new();
    for opener in openers.collect::<Vec<_>>() {
        keys.extend(opener.await.expect("opener"));
    }
    keys
}

async fn open_key(connection: &mut Connection, token: &str) -> String {
    let bearer = format!("Bearer {token}");
    let request = wire::get("/v1/wallet/info", &[("authorization", &bearer)]);
    let answer = connection.fetch(&request).await.expect("wallet info");
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    let info: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let key = info.get("api_key").and_then(serde_json::Value::as_str);
    key.unwrap_or_else(|| panic!("status {}: {body}", answer.status)).to_owned()
}
