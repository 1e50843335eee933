//! A body on its way to an upstream, piece by piece, with its length told in advance.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::dialect::Pieces;

struct Sending {
    pieces: <Pieces as IntoIterator>::IntoIter,
    left: u64,
}

/// The body of a request.
pub(super) fn body(pieces: Pieces) -> reqwest::Body {
    match pieces.single() {
        Ok(only) => only.into(),
        Err(pieces) => {
            let left = u64::try_from(pieces.size()).unwrap_or(u64::MAX);
            reqwest::Body::wrap(Sending { pieces: pieces.into_iter(), left })
        }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.find(|piece| !piece.is_empty());
        if let Some(piece) = &piece {
            self.left = self.left.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
