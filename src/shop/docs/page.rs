//! A page as its file has it: a head of a few lines between `---`, and Markdown.

/// One page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The last part of its address.
    pub name: &'static str,
    pub title: &'static str,
    pub group: &'static str,
    /// Its place among all pages.
    pub order: u32,
    /// What it is about, in a sentence.
    pub intro: &'static str,
    /// Markdown.
    pub body: &'static str,
}

impl Page {
    /// Reads `title`, `group`, `order` and `intro`, a line each; all are needed.
    pub fn read(name: &'static str, text: &'static str) -> Option<Self> {
        let (head, body) = text.strip_prefix("---\n")?.split_once("\n---\n")?;
        let field = |wanted: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.find(|(field, _)| *field == wanted).map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
        };
        Some(Self {
            name,
            title: field("title")?,
            group: field("group")?,
            order: field("order")?.parse().ok()?,
            intro: field("intro")?,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_whole_or_there_is_no_page() {
        let page = Page::read("a", "---\ntitle: A: b\ngroup: G\norder: 7\nintro: What.\n---\ntext\n---\nmore").unwrap();
        assert_eq!((page.title, page.group, page.order, page.intro), ("A: b", "G", 7, "What."));
        assert_eq!(page.body, "text\n---\nmore");
        for broken in [
            "",
            "text",
            "---\ntitle: A\ngroup: G\norder: 7\n---\n",
            "---\ntitle: A\ngroup: G\norder: first\nintro: What.\n---\n",
            "---\ntitle: A\ngroup: \norder: 7\nintro: What.\n---\n",
            "---\ntitle: A\ngroup: G\norder: 7\nintro: What.\n",
        ] {
            assert_eq!(Page::read("a", broken), None, "{broken:?}");
        }
    }
}
