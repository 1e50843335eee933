//! Headers of every answer: how long it took, and what the client calls its request.

use serde_json::{Value, json};

use crate::pool::{NAMES, Reply, World, refuse};
use crate::support::node::{MODEL, ask, ask_streaming};

/// The names and the numbers of a `server-timing`.
fn timing(reply: &Reply) -> Vec<(String, String)> {
    let entries = reply.headers["server-timing"].split(", ");
    let entry = |entry: &str| {
        let (name, took) = entry.split_once(";dur=").unwrap_or_else(|| panic!("{entry}"));
        let (whole, tenth) = took.split_once('.').unwrap_or_else(|| panic!("{entry}"));
        assert!(whole.parse::<u64>().is_ok() && tenth.len() == 1 && tenth.parse::<u8>().is_ok(), "{entry}");
        (name.to_owned(), took.to_owned())
    };
    entries.map(entry).collect()
}

fn names(reply: &Reply) -> Vec<String> {
    timing(reply).into_iter().map(|(name, _)| name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_say_how_long_their_parts_took() {
    let world = World::new(&[json!({}), json!({})], &[]).await;
    let whole = world.send(&ask("hi")).await;
    assert_eq!(names(&whole), ["admission", "upstream", "total"]);
    let streamed = world.send(&ask_streaming("hi")).await;
    assert_eq!(names(&streamed), ["admission", "upstream"], "the rest is not over when the head goes out");
    assert_eq!(streamed.headers["x-accel-buffering"], "no");
    let token = world.purse.send(50).await;
    assert_eq!(names(&world.send_token(&ask_streaming("hi"), &token).await), ["admission", "upstream", "total"]);
    world.upstreams[0].next(refuse(400));
    for refused in [world.send(&ask("hi")).await, world.send(&json!({ "model": "none", "messages": [1] })).await] {
        assert_eq!((refused.status, names(&refused)), (400, vec!["total".to_owned()]));
    }
    for reply in [&whole, &streamed] {
        assert!(NAMES.iter().all(|name| !reply.has(name)));
        assert!(reply.headers.contains_key("x-request-id") && reply.headers.contains_key("request-id"));
    }
    // What is given again took another time.
    let send = async || {
        let request = world.node.chat(&ask("hi")).bearer_auth(&world.key).header("idempotency-key", "one");
        Reply::of(request.send().await.unwrap()).await
    };
    assert_eq!(names(&send().await), ["admission", "upstream", "total"]);
    let again = send().await;
    assert_eq!((again.headers["idempotent-replayed"].as_str(), names(&again)), ("true", vec!["total".to_owned()]));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_say_which_model_served_and_at_which_rate() {
    let world = World::new(&[json!({})], &[]).await;
    let named = |model: &str, mut body: Value| {
        body["model"] = json!(model);
        body
    };
    let token = world.purse.send(50).await;
    for reply in [
        world.send(&ask("hi")).await,
        world.send(&ask_streaming("hi")).await,
        // By another name of it.
        world.send(&named("echo-1", ask("hi"))).await,
        world.send(&named("echo-1", ask_streaming("hi"))).await,
        world.send_token(&ask_streaming("hi"), &token).await,
    ] {
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(reply.headers["x-routstr-model"], MODEL);
        assert_eq!(reply.headers["x-routstr-price-usd-per-btc"], "100000");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_calls_its_request_comes_back_beside_the_nodes_own_id() {
    let world = World::new(&[json!({})], &[]).await;
    let longest = "a".repeat(128);
    let too_long = "a".repeat(129);
    let send = async |name: &str, id: &[u8], body: &Value| {
        let value = reqwest::header::HeaderValue::from_bytes(id).unwrap();
        let request = world.node.chat(body).bearer_auth(&world.key).header(name, value);
        Reply::of(request.send().await.unwrap()).await
    };
    let unknown = json!({ "model": "none", "messages": [{ "role": "user", "content": "x" }] });
    for (id, is_told) in [
        ("abc-1.2_3".as_bytes(), true),
        (longest.as_bytes(), true),
        (too_long.as_bytes(), false),
        (b"", false),
        (b"a b", false),
        (b"a\"b", false),
        (b"a/b", false),
        ("\u{e4}".as_bytes(), false),
    ] {
        for name in ["x-request-id", "request-id", "x-client-request-id"] {
            for (body, status) in [(ask("hi"), 200), (ask_streaming("hi"), 200), (unknown.clone(), 400)] {
                let reply = send(name, id, &body).await;
                let told = reply.headers.get("x-client-request-id").map(String::as_bytes);
                assert_eq!((reply.status, told), (status, is_told.then_some(id)), "{name}");
                let own = &reply.headers["x-routstr-request-id"];
                assert!(uuid::Uuid::parse_str(own).is_ok(), "{own}");
                assert_eq!((&reply.headers["x-request-id"], &reply.headers["request-id"]), (own, own));
            }
        }
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_names_its_request() {
    let world = World::new(&[json!({})], &[]).await;
    let get = |path: &str| world.node.get(path);
    let tag = get("/v1/models").send().await.unwrap().headers()["etag"].clone();
    let preflight = crate::support::node::client()
        .request(reqwest::Method::OPTIONS, format!("{}/v1/models", world.node.url()))
        .header("origin", "https://chat.example")
        .header("access-control-request-method", "GET");
    let mut ids = std::collections::BTreeSet::new();
    for (what, request, status) in [
        ("models", get("/v1/models"), 200),
        ("the same models", get("/v1/models").header("if-none-match", tag), 304),
        ("info", get("/v1/info"), 200),
        ("the first page", get("/").header("accept", "text/html"), 200),
        ("a key", get("/v1/wallet/info").bearer_auth(&world.key), 200),
        ("a preflight", preflight, 200),
        ("a quote", world.node.post("/v1/quote/chat/completions").json(&ask("hi")), 200),
        ("health", get("/healthz"), 200),
        ("nothing", get("/nothing"), 404),
        ("a request", world.node.chat(&ask("hi")).bearer_auth(&world.key), 200),
        ("a stream", world.node.chat(&ask_streaming("hi")).bearer_auth(&world.key), 200),
        ("no request", world.node.chat(&ask("hi")), 401),
    ] {
        let reply = Reply::of(request.send().await.unwrap()).await;
        assert_eq!(reply.status, status, "{what}: {}", reply.text);
        let id = &reply.headers["x-routstr-request-id"];
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{what}: {id}");
        assert_eq!((&reply.headers["x-request-id"], &reply.headers["request-id"]), (id, id), "{what}");
        assert!(ids.insert(id.clone()), "{what}: {id} is another's");
    }
    let page = Reply::of(get("/admin/login").send().await.unwrap()).await;
    assert!(!page.headers.contains_key("x-routstr-request-id"), "{}", page.status);
    world.finish().await;
}
