//! Load on one peer, and what came of it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::machine::Proxy;
use crate::upstream::{EVENTS, MARK, PACE, now_ns};
use crate::wire::Connection;

/// What is sent, by how many at once, for how long.
#[derive(Clone)]
pub struct Load {
    pub target: SocketAddr,
    pub connections: usize,
    /// Sent in turn; each connection begins somewhere else.
    pub requests: Rc<Vec<Vec<u8>>>,
    pub duration: Duration,
}

/// What one run showed. Times are in nanoseconds.
#[derive(Default)]
pub struct Tally {
    pub done: usize,
    pub failed: Vec<String>,
    pub latencies: Vec<u64>,
    pub first_bytes: Vec<u64>,
    pub transits: Vec<u64>,
}

/// A run in numbers.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sample {
    pub per_second: f64,
    /// CPU time of the proxy for each request or stream, in µs.
    pub cpu_us: f64,
    /// Share of its core that the proxy used. Much below 1: the load was the bottleneck.
    pub busy: f64,
    /// In µs, as all of these.
    pub p50: f64,
    pub p99: f64,
    pub first_byte_p50: f64,
    pub transit_p50: f64,
    pub transit_p99: f64,
}

/// How an event stream ends, in each wire format: what its last event contains, and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEnd(&'static str);

pub const CHAT_END: StreamEnd = StreamEnd("data: [DONE]");
pub const RESPONSES_END: StreamEnd = StreamEnd("\"response.completed\"");
pub const MESSAGES_END: StreamEnd = StreamEnd("\"message_stop\"");

/// Bytes of what was read that are looked at again with what comes next.
const CARRIED: usize = 32;

/// Runs `load` after a short warm-up. `streams`: the answers are event streams that end so.
pub async fn measure(load: &Load, proxy: Option<&Proxy>, streams: Option<StreamEnd>) -> Sample {
    let warm_up = Load { duration: (load.duration / 5).min(Duration::from_millis(500)), ..load.clone() };
    run(&warm_up, streams).await;
    let before = proxy.map(Proxy::used);
    let begin = Instant::now();
    let mut tally = run(load, streams).await;
    let elapsed = begin.elapsed().as_secs_f64();
    let cpu = match (proxy, before) {
        (Some(proxy), Some(before)) => proxy.used().since(&before).as_secs_f64(),
        _ => 0.0,
    };
    if let Some(first) = tally.failed.first() {
        panic!("{} of {} answers were not as they should be; the first: {first}", tally.failed.len(), tally.done);
    }
    let done = tally.done.max(1) as f64;
    Sample {
        per_second: done / elapsed,
        cpu_us: cpu * 1e6 / done,
        busy: cpu / elapsed,
        p50: quantile(&mut tally.latencies, 0.50),
        p99: quantile(&mut tally.latencies, 0.99),
        first_byte_p50: quantile(&mut tally.first_bytes, 0.50),
        transit_p50: quantile(&mut tally.transits, 0.50),
        transit_p99: quantile(&mut tally.transits, 0.99),
    }
}

/// Runs `load` to its end.
pub async fn run(load: &Load, streams: Option<StreamEnd>) -> Tally {
    let tally: Rc<RefCell<Tally>> = Rc::default();
    let end = Instant::now() + load.duration;
    let clients = (0..load.connections).map(|index| {
        let (load, tally) = (load.clone(), Rc::clone(&tally));
        tokio::task::spawn_local(async move {
            let outcome = client(&load, index, end, streams, &tally).await;
            if let Err(error) = outcome {
                tally.borrow_mut().failed.push(error.to_string());
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("client");
    }
    tally.take()
}

async fn client(
    load: &Load,
    index: usize,
    end: Instant,
    streams: Option<StreamEnd>,
    tally: &RefCell<Tally>,
) -> std::io::Result<()> {
    if streams.is_some() {
        // Streams that begin together would also end and settle together, again and again.
        let apart = PACE * u32::try_from(EVENTS / load.connections * index).unwrap_or(0);
        tokio::time::sleep(apart).await;
    }
    let mut connection = Connection::open(load.target).await?;
    let mut requests = load.requests.iter().cycle().skip(index * load.requests.len() / load.connections);
    while Instant::now() < end {
        let request = requests.next().expect("requests");
        let begin = Instant::now();
        if let Some(end) = streams {
            stream(&mut connection, request, end, tally).await?;
        } else {
            let status = connection.exchange(request).await?;
            if status != 200 {
                tally.borrow_mut().failed.push(format!("status {status}"));
            }
        }
        let mut tally = tally.borrow_mut();
        tally.latencies.push(nanos(begin.elapsed()));
        tally.done += 1;
    }
    Ok(())
}

/// One stream. It counts only when every event arrived and the end was announced.
async fn stream(
    connection: &mut Connection,
    request: &[u8],
    end: StreamEnd,
    tally: &RefCell<Tally>,
) -> std::io::Result<()> {
    let begin = now_ns();
    connection.send(request).await?;
    let (head, parsed) = connection.head().await?;
    if parsed.status != 200 || parsed.length.is_some() {
        tally.borrow_mut().failed.push(head);
        return Ok(());
    }
    let (mut seen, mut done, mut carry) = (0, false, Vec::new());
    while let Some(chunk) = connection.chunk().await? {
        let now = now_ns();
        let mut tally = tally.borrow_mut();
        if seen == 0 {
            tally.first_bytes.push(now - begin);
        }
        // A mark can lie across two chunks; what is left of one is looked at with the next.
        carry.extend_from_slice(&chunk);
        let mut from = 0;
        while let Some((sent, after)) = send_time(&carry[from..]) {
            tally.transits.push(now.saturating_sub(sent));
            from += after;
            seen += 1;
        }
        done |= memchr::memmem::find(&carry, end.0.as_bytes()).is_some();
        carry.drain(..from.max(carry.len().saturating_sub(CARRIED)));
    }
    if seen != EVENTS || !done {
        tally.borrow_mut().failed.push(format!("{seen} of {EVENTS} events, {}: {done}", end.0));
    }
    Ok(())
}

/// The first send time in `text`, and where it ends.
fn send_time(text: &[u8]) -> Option<(u64, usize)> {
    let mut from = 0;
    while let Some(found) = memchr::memchr(MARK, &text[from..]) {
        let at = from + found + 1;
        let digits = text.get(at..at + 15)?;
        if digits.iter().all(u8::is_ascii_digit) && text.get(at + 15) == Some(&MARK) {
            let sent = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            return Some((sent, at + 16));
        }
        from = at;
    }
    None
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A quantile in µs. 0 when there is nothing.
pub fn quantile(values: &mut [u64], share: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_unstable();
    let index = ((values.len() - 1) as f64 * share).round() as usize;
    values[index] as f64 / 1e3
}

/// The median of each number over several runs.
pub fn median(samples: &[Sample]) -> Sample {
    let of = |field: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(field).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    Sample {
        per_second: of(|sample| sample.per_second),
        cpu_us: of(|sample| sample.cpu_us),
        busy: of(|sample| sample.busy),
        p50: of(|sample| sample.p50),
        p99: of(|sample| sample.p99),
        first_byte_p50: of(|sample| sample.first_byte_p50),
        transit_p50: of(|sample| sample.transit_p50),
        transit_p99: of(|sample| sample.transit_p99),
    }
}
