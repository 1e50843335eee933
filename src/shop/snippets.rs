//! Lines to paste, with this node's address and one of its models filled in.
//!
//! They end in shells and files of settings. An id with any character that could end a quoted text there
//! is not put in.

use crate::dialect::WireFormat;
use crate::http::Node;

/// Something to paste, and what for.
#[derive(Debug)]
pub(super) struct Snippet {
    pub title: &'static str,
    pub note: &'static str,
    pub text: String,
}

/// The model that the lines of each wire format name. `None`: no upstream has that format, or the operator does not
/// sell it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Named<'a> {
    pub chat: Option<&'a str>,
    pub responses: Option<&'a str>,
    pub messages: Option<&'a str>,
    pub gemini: Option<&'a str>,
}

impl<'a> Named<'a> {
    /// For each format the first of these models that is served so, one of the vendor whose format it is before others.
    /// Where there is no upstream yet, as if they had all formats.
    pub fn of(node: &Node, ids: &[&'a str]) -> Self {
        let (market, pool) = (&node.exchange.market, &node.exchange.pool);
        let of = |format: WireFormat, family: &str| {
            if !node.exchange.settings.now().server.protocols.contains(&format.protocol()) {
                return None;
            }
            if pool.is_empty() {
                return Some(pasteable(first(ids, family)));
            }
            let served = |id: &&str| market.is_served(id, format, pool);
            pool.speaks(format).then(|| pasteable(first(ids, family).filter(served)))
        };
        Self {
            chat: of(WireFormat::ChatCompletions, ""),
            responses: of(WireFormat::Responses, "gpt"),
            messages: of(WireFormat::Messages, "claude"),
            gemini: of(WireFormat::Gemini, "gemini"),
        }
    }
}

/// All ids, those of this family first.
fn first<'a>(ids: &[&'a str], family: &str) -> impl Iterator<Item = &'a str> {
    let (fitting, others): (Vec<&str>, Vec<&str>) = ids.iter().copied().partition(|id| id.contains(family));
    fitting.into_iter().chain(others)
}

/// Stands for a model where none can be named.
pub(super) const ANY_MODEL: &str = "MODEL";

/// The first id that may be pasted.
pub(super) fn pasteable<'a>(mut ids: impl Iterator<Item = &'a str>) -> &'a str {
    let harmless = |id: &&str| {
        !id.is_empty()
            && id.len() <= 120
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@+".contains(&byte))
    };
    ids.find(harmless).unwrap_or(ANY_MODEL)
}

/// All of them. Those of a format that no upstream has are left out.
pub(super) fn all(base: &str, named: Named<'_>) -> Vec<Snippet> {
    let mut all = Vec::new();
    if let Some(model) = named.chat {
        all.extend([bearer(base, model), one_shot(base, model), openai(base, model)]);
    }
    if let Some(model) = named.messages {
        all.extend([anthropic(base, model), claude_code(base, model)]);
    }
    all.extend(named.responses.map(|model| codex(base, model)));
    all.extend(named.gemini.map(|model| gemini(base, model)));
    all.extend(named.chat.map(|model| opencode(base, model)));
    all
}

pub(super) fn bearer(base: &str, model: &str) -> Snippet {
    Snippet {
        title: "curl, with a token as the key",
        note: "The token becomes a key with a balance: send it again and again until it is used up.",
        text: format!(
            r#"TOKEN=cashuB…   # or sk-…
curl {base}/v1/chat/completions \
  -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "hello"}}]}}'"#
        ),
    }
}

pub(super) fn one_shot(base: &str, model: &str) -> Snippet {
    Snippet {
        title: "curl, one payment and the change",
        note: "The token pays this request alone. The change is a token in the header X-Cashu of the answer.",
        text: format!(
            r#"curl -i {base}/v1/chat/completions \
  -H "X-Cashu: $TOKEN" -H "Content-Type: application/json" \
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "hello"}}]}}'"#
        ),
    }
}

pub(super) fn openai(base: &str, model: &str) -> Snippet {
    Snippet {
        title: "OpenAI SDK (Python)",
        note: "Any OpenAI client works: it needs the address with /v1, and the token as its key.",
        text: format!(
            r#"from openai import OpenAI

client = OpenAI(base_url="{base}/v1", api_key="cashuB…")
answer = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "hello"}}],
)
print(answer.choices[0].message.content)"#
        ),
    }
}

pub(super) fn anthropic(base: &str, model: &str) -> Snippet {
    Snippet {
        title: "Anthropic SDK (Python)",
        note: "The address is without /v1 here.",
        text: format!(
            r#"from anthropic import Anthropic

client = Anthropic(base_url="{base}", auth_token="cashuB…")
answer = client.messages.create(
    model="{model}",
    max_tokens=500,
    messages=[{{"role": "user", "content": "hello"}}],
)
print(answer.content[0].text)"#
        ),
    }
}

pub(super) fn claude_code(base: &str, model: &str) -> Snippet {
    Snippet {
        title: "Claude Code",
        note: "The address is without /v1 here, and ANTHROPIC_API_KEY must not be set beside it.",
        text: format!(
            "export ANTHROPIC_BASE_URL={base}\nexport ANTHROPIC_AUTH_TOKEN=cashuB…\nexport ANTHROPIC_MODEL={model}\nclaude"
        ),
    }
}

pub(super) fn codex(base: &str, model: &str) -> Snippet {
    Snippet {
        title: "Codex (~/.codex/config.toml)",
        note: "Then: export COINSLOT_TOKEN=cashuB… and start codex.",
        text: format!(
            r#"model = "{model}"
model_provider = "coinslot"
web_search = "disabled"   # unless the model has a price for searches

[model_providers.coinslot]
name = "coinslot"
base_url = "{base}/v1"
env_key = "COINSLOT_TOKEN"
wire_api = "responses""#
        ),
    }
}

pub(super) fn gemini(base: &str, model: &str) -> Snippet {
    Snippet {
        title: "Google Gen AI SDK (Python)",
        note: "The address is without /v1 here.",
        text: format!(
            r#"from google import genai

client = genai.Client(api_key="cashuB…", http_options={{"base_url": "{base}"}})
answer = client.models.generate_content(model="{model}", contents="hello")
print(answer.text)"#
        ),
    }
}

pub(super) fn opencode(base: &str, model: &str) -> Snippet {
    Snippet {
        title: "OpenCode (opencode.json)",
        note: "Then: export COINSLOT_TOKEN=cashuB… and start opencode.",
        text: format!(
            r#"{{
  "$schema": "https://opencode.ai/config.json",
  "provider": {{
    "coinslot": {{
      "npm": "@ai-sdk/openai-compatible",
      "name": "coinslot",
      "options": {{ "baseURL": "{base}/v1", "apiKey": "{{env:COINSLOT_TOKEN}}" }},
      "models": {{ "{model}": {{}} }}
    }}
  }}
}}"#
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_promised_that_is_not_spoken_and_no_id_breaks_out() {
        let titles =
            |named| -> Vec<&str> { all("https://n.example", named).iter().map(|snippet| snippet.title).collect() };
        let every = |model| Named { chat: model, responses: model, messages: model, gemini: model };
        assert_eq!(titles(Named { chat: Some("m"), ..Named::default() }).len(), 4);
        assert_eq!(titles(every(Some("m"))).len(), 8);
        assert_eq!(titles(Named { responses: Some("m"), ..Named::default() }), ["Codex (~/.codex/config.toml)"]);
        assert_eq!(first(&["a/b", "a/gpt-1", "c"], "gpt").collect::<Vec<_>>(), ["a/gpt-1", "a/b", "c"]);
        assert_eq!(pasteable(["x'; rm -rf ~; '", "a\"b", "$(id)", "", "ven/dor-1:free"].into_iter()), "ven/dor-1:free");
        assert_eq!(pasteable(std::iter::empty()), ANY_MODEL);
        for snippet in all("https://n.example", every(Some("ven/dor"))) {
            assert!(snippet.text.contains("https://n.example"), "{}", snippet.title);
            assert!(snippet.text.contains("ven/dor"), "{}", snippet.title);
        }
        let settings = opencode("https://n.example", "ven/dor").text;
        let settings: serde_json::Value = serde_json::from_str(&settings).unwrap();
        assert_eq!(settings["provider"]["coinslot"]["options"]["baseURL"], "https://n.example/v1");
    }
}
