use super::*;

#[test]
fn browsers_get_the_page_and_programs_json() {
    let chrome = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
    for (accept, page) in [
        (chrome, true),
        ("text/html", true),
        ("TEXT/HTML; q=0.5", true),
        ("application/xhtml+xml", true),
        ("text/html, application/json", true),
        ("application/json, text/html;q=0.9", false),
        ("application/json;q=0.5, text/html;q=0.75", true),
        ("application/json", false),
        ("*/*", false),
        ("text/*", false),
        ("text/html;q=0", false),
        ("text/html;q=nonsense", false),
        ("", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        assert_eq!(wants_page(&headers), page, "{accept}");
    }
    assert!(!wants_page(&HeaderMap::new()), "curl -H Accept:");
}

/// A form that never comes to its end is not waited for.
#[tokio::test]
async fn a_form_that_does_not_come_is_refused() {
    let form = |body| {
        let form = Request::builder().method("POST").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        form.body(body).unwrap()
    };
    let never = futures_util::stream::pending::<Result<axum::body::Bytes, std::convert::Infallible>>();
    let sent = Sent::read(form(axum::body::Body::from_stream(never)), &(), Duration::from_millis(10)).await;
    assert!(sent.0.is_err_and(|failure| failure.message.contains("in time")));
    let sent = Sent::read(form(axum::body::Body::from("key=a")), &(), Duration::from_secs(60)).await;
    assert!(sent.0.is_ok_and(|typed| typed.key == "a"));
}
