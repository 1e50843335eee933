//! A server of price lists that says what a test tells it, and remembers what it was asked.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri};
use axum::routing::any;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::port::Kept;

/// What is at one path.
#[derive(Clone, Debug)]
pub enum Page {
    /// A document with a tag of its own.
    Text(String),
    /// A status, and a header with it.
    Status(u16, &'static str, String),
    /// Spaces without end.
    Endless,
    /// Breaks off.
    Cut,
    /// Says nothing, ever.
    Silent,
}

#[derive(Clone, Default)]
struct Shared {
    pages: Arc<Mutex<HashMap<String, (Page, u64)>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// Path, the tag that was sent along, and all headers.
type Asked = (String, Option<String>, HeaderMap);

/// The server; serves until it is dropped.
pub struct PriceServer {
    address: SocketAddr,
    shared: Shared,
    server: JoinHandle<()>,
}

impl PriceServer {
    pub async fn start() -> Self {
        let shared = Shared::default();
        let router = Router::new().fallback(any(serve)).with_state(shared.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("address");
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { address, shared, server }
    }

    /// Refuses connections from now on, as long as what is returned is kept.
    pub async fn stop(mut self) -> Kept {
        self.server.abort();
        let _cancelled = (&mut self.server).await;
        Kept::at(self.address)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Puts something at a path, under a new tag.
    pub fn put(&self, path: &str, page: Page) {
        let mut pages = self.shared.pages.lock().expect("pages");
        let version = pages.get(path).map_or(0, |(_, version)| version + 1);
        pages.insert(path.to_owned(), (page, version));
    }

    /// Puts a list there: id, input and output price each.
    pub fn list(&self, path: &str, models: &[(&str, &str, &str)]) {
        let entries: Vec<Value> = models.iter().map(|(id, prompt, completion)| entry(id, prompt, completion)).collect();
        self.put(path, Page::Text(json!({ "data": entries }).to_string()));
    }

    /// The tags that came with the requests for a path.
    pub fn tags(&self, path: &str) -> Vec<Option<String>> {
        let asked = self.shared.asked.lock().expect("asked");
        asked.iter().filter(|(asked, _, _)| asked == path).map(|(_, tag, _)| tag.clone()).collect()
    }

    /// The headers that came with the last request for a path.
    pub fn headers(&self, path: &str) -> HeaderMap {
        let asked = self.shared.asked.lock().expect("asked");
        asked.iter().rfind(|(asked, _, _)| asked == path).expect("it was asked").2.clone()
    }
}

impl Drop for PriceServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// An entry in OpenRouter's shape.
pub fn entry(id: &str, prompt: &str, completion: &str) -> Value {
    json!({
        "id": id, "name": format!("The {id}"), "created": 1, "context_length": 10_000,
        "architecture": { "modality": "text->text", "input_modalities": ["text"], "output_modalities": ["text"] },
        "pricing": { "prompt": prompt, "completion": completion },
        "top_provider": { "context_length": 10_000, "max_completion_tokens": 1_000, "is_moderated": false },
    })
}

async fn serve(State(shared): State<Shared>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    let path = uri.path().to_owned();
    let tag = headers.get("if-none-match").map(|tag| tag.to_str().expect("a tag").to_owned());
    shared.asked.lock().expect("asked").push((path.clone(), tag.clone(), headers));
    let page = shared.pages.lock().expect("pages").get(&path).cloned();
    let response = Response::builder();
    let response = match page {
        None => response.status(404).body(Body::empty()),
        Some((Page::Text(text), version)) => {
            let own = format!("\"v{version}\"");
            let known = tag.as_deref() == Some(own.as_str());
            let body = if known { Body::empty() } else { Body::from(text) };
            response.status(if known { 304 } else { 200 }).header("etag", own).body(body)
        }
        Some((Page::Status(status, name, value), _)) => {
            response.status(status).header(name, value).body(Body::from("{\"data\":[]}"))
        }
        Some((Page::Endless, _)) => {
            let chunk = || Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 65_536]));
            response.body(Body::from_stream(futures_util::stream::repeat_with(chunk)))
        }
        Some((Page::Silent, _)) => std::future::pending().await,
        Some((Page::Cut, _)) => {
            let pieces = [Ok(Bytes::from("{\"data\":[")), Err(std::io::Error::other("cut"))];
            response.body(Body::from_stream(futures_util::stream::iter(pieces)))
        }
    };
    response.expect("a response")
}
