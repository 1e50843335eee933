//! Nostr relays: a real one in this process, and one that misbehaves as it is told.

use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use nostr_relay_builder::LocalRelay;
use nostr_relay_builder::builder::{RelayBuilder, RelayBuilderNip42, RelayBuilderNip42Mode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// A relay as the world runs them.
pub struct RealRelay {
    relay: LocalRelay,
    url: String,
}

impl RealRelay {
    pub async fn start() -> Self {
        Self::with(RelayBuilder::default()).await
    }

    /// One that talks to nobody whom it does not know (NIP-42).
    pub async fn with_auth() -> Self {
        Self::with(RelayBuilder::default().nip42(RelayBuilderNip42 { mode: RelayBuilderNip42Mode::Both })).await
    }

    async fn with(builder: RelayBuilder) -> Self {
        let relay = LocalRelay::new(builder);
        relay.run().await.expect("a relay");
        let url = relay.url().await.to_string().trim_end_matches('/').to_owned();
        Self { relay, url }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// What anybody finds there.
    pub async fn find(&self, filter: Value) -> Vec<Value> {
        ask(&self.url, filter).await
    }

    /// Puts an event there.
    pub async fn put(&self, event: &impl nostr::JsonUtil) {
        let event: Value = serde_json::from_str(&event.as_json()).unwrap();
        let said = talk(&self.url, json!(["EVENT", event]), |answer| answer[0] == "OK").await;
        assert_eq!(said.last().unwrap()[2], true, "{said:?}");
    }

    pub fn stop(&self) {
        self.relay.shutdown();
    }
}

/// Asks a relay, by hand.
pub async fn ask(url: &str, filter: Value) -> Vec<Value> {
    let answers = talk(url, json!(["REQ", "q", filter]), |answer| answer[0] == "EOSE" || answer[0] == "CLOSED").await;
    answers.into_iter().filter(|answer| answer[0] == "EVENT").map(|answer| answer[2].clone()).collect()
}

async fn talk(url: &str, message: Value, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let address = url.strip_prefix("ws://").expect("a relay on loopback");
    let stream = TcpStream::connect(address).await.expect("the relay listens");
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.expect("a WebSocket");
    socket.send(Message::text(message.to_string())).await.unwrap();
    let mut answers = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let answer: Value = serde_json::from_str(text.as_str()).unwrap();
        let ends = is_last(&answer);
        answers.push(answer);
        if ends {
            break;
        }
    }
    answers
}

/// How a fake answers.
#[derive(Clone, Debug)]
pub enum Manner {
    /// `OK` false to every event, in these words.
    Refuse(&'static str),
    /// `OK` true, for events that nobody sent.
    Confuse,
    /// Takes everything and says nothing.
    Silent,
    /// Hangs up at the first word.
    Drop,
    /// Events without end, to every question.
    Flood(Vec<String>),
    /// These events, to every question, and `OK` true to every event.
    Give(Vec<String>),
    /// The same, and when the last question of those who look for nodes is answered, what follows.
    Answer(Vec<String>, Then),
    /// One message that is larger than any may be.
    Shout,
    /// Asks who is there at once, though it needs not know, and says `OK` true to everything.
    Curious,
    /// Asks who is there, and accepts no answer.
    Unforgiving,
    /// These texts as they are, whatever is asked.
    Parrot(Vec<String>),
}

/// What becomes of a conversation that has begun well.
#[derive(Clone, Debug)]
pub enum Then {
    /// It is over.
    HangUp,
    /// The questions are closed, in these words.
    Close(&'static str),
    /// These events without end, as if they had just come.
    Flood(Vec<String>),
}

/// A relay that misbehaves.
pub struct FakeRelay {
    url: String,
    state: Arc<State>,
}

struct State {
    manner: Mutex<Manner>,
    document: Mutex<Option<String>>,
    heard: Mutex<Vec<Value>>,
}

impl FakeRelay {
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let state = Arc::new(State { manner: Mutex::new(manner), document: Mutex::default(), heard: Mutex::default() });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move { serve(stream, &state).await });
            }
        });
        Self { url, state }
    }

    /// Describes itself so (NIP-11).
    pub fn describe(&self, document: &str) {
        *self.state.document.lock().unwrap() = Some(document.to_owned());
    }

    pub fn behave(&self, manner: Manner) {
        *self.state.manner.lock().unwrap() = manner;
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// What it was sent of this type, in order.
    pub fn heard(&self, kind: &str) -> Vec<Value> {
        self.state.heard.lock().unwrap().iter().filter(|message| message[0] == kind).cloned().collect()
    }

    /// The listings that it was sent.
    pub fn listings(&self) -> Vec<Value> {
        let events = self.heard("EVENT").into_iter().map(|message| message[1].clone());
        events.filter(|event| event["kind"] == 38421).collect()
    }
}

async fn serve(mut stream: TcpStream, state: &State) {
    let mut start = [0_u8; 2048];
    let read = stream.peek(&mut start).await.unwrap_or(0);
    let request = String::from_utf8_lossy(&start[..read]).to_ascii_lowercase();
    if !request.contains("sec-websocket-key") {
        let document = state.document.lock().unwrap().clone();
        let status = if document.is_some() { "200 OK" } else { "404 Not Found" };
        let body = document.unwrap_or_default();
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        let _read = stream.read(&mut start).await;
        stream.write_all(answer.as_bytes()).await.ok();
        return;
    }
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    greet(&mut socket, state).await;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let Ok(message) = serde_json::from_str::<Value>(text.as_str()) else { continue };
        state.heard.lock().unwrap().push(message.clone());
        let manner = state.manner.lock().unwrap().clone();
        if answer(&mut socket, &manner, &message).await.is_none() {
            return;
        }
    }
}

async fn greet(socket: &mut WebSocketStream<TcpStream>, state: &State) {
    let asks = matches!(*state.manner.lock().unwrap(), Manner::Curious | Manner::Unforgiving);
    if asks {
        say(socket, json!(["AUTH", "a challenge"])).await;
    }
}

async fn say(socket: &mut WebSocketStream<TcpStream>, message: Value) -> Option<()> {
    socket.send(Message::text(message.to_string())).await.ok()
}

async fn ok(socket: &mut WebSocketStream<TcpStream>, event: &Value, status: bool, words: &str) -> Option<()> {
    say(socket, json!(["OK", event["id"], status, words])).await
}

/// `None`: it has hung up.
async fn answer(socket: &mut WebSocketStream<TcpStream>, manner: &Manner, message: &Value) -> Option<()> {
    let is_question = message[0] == "REQ";
    let is_event = message[0] == "EVENT" || message[0] == "AUTH";
    match manner {
        Manner::Drop => None,
        Manner::Silent => Some(()),
        Manner::Refuse(words) if is_event => ok(socket, &message[1], false, words).await,
        Manner::Refuse(words) if is_question => say(socket, json!(["CLOSED", message[1], words])).await,
        Manner::Unforgiving if is_event => {
            let words = if message[0] == "AUTH" { "restricted: not you" } else { "auth-required: who are you?" };
            ok(socket, &message[1], false, words).await
        }
        Manner::Confuse if is_event => {
            let other = json!({ "id": "0".repeat(64) });
            ok(socket, &other, true, "").await
        }
        Manner::Shout => {
            let shout = json!(["NOTICE", "x".repeat(1024 * 1024)]);
            say(socket, shout).await
        }
        Manner::Flood(events) if is_question => loop {
            for event in events {
                socket.send(Message::text(format!("[\"EVENT\",{},{event}]", message[1]))).await.ok()?;
            }
        },
        Manner::Give(events) if is_question => {
            for event in events {
                socket.send(Message::text(format!("[\"EVENT\",{},{event}]", message[1]))).await.ok()?;
            }
            say(socket, json!(["EOSE", message[1]])).await
        }
        Manner::Answer(events, then) if is_question => {
            for event in events {
                socket.send(Message::text(format!("[\"EVENT\",{},{event}]", message[1]))).await.ok()?;
            }
            say(socket, json!(["EOSE", message[1]])).await?;
            if message[1] == "reviews" { follow(socket, then).await } else { Some(()) }
        }
        Manner::Parrot(texts) => {
            for text in texts {
                socket.send(Message::text(text.clone())).await.ok()?;
            }
            Some(())
        }
        _ if is_event => ok(socket, &message[1], true, "").await,
        _ if is_question => say(socket, json!(["EOSE", message[1]])).await,
        _ => Some(()),
    }
}

async fn follow(socket: &mut WebSocketStream<TcpStream>, then: &Then) -> Option<()> {
    match then {
        Then::HangUp => None,
        Then::Close(words) => {
            for question in ["listings", "recommendations", "reviews"] {
                say(socket, json!(["CLOSED", question, words])).await?;
            }
            Some(())
        }
        Then::Flood(events) => loop {
            for event in events {
                socket.send(Message::text(format!("[\"EVENT\",\"listings\",{event}]"))).await.ok()?;
            }
        },
    }
}
