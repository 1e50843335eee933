//! What a request needs of the model and of the upstream, beside the wire format: whoever is known not to have
//! it is not asked, because it would answer as if it had not been asked for.

use serde_json::value::RawValue;

use super::Shape;
use super::body::{self, Lens};

macro_rules! features {
    ($($(#[$meta:meta])* $variant:ident = $name:literal,)+) => {
        /// Something that a model or an upstream may lack.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Feature { $($(#[$meta])* $variant,)+ }

        impl Feature {
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// As operators write it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|feature| feature.name() == name)
            }
        }
    };
}

features! {
    Streaming = "streaming",
    Tools = "tools",
    /// A tool must be called, or one of them.
    ToolChoice = "tool_choice",
    Vision = "vision",
    /// Sound in the conversation.
    AudioInput = "audio_input",
    /// An answer by a JSON schema.
    StructuredOutput = "structured_output",
    /// An answer that is some JSON.
    JsonOutput = "json_output",
    Reasoning = "reasoning",
    Logprobs = "logprobs",
    AudioOutput = "audio_output",
    ImageOutput = "image_output",
}

/// A set of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs(u16);

impl Needs {
    const fn bit(feature: Feature) -> u16 {
        1 << feature as u16
    }

    /// Adds one where it is wanted.
    pub fn want(&mut self, feature: Feature, is_wanted: bool) {
        if is_wanted {
            self.0 |= Self::bit(feature);
        }
    }

    #[must_use]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & Self::bit(feature) != 0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.iter().copied().filter(move |feature| self.has(*feature))
    }

    /// The first of these that is not among `those`.
    #[must_use]
    pub fn beyond(self, those: Self) -> Option<Feature> {
        Self(self.0 & !those.0).iter().next()
    }
}

impl FromIterator<Feature> for Needs {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        let mut needs = Self::default();
        features.into_iter().for_each(|feature| needs.want(feature, true));
        needs
    }
}

/// The text of a value that is one, between its quotes; a word that is looked for here needs no escapes.
fn word(value: &RawValue) -> Option<&str> {
    value.get().strip_prefix('"')?.strip_suffix('"')
}

/// The `type` of an object.
fn kind(value: &RawValue) -> Option<String> {
    Lens::of(value)?.present("type").and_then(body::string)
}

/// What every conversation can ask for, once it is measured.
pub(super) fn conversation(shape: &mut Shape) {
    let (stream, images, demand) = (shape.stream, shape.images, shape.demand);
    let needs = &mut shape.needs;
    needs.want(Feature::Streaming, stream);
    needs.want(Feature::Vision, images > 0);
    needs.want(Feature::AudioInput, demand.audio_in > 0);
    needs.want(Feature::AudioOutput, demand.audio_out);
    needs.want(Feature::ImageOutput, demand.image_out);
}

/// Whether there are tools.
pub(super) fn tools(lens: &Lens<'_>, needs: &mut Needs) {
    needs.want(
        Feature::Tools,
        ["tools", "functions"].iter().any(|name| lens.present(name).is_some_and(body::is_filled_array)),
    );
}

/// What a tool gave, in a conversation that has a member of such a name with it alone: whoever knows no tools cannot
/// read it.
pub(super) fn results(value: Option<&RawValue>, names: &[&str], needs: &mut Needs) {
    if needs.has(Feature::Tools) {
        return;
    }
    // Most conversations have none: that is seen without a walk through them.
    let is_named = |all: &[u8]| names.iter().any(|name| memchr::memmem::find(all, name.as_bytes()).is_some());
    let value = value.filter(|value| is_named(value.get().as_bytes()));
    needs.want(Feature::Tools, value.is_some_and(|value| body::has_key(value, names)));
}

/// What a tool gave in OpenAI's chat, where such a message has a role of its own; see [`results`].
pub(super) fn tool_messages(lens: &Lens<'_>, needs: &mut Needs) {
    let messages =
        lens.present("messages").filter(|all| memchr::memmem::find(all.get().as_bytes(), b"\"tool\"").is_some());
    let all = messages.and_then(body::elements).unwrap_or_default();
    let is_of_a_tool = |message: Lens<'_>| message.present("role").and_then(word) == Some("tool");
    needs.want(Feature::Tools, all.into_iter().filter_map(Lens::of).any(is_of_a_tool));
}

/// `tool_choice`: a word, or an object whose `type` says whether a tool must be called.
pub(super) fn tool_choice(lens: &Lens<'_>, needs: &mut Needs) {
    let Some(choice) = lens.present("tool_choice") else { return };
    let is_free = |word: &str| matches!(word, "auto" | "none");
    let is_open = match word(choice) {
        Some(word) => is_free(word),
        None => kind(choice).as_deref().is_some_and(is_free),
    };
    needs.want(Feature::ToolChoice, !is_open);
}

/// How the answer is to be formatted: an object with a `type`.
pub(super) fn format(value: Option<&RawValue>, needs: &mut Needs) {
    let kind = value.and_then(kind);
    needs.want(Feature::StructuredOutput, kind.as_deref() == Some("json_schema"));
    needs.want(Feature::JsonOutput, kind.as_deref() == Some("json_object"));
}

/// A word that says how much to think.
pub(super) fn effort(value: Option<&RawValue>, needs: &mut Needs) {
    let wanted = value.and_then(word).is_some_and(|word| !matches!(word, "" | "none" | "auto"));
    needs.want(Feature::Reasoning, wanted);
}

/// Whether a flag is set.
pub(super) fn is_true(lens: &Lens<'_>, name: &str) -> bool {
    lens.present(name).is_some_and(|value| value.get() == "true")
}

/// The member of OpenAI's chat that asks for a feature.
pub(super) const fn member_of_chat(feature: Feature) -> &'static str {
    match feature {
        Feature::Streaming => "stream",
        Feature::Tools => "tools",
        Feature::ToolChoice => "tool_choice",
        Feature::Vision | Feature::AudioInput => "messages",
        Feature::StructuredOutput | Feature::JsonOutput => "response_format",
        Feature::Reasoning => "reasoning_effort",
        Feature::Logprobs => "logprobs",
        Feature::AudioOutput | Feature::ImageOutput => "modalities",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{Dialect, Request, audio, chat, completions, gemini, images, messages, responses};
    use Feature::{JsonOutput, Logprobs, Reasoning, Streaming, StructuredOutput, ToolChoice, Tools, Vision};
    use bytes::Bytes;
    use serde_json::{Value, json};

    #[test]
    fn sets() {
        let all: Needs = Feature::ALL.iter().copied().collect();
        for feature in Feature::ALL {
            assert!(all.has(*feature) && Feature::parse(feature.name()) == Some(*feature));
        }
        let some: Needs = [Tools, Vision].into_iter().collect();
        assert_eq!((all.beyond(all), some.beyond(all), all.beyond(some)), (None, None, Some(Streaming)));
        assert!(Needs::default().is_empty() && !some.is_empty());
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn what_each_protocol_asks_for() {
        let chat: &dyn Dialect = &chat::Chat;
        let responses: &dyn Dialect = &responses::Responses;
        let messages: &dyn Dialect = &messages::Messages;
        let gemini: &dyn Dialect = &gemini::Generate { is_stream: false };
        let completions: &dyn Dialect = &completions::Completions;
        let images: &dyn Dialect = &images::Generations;
        let speech: &dyn Dialect = &audio::Speech;
        let tool = r#""tools":[{"type":"function","name":"f","function":{"name":"f"}}]"#;
        let functions = r#""tools":[{"functionDeclarations":[{"name":"f"}]}]"#;
        let of_config = |config: &str| format!(r#""generationConfig":{{{config}}}"#);
        for (dialect, more, expected) in [
            (chat, String::new(), &[][..]),
            (chat, r#""tools":[],"tool_choice":"auto","response_format":{"type":"text"},"logprobs":false"#.into(), &[]),
            (chat, format!(r#"{tool},"stream":true"#), &[Streaming, Tools]),
            (chat, format!(r#"{tool},"tool_choice":"required""#), &[Tools, ToolChoice]),
            (
                chat,
                format!(r#"{tool},"tool_choice":{{"type":"function","function":{{"name":"f"}}}}"#),
                &[Tools, ToolChoice],
            ),
            (chat, r#""functions":[{"name":"f"}]"#.into(), &[Tools]),
            (chat, r#""response_format":{"type":"json_schema","json_schema":{}}"#.into(), &[StructuredOutput]),
            (chat, r#""response_format":{"type":"json_object"},"logprobs":true"#.into(), &[JsonOutput, Logprobs]),
            (chat, r#""messages":[{"role":"tool","tool_call_id":"c","content":"x"}]"#.into(), &[Tools]),
            (chat, r#""messages":[{"role":"user","tool_calls":null,"content":"tool"}]"#.into(), &[]),
            (chat, r#""reasoning_effort":"low""#.into(), &[Reasoning]),
            (chat, r#""reasoning_effort":"none""#.into(), &[]),
            (chat, r#""reasoning":{"effort":"high"}"#.into(), &[Reasoning]),
            (responses, String::new(), &[]),
            (responses, format!(r#"{tool},"tool_choice":"auto","reasoning":null"#), &[Tools]),
            (responses, r#""input":[{"type":"function_call_output","call_id":"c","output":"x"}]"#.into(), &[Tools]),
            (responses, r#""reasoning":{"effort":"medium","summary":"auto"}"#.into(), &[Reasoning]),
            (
                responses,
                r#""text":{"format":{"type":"json_schema","name":"x","schema":{}}}"#.into(),
                &[StructuredOutput],
            ),
            (messages, String::new(), &[]),
            (messages, format!(r#"{tool},"tool_choice":{{"type":"auto"}},"thinking":{{"type":"adaptive"}}"#), &[Tools]),
            (messages, format!(r#"{tool},"tool_choice":{{"type":"any"}}"#), &[Tools, ToolChoice]),
            (
                messages,
                r#""messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"x"}]}]"#
                    .into(),
                &[Tools],
            ),
            (messages, r#""thinking":{"type":"enabled","budget_tokens":1024}"#.into(), &[Reasoning]),
            (messages, r#""thinking":{"type":"disabled"}"#.into(), &[]),
            (messages, r#""output_config":{"format":{"type":"json_schema","schema":{}}}"#.into(), &[StructuredOutput]),
            (gemini, String::new(), &[]),
            (gemini, functions.into(), &[Tools]),
            (gemini, r#""contents":[{"parts":[{"functionResponse":{"name":"f","response":{}}}]}]"#.into(), &[Tools]),
            (completions, r#""stream":true,"logprobs":0"#.into(), &[Streaming, Logprobs]),
            (completions, r#""logprobs":null"#.into(), &[]),
            (images, String::new(), &[]),
            (images, r#""stream":true"#.into(), &[Streaming]),
            (speech, r#""stream_format":"sse""#.into(), &[Streaming]),
            (
                gemini,
                format!(r#"{functions},"toolConfig":{{"functionCallingConfig":{{"mode":"ANY"}}}}"#),
                &[Tools, ToolChoice],
            ),
            (gemini, format!(r#"{functions},"tool_config":{{"function_calling_config":{{"mode":"AUTO"}}}}"#), &[Tools]),
            (
                gemini,
                of_config(r#""responseMimeType":"application/json","responseSchema":{}"#),
                &[StructuredOutput, JsonOutput],
            ),
            (gemini, of_config(r#""thinkingConfig":{"thinkingBudget":1024}"#), &[Reasoning]),
            (gemini, of_config(r#""thinkingConfig":{"thinkingBudget":-1}"#), &[]),
            (gemini, of_config(r#""thinkingConfig":{"thinkingLevel":"high"}"#), &[Reasoning]),
        ] {
            let base = match dialect.path() {
                "responses" | "audio/speech" => json!({ "model": "m", "input": "x" }),
                "generateContent" => json!({ "contents": [{ "parts": [{ "text": "x" }] }] }),
                "completions" | "images/generations" => json!({ "model": "m", "prompt": "x" }),
                _ => json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "x" }] }),
            };
            let mut body = base;
            let added: Value = serde_json::from_str(&format!("{{{more}}}")).unwrap();
            body.as_object_mut().unwrap().extend(added.as_object().unwrap().clone());
            let body = Bytes::from(body.to_string());
            let request = Request { model: Some("m"), ..Request::of(&body) };
            let needs: Vec<Feature> = dialect.read(&request).unwrap().needs.iter().collect();
            assert_eq!(needs, expected, "{} {more}", dialect.path());
        }
    }

    #[test]
    fn pictures_are_seen_wherever_they_stand() {
        let picture = r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}"#;
        let body = Bytes::from(format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{picture}]}}]}}"#));
        assert!(chat::Chat.read(&Request::of(&body)).unwrap().needs.has(Vision));
    }
}
