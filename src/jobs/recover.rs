//! Recovers a node whose database was put back, before anything else is done with its money.

use tokio_util::sync::CancellationToken;

use super::RETRY;
use crate::wallet::Wallet;
use crate::wallet::recovery::Recovered;

/// Tries until the recovery is done. `false`: the node stopped first.
pub async fn recover(wallet: &Wallet, stop: &CancellationToken) -> bool {
    loop {
        // It may be left at any point, and is taken again from the start.
        let outcome = tokio::select! {
            outcome = wallet.recover() => outcome,
            () = stop.cancelled() => return false,
        };
        match outcome {
            Ok(done) => {
                done.iter().for_each(tell);
                return true;
            }
            Err(error) => tracing::error!(%error, "the recovery is not done yet; nothing is paid until it is"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return false,
        }
    }
}

/// Tells the operator, in whole sats, and never less than it was.
fn tell(done: &Recovered) {
    let Recovered { id, reason, operations, found, spent, .. } = done;
    tracing::warn!(%id, reason, operations, found, spent, "RECOVERED: balances of clients may be higher than they were");
    for purse in &done.purses {
        let sat = |msat: i64| msat.saturating_add(999).div_euclid(1000);
        let (missing_sat, found_sat) = (sat(purse.missing_msat), sat(purse.found_msat));
        let (mint, unit) = (&purse.mint, &purse.unit);
        tracing::warn!(%id, mint, unit, missing_sat, found_sat, "RECOVERED: the books were brought in line");
    }
}
