//! The one spine of every paid request.
//!
//! ```text
//!   read ─► quote ─► admit ─► hold ─► forward ─► meter ─► settle ─► change ─► receipt
//!   └──── costs nothing ────┘└─────────────── the money is the node's to account for ──┘
//! ```
//!
//! Payment mode, dialect and delivery are values; there is no second pipeline. Once a payment is
//! admitted, nothing the client does stops the rest: [`Exchange::serve`] runs in a task of its own,
//! and a stream's [`Delivery`] hands its pump to one when the client leaves. Every failure after
//! admission gives the hold free, and a token that rode on the request goes back.
//!
//! A request with an Idempotency-Key ([`Once`]) goes through the same steps, and leaves its outcome
//! for repeats. Of every request the [`Exchange::receipt`] can be had afterwards.

mod delivery;
mod pump;
mod receipts;
mod record;
mod replay;
mod repo;
mod settle;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::catalog::limits::WorstCase;
use crate::catalog::route::{Candidate, Market, Picture, RouteError};
use crate::config::MissingUsage;
use crate::dialect::{AnswerBody, Ask, BadRequest, Dialect, Receipt, Request, Shape};
use crate::failpoint::failpoint;
use crate::failure::{Code, Failure, Funds, PaymentHint, Retry, UpstreamAnswer};
use crate::ledger::terms::Expiry;
use crate::ledger::{Hold, HoldError, Ledger};
use crate::money::{Cost, Msat, Usage};
use crate::nostr::Identity;
use crate::payment::Payment;
use crate::payment::payer::{Payer, Till, insufficient, key_expired, limit_reached};
use crate::upstream::{Answer, ForwardError, Media, Refused, Upstream};
use crate::wallet::Change;

pub use delivery::{Aborted, Deliveries, Delivery, Out};
pub use receipts::{KIND, SignedReceipt, not_found as no_receipt};
pub use replay::{Asked, Head, KEPT_MS, Kept, MAX_BODY as MAX_KEPT_BODY, Once, Replays};

/// Streams whose client left that are read to their end at the same time.
const MAX_DRAINS: usize = 64;

/// A request to be served.
#[derive(Debug)]
pub struct Call {
    pub dialect: &'static dyn Dialect,
    /// The model, where the path names it.
    pub model: Option<String>,
    /// `alt=sse` is in the query.
    pub wants_events: bool,
    /// `Content-Type` of the body.
    pub media: String,
    pub body: Bytes,
    /// Headers of the dialect's protocol, for the upstream.
    pub headers: Vec<(&'static str, String)>,
    pub payment: Payment,
    /// Where the client wants what is left on its key in the end.
    pub expiry: Option<Expiry>,
    /// Change of a streamed answer comes in the stream, which then runs live.
    pub change_in_stream: bool,
    pub request_id: String,
    /// The claim to make before the payment is admitted, for a request with an Idempotency-Key.
    pub once: Option<Arc<Once>>,
}

impl Call {
    /// The request as its dialect looks at it.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        Request { model: self.model.as_deref(), wants_events: self.wants_events, media: &self.media, body: &self.body }
    }

    /// `Content-Type` of the answer, should it be a stream.
    #[must_use]
    pub fn stream_media(&self) -> &'static str {
        self.dialect.stream_media(&self.request())
    }

    /// What the request asks for beside its body: two that differ here are not the same.
    #[must_use]
    pub fn target(&self) -> String {
        let events = if self.wants_events { "?alt=sse" } else { "" };
        match &self.model {
            Some(model) => format!("{model}:{}{events}", self.dialect.path()),
            None => self.dialect.path().to_owned(),
        }
    }
}

/// A success.
#[derive(Debug)]
pub enum Reply {
    Whole(Box<Whole>),
    /// Runs live; its receipt is inside.
    Stream(Delivery),
}

/// An answer that is complete, with its bill.
#[derive(Debug)]
pub struct Whole {
    pub body: Bytes,
    /// `Content-Type`
    pub media: Cow<'static, str>,
    pub receipt: Receipt,
    pub change: Option<Change>,
}

/// Everything that serving takes.
#[derive(Debug)]
pub struct Exchange {
    pub market: Market,
    pub till: Till,
    pub ledger: Ledger,
    pub upstream: Option<Arc<Upstream>>,
    pub missing_usage: MissingUsage,
    pub tracker: TaskTracker,
    pub deliveries: Deliveries,
    pub drains: Arc<Semaphore>,
    pub replays: Arc<Replays>,
    /// Signs receipts.
    pub identity: Identity,
}

/// One admitted request: what is left to do with its money.
pub(crate) struct Job {
    exchange: Arc<Exchange>,
    upstream: Arc<Upstream>,
    dialect: &'static dyn Dialect,
    shape: Shape,
    candidate: Candidate,
    payer: Payer,
    hold: Hold,
    request_id: String,
    once: Option<Arc<Once>>,
    /// `Content-Type` of a streamed answer.
    stream_media: &'static str,
    /// Nothing is sent before all is known: a cut stream is then a failure like any other.
    whole: bool,
}

impl Exchange {
    /// A semaphore for [`Exchange::drains`].
    #[must_use]
    pub fn drain_permits() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_DRAINS))
    }

    /// Serves one request. The caller must not drop this future: run it in a task of its own.
    ///
    /// # Errors
    /// A failure that says what happened to the money.
    pub async fn serve(self: Arc<Self>, call: Call) -> Result<Reply, Failure> {
        let shape = call.dialect.read(&call.request()).map_err(|bad| bad_request(&bad))?;
        let candidate = self.quote(&shape)?;
        if matches!(call.payment, Payment::Asking) {
            return Err(asking(&shape, &candidate));
        }
        let upstream = self.upstream.clone().ok_or_else(no_upstream)?;
        let stream_media = call.stream_media();
        let forwarded = call.dialect.forward(&call.request(), &shape, &candidate.forwarded);
        let ask = Ask { headers: call.headers, ..forwarded.map_err(|bad| bad_request(&bad))? };
        if let Some(once) = &call.once {
            self.till.check_key(&call.payment).await?;
            once.claim().await?;
        }
        let payer = self.till.admit(call.payment, candidate.hold, &shape.model, call.expiry).await?;
        failpoint!("exchange.admitted");
        let hold = self.hold(payer, &candidate, &shape, &call.request_id).await?;
        failpoint!("exchange.held");
        // Change travels in a stream as a comment, which a JSON array has no place for.
        let whole = !shape.stream || (payer.one_shot && (shape.as_array || !call.change_in_stream));
        let job = Job {
            dialect: call.dialect,
            request_id: call.request_id,
            once: call.once,
            exchange: self,
            upstream,
            shape,
            candidate,
            payer,
            hold,
            stream_media,
            whole,
        };
        match job.upstream.forward(ask).await {
            Ok(answer) => {
                failpoint!("exchange.answered");
                job.deliver(answer).await
            }
            Err(error) => {
                let failure = job.forward_failure(error);
                Err(job.undo(failure).await)
            }
        }
    }

    /// What a request would need at most, priced now.
    ///
    /// # Errors
    /// When the model is unknown or has no price now.
    pub fn quote(&self, shape: &Shape) -> Result<Candidate, Failure> {
        let worst = WorstCase {
            prompt_chars: shape.prompt_chars,
            extra_chars: shape.extra_chars,
            image_tokens: shape.image_tokens,
            images: shape.images,
            max_output: shape.max_output,
            choices: shape.choices,
            more_tokens: shape.given_tokens.saturating_add(shape.slack_tokens),
            demand: shape.demand,
        };
        let picture = Picture { quality: shape.quality.clone(), size: shape.size.clone() };
        self.market.route(&shape.model, &worst, &picture).map_err(|error| match error {
            RouteError::UnknownModel(_) => Failure::client(Code::InvalidModel, error.to_string()),
            RouteError::NoRate => Failure::unavailable(Code::PriceUnavailable, error.to_string(), 30),
            RouteError::OutOfRange => Failure::client(Code::InvalidRequest, error.to_string()),
            RouteError::Unpriced { .. } => Failure::client(Code::ModalityNotPriced, error.to_string()),
        })
    }

    async fn hold(&self, payer: Payer, candidate: &Candidate, shape: &Shape, request: &str) -> Result<Hold, Failure> {
        let failure = match self.ledger.hold(payer.source(), candidate.hold, request).await {
            Ok(hold) => return Ok(hold),
            Err(HoldError::Insufficient { available }) => insufficient(candidate.hold, available, &shape.model),
            Err(HoldError::LimitReached { left }) => limit_reached(candidate.hold, left),
            Err(HoldError::KeyExpired) => key_expired(),
            Err(HoldError::UnknownAccount) => Failure::internal(),
            Err(HoldError::Closed) => Failure::unavailable(Code::ShuttingDown, "The node is shutting down.", 5),
            Err(HoldError::Store(error)) => {
                tracing::error!(%error, request, "a hold could not be placed");
                let mut failure = Failure::internal();
                failure.retry = Retry::After(1);
                failure
            }
        };
        Err(self.give_back(payer, failure).await)
    }

    /// Returns what a one-shot token still holds, and says so in the failure.
    async fn give_back(&self, payer: Payer, failure: Failure) -> Failure {
        if !payer.one_shot {
            return failure.funds(Funds::OnAccount);
        }
        let funds = match self.till.wallet().give_change(payer.account).await {
            Ok(Change::Token { token, .. }) => Funds::Returned(token),
            Ok(_) => Funds::Claimable,
            Err(error) => {
                tracing::error!(%error, "a refund waits for the next attempt");
                Funds::Claimable
            }
        };
        failure.funds(funds)
    }
}

impl Job {
    async fn deliver(self, answer: Answer) -> Result<Reply, Failure> {
        match answer.media() {
            Media::EventStream if self.shape.stream => {}
            Media::Json | Media::EventStream => return self.answer_whole(answer).await,
            // Some servers do not say what they send; it is judged by its content.
            Media::Other if !self.shape.stream => return self.answer_whole(answer).await,
            Media::Other => {
                let failure = upstream_failed("The upstream answered with something that is not a stream.");
                return Err(self.undo(failure).await);
            }
        }
        let (whole, media) = (self.whole, self.stream_media);
        let exchange = Arc::clone(&self.exchange);
        let mut delivery = exchange
            .deliveries
            .start(&exchange.tracker, exchange.ledger.clock(), media, |out| pump::run(self, answer, out));
        if whole { delivery.collect().await } else { delivery.begin().await.map(|()| Reply::Stream(delivery)) }
    }

    /// A JSON answer: read, judged, billed and stamped.
    async fn answer_whole(self, answer: Answer) -> Result<Reply, Failure> {
        let media = answer.content_type();
        let body = match answer.whole().await {
            Ok(body) => body,
            Err(error) => {
                let failure = self.forward_failure(error);
                return Err(self.undo(failure).await);
            }
        };
        if self.upstream.leaks(&body) {
            tracing::error!(request = %self.request_id, "the upstream echoed the node's key; its answer was discarded");
            return Err(self.undo(upstream_failed("The upstream's answer could not be passed on.")).await);
        }
        match self.dialect.read_answer(AnswerBody { media: &media, bytes: &body }, &self.shape) {
            Ok(reading) => {
                let (dialect, shape) = (self.dialect, self.shape.clone());
                let settled = self.settle(reading).await?;
                let body = dialect.stamp(&body, &shape, &settled.receipt);
                let media = dialect.answer_media(&media);
                let (receipt, change) = (settled.receipt, settled.change);
                Ok(Reply::Whole(Box::new(Whole { body, media, receipt, change })))
            }
            Err(bad) => {
                let failure = upstream_failed(&self.upstream.scrub(&format!("The upstream failed: {bad}.")));
                Err(self.undo(failure).await)
            }
        }
    }

    /// Frees the hold and gives the money back.
    pub(crate) async fn undo(self, failure: Failure) -> Failure {
        let record = self.record(&Cost::new(Usage::default(), None), Msat::ZERO);
        let Self { exchange, hold, payer, request_id, .. } = self;
        if let Err(error) = hold.noting(record).release().await {
            tracing::error!(%error, request = %request_id, "a hold waits for its release");
        }
        failpoint!("exchange.undone");
        exchange.give_back(payer, failure).await
    }

    pub(crate) fn forward_failure(&self, error: ForwardError) -> Failure {
        match error {
            ForwardError::Refused(refused) => refused_failure(refused),
            ForwardError::Unreachable => upstream_failed("The upstream cannot be reached."),
            ForwardError::TimedOut => upstream_failed("The upstream did not answer in time."),
            ForwardError::Broken => upstream_failed("The connection to the upstream broke."),
            ForwardError::TooLarge => upstream_failed("The upstream's answer is too large."),
        }
    }
}

/// A mistake of the client's is shown as the upstream put it; trouble of the operator's is not.
fn refused_failure(refused: Refused) -> Failure {
    let said = refused.message.clone().unwrap_or_default();
    match refused.status {
        401..=403 => upstream_failed("The upstream did not accept this node's account."),
        429 => {
            let mut failure =
                Failure::upstream(Code::UpstreamRateLimited, "The upstream limits its callers; try again later.");
            failure.retry = Retry::After(refused.retry_after.unwrap_or(5));
            failure
        }
        400..=499 => {
            let message = if said.is_empty() { format!("The upstream answered {}.", refused.status) } else { said };
            let mut failure = Failure::upstream(Code::UpstreamRejected, message);
            failure.upstream = Some(Box::new(UpstreamAnswer {
                status: refused.status,
                kind: refused.kind,
                code: refused.code,
                param: refused.param,
            }));
            failure
        }
        status => upstream_failed(&format!("The upstream answered {status}.")),
    }
}

fn upstream_failed(message: &str) -> Failure {
    Failure::upstream(Code::UpstreamFailed, message)
}

fn bad_request(bad: &BadRequest) -> Failure {
    let code = match bad {
        BadRequest::Json(_) => Code::InvalidJson,
        BadRequest::Field(_) => Code::InvalidRequest,
    };
    Failure::client(code, bad.to_string())
}

fn no_upstream() -> Failure {
    Failure::unavailable(Code::UpstreamUnavailable, "This node has no upstream to forward to.", 60)
}

fn asking(shape: &Shape, candidate: &Candidate) -> Failure {
    let message = format!("Payment required: {} mSats at most for this request.", candidate.hold.get());
    Failure::payment(Code::PaymentRequired, message).needing(PaymentHint {
        required: candidate.hold,
        available: None,
        model: Some(shape.model.clone()),
    })
}
