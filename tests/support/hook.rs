//! A server that is posted to: what arrived, and what it answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::any;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request.
#[derive(Clone, Debug)]
pub struct Posted {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Posted {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

struct Inner {
    posted: Mutex<Vec<Posted>>,
    status: Mutex<u16>,
}

/// The server; serves until it is dropped.
pub struct Hook {
    address: SocketAddr,
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

impl Hook {
    pub async fn start() -> Self {
        let inner = Arc::new(Inner { posted: Mutex::default(), status: Mutex::new(200) });
        let router = Router::new().fallback(any(take)).with_state(Arc::clone(&inner));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("address");
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { address, inner, server }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on.
    pub fn answer(&self, status: u16) {
        *self.inner.status.lock().expect("status") = status;
    }

    /// All that arrived, whatever was answered.
    pub fn posted(&self) -> Vec<Posted> {
        self.inner.posted.lock().expect("posted").clone()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(State(inner): State<Arc<Inner>>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    inner.posted.lock().expect("posted").push(Posted { path: uri.path().to_owned(), headers, body });
    StatusCode::from_u16(*inner.status.lock().expect("status")).expect("a status")
}
