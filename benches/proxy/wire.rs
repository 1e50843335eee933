//! Just enough HTTP/1.1 to generate load without being the bottleneck: keep-alive connections,
//! requests made beforehand, answers looked at and not parsed. It knows the servers it talks to:
//! header names come in lower case, and every answer says how long it is.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    read: BytesMut,
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub status: u16,
    /// `None`: chunked.
    pub length: Option<usize>,
}

/// A whole answer.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: BytesMut,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: BytesMut::with_capacity(64 * 1024) })
    }

    pub async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await
    }

    /// Sends a request and waits for the end of the answer, without keeping it.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        self.send(request).await?;
        let head = self.head().await?.1;
        match head.length {
            Some(length) => self.skip(length).await?,
            None => self.skip_chunks().await?,
        }
        Ok(head.status)
    }

    /// Sends a request and keeps the answer.
    pub async fn fetch(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.send(request).await?;
        let (head, Head { status, length }) = self.head().await?;
        let mut body = BytesMut::new();
        if let Some(length) = length {
            while self.read.len() < length {
                self.more().await?;
            }
            body = self.read.split_to(length);
        } else {
            while let Some(chunk) = self.chunk().await? {
                body.extend_from_slice(&chunk);
            }
        }
        Ok(Answer { status, head, body })
    }

    /// The head of the next answer, as text and as far as it matters.
    pub async fn head(&mut self) -> io::Result<(String, Head)> {
        let end = self.find(b"\r\n\r\n").await?;
        let head = self.read.split_to(end + 4);
        let status = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let length = memmem::find(&head, b"content-length: ").map(|at| number(&head[at + 16..], 10));
        let head_text = String::from_utf8_lossy(&head).into_owned();
        Ok((head_text, Head { status: status.ok_or_else(|| broken("status"))?, length }))
    }

    /// The next chunk of a chunked body; `None` at its end, trailers included.
    pub async fn chunk(&mut self) -> io::Result<Option<BytesMut>> {
        let line = self.find(b"\r\n").await?;
        let size = number(&self.read[..line], 16);
        self.read.advance(line + 2);
        if size == 0 {
            loop {
                let line = self.find(b"\r\n").await?;
                self.read.advance(line + 2);
                if line == 0 {
                    return Ok(None);
                }
            }
        }
        while self.read.len() < size + 2 {
            self.more().await?;
        }
        let chunk = self.read.split_to(size);
        self.read.advance(2);
        Ok(Some(chunk))
    }

    async fn skip(&mut self, length: usize) -> io::Result<()> {
        let mut left = length;
        loop {
            let here = left.min(self.read.len());
            self.read.advance(here);
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.more().await?;
        }
    }

    async fn skip_chunks(&mut self) -> io::Result<()> {
        while self.chunk().await?.is_some() {}
        Ok(())
    }

    async fn find(&mut self, mark: &[u8]) -> io::Result<usize> {
        loop {
            match memmem::find(&self.read, mark) {
                Some(at) => return Ok(at),
                None => self.more().await?,
            }
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        if self.read.capacity() - self.read.len() < 4096 {
            self.read.reserve(64 * 1024);
        }
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(broken("end of connection")),
            _ => Ok(()),
        }
    }
}

/// The number at the start of `text`.
fn number(text: &[u8], radix: u32) -> usize {
    let digits = text.iter().map_while(|byte| char::from(*byte).to_digit(radix));
    digits.fold(0, |sum, digit| sum * radix as usize + digit as usize)
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected {what} in an answer"))
}

/// The bytes of a request with a JSON body.
pub fn post(path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The bytes of a request without a body.
pub fn get(path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\n{headers}\r\n").into_bytes()
}
