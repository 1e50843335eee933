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
