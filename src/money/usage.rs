//! What a request consumed, in disjoint buckets, whatever the wire format called them.

use super::service::{AskedService, Service};

/// Where the numbers come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageSource {
    /// The upstream said so.
    #[default]
    Reported,
    /// The upstream said nothing: counted from the text that went in and came out.
    Estimated,
}

/// Canonical usage. No token is in two buckets: [`Usage::total_input`] and [`Usage::total_output`]
/// are sums of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input tokens that no cache served and that are no audio or picture with a count of its own.
    pub input: u64,
    /// Input tokens read from a prompt cache.
    pub cache_read: u64,
    /// Input tokens written to a prompt cache, for five minutes or as long as the upstream likes.
    pub cache_write: u64,
    /// Input tokens written to a prompt cache for an hour.
    pub cache_write_1h: u64,
    /// Audio tokens of the input.
    pub audio_in: u64,
    /// Audio tokens of the input that a prompt cache served.
    pub audio_cached: u64,
    /// Picture tokens of the input, where the upstream counts them apart.
    pub image_in: u64,
    /// Input tokens, of all these, that other passes read than the longest: they cost what they cost, and make no
    /// input long.
    pub read_apart: u64,
    /// Output tokens of text, without reasoning.
    pub output: u64,
    /// Output tokens spent on reasoning.
    pub reasoning: u64,
    /// Audio tokens of the output.
    pub audio_out: u64,
    /// Picture tokens of the output.
    pub image_out: u64,
    /// Images sent along with the prompt.
    pub images: u64,
    /// Pictures that were made.
    pub images_made: u64,
    /// Web searches the model made; of one that searches before it answers, the answers that rest on that.
    pub web_searches: u64,
    /// Single queries of such searches, where they are told.
    pub web_queries: u64,
    /// Containers in which code was run.
    pub code_sessions: u64,
    /// Search units of a ranking.
    pub queries: u64,
    /// Length of the audio that was listened to, in milliseconds.
    pub audio_ms: u64,
    /// Characters that were spoken.
    pub characters: u64,
    /// How it was served, where the answer says so.
    pub service: Option<Service>,
    pub source: UsageSource,
    /// Parts of the report exceeded their total, or it tells of something that is not known; the cheaper reading was
    /// taken.
    pub contradictory: bool,
}

impl Usage {
    /// All input tokens, cached or not.
    #[must_use]
    pub fn total_input(&self) -> u64 {
        let parts = [
            self.input,
            self.cache_read,
            self.cache_write,
            self.cache_write_1h,
            self.audio_in,
            self.audio_cached,
            self.image_in,
        ];
        parts.iter().fold(0, |sum, part| sum.saturating_add(*part))
    }

    /// The longest input that was read at once.
    #[must_use]
    pub fn longest_input(&self) -> u64 {
        self.total_input().saturating_sub(self.read_apart)
    }

    /// All output tokens, reasoning included.
    #[must_use]
    pub fn total_output(&self) -> u64 {
        let parts = [self.output, self.reasoning, self.audio_out, self.image_out];
        parts.iter().fold(0, |sum, part| sum.saturating_add(*part))
    }

    /// Rejects numbers no request can reach (more than 10¹² of anything): an upstream that lies
    /// must not reach the arithmetic.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        const LIMIT: u64 = 1_000_000_000_000;
        // Taken apart in full, so that the compiler asks here for a new bucket. Tokens are in the sums.
        let Self {
            images,
            images_made,
            web_searches,
            web_queries,
            code_sessions,
            queries,
            audio_ms,
            characters,
            input: _,
            cache_read: _,
            cache_write: _,
            cache_write_1h: _,
            audio_in: _,
            audio_cached: _,
            image_in: _,
            read_apart: _,
            output: _,
            reasoning: _,
            audio_out: _,
            image_out: _,
            service: _,
            source: _,
            contradictory: _,
        } = *self;
        let units = [images, images_made, web_searches, web_queries, code_sessions, queries, audio_ms, characters];
        let tokens = [self.total_input(), self.total_output()];
        units.iter().chain(&tokens).all(|count| *count <= LIMIT)
    }
}

/// How long a request asks a prompt cache to keep what it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheWrites {
    #[default]
    None,
    /// It asks for nothing, and the model does as it likes.
    Unasked,
    Minutes,
    Hour,
}

/// What a request may consume beside text, at most. What is above zero or `true` needs a price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// It consumes nothing that is counted: only the price per request applies.
    pub uncounted: bool,
    /// The upstream may add input of its own choice, as a search does: as much as fits.
    pub open_input: bool,
    /// Calls of tools that the upstream runs. After each the model reads what it was sent once more.
    pub tool_calls: u64,
    pub service: AskedService,
    pub cache_writes: CacheWrites,
    /// Audio tokens that are sent.
    pub audio_in: u64,
    /// The answer may speak.
    pub audio_out: bool,
    /// The answer may contain pictures, as tokens.
    pub image_out: bool,
    /// It does not say: a model that makes pictures may.
    pub image_by_default: bool,
    /// Pictures asked for, and the tokens of each at most.
    pub images_made: u64,
    pub tokens_per_image: u64,
    /// The tokens that each is taken to have, where they alone have a price and nothing is told of them.
    pub usual_tokens_per_image: u64,
    /// Tokens that go into the making of each, where the model has pictures made.
    pub tokens_into_image: u64,
    pub web_searches: u64,
    /// The model searches by itself: every answer rests on a search at least, whether that is reported or not.
    pub searches_unasked: bool,
    pub web_queries: u64,
    pub code_sessions: u64,
    pub queries: u64,
    /// Milliseconds of audio to listen to.
    pub audio_ms: u64,
    /// Characters to speak.
    pub characters: u64,
}
