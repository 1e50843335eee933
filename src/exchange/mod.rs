//! The one spine of every paid request.
//!
//! ```text
//!   read ─► quote ─► plan ─► admit ─► hold ─► attempts ─► meter ─► settle ─► change ─► receipt
//!   └────── costs nothing ─────────┘└─────────────── the money is the node's to account for ──┘
//! ```
//!
//! Payment mode, dialect and delivery are values; there is no second pipeline. Once a payment is
//! admitted, nothing the client does stops the rest: [`Exchange::serve`] runs in a task of its own,
//! and a stream's [`Delivery`] hands its pump to one when the client leaves. Every failure after
//! admission gives the hold free, and a token that rode on the request goes back.
//!
//! The hold is placed once, at the price of the model that was asked for; which upstreams are asked, and
//! how often (`attempts`), never touches the ledger.
//!
//! A request with an Idempotency-Key ([`Once`]) goes through the same steps, and leaves its outcome
//! for repeats. Of every request the [`Exchange::receipt`] can be had afterwards.

mod attempts;
mod count;
mod delivery;
mod late;
mod maintenance;
mod ongoing;
mod outlay;
mod plan;
mod probe;
mod pump;
mod readiness;
mod receipts;
mod record;
mod refusals;
mod replay;
mod repo;
mod settings;
mod settle;
mod tariffs;
mod traced;

use std::borrow::Cow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rust_decimal::Decimal;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::catalog::import::Importer;
use crate::catalog::limits::WorstCase;
use crate::catalog::route::{Buyer, Candidate, Market, Picture, RouteError};
use crate::dialect::{Ask, BadRequest, Dialect, Receipt, Request, Shape};
use crate::failpoint::failpoint;
use crate::failure::{Code, Failure, Funds, Retry};
use crate::ledger::terms::Expiry;
use crate::ledger::{Hold, HoldError, Ledger, Source};
use crate::metrics::Metrics;
use crate::money::tariff::Profile;
use crate::money::{CacheWrites, Cost, Msat, Usage};
use crate::nostr::Identity;
use crate::payment::Payment;
use crate::payment::payer::{Payer, Till, insufficient, key_blocked, key_expired, limit_reached};
use crate::payment::throttle::{KeyThrottle, Pass, TooFast};
use crate::status::Traffic;
use crate::telemetry::{Collector, Link, Trace};
use crate::upstream::{Lease, Plan, Pool};
use crate::wallet::Change;

use attempts::{Answered, Opened};
use count::{Broken, Watch};
use delivery::Form;
pub use delivery::{Aborted, Deliveries, Delivery, Out, Served};
pub use maintenance::{Maintenance, turn as turn_maintenance};
pub use ongoing::{Event, News, Ongoing, Runs};
use ongoing::{New, Place};
pub use probe::{Beside, Tested, Untested, test_beside};
pub use receipts::{KIND, SignedReceipt, not_found as no_receipt};
use refusals::{aborted, asking, bad_request, too_fast, unsupported, upstream_failed};
pub use replay::{Asked, Head, KEPT_MS, Kept, MAX_BODY as MAX_KEPT_BODY, Once, Replays, StreamHead};
pub use settings::{Changed, Settings, Untold, in_force, weigh};

/// Streams whose client left that are read to their end at the same time.
const MAX_DRAINS: usize = 64;

/// A request as the client sent it.
#[derive(Debug)]
pub struct Sent {
    /// The model, where the path names it.
    pub model: Option<String>,
    /// `alt=sse` is in the query.
    pub wants_events: bool,
    /// `Content-Type` of the body.
    pub media: String,
    pub body: Bytes,
    /// Headers of the dialect's protocol, for the upstream.
    pub headers: Vec<(&'static str, String)>,
}

impl Sent {
    /// As its dialect looks at it.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        Request { model: self.model.as_deref(), wants_events: self.wants_events, media: &self.media, body: &self.body }
    }

    /// What this upstream is asked.
    fn ask(&self, dialect: &dyn Dialect, shape: &Shape, lease: &Lease) -> Result<Ask, BadRequest> {
        let ask = dialect.forward(&self.request(), shape, lease.model())?;
        let ask = if lease.upstream().knows_stream_options() { ask } else { ask.without_stream_options() };
        Ok(Ask { headers: self.headers.clone(), ..ask })
    }
}

/// A request to be served.
#[derive(Debug)]
pub struct Call {
    pub dialect: &'static dyn Dialect,
    pub sent: Sent,
    pub payment: Payment,
    /// Whose money a key spends, where that was looked up already.
    pub source: Option<Source>,
    /// Where the client wants what is left on its key in the end.
    pub expiry: Option<Expiry>,
    /// Change of a streamed answer comes in the stream, which then runs live.
    pub change_in_stream: bool,
    pub request_id: String,
    /// What the client's headers call the conversation that it is a turn of.
    pub conversation: Option<String>,
    /// The way to the model that the client wants, and no other.
    pub model_path: Option<String>,
    /// What the client says that it is a part of, where requests are traced.
    pub link: Option<Link>,
    /// The claim to make before the payment is admitted, for a request with an Idempotency-Key.
    pub once: Option<Arc<Once>>,
}

impl Call {
    /// `Content-Type` of the answer, should it be a stream.
    #[must_use]
    pub fn stream_media(&self) -> &'static str {
        self.dialect.stream_media(&self.sent.request())
    }

    /// What the request asks for beside its body: two that differ here are not the same.
    #[must_use]
    pub fn target(&self) -> String {
        let events = if self.sent.wants_events { "?alt=sse" } else { "" };
        let target = match &self.sent.model {
            Some(model) => format!("{model}:{}{events}", self.dialect.path()),
            None => self.dialect.path().to_owned(),
        };
        match &self.model_path {
            Some(way) => format!("{target} {way}"),
            None => target,
        }
    }
}

/// How long the parts of a request took, as far as they are over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// From its last byte until its money was held, a redemption included.
    pub admission: Option<Duration>,
    /// From there to an answer, or to the first content of a stream; attempts that failed included.
    pub upstream: Option<Duration>,
}

/// A success.
#[derive(Debug)]
pub enum Reply {
    Whole(Box<Whole>),
    /// Runs live; its receipt is inside.
    Stream(Box<Delivery>),
}

/// An answer that is complete, with its bill.
#[derive(Debug)]
pub struct Whole {
    pub body: Bytes,
    /// `Content-Type`
    pub media: Cow<'static, str>,
    pub receipt: Receipt,
    pub change: Option<Change>,
    pub timing: Timing,
}

/// Everything that serving takes.
#[derive(Debug)]
pub struct Exchange {
    pub market: Market,
    /// What the market's list is made of.
    pub importer: Arc<Importer>,
    /// The version of the profiles and windows that the market knows.
    pub tariffs_version: Mutex<Option<String>>,
    pub till: Till,
    pub ledger: Ledger,
    pub pool: Arc<Pool>,
    /// What is in force of the configuration.
    pub settings: Settings,
    pub maintenance: Maintenance,
    /// How fast keys may spend.
    pub throttle: Arc<KeyThrottle>,
    pub tracker: TaskTracker,
    pub deliveries: Deliveries,
    /// How long a stream is silent before its client is told that it lives.
    pub keep_alive: Option<Duration>,
    pub drains: Arc<Semaphore>,
    pub replays: Arc<Replays>,
    /// Signs receipts.
    pub identity: Identity,
    /// What is counted, for the operator.
    pub metrics: Arc<Metrics>,
    /// How models do, for everybody.
    pub traffic: Arc<Traffic>,
    /// Where the operator wants requests to be traced.
    pub traces: Option<Collector>,
    /// What runs, for the operator.
    pub ongoing: Arc<Ongoing>,
}

/// One admitted request: what is left to do with its money.
pub(crate) struct Job {
    exchange: Arc<Exchange>,
    /// The upstream that is asked, or has answered.
    lease: Lease,
    attempts: Vec<attempts::Attempt>,
    /// What the upstream says that it takes, in USD.
    reported: Mutex<Option<Decimal>>,
    pass: Pass,
    place: Place,
    dialect: &'static dyn Dialect,
    sent: Sent,
    shape: Arc<Shape>,
    candidate: Box<Candidate>,
    payer: Payer,
    hold: Hold,
    request_id: String,
    timing: Timing,
    held_at: Instant,
    watch: Watch,
    trace: Trace,
    /// Why the answer is not complete, once that is known.
    broken: Option<Broken>,
    once: Option<Arc<Once>>,
    /// `Content-Type` of a streamed answer.
    stream_media: &'static str,
    /// Nothing is sent before all is known: a cut stream is then a failure like any other.
    whole: bool,
    /// The head of a stream is out: what comes can be nothing else.
    is_begun: Arc<AtomicBool>,
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
        let watch = Watch::new(call.dialect);
        let mut trace = self.trace(call.dialect, &call.payment, &call.request_id, call.link);
        let shape = match self.read(call.dialect, &call.sent) {
            Ok(shape) => Arc::new(shape),
            Err(failure) => {
                self.refused(call.dialect, &failure);
                self.end_unadmitted(trace, call.dialect, None, &failure);
                return Err(failure);
            }
        };
        let (exchange, dialect) = (Arc::clone(&self), call.dialect);
        match self.admit(call, Arc::clone(&shape), watch, &mut trace).await {
            Ok((job, plan, ask)) => job.answer(plan, ask).await,
            Err(failure) => {
                exchange.count_unadmitted(dialect, &shape.model, &failure);
                exchange.end_unadmitted(trace, dialect, Some(&shape.model), &failure);
                Err(failure)
            }
        }
    }

    /// What a request asks for, and what its model does unasked.
    fn read(&self, dialect: &dyn Dialect, sent: &Sent) -> Result<Shape, Failure> {
        self.maintenance.check()?;
        let mut shape = dialect.read(&sent.request()).map_err(|bad| bad_request(&bad))?;
        let demand = &mut shape.demand;
        let unasked = if demand.uncounted { 0 } else { self.market.unasked_searches(&shape.model) };
        if unasked > 0 {
            demand.web_searches = demand.web_searches.max(unasked);
            demand.searches_unasked = true;
            demand.open_input = true;
        }
        if demand.cache_writes == CacheWrites::None && self.market.caches_unasked(&shape.model) {
            demand.cache_writes = CacheWrites::Unasked;
        }
        Ok(shape)
    }

    /// All that comes before an upstream is asked.
    async fn admit(
        self: Arc<Self>,
        call: Call,
        shape: Arc<Shape>,
        watch: Watch,
        trace: &mut Trace,
    ) -> Result<(Box<Job>, Plan, Ask), Failure> {
        let began = Instant::now();
        let profile = self.profile(&call.payment).await?;
        let candidate = self.quote(call.dialect, &shape, profile.as_ref())?;
        let by = call.model_path.as_deref();
        let mut plan = self.plan(call.dialect, &shape, &candidate, by, self.session(&call))?;
        // Nobody is asked to pay for what could not be served, or with what is not taken.
        if matches!(call.payment, Payment::Asking) {
            self.till.ask_for(candidate.hold)?;
            return Err(asking(&shape, &candidate));
        }
        let lease = self.pool.first(&mut plan).await.map_err(|why| self.unavailable(why, call.dialect, &shape))?;
        let ask = call.sent.ask(call.dialect, &shape, &lease).map_err(|bad| bad_request(&bad))?;
        let (payment, protocol) = (&call.payment, call.dialect.protocol());
        let pass = self.throttle.enter(payment, protocol, shape.usual_tokens(), shape.stream).map_err(too_fast)?;
        let stream_media = call.stream_media();
        if let Some(once) = &call.once {
            Box::pin(once.claim()).await?;
        }
        let method = call.payment.method();
        let redeem = self.till.admit(call.payment, call.source, candidate.hold, &shape.model, call.expiry);
        let payer = traced::step(trace, "redeem", true, redeem).await;
        let payer = payer.inspect_err(|failure| self.count_payment(method, Some(failure)))?;
        failpoint!("exchange.admitted");
        let hold = self.hold(payer, &candidate, &shape, &call.request_id);
        let hold = traced::step(trace, "hold", false, hold).await;
        self.count_payment(method, hold.as_ref().err());
        let hold = hold?;
        traced::admitted(trace, &candidate, &shape);
        failpoint!("exchange.held");
        let place = self.ongoing.enter(
            hold.id(),
            New {
                request: &call.request_id,
                shape: &shape,
                upstream: lease.upstream().name(),
                spender: payer.spender,
                held_msat: hold.amount().get(),
            },
        );
        // Change travels in a stream as a comment, which a JSON array has no place for.
        let whole = !shape.stream || (payer.one_shot && (shape.as_array || !call.change_in_stream));
        // On the heap: it goes through many hands, and each would move all of it.
        let job = Box::new(Job {
            dialect: call.dialect,
            sent: call.sent,
            request_id: call.request_id,
            timing: Timing { admission: Some(began.elapsed()), upstream: None },
            held_at: Instant::now(),
            watch,
            trace: std::mem::take(trace),
            broken: None,
            once: call.once,
            exchange: self,
            lease,
            attempts: Vec::new(),
            reported: Mutex::default(),
            pass,
            place,
            shape,
            candidate,
            payer,
            hold,
            stream_media,
            whole,
            is_begun: Arc::default(),
        });
        Ok((job, plan, ask))
    }

    /// A delivery around a pump.
    fn start<F>(&self, form: Form, pump: impl FnOnce(mpsc::Sender<Out>) -> F) -> Delivery
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.deliveries.start(&self.tracker, self.ledger.clock(), form, pump)
    }

    /// What a request of a key with this profile would be held for, and the model as it asks for it, if it could be
    /// served now. Nothing is taken, and nobody is asked.
    ///
    /// # Errors
    /// What the request itself would be refused with, whatever it is paid with.
    pub fn appraise(
        &self,
        dialect: &dyn Dialect,
        sent: &Sent,
        profile: Option<&Arc<Profile>>,
    ) -> Result<(String, Box<Candidate>), Failure> {
        let shape = self.read(dialect, sent)?;
        let candidate = self.quote(dialect, &shape, profile)?;
        self.plan(dialect, &shape, &candidate, None, None)?;
        Ok((shape.model, candidate))
    }

    /// What a request would need at most, priced now, for a key with this profile.
    ///
    /// # Errors
    /// When the model is unknown, has no price now, is not sold to such a key, or is known not to do what the request
    /// asks for.
    pub fn quote(
        &self,
        dialect: &dyn Dialect,
        shape: &Shape,
        profile: Option<&Arc<Profile>>,
    ) -> Result<Box<Candidate>, Failure> {
        let worst = WorstCase {
            prompt_chars: shape.prompt_chars,
            extra_chars: shape.extra_chars,
            image_tokens: shape.image_tokens,
            images: shape.images,
            max_output: shape.max_output,
            choices: shape.choices,
            prompts: shape.prompts,
            more_tokens: shape.given_tokens.saturating_add(shape.slack_tokens),
            demand: shape.demand,
        };
        let picture = Picture { quality: shape.quality.clone(), size: shape.size.clone() };
        let buyer = Buyer { profile, pool: &self.pool };
        let candidate = self.market.route(&shape.model, &worst, &picture, buyer).map_err(|error| match error {
            RouteError::UnknownModel(_) | RouteError::NotSold(_) => {
                Failure::client(Code::InvalidModel, error.to_string())
            }
            RouteError::NoRate => Failure::unavailable(Code::PriceUnavailable, error.to_string(), 30),
            RouteError::OutOfRange => Failure::client(Code::InvalidRequest, error.to_string()),
            RouteError::Unpriced { .. } => Failure::client(Code::ModalityNotPriced, error.to_string()),
        })?;
        match candidate.lacks(shape.needs) {
            None => Ok(candidate),
            Some(feature) => Err(unsupported(feature, dialect, shape)),
        }
    }

    async fn hold(&self, payer: Payer, candidate: &Candidate, shape: &Shape, request: &str) -> Result<Hold, Failure> {
        let failure = match self.ledger.hold(payer.source(), candidate.hold, request).await {
            Ok(hold) => return Ok(hold),
            Err(HoldError::Insufficient { available }) => insufficient(candidate.hold, available, &shape.model),
            Err(HoldError::LimitReached { left }) => limit_reached(candidate.hold, left),
            Err(HoldError::KeyExpired) => key_expired(),
            Err(HoldError::KeyBlocked) => key_blocked(),
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
        let funds = match Box::pin(self.till.wallet().give_change(payer.account)).await {
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
    async fn deliver(self: Box<Self>, opened: Opened) -> Result<Reply, Failure> {
        let opening = match opened {
            Opened::Whole(answered) => return self.bill_whole(*answered).await,
            Opened::Stream(opening) => opening,
        };
        let (whole, form) = (self.whole, self.form());
        let exchange = Arc::clone(&self.exchange);
        let mut delivery = exchange.start(form, |out| pump::run(self, *opening, out));
        if whole {
            delivery.collect().await
        } else {
            delivery.begin().await.map(|()| Reply::Stream(Box::new(delivery)))
        }
    }

    /// How a streamed answer looks on its way.
    fn form(&self) -> Form {
        let (keep_alive, served) = (self.keep_alive(), self.served());
        Form { media: self.stream_media, keep_alive, timing: self.timing, served, hold: self.hold.id() }
    }

    /// After how long silence a stream gets a comment.
    fn keep_alive(&self) -> Option<Duration> {
        self.exchange.keep_alive.filter(|_| !self.shape.as_array)
    }

    fn served(&self) -> Served {
        Served { model: self.candidate.id.clone(), btc_usd: self.candidate.btc_usd }
    }

    /// An answer that came whole: billed and stamped.
    async fn bill_whole(self: Box<Self>, answered: Answered) -> Result<Reply, Failure> {
        let Answered { body, media, reading } = answered;
        let (dialect, shape, timing) = (self.dialect, Arc::clone(&self.shape), self.timing);
        let settled = self.settle(reading).await?;
        let body = dialect.stamp(&body, &shape, &settled.receipt);
        let media = dialect.answer_media(&media);
        Ok(Reply::Whole(Box::new(Whole { body, media, receipt: settled.receipt, change: settled.change, timing })))
    }

    /// Frees the hold and gives the money back.
    pub(crate) fn undo(self: Box<Self>, failure: Failure) -> BoxFuture<'static, Failure> {
        // On the heap: what seldom happens makes no place larger that every request is moved to.
        Box::pin(self.undone(failure))
    }

    async fn undone(mut self: Box<Self>, failure: Failure) -> Failure {
        let left = matches!(self.broken, Some(Broken::Left));
        let failed = (!left).then_some(failure.code);
        let outlay = self.outlay(None);
        self.count_undone(&failure, &outlay);
        let nothing = Cost::new(Usage::default(), None);
        self.describe(&nothing);
        let (record, sheets) = self.record(&nothing, Msat::ZERO, failed);
        self.exchange.pool.note(outlay);
        self.pass.used(0);
        let Self { exchange, lease, pass, hold, payer, request_id, candidate, dialect, place, mut trace, .. } = *self;
        // Whoever sees that the hold has ended finds the places free.
        drop((lease, pass, place));
        let step = trace.step();
        let released = hold.noting(record, sheets).release().await;
        trace.end(step, "release", false, released.as_ref().err().map(|_| "Unconfirmed"), Vec::new);
        if let Err(error) = released {
            tracing::error!(%error, request = %request_id, "a hold waits for its release");
        }
        failpoint!("exchange.undone");
        let step = trace.step();
        let failure = exchange.give_back(payer, failure).await;
        if payer.one_shot {
            trace.end(step, "refund", true, None, Vec::new);
        }
        traced::end(trace, dialect, Some(&candidate.id), Some(&failure));
        failure
    }
}
