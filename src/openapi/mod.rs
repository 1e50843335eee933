//! The description of the HTTP interface (OpenAPI 3.1). A route is mounted together with what is said of it, so
//! there is none without a description; `tests/it/openapi.rs` sees that nothing is mounted in another way.
//!
//! * [`Described`]: routes with their descriptions. [`publish()`]: the whole as `/openapi.json`, and a viewer.
//! * [`say`]: a description in code, for routes that come from a table. Other handlers have theirs in
//!   `#[utoipa::path]`.

mod publish;
pub mod say;

use axum::Router;
use axum::routing::MethodRouter;
use serde_json::{Map, Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::path::PathItem;
use utoipa::openapi::schema::Schema;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

pub use publish::{About, publish};

/// The member of an operation that lists further addresses of it.
pub const ALSO_AT: &str = "x-also-at";

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Routes, and what is said of each.
#[derive(Debug)]
pub struct Described<S> {
    router: Router<S>,
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

impl<S: Clone + Send + Sync + 'static> Default for Described<S> {
    fn default() -> Self {
        Self { router: Router::new(), paths: Map::new(), schemas: Map::new() }
    }
}

impl<S: Clone + Send + Sync + 'static> Described<S> {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Mounts what `routes!` made, where its description says; and where else it is to be found.
    #[must_use]
    pub fn at(self, (schemas, paths, methods): UtoipaMethodRouter<S>, also: &[&str]) -> Self {
        self.routed((schemas, paths, methods), also, |path| path.to_owned())
    }

    /// Mounts as [`Described::at`] does, where the last part of the address may have slashes in it.
    #[must_use]
    pub fn below(self, (schemas, paths, methods): UtoipaMethodRouter<S>, also: &[&str]) -> Self {
        self.routed((schemas, paths, methods), also, greedy)
    }

    /// Mounts as [`Described::at`] does, below each of these prefixes, of which the description has the first.
    #[must_use]
    pub fn under(self, handlers: UtoipaMethodRouter<S>, prefixes: &[&str], also: &[&str]) -> Self {
        let Some((first, others)) = prefixes.split_first() else { return self.at(handlers, also) };
        let path = handlers.1.paths.keys().next().cloned().unwrap_or_default();
        let rest = path.strip_prefix(first).unwrap_or(&path);
        let twins: Vec<String> = others.iter().map(|prefix| format!("{prefix}{rest}")).collect();
        let also: Vec<&str> = twins.iter().map(String::as_str).chain(also.iter().copied()).collect();
        self.at(handlers, &also)
    }

    fn routed(
        mut self,
        (schemas, paths, methods): UtoipaMethodRouter<S>,
        also: &[&str],
        route: impl Fn(&str) -> String,
    ) -> Self {
        for path in paths.paths.keys() {
            self.router = self.router.route(&route(path), methods.clone());
            for other in also {
                self.router = self.router.route(&route(other), methods.clone());
            }
        }
        let document = json!({ "paths": paths, "components": { "schemas": Map::from_iter(
            schemas.into_iter().map(|(name, schema)| (name, json!(schema)))
        ) } });
        self.absorb(document, also);
        self
    }

    /// Adds schemas that descriptions in code refer to.
    #[must_use]
    pub fn schemas(mut self, schemas: Vec<(String, RefOr<Schema>)>) -> Self {
        let schemas: Map<String, Value> = schemas.into_iter().map(|(name, schema)| (name, json!(schema))).collect();
        self.absorb(json!({ "components": { "schemas": schemas } }), &[]);
        self
    }

    /// Mounts a row of a table.
    #[must_use]
    pub fn row(self, path: &str, also: &[&str], methods: MethodRouter<S>, item: PathItem) -> Self {
        let routes: Vec<&str> = std::iter::once(path).chain(also.iter().copied()).collect();
        self.rows(&routes, methods, also, [(path.to_owned(), item)])
    }

    /// Mounts one handler that is several rows of a table: their addresses are more than the routes, which are as
    /// the router knows them.
    #[must_use]
    pub fn rows(
        mut self,
        routes: &[&str],
        methods: MethodRouter<S>,
        also: &[&str],
        items: impl IntoIterator<Item = (String, PathItem)>,
    ) -> Self {
        for route in routes {
            self.router = self.router.route(route, methods.clone());
        }
        for (path, item) in items {
            self.absorb(json!({ "paths": { path: item } }), also);
        }
        self
    }

    /// Mounts what does nothing but send away: there is nothing to say of it.
    #[must_use]
    pub fn refusing(mut self, path: &str, methods: MethodRouter<S>) -> Self {
        self.router = self.router.route(path, methods);
        self
    }

    /// Adds routes that were described elsewhere.
    #[must_use]
    pub fn calls(mut self, calls: OpenApiRouter<S>) -> Self {
        let (router, document) = calls.split_for_parts();
        self.router = self.router.merge(router);
        self.absorb(json!(document), &[]);
        self
    }

    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        let (paths, schemas) = (other.paths, other.schemas);
        self.absorb(json!({ "paths": paths, "components": { "schemas": schemas } }), &[]);
        self
    }

    /// These routes with something around them, or with their state.
    #[must_use]
    pub fn map<S2>(self, change: impl FnOnce(Router<S>) -> Router<S2>) -> Described<S2> {
        Described { router: change(self.router), paths: self.paths, schemas: self.schemas }
    }

    /// Says the same of every operation, where it does not say so itself.
    #[must_use]
    pub fn each(mut self, change: impl Fn(&str, &mut Map<String, Value>)) -> Self {
        for_each(&mut self.paths, |path, _, operation| change(path, operation));
        self
    }

    /// Adds what is said. Two schemas of one name that are not the same get two names.
    fn absorb(&mut self, mut said: Value, also: &[&str]) {
        let part = |said: &Value, at: &str| said.pointer(at).and_then(Value::as_object).cloned().unwrap_or_default();
        let schemas = part(&said, "/components/schemas");
        let page = part(&said, "/paths").keys().next().map(|path| place(path)).unwrap_or_default();
        let clash = |(name, schema): (&String, &Value)| {
            let taken = self.schemas.get(name).is_some_and(|known| known != schema);
            taken.then(|| (name.clone(), format!("{page}{name}")))
        };
        for (old, new) in schemas.iter().filter_map(clash).collect::<Vec<_>>() {
            rename(&mut said, &old, &new);
        }
        self.schemas.extend(part(&said, "/components/schemas"));
        let mut paths = part(&said, "/paths");
        for_each(&mut paths, |_, _, operation| note_also(operation, also));
        for (path, item) in paths {
            match (self.paths.get_mut(&path).and_then(Value::as_object_mut), item) {
                (Some(known), Value::Object(item)) => known.extend(item),
                (_, item) => {
                    self.paths.insert(path, item);
                }
            }
        }
    }
}

/// Visits path, method and operation of all.
fn for_each(paths: &mut Map<String, Value>, mut visit: impl FnMut(&str, &str, &mut Map<String, Value>)) {
    for (path, item) in paths.iter_mut() {
        let operations =
            item.as_object_mut().into_iter().flatten().filter(|(name, _)| METHODS.contains(&name.as_str()));
        for (method, operation) in operations {
            if let Some(operation) = operation.as_object_mut() {
                visit(path, method, operation);
            }
        }
    }
}

/// The last part of an address, for a name: `/v1/balance/child-key` is `ChildKey`.
fn place(path: &str) -> String {
    let last = path.rsplit('/').find(|part| !part.is_empty() && !part.contains('{')).unwrap_or_default();
    let words = last.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words
        .map(|word| word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect::<String>())
        .collect()
}

/// `/a/{id}` as a router takes it, so that the id may have slashes in it.
fn greedy(path: &str) -> String {
    match path.rsplit_once('{') {
        Some((before, name)) => format!("{before}{{*{name}"),
        None => path.to_owned(),
    }
}

fn note_also(operation: &mut Map<String, Value>, also: &[&str]) {
    if also.is_empty() {
        return;
    }
    let known = operation.get("description").and_then(Value::as_str).unwrap_or_default();
    let list: Vec<String> = also.iter().map(|path| format!("`{path}`")).collect();
    let text = format!("{known}\n\nAlso at {}.", list.join(", "));
    operation.insert("description".into(), json!(text.trim()));
    operation.insert(ALSO_AT.into(), json!(also));
}

/// Gives a schema another name, and all that refer to it.
fn rename(said: &mut Value, old: &str, new: &str) {
    if let Some(schemas) = said.pointer_mut("/components/schemas").and_then(Value::as_object_mut)
        && let Some(schema) = schemas.shift_remove(old)
    {
        schemas.insert(new.to_owned(), schema);
    }
    let at = |name: &str| format!("#/components/schemas/{name}");
    refer(said, &at(old), &at(new));
}

fn refer(value: &mut Value, old: &str, new: &str) {
    match value {
        Value::Object(members) => {
            if let Some(reference) = members.get_mut("$ref").filter(|reference| *reference == old) {
                *reference = json!(new);
            }
            members.values_mut().for_each(|member| refer(member, old, new));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| refer(item, old, new)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_of_one_name_are_told_apart() {
        let said = |path: &str, kind: &str| {
            json!({
                "paths": { path: { "get": { "responses": { "200": { "$ref": "#/components/schemas/View" } } } } },
                "components": { "schemas": { "View": { "type": kind } } },
            })
        };
        let mut all = Described::<()>::new();
        all.absorb(said("/admin/api/keys", "object"), &[]);
        all.absorb(said("/admin/api/cli-tokens/{id}", "string"), &["/x"]);
        all.absorb(said("/admin/api/more", "object"), &[]);
        assert_eq!(all.schemas["View"]["type"], "object");
        assert_eq!(all.schemas["CliTokensView"]["type"], "string");
        let at = |path: &str| all.paths[path]["get"]["responses"]["200"]["$ref"].as_str().unwrap().to_owned();
        assert_eq!(at("/admin/api/keys"), at("/admin/api/more"));
        assert_eq!(at("/admin/api/cli-tokens/{id}"), "#/components/schemas/CliTokensView");
        assert_eq!(all.paths["/admin/api/cli-tokens/{id}"]["get"][ALSO_AT], json!(["/x"]));
    }

    #[test]
    fn the_last_part_of_an_address_may_be_long() {
        assert_eq!(greedy("/v1/models/{id}"), "/v1/models/{*id}");
        assert_eq!(place("/v1/balance/child-key/{id}"), "ChildKey");
    }
}
