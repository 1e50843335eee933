//! Asking upstreams, one after the other, until one of them answers. The money stays held meanwhile.
//!
//! An answer is one when it is whole and good, or when the first real content of its stream has come: up to there no
//! part of it has gone to the client (of a slow stream, the head and comments may have: [`super::late`]), and whatever
//! is wrong with it is a reason to ask the next.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde::Serialize;

use super::pump::{self, Opening};
use super::{Job, aborted, bad_request, upstream_failed};
use crate::dialect::{AnswerBody, Ask, BadAnswer, Complaint, Reading};
use crate::failpoint::failpoint;
use crate::failure::{About, Code, Failure, UpstreamAnswer};
use crate::net;
use crate::telemetry::Step;
use crate::upstream::{Answer, Bar, Fault, ForwardError, Media, Miss, Outcome, Plan, Refused, account};

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
        let step = miss.next_step(&self.exchange.pool.retried);
        self.lease.finish(step.outcome);
        let failure = self.failure_of(miss);
        // Not what the upstream said: it may have repeated the prompt.
        tracing::info!(
            request = %self.request_id, upstream = %self.lease.upstream().name(),
            attempt = ?self.attempts.last(), "an upstream gave no answer"
        );
        if !step.ask_next {
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
            Media::Other if stream && !self.dialect.may_be_whole() => Err(Miss::Worthless(pump::NO_STREAM.to_owned())),
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
                // Whoever has the head of a stream already can be given this only as a stream.
                if self.is_begun.load(Ordering::Relaxed) && !self.dialect.may_be_whole() {
                    return Err(Miss::Worthless(pump::NO_STREAM.to_owned()));
                }
                Ok(Opened::Whole(Box::new(Answered { body, media, reading })))
            }
            Err(BadAnswer::Error(said)) => Err(self.miss_of(&said)),
            Err(bad) => Err(self.worthless(&format!("{bad}."))),
        }
    }

    /// What came is not what was asked for.
    pub(super) fn worthless(&self, said: &str) -> Miss {
        Miss::Worthless(self.shown(&format!("The upstream failed: {said}")))
    }

    /// An error inside an answer that began with success. Where it tells that the request, the account or its limits
    /// are to blame, it is the refusal that it would have been at once: otherwise a client's own mistakes would count
    /// as failures of the upstream's, and shut it for everybody.
    pub(super) fn miss_of(&self, said: &Complaint) -> Miss {
        let Some(status) = said.status.filter(|status| (400..=499).contains(status)) else {
            return self.worthless(&said.message);
        };
        let scrubbed = |text: &String| self.lease.upstream().scrub(text);
        Miss::Forward(ForwardError::Refused(Refused {
            status,
            retry_after: None,
            message: Some(scrubbed(&said.message)),
            kind: said.kind.as_ref().map(scrubbed),
            code: said.code.as_ref().map(scrubbed),
            param: said.param.as_ref().map(scrubbed),
        }))
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

    pub(super) fn failure_of(&self, miss: Miss) -> Failure {
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
                let secs = pause(refused.retry_after);
                let message = "The upstream limits its callers; try again later.";
                let mut failure = Failure::upstream(Code::UpstreamRateLimited, message).retrying(secs);
                failure.about = Some(Box::new(About::Limit { model: self.shape.model.clone(), secs }));
                failure
            }
            503 | 529 => {
                upstream_failed("The upstream is overloaded; try again later.").retrying(pause(refused.retry_after))
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
            status if said.is_empty() || !self.is_shown(&said) => {
                upstream_failed(&format!("The upstream answered {status}."))
            }
            status => upstream_failed(&format!("The upstream answered {status}: {said}")),
        }
    }

    /// Whether a client may know what an upstream says of its own trouble.
    fn is_shown(&self, said: &str) -> bool {
        self.exchange.settings.now().upstreams.verbose_errors && account::instead_of(said).is_none()
    }
}

/// Seconds to wait for an upstream that works, and not for everybody now: what it asked for.
fn pause(asked_for: Option<u64>) -> u64 {
    asked_for.map_or(5, net::believed)
}
