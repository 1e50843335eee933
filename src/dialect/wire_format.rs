//! The wire formats, by the names that operators write.

use super::Protocol;

/// An enumeration whose variants have names in settings and in JSON.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $text:literal $(| $alias:literal)*,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($variant,)+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text.to_ascii_lowercase().as_str() {
                    $($text $(| $alias)* => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use named;

named! {
    /// A wire format: what endpoints of one family have in common, and what an upstream speaks or does not.
    WireFormat {
        ChatCompletions = "chat_completions",
        Completions = "completions",
        Responses = "responses",
        Messages = "messages",
        Gemini = "gemini",
        Embeddings = "embeddings",
        Images = "images",
        Audio = "audio",
        Moderations = "moderations",
        Rerank = "rerank",
    }
}

impl WireFormat {
    /// Whose conventions it follows.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Messages => Protocol::Anthropic,
            Self::Gemini => Protocol::Gemini,
            Self::ChatCompletions
            | Self::Completions
            | Self::Responses
            | Self::Embeddings
            | Self::Images
            | Self::Audio
            | Self::Moderations
            | Self::Rerank => Protocol::OpenAi,
        }
    }
}
