//! A Lightning payment fills a key (NUT-04, NUT-20, NUT-23).
//!
//! 1. The operation is written, and the mint asked for a quote that is locked to it.
//! 2. The invoice is written; only then does anybody see it.
//! 3. A job watches the quote, so the payment is credited whether or not the client ever comes
//!    back. When it is paid, outputs are planned and written, then minted.
//! 4. The proofs are kept, and the key is credited with the outcome, like a redeemed token's.
//!
//! An invoice that is paid after its time is credited all the same, for [`GRACE_MS`]; and it is given up only when the
//! mint has said for a while that it is not paid.

use std::str::FromStr;

use cdk::Bolt11Invoice;
use cdk::nuts::{MintQuoteBolt11Request, MintQuoteState};

use super::health::Priority;
use super::incoming::{Act, Ended};
use super::journal::{self, Kind, Operation, State, Step};
use super::keysets::{amount, sum};
use super::quote::{self, Quote};
use super::refusal::{MintError, Refusal};
use super::steps::{Attempt, DENIED_MS, write_json};
use super::swap::Standing;
use super::{Trusted, Wallet, WalletError, currency};
use crate::clock::{DAY_MS, HOUR_MS};
use crate::failpoint::failpoint;
use crate::ledger::AccountId;
use crate::metrics::{Method, Paid};
use crate::money::{Msat, Sat};
use crate::store::Durability;

/// How long an invoice is offered at most, in seconds.
pub const OFFERED_SECS: i64 = 3600;
/// How long after its time a payment still counts, in ms.
pub(super) const GRACE_MS: i64 = DAY_MS;
/// Shortest time between two looks that a client can cause, in ms.
const LOOK_MS: u64 = 2_000;
/// Invoices that may wait at a time: for one key, and for all. Those whose time is over count no more.
const MAX_OPEN_PER_KEY: u64 = 5;
const MAX_OPEN: u64 = 1_000;

/// How far an invoice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvoiceStatus {
    Pending,
    /// Paid; the ecash is being fetched.
    Settling,
    Paid,
    /// Not paid in time. A late payment may still count.
    Expired,
    /// It will never be credited.
    Cancelled,
    /// Its mint is not one of this node's any more: only the operator can find out.
    Stuck,
}

/// An invoice, as its payer sees it.
#[derive(Clone, Debug)]
pub struct Invoice {
    pub id: String,
    pub account: AccountId,
    pub bolt11: String,
    pub amount: Msat,
    pub payment_hash: String,
    pub status: InvoiceStatus,
    /// Unix times in seconds.
    pub created_at: i64,
    pub expires_at: i64,
    pub paid_at: Option<i64>,
}

/// Why there is no invoice.
#[derive(Debug, thiserror::Error)]
pub enum InvoiceError {
    #[error("this node has no mint that it could be paid at")]
    NoMint,
    #[error("too many invoices are waiting to be paid")]
    TooMany,
    #[error("the mint limits its callers; wait {0} s")]
    RateLimited(u64),
    #[error("the mint cannot be reached")]
    Unreachable,
    #[error("the mint makes no invoice for this: {0}")]
    Refused(String),
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

impl From<crate::store::StoreError> for InvoiceError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Wallet(error.into())
    }
}

impl Wallet {
    /// Makes an invoice whose payment is credited to `account`. `id` names it, and is secret to
    /// whoever may see it.
    ///
    /// # Errors
    /// See [`InvoiceError`]; nothing is owed to anybody then.
    pub async fn invoice(&self, id: String, account: AccountId, sats: Sat) -> Result<Invoice, InvoiceError> {
        let unit = self.unit();
        let mint = self.inner.order.first().ok_or(InvoiceError::NoMint)?;
        let trusted = self.trusted(mint).ok_or(InvoiceError::NoMint)?;
        self.may_wait(account).await?;
        let lane = self.inner.redeeming.lane(&id);
        let _turn = lane.lock().await;
        let operation = Operation { id, ..Operation::planned(Kind::TopUp, account, mint, unit, sats.to_msat()) };
        let operation = self.write_plain(operation).await?;
        failpoint!("topup.written");
        match self.ask_for_quote(trusted, &operation).await {
            Ok((quote, hash)) => {
                failpoint!("topup.quoted");
                let operation = self.write_quote(operation, &quote, hash).await?;
                failpoint!("topup.planned");
                Ok(self.invoice_of(&operation, &quote))
            }
            Err(error) => {
                self.fail(&operation, &error.to_string()).await?;
                Err(error)
            }
        }
    }

    /// Whether one more invoice may wait, for this key and for all.
    async fn may_wait(&self, account: AccountId) -> Result<(), InvoiceError> {
        // Older ones are not offered any more: who leaves invoices unpaid is in nobody's way for longer.
        let since_ms = self.clock().now_ms().saturating_sub(OFFERED_SECS.saturating_mul(1000));
        let mut reader = self.store().read().acquire().await.map_err(WalletError::from)?;
        let waiting = journal::count_open(&mut reader, Kind::TopUp, Some(account), since_ms).await?;
        let all = journal::count_open(&mut reader, Kind::TopUp, None, since_ms).await?;
        if waiting >= MAX_OPEN_PER_KEY || all >= MAX_OPEN { Err(InvoiceError::TooMany) } else { Ok(()) }
    }

    /// Looks at an invoice, and asks the mint about it if nobody did for a while.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn invoice_status(&self, id: &str) -> Result<Option<Invoice>, WalletError> {
        let Some(operation) = self.find_operation(id).await?.filter(|operation| operation.kind == Kind::TopUp) else {
            return Ok(None);
        };
        // Either way: a clock that was ahead when somebody looked may be set back.
        let idle = self.clock().now_ms().abs_diff(operation.updated_at);
        let operation = if operation.state.is_open() && idle >= LOOK_MS && self.halted().is_none() {
            self.resume_topup(&operation).await;
            self.find_operation(id).await?.unwrap_or(operation)
        } else {
            operation
        };
        Ok(operation.quote().ok().map(|quote| self.invoice_of(&operation, &quote)))
    }

    /// Which of these invoices still wait to be paid.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn waiting_of(&self, ids: Vec<String>) -> Result<Vec<String>, WalletError> {
        let mut waiting = Vec::new();
        for id in ids {
            if self.find_operation(&id).await?.is_some_and(|operation| operation.state.is_open()) {
                waiting.push(id);
            }
        }
        Ok(waiting)
    }

    /// The id of the invoice with this text.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn invoice_by_text(&self, bolt11: &str) -> Result<Option<String>, WalletError> {
        let Ok(invoice) = Bolt11Invoice::from_str(bolt11.trim()) else { return Ok(None) };
        let mut reader = self.store().read().acquire().await?;
        let hash = invoice.payment_hash().to_string();
        let found = journal::find_by_payment_hash(&mut reader, Kind::TopUp, &hash).await?;
        Ok(found.map(|operation| operation.id))
    }

    fn invoice_of(&self, operation: &Operation, quote: &Quote) -> Invoice {
        let now = self.clock().now_ms().div_euclid(1000);
        let status = match operation.state {
            State::Done => InvoiceStatus::Paid,
            State::Failed => InvoiceStatus::Cancelled,
            _ if self.trusted(&operation.mint).is_none() => InvoiceStatus::Stuck,
            _ if !quote.outputs.is_empty() => InvoiceStatus::Settling,
            _ if now > quote.expires_at => InvoiceStatus::Expired,
            _ => InvoiceStatus::Pending,
        };
        Invoice {
            id: operation.id.clone(),
            account: operation.account,
            bolt11: quote.bolt11.clone(),
            amount: operation.amount,
            payment_hash: operation.payment_hash.clone(),
            status,
            created_at: operation.created_at.div_euclid(1000),
            expires_at: quote.expires_at,
            paid_at: (operation.state == State::Done).then(|| operation.updated_at.div_euclid(1000)),
        }
    }

    pub(super) async fn ask_for_quote(
        &self,
        trusted: &Trusted,
        operation: &Operation,
    ) -> Result<(Quote, String), InvoiceError> {
        let units = operation.unit.floor(operation.amount);
        let request = MintQuoteBolt11Request {
            amount: amount(units),
            unit: currency(operation.unit),
            description: None,
            pubkey: Some(quote::lock(&self.inner.seed, &operation.id)?.public_key()),
        };
        let answer = trusted.http.quote_mint(&request).await.map_err(|error| match error {
            MintError::Refused(Refusal::RateLimited(secs)) => InvoiceError::RateLimited(secs),
            MintError::Held(held) if held.is_limit() => InvoiceError::RateLimited(held.secs()),
            MintError::Refused(refusal) => InvoiceError::Refused(refusal.to_string()),
            MintError::Held(_) | MintError::NotSent | MintError::Unknown(_) => InvoiceError::Unreachable,
        })?;
        let unusable = |what: &str| InvoiceError::Refused(what.to_owned());
        let bolt11 = Bolt11Invoice::from_str(&answer.request).map_err(|_| unusable("its invoice is not one"))?;
        // Paying it must bring what was asked for: otherwise the payer would lose the difference.
        if bolt11.amount_milli_satoshis() != Some(operation.amount.get())
            || answer.amount.is_some_and(|said| said != amount(units))
        {
            return Err(unusable("its invoice is for another amount"));
        }
        let now = self.clock().now_ms().div_euclid(1000);
        let offered = now.saturating_add(OFFERED_SECS);
        let said = answer.expiry.and_then(|expiry| i64::try_from(expiry).ok()).filter(|expiry| *expiry > now);
        let quote = Quote {
            id: answer.quote,
            bolt11: answer.request,
            expires_at: said.unwrap_or(offered).min(offered),
            keyset: String::new(),
            counter: 0,
            outputs: Vec::new(),
        };
        Ok((quote, bolt11.payment_hash().to_string()))
    }

    async fn write_quote(
        &self,
        mut operation: Operation,
        quote: &Quote,
        hash: String,
    ) -> Result<Operation, WalletError> {
        let now_ms = self.clock().now_ms();
        let owner = self.inner.ledger.owner();
        operation.plan = write_json(quote)?;
        operation.state = State::Acting;
        operation.payment_hash = hash;
        let mut tx = self.store().begin(Durability::Full).await?;
        let step = Step { state: State::Acting, plan: &operation.plan, result: "" };
        let ours = journal::advance(&mut tx, &operation.id, owner, step, now_ms).await?;
        journal::set_payment_hash(&mut tx, &operation.id, &operation.payment_hash).await?;
        journal::defer(&mut tx, &operation.id, owner, next_look(&operation, now_ms), now_ms).await?;
        tx.commit().await?;
        if ours { Ok(operation) } else { Err(WalletError::Ecash("the invoice was given up meanwhile".into())) }
    }

    /// Finds out how a top-up stands, and carries it on. Returns whether it has ended.
    pub(super) async fn resume_topup(&self, operation: &Operation) -> bool {
        let Some(trusted) = self.trusted(&operation.mint) else { return false };
        let lane = self.inner.redeeming.lane(&operation.id);
        let _turn = lane.lock().await;
        let resumed = async {
            let Some(operation) = self.reopen(operation).await? else { return Ok(true) };
            self.carry_on(trusted, operation).await
        };
        resumed.await.unwrap_or_else(|error: WalletError| {
            tracing::warn!(operation = %operation.id, %error, "a Lightning top-up is not decided yet");
            false
        })
    }

    async fn carry_on(&self, trusted: &Trusted, operation: Operation) -> Result<bool, WalletError> {
        if operation.plan.is_empty() {
            // Nobody ever saw an invoice, so nobody can have paid one.
            self.fail(&operation, "no invoice came about").await?;
            return Ok(true);
        }
        let mut quote = operation.quote()?;
        let attempt = if quote.outputs.is_empty() { Attempt::First } else { Attempt::Later };
        if attempt == Attempt::First {
            // Anybody can ask for an invoice and for its state: neither goes before what is paid for.
            match quote::state(&trusted.http.at(Priority::Background), &quote).await {
                Ok(MintQuoteState::Paid) => {
                    quote = self.planned_outputs(trusted, &operation, quote).await?;
                    self.write_plan(&operation, &quote).await?;
                    failpoint!("topup.paid");
                }
                // A mint that does not know the quote now may know it again, when its database is back.
                Ok(MintQuoteState::Unpaid) | Err(MintError::Refused(Refusal::UnknownQuote)) => {
                    return self.wait_on(&operation, &quote).await;
                }
                // Issued without this node's outputs: somebody else holds the wallet's seed.
                Ok(MintQuoteState::Issued) => return self.note(&operation, "the mint has issued it before").await,
                Err(error) if error.was_not_sent() => return self.look_later(&operation).await,
                Err(error) => return self.note(&operation, &error.to_string()).await,
            }
        }
        let lock = quote::lock(&self.inner.seed, &operation.id)?;
        let standing = quote::mint(&trusted.http, &trusted.keysets, &self.inner.seed, &quote, &lock).await?;
        failpoint!("topup.issued");
        self.finish_topup(trusted, &operation, quote, standing, attempt).await
    }

    async fn finish_topup(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        quote: Quote,
        standing: Standing,
        attempt: Attempt,
    ) -> Result<bool, WalletError> {
        match self.finish_act(trusted, operation, Act::minted(&quote), standing, attempt).await? {
            Ended::Kept { new, .. } => {
                failpoint!("topup.kept");
                // The payer may read the invoice later.
                self.credit(operation, Msat::ZERO, (&operation.plan, ""), Durability::Full).await?;
                self.counts().paid(Method::Lightning, Paid::Accepted);
                failpoint!("topup.credited");
                self.restock(trusted, operation, &new, attempt).await;
                Ok(true)
            }
            // Surely not signed: plan for the keysets as they are now.
            Ended::NotDone(MintError::Refused(Refusal::Stale)) => {
                trusted.keysets.refresh_if_due().await?;
                self.write_plan(operation, &Quote { outputs: Vec::new(), ..quote }).await?;
                self.note(operation, "the mint's keysets have changed").await
            }
            // It had said that the invoice was paid, and takes it back, or has lost it.
            Ended::NotDone(MintError::Refused(Refusal::Quote(20_001) | Refusal::UnknownQuote)) => {
                self.wait_on(operation, &quote).await
            }
            Ended::NotDone(error) => self.note(operation, &error.to_string()).await,
            Ended::Open(_) => Ok(false),
        }
    }

    /// A quote with the outputs that bring its amount, of counters that nobody else will use.
    pub(super) async fn planned_outputs(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        quote: Quote,
    ) -> Result<Quote, WalletError> {
        let active = trusted.keysets.active(operation.unit).await?;
        let units = operation.unit.floor(operation.amount);
        let outputs = self.split_kept(trusted, operation.unit, units, &active.amounts).await?;
        if sum(&outputs) != units {
            return Err(WalletError::Ecash("the amount cannot be minted".into()));
        }
        let counter = self.reserve_counters(active.id, outputs.len()).await?;
        Ok(Quote { keyset: active.id.to_string(), counter, outputs, ..quote })
    }

    /// Not paid yet: look again later, or give it up when its time and more is over, and the mint has said so for a
    /// while.
    async fn wait_on(&self, operation: &Operation, quote: &Quote) -> Result<bool, WalletError> {
        let now_ms = self.clock().now_ms();
        let ends = quote.ends_at().unwrap_or(quote.expires_at);
        if now_ms <= ends.saturating_mul(1000).saturating_add(GRACE_MS) {
            return self.look_later(operation).await;
        }
        // Whatever its payer sent is lost then, and the mint's backend may be up later than the mint.
        if !self.is_believed(operation, "it is not paid", DENIED_MS).await? {
            return Ok(false);
        }
        self.fail(operation, "not paid in time").await?;
        Ok(true)
    }

    async fn look_later(&self, operation: &Operation) -> Result<bool, WalletError> {
        let now_ms = self.clock().now_ms();
        let mut tx = self.store().begin(Durability::Full).await?;
        let owner = self.inner.ledger.owner();
        journal::defer(&mut tx, &operation.id, owner, next_look(operation, now_ms), now_ms).await?;
        tx.commit().await?;
        Ok(false)
    }

    /// Notes why there is no outcome yet.
    async fn note(&self, operation: &Operation, why: &str) -> Result<bool, WalletError> {
        tracing::warn!(operation = %operation.id, why, "a Lightning top-up is not decided yet");
        self.postpone(operation, State::Unknown, why).await?;
        Ok(false)
    }
}

/// When to look at an unpaid invoice again: often while it is fresh.
fn next_look(operation: &Operation, now_ms: i64) -> i64 {
    let age_ms = now_ms.saturating_sub(operation.created_at);
    let pause_ms = match age_ms {
        ..120_000 => 10_000,
        120_000..600_000 => 30_000,
        600_000..HOUR_MS => 120_000,
        HOUR_MS..DAY_MS => 600_000,
        // Some mints' invoices can be paid for a week.
        _ => journal::LONGEST_PAUSE_MS,
    };
    now_ms.saturating_add(pause_ms)
}
