//! Outbound proxies that count who came through: HTTP and SOCKS5.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A proxy; serves until it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    /// For each connection, what it asked for: the head of an HTTP request, or a SOCKS address.
    heard: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
}

impl Proxy {
    /// Understands plain HTTP requests with a whole address in them.
    pub async fn http() -> Self {
        Self::serve(|client, heard| Box::pin(http(client, heard))).await
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
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(handle(client, noted.clone()));
            }
        });
        Self { address, heard, server }
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

async fn http(mut client: TcpStream, heard: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 4096];
        match client.read(&mut piece).await.ok()? {
            0 => return None,
            read => head.extend_from_slice(&piece[..read]),
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let target = text.split_whitespace().nth(1)?.strip_prefix("http://")?.split('/').next()?.to_owned();
    heard.lock().expect("heard").push(text);
    let mut server = TcpStream::connect(target).await.ok()?;
    server.write_all(&head).await.ok()?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok().map(|_| ())
}

async fn socks5(mut client: TcpStream, heard: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let methods = { [client.read_u8().await.ok()?, client.read_u8().await.ok()?][1] };
    client.read_exact(&mut vec![0; methods.into()]).await.ok()?;
    client.write_all(&[5, 0]).await.ok()?;
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
    heard.lock().expect("heard").push(format!("{kind} {host}:{port}"));
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok().map(|_| ())
}
