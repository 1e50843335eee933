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
    /// It is forwarded; the reply comes a byte at a time.
    Drip,
    /// Nothing is forwarded; this is the reply.
    Say(&'static str),
}

#[derive(Default)]
struct State {
    /// By path; the empty one is for all others.
    modes: HashMap<String, Mode>,
    /// Requests by path whose treatment has begun (for the modes that forward: which the mint
    /// has answered).
    hits: HashMap<String, u64>,
    /// Parked requests that may go, and those that went.
    released: u64,
    went: u64,
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

    /// Waits until there were more than `before` requests for `path`.
    pub async fn hit(&self, path: &str, before: u64) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.hits(path) <= before {
            assert!(Instant::now() < end, "no request for {path} within 20 s");
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
        let mode = state.modes.get(&path).or_else(|| state.modes.get("")).copied().unwrap_or(Mode::Pass);
        if mode == Mode::Once {
            state.modes.insert(path.clone(), Mode::Cut);
        }
        mode
    };
    let hit = || *shared.state.lock().expect("state").hits.entry(path.clone()).or_default() += 1;
    let wait = || {
        let waiting = |state: &mut State| state.modes.get(&path) == Some(&mode);
        drop(shared.changed.wait_while(shared.state.lock().expect("state"), waiting).expect("state"));
    };
    match mode {
        Mode::Cut => hit(),
        Mode::Hold => {
            hit();
            wait();
            client.write_all(&forward(shared, &request)?)?;
        }
        Mode::Say(reply) => {
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
        Mode::Pass | Mode::Once | Mode::Drip | Mode::DropReply | Mode::StallReply => {
            let reply = forward(shared, &request)?;
            hit();
            match mode {
                Mode::Drip => {
                    for byte in reply {
                        client.write_all(&[byte])?;
                        std::thread::sleep(Duration::from_millis(50));
                    }
                }
                Mode::Pass | Mode::Once => client.write_all(&reply)?,
                Mode::StallReply => wait(),
                _ => {}
            }
        }
    }
    client.shutdown(Shutdown::Both)
}

/// The path and the bytes of one request, which asks for the connection to be closed.
fn read_request(client: &mut TcpStream) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut buffer = [0_u8; 16 * 1024];
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
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
