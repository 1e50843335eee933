//! The description of the API says of every route what is true, and there is no route that it leaves out.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Map, Value};
use syn::visit::Visit;

use crate::bearer::world;
use crate::support::node::{TestNode, client};
use crate::support::operator::Operator;

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

async fn document(node: &TestNode) -> Value {
    let answer = node.get("/openapi.json").send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    answer.json().await.unwrap()
}

fn operations(document: &Value) -> Vec<(&str, &str, &Map<String, Value>)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter().filter(|(name, _)| METHODS.contains(&name.as_str()));
            methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation.as_object().unwrap()))
        })
        .collect()
}

/// Every reference that a document makes.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_whole_and_of_one_piece() {
    let (_mint, _purse, _upstream, node) = world(10).await;
    let document = document(&node).await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut refers = BTreeSet::new();
    references(&document, &mut refers);
    for reference in refers {
        let at = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(at).is_some(), "{reference} is nowhere");
    }
    let mut ids = HashSet::new();
    for (path, method, operation) in operations(&document) {
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path} says nothing");
        assert!(operation["responses"].as_object().is_some_and(|all| !all.is_empty()), "{method} {path}");
        let named: BTreeSet<&str> = path.split('{').skip(1).map(|rest| rest.split_once('}').unwrap().0).collect();
        let parts = operation.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default();
        let parts: Vec<Value> = parts.into_iter().filter(|part| part["in"] == "path").collect();
        assert_eq!(parts.iter().map(|part| part["name"].as_str().unwrap()).collect::<BTreeSet<_>>(), named, "{path}");
        if path.starts_with("/admin/api/") && path != "/admin/api/login" {
            let scopes = operation["security"][0]["operator"].as_array().unwrap();
            let description = operation.get("description").and_then(Value::as_str).unwrap_or_default();
            let named =
                |scope: &Value| description.ends_with(&format!("Takes the scope `{}`.", scope.as_str().unwrap()));
            assert!(scopes.iter().all(named), "{method} {path}: {description}");
            assert_eq!(scopes.len(), usize::from(path != "/admin/api/logout"), "{method} {path}");
            assert!(operation["responses"]["403"].is_object(), "{method} {path}");
        }
    }
    let paths = document["paths"].as_object().unwrap();
    for (path, statuses) in [
        ("/v1/chat/completions", &["200", "400", "401", "402", "429", "503", "default"][..]),
        ("/v1/messages", &["200", "402"]),
        ("/v1beta/models/{model}:streamGenerateContent", &["200", "402"]),
    ] {
        let said = paths[path]["post"]["responses"].as_object().unwrap();
        assert!(statuses.iter().all(|status| said.contains_key(*status)), "{path}");
    }
    for scheme in ["bearer", "cashu", "operator", "metrics"] {
        assert!(document["components"]["securitySchemes"][scheme].is_object(), "{scheme}");
    }
    node.finish().await;
}

/// Every address of the document, with an example of each part.
fn addresses(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, method, operation) in operations(document) {
        let also = operation.get("x-also-at").and_then(Value::as_array).cloned().unwrap_or_default();
        let also = also.into_iter().map(|path| path.as_str().unwrap().to_owned());
        for path in std::iter::once(path.to_owned()).chain(also) {
            all.entry(path).or_default().insert(method.to_owned());
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_are_those_that_are_described() {
    let (_mint, _purse, _upstream, node) = world(10).await;
    let document = document(&node).await;
    for (path, described) in addresses(&document) {
        let mut address = path.clone();
        while let Some((before, rest)) = address.split_once('{') {
            address = format!("{before}x{}", rest.split_once('}').unwrap().1);
        }
        for method in METHODS {
            let request =
                client().request(Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(), node.url() + &address);
            // Forms of the pages are looked at only if a page sent them.
            let status = request.header("origin", node.url()).send().await.unwrap().status().as_u16();
            // A method of a model is the last part of an address that may be any model's.
            let is_of_a_model = path.contains("models/{");
            if described.contains(method) {
                assert_ne!(status, 405, "{method} {path} is described, and refused");
            } else if !is_of_a_model {
                assert_eq!(status, 405, "{method} {path} is not described");
            }
        }
    }
    node.finish().await;
}

/// Where routes are mounted by hand, file by file.
struct Mounts {
    calls: usize,
}

impl<'ast> Visit<'ast> for Mounts {
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let name = call.method.to_string();
        let is_mount = ["route", "route_service", "nest", "nest_service"].contains(&name.as_str());
        self.calls += usize::from(is_mount);
        syn::visit::visit_expr_method_call(self, call);
    }
}

/// The program's source files.
fn sources() -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    files
}

/// What is mounted through [`coinslot::openapi::Described`] is described. Nothing is mounted otherwise, but the
/// operator's pages, which are for a person, and the description itself.
#[test]
fn a_route_is_mounted_with_its_description() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut by_hand = 0;
    for file in sources() {
        let inside = file.strip_prefix(&root).unwrap().display().to_string();
        let (mut mounts, text) = (Mounts { calls: 0 }, std::fs::read_to_string(&file).unwrap());
        if !text.contains("axum") {
            // The market has routes of another kind.
            continue;
        }
        mounts.visit_file(&syn::parse_file(&text).unwrap());
        by_hand += mounts.calls;
        let may = inside.starts_with("admin/") || inside.starts_with("openapi/") || inside.ends_with("tests.rs");
        assert!(mounts.calls == 0 || may, "{inside} mounts a route without a description: see openapi::Described");
    }
    assert!(by_hand > 10, "the test sees no routes");
}

/// Of the operator's calls: how many there are, and which name another scope than they ask for.
#[derive(Default)]
struct Scopes {
    calls: usize,
    wrong: Vec<String>,
}

/// The scopes that a call asks for, in order.
#[derive(Default)]
struct Asked(Vec<String>);

impl<'ast> Visit<'ast> for Asked {
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if let (true, Some(syn::Expr::Path(scope))) = (call.method == "may", call.args.first()) {
            self.0.extend(scope.path.segments.last().map(|name| name.ident.to_string().to_lowercase()));
        }
        syn::visit::visit_expr_method_call(self, call);
    }
}

impl<'ast> Visit<'ast> for Scopes {
    fn visit_item_fn(&mut self, call: &'ast syn::ItemFn) {
        let (mut described, mut documented) = (String::new(), String::new());
        for attribute in &call.attrs {
            match &attribute.meta {
                syn::Meta::List(list) if list.path.segments.last().is_some_and(|name| name.ident == "path") => {
                    described = list.tokens.to_string().split_whitespace().collect();
                }
                syn::Meta::NameValue(value) if value.path.is_ident("doc") => {
                    if let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &value.value {
                        documented += &text.value();
                    }
                }
                _ => {}
            }
        }
        if !described.contains("path=\"/admin/api/") {
            return;
        }
        let mut asked = Asked::default();
        asked.visit_item_fn(call);
        let named = described.split_once("\"operator\"=[\"").map(|(_, rest)| rest.split('"').next().unwrap());
        // What some of its bodies take beside is said in words.
        let beside = asked.0.iter().skip(1).all(|scope| documented.contains(&format!("the scope `{scope}`")));
        self.calls += 1;
        if named != asked.0.first().map(String::as_str) || !beside {
            self.wrong.push(format!("{}: names {named:?}, asks for {:?}", call.sig.ident, asked.0));
        }
    }
}

/// A call says in its description which scope it takes.
#[test]
fn a_call_of_the_operator_names_the_scope_that_it_asks_for() {
    let mut scopes = Scopes::default();
    for file in sources().iter().filter(|file| file.components().any(|part| part.as_os_str() == "admin")) {
        scopes.visit_file(&syn::parse_file(&std::fs::read_to_string(file).unwrap()).unwrap());
    }
    assert_eq!(scopes.wrong, Vec::<String>::new());
    assert!(scopes.calls > 50, "the test sees no calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_viewer_comes_from_this_node_alone() {
    let (_mint, _purse, _upstream, node) = world(10).await;
    let page = node.get("/docs/api").send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    let html = page.text().await.unwrap();
    assert!(!html.contains("://") && !html.contains("style=") && !html.contains("<script>"), "{html}");
    let mut parts = 0;
    for part in html.split('"').filter(|text| text.starts_with("/docs/api/")) {
        let answer = node.get(part).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{part}");
        let media = answer.headers()["content-type"].to_str().unwrap();
        assert!(["text/css", "text/javascript"].contains(&media), "{part}: {media}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        parts += 1;
    }
    assert_eq!(parts, 4);
    assert!(node.get("/docs").send().await.unwrap().text().await.unwrap().contains("href=\"/docs/api\""));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_read_is_refused_in_the_envelope() {
    let (_mint, purse, _upstream, node) = world(10).await;
    let key = purse.send(5).await;
    for (path, status) in [
        ("/v1/balance/history?limit=1&limit=2", 400),
        ("/v1/receipts/%FF", 400),
        ("/v1/prices/%FF", 400),
        ("/lightning/invoice/%00/status", 404),
        ("/v1/providers?pubkey=%00", 404),
    ] {
        let answer = node.get(path).bearer_auth(&key).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (status, &"application/json".parse().unwrap()),
            "{path}"
        );
        let body: Value = answer.json().await.unwrap();
        assert!(body["error"]["code"].is_string(), "{path}: {body}");
    }
    let bolt11 = serde_json::json!({ "bolt11": "lnbc\u{0}" });
    assert_eq!(node.post("/lightning/recover").json(&bolt11).send().await.unwrap().status(), 404);
    let trace = client().request(Method::TRACE, node.url() + "/docs").send().await.unwrap();
    assert_eq!(trace.status(), 405);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_address_cannot_be_read_is_refused_as_calls_are() {
    let (_mint, _purse, _upstream, node) = world(10).await;
    let operator = Operator::log_in(&node.url()).await;
    let document = document(&node).await;
    let mut asked = 0;
    for (path, method, _) in operations(&document) {
        let Some((before, rest)) = path.strip_prefix("/admin/api/").and_then(|inside| inside.split_once('{')) else {
            continue;
        };
        let address = format!("/admin/api/{before}%FF{}", rest.split_once('}').unwrap().1);
        let (status, said) = operator.call(&method.to_uppercase(), &address, None).await;
        assert_eq!((status, said["code"].as_str()), (400, Some("invalid_request")), "{method} {path}: {said}");
        asked += 1;
    }
    assert!(asked > 10, "the test sees no parts");
    node.finish().await;
}
