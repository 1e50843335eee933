//! Brings the traces of requests to the operator's collector.

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::telemetry::Collector;

/// Posts what has come together.
pub struct ExportTraces {
    pub collector: Collector,
}

#[async_trait]
impl Job for ExportTraces {
    fn name(&self) -> &'static str {
        "export_traces"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(5)
    }

    async fn nudged(&self) {
        self.collector.filled().await;
    }

    async fn activate(&self) -> Result<(), String> {
        self.collector.export().await.map_err(|error| format!("the collector of traces: {error}"))
    }
}
