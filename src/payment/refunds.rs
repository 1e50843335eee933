//! Giving back: the balance of a key, as a token or over Lightning, and the change of a token that rode
//! on a request.

use super::keys::child_key;
use super::payer::Till;
use super::{Payment, unauthorized};
use crate::config;
use crate::failure::{Code, Failure, Funds};
use crate::ledger::{Account, AccountKind};
use crate::lnurl::Recipient;
use crate::money::{MintUnit, Msat};
use crate::wallet::{Change, Destination, RefundError};

/// Seconds to wait for a refund that is being made.
const REFUND_RETRY: u64 = 2;
/// Seconds after which to ask again for the money of a mint that the operator took off the list.
const MINT_GONE_RETRY: u64 = 3600;

/// Seconds after which a mint may have been filled again.
const SHORT_RETRY: u64 = 60;

/// What a refund is asked for.
#[derive(Debug)]
pub enum Ask {
    /// All that is there.
    Balance(Destination),
    /// What went out by this entry of the history.
    Again(i64),
}

/// What was given.
#[derive(Debug)]
pub enum Given {
    /// Ecash. `amount` is what the token is worth.
    Token { token: String, amount: Msat, mint: String },
    /// A payment over Lightning. `amount` is what the recipient got.
    Sent { recipient: String, amount: Msat, fee: Msat },
    /// Nothing of this node's: only what is left over at foreign mints is there.
    Nothing,
}

/// A refund that was made.
#[derive(Debug)]
pub struct Refunded {
    pub given: Given,
    /// The unit of the money that was paid in.
    pub unit: MintUnit,
    /// Ecash of foreign mints that was left over when tokens were swapped.
    pub remainders: Vec<String>,
}

/// Where money is to go, as a client writes it: a Lightning address or an LNURL, or a mint of the
/// node's; both may be empty.
///
/// # Errors
/// When one of the two is no such address.
pub fn destination(recipient: &str, mint: &str) -> Result<Destination, Failure> {
    let bad = |message: &str| Failure::client(Code::InvalidRequest, message);
    let (recipient, mint) = (recipient.trim().to_owned(), mint.trim());
    if !recipient.is_empty() && Recipient::parse(&recipient).is_err() {
        return Err(bad("lightning_address must be a Lightning address (user@host) or an LNURL (lnurl1…)."));
    }
    let mint = if mint.is_empty() {
        String::new()
    } else {
        config::mint_url(mint).map_err(|_| bad("mint is not the address of a mint."))?
    };
    Ok(Destination { mint, recipient })
}

impl Till {
    /// Gives back what is on a key, or what was given back before. Never redeems: a token that was not
    /// used here is best kept as it is.
    ///
    /// # Errors
    /// When there is nothing to give, or it cannot be given now.
    pub async fn refund(&self, payment: &Payment, ask: &Ask) -> Result<Refunded, Failure> {
        let key = payment.key_hex().ok_or_else(unauthorized)?;
        let account = self.look_up(key).await?.ok_or_else(|| Failure::payment(Code::KeyNotFound, "Key not found"))?;
        if account.parent.is_some() {
            return Err(child_key("A child key has no balance of its own; refund its parent."));
        }
        let change = match ask {
            Ask::Balance(to) => self.wallet().refund(account.id, to).await,
            Ask::Again(entry) => self.wallet().return_again(account.id, *entry).await,
        };
        self.refunded(change, refund_failure, Some(&account)).await
    }

    /// The change of a token that rode on a request, by the token's id: the newest, or what went out by
    /// an entry of its history.
    ///
    /// # Errors
    /// When none is due, or it cannot be given now.
    pub async fn claim_change(&self, id: &str, entry: Option<i64>) -> Result<Refunded, Failure> {
        let change = match entry {
            None => self.wallet().claim(&self.token_hash_of(id)).await,
            Some(entry) => match self.look_up(id).await? {
                Some(account) => self.wallet().return_again(account.id, entry).await,
                None => Err(RefundError::Unknown),
            },
        };
        let account = self.look_up(id).await?;
        self.refunded(change, claim_failure, account.as_ref()).await
    }

    /// Gives back what a credential has here, whichever way it paid: the change of a token that rode on
    /// a request, else the balance of a key.
    ///
    /// # Errors
    /// See [`Till::refund`] and [`Till::claim_change`].
    pub async fn give_back(&self, payment: &Payment, to: Destination) -> Result<Refunded, Failure> {
        let id = payment.key_hex().unwrap_or_default();
        match self.look_up(id).await? {
            Some(account) if account.kind == AccountKind::Token => self.claim_change(id, None).await,
            _ => self.refund(payment, &Ask::Balance(to)).await,
        }
    }

    /// What was given, with what foreign mints gave back: also where that is all that is left.
    async fn refunded(
        &self,
        change: Result<Change, RefundError>,
        failure: fn(RefundError) -> Failure,
        account: Option<&Account>,
    ) -> Result<Refunded, Failure> {
        let is_used_up = is_used_up(&change);
        let given = match change.map_err(failure).and_then(given) {
            Err(failure) if !is_used_up => return Err(failure),
            given => given,
        };
        let Some(account) = account else {
            return Ok(Refunded { given: given?, unit: MintUnit::default(), remainders: Vec::new() });
        };
        let remainders = self.wallet().remainders(account.id).await.unwrap_or_else(|error| {
            tracing::error!(%error, "what was left of foreign ecash could not be looked up");
            Vec::new()
        });
        let given = if remainders.is_empty() { given? } else { given.unwrap_or(Given::Nothing) };
        Ok(Refunded { given, unit: MintUnit::parse(&account.unit).unwrap_or_default(), remainders })
    }
}

/// Whether nothing of the money is left, or will come.
fn is_used_up(change: &Result<Change, RefundError>) -> bool {
    use RefundError::{Nothing, Reclaimed, TooSmall};
    matches!(change, Ok(Change::Nothing | Change::Reclaimed) | Err(Nothing | TooSmall | Reclaimed))
}

fn given(change: Change) -> Result<Given, Failure> {
    match change {
        Change::Token { token, amount, mint } => Ok(Given::Token { token, amount, mint }),
        Change::Sent { recipient, amount, fee } => Ok(Given::Sent { recipient, amount, fee }),
        Change::Nothing => Err(Failure::client(Code::RefundNothing, "No balance to refund")),
        Change::Reclaimed => Err(reclaimed()),
        Change::Failed(_) | Change::Unmade(_) | Change::Owed => Err(pending()),
    }
}

fn claim_failure(error: RefundError) -> Failure {
    match error {
        RefundError::Unknown => not_found(),
        RefundError::Pending | RefundError::Ongoing => pending(),
        // The network's clients stop asking, and forget the token, on exactly this.
        RefundError::Nothing | RefundError::TooSmall => {
            Failure::payment(Code::TokenAlreadySpent, "This Cashu token was used up: no change is due.")
        }
        RefundError::Reclaimed => reclaimed(),
        RefundError::MintGone => mint_gone("").funds(Funds::Claimable),
        RefundError::Unmade(why) => short(&format!("Change could not be made: {why}.")).funds(Funds::Claimable),
        RefundError::NoSuchMint | RefundError::Short(_) | RefundError::Undeliverable(_) => {
            Failure::internal().funds(Funds::Claimable)
        }
        RefundError::Wallet(error) => {
            tracing::error!(%error, "change could not be looked up");
            Failure::internal().funds(Funds::Claimable)
        }
    }
}

fn refund_failure(error: RefundError) -> Failure {
    match error {
        RefundError::Ongoing => {
            Failure::client(Code::RefundOngoing, "Cannot refund key. There are ongoing requests for this api key.")
        }
        RefundError::Nothing => Failure::client(Code::RefundNothing, "No balance to refund"),
        RefundError::Unknown => not_found(),
        RefundError::TooSmall => Failure::client(Code::RefundTooSmall, "Balance too small to refund (less than 1 sat)"),
        RefundError::Pending => pending(),
        RefundError::Reclaimed => reclaimed(),
        RefundError::MintGone => {
            mint_gone(" Or name another mint of this node's (`mint`) or a `lightning_address`.").funds(Funds::OnAccount)
        }
        RefundError::NoSuchMint => Failure::client(
            Code::InvalidRequest,
            "This node holds no ecash of that mint. GET /v1/info lists its mints.",
        ),
        RefundError::Short(there) => short(&format!(
            "This node has {} msat of ecash of that mint now. The balance is unchanged; leave `mint` out or name another.",
            there.get()
        ))
        .funds(Funds::OnAccount),
        RefundError::Unmade(why) => {
            short(&format!("The refund was not made: {why}. The balance is unchanged.")).funds(Funds::OnAccount)
        }
        RefundError::Undeliverable(why) => {
            let message = format!("The Lightning payment was not made: {why}. The balance is unchanged.");
            Failure::upstream(Code::LightningFailed, message).funds(Funds::OnAccount)
        }
        RefundError::Wallet(error) => {
            tracing::error!(%error, "a refund failed");
            Failure::internal()
        }
    }
}

fn pending() -> Failure {
    Failure::unavailable(Code::RefundPending, "Refund is pending; retry shortly.", REFUND_RETRY)
}

fn not_found() -> Failure {
    Failure::client(Code::RefundNotFound, "Refund not found")
}

fn reclaimed() -> Failure {
    Failure::client(Code::RefundSwept, "Refund has been swept")
}

fn short(message: &str) -> Failure {
    Failure::unavailable(Code::MintShort, message, SHORT_RETRY)
}

fn mint_gone(or_else: &str) -> Failure {
    let message = format!(
        "The mint that was paid at is not one of this node's any more, so its ecash cannot be given out now. \
         Nothing is lost: the operator must list the mint again.{or_else}"
    );
    Failure::unavailable(Code::MintGone, message, MINT_GONE_RETRY)
}
