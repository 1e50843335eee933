//! What a request consumed, in disjoint buckets, whatever the wire format called them.

/// Where the numbers come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageSource {
    /// The upstream said so.
    #[default]
    Reported,
    /// The upstream said nothing: counted from the text that went in and came out.
    Estimated,
}

/// Canonical usage. No token is in two buckets: the sum of the first three is the whole input,
/// `output + reasoning` the whole output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input tokens that no cache served.
    pub input: u64,
    /// Input tokens read from a prompt cache.
    pub cache_read: u64,
    /// Input tokens written to a prompt cache.
    pub cache_write: u64,
    /// Output tokens without reasoning.
    pub output: u64,
    /// Output tokens spent on reasoning.
    pub reasoning: u64,
    /// Images sent along with the prompt.
    pub images: u64,
    /// Web searches the model made.
    pub web_searches: u64,
    pub source: UsageSource,
}

impl Usage {
    /// All input tokens, cached or not.
    #[must_use]
    pub fn total_input(&self) -> u64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write)
    }

    /// All output tokens, reasoning included.
    #[must_use]
    pub fn total_output(&self) -> u64 {
        self.output.saturating_add(self.reasoning)
    }

    /// Rejects numbers no request can reach (more than 10¹² of anything): an upstream that lies
    /// must not reach the arithmetic.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        const LIMIT: u64 = 1_000_000_000_000;
        [self.input, self.cache_read, self.cache_write, self.output, self.reasoning, self.images, self.web_searches]
            .iter()
            .all(|count| *count <= LIMIT)
    }
}
