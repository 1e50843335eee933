//! What a request needs beside its wire format: models and upstreams that are known to lack it are not asked,
//! and nothing is taken for that. And which upstreams a model may be asked of at all.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::pool::{Reply, World, entry, refuse};
use crate::support::node::{ask, models};
use crate::support::upstream::Upstream;

/// A list with these models, each with what `more` says, and where it lies.
fn listed(more: &[(&str, Value)]) -> (TempDir, String) {
    let template = models()["models"][0].clone();
    let list: Vec<Value> = more
        .iter()
        .map(|(id, more)| {
            let mut model = template.clone();
            model["id"] = json!(id);
            model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            model
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("models.json");
    std::fs::write(&path, json!({ "models": list }).to_string()).unwrap();
    (dir, path.display().to_string())
}

const PICTURE: &str = "data:image/png;base64,AAAA";

/// What may be added to a body, and the member that it is refused by.
type Wish = (Value, &'static str);

/// For each protocol: a path, a body without needs, and what may be added to it.
fn wishes(model: &str) -> Vec<(String, Value, Vec<Wish>)> {
    let tool = json!({ "type": "function", "name": "f", "function": { "name": "f" }, "input_schema": {} });
    let picture = json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": PICTURE } }] }]);
    let source = json!({ "type": "base64", "media_type": "image/png", "data": "AAAA" });
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let schema = json!({ "type": "json_schema", "name": "x", "schema": {} });
    vec![
        (
            "/v1/chat/completions".to_owned(),
            json!({ "model": model, "messages": messages }),
            vec![
                (json!({ "tools": [tool] }), "tools"),
                (json!({ "tool_choice": "required" }), "tool_choice"),
                (json!({ "response_format": schema }), "response_format"),
                (json!({ "response_format": { "type": "json_object" } }), "response_format"),
                (json!({ "reasoning_effort": "high" }), "reasoning_effort"),
                (json!({ "logprobs": true }), "logprobs"),
                (json!({ "messages": picture }), "messages"),
                (json!({ "messages": [{ "role": "tool", "tool_call_id": "c", "content": "x" }] }), "tools"),
            ],
        ),
        (
            "/v1/completions".to_owned(),
            json!({ "model": model, "prompt": "hi" }),
            vec![(json!({ "logprobs": 1 }), "logprobs")],
        ),
        (
            "/v1/responses".to_owned(),
            json!({ "model": model, "input": "hi" }),
            vec![
                (json!({ "tools": [tool] }), "tools"),
                (json!({ "text": { "format": schema } }), "text.format"),
                (json!({ "reasoning": { "effort": "low" } }), "reasoning"),
                (json!({ "input": [{ "type": "function_call_output", "call_id": "c", "output": "x" }] }), "tools"),
                (
                    json!({ "input": [{ "role": "user", "content": [{ "type": "input_image", "image_url": PICTURE }] }] }),
                    "input",
                ),
            ],
        ),
        (
            "/v1/messages".to_owned(),
            json!({ "model": model, "messages": messages, "max_tokens": 100 }),
            vec![
                (json!({ "tools": [{ "name": "f", "input_schema": {} }] }), "tools"),
                (json!({ "thinking": { "type": "enabled", "budget_tokens": 50 } }), "thinking"),
                (
                    json!({ "messages": [{ "role": "user", "content": [{ "type": "image", "source": source }] }] }),
                    "messages",
                ),
            ],
        ),
        (
            format!("/v1beta/models/{model}:generateContent"),
            json!({ "contents": [{ "parts": [{ "text": "hi" }] }] }),
            vec![
                (json!({ "tools": [{ "functionDeclarations": [{ "name": "f" }] }] }), "tools"),
                (json!({ "generationConfig": { "responseSchema": {} } }), "generationConfig.responseSchema"),
                (
                    json!({ "contents": [{ "parts": [{ "inlineData": { "mimeType": "image/png", "data": "AAAA" } }] }] }),
                    "contents",
                ),
            ],
        ),
    ]
}

fn with(body: &Value, more: &Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

impl World {
    async fn post(&self, path: &str, body: &Value) -> Reply {
        let request = self.node.post(path).json(body).bearer_auth(&self.key);
        Reply::of(request.send().await.unwrap()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_is_known_to_lack_is_refused_by_its_member() {
    let modalities = |input: Value| json!({ "input_modalities": input, "output_modalities": ["text"] });
    let all =
        json!(["tools", "tool_choice", "structured_outputs", "response_format", "reasoning", "logprobs", "max_tokens"]);
    let (_dir, path) = listed(&[
        ("toy/plain", json!({ "supported_parameters": ["max_tokens"], "architecture": modalities(json!(["text"])) })),
        ("toy/able", json!({ "supported_parameters": all, "architecture": modalities(json!(["text", "image"])) })),
        ("toy/unknown", json!({ "supported_parameters": [], "architecture": modalities(json!([])) })),
    ]);
    let world = World::new(&[json!({})], &[("MODELS_PATH", &path)]).await;
    for (path, body, wishes) in wishes("toy/plain") {
        let reply = world.post(&path, &body).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        assert_eq!(world.asked(), [1]);
        let spent = world.spent().await;
        for (more, member) in wishes {
            let reply = world.post(&path, &with(&body, &more)).await;
            assert_eq!(reply.status, 400, "{path} {more}: {}", reply.text);
            let error = &reply.json()["error"];
            let (code, protocol) = match path.as_str() {
                "/v1/messages" => (&error["code"], error["type"] == "invalid_request_error"),
                path if path.starts_with("/v1beta") => {
                    (&error["details"][0]["reason"], error["status"] == "INVALID_ARGUMENT")
                }
                _ => (&error["code"], error["param"] == member),
            };
            assert_eq!((code, protocol), (&json!("unsupported_parameter"), true), "{path} {more}: {}", reply.text);
            assert!(error["message"].as_str().unwrap().contains(&format!("'{member}'")), "{}", reply.text);
            assert_eq!(world.asked(), [0], "{path} {more}");
        }
        assert_eq!(world.spent().await, spent);
    }
    // A token stays its owner's.
    let token = world.purse.send(40).await;
    let calls = world.mint.all_calls();
    let body = json!({ "model": "toy/plain", "messages": [{ "role": "user", "content": "hi" }], "logprobs": true });
    let reply = world.send_token(&body, &token).await;
    assert_eq!((reply.status, world.mint.all_calls()), (400, calls));
    // What is not known may be there, and nothing is left out on the way.
    for model in ["toy/able", "toy/unknown"] {
        for (path, body, wishes) in wishes(model) {
            for (more, _) in wishes {
                let reply = world.post(&path, &with(&body, &more)).await;
                assert_eq!(reply.status, 200, "{model} {path} {more}: {}", reply.text);
                let seen = world.upstreams[0].last().json();
                for (name, value) in more.as_object().unwrap() {
                    assert_eq!(&seen[name], value, "{model} {path}");
                }
            }
        }
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_lacks_something_is_passed_over_for_it() {
    let (_dir, path) = listed(&[("toy/echo-1", json!({ "supported_parameters": [] }))]);
    let few = json!({ "capabilities": ["streaming"] });
    let world = World::new(&[few.clone(), json!({})], &[("MODELS_PATH", &path)]).await;
    let plain = json!({ "model": "toy/echo-1", "messages": [{ "role": "user", "content": "hi" }] });
    let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
    for (more, asked) in [
        (json!({}), [1, 0]),
        (json!({ "stream": true }), [1, 0]),
        (json!({ "tools": tools }), [0, 1]),
        (json!({ "tools": tools, "stream": true }), [0, 1]),
        (json!({ "reasoning_effort": "low" }), [0, 1]),
    ] {
        assert_eq!(world.send(&with(&plain, &more)).await.status, 200, "{more}");
        assert_eq!(world.asked(), asked, "{more}");
    }
    world.finish().await;
    let none = json!({ "capabilities": [] });
    let world = World::new(&[few, none], &[("MODELS_PATH", &path)]).await;
    let reply = world.send(&with(&plain, &json!({ "tools": tools }))).await;
    assert_eq!((reply.status, reply.json()["error"]["param"].as_str()), (400, Some("tools")));
    assert_eq!(world.send(&with(&plain, &json!({ "stream": true }))).await.status, 200);
    assert_eq!(world.asked(), [1, 0]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_asked_only_of_upstreams_with_its_tags() {
    let tagged = |tags: Value| json!({ "upstream_tags": tags });
    let (_dir, path) = listed(&[
        ("toy/anywhere", json!({})),
        ("toy/europe", tagged(json!(["tag-canary-eu"]))),
        ("toy/both", tagged(json!(["tag-canary-eu", "tag-canary-zdr"]))),
        ("toy/nowhere", tagged(json!(["tag-canary-mars"]))),
    ]);
    let upstreams = [
        json!({}),
        json!({ "tags": ["tag-canary-eu"] }),
        json!({ "tags": ["tag-canary-zdr", "tag-canary-eu"], "priority": 1 }),
    ];
    let world = World::new(&upstreams, &[("MODELS_PATH", &path)]).await;
    let of = |model: &str| json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] });
    assert_eq!(world.send(&of("toy/anywhere")).await.status, 200);
    assert_eq!(world.asked(), [1, 0, 0]);
    for _ in 0..8 {
        assert_eq!(world.send(&of("toy/europe")).await.status, 200);
    }
    let asked = world.asked();
    assert!(asked[0] == 0 && asked[1] + asked[2] == 8, "{asked:?}");
    // Not even when all that have them fail.
    for at in [1, 2] {
        world.upstreams[at].next(crate::pool::refuse(500));
    }
    assert_eq!(world.send(&of("toy/europe")).await.status, 502);
    assert_eq!(world.asked(), [0, 1, 1]);
    assert_eq!(world.send(&of("toy/both")).await.status, 200);
    assert_eq!(world.asked(), [0, 0, 1]);
    // A model of the list that nobody serves now may be served later, and what it costs is known.
    let token = world.purse.send(40).await;
    let reply = world.send_token(&of("toy/nowhere"), &token).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "upstream_unavailable"));
    assert!(reply.headers["retry-after"].parse::<u64>().unwrap() > 0);
    assert_eq!(reply.headers["x-cashu"], token, "it is untouched");
    let list = Reply::of(world.node.get("/v1/models").send().await.unwrap()).await;
    assert!(list.has("toy/europe") && !list.has("toy/nowhere") && !list.has("canary"), "{}", list.text);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ways_to_a_model_say_no_more_than_the_kind() {
    let (_dir, path) = listed(&[("toy/echo-1", json!({})), ("toy/eu", json!({ "upstream_tags": ["eu"] }))]);
    let upstreams = vec![Upstream::start().await, Upstream::start().await];
    let entries = json!([
        entry(0, &upstreams[0].url(), &json!({ "tags": ["eu"] })),
        entry(1, &upstreams[1].url(), &json!({ "provider_type": "vllm" })),
    ]);
    let world = World::of(upstreams, &entries, &[("MODELS_PATH", &path)]).await;
    let get = async |path: &str| Reply::of(world.node.get(path).send().await.unwrap()).await;
    for path in ["/v1/models/paths", "/v1/models/paths/", "/models/paths"] {
        let reply = get(path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        let data = &reply.json()["data"];
        assert_eq!((&data[0]["id"], data[0]["paths"].as_array().unwrap().len()), (&json!("toy/echo-1"), 2));
        let generic = &data[1]["paths"];
        assert_eq!((&data[1]["id"], generic.as_array().unwrap().len()), (&json!("toy/eu"), 1));
        assert_eq!(generic[0]["provider"], json!({ "id": 1, "slug": "generic", "type": "generic" }));
        assert_eq!(generic[0]["path"], "url=http%3A%2F%2Flocalhost&provider-id=1&model-id=toy%2Feu");
        assert_eq!(generic[0]["endpoint"], Value::Null);
        assert!(reply.json()["updated_at"].as_i64().unwrap() > 0);
        for upstream in &world.upstreams {
            assert!(!reply.has(upstream.url().split('/').nth(2).unwrap()) && !reply.has("canary"), "{}", reply.text);
        }
    }
    let one = get("/v1/models/paths/model?model_id=echo-1").await;
    assert_eq!((one.status, one.json()["data"].as_array().unwrap().len()), (200, 2));
    for path in ["/v1/models/paths/model?model_id=none", "/v1/models/paths/model"] {
        assert_eq!(get(path).await.status, 404, "{path}");
    }
    assert_eq!(get("/v1/models/echo-1").await.status, 200, "models are where they were");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_say_by_which_way_its_model_is_reached() {
    let world = World::new(&[json!({}), json!({ "provider_type": "vllm" })], &[]).await;
    let ways = Reply::of(world.node.get("/v1/models/paths/model?model_id=echo-1").send().await.unwrap()).await.json();
    let ways: Vec<&str> = ways["data"].as_array().unwrap().iter().map(|way| way["path"].as_str().unwrap()).collect();
    let [generic, vllm] = ways[..] else { panic!("{ways:?}") };
    let by = |way: &str, model: &str| {
        let mut body = ask("hi");
        body["model"] = json!(model);
        world.node.chat(&body).header("x-routstr-model-path", way)
    };
    // The first of both is the generic one, and is asked where nothing else is said.
    for (way, asked) in [("", [1, 0]), (" ", [1, 0]), (generic, [1, 0]), (vllm, [0, 1])] {
        for model in ["toy/echo-1", "echo-1"] {
            let reply = Reply::of(by(way, model).bearer_auth(&world.key).send().await.unwrap()).await;
            assert_eq!((reply.status, world.asked()), (200, asked.to_vec()), "{way}: {}", reply.text);
        }
    }
    assert_eq!(by(vllm, "echo-1").bearer_auth(&world.key).send().await.unwrap().status(), 200);
    let seen = world.upstreams[1].last();
    let all = format!("{} {:?}", seen.target, seen.headers);
    assert!(!all.contains("model-path") && !all.contains("provider-id"), "{all}");
    assert_eq!(world.asked(), [0, 1]);
    // What is not a way to this model of this node's costs nothing, and asks nobody.
    let token = world.purse.send(40).await;
    let calls = world.mint.all_calls();
    for way in [
        "url=https%3A%2F%2Fapi.example.com&provider-id=1&model-id=toy%2Fecho-1".to_owned(),
        "x".to_owned(),
        vllm.replace("provider-id=2", "provider-id=3"),
        vllm.replace("echo-1", "cheap"),
    ] {
        let reply = Reply::of(by(&way, "echo-1").header("X-Cashu", &token).send().await.unwrap()).await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "invalid_model_path"), "{way}: {}", reply.text);
    }
    assert_eq!((world.mint.all_calls(), world.asked()), (calls, vec![0, 0]));
    // Where it fails, nobody else is asked, and nothing is taken.
    let spent = world.spent().await;
    world.upstreams[1].next(refuse(500));
    let reply = Reply::of(by(vllm, "echo-1").bearer_auth(&world.key).send().await.unwrap()).await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_error"), "{}", reply.text);
    assert_eq!((world.asked(), world.spent().await), (vec![0, 1], spent));
    assert_eq!(world.purse.receive(&token).await.unwrap(), 40);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_by_another_way_is_another_request() {
    let world = World::new(&[json!({}), json!({ "provider_type": "vllm" })], &[]).await;
    let way = |number: u8| format!("url=http%3A%2F%2Flocalhost&provider-id={number}&model-id=toy%2Fecho-1");
    let send = async |number: u8| {
        let request = world.node.chat(&ask("hi")).bearer_auth(&world.key).header("idempotency-key", "one");
        Reply::of(request.header("x-routstr-model-path", way(number)).send().await.unwrap()).await
    };
    assert_eq!((send(1).await.status, world.asked()), (200, vec![1, 0]));
    assert_eq!((send(1).await.headers["idempotent-replayed"].as_str(), world.asked()), ("true", vec![0, 0]));
    let other = send(2).await;
    assert_eq!((other.status, other.code().as_str()), (409, "idempotency_key_reused"), "{}", other.text);
    world.finish().await;
}
