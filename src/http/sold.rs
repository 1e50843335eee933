//! What the description of the API says of the routes that are sold: one for each dialect.

use utoipa::openapi::path::{OperationBuilder, PathItem};
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{HeaderBuilder, RefOr};

use super::{headers, refusals};
use crate::dialect::Dialect;
use crate::openapi::say::{self, Method};

/// A route of this dialect.
pub(super) fn describe(dialect: &dyn Dialect) -> PathItem {
    let takes: Vec<_> = dialect.takes().iter().map(|media| (*media, body(dialect, media))).collect();
    let gives: Vec<_> = dialect.gives().iter().map(|media| (*media, answer(media))).collect();
    let mut answer = say::answer("The upstream's answer, with what it cost", &gives);
    for (name, says) in [
        (headers::REQUEST_ID, "Names the request; its receipt is at `/v1/receipts/{id}`"),
        (headers::COST_MSATS, "What was charged, on whole answers"),
        (headers::BALANCE_MSATS, "What is left on the key"),
        (headers::X_CASHU, "The change of a token that came in this header"),
    ] {
        answer.headers.insert(name.to_string(), HeaderBuilder::new().description(Some(says)).build());
    }
    let says = "The body is passed on as it is. It is billed by what the answer says it used, and at most by what the \
                request may use.";
    let mut operation = say::operation("sold", dialect.title())
        .description(Some(says))
        .request_body(Some(say::body(&takes)))
        .response("200", answer);
    if dialect.is_of_a_model() {
        operation = operation.parameter(say::part("model", "Its id; may have slashes in it"));
    }
    for (status, response) in refusals::of(dialect.protocol()) {
        operation = operation.response(status, response);
    }
    let refusal = refusals::shape(dialect.protocol());
    let passed_on = say::answer("What the upstream refused", &[(say::JSON, Some(refusal))]);
    let operation: OperationBuilder = operation
        .response("default", passed_on)
        .security(SecurityRequirement::new("bearer", [""; 0]))
        .security(SecurityRequirement::new("cashu", [""; 0]));
    say::item(Method::Post, operation)
}

fn answer(media: &str) -> Option<RefOr<Schema>> {
    (media == say::JSON).then(say::object)
}

/// Any members; the model is looked at.
fn body(dialect: &dyn Dialect, media: &str) -> RefOr<Schema> {
    let mut object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::FreeForm(true)));
    if !dialect.is_of_a_model() {
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        object = object.property("model", text).required("model");
    }
    if media != say::JSON {
        object = object.property("file", ObjectBuilder::new().schema_type(Type::String).build());
    }
    RefOr::T(Schema::Object(object.build()))
}
