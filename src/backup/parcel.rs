//! Several named things in one stream: the length of the name (16 bits), the name, the length of the
//! content (64 bits), the content. All big-endian. An empty name ends it.

use std::io::{self, Read, Write};

/// Longest thing that is read into memory.
const SMALL: u64 = 1024 * 1024;

/// Writes a parcel.
pub(super) struct Packer<W> {
    out: W,
}

impl<W: Write> Packer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let length = u64::try_from(content.len()).map_err(io::Error::other)?;
        self.add_from(name, length, &mut &content[..])
    }

    /// Adds exactly this many bytes.
    pub(super) fn add_from(&mut self, name: &str, length: u64, content: &mut impl Read) -> io::Result<()> {
        self.out.write_all(&u16::try_from(name.len()).map_err(io::Error::other)?.to_be_bytes())?;
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&length.to_be_bytes())?;
        let copied = io::copy(&mut content.take(length), &mut self.out)?;
        if copied == length { Ok(()) } else { Err(io::Error::other("a file became shorter while it was read")) }
    }

    pub(super) fn end(mut self) -> io::Result<W> {
        self.out.write_all(&[0, 0])?;
        Ok(self.out)
    }
}

/// Reads a parcel.
pub(super) struct Unpacker<R> {
    from: R,
}

impl<R: Read> Unpacker<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from }
    }

    /// Name and length of what comes next; its content has to be read before the next one.
    pub(super) fn next(&mut self) -> io::Result<Option<(String, u64)>> {
        let mut length = [0; 2];
        self.from.read_exact(&mut length)?;
        let mut name = vec![0; usize::from(u16::from_be_bytes(length))];
        if name.is_empty() {
            // Nothing may come behind the end; reading on also finds out whether the end is whole.
            let behind = self.from.read(&mut [0])?;
            return if behind == 0 { Ok(None) } else { Err(io::Error::other("something comes behind the end")) };
        }
        self.from.read_exact(&mut name)?;
        let mut length = [0; 8];
        self.from.read_exact(&mut length)?;
        let name = String::from_utf8(name).map_err(io::Error::other)?;
        Ok(Some((name, u64::from_be_bytes(length))))
    }

    /// The content, where it is text and not long.
    pub(super) fn text(&mut self, length: u64) -> io::Result<String> {
        if length > SMALL {
            return Err(io::Error::other("it is too long"));
        }
        let mut text = String::new();
        (&mut self.from).take(length).read_to_string(&mut text)?;
        Ok(text)
    }

    pub(super) fn copy(&mut self, length: u64, to: &mut impl Write) -> io::Result<()> {
        let copied = io::copy(&mut (&mut self.from).take(length), to)?;
        if copied == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_out_in_order_and_nothing_else() {
        let mut packer = Packer::new(Vec::new());
        packer.add("one", b"1").unwrap();
        packer.add_from("two", 3, &mut &b"222 and more"[..]).unwrap();
        assert!(packer.add_from("three", 3, &mut &b"3"[..]).is_err());
        let mut packer = Packer::new(Vec::new());
        packer.add("one", b"1").unwrap();
        packer.add_from("two", 3, &mut &b"222"[..]).unwrap();
        let bytes = packer.end().unwrap();
        let mut unpacker = Unpacker::new(&bytes[..]);
        assert_eq!(unpacker.next().unwrap(), Some(("one".to_owned(), 1)));
        assert_eq!(unpacker.text(1).unwrap(), "1");
        assert_eq!(unpacker.next().unwrap(), Some(("two".to_owned(), 3)));
        let mut copy = Vec::new();
        unpacker.copy(3, &mut copy).unwrap();
        assert_eq!(copy, b"222");
        assert_eq!(unpacker.next().unwrap(), None);
        assert!(Unpacker::new(&[0, 0, 9][..]).next().is_err());
        assert!(Unpacker::new(&[0][..]).next().is_err());
    }
}
