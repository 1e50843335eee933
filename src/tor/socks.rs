//! A SOCKS proxy on loopback that leads through the Tor inside this program.
//!
//! The HTTP client has no other door for connections that somebody else makes. It takes a password that is
//! made anew with each process, so nobody else on the machine gets to Tor, or to this node's circuits, by
//! it. The user name is what a connection is for, and each has circuits of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tor_socksproto::{Buffer, Handshake as _, NextStep, PreciseReads, SocksAuth, SocksCmd, SocksProxyHandshake};
use tor_socksproto::{SocksRequest, SocksStatus};
use url::Url;

use super::TorError;
use super::inside::{Client, Standing};
use crate::vault::hex;

/// For the words before a connection.
const GREETING: Duration = Duration::from_secs(5);
/// Pause after the system refused a connection (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// More than there are purposes; whoever knows the password is this process.
const MAX_NAMES: usize = 16;

/// Who may pass, and where it leads.
struct Door {
    password: String,
    client: watch::Receiver<Option<Standing>>,
    /// By purpose: the same client with circuits of its own.
    isolated: Mutex<HashMap<Vec<u8>, Client>>,
}

/// Opens it, and says where it is.
pub(super) async fn open(
    client: watch::Receiver<Option<Standing>>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Url, TorError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(TorError::Listen)?;
    let port = listener.local_addr().map_err(TorError::Listen)?.port();
    let password = hex(&rand::random::<[u8; 16]>());
    let url = Url::parse(&format!("socks5h://:{password}@127.0.0.1:{port}")).map_err(|_| TorError::Proxy)?;
    let door = Arc::new(Door { password, client, isolated: Mutex::default() });
    tasks.spawn(run(listener, door, tasks.clone(), stop.clone()));
    Ok(url)
}

async fn run(listener: TcpListener, door: Arc<Door>, tasks: TaskTracker, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (door, stop) = (Arc::clone(&door), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                ended = door.pass(stream) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection through Tor ended");
                    }
                }
                () = stop.cancelled() => {}
            }
        });
    }
}

impl Door {
    async fn pass(&self, mut local: TcpStream) -> std::io::Result<()> {
        local.set_nodelay(true)?;
        let greeting = tokio::time::timeout(GREETING, greet(&mut local)).await;
        let request = greeting.map_err(|_| std::io::Error::other("the greeting took too long"))??;
        let client = match self.admit(&request).await {
            Ok(client) => client,
            Err(status) => return answer(&mut local, &request, status).await,
        };
        let host = request.addr().to_string();
        // Whoever hangs up meanwhile does not want it any more.
        let mut nothing = [0; 1];
        let connected = tokio::select! {
            connected = client.connect((host.as_str(), request.port())) => connected,
            _ = local.peek(&mut nothing) => return Ok(()),
        };
        let mut far = match connected {
            Ok(far) => far,
            Err(error) => {
                // Without its address, which carries secrets in no case, and says whom this node deals with.
                tracing::debug!(kind = ?arti_client::HasKind::kind(&error), "no connection through Tor");
                return answer(&mut local, &request, SocksStatus::HOST_UNREACHABLE).await;
            }
        };
        answer(&mut local, &request, SocksStatus::SUCCEEDED).await?;
        match tokio::io::copy_bidirectional(&mut local, &mut far).await {
            Ok(_) => Ok(()),
            Err(error) if is_plain_end(&error) => local.shutdown().await,
            Err(error) => {
                // What was cut off must not look as if it were over.
                local.set_zero_linger()?;
                Err(error)
            }
        }
    }

    /// Who is sent where, or why not.
    async fn admit(&self, request: &SocksRequest) -> Result<Client, SocksStatus> {
        let SocksAuth::Username(name, password) = request.auth() else { return Err(SocksStatus::NOT_ALLOWED) };
        if !bool::from(password.ct_eq(self.password.as_bytes())) {
            return Err(SocksStatus::NOT_ALLOWED);
        }
        if request.command() != SocksCmd::CONNECT {
            return Err(SocksStatus::COMMAND_NOT_SUPPORTED);
        }
        let mut there = self.client.clone();
        // In a process that has just begun it may still be made.
        let there = tokio::time::timeout(GREETING, there.wait_for(Option::is_some)).await;
        let client = match there.ok().and_then(Result::ok).as_deref() {
            Some(Some(Ok(client))) => Arc::clone(client),
            _ => return Err(SocksStatus::NETWORK_UNREACHABLE),
        };
        let mut isolated = self.isolated.lock().unwrap_or_else(PoisonError::into_inner);
        if !isolated.contains_key(name) && isolated.len() >= MAX_NAMES {
            return Err(SocksStatus::NOT_ALLOWED);
        }
        Ok(Arc::clone(isolated.entry(name.clone()).or_insert_with(|| client.isolated_client())))
    }
}

async fn greet(local: &mut TcpStream) -> std::io::Result<SocksRequest> {
    let mut handshake = SocksProxyHandshake::new();
    let mut buffer = Buffer::<PreciseReads>::new_precise();
    loop {
        match handshake.step(&mut buffer).map_err(std::io::Error::other)? {
            NextStep::Send(data) => local.write_all(&data).await?,
            NextStep::Recv(mut step) => {
                let length = local.read(step.buf()).await?;
                step.note_received(length).map_err(std::io::Error::other)?;
            }
            NextStep::Finished(finished) => return finished.into_output().map_err(std::io::Error::other),
        }
    }
}

async fn answer(local: &mut TcpStream, request: &SocksRequest, status: SocksStatus) -> std::io::Result<()> {
    let reply = request.reply(status, None).map_err(std::io::Error::other)?;
    local.write_all(&reply).await
}

/// Onion services that are arti end every stream "for miscellaneous reasons".
fn is_plain_end(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<tor_proto::Error>());
    matches!(inner, Some(tor_proto::Error::EndReceived(reason)) if *reason == tor_cell::relaycell::msg::EndReason::MISC)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says these words to the door, and asks for a host in Tor. Gives the status of its reply.
    async fn knock(door: &Url, words: &[&[u8]]) -> u8 {
        let mut stream = TcpStream::connect(("127.0.0.1", door.port().unwrap())).await.unwrap();
        for word in words {
            stream.write_all(word).await.unwrap();
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).await.unwrap();
        }
        stream.write_all(b"\x05\x01\x00\x03\x09abc.onion\x00\x50").await.unwrap();
        let mut reply = [0; 10];
        stream.read_exact(&mut reply).await.unwrap();
        reply[1]
    }

    fn login(user: &str, password: &str) -> Vec<u8> {
        let mut words = vec![1, u8::try_from(user.len()).unwrap()];
        words.extend(user.as_bytes());
        words.push(u8::try_from(password.len()).unwrap());
        words.extend(password.as_bytes());
        words
    }

    #[tokio::test]
    async fn only_this_process_passes_and_without_tor_it_leads_nowhere() {
        let (_sender, client) = watch::channel(Some(Err("not there".to_owned())));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let door = open(client, &tasks, &stop).await.unwrap();
        let password = door.password().unwrap();
        assert_eq!((door.host_str(), password.len()), (Some("127.0.0.1"), 32));
        assert_eq!(knock(&door, &[b"\x05\x01\x00"]).await, 2, "nobody");
        let by_name: &[u8] = b"\x05\x01\x02";
        assert_eq!(knock(&door, &[by_name, &login("mints", "guessed")]).await, 2);
        assert_eq!(knock(&door, &[by_name, &login("mints", password)]).await, 3);
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }
}
