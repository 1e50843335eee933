//! From Markdown to HTML: headings, lists, tables, links, code, and nothing else. HTML in a page is shown as
//! text, and so is everything that is filled in: it is put into text that was parsed before, and escaped with it.

use pulldown_cmark::{CodeBlockKind, CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, TextMergeStream};

use super::values::Values;

/// A page as HTML.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub html: String,
    pub sections: Vec<Section>,
}

/// A part of a page, by the id of its heading.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub id: String,
    pub title: String,
}

/// Writes a page.
pub(super) fn render(text: &str, values: &Values) -> Written {
    let mut writer = Writer { values, written: Written::default(), place: Place::default() };
    for event in TextMergeStream::new(Parser::new_ext(text, Options::ENABLE_TABLES)) {
        writer.take(event);
    }
    writer.written
}

/// Writes what the operator announces: as a page, without ids of headings, which the page around it has too.
pub(in crate::shop) fn note(text: &str) -> String {
    let values = Values::default();
    let mut writer = Writer { values: &values, written: Written::default(), place: Place::default() };
    for event in TextMergeStream::new(Parser::new_ext(text, Options::ENABLE_TABLES)) {
        match event {
            Event::Start(Tag::Heading { .. }) => writer.raw("<p><strong>"),
            Event::End(TagEnd::Heading(_)) => writer.raw("</strong></p>\n"),
            event => writer.take(event),
        }
    }
    writer.written.html
}

/// Where in the page the writer is.
#[derive(Debug, Default)]
struct Place {
    /// The heading's text so far, and where its tag is to be put.
    heading: Option<(String, usize)>,
    /// Blocks of code so far.
    blocks: usize,
    /// The titles of the table's columns.
    columns: Vec<String>,
    in_head: bool,
    /// The column of the cell that is written.
    column: usize,
    /// Whether the links that are open have a tag.
    links: Vec<bool>,
}

struct Writer<'a> {
    values: &'a Values,
    written: Written,
    place: Place,
}

impl Writer<'_> {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.open(tag),
            Event::End(tag) => self.close(tag),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.text(&text),
            Event::Code(text) => {
                self.raw("<code>");
                self.text(&text);
                self.raw("</code>");
            }
            Event::SoftBreak => self.text("\n"),
            Event::HardBreak => self.raw("<br>"),
            Event::Rule => self.raw("<hr>"),
            _ => {}
        }
    }

    fn open(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph => self.raw("<p>"),
            Tag::Heading { .. } => self.place.heading = Some((String::new(), self.written.html.len())),
            Tag::CodeBlock(kind) => self.open_block(&kind),
            Tag::List(None) => self.raw("<ul>"),
            Tag::List(Some(_)) => self.raw("<ol>"),
            Tag::Item => self.raw("<li>"),
            Tag::Emphasis => self.raw("<em>"),
            Tag::Strong => self.raw("<strong>"),
            Tag::BlockQuote(_) => self.raw("<blockquote>"),
            Tag::Link { dest_url, .. } => self.open_link(&dest_url),
            Tag::Table(_) => {
                self.place.columns.clear();
                self.raw("<table role=\"table\">");
            }
            Tag::TableHead => {
                self.place.in_head = true;
                self.raw("<thead role=\"rowgroup\"><tr role=\"row\">");
            }
            Tag::TableRow => {
                self.place.column = 0;
                self.raw("<tr role=\"row\">");
            }
            Tag::TableCell => self.open_cell(),
            _ => {}
        }
    }

    fn close(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph => self.raw("</p>\n"),
            TagEnd::Heading(level) => self.close_heading(level),
            TagEnd::CodeBlock => self.raw("</code></pre></figure>\n"),
            TagEnd::List(false) => self.raw("</ul>\n"),
            TagEnd::List(true) => self.raw("</ol>\n"),
            TagEnd::Item => self.raw("</li>\n"),
            TagEnd::Emphasis => self.raw("</em>"),
            TagEnd::Strong => self.raw("</strong>"),
            TagEnd::BlockQuote(_) => self.raw("</blockquote>\n"),
            TagEnd::Link if self.place.links.pop() == Some(true) => self.raw("</a>"),
            TagEnd::Table => self.raw("</tbody></table>\n"),
            TagEnd::TableHead => {
                self.place.in_head = false;
                self.raw("</tr></thead>\n<tbody role=\"rowgroup\">\n");
            }
            TagEnd::TableRow => self.raw("</tr>\n"),
            TagEnd::TableCell => self.close_cell(),
            _ => {}
        }
    }

    fn raw(&mut self, html: &str) {
        self.written.html.push_str(html);
    }

    fn text(&mut self, text: &str) {
        let text = self.values.fill(text);
        if let Some((title, _)) = &mut self.place.heading {
            title.push_str(&text);
        }
        if self.place.in_head
            && let Some(column) = self.place.columns.last_mut()
        {
            column.push_str(&text);
        }
        escape(&mut self.written.html, &text);
    }

    /// What stands after the language is the block's title.
    fn open_block(&mut self, kind: &CodeBlockKind<'_>) {
        self.place.blocks = self.place.blocks.saturating_add(1);
        let info = match kind {
            CodeBlockKind::Fenced(info) => info.clone(),
            CodeBlockKind::Indented => CowStr::Borrowed(""),
        };
        let title = info.split_once(' ').map_or("", |(_, title)| title).trim();
        self.raw("<figure>");
        if !title.is_empty() {
            self.raw("<figcaption>");
            escape(&mut self.written.html, title);
            self.raw("</figcaption>");
        }
        // Names of regions differ, for those who go from one to the next.
        let label = if title.is_empty() { "Lines" } else { title };
        self.raw("<pre tabindex=\"0\" role=\"region\" aria-label=\"");
        escape(&mut self.written.html, &format!("{label} ({})", self.place.blocks));
        self.raw("\"><code>");
    }

    /// Only to this node and to the web.
    fn open_link(&mut self, to: &str) {
        let inside = to.starts_with('#') || to.starts_with('/') && !to.starts_with("//");
        let outside = to.starts_with("https://");
        self.place.links.push(inside || outside);
        if inside || outside {
            self.raw("<a href=\"");
            escape(&mut self.written.html, to);
            self.raw(if outside { "\" rel=\"noreferrer\">" } else { "\">" });
        }
    }

    fn close_heading(&mut self, level: HeadingLevel) {
        let Some((title, at)) = self.place.heading.take() else { return };
        let name = if level == HeadingLevel::H2 { "h2" } else { "h3" };
        let id = id_of(&title);
        self.written.html.insert_str(at, &format!("<{name} id=\"{id}\">"));
        self.raw(&format!("</{name}>\n"));
        if level == HeadingLevel::H2 {
            self.written.sections.push(Section { id, title });
        }
    }

    /// A narrow window shows rows as cards, where every cell needs its column's title.
    fn open_cell(&mut self) {
        if self.place.in_head {
            self.place.columns.push(String::new());
            return self.raw("<th role=\"columnheader\" scope=\"col\">");
        }
        if self.place.column == 0 {
            return self.raw("<th role=\"rowheader\" scope=\"row\">");
        }
        let title = self.place.columns.get(self.place.column).cloned().unwrap_or_default();
        self.raw("<td role=\"cell\" data-label=\"");
        escape(&mut self.written.html, &title);
        self.raw("\">");
    }

    fn close_cell(&mut self) {
        let is_title = self.place.in_head || self.place.column == 0;
        self.raw(if is_title { "</th>" } else { "</td>" });
        self.place.column = self.place.column.saturating_add(1);
    }
}

/// The title in small letters and hyphens.
fn id_of(title: &str) -> String {
    let words = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

fn escape(html: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(text: &str) -> String {
        let evil = "<b>\"x\"</b> [l](javascript:y) `z` {{name}} | w";
        render(text, &Values::from_iter([("name", evil.to_owned())])).html
    }

    #[test]
    fn what_is_filled_in_stays_text() {
        let shown = "&lt;b&gt;&quot;x&quot;&lt;/b&gt; [l](javascript:y) `z` {{name}} | w";
        assert_eq!(html("{{name}}"), format!("<p>{shown}</p>\n"));
        assert_eq!(html("`{{name}}`"), format!("<p><code>{shown}</code></p>\n"));
        assert!(html("```\n{{name}}\n```").contains(&format!("<code>{shown}\n</code>")));
        assert!(
            html("| a | b |\n|---|---|\n| c | {{name}} |")
                .contains(&format!("<td role=\"cell\" data-label=\"b\">{shown}</td>"))
        );
        assert!(html("## {{name}}").starts_with("<h2 id=\"b-x-b-l-javascript-y-z-name-w\">&lt;b"));
    }

    #[test]
    fn markup_of_a_page_does_nothing_that_is_not_foreseen() {
        assert_eq!(html("<script>x</script>"), "&lt;script&gt;x&lt;/script&gt;");
        assert!(!html("a <img src=x onerror=y> b").contains("<img"));
        assert_eq!(html("![a](https://n.example/x.png)"), "<p>a</p>\n", "nothing is loaded");
        assert_eq!(html("[a](javascript:x)"), "<p>a</p>\n");
        assert_eq!(html("[a](//n.example)"), "<p>a</p>\n");
        assert_eq!(html("[a](/docs/pay)"), "<p><a href=\"/docs/pay\">a</a></p>\n");
        assert_eq!(html("[a](https://n.example)"), "<p><a href=\"https://n.example\" rel=\"noreferrer\">a</a></p>\n");
        assert_eq!(html("- *a* **b**"), "<ul><li><em>a</em> <strong>b</strong></li>\n</ul>\n");
    }

    #[test]
    fn an_announcement_is_as_harmless() {
        let evil = "# <b onclick=x>t</b>\n\n<script>x</script>\n\n[a](javascript:x) [b](JaVaScRiPt:x) [c](data:text/html,x) \
                    [d](https://n.example/\"onmouseover=x) ![e](https://n.example/x.png) <https://n.example> <a@b.example>";
        let html = note(evil);
        assert!(!html.contains("<script") && !html.contains("<b ") && !html.contains("<img"), "{html}");
        assert!(!html.to_lowercase().contains("href=\"javascript") && !html.contains("href=\"data"), "{html}");
        assert!(html.contains("<p><strong>&lt;b onclick=x&gt;t&lt;/b&gt;</strong></p>"), "{html}");
        assert!(html.contains("href=\"https://n.example/&quot;onmouseover=x\"") && !html.contains(" id="), "{html}");
        assert!(!html.contains("mailto:") && html.contains("<a href=\"https://n.example\""), "{html}");
    }

    #[test]
    fn headings_are_sections_and_blocks_have_names() {
        let written =
            render("## One thing\n\n### Part\n\n```sh With curl\na < b\n```\n\n```\nc\n```\n", &Values::default());
        assert_eq!(written.sections, [Section { id: "one-thing".to_owned(), title: "One thing".to_owned() }]);
        assert!(written.html.contains("<h3 id=\"part\">Part</h3>"));
        assert!(written.html.contains("<figcaption>With curl</figcaption>") && written.html.contains("a &lt; b"));
        assert!(
            written.html.contains("aria-label=\"With curl (1)\"") && written.html.contains("aria-label=\"Lines (2)\"")
        );
    }
}
