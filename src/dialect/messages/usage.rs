//! The usage report of Messages: in pieces, cumulative, and without the caches in `input_tokens`.

use crate::dialect::body::{self, Lens};
use crate::dialect::fields::served;
use crate::dialect::reading::{Rest, count};
use crate::money::{Service, Usage, UsageSource};

/// The latest number of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Report {
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_written: Option<u64>,
    for_minutes: Option<u64>,
    for_an_hour: Option<u64>,
    output: Option<u64>,
    searches: Option<u64>,
    service: Option<Service>,
    /// Compactions, which the other numbers leave out, and the input of the longest.
    more: Usage,
    longest: u64,
    /// Something was done that nobody here knows the price of.
    is_strange: bool,
    /// A count made no sense.
    is_absurd: bool,
}

impl Report {
    /// Takes a usage object. What it has replaces what came before; but a zero does not replace a
    /// count of input that was above it, as some relays repeat them.
    pub(super) fn take(&mut self, lens: &Lens<'_>) {
        self.take_counts(lens);
        let iterations = lens.get("iterations").and_then(body::elements).unwrap_or_default();
        self.take_iterations(iterations.into_iter().filter_map(Lens::of));
    }

    fn take_counts(&mut self, lens: &Lens<'_>) {
        let mut absurd = false;
        let mut read = |lens: &Lens<'_>, name: &str| {
            count(lens, name).unwrap_or_else(|_| {
                absurd = true;
                None
            })
        };
        let keep = |old: Option<u64>, new: Option<u64>| match (old, new) {
            (Some(old), Some(0)) if old > 0 => Some(old),
            (old, new) => new.or(old),
        };
        self.input = keep(self.input, read(lens, "input_tokens"));
        self.cache_read = keep(self.cache_read, read(lens, "cache_read_input_tokens"));
        self.cache_written = keep(self.cache_written, read(lens, "cache_creation_input_tokens"));
        self.output = read(lens, "output_tokens").or(self.output);
        self.service = served(lens).or(self.service);
        let split = lens.object("cache_creation");
        let minutes = split.as_ref().and_then(|split| read(split, "ephemeral_5m_input_tokens"));
        let hour = split.as_ref().and_then(|split| read(split, "ephemeral_1h_input_tokens"));
        // Relays have names of their own.
        let mut first = |names: [&str; 2]| names.iter().find_map(|name| read(lens, name));
        let minutes = minutes.or_else(|| first(["cache_creation_5m_input_tokens", "claude_cache_creation_5_m_tokens"]));
        let hour = hour.or_else(|| first(["cache_creation_1h_input_tokens", "claude_cache_creation_1_h_tokens"]));
        self.for_minutes = keep(self.for_minutes, minutes);
        self.for_an_hour = keep(self.for_an_hour, hour);
        if let Some(tools) = lens.object("server_tool_use") {
            self.searches = read(&tools, "web_search_requests").or(self.searches);
        }
        self.is_absurd |= absurd;
    }

    /// Takes the passes that an answer was made in, each with numbers of its own.
    fn take_iterations<'a>(&mut self, iterations: impl Iterator<Item = Lens<'a>>) {
        let (mut more, mut longest) = (Usage::default(), 0);
        for iteration in iterations {
            match iteration.get("type").and_then(body::string).as_deref() {
                Some("message") => {}
                Some("compaction") => {
                    let mut pass = Self { input: Some(0), output: Some(0), ..Self::default() };
                    pass.take_counts(&iteration);
                    let Some(pass) = pass.usage() else {
                        self.is_strange = true;
                        continue;
                    };
                    longest = longest.max(pass.total_input());
                    more = with(more, &pass);
                }
                _ => self.is_strange = true,
            }
        }
        // They grow from report to report, and some reports leave them out.
        if more.total_input() >= self.more.total_input() {
            (self.more, self.longest) = (more, longest);
        }
    }

    /// The buckets, once input and output are known.
    pub(super) fn usage(&self) -> Option<Usage> {
        let output = self.output?.saturating_add(self.more.output);
        Some(Usage { output, ..self.so_far()? })
    }

    /// The buckets before the end: what came out is not known, or only as a placeholder.
    pub(super) fn partial(&self, output_chars: u64) -> Option<Usage> {
        let output = output_chars.div_ceil(4);
        Some(Usage { output, source: UsageSource::Estimated, ..self.so_far()? })
    }

    fn so_far(&self) -> Option<Usage> {
        if self.is_absurd {
            return None;
        }
        let input = self.input?;
        let split = self.for_minutes.unwrap_or(0).saturating_add(self.for_an_hour.unwrap_or(0));
        // What is kept for an hour is dearer: as much of it is believed as fits.
        let mut written = Rest::of(self.cache_written.unwrap_or(split));
        let cache_write_1h = written.take(self.for_an_hour.unwrap_or(0));
        let own = Usage {
            input,
            cache_read: self.cache_read.unwrap_or(0),
            cache_write: written.left,
            cache_write_1h,
            web_searches: self.searches.unwrap_or(0),
            service: self.service,
            contradictory: written.is_exceeded || self.more.contradictory || self.is_strange,
            ..Usage::default()
        };
        let all = with(own, &self.more);
        // What was read in several passes is as long as the longest of them.
        let longest = own.total_input().max(self.longest);
        Some(Usage { read_apart: all.total_input().saturating_sub(longest), ..all })
    }
}

/// What two passes came to.
fn with(usage: Usage, pass: &Usage) -> Usage {
    Usage {
        input: usage.input.saturating_add(pass.input),
        cache_read: usage.cache_read.saturating_add(pass.cache_read),
        cache_write: usage.cache_write.saturating_add(pass.cache_write),
        cache_write_1h: usage.cache_write_1h.saturating_add(pass.cache_write_1h),
        output: usage.output.saturating_add(pass.output),
        contradictory: usage.contradictory || pass.contradictory,
        ..usage
    }
}
