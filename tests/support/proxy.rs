//! Outbound proxies that count who came through: HTTP, plain and over TLS, and SOCKS5.
//!
//! What speaks TLS here does so with a key that anybody can read, in a certificate for `localhost` that only
//! [`AUTHORITY`] vouches for.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A proxy; serves until it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    /// For each connection, what it asked for: the head of an HTTP request, or a SOCKS address.
    heard: Arc<Mutex<Vec<String>>>,
    /// Connections that are still hung up on.
    hang_ups: Arc<AtomicUsize>,
    /// Connections that came in.
    calls: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Proxy {
    /// Understands plain HTTP requests with a whole address in them.
    pub async fn http() -> Self {
        Self::serve(|client, heard| Box::pin(http(client, heard))).await
    }

    /// Understands CONNECT, over TLS.
    pub async fn https() -> Self {
        let tls = acceptor();
        Self::serve(move |client, heard| {
            let tls = tls.clone();
            Box::pin(async move { http(tls.accept(client).await.ok()?, heard).await })
        })
        .await
    }

    /// TLS in front of a plain server.
    pub async fn tls_to(target: SocketAddr) -> Self {
        let tls = acceptor();
        Self::serve(move |client, heard| {
            let tls = tls.clone();
            Box::pin(async move {
                let mut client = tls.accept(client).await.ok()?;
                heard.lock().expect("heard").push("a handshake".to_owned());
                let mut server = TcpStream::connect(target).await.ok()?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok().map(|_| ())
            })
        })
        .await
    }

    /// Understands SOCKS5 without a password.
    pub async fn socks5() -> Self {
        Self::serve(|client, heard| Box::pin(socks5(client, heard))).await
    }

    async fn serve(
        handle: impl Fn(TcpStream, Arc<Mutex<Vec<String>>>) -> std::pin::Pin<Box<dyn Future<Output = Option<()>> + Send>>
        + Send
        + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("address");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let noted = heard.clone();
        let (hang_ups, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (left, count) = (hang_ups.clone(), calls.clone());
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let hang_up = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                if hang_up.is_err() {
                    tokio::spawn(handle(client, noted.clone()));
                }
            }
        });
        Self { address, heard, hang_ups, calls, server }
    }

    /// Hangs up on so many connections before they lead anywhere.
    pub fn hang_up(&self, times: usize) {
        self.hang_ups.store(times, Ordering::SeqCst);
    }

    /// How many connections came in.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("heard").clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What vouches for the certificate of the servers here.
pub const AUTHORITY: &str = include_str!("tls/ca.pem");

fn acceptor() -> TlsAcceptor {
    coinslot::net::install_crypto();
    let chain = CertificateDer::from_pem_slice(include_bytes!("tls/cert.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/key.pem")).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![chain], key);
    TlsAcceptor::from(Arc::new(config.expect("they belong together")))
}

async fn http(mut client: impl AsyncRead + AsyncWrite + Unpin, heard: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 4096];
        match client.read(&mut piece).await.ok()? {
            0 => return None,
            read => head.extend_from_slice(&piece[..read]),
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let (method, asked) = (text.split_whitespace().next()?, text.split_whitespace().nth(1)?);
    let is_tunnel = method == "CONNECT";
    let target = asked.trim_start_matches("http://").split('/').next()?.to_owned();
    heard.lock().expect("heard").push(text);
    let mut server = TcpStream::connect(target).await.ok()?;
    if is_tunnel {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
    } else {
        server.write_all(&head).await.ok()?;
    }
    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok().map(|_| ())
}

async fn socks5(mut client: TcpStream, heard: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let count = { [client.read_u8().await.ok()?, client.read_u8().await.ok()?][1] };
    let mut methods = vec![0; count.into()];
    client.read_exact(&mut methods).await.ok()?;
    // Who says who it is may do so; nobody's password is looked at.
    let user = if methods.contains(&2) {
        client.write_all(&[5, 2]).await.ok()?;
        client.read_u8().await.ok()?;
        let mut user = vec![0; client.read_u8().await.ok()?.into()];
        client.read_exact(&mut user).await.ok()?;
        let mut password = vec![0; client.read_u8().await.ok()?.into()];
        client.read_exact(&mut password).await.ok()?;
        client.write_all(&[1, 0]).await.ok()?;
        format!("{} ", String::from_utf8(user).ok()?)
    } else {
        client.write_all(&[5, 0]).await.ok()?;
        String::new()
    };
    let mut request = [0; 4];
    client.read_exact(&mut request).await.ok()?;
    let (kind, host) = match request[3] {
        1 => {
            let mut ip = [0; 4];
            client.read_exact(&mut ip).await.ok()?;
            ("ip", Ipv4Addr::from(ip).to_string())
        }
        3 => {
            let mut name = vec![0; client.read_u8().await.ok()?.into()];
            client.read_exact(&mut name).await.ok()?;
            ("name", String::from_utf8(name).ok()?)
        }
        _ => {
            let mut ip = [0; 16];
            client.read_exact(&mut ip).await.ok()?;
            ("ip", "127.0.0.1".to_owned())
        }
    };
    let port = client.read_u16().await.ok()?;
    heard.lock().expect("heard").push(format!("{user}{kind} {host}:{port}"));
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok().map(|_| ())
}
