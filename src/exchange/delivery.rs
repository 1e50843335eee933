//! A streamed answer on its way to the client.
//!
//! The pump that reads the upstream and owns the hold is a plain future. While the client reads,
//! its connection polls the pump, so a chunk crosses no task. When the client leaves, or stops
//! reading, the pump moves into a task of its own and finishes there: settlement is never in the
//! client's hands.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use rust_decimal::Decimal;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{Reply, Timing, Whole};
use crate::clock::SharedClock;
use crate::dialect::Receipt;
use crate::failure::{Failure, Funds};
use crate::net::alarm::Alarm;
use crate::wallet::Change;

/// A buffered answer beyond this streams live after all; its change is fetched.
pub(super) const MAX_BUFFERED: usize = 32 * 1024 * 1024;

/// A comment, which is no event (HTML, server-sent events).
const PING: &[u8] = b": ping\n\n";

/// One piece of a delivery.
#[derive(Debug)]
pub enum Out {
    /// Bytes of the body.
    Data(Bytes),
    /// The bill is settled. Comes once, just before the last bytes.
    Settled { receipt: Box<Receipt>, change: Option<Change> },
}

/// The stream ended early because its client had stopped reading.
#[derive(Debug, thiserror::Error)]
#[error("the client stopped reading")]
pub struct Aborted;

type Pump = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

struct Lane {
    /// `None` once it has finished.
    pump: Option<Pump>,
    failure: Option<Failure>,
    pieces: mpsc::Receiver<Out>,
}

struct Shared {
    lane: Mutex<Option<Lane>>,
    /// When the client last asked for more, in ms.
    touched_ms: AtomicI64,
    /// The node's own task reads it. That task cannot stall, and nobody would wake it if the pump were taken from it.
    at_home: AtomicBool,
    /// Of the request's hold.
    hold: i64,
}

/// The deliveries that are running, for the job that looks after stalled ones.
#[derive(Debug, Default)]
pub struct Deliveries {
    running: Mutex<Vec<Weak<Shared>>>,
}

/// One streamed answer.
pub struct Delivery {
    shared: Arc<Shared>,
    head: Option<Out>,
    tracker: TaskTracker,
    clock: SharedClock,
    beat: Option<Beat>,
    /// `Content-Type` of what it delivers.
    media: &'static str,
    timing: Timing,
    served: Served,
}

/// What a delivery says of itself before its bill is known.
#[derive(Clone, Debug)]
pub struct Served {
    /// The model, as the price list has it.
    pub model: String,
    /// BTC/USD that is used, where prices are in USD.
    pub btc_usd: Option<Decimal>,
}

/// How a delivery looks on its way.
#[derive(Clone, Debug)]
pub(super) struct Form {
    /// `Content-Type` of what it delivers.
    pub media: &'static str,
    /// How long it may be silent; a format that knows no comments has no such limit.
    pub keep_alive: Option<Duration>,
    /// What is over when it begins.
    pub timing: Timing,
    pub served: Served,
    /// The id of the request's hold.
    pub hold: i64,
}

/// Says in a comment, every so often, that a silent stream lives.
struct Beat {
    every: Duration,
    alarm: Alarm,
}

impl Beat {
    fn new(every: Duration) -> Self {
        Self { every, alarm: Alarm::new(Instant::now() + every) }
    }

    /// Something was sent.
    fn put_off(&mut self) {
        self.alarm.set(Instant::now() + self.every);
    }

    /// Ready when nothing was sent for long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.alarm.poll(cx));
        self.put_off();
        Poll::Ready(())
    }
}

impl Shared {
    /// Whether it is in the hands of a client who has not read since `before_ms`.
    fn is_stalled(&self, before_ms: i64) -> bool {
        !self.at_home.load(Ordering::Acquire) && self.touched_ms.load(Ordering::Relaxed) < before_ms
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Delivery")
    }
}

impl Deliveries {
    /// Starts a delivery around a pump. Nothing runs before it is polled.
    pub(super) fn start<F>(
        &self,
        tracker: &TaskTracker,
        clock: &SharedClock,
        form: Form,
        pump: impl FnOnce(mpsc::Sender<Out>) -> F,
    ) -> Delivery
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let (out, pieces) = mpsc::channel(1);
        let lane = Lane { pump: Some(Box::pin(pump(out))), failure: None, pieces };
        let touched_ms = AtomicI64::new(clock.now_ms());
        let at_home = AtomicBool::new(false);
        let shared = Arc::new(Shared { lane: Mutex::new(Some(lane)), touched_ms, at_home, hold: form.hold });
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.len() == running.capacity() {
            running.retain(|delivery| delivery.strong_count() > 0);
        }
        running.push(Arc::downgrade(&shared));
        let Form { media, keep_alive, timing, served, .. } = form;
        let beat = keep_alive.map(Beat::new);
        let (tracker, clock) = (tracker.clone(), Arc::clone(clock));
        Delivery { shared, head: None, tracker, clock, beat, media, timing, served }
    }

    /// Takes the pumps of deliveries whose client has not read since `before_ms`, and finishes
    /// them without it. Returns how many.
    pub fn take_stalled(&self, tracker: &TaskTracker, before_ms: i64) -> usize {
        self.take(tracker, before_ms, |_| true)
    }

    /// Takes the pump of the request with this hold alone, where its client has not read since `before_ms`.
    pub(super) fn take_unread(&self, tracker: &TaskTracker, hold: i64, before_ms: i64) {
        self.take(tracker, before_ms, |one| one.hold == hold);
    }

    fn take(&self, tracker: &TaskTracker, before_ms: i64, is_meant: impl Fn(&Shared) -> bool) -> usize {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|delivery| delivery.strong_count() > 0);
        let stalled: Vec<Arc<Shared>> =
            running.iter().filter_map(Weak::upgrade).filter(|one| is_meant(one) && one.is_stalled(before_ms)).collect();
        drop(running);
        stalled.iter().filter(|delivery| finish_alone(delivery, tracker)).count()
    }
}

/// Moves an unfinished pump into a task. Returns whether there was one.
fn finish_alone(shared: &Shared, tracker: &TaskTracker) -> bool {
    let lane = shared.lane.lock().unwrap_or_else(PoisonError::into_inner).take();
    match lane {
        Some(Lane { pump: Some(pump), pieces, .. }) => {
            // The pump notices by its closed channel that nobody reads any more.
            drop(pieces);
            tracker.spawn(pump);
            true
        }
        _ => false,
    }
}

impl Delivery {
    /// `Content-Type` of what it delivers.
    #[must_use]
    pub fn media(&self) -> &'static str {
        self.media
    }

    /// What is served, and at which rate.
    #[must_use]
    pub fn served(&self) -> &Served {
        &self.served
    }

    /// How long it took until it could begin.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Runs until there is something to send. A pump that fails before that is a plain failure.
    pub(super) async fn begin(&mut self) -> Result<(), Failure> {
        self.shared.at_home.store(true, Ordering::Release);
        match std::future::poll_fn(|cx| self.poll_piece(cx)).await {
            Some(Ok(first)) => {
                self.leave_home(first);
                Ok(())
            }
            Some(Err(_)) | None => Err(self.failure()),
        }
    }

    /// Runs to the end and buffers; an answer too large to buffer streams after all.
    pub(super) async fn collect(mut self) -> Result<Reply, Failure> {
        self.shared.at_home.store(true, Ordering::Release);
        let mut body = BytesMut::new();
        let mut bill = None;
        while let Some(piece) = std::future::poll_fn(|cx| self.poll_piece(cx)).await {
            match piece {
                Ok(Out::Data(bytes)) => body.extend_from_slice(&bytes),
                Ok(Out::Settled { receipt, change }) => bill = Some((receipt, change)),
                Err(Aborted) => return Err(self.failure()),
            }
            if body.len() > MAX_BUFFERED && bill.is_none() {
                self.leave_home(Out::Data(body.freeze()));
                return Ok(Reply::Stream(Box::new(self)));
            }
        }
        match bill {
            Some((receipt, change)) => {
                let (media, timing) = (self.media.into(), self.timing);
                Ok(Reply::Whole(Box::new(Whole { body: body.freeze(), media, receipt: *receipt, change, timing })))
            }
            None => Err(self.failure()),
        }
    }

    /// From now on its client reads it, `first` before all.
    fn leave_home(&mut self, first: Out) {
        self.head = Some(first);
        self.shared.touched_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        self.shared.at_home.store(false, Ordering::Release);
    }

    /// Why there is nothing to send. Where that is not known, a token may have been redeemed: it must not be called
    /// untouched.
    fn failure(&self) -> Failure {
        let mut lane = self.shared.lane.lock().unwrap_or_else(PoisonError::into_inner);
        let told = lane.as_mut().and_then(|lane| lane.failure.take());
        told.unwrap_or_else(|| Failure::internal().funds(Funds::Claimable))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Out, Aborted>>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(Ok(head)));
        }
        self.shared.touched_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        let mut guard = self.shared.lane.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lane) = guard.as_mut() else {
            return Poll::Ready(Some(Err(Aborted)));
        };
        loop {
            // Taken out while it runs, so that a pump that panics is dropped, and with it its hold.
            let Some(mut pump) = lane.pump.take() else {
                return Poll::Ready(lane.pieces.try_recv().ok().map(Ok));
            };
            match pump.as_mut().poll(cx) {
                Poll::Pending => {
                    lane.pump = Some(pump);
                    // Only the pump sends, before it has to wait, and whatever it waits for wakes this task. Waiting
                    // for a piece as well would have the task woken by its own doing: polled once more, for every
                    // piece.
                    return lane.pieces.try_recv().map_or(Poll::Pending, |piece| Poll::Ready(Some(Ok(piece))));
                }
                Poll::Ready(Err(failure)) => lane.failure = Some(failure),
                Poll::Ready(Ok(())) => {}
            }
        }
    }
}

impl Stream for Delivery {
    type Item = Result<Out, Aborted>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = self.poll_piece(cx);
        let Some(beat) = &mut self.beat else { return piece };
        if piece.is_ready() {
            beat.put_off();
            return piece;
        }
        beat.poll(cx).map(|()| Some(Ok(Out::Data(Bytes::from_static(PING)))))
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        finish_alone(&self.shared, &self.tracker);
    }
}
