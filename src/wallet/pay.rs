//! Money goes back over Lightning: to a Lightning address or an LNURL (LUD-06, LUD-16), paid by the
//! mint with the node's ecash (NUT-05, NUT-08).
//!
//! The operator may also name an invoice; then it is paid, and no server asked for one.
//!
//! 1. The amount has left the account, and is owed (see [`super::change`]).
//! 2. Proofs worth it are reserved; the recipient's server gives an invoice for what is left after
//!    the mint's fees, which are bounded. Nothing was sent yet: whatever fails here puts the money
//!    back on its account.
//! 3. The payment is planned, written, and sent. From here on only evidence ends it.
//! 4. What the payment used leaves the books; what is left of the fee reserve goes back to the
//!    account.

use std::str::FromStr;

use cdk::Bolt11Invoice;
use cdk::nuts::{MeltQuoteBolt11Request, Proof};
use cdk_common::wallet::ProofInfo;

use super::change::{Change, plain, returned, sum_infos};
use super::foreign::fee_bound;
use super::health::Priority;
use super::incoming::proof_infos;
use super::journal::{self, Kind, Operation, State, Step};
use super::melt::{self, Plan, Standing, blanks_for};
use super::mint::HttpMint;
use super::refusal::{MintError, Refusal};
use super::steps::{Attempt, DENIED_MS};
use super::{Trusted, Wallet, WalletError, currency, swap};
use crate::clock::DAY_MS;
use crate::failpoint::failpoint;
use crate::ledger::repo::{self as books, Transfer};
use crate::ledger::{AccountId, TransferKind};
use crate::lnurl::{self, LnurlError, Offer, Recipient};
use crate::money::Msat;
use crate::store::{Durability, Tx};

/// For how long a mint must say that a payment was not made whose ecash is spent: paying again may be
/// paying twice.
const DENIED_LONG_MS: i64 = DAY_MS;
/// Invoices that are asked for until one fits with its fees into what is owed.
const FITTINGS: u32 = 4;

/// Why a payment did not get as far as the mint.
#[derive(Debug, thiserror::Error)]
enum Unsent {
    #[error("the recipient cannot be paid: {0}")]
    Recipient(#[from] LnurlError),
    #[error("the recipient's invoice is not for the amount that was asked for")]
    Invoice,
    #[error("the mint would charge more for the payment than this node's limit")]
    FeeTooHigh,
    #[error("it is less than the payment would cost")]
    TooSmall,
    #[error("the mint does not make the payment: {0}")]
    Mint(#[from] MintError),
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

/// Who is paid.
enum Payee {
    /// Somebody whose server gives invoices.
    Offer(Offer),
    /// One invoice.
    Invoice(Box<Bolt11Invoice>),
}

/// An invoice that fits, and what paying it takes.
struct Quoted {
    quote: String,
    payment_hash: String,
    amount: u64,
    /// All that the mint wants beside the amount.
    fee: u64,
    fee_reserve: u64,
}

impl Wallet {
    /// Steps 2 to 4, with the operation's lane taken.
    pub(super) async fn pay(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        attempt: Attempt,
    ) -> Result<Change, WalletError> {
        if attempt == Attempt::First {
            return self.start_payment(trusted, operation).await;
        }
        let Some(operation) = self.reopen(operation).await? else {
            return self.ended(&operation.id).await;
        };
        if operation.plan.is_empty() {
            self.set_free(trusted, &operation).await?;
            return self.start_payment(trusted, &operation).await;
        }
        let plan = operation.melt_plan()?;
        let seed = &self.inner.seed;
        let standing = match melt::resolve(&trusted.http, &trusted.keysets, seed, &plan, None).await? {
            Standing::Unpaid(_) => melt::send(&line(trusted, &operation), &trusted.keysets, seed, &plan).await?,
            standing => standing,
        };
        self.finish_payment(trusted, &operation, &plan, standing, Attempt::Later).await
    }

    async fn start_payment(&self, trusted: &Trusted, operation: &Operation) -> Result<Change, WalletError> {
        let plan = match self.plan_payment(trusted, operation).await {
            Ok(plan) => plan,
            Err(Unsent::Wallet(error @ (WalletError::Store(_) | WalletError::Ecash(_) | WalletError::Busy))) => {
                return Err(error);
            }
            // That the mint is not to be had now says nothing against this payment: the journal tries again.
            Err(Unsent::Mint(error)) if operation.kind == Kind::Expiry && !error.is_refusal() => {
                return Err(error.into());
            }
            Err(unsent) => return self.put_back(trusted, operation, &unsent.to_string()).await,
        };
        failpoint!("pay.planned");
        let standing = melt::send(&line(trusted, operation), &trusted.keysets, &self.inner.seed, &plan).await?;
        failpoint!("pay.melted");
        self.finish_payment(trusted, operation, &plan, standing, Attempt::First).await
    }

    async fn plan_payment(&self, trusted: &Trusted, operation: &Operation) -> Result<Plan, Unsent> {
        let owed = operation.unit.floor(operation.amount);
        let payee = self.find_payee(operation).await?;
        let chosen = self.choose(trusted, operation, owed).await?;
        failpoint!("pay.reserved");
        let input_fee = trusted.keysets.input_fee(chosen.iter().map(|info| info.proof.keyset_id)).await;
        let quoted = match payee {
            Payee::Offer(offer) => self.fit(trusted, operation, &offer, owed, input_fee).await?,
            Payee::Invoice(invoice) => self.fit_invoice(trusted, operation, *invoice, owed, input_fee).await?,
        };
        failpoint!("pay.invoiced");
        Ok(self.write_payment(trusted, operation, chosen, input_fee, quoted).await?)
    }

    async fn find_payee(&self, operation: &Operation) -> Result<Payee, Unsent> {
        if let Ok(invoice) = Bolt11Invoice::from_str(&operation.recipient) {
            return Ok(Payee::Invoice(Box::new(invoice)));
        }
        let recipient = Recipient::parse(&operation.recipient)?;
        Ok(Payee::Offer(lnurl::ask(&recipient, self.reach_of(operation), &self.inner.to_strangers).await?))
    }

    /// Asks what paying this invoice takes. What is owed is what it may take at most.
    async fn fit_invoice(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        invoice: Bolt11Invoice,
        owed: u64,
        input_fee: u64,
    ) -> Result<Quoted, Unsent> {
        let asked = invoice.amount_milli_satoshis().and_then(Msat::new).ok_or(Unsent::Invoice)?;
        let amount = operation.unit.ceil(asked);
        let quoted = self.quote(trusted, operation, invoice, amount).await?;
        let wanted = amount.saturating_add(quoted.fee).saturating_add(input_fee);
        if wanted > owed { Err(Unsent::FeeTooHigh) } else { Ok(quoted) }
    }

    /// The mint's quote for an invoice of this many units.
    async fn quote(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        invoice: Bolt11Invoice,
        amount: u64,
    ) -> Result<Quoted, Unsent> {
        let payment_hash = invoice.payment_hash().to_string();
        let unit = currency(operation.unit);
        let request = MeltQuoteBolt11Request { request: invoice, unit, options: None };
        let quote = line(trusted, operation).quote_melt(&request).await?;
        // Should the mint ask for more than the invoice's amount, the rest is a fee by another name.
        let fee = quote.amount.to_u64().saturating_add(quote.fee_reserve.to_u64()).saturating_sub(amount);
        if fee > self.most_fee(operation) {
            return Err(Unsent::FeeTooHigh);
        }
        Ok(Quoted { quote: quote.quote, payment_hash, amount, fee, fee_reserve: quote.fee_reserve.to_u64() })
    }

    /// Asks for invoices until one fits, with the fee that the mint reserves for it, into what is owed.
    async fn fit(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        offer: &Offer,
        owed: u64,
        input_fee: u64,
    ) -> Result<Quoted, Unsent> {
        let most_fee = self.most_fee(operation);
        let spendable = owed.checked_sub(input_fee).ok_or(Unsent::TooSmall)?;
        // Mints reserve about a percent; the quote tells.
        let mut reserve = (spendable / 100).max(1).min(most_fee);
        for _ in 0..FITTINGS {
            let amount = spendable.checked_sub(reserve).filter(|amount| *amount > 0).ok_or(Unsent::TooSmall)?;
            let msat = operation.unit.to_msat(amount).ok_or(Unsent::TooSmall)?;
            let invoice = Bolt11Invoice::from_str(&offer.invoice(msat).await?).map_err(|_| Unsent::Invoice)?;
            if invoice.amount_milli_satoshis() != Some(msat.get()) {
                return Err(Unsent::Invoice);
            }
            let quoted = self.quote(trusted, operation, invoice, amount).await?;
            if amount.saturating_add(quoted.fee) <= spendable {
                return Ok(quoted);
            }
            reserve = quoted.fee;
        }
        Err(Unsent::FeeTooHigh)
    }

    /// The most that paying this may cost, in units.
    fn most_fee(&self, operation: &Operation) -> u64 {
        operation.unit.floor(fee_bound(operation.amount, self.inner.lightning_fee_percent))
    }

    async fn write_payment(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        chosen: Vec<ProofInfo>,
        input_fee: u64,
        quoted: Quoted,
    ) -> Result<Plan, WalletError> {
        let active = trusted.keysets.active(operation.unit).await?;
        let total = sum_infos(&chosen);
        let most_change = total.saturating_sub(quoted.amount).saturating_sub(input_fee);
        let blanks = blanks_for(most_change);
        let plan = Plan {
            quote: quoted.quote,
            inputs: plain(chosen),
            keyset: active.id.to_string(),
            counter: self.reserve_counters(active.id, blanks).await?,
            blanks,
            amount: quoted.amount,
            total,
            input_fee,
            fee_reserve: quoted.fee_reserve,
            payment_hash: quoted.payment_hash,
        };
        let text = serde_json::to_string(&plan).map_err(|error| WalletError::Ecash(error.to_string()))?;
        let mut tx = self.store().begin(Durability::Full).await?;
        let step = Step { state: State::Acting, plan: &text, result: "" };
        let owner = self.inner.ledger.owner();
        let ours = journal::advance(&mut tx, &operation.id, owner, step, self.clock().now_ms()).await?;
        journal::set_payment_hash(&mut tx, &operation.id, &plan.payment_hash).await?;
        tx.commit().await?;
        if ours { Ok(plan) } else { Err(WalletError::Ecash("another process finished this operation".into())) }
    }

    async fn finish_payment(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        plan: &Plan,
        standing: Standing,
        attempt: Attempt,
    ) -> Result<Change, WalletError> {
        if let Standing::Unpaid(Some(Refusal::Other(_))) = &standing {
            self.doubt(trusted, operation.unit, &plan.inputs).await?;
        }
        let why = match standing {
            Standing::Paid { change, preimage } => {
                let short = plan.is_short(&change);
                if short && !self.is_believed(operation, "a payment's change was used up", DENIED_MS).await? {
                    return Ok(Change::Owed);
                }
                return self.book_payment(trusted, operation, plan, change, &preimage).await;
            }
            Standing::Denied => {
                let denial = "ecash of this wallet was spent, but not for its payment";
                if self.is_believed(operation, denial, DENIED_LONG_MS).await? {
                    let error = MintError::Refused(Refusal::Spent);
                    let spent = self.spent_elsewhere(trusted, operation, &plan.inputs, &error).await?;
                    self.replan(trusted, operation, &spent).await?;
                }
                return Err(MintError::Refused(Refusal::Spent).into());
            }
            // The mint's own answer to the only request that there was.
            Standing::Unpaid(Some(refusal)) if attempt == Attempt::First => refusal.to_string(),
            Standing::NotSent(error) if attempt == Attempt::First && operation.kind != Kind::Expiry => {
                error.to_string()
            }
            Standing::Unpaid(refusal) => {
                // An earlier request may still be under way: the same payment is sent again for a while.
                let denial = "the payment did not come about";
                if !self.is_believed(operation, denial, DENIED_MS).await? {
                    return Ok(Change::Owed);
                }
                refusal.map_or_else(|| denial.to_owned(), |refusal| refusal.to_string())
            }
            Standing::NotSent(error) | Standing::Unknown(error) => {
                self.postpone(operation, State::Unknown, &error.to_string()).await?;
                return Err(error.into());
            }
        };
        self.put_back(trusted, operation, &why).await
    }

    /// Step 4.
    pub(super) async fn book_payment(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        plan: &Plan,
        change: Vec<Proof>,
        preimage: &str,
    ) -> Result<Change, WalletError> {
        let mut infos = proof_infos(&trusted.url, operation, plan.counter, change)?;
        let came_back = sum_infos(&infos);
        if self.was_taken_over(operation).await? {
            return self.ended(&operation.id).await;
        }
        self.drop_stored(&mut infos).await?;
        self.inner.ecash.update_proofs(infos.clone(), swap::ys(&plan.inputs)?).await?;
        failpoint!("pay.kept");

        let used = operation.unit.to_msat(plan.total.saturating_sub(came_back)).unwrap_or_default();
        let sent = operation.unit.to_msat(plan.amount).unwrap_or_default();
        let now_ms = self.clock().now_ms();
        let mut tx = self.store().begin(Durability::Full).await?;
        let step = Step { state: State::Done, plan: &paid_plan(operation, plan, used)?, result: preimage };
        if journal::advance(&mut tx, &operation.id, self.inner.ledger.owner(), step, now_ms).await? {
            self.post_payment(&mut tx, operation, sent, used, now_ms).await?;
        }
        tx.commit().await?;
        self.counts().change.note("lightning");
        failpoint!("pay.done");
        self.recount(trusted, operation.unit).await;
        self.ended(&operation.id).await
    }

    async fn post_payment(
        &self,
        tx: &mut Tx,
        operation: &Operation,
        sent: Msat,
        used: Msat,
        now_ms: i64,
    ) -> Result<(), WalletError> {
        let house = self.inner.ledger.house();
        let mint = self.mint_account(tx, &operation.mint, operation.unit, now_ms).await?;
        // Of what came back too much, nothing is the client's: it has got what was sent.
        let (returned, sent, gain) =
            (operation.amount.excess_over(used.max(sent)), sent.min(used), sent.excess_over(used));
        let fee = used.excess_over(sent).min(operation.amount.excess_over(sent));
        let lost = used.excess_over(operation.amount);
        if !lost.is_zero() {
            tracing::error!(
                operation = %operation.id, mint = %operation.mint, lost = lost.get(),
                "a mint kept more of a payment than was agreed; the node bears it"
            );
        }
        let moves: [(AccountId, AccountId, Msat, TransferKind); 5] = [
            (house.change, mint, sent, TransferKind::PaidOut),
            (house.change, mint, fee, TransferKind::MintFee),
            (house.change, operation.account, returned, TransferKind::Returned),
            (house.change, house.income, gain, TransferKind::Rounding),
            (house.mint_fees, mint, lost, TransferKind::MintFee),
        ];
        for (debit, credit, amount, kind) in moves {
            let id = self.inner.ledger.next_id();
            let transfer = Transfer { id, debit, credit, amount, kind, reference: &operation.id };
            books::transfer(tx, transfer, now_ms).await?;
        }
        Ok(())
    }

    /// Ends a return or a payment that surely was not made: the money is back on its account.
    pub(super) async fn put_back(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        why: &str,
    ) -> Result<Change, WalletError> {
        let now_ms = self.clock().now_ms();
        let ledger = &self.inner.ledger;
        let mut tx = self.store().begin(Durability::Full).await?;
        let step = Step { state: State::Failed, plan: "", result: why };
        let ours = journal::advance(&mut tx, &operation.id, ledger.owner(), step, now_ms).await?;
        if ours {
            let transfer = Transfer {
                id: ledger.next_id(),
                debit: ledger.house().change,
                credit: operation.account,
                amount: operation.amount,
                kind: TransferKind::Returned,
                reference: &operation.id,
            };
            books::transfer(&mut tx, transfer, now_ms).await?;
        }
        tx.commit().await?;
        failpoint!("pay.returned");
        // Otherwise another process works on it, or has ended it: what is reserved is in its hands.
        if ours {
            tracing::warn!(operation = %operation.id, kind = operation.kind.as_str(), why, "what was owed is back on its account");
            self.set_free(trusted, operation).await?;
        }
        self.ended(&operation.id).await
    }

    /// What an operation that has ended gave.
    pub(super) async fn ended(&self, id: &str) -> Result<Change, WalletError> {
        let operation = self.find_operation(id).await?;
        operation
            .map(|operation| returned(&operation))
            .ok_or_else(|| WalletError::Ecash("the operation is gone".into()))
    }
}

/// The mint, for a payment that a client waits for or that nobody does.
fn line(trusted: &Trusted, operation: &Operation) -> HttpMint {
    trusted.http.at(match operation.kind {
        Kind::Payout | Kind::Expiry => Priority::Background,
        _ => Priority::Client,
    })
}

/// What is kept of a payment: what it took, without the proofs.
fn paid_plan(operation: &Operation, plan: &Plan, used: Msat) -> Result<String, WalletError> {
    let sent = operation.unit.to_msat(plan.amount).unwrap_or_default();
    let paid = super::change::Paid { sent: sent.get(), fee: used.excess_over(sent).get(), quote: plan.quote.clone() };
    serde_json::to_string(&paid).map_err(|error| WalletError::Ecash(error.to_string()))
}
