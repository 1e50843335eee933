//! What the journal knows: rows found by what they are about, and those that are due.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AnyExecutor, AssertSqlSafe, Row};

use super::writes::CLAIMED_AT_ONCE;
use super::{Fate, Kind, LONGEST_PAUSE_MS, Movement, OPEN, Operation, State};
use crate::ledger::{AccountId, TransferKind};
use crate::money::{MintUnit, Msat};
use crate::store::{StoreError, amount};
use crate::wallet::watch::Unfinished;

/// What is open and on its way. An invoice that waits to be paid is not: anybody asks for one, and nobody owes anybody
/// anything. Its plan names no keyset before the mint has said that it is paid.
fn on_its_way() -> String {
    format!("{OPEN} AND NOT (kind = 'topup' AND (plan = '' OR plan LIKE '%\"keyset\":\"\",%'))")
}

const COLUMNS: &str = "SELECT id, kind, state, account, mint, unit, amount, recipient, payment_hash, plan, result, owner, \
     due_at, attempts, created_at, updated_at, fate, takes_back FROM operations";

fn read(row: &sqlx::any::AnyRow) -> Result<Operation, StoreError> {
    let bad = |what: String| StoreError::Inconsistent { table: "operations", what };
    let kind: String = row.try_get(1)?;
    let state: String = row.try_get(2)?;
    let unit: String = row.try_get(5)?;
    let attempts: i64 = row.try_get(13)?;
    let fate: String = row.try_get(16)?;
    let takes_back: Option<String> = row.try_get(17)?;
    Ok(Operation {
        id: row.try_get(0)?,
        kind: Kind::read(&kind, takes_back.is_some()).ok_or_else(|| bad(format!("kind {kind}")))?,
        state: State::ALL
            .into_iter()
            .find(|known| known.as_str() == state)
            .ok_or_else(|| bad(format!("state {state}")))?,
        account: AccountId(row.try_get(3)?),
        mint: row.try_get(4)?,
        unit: MintUnit::parse(&unit).ok_or_else(|| bad(format!("unit {unit}")))?,
        amount: amount("operations", row.try_get(6)?)?,
        recipient: row.try_get(7)?,
        payment_hash: row.try_get(8)?,
        plan: row.try_get(9)?,
        result: row.try_get(10)?,
        owner: row.try_get(11)?,
        due_at: row.try_get(12)?,
        attempts: u32::try_from(attempts).map_err(|_| bad(format!("attempts {attempts}")))?,
        created_at: row.try_get(14)?,
        updated_at: row.try_get(15)?,
        fate: Fate::ALL.into_iter().find(|known| known.as_str() == fate).ok_or_else(|| bad(format!("fate {fate}")))?,
        takes_back,
    })
}

/// The operation that accepted a token.
pub(in crate::wallet) async fn find_by_token(
    connection: &mut AnyConnection,
    token_hash: &str,
) -> Result<Option<Operation>, StoreError> {
    one(connection, "token_hash = $1", token_hash).await
}

/// The operation with this id.
pub(in crate::wallet) async fn find(executor: impl AnyExecutor<'_>, id: &str) -> Result<Option<Operation>, StoreError> {
    one(executor, "id = $1", id).await
}

/// The newest operation of this kind with this invoice.
pub(in crate::wallet) async fn find_by_payment_hash(
    connection: &mut AnyConnection,
    kind: Kind,
    payment_hash: &str,
) -> Result<Option<Operation>, StoreError> {
    let sql =
        format!("{COLUMNS} WHERE payment_hash = $1 AND kind = $2 AND payment_hash <> '' ORDER BY created_at DESC");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(payment_hash).bind(kind.as_str()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// How many operations of a kind that were begun since then are open: at any account, or at one.
pub(in crate::wallet) async fn count_open(
    connection: &mut AnyConnection,
    kind: Kind,
    account: Option<AccountId>,
    since_ms: i64,
) -> Result<u64, StoreError> {
    let sql = format!(
        "SELECT COUNT(*) FROM operations WHERE {OPEN} AND kind = $1 AND (account = $2 OR $3 = 1) AND created_at >= $4"
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(kind.as_str())
        .bind(account.map_or(0, AccountId::get))
        .bind(i64::from(account.is_none()))
        .bind(since_ms)
        .fetch_one(connection)
        .await?;
    let count: i64 = row.try_get(0)?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Operations that were begun before then and are on their way, by mint.
pub(in crate::wallet) async fn unfinished(
    connection: &mut AnyConnection,
    before_ms: i64,
) -> Result<Vec<Unfinished>, StoreError> {
    let sql = format!(
        "SELECT mint, COUNT(*), MIN(created_at) FROM operations WHERE {} AND created_at < $1 \
         GROUP BY mint ORDER BY mint",
        on_its_way()
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(before_ms).fetch_all(connection).await?;
    let unfinished = |row: &sqlx::any::AnyRow| {
        Ok(Unfinished { mint: row.try_get(0)?, count: row.try_get(1)?, oldest_ms: row.try_get(2)? })
    };
    rows.iter().map(unfinished).collect()
}

/// The payout of a mint and unit to this recipient that has ended last, if it failed: its amount. What the operator
/// sends elsewhere by hand is seen where that is done, and says nothing of the others.
pub(in crate::wallet) async fn failed_payout(
    connection: &mut AnyConnection,
    mint: &str,
    unit: MintUnit,
    recipient: &str,
) -> Result<Option<Msat>, StoreError> {
    let row = sqlx::query(
        "SELECT amount, state FROM operations WHERE kind = 'payout' AND mint = $1 AND unit = $2 \
         AND recipient = $3 AND state IN ('done', 'failed') ORDER BY created_at DESC LIMIT 1",
    );
    let row = row.bind(mint).bind(unit.as_str()).bind(recipient).fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(None) };
    let has_failed = row.try_get::<String, _>(1)? == State::Failed.as_str();
    let amount = amount("operations", row.try_get(0)?)?;
    Ok(has_failed.then_some(amount))
}

/// Whether earnings are on their way out of a mint.
pub(in crate::wallet) async fn payout_under_way(
    executor: impl AnyExecutor<'_>,
    mint: &str,
    unit: MintUnit,
) -> Result<bool, StoreError> {
    let sql = format!("SELECT id FROM operations WHERE {OPEN} AND kind = 'payout' AND mint = $1 AND unit = $2");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(mint).bind(unit.as_str()).fetch_optional(executor).await?;
    Ok(row.is_some())
}

/// What is owed at a mint, and not yet paid out, by open operations; to the mint, too. In msat.
pub(in crate::wallet) async fn owed_at(
    executor: impl AnyExecutor<'_>,
    mint: &str,
    unit: MintUnit,
) -> Result<i64, StoreError> {
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM operations WHERE {OPEN} \
         AND kind IN ('change', 'refund', 'expiry', 'payout', 'sweep') AND mint = $1 AND unit = $2"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).bind(mint).bind(unit.as_str()).fetch_one(executor).await?;
    Ok(row.try_get(0)?)
}

/// Whether other open operations have ecash of this one's mint and unit in hand.
pub(in crate::wallet) async fn in_hand(
    connection: &mut AnyConnection,
    operation: &Operation,
) -> Result<bool, StoreError> {
    let sql = format!(
        "SELECT id FROM operations WHERE {OPEN} AND mint = $1 AND unit = $2 AND id <> $3 AND EXISTS \
         (SELECT 1 FROM proof p WHERE p.used_by_operation = operations.id AND p.state = 'RESERVED') LIMIT 1"
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(operation.mint.as_str())
        .bind(operation.unit.as_str())
        .bind(operation.id.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Operations that failed and whose proofs are still set aside for them.
pub(in crate::wallet) async fn failed_with_proofs(
    connection: &mut AnyConnection,
) -> Result<Vec<Operation>, StoreError> {
    let sql = format!(
        "{COLUMNS} WHERE state = 'failed' AND id IN \
         (SELECT used_by_operation FROM proof WHERE state = 'RESERVED' AND used_by_operation IS NOT NULL)"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

/// Unspent proofs by amount, each by its identifier (its `Y`, compressed).
pub(in crate::wallet) type Coins = BTreeMap<u64, Vec<[u8; 33]>>;

/// What there is of a mint's proofs. Those whose operation is not booked yet stay out: who finishes it after a crash
/// must find them as they were.
pub(in crate::wallet) async fn coins(
    connection: &mut AnyConnection,
    mint: &str,
    unit: MintUnit,
) -> Result<Coins, StoreError> {
    let sql = format!("SELECT CAST(amount AS BIGINT), y {}", free_coins());
    let mut coins = Coins::new();
    // One after the other: there may be very many of them.
    let mut rows = sqlx::query(AssertSqlSafe(sql)).bind(mint).bind(unit.as_str()).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let amount = u64::try_from(row.try_get::<i64, _>(0)?).map_err(|_| bad_proof("amount"))?;
        coins.entry(amount).or_default().push(read_y(&row, 1)?);
    }
    Ok(coins)
}

/// Identifiers of at most so many of these of one keyset, the largest amounts first.
pub(in crate::wallet) async fn coins_of_keyset(
    connection: &mut AnyConnection,
    mint: &str,
    unit: MintUnit,
    keyset: &str,
    most: usize,
) -> Result<Vec<[u8; 33]>, StoreError> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let sql = format!("SELECT y {} AND keyset_id = $3 ORDER BY amount DESC, y LIMIT $4", free_coins());
    let query = sqlx::query(AssertSqlSafe(sql)).bind(mint).bind(unit.as_str()).bind(keyset).bind(most);
    query.fetch_all(connection).await?.iter().map(|row| read_y(row, 0)).collect()
}

fn free_coins() -> String {
    format!(
        "FROM proof WHERE state = 'UNSPENT' AND mint_url = $1 AND unit = $2 \
         AND (created_by_operation IS NULL OR created_by_operation NOT IN (SELECT id FROM operations WHERE {OPEN}))"
    )
}

fn read_y(row: &AnyRow, at: usize) -> Result<[u8; 33], StoreError> {
    row.try_get::<Vec<u8>, _>(at)?.try_into().map_err(|_| bad_proof("y"))
}

fn bad_proof(what: &str) -> StoreError {
    StoreError::Inconsistent { table: "proof", what: what.to_owned() }
}

/// Whether the token of this redemption opens the account that it was credited to.
pub(in crate::wallet) async fn opens_account(connection: &mut AnyConnection, id: &str) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "SELECT o.id FROM operations o JOIN accounts a ON a.id = o.account AND a.key_hash = o.token_hash WHERE o.id = $1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    Ok(row.is_some())
}

/// Redemptions of this account, the oldest first, that brought something besides the credit.
pub(in crate::wallet) async fn imported(
    connection: &mut AnyConnection,
    account: AccountId,
) -> Result<Vec<Operation>, StoreError> {
    let sql = format!(
        "{COLUMNS} WHERE account = $1 AND kind = 'redeem' AND state = 'done' AND plan <> '' ORDER BY created_at"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(account.get()).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

/// Whether one of these secrets was accepted.
pub(in crate::wallet) async fn is_claimed(
    connection: &mut AnyConnection,
    hashes: &[String],
) -> Result<bool, StoreError> {
    for hashes in hashes.chunks(CLAIMED_AT_ONCE) {
        let sql = format!("SELECT operation FROM claimed_secrets WHERE secret_hash IN ({}) LIMIT 1", marks(1, hashes));
        let query = sqlx::query(AssertSqlSafe(sql));
        let query = hashes.iter().fold(query, |query, hash| query.bind(hash.as_str()));
        if query.fetch_optional(&mut *connection).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The operation that accepted a secret, and how many secrets it accepted in all.
pub(in crate::wallet) async fn find_by_secret(
    connection: &mut AnyConnection,
    hash: &str,
) -> Result<Option<(Operation, usize)>, StoreError> {
    let row = sqlx::query("SELECT operation FROM claimed_secrets WHERE secret_hash = $1")
        .bind(hash)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let id: String = row.try_get(0)?;
    let count: i64 = sqlx::query("SELECT COUNT(*) FROM claimed_secrets WHERE operation = $1")
        .bind(id.as_str())
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
    let operation = find(connection, &id).await?;
    Ok(operation.map(|operation| (operation, usize::try_from(count).unwrap_or(0))))
}

/// The newest operation on an account of one of these kinds.
pub(in crate::wallet) async fn newest(
    connection: &mut AnyConnection,
    account: AccountId,
) -> Result<Option<Operation>, StoreError> {
    let sql = format!(
        "{COLUMNS} WHERE account = $1 AND state <> 'failed' \
         AND (kind <> 'topup' OR state = 'done') ORDER BY created_at DESC, id DESC LIMIT 1"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).bind(account.get()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// For whom operations are due, and when.
#[derive(Clone, Copy, Debug)]
pub(in crate::wallet) struct Due<'a> {
    pub owner: &'a str,
    pub now_ms: i64,
    /// When this process began: what was not touched since is due at once.
    pub started_ms: i64,
    /// A process that was not seen since then is dead, and what it had begun is due at once.
    pub dead_before_ms: i64,
}

impl<'a> Due<'a> {
    /// All at these mints that is open and due; the longest due first, and so many at a time. What another living
    /// process works on is left to it.
    pub(in crate::wallet) async fn list(
        self,
        connection: &mut AnyConnection,
        mints: &[&'a str],
    ) -> Result<Vec<Operation>, StoreError> {
        let sql = format!("{COLUMNS} {} ORDER BY due_at LIMIT 200", Self::condition(mints));
        let rows = self.bound(sql, mints).fetch_all(connection).await?;
        rows.iter().map(read).collect()
    }

    /// How much that is.
    pub(in crate::wallet) async fn count(
        self,
        connection: &mut AnyConnection,
        mints: &[&'a str],
    ) -> Result<usize, StoreError> {
        let sql = format!("SELECT COUNT(*) FROM operations {}", Self::condition(mints));
        let count: i64 = self.bound(sql, mints).fetch_one(connection).await?.try_get(0)?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    fn condition(mints: &[&str]) -> String {
        format!(
            "WHERE {OPEN} AND CASE WHEN owner = $1 THEN due_at <= $2 OR due_at > $3 OR updated_at < $4 \
             ELSE NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = operations.owner AND n.seen_at >= $5) END \
             AND mint IN ({})",
            marks(6, mints)
        )
    }

    fn bound(self, sql: String, mints: &[&'a str]) -> Query<'a, Any, AnyArguments> {
        let query = sqlx::query(AssertSqlSafe(sql)).bind(self.owner);
        let query = query.bind(self.now_ms).bind(self.now_ms.saturating_add(LONGEST_PAUSE_MS));
        let query = query.bind(self.started_ms).bind(self.dead_before_ms);
        mints.iter().fold(query, |query, mint| query.bind(*mint))
    }
}

/// How many operations are open, by mint.
pub(in crate::wallet) async fn open_by_mint(connection: &mut AnyConnection) -> Result<Vec<(String, i64)>, StoreError> {
    let sql = format!("SELECT mint, COUNT(*) FROM operations WHERE {OPEN} GROUP BY mint ORDER BY mint");
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Tokens of this mint that were made before `before_ms` and of which nobody knows whether they were
/// claimed, the oldest first.
pub(in crate::wallet) async fn unclaimed(
    connection: &mut AnyConnection,
    mint: &str,
    before_ms: i64,
    limit: i64,
) -> Result<Vec<Operation>, StoreError> {
    let sql = format!(
        "{COLUMNS} WHERE state = 'done' AND fate = '' AND kind IN ('change', 'refund') AND updated_at < $1 \
         AND mint = $2 AND recipient = '' AND result <> '' ORDER BY updated_at, id LIMIT $3"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(before_ms).bind(mint).bind(limit).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

/// Parameters from `$first` on, one for each of a list; for none, a text that nothing equals.
pub(super) fn marks<T>(first: usize, list: &[T]) -> String {
    let marks = (first..).zip(list).map(|(number, _)| format!("${number}")).collect::<Vec<_>>().join(", ");
    if marks.is_empty() { "NULL".to_owned() } else { marks }
}

/// What is on its way, the oldest first.
pub(in crate::wallet) async fn under_way(
    connection: &mut AnyConnection,
    limit: i64,
) -> Result<Vec<Operation>, StoreError> {
    let sql = format!("{COLUMNS} WHERE {} ORDER BY created_at, id LIMIT $1", on_its_way());
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(limit).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

/// What went to the operator before then, newest first.
pub(in crate::wallet) async fn payouts(
    connection: &mut AnyConnection,
    before: (i64, &str),
    limit: i64,
) -> Result<Vec<Operation>, StoreError> {
    let sql = format!(
        "{COLUMNS} WHERE kind = 'payout' AND (created_at, id) < ($1, $2) ORDER BY created_at DESC, id DESC LIMIT $3"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(before.0).bind(before.1).bind(limit);
    query.fetch_all(connection).await?.iter().map(read).collect()
}

/// All that is open.
pub(in crate::wallet) async fn all_open(executor: impl AnyExecutor<'_>) -> Result<Vec<Operation>, StoreError> {
    let sql = format!("{COLUMNS} WHERE {OPEN} ORDER BY created_at, id");
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(executor).await?;
    rows.iter().map(read).collect()
}

/// Accounts of one-shot tokens that still have money, no open hold, and were last touched before
/// `before_ms`, by `owner` or by a process that was not seen since `dead_before_ms`: their request
/// ended without giving change, or its process died. Only at these mints can change be made. What could not be made
/// into change since `failed_since_ms` is left alone.
pub(in crate::wallet) async fn stranded(
    connection: &mut AnyConnection,
    mints: &[String],
    owner: &str,
    before_ms: i64,
    dead_before_ms: i64,
    failed_since_ms: i64,
) -> Result<Vec<AccountId>, StoreError> {
    let sql = format!(
        "SELECT a.id FROM accounts a WHERE a.kind = 'token' AND a.held = 0 AND a.posted > 0 AND a.mint IN ({}) \
         AND NOT EXISTS (SELECT 1 FROM operations o WHERE o.account = a.id AND o.updated_at > $1) \
         AND NOT EXISTS (SELECT 1 FROM holds h WHERE h.account = a.id AND h.ended_at > $2) \
         AND NOT EXISTS (SELECT 1 FROM operations o JOIN nodes n ON n.id = o.owner \
         WHERE o.account = a.id AND o.owner <> $3 AND n.seen_at >= $4) \
         AND NOT EXISTS (SELECT 1 FROM operations o WHERE o.account = a.id AND o.kind = 'change' \
         AND o.state = 'failed' AND o.updated_at >= $5) \
         AND a.posted >= CASE a.unit WHEN 'sat' THEN 1000 ELSE 1 END LIMIT 200",
        marks(6, mints)
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(before_ms).bind(before_ms).bind(owner).bind(dead_before_ms);
    let query = query.bind(failed_since_ms);
    let rows = mints.iter().fold(query, |query, mint| query.bind(mint.as_str())).fetch_all(connection).await?;
    rows.iter().map(|row| Ok(AccountId(row.try_get(0)?))).collect()
}

/// What came and went on an account with an id below `before`, newest first. The transfers of
/// charges have negative ids, and are left out.
pub(in crate::wallet) async fn movements(
    connection: &mut AnyConnection,
    account: AccountId,
    before: i64,
    limit: i64,
) -> Result<Vec<Movement>, StoreError> {
    let rows = sqlx::query(
        "SELECT t.id, t.kind, t.amount, t.created_at, t.credit, o.mint, o.unit, o.state, o.fate \
         FROM transfers t LEFT JOIN operations o ON o.id = t.reference \
         WHERE (t.debit = $1 OR t.credit = $2) AND t.id > 0 AND t.id < $3 ORDER BY t.id DESC LIMIT $4",
    )
    .bind(account.get())
    .bind(account.get())
    .bind(before)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let movement = |row: &sqlx::any::AnyRow| {
        let bad = |what: &str| StoreError::Inconsistent { table: "transfers", what: what.to_owned() };
        let kind: String = row.try_get(1)?;
        let (unit, state): (Option<String>, Option<String>) = (row.try_get(6)?, row.try_get(7)?);
        let unit = unit.map_or(Some(MintUnit::Msat), |unit| MintUnit::parse(&unit));
        Ok(Movement {
            id: row.try_get(0)?,
            kind: TransferKind::parse(&kind).ok_or_else(|| bad("kind"))?,
            amount: Msat::from_db(row.try_get(2)?).ok_or_else(|| bad("amount"))?,
            created_ms: row.try_get(3)?,
            incoming: row.try_get::<i64, _>(4)? == account.get(),
            mint: row.try_get::<Option<String>, _>(5)?.unwrap_or_default(),
            unit: unit.ok_or_else(|| bad("unit"))?,
            done: state.is_none_or(|state| state == State::Done.as_str()),
            reclaimed: row.try_get::<Option<String>, _>(8)?.is_some_and(|fate| fate == Fate::Reclaimed.as_str()),
        })
    };
    rows.iter().map(movement).collect()
}

async fn one(executor: impl AnyExecutor<'_>, condition: &str, value: &str) -> Result<Option<Operation>, StoreError> {
    let sql = format!("{COLUMNS} WHERE {condition}");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(value).fetch_optional(executor).await?;
    row.as_ref().map(read).transpose()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::ledger::account::house_account;
    use crate::ledger::repo::{self as books, Transfer};
    use crate::ledger::{AccountKind, Ledger};
    use crate::store::{Durability, Store};
    use crate::wallet::journal::insert;

    #[tokio::test]
    async fn change_that_could_not_be_made_is_left_alone_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), None, false).await.unwrap();
        let (ledger, _) = Ledger::open(store.clone(), Arc::new(SystemClock), "me".to_owned()).await.unwrap();
        let mut tx = store.begin(Durability::ProcessSafe).await.unwrap();
        let (id, kind) = (ledger.next_id(), AccountKind::Token);
        let account = books::ensure_client(&mut tx, id, kind, "hash", "good", "sat", 0).await.unwrap().id;
        let amount = Msat::new(2_000).unwrap();
        let mint = house_account(&mut tx, ledger.next_id(), AccountKind::Mint, "good", "sat", 0).await.unwrap();
        let id = ledger.next_id();
        let came = Transfer { id, debit: mint, credit: account, amount, kind: TransferKind::Redeem, reference: "r" };
        books::transfer(&mut tx, came, 0).await.unwrap();
        let planned = Operation::planned(Kind::Change, account, "good", MintUnit::Sat, amount);
        insert(&mut tx, &mut Operation { state: State::Failed, ..planned }, None, "me", 1_000).await.unwrap();
        tx.commit().await.unwrap();
        let mut reader = store.read().acquire().await.unwrap();
        let mints = ["good".to_owned()];
        for (failed_since_ms, found) in [(1_000, vec![]), (1_001, vec![account])] {
            let stranded = stranded(&mut reader, &mints, "me", i64::MAX, 0, failed_since_ms).await.unwrap();
            assert_eq!(stranded, found, "{failed_since_ms}");
        }
        drop(reader);
        store.close().await;
    }

    #[tokio::test]
    async fn what_waits_at_one_mint_hides_nothing_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), None, false).await.unwrap();
        let (ledger, _) = Ledger::open(store.clone(), Arc::new(SystemClock), "me".to_owned()).await.unwrap();
        let mut tx = store.begin(Durability::ProcessSafe).await.unwrap();
        let mints = std::iter::repeat_n("silent", 250).chain(["good"]);
        for (at, mint) in (0..).zip(mints) {
            let income = ledger.house().income;
            let mut operation = Operation::planned(Kind::Payout, income, mint, MintUnit::Sat, Msat::ZERO);
            insert(&mut tx, &mut operation, None, "me", at).await.unwrap();
        }
        tx.commit().await.unwrap();
        let due = Due { owner: "me", now_ms: i64::MAX, started_ms: 0, dead_before_ms: 0 };
        let mut reader = store.read().acquire().await.unwrap();
        let all = due.list(&mut reader, &["silent", "good"]).await.unwrap();
        assert!(all.len() == 200 && all.iter().all(|operation| operation.mint == "silent"));
        let asked = due.list(&mut reader, &["good"]).await.unwrap();
        assert_eq!(asked.iter().map(|operation| operation.mint.as_str()).collect::<Vec<_>>(), ["good"]);
        assert_eq!(due.count(&mut reader, &["silent"]).await.unwrap(), 250);
        assert_eq!(
            (due.count(&mut reader, &[]).await.unwrap(), due.list(&mut reader, &[]).await.unwrap().len()),
            (0, 0)
        );
        drop(reader);
        store.close().await;
    }
}
