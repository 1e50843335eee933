//! `GET /status`: how models, mints and the rate are, for people. What it tells is that of `/status.json`.

use std::fmt::Write as _;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::{answer, moment, render};
use crate::failure::Failure;
use crate::http::{self, Node};
use crate::pages::format;
use crate::status::{Share, Span, Standing, State as Is};

/// Width of a point and of its place, and height, in the units of a picture.
const BAR: usize = 3;
const STEP: usize = 4;
const HEIGHT: usize = 24;

#[derive(Template)]
#[template(path = "shop/status.html")]
struct Page {
    name: String,
    state: Look,
    as_of: Option<String>,
    reasons: Vec<String>,
    rate: Look,
    rate_says: String,
    mints: Vec<(String, Look)>,
    models: Vec<Row>,
    /// Models that nobody has asked for in the last week.
    silent: Vec<String>,
}

/// A state as it is shown: its name is a class of the style, too.
#[derive(Clone, Copy)]
struct Look {
    class: &'static str,
    word: &'static str,
}

struct Row {
    id: String,
    now: Look,
    day: Strip,
    week: Strip,
}

/// A history as a picture: one path for each state.
struct Strip {
    share: String,
    says: String,
    paths: Vec<(&'static str, String)>,
}

/// The page.
pub(super) async fn show(State(node): State<Node>) -> Response {
    answer(&node, page(&node).await)
}

async fn page(node: &Node) -> Result<Response, Failure> {
    let status = http::status(node).await;
    let (known, silent): (Vec<_>, Vec<_>) =
        status.models.into_iter().partition(|(_, standing)| standing.week.share.is_some());
    let rate_says = match (status.rate.is_fixed, status.rate.age_ms) {
        (true, _) => "set by the operator".to_owned(),
        (false, Some(age_ms)) => format!("{} old", format::age(age_ms)),
        (false, None) => "not known".to_owned(),
    };
    render(&Page {
        name: node.info().name,
        state: look(status.state),
        as_of: status.as_of_ms.map(moment),
        reasons: status.reasons,
        rate: look(status.rate.state),
        rate_says,
        mints: status.mints.into_iter().map(|(url, state)| (url, look(state))).collect(),
        models: known.iter().map(|(id, standing)| row(id, standing)).collect(),
        silent: silent.into_iter().map(|(id, _)| id).collect(),
    })
}

const fn look(state: Is) -> Look {
    let word = match state {
        Is::Operational => "Operational",
        Is::Degraded => "Degraded",
        Is::Failed => "Failed",
        Is::NoData => "No data",
    };
    Look { class: state.as_str(), word }
}

fn row(id: &str, standing: &Standing) -> Row {
    Row { id: id.to_owned(), now: look(standing.state), day: strip(&standing.day), week: strip(&standing.week) }
}

fn strip(span: &Span) -> Strip {
    let states: Vec<Is> = span.points.iter().map(|point| point.map_or(Is::NoData, Share::state)).collect();
    let (mut paths, mut counts) = (Vec::new(), Vec::new());
    for state in [Is::Operational, Is::Degraded, Is::Failed, Is::NoData] {
        let places = || states.iter().enumerate().filter(|(_, one)| **one == state).map(|(at, _)| at);
        let count = places().count();
        if count > 0 {
            paths.push((state.as_str(), path(places())));
            counts.push(format!("{count} {}", look(state).word.to_lowercase()));
        }
    }
    let share = span.share.map_or_else(|| "–".to_owned(), |share| format!("{share} %"));
    Strip { share, says: format!("{} points: {}", states.len(), counts.join(", ")), paths }
}

/// The bars at these places.
fn path(places: impl Iterator<Item = usize>) -> String {
    let mut drawn = String::new();
    for at in places {
        // Writing to a String does not fail.
        let _written = write!(drawn, "M{} 0h{BAR}v{HEIGHT}h-{BAR}z", at.saturating_mul(STEP));
    }
    drawn
}
