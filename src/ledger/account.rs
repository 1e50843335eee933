//! Accounts: whose money it is.

use sqlx::{AnyExecutor, Row};

use crate::money::Msat;
use crate::store::ids::Ids;
use crate::store::{Durability, Store, StoreError, Tx};

/// Row id of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(pub(crate) i64);

impl AccountId {
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

/// What an account stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccountKind {
    /// Ecash of one mint and unit that the node holds. Its balance is negative: an asset.
    Mint,
    /// A client's key, filled by a token, a payment or a voucher. Before the voucher is redeemed it is
    /// nobody's.
    Key,
    /// A token that rode on one request. Filled once; what is left goes back as change.
    Token,
    /// Change and refunds that are owed and not yet made into a token. With a mint: ecash that a
    /// recovery found there, and that belongs to clients which the restored copy does not know.
    Change,
    /// What clients were charged.
    Income,
    /// Input fees that mints took for making change. Negative: an expense. With a mint: ecash that a
    /// recovery missed there.
    MintFees,
}

impl AccountKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mint => "mint",
            Self::Key => "key",
            Self::Token => "token",
            Self::Change => "change",
            Self::Income => "income",
            Self::MintFees => "mint_fees",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Mint, Self::Key, Self::Token, Self::Change, Self::Income, Self::MintFees]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}

/// Money on an account. `available = posted − held`, here and nowhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    pub posted: Msat,
    pub held: Msat,
}

impl Balance {
    #[must_use]
    pub fn available(self) -> Msat {
        self.posted.excess_over(self.held)
    }
}

/// A client's account as the surfaces show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub kind: AccountKind,
    pub balance: Balance,
    /// Charged over its life.
    pub spent: Msat,
    pub requests: u64,
    /// Mint and unit that its money came from, and goes back to.
    pub mint: String,
    pub unit: String,
    /// Whose money a child key spends.
    pub parent: Option<AccountId>,
    /// Its profile of prices, or that of its parent.
    pub profile: Option<String>,
}

impl Account {
    /// The account whose money it is.
    #[must_use]
    pub fn purse(&self) -> AccountId {
        self.parent.unwrap_or(self.id)
    }
}

/// The node's own accounts that exist once.
#[derive(Clone, Copy, Debug)]
pub struct House {
    pub income: AccountId,
    pub change: AccountId,
    pub mint_fees: AccountId,
}

impl House {
    pub(super) async fn ensure(store: &Store, ids: &Ids, now_ms: i64) -> Result<Self, StoreError> {
        let mut tx = store.begin(Durability::Full).await?;
        let mut find = async |kind| house_account(&mut tx, ids.next(now_ms), kind, "", "", now_ms).await;
        let income = find(AccountKind::Income).await?;
        let change = find(AccountKind::Change).await?;
        let mint_fees = find(AccountKind::MintFees).await?;
        tx.commit().await?;
        Ok(Self { income, change, mint_fees })
    }
}

/// The account of the house of that kind (for mints: per mint and unit), created when absent.
///
/// # Errors
/// When the database does not answer.
pub async fn house_account(
    tx: &mut Tx,
    new_id: i64,
    kind: AccountKind,
    mint: &str,
    unit: &str,
    now_ms: i64,
) -> Result<AccountId, StoreError> {
    // It is there but for the first time.
    if let Some(found) = find_house_account(tx.hand(), kind, mint, unit).await? {
        return Ok(found);
    }
    sqlx::query(
        "INSERT INTO accounts (id, kind, mint, unit, created_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT DO NOTHING",
    )
    .bind(new_id)
    .bind(kind.as_str())
    .bind(mint)
    .bind(unit)
    .bind(now_ms)
    .execute(tx.hand())
    .await?;
    find_house_account(tx.hand(), kind, mint, unit).await?.ok_or_else(|| StoreError::Inconsistent {
        table: "accounts",
        what: "an account of the house is gone right after its insertion".into(),
    })
}

async fn find_house_account(
    executor: impl AnyExecutor<'_>,
    kind: AccountKind,
    mint: &str,
    unit: &str,
) -> Result<Option<AccountId>, StoreError> {
    let row = sqlx::query("SELECT id FROM accounts WHERE kind = $1 AND mint = $2 AND unit = $3 AND key_hash IS NULL")
        .bind(kind.as_str())
        .bind(mint)
        .bind(unit)
        .fetch_optional(executor)
        .await?;
    row.map(|row| Ok(AccountId(row.try_get(0)?))).transpose()
}
