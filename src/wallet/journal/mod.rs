//! The journal of everything that crosses to a mint, a Lightning address or a client.
//!
//! ```text
//!   planned ──► acting ──► done
//!      │          ├──────► failed     (surely nothing happened)
//!      │          └──► unknown ──► done | failed | planned again
//!      └ nothing sent yet
//! ```
//!
//! A row is written, and synced, before the act, with all that is needed to finish it; the outcome
//! after. An operation whose outcome is unknown stays open until evidence decides it: nothing is
//! guessed. The ledger's side of an outcome is posted in the same transaction as the outcome.
//!
//! A row has an owner, the process that works on it, and a lease: until `due_at` the owner is at
//! work, or waits before the next attempt. After it, the owner takes the row up again; another
//! process does so only when the owner is dead.

mod lookups;
mod writes;

use crate::clock::HOUR_MS;
use crate::ledger::{AccountId, TransferKind};
use crate::money::{MintUnit, Msat};

pub(super) use lookups::*;
pub(super) use writes::*;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A client's token becomes the node's ecash and the client's credit.
    Redeem,
    /// A client's Lightning payment becomes ecash and credit (NUT-04).
    TopUp,
    /// What is left of a token that rode on one request goes back.
    Change,
    /// The balance of a key goes back, because its owner asked.
    Refund,
    /// The balance of a key goes back, because its time is over.
    Expiry,
    /// Earnings go to the operator.
    Payout,
    /// The node's ecash is exchanged for ecash in handier amounts.
    Consolidate,
    /// Change that nobody claimed becomes income: [`Operation::takes_back`] says whose.
    Reclaim,
}

/// What became of a token that was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// Nobody knows; it can be claimed.
    #[default]
    Open,
    /// The mint says that it was spent.
    Collected,
    /// It is being taken back; whether it was still there is not known yet.
    Reclaiming,
    /// It was taken back.
    Reclaimed,
    /// The mint's fee for taking it back would eat it; it can be claimed.
    Left,
}

impl Fate {
    const ALL: [Self; 5] = [Self::Open, Self::Collected, Self::Reclaiming, Self::Reclaimed, Self::Left];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "",
            Self::Collected => "collected",
            Self::Reclaiming => "sweeping",
            Self::Reclaimed => "swept",
            Self::Left => "left",
        }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Planned,
    Acting,
    Unknown,
    Done,
    Failed,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Redeem,
        Self::TopUp,
        Self::Change,
        Self::Refund,
        Self::Expiry,
        Self::Payout,
        Self::Consolidate,
        Self::Reclaim,
    ];

    /// The kind of a row with this name. Two kinds have one; only one of them takes a token back.
    fn read(name: &str, takes_back: bool) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| match kind {
            Self::Consolidate if takes_back => false,
            kind => kind.as_str() == name,
        })
    }

    /// As the row has it, and what is told of it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redeem => "redeem",
            Self::TopUp => "topup",
            Self::Change => "change",
            Self::Refund => "refund",
            Self::Expiry => "expiry",
            Self::Payout => "payout",
            Self::Consolidate | Self::Reclaim => "sweep",
        }
    }

    /// Whether money leaves an account to its owner.
    #[must_use]
    pub fn is_return(self) -> bool {
        matches!(self, Self::Change | Self::Refund | Self::Expiry | Self::Payout)
    }
}

/// What the ledger's transfer of an operation's amount is for.
impl From<Kind> for TransferKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Redeem => Self::Redeem,
            Kind::TopUp => Self::TopUp,
            Kind::Change => Self::Change,
            Kind::Refund => Self::Refund,
            Kind::Expiry => Self::Expiry,
            Kind::Payout => Self::Payout,
            // Its amount is what the mint takes.
            Kind::Consolidate => Self::MintFee,
            Kind::Reclaim => Self::Unclaimed,
        }
    }
}

impl State {
    const ALL: [Self; 5] = [Self::Planned, Self::Acting, Self::Unknown, Self::Done, Self::Failed];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Acting => "acting",
            Self::Unknown => "unknown",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Whether there is still something to do.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Planned | Self::Acting | Self::Unknown)
    }
}

/// The same in SQL.
const OPEN: &str = "state IN ('planned', 'acting', 'unknown')";

/// How long whoever writes a row has for its next step, in ms.
pub(super) const LEASE_MS: i64 = 30_000;

/// The longest that a row waits for its next step, in ms. One that is due later was written by a clock that was ahead,
/// and has been set back since.
pub(super) const LONGEST_PAUSE_MS: i64 = HOUR_MS;

/// The pause after this many attempts without an outcome, in ms.
pub(super) fn pause_ms(attempts: u32) -> i64 {
    match attempts {
        0 => 10_000,
        1 => 30_000,
        2 => 60_000,
        3 => 120_000,
        _ => 600_000,
    }
}

/// One row of the journal.
#[derive(Clone)]
pub struct Operation {
    pub id: String,
    pub kind: Kind,
    pub state: State,
    pub account: AccountId,
    pub mint: String,
    pub unit: MintUnit,
    /// Coming in: what is credited. Going out: what is owed.
    pub amount: Msat,
    /// A Lightning address or an LNURL; empty: it becomes a token.
    pub recipient: String,
    /// The payment hash of the Lightning invoice; empty where there is none.
    pub payment_hash: String,
    /// The act, where one is needed, as text; see [`super::plan::Plan`].
    pub plan: String,
    /// What came of it: the token, the proof of payment, or why it failed or is unknown.
    pub result: String,
    pub owner: String,
    pub due_at: i64,
    pub attempts: u32,
    pub created_at: i64,
    pub updated_at: i64,
    /// What became of the token that was made.
    pub fate: Fate,
    /// The id of the operation whose token a [`Kind::Reclaim`] takes back; `None` for every other kind.
    pub takes_back: Option<String>,
}

impl Operation {
    /// A new one, planned now.
    pub(super) fn planned(kind: Kind, account: AccountId, mint: &str, unit: MintUnit, amount: Msat) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            kind,
            state: State::Planned,
            account,
            mint: mint.to_owned(),
            unit,
            amount,
            recipient: String::new(),
            payment_hash: String::new(),
            plan: String::new(),
            result: String::new(),
            owner: String::new(),
            due_at: 0,
            attempts: 0,
            created_at: 0,
            updated_at: 0,
            fate: Fate::Open,
            takes_back: None,
        }
    }
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operation")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("state", &self.state)
            .field("mint", &self.mint)
            .field("amount", &self.amount)
            .finish_non_exhaustive()
    }
}

/// One movement of a client's money, as it may be shown: never a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// The id of the transfer in the ledger. Newer ones are higher.
    pub id: i64,
    /// Onto the account.
    pub incoming: bool,
    pub kind: TransferKind,
    pub amount: Msat,
    /// The URL of the mint whose ecash was moved; empty where none was.
    pub mint: String,
    pub unit: MintUnit,
    pub created_ms: i64,
    /// Whether it is complete: of ecash that goes out, whether its token was made.
    pub done: bool,
    /// Whether its token was taken back because nobody claimed it.
    pub reclaimed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_as_it_was_written() {
        for kind in Kind::ALL {
            assert_eq!(Kind::read(kind.as_str(), kind == Kind::Reclaim), Some(kind));
        }
        assert_eq!(Kind::read("consolidate", false), None);
    }
}
