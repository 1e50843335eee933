//! The shop window: `/` and `/status` in a browser, the forms below `/shop`, and what there is to read at
//! `/docs`. Rendered here: no script, nothing from elsewhere.
//!
//! Invariants:
//! * A key, a token or an invoice's id that somebody types comes in the body of a POST, and goes on in
//!   hidden fields of the page that answers; it is in no URL, cookie or log.
//! * Looking redeems nothing: who shows a token that is new here is asked first.
//! * No policy about money: forms call what the API calls.
//! * There is no session, so nothing here acts for a visitor but what the visitor typed. Forms of
//!   other sites are refused all the same (`pages`).

mod address;
mod card;
mod docs;
mod example;
mod home;
mod invoice;
mod key;
mod prices;
mod refund;
mod snippets;
mod status;
#[cfg(test)]
mod tests;

use std::time::Duration;

use askama::Template;
use axum::extract::{DefaultBodyLimit, Form, FromRequest, Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, get, post};
use serde::Deserialize;
use utoipa::openapi::path::PathItem;

use crate::failure::{Code, Failure, Funds, Retry};
use crate::http::{self, Node};
use crate::net::{BODY_TIMEOUT, Peer};
use crate::openapi::Described;
use crate::openapi::say::{self, Method};
use crate::pages;

/// Forms here are a token, of 16 KiB at most, and an address.
const MAX_FORM_BYTES: usize = 64 * 1024;

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; frame-src 'self'; form-action 'self'; \
     frame-ancestors 'none'; base-uri 'none'";

/// What the operator's pages look like too, and what is the shop's own.
const BASE: &str = include_str!("../../templates/style.css");
const STYLE: &str = include_str!("../../templates/shop/style.css");
const ICON: &str = include_str!("../../templates/shop/icon.svg");

/// What answers at `/`: the page where a browser asks, the API's description for everybody else.
pub fn front() -> (MethodRouter<Node>, PathItem) {
    let said = say::operation("node", "What this node is and sells").response(
        "200",
        say::answer(
            "A page for a browser, or what `/v1/info` says",
            &[(say::JSON, Some(say::object())), (say::HTML, None)],
        ),
    );
    let methods = get(async |State(node): State<Node>, uri: Uri, headers: HeaderMap| {
        let mut response = if wants_page(&headers) {
            dress(home::show(&node, &headers, &uri).await).await
        } else {
            http::root(State(node)).await.into_response()
        };
        response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
        response
    });
    (methods, say::item(Method::Get, said))
}

/// The forms, the documents, and what the pages are made of.
pub fn router(node: Node) -> Described<()> {
    let shown = |summary: &str| say::item(Method::Get, say::page("pages", summary));
    let to_front = || get(async || Redirect::to("/"));
    let form = |summary: &str, fields: &[&str]| {
        let mut item = say::item(Method::Get, say::redirect("303", "Back to the first page"));
        item.post = Some(say::form(summary, fields));
        item
    };
    let part = |summary: &str, name: &str, says: &str| {
        let operation = say::operation("pages", summary).parameter(say::part(name, says));
        let operation = operation.response("200", say::answer("A page", &[(say::HTML, None)]));
        say::item(Method::Get, operation.response("404", say::answer("There is none", &[(say::HTML, None)])))
    };
    let css = "text/css";
    let moved = say::item(Method::Get, say::redirect("308", "To /docs"));
    let away = say::item(Method::Get, say::redirect("303", "To the first page"));
    Described::new()
        .row("/status", &[], get(status::show), shown("How the models, the mints and the rate are"))
        .row("/shop", &[], to_front(), away)
        .row("/shop/key", &[], post(key::look).merge(to_front()), form("Looks at a key", &["key"]))
        .row("/shop/redeem", &[], post(key::redeem).merge(to_front()), form("Puts a token on a key", &["key"]))
        .row(
            "/shop/refund",
            &[],
            post(refund::give).merge(to_front()),
            form("Gives back a balance", &["key", "address"]),
        )
        .row("/shop/invoice", &[], post(invoice::make).merge(to_front()), form("Makes an invoice", &["key", "sats"]))
        .row(
            "/shop/invoice/key",
            &[],
            post(invoice::key).merge(to_front()),
            form("The key of a paid invoice", &["id", "key"]),
        )
        .row("/shop/invoice/{name}", &[], get(invoice::watch), part("How an invoice stands", "name", "Of the invoice"))
        .row("/docs", &[], get(docs::contents), shown("What there is to read"))
        .row("/docs/", &[], get(async || Redirect::permanent("/docs")), moved)
        .row("/docs/{name}", &[], get(docs::one), part("A document", "name", "Of the document"))
        .row("/shop/base.css", &[], get(async || asset("text/css; charset=utf-8", BASE)), say::asset(css, "Style"))
        .row("/shop/style.css", &[], get(async || asset("text/css; charset=utf-8", STYLE)), say::asset(css, "Style"))
        .row("/shop/icon.svg", &[], get(async || asset("image/svg+xml", ICON)), say::asset("image/svg+xml", "An icon"))
        .map(|router| {
            router
                .with_state(node)
                .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
                .layer(middleware::from_fn(pages::refuse_foreign_posts))
                .layer(middleware::map_response(dress))
        })
}

async fn dress(mut response: Response) -> Response {
    response.headers_mut().entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(POLICY));
    pages::harden(response).await
}

fn asset(media: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, media), (CACHE_CONTROL, "public, max-age=300")], text).into_response()
}

/// Whether the client would rather read HTML than JSON. Programs ask for anything, or for JSON.
fn wants_page(headers: &HeaderMap) -> bool {
    let accepted: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let weight = |media: &str| {
        let ranges = accepted.iter().flat_map(|value| value.split(','));
        ranges.filter_map(|range| weight_of(range, media)).max().unwrap_or(0)
    };
    let page = weight("text/html").max(weight("application/xhtml+xml"));
    page > 0 && page >= weight("application/json")
}

/// How much this range of an `Accept` header wants the media type, in thousandths.
fn weight_of(range: &str, media: &str) -> Option<u32> {
    let mut parts = range.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(media) {
        return None;
    }
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let Some(weight) = weight else { return Some(1000) };
    let (whole, decimals) = weight.split_once('.').unwrap_or((weight, ""));
    let decimals: u32 = format!("{decimals:0<3}").get(..3)?.parse().ok()?;
    Some(if whole == "1" { 1000 } else { decimals })
}

/// A time, to be read by people and programs.
fn moment(time_ms: i64) -> String {
    pages::format::utc(time_ms).replace('T', " ")
}

/// What visitors type. Secrets are in it: it has no `Debug`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Typed {
    /// A key, or a token.
    key: String,
    /// An amount.
    sats: String,
    /// A Lightning address.
    address: String,
    /// Of an invoice.
    id: String,
}

/// The form, or why it could not be read.
struct Sent(Result<Typed, Failure>);

impl Sent {
    /// Reads a form that has so long to come.
    async fn read<S: Send + Sync>(request: Request, state: &S, within: Duration) -> Self {
        let form = Form::<Typed>::from_request(request, state);
        let Ok(read) = tokio::time::timeout(within, form).await else {
            return Self(Err(Failure::client(Code::InvalidRequest, "This form did not come in time.")));
        };
        Self(read.map(|Form(typed)| typed).map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Failure::client(Code::PayloadTooLarge, "That is too long to be a key or a token.")
            }
            _ => Failure::client(Code::InvalidRequest, "This form could not be read."),
        }))
    }
}

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::read(request, state, BODY_TIMEOUT).await)
    }
}

/// Who sent a form, where a socket is behind it.
struct Sender(Option<Peer>);

impl<S: Sync> axum::extract::FromRequestParts<S> for Sender {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<Peer>().copied()))
    }
}

#[derive(Template)]
#[template(path = "shop/trouble.html")]
struct Trouble<'a> {
    name: &'a str,
    message: &'a str,
    money: &'static str,
    /// Ecash that comes back.
    token: Option<&'a str>,
    retry: Option<u64>,
}

/// What became of the money, for a person.
const fn fate(funds: &Funds) -> &'static str {
    match funds {
        Funds::Untouched => "Nothing was taken.",
        Funds::OnAccount => "The money is on the key.",
        Funds::Returned(_) => "The money comes back as this token:",
        Funds::Claimable => "The money is yours and can be fetched as a refund.",
        Funds::Pending(_) => {
            "The mint has not said yet whether it took the token. Send the same token again: it counts once."
        }
    }
}

/// A page, or why there is none, as a page.
fn answer(node: &Node, page: Result<Response, Failure>) -> Response {
    let failure = match page {
        Ok(page) => return page,
        Err(failure) => failure,
    };
    let retry = match failure.retry {
        Retry::After(secs) => Some(secs),
        Retry::Never => None,
    };
    let token = match &failure.funds {
        Funds::Returned(token) => Some(token.as_str()),
        _ => None,
    };
    let trouble =
        Trouble { name: &node.info().name, message: &failure.message, money: fate(&failure.funds), token, retry };
    let mut response = render(&trouble).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    let status = crate::failure::facts(failure.code).status;
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(secs) = retry {
        response.headers_mut().insert(RETRY_AFTER, secs.into());
    }
    response
}

fn render(page: &impl Template) -> Result<Response, Failure> {
    match page.render() {
        Ok(html) => Ok(Html(html).into_response()),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            Err(Failure::internal())
        }
    }
}
