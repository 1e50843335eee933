//! LiteLLM's table of prices (`model_prices_and_context_window.json`): one object, from names to entries.
//!
//! The table has one model under many names, at the prices of as many resellers. Taken are the vendors'
//! own rows alone; what others sell it for is no price of ours. Prices of service tiers (batch, flex,
//! priority) are not taken.

use rust_decimal::Decimal;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::listed::{List, Listed, Members, Problem, checked};
use crate::catalog::card::{TIERED, tier_name};

/// Providers that sell their own models, and how ids of OpenRouter's shape call them.
const VENDORS: &[(&str, &str)] = &[
    ("openai", "openai"),
    ("anthropic", "anthropic"),
    ("gemini", "google"),
    ("xai", "x-ai"),
    ("mistral", "mistralai"),
    ("deepseek", "deepseek"),
    ("perplexity", "perplexity"),
    ("cohere", "cohere"),
    ("cohere_chat", "cohere"),
    ("moonshot", "moonshotai"),
    ("zai", "z-ai"),
];

/// Its names of prices and ours.
const PRICES: &[(&str, &str)] = &[
    ("input_cost_per_token", "prompt"),
    ("output_cost_per_token", "completion"),
    ("output_cost_per_reasoning_token", "internal_reasoning"),
    ("cache_read_input_token_cost", "input_cache_read"),
    ("cache_creation_input_token_cost", "input_cache_write"),
    ("cache_creation_input_token_cost_above_1hr", "input_cache_write_1h"),
    ("input_cost_per_audio_token", "audio"),
    ("cache_read_input_audio_token_cost", "input_audio_cache"),
    ("output_cost_per_audio_token", "audio_output"),
    ("input_cost_per_image_token", "image_token"),
    ("output_cost_per_image_token", "image_output"),
    ("input_cost_per_image", "image"),
    ("output_cost_per_image", "output_image"),
    ("input_cost_per_request", "request"),
    ("input_cost_per_query", "query"),
    ("input_cost_per_second", "second"),
    ("input_cost_per_character", "character"),
];

/// Reads the table.
///
/// # Errors
/// When it is no such table, or names no model.
pub(super) fn read(text: &[u8]) -> Result<List, String> {
    let table: Members<'_> = serde_json::from_slice(text).map_err(|_| "it is not a table of models".to_owned())?;
    let mut list = List::default();
    list.fill(table.0.iter().filter_map(|(name, entry)| row(name, entry)))?;
    Ok(list)
}

/// One row; `None` for what is no vendor's own model.
fn row(name: &str, raw: &RawValue) -> Option<Result<Listed, Problem>> {
    // An explanation of the table, in its own shape.
    if name == "sample_spec" {
        return None;
    }
    let members: Members<'_> = serde_json::from_str(raw.get()).ok()?;
    let entry: Map<String, Value> = serde_json::from_str(raw.get()).ok()?;
    let provider = entry.get("litellm_provider")?.as_str()?;
    let (_, vendor) = VENDORS.iter().find(|(known, _)| *known == provider)?;
    let bare = name.strip_prefix(provider).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name);
    // Sizes of pictures and resold models have a slash, what an account has trained a colon.
    if bare.contains(['/', ':']) {
        return None;
    }
    let mode = entry.get("mode").and_then(Value::as_str)?;
    let (inputs, outputs) = modalities(mode, &entry)?;
    let mut listed = Listed::new(&format!("{vendor}/{bare}"))?;
    describe(&mut listed, &entry, mode, &inputs, &outputs);
    let problem = |what: String| Problem { id: Some(format!("{vendor}/{bare}")), what };
    Some(match members.repeated() {
        Some(name) => Err(problem(format!("its {name} is there twice"))),
        None => priced(listed, &members, mode).map_err(problem),
    })
}

fn priced(mut listed: Listed, members: &Members<'_>, mode: &str) -> Result<Listed, String> {
    for (name, raw) in &members.0 {
        let Some(ours) = our_name(name) else { continue };
        listed.card.set(&ours, checked(&ours, raw)?);
    }
    if mode == "audio_transcription" {
        // Some rows have the price of a second twice, once for each way. It is one second.
        let raw = members.0.iter().find(|(name, _)| name == "output_cost_per_second").map(|(_, raw)| *raw);
        let other = raw.map(|raw| checked("second", raw)).transpose()?.flatten();
        let second = listed.card.get("second").max(other);
        listed.card.set("second", second);
    }
    listed.card.set("web_search", dearest_search(members)?);
    let has_price = listed.card.iter().any(|(name, _)| name != "web_search");
    if !has_price {
        return Err("it has no price".to_owned());
    }
    // Text that is neither read nor written has no price; what reads and writes it must have both.
    if matches!(mode, "chat" | "completion" | "responses") && !listed.card.is_complete() {
        return Err("it has no price for text both ways".to_owned());
    }
    for name in ["prompt", "completion"] {
        if listed.card.get(name).is_none() {
            listed.card.set(name, Some(Decimal::ZERO));
        }
    }
    listed.derive()?;
    Ok(listed)
}

/// Our name of a price, also of one for long inputs; `None` for what is not sold here.
fn our_name(name: &str) -> Option<String> {
    let find = |name: &str| PRICES.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours);
    if let Some(ours) = find(name) {
        return Some(ours.to_owned());
    }
    let (kind, above) = name.strip_suffix("k_tokens")?.rsplit_once("_above_")?;
    let ours = find(kind).filter(|ours| TIERED.contains(ours))?;
    Some(tier_name(ours, above.parse().ok()?))
}

/// The dearest of the sizes of a search: which one was made is not reported.
fn dearest_search(members: &Members<'_>) -> Result<Option<Decimal>, String> {
    let sizes = members.0.iter().find(|(name, _)| name == "search_context_cost_per_query");
    let sizes = sizes.and_then(|(_, raw)| serde_json::from_str::<Members<'_>>(raw.get()).ok());
    let mut dearest = None;
    for (_, raw) in sizes.iter().flat_map(|sizes| &sizes.0) {
        dearest = dearest.max(checked("web_search", raw)?);
    }
    Ok(dearest)
}

/// What goes in and comes out; `None` for what is not sold here.
fn modalities(mode: &str, entry: &Map<String, Value>) -> Option<(Vec<&'static str>, Vec<&'static str>)> {
    let has = |name: &str| entry.get(name).and_then(Value::as_bool) == Some(true);
    let also = |list: &str, what: &str| {
        entry.get(list).and_then(Value::as_array).is_some_and(|all| all.iter().any(|one| one == what))
    };
    let mut inputs = vec!["text"];
    for (what, is_so) in [
        ("image", has("supports_vision") || also("supported_modalities", "image")),
        ("file", has("supports_pdf_input")),
        ("audio", has("supports_audio_input") || also("supported_modalities", "audio")),
    ] {
        if is_so {
            inputs.push(what);
        }
    }
    Some(match mode {
        "chat" | "completion" | "responses" => {
            let mut outputs = vec!["text"];
            if has("supports_audio_output") || also("supported_output_modalities", "audio") {
                outputs.push("audio");
            }
            if also("supported_output_modalities", "image") {
                outputs.push("image");
            }
            (inputs, outputs)
        }
        "embedding" => (inputs, vec!["embeddings"]),
        "rerank" => (inputs, vec!["scores"]),
        "moderation" => (inputs, vec!["moderation"]),
        "image_generation" => (inputs, vec!["image"]),
        "audio_transcription" => (vec!["audio"], vec!["text"]),
        "audio_speech" => (vec!["text"], vec!["audio"]),
        _ => return None,
    })
}

fn describe(listed: &mut Listed, entry: &Map<String, Value>, mode: &str, inputs: &[&str], outputs: &[&str]) {
    let limit = |name: &str| entry.get(name).and_then(Value::as_u64).filter(|limit| *limit > 0);
    // The table has input and output apart; what can be asked for is both. Some rows have the context in both
    // places, and some have it in the first: what is set aside for those is more than it need be, never less.
    let writes = matches!(mode, "chat" | "completion" | "responses");
    let (input, output) = (limit("max_input_tokens"), limit("max_output_tokens").filter(|_| writes));
    let output = output.filter(|output| Some(*output) != input);
    let context = input.map(|input| input.saturating_add(output.unwrap_or(0)));
    listed.put("name", Some(json!(listed.id.clone())));
    listed.put("context_length", context.map(|context| json!(context)));
    let modality = format!("{}->{}", inputs.join("+"), outputs.join("+"));
    listed.put(
        "architecture",
        Some(json!({ "modality": modality, "input_modalities": inputs, "output_modalities": outputs })),
    );
    listed.put("top_provider", Some(json!({ "context_length": context, "max_completion_tokens": output })));
    let supports = |name: &str| entry.get(&format!("supports_{name}")).and_then(Value::as_bool) == Some(true);
    let parameters: Vec<&str> = [
        ("function_calling", "tools"),
        ("tool_choice", "tool_choice"),
        ("response_schema", "structured_outputs"),
        ("reasoning", "reasoning"),
    ]
    .into_iter()
    .filter_map(|(theirs, ours)| supports(theirs).then_some(ours))
    .collect();
    listed.put("supported_parameters", Some(json!(parameters)));
}

#[cfg(test)]
mod tests {
    use super::*;

    type Trap = (&'static str, &'static str, Option<&'static str>, &'static [(&'static str, Option<&'static str>)]);

    /// One row for each trap of the table: its name there, its entry, the id here (none: not taken), and
    /// prices that it must have or lack.
    const TRAPS: &[Trap] = &[
        // An explanation, not a model.
        (
            "sample_spec",
            r#""litellm_provider":"openai","mode":"chat","input_cost_per_token":0.0,"output_cost_per_token":0.0"#,
            None,
            &[],
        ),
        // A float that is no decimal fraction: its text is taken.
        (
            "gpt-a",
            r#""litellm_provider":"openai","mode":"chat","input_cost_per_token":1.25e-06,"output_cost_per_token":1e-05"#,
            Some("openai/gpt-a"),
            // Reasoning and audio that are absent stay absent: output price, and not sold.
            &[
                ("prompt", Some("0.00000125")),
                ("completion", Some("0.00001")),
                ("internal_reasoning", None),
                ("audio", None),
                ("input_cache_read", None),
            ],
        ),
        // The same model at resellers.
        (
            "azure/gpt-a",
            r#""litellm_provider":"azure","mode":"chat","input_cost_per_token":9e-06,"output_cost_per_token":9e-06"#,
            None,
            &[],
        ),
        (
            "openrouter/openai/gpt-a",
            r#""litellm_provider":"openrouter","mode":"chat","input_cost_per_token":9e-07,"output_cost_per_token":9e-07"#,
            None,
            &[],
        ),
        (
            "perplexity/openai/gpt-a",
            r#""litellm_provider":"perplexity","mode":"responses","input_cost_per_token":9e-07,"output_cost_per_token":9e-07"#,
            None,
            &[],
        ),
        (
            "ft:gpt-a",
            r#""litellm_provider":"openai","mode":"chat","input_cost_per_token":9e-07,"output_cost_per_token":9e-07"#,
            None,
            &[],
        ),
        // A vendor's own prefix is not a reseller's.
        (
            "xai/grok-a",
            r#""litellm_provider":"xai","mode":"chat","input_cost_per_token":2e-06,"output_cost_per_token":6e-06"#,
            Some("x-ai/grok-a"),
            &[("prompt", Some("0.000002"))],
        ),
        // A cache that costs nothing extra is not a free one.
        (
            "zai/glm-a",
            r#""litellm_provider":"zai","mode":"chat","input_cost_per_token":2e-06,"output_cost_per_token":6e-06,"cache_creation_input_token_cost":0"#,
            Some("z-ai/glm-a"),
            &[("input_cache_write", None)],
        ),
        // Null is no price, zero is one.
        (
            "gpt-null",
            r#""litellm_provider":"openai","mode":"chat","input_cost_per_token":null,"output_cost_per_token":1e-06"#,
            None,
            &[],
        ),
        (
            "gpt-zero",
            r#""litellm_provider":"openai","mode":"chat","input_cost_per_token":0,"output_cost_per_token":0.0"#,
            Some("openai/gpt-zero"),
            &[("prompt", Some("0"))],
        ),
        // One second, priced both ways.
        (
            "whisper-1",
            r#""litellm_provider":"openai","mode":"audio_transcription","input_cost_per_second":0.0001,"output_cost_per_second":0.0001"#,
            Some("openai/whisper-1"),
            &[("second", Some("0.0001")), ("prompt", Some("0"))],
        ),
        (
            "whisper-2",
            r#""litellm_provider":"openai","mode":"audio_transcription","input_cost_per_second":0,"output_cost_per_second":0.0001"#,
            Some("openai/whisper-2"),
            &[("second", Some("0.0001"))],
        ),
        // A tier, the prices of an hour's cache in it, and those of service tiers, which are others.
        (
            "gemini/gem-a",
            r#""litellm_provider":"gemini","mode":"chat","input_cost_per_token":1e-06,"output_cost_per_token":2e-06,
                "input_cost_per_token_above_200k_tokens":2e-06,"output_cost_per_token_above_200k_tokens":3e-06,
                "cache_creation_input_token_cost_above_1hr":4e-06,"cache_creation_input_token_cost_above_1hr_above_200k_tokens":8e-06,
                "input_cost_per_token_batches":5e-07,"input_cost_per_token_above_200k_tokens_priority":9e-06,"input_cost_per_image_above_128k_tokens":1,
                "input_cost_per_audio_token":3e-06,"output_cost_per_reasoning_token":7e-06"#,
            Some("google/gem-a"),
            &[
                ("prompt_above_200k_tokens", Some("0.000002")),
                ("completion_above_200k_tokens", Some("0.000003")),
                ("input_cache_write_1h", Some("0.000004")),
                ("input_cache_write_1h_above_200k_tokens", Some("0.000008")),
                ("audio", Some("0.000003")),
                ("internal_reasoning", Some("0.000007")),
                ("input_cache_write", None),
                ("image_above_128k_tokens", None),
            ],
        ),
        // Claude's cache where the table does not say it, and where it does.
        (
            "claude-a",
            r#""litellm_provider":"anthropic","mode":"chat","input_cost_per_token":2e-06,"output_cost_per_token":1e-05,"cache_read_input_token_cost":1e-07"#,
            Some("anthropic/claude-a"),
            &[
                ("input_cache_read", Some("0.0000001")),
                ("input_cache_write", Some("0.0000025")),
                ("input_cache_write_1h", Some("0.000004")),
            ],
        ),
        (
            "text-embed",
            r#""litellm_provider":"openai","mode":"embedding","input_cost_per_token":2e-08,"output_cost_per_token":0.0,"max_input_tokens":8191,"max_output_tokens":8191"#,
            Some("openai/text-embed"),
            &[("completion", Some("0"))],
        ),
        (
            "tts-1",
            r#""litellm_provider":"openai","mode":"audio_speech","input_cost_per_character":1.5e-05"#,
            Some("openai/tts-1"),
            &[("character", Some("0.000015"))],
        ),
        (
            "search-a",
            r#""litellm_provider":"openai","mode":"chat","input_cost_per_token":1e-06,"output_cost_per_token":1e-06,"search_context_cost_per_query":{"search_context_size_low":0.01,"search_context_size_high":0.03}"#,
            Some("openai/search-a"),
            &[("web_search", Some("0.03"))],
        ),
        // What is not sold here, and what is no price.
        ("sora-2", r#""litellm_provider":"openai","mode":"video_generation","output_cost_per_second":0.1"#, None, &[]),
        (
            "1024-x-1024/dall-e",
            r#""litellm_provider":"openai","mode":"image_generation","input_cost_per_pixel":1e-08"#,
            None,
            &[],
        ),
        (
            "gpt-minus",
            r#""litellm_provider":"openai","mode":"chat","input_cost_per_token":-1e-06,"output_cost_per_token":1e-06"#,
            None,
            &[],
        ),
        (
            "gpt-million",
            r#""litellm_provider":"openai","mode":"chat","input_cost_per_token":2.5,"output_cost_per_token":10"#,
            None,
            &[],
        ),
        (
            "gpt-twice",
            r#""litellm_provider":"openai","mode":"chat","input_cost_per_token":2e-06,"input_cost_per_token":0,"output_cost_per_token":1e-06"#,
            None,
            &[],
        ),
    ];

    #[test]
    fn the_traps_of_the_table() {
        let traps = TRAPS;
        let rows: Vec<String> = traps.iter().map(|(name, entry, _, _)| format!("{name:?}:{{{entry}}}")).collect();
        let list = read(format!("{{{}}}", rows.join(",")).as_bytes()).unwrap();
        for (name, _, id, prices) in traps {
            let Some(id) = id else { continue };
            let listed = list.find(id).unwrap_or_else(|| panic!("{name}: {:?}", list.notes));
            for (price, expected) in *prices {
                assert_eq!(listed.card.get(price), expected.map(|text| text.parse().unwrap()), "{name} {price}");
            }
            listed.model().unwrap();
        }
        // Nothing else was taken.
        assert_eq!(list.models.len(), traps.iter().filter(|trap| trap.2.is_some()).count());
        assert!(list.find("openai/gpt-zero").unwrap().is_given_away());
        assert!(!list.find("openai/whisper-1").unwrap().is_given_away());
        assert!(!list.find("openai/text-embed").unwrap().is_given_away());
        assert_eq!(list.find("anthropic/claude-a").unwrap().derived, ["input_cache_write", "input_cache_write_1h"]);
    }

    #[test]
    fn one_model_under_two_names_has_one_price_or_none() {
        let row = |name: &str, price: &str| {
            format!(
                r#""{name}":{{"litellm_provider":"deepseek","mode":"chat","input_cost_per_token":{price},"output_cost_per_token":1e-06}}"#
            )
        };
        for (second, models) in [("1e-07", 1), ("2e-07", 0)] {
            let text = format!("{{{},{},{}}}", row("d", "1e-07"), row("deepseek/d", second), row("e", "1e-07"));
            assert_eq!(read(text.as_bytes()).unwrap().models.len(), models + 1, "{second}");
        }
        for text in ["", "[]", "{}", "7", r#"{"sample_spec":{}}"#] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn input_and_output_are_a_context() {
        let text = r#"{"m":{"litellm_provider":"openai","mode":"chat","max_input_tokens":272000,"max_output_tokens":128000,
            "input_cost_per_token":1e-06,"output_cost_per_token":1e-06,"supports_vision":true,"supports_function_calling":true}}"#;
        let model = read(text.as_bytes()).unwrap().models[0].model().unwrap();
        assert_eq!((model.limits().context, model.limits().max_completion), (Some(400_000), Some(128_000)));
        assert_eq!(model.architecture.input_modalities, ["text", "image"]);
        assert_eq!(model.supported_parameters, ["tools"]);
        let shared = text.replace("272000", "128000");
        let model = read(shared.as_bytes()).unwrap().models[0].model().unwrap();
        assert_eq!((model.limits().context, model.limits().max_completion), (Some(128_000), None));
    }
}
