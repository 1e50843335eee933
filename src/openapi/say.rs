//! Descriptions in code, for routes that come from a table.

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{Ref, RefOr, Required};

pub use utoipa::openapi::path::HttpMethod as Method;

pub const JSON: &str = "application/json";
pub const HTML: &str = "text/html";
pub const TEXT: &str = "text/plain";

/// What is said of one method.
#[must_use]
pub fn operation(tag: &str, summary: &str) -> OperationBuilder {
    OperationBuilder::new().tag(tag).summary(Some(summary))
}

/// The only method of an address.
#[must_use]
pub fn item(method: HttpMethod, operation: impl Into<Operation>) -> PathItem {
    PathItem::new(method, operation)
}

/// A part of the address.
#[must_use]
pub fn part(name: &str, description: &str) -> ParameterBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String).build();
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(Schema::Object(text)))
}

/// Any JSON object.
#[must_use]
pub fn object() -> RefOr<Schema> {
    RefOr::T(Schema::Object(ObjectBuilder::new().schema_type(Type::Object).build()))
}

#[must_use]
pub fn schema(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

/// An answer in these media types, of each of which is said as much.
#[must_use]
pub fn answer(description: &str, contents: &[(&str, Option<RefOr<Schema>>)]) -> Response {
    let mut response = ResponseBuilder::new().description(description);
    for (media, schema) in contents {
        let schema = schema.clone().unwrap_or_else(text);
        response = response.content(*media, ContentBuilder::new().schema(Some(schema)).build());
    }
    response.build()
}

fn text() -> RefOr<Schema> {
    RefOr::T(Schema::Object(ObjectBuilder::new().schema_type(Type::String).build()))
}

/// A body that must be sent, in one of these media types.
#[must_use]
pub fn body(all: &[(&str, RefOr<Schema>)]) -> utoipa::openapi::request_body::RequestBody {
    let content = |schema: &RefOr<Schema>| ContentBuilder::new().schema(Some(schema.clone())).build();
    let body = RequestBodyBuilder::new().required(Some(Required::True));
    all.iter().fold(body, |body, (media, schema)| body.content(*media, content(schema))).build()
}

/// A page for people.
#[must_use]
pub fn page(tag: &str, summary: &str) -> Operation {
    operation(tag, summary).response("200", answer("A page", &[(HTML, None)])).build()
}

/// A file that pages are made of.
#[must_use]
pub fn asset(media: &str, summary: &str) -> PathItem {
    item(HttpMethod::Get, operation("pages", summary).response("200", answer("A file", &[(media, None)])))
}

/// A form of a page for people: whatever comes of it, a page says it.
#[must_use]
pub fn form(summary: &str, fields: &[&str]) -> Operation {
    let mut form = ObjectBuilder::new().schema_type(Type::Object);
    for field in fields {
        form = form.property(*field, text());
    }
    operation("pages", summary)
        .request_body(Some(body(&[("application/x-www-form-urlencoded", RefOr::T(Schema::Object(form.build())))])))
        .response("200", answer("A page", &[(HTML, None)]))
        .response("403", answer("The form does not come from a page of this node", &[(TEXT, None)]))
        .response("default", answer("A page that says why not", &[(HTML, None)]))
        .build()
}

/// What sends a browser to another page.
#[must_use]
pub fn redirect(status: &str, summary: &str) -> Operation {
    operation("pages", summary).response(status, answer("`Location` says where", &[])).build()
}
