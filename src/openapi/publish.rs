//! `/openapi.json`: the whole description; `/docs/api`: Swagger UI, which reads it. Both come from the program: no
//! other host is asked for anything.

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};

use super::say::{self, Method};
use super::{Described, for_each};
use crate::pages;

/// Of the npm package swagger-ui-dist; `vendor/swagger-ui` says which, and how to make them anew.
const VIEWER: &[u8] = include_bytes!("../../vendor/swagger-ui/swagger-ui-bundle.js.gz");
const VIEWER_STYLE: &[u8] = include_bytes!("../../vendor/swagger-ui/swagger-ui.css.gz");
const PAGE: &str = include_str!("../../templates/api/index.html");
const SCRIPT: &str = include_str!("../../templates/api/start.js");
const STYLE: &str = include_str!("../../templates/api/style.css");

/// Scripts and styles of this node alone, none of them inline; the viewer's pictures are in its style sheet. What
/// is tried out there goes to this node.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     form-action 'none'; frame-ancestors 'none'; base-uri 'none'";

/// Whose description it is.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    pub name: &'a str,
    pub description: &'a str,
    pub version: &'a str,
}

/// All routes, and the description of all as a route more, with its viewer.
pub fn publish(all: Described<()>, about: About<'_>) -> Router {
    let all = all.merge(viewer());
    let Described { router, paths, schemas } = all.merge(described());
    let text = Bytes::from(document(paths, schemas, about).to_string());
    let served = move || async move { ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], text) };
    router.merge(Router::new().route("/openapi.json", get(served)))
}

/// Its own place in itself.
fn described() -> Described<()> {
    let said = say::operation("node", "This description")
        .response("200", say::answer("OpenAPI 3.1", &[(say::JSON, Some(say::object()))]));
    Described::new().rows(
        &[],
        axum::routing::MethodRouter::new(),
        &[],
        [("/openapi.json".to_owned(), say::item(Method::Get, said))],
    )
}

fn viewer() -> Described<()> {
    const SCRIPTS: &str = "text/javascript";
    let packed = |media, bytes: &'static [u8]| {
        get(move || async move { ([(CONTENT_TYPE, media), (CONTENT_ENCODING, "gzip"), CACHED], bytes) })
    };
    Described::new()
        .row("/docs/api", &[], get(show), say::item(Method::Get, say::page("pages", "This description, to be read")))
        .row(
            "/docs/api/start.js",
            &[],
            get(async || ([(CONTENT_TYPE, SCRIPTS), CACHED], SCRIPT)),
            say::asset(SCRIPTS, "Starts the viewer"),
        )
        .row(
            "/docs/api/style.css",
            &[],
            get(async || ([(CONTENT_TYPE, "text/css"), CACHED], STYLE)),
            say::asset("text/css", "What is around the viewer"),
        )
        .row(
            "/docs/api/swagger-ui.css",
            &[],
            packed("text/css", VIEWER_STYLE),
            say::asset("text/css", "The viewer's style"),
        )
        .row("/docs/api/swagger-ui-bundle.js", &[], packed(SCRIPTS, VIEWER), say::asset(SCRIPTS, "The viewer"))
        .map(|router| router.layer(axum::middleware::map_response(pages::harden)))
}

const CACHED: (axum::http::HeaderName, &str) = (CACHE_CONTROL, "public, max-age=300");

async fn show() -> Response {
    ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY)], PAGE).into_response()
}

fn document(mut paths: Map<String, Value>, schemas: Map<String, Value>, about: About<'_>) -> Value {
    for_each(&mut paths, |path, method, operation| {
        operation.insert("operationId".into(), json!(id(method, path)));
    });
    let scheme = |scheme: &str, says: &str| json!({ "type": "http", "scheme": scheme, "description": says });
    let header =
        |name: &str, says: &str| json!({ "type": "apiKey", "in": "header", "name": name, "description": says });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": about.name,
            "description": about.description,
            "version": about.version,
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": scheme("bearer", "A Cashu token, or a key (sk-…) that one was put on. The headers `x-api-key`, \
                    `x-anthropic-api-key`, `api-key` and `x-goog-api-key` do as well."),
                "cashu": header("X-Cashu", "A Cashu token that pays for this request alone; the change comes back in \
                    the same header."),
                "operator": scheme("bearer", "A token of `POST /admin/api/login`, or one for programs."),
                "metrics": scheme("bearer", "METRICS_TOKEN"),
            },
        },
        "tags": [
            { "name": "sold", "description": "Paid by the request" },
            { "name": "money", "description": "Keys: what is on them, what comes and goes" },
            { "name": "node", "description": "What this node is, sells and asks for it" },
            { "name": "pages", "description": "For people" },
            { "name": "admin", "description": "For the operator" },
        ],
    })
}

/// A name that no other operation has.
fn id(method: &str, path: &str) -> String {
    let clean: String = path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let words: Vec<&str> = clean.split('_').filter(|word| !word.is_empty()).collect();
    let slash = if path.len() > 1 && path.ends_with('/') { "_" } else { "" };
    format!("{method}_{}{slash}", words.join("_"))
}
