//! Keys as the operator sees them: found, blocked, given other terms, and their balance adjusted.
//!
//! * A key is known by the hash of it, never by itself. The operator sees the first digits.
//! * A *blocked* key spends nothing: the statement that places holds refuses it, with those of its children.
//!   What is on it stays its owner's, who can have it back.
//! * An *adjustment* moves money between the income and a key, in one synced transaction. No more is given than
//!   was earned, no more written off than is free. One id, one movement: a form that is sent twice moves money
//!   once.

pub mod repo;

use super::account::{AccountId, Balance};
use super::repo as books;
use super::tariffs;
use super::terms::{Expiry, Limits, Reset, repo as terms};
use super::{AccountKind, Ledger, TransferKind};
use crate::money::Msat;
use crate::store::{Durability, StoreError, Tx};

/// Fewest digits of a hash that are looked for.
pub const MIN_DIGITS: usize = 8;
/// Digits by which a key is shown.
pub const SHOWN_DIGITS: usize = 8;
/// Most keys of one page.
pub const MOST: i64 = 200;
/// Longest label, and longest reason of an adjustment, in characters.
pub const MAX_TEXT: usize = 100;
/// Adjustments of a key that are listed.
const ADJUSTMENTS: i64 = 50;
/// Digits of a whole hash.
const HASH_DIGITS: usize = 64;

/// How a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can spend, as far as it has something.
    Usable,
    Blocked,
    /// Its validity is over.
    Ended,
    /// It spends a parent's money.
    Child,
    /// There is money on it.
    Funded,
}

impl State {
    pub const ALL: [Self; 5] = [Self::Usable, Self::Blocked, Self::Ended, Self::Child, Self::Funded];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Blocked => "blocked",
            Self::Ended => "ended",
            Self::Child => "child",
            Self::Funded => "funded",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// Which keys are looked for: those that all of it is true of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// First digits of the hash, at least [`MIN_DIGITS`].
    pub hash: Option<String>,
    /// A part of the label.
    pub label: Option<String>,
    /// The profile of prices that a key has itself: its parent's does not count.
    pub profile: Option<String>,
    pub state: Option<State>,
}

impl Filter {
    /// Reads it as people write it; what is empty is not asked for.
    ///
    /// # Errors
    /// What makes no sense, in a sentence.
    pub fn read(hash: &str, label: &str, profile: &str, state: &str) -> Result<Self, String> {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let hash = given(&hash.to_ascii_lowercase());
        let is_hash = |hash: &String| {
            (MIN_DIGITS..=HASH_DIGITS).contains(&hash.len()) && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if hash.as_ref().is_some_and(|hash| !is_hash(hash)) {
            return Err(format!("A hash is looked for by its first {MIN_DIGITS} to {HASH_DIGITS} digits (0-9, a-f)."));
        }
        let state = given(state)
            .map(|name| {
                let names = State::ALL.map(State::as_str).join(", ");
                State::parse(&name).ok_or_else(|| format!("A state is one of {names}."))
            })
            .transpose()?;
        Ok(Self { hash, label: given(label), profile: given(profile), state })
    }
}

/// A key, as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub id: AccountId,
    /// All digits; see [`Key::short`].
    pub hash: String,
    /// The money on the key itself. A child key has none of its own: it spends its parent's.
    pub balance: Balance,
    /// Set aside for its requests that run.
    pub held: Msat,
    pub spent: Msat,
    pub requests: i64,
    pub mint: String,
    pub unit: String,
    pub created_ms: i64,
    pub parent: Option<AccountId>,
    /// The parent's, all digits.
    pub parent_hash: Option<String>,
    pub children: i64,
    pub label: String,
    /// The profile of prices that it pays by: its own, or else its parent's; `None`: neither has one.
    pub profile: Option<String>,
    pub own_profile: Option<String>,
    pub limits: Limits,
    /// What it has spent of its limit in the current window.
    pub used: Msat,
    pub blocked_ms: Option<i64>,
    pub parent_is_blocked: bool,
    /// Unix seconds.
    pub parent_valid_until: Option<i64>,
    pub expiry: Option<Expiry>,
    /// When it last paid for something, where that is known.
    pub last_used_ms: Option<i64>,
}

impl Key {
    /// The first digits of its hash.
    #[must_use]
    pub fn short(&self) -> String {
        short(&self.hash)
    }

    /// How it stands, in a word.
    #[must_use]
    pub fn state(&self, now_ms: i64) -> &'static str {
        if self.blocked_ms.is_some() {
            State::Blocked.as_str()
        } else if self.parent_is_blocked {
            "parent blocked"
        } else if self.limits.has_ended(now_ms) {
            State::Ended.as_str()
        } else if (Limits { valid_until: self.parent_valid_until, ..Limits::default() }).has_ended(now_ms) {
            "parent ended"
        } else {
            State::Usable.as_str()
        }
    }
}

/// The first digits of a hash.
#[must_use]
pub fn short(hash: &str) -> String {
    hash.chars().take(SHOWN_DIGITS).collect()
}

/// Where a balance goes, shortened: it is somebody's name.
#[must_use]
pub fn shorten(address: &str) -> String {
    let head = |text: &str, count: usize| text.chars().take(count).collect::<String>();
    match address.split_once('@') {
        Some((name, host)) => format!("{}…@{host}", head(name, 1)),
        None => format!("{}…", head(address, 10)),
    }
}

/// A place in the list: behind the key that was made then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub created_ms: i64,
    pub id: i64,
}

impl Place {
    /// Before all keys.
    const START: Self = Self { created_ms: i64::MAX, id: i64::MAX };

    /// The place that is written like this.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (created_ms, id) = text.split_once('.')?;
        Some(Self { created_ms: created_ms.parse().ok()?, id: id.parse().ok()? })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.created_ms, self.id)
    }
}

/// A part of the keys, the newest first.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub keys: Vec<Key>,
    /// Where the next part begins, if there is one.
    pub next: Option<Place>,
}

/// What to change of a key. What is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    pub label: Option<String>,
    /// A profile of prices, or none.
    pub profile: Option<Option<String>>,
    pub cap: Option<Option<Msat>>,
    pub reset: Option<Option<Reset>>,
    /// Unix seconds.
    pub valid_until: Option<Option<i64>>,
    /// When its balance is paid to the address that its owner gave, in Unix seconds.
    pub refund_at: Option<i64>,
}

impl Edit {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a key was not changed. Nothing has happened then.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    #[error("there is no such key")]
    NoSuchKey,
    #[error("there is no profile {0}")]
    NoSuchProfile(String),
    /// Nobody said where its balance is to go.
    #[error("its owner has given no refund address")]
    NoAddress,
    /// What is on it would leave at once.
    #[error("that time is over, and the balance would be paid out at once: give a refund time that lies ahead")]
    IsOver,
    #[error("a label has at most {MAX_TEXT} characters, on one line")]
    BadLabel,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which way an adjustment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the income to the key.
    Credit,
    /// From the key to the income.
    WriteOff,
}

/// Money to be moved between the income and a key.
#[derive(Clone, Copy, Debug)]
pub struct Adjustment<'a> {
    /// Names the act: the same id moves money once.
    pub id: &'a str,
    pub key: AccountId,
    pub way: Way,
    pub amount: Msat,
    pub reason: &'a str,
    /// Who does it, as the trail has it.
    pub actor: &'a str,
}

/// An adjustment that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjusted {
    pub id: String,
    /// Negative: written off.
    pub msat: i64,
    pub reason: String,
    pub actor: String,
    pub created_ms: i64,
}

/// Why a balance was not adjusted. Nothing has happened then.
#[derive(Debug, thiserror::Error)]
pub enum AdjustError {
    #[error("there is no such key")]
    NoSuchKey,
    #[error("a child key has no balance of its own; adjust its parent")]
    ChildKey,
    /// Less was earned, and not paid out or promised.
    #[error("only {available} were earned and not paid out")]
    NotEarned { available: Msat },
    /// Less is on the key and not set aside.
    #[error("only {available} are on the key and not set aside for requests")]
    NotThere { available: Msat },
    /// The id names something else that was done.
    #[error("another adjustment has this id")]
    OtherAct,
    #[error("an adjustment is of at least 1 msat")]
    NoAmount,
    #[error("an adjustment has a reason of 1 to {MAX_TEXT} characters, on one line")]
    BadReason,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether a text can be kept as a label or a reason.
fn is_line(text: &str) -> bool {
    text.chars().count() <= MAX_TEXT && !text.chars().any(char::is_control)
}

impl Ledger {
    /// The keys that a filter lets through, newest first, behind a place. Where a hash is looked for, all that are
    /// found are one part.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keys(&self, filter: &Filter, after: Option<Place>, limit: i64) -> Result<Page, StoreError> {
        let limit = limit.clamp(1, MOST);
        let mut reader = self.store().read().acquire().await?;
        let (after, more) = (after.unwrap_or(Place::START), limit.saturating_add(1));
        let mut keys = repo::list(&mut reader, filter, after, more, self.clock().now_ms()).await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let is_more = keys.len() > limit && filter.hash.is_none();
        keys.truncate(limit);
        let next = keys.last().filter(|_| is_more);
        let next = next.map(|last| Place { created_ms: last.created_ms, id: last.id.get() });
        Ok(Page { keys, next })
    }

    /// One key. An account that is no key's, or whose voucher nobody has redeemed, is none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn one_key(&self, id: AccountId) -> Result<Option<Key>, StoreError> {
        let mut reader = self.store().read().acquire().await?;
        repo::one(&mut *reader, id, self.clock().now_ms()).await
    }

    /// The adjustments of a key, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn adjustments(&self, key: AccountId) -> Result<Vec<Adjusted>, StoreError> {
        let mut reader = self.store().read().acquire().await?;
        repo::adjustments(&mut reader, key, ADJUSTMENTS).await
    }

    /// The adjustment with this id, and whose it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn adjustment(&self, id: &str) -> Result<Option<(AccountId, Adjusted)>, StoreError> {
        let mut reader = self.store().read().acquire().await?;
        repo::adjustment(&mut *reader, id).await
    }

    /// Blocks a key, or lets it spend again. Returns whether there is such a key.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn block_key(&self, key: AccountId, block: bool) -> Result<bool, StoreError> {
        let now_ms = self.clock().now_ms();
        let mut tx = self.store().begin(Durability::Full).await?;
        if repo::one(tx.hand(), key, now_ms).await?.is_none() {
            return Ok(false);
        }
        repo::put_block(&mut tx, key, block.then_some(now_ms)).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Changes the terms of a key: all that the edit names, or nothing.
    ///
    /// # Errors
    /// See [`EditError`].
    pub async fn edit_key(&self, key: AccountId, edit: &Edit) -> Result<(), EditError> {
        if edit.label.as_ref().is_some_and(|label| !is_line(label)) {
            return Err(EditError::BadLabel);
        }
        let now_ms = self.clock().now_ms();
        if let Some(Some(name)) = &edit.profile {
            self.tariffs().await?.profile(name).ok_or_else(|| EditError::NoSuchProfile(name.clone()))?;
        }
        let mut tx = self.store().begin(Durability::Full).await?;
        let found = repo::one(tx.hand(), key, now_ms).await?.ok_or(EditError::NoSuchKey)?;
        if edit.is_empty() {
            return Ok(());
        }
        // Locks the row as well, so that nothing that it says changes before it is written again.
        repo::ensure_terms(&mut tx, key).await?;
        let before = terms::find(tx.hand(), key, now_ms).await?;
        let old = before.as_ref().map(|terms| terms.limits).unwrap_or_default();
        let limits = Limits {
            cap: edit.cap.unwrap_or(old.cap),
            reset: edit.reset.unwrap_or(old.reset),
            valid_until: edit.valid_until.unwrap_or(old.valid_until),
        };
        if limits != old {
            terms::put_limits(&mut tx, key, limits).await?;
        }
        if let Some(label) = &edit.label {
            repo::put_label(&mut tx, key, label).await?;
        }
        if let Some(at) = edit.refund_at {
            let old = found.expiry.ok_or(EditError::NoAddress)?;
            // A form says again what there is, which may be over for long.
            if at != old.at && at <= now_ms.div_euclid(1000) {
                return Err(EditError::IsOver);
            }
            terms::put_expiry(&mut tx, key, &Expiry { address: old.address, at }).await?;
        }
        if let Some(profile) = &edit.profile {
            terms::put_profile(&mut tx, key, profile.as_deref()).await?;
            // Every node forgets what it remembers of keys.
            tx.set_setting(tariffs::VERSION, &uuid::Uuid::new_v4().to_string(), now_ms).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Moves money between the income and a key. Returns what is on the key then; for an id that was used for
    /// just this, what is on it now.
    ///
    /// # Errors
    /// See [`AdjustError`].
    pub async fn adjust_key(&self, wanted: Adjustment<'_>) -> Result<Balance, AdjustError> {
        if wanted.amount.is_zero() {
            return Err(AdjustError::NoAmount);
        }
        if wanted.reason.is_empty() || !is_line(wanted.reason) {
            return Err(AdjustError::BadReason);
        }
        let now_ms = self.clock().now_ms();
        let mut tx = self.store().begin(Durability::Full).await?;
        // Before the key, as where holds are charged: else each could wait for the other. And two that give away
        // what was earned must not both find it.
        books::find_locked(&mut tx, self.house().income).await?;
        let account = books::find_locked(&mut tx, wanted.key).await?;
        let account = account.filter(|account| account.kind == AccountKind::Key).ok_or(AdjustError::NoSuchKey)?;
        if repo::one(tx.hand(), wanted.key, now_ms).await?.is_none() {
            return Err(AdjustError::NoSuchKey);
        }
        if account.parent.is_some() {
            return Err(AdjustError::ChildKey);
        }
        let msat = signed(wanted);
        if let Some((key, made)) = repo::adjustment(tx.hand(), wanted.id).await? {
            let same = key == wanted.key && made.msat == msat && made.reason == wanted.reason;
            return if same { Ok(account.balance) } else { Err(AdjustError::OtherAct) };
        }
        self.check_funds(&mut tx, wanted, account.balance).await?;
        repo::insert_adjustment(&mut tx, wanted, msat, now_ms).await?;
        let income = self.house().income;
        let (debit, credit) = match wanted.way {
            Way::Credit => (income, wanted.key),
            Way::WriteOff => (wanted.key, income),
        };
        let (id, amount, reference) = (self.next_id(), wanted.amount, wanted.id);
        let transfer = books::Transfer { id, debit, credit, amount, kind: TransferKind::Adjustment, reference };
        books::transfer(&mut tx, transfer, now_ms).await?;
        let after = books::balance_of(tx.hand(), wanted.key).await?.ok_or(AdjustError::NoSuchKey)?;
        tx.commit().await?;
        Ok(after)
    }

    async fn check_funds(&self, tx: &mut Tx, wanted: Adjustment<'_>, balance: Balance) -> Result<(), AdjustError> {
        match wanted.way {
            Way::Credit => {
                let available = Msat::from_db(books::earnings(tx.hand()).await?.max(0)).unwrap_or_default();
                if wanted.amount > available { Err(AdjustError::NotEarned { available }) } else { Ok(()) }
            }
            Way::WriteOff => {
                let available = balance.available();
                if wanted.amount > available { Err(AdjustError::NotThere { available }) } else { Ok(()) }
            }
        }
    }
}

/// An adjustment's amount with its sign.
fn signed(wanted: Adjustment<'_>) -> i64 {
    match wanted.way {
        Way::Credit => wanted.amount.to_db(),
        Way::WriteOff => wanted.amount.to_db().saturating_neg(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_makes_sense_or_is_refused() {
        assert_eq!(Filter::read("", " ", "", ""), Ok(Filter::default()));
        let all = Filter::read(" ABCDEF01 ", "bob", "club", "blocked").unwrap();
        assert_eq!(all.hash.as_deref(), Some("abcdef01"));
        assert_eq!((all.label.as_deref(), all.profile.as_deref()), (Some("bob"), Some("club")));
        assert_eq!(all.state, Some(State::Blocked));
        for hash in ["abc", "abcdefg0", "abcdef0", &"0".repeat(65), "é00000000"] {
            assert!(Filter::read(hash, "", "", "").is_err(), "{hash}");
        }
        assert!(Filter::read("", "", "", "gone").is_err());
        assert!(State::ALL.into_iter().all(|state| State::parse(state.as_str()) == Some(state)));
    }

    #[test]
    fn a_place_is_written_and_read() {
        let place = Place { created_ms: 1_790_000_000_000, id: 42 };
        assert_eq!(Place::parse(&place.to_string()), Some(place));
        for text in ["", "1", "1.", ".1", "a.b", "1.2.3"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_address_is_not_shown_whole() {
        assert_eq!(shorten("satoshi@example.com"), "s…@example.com");
        assert_eq!(shorten("lnurl1dp68gurn8ghj7um9wfmxjcm99e3k7mf0v9cxj0m385ekvcenxc6r2c35x"), "lnurl1dp68…");
        assert!(is_line("müller") && !is_line("a\nb") && !is_line(&"x".repeat(MAX_TEXT + 1)));
    }
}
