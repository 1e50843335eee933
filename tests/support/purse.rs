//! A customer's wallet: cdk's own, over a throw-away store, without the client-side rate limit.

use std::path::Path;
use std::str::FromStr;

use cdk::Amount;
use cdk::amount::SplitTarget;
use cdk::mint_url::MintUrl;
use cdk::nuts::{CurrencyUnit, MintQuoteState, PaymentMethod, Token};
use cdk::wallet::{ReceiveOptions, SendOptions, Wallet, WalletBuilder};
use coinslot::wallet::cdk_db::{CdkSqliteConfig, open_sqlite};

use super::answers::Patience;
use super::mint::TestMint;
use super::store::{Made, TempStore};

/// The store of a purse that has just been opened.
static MADE: Made = Made::new();

/// A wallet at one mint and in one unit.
pub struct Purse {
    wallet: Wallet,
    _store: TempStore,
}

impl Purse {
    /// An empty purse for sat.
    pub async fn new(mint: &TestMint) -> Self {
        Self::with_unit(&mint.url(), CurrencyUnit::Sat).await
    }

    /// An empty purse for any mint and unit.
    pub async fn with_unit(mint_url: &str, unit: CurrencyUnit) -> Self {
        let store = TempStore::new();
        let make = async |path: &Path| {
            drop(open_sqlite(CdkSqliteConfig { path: path.to_owned(), ..store.config() }).await.expect("wallet store"));
        };
        MADE.copy_to(&store.path(), make).await;
        let wallet = WalletBuilder::new()
            .mint_url(MintUrl::from_str(mint_url).expect("mint url"))
            .unit(unit)
            .localstore(open_sqlite(store.config()).await.expect("wallet store"))
            .seed(rand::random())
            .use_http_subscription()
            .without_rate_limiting()
            .build()
            .expect("wallet");
        Self { wallet, _store: store }
    }

    /// cdk's wallet inside, for what this type has no word for.
    pub fn wallet(&self) -> &Wallet {
        &self.wallet
    }

    /// Asks for an invoice, lets it pay itself and mints. The amount is in the purse's unit.
    pub async fn mint_sats(&self, amount: u64) {
        let wallet = &self.wallet;
        let quote =
            wallet.mint_quote(PaymentMethod::BOLT11, Some(Amount::from(amount)), None, None).await.expect("mint quote");
        self.paid(&quote.id).await;
        wallet.mint(&quote.id, SplitTarget::default(), None).await.expect("mint");
    }

    /// Waits until an invoice was paid.
    async fn paid(&self, quote: &str) {
        let patience = Patience::new();
        while self.wallet.check_mint_quote_status(quote).await.expect("quote state").state != MintQuoteState::Paid {
            patience.pause("the invoice is paid").await;
        }
    }

    /// A token of exactly this face value.
    pub async fn send_token(&self, amount: u64) -> Token {
        let amount = Amount::from(amount);
        let prepared = self.wallet.prepare_send(amount, SendOptions::default()).await;
        let token = prepared.expect("send").confirm(None).await.expect("confirm");
        assert_eq!(token.value().expect("value"), amount, "the token is not worth what was asked");
        token
    }

    /// A token of so many proofs of one unit each.
    pub async fn send_ones(&self, count: u64) -> Token {
        let quote = self
            .wallet
            .mint_quote(PaymentMethod::BOLT11, Some(Amount::from(count)), None, None)
            .await
            .expect("mint quote");
        self.paid(&quote.id).await;
        let proofs = self.wallet.mint(&quote.id, SplitTarget::Value(Amount::ONE), None).await.expect("mint");
        Token::new(self.wallet.mint_url.clone(), proofs, None, self.wallet.unit.clone())
    }

    /// A token that only the holder of this key can spend.
    pub async fn send_locked(&self, amount: u64, key: cdk::nuts::PublicKey) -> String {
        let options = SendOptions {
            conditions: Some(cdk::nuts::SpendingConditions::new_p2pk(key, None)),
            ..SendOptions::default()
        };
        let prepared = self.wallet.prepare_send(Amount::from(amount), options).await.expect("send");
        prepared.confirm(None).await.expect("confirm").to_string()
    }

    /// A `cashuB` token.
    pub async fn send(&self, amount: u64) -> String {
        self.send_token(amount).await.to_string()
    }

    /// A `cashuA` token.
    pub async fn send_v3(&self, amount: u64) -> String {
        self.send_token(amount).await.to_v3_string()
    }

    /// Swaps a token at the mint; gives what is left of it after the mint's fee.
    pub async fn receive(&self, token: &str) -> Result<u64, cdk::Error> {
        self.wallet.receive(token, ReceiveOptions::default()).await.map(u64::from)
    }

    /// What can be spent.
    pub async fn balance(&self) -> u64 {
        self.wallet.total_balance().await.expect("balance").into()
    }
}
