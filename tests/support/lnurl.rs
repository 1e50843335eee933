//! The server behind a Lightning address, on loopback: real invoices for a fake network.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use cdk_common::MeltQuoteState;
use cdk_fake_wallet::{FakeInvoiceDescription, create_fake_invoice};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What the server, or the payment of its invoices, does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// Invoices are paid when they are paid for.
    #[default]
    Good,
    /// The server says no.
    Refuses,
    /// The server answers with an invoice for ten times as much.
    Greedy,
    /// The server is not there, or talks nonsense.
    Broken,
    /// The payment of its invoices fails at once.
    Unpayable,
    /// The mint says that a payment is under way, for ever.
    Pending,
}

#[derive(Debug, Default)]
struct Inner {
    mood: Mutex<Mood>,
    asked: Mutex<Vec<u64>>,
    address: Mutex<Option<SocketAddr>>,
}

/// A recipient, until it is dropped.
pub struct Recipient {
    inner: Arc<Inner>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

#[derive(Deserialize)]
struct Asked {
    amount: u64,
}

impl Recipient {
    pub async fn start() -> Self {
        let inner = Arc::new(Inner::default());
        let router = Router::new()
            .route("/.well-known/lnurlp/{name}", get(parameters))
            .route("/pay", get(invoice))
            .with_state(Arc::clone(&inner));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("address");
        *inner.address.lock().expect("address") = Some(address);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("serve") });
        Self { inner, address, server }
    }

    /// Its Lightning address.
    pub fn name(&self) -> String {
        format!("satoshi@{}", self.address)
    }

    pub fn set(&self, mood: Mood) {
        *self.inner.mood.lock().expect("mood") = mood;
    }

    /// The amounts that invoices were made for, in msat.
    pub fn asked(&self) -> Vec<u64> {
        self.inner.asked.lock().expect("asked").clone()
    }
}

impl Drop for Recipient {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn parameters(State(inner): State<Arc<Inner>>) -> (StatusCode, Json<Value>) {
    match *inner.mood.lock().expect("mood") {
        Mood::Refuses => (StatusCode::OK, Json(json!({ "status": "ERROR", "reason": "not today" }))),
        Mood::Broken => (StatusCode::OK, Json(json!(["what?"]))),
        _ => {
            let address = inner.address.lock().expect("address").expect("it listens");
            let callback = format!("http://{address}/pay");
            let offer = json!({
                "tag": "payRequest", "callback": callback, "minSendable": 1_000, "maxSendable": 10_000_000_000_u64,
                "metadata": "[[\"text/plain\",\"a test\"]]",
            });
            (StatusCode::OK, Json(offer))
        }
    }
}

async fn invoice(State(inner): State<Arc<Inner>>, Query(asked): Query<Asked>) -> Json<Value> {
    let mood = *inner.mood.lock().expect("mood");
    inner.asked.lock().expect("asked").push(asked.amount);
    let outcome = |pay_invoice_state, pay_err| FakeInvoiceDescription {
        pay_invoice_state,
        check_payment_state: pay_invoice_state,
        pay_err,
        check_err: false,
    };
    let outcome = match mood {
        Mood::Unpayable => outcome(MeltQuoteState::Failed, true),
        Mood::Pending => outcome(MeltQuoteState::Pending, false),
        _ => outcome(MeltQuoteState::Paid, false),
    };
    let amount = if mood == Mood::Greedy { asked.amount * 10 } else { asked.amount };
    let invoice = create_fake_invoice(amount, serde_json::to_string(&outcome).expect("JSON"));
    Json(json!({ "pr": invoice.to_string(), "routes": [] }))
}
