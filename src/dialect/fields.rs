//! What the bodies of several endpoints have in common: members that are read, and refused when
//! they are not what they must be.

use serde_json::value::RawValue;

use super::body::{self, Lens, Patch, Tally, Unreadable};
use super::measure::{self, Volume};
use super::{BadRequest, Pieces, Shape};
use crate::money::{AskedService, CacheWrites, Service};

const MAX_MODEL_CHARS: usize = 256;
const MAX_CHOICES: u64 = 128;
const MAX_OUTPUT_TOKENS: u64 = 10_000_000;
const MAX_TOO_MANY: u64 = MAX_OUTPUT_TOKENS + 1;

pub(super) fn unreadable(reason: Unreadable) -> BadRequest {
    BadRequest::Json(reason.to_string())
}

pub(super) fn field(message: impl Into<String>) -> BadRequest {
    BadRequest::Field(message.into())
}

pub(super) fn read_model(lens: &Lens<'_>) -> Result<String, BadRequest> {
    let value = lens.present("model").ok_or_else(|| field("model is missing"))?;
    let model = body::string(value).ok_or_else(|| field("model must be a string"))?;
    if model.is_empty() {
        return Err(field("model must not be empty"));
    }
    if model.chars().count() > MAX_MODEL_CHARS {
        return Err(field(format!("model must have at most {MAX_MODEL_CHARS} characters")));
    }
    Ok(model)
}

/// What has the upstream ask another model than the one that has the price.
const OTHER_MODELS: [&str; 3] = ["models", "fallbacks", "preset"];
/// What the upstream takes money for by itself.
const EXTRAS: [&str; 2] = ["plugins", "search_parameters"];

/// What a router is told of the hosts of a model, in its `provider`: with these, it asks others than the cheapest.
const HOSTS: [&str; 5] = ["order", "only", "ignore", "sort", "quantizations"];
const PREFERRED: &str = "preferred_";

/// Where a request says how long its prompt is kept in a cache, and how long that may be for what is usually taken.
const RETENTION: &str = "prompt_cache_retention";
const KEPT: [&str; 4] = ["null", "\"in_memory\"", "\"in-memory\"", "\"24h\""];
const KEPT_FOR_LONGER: &str = "Prompts that are cached for longer than 30m have no price here";

/// Refuses what would cost the operator something that no price here is for. Empty ones ask for nothing.
pub(super) fn refuse_unpriced(lens: &Lens<'_>) -> Result<(), BadRequest> {
    for (name, value) in lens.members() {
        let is_of = |names: &[&str]| names.iter().any(|one| body::is_alike(name, one));
        if is_of(&[RETENTION]) && !KEPT.contains(&value.get()) {
            return Err(field(KEPT_FOR_LONGER));
        }
        if is_of(&["provider"]) {
            refuse_hosts(value)?;
        }
        let why = if is_of(&OTHER_MODELS) {
            "the price is that of the one model that is asked"
        } else if is_of(&EXTRAS) {
            "it has no price"
        } else {
            continue;
        };
        if !asks_for_nothing(value) {
            return Err(field(format!("{name} is not sold here: {why}")));
        }
    }
    Ok(())
}

fn asks_for_nothing(value: &RawValue) -> bool {
    matches!(value.get(), "null" | "[]" | "{}" | "\"\"")
}

/// Refuses a choice among the hosts of a model: they take different prices, and there is one here. The cheapest may be
/// asked for.
fn refuse_hosts(provider: &RawValue) -> Result<(), BadRequest> {
    if !body::is_object(provider) {
        return Ok(());
    }
    let provider = Lens::of(provider).ok_or_else(|| field("provider must be an object that is not huge"))?;
    let chooses = |name: &str| {
        let begins = name.get(..PREFERRED.len()).is_some_and(|begin| body::is_alike(begin, PREFERRED));
        begins || HOSTS.iter().any(|one| body::is_alike(name, one))
    };
    let is_free = |value: &RawValue| asks_for_nothing(value) || value.get() == "\"price\"";
    match provider.members().find(|(name, value)| chooses(name) && !is_free(value)) {
        Some((name, _)) => Err(field(format!(
            "provider.{name} is not sold here: the price is one, and which host is asked is not the client's"
        ))),
        None => Ok(()),
    }
}

pub(super) fn read_flag(lens: &Lens<'_>, name: &str) -> Result<bool, BadRequest> {
    match lens.present(name).map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(field(format!("{name} must be true or false"))),
    }
}

/// An integer without sign, point or exponent. Too many digits are more than any limit.
pub(super) fn integer(value: &RawValue) -> Option<u64> {
    let text = value.get();
    let is_integer = text.bytes().all(|byte| byte.is_ascii_digit());
    is_integer.then(|| text.parse().unwrap_or(u64::MAX))
}

pub(super) fn read_limit(lens: &Lens<'_>, name: &str) -> Result<Option<u64>, BadRequest> {
    let Some(value) = lens.present(name) else {
        return Ok(None);
    };
    match integer(value) {
        None | Some(0) => Err(field(format!("{name} must be a positive integer"))),
        Some(MAX_TOO_MANY..) => Err(field(format!("{name} must be at most {MAX_OUTPUT_TOKENS}"))),
        Some(limit) => Ok(Some(limit)),
    }
}

/// Calls of tools that the upstream runs that are held for where a request sets no limit: this one is set for it.
pub(super) const TOOL_CALLS: u64 = 10;
/// Most of them that a request may ask for. Each has the model read once more, which is held for.
const MAX_TOOL_CALLS: u64 = 100;

/// How often tools that the upstream runs may be called.
pub(super) fn read_tool_calls(lens: &Lens<'_>, name: &str) -> Result<Option<u64>, BadRequest> {
    match read_limit(lens, name)? {
        Some(calls) if calls > MAX_TOOL_CALLS => Err(field(format!("{name} must be at most {MAX_TOOL_CALLS}"))),
        calls => Ok(calls),
    }
}

pub(super) fn read_choices(lens: &Lens<'_>) -> Result<u64, BadRequest> {
    match lens.present("n").map(integer) {
        None => Ok(1),
        Some(Some(choices @ 1..=MAX_CHOICES)) => Ok(choices),
        Some(_) => Err(field(format!("n must be an integer from 1 to {MAX_CHOICES}"))),
    }
}

pub(super) fn read_wants_usage(lens: &Lens<'_>) -> Result<bool, BadRequest> {
    let Some(value) = lens.present("stream_options") else {
        return Ok(false);
    };
    let options = Lens::of(value).ok_or_else(|| field("stream_options must be an object"))?;
    once(&options, &["include_usage"])?;
    match options.present("include_usage").map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(field("stream_options.include_usage must be true or false")),
    }
}

/// Refuses a member that stands there twice, or in other letters than those in which it is read: two parsers
/// could see two requests, one of them unpaid.
pub(super) fn once(lens: &Lens<'_>, names: &[&str]) -> Result<(), BadRequest> {
    once_of(names, || lens.members().map(|(name, _)| name))
}

/// Refuses one of these names that is `given` twice, or in other letters than those in which it is read.
pub(super) fn once_of<'a, I>(names: &[&str], given: impl Fn() -> I) -> Result<(), BadRequest>
where
    I: Iterator<Item = &'a str>,
{
    for name in names {
        if given().filter(|one| one == name).count() > 1 {
            return Err(field(format!("{name} is given twice")));
        }
        if given().any(|one| one != *name && body::is_alike(one, name)) {
            return Err(field(format!("{name} is read in just these letters, and refused in others")));
        }
    }
    Ok(())
}

/// A member that must be there.
pub(super) fn required<'a>(lens: &Lens<'a>, name: &str) -> Result<&'a RawValue, BadRequest> {
    lens.present(name).ok_or_else(|| field(format!("{name} is missing")))
}

/// A member that is a text, if it is there.
pub(super) fn text(lens: &Lens<'_>, name: &str) -> Result<Option<String>, BadRequest> {
    let read = |value| body::string(value).ok_or_else(|| field(format!("{name} must be a string")));
    lens.present(name).map(read).transpose()
}

/// Measures the conversation, and counts all other members that a model may see.
pub(super) fn measure(
    lens: &Lens<'_>,
    prompt: &[&str],
    not_input: &[&str],
    shape: &mut Shape,
) -> Result<Volume, BadRequest> {
    let mut volume = Volume::default();
    for value in prompt.iter().filter_map(|name| lens.present(name)) {
        volume.add(measure::conversation(value).map_err(unreadable)?);
    }
    if volume.account_files > 0 {
        return Err(field("Files are not sold here: send the content itself instead of a file_id"));
    }
    shape.prompt_chars = volume.chars;
    shape.images = volume.images;
    shape.image_tokens = volume.image_tokens;
    shape.demand.audio_in = volume.audio_tokens;
    shape.usual_audio_tokens = volume.usual_audio_tokens;
    shape.usual_file_tokens = volume.usual_file_tokens;
    shape.demand.open_input |= volume.is_open;
    let is_input = |name: &str| !not_input.contains(&name) && !prompt.contains(&name);
    for (name, value) in lens.members().filter(|(name, _)| is_input(name)) {
        let more = measure::definitions(name, value).map_err(unreadable)?;
        shape.extra_chars = shape.extra_chars.saturating_add(more.chars);
        volume.cache_marks = volume.cache_marks.saturating_add(more.cache_marks);
        volume.is_cached_for_an_hour |= more.is_cached_for_an_hour;
        volume.is_cached_for_longer |= more.is_cached_for_longer;
    }
    if volume.is_cached_for_longer {
        return Err(field(KEPT_FOR_LONGER));
    }
    shape.demand.cache_writes = match volume.cache_marks {
        0 => CacheWrites::None,
        _ if volume.is_cached_for_an_hour => CacheWrites::Hour,
        _ => CacheWrites::Minutes,
    };
    Ok(volume)
}

/// Text that is counted in full: no tokenizer makes more tokens of a text than it has bytes. Tokens that are
/// given as such are counted already.
pub(super) fn bound_by_bytes(value: &RawValue, shape: &mut Shape) {
    if shape.given_tokens > 0 && !value.get().contains('"') {
        return;
    }
    shape.slack_tokens = shape.slack_tokens.saturating_add(size(value.get()));
}

/// Bytes of a text.
pub(super) fn size(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

/// Prompts: a text, texts, tokens as numbers, or several of these. Counts how many they are.
pub(super) fn prompts(value: &RawValue, name: &str, shape: &mut Shape) -> Result<(), BadRequest> {
    let wrong = || field(format!("{name} must be a string, or an array of strings or of tokens, and not empty"));
    let Some(tally) = Tally::of(value) else {
        return if value.get().starts_with('"') { Ok(()) } else { Err(wrong()) };
    };
    if tally.elements == 0 {
        return Err(wrong());
    }
    shape.given_tokens = tally.numbers;
    // Tokens alone are one prompt.
    shape.prompts = if tally.scalars == tally.elements { 1 } else { tally.elements };
    Ok(())
}

/// The `stream_options` of the client, with usage reports switched on.
pub(super) fn with_usage_asked_for(lens: &Lens<'_>) -> String {
    let patched = lens.object("stream_options").and_then(|options| {
        let mut patch = Patch::new(&options);
        patch.set("include_usage", "true".to_owned());
        String::from_utf8(patch.apply()?).ok()
    });
    patched.unwrap_or_else(|| r#"{"include_usage":true}"#.to_owned())
}

/// A body without one of its members; `None` where it has none of that name.
pub(super) fn without(body: &bytes::Bytes, name: &str) -> Option<bytes::Bytes> {
    let lens = Lens::parse(body).ok().filter(|lens| lens.get(name).is_some())?;
    let kept = lens.members().filter(|(key, _)| *key != name);
    let kept: Vec<String> = kept.map(|(key, value)| format!("{}:{}", body::encode(key), value.get())).collect();
    Some(format!("{{{}}}", kept.join(",")).into())
}

/// Gives an answer the client's name for the model, also where it has none.
pub(super) fn rename(patch: &mut Patch<'_, '_>, lens: &Lens<'_>, model: &str) {
    if lens.get("model").and_then(body::string).as_deref() != Some(model) {
        patch.set("model", body::encode(model));
    }
}

/// Gives an answer the client's name for the model where it names one, and leaves it alone where it does not.
pub(super) fn rename_if_named(patch: &mut Patch<'_, '_>, lens: &Lens<'_>, model: &str) {
    if lens.get("model").is_some() {
        rename(patch, lens, model);
    }
}

/// How the request wants to be served. What nobody has a price for is refused here, what this model has none
/// for where it is priced.
pub(super) fn read_service(lens: &Lens<'_>) -> Result<AskedService, BadRequest> {
    service(text(lens, "service_tier")?.as_deref())
}

pub(super) fn service(tier: Option<&str>) -> Result<AskedService, BadRequest> {
    match tier {
        None | Some("default" | "standard" | "standard_only" | "on_demand") => Ok(AskedService::Standard),
        Some("auto") => Ok(AskedService::Any),
        Some("flex") => Ok(AskedService::Flex),
        Some("priority") => Ok(AskedService::Priority),
        Some(_) => Err(field("This service_tier is not sold here: auto, default, flex or priority may be")),
    }
}

/// How an answer, or its usage report, says that it was served.
pub(super) fn served(lens: &Lens<'_>) -> Option<Service> {
    // Every chunk of a stream may say it.
    match lens.get("service_tier")?.get() {
        r#""default""# | r#""standard""# | r#""on_demand""# | r#""scale""# => Some(Service::Standard),
        r#""flex""# => Some(Service::Flex),
        r#""priority""# => Some(Service::Priority),
        _ => None,
    }
}

/// For endpoints that do not stream.
pub(super) fn refuse_stream(lens: &Lens<'_>) -> Result<(), BadRequest> {
    match read_flag(lens, "stream")? {
        true => Err(field("stream is not offered here")),
        false => Ok(()),
    }
}

/// A body under the upstream's name for the model.
pub(super) fn with_model(body: &bytes::Bytes, shown: &str, model: &str) -> Result<Pieces, BadRequest> {
    if shown == model {
        return Ok(body.clone().into());
    }
    let lens = Lens::parse(body).map_err(unreadable)?;
    let mut patch = Patch::new(&lens);
    patch.set("model", body::encode(model));
    Ok(patch.pieces(body))
}

/// The `type` of each tool.
pub(super) fn tools(lens: &Lens<'_>) -> Result<Vec<String>, BadRequest> {
    let Some(value) = lens.present("tools") else { return Ok(Vec::new()) };
    let tools = body::elements(value).ok_or_else(|| field("tools must be an array, and not a huge one"))?;
    let kind = |tool| {
        let tool = Lens::of(tool).ok_or_else(|| field("A tool must be an object"))?;
        once(&tool, &["type"])?;
        // Anthropic's own tools may leave it out: they are the client's.
        Ok(text(&tool, "type")?.unwrap_or_else(|| "function".to_owned()))
    };
    tools.into_iter().map(kind).collect()
}

/// An answer under the client's name for the model, where it has one.
pub(super) fn renamed(body: &bytes::Bytes, model: &str) -> bytes::Bytes {
    let Ok(lens) = Lens::parse(body) else { return body.clone() };
    let mut patch = Patch::new(&lens);
    rename_if_named(&mut patch, &lens, model);
    patch.apply_to(body)
}

/// Whether a word is in a list of words; letters may be of either case.
pub(super) fn lists(lens: &Lens<'_>, name: &str, word: &str) -> Result<bool, BadRequest> {
    let Some(value) = lens.present(name) else { return Ok(false) };
    let words: Option<Vec<String>> =
        body::elements(value).and_then(|words| words.into_iter().map(body::string).collect());
    let words = words.ok_or_else(|| field(format!("{name} must be an array of strings")))?;
    Ok(words.iter().any(|listed| listed.eq_ignore_ascii_case(word)))
}
