//! What the exchange refuses, in words.

use super::TooFast;
use crate::catalog::route::Candidate;
use crate::dialect::{BadRequest, Dialect, Feature, Shape};
use crate::failure::{Code, Failure, PaymentHint};

pub(super) fn too_fast(limit: TooFast) -> Failure {
    let message = format!("This key has used up its {}; try again later.", limit.what);
    Failure::client(Code::TooManyRequests, message).retrying(limit.secs)
}

pub(super) fn aborted() -> Failure {
    Failure::unavailable(Code::Aborted, "The operator of this node has ended this request.", 60)
}

pub(super) fn upstream_failed(message: &str) -> Failure {
    Failure::upstream(Code::UpstreamFailed, message)
}

pub(super) fn bad_request(bad: &BadRequest) -> Failure {
    let code = match bad {
        BadRequest::Json(_) => Code::InvalidJson,
        BadRequest::Field(_) => Code::InvalidRequest,
    };
    Failure::client(code, bad.to_string())
}

pub(super) fn unsupported(feature: Feature, dialect: &dyn Dialect, shape: &Shape) -> Failure {
    let member = dialect.member(feature);
    let message = format!(
        "Model '{}' is not known to support what '{member}' asks for here ({}). Nothing was taken.",
        shape.model,
        feature.name()
    );
    Failure::client(Code::UnsupportedParameter, message).about(member)
}

pub(super) fn asking(shape: &Shape, candidate: &Candidate) -> Failure {
    let message = format!("Payment required: {} mSats at most for this request.", candidate.hold.get());
    Failure::payment(Code::PaymentRequired, message).needing(PaymentHint {
        required: candidate.hold,
        available: None,
        model: Some(shape.model.clone()),
    })
}
