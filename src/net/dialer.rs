//! WebSockets (RFC 6455), opened over the same clients as everything else: the same TLS, no redirect,
//! no proxy from the environment.
//!
//! What the other side sends is bounded: each message, and all of a connection together.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use url::Url;

use super::way::Way;
use super::{ClientOptions, NetError, check_url, client, read_limited};

/// How long the other side has to read that nothing more comes.
const FAREWELL: Duration = Duration::from_secs(2);

/// Makes connections for one purpose.
#[derive(Clone, Debug)]
pub struct Dialer {
    client: reqwest::Client,
    way: Way,
}

/// How much a server may say.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// In one message.
    pub message: usize,
    /// On one connection.
    pub total: usize,
}

/// An open WebSocket.
pub struct Socket {
    stream: WebSocketStream<reqwest::Upgraded>,
    /// What may still come.
    left: usize,
}

impl Dialer {
    /// # Errors
    /// When there can be no HTTP client.
    pub fn new(options: &ClientOptions) -> Result<Self, NetError> {
        // A connection is taken over whole, so there is none to keep.
        let options = ClientOptions { http1_only: true, idle_per_host: 0, ..options.clone() };
        Ok(Self { client: client(&options)?, way: options.way })
    }

    /// Opens a WebSocket to `ws://` or `wss://`.
    ///
    /// # Errors
    /// [`NetError::Address`] where this node does not go; otherwise why there is none.
    pub async fn socket(&self, url: &Url, bounds: Bounds) -> Result<Socket, NetError> {
        let url = self.over_http(url)?;
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        let request = self.client.get(url).header("connection", "Upgrade").header("upgrade", "websocket");
        let request = request.header("sec-websocket-version", "13").header("sec-websocket-key", &key);
        let response = request.send().await?;
        let accepted = response.headers().get("sec-websocket-accept").map(|value| value.as_bytes().to_vec());
        let expected = derive_accept_key(key.as_bytes());
        if response.status().as_u16() != 101 || accepted.as_deref() != Some(expected.as_bytes()) {
            return Err(NetError::Other("the server opens no WebSocket"));
        }
        let upgraded = response.upgrade().await?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(bounds.message))
            .max_frame_size(Some(bounds.message))
            .max_write_buffer_size(1024 * 1024);
        let stream = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
        Ok(Socket { stream, left: bounds.total })
    }

    /// Asks as a browser does before a script of `origin` may send a paid request.
    ///
    /// # Errors
    /// As for any request, and when the answer is no success.
    pub async fn preflight(&self, url: &Url, origin: &str) -> Result<Headers, NetError> {
        let request = self.client.request(reqwest::Method::OPTIONS, self.over_http(url)?).header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        let request = request.header("access-control-request-headers", "authorization,content-type,x-cashu");
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(NetError::Other("the server answered with an error"));
        }
        let text = |value: &reqwest::header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        Ok(response.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect())
    }

    /// What is at the same address over plain HTTP, of this media type.
    ///
    /// # Errors
    /// As for any request, and when the answer is no success or longer than `max_bytes`.
    pub async fn document(&self, url: &Url, accept: &str, max_bytes: usize) -> Result<Document, NetError> {
        let response = self.client.get(self.over_http(url)?).header("accept", accept).send().await?;
        if !response.status().is_success() {
            return Err(NetError::Other("the server answered with an error"));
        }
        let date = response.headers().get("date").and_then(|date| date.to_str().ok()).map(str::to_owned);
        Ok(Document { body: read_limited(response, max_bytes).await?, date })
    }

    /// The address at which the WebSocket is asked for.
    fn over_http(&self, url: &Url) -> Result<Url, NetError> {
        let url = over_http(url)?;
        self.way.check(&url)?;
        Ok(url)
    }
}

/// Headers by their lower-case names.
pub type Headers = BTreeMap<String, String>;

/// An answer, and when its server says that it was sent.
#[derive(Clone, Debug)]
pub struct Document {
    pub body: Bytes,
    pub date: Option<String>,
}

fn over_http(url: &Url) -> Result<Url, NetError> {
    let mut url = url.clone();
    let scheme = match url.scheme() {
        "wss" | "https" => "https",
        "ws" | "http" => "http",
        _ => return Err(NetError::Address("the address must begin with wss://")),
    };
    url.set_scheme(scheme).map_err(|()| NetError::Address("the address cannot be read"))?;
    check_url(&url)?;
    Ok(url)
}

impl Socket {
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&mut self, text: String) -> Result<(), NetError> {
        self.stream.send(Message::text(text)).await.map_err(|error| broken(&error))
    }

    /// The next text; `None`: the other side has closed.
    ///
    /// # Errors
    /// [`NetError::TooLarge`] when it says more than it may; otherwise what broke.
    pub async fn next(&mut self) -> Result<Option<String>, NetError> {
        loop {
            let message = match self.stream.next().await {
                None | Some(Ok(Message::Close(_))) => return Ok(None),
                Some(Ok(message)) => message,
                Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => return Ok(None),
                Some(Err(error)) => return Err(broken(&error)),
            };
            // Even an empty one costs something.
            let size = message.len().saturating_add(16);
            self.left = self.left.checked_sub(size).ok_or(NetError::Other("the server sends more than it may"))?;
            if let Message::Text(text) = message {
                return Ok(Some(text.as_str().to_owned()));
            }
        }
    }

    /// Says that nothing more comes. Does not wait for an answer, nor long for one that reads nothing.
    pub async fn close(mut self) {
        say_goodbye(&mut self.stream, FAREWELL).await;
    }
}

async fn say_goodbye<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut WebSocketStream<S>, patience: Duration) {
    match tokio::time::timeout(patience, stream.close(None)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => tracing::trace!("a WebSocket was closed by the other side first"),
        Err(_) => tracing::trace!("the other side of a WebSocket does not read"),
    }
}

fn broken(error: &Error) -> NetError {
    match error {
        Error::Capacity(_) => NetError::Other("the server sends more than it may"),
        _ => NetError::Other("the connection broke off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_does_not_read_holds_nobody_at_the_end() {
        let (ours, theirs) = tokio::io::duplex(1);
        let mut socket = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        let farewell = say_goodbye(&mut socket, Duration::from_millis(50));
        tokio::time::timeout(Duration::from_secs(10), farewell).await.expect("it ends");
        drop(theirs);
    }

    #[test]
    fn plain_connections_stay_on_the_machine_and_onions_need_tor() {
        let (outside, inside) = (
            Dialer::new(&ClientOptions::default()).unwrap(),
            Dialer::new(&ClientOptions {
                way: Way::through("socks5h://127.0.0.1:9".parse().unwrap(), "relays", false),
                ..ClientOptions::default()
            })
            .unwrap(),
        );
        for (text, ok) in [
            ("wss://relay.example/", true),
            ("ws://127.0.0.1:7777", true),
            ("https://relay.example/", true),
            ("ws://relay.example/", false),
            ("ws://10.0.0.1/", false),
            ("wss://user@relay.example/", false),
            ("ftp://127.0.0.1/", false),
        ] {
            let url = text.parse().unwrap();
            assert_eq!(outside.over_http(&url).is_ok(), ok, "{text}");
            assert_eq!(inside.over_http(&url).is_ok(), ok, "{text}");
        }
        for onion in ["ws://abcdef.onion/", "wss://abcdef.onion/"] {
            let url = onion.parse().unwrap();
            assert!(matches!(outside.over_http(&url), Err(NetError::Address(_))), "{onion}");
            assert!(inside.over_http(&url).is_ok(), "{onion}");
        }
    }
}
