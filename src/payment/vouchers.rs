//! Vouchers: codes that the operator gives away, and that become money on a key.
//!
//! A code is `CS-` and 24 letters of an alphabet without doubles, 120 random bits, of which the first
//! and last four letters are shown in lists; 80 bits are never. It is kept as a keyed hash only, so it
//! is shown once. Typed, case, spaces and dashes do not matter.
//!
//! Redeemed without a key, it makes one, whose secret derives from the code and the node's own secret.
//! So the code goes on naming that key, to whoever has it: an answer that was lost is had again by
//! sending the same code.

use super::Payment;
use super::keys::broken;
use super::payer::Till;
use crate::config::Secret;
use crate::failure::{Code, Failure};
use crate::ledger::terms::Expiry;
use crate::ledger::vouchers::{self, Batch, Funds, MAX_BATCH, New, RedeemError};
use crate::ledger::{Account, Ledger};
use crate::metrics::Method;
use crate::money::{MintUnit, Msat};
use crate::net::Peer;
use crate::vault::{self, LEGIBLE, Vault};

/// Letters of a code, five bits each.
const LETTERS: usize = 24;
/// Letters of each end of a code that are no secret.
const SHOWN: usize = 4;
const GROUP: usize = 4;
const PREFIX: &str = "CS";
/// Longest text that is looked at as a code.
const MAX_TYPED: usize = 128;
/// Longest note.
const MAX_NOTE: usize = 100;

/// A batch as the operator asks for it.
#[derive(Clone, Debug)]
pub struct BatchOrder {
    /// Names the batch: the same name is issued once.
    pub batch: String,
    pub count: usize,
    /// The amount of each voucher.
    pub amount: Msat,
    pub note: String,
    /// In ms since the Unix epoch; none: never.
    pub expires_ms: Option<i64>,
    /// Profile of prices of the keys that they make.
    pub profile: Option<String>,
    /// Whose money it is.
    pub funds: Funds,
}

/// A voucher that was issued, with the code that nobody can look up again.
#[derive(Clone, Debug)]
pub struct Issued {
    pub code: Secret,
    pub hint: String,
}

/// Why no voucher was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("{0}")]
    Asked(String),
    #[error(transparent)]
    Ledger(#[from] vouchers::IssueError),
}

/// A voucher's money on a key.
#[derive(Debug)]
pub struct Credited {
    /// Without `sk-`.
    pub key: String,
    /// The amount of the voucher.
    pub amount: Msat,
    /// What the key opens.
    pub account: Account,
}

/// Issues a batch of vouchers. `mints` are those whose ecash may back it.
///
/// # Errors
/// See [`IssueError`]; nothing has happened then.
pub async fn issue(
    ledger: &Ledger,
    vault: &Vault,
    mints: &[String],
    unit: MintUnit,
    wanted: &BatchOrder,
) -> Result<Vec<Issued>, IssueError> {
    check(wanted, ledger.clock().now_ms()).map_err(IssueError::Asked)?;
    if let Some(name) = &wanted.profile {
        let tariffs = ledger.tariffs().await.map_err(vouchers::IssueError::Store)?;
        if tariffs.profile(name).is_none() {
            return Err(IssueError::Asked(format!("There is no profile {name}.")));
        }
    }
    let codes: Vec<String> = (0..wanted.count).map(|_| vault::legible(LETTERS)).collect();
    let new: Vec<New> = codes
        .iter()
        .map(|code| New {
            code_hash: code_hash(vault, code),
            key_hash: vault.key_hash(&key_of(vault, code)),
            hint: hint(code),
        })
        .collect();
    let batch = Batch {
        id: &wanted.batch,
        vouchers: &new,
        amount: wanted.amount,
        note: wanted.note.trim(),
        expires_ms: wanted.expires_ms,
        profile: wanted.profile.as_deref(),
        funds: wanted.funds,
        mints,
        unit: unit.as_str(),
    };
    ledger.issue_vouchers(batch).await?;
    let issued = |code: &String| Issued { code: Secret::new(written(code)), hint: hint(code) };
    Ok(codes.iter().map(issued).collect())
}

fn check(wanted: &BatchOrder, now_ms: i64) -> Result<(), String> {
    if !(1..=MAX_BATCH).contains(&wanted.count) {
        return Err(format!("A batch has 1 to {MAX_BATCH} vouchers."));
    }
    if wanted.amount.is_zero() {
        return Err("A voucher is worth more than nothing.".to_owned());
    }
    if wanted.note.chars().count() > MAX_NOTE || wanted.note.chars().any(char::is_control) {
        return Err(format!("A note is one line of at most {MAX_NOTE} letters."));
    }
    if wanted.expires_ms.is_some_and(|end| end <= now_ms) {
        return Err("That time is over already.".to_owned());
    }
    Ok(())
}

impl Till {
    /// Issues a batch of vouchers.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub async fn issue_vouchers(&self, wanted: &BatchOrder) -> Result<Vec<Issued>, IssueError> {
        let wallet = self.wallet();
        issue(wallet.ledger(), self.vault(), wallet.mints(), wallet.unit(), wanted).await
    }

    /// Redeems a voucher: for the key that `payment` is (for a child key, its parent's money), or for
    /// a key of its own. Repeated in the same way, it answers the same and credits nothing.
    ///
    /// # Errors
    /// When the code is none, or was used; when the address guesses too much.
    pub async fn redeem_voucher(
        &self,
        code: &str,
        payment: Option<(Payment, Option<Expiry>)>,
        address: Option<Peer>,
    ) -> Result<Credited, Failure> {
        self.visitors().admit_guess(address).map_err(|wait| {
            let message = "Too many wrong voucher codes came from this address; try again later.";
            Failure::client(Code::TooManyRequests, message).retrying(wait.0)
        })?;
        let Some(code) = read(code) else {
            self.visitors().guessed_wrong(address);
            return Err(not_found());
        };
        let key = match payment {
            Some((payment, expiry)) => Some(self.open(payment, expiry).await?),
            None => None,
        };
        let to = key.as_ref().map(|(account, _)| account.purse());
        let ledger = self.wallet().ledger();
        let outcome = ledger.redeem_voucher(&code_hash(self.vault(), &code), to).await;
        if matches!(outcome, Err(RedeemError::Unknown)) {
            self.visitors().guessed_wrong(address);
        }
        let outcome = outcome.map_err(refused);
        self.wallet().counts().paid(Method::Voucher, super::outcome(outcome.as_ref().err()));
        let redeemed = outcome?;
        let key = key.map_or_else(|| key_of(self.vault(), &code), |(_, key)| key);
        let account = self.look_up(&key).await?.ok_or_else(Failure::internal)?;
        Ok(Credited { key, amount: redeemed.amount, account })
    }
}

fn refused(error: RedeemError) -> Failure {
    match error {
        RedeemError::Unknown => not_found(),
        RedeemError::Redeemed => Failure::client(
            Code::VoucherRedeemed,
            "This voucher was redeemed before, in another way. Who did it gets the same answer by doing the same again.",
        ),
        RedeemError::Revoked => Failure::client(Code::VoucherRevoked, "This voucher was revoked by its issuer."),
        RedeemError::Expired => Failure::client(Code::VoucherExpired, "This voucher has expired."),
        RedeemError::OtherPrices => Failure::client(
            Code::InvalidRequest,
            "This voucher has prices of its own. Redeem it without a key: it makes one.",
        ),
        RedeemError::Store(error) => broken(error),
    }
}

fn not_found() -> Failure {
    Failure::client(Code::VoucherNotFound, "There is no such voucher. Is a letter missing or wrong?")
}

fn code_hash(vault: &Vault, code: &str) -> String {
    vault.digest(&[b"voucher", code.as_bytes()])
}

fn key_of(vault: &Vault, code: &str) -> String {
    vault.derived_key(&format!("voucher {code}"))
}

/// A code as it is given to people.
fn written(code: &str) -> String {
    format!("{PREFIX}-{}", vault::grouped(&code.to_ascii_uppercase(), GROUP))
}

/// By what a code is told from others.
fn hint(code: &str) -> String {
    let upper = code.to_ascii_uppercase();
    let first: String = upper.chars().take(SHOWN).collect();
    let last: String = upper.chars().skip(LETTERS.saturating_sub(SHOWN)).collect();
    format!("{PREFIX}-{first}…{last}")
}

/// What was issued, out of what was typed.
fn read(typed: &str) -> Option<String> {
    if typed.len() > MAX_TYPED {
        return None;
    }
    let matters = |letter: &char| !letter.is_whitespace() && !matches!(letter, '-' | '‐' | '‑' | '–' | '—' | '_');
    let letters: String = typed.chars().filter(matters).map(|letter| letter.to_ascii_lowercase()).collect();
    let code = match letters.strip_prefix("cs") {
        Some(rest) if rest.len() == LETTERS => rest.to_owned(),
        _ => letters,
    };
    // There is no letter O in a code.
    let code = code.replace('o', "0");
    (code.len() == LETTERS && code.bytes().all(|byte| LEGIBLE.contains(&byte))).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        for _ in 0..50 {
            let code = vault::legible(LETTERS);
            let text = written(&code);
            assert_eq!(text.len(), 2 + 6 * 5, "{text}");
            let lower = text.to_lowercase();
            for typed in [
                text.clone(),
                lower.clone(),
                text.replace('-', " "),
                text.replace('-', ""),
                code.clone(),
                format!("  {}\n", text.replace('-', "–")),
                text.replace('0', "O"),
                lower.replace('0', "o"),
            ] {
                assert_eq!(read(&typed).as_deref(), Some(code.as_str()), "{typed}");
            }
            let hint = hint(&code);
            let (first, last) = hint.split_once('…').unwrap();
            assert!(text.starts_with(first) && text.ends_with(last), "{hint} {text}");
        }
    }

    /// A code may begin with the letters of the prefix.
    #[test]
    fn a_code_keeps_its_own_first_letters() {
        let code = format!("cs{}", "a".repeat(LETTERS - 2));
        assert_eq!(read(&code), Some(code.clone()));
        assert_eq!(read(&written(&code)), Some(code));
    }

    #[test]
    fn what_is_no_code_is_none() {
        let longest = "a".repeat(MAX_TYPED + 1);
        for typed in ["", "CS-", &"a".repeat(23), &"a".repeat(25), &"1".repeat(24), &"ä".repeat(12), &longest] {
            assert_eq!(read(typed), None, "{typed}");
        }
    }
}
