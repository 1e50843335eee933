//! What the description of the API says of failures: the three shapes of their envelope, and every status with
//! what it means. A test compares the statuses with those of [`crate::failure::facts`].

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::{AnyOfBuilder, Schema};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use crate::dialect::Protocol;
use crate::openapi::say;

/// Statuses of failures that a paid call or one about a key can have.
const STATUSES: &[(&str, &str)] = &[
    ("400", "The request makes no sense, asks for what has no price, or its token is none that is taken here"),
    ("401", "No key or token that is known"),
    ("402", "More money is needed; `error.payment` says how much, and X-Cashu carries a payment request (NUT-18)"),
    ("403", "The key has ended, or may not do this"),
    ("404", "There is no such thing"),
    ("409", "An Idempotency-Key was used for something else, or its request still runs; a voucher was redeemed"),
    ("410", "It was there, and is gone"),
    ("413", "The body is larger than MAX_BODY_BYTES"),
    ("422", "The mint's fees take all, or the swap of a foreign mint's ecash failed"),
    ("425", "It is not known yet; Retry-After says when to ask again"),
    ("426", "This node speaks HTTP only"),
    ("429", "Too many requests; Retry-After says when to try again"),
    ("500", "A fault of this node"),
    ("502", "An upstream, a mint or a Lightning payment failed"),
    ("503", "Not now: Retry-After says when to try again"),
    ("504", "The upstream took too long"),
];

/// Those that Anthropic's clients get beside them.
const ANTHROPIC_STATUSES: [(&str, &str); 1] =
    [("529", "Nobody serves the model right now; Retry-After says when to try again")];

/// What went wrong.
#[derive(ToSchema)]
#[allow(dead_code, reason = "said in the description of the API; written by `envelope`")]
pub(super) struct Trouble {
    /// For a person.
    message: String,
    #[schema(rename = "type")]
    kind: Option<String>,
    /// The member of the request that is at fault.
    param: Option<String>,
    /// For a program; `/docs/errors` explains each. In Google's shape it is the status.
    code: Value,
    /// Ecash that comes back.
    refund_token: Option<String>,
    /// What is needed, where money is the problem.
    payment: Option<Value>,
    /// Which model is limited upstream, and for how many seconds. In Google's shape, what the code is.
    details: Option<Value>,
    /// Where the receipt of the request is.
    receipt: Option<String>,
    /// What is still under way at a mint.
    operation: Option<String>,
}

/// A failure, in OpenAI's shape.
#[derive(ToSchema)]
#[allow(dead_code, reason = "see `Trouble`")]
pub(super) struct Failure {
    error: Trouble,
    /// The same again, where this network's first implementation has it.
    detail: Option<Value>,
    request_id: String,
}

/// A failure, in Anthropic's shape.
#[derive(ToSchema)]
#[allow(dead_code, reason = "see `Trouble`")]
pub(super) struct AnthropicFailure {
    /// `error`
    #[schema(rename = "type")]
    kind: String,
    error: Trouble,
    request_id: String,
}

/// A failure, in Google's shape.
#[derive(ToSchema)]
#[allow(dead_code, reason = "see `Trouble`")]
pub(super) struct GoogleFailure {
    error: Trouble,
    request_id: String,
}

/// All of them, for `#[utoipa::path]`.
pub(super) struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(Protocol::OpenAi).map(|(status, response)| (status.to_owned(), RefOr::T(response))).collect()
    }
}

/// All of them, as this protocol's clients read them.
pub(super) fn of(protocol: Protocol) -> impl Iterator<Item = (&'static str, Response)> {
    let shape = shape(protocol);
    let own: &[(&str, &str)] = if protocol == Protocol::Anthropic { &ANTHROPIC_STATUSES } else { &[] };
    STATUSES
        .iter()
        .chain(own)
        .map(move |(status, says)| (*status, say::answer(says, &[(say::JSON, Some(shape.clone()))])))
}

/// The shape that they have at this protocol's routes.
pub(super) fn shape(protocol: Protocol) -> RefOr<Schema> {
    match protocol {
        Protocol::OpenAi => say::schema("Failure"),
        // By the headers of the request: see `http::envelope_of`.
        Protocol::Anthropic => {
            let either = AnyOfBuilder::new().item(say::schema("AnthropicFailure")).item(say::schema("Failure"));
            RefOr::T(Schema::AnyOf(either.build()))
        }
        Protocol::Gemini => say::schema("GoogleFailure"),
    }
}

/// Their shapes, by name.
pub(super) fn schemas() -> Vec<(String, RefOr<Schema>)> {
    let mut all = Vec::new();
    Failure::schemas(&mut all);
    all.push((Failure::name().into_owned(), Failure::schema()));
    all.push((AnthropicFailure::name().into_owned(), AnthropicFailure::schema()));
    all.push((GoogleFailure::name().into_owned(), GoogleFailure::schema()));
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::failure::{Code, facts};

    #[test]
    fn every_status_of_the_envelope_is_described() {
        let given = Code::ALL.iter().map(|code| facts(*code).status);
        // 405 is of routes, not of calls.
        let given: BTreeSet<String> = given.filter(|status| *status != 405).map(|status| status.to_string()).collect();
        assert_eq!(given, STATUSES.iter().map(|(status, _)| (*status).to_owned()).collect());
    }
}
