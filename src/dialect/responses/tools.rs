//! Tools that the upstream runs. Those that have a price are sold; those that work on what lies in the
//! operator's account are not.

use std::collections::BTreeSet;

use serde_json::value::RawValue;

use crate::dialect::body::{self, Lens};
use crate::dialect::fields::{self, field};
use crate::dialect::reading::{Rest, part};
use crate::dialect::{BadRequest, Shape, images};
use crate::money::Usage;

/// Tools that the client runs.
const TOOLS: [&str; 7] =
    ["function", "custom", "local_shell", "apply_patch", "computer", "computer_use_preview", "tool_search"];

/// Pictures that are made where the request sets no limit: this one is set for it.
const PICTURES: u64 = 3;
/// Tokens of the text that a picture is made by, at most.
const TEXT_OF_A_PICTURE: u64 = 4_000;

/// Reads the tools, once the conversation has been measured. One limit holds for all that the upstream runs.
pub(super) fn read(lens: &Lens<'_>, shape: &mut Shape) -> Result<(), BadRequest> {
    let kinds = fields::tools(lens)?;
    let tools = lens.present("tools").and_then(body::elements).unwrap_or_default();
    let has_pictures = kinds.iter().any(|kind| kind == "image_generation");
    let usual = if has_pictures { PICTURES } else { fields::TOOL_CALLS };
    let most = fields::read_tool_calls(lens, "max_tool_calls")?.unwrap_or(usual);
    for (kind, tool) in kinds.iter().zip(tools) {
        match kind.as_str() {
            "namespace" => {
                Lens::of(tool).map_or(Ok(()), |tool| refuse_others(&tool, &["function", "custom"]))?;
                continue;
            }
            name if TOOLS.contains(&name) => continue,
            "mcp" => {}
            name if name.starts_with("web_search") => shape.demand.web_searches = most,
            "image_generation" => picture(tool, most, shape)?,
            "code_interpreter" => code(tool, shape)?,
            "file_search" => {
                return Err(field(
                    "file_search reads stores that lie in the upstream's account, which is not sold here",
                ));
            }
            _ => return Err(field(UNSOLD)),
        }
        shape.demand.open_input = true;
        shape.demand.tool_calls = most;
    }
    Ok(())
}

const UNSOLD: &str = "This kind of tool is not sold here: \
     a function, custom, mcp, web_search, image_generation or code_interpreter tool is";

/// Pictures that the model has made. It reads what was sent, and what it has made before.
fn picture(tool: &RawValue, most: u64, shape: &mut Shape) -> Result<(), BadRequest> {
    let Some(lens) = Lens::of(tool) else { return Err(field(UNSOLD)) };
    fields::once(&lens, &["model", "size", "quality", "partial_images", "output_format", "frame_count"])?;
    if shape.demand.images_made > 0 {
        return Err(field("image_generation is given twice"));
    }
    if lens.present("model").is_some() {
        return Err(field("model of image_generation cannot be chosen here: its price would not be known"));
    }
    if body::has_key(tool, &["file_id"]) {
        return Err(field("Files are not sold here: send the content itself instead of a file_id"));
    }
    images::Asked::of(&lens)?.into_kind(shape)?;
    shape.demand.images_made = most;
    let read = shape.images.saturating_add(most);
    shape.demand.tokens_into_image = read.saturating_mul(images::SENT_TOKENS).saturating_add(TEXT_OF_A_PICTURE);
    Ok(())
}

/// Code that is run in a container. Only one that is new and of the smallest size has a known price.
fn code(tool: &RawValue, shape: &mut Shape) -> Result<(), BadRequest> {
    const WRONG: &str = "container of code_interpreter must be {\"type\":\"auto\"}: others, and files, lie in the \
         upstream's account, and larger ones have no price here";
    let tool = Lens::of(tool).ok_or_else(|| field(UNSOLD))?;
    fields::once(&tool, &["container"])?;
    let container = tool.object("container").ok_or_else(|| field(WRONG))?;
    fields::once(&container, &["type", "memory_limit"])?;
    for (name, value) in container.members() {
        let is_plain = match name {
            "type" => body::string(value).as_deref() == Some("auto"),
            "memory_limit" => matches!(value.get(), "null" | "\"1g\""),
            _ => matches!(value.get(), "null" | "[]"),
        };
        if !is_plain {
            return Err(field(WRONG));
        }
    }
    if container.present("type").is_none() {
        return Err(field(WRONG));
    }
    shape.demand.code_sessions = shape.demand.code_sessions.saturating_add(1);
    Ok(())
}

/// Refuses tools of other kinds than these where they stand in something else: what the upstream runs is looked at, and
/// held for, where it stands among the tools of the request alone.
fn refuse_others(holder: &Lens<'_>, known: &[&str]) -> Result<(), BadRequest> {
    fields::once(holder, &["tools"])?;
    match fields::tools(holder)?.iter().all(|kind| known.contains(&kind.as_str())) {
        true => Ok(()),
        false => Err(field("A tool that the API itself runs must stand among the tools of the request")),
    }
}

/// Why an item of the input cannot be sent: it names something that the upstream keeps, or brings tools that it runs.
pub(super) fn refuse_item(item: &Lens<'_>) -> Result<(), BadRequest> {
    if item.present("tools").is_some() {
        refuse_others(item, &["function", "custom", "namespace"])?;
        let tools = item.present("tools").and_then(body::elements).unwrap_or_default();
        // One without tools in it brings none.
        tools.into_iter().filter_map(Lens::of).try_for_each(|tool| refuse_others(&tool, &["function", "custom"]))?;
    }
    match item.present("type").and_then(body::string).as_deref() {
        Some("code_interpreter_call") => {
            Err(field("A code_interpreter_call names a container of the upstream's: leave it out of the input"))
        }
        Some("image_generation_call") if item.present("result").is_none() => {
            Err(field("An image_generation_call without its result refers to something that the upstream keeps"))
        }
        _ => Ok(()),
    }
}

/// What the items of an output tell that the tools did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    searches: u64,
    pictures: u64,
    /// Containers by their names.
    containers: BTreeSet<Option<String>>,
}

impl Done {
    /// What the output of a response tells.
    pub(super) fn of(response: &Lens<'_>) -> Self {
        let mut done = Self::default();
        let output = response.get("output").and_then(body::elements).unwrap_or_default();
        output.into_iter().filter_map(Lens::of).for_each(|item| done.take(&item));
        done
    }

    /// Takes an item that is finished.
    pub(super) fn take(&mut self, item: &Lens<'_>) {
        let text = |name: &str| item.present(name).and_then(body::string);
        let is_done = text("status").as_deref() != Some("failed");
        match text("type").as_deref() {
            Some("web_search_call") if is_done && is_search(item) => self.searches = self.searches.saturating_add(1),
            Some("image_generation_call") if is_done => {
                self.pictures = self.pictures.saturating_add(1);
            }
            Some("code_interpreter_call") => drop(self.containers.insert(text("container_id"))),
            _ => {}
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let code_sessions = u64::try_from(self.containers.len()).unwrap_or(u64::MAX);
        Usage { web_searches: self.searches, images_made: self.pictures, code_sessions, ..Usage::default() }
    }
}

/// Whether a call of the tool that searches did so: it opens pages as well, and looks for words in them.
fn is_search(item: &Lens<'_>) -> bool {
    let action = item.object("action").and_then(|action| action.present("type").and_then(body::string));
    action.is_none_or(|action| action == "search")
}

/// Adds what the tools consumed, which is told beside the usage, or seen in the output.
pub(super) fn add_usage(response: &Lens<'_>, usage: &mut Usage) {
    let told = response.object("tool_usage");
    let done = Done::of(response).usage();
    let searches = told.as_ref().and_then(|told| told.object("web_search"));
    usage.web_searches = part(searches.as_ref(), "num_requests").unwrap_or(done.web_searches);
    usage.images_made = done.images_made;
    usage.code_sessions = done.code_sessions;
    if let Some(made) = told.as_ref().and_then(|told| told.object("image_gen")) {
        add_pictures(&made, usage);
    }
}

/// Adds what went into pictures, and what came out. What is not said to be text or cached is pictures, which cost no less.
fn add_pictures(made: &Lens<'_>, usage: &mut Usage) {
    let details = made.object("input_tokens_details");
    let told = |name: &str| part(details.as_ref(), name);
    let mut read = Rest::of(part(Some(made), "input_tokens").unwrap_or(0));
    let cached = read.take(told("cached_tokens").or_else(|| part(Some(made), "cached_tokens")).unwrap_or(0));
    // What a cache served may be of either kind.
    let text = match told("image_tokens") {
        Some(pictures) => read.left.saturating_sub(pictures),
        None => told("text_tokens").unwrap_or(0).min(read.left),
    };
    let text = read.take(text);
    let details = made.object("output_tokens_details");
    let mut drawn = Rest::of(part(Some(made), "output_tokens").unwrap_or(0));
    let said = drawn.take(part(details.as_ref(), "text_tokens").unwrap_or(0));
    usage.input = usage.input.saturating_add(text);
    usage.cache_read = usage.cache_read.saturating_add(cached);
    usage.image_in = usage.image_in.saturating_add(read.left);
    usage.output = usage.output.saturating_add(said);
    usage.image_out = usage.image_out.saturating_add(drawn.left);
    usage.contradictory |= read.is_exceeded | drawn.is_exceeded;
}
