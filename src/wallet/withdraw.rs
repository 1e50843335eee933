//! The operator takes out what was earned: as ecash, or over Lightning to an address or an invoice.
//!
//! A withdrawal is a payout like those that go by themselves (`wallet::payout`), written in the same journal and
//! bounded by the same figures. Its id comes from whoever asks: asked for again under the same id, it is looked up.
//! Ecash is kept with it, and can be had again until the mint says that it was spent.

use std::str::FromStr;

use cdk::Bolt11Invoice;
use cdk::nuts::State as ProofState;
use sqlx::AnyConnection;
use uuid::Uuid;

use super::change::{Change, Destination, RefundError, Source, returned};
use super::foreign::fee_bound;
use super::journal::{self, Fate, Kind, Operation, State};
use super::redeem::RedeemError;
use super::{Wallet, WalletError, payout, swap, token};
use crate::lnurl::Recipient;
use crate::money::{MintUnit, Msat};
use crate::store::{Hand, StoreError};

/// Most payouts of one page.
pub const MOST: i64 = 200;
/// Longest recipient, in characters.
const MAX_CHARS: usize = 4096;

/// Where a withdrawal goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    Ecash,
    /// A Lightning address or an LNURL.
    Address(String),
    /// An invoice (BOLT 11) and what it asks for.
    Invoice(String, Msat),
}

impl To {
    /// Reads it as an operator writes it; nothing: ecash.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::Ecash);
        }
        if text.len() > MAX_CHARS {
            return Err("The recipient is too long.");
        }
        let bare = text.strip_prefix("lightning:").or_else(|| text.strip_prefix("LIGHTNING:")).unwrap_or(text);
        if let Ok(invoice) = Bolt11Invoice::from_str(bare) {
            let asked = invoice.amount_milli_satoshis().and_then(Msat::new).filter(|asked| !asked.is_zero());
            return asked.map(|asked| Self::Invoice(bare.to_owned(), asked)).ok_or("The invoice names no amount.");
        }
        match Recipient::parse(text) {
            Ok(_) => Ok(Self::Address(text.to_owned())),
            Err(_) => Err("The recipient is neither a Lightning address (name@host), an LNURL nor an invoice."),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Ecash => "",
            Self::Address(text) | Self::Invoice(text, _) => text,
        }
    }
}

/// What is to be taken out.
#[derive(Clone, Debug)]
pub struct Withdrawal<'a> {
    /// A UUID that names the act.
    pub id: &'a str,
    /// Whose ecash it is.
    pub mint: &'a str,
    pub unit: MintUnit,
    /// What leaves the earnings. Of an invoice: see [`Wallet::cost_of`].
    pub amount: Msat,
    pub to: &'a To,
}

/// Why nothing was taken out. Nothing has happened then.
#[derive(Debug, thiserror::Error)]
pub enum WithdrawError {
    #[error("no money moves now: {0}")]
    Halted(String),
    #[error("the id of a withdrawal is a UUID")]
    BadId,
    #[error("the amount is not one of whole coins")]
    BadAmount,
    /// Less was earned, and is owed to nobody, at this mint.
    #[error("only {available} of this mint's ecash were earned and are owed to nobody")]
    NotEarned { available: Msat },
    #[error("a payout from this mint is under way; it has to end first")]
    Ongoing,
    #[error("this node does not hold ecash of that mint")]
    NoSuchMint,
    #[error("something else was done under this id")]
    OtherAct,
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

impl From<StoreError> for WithdrawError {
    fn from(error: StoreError) -> Self {
        Self::Wallet(error.into())
    }
}

/// What went to the operator, or is on its way. Holds nothing that is worth money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payout {
    pub id: String,
    pub mint: String,
    pub unit: MintUnit,
    /// What left the earnings.
    pub amount: Msat,
    /// Empty: ecash.
    pub recipient: String,
    pub state: &'static str,
    /// The mint says that the ecash was spent.
    pub is_claimed: bool,
    pub created_ms: i64,
    pub attempts: u32,
    /// What arrived, and what it cost, once it is done. What a payment did not need is income again.
    pub paid: Option<(Msat, Msat)>,
    /// The proof of a payment.
    pub preimage: Option<String>,
    /// Why it failed, or what was said last while nobody knows.
    pub why: String,
}

impl Payout {
    fn of(operation: &Operation) -> Self {
        let is_done = operation.state == State::Done;
        let is_token = operation.recipient.is_empty();
        let paid = match returned(operation) {
            Change::Sent { amount, fee, .. } => Some((amount, fee)),
            Change::Token { amount, .. } => Some((amount, operation.amount.excess_over(amount))),
            _ => None,
        };
        let result = || operation.result.clone();
        Self {
            id: operation.id.clone(),
            mint: operation.mint.clone(),
            unit: operation.unit,
            amount: operation.amount,
            recipient: operation.recipient.clone(),
            state: operation.state.as_str(),
            is_claimed: operation.fate == Fate::Collected,
            created_ms: operation.created_at,
            attempts: operation.attempts,
            paid,
            preimage: (is_done && !is_token && !operation.result.is_empty()).then(result),
            why: if is_done { String::new() } else { result() },
        }
    }
}

/// What went to the operator before a time and id (of a payout that is known), newest first.
///
/// # Errors
/// When the database does not answer.
pub async fn payouts(
    connection: &mut AnyConnection,
    before: Option<(i64, &str)>,
    limit: i64,
) -> Result<Vec<Payout>, StoreError> {
    let before = before.unwrap_or((i64::MAX, ""));
    let found = journal::payouts(connection, before, limit.clamp(1, MOST)).await?;
    Ok(found.iter().map(Payout::of).collect())
}

impl Wallet {
    /// What paying an invoice may take out of the earnings: its amount, and the most that it may cost. What is not
    /// needed of that goes back.
    #[must_use]
    pub fn cost_of(&self, unit: MintUnit, asked: Msat) -> Option<Msat> {
        let most = asked.checked_add(fee_bound(asked, self.inner.lightning_fee_percent))?;
        unit.to_msat(unit.ceil(most))
    }

    /// Takes earnings out. Returns how that stands: it may not be decided yet. The caller must not drop this future.
    ///
    /// # Errors
    /// See [`WithdrawError`].
    pub async fn withdraw(&self, wanted: &Withdrawal<'_>) -> Result<Payout, WithdrawError> {
        if let Some(why) = self.halted() {
            return Err(WithdrawError::Halted(why));
        }
        let id = Uuid::parse_str(wanted.id).map_err(|_| WithdrawError::BadId)?.to_string();
        if wanted.amount.is_zero() || wanted.unit.to_msat(wanted.unit.floor(wanted.amount)) != Some(wanted.amount) {
            return Err(WithdrawError::BadAmount);
        }
        if let Some(begun) = self.find_operation(&id).await? {
            return same_act(&begun, wanted);
        }
        let to = Destination { mint: wanted.mint.to_owned(), recipient: wanted.to.as_str().to_owned() };
        let income = self.inner.ledger.house().income;
        let source = Source::Part { unit: wanted.unit, amount: wanted.amount };
        let begun = self.begin_as(id.clone(), income, Kind::Payout, &to, source).await;
        // The same form, sent a moment earlier, may have taken what this one wants: then it is that one.
        if let Some(found) = self.find_operation(&id).await? {
            return same_act(&found, wanted);
        }
        Err(match begun {
            Ok(_) => WalletError::Ecash("the operation is gone".into()).into(),
            Err(RefundError::Ongoing) => WithdrawError::Ongoing,
            Err(RefundError::TooSmall | RefundError::Nothing) => {
                let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
                let available = payout::free_at(&mut Hand::Pooled(&mut reader), wanted.mint, wanted.unit).await?;
                WithdrawError::NotEarned { available }
            }
            Err(RefundError::NoSuchMint | RefundError::MintGone) => WithdrawError::NoSuchMint,
            Err(RefundError::Wallet(error)) => error.into(),
            Err(error) => WalletError::Ecash(error.to_string()).into(),
        })
    }

    /// One payout, with the ecash that it made, as long as that is not known to be spent.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn payout(&self, id: &str) -> Result<Option<(Payout, Option<String>)>, WalletError> {
        let found = self.find_operation(id).await?.filter(|found| found.kind == Kind::Payout);
        Ok(found.map(|found| {
            let token = match returned(&found) {
                Change::Token { token, .. } if found.fate == Fate::Open => Some(token),
                _ => None,
            };
            (Payout::of(&found), token)
        }))
    }

    /// Asks the mint whether the ecash of a payout was spent, and notes that. `None`: it does not say, or there
    /// is none to ask about.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn look_for_payout(&self, id: &str) -> Result<Option<bool>, WalletError> {
        let Some((payout, Some(text))) = self.payout(id).await? else { return Ok(None) };
        let (Some(trusted), Ok(made)) = (self.trusted(&payout.mint), token::read(&text)) else { return Ok(None) };
        let proofs = match self.open_token(trusted, &made).await {
            Ok((proofs, _)) => proofs,
            Err(RedeemError::Wallet(error)) => return Err(error),
            Err(_) => return Ok(None),
        };
        let ys = swap::ys(&proofs)?;
        let Ok(states) = trusted.http.states(ys.clone()).await else { return Ok(None) };
        let is_spent = states.contains(&ProofState::Spent);
        // Once that is noted, the ecash is not shown any more: part of it would be lost with the rest.
        let all_spent = states.iter().all(|state| *state == ProofState::Spent);
        if all_spent && let Some(operation) = self.find_operation(id).await? {
            self.note_collected(&operation, ys).await?;
        }
        Ok(Some(is_spent))
    }
}

/// What stands under an id, if it is what is asked for.
fn same_act(begun: &Operation, wanted: &Withdrawal<'_>) -> Result<Payout, WithdrawError> {
    let same = begun.kind == Kind::Payout
        && begun.unit == wanted.unit
        && begun.amount == wanted.amount
        && begun.recipient == wanted.to.as_str();
    if same { Ok(Payout::of(begun)) } else { Err(WithdrawError::OtherAct) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::AccountId;

    #[test]
    fn a_payment_shows_its_proof_and_ecash_never_itself() {
        let amount = Msat::new(10_000).unwrap();
        let planned = Operation::planned(Kind::Payout, AccountId(1), "https://m", MintUnit::Sat, amount);
        let plan = r#"{"sent":9000,"fee":1000,"quote":"q"}"#.to_owned();
        let paid = Operation {
            state: State::Done,
            recipient: "me@example.com".to_owned(),
            plan,
            result: "00ff".to_owned(),
            ..planned.clone()
        };
        let seen = Payout::of(&paid);
        assert_eq!(seen.preimage.as_deref(), Some("00ff"));
        assert_eq!(seen.paid.map(|(sent, fee)| (sent.get(), fee.get())), Some((9_000, 1_000)));
        let token = Operation { state: State::Done, result: "cashuB…".to_owned(), ..planned.clone() };
        let seen = Payout::of(&token);
        assert!(!format!("{seen:?}").contains("cashu") && seen.preimage.is_none() && seen.paid.is_some(), "{seen:?}");
        let failed = Operation { state: State::Failed, result: "nobody is there".to_owned(), ..planned };
        assert_eq!(Payout::of(&failed).why, "nobody is there");
    }

    #[test]
    fn a_recipient_is_read_or_refused() {
        assert_eq!(To::read("  "), Ok(To::Ecash));
        assert_eq!(To::read(" me@example.com "), Ok(To::Address("me@example.com".to_owned())));
        // The example of BOLT 11 with 2500 µBTC, and the one without an amount.
        let coffee = "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vgpfna3rh";
        assert_eq!(To::read(coffee), Ok(To::Invoice(coffee.to_owned(), Msat::new(250_000_000).unwrap())));
        assert_eq!(To::read(&format!("lightning:{coffee}")), To::read(coffee));
        let donation = "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap9us6v52vjjsrvywa6rt52cm9r9zqt8r2t7mlcwspyetp5h2tztugp9lfyql";
        assert_eq!(To::read(donation), Err("The invoice names no amount."));
        for text in ["me", "https://example.com", "cashuBo2F0", &"x".repeat(MAX_CHARS + 1)] {
            assert!(To::read(text).is_err(), "{text}");
        }
    }
}
