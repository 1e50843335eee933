//! One model in a browser: what its source says it costs, and what the operator says instead.

use askama::Template;
use axum::Router;
use axum::extract::{Form, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;

use super::super::frame::Frame;
use super::super::session::Session;
use super::super::{AdminError, AdminState, Notice, page, shown_again};
use super::{page as list, refused};
use crate::catalog::card;
use crate::catalog::import::{Offer, Overrides};
use crate::operator::models as acts;

const PATH: &str = "/admin/models/one";
/// What the name of a price has before it in the form.
const FIELD: &str = "price:";

pub(super) fn pages() -> Router<AdminState> {
    Router::new().route(PATH, get(show).post(set_own_form))
}

/// Where the page of this model is.
pub(super) fn href(id: &str) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("id", id).finish();
    format!("{PATH}?{query}")
}

#[derive(Template)]
#[template(path = "admin/model.html")]
struct Page {
    frame: Frame,
    message: String,
    id: String,
    name: String,
    source: String,
    is_below_cost: bool,
    rows: Vec<Row>,
    /// One to a line.
    names: String,
    /// Those that its source gives it.
    other_names: Vec<String>,
    /// What recognises the prices and names of the operator's that are shown.
    seen: String,
}

struct Row {
    name: String,
    unit: &'static str,
    charged: String,
    own: String,
}

#[derive(Deserialize)]
struct Which {
    id: String,
}

async fn show(
    State(state): State<AdminState>,
    session: Session,
    Query(Which { id }): Query<Which>,
) -> Result<Response, AdminError> {
    render(&state, &session, &id, Notice::none()).await
}

async fn set_own_form(
    State(state): State<AdminState>,
    session: Session,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, AdminError> {
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map_or("", |(_, text)| text.as_str());
    session.confirm(field("csrf"))?;
    let id = field("id");
    let saved = match read(&fields) {
        Ok(own) => acts::set_own(state.desk(session.actor()), &state.importer, id, &own).await.map_err(refused),
        Err(error) => Err(error),
    };
    shown_again(saved.map(|()| href(id)), async |notice| render(&state, &session, id, notice).await).await
}

/// What the form says. A price that is empty is the source's.
fn read(fields: &[(String, String)]) -> Result<Overrides, AdminError> {
    let mut own = Overrides::default();
    let mut added = (String::new(), String::new());
    let mut take = |name: &str, text: &str| {
        let price = match text.trim() {
            "" => None,
            text => {
                let price = card::read(name, text);
                Some(price.ok_or_else(|| AdminError::invalid(format!("The {name} price is no number.")))?)
            }
        };
        own.prices.push((name.to_owned(), price));
        Ok::<_, AdminError>(())
    };
    for (field, text) in fields {
        match (field.as_str(), field.strip_prefix(FIELD)) {
            (_, Some(name)) => take(name, text)?,
            ("added", _) => text.trim().clone_into(&mut added.0),
            ("added_price", _) => added.1.clone_from(text),
            _ => {}
        }
    }
    match (added.0.is_empty(), added.1.trim().is_empty()) {
        (true, true) => {}
        (false, false) => take(&added.0, &added.1)?,
        _ => return Err(AdminError::invalid("A price that is added has a name and a number.")),
    }
    let names = fields.iter().find(|(field, _)| field == "names");
    own.names = names.map(|(_, text)| text.split_whitespace().map(str::to_owned).collect());
    // What the form does not show would be taken back with what it shows empty.
    let seen = fields.iter().find(|(field, _)| field == "seen").map(|(_, text)| text.clone());
    own.seen = Some(seen.unwrap_or_default());
    Ok(own)
}

async fn render(state: &AdminState, session: &Session, id: &str, notice: Notice) -> Result<Response, AdminError> {
    let offers = state.importer.overview().await?.offers;
    let offer = offers.into_iter().find(|offer| offer.model.id == id);
    let offer = offer.ok_or_else(|| AdminError::not_found("There is no such model."))?;
    let mut other_names = offer.model.alias_ids.clone();
    other_names.retain(|name| !offer.own_names.contains(name));
    let html = page(&Page {
        frame: Frame::of(state, session, list::PATH),
        message: notice.message,
        id: offer.model.id.clone(),
        name: offer.model.name.clone(),
        source: offer.source.clone(),
        is_below_cost: offer.is_below_cost,
        rows: rows(&offer),
        names: offer.own_names.join("\n"),
        other_names,
        seen: Overrides::digest(&offer.own_prices, &offer.own_names),
    })?;
    Ok((notice.status, html).into_response())
}

fn rows(offer: &Offer) -> Vec<Row> {
    let names = offer.card.iter().map(|(name, _)| name);
    // One of zero may not be on the card.
    let own = offer.own_prices.iter().map(|(name, _)| name).filter(|name| offer.card.get(name).is_none());
    let row = |name: &str| Row {
        name: name.to_owned(),
        unit: if card::is_per_token(name) { "of a million tokens" } else { "of one" },
        charged: card::shown(name, Some(offer.card.get(name).unwrap_or_default())),
        own: offer.own_prices.get(name).map(|price| card::shown(name, Some(price))).unwrap_or_default(),
    };
    names.chain(own).map(row).collect()
}
