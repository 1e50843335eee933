//! Asks the price lists of others when it is time, and takes up what the operator decided, in this process or
//! beside it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::catalog::import::Importer;

/// Keeps this process's price list as the stored one, and that fresh.
pub struct KeepPrices {
    pub importer: Arc<Importer>,
}

#[async_trait]
impl Job for KeepPrices {
    fn name(&self) -> &'static str {
        "keep_prices"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(2)
    }

    /// A source that does not answer is asked again when its time has come, which is not the job's failure.
    async fn activate(&self) -> Result<(), String> {
        let importer = &self.importer;
        if importer.look().await.map_err(|error| error.to_string())? {
            tracing::info!("the price list is another one");
        }
        if !importer.is_due().await.map_err(|error| error.to_string())? {
            return Ok(());
        }
        let outcome = importer.sync().await.map_err(|error| error.to_string())?;
        for (source, trouble) in &outcome.troubles {
            tracing::warn!(source, trouble, "a source of prices does not answer");
        }
        let plan = &outcome.plan;
        if !plan.put.is_empty() {
            tracing::info!(new = plan.added.len(), raised = plan.raised.len(), "prices were taken from the sources");
        }
        let waiting = plan.waiting().count();
        if waiting > 0 {
            tracing::info!(waiting, "price changes wait for the operator: /admin/models, or coinslot models diff");
        }
        Ok(())
    }
}
