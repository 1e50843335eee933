//! What ecash there is, reckoned from the proofs in the store and the operations under way.
//!
//! The proofs and the ledger are written by different commits of one operation, so at one moment
//! they may differ by what that operation is worth. Everything needed to say by how much is in the
//! same snapshot: a purse is *ahead* of the ledger by what came in and is not credited yet, and
//! behind it by what went out and is not booked yet. A difference beyond that is a fault.
//!
//! A proof is in one state:
//!
//! | state | belongs to | counts |
//! |---|---|---|
//! | unspent | no operation | yes |
//! | reserved | an operation that is open, or that failed and has not let go of it yet | yes |
//! | reserved | an operation that is done: it went away in that one's token | no |
//! | spent | nobody: the mint said so | no |

mod ask;
mod repo;

use std::collections::BTreeMap;
use std::str::FromStr;

use cdk::mint_url::MintUrl;
use cdk::nuts::PublicKey;
use sqlx::AnyConnection;

use super::journal::{Kind, Operation};
use super::plan::Plan;
use super::swap;
use crate::money::MintUnit;
use crate::store::{Hand, StoreError};

pub use ask::{Answer, Inspector};

/// Mint and unit.
pub type PurseId = (String, String);

/// The ecash of one mint and unit, in msat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purse {
    /// All that is the node's.
    pub held: i64,
    /// What of it operations have set aside.
    pub reserved: i64,
    /// By how much `held` may be ahead of the ledger, at least and at most, because of operations
    /// under way. Negative: behind.
    pub ahead: (i64, i64),
}

/// A proof by its NUT-07 identifier, which gives nothing away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProofId(PublicKey);

/// All ecash at one moment.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    pub purses: BTreeMap<PurseId, Purse>,
    /// Rows that cannot be, one line each.
    pub faults: Vec<String>,
    pub open_operations: usize,
    /// Proofs that belong to no operation, by mint.
    pub unspent: BTreeMap<String, Vec<ProofId>>,
}

impl std::fmt::Display for ProofId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl std::fmt::Debug for ProofId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// What the proofs that an open operation touched say about it.
#[derive(Clone, Copy, Debug, Default)]
struct Traces {
    /// Proofs that it brought.
    kept: i64,
    /// Proofs that are set aside for it, and that it did not bring.
    inputs: i64,
}

impl Holdings {
    /// Reads all ecash, on a connection on which nothing changes meanwhile.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn read(hand: &mut Hand<'_>) -> Result<Self, StoreError> {
        let mut holdings = Self::default();
        for sum in repo::sums(hand.again()).await? {
            let purse = holdings.purses.entry((canonical(&sum.mint), sum.unit.clone())).or_default();
            let Some(msat) = in_msat(&sum.unit, sum.units) else {
                holdings.faults.push(format!("proofs at {}: {} {} is absurd", sum.mint, sum.units, sum.unit));
                continue;
            };
            purse.held = purse.held.saturating_add(msat);
            if sum.reserved {
                purse.reserved = purse.reserved.saturating_add(msat);
            }
        }
        for stray in repo::strays(hand.again()).await? {
            holdings.faults.push(format!("proof {}: {}", hex(&stray.y), stray.what));
        }
        for given in repo::given(hand.again()).await? {
            let worth = in_msat(&given.unit, given.units);
            if worth != Some(given.paid_out) {
                holdings.faults.push(format!(
                    "operation {}: proofs of {} {} went away in its token, {} msat left the books",
                    given.operation, given.units, given.unit, given.paid_out
                ));
            }
        }
        for (operation, traces) in repo::open_operations(hand).await? {
            holdings.open_operations = holdings.open_operations.saturating_add(1);
            let (low, high) = ahead(&operation, traces);
            let id = (canonical(&operation.mint), operation.unit.as_str().to_owned());
            let purse = holdings.purses.entry(id).or_default();
            purse.ahead = (purse.ahead.0.saturating_add(low), purse.ahead.1.saturating_add(high));
            holdings.faults.extend(astray(hand, &operation, traces).await?);
        }
        for (mint, y) in repo::unspent(hand.again()).await? {
            match PublicKey::from_slice(&y) {
                Ok(y) => holdings.unspent.entry(canonical(&mint)).or_default().push(ProofId(y)),
                Err(_) => holdings.faults.push(format!("proof {}: its identifier is none", hex(&y))),
            }
        }
        Ok(holdings)
    }

    /// Which of these proofs are still in the store and belong to no operation.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn still_unspent(connection: &mut AnyConnection, of: &[ProofId]) -> Result<Vec<ProofId>, StoreError> {
        let mut still = Vec::new();
        for id in of {
            if repo::state(&mut *connection, &id.0.to_bytes()).await?.is_some_and(|(state, _)| state == "UNSPENT") {
                still.push(*id);
            }
        }
        Ok(still)
    }
}

/// A mint's URL as the proofs are filed under.
#[must_use]
pub fn canonical(url: &str) -> String {
    MintUrl::from_str(url).map_or_else(|_| url.to_owned(), |url| url.to_string())
}

fn in_msat(unit: &str, units: i64) -> Option<i64> {
    match MintUnit::parse(unit)? {
        MintUnit::Sat => units.checked_mul(1000),
        MintUnit::Msat => Some(units),
    }
}

fn hex(bytes: &[u8]) -> String {
    crate::vault::hex(bytes)
}

/// Whether ecash comes in, and is credited.
fn is_incoming(operation: &Operation) -> bool {
    matches!(operation.kind, Kind::Redeem | Kind::TopUp | Kind::Reclaim)
}

/// By how much an open operation may have its purse ahead of the ledger, at least and at most.
fn ahead(operation: &Operation, traces: Traces) -> (i64, i64) {
    let amount = operation.amount.to_db();
    let plan = Plan::of(operation);
    if is_incoming(operation) {
        return ahead_of_credit(operation, &plan, traces);
    }
    let units = |units| in_msat_of(operation, units);
    let fee = match plan {
        // Nothing is sent yet, or the act has not happened yet as far as this node knows.
        Plan::None => return (0, 0),
        _ if traces.inputs > 0 => return (0, 0),
        Plan::Melt(plan) => {
            // What came back of it may have been spent again.
            let most = units(plan.total).unwrap_or(i64::MAX);
            return (most.saturating_neg(), units(plan.amount).unwrap_or(0).saturating_neg());
        }
        Plan::Swap(plan) => units(plan.fee),
        Plan::Paid(_) | Plan::Quote(_) | Plan::Import(_) | Plan::Unreadable => None,
    };
    // Exchanged, and not booked yet: the mint's fee is gone. Of a plan that this does not read: all of it may be.
    fee.map_or((amount.saturating_neg(), 0), |fee| (fee.saturating_neg(), fee.saturating_neg()))
}

/// The same of ecash that comes in.
fn ahead_of_credit(operation: &Operation, plan: &Plan, traces: Traces) -> (i64, i64) {
    let amount = operation.amount.to_db();
    match plan {
        Plan::Swap(plan) if traces.kept > 0 => {
            // One that was shared may have brought more.
            let bonus = plan.bonus.iter().fold(0, |sum: u64, part| sum.saturating_add(*part));
            (amount, amount.saturating_add(in_msat_of(operation, bonus).unwrap_or(0)))
        }
        _ if traces.kept > 0 => (amount, amount),
        Plan::None => (0, 0),
        // Its outputs are not planned yet.
        Plan::Quote(quote) if quote.outputs.is_empty() => (0, 0),
        // What came may be on its way, or may have come and have been spent again.
        _ => (0, amount),
    }
}

fn in_msat_of(operation: &Operation, units: u64) -> Option<i64> {
    i64::try_from(units).ok().and_then(|units| in_msat(operation.unit.as_str(), units))
}

/// Inputs of an operation's plan that are where they must not be.
async fn astray(hand: &mut Hand<'_>, operation: &Operation, traces: Traces) -> Result<Vec<String>, StoreError> {
    let Some(inputs) = inputs_of(operation) else { return Ok(Vec::new()) };
    let own = !is_incoming(operation);
    let mut faults = Vec::new();
    let mut there: i64 = 0;
    for y in inputs {
        let fault = match repo::state(hand.again(), &y.to_bytes()).await? {
            Some((state, _)) if state == "UNSPENT" => "is an input of its plan, and free for others",
            Some((_, Some(user))) if own && user != operation.id => {
                "is an input of its plan, and set aside for another"
            }
            Some(_) => {
                there = there.saturating_add(1);
                continue;
            }
            None => continue,
        };
        faults.push(format!("operation {}: proof {} {fault}", operation.id, y.to_hex()));
    }
    if own && faults.is_empty() && there != traces.inputs {
        faults.push(format!(
            "operation {}: {} proofs are set aside for it, its plan has {there} of them",
            operation.id, traces.inputs
        ));
    }
    Ok(faults)
}

fn inputs_of(operation: &Operation) -> Option<Vec<PublicKey>> {
    let inputs = match Plan::of(operation) {
        Plan::Melt(plan) => plan.inputs,
        Plan::Swap(plan) => plan.inputs,
        Plan::None | Plan::Paid(_) | Plan::Quote(_) | Plan::Import(_) | Plan::Unreadable => return None,
    };
    swap::ys(&inputs).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::AccountId;
    use crate::money::Msat;

    fn operation(kind: Kind, plan: &str) -> Operation {
        let amount = Msat::new(10_000).unwrap();
        Operation {
            plan: plan.to_owned(),
            ..Operation::planned(kind, AccountId(1), "https://m", MintUnit::Sat, amount)
        }
    }

    #[test]
    fn an_operation_explains_what_it_is_worth_and_no_more() {
        let swap = r#"{"inputs":[],"keyset":"00","counter":0,"outputs":[1],"send":[0],"fee":2}"#;
        let melt =
            r#"{"quote":"q","inputs":[],"keyset":"00","counter":0,"blanks":1,"amount":7,"total":9,"input_fee":0}"#;
        let quote = r#"{"id":"q","bolt11":"b","expires_at":1}"#;
        let rows = [
            (Kind::Redeem, swap, 0, 0, (0, 10_000)),
            (Kind::Redeem, swap, 3, 0, (10_000, 10_000)),
            (Kind::TopUp, "", 0, 0, (0, 0)),
            (Kind::TopUp, quote, 0, 0, (0, 0)),
            (Kind::Refund, "", 0, 2, (0, 0)),
            (Kind::Refund, swap, 0, 2, (0, 0)),
            (Kind::Refund, swap, 3, 0, (-2_000, -2_000)),
            (Kind::Payout, melt, 0, 2, (0, 0)),
            (Kind::Payout, melt, 1, 0, (-9_000, -7_000)),
            (Kind::Consolidate, "{}", 0, 0, (-10_000, 0)),
        ];
        for (kind, plan, kept, inputs, expected) in rows {
            assert_eq!(ahead(&operation(kind, plan), Traces { kept, inputs }), expected, "{kind:?} {plan} {kept}");
        }
    }
}
