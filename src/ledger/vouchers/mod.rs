//! Vouchers: one-time codes that the operator gives away.
//!
//! * Issuing moves money from the income to one account for each code, in one synced transaction. So
//!   what vouchers promise is a liability at once, no payout can reach it, and nothing is promised that
//!   was not earned (or paid in as a gift, which is income too).
//! * After a recovery they can also be given out of what it found: to clients who can show that it was
//!   theirs. Such a voucher is paid by that account, at its mint.
//! * The account that a code waits on is a key's account already. Redeemed without a key, the code makes
//!   that key: no money moves, and the same code names the same key again.
//! * A voucher may have a profile of prices, which the key that it makes has. Its money goes to no key
//!   with other prices.
//! * A voucher ends once: redeemed, revoked or expired. One statement decides which, so of redemptions
//!   that race one is credited. Revoked and expired, the money is again where it came from.

pub mod repo;

use super::account::AccountId;
use super::repo as books;
use super::terms::repo as terms;
use super::{AccountKind, Ledger, TransferKind};
use crate::money::Msat;
use crate::store::{Durability, StoreError, Tx};

/// Most vouchers of one batch.
pub const MAX_BATCH: usize = 100;

/// Vouchers that expire in one transaction.
const EXPIRE_AT_A_TIME: usize = 100;

/// How far a voucher is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can be redeemed, until it expires.
    Open,
    Redeemed,
    Revoked,
    Expired,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Open, Self::Redeemed, Self::Revoked, Self::Expired];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Redeemed => "redeemed",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

/// A voucher as its issuer sees it: never its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voucher {
    pub id: i64,
    /// The first and the last letters of its code.
    pub hint: String,
    pub amount: Msat,
    pub note: String,
    pub state: State,
    /// Times in ms since the Unix epoch.
    pub created_ms: i64,
    pub expires_ms: Option<i64>,
    pub ended_ms: Option<i64>,
}

/// One voucher to be issued.
#[derive(Clone, Debug)]
pub struct New {
    /// Keyed hash of the code.
    pub code_hash: String,
    /// Keyed hash of the key that derives from the code.
    pub key_hash: String,
    pub hint: String,
}

/// Whose money is given away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Funds {
    /// What was earned and not paid out.
    #[default]
    Earned,
    /// What a recovery found at one mint, for clients that the restored copy does not know.
    Found,
}

/// Vouchers to be issued together.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Names it: the same batch is issued once.
    pub id: &'a str,
    pub vouchers: &'a [New],
    /// What each of the vouchers is worth.
    pub amount: Msat,
    pub note: &'a str,
    pub expires_ms: Option<i64>,
    /// Profile of prices of the keys that they make.
    pub profile: Option<&'a str>,
    pub funds: Funds,
    /// Mints whose ecash may back it. The one with the most that belongs to no client does.
    pub mints: &'a [String],
    pub unit: &'a str,
}

/// Why a batch was not issued. Nothing has happened then.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Less was earned than would be given away.
    #[error("only {available} were earned and not paid out")]
    Insufficient { available: Msat },
    /// No recovery found so much at one mint.
    #[error("only {available} are left of what was found at one mint")]
    NotFound { available: Msat },
    #[error("this node has no mint")]
    NoMint,
    #[error("this batch was issued before")]
    Repeated,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a voucher was not redeemed.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    #[error("there is no such voucher")]
    Unknown,
    /// By, or for, another key.
    #[error("it was redeemed before")]
    Redeemed,
    #[error("it was revoked")]
    Revoked,
    #[error("it has expired")]
    Expired,
    /// It has a profile of prices, and the key that it is for has another, or none.
    #[error("its prices are not those of the key")]
    OtherPrices,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A voucher that was redeemed: now, or before in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redeemed {
    pub amount: Msat,
    /// Whose money it is now.
    pub account: AccountId,
}

/// A voucher that ended just now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    id: i64,
    account: AccountId,
    amount: Msat,
    /// Where its money came from, unless it was the income.
    paid_by: Option<AccountId>,
}

/// Whose money a batch gives away, and the mint and unit of its ecash.
struct Payer {
    account: AccountId,
    mint: String,
    unit: String,
}

impl Ledger {
    /// Issues a batch: the money leaves the income, or what was found.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub async fn issue_vouchers(&self, batch: Batch<'_>) -> Result<(), IssueError> {
        let now_ms = self.clock().now_ms();
        let total = batch.vouchers.iter().try_fold(Msat::ZERO, |sum, _| sum.checked_add(batch.amount));
        let mut tx = self.store().begin(Durability::Full).await?;
        // Two processes would both find the same earnings: the lock makes the second see less.
        books::find_locked(&mut tx, self.house().income).await?;
        if repo::has_batch(&mut tx, batch.id).await? {
            return Err(IssueError::Repeated);
        }
        let payer = match batch.funds {
            Funds::Earned => self.earned(&mut tx, batch, total).await?,
            Funds::Found => found(&mut tx, batch, total).await?,
        };
        let paid_by = Some(payer.account).filter(|account| *account != self.house().income);
        for (place, voucher) in (0_i64..).zip(batch.vouchers) {
            let (id, kind) = (self.next_id(), AccountKind::Key);
            let (mint, unit) = (&payer.mint, &payer.unit);
            let account = books::ensure_client(&mut tx, id, kind, &voucher.key_hash, mint, unit, now_ms).await?;
            if batch.profile.is_some() {
                terms::put_profile(&mut tx, account.id, batch.profile).await?;
            }
            let id = self.next_id();
            let row = repo::Row { id, account: account.id, place, voucher, paid_by };
            repo::insert(&mut tx, row, batch, now_ms).await.map_err(|error| match error.is_duplicate() {
                true => IssueError::Repeated,
                false => IssueError::Store(error),
            })?;
            let given = Ended { id, account: account.id, amount: batch.amount, paid_by };
            self.move_voucher(&mut tx, given, payer.account, account.id, TransferKind::Voucher, now_ms).await?;
        }
        Ok(tx.commit().await?)
    }

    /// The income, if so much was earned, and the mint whose ecash backs it best.
    async fn earned(&self, tx: &mut Tx, batch: Batch<'_>, total: Option<Msat>) -> Result<Payer, IssueError> {
        let earned = books::earnings(tx.hand()).await?;
        let available = Msat::from_db(earned.max(0)).unwrap_or_default();
        if total.is_none_or(|total| total > available) {
            return Err(IssueError::Insufficient { available });
        }
        let mint = fullest(tx, batch.mints, batch.unit).await?.ok_or(IssueError::NoMint)?;
        Ok(Payer { account: self.house().income, mint: mint.to_owned(), unit: batch.unit.to_owned() })
    }

    /// Redeems the voucher whose code has this hash: for `to`, or for the key that derives from its
    /// code. Asked again in the same way, it answers the same.
    ///
    /// # Errors
    /// See [`RedeemError`]; nothing has happened then.
    pub async fn redeem_voucher(&self, code_hash: &str, to: Option<AccountId>) -> Result<Redeemed, RedeemError> {
        let now_ms = self.clock().now_ms();
        let mut tx = self.store().begin(Durability::Full).await?;
        let Some(taken) = repo::redeem(&mut tx, code_hash, to, now_ms).await? else {
            drop(tx);
            return self.judge_voucher(code_hash, to, now_ms).await;
        };
        let account = to.unwrap_or(taken.account);
        if account != taken.account {
            let prices = profile(&mut tx, taken.account).await?;
            if prices.is_some() && prices != profile(&mut tx, account).await? {
                return Err(RedeemError::OtherPrices);
            }
            self.move_voucher(&mut tx, taken, taken.account, account, TransferKind::Voucher, now_ms).await?;
        }
        tx.commit().await?;
        Ok(Redeemed { amount: taken.amount, account })
    }

    /// What a voucher that is not to be had any more means for who asks.
    async fn judge_voucher(
        &self,
        code_hash: &str,
        to: Option<AccountId>,
        now_ms: i64,
    ) -> Result<Redeemed, RedeemError> {
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        let found = repo::find(&mut reader, code_hash).await?.ok_or(RedeemError::Unknown)?;
        match found.voucher.state {
            State::Redeemed if found.redeemed_by == Some(to.unwrap_or(found.account)) => {
                Ok(Redeemed { amount: found.voucher.amount, account: to.unwrap_or(found.account) })
            }
            State::Redeemed => Err(RedeemError::Redeemed),
            State::Revoked => Err(RedeemError::Revoked),
            State::Expired => Err(RedeemError::Expired),
            // Its time is over, and the job that says so has not come by yet.
            State::Open if found.voucher.expires_ms.is_some_and(|end| end <= now_ms) => Err(RedeemError::Expired),
            State::Open => {
                Err(StoreError::Inconsistent { table: "vouchers", what: "an open one was not taken".into() })?
            }
        }
    }

    /// Takes open vouchers back: those with this id, or all with this note. Returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revoke_vouchers(&self, which: repo::Which<'_>) -> Result<usize, StoreError> {
        let now_ms = self.clock().now_ms();
        let mut tx = self.store().begin(Durability::Full).await?;
        // Before the vouchers, always: else each of two could wait for the other.
        books::find_locked(&mut tx, self.house().income).await?;
        let ended = repo::end(&mut tx, State::Revoked, which, now_ms).await?;
        self.take_back(&mut tx, &ended, TransferKind::VoucherRevoked, now_ms).await?;
        tx.commit().await?;
        Ok(ended.len())
    }

    /// Ends the vouchers whose time is over. Returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn expire_vouchers(&self) -> Result<usize, StoreError> {
        let now_ms = self.clock().now_ms();
        let mut expired = 0_usize;
        loop {
            let mut tx = self.store().begin(Durability::Full).await?;
            books::find_locked(&mut tx, self.house().income).await?;
            let which = repo::Which::Due { now_ms, limit: EXPIRE_AT_A_TIME };
            let ended = repo::end(&mut tx, State::Expired, which, now_ms).await?;
            self.take_back(&mut tx, &ended, TransferKind::VoucherExpired, now_ms).await?;
            tx.commit().await?;
            expired = expired.saturating_add(ended.len());
            if ended.len() < EXPIRE_AT_A_TIME {
                return Ok(expired);
            }
        }
    }

    /// The vouchers, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn vouchers(&self, limit: i64) -> Result<Vec<Voucher>, StoreError> {
        self.vouchers_before(i64::MAX, limit).await
    }

    /// Those that were issued before the one of this id, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn vouchers_before(&self, id: i64, limit: i64) -> Result<Vec<Voucher>, StoreError> {
        let mut reader = self.store().read().acquire().await?;
        repo::list(&mut reader, id, limit).await
    }

    async fn take_back(&self, tx: &mut Tx, ended: &[Ended], kind: TransferKind, now_ms: i64) -> Result<(), StoreError> {
        for voucher in ended {
            let payer = voucher.paid_by.unwrap_or(self.house().income);
            self.move_voucher(tx, *voucher, voucher.account, payer, kind, now_ms).await?;
        }
        Ok(())
    }

    async fn move_voucher(
        &self,
        tx: &mut Tx,
        voucher: Ended,
        debit: AccountId,
        credit: AccountId,
        kind: TransferKind,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let (id, reference) = (self.next_id(), voucher.id.to_string());
        let transfer = books::Transfer { id, debit, credit, amount: voucher.amount, kind, reference: &reference };
        books::transfer(tx, transfer, now_ms).await
    }
}

/// The profile of prices that a key has.
async fn profile(tx: &mut Tx, key: AccountId) -> Result<Option<String>, StoreError> {
    Ok(books::find(tx.hand(), key).await?.and_then(|account| account.profile))
}

/// What a recovery found at one of the mints, if so much is left of it.
async fn found(tx: &mut Tx, batch: Batch<'_>, total: Option<Msat>) -> Result<Payer, IssueError> {
    let accounts = repo::found(tx).await?;
    let account = accounts
        .into_iter()
        .filter(|account| batch.mints.contains(&account.mint))
        .max_by_key(|account| account.balance.posted);
    let available = account.as_ref().map(|account| account.balance.posted).unwrap_or_default();
    match account {
        Some(account) if total.is_some_and(|total| total <= available) => {
            Ok(Payer { account: account.id, mint: account.mint, unit: account.unit })
        }
        _ => Err(IssueError::NotFound { available }),
    }
}

/// The mint with the most ecash that belongs to no client: what is redeemed is best paid back there.
async fn fullest<'a>(tx: &mut Tx, mints: &'a [String], unit: &str) -> Result<Option<&'a str>, StoreError> {
    let mut best: Option<(&str, i64)> = None;
    for mint in mints {
        let surplus = books::surplus_at(tx.hand(), mint, unit).await?;
        if best.is_none_or(|(_, most)| surplus > most) {
            best = Some((mint, surplus));
        }
    }
    Ok(best.map(|(mint, _)| mint))
}
