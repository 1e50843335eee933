//! A toy upstream for every endpoint that does what a test tells it, and remembers what it was sent.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use axum::routing::any;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// What the upstream does with one request.
#[derive(Clone, Debug)]
pub enum Script {
    /// Answers with this status, media type and body.
    Answer { status: u16, media: &'static str, body: String },
    /// Waits for [`Upstream::resume`], then answers with this.
    Held { media: &'static str, body: String },
    /// A status and a body with further headers.
    Refuse { status: u16, headers: Vec<(&'static str, String)>, body: String },
    /// Streams these pieces, then ends or (`cut`) drops the connection.
    Stream { pieces: Vec<String>, cut: bool },
    /// Streams the first pieces, waits for [`Upstream::resume`], then streams the rest.
    Paused { before: Vec<String>, after: Vec<String> },
    /// Streams the first pieces, then so many signs of life that are no content, then the rest: comments in a stream,
    /// whitespace in JSON.
    Alive { before: Vec<String>, signs: usize, after: Vec<String> },
    /// Accepts the request and never answers.
    Hang,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the upstream is sent JSON")
    }
}

#[derive(Default)]
struct Inner {
    scripts: Mutex<VecDeque<Script>>,
    seen: Mutex<Vec<Seen>>,
}

#[derive(Clone)]
struct Shared {
    inner: Arc<Inner>,
    resume: Arc<Semaphore>,
}

/// The upstream; serves until it is dropped.
pub struct Upstream {
    address: SocketAddr,
    shared: Shared,
    server: JoinHandle<()>,
}

impl Upstream {
    pub async fn start() -> Self {
        let shared = Shared { inner: Arc::default(), resume: Arc::new(Semaphore::new(0)) };
        let router = Router::new().fallback(any(serve)).with_state(shared.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("address");
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the upstream serves");
        });
        Self { address, shared, server }
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Queues what to do with the next request that has no script yet. Without one it echoes.
    pub fn next(&self, script: Script) {
        self.shared.inner.scripts.lock().expect("scripts").push_back(script);
    }

    /// Whether nothing is queued.
    pub fn is_idle(&self) -> bool {
        self.shared.inner.scripts.lock().expect("scripts").is_empty()
    }

    /// Forgets the next script.
    pub fn skip(&self) {
        self.shared.inner.scripts.lock().expect("scripts").pop_front();
    }

    /// Lets one [`Script::Paused`] stream go on.
    pub fn resume(&self) {
        self.shared.resume.add_permits(1);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.inner.seen.lock().expect("seen").clone()
    }

    /// Forgets what it was sent.
    pub fn clear(&self) {
        self.shared.inner.seen.lock().expect("seen").clear();
    }

    pub fn last(&self) -> Seen {
        self.seen().last().cloned().expect("the upstream was asked")
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(State(shared): State<Shared>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response<Body> {
    // A proxy asks with the whole address.
    let target = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    shared.inner.seen.lock().expect("seen").push(Seen { target: target.clone(), headers, body: body.clone() });
    let script = shared.inner.scripts.lock().expect("scripts").pop_front();
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    match script.unwrap_or_else(|| super::endpoints::echo(&target, &request)) {
        Script::Answer { status, media, body } => answer(status, media, body),
        Script::Held { media, body } => {
            shared.resume.acquire().await.expect("open").forget();
            answer(200, media, body)
        }
        Script::Refuse { status, headers, body } => {
            let mut response = answer(status, "application/json", body);
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().expect("a header"));
            }
            response
        }
        Script::Stream { pieces, cut } => {
            let mut pieces: Vec<Result<Bytes, std::io::Error>> =
                pieces.into_iter().map(|piece| Ok(piece.into())).collect();
            if cut {
                pieces.push(Err(std::io::Error::other("cut")));
            }
            event_stream(Body::from_stream(paced(pieces)))
        }
        Script::Paused { before, after } => {
            let resume = shared.resume.clone();
            let first =
                futures_util::stream::iter(before.into_iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece))));
            let rest = futures_util::stream::once(async move {
                resume.acquire().await.expect("open").forget();
                Ok(Bytes::from(after.concat()))
            });
            event_stream(Body::from_stream(futures_util::StreamExt::chain(first, rest)))
        }
        Script::Alive { before, signs, after } => alive(before, signs, after, request["stream"] == json!(true)),
        Script::Hang => std::future::pending().await,
    }
}

fn answer(status: u16, media: &str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("status");
    response.headers_mut().insert("content-type", media.parse().expect("media type"));
    response
}

fn alive(before: Vec<String>, signs: usize, after: Vec<String>, streamed: bool) -> Response<Body> {
    use futures_util::{StreamExt as _, stream};
    let sign = if streamed { ": alive\n\n" } else { "\n" };
    let signs = stream::repeat(sign).take(signs).then(|sign| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        sign.to_owned()
    });
    let pieces = stream::iter(before).chain(signs).chain(stream::iter(after));
    let mut response = event_stream(Body::from_stream(pieces.map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)))));
    if !streamed {
        response.headers_mut().insert("content-type", "application/json".parse().expect("media type"));
    }
    response
}

/// One piece a scheduler turn, so that pieces do not arrive as one.
fn paced(
    pieces: Vec<Result<Bytes, std::io::Error>>,
) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> {
    futures_util::StreamExt::then(futures_util::stream::iter(pieces), |piece| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        piece
    })
}

fn event_stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", "text/event-stream".parse().expect("media type"));
    response
}

/// The default: says what it was told, and reports 100 tokens in and 50 out.
pub fn echo(request: &Value) -> Script {
    let model = request["model"].as_str().unwrap_or("?");
    let text = request["messages"].as_array().and_then(|messages| messages.last());
    let text = text.and_then(|message| message["content"].as_str()).unwrap_or("nothing");
    if request["stream"] == json!(true) {
        let asked = request["stream_options"]["include_usage"] == json!(true);
        return Script::Stream { pieces: sse(model, &["echo: ", text], asked.then(|| usage(100, 50))), cut: false };
    }
    Script::Answer {
        status: 200,
        media: "application/json",
        body: completion(model, &format!("echo: {text}"), Some(usage(100, 50))),
    }
}

pub fn usage(prompt: u64, completion: u64) -> Value {
    json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
}

/// A whole chat completion.
pub fn completion(model: &str, text: &str, usage: Option<Value>) -> String {
    let mut body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_000_000, "model": model,
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
    });
    if let Some(usage) = usage {
        body["usage"] = usage;
    }
    body.to_string()
}

/// The events of a streamed chat completion, one piece each, with `[DONE]`.
pub fn sse(model: &str, texts: &[&str], usage: Option<Value>) -> Vec<String> {
    let mut pieces = vec![event(
        model,
        json!([{ "index": 0, "delta": { "role": "assistant", "content": "" }, "finish_reason": null }]),
        None,
    )];
    pieces.extend(texts.iter().map(|text| delta(model, text)));
    pieces.push(event(model, json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]), None));
    if usage.is_some() {
        pieces.push(event(model, json!([]), usage));
    }
    pieces.push("data: [DONE]\n\n".to_owned());
    pieces
}

/// One content event.
pub fn delta(model: &str, text: &str) -> String {
    event(model, json!([{ "index": 0, "delta": { "content": text }, "finish_reason": null }]), None)
}

fn event(model: &str, choices: Value, usage: Option<Value>) -> String {
    let mut chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": model, "choices": choices,
    });
    if let Some(usage) = usage {
        chunk["usage"] = usage;
    }
    format!("data: {chunk}\n\n")
}
