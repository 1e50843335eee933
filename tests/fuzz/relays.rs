//! What a relay sends, over a WebSocket, to who asks it for the listings of others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use coinslot::clock::SystemClock;
use coinslot::net::dialer::Dialer;
use coinslot::net::public::Reach;
use coinslot::net::{ClientOptions, install_crypto};
use coinslot::nostr::limits::Limits;
use coinslot::nostr::provider::{MAX_EVENT, Opinion, Provider};
use coinslot::nostr::{Caller, Identity};
use futures_util::{SinkExt, StreamExt};
use nostr::{Filter, JsonUtil};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::Message;

use crate::engine::{kind, order};

const NOW: i64 = 1_800_000_000;
const MOST: usize = 5;

/// A relay that answers every question with the same lines, and hangs up.
struct Parrot {
    runtime: Runtime,
    url: String,
    caller: Caller,
    says: Arc<Mutex<Vec<String>>>,
}

impl Parrot {
    fn start() -> Self {
        install_crypto();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let says: Arc<Mutex<Vec<String>>> = Arc::default();
        let lines = Arc::clone(&says);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let lines = lines.lock().unwrap().clone();
                tokio::spawn(async move {
                    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                    socket.next().await;
                    for line in lines {
                        if socket.send(Message::text(line)).await.is_err() {
                            return;
                        }
                    }
                    socket.close(None).await.ok();
                });
            }
        });
        let caller = Caller {
            dialer: Dialer::new(&ClientOptions::default()).unwrap(),
            identity: Identity::throwaway().unwrap(),
            clock: Arc::new(SystemClock),
            patience: Duration::from_secs(4),
        };
        Self { runtime, url, caller, says }
    }
}

/// Whatever it sends, the conversation ends, no more is taken than was asked for, and what is kept of it
/// is small and on one line.
pub fn relay() -> impl Fn(&[u8]) -> u64 {
    let parrot = Parrot::start();
    move |input| {
        let text = String::from_utf8_lossy(input);
        *parrot.says.lock().unwrap() = text.lines().map(str::to_owned).collect();
        let _limits = Limits::read(input).results(MOST);
        let talk = async {
            let mut relay = parrot.caller.open(&parrot.url).await?;
            let fetched = relay.follow("fuzz", Filter::new(), MOST).await?;
            let mut later = 0;
            while !fetched.is_flood
                && let Ok(event) = relay.next_event().await
            {
                check(&event);
                later += 1;
            }
            Ok((fetched, later))
        };
        match parrot.runtime.block_on(parrot.caller.within(talk)) {
            Ok((fetched, later)) => {
                assert!(fetched.events.len() <= MOST);
                let read: Vec<(u32, u32)> = fetched.events.iter().map(check).collect();
                kind(("fetched", fetched.is_flood, read, order(later)))
            }
            Err(error) => {
                let said = error.to_string();
                assert!(said.chars().count() <= 300 && !said.chars().any(char::is_control), "{said:?}");
                kind(std::mem::discriminant(&error))
            }
        }
    }
}

fn check(event: &nostr::Event) -> (u32, u32) {
    let size = event.as_json().len();
    if let Ok(provider) = Provider::read(event, NOW, Reach::Public) {
        assert!(size <= MAX_EVENT && provider.created_at <= NOW + 900);
        assert!(provider.expires_at.is_none_or(|end| end > NOW));
        assert!(provider.endpoint_urls.len() <= 8 && provider.mint_urls.len() <= 32);
        assert!(provider.endpoint_urls.iter().all(|url| url.len() <= 512 && url.starts_with("http")));
        for text in [&provider.name, &provider.description, &provider.version] {
            assert!(text.chars().count() <= 1_000 && !text.chars().any(char::is_control), "{text:?}");
        }
        return (1, order(provider.endpoint_urls.len() + provider.mint_urls.len()));
    }
    match Opinion::read(event, NOW) {
        Ok(opinion) => {
            assert!(opinion.about.chars().count() <= 256 && opinion.labels.len() <= 8);
            (2, order(opinion.labels.len()))
        }
        Err(why) => (3, u32::try_from(why.len()).unwrap()),
    }
}
