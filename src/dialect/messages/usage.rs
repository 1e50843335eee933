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
    /// Tokens of a compaction, which the other numbers leave out.
    more_input: u64,
    more_output: u64,
    /// A count made no sense.
    is_absurd: bool,
}

impl Report {
    /// Takes a usage object. What it has replaces what came before; but a zero does not replace a
    /// count of input that was above it, as some relays repeat them.
    pub(super) fn take(&mut self, lens: &Lens<'_>) {
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
        self.for_minutes = keep(self.for_minutes, minutes.or_else(|| read(lens, "cache_creation_5m_input_tokens")));
        self.for_an_hour = keep(self.for_an_hour, hour.or_else(|| read(lens, "cache_creation_1h_input_tokens")));
        if let Some(tools) = lens.object("server_tool_use") {
            self.searches = read(&tools, "web_search_requests").or(self.searches);
        }
        let (more_input, more_output) = compactions(lens);
        self.more_input = more_input.max(self.more_input);
        self.more_output = more_output.max(self.more_output);
        self.is_absurd |= absurd;
    }

    /// The buckets, once input and output are known.
    pub(super) fn usage(&self) -> Option<Usage> {
        let output = self.output?.saturating_add(self.more_output);
        Some(Usage { output, ..self.so_far()? })
    }

    /// The same before the end: what came out is not known, or only as a placeholder.
    pub(super) fn partial(&self, output_chars: u64) -> Option<Usage> {
        let output = output_chars.div_ceil(4);
        Some(Usage { output, source: UsageSource::Estimated, ..self.so_far()? })
    }

    fn so_far(&self) -> Option<Usage> {
        if self.is_absurd {
            return None;
        }
        let input = self.input?.saturating_add(self.more_input);
        let split = self.for_minutes.unwrap_or(0).saturating_add(self.for_an_hour.unwrap_or(0));
        // What is kept for an hour is dearer: as much of it is believed as fits.
        let mut written = Rest::of(self.cache_written.unwrap_or(split));
        let cache_write_1h = written.take(self.for_an_hour.unwrap_or(0));
        Some(Usage {
            input,
            cache_read: self.cache_read.unwrap_or(0),
            cache_write: written.left,
            cache_write_1h,
            web_searches: self.searches.unwrap_or(0),
            service: self.service,
            contradictory: written.is_exceeded,
            ..Usage::default()
        })
    }
}

/// Input and output of the compactions among the iterations.
fn compactions(lens: &Lens<'_>) -> (u64, u64) {
    let mut sums = (0_u64, 0_u64);
    let iterations = lens.get("iterations").and_then(body::elements).unwrap_or_default();
    for iteration in iterations.into_iter().filter_map(Lens::of) {
        if iteration.get("type").and_then(body::string).as_deref() == Some("compaction") {
            let read = |name: &str| count(&iteration, name).ok().flatten().unwrap_or(0);
            sums.0 = sums.0.saturating_add(read("input_tokens"));
            sums.1 = sums.1.saturating_add(read("output_tokens"));
        }
    }
    sums
}
