//! The news of requests as they happen, for the overview and for whoever else listens: server-sent events.
//!
//! `ready` comes first, then one `request` for each piece of news. Who does not keep up gets `resync`: some were
//! missed. A comment comes every 15 seconds. A stream ends after ten minutes, so that one whose session is over does
//! not go on; a browser connects again by itself. It shows this process.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::session::Session;
use super::{AdminState, repo};
use crate::exchange::News;
use crate::ledger::AccountId;

const PING: Duration = Duration::from_secs(15);
const LIFE: Duration = Duration::from_secs(600);
/// Keys whose hashes are remembered by one stream.
const MOST_KEYS: usize = 1_000;

const SCRIPT: &str = include_str!("../../templates/admin/live.js");
/// Proxies that gather answers would hold the news back.
const UNBUFFERED: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

pub(super) fn pages() -> Router<AdminState> {
    Router::new().route("/admin/events", get(listen)).route("/admin/live.js", get(script))
}

async fn script(_session: Session) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT)
}

async fn listen(State(state): State<AdminState>, _session: Session) -> Response {
    let Some(news) = state.exchange.ongoing.listen() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Too many listen already.").into_response();
    };
    let listener = Listener { state, news, keys: HashMap::new(), is_ready: false, until: Instant::now() + LIFE };
    let events = Sse::new(listener.events()).keep_alive(KeepAlive::new().interval(PING).text("ping"));
    ([UNBUFFERED], events).into_response()
}

/// Who hears the news.
struct Listener {
    state: AdminState,
    news: Receiver<News>,
    keys: HashMap<AccountId, String>,
    is_ready: bool,
    until: Instant,
}

/// One piece of news, with the first digits of the hash of the key.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    news: News,
    key: String,
}

impl Listener {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, async |mut listener| {
            let event = listener.next().await?;
            Some((Ok(event), listener))
        })
    }

    /// `None`: there is no more.
    async fn next(&mut self) -> Option<Event> {
        if !self.is_ready {
            self.is_ready = true;
            return Some(Event::default().event("ready").data("{}"));
        }
        let heard = tokio::select! {
            heard = self.news.recv() => heard,
            () = self.state.exchange.ongoing.closed() => return None,
            () = tokio::time::sleep_until(self.until) => return None,
        };
        match heard {
            Ok(news) => Some(self.told(news).await),
            Err(RecvError::Lagged(missed)) => Some(Event::default().event("resync").data(missed.to_string())),
            Err(RecvError::Closed) => None,
        }
    }

    async fn told(&mut self, news: News) -> Event {
        let key = match self.keys.get(&news.spender) {
            Some(key) => key.clone(),
            None => self.look_up(news.spender).await,
        };
        let event = Event::default().event("request");
        // It has no line breaks, being JSON.
        event.data(serde_json::to_string(&Told { news, key }).unwrap_or_default())
    }

    async fn look_up(&mut self, spender: AccountId) -> String {
        let found = repo::short_hash(self.state.ledger.store(), spender.get()).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the key of a request could not be looked up");
            None
        });
        if self.keys.len() >= MOST_KEYS {
            self.keys.clear();
        }
        let key = found.unwrap_or_default();
        self.keys.insert(spender, key.clone());
        key
    }
}
