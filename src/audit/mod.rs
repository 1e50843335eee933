//! Proof of solvency: that the node has what it owes, shown row by row.
//!
//! 1. The ledger sums to zero, and every cached figure is the sum of its rows ([`Books`]).
//! 2. Every open hold belongs to a request that runs: its process was seen lately, and in this
//!    process the hold is live.
//! 3. Every proof is in one state, and that state fits the journal ([`Holdings`]).
//! 4. Per mint and unit, the ecash held is what the ledger says, give or take what the operations
//!    under way are worth; so all ecash less what is owed is what was earned.
//! 5. The database file is whole (SQLite's `quick_check`), and the mints say that the ecash is unspent
//!    (NUT-07). A mint that does not answer proves nothing,
//!    and disproves nothing: it is named, as not asked.
//!
//! Points 1 to 4 are read from one snapshot, so a node may run meanwhile, and its figures may move.
//! For 2 and 5, which look at something else than the database, whatever looks wrong is looked at
//! again afterwards.

mod latest;
mod report;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::ledger::books::{Books, OpenHold, open_holds};
use crate::ledger::{Ledger, PATIENCE};
use crate::store::{Reader, StoreError};
use crate::wallet::holdings::{Answer, Holdings, Inspector, ProofId, canonical};
use crate::wallet::recovery;

pub use latest::{Lack, Latest};
pub use report::{Asked, PurseReport, Report, Solvency};

/// Proofs that one mint is asked about each time: public mints limit their callers.
pub const MOST_ASKED: usize = 1_000;
/// Most rows of one kind that are named.
const NAMED: usize = 50;

/// Who proves it, and with what.
#[derive(Clone, Debug)]
pub struct Auditor {
    pub reader: Reader,
    pub clock: SharedClock,
    /// Asks the mints; without one, none is asked, and the file is not read through either.
    pub inspector: Option<Inspector>,
    /// The ledger of this process, where a node runs in it.
    pub ledger: Option<Ledger>,
    /// Silence after which the process of a hold is taken for dead; [`PATIENCE`] at least.
    pub patience: Duration,
    /// Most proofs that one mint is asked about.
    pub most_asked: usize,
}

impl Auditor {
    /// The auditor of a node that runs in this process.
    #[must_use]
    pub fn of(ledger: Ledger, inspector: Inspector, most_asked: usize) -> Self {
        Self {
            reader: ledger.store().reader(),
            clock: Arc::clone(ledger.clock()),
            inspector: Some(inspector),
            patience: ledger.patience(),
            ledger: Some(ledger),
            most_asked,
        }
    }

    /// Proves it, or names what is off.
    ///
    /// # Errors
    /// When the books cannot be read: nothing is known then. Where the file is damaged, that is said, and not what
    /// could not be read because of it.
    pub async fn prove(&self) -> Result<Report, StoreError> {
        let damage = if self.inspector.is_some() { self.reader.quick_check().await? } else { None };
        match (self.look().await, damage) {
            (Ok(mut report), damage) => {
                report.faults.extend(damage.map(|damage| StoreError::Damaged(damage).to_string()));
                Ok(report)
            }
            (Err(_), Some(damage)) => Err(StoreError::Damaged(damage)),
            (Err(error), None) => Err(error),
        }
    }

    async fn look(&self) -> Result<Report, StoreError> {
        let now_ms = self.clock.now_ms();
        let mut snapshot = self.reader.snapshot().await?;
        let books = Books::read(&mut snapshot).await?;
        let holds = open_holds(&mut snapshot).await?;
        let holdings = Holdings::read(&mut snapshot.hand()).await?;
        let due = recovery::due(&mut snapshot).await?;
        drop(snapshot);
        let mut report = Report::new(now_ms, &books, &holdings);
        let due = due.map(|reason| format!("a recovery is due, because {reason}; the node does it when it starts"));
        report.faults.extend(due);
        report.faults.extend(self.faults_of_holds(holds, now_ms).await?);
        self.ask_mints(&holdings, &mut report).await?;
        Ok(report)
    }

    async fn faults_of_holds(&self, holds: Vec<OpenHold>, now_ms: i64) -> Result<Vec<String>, StoreError> {
        let mut faults = Vec::new();
        let mut orphans = Vec::new();
        for hold in holds {
            let mine = self.ledger.as_ref().filter(|ledger| ledger.owner() == hold.owner);
            if let Some(ledger) = mine {
                if !ledger.is_live(hold.id) {
                    orphans.push(hold);
                }
                continue;
            }
            let silent_ms = hold.owner_seen_ms.map(|seen| now_ms.saturating_sub(seen));
            let patience_ms = i64::try_from(self.patience.max(PATIENCE).as_millis()).unwrap_or(i64::MAX);
            if silent_ms.is_none_or(|silent| silent > patience_ms) {
                let seen = silent_ms.map_or("never".to_owned(), |ms| format!("{} s ago", ms.div_euclid(1000)));
                let OpenHold { id, request, owner, .. } = hold;
                faults.push(format!(
                    "hold {id} of request {request}: its process {owner} was seen {seen}; its next start releases it"
                ));
            }
        }
        if !orphans.is_empty() {
            // Ended between the snapshot and the look at what is live?
            let open = open_holds(&mut *self.reader.snapshot().await?).await?;
            orphans.retain(|orphan| open.iter().any(|hold| hold.id == orphan.id));
        }
        let orphan = |hold: OpenHold| format!("hold {} of request {}: no such request runs", hold.id, hold.request);
        faults.extend(orphans.into_iter().map(orphan));
        faults.truncate(NAMED);
        Ok(faults)
    }

    async fn ask_mints(&self, holdings: &Holdings, report: &mut Report) -> Result<(), StoreError> {
        let Some(inspector) = &self.inspector else { return Ok(()) };
        let asking = holdings.unspent.iter().map(|(mint, proofs)| async move {
            let chosen = some_of(proofs, self.most_asked);
            (mint, proofs.len(), inspector.ask(mint, &chosen).await)
        });
        let answers = futures_util::future::join_all(asking).await;
        for (mint, of, answer) in answers {
            let Answer { asked, spent, pending, silence } = answer;
            for (proofs, what) in [(spent, "spent"), (pending, "pending")] {
                // Moved between the snapshot and the question?
                let still = Holdings::still_unspent(&mut *self.reader.snapshot().await?, &proofs).await?;
                let fault = |id: &ProofId| format!("proof {id} is unspent here, and {what} at {mint}");
                report.faults.extend(still.iter().take(NAMED).map(fault));
            }
            report.mints.push(Asked { mint: mint.clone(), proofs: of, asked, silence });
        }
        Ok(())
    }
}

/// All of them, or so many in a row from anywhere: over time, every proof is asked about.
fn some_of(proofs: &[ProofId], most: usize) -> Vec<ProofId> {
    if proofs.len() <= most {
        return proofs.to_vec();
    }
    let start = usize::try_from(rand::random::<u32>()).unwrap_or(0).checked_rem(proofs.len()).unwrap_or(0);
    proofs.iter().cycle().skip(start).take(most).copied().collect()
}

/// The purse of a mint and unit, however the mint's URL is written.
fn purse_id(mint: &str, unit: &str) -> (String, String) {
    (canonical(mint), unit.to_owned())
}
