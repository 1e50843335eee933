//! Whether a paid request could be served now, or why not.

use super::Exchange;
use crate::wallet::Condition;

impl Exchange {
    /// Why a paid request could not be served now; nothing when it could. A mint that is left alone for a
    /// while is a reason when there is no other: keys with money on them are served all the same, but no
    /// token can be taken.
    pub async fn reasons(&self) -> Vec<String> {
        let wallet = self.till.wallet();
        let mut reasons = Vec::new();
        reasons.extend(wallet.halted());
        if self.maintenance.is_on() {
            reasons.push("the node is being maintained".to_owned());
        }
        if let Err(error) = self.ledger.store().setting("schema").await {
            tracing::error!(%error, "the database does not answer");
            reasons.push("the database does not answer".to_owned());
        }
        if self.metrics.jobs.fails("heartbeat") {
            reasons.push("the database cannot be written".to_owned());
        }
        if self.pool.is_empty() {
            reasons.push("no upstream is configured".to_owned());
        }
        if self.pool.is_barred() {
            reasons.push("no upstream takes this node's account".to_owned());
        }
        if self.pool.is_down() {
            reasons.push("no upstream answers at the moment".to_owned());
        }
        if wallet.mints().is_empty() {
            reasons.push("no mint is configured".to_owned());
        }
        for mint in wallet.mints() {
            if !wallet.knows(mint).await {
                reasons.push(format!("the keysets of {mint} are not known yet"));
            }
        }
        let health = wallet.health();
        if !health.is_empty() && health.iter().all(|mint| matches!(mint.condition, Condition::Open { .. })) {
            reasons.extend(health.iter().filter_map(|mint| Some(format!("{} {}", mint.mint, mint.complaint()?))));
        }
        if !self.market.has_models() {
            reasons.push("no model is priced".to_owned());
        }
        if !self.market.is_priced() {
            reasons.push("the price of bitcoin is not known".to_owned());
        }
        reasons
    }
}
