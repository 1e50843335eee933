//! The terms of a key: whose money it spends, how much, how long, and where it goes back to.
//!
//! * A *top key* spends its own account. A *child key* has a parent, and spends the parent's.
//! * A *cap* bounds what a key spends: in a window of a day, a week or a month (UTC), or ever. It is
//!   checked where a hold is placed, in the same statement as the balance, so that requests at the
//!   same moment cannot pass it together. What is held counts as spent until it is settled.
//! * A key that the operator *blocked* spends nothing, nor does a child of it. Money comes in and goes back
//!   as before. See [`super::keys`].
//! * A key whose validity has ended spends nothing, nor does a child of it. A parent's cap is on what it spends
//!   itself: a child has a cap of its own.
//! * A key with an *expiry* is paid back after it; until somebody does, it works as before.
//!
//! Figures of what a key spent are carried over from its holds by triggers, and proven by
//! [`super::books`].

pub mod repo;

use super::account::{Account, AccountId, AccountKind};
use super::{Ledger, TransferKind, repo as books};
use crate::money::Msat;
use crate::store::{Durability, StoreError};

/// Most child keys of one parent.
pub const MAX_CHILDREN: i64 = 1_000;

/// Whose money is spent, and by which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The account that is charged.
    pub account: AccountId,
    /// The key that was presented: that account itself, or a child of it. Its terms count.
    pub spender: AccountId,
}

impl From<AccountId> for Source {
    fn from(account: AccountId) -> Self {
        Self { account, spender: account }
    }
}

/// When what was spent is forgotten: at midnight UTC, of any day, of a Monday, of a month's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    Daily,
    Weekly,
    Monthly,
}

impl Reset {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }

    /// The period of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Daily, Self::Weekly, Self::Monthly].into_iter().find(|reset| reset.as_str() == name)
    }
}

/// What a key may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most that it may spend in a window.
    pub cap: Option<Msat>,
    pub reset: Option<Reset>,
    /// Unix seconds from which on it is refused.
    pub valid_until: Option<i64>,
}

impl Limits {
    /// Whether there are any.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    #[must_use]
    pub fn has_ended(&self, now_ms: i64) -> bool {
        self.valid_until.is_some_and(|end| end.saturating_mul(1000) <= now_ms)
    }
}

/// Where a balance is paid to, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// A Lightning address or an LNURL.
    pub address: String,
    /// Unix seconds.
    pub at: i64,
}

/// The terms of one key, as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub account: AccountId,
    pub key_hash: String,
    pub parent: Option<AccountId>,
    pub limits: Limits,
    /// Spent in the current window.
    pub used: Msat,
    /// Set aside for requests that are running.
    pub held: Msat,
    /// Charged since the key has terms.
    pub spent: Msat,
    pub requests: u64,
    pub expiry: Option<Expiry>,
    /// Since when the operator has it blocked, in ms.
    pub blocked_ms: Option<i64>,
    /// So is the key whose money it spends.
    pub parent_is_blocked: bool,
    /// Unix seconds from which on that key is refused, and this one with it.
    pub parent_valid_until: Option<i64>,
    /// The operator's name for it.
    pub label: String,
    /// Its own profile of prices.
    pub profile: Option<String>,
}

impl Terms {
    /// Whether it may spend nothing because the operator says so.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked_ms.is_some() || self.parent_is_blocked
    }

    /// Its limits, with the end that counts: for a child key, its parent's where that is earlier.
    #[must_use]
    pub fn in_force(&self) -> Limits {
        let valid_until = self.limits.valid_until.into_iter().chain(self.parent_valid_until).min();
        Limits { valid_until, ..self.limits }
    }

    /// What the cap leaves; `None`: there is no cap.
    #[must_use]
    pub fn left(&self) -> Option<Msat> {
        Some(self.limits.cap?.excess_over(self.used).excess_over(self.held))
    }
}

/// A key whose balance is to be paid back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiredKey {
    pub account: AccountId,
    pub expiry: Expiry,
    pub balance: Msat,
}

impl ExpiredKey {
    /// Where it stands among those whose time is over.
    #[must_use]
    pub const fn place(&self) -> (i64, AccountId) {
        (self.expiry.at, self.account)
    }
}

/// Some of the keys whose time is over.
#[derive(Clone, Copy, Debug)]
pub struct ExpiredPage {
    /// Those with less are left out.
    pub least: Msat,
    /// Behind this [`ExpiredKey::place`]; from the first on where there is none.
    pub after: Option<(i64, AccountId)>,
    pub limit: i64,
}

/// Why child keys could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The parent cannot pay for them.
    #[error("{available} available")]
    Insufficient { available: Msat },
    #[error("the parent's validity has ended")]
    Expired,
    #[error("the parent is blocked")]
    Blocked,
    #[error("a parent has at most {MAX_CHILDREN} child keys")]
    TooMany,
    /// The parent is a child itself, or is not there.
    #[error("only a top key has child keys")]
    NoParent,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Child keys to be made.
#[derive(Clone, Copy, Debug)]
pub struct Children<'a> {
    pub parent: AccountId,
    /// One for each.
    pub key_hashes: &'a [String],
    pub limits: Limits,
    /// What all of them together cost.
    pub cost: Msat,
    /// Names the purchase in the books.
    pub reference: &'a str,
}

impl Ledger {
    /// The terms of a key, as they are now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn terms(&self, account: AccountId) -> Result<Option<Terms>, StoreError> {
        let mut reader = self.store().read().acquire().await?;
        repo::find(&mut *reader, account, self.clock().now_ms()).await
    }

    /// The child keys of a key, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn children(&self, parent: AccountId) -> Result<Vec<Terms>, StoreError> {
        let mut reader = self.store().read().acquire().await?;
        repo::children(&mut reader, parent, self.clock().now_ms()).await
    }

    /// An account and the hash of the key that opens it.
    ///
    /// # Errors
    /// When there is none, or the database does not answer.
    pub async fn named_account(&self, id: AccountId) -> Result<(Account, String), StoreError> {
        let mut reader = self.store().read().acquire().await?;
        let gone = || StoreError::Inconsistent { table: "accounts", what: format!("{} is gone", id.get()) };
        let account = books::find(&mut *reader, id).await?.ok_or_else(gone)?;
        Ok((account, books::key_hash(&mut reader, id).await?.unwrap_or_default()))
    }

    /// An account for a token or an invoice that is not redeemed yet, with limits from before there is money on it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open_limited(
        &self,
        key_hash: &str,
        mint: &str,
        unit: &str,
        limits: Limits,
    ) -> Result<AccountId, StoreError> {
        let now_ms = self.clock().now_ms();
        let mut tx = self.store().begin(Durability::Full).await?;
        let (id, kind) = (self.next_id(), AccountKind::Key);
        let account = books::ensure_client(&mut tx, id, kind, key_hash, mint, unit, now_ms).await?;
        if !limits.is_none() {
            repo::put_limits(&mut tx, account.id, limits).await?;
        }
        tx.commit().await?;
        Ok(account.id)
    }

    /// Keys whose expiry has passed and that have money, longest expired first, but those that could not be paid today.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn expired_keys(&self, page: ExpiredPage) -> Result<Vec<ExpiredKey>, StoreError> {
        let mut reader = self.store().read().acquire().await?;
        repo::expired_keys(&mut reader, self.clock().now_ms(), page).await
    }

    /// Notes where the balance of a top key goes, and when. Writes only what is new.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn put_expiry(&self, account: AccountId, expiry: &Expiry) -> Result<(), StoreError> {
        if self.terms(account).await?.and_then(|terms| terms.expiry).as_ref() == Some(expiry) {
            return Ok(());
        }
        let mut tx = self.store().begin(Durability::Full).await?;
        repo::put_expiry(&mut tx, account, expiry).await?;
        tx.commit().await
    }

    /// What a transfer out of this account was for.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn reference_of(&self, account: AccountId, transfer: i64) -> Result<Option<String>, StoreError> {
        let mut reader = self.store().read().acquire().await?;
        books::reference_of(&mut reader, account, transfer).await
    }

    /// Forgets what a key used in its window.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn zero_window(&self, account: AccountId) -> Result<(), StoreError> {
        let mut tx = self.store().begin(Durability::Full).await?;
        repo::zero_window(&mut tx, account).await?;
        tx.commit().await
    }

    /// Ends the windows of keys that a clock has begun which was ahead, and was set back since: they would last for as
    /// long as it was wrong. Returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn end_windows_ahead(&self) -> Result<u64, StoreError> {
        let mut tx = self.store().begin(Durability::ProcessSafe).await?;
        let ended = repo::end_windows_ahead(&mut tx, self.clock().now_ms()).await?;
        tx.commit().await?;
        Ok(ended)
    }

    /// Makes child keys and charges the parent for them, in one synced transaction. Returns what the
    /// parent has left. For keys that it made before, it charges nothing.
    ///
    /// # Errors
    /// See [`ChildError`]; nothing has happened then.
    pub async fn add_children(&self, wanted: Children<'_>) -> Result<Msat, ChildError> {
        let now_ms = self.clock().now_ms();
        let mut tx = self.store().begin(Durability::Full).await?;
        if !wanted.cost.is_zero() {
            // Before the parent, as where holds are charged: else each could wait for the other.
            books::find_locked(&mut tx, self.house().income).await?;
        }
        let parent = books::find_locked(&mut tx, wanted.parent).await?.ok_or(ChildError::NoParent)?;
        if parent.parent.is_some() {
            return Err(ChildError::NoParent);
        }
        if let Some(first) = wanted.key_hashes.first()
            && let Some(made) = books::find_by_key(tx.hand(), first).await?
            && made.parent == Some(parent.id)
        {
            return Ok(parent.balance.available());
        }
        let terms = repo::find(tx.hand(), parent.id, now_ms).await?;
        if terms.as_ref().is_some_and(Terms::is_blocked) {
            return Err(ChildError::Blocked);
        }
        if terms.is_some_and(|terms| terms.limits.has_ended(now_ms)) {
            return Err(ChildError::Expired);
        }
        let new = i64::try_from(wanted.key_hashes.len()).unwrap_or(i64::MAX);
        if repo::count_children(tx.hand(), parent.id).await?.saturating_add(new) > MAX_CHILDREN {
            return Err(ChildError::TooMany);
        }
        let available = parent.balance.available();
        let left = available.checked_sub(wanted.cost).ok_or(ChildError::Insufficient { available })?;
        let bought = books::Transfer {
            id: self.next_id(),
            debit: parent.id,
            credit: self.house().income,
            amount: wanted.cost,
            kind: TransferKind::ChildKey,
            reference: wanted.reference,
        };
        books::transfer(&mut tx, bought, now_ms).await?;
        for key_hash in wanted.key_hashes {
            let (kind, id) = (AccountKind::Key, self.next_id());
            let child = books::ensure_client(&mut tx, id, kind, key_hash, &parent.mint, &parent.unit, now_ms).await?;
            repo::insert_child(&mut tx, child.id, parent.id, wanted.limits).await?;
        }
        tx.commit().await?;
        Ok(left)
    }
}
