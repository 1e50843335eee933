//! Proof that the books are right: the sums behind every cached figure, recomputed.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use sqlx::{AnyConnection, Row};

use super::Ledger;
use crate::store::StoreError;

/// Most rows of one kind of fault that are named.
const NAMED: i64 = 50;

/// The state of the books at one moment, in msat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Everything that is off, one line each, naming the row. Empty: proven.
    pub faults: Vec<String>,
    /// Ecash that the ledger says is held, by mint and unit.
    pub ecash: BTreeMap<(String, String), i64>,
    /// Owed to clients: keys, tokens, change not yet made, vouchers.
    pub liabilities: i64,
    /// The part of it that vouchers promise which nobody has redeemed yet.
    pub vouchers: i64,
    /// Charged so far, less the fees that mints took from the node.
    pub earnings: i64,
    /// Set aside for requests that are running.
    pub held: i64,
    pub open_holds: i64,
}

/// A hold that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenHold {
    pub id: i64,
    pub request: String,
    /// The process that serves the request.
    pub owner: String,
    /// When that process was last seen; `None`: never.
    pub owner_seen_ms: Option<i64>,
}

impl Ledger {
    /// Recomputes every cached figure from the rows behind it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn books(&self) -> Result<Books, StoreError> {
        Books::read(&mut *self.store().reader().snapshot().await?).await
    }
}

/// All holds that are open, the oldest first.
///
/// # Errors
/// When the database does not answer.
pub async fn open_holds(connection: &mut AnyConnection) -> Result<Vec<OpenHold>, StoreError> {
    let rows = sqlx::query(
        "SELECT h.id, h.request, h.owner, n.seen_at FROM holds h LEFT JOIN nodes n ON n.id = h.owner \
         WHERE h.state = 'open' ORDER BY h.id",
    )
    .fetch_all(connection)
    .await?;
    let hold = |row: &sqlx::any::AnyRow| {
        Ok(OpenHold {
            id: row.try_get(0)?,
            request: row.try_get(1)?,
            owner: row.try_get(2)?,
            owner_seen_ms: row.try_get(3)?,
        })
    };
    rows.iter().map(hold).collect()
}

impl Books {
    /// Recomputes every cached figure from the rows behind it, on a connection on which nothing
    /// changes meanwhile: a figure that did would look like a fault.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn read(connection: &mut AnyConnection) -> Result<Self, StoreError> {
        let mut books = Self::default();
        let mut rows = sqlx::query(
            "SELECT a.id, a.kind, a.mint, a.unit, a.posted, a.held, \
             CAST(COALESCE(i.amount, 0) AS BIGINT) AS came, CAST(COALESCE(o.amount, 0) AS BIGINT) AS went, \
             CAST(COALESCE(h.amount, 0) AS BIGINT) AS open_amount, CAST(COALESCE(h.open, 0) AS BIGINT) AS open_count \
             FROM accounts a \
             LEFT JOIN (SELECT credit, SUM(amount) AS amount FROM transfers GROUP BY credit) i ON i.credit = a.id \
             LEFT JOIN (SELECT debit, SUM(amount) AS amount FROM transfers GROUP BY debit) o ON o.debit = a.id \
             LEFT JOIN (SELECT account, SUM(amount) AS amount, COUNT(*) AS open FROM holds WHERE state = 'open' \
             GROUP BY account) h ON h.account = a.id",
        )
        .fetch(&mut *connection);
        let mut sum = 0_i64;
        // One after the other: there are as many accounts as there ever were tokens.
        while let Some(row) = rows.try_next().await? {
            let id: i64 = row.try_get("id")?;
            let kind: String = row.try_get("kind")?;
            let posted: i64 = row.try_get("posted")?;
            let held: i64 = row.try_get("held")?;
            let came: i64 = row.try_get("came")?;
            let went: i64 = row.try_get("went")?;
            let open: i64 = row.try_get("open_amount")?;
            let count: i64 = row.try_get("open_count")?;
            sum = sum.saturating_add(posted);
            if Some(posted) != came.checked_sub(went) {
                books.faults.push(format!("account {id} ({kind}): posted {posted}, transfers say {came} − {went}"));
            }
            if held != open {
                books.faults.push(format!("account {id} ({kind}): held {held}, open holds say {open}"));
            }
            books.held = books.held.saturating_add(held);
            books.open_holds = books.open_holds.saturating_add(count);
            match kind.as_str() {
                "mint" => {
                    let key = (row.try_get("mint")?, row.try_get("unit")?);
                    books.ecash.insert(key, posted.saturating_neg());
                }
                "income" | "mint_fees" => books.earnings = books.earnings.saturating_add(posted),
                _ => books.liabilities = books.liabilities.saturating_add(posted),
            }
        }
        drop(rows);
        if sum != 0 {
            books.faults.push(format!("all accounts together are {sum}, not 0"));
        }
        books.faults.extend(faults_of_terms(connection).await?);
        books.faults.extend(faults_of_charges(connection).await?);
        prove_vouchers(connection, &mut books).await?;
        Ok(books)
    }
}

/// What vouchers promise is on their accounts, and nothing is on those of ended ones that made no
/// key. Again one statement.
async fn prove_vouchers(connection: &mut AnyConnection, books: &mut Books) -> Result<(), StoreError> {
    let mut rows = sqlx::query(
        "SELECT v.id, v.state, v.amount, a.posted, \
         CASE WHEN v.redeemed_by = v.account THEN 1 ELSE 0 END AS is_key \
         FROM vouchers v JOIN accounts a ON a.id = v.account",
    )
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let (id, state): (i64, String) = (row.try_get("id")?, row.try_get("state")?);
        let (amount, posted): (i64, i64) = (row.try_get("amount")?, row.try_get("posted")?);
        let is_key: i64 = row.try_get("is_key")?;
        let promised = if state == "open" { amount } else { 0 };
        books.vouchers = books.vouchers.saturating_add(promised);
        if is_key == 0 && posted != promised {
            books.faults.push(format!("voucher {id} ({state}): {posted} on its account, should be {promised}"));
        }
    }
    Ok(())
}

/// Holds whose charge is not the transfer that it should be: a charge that was dropped, or changed.
async fn faults_of_charges(connection: &mut AnyConnection) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query(
        "SELECT h.id, h.state, h.charged, COALESCE(t.amount, 0), COALESCE(t.debit, h.account), h.account \
         FROM holds h LEFT JOIN transfers t ON t.id = -h.id \
         WHERE h.charged <> COALESCE(t.amount, 0) OR COALESCE(t.debit, h.account) <> h.account LIMIT $1",
    )
    .bind(NAMED)
    .fetch_all(connection)
    .await?;
    let fault = |row: &sqlx::any::AnyRow| {
        let (id, state): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        let (charged, moved): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        let (from, account): (i64, i64) = (row.try_get(4)?, row.try_get(5)?);
        Ok(format!(
            "hold {id} ({state}) of account {account}: charged {charged}, its transfer moved {moved} from {from}"
        ))
    };
    rows.iter().map(fault).collect()
}

/// The figures of keys with terms, against their holds. Again one statement.
async fn faults_of_terms(connection: &mut AnyConnection) -> Result<Vec<String>, StoreError> {
    let mut rows = sqlx::query(
            "SELECT t.account, t.held, t.used, t.spent, t.requests, \
             CAST((SELECT COALESCE(SUM(amount), 0) FROM holds h WHERE h.spender = t.account AND h.state = 'open') AS BIGINT) AS open_amount, \
             CAST((SELECT COALESCE(SUM(charged), 0) FROM holds h WHERE h.spender = t.account) AS BIGINT) AS charged, \
             (SELECT COUNT(*) FROM holds h WHERE h.spender = t.account AND h.charged > 0) AS charges, \
             (SELECT COUNT(*) FROM holds h WHERE h.spender = t.account AND h.account <> COALESCE(t.parent, t.account)) AS astray, \
             CASE WHEN t.parent IS NULL THEN 0 ELSE a.posted END AS own \
             FROM key_terms t JOIN accounts a ON a.id = t.account",
        )
        .fetch(connection);
    let mut faults = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let read = |name: &str| row.try_get::<i64, _>(name);
        let key = read("account")?;
        let rules = [
            ("held", read("held")?, "open holds say", read("open_amount")?),
            ("spent", read("spent")?, "its holds say", read("charged")?),
            ("requests", read("requests")?, "its holds say", read("charges")?),
            ("holds on another's account", read("astray")?, "allowed are", 0),
            ("balance of its own", read("own")?, "a child key has", 0),
        ];
        let broken = rules.iter().filter(|(_, is, _, should)| is != should);
        faults.extend(broken.map(|(what, is, who, should)| format!("key {key}: {what} {is}, {who} {should}")));
        let (used, spent) = (read("used")?, read("spent")?);
        if used > spent {
            faults.push(format!("key {key}: used {used} in its window, but spent {spent} in all"));
        }
    }
    Ok(faults)
}
