//! Prometheus' text format, version 0.0.4: families of samples, each with its help and kind.

use std::fmt::{Display, Write as _};

/// `Content-Type` of the text.
pub const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The text under construction. The samples of a family follow its head.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    family: &'static str,
}

impl Exposition {
    /// Begins a family. `help` is one line.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.family = name;
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// A sample of the family that was begun last.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.part("", labels, value);
    }

    /// A sample of a histogram: its name goes on like this.
    pub(super) fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let family = self.family;
        self.put(format_args!("{family}{suffix}"));
        for (at, (name, text)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            self.put(format_args!("{open}{name}=\"{}\"", escaped(text)));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        self.put(format_args!("{close} {value}\n"));
    }

    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    fn put(&mut self, part: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _written = self.text.write_fmt(part);
    }
}

/// A label's value: a model is called whatever the operator's lists call it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_break_out() {
        let mut page = Exposition::default();
        page.family("a_total", Kind::Counter, "Of a.");
        page.sample(&[("x", "1\"}\n\\"), ("y", "é")], 7);
        page.sample(&[], "1.5");
        let text =
            "# HELP a_total Of a.\n# TYPE a_total counter\na_total{x=\"1\\\"}\\n\\\\\",y=\"é\"} 7\na_total 1.5\n";
        assert_eq!(page.into_text(), text);
    }
}
