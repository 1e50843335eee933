//! What an upstream of each kind is like: one row each.
//!
//! A row says where it is, how it takes its key, which wire formats it speaks and how it calls models.
//! Everything that an operator can say of a single upstream wins over its row.

use crate::config::UpstreamKind;
use crate::dialect::WireFormat;

use WireFormat::{
    Audio, ChatCompletions, Completions, Embeddings, Gemini, Images, Messages, Moderations, Rerank, Responses,
};

/// How a key is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer`
    Bearer,
    /// Alone in a header of its own.
    Header(&'static str),
    /// As the wire format's own vendor has it.
    AsUsual,
}

/// The vendor's own wire format, where it is served in another way than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Native {
    pub format: WireFormat,
    pub root: &'static str,
    pub auth: Auth,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    pub kind: UpstreamKind,
    pub base_url: Option<&'static str>,
    /// The host that gives it away. Empty: none.
    pub host: &'static str,
    /// What stands before the path of a request, unless the base URL ends in it.
    pub root: &'static str,
    pub auth: Auth,
    pub native: Option<Native>,
    pub speaks: &'static [WireFormat],
    /// The vendor in the ids of price lists (`vendor/model`). It serves those models alone, and calls
    /// them `model`.
    pub vendor: Option<&'static str>,
    /// `usage.cost` in its answers is what it takes for them, in USD.
    pub reports_cost: bool,
}

/// Speaks OpenAI's chat and nothing else, until a row says more.
const PLAIN: Preset = Preset {
    kind: UpstreamKind::Generic,
    base_url: None,
    host: "",
    root: "",
    auth: Auth::Bearer,
    native: None,
    speaks: &[ChatCompletions],
    vendor: None,
    reports_cost: false,
};

/// All kinds.
pub const PRESETS: &[Preset] = &[
    Preset {
        kind: UpstreamKind::Openai,
        base_url: Some("https://api.openai.com/v1"),
        host: "api.openai.com",
        root: "v1",
        speaks: &[ChatCompletions, Completions, Responses, Embeddings, Images, Audio, Moderations],
        vendor: Some("openai"),
        ..PLAIN
    },
    Preset {
        kind: UpstreamKind::Anthropic,
        base_url: Some("https://api.anthropic.com/v1"),
        host: "api.anthropic.com",
        root: "v1",
        native: Some(Native { format: Messages, root: "v1", auth: Auth::Header("x-api-key") }),
        speaks: &[Messages, ChatCompletions],
        vendor: Some("anthropic"),
        ..PLAIN
    },
    Preset {
        kind: UpstreamKind::Openrouter,
        base_url: Some("https://openrouter.ai/api/v1"),
        host: "openrouter.ai",
        root: "api/v1",
        speaks: &[ChatCompletions, Completions, Responses, Messages, Embeddings],
        reports_cost: true,
        ..PLAIN
    },
    Preset {
        kind: UpstreamKind::Groq,
        base_url: Some("https://api.groq.com/openai/v1"),
        host: "api.groq.com",
        root: "openai/v1",
        speaks: &[ChatCompletions, Responses, Audio],
        ..PLAIN
    },
    Preset {
        kind: UpstreamKind::Azure,
        host: "openai.azure.com",
        root: "openai/v1",
        auth: Auth::Header("api-key"),
        speaks: &[ChatCompletions, Completions, Responses, Embeddings, Images, Audio],
        vendor: Some("openai"),
        ..PLAIN
    },
    Preset {
        kind: UpstreamKind::Gemini,
        base_url: Some("https://generativelanguage.googleapis.com"),
        host: "generativelanguage.googleapis.com",
        root: "v1beta/openai",
        native: Some(Native { format: Gemini, root: "v1beta", auth: Auth::Header("x-goog-api-key") }),
        speaks: &[Gemini, ChatCompletions, Embeddings, Images],
        vendor: Some("google"),
        ..PLAIN
    },
    Preset {
        kind: UpstreamKind::Xai,
        base_url: Some("https://api.x.ai/v1"),
        host: "api.x.ai",
        root: "v1",
        speaks: &[ChatCompletions, Completions, Responses, Messages, Images],
        vendor: Some("x-ai"),
        ..PLAIN
    },
    Preset {
        kind: UpstreamKind::Fireworks,
        base_url: Some("https://api.fireworks.ai/inference/v1"),
        host: "api.fireworks.ai",
        root: "inference/v1",
        speaks: &[ChatCompletions, Completions, Responses, Messages, Embeddings, Rerank],
        ..PLAIN
    },
    Preset {
        kind: UpstreamKind::Perplexity,
        base_url: Some("https://api.perplexity.ai"),
        host: "api.perplexity.ai",
        vendor: Some("perplexity"),
        ..PLAIN
    },
    Preset {
        kind: UpstreamKind::Ollama,
        base_url: Some("http://127.0.0.1:11434/v1"),
        root: "v1",
        speaks: &[ChatCompletions, Completions, Responses, Messages, Embeddings],
        ..PLAIN
    },
    Preset {
        kind: UpstreamKind::Vllm,
        root: "v1",
        speaks: &[ChatCompletions, Completions, Responses, Messages, Embeddings, Audio, Rerank],
        ..PLAIN
    },
    Preset { kind: UpstreamKind::Routstr, root: "v1", speaks: WireFormat::ALL, ..PLAIN },
    Preset { kind: UpstreamKind::Generic, auth: Auth::AsUsual, speaks: WireFormat::ALL, ..PLAIN },
];

impl Preset {
    /// The row of this kind.
    #[must_use]
    pub fn of(kind: UpstreamKind) -> &'static Self {
        PRESETS.iter().find(|preset| preset.kind == kind).unwrap_or(&PLAIN)
    }

    /// The row of the vendor whose API this host is, if it is known.
    #[must_use]
    pub fn at(host: &str) -> Option<&'static Self> {
        let is_at = |preset: &&Self| {
            let rest = host.strip_suffix(preset.host).filter(|_| !preset.host.is_empty());
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        PRESETS.iter().find(is_at)
    }

    /// How and where this wire format is served.
    #[must_use]
    pub fn door(&self, format: WireFormat) -> (&'static str, Auth) {
        match self.native {
            Some(native) if native.format == format => (native.root, native.auth),
            _ => (self.root, self.auth),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_row() {
        for kind in UpstreamKind::ALL {
            let preset = Preset::of(*kind);
            assert_eq!(preset.kind, *kind);
            assert_eq!(preset.base_url.is_none(), kind.needs_address(), "{}", kind.name());
            assert!(!preset.speaks.is_empty());
            if let Some(url) = preset.base_url {
                let url: url::Url = url.parse().unwrap();
                assert!(crate::net::check_url(&url).is_ok());
                let known = Preset::at(url.host_str().unwrap()).map(|preset| preset.kind);
                assert_eq!(known, (!preset.host.is_empty()).then_some(*kind));
            }
        }
    }

    #[test]
    fn a_host_gives_its_kind_away() {
        let kind = |host| Preset::at(host).map(|preset| preset.kind);
        assert_eq!(kind("my-resource.openai.azure.com"), Some(UpstreamKind::Azure));
        assert_eq!(kind("api.openai.com"), Some(UpstreamKind::Openai));
        for host in ["notapi.openai.com", "api.openai.com.example", "127.0.0.1", ""] {
            assert_eq!(kind(host), None, "{host}");
        }
    }

    /// Nobody could be asked in one that no kind speaks.
    #[test]
    fn every_dialect_is_of_a_wire_format_that_some_kind_speaks() {
        for dialect in crate::dialect::REGISTRY {
            // Those that speak all of them say nothing of this one.
            let mut named = PRESETS.iter().filter(|preset| preset.speaks != WireFormat::ALL);
            let format = dialect.wire_format();
            assert!(named.any(|preset| preset.speaks.contains(&format)), "{} is in no row", format.name());
        }
    }
}
