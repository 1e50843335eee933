//! The price list, as each protocol's clients read one.

use serde_json::{Value, json};

use super::start;
use crate::support::node::MODEL;

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_models_speaks_the_clients_protocol() {
    let world = start().await;
    let get = |path: &str| world.node.get(path);
    let json = async |request: reqwest::RequestBuilder, status: u16| -> Value {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status);
        answer.json().await.unwrap()
    };
    let list = json(get("/v1/models"), 200).await;
    let ids = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap());
    // In the others' lists, each model is there once.
    let names: Vec<&str> = ids.filter(|id| id.contains('/')).collect();
    assert_eq!(list["object"], "list");

    let shown = json(get("/v1/models").header("anthropic-version", "2023-06-01"), 200).await;
    assert_eq!((&shown["has_more"], &shown["first_id"]), (&json!(false), &json!(names[0])));
    assert_eq!(shown["last_id"], json!(names[names.len() - 1]));
    assert_eq!(shown["data"].as_array().unwrap().len(), names.len());
    let first = &shown["data"][0];
    assert_eq!(
        (&first["type"], &first["id"], &first["created_at"]),
        (&json!("model"), &json!(MODEL), &json!("1970-01-01T00:00:01Z"))
    );
    assert_eq!((&first["max_input_tokens"], &first["max_tokens"]), (&json!(10_000), &json!(1_000)));
    assert_eq!(first["sats_pricing"], list["data"][0]["sats_pricing"]);
    let one = json(get("/v1/models/echo-1").header("anthropic-version", "2023-06-01"), 200).await;
    assert_eq!(&one, first);

    for request in
        [get("/v1beta/models"), get("/v1beta/models?key=unused"), get("/v1/models").header("x-goog-api-key", "unused")]
    {
        let shown = json(request, 200).await;
        let first = &shown["models"][0];
        assert_eq!((&first["name"], &first["inputTokenLimit"]), (&json!(format!("models/{MODEL}")), &json!(10_000)));
        assert!(first["supportedGenerationMethods"].as_array().unwrap().contains(&json!("generateContent")));
        assert_eq!(first["pricing"], list["data"][0]["pricing"]);
    }
    for (request, key) in [
        (get("/v1/models?format=anthropic"), "first_id"),
        (get("/v1/models?provider=claude"), "first_id"),
        (get("/v1/models").header("x-api-key", "unused"), "first_id"),
        (get("/v1/models").header("x-anthropic-api-key", "unused"), "first_id"),
        (get("/v1/models?provider=Gemini"), "models"),
        (get("/v1/models?format=gemini").header("anthropic-version", "2023-06-01"), "models"),
        (get("/v1/models?format=openai").header("anthropic-version", "2023-06-01"), "object"),
        (get("/v1beta/models?format=openai"), "object"),
        (get("/v1/models?format=other"), "object"),
        // Whoever sends a bearer too may be anybody.
        (get("/v1/models").header("x-api-key", "unused").bearer_auth("unused"), "object"),
    ] {
        let shown = json(request, 200).await;
        assert!(shown.get(key).is_some(), "{key}: {shown}");
    }
    let one = json(get("/v1/models/echo-1?format=anthropic"), 200).await;
    assert_eq!(&one["type"], "model");
    let one = json(get("/v1beta/models/echo-1"), 200).await;
    assert_eq!(one["name"], json!(format!("models/{MODEL}")));
    let said = json(get("/v1beta/models/none"), 404).await;
    assert_eq!((&said["error"]["code"], &said["error"]["status"]), (&json!(404), &json!("NOT_FOUND")));
    // What a model does is asked of it by POST.
    for path in ["/v1beta/models/echo-1:generateContent", "/v1beta/models/none:countTokens"] {
        let answer = get(path).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.headers()["allow"].to_str().unwrap()), (405, &"POST"));
        let said: Value = answer.json().await.unwrap();
        let error = &said["error"];
        assert_eq!((&error["code"], &error["details"][0]["reason"]), (&json!(405), &json!("method_not_allowed")));
    }
    let said = json(get("/v1/models/none").header("anthropic-version", "2023-06-01"), 404).await;
    assert_eq!((&said["type"], &said["error"]["type"]), (&json!("error"), &json!("not_found_error")));

    let tag = get("/v1/models").send().await.unwrap().headers()["etag"].to_str().unwrap().to_owned();
    let again = get("/v1/models").header("if-none-match", &tag).send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.headers()["etag"].to_str().unwrap()), (304, tag.as_str()));
    let other = get("/v1beta/models").header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(other.status(), 200);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_operators_account_is_refused_in_every_protocol() {
    let world = start().await;
    for (path, header, pointer, expected) in [
        ("/v1/files", None, "/error/code", json!("unsupported_path")),
        ("/v1/batches/b/cancel", None, "/error/code", json!("unsupported_path")),
        ("/v1/responses/resp_1", None, "/error/code", json!("unsupported_path")),
        ("/v1/fine_tuning/jobs", None, "/error/code", json!("unsupported_path")),
        ("/v1/messages/batches", Some("anthropic-version"), "/error/type", json!("not_found_error")),
        ("/v1/skills", Some("anthropic-version"), "/error/code", json!("unsupported_path")),
        ("/v1beta/cachedContents", None, "/error/status", json!("NOT_FOUND")),
        ("/v1beta/files/f", Some("x-goog-api-key"), "/error/details/0/reason", json!("unsupported_path")),
    ] {
        let request = world.node.post(path).bearer_auth(&world.key).header(header.unwrap_or("x-nothing"), "2023-06-01");
        let said = world.refused(path, request, 404).await;
        assert_eq!(said.pointer(pointer), Some(&expected), "{path}: {said}");
        assert!(said["error"]["message"].as_str().unwrap().contains("not sold"), "{path}: {said}");
    }
    world.finish().await;
}
