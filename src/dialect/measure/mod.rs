//! What a request amounts to as input of a model, measured without building it.
//!
//! More may be charged than was held for nobody, so what is held must not depend on what a client calls things. A
//! picture or a sound counts as one only where APIs take it for one, and where it can be one; all else is text as
//! long as it is. JSON that is anybody's own (what a tool was given, what it gave, definitions) is text with every
//! number and bracket. Files of whose text nothing is known before, because they lie elsewhere or are compressed,
//! make a volume *open*: it may be as long as the model reads at all.

use std::borrow::Cow;

use memchr::memchr;
use serde_json::value::RawValue;

use super::body::{MAX_MEMBERS, Token, Tokens, Unreadable, count_chars, plain};
use super::vision;

/// Containers within containers that are followed, as in `serde_json`.
const MAX_DEPTH: usize = 128;

/// Longest address of a picture. What is longer must be the picture itself.
const MAX_ADDRESS: usize = 2048;

/// What a file is usually read as, where nobody tells: a page as a picture is some 1,500 tokens, and a scan of one
/// 100 kB; a second of a video is some 250 tokens, and 128 kB.
const BYTES_PER_FILE_TOKEN: u64 = 64;
const BYTES_PER_VIDEO_TOKEN: u64 = 512;

/// Members of a conversation whose JSON is anybody's own: calls of tools, what they gave, and definitions.
const OWN: [&[u8]; 12] = [
    b"input",
    b"args",
    b"arguments",
    b"response",
    b"action",
    b"actions",
    b"parameters",
    b"input_schema",
    b"json_schema",
    b"schema",
    b"tools",
    b"functions",
];

/// Members that hold a file, or say where one is.
const FILES: [&[u8]; 8] =
    [b"file_url", b"document_url", b"pdf_url", b"media_url", b"video_url", b"video", b"input_video", b"audio_url"];

/// Containers, and types of containers, whose `url` leads to a file.
const FILE_KINDS: [&[u8]; 8] =
    [b"file", b"document", b"video", b"audio", b"input_file", b"input_video", b"input_audio", b"media"];

/// Members that mark where a prompt cache is written, or say how.
const CACHES: [&[u8]; 3] = [b"cache_control", b"prompt_cache_breakpoint", b"prompt_cache_options"];

/// Types of containers whose `file_id` is one of the upstream's account.
const FILE_PARTS: [&[u8]; 3] = [b"input_file", b"input_image", b"computer_screenshot"];

/// What a value amounts to as input of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Characters of all strings, keys included, without pictures, sound and files.
    pub chars: u64,
    pub images: u64,
    pub image_tokens: u64,
    /// Tokens of audio, at most.
    pub audio_tokens: u64,
    /// What they usually are, as far as that can be told without listening.
    pub usual_audio_tokens: u64,
    /// What files that are sent are usually read as, as far as that can be told from their size.
    pub usual_file_tokens: u64,
    /// There is a file in it of which nobody knows how many tokens it is.
    pub is_open: bool,
    /// Files that lie in an account of the upstream's, by their id.
    pub account_files: u64,
    /// Marks at which a prompt cache is written, and whether one is to be kept for an hour.
    pub cache_marks: u64,
    pub is_cached_for_an_hour: bool,
    /// One is to be kept as OpenAI keeps it for more than the usual price.
    pub is_cached_for_longer: bool,
}

impl Volume {
    pub fn add(&mut self, other: Self) {
        self.chars = self.chars.saturating_add(other.chars);
        self.images = self.images.saturating_add(other.images);
        self.image_tokens = self.image_tokens.saturating_add(other.image_tokens);
        self.audio_tokens = self.audio_tokens.saturating_add(other.audio_tokens);
        self.usual_audio_tokens = self.usual_audio_tokens.saturating_add(other.usual_audio_tokens);
        self.usual_file_tokens = self.usual_file_tokens.saturating_add(other.usual_file_tokens);
        self.is_open |= other.is_open;
        self.account_files = self.account_files.saturating_add(other.account_files);
        self.cache_marks = self.cache_marks.saturating_add(other.cache_marks);
        self.is_cached_for_an_hour |= other.is_cached_for_an_hour;
        self.is_cached_for_longer |= other.is_cached_for_longer;
    }

    fn text(&mut self, text: &[u8]) {
        self.chars = self.chars.saturating_add(count_chars(text));
    }

    /// Signs that are counted without being looked at.
    fn signs(&mut self, count: u64) {
        self.chars = self.chars.saturating_add(count);
    }

    fn image(&mut self, tokens: u64) {
        self.images = self.images.saturating_add(1);
        self.image_tokens = self.image_tokens.saturating_add(tokens);
    }

    /// A file that lies elsewhere. Where it may be sound, all that the model reads may be sound.
    fn file(&mut self, may_be_sound: bool) {
        self.is_open = true;
        if may_be_sound {
            self.audio_tokens = u64::MAX;
        }
    }

    /// A file that is sent, if it is longer than its address could be.
    fn sent_file(&mut self, medium: Medium, data: &[u8]) {
        self.file(false);
        if data.len() > MAX_ADDRESS {
            let bytes_per_token = if medium == Medium::Video { BYTES_PER_VIDEO_TOKEN } else { BYTES_PER_FILE_TOKEN };
            let tokens = unpacked(payload(data)) / bytes_per_token;
            self.usual_file_tokens = self.usual_file_tokens.saturating_add(tokens);
        }
    }

    /// Something that is said to be a picture by its address, or is one in a data URI.
    fn link(&mut self, url: &[u8], is_low: bool) {
        match Link::of(url) {
            Link::Picture => self.image(vision::estimate_tokens(url, is_low)),
            Link::Data(Medium::Image, data) => self.image(vision::estimate_data_tokens(data)),
            Link::Data(Medium::Audio, data) => self.sound(data),
            Link::Data(medium @ (Medium::File | Medium::Video), data) => self.sent_file(medium, data),
            Link::Data(Medium::Text, _) => self.text(url),
        }
    }

    /// Something that is said to be audio in base64. Some hosts take an address in its place.
    fn sound(&mut self, data: &[u8]) {
        let payload = payload(data);
        if is_base64(payload) {
            self.audio_tokens = self.audio_tokens.saturating_add(audio_tokens(payload));
            self.usual_audio_tokens = self.usual_audio_tokens.saturating_add(usual_audio_tokens(payload));
        } else if data.len() <= MAX_ADDRESS {
            self.file(true);
        } else {
            self.text(data);
        }
    }

    fn data(&mut self, medium: Medium, data: &[u8], is_inline: bool) {
        let tokens = if is_inline { vision::estimate_inline_tokens } else { vision::estimate_data_tokens };
        match medium {
            Medium::Image if data.len() <= MAX_ADDRESS || is_base64(payload(data)) => {
                self.image(tokens(payload(data)));
            }
            Medium::Audio => self.sound(data),
            Medium::File | Medium::Video => self.sent_file(medium, data),
            Medium::Image | Medium::Text => self.text(data),
        }
    }

    /// A file in a data URI or in base64, or its address.
    fn file_data(&mut self, text: &[u8]) {
        match data_uri(text).map(|(head, _)| Medium::of(&plain(head))) {
            Some(Medium::Text) => self.text(text),
            Some(Medium::Audio) => self.sound(text),
            Some(Medium::Video) => self.sent_file(Medium::Video, text),
            _ => self.sent_file(Medium::File, text),
        }
    }

    /// Counts a container that has been read to its end, and tells the one around it what it was.
    fn close(&mut self, frame: &Frame<'_>, parent: Option<&mut Frame<'_>>) {
        if frame.is_own {
            // The brackets, and a comma between any two.
            return self.signs(frame.values.max(1).saturating_add(1));
        }
        if let Some(url) = frame.url {
            self.link(url, frame.is_low == Some(true));
        }
        if let Some(data) = frame.data {
            self.data(frame.medium(), data, frame.is_inline());
        }
        match frame.source {
            None => {}
            Some(Source::Linked) if frame.kind.is(b"image") => self.image(vision::UNSEEN_TOKENS),
            Some(Source::Data) if frame.kind.is(b"image") => {}
            Some(_) => self.file(false),
        }
        if frame.has_link && frame.names_a_file() {
            self.file(frame.names_a_sound());
        } else if frame.has_link && frame.kind.is(b"image") {
            self.image(vision::UNSEEN_TOKENS);
        }
        let is_of_an_account = frame.has_file_id && frame.may_have_an_id();
        self.account_files = self.account_files.saturating_add(u64::from(is_of_an_account));
        if let Some(parent) = parent.filter(|_| *frame.name == *b"source") {
            parent.source = frame.as_source();
        }
    }
}

/// Tokens of audio in base64: 32 a second, at 8 kbit/s, which speech is hardly ever below.
fn audio_tokens(base64: &[u8]) -> u64 {
    (unpacked(base64) / 1000).saturating_add(1).saturating_mul(32)
}

/// What it usually is: compressed, it is reckoned at 64 kbit/s, as recordings of speech often are, and plain samples at
/// the 256 kbit/s of 16,000 a second.
fn usual_audio_tokens(base64: &[u8]) -> u64 {
    let is_wav = base64.starts_with(b"UklGR");
    audio_tokens(base64) / if is_wav { 32 } else { 8 }
}

/// Bytes that this much base64 is.
fn unpacked(base64: &[u8]) -> u64 {
    u64::try_from(base64.len()).unwrap_or(u64::MAX) / 4 * 3
}

/// Whether this can be base64, of either alphabet, as it stands in JSON.
fn is_base64(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=' | b'\\'))
}

/// The two parts of a data URI, without the comma between them.
fn data_uri(url: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = url.strip_prefix(b"data:")?;
    let comma = memchr(b',', rest.get(..rest.len().min(256))?)?;
    Some((rest.get(..comma)?, rest.get(comma.saturating_add(1)..)?))
}

/// Base64 without what some hosts allow in front of it.
fn payload(data: &[u8]) -> &[u8] {
    data_uri(data).map_or(data, |(_, payload)| payload)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Medium {
    Image,
    Audio,
    /// As long as it is: characters, or base64 of characters.
    Text,
    /// A document or a video: compressed, so its length says little.
    File,
    Video,
}

impl Medium {
    fn of(media: &[u8]) -> Self {
        const TEXTS: [&[u8]; 4] = [b"text/", b"application/json", b"application/xml", b"application/javascript"];
        if media.starts_with(b"image") {
            Self::Image
        } else if media.starts_with(b"audio") {
            Self::Audio
        } else if media.starts_with(b"video") {
            Self::Video
        } else if TEXTS.iter().any(|known| media.starts_with(known)) {
            Self::Text
        } else {
            Self::File
        }
    }
}

/// What stands where the address of a picture is expected.
enum Link<'a> {
    /// The address of a picture, or a picture in a data URI.
    Picture,
    /// Something else that is sent in its place.
    Data(Medium, &'a [u8]),
}

impl<'a> Link<'a> {
    fn of(url: &'a [u8]) -> Self {
        let is_short = url.len() <= MAX_ADDRESS;
        match data_uri(url) {
            Some((head, payload)) if head.ends_with(b";base64") && (is_short || is_base64(payload)) => {
                match Medium::of(&plain(head)) {
                    Medium::Image => Self::Picture,
                    other => Self::Data(other, payload),
                }
            }
            _ if is_short => Self::Picture,
            None if is_base64(url) => Self::Data(Medium::Image, url),
            _ => Self::Data(Medium::Text, url),
        }
    }
}

/// A word that a container says about itself.
#[derive(Default)]
struct Said<'a> {
    word: Cow<'a, [u8]>,
    /// It says two things, and two parsers could believe two of them.
    is_torn: bool,
}

impl<'a> Said<'a> {
    fn say(&mut self, word: Cow<'a, [u8]>) {
        self.is_torn |= !self.word.is_empty() && self.word != word;
        self.word = word;
    }

    fn is(&self, word: &[u8]) -> bool {
        !self.is_torn && *self.word == *word
    }
}

/// What the `source` of a part is, as Anthropic's are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Linked,
    Data,
}

/// An open container.
#[derive(Default)]
struct Frame<'a> {
    /// The key that it is the value of.
    name: Cow<'a, [u8]>,
    /// Its JSON is anybody's own: all of it is text.
    is_own: bool,
    values: u64,
    /// An image's address, or the image in a data URI, and whether little of it is to be looked at.
    url: Option<&'a [u8]>,
    is_low: Option<bool>,
    /// Base64 that stands alone, what it says it is, and its `type`.
    data: Option<&'a [u8]>,
    media: Said<'a>,
    kind: Said<'a>,
    source: Option<Source>,
    has_link: bool,
    has_file_id: bool,
    is_file_part: bool,
}

impl<'a> Frame<'a> {
    /// Takes what is no text of the conversation. Returns whether it did.
    fn take(&mut self, key: &[u8], text: &'a [u8]) -> bool {
        match key {
            b"image_url" => self.url = Some(text),
            b"url" if *self.name == *b"image_url" => self.url = Some(text),
            b"data" => self.data = Some(text),
            _ => {
                self.hear(key, text);
                return false;
            }
        }
        true
    }

    /// Hears what the container says about itself.
    fn hear(&mut self, key: &[u8], text: &'a [u8]) {
        match key {
            b"detail" => self.is_low = Some(self.is_low.unwrap_or(true) && *plain(text) == *b"low"),
            b"media_type" | b"mime_type" | b"mimeType" | b"format" => self.media.say(plain(text)),
            b"type" => {
                self.kind.say(plain(text));
                self.is_file_part |= FILE_PARTS.contains(&&*self.kind.word);
            }
            b"url" => self.has_link = true,
            b"file_id" => self.has_file_id = true,
            _ => {}
        }
    }

    /// It is Google's kind of file.
    fn is_inline(&self) -> bool {
        matches!(&*self.name, b"inlineData" | b"inline_data")
    }

    /// What its `data` is.
    fn medium(&self) -> Medium {
        if *self.name == *b"input_audio" {
            return Medium::Audio;
        }
        let is_unnamed_file = self.is_inline() || *self.kind.word == *b"base64";
        if self.media.word.is_empty() && !is_unnamed_file {
            return Medium::Text;
        }
        if self.media.is_torn { Medium::File } else { Medium::of(&self.media.word) }
    }

    fn as_source(&self) -> Option<Source> {
        let has_data = self.data.is_some() && self.medium() != Medium::Text;
        if self.has_link { Some(Source::Linked) } else { has_data.then_some(Source::Data) }
    }

    fn names_a_file(&self) -> bool {
        FILE_KINDS.contains(&&*self.name) || FILE_KINDS.contains(&&*self.kind.word)
    }

    fn names_a_sound(&self) -> bool {
        [&*self.name, &*self.kind.word].iter().any(|name| matches!(*name, b"audio" | b"input_audio"))
    }

    fn may_have_an_id(&self) -> bool {
        matches!(&*self.name, b"file" | b"source") || self.is_file_part
    }
}

/// Measures a conversation, or a part of one.
///
/// # Errors
/// When it is nested more than 128 levels deep, or an object in it is huge.
pub fn conversation(value: &RawValue) -> Result<Volume, Unreadable> {
    Walk::default().over(value)
}

/// Measures what a member of a request tells the model beside the conversation. It is all text.
///
/// # Errors
/// Those of [`conversation`].
pub fn definitions(name: &str, value: &RawValue) -> Result<Volume, Unreadable> {
    Walk { key: Cow::Owned(name.as_bytes().to_vec()), is_own: true, ..Walk::default() }.over(value)
}

/// Whether this word is one of the texts in a value, however it is spelled.
pub fn says(value: &RawValue, word: &[u8]) -> bool {
    // No letter takes more than six characters.
    let most = word.len().saturating_mul(6);
    Tokens::of(value).any(|token| matches!(token, Token::Text(text) if text.len() <= most && *plain(text) == *word))
}

/// A walk through a value, and what was found so far.
#[derive(Default)]
struct Walk<'a> {
    volume: Volume,
    frames: Vec<Frame<'a>>,
    key: Cow<'a, [u8]>,
    is_own: bool,
}

impl<'a> Walk<'a> {
    fn over(mut self, value: &'a RawValue) -> Result<Volume, Unreadable> {
        for token in Tokens::of(value) {
            match token {
                Token::Open => self.open()?,
                Token::Close => self.close(),
                Token::Key(text) => self.key(text)?,
                Token::Text(text) => self.text(text),
                Token::Scalar(text) => self.scalar(text),
            }
        }
        Ok(self.volume)
    }

    fn count_value(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.values = frame.values.saturating_add(1);
        }
    }

    /// Whether this stands in a container, where all is text.
    fn is_within_own(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.is_own)
    }

    fn open(&mut self) -> Result<(), Unreadable> {
        if self.frames.len() >= MAX_DEPTH {
            return Err(Unreadable::TooDeep);
        }
        self.count_value();
        let name = std::mem::take(&mut self.key);
        let is_own = self.is_own || self.is_within_own() || OWN.contains(&&*name);
        self.volume.cache_marks = self.volume.cache_marks.saturating_add(u64::from(CACHES.contains(&&*name)));
        if !is_own && FILES.contains(&&*name) {
            self.volume.file(*name == *b"audio_url");
        }
        self.frames.push(Frame { name, is_own, ..Frame::default() });
        Ok(())
    }

    fn close(&mut self) {
        if let Some(frame) = self.frames.pop() {
            self.volume.close(&frame, self.frames.last_mut());
        }
        self.key = Cow::default();
    }

    fn key(&mut self, text: &'a [u8]) -> Result<(), Unreadable> {
        let most = u64::try_from(MAX_MEMBERS).unwrap_or(u64::MAX);
        if self.frames.last().is_some_and(|frame| frame.values >= most) {
            return Err(Unreadable::TooMany);
        }
        self.volume.text(text);
        if self.is_within_own() {
            // The quotes and the colon.
            self.volume.signs(3);
        }
        self.key = plain(text);
        Ok(())
    }

    fn text(&mut self, text: &'a [u8]) {
        self.count_value();
        let key = std::mem::take(&mut self.key);
        let is_outermost = self.frames.len() == 1;
        let Some(frame) = self.frames.last_mut() else { return self.volume.text(text) };
        if *key == *b"ttl" && CACHES.contains(&&*frame.name) {
            self.volume.is_cached_for_an_hour |= *plain(text) == *b"1h";
            let is_of_openai = *frame.name != *b"cache_control" && (!frame.is_own || is_outermost);
            self.volume.is_cached_for_longer |= is_of_openai && *plain(text) != *b"30m";
        }
        if frame.is_own {
            self.volume.text(text);
            // The quotes.
            self.volume.signs(2);
        } else if FILES.contains(&&*frame.name) {
            // Counted already.
        } else if FILES.contains(&&*key) {
            self.volume.file(*key == *b"audio_url");
        } else if *key == *b"file_data" {
            self.volume.file_data(text);
        } else if !frame.take(&key, text) {
            self.volume.text(text);
        }
    }

    /// Numbers are text only where all is: elsewhere they are settings, or tokens that are counted apart.
    fn scalar(&mut self, text: &[u8]) {
        self.count_value();
        if self.is_within_own() || (!self.frames.is_empty() && OWN.contains(&&*self.key)) {
            self.volume.signs(u64::try_from(text.len()).unwrap_or(u64::MAX));
        }
    }
}

#[cfg(test)]
mod tests;
