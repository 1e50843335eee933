//! What the operator announces, and that it is text whatever is in it.

use serde_json::{Value, json};

use crate::bearer::world;
use crate::price_sync::{Browser, csrf};
use crate::requests_page::token;
use crate::support::node::TestNode;
use crate::support::program::{Program, coinslot, told};

const EVIL: &str = "# Hi<script>alert(1)</script>\n\n<img src=x onerror=alert(2)> [good](https://n.example/a) \
                    [bad](javascript:alert(3)) [worse](data:text/html,x) ![pic](https://n.example/p.png) **soon**";

async fn said(node: &TestNode) -> Vec<Value> {
    let answer = node.get("/v1/announcements").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json::<Value>().await.unwrap()["announcements"].as_array().unwrap().clone()
}

async fn shop(node: &TestNode) -> String {
    let answer = node.get("/").header("accept", "text/html").send().await.unwrap();
    assert!(answer.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    answer.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_announced_is_shown_in_its_time_and_does_no_harm() {
    let (_mint, _purse, _upstream, node) = world(10).await;
    assert!(said(&node).await.is_empty());
    assert_eq!(node.get("/admin/announcements").send().await.unwrap().status(), 303);
    let browser = Browser::log_in(&node).await;
    let form = csrf(&browser.page_at("/admin/announcements").await);
    let fields = [("csrf", &*form), ("title", "<b>Move</b>"), ("body", EVIL), ("level", "critical")];
    assert_eq!(browser.post("/admin/announcements/set", &[("csrf", "x"), fields[1], fields[3]]).await.status(), 403);
    assert_eq!(browser.post("/admin/announcements/set", &fields).await.status(), 303);
    let page = shop(&node).await;
    assert!(page.contains("&#60;b&#62;Move&#60;/b&#62;") && page.contains("<strong>soon</strong>"), "{page}");
    assert!(page.contains("<a href=\"https://n.example/a\" rel=\"noreferrer\">good</a>"), "{page}");
    for harm in ["<script", "<img src=x", "javascript:", "data:text", "p.png", "<b>Move"] {
        assert!(!page.contains(harm), "{harm}: {page}");
    }
    let admin = browser.page_at("/admin/announcements").await;
    assert!(!admin.contains("<script>") && admin.contains("shown now"), "{admin}");
    let bad = [fields[0], fields[1], fields[3], ("until", "tomorrow")];
    let refused = browser.post("/admin/announcements/set", &bad).await;
    assert!(refused.status() == 400 && refused.text().await.unwrap().contains("Times are like"));

    let manager = Program::with(&node, "read manage").await;
    let later = json!({ "title": "later", "from_ms": 4_000_000_000_000_i64 });
    assert_eq!(manager.post("/admin/api/announcements", &later).await.0, 200);
    let past = json!({ "title": "past", "from_ms": 1, "until_ms": 2 });
    assert_eq!(manager.post("/admin/api/announcements", &past).await.0, 200);
    assert_eq!(manager.post("/admin/api/announcements", &json!({ "title": "" })).await.0, 400);
    // No database would have to store it.
    let (status, refusal) = manager.post("/admin/api/announcements", &json!({ "title": "a\0b" })).await;
    assert_eq!((status, &refusal["code"]), (400, &json!("invalid_request")));
    let nul = [fields[0], ("title", "a\0b"), fields[3]];
    assert_eq!(browser.post("/admin/announcements/set", &nul).await.status(), 400);
    assert_eq!(
        node.get("/admin/trail?actor=%00").header("cookie", browser.cookie()).send().await.unwrap().status(),
        400
    );
    let token = token(&node, "manage money").await;
    let retry = "/admin/api/wallet/operations/a%00b/retry";
    assert_eq!(node.post(retry).bearer_auth(&token).send().await.unwrap().status(), 400);
    let media = "application/vnd.api+json; charset=utf-8";
    let other = node.post("/admin/api/announcements").bearer_auth(&token).header("content-type", media);
    assert_eq!(other.body(r#"{"title":"a\u0000b"}"#).send().await.unwrap().status(), 400);
    assert_eq!(manager.post("/admin/api/announcements", &json!({ "title": "a", "id": "none" })).await.0, 404);
    let now = said(&node).await;
    assert_eq!(now.len(), 1, "{now:?}");
    assert_eq!(
        (&now[0]["title"], &now[0]["level"], &now[0]["body"]),
        (&json!("<b>Move</b>"), &json!("critical"), &json!(EVIL))
    );
    let id = now[0]["id"].as_str().unwrap();
    let changed = json!({ "id": id, "title": "moved", "level": "info" });
    assert_eq!(manager.post("/admin/api/announcements", &changed).await.0, 200);
    assert_eq!(said(&node).await[0]["title"], "moved");

    let settings = node.settings();
    let made: Value = serde_json::from_str(&told(
        settings,
        &["announcements", "set", "--title", "by hand", "--level", "warning", "--json"],
    ))
    .unwrap();
    let titles: Vec<String> = said(&node).await.iter().map(|one| one["title"].as_str().unwrap().to_owned()).collect();
    assert_eq!(titles, ["by hand", "moved"], "what matters more comes first");
    assert!(told(settings, &["announcements", "list"]).contains("by hand (shown now)"));
    told(settings, &["announcements", "remove", made["id"].as_str().unwrap()]);
    assert_eq!(coinslot(settings, &["announcements", "remove", "none"]).status.code(), Some(1));
    assert_eq!(manager.post("/admin/api/announcements/remove", &json!({ "id": id })).await.0, 204);
    assert_eq!(manager.post("/admin/api/announcements/remove", &json!({ "id": id })).await.0, 404);
    assert!(said(&node).await.is_empty());
    assert_eq!(manager.get("/admin/api/announcements").await.as_array().unwrap().len(), 2);
    let reader = Program::with(&node, "read").await;
    assert_eq!(reader.post("/admin/api/announcements", &json!({ "title": "a" })).await.0, 403);
    let acts = manager.get("/admin/api/trail?limit=500").await.to_string();
    assert!(acts.contains("announcements.set") && acts.contains("announcements.remove"));
    node.finish().await;
}
