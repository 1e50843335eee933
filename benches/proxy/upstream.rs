//! An OpenAI-compatible upstream that costs next to nothing: it knows its answers by heart and
//! picks one by the model's name.
//!
//! | model | answer |
//! |---|---|
//! | `bench/json` | JSON with a length |
//! | `bench/chunked` | the same in chunks |
//! | `bench/paced` | 100 events, one every [`PACE`], each with the time at which it was sent |
//! | `bench/burst` | 100 events, as fast as they can be written |
//! | `bench/responses`, `bench/responses-burst` | the same two in OpenAI's Responses |
//! | `bench/messages`, `bench/messages-burst` | and in Anthropic's Messages |
//! | `bench/embeddings` | a short vector |

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::answers;

/// Events of a stream.
pub const EVENTS: usize = 100;
/// Streams at a time; each has a slot of its own in the pacemaker.
pub const STREAMS: usize = 8;
/// Time between two events of one stream.
pub const PACE: Duration = Duration::from_millis(2);
/// What stands before the 15 digits of a send time, and after them.
pub const MARK: u8 = b'@';

const EVENT_STREAM: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

const USAGE: &str = r#"{"prompt_tokens":60,"completion_tokens":40,"total_tokens":100}"#;

/// Nanoseconds on the clock that send times are told in.
pub fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A running upstream, on the current thread.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    models: Rc<RefCell<Bytes>>,
    pacemaker: Rc<Pacemaker>,
}

struct Pacemaker {
    slots: Vec<Arc<Notify>>,
    next: AtomicUsize,
    beats: Arc<AtomicBool>,
}

impl Upstream {
    /// Must be called inside a `LocalSet`.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let upstream = Self {
            address: listener.local_addr().expect("address"),
            models: Rc::default(),
            pacemaker: Rc::new(Pacemaker::start()),
        };
        let serving = upstream.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).ok();
                let upstream = serving.clone();
                tokio::task::spawn_local(async move { upstream.serve(stream).await });
            }
        });
        upstream
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it answers when asked for its models.
    pub fn set_models(&self, body: &[u8]) {
        *self.models.borrow_mut() = with_length(body);
    }

    /// Lets paced streams advance, or not: the beat costs CPU that other cases need.
    pub fn beat(&self, on: bool) {
        self.pacemaker.beats.store(on, Ordering::Relaxed);
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let json = with_length(completion("bench/json").as_bytes());
        let chunked = in_chunks(completion("bench/chunked").as_bytes());
        let whole =
            [answers::RESPONSES, answers::MESSAGES, answers::EMBEDDINGS].map(|text| with_length(text().as_bytes()));
        let [responses, messages, embeddings] = &whole;
        let mut read = BytesMut::with_capacity(16 * 1024);
        loop {
            let Some((head, body)) = request(&mut stream, &mut read).await? else {
                return Ok(());
            };
            if head.starts_with(b"GET") {
                let models = self.models.borrow().clone();
                stream.write_all(&models).await?;
                continue;
            }
            let name = memmem::find(&body, b"bench/").and_then(|at| body.get(at + 6..)).unwrap_or_default();
            let name = name.split(|byte| *byte == b'"').next().unwrap_or_default();
            match name {
                b"json" => stream.write_all(&json).await?,
                b"chunked" => stream.write_all(&chunked).await?,
                b"paced" => self.stream(&mut stream, "bench/paced", true).await?,
                b"burst" => self.stream(&mut stream, "bench/burst", false).await?,
                b"responses" => stream.write_all(responses).await?,
                b"messages" => stream.write_all(messages).await?,
                b"embeddings" => stream.write_all(embeddings).await?,
                b"responses-burst" => burst(&mut stream, &answers::responses_events()).await?,
                b"messages-burst" => burst(&mut stream, &answers::messages_events()).await?,
                _ => stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await?,
            }
        }
    }

    async fn stream(&self, stream: &mut TcpStream, model: &str, paced: bool) -> io::Result<()> {
        let slot = self.pacemaker.slot();
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(EVENT_STREAM);
        for index in 0..EVENTS {
            if paced && index > 0 {
                slot.notified().await;
            }
            push_chunk(&mut out, event(model).as_bytes());
            stream.write_all(&out).await?;
            out.clear();
        }
        let usage = format!(
            "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\
             \"model\":\"{model}\",\"choices\":[],\"usage\":{USAGE}}}\n\n"
        );
        push_chunk(&mut out, usage.as_bytes());
        push_chunk(&mut out, b"data: [DONE]\n\n");
        out.extend_from_slice(b"0\r\n\r\n");
        stream.write_all(&out).await
    }
}

/// Sends events as fast as they can be written.
async fn burst(stream: &mut TcpStream, events: &[String]) -> io::Result<()> {
    let mut out = EVENT_STREAM.to_vec();
    for event in events {
        push_chunk(&mut out, event.as_bytes());
        stream.write_all(&out).await?;
        out.clear();
    }
    stream.write_all(b"0\r\n\r\n").await
}

impl Pacemaker {
    /// One thread wakes the slots in turn, so that streams do not advance in step.
    fn start() -> Self {
        let slots: Vec<Arc<Notify>> = (0..STREAMS).map(|_| Arc::default()).collect();
        let beats = Arc::new(AtomicBool::new(false));
        let (woken, running) = (slots.clone(), Arc::clone(&beats));
        std::thread::spawn(move || {
            for slot in woken.iter().cycle() {
                if running.load(Ordering::Relaxed) {
                    slot.notify_one();
                    std::thread::sleep(PACE / u32::try_from(STREAMS).unwrap_or(1));
                } else {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Self { slots, next: AtomicUsize::new(0), beats }
    }

    fn slot(&self) -> Arc<Notify> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        Arc::clone(&self.slots[next % self.slots.len()])
    }
}

/// The next request: head and body. `None` at the end of the connection.
async fn request(stream: &mut TcpStream, read: &mut BytesMut) -> io::Result<Option<(BytesMut, BytesMut)>> {
    loop {
        if let Some(end) = memmem::find(read, b"\r\n\r\n") {
            let length = memmem::find(&read[..end], b"content-length: ").map_or(0, |at| {
                let digits = read[at + 16..end].iter().take_while(|byte| byte.is_ascii_digit());
                digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
            });
            if read.len() >= end + 4 + length {
                let head = read.split_to(end + 4);
                return Ok(Some((head, read.split_to(length))));
            }
        }
        read.reserve(4096);
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
}

fn completion(model: &str) -> String {
    let text = "The quick brown fox jumps over the lazy dog, and nobody minds the gap. ".repeat(3);
    format!(
        "{{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"{model}\",\
         \"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\",\"refusal\":null}},\
         \"logprobs\":null,\"finish_reason\":\"stop\"}}],\"usage\":{USAGE},\"system_fingerprint\":\"fp_bench\"}}"
    )
}

fn event(model: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"{model}\",\
         \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"@{:015}@ word\"}},\"finish_reason\":null}}]}}\n\n",
        now_ns()
    )
}

fn with_length(body: &[u8]) -> Bytes {
    let mut out =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len())
            .into_bytes();
    out.extend_from_slice(body);
    out.into()
}

fn in_chunks(body: &[u8]) -> Bytes {
    let mut out = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let (first, second) = body.split_at(body.len() / 2);
    push_chunk(&mut out, first);
    push_chunk(&mut out, second);
    out.extend_from_slice(b"0\r\n\r\n");
    out.into()
}

fn push_chunk(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}
