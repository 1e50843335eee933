//! Request bodies on their way in. A body is copied once, from the buffers of its connection into memory of its
//! own size; that is read, sent upstream, and sent again where the first upstream fails, without another copy.
//!
//! All of it is there before money moves: a form may say after its file which model it wants and how much of it,
//! and what is wrong at its end must cost nothing. So large bodies are bounded twice, each and all together.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use futures_util::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::headers;
use crate::failure::{Code, Failure};
use crate::net::BODY_TIMEOUT;

/// How long nothing may come of one that is not there yet, from somebody without a key.
const STANDSTILL: Duration = Duration::from_secs(15);
/// The same for those who have a key here: a bad connection may lose a piece several times.
const PATIENT_STANDSTILL: Duration = Duration::from_secs(60);
/// How long one that is refused may go on sending it.
const LINGER: Duration = Duration::from_secs(10);

/// What room is counted in. A body that is not longer takes none: it is bounded by the connections.
const PAGE: usize = 64 * 1024;
/// What is set apart for one body before it has come, at most.
const MOST_AHEAD: usize = 64 * 1024 * 1024;
/// When to try again where there is no room, in seconds.
const PATIENCE: u64 = 5;

/// Where bodies are taken in.
#[derive(Clone, Debug)]
pub struct Spool {
    /// The largest body, in bytes.
    limit: usize,
    /// Pages that are free.
    room: Arc<Semaphore>,
    /// How many of them those without a key may still take: whoever asks for nothing but a price must not take all.
    for_strangers: Arc<Semaphore>,
    /// How long strangers may pause.
    standstill: Duration,
}

/// The room that a body takes up.
#[derive(Debug)]
struct Room {
    has_key: bool,
    pages: Option<OwnedSemaphorePermit>,
    of_strangers: Option<OwnedSemaphorePermit>,
}

/// A body and its room, until nobody has any part of it.
struct Held {
    bytes: Vec<u8>,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Room {
    fn new(has_key: bool) -> Self {
        Self { has_key, pages: None, of_strangers: None }
    }

    /// Takes so many pages in all, if they are there.
    fn widen(&mut self, spool: &Spool, needs: usize) -> Result<(), Failure> {
        if !self.has_key {
            widen(&mut self.of_strangers, &spool.for_strangers, needs)?;
        }
        widen(&mut self.pages, &spool.room, needs)
    }
}

fn widen(permit: &mut Option<OwnedSemaphorePermit>, free: &Arc<Semaphore>, needs: usize) -> Result<(), Failure> {
    let has = permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    if needs > has {
        let more = u32::try_from(needs.saturating_sub(has)).map_err(|_| crowded())?;
        let more = Arc::clone(free).try_acquire_many_owned(more).map_err(|_| crowded())?;
        match permit {
            Some(permit) => permit.merge(more),
            None => *permit = Some(more),
        }
    }
    Ok(())
}

impl Spool {
    /// For bodies of `limit` bytes, and `all` bytes of large ones at a time, half of it for those who have no key. One
    /// of them always fits.
    #[must_use]
    pub fn new(limit: usize, all: usize) -> Self {
        let pages = |bytes: usize| Arc::new(Semaphore::new(bytes.div_ceil(PAGE).min(Semaphore::MAX_PERMITS)));
        let (room, for_strangers) = (pages(all.max(limit)), pages((all / 2).max(limit)));
        Self { limit, room, for_strangers, standstill: STANDSTILL }
    }

    /// The largest body, in bytes.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Takes in a body, inflated already. `has_key`: this node knows the key that it comes with.
    ///
    /// # Errors
    /// When it is too large, does not come in time, breaks off, or finds no room.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Body, has_key: bool) -> Result<Bytes, Failure> {
        let limit = self.limit;
        if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(Failure::client(
                Code::InvalidRequest,
                "This Content-Encoding is not known here: gzip, deflate, br and zstd are.",
            ));
        }
        let declared = headers::text(headers, CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
        if declared.is_some_and(|length| length > limit) {
            return Err(too_large(limit));
        }
        let mut pieces = body.into_data_stream();
        let collected = self.collect(&mut pieces, declared, has_key);
        let read = tokio::time::timeout(BODY_TIMEOUT, collected).await.map_err(|_| cut())?;
        if read.is_err() {
            // A client that is still sending reads no answer: let it finish, into nothing.
            let rest = pieces.take_while(|piece| std::future::ready(piece.is_ok()));
            let rest = rest.scan(0_usize, |sum, piece| {
                *sum = sum.saturating_add(piece.map_or(0, |piece| piece.len()));
                std::future::ready((*sum <= limit).then_some(()))
            });
            let _late = tokio::time::timeout(LINGER, rest.for_each(std::future::ready)).await;
        }
        read
    }

    async fn collect(
        &self,
        pieces: &mut (impl Stream<Item = Result<Bytes, axum::Error>> + Unpin),
        declared: Option<usize>,
        has_key: bool,
    ) -> Result<Bytes, Failure> {
        let patience = if has_key { PATIENT_STANDSTILL } else { self.standstill };
        let Some(first) = following(pieces, patience).await? else { return Ok(Bytes::new()) };
        let mut next = following(pieces, patience).await?;
        if next.is_none() && first.len() <= PAGE.min(self.limit) {
            return Ok(first);
        }
        // Memory that is not written to costs nothing, and a buffer that need not grow is not copied.
        let mut bytes = Vec::with_capacity(declared.unwrap_or(self.limit).min(MOST_AHEAD));
        let mut room = Room::new(has_key);
        self.add(&mut bytes, &mut room, &first)?;
        drop(first);
        while let Some(piece) = next {
            self.add(&mut bytes, &mut room, &piece)?;
            next = following(pieces, patience).await?;
        }
        Ok(match room.pages {
            Some(_) => Bytes::from_owner(Held { bytes, _room: room }),
            None => Bytes::from(bytes),
        })
    }

    fn add(&self, bytes: &mut Vec<u8>, room: &mut Room, piece: &[u8]) -> Result<(), Failure> {
        let size = bytes.len().saturating_add(piece.len());
        if size > self.limit {
            return Err(too_large(self.limit));
        }
        if size > PAGE {
            room.widen(self, size.div_ceil(PAGE))?;
        }
        bytes.extend_from_slice(piece);
        Ok(())
    }
}

fn too_large(limit: usize) -> Failure {
    Failure::client(Code::PayloadTooLarge, format!("The request body is larger than {limit} bytes."))
}

/// The next piece, if there is one, and comes soon.
async fn following(
    pieces: &mut (impl Stream<Item = Result<Bytes, axum::Error>> + Unpin),
    patience: Duration,
) -> Result<Option<Bytes>, Failure> {
    let piece = tokio::time::timeout(patience, pieces.next()).await.map_err(|_| cut())?;
    piece.transpose().map_err(|error| broken(&error))
}

fn cut() -> Failure {
    Failure::client(Code::InvalidRequest, "The request body was cut short.")
}

/// What the connection says, the body was cut by; all else is said by what unpacks it.
fn broken(error: &axum::Error) -> Failure {
    let mut causes = std::iter::successors(error.source(), |cause| (**cause).source());
    if causes.any(|cause| cause.is::<hyper::Error>()) {
        return cut();
    }
    Failure::client(Code::InvalidRequest, "The request body does not unpack as its Content-Encoding says.")
}

fn crowded() -> Failure {
    Failure::unavailable(Code::Overloaded, "Too many large requests are being served; try again soon.", PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 4 * PAGE;

    async fn take_of(spool: &Spool, has_key: bool, pieces: &[usize], declared: Option<usize>) -> Result<Bytes, Code> {
        let pieces: Vec<_> = pieces.iter().map(|size| Ok(Bytes::from(vec![b'x'; *size]))).collect();
        spool.collect(&mut futures_util::stream::iter(pieces), declared, has_key).await.map_err(|failure| failure.code)
    }

    async fn take(spool: &Spool, pieces: &[usize], declared: Option<usize>) -> Result<Bytes, Code> {
        take_of(spool, true, pieces, declared).await
    }

    #[tokio::test]
    async fn strangers_take_no_more_than_half() {
        let spool = Spool::new(LIMIT, 10 * PAGE);
        let one = take_of(&spool, false, &[3 * PAGE], None).await.unwrap();
        assert_eq!(take_of(&spool, false, &[3 * PAGE], None).await, Err(Code::Overloaded));
        assert_eq!(spool.room.available_permits(), 7);
        let two = take_of(&spool, false, &[2 * PAGE], None).await.unwrap();
        let known = take(&spool, &[LIMIT], None).await.unwrap();
        assert_eq!((spool.for_strangers.available_permits(), spool.room.available_permits()), (0, 1));
        drop((one, two, known));
        assert_eq!((spool.for_strangers.available_permits(), spool.room.available_permits()), (5, 10));
        assert_eq!(Spool::new(LIMIT, 5 * PAGE).for_strangers.available_permits(), 4, "one always fits");
    }

    #[tokio::test]
    async fn a_body_that_stands_still_is_given_up() {
        let spool = Spool { standstill: Duration::from_millis(10), ..Spool::new(LIMIT, LIMIT) };
        let some = futures_util::stream::iter([Ok(Bytes::from(vec![b'x'; 2 * PAGE]))]);
        let mut pieces = some.chain(futures_util::stream::pending());
        let read = tokio::time::timeout(LINGER, spool.collect(&mut pieces, None, false)).await.expect("in time");
        assert_eq!(read.unwrap_err().code, Code::InvalidRequest);
        assert_eq!((spool.for_strangers.available_permits(), spool.room.available_permits()), (4, 4));
    }

    #[tokio::test]
    async fn large_bodies_share_the_room_and_give_it_back() {
        let spool = Spool::new(LIMIT, 6 * PAGE);
        let small = take(&spool, &[10], Some(10)).await.unwrap();
        let pieced = take(&spool, &vec![1; PAGE], None).await.unwrap();
        assert_eq!((small.len(), pieced.len(), spool.room.available_permits()), (10, PAGE, 6));
        let large = take(&spool, &[PAGE, PAGE, PAGE, 1], Some(3 * PAGE + 1)).await.unwrap();
        assert_eq!((large.len(), spool.room.available_permits()), (3 * PAGE + 1, 2));
        // Whoever has a part of it keeps it all.
        let part = large.slice(5..6);
        drop(large);
        assert_eq!(take(&spool, &[PAGE, PAGE, 1], None).await, Err(Code::Overloaded));
        assert_eq!(spool.room.available_permits(), 2, "what came in vain takes up no room");
        drop(part);
        assert_eq!(take(&spool, &[LIMIT], Some(LIMIT)).await.unwrap().len(), LIMIT);
        assert_eq!(take(&spool, &[LIMIT, 1], None).await, Err(Code::PayloadTooLarge));
        assert_eq!(spool.room.available_permits(), 6);
        assert_eq!(Spool::new(LIMIT, 1).room.available_permits(), 4, "one always fits");
        assert_eq!(take(&spool, &[], Some(0)).await.unwrap().len(), 0);
    }

    /// A body is where its own buffer put it: as large as it was declared, and copied once.
    #[tokio::test]
    async fn a_buffer_does_not_grow() {
        for declared in [Some(3 * PAGE), None] {
            let spool = Spool::new(LIMIT, LIMIT);
            let (mut bytes, mut room) = (Vec::with_capacity(declared.unwrap_or(LIMIT)), Room::new(true));
            let at = bytes.as_ptr();
            for _ in 0..3 {
                spool.add(&mut bytes, &mut room, &[b'x'; PAGE]).unwrap();
            }
            assert_eq!((bytes.as_ptr(), bytes.len()), (at, 3 * PAGE));
        }
    }
}
