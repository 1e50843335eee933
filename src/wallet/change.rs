//! Money goes back: change of one request, the balance of a key, the operator's earnings. Who may
//! ask for it, and what a repeated question gets. The token is made in [`super::give`]; over
//! Lightning it goes in [`super::pay`].

use cdk::nuts::Proof;
use cdk_common::wallet::ProofInfo;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::journal::{self, Fate, Kind, Operation, State};
use super::keysets::sum;
use super::plan::Plan;
use super::select::at_once;
use super::{Wallet, WalletError};
use crate::ledger::repo as books;
use crate::ledger::{Account, AccountId};
use crate::money::{MintUnit, Msat};
use crate::store::StoreError;

/// Money on its way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Less than the smallest coin of the mint is left: it stays on the account.
    Nothing,
    /// Here it is. `amount` is what the token is worth, which a mint's fee may have made smaller
    /// than what was owed.
    Token { token: String, amount: Msat, mint: String },
    /// It was paid over Lightning. `amount` is what the recipient got.
    Sent { recipient: String, amount: Msat, fee: Msat },
    /// It could not be paid over Lightning, for this reason; it is back on the account.
    Failed(String),
    /// The same of a token that could not be made.
    Unmade(String),
    /// It is owed, and will be made; the refund endpoint gives it out.
    Owed,
    /// It was made, and taken back when nobody had claimed it for long.
    Reclaimed,
}

/// Where money is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// A mint of the node's whose ecash is wanted; empty: the one that was paid at.
    pub mint: String,
    /// A Lightning address or an LNURL; empty: a token.
    pub recipient: String,
}

/// How much is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// All that is on the account, in whole coins. What is less than a coin stays.
    Balance,
    /// All that the operator has earned of this unit at the mint, if it is worth it.
    Earnings { unit: MintUnit, minimum: Msat },
    /// So much of it.
    Part { unit: MintUnit, amount: Msat },
}

/// What is kept of a Lightning payment when it is over, in msat.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Paid {
    pub sent: u64,
    pub fee: u64,
    /// The mint's name for it.
    pub quote: String,
}

/// Why a balance cannot be paid back now.
#[derive(Debug, thiserror::Error)]
pub enum RefundError {
    /// Requests are running on this key.
    #[error("requests are running on this key")]
    Ongoing,
    #[error("there is nothing on it")]
    Nothing,
    /// Less than the smallest coin of the mint.
    #[error("the balance is smaller than one coin")]
    TooSmall,
    /// The token was never accepted here.
    #[error("nothing is known of this token")]
    Unknown,
    /// It is being made; ask again.
    #[error("it is being made")]
    Pending,
    /// It was made, and taken back when nobody had claimed it for long.
    #[error("it was not claimed in time")]
    Reclaimed,
    /// The mint that was paid at is not one of this node's any more.
    #[error("its mint is not configured any more")]
    MintGone,
    /// This node holds no ecash of that mint.
    #[error("this node does not hold ecash of that mint")]
    NoSuchMint,
    /// The mint that was named has no more ecash than this here.
    #[error("there is less ecash of that mint here than that")]
    Short(Msat),
    /// The token was not made; the money is where it was.
    #[error("{0}")]
    Unmade(String),
    /// The Lightning payment was not made; the money is where it was.
    #[error("{0}")]
    Undeliverable(String),
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

impl From<StoreError> for RefundError {
    fn from(error: StoreError) -> Self {
        Self::Wallet(WalletError::Store(error))
    }
}

impl Wallet {
    /// Gives back what is left on the account of a token that rode on one request.
    ///
    /// The request itself and a client that asks for its change may come here at the same moment:
    /// one of them finds the account empty, and gets what the other is giving.
    ///
    /// # Errors
    /// Only before anything was written: then the money is still on the account.
    pub async fn give_change(&self, account: AccountId) -> Result<Change, RefundError> {
        match self.begin(account, Kind::Change, &Destination::default(), Source::Balance).await {
            Ok(change) => Ok(change),
            Err(RefundError::Nothing | RefundError::TooSmall) => match self.last_return(account).await? {
                Some(given) if given.state.is_open() => Ok(self.perform(&given).await),
                Some(given) => Ok(returned(&given)),
                None => Ok(Change::Nothing),
            },
            Err(error) => Err(error),
        }
    }

    /// Pays back the balance of a key. With less than a coin on it, the last refund is given out
    /// again, unless money came in after it: a client whose answer was lost asks once more. While
    /// nobody knows whether the mint took the token that is to fill it, it is pending.
    ///
    /// # Errors
    /// See [`RefundError`].
    pub async fn refund(&self, account: AccountId, to: &Destination) -> Result<Change, RefundError> {
        match self.last_return(account).await? {
            // It was begun before: finish that one, so that a repeated call gets one answer.
            Some(begun) if begun.state.is_open() => return self.give_again(&begun).await,
            // Only what the same payment left over is there: that is the one that is asked about.
            Some(sent) if sent.recipient == to.recipient && self.is_left_over(account, &sent).await? => {
                return pending_if_owed(returned(&sent));
            }
            _ => {}
        }
        if !to.mint.is_empty() {
            self.is_there(account, &to.mint).await?;
        }
        match self.begin(account, Kind::Refund, to, Source::Balance).await {
            Ok(change) => pending_if_owed(change),
            Err(little @ (RefundError::Nothing | RefundError::TooSmall)) => match self.newest(account).await? {
                Some(last) if last.kind.is_return() => self.give_again(&last).await,
                Some(coming) if coming.kind == Kind::Redeem && coming.state.is_open() => {
                    if self.trusted(&coming.mint).is_none() {
                        return Err(RefundError::MintGone);
                    }
                    self.decide_redemption(&coming).await?;
                    Box::pin(self.refund(account, to)).await
                }
                _ => Err(little),
            },
            Err(error) => Err(error),
        }
    }

    /// Whether a mint that was named has what is on an account, or may have it once others are done: nothing is begun
    /// there that would stay owed.
    async fn is_there(&self, account: AccountId, mint: &str) -> Result<(), RefundError> {
        let trusted = self.trusted(mint).ok_or(RefundError::NoSuchMint)?;
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        let found = books::find(&mut *reader, account).await?.ok_or(RefundError::Unknown)?;
        drop(reader);
        let Some(unit) = MintUnit::parse(&found.unit) else { return Ok(()) };
        let there = at_once(&self.in_stock(trusted, unit).await?);
        let asked = Operation::planned(Kind::Refund, account, mint, unit, found.balance.available());
        if there >= unit.floor(asked.amount) || self.in_hand(&asked).await? {
            return Ok(());
        }
        Err(RefundError::Short(unit.to_msat(there).unwrap_or_default()))
    }

    /// Gives an earlier refund, or earlier change, of an account out again: the one that was booked by
    /// this transfer. Money that came in since does not hide it.
    ///
    /// # Errors
    /// [`RefundError::Unknown`] when there is none, otherwise as [`Wallet::refund`].
    pub async fn return_again(&self, account: AccountId, transfer: i64) -> Result<Change, RefundError> {
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        let reference = books::reference_of(&mut reader, account, transfer).await?.ok_or(RefundError::Unknown)?;
        let found = journal::find(&mut *reader, &reference).await?;
        drop(reader);
        let given = found.filter(|found| found.kind.is_return() && found.account == account);
        self.give_again(&given.ok_or(RefundError::Unknown)?).await
    }

    /// Whether all that is on an account is what a Lightning payment of its balance did not need.
    async fn is_left_over(&self, account: AccountId, payment: &Operation) -> Result<bool, RefundError> {
        let Change::Sent { amount, fee, .. } = returned(payment) else { return Ok(false) };
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        let Some(account) = books::find(&mut *reader, account).await? else { return Ok(false) };
        let left_over = payment.amount.excess_over(amount).excess_over(fee);
        // Less than a coin had stayed on the account.
        Ok(payment.unit.floor(account.balance.posted.excess_over(left_over)) == 0)
    }

    /// Asks the mint again whether it took a token, unless somebody is just doing that.
    async fn decide_redemption(&self, redemption: &Operation) -> Result<(), RefundError> {
        let is_asked = self.inner.redeeming.lane(&redemption.id).try_lock().is_err();
        if is_asked || !self.resume_redemption(redemption).await { Err(RefundError::Pending) } else { Ok(()) }
    }

    /// Sends the balance of a key whose time is over to its owner's Lightning address.
    ///
    /// # Errors
    /// See [`RefundError`].
    pub async fn expire(&self, account: AccountId, recipient: &str) -> Result<Change, RefundError> {
        let to = Destination { mint: String::new(), recipient: recipient.to_owned() };
        if self.halted().is_some() {
            return Err(RefundError::Pending);
        }
        match self.last_return(account).await? {
            // Under way already; the journal's own schedule carries it on.
            Some(begun) if begun.state.is_open() => Ok(Change::Owed),
            _ => self.begin(account, Kind::Expiry, &to, Source::Balance).await,
        }
    }

    /// Looks up the change of the token whose key hash this is, making it now if it is still owed.
    ///
    /// # Errors
    /// [`RefundError::Unknown`] for a token never seen, [`RefundError::Pending`] while its request
    /// runs or the mint has not answered, [`RefundError::Nothing`] when nothing was left,
    /// [`RefundError::Reclaimed`] when it was not claimed in time, [`RefundError::MintGone`] when only
    /// the operator can help.
    pub async fn claim(&self, key_hash: &str) -> Result<Change, RefundError> {
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        let account = books::find_by_key(&mut *reader, key_hash).await?;
        let redeemed = journal::find_by_token(&mut reader, key_hash).await?;
        let newest = match &account {
            Some(account) => journal::newest(&mut reader, account.id).await?,
            None => redeemed.clone(),
        };
        drop(reader);
        if let (None, Some(lost)) = (&newest, redeemed.as_ref().filter(|redeemed| redeemed.state == State::Failed)) {
            // A foreign mint took it and never paid.
            return Err(RefundError::Undeliverable(lost.result.clone()));
        }
        match (account, newest) {
            (_, Some(last)) if last.kind == Kind::Redeem && last.state.is_open() => {
                self.claim_undecided(key_hash, &last).await
            }
            // It filled a key that it does not open: nothing is due to who shows it.
            (None, Some(_)) => Err(RefundError::Nothing),
            (None, None) => Err(RefundError::Unknown),
            (Some(_), None) if redeemed.is_none() => Err(RefundError::Unknown),
            (Some(_), Some(last)) if last.kind.is_return() => self.give_again(&last).await,
            (Some(account), _) if !account.balance.held.is_zero() => Err(RefundError::Pending),
            (Some(account), _) => match self.give_change(account.id).await? {
                Change::Nothing => Err(RefundError::Nothing),
                change => pending_if_owed(change),
            },
        }
    }

    /// What an operation gave, or gives now.
    async fn give_again(&self, begun: &Operation) -> Result<Change, RefundError> {
        if !begun.state.is_open() {
            return pending_if_owed(returned(begun));
        }
        if self.trusted(&begun.mint).is_none() {
            return Err(RefundError::MintGone);
        }
        pending_if_owed(self.perform(begun).await)
    }

    /// The mint had not said whether it took the token: asks again, unless a request is just
    /// doing that.
    async fn claim_undecided(&self, key_hash: &str, redemption: &Operation) -> Result<Change, RefundError> {
        if self.trusted(&redemption.mint).is_none() {
            return Err(RefundError::MintGone);
        }
        let lane = self.inner.redeeming.lane(key_hash);
        let Ok(_turn) = lane.try_lock() else { return Err(RefundError::Pending) };
        self.decide_redemption(redemption).await?;
        Box::pin(self.claim(key_hash)).await
    }

    pub(super) async fn last_return(&self, account: AccountId) -> Result<Option<Operation>, RefundError> {
        Ok(self.newest(account).await?.filter(|operation| operation.kind.is_return()))
    }

    async fn newest(&self, account: AccountId) -> Result<Option<Operation>, RefundError> {
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        Ok(journal::newest(&mut reader, account).await?)
    }

    /// The kind of account that a key hash opens, for callers that only want to look.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn account(&self, key_hash: &str) -> Result<Option<Account>, StoreError> {
        let mut reader = self.store().read().acquire().await?;
        books::find_by_key(&mut *reader, key_hash).await
    }
}

fn pending_if_owed(change: Change) -> Result<Change, RefundError> {
    match change {
        Change::Owed => Err(RefundError::Pending),
        Change::Failed(why) => Err(RefundError::Undeliverable(why)),
        Change::Unmade(why) => Err(RefundError::Unmade(why)),
        Change::Reclaimed => Err(RefundError::Reclaimed),
        change => Ok(change),
    }
}

/// What an operation gave.
pub(super) fn returned(operation: &Operation) -> Change {
    match operation.state {
        State::Done => {}
        State::Failed if operation.recipient.is_empty() => return Change::Unmade(operation.result.clone()),
        State::Failed => return Change::Failed(operation.result.clone()),
        _ => return Change::Owed,
    }
    match operation.fate {
        Fate::Reclaimed => return Change::Reclaimed,
        Fate::Reclaiming => return Change::Owed,
        Fate::Open | Fate::Collected | Fate::Left => {}
    }
    if !operation.recipient.is_empty() {
        let recipient = operation.recipient.clone();
        let (sent, fee) = match Plan::of(operation) {
            Plan::Paid(Paid { sent, fee, .. }) => (sent, fee),
            _ => (0, 0),
        };
        let msat = |msat: u64| Msat::new(msat).unwrap_or_default();
        return Change::Sent { recipient, amount: msat(sent), fee: msat(fee) };
    }
    if operation.result.is_empty() {
        return Change::Nothing;
    }
    let fee = operation.swap_plan().map_or(0, |plan| plan.fee);
    let fee = operation.unit.to_msat(fee).unwrap_or_default();
    Change::Token {
        token: operation.result.clone(),
        amount: operation.amount.excess_over(fee),
        mint: operation.mint.clone(),
    }
}

pub(super) fn operation_uuid(operation: &Operation) -> Result<Uuid, WalletError> {
    Uuid::parse_str(&operation.id).map_err(|error| WalletError::Ecash(error.to_string()))
}

pub(super) fn sum_infos(infos: &[ProofInfo]) -> u64 {
    let parts: Vec<u64> = infos.iter().map(|info| info.proof.amount.to_u64()).collect();
    sum(&parts)
}

pub(super) fn plain(infos: Vec<ProofInfo>) -> Vec<Proof> {
    infos.into_iter().map(|info| without_dleq(info.proof)).collect()
}

/// A token need not say which issuance its proofs came from.
pub(super) fn without_dleq(mut proof: Proof) -> Proof {
    proof.dleq = None;
    proof
}
