//! The node in a Tor network: its onion, asked by C tor, which shares no code with it; and mint, upstream and
//! relay that are nowhere but in Tor.
//!
//! `TEST_TOR_SOCKS` and `TEST_TOR_CONTROL` name a client's ports, `TEST_TOR_CONFIG` the file that leads arti
//! into the same network, `TEST_TOR_SERVICE` a directory with keys of C tor; `tests/tor/run.sh` brings all of
//! them. Without them, the tests say that they are skipped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coinslot::clock::SystemClock;
use coinslot::doctor::{Verdict, examine};
use coinslot::net::{ClientOptions, client_through};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::onion::token_in_tor;
use crate::support::answers::{ok, until};
use crate::support::mint::TestMint;
use crate::support::node::{TestNode, ask, ask_streaming};
use crate::support::operator::Operator;
use crate::support::purse::Purse;
use crate::support::relay::RealRelay;
use crate::support::upstream::{Script, Upstream, sse, usage};

/// The network.
struct World {
    /// Of a client.
    socks: String,
    control: String,
    /// For arti.
    config: String,
    /// Keys of C tor.
    service: String,
}

impl World {
    fn find() -> Option<Self> {
        let named = |name: &str| std::env::var(name).ok();
        let files = named("TEST_TOR_CONFIG").zip(named("TEST_TOR_SERVICE"));
        let found = named("TEST_TOR_SOCKS").zip(named("TEST_TOR_CONTROL")).zip(files);
        if found.is_none() {
            crate::support::skip("tests/tor/run.sh", "a Tor network");
        }
        found.map(|((socks, control), (config, service))| Self { socks, control, config, service })
    }

    /// A client that goes through C tor.
    fn client(&self) -> reqwest::Client {
        let options = ClientOptions { connect_timeout: Duration::from_secs(20), ..ClientOptions::default() };
        client_through(&options, &format!("socks5h://{}", self.socks)).unwrap()
    }

    /// An onion service of C tor in front of a port of this machine.
    async fn onion(&self, url: &str) -> Onion {
        let port = url::Url::parse(url).unwrap().port().unwrap();
        let stream = TcpStream::connect(&self.control).await.unwrap();
        let mut control = BufReader::new(stream);
        let mut said = Vec::new();
        for line in ["AUTHENTICATE", &format!("ADD_ONION NEW:ED25519-V3 Flags=DiscardPK Port=80,127.0.0.1:{port}")] {
            control.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
            loop {
                let mut answer = String::new();
                control.read_line(&mut answer).await.unwrap();
                assert!(answer.starts_with("250"), "{answer}");
                let is_last = answer.starts_with("250 ");
                said.push(answer);
                if is_last {
                    break;
                }
            }
        }
        let host = said.iter().find_map(|line| line.strip_prefix("250-ServiceID=")).unwrap().trim().to_owned();
        let url = url.replacen(&format!("127.0.0.1:{port}"), &format!("{host}.onion"), 1);
        Onion { url, _control: control }
    }
}

/// Stands as long as its control connection.
struct Onion {
    url: String,
    _control: BufReader<TcpStream>,
}

/// Waits until the node has its introduction points, as its operator sees it. Who asks before takes them for dead, C tor
/// for two minutes, and after a restart they are the same ones. "Hardly": in this network, some never have a descriptor.
async fn stands(node: &TestNode) {
    let operator = Operator::log_in(&node.url()).await;
    let end = Instant::now() + Duration::from_secs(90);
    loop {
        let page = operator.page("/admin/network").await;
        if page.contains("\"good\">reachable") || page.contains("hardly reachable") {
            return;
        }
        assert!(Instant::now() < end, "not reachable: {page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks until somebody answers: an onion is found some seconds after it is there, and not always at once.
async fn reached(client: &reqwest::Client, url: &str) -> reqwest::Response {
    let end = Instant::now() + Duration::from_secs(90);
    loop {
        let asked = tokio::time::timeout(Duration::from_secs(20), client.get(url).send()).await;
        match asked {
            Ok(Ok(answer)) => return answer,
            failed => assert!(Instant::now() < end, "{url}: {failed:?}"),
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn read_until(answer: &mut reqwest::Response, what: &str) {
    let mut read = String::new();
    while !read.contains(what) {
        let chunk = answer.chunk().await.unwrap().unwrap_or_else(|| panic!("it ended: {read}"));
        read.push_str(&String::from_utf8_lossy(&chunk));
    }
}

fn onions(event: &Value) -> Vec<&str> {
    let tags = event["tags"].as_array().unwrap().iter().filter(|tag| tag[0] == "u");
    tags.map(|tag| tag[1].as_str().unwrap()).filter(|url| url.ends_with(".onion")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_tor_finds_the_node_pays_it_and_finds_it_again() {
    let Some(world) = World::find() else { return };
    let (mint, upstream, relay) = (TestMint::start().await, Upstream::start().await, RealRelay::start().await);
    let more = [
        ("TOR", "true"),
        ("TOR_CONFIG", world.config.as_str()),
        ("RELAYS", &relay.url()),
        ("HTTP_URL", "https://node.example.com"),
        ("SHUTDOWN_TIMEOUT_SECONDS", "20"),
    ];
    let mut node = TestNode::with(&mint, &upstream, &more).await;
    let onion = ok(node.get("/v1/info")).await["onion_url"].as_str().unwrap().to_owned();
    let client = world.client();

    // It is itself that is found there, and relays say where.
    let info: Value = reached(&client, &format!("{onion}/v1/info")).await.json().await.unwrap();
    assert_eq!(info["onion_url"], onion);
    assert_eq!(info["receipt_pubkey"], ok(node.get("/v1/info")).await["receipt_pubkey"]);
    until("the relay has the address", async || {
        relay.find(json!({ "kinds": [38421] })).await.iter().any(|event| onions(event) == [onion.as_str()])
    })
    .await;

    // Ecash for a streamed answer, piece by piece.
    let purse = Purse::new(&mint).await;
    purse.mint_sats(2_000).await;
    let pieces = sse("toy/echo-1", &["one ", "two ", "three"], Some(usage(5, 7)));
    // The first has no content, and is kept back until there is some.
    let (before, after) = pieces.split_at(2);
    upstream.next(Script::Paused { before: before.to_vec(), after: after.to_vec() });
    let chat = client.post(format!("{onion}/v1/chat/completions")).json(&ask_streaming("hello"));
    let mut answer =
        chat.header("x-cashu", purse.send(500).await).header("x-cashu-change", "stream").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    read_until(&mut answer, "one ").await;
    upstream.resume();
    let rest = answer.text().await.unwrap();
    assert!(rest.contains("three") && rest.contains("[DONE]"), "{rest}");
    let change = rest.split_once("cashuB").expect("the change is in the stream").1;
    let change = change.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_' && c != '=').next().unwrap();
    let left = purse.receive(&format!("cashuB{change}")).await.unwrap();
    assert!((450..500).contains(&left), "{left}");

    // The operator's pages: no cookie that this browser could not send back.
    let page = client.get(format!("{onion}/admin/login")).send().await.unwrap();
    let cookie = page.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && !cookie.contains("Secure"), "{cookie}");
    let outside = node.get("/admin/login").header("host", "node.example.com").send().await.unwrap();
    assert!(outside.headers()["set-cookie"].to_str().unwrap().ends_with("; Secure"));

    // Who looks from beside the node reaches it through its own Tor, which starts from nothing.
    let config = coinslot::config::Config::from_vars(node.settings()).unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let tor = coinslot::tor::Tor::open(&config, &tasks, &stop).await.unwrap();
    let report = examine(&config, tor.ways(), Arc::new(SystemClock)).await.unwrap();
    stop.cancel();
    let line = report.findings.iter().find(|finding| finding.check == "onion").unwrap();
    assert_eq!((line.verdict, line.subject.as_str()), (Verdict::Good, onion.as_str()), "{line}");

    // A stream that runs when the node stops runs to its end.
    upstream.next(Script::Paused { before: before.to_vec(), after: after.to_vec() });
    let chat = client.post(format!("{onion}/v1/chat/completions")).json(&ask_streaming("hello"));
    let mut answer =
        chat.header("x-cashu", purse.send(500).await).header("x-cashu-change", "stream").send().await.unwrap();
    read_until(&mut answer, "one ").await;
    let reading = tokio::spawn(async move { answer.text().await });
    let address = node.running().address();
    let restarting = tokio::spawn(async move {
        node.restart().await;
        node
    });
    until("the node takes nobody in", async || TcpStream::connect(address).await.is_err()).await;
    assert!(!restarting.is_finished() && !reading.is_finished());
    upstream.resume();
    let rest = reading.await.unwrap().unwrap();
    assert!(rest.contains("three") && rest.contains("[DONE]"), "{rest}");
    let node = restarting.await.unwrap();

    // The same address as before.
    until("the address is the same", async || ok(node.get("/v1/info")).await["onion_url"] == onion.as_str()).await;
    stands(&node).await;
    let fresh = world.client();
    let info: Value = reached(&fresh, &format!("{onion}/v1/info")).await.json().await.unwrap();
    assert_eq!(info["onion_url"], onion);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nowhere_but_in_tor_is_reached_through_both_ways() {
    let Some(world) = World::find() else { return };
    let (mint, upstream, relay) = (TestMint::start().await, Upstream::start().await, RealRelay::start().await);
    let (far_mint, far_upstream) = (world.onion(&mint.url()).await, world.onion(&upstream.url()).await);
    let far_relay = world.onion(&relay.url()).await;
    let client = world.client();
    for onion in [&far_mint, &far_upstream] {
        reached(&client, &onion.url).await;
    }
    let socks = format!("socks5://{}", world.socks);
    let ways = [vec![("TOR", "true"), ("TOR_CONFIG", world.config.as_str())], vec![("TOR_PROXY_URL", socks.as_str())]];
    for (number, way) in ways.into_iter().enumerate() {
        let name = format!("node{number}");
        let mut more = vec![
            ("CASHU_MINTS", far_mint.url.as_str()),
            ("UPSTREAM_BASE_URL", far_upstream.url.as_str()),
            ("RELAYS", far_relay.url.as_str()),
            ("HTTP_URL", "https://node.example.com"),
            ("PROVIDER_ID", name.as_str()),
            ("MINT_OPERATION_TIMEOUT_SECONDS", "60"),
        ];
        more.extend(way);
        upstream.clear();
        let node = TestNode::with(&mint, &upstream, &more).await;
        until("the relay has the listing", async || {
            let listed = relay.find(json!({ "kinds": [38421] })).await;
            listed.iter().any(|event| event["tags"].to_string().contains(&name))
        })
        .await;
        let purse = Purse::new(&mint).await;
        purse.mint_sats(1_000).await;
        for body in [ask("hello"), ask_streaming("hello")] {
            let token = token_in_tor(&purse, &mint, &far_mint.url, 300).await;
            let answer = node.chat(&body).header("x-cashu", token).send().await.unwrap();
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            assert_eq!(status, 200, "{number}: {text}");
            assert!(text.contains("hello"), "{number}: {text}");
        }
        assert_eq!(upstream.seen().len(), 2);
        node.finish().await;
    }
}

/// An address that C tor made, or a tool for such addresses, is the node's: what the README says of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_was_there_before_is_taken_over() {
    let Some(world) = World::find() else { return };
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("tor.toml");
    let network = std::fs::read_to_string(&world.config).unwrap();
    let import = format!("[storage.keystore.ctor.services.coinslot]\nid = \"mine\"\npath = \"{}\"\n", world.service);
    std::fs::write(&config, format!("{import}{network}")).unwrap();
    let config = config.display().to_string();
    let node = TestNode::with(&mint, &upstream, &[("TOR", "true"), ("TOR_CONFIG", &config)]).await;
    let onion = ok(node.get("/v1/info")).await["onion_url"].as_str().unwrap().to_owned();
    let hostname = std::fs::read_to_string(format!("{}/hostname", world.service)).unwrap();
    assert_eq!(onion, format!("http://{}", hostname.trim()));
    let info: Value = reached(&world.client(), &format!("{onion}/v1/info")).await.json().await.unwrap();
    assert_eq!(info["onion_url"], onion);
    node.finish().await;
}
