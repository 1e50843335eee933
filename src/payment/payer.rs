//! A payment becomes an account with enough on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::config::{Clients, Live};
use crate::failure::{Code, Failure, Funds, PaymentHint, Retry};
use crate::ledger::terms::Expiry;
use crate::ledger::{Account, AccountId, AccountKind, Source};
use crate::money::Msat;
use crate::vault::Vault;
use crate::wallet::token::{Token, token_id};
use crate::wallet::{PaymentRequest, RedeemError, TokenFault, Wallet};

use super::visitors::Visitors;
use super::{Payment, token_failure, unauthorized};

/// Who pays, and what happens to what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payer {
    /// The account that is charged.
    pub account: AccountId,
    /// The key that was presented: that account itself, or a child of it.
    pub spender: AccountId,
    /// What is left goes back with the answer, rather than staying on the account.
    pub one_shot: bool,
}

impl Payer {
    #[must_use]
    pub fn source(self) -> Source {
        Source { account: self.account, spender: self.spender }
    }
}

/// Accounts whose keys are remembered.
const KNOWN_KEYS: u64 = 100_000;
/// Accounts whose expiry is remembered, and for how long: another process may change it.
const KNOWN_EXPIRIES: u64 = 10_000;
const EXPIRY_MEMORY: Duration = Duration::from_secs(60);

/// What is remembered of a key.
#[derive(Clone, Debug)]
struct Known {
    source: Source,
    profile: Option<Arc<str>>,
}

/// Turns payments into payers.
#[derive(Clone, Debug)]
pub struct Till {
    wallet: Wallet,
    vault: Vault,
    /// Key hash to account, of accounts that were credited and of child keys. Neither ever changes, but
    /// for the profile: see [`Till::forget`]. What is on the account, and what a key may spend of it, is
    /// always asked of the database.
    known: Cache<String, Known>,
    /// Of what is known: see [`Till::forget`].
    generation: Arc<AtomicU64>,
    /// What was noted lately.
    expiries: Cache<AccountId, Expiry>,
    child_key_cost: Arc<Live<Msat>>,
    /// Whether new money is taken.
    takes_money: Arc<AtomicBool>,
    visitors: Arc<Visitors>,
}

impl Till {
    #[must_use]
    pub fn new(wallet: Wallet, vault: Vault, child_key_cost: Msat, clients: Clients) -> Self {
        let expiries = Cache::builder().max_capacity(KNOWN_EXPIRIES).time_to_live(EXPIRY_MEMORY).build();
        let visitors = Visitors::new(vault.clone(), Arc::clone(wallet.ledger().clock()), clients);
        let known = Cache::new(KNOWN_KEYS);
        let generation = Arc::default();
        let (child_key_cost, takes_money) = (Arc::new(Live::new(child_key_cost)), Arc::new(AtomicBool::new(true)));
        Self { wallet, vault, known, generation, expiries, child_key_cost, takes_money, visitors: Arc::new(visitors) }
    }

    /// What a client pays for a child key.
    #[must_use]
    pub fn child_key_cost(&self) -> Msat {
        *self.child_key_cost.get()
    }

    /// From now on: what a child key costs, what one address may ask for without paying, and whether new money is
    /// taken.
    pub fn set_terms(&self, child_key_cost: Msat, clients: Clients, takes_money: bool) {
        self.child_key_cost.put(child_key_cost);
        self.visitors.set_allowance(clients);
        self.takes_money.store(takes_money, Ordering::Relaxed);
    }

    /// Whether new money is taken. What there is can be spent and paid back in any case.
    #[must_use]
    pub fn takes_money(&self) -> bool {
        self.takes_money.load(Ordering::Relaxed)
    }

    /// Refuses what would bring new money in.
    ///
    /// # Errors
    /// When no new money is taken.
    pub fn may_come_in(&self) -> Result<(), Failure> {
        if self.takes_money() {
            return Ok(());
        }
        let said = "This node takes no new money. What is on keys can be spent and refunded.";
        Err(Failure::client(Code::NotTaken, said))
    }

    /// What asks for this much ecash.
    ///
    /// # Errors
    /// Where none is taken now: no new money is, or there is no mint that it could be of.
    pub fn ask_for(&self, amount: Msat) -> Result<PaymentRequest, Failure> {
        self.may_come_in()?;
        let request = self.wallet.request(amount);
        // One that names no mint would be met by any mint's ecash.
        if request.mints.is_empty() {
            return Err(Failure::unavailable(Code::MintGone, "This node takes no ecash right now.", 60));
        }
        Ok(request)
    }

    /// What one address may ask for without paying.
    #[must_use]
    pub fn allowance(&self) -> Clients {
        self.visitors.allowance()
    }

    pub(super) fn visitors(&self) -> &Visitors {
        &self.visitors
    }

    pub(super) fn expiries(&self) -> &Cache<AccountId, Expiry> {
        &self.expiries
    }

    #[must_use]
    pub fn wallet(&self) -> &Wallet {
        &self.wallet
    }

    /// Refuses what moves money while none may move.
    ///
    /// # Errors
    /// While the node is not sure of its ecash.
    pub fn may_move(&self) -> Result<(), Failure> {
        self.wallet.halted().map_or(Ok(()), |why| Err(recovering(&why)))
    }

    /// Admits a payment that must cover `required`. A token is redeemed here, last of all checks. An
    /// `expiry` that came with it is noted on the key. `known` is what [`Till::check_key`] has found.
    ///
    /// The caller must not drop this future.
    ///
    /// # Errors
    /// With the token untouched, unless the failure says otherwise.
    pub async fn admit(
        &self,
        payment: Payment,
        known: Option<Source>,
        required: Msat,
        model: &str,
        expiry: Option<Expiry>,
    ) -> Result<Payer, Failure> {
        let (source, one_shot) = match payment {
            Payment::Key(hex) => match known {
                Some(known) => (known, false),
                None => (self.by_key(&hex).await?, false),
            },
            Payment::TokenKey(token) => (self.by_token(&token, required, model).await?, false),
            Payment::OneShot(token) => (Box::pin(self.one_shot(&token, required, model)).await?.into(), true),
            Payment::Asking => return Err(Failure::payment(Code::PaymentRequired, "Payment required")),
        };
        if let Some(expiry) = expiry.filter(|_| !one_shot) {
            Box::pin(self.note_expiry(source, expiry)).await?;
        }
        Ok(Payer { account: source.account, spender: source.spender, one_shot })
    }

    /// Whether this is, for sure, the key of an account that was credited. Asks nobody.
    #[must_use]
    pub fn remembers(&self, key_hex: &str) -> bool {
        self.known.contains_key(&self.vault.key_hash(key_hex))
    }

    /// Forgets what is remembered of keys, since the profiles of some have changed.
    pub fn forget(&self) {
        // What was looked up before and comes in after counts no more.
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.known.invalidate_all();
    }

    /// The profile of prices that a key has, or its parent. A token has one only when it is a key already.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn profile(&self, payment: &Payment) -> Result<Option<Arc<str>>, Failure> {
        match payment {
            Payment::Key(hex) => Ok(self.find(hex, |_| true).await?.and_then(|known| known.profile)),
            Payment::TokenKey(token) => Ok(self.find(&token.id, is_credited).await?.and_then(|known| known.profile)),
            Payment::OneShot(_) | Payment::Asking => Ok(None),
        }
    }

    /// Refuses a key that this node does not have, and says whose money another spends, which never changes. Redeems
    /// nothing.
    ///
    /// # Errors
    /// When there is no such key, or the database does not answer.
    pub async fn check_key(&self, payment: &Payment) -> Result<Option<Source>, Failure> {
        match payment {
            Payment::Key(hex) => self.by_key(hex).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Refuses a token that can never be admitted, before the body is looked at: one of a mint that
    /// is not on the list and not swapped, unless it was credited while it was.
    ///
    /// # Errors
    /// With the token untouched.
    pub async fn check_mint(&self, payment: &Payment) -> Result<(), Failure> {
        let (Payment::TokenKey(token) | Payment::OneShot(token)) = payment else {
            return Ok(());
        };
        if self.wallet.takes(&token.mint) || Box::pin(self.look_up(&token.id)).await?.is_some() {
            return Ok(());
        }
        Err(redeem_failure(RedeemError::Untrusted))
    }

    /// The account behind a key or token, creating it from a token never seen before. An `expiry` that
    /// came with it is noted.
    ///
    /// # Errors
    /// When there is none and the token is no good.
    pub async fn open(&self, payment: Payment, expiry: Option<Expiry>) -> Result<(Account, String), Failure> {
        let generation = self.generation.load(Ordering::SeqCst);
        let (account, key) = self.open_account(payment).await?;
        self.remember(self.vault.key_hash(&key), &account, generation);
        if let Some(expiry) = expiry {
            self.note_expiry(Source { account: account.purse(), spender: account.id }, expiry).await?;
        }
        Ok((account, key))
    }

    async fn open_account(&self, payment: Payment) -> Result<(Account, String), Failure> {
        match payment {
            Payment::Key(hex) => {
                let account = self.look_up(&hex).await?.ok_or_else(unknown_key)?;
                Ok((account, hex))
            }
            Payment::TokenKey(token) | Payment::OneShot(token) => {
                let id = token.id.clone();
                let account = match self.look_up(&id).await? {
                    Some(account) if is_credited(&account) => account,
                    _ => {
                        self.appraise(&token).await?;
                        self.redeem(&token, AccountKind::Key).await?
                    }
                };
                Ok((account, id))
            }
            Payment::Asking => Err(unauthorized()),
        }
    }

    /// The account of a key, if there is one; never redeems.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn look_up(&self, key_hex: &str) -> Result<Option<Account>, Failure> {
        self.wallet.account(&self.vault.key_hash(key_hex)).await.map_err(|error| {
            tracing::error!(%error, "an account could not be looked up");
            Failure::internal()
        })
    }

    /// Credits a token to the account whose money a key spends.
    ///
    /// # Errors
    /// See [`Till::admit`].
    pub async fn top_up(&self, account: &Account, token: &Token) -> Result<Msat, Failure> {
        self.appraise(token).await?;
        let key_hash = self.vault.key_hash(&token.id);
        self.wallet.top_up(token, &key_hash, account.purse()).await.map_err(redeem_failure)
    }

    /// What the database knows a token by.
    #[must_use]
    pub fn token_hash(&self, text: &str) -> String {
        self.token_hash_of(&token_id(text))
    }

    /// What the database knows a token or a key by, given the token's id or the key's secret.
    pub(super) fn token_hash_of(&self, id: &str) -> String {
        self.vault.key_hash(id)
    }

    pub(super) fn vault(&self) -> &Vault {
        &self.vault
    }

    async fn by_key(&self, hex: &str) -> Result<Source, Failure> {
        self.find(hex, |_| true).await?.map(|known| known.source).ok_or_else(unknown_key)
    }

    /// Whose money a key spends, and at which prices, if it is one that `counts`.
    async fn find(&self, key_hex: &str, counts: impl Fn(&Account) -> bool) -> Result<Option<Known>, Failure> {
        let key_hash = self.vault.key_hash(key_hex);
        if let Some(known) = self.known.get(&key_hash) {
            return Ok(Some(known));
        }
        let generation = self.generation.load(Ordering::SeqCst);
        match Box::pin(self.look_up(key_hex)).await? {
            Some(account) if counts(&account) => Ok(Some(self.remember(key_hash, &account, generation))),
            _ => Ok(None),
        }
    }

    /// Remembers whose money a key spends, if that never changes. It was looked up in this `generation`.
    fn remember(&self, key_hash: String, account: &Account, generation: u64) -> Known {
        let source = Source { account: account.purse(), spender: account.id };
        let known = Known { source, profile: account.profile.as_deref().map(Arc::from) };
        let is_lasting = is_credited(account) || account.parent.is_some();
        if is_lasting && generation == self.generation.load(Ordering::SeqCst) {
            self.known.insert(key_hash, known.clone());
        }
        known
    }

    async fn by_token(&self, token: &Token, required: Msat, model: &str) -> Result<Source, Failure> {
        if let Some(known) = self.find(&token.id, is_credited).await? {
            return Ok(known.source);
        }
        Box::pin(self.check_value(token, required, model)).await?;
        Ok(Box::pin(self.redeem(token, AccountKind::Key)).await?.id.into())
    }

    async fn one_shot(&self, token: &Token, required: Msat, model: &str) -> Result<AccountId, Failure> {
        self.check_value(token, required, model).await?;
        let key_hash = self.vault.key_hash(&token.id);
        match self.wallet.redeem(token, AccountKind::Token, &key_hash).await {
            Ok(account) => Ok(account.id),
            Err(error) => Err(redeem_failure(error)),
        }
    }

    async fn check_value(&self, token: &Token, required: Msat, model: &str) -> Result<(), Failure> {
        let net = self.appraise(token).await?;
        if net < required {
            return Err(insufficient(required, net, model));
        }
        Ok(())
    }

    /// Refuses a token that would be new money, where none is taken. What became of one that was accepted before is
    /// said as ever.
    async fn may_take(&self, token: &Token) -> Result<(), Failure> {
        let Err(refusal) = self.may_come_in() else { return Ok(()) };
        match self.wallet.has_accepted(&self.vault.key_hash(&token.id)).await.map_err(redeem_failure)? {
            true => Ok(()),
            false => Err(refusal),
        }
    }

    pub(super) async fn appraise(&self, token: &Token) -> Result<Msat, Failure> {
        self.may_take(token).await?;
        let appraisal = self.wallet.appraise(token).await;
        appraisal.map(|appraisal| appraisal.net).map_err(redeem_failure)
    }

    async fn redeem(&self, token: &Token, kind: AccountKind) -> Result<Account, Failure> {
        let key_hash = self.vault.key_hash(&token.id);
        match self.wallet.redeem(token, kind, &key_hash).await {
            Ok(account) => Ok(account),
            // Presented again, or raced: the same money, the same key.
            Err(RedeemError::Known(account)) => Ok(*account),
            Err(error) => Err(redeem_failure(error)),
        }
    }
}

/// Whether money was ever put on it, as far as its figures show. An account without any movement
/// belongs to a redemption that was refused or still runs, or was paid back untouched.
pub(super) fn is_credited(account: &Account) -> bool {
    !account.balance.posted.is_zero() || account.requests > 0
}

pub(super) fn unknown_key() -> Failure {
    Failure::payment(Code::InvalidApiKey, "Invalid API key: this node has no such key.")
}

/// 402 with what is needed and what is there.
#[must_use]
pub fn insufficient(required: Msat, available: Msat, model: &str) -> Failure {
    let message = format!("Insufficient balance: {} mSats required. {} available.", required.get(), available.get());
    Failure::payment(Code::InsufficientBalance, message).needing(PaymentHint {
        required,
        available: Some(available),
        model: (!model.is_empty()).then(|| model.to_owned()),
    })
}

/// 402 that a top-up does not help.
#[must_use]
pub fn limit_reached(required: Msat, left: Msat) -> Failure {
    let message = format!("Balance limit exceeded: {} mSats required. {} left of it.", required.get(), left.get());
    Failure::payment(Code::BalanceLimitExceeded, message)
}

/// 403: the key is not valid any more.
#[must_use]
pub fn key_expired() -> Failure {
    Failure::payment(Code::KeyExpired, "This key's validity has ended.")
}

/// 403: the operator lets the key spend nothing.
#[must_use]
pub fn key_blocked() -> Failure {
    let message = "The operator of this node has blocked this key. What is on it can still be refunded.";
    Failure::payment(Code::KeyBlocked, message)
}

/// 503: the node is not sure of its ecash.
fn recovering(why: &str) -> Failure {
    Failure::unavailable(Code::Recovering, format!("Nothing was taken: {why}."), 60)
}

/// The failure that a client sees for a redemption that did not happen.
#[must_use]
pub fn redeem_failure(error: RedeemError) -> Failure {
    match error {
        RedeemError::Token(TokenFault::UnknownKeyset) => token_failure(&TokenFault::UnknownKeyset),
        RedeemError::Token(fault) => token_failure(&fault),
        RedeemError::Untrusted => Failure::payment(
            Code::UntrustedMint,
            "This node does not take ecash of that mint. GET /v1/info lists the mints it takes.",
        ),
        RedeemError::Known(_) => Failure::payment(
            Code::TokenAlreadySpent,
            "This Cashu token was used here before. Fetch its change with POST /v1/wallet/refund.",
        ),
        RedeemError::ToppedUp(_) => {
            Failure::payment(Code::TokenAlreadySpent, "This Cashu token was used here before, to top up a key.")
        }
        RedeemError::Overlap => Failure::payment(
            Code::TokenAlreadySpent,
            "Some proofs of this Cashu token were used here before, in another token. None was taken now.",
        ),
        RedeemError::Spent => Failure::payment(Code::TokenAlreadySpent, "This Cashu token has already been spent."),
        RedeemError::FeesExceed => {
            Failure::payment(Code::TokenFeesExceedAmount, "The mint's fee exceeds the value of this Cashu token.")
        }
        RedeemError::Refused(why) => {
            Failure::payment(Code::TokenRedemptionFailed, format!("The mint refused this Cashu token: {why}"))
        }
        RedeemError::Stale => Failure::payment(
            Code::TokenRedemptionFailed,
            "The mint refused this Cashu token: its keyset is not accepted.",
        ),
        RedeemError::RateLimited(secs) => Failure::unavailable(
            Code::MintRateLimited,
            "The mint limits its callers. The token is untouched; try again.",
            secs,
        ),
        RedeemError::Unreachable(secs) => Failure::unavailable(
            Code::MintUnreachable,
            "The mint cannot be reached. The token is untouched; try again.",
            secs,
        ),
        RedeemError::Halted(why) => recovering(&why),
        RedeemError::SourceUnreachable => Failure::unavailable(
            Code::SourceMintUnreachable,
            "The mint of this Cashu token cannot be reached. The token is untouched; try again.",
            10,
        ),
        RedeemError::SourceRefused(why) => Failure::payment(
            Code::ForeignSwapFailed,
            format!("This Cashu token could not be swapped to a mint of this node: {why}. It is untouched."),
        ),
        RedeemError::SourceFailed(why) => Failure::payment(
            Code::ForeignSwapLost,
            format!("The mint of this Cashu token took it, but nothing arrived here: {why}. Ask that mint."),
        ),
        RedeemError::Pending(id) => {
            let mut failure = Failure::unavailable(
                Code::RedemptionPending,
                "The mint has not said yet whether it took this token. Send the same token again: it is credited once.",
                2,
            );
            failure.funds = Funds::Pending(id);
            failure
        }
        RedeemError::Wallet(error) => {
            tracing::error!(%error, "a token could not be redeemed");
            let mut failure = Failure::internal();
            failure.retry = Retry::After(5);
            failure
        }
    }
}
