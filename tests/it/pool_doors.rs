//! What goes in and out at the upstreams' side: keys, headers, proxies; what is stored; and that neither
//! the operator's secrets reach a client nor a client's an upstream, on any attempt.

use serde_json::{Value, json};
use sqlx::Row;

use crate::pool::{KEYS, NAMES, Reply, World, entry, faults};
use crate::process::ChildNode;
use crate::support::answers::until;
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, TestNode, ask, ask_streaming};
use crate::support::port::Kept;
use crate::support::proxy::{AUTHORITY, Proxy};
use crate::support::purse::Purse;
use crate::support::tokens::account_key;
use crate::support::upstream::{Script, Upstream, delta, sse, usage};

const COOKIE: &str = "cookie-canary-1f";
const TALK: &str = "talk-canary-2e";
const HEADER: &str = "header-secret-canary-3d";
const TARGET: &str = "model-canary-4c";

/// What the operator keeps to itself.
fn operators(world: &World) -> Vec<String> {
    let addresses = world.upstreams.iter().map(|upstream| {
        let url = upstream.url();
        url.trim_start_matches("http://").trim_end_matches("/v1").to_owned()
    });
    let others = KEYS.iter().chain(&NAMES).chain(&[HEADER, TARGET]).map(|text| (*text).to_owned());
    addresses.chain(others).collect()
}

/// Says everything that it knows of the operator.
fn talkative(world: &World, who: usize, status: u16) -> Script {
    let own = if who == 0 { format!("{TARGET} {HEADER}") } else { String::new() };
    let said = format!("Bearer {} at {} {own}", KEYS[who], world.upstreams[who].url());
    let body = json!({ "error": { "message": said, "type": said, "code": said, "param": said } }).to_string();
    let names = ["openai-organization", "set-cookie", "server", "x-ratelimit-limit-requests", "cf-ray", "x-request-id"];
    Script::Refuse { status, headers: names.map(|name| (name, format!("{}-org", NAMES[who]))).to_vec(), body }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_stay_on_their_side_on_every_attempt() {
    let models = json!({ MODEL: TARGET, "*": null });
    let first = json!({ "models": models, "headers": { "X-Gate-Token": HEADER, "X-Title": "shop" } });
    let times = [("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS", "10"), ("UPSTREAM_IDLE_TIMEOUT_SECONDS", "1")];
    let world = World::new(&[first, json!({ "models": models }), json!({})], &times).await;
    let hidden = operators(&world);
    let mut clients: Vec<String> = vec![world.key.clone(), account_key(&world.key), COOKIE.to_owned(), TALK.to_owned()];
    let faults = faults().into_iter().filter(|fault| fault.0 != "silence");
    // `true`: only to a stream.
    let mut scripts: Vec<(bool, [Script; 3])> =
        faults.map(|fault| (fault.1, [0; 3].map(|_| fault.2.clone()))).collect();
    let talks = |status| [0, 1, 2].map(|who| talkative(&world, who, status));
    scripts.extend([400, 401, 404, 422, 429, 500].map(|status| (false, talks(status))));
    let chunk =
        json!({ "model": TARGET, "choices": [{ "index": 0, "delta": { "content": "x" }, "finish_reason": "stop" }] });
    let chunk = Script::Stream { pieces: vec![format!("data: {chunk}\n\n")], cut: false };
    scripts.push((true, [0; 3].map(|_| chunk.clone())));
    let mut answers = Vec::new();
    for (only_streams, script) in scripts {
        for mode in 0..8 {
            let [others_fail, streamed, by_token] = [1, 2, 4].map(|bit| mode & bit != 0);
            if only_streams && !streamed {
                continue;
            }
            world.upstreams[0].next(script[0].clone());
            if others_fail {
                world.upstreams[1].next(script[1].clone());
                world.upstreams[2].next(script[2].clone());
            }
            let body = if streamed { ask_streaming("hi") } else { ask("hi") };
            let request = world.node.chat(&body).header("Cookie", COOKIE).header("X-Claude-Code-Session-Id", TALK);
            let request = request.header("X-Forwarded-For", COOKIE).header("User-Agent", COOKIE);
            let request = if by_token {
                let token = world.purse.send(25).await;
                clients.extend([account_key(&token), token.clone()]);
                request.header("X-Cashu", token)
            } else {
                request.bearer_auth(&world.key)
            };
            answers.push(Reply::of(request.send().await.unwrap()).await);
            world.clock.step(std::time::Duration::from_secs(660));
            for upstream in &world.upstreams {
                while !upstream.is_idle() {
                    upstream.skip();
                }
            }
        }
    }
    for path in ["/", "/v1/info", "/v1/models", "/readyz", "/healthz", "/v1/wallet/info"] {
        answers.push(Reply::of(world.node.get(path).bearer_auth(&world.key).send().await.unwrap()).await);
    }
    for answer in &answers {
        for secret in &hidden {
            assert!(!answer.has(secret), "{secret} in {} {:?} {}", answer.status, answer.headers, answer.text);
        }
        for name in ["openai-organization", "set-cookie", "server", "cf-ray", "x-ratelimit-limit-requests"] {
            assert!(!answer.headers.contains_key(name), "{name}");
        }
    }
    let ours = ["accept", "accept-encoding", "authorization", "content-length", "content-type", "host", "user-agent"];
    for (at, upstream) in world.upstreams.iter().enumerate() {
        assert!(upstream.seen().len() > 10);
        for seen in upstream.seen() {
            assert_eq!(seen.headers["authorization"], format!("Bearer {}", KEYS[at]), "each its own key");
            let mut names: Vec<&str> = seen.headers.keys().map(|name| name.as_str()).collect();
            names.retain(|name| !ours.contains(name));
            names.sort_unstable();
            assert_eq!(names, if at == 0 { vec!["x-gate-token", "x-title"] } else { vec![] });
            let all = format!("{:?} {}", seen.headers, String::from_utf8_lossy(&seen.body));
            let foreign = KEYS.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, key)| (*key).to_owned());
            for secret in clients.iter().cloned().chain(foreign) {
                assert!(!all.contains(&secret), "{secret} reached upstream {at}: {all}");
            }
        }
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_set_and_left_out_as_the_operator_says() {
    let headers = json!({
        "headers": { "X-Title": "shop", "User-Agent": null, "Authorization": "Token other", "Host": "evil.example",
                     "Content-Length": "1", "Connection": "close", "Accept": null },
    });
    let world = World::new(&[headers], &[]).await;
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    let seen = world.upstreams[0].last();
    assert_eq!(seen.headers["x-title"], "shop");
    assert_eq!(seen.headers["authorization"], "Token other");
    assert!(!seen.headers.contains_key("user-agent"), "{:?}", seen.headers);
    assert_ne!(seen.headers["host"], "evil.example");
    assert_eq!(seen.headers["content-length"], seen.body.len().to_string());
    world.finish().await;
}

/// A node in front of one upstream that is reached through this proxy.
async fn behind(proxy_url: &str, localhost: bool) -> World {
    let upstream = Upstream::start().await;
    let url = if localhost { upstream.url().replace("127.0.0.1", "localhost") } else { upstream.url() };
    let entries = json!([entry(0, &url, &json!({ "proxy_url": proxy_url }))]);
    World::of(vec![upstream], &entries, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_reached_through_its_proxy() {
    let http = Proxy::http().await;
    let world = behind(&format!("http://me:proxy-canary@{}", http.address), false).await;
    for body in [ask("hi"), ask_streaming("hi")] {
        assert_eq!(world.send(&body).await.status, 200);
    }
    assert!(!http.heard().is_empty());
    assert!(http.heard()[0].to_ascii_lowercase().contains("proxy-authorization: basic "), "{:?}", http.heard());
    assert_eq!(world.asked(), [2]);
    world.finish().await;
    // Whether the name is looked up here or by the proxy is in the scheme.
    for (scheme, kind) in [("socks5", "ip "), ("socks5h", "name localhost:")] {
        let socks = Proxy::socks5().await;
        let world = behind(&format!("{scheme}://{}", socks.address), true).await;
        assert_eq!(world.send(&ask("hi")).await.status, 200, "{scheme}");
        assert!(socks.heard()[0].starts_with(kind), "{scheme}: {:?}", socks.heard());
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_proxy_an_upstream_is_not_reached_at_all() {
    let port = Kept::free();
    let gone = port.address();
    for scheme in ["http", "https", "socks5", "socks5h"] {
        let world = behind(&format!("{scheme}://{gone}"), false).await;
        let reply = world.send(&ask("hi")).await;
        assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_error"), "{scheme}");
        assert!(!reply.has(&gone.to_string()));
        assert_eq!(world.asked(), [0], "{scheme}: no way around");
        assert_eq!(world.spent().await, 0);
        world.finish().await;
    }
    drop(port);
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_of_the_environment_are_nobodys_business() {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(100).await;
    let upstream = Upstream::start().await;
    let proxy = Proxy::http().await;
    let url = format!("http://{}", proxy.address);
    let names = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
    let settings: Vec<(&str, &str)> = names.iter().map(|name| (*name, url.as_str())).collect();
    let mut node = ChildNode::start(&mint.url(), &upstream, &settings).await;
    let token = purse.send(50).await;
    assert_eq!(node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap().status(), 200);
    assert_eq!((proxy.heard().len(), upstream.seen().len()), (0, 1));
    node.stop().await;
    let books = node.db.books().await;
    assert_eq!((books.liabilities, books.earnings, books.open_holds), (48_000, 2_000, 0));
    node.db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_reached_through_a_proxy_over_tls_and_by_no_other_way() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let purse = Purse::new(&mint).await;
    purse.mint_sats(200).await;
    let dir = tempfile::tempdir().unwrap();
    let authority = dir.path().join("ca.pem");
    std::fs::write(&authority, AUTHORITY).unwrap();
    let plain = upstream.url().split('/').nth(2).unwrap().parse().unwrap();
    let door = Proxy::tls_to(plain).await;
    let address = format!("localhost:{}", door.address.port());
    let proxy = Proxy::https().await;
    let through = json!({ "proxy_url": format!("https://me:proxy-canary@localhost:{}", proxy.address.port()) });
    let entries = json!([entry(0, &format!("https://{address}/v1"), &through)]).to_string();
    // Whom the system trusts is what a process is told of at its start.
    let trusted = authority.display().to_string();
    let settings = [
        ("UPSTREAMS", entries.as_str()),
        ("UPSTREAM_BASE_URL", ""),
        ("UPSTREAM_API_KEY", ""),
        ("SSL_CERT_FILE", trusted.as_str()),
    ];
    let mut node = ChildNode::start(&mint.url(), &upstream, &settings).await;
    let token = purse.send(150).await;
    let send = async |body: &Value| Reply::of(node.chat(body).bearer_auth(&token).send().await.unwrap()).await;
    for body in [ask("hi"), ask_streaming("hi")] {
        let reply = send(&body).await;
        assert_eq!(reply.status, 200, "{} {}", reply.text, node.said());
    }
    let heard = proxy.heard();
    assert!(heard[0].starts_with(&format!("CONNECT {address} ")), "{heard:?}");
    assert!(heard[0].to_ascii_lowercase().contains("proxy-authorization: basic "), "{heard:?}");
    assert!(heard.iter().all(|head| !head.contains(KEYS[0])), "what goes through is sealed from the proxy: {heard:?}");
    assert_eq!((upstream.seen().len(), door.heard().len()), (2, proxy.calls()), "nobody went around it");
    let said = node.stop().await;
    assert!(!said.contains("proxy-canary"), "{said}");
    // To whoever is not told to trust the proxy, it is a stranger's.
    let seen = upstream.seen().len();
    node.unset("SSL_CERT_FILE");
    node.restart().await;
    assert_eq!(node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap().status(), 502);
    assert_eq!(upstream.seen().len(), seen, "and there is no way around it");
    node.stop().await;
    let books = node.db.books().await;
    assert_eq!((books.liabilities, books.earnings, books.open_holds), (146_000, 4_000, 0));
    node.db.remove().await;
}

async fn rows(node: &TestNode) -> Vec<(String, String, String, String)> {
    let store = node.running().exchange().ledger.store();
    let rows = sqlx::query("SELECT name, origin, spec, sealed FROM upstreams ORDER BY name, origin");
    let rows = rows.fetch_all(store.read()).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_environment_said_is_stored_sealed_and_the_environment_wins() {
    let mut world = World::new(&[json!({ "tags": ["eu"] }), json!({})], &[]).await;
    let stored = rows(&world.node).await;
    let names: Vec<&str> = stored.iter().map(|row| row.0.as_str()).collect();
    assert_eq!(names, [NAMES[0], NAMES[1]]);
    for (_, origin, spec, sealed) in &stored {
        assert_eq!(origin, "environment");
        assert!(KEYS.iter().all(|key| !spec.contains(key) && !sealed.contains(key)), "{spec}");
    }
    assert!(stored[0].2.contains("\"eu\""));
    // Without the environment, what it said last still holds, keys included.
    let both = world.node.settings()["UPSTREAMS"].clone();
    world.node.restart_with("UPSTREAMS", "").await;
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.upstreams[0].last().headers["authorization"], format!("Bearer {}", KEYS[0]));
    world.asked();
    // Another environment is what counts, and one that it does not name any more is gone.
    let entries: Vec<Value> = serde_json::from_str(&both).unwrap();
    world.node.restart_with("UPSTREAMS", &json!([entries[1]]).to_string()).await;
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [0, 1]);
    assert_eq!(rows(&world.node).await.len(), 1);
    // What the operator stored is beside it, and yields to the environment under the same name.
    let store = world.node.running().exchange().ledger.store();
    let copy = "INSERT INTO upstreams (name, origin, position, spec, sealed, updated_at) \
                SELECT name, 'operator', 0, spec, sealed, 1 FROM upstreams";
    sqlx::query(copy).execute(store.read()).await.unwrap();
    let mut moved = entries[1].clone();
    moved["base_url"] = json!(world.upstreams[0].url());
    world.node.restart_with("UPSTREAMS", &json!([moved]).to_string()).await;
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [1, 0], "the environment's");
    moved["name"] = json!("other");
    moved["priority"] = json!(99);
    world.node.restart_with("UPSTREAMS", &json!([moved]).to_string()).await;
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    assert_eq!(world.asked(), [0, 1], "the operator's, which goes first here");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_takes_too_long_altogether_is_broken_off() {
    let world = World::new(&[json!({ "total_timeout": 3 }), json!({})], &[]).await;
    let paused = |before: Vec<String>| Script::Paused { before, after: vec![] };
    // Before its content another one is asked, after it the client is told.
    for script in [Script::Hang, paused(vec![sse(MODEL, &[], None)[0].clone()])] {
        world.upstreams[0].next(script);
        assert_eq!(world.send(&ask_streaming("hi")).await.status, 200);
        assert_eq!(world.asked(), [1, 1]);
        world.clock.step(std::time::Duration::from_secs(660));
    }
    world.upstreams[0].next(paused(vec![delta(MODEL, &"x".repeat(40))]));
    let reply = world.send(&ask_streaming("hi")).await;
    assert!(reply.text.contains("did not answer in time") && !reply.text.contains("[DONE]"), "{}", reply.text);
    assert_eq!(world.asked(), [1, 0]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signs_of_life_are_no_answer_and_keep_no_request_for_ever() {
    let short = json!({ "first_byte_timeout": 2, "idle_timeout": 2 });
    let world = World::new(&[short, json!({})], &[]).await;
    let endless = Script::Alive { before: vec![], signs: usize::MAX, after: vec![] };
    // What has begun may pause for as long as it says that it lives: longer than the sixteen seconds before that.
    let mut before = sse(MODEL, &["late-canary"], Some(usage(100, 50)));
    let after = before.split_off(2);
    let slow = Script::Alive { before, signs: 60, after };
    let mut answers = Vec::new();
    for (body, script) in [(ask_streaming("hi"), endless.clone()), (ask("hi"), endless), (ask_streaming("hi"), slow)] {
        world.upstreams[0].next(script);
        answers.push(tokio::spawn(world.node.chat(&body).bearer_auth(&world.key).send()));
        until("it is asked", async || world.upstreams[0].is_idle()).await;
    }
    for (answer, expected) in answers.into_iter().zip(["echo: ", "echo: ", "late-canary"]) {
        let reply = Reply::of(answer.await.unwrap().unwrap()).await;
        assert_eq!((reply.status, reply.has(expected)), (200, true), "{}", reply.text);
        assert!(reply.text.contains("\"total_msats\":2000"), "it is complete: {}", reply.text);
    }
    assert_eq!(world.asked(), [3, 2]);
    assert_eq!(world.spent().await, 6_000);
    world.finish().await;
}
