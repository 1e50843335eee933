//! The bill, as it stands in an answer.

use serde::Serialize;
use serde_json::value::RawValue;

use super::Receipt;
use super::body::{self, Lens, Patch};
use super::reading::usage_of;
use crate::money::UsageSource;

#[derive(Serialize)]
struct CostObject {
    base_msats: u64,
    input_msats: u64,
    output_msats: u64,
    total_msats: u64,
    cache_read_input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_msats: u64,
    cache_creation_msats: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_usd: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated: Option<bool>,
}

#[derive(Serialize)]
struct UsageObject {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

impl CostObject {
    fn of(receipt: &Receipt) -> Self {
        let cost = &receipt.cost;
        Self {
            base_msats: cost.base.get(),
            input_msats: cost.input.get(),
            output_msats: cost.output.get(),
            total_msats: cost.total.get(),
            // Of the same kinds as the amounts below.
            cache_read_input_tokens: cost.usage.cache_read.saturating_add(cost.usage.audio_cached),
            cache_creation_input_tokens: cost.usage.cache_write.saturating_add(cost.usage.cache_write_1h),
            cache_read_msats: cost.cache_read.get(),
            cache_creation_msats: cost.cache_write.get(),
            // The decimal's own text: the number never becomes a float.
            total_usd: cost.usd.and_then(|usd| RawValue::from_string(usd.to_string()).ok()),
            estimated: (cost.usage.source == UsageSource::Estimated).then_some(true),
        }
    }
}

/// Writes the bill into an answer or into the last object of a stream.
pub(super) fn write(patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
    let bill = body::encode(&CostObject::of(receipt));
    patch.set("usage", usage(lens, &bill, receipt));
    patch.set("cost", total(&bill, receipt));
    patch.set("metadata", metadata(lens, &bill, receipt));
    provider(patch, lens, receipt);
}

/// Says who made the answer, unless it says so itself.
fn provider(patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
    if lens.present("provider").is_none() {
        patch.set("provider", body::encode(&receipt.provider));
    }
}

/// Writes the bill into the usage report under `key`, and beside it. `own` is the report where the
/// upstream sent none.
pub(super) fn bill(patch: &mut Patch<'_, '_>, lens: &Lens<'_>, key: &str, own: &str, receipt: &Receipt) {
    let bill = body::encode(&CostObject::of(receipt));
    let base = lens.get(key).filter(|value| body::is_object(value)).map_or(own, RawValue::get);
    patch.set(key, with_bill(base, &bill, receipt));
    patch.set("cost", total(&bill, receipt));
    provider(patch, lens, receipt);
}

/// Writes the bill into the usage report of an answer, or beside the answer where it has none: a report of tokens that
/// is made up would be taken for one.
pub(super) fn bill_what_is_reported(patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
    if lens.object("usage").is_some() {
        bill(patch, lens, "usage", "{}", receipt);
    } else {
        bill_beside(patch, lens, receipt);
    }
}

/// Writes the bill beside an answer that has no usage report.
pub(super) fn bill_beside(patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
    patch.set("cost", total(&body::encode(&CostObject::of(receipt)), receipt));
    provider(patch, lens, receipt);
}

/// A usage report with the bill in it.
fn with_bill(base: &str, bill: &str, receipt: &Receipt) -> String {
    let sats = receipt.cost.total.floor_sat().get().to_string();
    let mut members = vec![("cost", bill.to_owned()), ("cost_sats", sats)];
    members.extend(remaining(base, receipt).map(|left| ("remaining_balance_msats", left)));
    with_members(base, members)
}

/// The whole bill in one object.
fn total(bill: &str, receipt: &Receipt) -> String {
    format!("{},{}", bill.strip_suffix('}').unwrap_or(bill), in_sats(receipt))
}

/// The upstream's usage object with the bill in it, or one of ours where that is of no use.
fn usage(lens: &Lens<'_>, bill: &str, receipt: &Receipt) -> String {
    if let Some((value, Some(_))) = usage_of(lens) {
        return with_bill(value.get(), bill, receipt);
    }
    let usage = &receipt.cost.usage;
    let own = UsageObject {
        prompt_tokens: usage.total_input(),
        completion_tokens: usage.total_output(),
        total_tokens: usage.total_input().saturating_add(usage.total_output()),
    };
    with_bill(&body::encode(&own), bill, receipt)
}

fn metadata(lens: &Lens<'_>, bill: &str, receipt: &Receipt) -> String {
    let routstr = format!("{{\"cost\":{bill},{}", in_sats(receipt));
    match lens.get("metadata").filter(|value| body::is_object(value)) {
        Some(base) => with_members(base.get(), vec![("routstr", routstr)]),
        None => format!("{{\"routstr\":{routstr}}}"),
    }
}

/// The last members of an object that tells the whole bill, and its end.
fn in_sats(receipt: &Receipt) -> String {
    let sats = receipt.cost.total.floor_sat().get();
    match receipt.remaining {
        Some(left) => format!("\"sats_cost\":{sats},\"remaining_balance_msats\":{}}}", left.get()),
        None => format!("\"sats_cost\":{sats}}}"),
    }
}

/// What is left on the key. An upstream of the same kind has put the operator's own balance
/// there; that is none of the client's business.
fn remaining(base: &str, receipt: &Receipt) -> Option<String> {
    match receipt.remaining {
        Some(left) => Some(left.get().to_string()),
        None => {
            let lens = Lens::parse(base.as_bytes()).ok()?;
            lens.get("remaining_balance_msats").map(|_| "null".to_owned())
        }
    }
}

fn with_members(object: &str, members: Vec<(&str, String)>) -> String {
    let patched = Lens::parse(object.as_bytes()).ok().and_then(|lens| {
        let mut patch = Patch::new(&lens);
        for (key, json) in members {
            patch.set(key, json);
        }
        String::from_utf8(patch.apply()?).ok()
    });
    patched.unwrap_or_else(|| object.to_owned())
}
