//! A TCP proxy in front of a mint that loses or delays what a test tells it to.
//!
//! It reads one whole HTTP request, looks up what to do with its path, and, unless told otherwise,
//! forwards it on a connection of its own and hands the reply back. Plain threads: it is slow, and
//! there is nothing to go wrong.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is forwarded, and so is its reply.
    Pass,
    /// It is forwarded; the reply is lost and the connection cut.
    DropReply,
    /// It is forwarded; the reply is kept back until the mode changes, and then lost.
    StallReply,
    /// It waits until the mode changes; then it is forwarded, and so is its reply.
    Hold,
    /// The connection is cut before anything is forwarded.
    Cut,
    /// It is forwarded, and so is its reply; from then on, requests for this path are cut.
    Once,
    /// It waits for [`Chaos::release`], whatever the mode is by then; then it is forwarded.
    Park,
    /// Nothing is forwarded; this is the reply.
    Reply(&'static str),
    /// It is refused with 429, with this many seconds of `Retry-After`; nothing is forwarded.
    Limit(Option<u64>),
    /// It is forwarded; the reply comes byte by byte, and never to its end.
    Drip,
    /// It is forwarded; this is what comes back.
    Say(Junk),
    /// It is forwarded; its reply comes back changed.
    Lie(Lie),
}

/// Replies that are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Junk {
    /// 200 with a page.
    Html,
    /// 200 with JSON without an end.
    Huge,
    /// 200 with JSON that nests without an end.
    Deep,
    /// 200 with an empty object.
    Empty,
    /// 403 with a page.
    Forbidden,
    /// 404 in JSON that is not of a mint.
    Lost,
    /// 400 in a mint's words, which do not say whether it acted.
    Unsure,
}

/// What is not true in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Signatures are for other amounts.
    Amounts,
    /// A signature is missing.
    Missing,
    /// The proofs of the signatures are of something else.
    Dleq,
    /// There is no signature at all.
    Nothing,
    /// The signatures are on outputs that nobody asked about.
    Foreign,
    /// All proofs, or the quote, are in this state.
    State(&'static str),
    /// Spending costs more.
    Fees,
    /// The keys are those of other amounts.
    Keys,
    /// The quote has a name that leads elsewhere.
    Name,
}

#[derive(Default)]
struct State {
    /// By path, or by its beginning and `*`; the empty one is for all others.
    modes: HashMap<String, Mode>,
    /// Requests by path whose treatment has begun (for the modes that forward: which the mint
    /// has answered).
    hits: HashMap<String, u64>,
    /// Of all requests, in their order, each with its path.
    bodies: Vec<(String, Vec<u8>)>,
    /// Parked requests that may go, and those that went.
    released: u64,
    went: u64,
}

impl State {
    /// The name by which a mode was set for this path, and the mode.
    fn named(&self, path: &str) -> Option<(&String, &Mode)> {
        let begins = |name: &str| name.strip_suffix('*').is_some_and(|start| path.starts_with(start));
        let found = self.modes.get_key_value(path).or_else(|| self.modes.iter().find(|(name, _)| begins(name)));
        found.or_else(|| self.modes.get_key_value(""))
    }

    fn mode(&self, path: &str) -> Mode {
        self.named(path).map_or(Mode::Pass, |(_, mode)| *mode)
    }

    /// Counts a request, by its path and by the name under which that has a mode.
    fn hit(&mut self, path: &str) {
        let name = self.named(path).map(|(name, _)| name.clone()).filter(|name| name != path);
        for counted in name.into_iter().chain([path.to_owned()]) {
            *self.hits.entry(counted).or_default() += 1;
        }
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    mint: SocketAddr,
}

/// The proxy; its threads end with the process.
pub struct Chaos {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Chaos {
    /// A proxy in front of the mint at this URL.
    pub fn before(mint_url: &str) -> Self {
        let mint = mint_url.trim_start_matches("http://").parse().expect("the mint's address");
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("address");
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), mint });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || {
                    // A connection that breaks is what this proxy is for.
                    let _broken = serve(&shared, stream);
                });
            }
        });
        Self { address, shared }
    }

    /// What wallets and nodes take for the mint's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, requests for `path` (empty: for every other path) are treated so.
    pub fn set(&self, path: &str, mode: Mode) {
        self.shared.state.lock().expect("state").modes.insert(path.to_owned(), mode);
        self.shared.changed.notify_all();
    }

    /// Everything passes again.
    pub fn calm(&self) {
        self.shared.state.lock().expect("state").modes.clear();
        self.shared.changed.notify_all();
    }

    /// Lets one parked request go, and waits until the mint has answered it.
    pub async fn release(&self) {
        let went = {
            let mut state = self.shared.state.lock().expect("state");
            state.released += 1;
            state.went
        };
        self.shared.changed.notify_all();
        let end = Instant::now() + Duration::from_secs(20);
        while self.shared.state.lock().expect("state").went == went {
            assert!(Instant::now() < end, "no parked request went within 20 s");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many requests for `path` there were so far.
    pub fn hits(&self, path: &str) -> u64 {
        self.shared.state.lock().expect("state").hits.get(path).copied().unwrap_or(0)
    }

    /// The bodies of all requests for `path` so far.
    pub fn bodies(&self, path: &str) -> Vec<Value> {
        let state = self.shared.state.lock().expect("state");
        let of_path = state.bodies.iter().filter(|(asked, _)| asked == path);
        of_path.map(|(_, body)| serde_json::from_slice(body).expect("JSON")).collect()
    }

    /// Waits until there were more than `before` requests for `path`.
    pub async fn hit(&self, path: &str, before: u64) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.hits(path) <= before {
            assert!(Instant::now() < end, "no request for {path} within a minute");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn serve(shared: &Shared, mut client: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    let Some((path, request)) = read_request(&mut client)? else { return Ok(()) };
    let mode = {
        let mut state = shared.state.lock().expect("state");
        let body = body_at(&request).map_or(&[][..], |at| &request[at..]);
        state.bodies.push((path.clone(), body.to_vec()));
        let mode = state.mode(&path);
        if mode == Mode::Once {
            state.modes.insert(path.clone(), Mode::Cut);
        }
        mode
    };
    let hit = || shared.state.lock().expect("state").hit(&path);
    let wait = || {
        let waiting = |state: &mut State| state.modes.get(&path) == Some(&mode);
        drop(shared.changed.wait_while(shared.state.lock().expect("state"), waiting).expect("state"));
    };
    match mode {
        Mode::Cut => hit(),
        Mode::Limit(seconds) => {
            hit();
            let after = seconds.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
            client
                .write_all(format!("HTTP/1.1 429 Too Many Requests\r\n{after}content-length: 0\r\n\r\n").as_bytes())?;
        }
        Mode::Drip => {
            let reply = forward(shared, &request)?;
            hit();
            let mut rest = reply.chunks(1);
            while shared.state.lock().expect("state").mode(&path) == mode {
                client.write_all(rest.next().unwrap_or_default())?;
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Mode::Say(junk) => {
            forward(shared, &request)?;
            hit();
            client.write_all(&say(junk))?;
        }
        Mode::Lie(lie) => {
            let reply = forward(shared, &request)?;
            hit();
            client.write_all(&change(lie, &reply).unwrap_or(reply))?;
        }
        Mode::Hold => {
            hit();
            wait();
            client.write_all(&forward(shared, &request)?)?;
        }
        Mode::Reply(reply) => {
            hit();
            client.write_all(reply.as_bytes())?;
        }
        Mode::Park => {
            hit();
            let parked = |state: &mut State| state.released == 0;
            shared.changed.wait_while(shared.state.lock().expect("state"), parked).expect("state").released -= 1;
            let reply = forward(shared, &request);
            shared.state.lock().expect("state").went += 1;
            client.write_all(&reply?)?;
        }
        Mode::Pass | Mode::Once | Mode::DropReply | Mode::StallReply => {
            let reply = forward(shared, &request)?;
            hit();
            match mode {
                Mode::Pass | Mode::Once => client.write_all(&reply)?,
                Mode::StallReply => wait(),
                _ => {}
            }
        }
    }
    client.shutdown(Shutdown::Both)
}

/// Where the body begins, if the head is whole.
fn body_at(message: &[u8]) -> Option<usize> {
    message.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The path and the bytes of one request, which asks for the connection to be closed.
fn read_request(client: &mut TcpStream) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut buffer = [0_u8; 16 * 1024];
    let head = loop {
        if let Some(at) = body_at(&bytes) {
            break at;
        }
        match client.read(&mut buffer)? {
            0 => return Ok(None),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.trim_end().split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let headers: Vec<&str> = lines.collect();
    let length = headers.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    while bytes.len() < head + length.unwrap_or(0) {
        match client.read(&mut buffer)? {
            0 => return Ok(None),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
    let kept = headers.iter().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let mut request = format!("{first}\r\nconnection: close\r\n");
    kept.for_each(|line| request.push_str(&format!("{line}\r\n")));
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(&bytes[head..]);
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok(Some((path, request)))
}

fn forward(shared: &Shared, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut mint = TcpStream::connect(shared.mint)?;
    mint.set_nodelay(true)?;
    mint.set_read_timeout(Some(Duration::from_secs(60)))?;
    mint.write_all(request)?;
    let mut reply = Vec::new();
    mint.read_to_end(&mut reply)?;
    Ok(reply)
}

fn answer(status: &str, media: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {media}\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn say(junk: Junk) -> Vec<u8> {
    const PAGE: &[u8] = b"<html><body>Just a moment</body></html>";
    const UNSURE: &[u8] = br#"{"code":50000,"detail":"Internal Error"}"#;
    match junk {
        Junk::Unsure => answer("400 Bad Request", "application/json", UNSURE),
        Junk::Html => answer("200 OK", "text/html", PAGE),
        Junk::Huge => answer("200 OK", "application/json", format!("[{}1]", "1,".repeat(2_000_000)).as_bytes()),
        Junk::Deep => answer("200 OK", "application/json", "[".repeat(200_000).as_bytes()),
        Junk::Empty => answer("200 OK", "application/json", b"{}"),
        Junk::Forbidden => answer("403 Forbidden", "text/html", PAGE),
        Junk::Lost => answer("404 Not Found", "application/json", br#"{"message":"no such route"}"#),
    }
}

/// A reply that says something else. `None` where there is nothing to change in it.
fn change(lie: Lie, reply: &[u8]) -> Option<Vec<u8>> {
    if !reply.starts_with(b"HTTP/1.1 200") {
        return None;
    }
    let mut body: Value = serde_json::from_slice(&reply[body_at(reply)?..]).ok()?;
    let object = body.as_object_mut()?;
    for name in ["signatures", "promises", "change"] {
        let Some(signatures) = object.get_mut(name).and_then(Value::as_array_mut) else { continue };
        match lie {
            Lie::Amounts => signatures
                .iter_mut()
                .for_each(|one| one["amount"] = json!(one["amount"].as_u64().map(|amount| amount * 2))),
            Lie::Missing => drop(signatures.pop()),
            Lie::Nothing => signatures.clear(),
            Lie::Dleq => signatures.iter_mut().for_each(|one| one["dleq"]["e"] = json!("11".repeat(32))),
            _ => {}
        }
    }
    let each = |object: &mut serde_json::Map<String, Value>, name: &str, change: &dyn Fn(&mut Value)| {
        object.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten().for_each(change);
    };
    match lie {
        Lie::Foreign => each(object, "outputs", &|one| one["B_"] = json!(OTHER_POINT)),
        Lie::State(state) if object.contains_key("states") => {
            each(object, "states", &|one| one["state"] = json!(state))
        }
        Lie::State(state) => drop(object.insert("state".to_owned(), json!(state))),
        Lie::Fees => each(object, "keysets", &|one| one["input_fee_ppk"] = json!(5_000)),
        Lie::Keys => each(object, "keysets", &|one| {
            let (one_sat, two_sats) = (one["keys"]["1"].clone(), one["keys"]["2"].clone());
            (one["keys"]["1"], one["keys"]["2"]) = (two_sats, one_sat);
        }),
        Lie::Name => drop(object.insert("quote".to_owned(), json!("../../swap?"))),
        _ => {}
    }
    if lie == Lie::Nothing
        && let Some(outputs) = object.get_mut("outputs")
    {
        *outputs = json!([]);
    }
    Some(answer("200 OK", "application/json", body.to_string().as_bytes()))
}

/// A point on the curve that is nobody's output.
const OTHER_POINT: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
