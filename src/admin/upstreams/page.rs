//! Upstreams in a browser.

use askama::Template;
use axum::Router;
use axum::extract::{Form, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::frame::Frame;
use super::super::session::Session;
use super::super::{AdminError, AdminState, Notice, page, shown_again};
use super::{View, clear, put, remove, test, view};
use crate::upstream::kind::PRESETS;
use crate::upstream::stored::{Intent, digest};

const PATH: &str = "/admin/upstreams";

pub(in crate::admin) fn pages() -> Router<AdminState> {
    Router::new()
        .route(PATH, get(show))
        .route("/admin/upstreams/clear", post(clear_form))
        .route("/admin/upstreams/add", post(add_form))
        .route("/admin/upstreams/set", post(set_form))
        .route("/admin/upstreams/switch", post(switch_form))
        .route("/admin/upstreams/remove", post(remove_form))
        .route("/admin/upstreams/test", post(test_form))
}

#[derive(Template)]
#[template(path = "admin/upstreams.html")]
struct Page {
    frame: Frame,
    message: String,
    /// How a question went.
    tested: String,
    /// Name, and the address that it has by itself.
    presets: Vec<(&'static str, &'static str)>,
    rows: Vec<Row>,
}

struct Row {
    view: View,
    /// What a form of its members is filled with.
    fields: Fields,
    /// What recognises it as it is shown: a form that was filled with another would take members away unseen.
    seen: String,
}

/// The members that a form has.
#[derive(Default)]
struct Fields {
    base_url: String,
    models: String,
    priority: String,
    weight: String,
    fee: String,
    max_concurrency: String,
    daily_usd: String,
    monthly_usd: String,
    probe_model: String,
    tags: String,
}

impl Fields {
    fn of(spec: &Map<String, Value>) -> Self {
        let text = |name: &str| match spec.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        let rule = |(name, target): (&String, &Value)| match target.as_str() {
            Some(target) => format!("{name}={target}"),
            None => name.clone(),
        };
        let models = spec.get("models").and_then(Value::as_object);
        let tags = spec.get("tags").and_then(Value::as_array);
        let tags = tags.map(|tags| tags.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
        Self {
            base_url: text("base_url"),
            models: models.map(|rules| rules.iter().map(rule).collect::<Vec<_>>().join("\n")).unwrap_or_default(),
            priority: text("priority"),
            weight: text("weight"),
            fee: text("fee"),
            max_concurrency: text("max_concurrency"),
            daily_usd: text("daily_usd"),
            monthly_usd: text("monthly_usd"),
            probe_model: text("probe_model"),
            tags: tags.unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
struct Named {
    csrf: String,
    name: String,
    #[serde(default)]
    on: String,
}

/// The key has no `Debug`.
#[derive(Deserialize)]
struct Entry {
    csrf: String,
    name: String,
    /// Of the one that is changed.
    #[serde(default)]
    seen: String,
    #[serde(default)]
    provider_type: String,
    #[serde(default)]
    base_url: String,
    /// Empty: the one that there is.
    #[serde(default)]
    api_key: String,
    #[serde(default)]
    forget_key: Option<String>,
    #[serde(default)]
    models: String,
    #[serde(default)]
    priority: String,
    #[serde(default)]
    weight: String,
    #[serde(default)]
    fee: String,
    #[serde(default)]
    max_concurrency: String,
    #[serde(default)]
    daily_usd: String,
    #[serde(default)]
    monthly_usd: String,
    #[serde(default)]
    probe_model: String,
    #[serde(default)]
    tags: String,
    /// Further members as JSON.
    #[serde(default)]
    more: String,
}

impl Entry {
    /// The members; what is empty is taken away, or was never there. Further members fill fields that are empty.
    fn members(&self) -> Result<Map<String, Value>, AdminError> {
        let mut members = match self.more.trim() {
            "" => Map::new(),
            more => serde_json::from_str::<Map<String, Value>>(more)
                .map_err(|_| AdminError::invalid("Further members are a JSON object, like {\"idle_timeout\": 60}."))?,
        };
        for (name, value) in self.fields() {
            match (members.contains_key(name), value.is_null()) {
                (false, _) => drop(members.insert(name.to_owned(), value)),
                (true, true) => {}
                (true, false) => {
                    let said = format!("{name} has a field here, and is among the further members too; say it once.");
                    return Err(AdminError::invalid(said));
                }
            }
        }
        Ok(members)
    }

    /// What the fields of their own say; `null`: nothing.
    fn fields(&self) -> Vec<(&'static str, Value)> {
        let texts = [
            ("name", &self.name),
            ("base_url", &self.base_url),
            ("priority", &self.priority),
            ("weight", &self.weight),
            ("fee", &self.fee),
            ("max_concurrency", &self.max_concurrency),
            ("daily_usd", &self.daily_usd),
            ("monthly_usd", &self.monthly_usd),
            ("probe_model", &self.probe_model),
        ];
        let mut fields: Vec<(&'static str, Value)> = texts.map(|(name, value)| (name, text(value))).into();
        fields.extend([("models", rules(&self.models)), ("tags", tags(&self.tags))]);
        // A form without them says nothing of them.
        let kept = [("provider_type", text(&self.provider_type)), ("api_key", text(&self.api_key))];
        let forgets = |name: &str| name == "api_key" && self.forget_key.is_some();
        fields.extend(kept.into_iter().filter(|(name, value)| !value.is_null() || forgets(name)));
        fields
    }
}

fn text(field: &str) -> Value {
    Some(field.trim()).filter(|text| !text.is_empty()).map_or(Value::Null, |text| json!(text))
}

/// Names of models, each with what the upstream calls it.
fn rules(field: &str) -> Value {
    let rule = |line: &str| {
        let (name, target) = line.split_once('=').map_or((line, None), |(name, target)| (name, Some(target.trim())));
        (name.trim().to_owned(), target.map_or(Value::Null, |target| json!(target)))
    };
    let lines = field.split(['\n', ',']).map(str::trim).filter(|line| !line.is_empty());
    let rules: Map<String, Value> = lines.map(rule).collect();
    if rules.is_empty() { Value::Null } else { rules.into() }
}

/// There may be spaces in one.
fn tags(field: &str) -> Value {
    let tags: Vec<&str> = field.split(',').map(str::trim).filter(|tag| !tag.is_empty()).collect();
    if tags.is_empty() { Value::Null } else { json!(tags) }
}

async fn show(State(state): State<AdminState>, session: Session) -> Result<Response, AdminError> {
    render(&state, &session, Notice::none(), String::new()).await
}

async fn clear_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Named>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    again(&state, &session, clear(&state, session.actor(), &form.name).await).await
}

async fn add_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Entry>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    save(&state, &session, &form, Intent::Add).await
}

async fn set_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Entry>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    save(&state, &session, &form, Intent::Change(Some(&form.seen))).await
}

async fn save(state: &AdminState, session: &Session, form: &Entry, intent: Intent<'_>) -> Result<Response, AdminError> {
    let saved = match form.members() {
        Ok(members) => put(state, session.actor(), intent, &members).await.map(drop),
        Err(error) => Err(error),
    };
    again(state, session, saved).await
}

async fn switch_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Named>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let mut members = Map::new();
    members.insert("name".to_owned(), json!(form.name));
    members.insert("enabled".to_owned(), json!(form.on == "yes"));
    let switched = put(&state, session.actor(), Intent::Change(None), &members).await;
    again(&state, &session, switched.map(drop)).await
}

async fn remove_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Named>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    again(&state, &session, remove(&state, session.actor(), &form.name).await).await
}

async fn test_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Named>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    match test(&state, session.actor(), &form.name).await {
        Ok(tested) => {
            let (name, model, ms) = (&form.name, &tested.model, tested.took.as_millis());
            let cost = tested.usd.map_or_else(String::new, |usd| format!(", for {} USD", usd.normalize()));
            let (message, news) = match &tested.outcome {
                Ok(()) => (String::new(), format!("{name} answered with {model} after {ms} ms{cost}.")),
                Err(why) => (format!("{name}, asked for {model}: {why} ({ms} ms)."), String::new()),
            };
            render(&state, &session, Notice { message, ..Notice::none() }, news).await
        }
        Err(error) => again(&state, &session, Err(error)).await,
    }
}

async fn again(state: &AdminState, session: &Session, outcome: Result<(), AdminError>) -> Result<Response, AdminError> {
    let refused = async |notice| render(state, session, notice, String::new()).await;
    shown_again(outcome.map(|()| PATH), refused).await
}

async fn render(state: &AdminState, session: &Session, notice: Notice, tested: String) -> Result<Response, AdminError> {
    let rows = view(state).await?.into_iter().map(|view| Row {
        fields: Fields::of(&view.spec),
        seen: digest(&view.spec),
        view,
    });
    let presets = PRESETS.iter().map(|preset| (preset.kind.name(), preset.base_url.unwrap_or_default()));
    let html = page(&Page {
        frame: Frame::of(state, session, PATH),
        message: notice.message,
        tested,
        presets: presets.collect(),
        rows: rows.collect(),
    })?;
    Ok((notice.status, html).into_response())
}
