//! `GET /v1/models`, `GET /v1/models/{id}`: the price list, as each protocol's clients read one.
//! Public, and made once a second at most. Who asks with a key that has prices of its own sees those.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::envelope::{self, Asked};
use super::proxy::{self, Target};
use super::refusals::Refusals;
use super::{Node, headers, not_allowed, shapes, vendor_of};
use crate::catalog::route::Buyer;
use crate::clock::utc;
use crate::config::Pricing;
use crate::dialect::Protocol;
use crate::failure::{Code, Failure};
use crate::http::extract::Path;
use crate::money::tariff::{Profile, Tariffs};
use crate::payment;

/// How long a listing is served before it is made anew.
const FRESH_MS: i64 = 1000;

/// Profiles whose listings are remembered.
const REMEMBERED: usize = 64;

/// The listings as they were last made, by the name of the profile; the first has none.
#[derive(Debug, Default)]
pub struct Listing {
    made: Mutex<HashMap<Option<String>, Arc<Made>>>,
}

/// A listing in every shape.
#[derive(Debug)]
struct Made {
    at_ms: i64,
    tariffs: Arc<Tariffs>,
    pricing: Arc<Pricing>,
    value: Arc<Value>,
    openai: Page,
    anthropic: Page,
    gemini: Page,
}

/// A body and what it is recognised by.
#[derive(Debug)]
struct Page {
    bytes: Bytes,
    tag: HeaderValue,
}

impl Page {
    fn of(value: &Value) -> Self {
        let bytes = Bytes::from(value.to_string());
        let digest = Sha256::digest(&bytes);
        let tag: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let tag = HeaderValue::from_str(&format!("\"{tag}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        Self { bytes, tag }
    }
}

impl Listing {
    fn get(&self, node: &Node, profile: Option<&Arc<Profile>>) -> Arc<Made> {
        let market = &node.exchange.market;
        let (at_ms, tariffs) = (node.exchange.ledger.clock().now_ms(), market.tariffs());
        let pricing = market.pricing();
        let name = profile.map(|profile| profile.name.clone());
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listing) = made.get(&name)
            && at_ms.saturating_sub(listing.at_ms) < FRESH_MS
            && Arc::ptr_eq(&listing.tariffs, &tariffs)
            && Arc::ptr_eq(&listing.pricing, &pricing)
        {
            return Arc::clone(listing);
        }
        let value = market.listing(Buyer { profile, pool: &node.exchange.pool });
        let listing = Arc::new(Made {
            at_ms,
            tariffs,
            pricing,
            openai: Page::of(&with_bare_ids(&value)),
            anthropic: Page::of(&anthropic_list(&value)),
            gemini: Page::of(&json!({ "models": entries(&value, gemini) })),
            value: Arc::new(value),
        });
        if made.len() >= REMEMBERED {
            made.clear();
        }
        made.insert(name, Arc::clone(&listing));
        listing
    }
}

impl Node {
    /// `/v1/models` for whoever has no key, as it was made last: anybody may ask for pages of it as often as they like.
    pub(crate) fn price_list(&self) -> Arc<Value> {
        Arc::clone(&self.listing.get(self, None).value)
    }
}

/// The profile of the key that asks, if one does that has any. A credential that is none, as SDKs insist on
/// sending, asks like nobody. Redeems nothing.
pub(super) async fn profile(node: &Node, headers: &HeaderMap) -> Result<Option<Arc<Profile>>, Failure> {
    if node.exchange.market.tariffs().profiles.is_empty() {
        // Nor is any credential looked at then.
        return Ok(None);
    }
    let Ok(credentials) = proxy::credentials(headers) else { return Ok(None) };
    match payment::read(credentials, |id| node.exchange.till.remembers(id)) {
        Ok(payment) => node.exchange.profile(&payment).await,
        Err(_) => Ok(None),
    }
}

fn failed(failure: &Failure, protocol: Protocol) -> Response<Body> {
    let request_id = super::watch::id();
    envelope::render(failure, &Asked { protocol, request_id: &request_id, ..Asked::default() })
}

/// All models.
#[utoipa::path(get, path = "/v1/models", tag = "node", summary = "The models and their prices", params(("if-none-match" = Option<String>, Header), ("format" = Option<String>, Query, description = "Whose shape: openai, anthropic or gemini. Without it, the headers tell; `provider` is read alike")), responses((status = 200, body = shapes::Models), (status = 304, description = "As the client has it"), Refusals), security((), ("bearer" = [])))]
pub async fn list(State(node): State<Node>, request: Request) -> Response<Body> {
    let protocol = asked_as(&request);
    let profile = match profile(&node, request.headers()).await {
        Ok(profile) => profile,
        Err(failure) => return failed(&failure, protocol),
    };
    let listing = node.listing.get(&node, profile.as_ref());
    let page = match protocol {
        Protocol::OpenAi => &listing.openai,
        Protocol::Anthropic => &listing.anthropic,
        Protocol::Gemini => &listing.gemini,
    };
    respond(page, request.headers())
}

/// One model, by its id or an alias. Ids may contain slashes. One that is asked for by its bare id is shown under that.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "node", summary = "A model and its prices", params(("id" = String, Path, description = "May have slashes in it")), responses((status = 200, body = Object), (status = 304, description = "As the client has it"), Refusals), security((), ("bearer" = [])))]
pub async fn one(State(node): State<Node>, Path(id): Path<String>, request: Request) -> Response<Body> {
    if Target::of_a_model(&id).is_some() {
        let mut response = not_allowed(request).await;
        // The router says so where it knows the path.
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let protocol = asked_as(&request);
    let profile = match profile(&node, request.headers()).await {
        Ok(profile) => profile,
        Err(failure) => return failed(&failure, protocol),
    };
    let listing = node.listing.get(&node, profile.as_ref());
    let id = id.trim_end_matches('/');
    let canonical = node.exchange.market.canonical(id);
    let models = listing.value.get("data").and_then(Value::as_array);
    let found = models
        .zip(canonical)
        .and_then(|(models, id)| models.iter().find(|model| model.get("id").and_then(Value::as_str) == Some(&id)));
    match (found, protocol) {
        (Some(model), Protocol::OpenAi) => {
            let bare = by_bare_id(model).filter(|copy| of(copy, "id") == *id);
            respond(&Page::of(bare.as_ref().unwrap_or(model)), request.headers())
        }
        (Some(model), Protocol::Anthropic) => respond(&Page::of(&anthropic(model)), request.headers()),
        (Some(model), Protocol::Gemini) => respond(&Page::of(&gemini(model)), request.headers()),
        (None, _) => failed(&Failure::client(Code::NotFound, "Model not found"), protocol),
    }
}

/// In whose shape: as `format` or `provider` in the query says, or by the path, or by where the key is.
fn asked_as(request: &Request) -> Protocol {
    let (path, headers) = (request.uri().path(), request.headers());
    let query = url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
    let named = query.filter(|(name, _)| matches!(name.as_ref(), "format" | "provider"));
    if let Some(protocol) = named.filter_map(|(_, value)| Protocol::parse(&value)).next() {
        return protocol;
    }
    // The list itself has no slash behind it.
    if path == "/v1beta/models" {
        return Protocol::Gemini;
    }
    let keys = [headers::X_API_KEY, headers::X_ANTHROPIC_API_KEY];
    match vendor_of(path, headers) {
        // Only Anthropic's clients put it there, and nowhere else.
        Protocol::OpenAi
            if !headers.contains_key(AUTHORIZATION) && keys.iter().any(|key| headers.contains_key(key)) =>
        {
            Protocol::Anthropic
        }
        protocol => protocol,
    }
}

fn respond(page: &Page, asked: &HeaderMap) -> Response<Body> {
    let known = headers::text(asked, IF_NONE_MATCH)
        .is_some_and(|tags| tags.split(',').any(|tag| page.tag == *tag.trim().trim_start_matches("W/")));
    let mut response = Response::new(if known { Body::empty() } else { Body::from(page.bytes.clone()) });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    out.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    out.insert(ETAG, page.tag.clone());
    let vary = "anthropic-version, authorization, x-api-key, x-anthropic-api-key, api-key, x-goog-api-key";
    out.insert(VARY, HeaderValue::from_static(vary));
    response
}

/// The list with each model under its bare id as well: clients of this network look for that among ids alone, and
/// not among aliases.
fn with_bare_ids(listing: &Value) -> Value {
    let mut shown = listing.clone();
    if let Some(models) = shown.get_mut("data").and_then(Value::as_array_mut) {
        *models = std::mem::take(models).into_iter().flat_map(both_ids).collect();
    }
    shown
}

fn both_ids(model: Value) -> impl Iterator<Item = Value> {
    let bare = by_bare_id(&model);
    std::iter::once(model).chain(bare)
}

/// The same entry under its id without the vendor, where that name means this model.
fn by_bare_id(model: &Value) -> Option<Value> {
    let id = model.get("id")?.as_str()?;
    let (_, bare) = id.split_once('/')?;
    // A name that could mean two, or is the id of another, is nobody's alias.
    let aliases = model.get("alias_ids")?.as_array()?;
    if !aliases.iter().any(|alias| *alias == *bare) {
        return None;
    }
    let others = aliases.iter().filter(|alias| **alias != *bare).cloned();
    let names: Vec<Value> = std::iter::once(json!(id)).chain(others).collect();
    let mut copy = model.as_object()?.clone();
    copy.insert("id".into(), json!(bare));
    copy.insert("alias_ids".into(), json!(names));
    Some(Value::Object(copy))
}

fn entries(listing: &Value, shape: impl Fn(&Value) -> Value) -> Vec<Value> {
    listing.get("data").and_then(Value::as_array).map(|models| models.iter().map(shape).collect()).unwrap_or_default()
}

fn anthropic_list(listing: &Value) -> Value {
    let data = entries(listing, anthropic);
    let id = |model: Option<&Value>| model.and_then(|model| model.get("id")).cloned();
    let (first, last) = (id(data.first()), id(data.last()));
    json!({ "data": data, "has_more": false, "first_id": first, "last_id": last })
}

/// A model as Anthropic's clients know one, and its prices.
fn anthropic(model: &Value) -> Value {
    let created = model.get("created").and_then(Value::as_u64).unwrap_or_default();
    let mut shown = Map::new();
    shown.insert("type".into(), json!("model"));
    shown.insert("id".into(), of(model, "id"));
    shown.insert("display_name".into(), of(model, "name"));
    shown.insert("created_at".into(), json!(date_time(created)));
    shown.insert("max_input_tokens".into(), of(model, "context_length"));
    shown.insert("max_tokens".into(), most_output(model));
    prices(model, &mut shown);
    Value::Object(shown)
}

/// A model as Google's clients know one, and its prices.
fn gemini(model: &Value) -> Value {
    const METHODS: [&str; 5] =
        ["generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents"];
    let id = model.get("id").and_then(Value::as_str).unwrap_or_default();
    let mut shown = Map::new();
    shown.insert("name".into(), json!(format!("models/{id}")));
    shown.insert("baseModelId".into(), json!(id));
    shown.insert("version".into(), json!("1"));
    shown.insert("displayName".into(), of(model, "name"));
    shown.insert("description".into(), of(model, "description"));
    shown.insert("inputTokenLimit".into(), of(model, "context_length"));
    shown.insert("outputTokenLimit".into(), most_output(model));
    shown.insert("supportedGenerationMethods".into(), json!(METHODS));
    prices(model, &mut shown);
    Value::Object(shown)
}

fn of(model: &Value, key: &str) -> Value {
    model.get(key).cloned().unwrap_or(Value::Null)
}

fn most_output(model: &Value) -> Value {
    model.get("top_provider").map_or(Value::Null, |top| of(top, "max_completion_tokens"))
}

fn prices(model: &Value, shown: &mut Map<String, Value>) {
    for key in ["pricing", "sats_pricing"] {
        shown.insert(key.into(), of(model, key));
    }
    if let Some(windows) = model.get("price_windows") {
        shown.insert("price_windows".into(), windows.clone());
    }
}

/// Seconds since the Unix epoch as RFC 3339.
pub(super) fn date_time(seconds: u64) -> String {
    utc(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_by_hand() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_721_260_800, "2024-07-18T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date_time(seconds), text, "{seconds}");
        }
    }
}
