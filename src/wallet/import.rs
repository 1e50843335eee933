//! Ecash of a foreign mint becomes ecash of a trusted one, over Lightning, and the client's credit.
//!
//! 1. The trusted mint makes an invoice, locked to this wallet (NUT-04, NUT-20). The foreign mint
//!    says what paying it takes (NUT-05). Two or three rounds find the amount that the token pays
//!    for. What it may cost is bounded; nothing was taken yet.
//! 2. In one synced transaction: the token's secrets are claimed, and the operation is written with
//!    the payment, the invoice and the outputs that will be minted on it.
//! 3. The foreign mint pays. Whatever it says, *the trusted mint* decides whether the invoice is paid:
//!    a foreign mint that claims to have paid brings no credit.
//! 4. The ecash is minted, kept and credited, like that of any paid invoice.
//!
//! What the payment did not use comes back as ecash of the foreign mint (NUT-08). It is the client's:
//! its token is kept with the operation, and given out with a refund.

use std::str::FromStr as _;
use std::time::Duration;

use cdk::Bolt11Invoice;
use cdk::mint_url::MintUrl;
use cdk::nuts::{MeltQuoteBolt11Request, MintQuoteState, State as ProofState, Token as CdkToken};
use serde::{Deserialize, Serialize};

use super::foreign::Foreign;
use super::health::Priority;
use super::incoming::{Act, Ended};
use super::journal::{self, Fate, Kind, Operation, State};
use super::melt::{self, Standing, blanks_for};
use super::mint::HttpMint;
use super::outputs::Signed;
use super::plan::Plan;
use super::quote::{self, Quote};
use super::redeem::{RETRY_SECS, RedeemError, Target, refused, unreachable};
use super::refusal::{MintError, Refusal};
use super::steps::{Attempt, write_json};
use super::token::Token;
use super::topup::{GRACE_MS, InvoiceError};
use super::{Trusted, Wallet, WalletError, currency, swap};
use crate::failpoint::failpoint;
use crate::ledger::{Account, AccountId};
use crate::money::{MintUnit, Msat};
use crate::store::Durability;

/// Invoices that are asked for until one fits with its fees into the token.
const ROUNDS: u32 = 3;
/// How often a payment that was not made is sent, before the token is given free.
const ATTEMPTS: u32 = 4;
/// How long both mints may take to say what it costs.
const PLANNING: Duration = Duration::from_secs(20);
/// How long a client waits for a payment that is on its way.
const LOOKS: u32 = 10;
const LOOK: Duration = Duration::from_millis(300);
/// How long it waits for what is left over.
const REMAINDER: Duration = Duration::from_secs(5);
/// Kept where nothing came back, so that nobody asks again.
const NO_REMAINDER: &str = "-";

/// Everything about one import.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Import {
    /// The foreign mint's URL, and the unit of the token.
    foreign: String,
    unit: String,
    /// What the foreign mint is to pay.
    melt: melt::Plan,
    /// What is minted when it has.
    pub(super) quote: Quote,
}

/// An invoice that a token pays for.
struct Fit {
    quote: Quote,
    payment_hash: String,
    /// What it is for.
    credit: Msat,
    /// The foreign mint's name for its payment, and what it counts it as, in the token's unit.
    melt_quote: String,
    counted: u64,
    fee_reserve: u64,
}

/// What the trusted mint says of its invoice.
enum Invoice {
    Paid,
    Unpaid,
    Unknown(MintError),
}

impl Import {
    /// What is kept when it is over: enough to ask for what is left, and nothing that can be spent.
    pub(super) fn spent(mut self) -> Self {
        self.melt.inputs.clear();
        self
    }
}

impl Wallet {
    /// Steps 1 to 4.
    pub(super) async fn import(
        &self,
        token: &Token,
        target: Target<'_>,
        key_hash: &str,
    ) -> Result<Account, RedeemError> {
        let foreigners = self.inner.foreigners.as_ref().ok_or(RedeemError::Untrusted)?;
        let primary = self.inner.order.first().ok_or(RedeemError::Untrusted)?;
        let trusted = self.trusted(primary).ok_or(RedeemError::Untrusted)?;
        let Ok(_permit) = foreigners.permits.try_acquire() else { return Err(RedeemError::RateLimited(5)) };
        let foreign = self.foreign(&token.mint).await.map_err(source_error)?;
        // The operation's name locks the invoice.
        let mut operation = Operation::planned(Kind::Redeem, AccountId(0), primary, self.unit(), Msat::ZERO);
        let planning = self.plan_import(trusted, &foreign, token, &mut operation);
        let planned = tokio::time::timeout(PLANNING, planning).await;
        let import = planned.unwrap_or(Err(RedeemError::SourceUnreachable)).inspect_err(|_| {
            // It may have changed since it was looked at.
            foreigners.forget(&token.mint);
        })?;
        operation.plan = write_json(&import)?;
        operation.state = State::Acting;
        let operation = match self.write_redemption(token, target, key_hash, operation).await {
            Err(RedeemError::Wallet(WalletError::Store(error))) if error.is_duplicate() => {
                return Err(self.known_secrets(token).await?);
            }
            written => written?,
        };
        failpoint!("import.written");
        let lane = self.inner.redeeming.lane(&operation.id);
        let _acting = lane.lock().await;
        self.carry_import(&operation, import, Attempt::First).await.map_err(|error| match error {
            RedeemError::Wallet(error) => {
                tracing::error!(operation = %operation.id, %error, "an import is left to the journal");
                RedeemError::Pending(operation.id.clone())
            }
            decided => decided,
        })
    }

    /// Step 1.
    async fn plan_import(
        &self,
        trusted: &Trusted,
        foreign: &Foreign,
        token: &Token,
        operation: &mut Operation,
    ) -> Result<Import, RedeemError> {
        let mut inputs = token.proofs(&foreign.keysets.infos().await)?;
        inputs.iter_mut().for_each(|proof| proof.dleq = None);
        // Asked while it proves something: later, spent proofs may have been spent by this payment.
        let states = foreign.http.states(swap::ys(&inputs)?).await.map_err(|error| source_error(error.into()))?;
        if states.contains(&ProofState::Spent) {
            return Err(RedeemError::Spent);
        }
        if states.contains(&ProofState::Pending) {
            return Err(source_refused(Refusal::Pending));
        }
        let total = token.unit.floor(token.face);
        let input_fee = foreign.keysets.input_fee(inputs.iter().map(|proof| proof.keyset_id)).await;
        let spendable = total.checked_sub(input_fee).ok_or(RedeemError::FeesExceed)?;
        let fit = self.fit_import(trusted, foreign, token, spendable, operation).await?;
        operation.amount = fit.credit;
        operation.payment_hash.clone_from(&fit.payment_hash);
        let active = foreign.keysets.active(token.unit).await.map_err(source_error)?;
        let amount = fit.counted;
        let blanks = blanks_for(spendable.saturating_sub(amount));
        let melt = melt::Plan {
            quote: fit.melt_quote,
            inputs,
            keyset: active.id.to_string(),
            counter: self.reserve_counters(active.id, blanks).await?,
            blanks,
            amount,
            total,
            input_fee,
            fee_reserve: fit.fee_reserve,
            payment_hash: fit.payment_hash,
        };
        let quote = self.planned_outputs(trusted, operation, fit.quote).await.map_err(unreachable)?;
        Ok(Import { foreign: token.mint.clone(), unit: token.unit.as_str().to_owned(), melt, quote })
    }

    /// Finds an invoice that the token pays for, with as little as possible left over.
    async fn fit_import(
        &self,
        trusted: &Trusted,
        foreign: &Foreign,
        token: &Token,
        spendable: u64,
        operation: &Operation,
    ) -> Result<Fit, RedeemError> {
        let bound = self.inner.foreigners.as_ref().map(|foreigners| foreigners.most_fee(token.face));
        let bound = bound.ok_or(RedeemError::Untrusted)?;
        // Mints reserve about a percent; the quote tells.
        let mut reserve = (spendable / 100).min(token.unit.floor(bound)).max(1);
        let mut best: Option<Fit> = None;
        for _ in 0..ROUNDS {
            let affordable = spendable.checked_sub(reserve).and_then(|units| token.unit.to_msat(units));
            let affordable = affordable.map(|msat| operation.unit.floor(msat)).filter(|units| *units > 0);
            let credit = affordable.and_then(|units| operation.unit.to_msat(units)).ok_or(RedeemError::FeesExceed)?;
            // Checked before anything is taken.
            if token.face.excess_over(credit) > bound {
                break;
            }
            let asked = Operation { amount: credit, ..operation.clone() };
            let (quote, payment_hash) = self.ask_for_quote(trusted, &asked).await.map_err(invoice_error)?;
            let request = Bolt11Invoice::from_str(&quote.bolt11)
                .map_err(|_| RedeemError::SourceRefused("there is no invoice".into()))?;
            let asked = MeltQuoteBolt11Request { request, unit: currency(token.unit), options: None };
            let offer = foreign.http.quote_melt(&asked).await.map_err(|error| source_error(error.into()))?;
            let counted = offer.amount.to_u64();
            let wanted = counted.saturating_add(offer.fee_reserve.to_u64());
            let Some(left) = spendable.checked_sub(wanted) else {
                // One that fitted before is as near as one comes.
                if best.is_some() {
                    break;
                }
                reserve = reserve.saturating_add(wanted.saturating_sub(spendable));
                continue;
            };
            let fee_reserve = offer.fee_reserve.to_u64();
            best = Some(Fit { quote, payment_hash, credit, melt_quote: offer.quote, counted, fee_reserve });
            let tighter = reserve.saturating_sub(left).max(1);
            if tighter >= reserve {
                break;
            }
            reserve = tighter;
        }
        best.ok_or(RedeemError::FeesExceed)
    }

    /// Steps 3 and 4, with the operation's lane taken.
    pub(super) async fn carry_import(
        &self,
        operation: &Operation,
        import: Import,
        attempt: Attempt,
    ) -> Result<Account, RedeemError> {
        let Some(trusted) = self.trusted(&operation.mint) else {
            return Err(RedeemError::Pending(operation.id.clone()));
        };
        let first = attempt == Attempt::First;
        // The foreign mint decides how often this is asked: of what clients need, the first attempt's alone.
        let line = trusted.http.at(if first { Priority::Client } else { Priority::Background });
        let mut invoice = if first { Invoice::Unpaid } else { look_at(&line, &import.quote).await };
        if matches!(invoice, Invoice::Unpaid) {
            let melted = self.pay_import(&import, attempt).await?;
            failpoint!("import.melted");
            invoice = look_at(&line, &import.quote).await;
            let on_its_way =
                first && matches!(melted, Standing::Paid { .. } | Standing::Unknown(MintError::Unknown(_)));
            let mut looks = if on_its_way { LOOKS } else { 0 };
            while looks > 0 && matches!(invoice, Invoice::Unpaid) {
                tokio::time::sleep(LOOK).await;
                invoice = look_at(&line, &import.quote).await;
                looks = looks.saturating_sub(1);
            }
            if matches!(invoice, Invoice::Unpaid) {
                return Err(self.not_paid(operation, &import, melted, attempt).await?);
            }
        }
        match invoice {
            Invoice::Paid => self.mint_import(trusted, operation, import, attempt).await,
            Invoice::Unpaid => Err(RedeemError::Pending(operation.id.clone())),
            Invoice::Unknown(error) => Err(self.wait_for(operation, &error.to_string()).await?),
        }
    }

    /// Has the foreign mint pay, or says how its payment stands.
    async fn pay_import(&self, import: &Import, attempt: Attempt) -> Result<Standing, WalletError> {
        let foreign = match self.foreign(&import.foreign).await {
            Ok(foreign) => foreign,
            Err(WalletError::Mint(_) | WalletError::Address) => return Ok(Standing::NotSent(MintError::NotSent)),
            Err(error) => return Err(error),
        };
        let (http, keysets, seed) = (&foreign.http, &foreign.keysets, &self.inner.seed);
        if attempt == Attempt::Later {
            match melt::resolve(http, keysets, seed, &import.melt, None).await? {
                Standing::Unpaid(_) => {}
                standing => return Ok(standing),
            }
        }
        melt::send(http, keysets, seed, &import.melt).await
    }

    /// The invoice is unpaid: the token is free again where the foreign mint surely did not act, and
    /// lost where it says that it did and time is over. Gives what the client is told.
    async fn not_paid(
        &self,
        operation: &Operation,
        import: &Import,
        melted: Standing,
        attempt: Attempt,
    ) -> Result<RedeemError, RedeemError> {
        let first = attempt == Attempt::First;
        let tried = first || operation.attempts >= ATTEMPTS;
        // What was denied could be done after all while the invoice can be paid.
        let over = import.quote.ends_at().is_some_and(|ends| self.clock().now_secs() > ends);
        let (free, why) = match melted {
            Standing::Unpaid(Some(refusal)) if tried => (Some(source_refused(refusal)), String::new()),
            Standing::Unpaid(None) if !first && tried && over => {
                let why = "the payment did not come about".to_owned();
                (Some(RedeemError::SourceRefused(why)), String::new())
            }
            Standing::NotSent(MintError::Refused(refusal)) if first => (Some(source_refused(refusal)), String::new()),
            Standing::NotSent(_) if first => (Some(RedeemError::SourceUnreachable), String::new()),
            Standing::Paid { .. } => (None, "its mint says that it has paid, but no payment has arrived".to_owned()),
            Standing::Denied => (None, "its proofs were spent, but no payment has arrived".to_owned()),
            Standing::Unpaid(_) => (None, "the payment was not made yet".to_owned()),
            Standing::NotSent(error) | Standing::Unknown(error) => (None, error.to_string()),
        };
        if let Some(error) = free {
            self.refuse(operation, &error.to_string(), Fate::Open).await?;
            if let Some(foreigners) = &self.inner.foreigners {
                foreigners.forget(&import.foreign);
            }
            return Ok(error);
        }
        let over_ms = import.quote.expires_at.saturating_mul(1000).saturating_add(GRACE_MS);
        if self.clock().now_ms() > over_ms {
            tracing::error!(operation = %operation.id, mint = %import.foreign, why, "an import has failed");
            // The claim stays: the same token again is told the same.
            self.fail(operation, &why).await?;
            return Ok(RedeemError::SourceFailed(why));
        }
        self.wait_for(operation, &why).await
    }

    async fn wait_for(&self, operation: &Operation, why: &str) -> Result<RedeemError, RedeemError> {
        tracing::warn!(operation = %operation.id, why, "an import is not decided yet");
        self.postpone(operation, State::Unknown, why).await?;
        Ok(RedeemError::Pending(operation.id.clone()))
    }

    /// Step 4.
    async fn mint_import(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        mut import: Import,
        attempt: Attempt,
    ) -> Result<Account, RedeemError> {
        let lock = quote::lock(&self.inner.seed, &operation.id)?;
        let seed = &self.inner.seed;
        let standing = quote::mint(&trusted.http, &trusted.keysets, seed, &import.quote, &lock).await?;
        failpoint!("import.minted");
        match self.finish_act(trusted, operation, Act::minted(&import.quote), standing, attempt).await? {
            Ended::Kept { new, .. } => {
                failpoint!("import.kept");
                let remainder = tokio::time::timeout(REMAINDER, self.ask_for_remainder(&import)).await;
                let remainder = remainder.ok().and_then(Result::ok).unwrap_or_default();
                let account = self
                    .credit(operation, Msat::ZERO, (&write_json(&import.spent())?, &remainder), Durability::Full)
                    .await?;
                failpoint!("import.credited");
                self.restock(trusted, operation, &new, attempt).await;
                Ok(account)
            }
            // Surely not signed: plan for the keysets as they are now.
            Ended::NotDone(MintError::Refused(Refusal::Stale)) => {
                trusted.keysets.refresh_if_due().await?;
                import.quote = self.planned_outputs(trusted, operation, import.quote).await?;
                self.write_plan(operation, &import).await?;
                Err(self.wait_for(operation, "the mint's keysets have changed").await?)
            }
            Ended::NotDone(error) => Err(self.wait_for(operation, &error.to_string()).await?),
            Ended::Open(_) => Err(RedeemError::Pending(operation.id.clone())),
        }
    }

    /// What the foreign mint gives back of its payment: a token, or word that there is none.
    async fn ask_for_remainder(&self, import: &Import) -> Result<String, WalletError> {
        if import.melt.blanks == 0 {
            return Ok(NO_REMAINDER.to_owned());
        }
        let foreign = self.foreign(&import.foreign).await?;
        match melt::change(&foreign.http, &foreign.keysets, &self.inner.seed, &import.melt).await? {
            Signed::Proofs(proofs) if !proofs.is_empty() => {
                let url = MintUrl::from_str(&import.foreign).map_err(|error| WalletError::Ecash(error.to_string()))?;
                let unit = currency(MintUnit::parse(&import.unit).unwrap_or_default());
                let proofs = proofs.into_iter().map(super::change::without_dleq).collect();
                Ok(CdkToken::new(url, proofs, None, unit).to_string())
            }
            Signed::Proofs(_) | Signed::None => Ok(NO_REMAINDER.to_owned()),
            Signed::Unknown(error) => Err(error.into()),
        }
    }

    /// Ecash of foreign mints that was left over when tokens became credit of this account. Mints that
    /// have not said yet are asked again.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn remainders(&self, account: AccountId) -> Result<Vec<String>, WalletError> {
        let mut reader = self.store().read().acquire().await?;
        let imported = journal::imported(&mut reader, account).await?;
        drop(reader);
        let mut tokens = Vec::new();
        for operation in imported {
            let Plan::Import(import) = Plan::of(&operation) else { continue };
            let mut remainder = operation.result.clone();
            if remainder.is_empty() {
                let asked = tokio::time::timeout(REMAINDER, self.ask_for_remainder(&import)).await;
                let Ok(Ok(found)) = asked else { continue };
                let mut tx = self.store().begin(Durability::Full).await?;
                journal::set_result(&mut tx, &operation.id, &found).await?;
                tx.commit().await?;
                remainder = found;
            }
            if remainder != NO_REMAINDER {
                tokens.push(remainder);
            }
        }
        Ok(tokens)
    }
}

async fn look_at(mint: &HttpMint, quote: &Quote) -> Invoice {
    match quote::state(mint, quote).await {
        Ok(MintQuoteState::Paid | MintQuoteState::Issued) => Invoice::Paid,
        Ok(MintQuoteState::Unpaid) => Invoice::Unpaid,
        Err(error) => Invoice::Unknown(error),
    }
}

/// The foreign mint was asked, and nothing was taken.
fn source_error(error: WalletError) -> RedeemError {
    match error {
        WalletError::Address => RedeemError::Untrusted,
        WalletError::Mint(MintError::Refused(refusal)) => source_refused(refusal),
        WalletError::Mint(_) => RedeemError::SourceUnreachable,
        other => RedeemError::Wallet(other),
    }
}

/// The foreign mint refused.
fn source_refused(refusal: Refusal) -> RedeemError {
    match refused(refusal) {
        RedeemError::Refused(why) => RedeemError::SourceRefused(why),
        RedeemError::Stale => RedeemError::SourceRefused("its keyset is not accepted".into()),
        other => other,
    }
}

/// The trusted mint makes no invoice.
fn invoice_error(error: InvoiceError) -> RedeemError {
    match error {
        InvoiceError::RateLimited(secs) => RedeemError::RateLimited(secs),
        InvoiceError::Unreachable => RedeemError::Unreachable(RETRY_SECS),
        InvoiceError::Wallet(error) => RedeemError::Wallet(error),
        other => RedeemError::SourceRefused(other.to_string()),
    }
}
