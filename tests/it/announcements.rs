//! What the operator announces, and that it is text whatever is in it.

use coinslot::news::MOST;
use coinslot::store::Durability;
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
    assert!(refused.status() == 400 && refused.text().await.unwrap().contains("Times are written like"));

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

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_the_page_allows_is_taken_and_what_is_refused_is_not_lost() {
    let (_mint, _purse, _upstream, node) = world(10).await;
    let browser = Browser::log_in(&node).await;
    let form = csrf(&browser.page_at("/admin/announcements").await);
    let set = async |fields: &[(&str, &str)]| {
        let all = [&[("csrf", &*form), ("level", "critical")][..], fields].concat();
        browser.post("/admin/announcements/set", &all).await
    };
    // 4,000 letters as the page counts them, each of nine bytes in a form; a browser ends a line by two.
    let body = format!("{}\r\n{}", "字".repeat(1_999), "字".repeat(2_000));
    let done = set(&[("title", "long"), ("body", &body)]).await;
    assert_eq!(done.status(), 303, "{}", done.text().await.unwrap());
    let now = said(&node).await;
    assert_eq!(now[0]["body"], body.replace("\r\n", "\n"));

    // Of a new one, and of one that there is.
    let id = now[0]["id"].as_str().unwrap();
    for more in [&[][..], &[("id", id)]] {
        let typed = [("title", "a <new> title"), ("body", "all that was typed"), ("until", "tomorrow")];
        let fields = [&typed[..], more].concat();
        let refused = set(&fields).await;
        assert_eq!(refused.status(), 400);
        let page = refused.text().await.unwrap();
        for field in ["value=\"a &#60;new&#62; title\"", ">all that was typed</textarea>", "value=\"tomorrow\""] {
            assert_eq!(page.matches(field).count(), 1, "{field}: {page}");
        }
        assert!(page.contains("<option value=\"critical\" selected>"), "{page}");
        assert!(page.contains("<b>long</b>"), "what is announced is as before: {page}");
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_so_many_at_most() {
    let (_mint, _purse, _upstream, node) = world(10).await;
    let mut tx = node.running().exchange().ledger.store().begin(Durability::Full).await.unwrap();
    for at in 0..MOST - 1 {
        let row = "INSERT INTO announcements (id, title, body, level, starts_at, created_at, updated_at) \
                   VALUES ($1, 'old', '', 'info', 1, 1, 1)";
        sqlx::query(row).bind(format!("{at:04}")).execute(tx.hand()).await.unwrap();
    }
    tx.commit().await.unwrap();
    let manager = Program::with(&node, "read manage").await;
    let (status, last) = manager.post("/admin/api/announcements", &json!({ "title": "the last" })).await;
    assert_eq!(status, 200, "{last}");
    let (status, refused) = manager.post("/admin/api/announcements", &json!({ "title": "one more" })).await;
    assert_eq!((status, &refused["code"]), (409, &json!("conflict")), "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("there are 500 announcements"), "{refused}");
    assert_eq!(coinslot(node.settings(), &["announcements", "set", "--title", "one more"]).status.code(), Some(1));
    // Those there are can be changed, and make room.
    let changed = json!({ "id": last["id"], "title": "changed" });
    assert_eq!(manager.post("/admin/api/announcements", &changed).await.0, 200);
    assert_eq!(manager.post("/admin/api/announcements/remove", &json!({ "id": "0000" })).await.0, 204);
    assert_eq!(manager.post("/admin/api/announcements", &json!({ "title": "one more" })).await.0, 200);
    node.finish().await;
}
