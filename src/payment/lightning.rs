//! Keys that are filled over Lightning.

use super::keys::broken;
use super::payer::{Till, is_credited};
use super::{Payment, read_key};
use crate::failure::{Code, Failure};
use crate::ledger::AccountId;
use crate::ledger::terms::Limits;
use crate::money::Sat;
use crate::net::Peer;
use crate::wallet::{Invoice, InvoiceError, InvoiceStatus, OFFERED_SECS};

/// Most that one invoice may be for, in sat.
const MAX_SATS: u64 = 1_000_000;
/// What the names of invoices are sealed under, for those who may only watch them.
const WATCHED: &str = "invoice that is watched";

/// What an invoice may be for.
///
/// # Errors
/// When the amount is nothing, or too much.
pub fn amount(sats: Option<u64>) -> Result<Sat, Failure> {
    let sats = sats.filter(|sats| (1..=MAX_SATS).contains(sats)).and_then(Sat::new);
    sats.ok_or_else(|| Failure::client(Code::InvalidRequest, format!("amount_sats must be 1 to {MAX_SATS}.")))
}

/// The key that a top-up is for, as its owner writes it.
///
/// # Errors
/// When the text is no key.
pub fn key_to_fill(text: &str) -> Result<Payment, Failure> {
    read_key(text.trim()).map_err(|_| {
        let message = "api_key must be a key of this node (sk-…) or the token it was made of.";
        Failure::client(Code::TopUpKeyFormat, message)
    })
}

/// An invoice, and the key that its payment made.
#[derive(Debug)]
pub struct Billed {
    pub invoice: Invoice,
    /// Without `sk-`. Once it is paid, and only for an invoice that makes a key.
    pub key: Option<String>,
}

impl Till {
    /// An invoice whose payment makes a key, with limits if wanted. Whoever knows the invoice's id
    /// gets the key once it is paid. `address` is whose allowance it counts against.
    ///
    /// # Errors
    /// When no mint makes one, or the address has had too many.
    pub async fn invoice_for_key(&self, sats: Sat, limits: Limits, address: Option<Peer>) -> Result<Invoice, Failure> {
        self.may_come_in()?;
        let id = uuid::Uuid::new_v4().to_string();
        self.admit_invoice(&id, address, true).await?;
        let made = self.make_invoice_for_key(id.clone(), sats, limits).await;
        // It counts only if it came about.
        made.inspect_err(|_| self.visitors().not_made(address, &id, true))
    }

    async fn admit_invoice(&self, id: &str, address: Option<Peer>, is_new: bool) -> Result<(), Failure> {
        let noted = self.visitors().waiting(address);
        let waiting = self.wallet().waiting_of(noted.clone()).await;
        let waiting = waiting.map_err(|error| invoice_failure(error.into()))?;
        let ended: Vec<String> = noted.into_iter().filter(|id| !waiting.contains(id)).collect();
        self.visitors().ended(address, &ended);
        let end_ms = self.wallet().ledger().clock().now_ms().saturating_add(OFFERED_SECS.saturating_mul(1000));
        self.visitors().admit_invoice(address, id, end_ms, is_new).map_err(|wait| {
            let message =
                "Too many invoices were asked for from this address; pay those that wait, or try again later.";
            Failure::client(Code::TooManyRequests, message).retrying(wait.0)
        })
    }

    async fn make_invoice_for_key(&self, id: String, sats: Sat, limits: Limits) -> Result<Invoice, Failure> {
        let wallet = self.wallet();
        let mint = wallet.mints().first().ok_or_else(no_mint)?;
        let key_hash = self.token_hash_of(&self.vault().derived_key(&id));
        let opened = wallet.ledger().open_limited(&key_hash, mint, wallet.unit().as_str(), limits).await;
        wallet.invoice(id, opened.map_err(broken)?, sats).await.map_err(invoice_failure)
    }

    /// The account that a top-up of this key is added to: for a child key, its parent's. Never redeems: the
    /// token that made a key is its name.
    ///
    /// # Errors
    /// When there is no such key.
    pub async fn account_to_fill(&self, payment: &Payment) -> Result<AccountId, Failure> {
        let hex = match payment {
            Payment::Key(hex) => hex,
            Payment::TokenKey(token) => &token.id,
            _ => return Err(Failure::payment(Code::TopUpUnauthorized, "A top-up needs the key that it is for.")),
        };
        let found = self.look_up(hex).await?;
        let account = found.ok_or_else(|| Failure::client(Code::TopUpKeyNotFound, "This node has no such key."))?;
        Ok(account.purse())
    }

    /// A name under which anybody may see how an invoice stands, and no more: whoever knows its id gets
    /// the key that it makes.
    ///
    /// # Errors
    /// Never in practice, see [`crate::vault::Vault::seal`].
    pub fn watched(&self, id: &str) -> Result<String, Failure> {
        let sealed = self.vault().seal(WATCHED, id.as_bytes()).map_err(|_| Failure::internal())?;
        // As a part of an address.
        Ok(sealed.replace('+', ".").replace('/', "_").trim_end_matches('=').to_owned())
    }

    /// How the invoice of this name stands.
    ///
    /// # Errors
    /// When there is no invoice of this name.
    pub async fn watch(&self, name: &str) -> Result<InvoiceStatus, Failure> {
        let mut sealed = name.replace('.', "+").replace('_', "/");
        while !sealed.len().is_multiple_of(4) {
            sealed.push('=');
        }
        let id = self.vault().unseal(WATCHED, &sealed).ok().and_then(|id| String::from_utf8(id).ok());
        Ok(self.invoice_status(&id.ok_or_else(not_found)?).await?.invoice.status)
    }

    /// An invoice whose payment is added to a key. While it waits, it counts against the allowance of `address`, since
    /// keys cost next to nothing; where nothing was ever paid for the key, it counts as one for a new key: anybody
    /// makes any number of such, of tokens that are invented.
    ///
    /// # Errors
    /// When no mint makes one, or the key or the address has had too many.
    pub async fn invoice_for(&self, account: AccountId, sats: Sat, address: Option<Peer>) -> Result<Invoice, Failure> {
        self.may_come_in()?;
        let id = uuid::Uuid::new_v4().to_string();
        let (key, _) = self.wallet().ledger().named_account(account).await.map_err(broken)?;
        let is_new = !is_credited(&key);
        self.admit_invoice(&id, address, is_new).await?;
        let made = self.wallet().invoice(id.clone(), account, sats).await.map_err(invoice_failure);
        made.inspect_err(|_| self.visitors().not_made(address, &id, is_new))
    }

    /// How an invoice stands.
    ///
    /// # Errors
    /// When there is no invoice with this id.
    pub async fn invoice_status(&self, id: &str) -> Result<Billed, Failure> {
        if !is_text(id) {
            return Err(not_found());
        }
        let found = self.wallet().invoice_status(id).await;
        let invoice = found.map_err(|error| invoice_failure(error.into()))?.ok_or_else(not_found)?;
        if invoice.status != InvoiceStatus::Paid {
            return Ok(Billed { invoice, key: None });
        }
        let key = self.vault().derived_key(id);
        let opens = self.look_up(&key).await?.is_some_and(|account| account.id == invoice.account);
        Ok(Billed { invoice, key: opens.then_some(key) })
    }

    /// How the invoice with this text stands.
    ///
    /// # Errors
    /// When there is no invoice with this text.
    pub async fn invoice_by_text(&self, bolt11: &str) -> Result<Billed, Failure> {
        if !is_text(bolt11) {
            return Err(not_found());
        }
        let found = self.wallet().invoice_by_text(bolt11).await;
        let id = found.map_err(|error| invoice_failure(error.into()))?.ok_or_else(not_found)?;
        self.invoice_status(&id).await
    }
}

/// Whether both databases can be asked about it: PostgreSQL has no text with a zero in it.
fn is_text(name: &str) -> bool {
    !name.contains('\0')
}

fn not_found() -> Failure {
    Failure::client(Code::InvoiceNotFound, "Invoice not found")
}

fn no_mint() -> Failure {
    invoice_failure(InvoiceError::NoMint)
}

fn invoice_failure(error: InvoiceError) -> Failure {
    match error {
        InvoiceError::NoMint => Failure::unavailable(Code::MintUnreachable, "This node has no mint.", 60),
        InvoiceError::TooMany => {
            let mut failure =
                Failure::client(Code::TooManyRequests, "Too many invoices wait to be paid; pay them or let them end.");
            failure.retry = crate::failure::Retry::After(60);
            failure
        }
        InvoiceError::RateLimited(secs) => {
            Failure::unavailable(Code::MintRateLimited, "The mint limits its callers; try again.", secs)
        }
        InvoiceError::Unreachable => {
            Failure::unavailable(Code::MintUnreachable, "The mint cannot be reached; try again.", 5)
        }
        InvoiceError::Refused(why) => {
            Failure::unavailable(Code::InvoiceFailed, format!("The mint makes no invoice for this: {why}"), 60)
        }
        InvoiceError::Wallet(error) => {
            tracing::error!(%error, "an invoice could not be made or looked up");
            Failure::internal()
        }
    }
}
