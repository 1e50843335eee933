//! A body in pieces, so that an edit does not copy what it leaves alone.

use std::ops::Range;

use bytes::Bytes;

/// A body shorter than this is made one piece: that is cheaper to send.
const SMALL: usize = 64 * 1024;

/// A body. What it is made of is shared, not copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    first: Bytes,
    rest: Vec<Bytes>,
}

impl From<Bytes> for Pieces {
    fn from(first: Bytes) -> Self {
        Self { first, rest: Vec::new() }
    }
}

impl Pieces {
    /// `source` with these edits, which are in order and do not overlap.
    pub(super) fn spliced(source: &Bytes, edits: &[(Range<usize>, String)]) -> Self {
        let part = |range: Range<usize>| match source.get(range.clone()) {
            Some(_) => source.slice(range),
            None => Bytes::new(),
        };
        let mut all = Vec::with_capacity(edits.len().saturating_mul(2).saturating_add(1));
        let mut at = 0;
        for (range, text) in edits {
            all.push(part(at..range.start));
            all.push(Bytes::copy_from_slice(text.as_bytes()));
            at = range.end;
        }
        all.push(part(at..source.len()));
        all.retain(|piece| !piece.is_empty());
        let pieces = Self { first: Bytes::new(), rest: all };
        if source.len() < SMALL { pieces.joined().into() } else { pieces }
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.rest.iter().fold(self.first.len(), |sum, piece| sum.saturating_add(piece.len()))
    }

    /// The one piece that it is.
    ///
    /// # Errors
    /// Itself, when it has several.
    pub fn single(self) -> Result<Bytes, Self> {
        if self.rest.is_empty() { Ok(self.first) } else { Err(self) }
    }

    /// All of it in one piece, which is a copy where it is none yet.
    #[must_use]
    pub fn joined(&self) -> Bytes {
        if self.rest.is_empty() {
            return self.first.clone();
        }
        let mut all = Vec::with_capacity(self.size());
        all.extend_from_slice(&self.first);
        self.rest.iter().for_each(|piece| all.extend_from_slice(piece));
        all.into()
    }
}

impl IntoIterator for Pieces {
    type Item = Bytes;
    type IntoIter = std::iter::Chain<std::iter::Once<Bytes>, std::vec::IntoIter<Bytes>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.first).chain(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_body_is_shared_and_a_short_one_is_one_piece() {
        let edits = [(2..4, "x".to_owned()), (6..6, "yz".to_owned())];
        let short = Bytes::from_static(b"0123456789");
        assert_eq!(Pieces::spliced(&short, &edits).single().unwrap(), "01x45yz6789");
        let long = Bytes::from(vec![b'a'; SMALL]);
        let pieces = Pieces::spliced(&long, &edits);
        assert_eq!((pieces.size(), pieces.joined().len()), (SMALL + 1, SMALL + 1));
        let all: Vec<Bytes> = pieces.clone().into_iter().filter(|piece| !piece.is_empty()).collect();
        let at = |piece: usize| all[piece].as_ptr().addr() - long.as_ptr().addr();
        assert_eq!((all.len(), at(0), at(2), at(4)), (5, 0, 4, 6), "nothing of it was copied");
        assert!(pieces.single().is_err());
    }
}
