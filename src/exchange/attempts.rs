//! Asking upstreams, one after the other, until one of them answers. The money stays held meanwhile.
//!
//! An answer is one when it is whole and good, or when the first real content of its stream has come: up to
//! there nothing has gone to the client, and whatever is wrong with it is a reason to ask the next.

use bytes::Bytes;
use serde::Serialize;

use super::pump::{self, Opening};
use super::{Job, aborted, bad_request, upstream_failed};
use crate::dialect::{AnswerBody, Ask, Reading};
use crate::failpoint::failpoint;
use crate::failure::{Code, Failure, Retry, UpstreamAnswer};
use crate::telemetry::Step;
use crate::upstream::{self, Answer, Bar, Fault, ForwardError, Media, Miss, Outcome, Plan, Refused, account};

const NOT_ACCEPTED: &str = "The upstream did not accept this node's account.";

/// Names of models shorter than this would be found in the middle of words.
const NAME_CHARS: usize = 4;

/// One attempt, as the operator finds it beside what the request cost.
#[derive(Debug, Serialize)]
pub(super) struct Attempt {
    upstream: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    ms: i64,
}

/// An answer that is one.
pub(super) enum Opened {
    Whole(Box<Answered>),
    Stream(Box<Opening>),
}

/// An answer that came whole.
pub(super) struct Answered {
    pub body: Bytes,
    /// Its `Content-Type`, in lower case.
    pub media: String,
    pub reading: Reading,
}

impl Job {
    /// Asks until somebody answers.
    ///
    /// # Errors
    /// The last failure, when nobody is left or the fault is the client's. The money went back.
    pub(super) async fn answered(
        mut self: Box<Self>,
        mut plan: Plan,
        mut ask: Ask,
    ) -> Result<(Box<Self>, Opened), Failure> {
        let mut dialled_again = false;
        loop {
            let began_ms = self.exchange.ledger.clock().now_ms();
            let step = self.trace.step();
            let attempt = tokio::select! {
                attempt = self.attempt(ask) => attempt,
                () = self.place.stopped() => return Err(self.undo(aborted()).await),
            };
            let miss = match attempt {
                Ok(opened) => {
                    self.note_attempt(began_ms, step, None);
                    self.timing.upstream = Some(self.held_at.elapsed());
                    self.count_beginning();
                    self.lease.finish(Outcome::Answered);
                    // Nobody else is asked: what was sent needs no room any more.
                    self.sent.body = Bytes::new();
                    return Ok((self, opened));
                }
                Err(miss) => miss,
            };
            self.note_attempt(began_ms, step, Some(&miss));
            // A connection that does not come about says little, and cost nothing: once more, at once.
            dialled_again = miss.was_never_sent() && !dialled_again;
            if !dialled_again && let Err(failure) = self.turn_to_next(miss, &mut plan) {
                return Err(self.undo(failure).await);
            }
            ask = match self.sent.ask(self.dialect, &self.shape, &self.lease) {
                Ok(ask) => ask,
                Err(bad) => return Err(self.undo(bad_request(&bad)).await),
            };
        }
    }

    /// Leaves the upstream that gave no answer, and takes the next.
    ///
    /// # Errors
    /// What the client is told when nobody is left, or the fault is its own.
    fn turn_to_next(&mut self, miss: Miss, plan: &mut Plan) -> Result<(), Failure> {
        let verdict = miss.verdict();
        self.lease.finish(verdict.outcome);
        let failure = self.failure_of(miss);
        // Not what the upstream said: it may have repeated the prompt.
        tracing::info!(
            request = %self.request_id, upstream = %self.lease.upstream().name(),
            attempt = ?self.attempts.last(), "an upstream gave no answer"
        );
        if !verdict.ask_next {
            return Err(failure);
        }
        match self.exchange.pool.lease(plan) {
            Ok(next) => {
                self.note_wasted();
                self.lease = next;
                Ok(())
            }
            Err(_) => Err(failure),
        }
    }

    /// Asks one upstream, and reads its answer as far as it takes to know that it is one.
    async fn attempt(&self, ask: Ask) -> Result<Opened, Miss> {
        let (upstream, stream) = (self.lease.upstream(), self.shape.stream);
        let answer = upstream.forward(ask, self.lease.model()).await.map_err(Miss::Forward)?;
        failpoint!("exchange.answered");
        match answer.media() {
            Media::EventStream if stream => {
                pump::open(self, answer).await.map(|opening| Opened::Stream(Box::new(opening)))
            }
            Media::Other if stream => Err(Miss::Worthless(pump::NO_STREAM.to_owned())),
            // Some servers do not say what they send; it is judged by its content.
            _ => self.whole(answer).await,
        }
    }

    /// A whole answer: read and judged.
    async fn whole(&self, answer: Answer) -> Result<Opened, Miss> {
        let media = answer.content_type();
        let body = answer.whole().await.map_err(Miss::Forward)?;
        self.check_leak(&body)?;
        match self.dialect.read_answer(AnswerBody { media: &media, bytes: &body }, &self.shape) {
            Ok(reading) => {
                self.look_for_cost(&body);
                Ok(Opened::Whole(Box::new(Answered { body, media, reading })))
            }
            Err(bad) => Err(Miss::Worthless(self.shown(&format!("The upstream failed: {bad}.")))),
        }
    }

    /// Refuses bytes that contain the operator's key.
    pub(super) fn check_leak(&self, bytes: &[u8]) -> Result<(), Miss> {
        if !self.lease.upstream().leaks(bytes) {
            return Ok(());
        }
        tracing::error!(request = %self.request_id, "the upstream echoed the node's key; its answer was discarded");
        Err(Miss::Worthless("The upstream's answer could not be passed on.".to_owned()))
    }

    /// Foreign text as it may be shown: the model is called as the client calls it.
    pub(super) fn shown(&self, text: &str) -> String {
        let text = self.lease.upstream().scrub(text);
        let (theirs, asked) = (self.lease.model(), &self.shape.model);
        if theirs == asked || theirs.chars().count() < NAME_CHARS { text } else { text.replace(theirs, asked) }
    }

    fn note_attempt(&mut self, began_ms: i64, step: Step, miss: Option<&Miss>) {
        let outcome = self.count_attempt(miss).name();
        self.end_attempt(step, outcome, miss);
        self.tell_attempt(outcome);
        self.attempts.push(Attempt {
            upstream: self.lease.upstream().name().to_string(),
            outcome,
            status: miss.and_then(Miss::status),
            ms: self.exchange.ledger.clock().now_ms().saturating_sub(began_ms),
        });
    }

    fn failure_of(&self, miss: Miss) -> Failure {
        match miss {
            Miss::Forward(error) => self.forward_failure(error),
            Miss::Worthless(said) => upstream_failed(&said),
        }
    }

    pub(super) fn forward_failure(&self, error: ForwardError) -> Failure {
        match error {
            ForwardError::Refused(refused) => self.refused_failure(refused),
            ForwardError::Unreachable => upstream_failed("The upstream cannot be reached."),
            ForwardError::TimedOut => Failure::upstream(Code::UpstreamTimedOut, "The upstream did not answer in time."),
            ForwardError::Broken => upstream_failed("The connection to the upstream broke."),
            ForwardError::TooLarge => upstream_failed("The upstream's answer is too large."),
        }
    }

    /// A mistake of the client's is shown as the upstream put it; trouble of the operator's is not.
    fn refused_failure(&self, refused: Refused) -> Failure {
        if Bar::of(&refused).is_some() {
            return upstream_failed(NOT_ACCEPTED);
        }
        let is_flagged = Fault::of(&refused) == Some(Fault::Flagged);
        let shown = |text: Option<String>| text.map(|text| self.shown(&text));
        let said = shown(refused.message).unwrap_or_default();
        match refused.status {
            401..=403 if !is_flagged => upstream_failed(NOT_ACCEPTED),
            429 => {
                let mut failure =
                    Failure::upstream(Code::UpstreamRateLimited, "The upstream limits its callers; try again later.");
                failure.retry = Retry::After(refused.retry_after.map_or(5, upstream::believed));
                failure
            }
            400..=499 => {
                let message = match account::instead_of(&said) {
                    Some(instead) => instead.to_owned(),
                    None if said.is_empty() => format!("The upstream answered {}.", refused.status),
                    None => said,
                };
                let mut failure = Failure::upstream(Code::UpstreamRejected, message);
                failure.upstream = Some(Box::new(UpstreamAnswer {
                    status: refused.status,
                    kind: shown(refused.kind),
                    code: shown(refused.code),
                    param: shown(refused.param),
                }));
                failure
            }
            status => upstream_failed(&format!("The upstream answered {status}.")),
        }
    }
}
