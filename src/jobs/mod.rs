//! Background work: reconcilers without input, one file each.
//!
//! A job looks at the state of the world and brings it nearer to what it should be. It is run at
//! start and then on its period, one activation at a time; the next activation is the retry, so a
//! job has one code path after a crash as in normal life. A job that panics is logged and run
//! again. What makes work for a job may nudge it; it is run then before its time, though not before the retry of what
//! failed.

mod announce;
mod check_books;
mod checkpoint;
mod compare_prices;
mod discover;
mod expire_vouchers;
mod export_traces;
mod heartbeat;
mod keep_epoch;
mod keep_outlays;
mod keep_prices;
mod keep_traffic;
mod pay_out;
mod probe_nodes;
mod probe_upstreams;
mod prune;
mod recover;
mod refill_ladder;
mod refresh_keysets;
mod refresh_price;
mod refund_expired;
mod rescue_stalled;
mod resume_operations;
mod take_back_unclaimed;
mod take_snapshot;
mod tell_alarms;
mod watch_alarms;
mod watch_maintenance;
mod watch_settings;
mod watch_tariffs;
mod watch_upstreams;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use announce::Announce;
pub use check_books::CheckBooks;
pub use checkpoint::Checkpoint;
pub use compare_prices::ComparePrices;
pub use discover::Discover;
pub use expire_vouchers::ExpireVouchers;
pub use export_traces::ExportTraces;
pub use heartbeat::Heartbeat;
pub use keep_epoch::KeepEpoch;
pub use keep_outlays::KeepOutlays;
pub use keep_prices::KeepPrices;
pub use keep_traffic::KeepTraffic;
pub use pay_out::PayOut;
pub use probe_nodes::ProbeNodes;
pub use probe_upstreams::ProbeUpstreams;
pub use prune::Prune;
pub use recover::recover;
pub use refill_ladder::RefillLadder;
pub use refresh_keysets::RefreshKeysets;
pub use refresh_price::RefreshPrice;
pub use refund_expired::{RefundExpired, RefundRound, refund_expired};
pub use rescue_stalled::RescueStalled;
pub use resume_operations::ResumeOperations;
pub use take_back_unclaimed::TakeBackUnclaimed;
pub use take_snapshot::TakeSnapshot;
pub use tell_alarms::TellAlarms;
pub use watch_alarms::WatchAlarms;
pub use watch_maintenance::WatchMaintenance;
pub use watch_settings::WatchSettings;
pub use watch_tariffs::WatchTariffs;
pub use watch_upstreams::WatchUpstreams;

use crate::clock::SharedClock;
use crate::metrics::Metrics;

/// One kind of background work.
#[async_trait]
pub trait Job: Send + Sync {
    fn name(&self) -> &'static str;

    /// Time between two activations, after a success.
    fn period(&self) -> Duration;

    /// Waits until there is something to do before its time. Never, unless a job says otherwise. After a failure it is
    /// not listened to before the retry.
    async fn nudged(&self) {
        std::future::pending().await
    }

    /// Time until the next activation after a failure.
    fn retry(&self) -> Duration {
        self.period().min(RETRY)
    }

    /// Does what there is to do. An error is logged, and the next activation comes sooner.
    ///
    /// # Errors
    /// What stood in the way, for the log.
    async fn activate(&self) -> Result<(), String>;
}

/// Longest pause after a failed activation, unless a job says otherwise.
const RETRY: Duration = Duration::from_secs(5);

/// The jobs of a process: their tasks, a log of what they did, and what ends them.
#[derive(Clone, Debug)]
pub struct Crew {
    tracker: TaskTracker,
    metrics: Arc<Metrics>,
    clock: SharedClock,
    stop: CancellationToken,
}

impl Crew {
    #[must_use]
    pub fn new(tracker: TaskTracker, metrics: Arc<Metrics>, clock: SharedClock, stop: CancellationToken) -> Self {
        Self { tracker, metrics, clock, stop }
    }

    /// What ends them, for a job whose activation lasts.
    #[must_use]
    pub const fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts a job; it ends when the crew is stopped, between two activations.
    pub fn run(&self, job: impl Job + 'static) {
        let crew = self.clone();
        self.tracker.spawn(async move {
            loop {
                let activated = std::panic::AssertUnwindSafe(job.activate()).catch_unwind().await;
                let is_done = matches!(activated, Ok(Ok(())));
                crew.metrics.jobs.note(job.name(), is_done, crew.clock.now_ms());
                let pause = match activated {
                    Ok(Ok(())) => jittered(job.period()),
                    Ok(Err(error)) => {
                        tracing::warn!(job = job.name(), %error, "a job failed");
                        job.retry()
                    }
                    Err(_) => {
                        tracing::error!(job = job.name(), "a job panicked");
                        job.period().max(RETRY)
                    }
                };
                tokio::select! {
                    () = rest(tokio::time::sleep(pause), job.nudged(), is_done) => {}
                    () = crew.stop.cancelled() => return,
                }
            }
        });
    }
}

/// Waits for the next activation. Only after a success a nudge is heard at once: what nudges may go on doing so, and
/// who does not answer would be asked without any pause.
async fn rest(pause: impl Future<Output = ()>, nudged: impl Future<Output = ()>, is_done: bool) {
    tokio::select! {
        () = pause => {}
        () = nudged, if is_done => {}
    }
}

/// Up to a tenth longer, so that many nodes do not ask the same server at the same moment.
fn jittered(period: Duration) -> Duration {
    let tenth = u64::try_from(period.as_millis() / 10).unwrap_or(u64::MAX);
    let extra = if tenth == 0 { 0 } else { rand::random::<u64>() % tenth };
    period.saturating_add(Duration::from_millis(extra))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[test]
    fn what_failed_has_its_pause_however_often_it_is_nudged() {
        let rested = |is_over: bool, is_nudged: bool, is_done: bool| {
            let when = |is_so: bool| async move { if is_so { ready(()).await } else { pending().await } };
            rest(when(is_over), when(is_nudged), is_done).now_or_never().is_some()
        };
        assert!(rested(false, true, true));
        assert!(!rested(false, true, false));
        assert!(rested(true, false, false) && rested(true, true, false) && rested(true, false, true));
        assert!(!rested(false, false, true));
    }
}
