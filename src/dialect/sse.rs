//! Server-sent events: chunks of bytes in, whole events out.
//!
//! An event is cut out of its chunk without copying; only one that spans chunks is joined. A line
//! may end in LF, CRLF or CR. Because a CR may be half of a CRLF, an event that ends in a lone CR
//! is handed out with the next byte (or by [`Framer::finish`]), so that the events never depend on
//! how the network cut the stream.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr2;

/// The longest event that is accepted unless [`Framer::with_limit`] says otherwise.
pub const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// What OpenAI's streams end with.
pub(super) const DONE: &[u8] = b"[DONE]";

const BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// An event exceeds the limit, which is given in bytes. The framer yields nothing after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {0} bytes")]
pub struct TooLong(pub usize);

/// Where in a line the scan has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Start,
    Middle,
    /// After a CR that ended a line; whether an LF belongs to it is not known yet.
    Cr {
        blank: bool,
    },
}

/// Cuts a stream into events.
#[derive(Debug)]
pub struct Framer {
    /// Bytes of the current event that came with earlier chunks. All of them are scanned.
    carry: BytesMut,
    /// What is left of the latest chunk. None of it is scanned.
    chunk: Bytes,
    line: Line,
    /// Bytes of a byte order mark seen so far; its length once that question is settled.
    bom: usize,
    limit: usize,
}

impl Default for Framer {
    fn default() -> Self {
        Self::with_limit(MAX_EVENT_BYTES)
    }
}

impl Framer {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A framer that refuses events longer than `limit` bytes.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { carry: BytesMut::new(), chunk: Bytes::new(), line: Line::Start, bom: 0, limit }
    }

    /// Takes the next chunk. Call [`Self::next_event`] until it yields nothing before the next one,
    /// or the chunks are joined by copying.
    pub fn push(&mut self, mut chunk: Bytes) {
        self.strip_bom(&mut chunk);
        self.chunk = if self.chunk.is_empty() { chunk } else { [self.chunk.as_ref(), chunk.as_ref()].concat().into() };
    }

    /// The next whole event with the blank line that ends it; `None` until more bytes come.
    /// Surplus blank lines are dropped.
    ///
    /// # Errors
    /// When an event exceeds the limit, whether it has ended or not.
    pub fn next_event(&mut self) -> Result<Option<Bytes>, TooLong> {
        loop {
            if self.carry.len() > self.limit {
                return Err(TooLong(self.limit));
            }
            let Some(end) = self.scan() else {
                self.carry.extend_from_slice(&std::mem::take(&mut self.chunk));
                if self.carry.len() > self.limit {
                    return Err(TooLong(self.limit));
                }
                return Ok(None);
            };
            let piece = self.chunk.split_to(end.min(self.chunk.len()));
            if self.carry.len().saturating_add(piece.len()) > self.limit {
                self.carry.extend_from_slice(&piece);
                return Err(TooLong(self.limit));
            }
            let event = if self.carry.is_empty() {
                piece
            } else {
                self.carry.extend_from_slice(&piece);
                self.carry.split().freeze()
            };
            if !is_blank(&event) {
                return Ok(Some(event));
            }
        }
    }

    /// What the stream ended with, if it did not end at an event's end. A missing blank line is
    /// supplied, so that it can be sent on; whether it is the whole event nobody can know.
    pub fn finish(&mut self) -> Option<Bytes> {
        if self.bom < BOM.len() {
            // It was the beginning of a mark, and nothing followed.
            self.carry.extend_from_slice(BOM.get(..self.bom).unwrap_or_default());
            self.bom = BOM.len();
        }
        self.carry.extend_from_slice(&std::mem::take(&mut self.chunk));
        let whole = self.line == Line::Cr { blank: true };
        self.line = Line::Start;
        let mut rest = self.carry.split();
        if is_blank(&rest) || rest.len() > self.limit {
            return None;
        }
        match rest.last() {
            _ if whole => {}
            Some(b'\n') => rest.extend_from_slice(b"\n"),
            _ => rest.extend_from_slice(b"\n\n"),
        }
        Some(rest.freeze())
    }

    fn strip_bom(&mut self, chunk: &mut Bytes) {
        while let (Some(expected), Some(byte)) = (BOM.get(self.bom), chunk.first()) {
            if expected == byte {
                chunk.advance(1);
                self.bom += 1;
                continue;
            }
            if self.bom > 0 {
                self.carry.extend_from_slice(BOM.get(..self.bom).unwrap_or_default());
                self.line = Line::Middle;
            }
            self.bom = BOM.len();
        }
    }

    /// Scans the chunk up to the end of the current event, which it returns, or to its own end.
    fn scan(&mut self) -> Option<usize> {
        let mut at = 0;
        loop {
            let rest = self.chunk.get(at..)?;
            if let Line::Cr { blank } = self.line {
                let next = rest.first()?;
                self.line = Line::Start;
                at += usize::from(*next == b'\n');
                if blank {
                    return Some(at);
                }
                continue;
            }
            let Some(found) = memchr2(b'\n', b'\r', rest) else {
                if !rest.is_empty() {
                    self.line = Line::Middle;
                }
                return None;
            };
            let blank = self.line == Line::Start && found == 0;
            at += found + 1;
            if rest.get(found) == Some(&b'\r') {
                self.line = Line::Cr { blank };
            } else {
                self.line = Line::Start;
                if blank {
                    return Some(at);
                }
            }
        }
    }
}

/// The lines of an event, each with the bytes that end it.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let at = memchr2(b'\n', b'\r', self.0).unwrap_or(self.0.len());
        let (line, rest) = self.0.split_at_checked(at)?;
        let length = if rest.starts_with(b"\r\n") { 2 } else { rest.len().min(1) };
        let (ending, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((line, ending))
    }
}

fn is_blank(event: &[u8]) -> bool {
    event.iter().all(|byte| matches!(byte, b'\n' | b'\r'))
}

/// The value of a `data` line.
fn data_value(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

/// The data of an event, its lines joined with LF; `None` when it has no data line.
#[must_use]
pub fn data_of(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut data: Option<Cow<'_, [u8]>> = None;
    for value in Lines(event).filter_map(|(line, _)| data_value(line)) {
        match &mut data {
            None => data = Some(Cow::Borrowed(value)),
            Some(joined) => {
                joined.to_mut().push(b'\n');
                joined.to_mut().extend_from_slice(value);
            }
        }
    }
    data
}

/// What an event of a stream of objects brings.
#[derive(Debug)]
pub(super) enum Payload<'a> {
    /// Its data, which should be an object.
    Object(Cow<'a, [u8]>),
    /// The terminator of OpenAI's streams.
    Done,
    /// Nothing but comments.
    Comment,
    /// Other lines, and no data.
    Bare,
}

impl<'a> Payload<'a> {
    pub(super) fn of(event: &'a [u8]) -> Self {
        match data_of(event) {
            Some(data) if data.trim_ascii() == DONE => Self::Done,
            Some(data) => Self::Object(data),
            None if is_comment(event) => Self::Comment,
            None => Self::Bare,
        }
    }
}

/// The event with other data; every other line stays.
#[must_use]
pub fn with_data(event: &[u8], data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(event.len().saturating_add(data.len()));
    let mut written = false;
    for (line, ending) in Lines(event) {
        if data_value(line).is_none() {
            out.extend_from_slice(line);
            out.extend_from_slice(ending);
        } else if !written {
            written = true;
            let prefix: &[u8] = if line.starts_with(b"data: ") { b"data: " } else { b"data:" };
            for part in data.split(|byte| *byte == b'\n') {
                out.extend_from_slice(prefix);
                out.extend_from_slice(part);
                out.extend_from_slice(if ending.is_empty() { b"\n" } else { ending });
            }
        } else if out.last() == Some(&b'\r') && !ending.is_empty() {
            // This line goes, and its end stays: a CR would become one with an LF that comes next.
            out.pop();
            out.extend_from_slice(ending);
        }
    }
    out.into()
}

/// One event with nothing but `data`, which must be a single line.
#[must_use]
pub fn event_of(data: &[u8]) -> Bytes {
    [b"data: ", data, b"\n\n"].concat().into()
}

/// Whether the event is nothing but comments, as keep-alives are.
#[must_use]
pub fn is_comment(event: &[u8]) -> bool {
    Lines(event).all(|(line, _)| line.is_empty() || line.starts_with(b":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All events of a stream that comes in these chunks, the unfinished one last.
    fn events<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let mut framer = Framer::new();
        let mut out = Vec::new();
        for chunk in chunks {
            framer.push(Bytes::copy_from_slice(chunk));
            while let Some(event) = framer.next_event().unwrap() {
                out.push(event.to_vec());
            }
        }
        out.extend(framer.finish().map(|event| event.to_vec()));
        out
    }

    const STREAMS: &[(&str, &[&str])] = &[
        ("data: a\n\ndata: b\n\n", &["data: a\n\n", "data: b\n\n"]),
        ("data: a\r\n\r\ndata: b\r\n\r\n", &["data: a\r\n\r\n", "data: b\r\n\r\n"]),
        ("data: a\r\rdata: b\r\r", &["data: a\r\r", "data: b\r\r"]),
        ("data: a\r\n\ndata: b\n\r\n", &["data: a\r\n\n", "data: b\n\r\n"]),
        ("\u{feff}data: a\n\n", &["data: a\n\n"]),
        ("data: \u{feff}\n\n", &["data: \u{feff}\n\n"]),
        ("\n\ndata: a\n\n\r\n\r\ndata: b\n\n\n", &["data: a\n\n", "data: b\n\n"]),
        (": ping\n\nevent: x\nid: 7\ndata: a\ndata: b\n\n", &[": ping\n\n", "event: x\nid: 7\ndata: a\ndata: b\n\n"]),
        ("data: a\n\ndata: b", &["data: a\n\n", "data: b\n\n"]),
        ("data: a\n", &["data: a\n\n"]),
        ("data: a\r\n", &["data: a\r\n\n"]),
        ("data: a\r", &["data: a\r\n\n"]),
        ("data: «ü€😀»\n\n", &["data: «ü€😀»\n\n"]),
        ("", &[]),
        ("\n", &[]),
    ];

    #[test]
    fn streams_are_cut_at_blank_lines_however_they_arrive() {
        for (stream, expected) in STREAMS {
            let bytes = stream.as_bytes();
            assert_eq!(events([bytes]), expected.map_bytes(), "{stream:?}");
            assert_eq!(events(bytes.chunks(1)), expected.map_bytes(), "{stream:?} by bytes");
            for at in 0..bytes.len() {
                let (head, tail) = bytes.split_at(at);
                assert_eq!(events([head, tail]), expected.map_bytes(), "{stream:?} at {at}");
            }
        }
    }

    trait MapBytes {
        fn map_bytes(&self) -> Vec<Vec<u8>>;
    }

    impl MapBytes for &[&str] {
        fn map_bytes(&self) -> Vec<Vec<u8>> {
            self.iter().map(|event| event.as_bytes().to_vec()).collect()
        }
    }

    #[test]
    fn a_partial_mark_is_not_lost() {
        assert_eq!(events([&b"\xEF\xBB"[..], &b"x\n\n"[..]]), vec![b"\xEF\xBBx\n\n".to_vec()]);
        assert_eq!(events([&b"\xEF\xBB"[..]]), vec![b"\xEF\xBB\n\n".to_vec()]);
    }

    #[test]
    fn whole_events_are_not_copied() {
        let chunk = Bytes::from_static(b"data: a\n\ndata: b\n\nda");
        let range = chunk.as_ptr_range();
        let mut framer = Framer::new();
        framer.push(chunk);
        for _ in 0..2 {
            let event = framer.next_event().unwrap().unwrap();
            assert!(range.contains(&event.as_ptr()));
        }
        assert_eq!(framer.next_event(), Ok(None));
    }

    #[test]
    fn long_events_are_refused() {
        for chunks in [&["data: 123\n\n"][..], &["data: 123456"], &["data:", " 123\n\n"]] {
            let mut framer = Framer::with_limit(10);
            let mut outcome = Ok(None);
            for chunk in chunks {
                framer.push(Bytes::copy_from_slice(chunk.as_bytes()));
                outcome = framer.next_event();
            }
            assert_eq!(outcome, Err(TooLong(10)), "{chunks:?}");
            assert_eq!(framer.next_event(), Err(TooLong(10)));
        }
        let mut framer = Framer::with_limit(9);
        framer.push(Bytes::from_static(b"data: 1\n\ndata: 2\n\n"));
        assert!(framer.next_event().unwrap().is_some() && framer.next_event().unwrap().is_some());
    }

    #[test]
    fn data_is_found_and_replaced() {
        for (event, data, replaced) in [
            ("data: a\n\n", Some("a"), "data: X\n\n"),
            ("data:a\r\n\r\n", Some("a"), "data:X\r\n\r\n"),
            ("data:  a\n\n", Some(" a"), "data: X\n\n"),
            ("id: 1\ndata: a\ndata: b\nretry: 2\n\n", Some("a\nb"), "id: 1\ndata: X\nretry: 2\n\n"),
            ("data\n\n", Some(""), "data:X\n\n"),
            ("database: a\n\n", None, "database: a\n\n"),
            (": data: a\n\n", None, ": data: a\n\n"),
        ] {
            let found = data_of(event.as_bytes());
            assert_eq!(found.as_deref(), data.map(str::as_bytes), "{event:?}");
            assert_eq!(with_data(event.as_bytes(), b"X"), replaced, "{event:?}");
        }
        assert_eq!(with_data(b"data: a\n\n", b"1\n2"), "data: 1\ndata: 2\n\n");
        assert_eq!(with_data(b"data: \rdata\n\n", b"X"), "data: X\n\n", "it still ends");
        assert!(is_comment(b": ping\n\n") && is_comment(b":\r\n:x\r\n\r\n"));
        assert!(!is_comment(b": ping\ndata: a\n\n"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_chunks_give_the_same_events(
            bytes in proptest::collection::vec(
                proptest::sample::select(&b"da:t \n\n\r\xEF\xBB\xBFx"[..]), 0..80),
            sizes in proptest::collection::vec(1usize..9, 1..20),
        ) {
            let mut chunks = Vec::new();
            let mut rest = &bytes[..];
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (head, tail) = rest.split_at((*size).min(rest.len()));
                chunks.push(head);
                rest = tail;
            }
            proptest::prop_assert_eq!(events(chunks), events([&bytes[..]]));
        }
    }
}
