//! Steps of operations: each is one statement of a caller's transaction.

use std::str::FromStr as _;

use cdk::Amount;
use cdk::nuts::{Id, Proof, PublicKey};
use cdk::secret::Secret;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::lookups::marks;
use super::{Fate, Kind, LEASE_MS, OPEN, Operation, State, pause_ms};
use crate::money::Msat;
use crate::store::{StoreError, Tx};

/// Writes a new operation of `owner`, leased to it. `token_hash` makes it the only one for that token. On a client's
/// account it is newer than those before it, also where the clock was set back since: the newest is given out again.
pub(in crate::wallet) async fn insert(
    tx: &mut Tx,
    operation: &mut Operation,
    token_hash: Option<&str>,
    owner: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    owner.clone_into(&mut operation.owner);
    operation.due_at = now_ms.saturating_add(LEASE_MS);
    operation.updated_at = now_ms;
    // Not an invoice, whose age counts, nor the house's, of which nobody asks for the newest.
    let is_ordered = matches!(operation.kind, Kind::Redeem | Kind::Change | Kind::Refund | Kind::Expiry);
    let after = if is_ordered { operation.account.get() } else { 0 };
    let row = sqlx::query(
        "INSERT INTO operations (id, kind, state, account, mint, unit, amount, token_hash, recipient, payment_hash, \
         plan, result, owner, due_at, updated_at, created_at, takes_back) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, COALESCE((SELECT MAX(created_at) + 1 \
         FROM operations WHERE account = $16 AND created_at >= $15), $15), $17) RETURNING created_at",
    )
    .bind(operation.id.as_str())
    .bind(operation.kind.as_str())
    .bind(operation.state.as_str())
    .bind(operation.account.get())
    .bind(operation.mint.as_str())
    .bind(operation.unit.as_str())
    .bind(operation.amount.to_db())
    .bind(token_hash)
    .bind(operation.recipient.as_str())
    .bind(operation.payment_hash.as_str())
    .bind(operation.plan.as_str())
    .bind(operation.result.as_str())
    .bind(owner)
    .bind(operation.due_at)
    .bind(now_ms)
    .bind(after)
    .bind(operation.takes_back.as_deref())
    .fetch_one(tx.hand())
    .await?;
    operation.created_at = row.try_get(0)?;
    Ok(())
}

/// A step of an operation.
#[derive(Clone, Copy, Debug)]
pub(in crate::wallet) struct Step<'a> {
    pub state: State,
    pub plan: &'a str,
    pub result: &'a str,
}

/// Moves an open operation of `owner` on, and renews its lease. Returns whether it was open until
/// now: an outcome is recorded once, and only who records it may post it to the ledger.
pub(in crate::wallet) async fn advance(
    tx: &mut Tx,
    id: &str,
    owner: &str,
    step: Step<'_>,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let sql = format!(
        "UPDATE operations SET state = $1, plan = $2, result = $3, due_at = $4, updated_at = $5 \
         WHERE id = $6 AND owner = $7 AND {OPEN}"
    );
    let done = sqlx::query(AssertSqlSafe(sql))
        .bind(step.state.as_str())
        .bind(step.plan)
        .bind(step.result)
        .bind(now_ms.saturating_add(LEASE_MS))
        .bind(now_ms)
        .bind(id)
        .bind(owner)
        .execute(tx.hand())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes that an attempt ended without an outcome. `state` is what is known: unknown where
/// something may have happened, planned where surely nothing did.
pub(in crate::wallet) async fn postpone(
    tx: &mut Tx,
    operation: &Operation,
    owner: &str,
    state: State,
    why: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE operations SET state = $1, result = $2, attempts = attempts + 1, due_at = $3, updated_at = $4 \
         WHERE id = $5 AND owner = $6 AND {OPEN}"
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(state.as_str())
        .bind(why)
        .bind(now_ms.saturating_add(pause_ms(operation.attempts)))
        .bind(now_ms)
        .bind(operation.id.as_str())
        .bind(owner)
        .execute(tx.hand())
        .await?;
    Ok(())
}

/// Notes that an attempt failed before anything was known: all else stays as it is.
pub(in crate::wallet) async fn put_off(
    tx: &mut Tx,
    operation: &Operation,
    owner: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE operations SET attempts = attempts + 1, due_at = $1, updated_at = $2 \
         WHERE id = $3 AND owner = $4 AND {OPEN}"
    );
    let update = sqlx::query(AssertSqlSafe(sql)).bind(now_ms.saturating_add(pause_ms(operation.attempts)));
    update.bind(now_ms).bind(operation.id.as_str()).bind(owner).execute(tx.hand()).await?;
    Ok(())
}

/// Notes that there is nothing to do before `due_at`.
pub(in crate::wallet) async fn defer(
    tx: &mut Tx,
    id: &str,
    owner: &str,
    due_at: i64,
    now_ms: i64,
) -> Result<(), StoreError> {
    let sql = format!("UPDATE operations SET due_at = $1, updated_at = $2 WHERE id = $3 AND owner = $4 AND {OPEN}");
    sqlx::query(AssertSqlSafe(sql)).bind(due_at).bind(now_ms).bind(id).bind(owner).execute(tx.hand()).await?;
    Ok(())
}

/// Notes that an open operation is due now, whoever owns it. Returns whether it is open.
pub(in crate::wallet) async fn hurry(tx: &mut Tx, id: &str, now_ms: i64) -> Result<bool, StoreError> {
    let sql = format!("UPDATE operations SET due_at = $1 WHERE id = $2 AND {OPEN}");
    let done = sqlx::query(AssertSqlSafe(sql)).bind(now_ms).bind(id).execute(tx.hand()).await?;
    Ok(done.rows_affected() == 1)
}

/// Notes the invoice of an operation.
pub(in crate::wallet) async fn set_payment_hash(tx: &mut Tx, id: &str, payment_hash: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE operations SET payment_hash = $1 WHERE id = $2")
        .bind(payment_hash)
        .bind(id)
        .execute(tx.hand())
        .await?;
    Ok(())
}

/// Notes what came of an operation that is done, where nothing was noted before.
pub(in crate::wallet) async fn set_result(tx: &mut Tx, id: &str, result: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE operations SET result = $1 WHERE id = $2 AND state = 'done' AND result = ''")
        .bind(result)
        .bind(id)
        .execute(tx.hand())
        .await?;
    Ok(())
}

/// Moves what is owed to another mint of the node's, or a part of it. Returns whether it was still to be planned.
pub(in crate::wallet) async fn rehome(
    tx: &mut Tx,
    id: &str,
    owner: &str,
    mint: &str,
    amount: Msat,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE operations SET mint = $1, amount = $2 WHERE id = $3 AND owner = $4 AND state = 'planned' AND plan = ''",
    );
    let done = done.bind(mint).bind(amount.to_db()).bind(id).bind(owner).execute(tx.hand()).await?;
    Ok(done.rows_affected() == 1)
}

/// Makes an open operation this process's own, if it is already, or if its owner was not seen
/// since `dead_before_ms`. Returns whether it is: nobody else works on it then. Two processes that
/// sent the same swap would each take the other's success for somebody else's spending.
pub(in crate::wallet) async fn adopt(
    tx: &mut Tx,
    id: &str,
    owner: &str,
    dead_before_ms: i64,
) -> Result<bool, StoreError> {
    let sql = format!(
        "UPDATE operations SET owner = $1 WHERE id = $2 AND {OPEN} AND (owner = $3 \
         OR NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = operations.owner AND n.seen_at >= $4))"
    );
    let done = sqlx::query(AssertSqlSafe(sql))
        .bind(owner)
        .bind(id)
        .bind(owner)
        .bind(dead_before_ms)
        .execute(tx.hand())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Secrets that one statement claims, or looks for: most tokens have fewer, and each number of them is another text.
pub(super) const CLAIMED_AT_ONCE: usize = 32;

/// Claims the secrets of a token for an operation.
///
/// # Errors
/// A duplicate error when one of them was accepted before.
pub(in crate::wallet) async fn claim_secrets(tx: &mut Tx, id: &str, hashes: &[String]) -> Result<(), StoreError> {
    for hashes in hashes.chunks(CLAIMED_AT_ONCE) {
        let rows: Vec<String> = (2..).take(hashes.len()).map(|number| format!("(${number}, $1)")).collect();
        let sql = format!("INSERT INTO claimed_secrets (secret_hash, operation) VALUES {}", rows.join(", "));
        let insert = sqlx::query(AssertSqlSafe(sql)).bind(id);
        hashes.iter().fold(insert, |insert, hash| insert.bind(hash.as_str())).execute(tx.hand()).await?;
    }
    Ok(())
}

/// Gives the secrets of a refused token free: its owner may present it again.
pub(in crate::wallet) async fn release_claim(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM claimed_secrets WHERE operation = $1").bind(id).execute(tx.hand()).await?;
    sqlx::query("UPDATE operations SET token_hash = NULL WHERE id = $1").bind(id).execute(tx.hand()).await?;
    Ok(())
}

/// Notes what became of the token of an operation that is done, if that was `before` until now. The
/// text of one that was taken back is forgotten. Returns whether it was.
pub(in crate::wallet) async fn note_fate(tx: &mut Tx, id: &str, before: Fate, fate: Fate) -> Result<bool, StoreError> {
    let sql = if fate == Fate::Reclaimed {
        "UPDATE operations SET fate = $1, plan = '', result = '' WHERE id = $2 AND state = 'done' AND fate = $3"
    } else {
        "UPDATE operations SET fate = $1 WHERE id = $2 AND state = 'done' AND fate = $3"
    };
    let query = sqlx::query(sql).bind(fate.as_str()).bind(id).bind(before.as_str());
    Ok(query.execute(tx.hand()).await?.rows_affected() == 1)
}

/// Reserves unspent proofs for an operation, and returns them. `None`: they were not all free, and nothing may be
/// committed.
pub(in crate::wallet) async fn reserve_proofs(
    tx: &mut Tx,
    id: &str,
    ys: &[PublicKey],
) -> Result<Option<Vec<Proof>>, StoreError> {
    let sql = format!(
        "UPDATE proof SET state = 'RESERVED', used_by_operation = $1 WHERE state = 'UNSPENT' AND y IN ({}) \
         RETURNING amount, keyset_id, secret, c",
        marks(2, ys)
    );
    let update = sqlx::query(AssertSqlSafe(sql)).bind(id);
    let rows = ys.iter().fold(update, |update, y| update.bind(y.to_bytes().to_vec())).fetch_all(tx.hand()).await?;
    if rows.len() != ys.len() {
        return Ok(None);
    }
    rows.iter().map(read_proof).collect::<Result<_, _>>().map(Some)
}

/// A proof of this wallet's, without what only its minting was about.
fn read_proof(row: &AnyRow) -> Result<Proof, StoreError> {
    let bad = |what: String| StoreError::Inconsistent { table: "proof", what };
    let (amount, keyset): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
    let (secret, c): (String, Vec<u8>) = (row.try_get(2)?, row.try_get(3)?);
    let amount = u64::try_from(amount).map_err(|_| bad(format!("an amount of {amount}")))?;
    let keyset = Id::from_str(&keyset).map_err(|error| bad(error.to_string()))?;
    let c = PublicKey::from_slice(&c).map_err(|error| bad(error.to_string()))?;
    let secret = Secret::from_str(&secret).map_err(|_| bad("a secret is none".to_owned()))?;
    Ok(Proof::new(Amount::from(amount), keyset, secret, c))
}

/// Gives free the proofs that are reserved for an operation which failed, or which is open and of `owner`. Returns
/// whether it is such a one. It is locked meanwhile, so that nobody takes it over between the two statements.
pub(in crate::wallet) async fn release_proofs(tx: &mut Tx, id: &str, owner: &str) -> Result<bool, StoreError> {
    let sql =
        format!("UPDATE operations SET owner = owner WHERE id = $1 AND (state = 'failed' OR owner = $2 AND {OPEN})");
    let held = sqlx::query(AssertSqlSafe(sql)).bind(id).bind(owner).execute(tx.hand()).await?;
    if held.rows_affected() == 0 {
        return Ok(false);
    }
    let released = sqlx::query(
        "UPDATE proof SET state = 'UNSPENT', used_by_operation = NULL \
         WHERE used_by_operation = $1 AND state = 'RESERVED'",
    );
    released.bind(id).execute(tx.hand()).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;
    use std::sync::Arc;

    use cdk::Amount;
    use cdk::mint_url::MintUrl;
    use cdk::nuts::{CurrencyUnit, Id, Proof, SecretKey, State as ProofState};
    use cdk_common::wallet::ProofInfo;
    use uuid::Uuid;

    use super::*;
    use crate::clock::SystemClock;
    use crate::ledger::Ledger;
    use crate::money::MintUnit;
    use crate::store::{Durability, Store};
    use crate::wallet::cdk_db;

    #[tokio::test]
    async fn proofs_of_an_operation_that_was_taken_over_stay_reserved() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), None, false).await.unwrap();
        let (ledger, _) = Ledger::open(store.clone(), Arc::new(SystemClock), "me".to_owned()).await.unwrap();
        let ecash = cdk_db::open(&store).await.unwrap();
        let id = Uuid::new_v4();
        let planned = Operation::planned(Kind::Refund, ledger.house().change, "https://m", MintUnit::Sat, Msat::ZERO);
        let mut tx = store.begin(Durability::ProcessSafe).await.unwrap();
        insert(&mut tx, &mut Operation { id: id.to_string(), ..planned }, None, "me", 0).await.unwrap();
        tx.commit().await.unwrap();
        let (keyset, secret) = (Id::from_str("00916bbf7ef91a36").unwrap(), cdk::secret::Secret::generate());
        let proof = Proof::new(Amount::from(1), keyset, secret, SecretKey::generate().public_key());
        let url = MintUrl::from_str("https://m").unwrap();
        let info = ProofInfo::new(proof, url, ProofState::Unspent, CurrencyUnit::Sat).unwrap();
        let y = info.y;
        ecash.update_proofs(vec![info], Vec::new()).await.unwrap();
        let name = id.to_string();
        for (state, owner, free) in [
            (State::Planned, "another", false),
            (State::Done, "me", false),
            (State::Planned, "me", true),
            (State::Failed, "another", true),
        ] {
            let mut tx = store.begin(Durability::ProcessSafe).await.unwrap();
            reserve_proofs(&mut tx, &name, &[y]).await.unwrap();
            assert_eq!(reserve_proofs(&mut tx, "another", &[y]).await.unwrap(), None, "it is not free any more");
            let put = sqlx::query("UPDATE operations SET state = $1").bind(state.as_str());
            put.execute(tx.hand()).await.unwrap();
            assert_eq!(release_proofs(&mut tx, &name, owner).await.unwrap(), free, "{state:?} {owner}");
            tx.commit().await.unwrap();
            assert_eq!(ecash.get_reserved_proofs(&id).await.unwrap().is_empty(), free, "{state:?} {owner}");
        }
        drop(ecash);
        store.close().await;
    }
}
