//! Proof that the books are right: the sums behind every cached figure, recomputed.

use std::collections::BTreeMap;

use sqlx::Row;

use super::Ledger;
use crate::store::StoreError;

/// The state of the books at one moment, in msat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Everything that is off, one line each, naming the row. Empty: proven.
    pub faults: Vec<String>,
    /// Ecash that the ledger says is held, by mint and unit.
    pub ecash: BTreeMap<(String, String), i64>,
    /// Owed to clients: keys, tokens, change not yet made.
    pub liabilities: i64,
    /// Charged so far, less the fees that mints took from the node.
    pub earnings: i64,
    /// Set aside for requests that are running.
    pub held: i64,
    pub open_holds: i64,
}

impl Ledger {
    /// Recomputes every cached figure from the rows behind it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn books(&self) -> Result<Books, StoreError> {
        let mut books = Books::default();
        // One statement, one snapshot: a figure that changes between two would look like a fault.
        let rows = sqlx::query(
            "SELECT a.id, a.kind, a.mint, a.unit, a.posted, a.held, \
             CAST((SELECT COALESCE(SUM(amount), 0) FROM transfers t WHERE t.credit = a.id) AS BIGINT) AS came, \
             CAST((SELECT COALESCE(SUM(amount), 0) FROM transfers t WHERE t.debit = a.id) AS BIGINT) AS went, \
             CAST((SELECT COALESCE(SUM(amount), 0) FROM holds h WHERE h.account = a.id AND h.state = 'open') AS BIGINT) AS open_amount, \
             (SELECT COUNT(*) FROM holds h WHERE h.account = a.id AND h.state = 'open') AS open_count \
             FROM accounts a",
        )
        .fetch_all(self.store().read())
        .await?;
        let mut sum = 0_i64;
        for row in &rows {
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
        if sum != 0 {
            books.faults.push(format!("all accounts together are {sum}, not 0"));
        }
        Ok(books)
    }
}
