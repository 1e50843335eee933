//! The floor: the least that an axum + reqwest proxy can do. It reads a request, sends it on, and
//! hands the answer back as it comes. No keys, no prices, no ledger.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use coinslot::net::{self, ClientOptions};
use tokio::net::TcpListener;

#[derive(Clone)]
struct Floor {
    client: reqwest::Client,
    upstream: String,
}

/// Serves until the process is killed. Prints its address first.
pub fn run(upstream: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let client = net::client(&ClientOptions::default()).expect("client");
        let floor = Floor { client, upstream: upstream.to_owned() };
        let router = Router::new().fallback(forward).with_state(floor);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("{}", listener.local_addr().expect("address"));
        let listener = listener.tap_io(|socket| socket.set_nodelay(true).expect("TCP_NODELAY"));
        axum::serve(listener, router).await.expect("serve");
    });
}

async fn forward(State(floor): State<Floor>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 1 << 20).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let url = format!("{}{}", floor.upstream, head.uri.path());
    match floor
        .client
        .request(head.method, url)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .send()
        .await
    {
        Ok(answer) => pass_on(answer),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// The answer without its connection's own headers.
fn pass_on(answer: reqwest::Response) -> Response {
    let mut answer = axum::http::Response::<reqwest::Body>::from(answer);
    answer.headers_mut().remove(header::TRANSFER_ENCODING);
    answer.headers_mut().remove(header::CONNECTION);
    answer.map(Body::new)
}
