//! `/` in a browser: what this node is and sells, how to pay, and where to ask about a key.

use std::sync::Arc;

use askama::Template;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde_json::Value;

use super::example::{self, Example};
use super::prices::{self, Table, Wish};
use super::snippets::{self, Named, Snippet};
use super::{address, answer, docs, moment, render};
use crate::catalog::route::{Buyer, Market, RateView};
use crate::failure::Failure;
use crate::http::{self, Node};
use crate::money::RateCard;
use crate::money::tariff::Window;
use crate::news;
use crate::pages::format;
use crate::price::RateBasis;

#[derive(Template)]
#[template(path = "shop/home.html")]
struct Page {
    name: String,
    description: String,
    version: String,
    npub: String,
    onion: String,
    mints: Vec<String>,
    unit: String,
    /// What the operator announces.
    notices: Vec<Notice>,
    takes_money: bool,
    /// Why nothing is sold now.
    reasons: Vec<String>,
    rate: Rate,
    table: Table,
    fixed: Option<Fixed>,
    /// Hours at which prices are others, a sentence each.
    hours: Vec<String>,
    example: Option<Example>,
    input: String,
    output: String,
    base: String,
    snippets: Vec<Snippet>,
}

/// An announcement.
struct Notice {
    title: String,
    level: &'static str,
    since: String,
    /// Written by [`docs::note`], which lets no markup through but its own.
    html: String,
}

/// What a bitcoin is billed at.
struct Rate {
    usd: Option<String>,
    /// What it rests on, in a few words.
    state: String,
}

/// Prices in sats that replace those of every model.
pub(super) struct Fixed {
    pub request: String,
    pub input: String,
    pub output: String,
}

/// The page.
pub(super) async fn show(node: &Node, headers: &HeaderMap, uri: &Uri) -> Response {
    answer(node, page(node, headers, uri).await)
}

async fn page(node: &Node, headers: &HeaderMap, uri: &Uri) -> Result<Response, Failure> {
    let Json(about) = http::root(State(node.clone())).await;
    let models = about.get("models").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let market = &node.exchange.market;
    let wish = Wish::read(uri.query().unwrap_or_default());
    let base = address::own(&text(&about, "http_url"), headers, uri);
    let fixed = market.static_prices().as_ref().and_then(fixed);
    let ids: Vec<&str> = models.iter().filter_map(|model| model.get("id").and_then(Value::as_str)).collect();
    let named = Named::of(node, &ids);
    render(&Page {
        name: text(&about, "name"),
        description: text(&about, "description"),
        version: text(&about, "version"),
        npub: text(&about, "npub"),
        onion: text(&about, "onion_url"),
        mints: node.exchange.till.wallet().mints().to_vec(),
        unit: text(&about, "unit"),
        notices: notices(node).await,
        takes_money: node.exchange.till.takes_money(),
        reasons: http::reasons(node).await,
        rate: rate(&market.rate()),
        table: prices::table(models, &wish, fixed.is_some()),
        fixed,
        hours: hours(market, node.exchange.ledger.clock().now_ms()),
        example: example::of(market, Buyer::anybody(&node.exchange.pool), snippets::pasteable(ids.into_iter())),
        input: example::figure(example::INPUT),
        output: example::figure(example::OUTPUT),
        snippets: snippets::all(&base, named),
        base,
    })
}

/// The page goes on without them.
async fn notices(node: &Node) -> Vec<Notice> {
    let ledger = &node.exchange.ledger;
    let shown = news::shown(ledger.store(), ledger.clock().now_ms()).await.unwrap_or_else(|error| {
        tracing::error!(%error, "the announcements cannot be read");
        Vec::new()
    });
    let notice = |one: news::Announcement| Notice {
        title: one.text.title,
        level: one.text.level.as_str(),
        since: moment(one.text.starts_ms),
        html: docs::note(&one.text.body),
    };
    shown.into_iter().map(notice).collect()
}

fn text(about: &Value, key: &str) -> String {
    about.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn rate(view: &RateView) -> Rate {
    let Ok(rate) = &view.rate else {
        return Rate { usd: None, state: "not known well enough: nothing is sold until it is".to_owned() };
    };
    let age = format::age(view.now_ms.saturating_sub(rate.as_of_ms));
    let state = match rate.basis {
        RateBasis::Fresh => format!("median of {} feeds, {age} old", rate.sources),
        RateBasis::Fixed => "set by the operator".to_owned(),
        RateBasis::Grace => format!("the last good one, {age} old, at a margin: the feeds are silent"),
    };
    Rate { usd: Some(prices::exact(rate.btc_usd.round_dp(2))), state }
}

/// Hours at which prices are others, a sentence each.
pub(super) fn hours(market: &Market, now_ms: i64) -> Vec<String> {
    let tariffs = market.tariffs();
    let sentence = |window: &Arc<Window>| {
        let models = match window.models.describe() {
            models if models.is_empty() => "All models".to_owned(),
            models => models,
        };
        let factor = prices::exact(window.multiplier);
        let now = if window.is_open(now_ms) { " It is such an hour now: the prices below are these." } else { "" };
        format!("{models}: {factor} times the price {}.{now}", window.hours())
    };
    tariffs.windows.iter().map(sentence).collect()
}

pub(super) fn fixed(card: &RateCard) -> Option<Fixed> {
    let million = rust_decimal::Decimal::from(1_000_000);
    Some(Fixed {
        request: prices::exact(card.prices.request),
        input: prices::exact(card.prices.prompt.checked_mul(million)?),
        output: prices::exact(card.prices.completion.checked_mul(million)?),
    })
}
