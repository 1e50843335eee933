//! Reads a streamed answer to its end, forwards it event by event, and settles.
//!
//! The pump owns the hold. Its client may leave at any time: then it reads on, within limits, to
//! learn what the answer really cost, and settles without it.
//!
//! Before it runs, the stream has been [`open`]ed: read up to its first real content, which is the last
//! moment at which another upstream can be asked instead.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::attempts::Answered;
use super::delivery::MAX_BUFFERED;
use super::replay::Tape;
use super::{Broken, Job, Out, aborted, upstream_failed};
use crate::dialect::sse::{self, Framer};
use crate::dialect::{Complaint, Meter, Reading, Step};
use crate::failure::Failure;
use crate::upstream::{Answer, ForwardError, MAX_ANSWER, Miss, Outcome};
use crate::wallet::Change;

/// How long, and how much, is read after the client has left.
#[derive(Clone, Copy)]
struct Reach {
    time: Duration,
    bytes: usize,
}

const OF_TEXT: Reach = Reach { time: Duration::from_secs(60), bytes: 4 * 1024 * 1024 };
/// Pictures and sound are longer, take longer to make, and say at their end what they cost. So do answers to what is
/// long to read and says little of its length: sound, files, finds.
const OF_MEDIA: Reach = Reach { time: Duration::from_secs(300), bytes: MAX_ANSWER };

impl Reach {
    fn of(job: &Job) -> Self {
        let demand = &job.shape.demand;
        let may_draw = demand.image_by_default && job.candidate.rate_card.prices.image_output.is_some();
        let draws = demand.images_made > 0 || demand.image_out || may_draw;
        let is_media = draws || demand.audio_out || demand.characters > 0;
        if is_media || demand.audio_in > 0 || demand.open_input { OF_MEDIA } else { OF_TEXT }
    }
}

/// Where the events go, and what is left to read once nobody takes them.
struct Sink {
    out: mpsc::Sender<Out>,
    sent: bool,
    /// The answer is buffered: whatever was "sent" is discarded by a failure. Not any more once there is so much of it
    /// that it streams live after all.
    whole: bool,
    /// It is a JSON array, which has no place for comments.
    as_array: bool,
    /// How much of the answer was sent, in bytes.
    size: usize,
    reach: Reach,
    drain: Option<Drain>,
    /// Runs along for a request that may be repeated.
    tape: Option<Tape>,
}

/// The limits of reading on without a client.
struct Drain {
    until: Instant,
    bytes_left: usize,
    /// `None`: too many are drained already; stop at once.
    permit: Option<OwnedSemaphorePermit>,
}

/// Why reading stopped.
enum End {
    /// The upstream closed the stream.
    Closed,
    /// The client is gone and the limits of draining are reached.
    Abandoned,
    /// The operator wants it to end.
    Stopped,
    Failed(ForwardError),
    /// The upstream reported an error in its stream, or sent what is no stream.
    Reported(Complaint),
}

/// The most that is read of a stream in which no content comes, in bytes, beside what it repeats of the request.
const MAX_PRELUDE: usize = 1024 * 1024;
/// How often it may repeat the request meanwhile: some do in each of their first events, and escape more of it.
const ECHOES: usize = 4;

/// A stream whose first content has come.
pub(super) struct Opening {
    answer: Answer,
    framer: Framer,
    meter: Box<dyn Meter>,
    /// What it gave to send so far.
    ready: Vec<Bytes>,
}

/// Reads a stream up to its first content, or to its end if it has none. Nothing of it has been sent. Until then the
/// answer bears with comments and empty events for a while only, however often they come.
///
/// # Errors
/// When it is no answer that could be passed on.
pub(super) async fn open(job: &Job, answer: Answer) -> Result<Opening, Miss> {
    let mut opening = Opening { answer, framer: framer(job), meter: job.dialect.meter(&job.shape), ready: Vec::new() };
    let mut read: usize = 0;
    let most = MAX_PRELUDE.saturating_add(echoes(job));
    loop {
        while let Some(event) = opening.framer.next_event().map_err(|_| job.worthless(TOO_LONG))? {
            if opening.takes(job, &event)? {
                return Ok(opening);
            }
        }
        let chunk = opening.answer.chunk().await.map_err(Miss::Forward)?;
        match chunk {
            Some(chunk) => {
                read = read.saturating_add(chunk.len());
                opening.framer.push(chunk);
                if read > most {
                    return Ok(opening);
                }
            }
            None => {
                if let Some(tail) = opening.framer.finish() {
                    opening.takes(job, &tail)?;
                }
                let complete = opening.meter.is_complete();
                return if complete { Ok(opening) } else { Err(Miss::Worthless(INCOMPLETE.to_owned())) };
            }
        }
    }
}

/// Pictures are long, and an event may have several. What a tool brings stands in the events as well, and all of it once
/// more in the last.
fn framer(job: &Job) -> Framer {
    let demand = &job.shape.demand;
    let has_pictures = demand.images_made > 0 || demand.image_out || demand.image_by_default;
    let has_finds = demand.code_sessions > 0 || demand.open_input;
    let text = sse::MAX_EVENT_BYTES.saturating_add(echoes(job)).min(MAX_ANSWER);
    Framer::with_limit(if has_pictures || has_finds { MAX_ANSWER } else { text })
}

/// What an answer may have of its request, in bytes.
fn echoes(job: &Job) -> usize {
    job.sent.body.len().saturating_mul(ECHOES)
}

impl Opening {
    /// Takes one event. Returns whether it is clear now that this is an answer.
    fn takes(&mut self, job: &Job, event: &Bytes) -> Result<bool, Miss> {
        job.check_leak(event)?;
        look_for_cost(job, event);
        match self.meter.observe(event) {
            Step::Forward(bytes) => self.ready.push(bytes),
            Step::HoldBack => {}
            Step::Error(said) => return Err(job.miss_of(&said)),
        }
        let complete = self.meter.is_complete();
        if self.meter.is_terminated() && !complete {
            return Err(Miss::Worthless(INCOMPLETE.to_owned()));
        }
        Ok(complete || self.meter.has_content())
    }
}

/// What came is not what was asked for.
pub(super) const NO_STREAM: &str = "The upstream answered with something that is not a stream.";
const INCOMPLETE: &str = "The upstream's stream ended before the answer was complete.";
const TOO_LONG: &str = "an event of its stream is too long";

/// Runs one stream. An `Err` means that nothing was sent and the money went back.
pub(super) async fn run(job: Box<Job>, opening: Opening, out: mpsc::Sender<Out>) -> Result<(), Failure> {
    let Opening { mut answer, framer, mut meter, ready } = opening;
    answer.note_content();
    let mut sink = Sink::of(&job, out);
    // What comes of the money is told with the request's id; to enter the span for every piece would cost as much as
    // the piece.
    let span = Span::current();
    let end = read(&job, &mut answer, (framer, ready), meter.as_mut(), &mut sink).await;
    let complete = meter.is_complete() && matches!(end, End::Closed | End::Abandoned | End::Stopped);
    if complete {
        let outcome = finish(job, meter.reading(), meter.as_mut(), &mut sink).instrument(span).await;
        // The connection can be used again if nothing but its end is left to read.
        let _rest = futures_util::FutureExt::now_or_never(answer.chunk());
        return outcome;
    }
    drop(answer);
    break_off(job, end, meter.as_mut(), &mut sink).instrument(span).await
}

/// Delivers an answer that came whole to a client that has the head of a stream.
pub(super) async fn tell(job: Box<Job>, answered: Answered, out: mpsc::Sender<Out>) -> Result<(), Failure> {
    let mut meter = job.dialect.meter(&job.shape);
    let events = job.dialect.as_events(&answered.body);
    let sent: Vec<Bytes> = events
        .iter()
        .filter_map(|event| match meter.observe(event) {
            Step::Forward(bytes) => Some(bytes),
            Step::HoldBack | Step::Error(_) => None,
        })
        .collect();
    if !meter.is_complete() {
        return Err(job.undo(upstream_failed(NO_STREAM)).await);
    }
    let mut sink = Sink::of(&job, out);
    sink.send(sent, &job.exchange.drains).await;
    finish(job, answered.reading, meter.as_mut(), &mut sink).await
}

async fn read(
    job: &Job,
    answer: &mut Answer,
    (mut framer, mut ready): (Framer, Vec<Bytes>),
    meter: &mut dyn Meter,
    sink: &mut Sink,
) -> End {
    // The rest of what was read before this began.
    let mut size = 0;
    let (mut stopped, mut listener) = (pin!(job.place.stopped()), None::<Waker>);
    loop {
        let failed = events(job, &mut framer, meter, &mut ready);
        // What came before an error is delivered, however the network cut the stream.
        sink.send(std::mem::take(&mut ready), &job.exchange.drains).await;
        if let Some(end) = failed {
            return end;
        }
        if !sink.allows(size) {
            return End::Abandoned;
        }
        if meter.is_terminated() {
            return End::Closed;
        }
        if job.place.is_stopped() {
            return End::Stopped;
        }
        let mut chunk = pin!(next(answer, sink.limits()));
        let read = poll_fn(|cx| match chunk.as_mut().poll(cx) {
            Poll::Ready(chunk) => Poll::Ready(Some(chunk)),
            // Listening once is enough, and to listen again costs more than a look.
            Poll::Pending
                if listener.as_ref().is_some_and(|it| it.will_wake(cx.waker()) && !job.place.is_stopped()) =>
            {
                Poll::Pending
            }
            Poll::Pending => {
                listener = Some(cx.waker().clone());
                stopped.as_mut().poll(cx).map(|()| None)
            }
        });
        let chunk = match read.await {
            Some(Some(Ok(Some(chunk)))) => chunk,
            Some(Some(Ok(None))) => break,
            Some(Some(Err(error))) => return End::Failed(error),
            Some(None) => return End::Abandoned,
            None => return End::Stopped,
        };
        size = chunk.len();
        framer.push(chunk);
    }
    // A last event without its blank line counts only if it ends the answer.
    if let Some(tail) = framer.finish() {
        if let Some(end) = leak(job, &tail) {
            return end;
        }
        let step = meter.observe(&tail);
        if let (Step::Forward(bytes), true) = (step, meter.is_complete()) {
            sink.send(vec![bytes], &job.exchange.drains).await;
        }
    }
    End::Closed
}

/// The next bytes; `None`: they did not come until then.
async fn next(answer: &mut Answer, until: Option<Instant>) -> Option<Result<Option<Bytes>, ForwardError>> {
    match until {
        None => Some(answer.chunk().await),
        Some(until) => tokio::time::timeout_at(until, answer.chunk()).await.ok(),
    }
}

/// Adds what the events that are whole give to send, and says why no more will come.
fn events(job: &Job, framer: &mut Framer, meter: &mut dyn Meter, ready: &mut Vec<Bytes>) -> Option<End> {
    loop {
        match framer.next_event() {
            Ok(Some(event)) => {
                if let Some(end) = leak(job, &event) {
                    return Some(end);
                }
                look_for_cost(job, &event);
                match meter.observe(&event) {
                    Step::Forward(bytes) => ready.push(bytes),
                    Step::HoldBack => {}
                    Step::Error(said) => return Some(End::Reported(said)),
                }
            }
            Ok(None) => return None,
            Err(_) => return Some(End::Reported(TOO_LONG.into())),
        }
    }
}

fn look_for_cost(job: &Job, event: &[u8]) {
    if job.lease.upstream().reports_cost()
        && let Some(data) = sse::data_of(event)
    {
        job.look_for_cost(&data);
    }
}

/// Ends a stream that contains the node's key. Whole events are looked at: reads may part it.
fn leak(job: &Job, event: &[u8]) -> Option<End> {
    job.check_leak(event).err().map(|_| End::Reported("its answer could not be passed on".into()))
}

/// Change as it travels in a stream: a comment, which is no event.
pub(super) fn change_comment(token: &str) -> String {
    format!(": x-cashu {token}\n\n")
}

/// Settles a complete answer; then, and only then, its end goes out.
async fn finish(job: Box<Job>, reading: Reading, meter: &mut dyn Meter, sink: &mut Sink) -> Result<(), Failure> {
    let request_id = job.request_id.clone();
    match job.settle(reading).await {
        Ok(settled) => {
            let mut last = BytesMut::from(&meter.closing(&settled.receipt)[..]);
            if let Some(comment) = sink.comment_of(settled.change.as_ref()) {
                last.extend_from_slice(comment.as_bytes());
            }
            last.extend_from_slice(&meter.terminator());
            sink.end_tape(&last, true).await;
            sink.put(Out::Settled { receipt: Box::new(settled.receipt), change: settled.change }).await;
            sink.put(Out::Data(last.freeze())).await;
            Ok(())
        }
        Err(failure) => sink.fail(meter, failure, &request_id, false).await,
    }
}

/// Ends an answer that is not complete: charged for what was delivered, at most.
async fn break_off(mut job: Box<Job>, end: End, meter: &mut dyn Meter, sink: &mut Sink) -> Result<(), Failure> {
    let (request_id, left) = (job.request_id.clone(), matches!(end, End::Abandoned));
    // It began well, and still is a failure of the upstream's, unless it says that it is not.
    let failed = Some(Outcome::Failed(None));
    let (outcome, failure) = match end {
        End::Failed(error) => (failed, job.forward_failure(error)),
        End::Reported(said) => {
            let miss = job.miss_of(&said);
            (Some(miss.next_step(&job.exchange.pool.retried).outcome), job.failure_of(miss))
        }
        End::Closed => (failed, upstream_failed(INCOMPLETE)),
        End::Abandoned => (None, upstream_failed(INCOMPLETE)),
        End::Stopped => (None, aborted()),
    };
    if let Some(outcome) = outcome {
        job.lease.finish(outcome);
    }
    job.broken = Some(if left { Broken::Left } else { Broken::Failed(Box::new(failure.clone())) });
    // Who leaves has bought what was read without it, even if that was before the first content came.
    let counts = left || (meter.has_content() && sink.sent);
    let reading = if left { meter.left() } else { meter.reading() };
    let delivered = if sink.whole { None } else { Job::charge_for_part(reading, counts) };
    let (failure, charged) = match delivered {
        None => (job.undo(failure).await, false),
        Some(reading) => match job.settle(reading).await {
            Ok(settled) => {
                sink.put(Out::Settled { receipt: Box::new(settled.receipt), change: settled.change.clone() }).await;
                sink.change_comment(settled.change.as_ref()).await;
                (failure, true)
            }
            Err(worse) => (worse, false),
        },
    };
    sink.fail(meter, failure, &request_id, charged).await
}

impl Sink {
    fn of(job: &Job, out: mpsc::Sender<Out>) -> Self {
        let tape = job.once.as_ref().map(|once| once.tape(job.served()));
        let (reach, as_array) = (Reach::of(job), job.shape.as_array);
        Self { out, sent: false, whole: job.whole, as_array, size: 0, reach, drain: None, tape }
    }

    /// Until when to read, once the client is gone.
    fn limits(&self) -> Option<Instant> {
        self.drain.as_ref().map(|drain| drain.until)
    }

    /// Whether reading on is allowed after `size` more bytes.
    fn allows(&mut self, size: usize) -> bool {
        match &mut self.drain {
            None => true,
            Some(drain) => {
                drain.bytes_left = drain.bytes_left.saturating_sub(size);
                drain.permit.is_some() && drain.bytes_left > 0 && Instant::now() < drain.until
            }
        }
    }

    /// Sends what one read gave, as one piece.
    async fn send(&mut self, ready: Vec<Bytes>, drains: &Arc<tokio::sync::Semaphore>) {
        if let Some(tape) = &mut self.tape {
            ready.iter().for_each(|piece| tape.record(piece));
        }
        if self.drain.is_some() || ready.is_empty() {
            return;
        }
        let mut pieces = ready.into_iter();
        let data = match (pieces.next(), pieces.len()) {
            (Some(only), 0) => only,
            (first, _) => {
                let mut joined = BytesMut::from(&first.unwrap_or_default()[..]);
                pieces.for_each(|piece| joined.extend_from_slice(&piece));
                joined.freeze()
            }
        };
        let size = self.size.saturating_add(data.len());
        if self.out.send(Out::Data(data)).await.is_ok() {
            (self.sent, self.size) = (true, size);
            self.whole &= size <= MAX_BUFFERED;
        } else {
            let permit = Arc::clone(drains).try_acquire_owned().ok();
            let Reach { time, bytes } = self.reach;
            self.drain = Some(Drain { until: Instant::now() + time, bytes_left: bytes, permit });
        }
    }

    /// Sends a piece if there is still somebody to take it.
    async fn put(&mut self, piece: Out) {
        if self.drain.is_none() && self.out.send(piece).await.is_ok() {
            self.sent = true;
        }
    }

    /// Ends the recording, before the last bytes go out: a repeat gets what `counts`. An answer
    /// that was buffered is kept with its headers by whoever gives it out.
    async fn end_tape(&mut self, last: &[u8], counts: bool) {
        let Some(mut tape) = self.tape.take() else { return };
        if self.whole && !tape.is_full() {
            return;
        }
        if counts {
            tape.record(last);
            tape.keep().await;
        } else {
            tape.forget().await;
        }
    }

    /// Change as it goes into this stream, where there is a place for it.
    fn comment_of(&self, change: Option<&Change>) -> Option<String> {
        match change {
            Some(Change::Token { token, .. }) if !self.as_array => Some(change_comment(token)),
            _ => None,
        }
    }

    async fn change_comment(&mut self, change: Option<&Change>) {
        if let Some(comment) = self.comment_of(change) {
            if let Some(tape) = &mut self.tape {
                tape.record(comment.as_bytes());
            }
            self.put(Out::Data(comment.into())).await;
        }
    }

    /// Tells of a failure: in the stream if it has begun, as a plain failure otherwise. What was paid for is there for
    /// who asks again, even if its client left before any of it was sent.
    async fn fail(
        &mut self,
        meter: &mut dyn Meter,
        failure: Failure,
        request_id: &str,
        charged: bool,
    ) -> Result<(), Failure> {
        tracing::warn!(request = %request_id, %failure, "a stream failed");
        if self.sent || charged {
            let (kind, code) = failure.names();
            let event = meter.error_event(&failure.message, kind, code);
            self.end_tape(&event, charged || failure.took_a_token()).await;
            self.put(Out::Data(event)).await;
            if !self.whole {
                return Ok(());
            }
        }
        Err(failure)
    }
}
