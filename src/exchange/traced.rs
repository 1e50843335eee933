//! What the operator's traces say of a request: see [`crate::telemetry`]. The names are those of OpenTelemetry's
//! conventions for generative AI, and `coinslot.…` for what these do not know.

use super::{Broken, Exchange, Job};
use crate::catalog::route::Candidate;
use crate::dialect::{Dialect, Shape};
use crate::failure::Failure;
use crate::metrics::Method;
use crate::money::{Cost, Msat};
use crate::payment::Payment;
use crate::telemetry::{Link, Step, Trace, Value};
use crate::upstream::Miss;

/// What kind of work a request asks for.
fn operation(dialect: &dyn Dialect) -> &'static str {
    match dialect.path() {
        "chat/completions" | "messages" | "responses" => "chat",
        "completions" => "text_completion",
        "embeddings" | "embedContent" | "batchEmbedContents" => "embeddings",
        "generateContent" | "streamGenerateContent" => "generate_content",
        other => other,
    }
}

/// The code of a failure; what it says may be somebody else's words.
pub(super) fn code(failure: &Failure) -> String {
    format!("{:?}", failure.code)
}

/// Does something as a step of a trace.
pub(super) async fn step<T>(
    trace: &mut Trace,
    name: &str,
    calls: bool,
    doing: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let step = trace.step();
    let outcome = doing.await;
    trace.end(step, name, calls, outcome.as_ref().err().map(code).as_deref(), Vec::new);
    outcome
}

impl Exchange {
    /// Begins the trace of a request, where requests are traced.
    pub(super) fn trace(&self, dialect: &dyn Dialect, payment: &Payment, request: &str, link: Option<Link>) -> Trace {
        let Some(collector) = &self.traces else { return Trace::default() };
        let mut trace = collector.begin(link);
        trace.say("gen_ai.operation.name", || operation(dialect).into());
        trace.say("coinslot.dialect", || dialect.path().into());
        trace.say("coinslot.payment.method", || payment.method().map_or("none", Method::name).into());
        trace.say("coinslot.request.id", || request.into());
        trace
    }

    /// Ends the trace of a request that failed before its money was held.
    pub(super) fn end_unadmitted(
        &self,
        mut trace: Trace,
        dialect: &dyn Dialect,
        name: Option<&str>,
        failure: &Failure,
    ) {
        // A name that nobody knows is the client's text.
        let model = name.and_then(|name| self.market.canonical(name));
        if let Some(model) = &model {
            trace.say("gen_ai.request.model", || model.as_str().into());
        }
        end(trace, dialect, model.as_deref(), Some(failure));
    }
}

/// Says what is known of an admitted request.
pub(super) fn admitted(trace: &mut Trace, candidate: &Candidate, shape: &Shape) {
    trace.say("gen_ai.request.model", || candidate.id.as_str().into());
    trace.say("coinslot.hold_msat", || candidate.hold.get().into());
    trace.say("coinslot.stream", || shape.stream.into());
}

impl Job {
    /// Ends the step that asked an upstream.
    pub(super) fn end_attempt(&mut self, step: Step, outcome: &'static str, miss: Option<&Miss>) {
        let (lease, error) = (&self.lease, miss.map(|_| outcome));
        self.trace.end(step, "upstream", true, error, || {
            let mut said = vec![
                ("coinslot.upstream", Value::from(&**lease.upstream().name())),
                ("gen_ai.provider.name", lease.upstream().label().into()),
                ("gen_ai.request.model", lease.model().into()),
            ];
            let status = miss.and_then(Miss::status);
            said.extend(status.map(|status| ("http.response.status_code", u64::from(status).into())));
            said
        });
    }

    /// Says who answered, and what that came to.
    pub(super) fn describe(&mut self, cost: &Cost) {
        let (lease, usage) = (&self.lease, &cost.usage);
        let trace = &mut self.trace;
        trace.say("gen_ai.provider.name", || lease.upstream().label().into());
        trace.say("gen_ai.response.model", || lease.model().into());
        trace.say("gen_ai.usage.input_tokens", || usage.total_input().into());
        trace.say("gen_ai.usage.output_tokens", || usage.total_output().into());
        trace.say("gen_ai.usage.cache_read.input_tokens", || usage.cache_read.into());
    }
}

/// Ends the trace of a request that was settled.
pub(super) fn settled(
    mut trace: Trace,
    dialect: &dyn Dialect,
    candidate: &Candidate,
    charged: Msat,
    broken: Option<&Broken>,
) {
    trace.say("coinslot.charged_msat", || charged.get().into());
    let name = [operation(dialect), &candidate.id].join(" ");
    match broken {
        None => trace.finish(&name, None),
        Some(Broken::Left) => trace.finish(&name, Some("ClientGone")),
        Some(Broken::Failed(failure)) => trace.finish(&name, Some(&code(failure))),
    }
}

/// Ends the trace of a request.
pub(super) fn end(trace: Trace, dialect: &dyn Dialect, model: Option<&str>, failure: Option<&Failure>) {
    let name = [operation(dialect), model.unwrap_or_default()].join(" ");
    trace.finish(name.trim_end(), failure.map(code).as_deref());
}
