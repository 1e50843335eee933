//! From a corpus to inputs, and from a panic to an input that can be put into the corpus.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use bech32::primitives::decode::UncheckedHrpstring;
use bech32::{Bech32, Fe32, Hrp};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

/// Longest input; larger ones find nothing that these do not.
const MAX: usize = 20_000;
/// Inputs that are kept for being new of their kind.
const KEPT: usize = 4_000;
/// How long one input may take, unoptimised and on a busy machine.
const SLOW: Duration = Duration::from_secs(5);
/// By how much the process may grow.
const MAX_GROWTH_KIB: u64 = 512 * 1024;

/// Words of the formats, and what hurts in their place.
const WORDS: &[&str] = &[
    "cashuA",
    "cashuB",
    "creqA",
    "lnbc",
    "lnurl1",
    "LNURL1",
    "lightning:",
    "sk-",
    "Bearer ",
    "data: ",
    "data:",
    "\n\n",
    "\r\n\r\n",
    "\r\r",
    "\n",
    "\r",
    ": ping\n\n",
    "[DONE]",
    "data: [DONE]\n\n",
    "\u{feff}",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\u0000",
    "\\ud83d",
    ",",
    ":",
    "null",
    "true",
    "false",
    "@",
    "https://",
    "http://127.0.0.1",
    "http://[::1]",
    "127.0.0.1",
    "169.254.169.254",
    "..",
    "//",
    "%2f",
    "?",
    "#",
    "\u{0}",
    "\"usage\":",
    "\"error\":",
    "\"model\":",
    "\"stream\":true",
    "\"choices\":",
    "\"content\":",
    "\"finish_reason\":\"stop\"",
    "\"prompt_tokens\":",
    "\"completion_tokens\":",
    "\"total_tokens\":",
    "\"max_tokens\":",
    "\"n\":",
    "\"pricing\":",
    "\"prompt\":",
    "\"amount\":",
    "\"state\":\"PAID\"",
];

const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "1",
    "-1",
    "1.0",
    "1.5",
    "1e3",
    "1E-7",
    "1e999",
    "0e999",
    "127",
    "128",
    "255",
    "256",
    "1000",
    "65536",
    "10000000",
    "10000001",
    "1000000000000",
    "1000000000001",
    "2147483647",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "2100000000000000000",
    "2100000000000000001",
    "99999999999999999999999999999999999999",
    "0.00000000000000000000000000001",
    "\"12\"",
    "\"NaN\"",
    "\"-1\"",
    "01",
];

/// What an input was, as far as its target can tell: an outcome and a size.
pub fn kind(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// The size of a thing, so that only sizes of another order are another kind.
pub fn order(size: usize) -> u32 {
    usize::BITS - size.leading_zeros()
}

/// Feeds a target for its time.
pub fn fuzz(target: &str, run: impl Fn(&[u8]) -> u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("FUZZ_SEED").unwrap_or_else(rand::random);
    let time = Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(1));
    let mut rng = StdRng::seed_from_u64(seed);
    let mut corpus = read_corpus(target);
    let mut kinds = HashSet::new();
    let (begun, before) = (Instant::now(), memory_kib());
    let mut count: u64 = 0;
    let mut at = 0;
    // The corpus itself first, in whole.
    while begun.elapsed() < time || at < corpus.len().min(KEPT) && count < 500 {
        let fresh = at < corpus.len();
        let input = if fresh { corpus[at].clone() } else { mutated(&mut rng, &corpus) };
        at += 1;
        let asked = Instant::now();
        let Ok(found) = catch_unwind(AssertUnwindSafe(|| run(&input))) else {
            panic!("{target}: FUZZ_SEED={seed}, input {count}:\nb\"{}\"", input.escape_ascii());
        };
        assert!(asked.elapsed() < SLOW, "{target}: {:?} for b\"{}\"", asked.elapsed(), input.escape_ascii());
        if kinds.insert(found) && !fresh && corpus.len() < KEPT {
            corpus.push(input);
            at += 1;
        }
        count += 1;
    }
    let growth = memory_kib().saturating_sub(before);
    assert!(growth < MAX_GROWTH_KIB, "{target}: FUZZ_SEED={seed}: grew by {growth} KiB");
    assert!(count > 20, "{target}: only {count} inputs in {time:?}");
    println!("{target}: {count} inputs of {} kinds", kinds.len());
}

fn read_corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&dir).expect("a corpus").map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let corpus: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(!corpus.is_empty(), "{} is empty", dir.display());
    corpus
}

/// The most memory that this process has had, where the system says it.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn mutated(rng: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus.choose(rng).expect("a corpus").clone();
    for _ in 0..rng.random_range(1..=4) {
        input = if rng.random_bool(0.4) { repacked(rng, &input).unwrap_or(input) } else { changed(rng, input, corpus) };
    }
    input.truncate(MAX);
    input
}

/// Unpacks what is packed, changes it, and packs it again. Lines are packed each for itself.
fn repacked(rng: &mut StdRng, input: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(input).ok()?;
    if let Ok(mut value) = serde_json::from_str::<Value>(text) {
        change_json(rng, &mut value);
        return Some(value.to_string().into_bytes());
    }
    if text.contains('\n') {
        let mut lines: Vec<Vec<u8>> = text.split('\n').map(|line| line.as_bytes().to_vec()).collect();
        let at = rng.random_range(0..lines.len());
        let line = lines[at].clone();
        let (head, tail) = match line.strip_prefix(b"data: ") {
            Some(tail) => (&b"data: "[..], tail),
            None => (&b""[..], &line[..]),
        };
        lines[at] = [head, &repacked(rng, tail)?].concat();
        return Some(lines.join(&b'\n'));
    }
    for prefix in ["cashuA", "cashuB", "creqA", "Bearer cashuA", "Bearer cashuB"] {
        let Some(payload) = text.strip_prefix(prefix) else { continue };
        let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        let bytes = match serde_json::from_slice::<Value>(&bytes) {
            Ok(mut value) => {
                change_json(rng, &mut value);
                value.to_string().into_bytes()
            }
            Err(_) => changed(rng, bytes, &[]),
        };
        let packed = if rng.random_bool(0.5) { URL_SAFE.encode(bytes) } else { URL_SAFE_NO_PAD.encode(bytes) };
        return Some(format!("{prefix}{packed}").into_bytes());
    }
    rechecked(rng, text)
}

/// A text in bech32 with a character changed and the checksum made good, or with another amount.
fn rechecked(rng: &mut StdRng, text: &str) -> Option<Vec<u8>> {
    let parsed = UncheckedHrpstring::new(text).ok()?;
    let mut hrp = parsed.hrp().to_string();
    if hrp.starts_with("ln") && rng.random_bool(0.3) {
        let amount = NUMBERS.choose(rng)?.trim_matches('"');
        hrp = format!("lnbc{amount}{}", ["", "m", "u", "n", "p"].choose(rng)?);
    }
    let mut values: Vec<Fe32> =
        parsed.data_part_ascii().iter().filter_map(|c| Fe32::from_char(char::from(*c)).ok()).collect();
    values.truncate(values.len().saturating_sub(6));
    for _ in 0..rng.random_range(0..3) {
        let value = Fe32::try_from(rng.random_range(0_u8..32)).ok()?;
        match values.len() {
            0 => values.push(value),
            length => values[rng.random_range(0..length)] = value,
        }
    }
    use bech32::primitives::iter::Fe32IterExt as _;
    let hrp = Hrp::parse(&hrp).ok()?;
    let chars = values.into_iter().with_checksum::<Bech32>(&hrp).chars();
    Some(chars.collect::<String>().into_bytes())
}

fn change_json(rng: &mut StdRng, value: &mut Value) {
    let deeper = rng.random_bool(0.75);
    match value {
        Value::Object(members) if deeper && !members.is_empty() => {
            let at = rng.random_range(0..members.len());
            let key = members.keys().nth(at).expect("a key").clone();
            match rng.random_range(0..10) {
                0 => drop(members.remove(&key)),
                1 => {
                    let copy = members[&key].clone();
                    members.insert(format!("{key}{}", WORDS.choose(rng).expect("a word")), copy);
                }
                _ => change_json(rng, &mut members[&key]),
            }
        }
        Value::Array(elements) if deeper && !elements.is_empty() => {
            let at = rng.random_range(0..elements.len());
            match rng.random_range(0..10) {
                0 => drop(elements.remove(at)),
                1 => {
                    let copy = elements[at].clone();
                    elements.extend(std::iter::repeat_n(copy, rng.random_range(1..80)));
                }
                _ => change_json(rng, &mut elements[at]),
            }
        }
        Value::String(text) if deeper => {
            let bytes = changed(rng, std::mem::take(text).into_bytes(), &[]);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        _ => {
            *value = match rng.random_range(0..7) {
                0 => Value::Null,
                1 => json!([]),
                2 => json!({}),
                3 => json!(WORDS.choose(rng)),
                4 => json!(rng.random_bool(0.5)),
                5 => (0..rng.random_range(1..200)).fold(Value::Null, |inside, _| json!([inside])),
                _ => serde_json::from_str(NUMBERS.choose(rng).expect("a number")).unwrap_or(Value::Null),
            };
        }
    }
}

fn changed(rng: &mut StdRng, mut input: Vec<u8>, corpus: &[Vec<u8>]) -> Vec<u8> {
    let at = rng.random_range(0..=input.len());
    let end = rng.random_range(at..=input.len().min(at.saturating_add(64)));
    match rng.random_range(0..9) {
        0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        1 if at < input.len() => input[at] = rng.random(),
        2 => drop(input.drain(at..end)),
        3 => {
            let piece = input[at..end].to_vec();
            let times = rng.random_range(1..20);
            drop(input.splice(at..at, piece.repeat(times)));
        }
        4 => drop(input.splice(at..at, WORDS.choose(rng).expect("a word").bytes())),
        5 => drop(input.splice(at..end, WORDS.choose(rng).expect("a word").bytes())),
        6 => {
            // A number in the place of a number.
            let from = input[at..].iter().position(u8::is_ascii_digit).map_or(at, |found| at + found);
            let digits = input[from..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
            drop(input.splice(from..from + digits, NUMBERS.choose(rng).expect("a number").bytes()));
        }
        7 => input.truncate(at),
        _ => {
            if let Some(other) = corpus.choose(rng) {
                let from = rng.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
    input
}
