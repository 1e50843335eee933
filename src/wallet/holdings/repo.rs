//! The statements behind the reckoning. They read cdk's table of proofs, which is in the same
//! database, together with the journal and the ledger.

use sqlx::{AnyExecutor, AssertSqlSafe, Row};

use super::super::journal::{self, Operation};
use super::Traces;
use crate::store::{Hand, StoreError};

/// Most rows of one kind that are named.
const NAMED: i64 = 50;

/// Proofs of one mint and unit, in units.
pub(super) struct Sum {
    pub mint: String,
    pub unit: String,
    pub reserved: bool,
    pub units: i64,
}

/// What is the node's: unspent, or set aside for an operation that has not given it away.
pub(super) async fn sums(executor: impl AnyExecutor<'_>) -> Result<Vec<Sum>, StoreError> {
    let rows = sqlx::query(
        "SELECT p.mint_url, p.unit, p.state, CAST(SUM(p.amount) AS BIGINT) FROM proof p \
         LEFT JOIN operations o ON o.id = p.used_by_operation \
         WHERE p.state = 'UNSPENT' OR (p.state = 'RESERVED' AND (o.id IS NULL OR o.state <> 'done')) \
         GROUP BY p.mint_url, p.unit, p.state",
    )
    .fetch_all(executor)
    .await?;
    let sum = |row: &sqlx::any::AnyRow| {
        let state: String = row.try_get(2)?;
        Ok(Sum { mint: row.try_get(0)?, unit: row.try_get(1)?, reserved: state == "RESERVED", units: row.try_get(3)? })
    };
    rows.iter().map(sum).collect()
}

/// A proof in a state that no proof may be in.
pub(super) struct Stray {
    pub y: Vec<u8>,
    pub what: String,
}

pub(super) async fn strays(executor: impl AnyExecutor<'_>) -> Result<Vec<Stray>, StoreError> {
    let rows = sqlx::query(
        "SELECT p.y, CASE \
         WHEN p.unit NOT IN ('sat', 'msat') THEN 'it is in another unit' \
         WHEN p.amount <= 0 THEN 'it is worth nothing' \
         WHEN p.state NOT IN ('UNSPENT', 'RESERVED', 'SPENT') THEN 'it is in a state that this node does not use' \
         WHEN p.state = 'UNSPENT' THEN 'it is unspent, and belongs to an operation' \
         WHEN p.used_by_operation IS NULL THEN 'it is set aside for no operation' \
         WHEN o.id IS NULL THEN 'it is set aside for an operation that there is not' \
         WHEN o.kind IN ('redeem', 'topup') THEN 'it is set aside for an operation that brings money' \
         ELSE 'it is set aside for a payment that is over' END \
         FROM proof p LEFT JOIN operations o ON o.id = p.used_by_operation \
         WHERE p.unit NOT IN ('sat', 'msat') OR p.amount <= 0 OR p.state NOT IN ('UNSPENT', 'RESERVED', 'SPENT') \
         OR (p.state = 'UNSPENT' AND p.used_by_operation IS NOT NULL) \
         OR (p.state = 'RESERVED' AND (o.id IS NULL OR o.kind IN ('redeem', 'topup') \
         OR (o.state = 'done' AND o.recipient <> ''))) LIMIT $1",
    )
    .bind(NAMED)
    .fetch_all(executor)
    .await?;
    rows.iter().map(|row| Ok(Stray { y: row.try_get(0)?, what: row.try_get(1)? })).collect()
}

/// What went away in the token of an operation that is done.
pub(super) struct Given {
    pub operation: String,
    pub unit: String,
    pub units: i64,
    /// By the ledger, in msat.
    pub paid_out: i64,
}

/// Tokens whose proofs are not worth what left the books for them.
pub(super) async fn given(executor: impl AnyExecutor<'_>) -> Result<Vec<Given>, StoreError> {
    let rows = sqlx::query(
        "SELECT g.id, g.unit, g.units, COALESCE(t.amount, 0) FROM \
         (SELECT o.id, o.unit, CAST(SUM(p.amount) AS BIGINT) AS units FROM operations o \
         JOIN proof p ON p.used_by_operation = o.id AND p.state = 'RESERVED' \
         WHERE o.state = 'done' AND o.recipient = '' AND o.kind IN ('change', 'refund', 'expiry', 'payout') \
         GROUP BY o.id, o.unit) g \
         LEFT JOIN (SELECT reference, CAST(SUM(amount) AS BIGINT) AS amount FROM transfers \
         WHERE kind = 'paid_out' GROUP BY reference) t ON t.reference = g.id \
         WHERE COALESCE(t.amount, 0) <> g.units * CASE g.unit WHEN 'sat' THEN 1000 ELSE 1 END LIMIT $1",
    )
    .bind(NAMED)
    .fetch_all(executor)
    .await?;
    let given = |row: &sqlx::any::AnyRow| {
        Ok(Given {
            operation: row.try_get(0)?,
            unit: row.try_get(1)?,
            units: row.try_get(2)?,
            paid_out: row.try_get(3)?,
        })
    };
    rows.iter().map(given).collect()
}

/// Everything in the journal that has not ended, with its traces among the proofs.
pub(super) async fn open_operations(hand: &mut Hand<'_>) -> Result<Vec<(Operation, Traces)>, StoreError> {
    let mut found = Vec::new();
    for operation in journal::all_open(hand.again()).await? {
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM proof WHERE created_by_operation = $1), \
             (SELECT COUNT(*) FROM proof WHERE used_by_operation = $2 AND state = 'RESERVED' \
             AND COALESCE(created_by_operation, '') <> $3)",
        )
        .bind(operation.id.as_str())
        .bind(operation.id.as_str())
        .bind(operation.id.as_str())
        .fetch_one(hand.again())
        .await?;
        let traces = Traces { kept: row.try_get(0)?, inputs: row.try_get(1)? };
        found.push((operation, traces));
    }
    Ok(found)
}

/// State and operation of a proof.
pub(super) async fn state(
    executor: impl AnyExecutor<'_>,
    y: &[u8],
) -> Result<Option<(String, Option<String>)>, StoreError> {
    let row = sqlx::query("SELECT state, used_by_operation FROM proof WHERE y = $1").bind(y.to_vec());
    let row = row.fetch_optional(executor).await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

/// Mint and identifier of every proof that belongs to no operation.
pub(super) async fn unspent(executor: impl AnyExecutor<'_>) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let sql = "SELECT mint_url, y FROM proof WHERE state = 'UNSPENT' ORDER BY y";
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(executor).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
