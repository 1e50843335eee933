//! What is this node's own in its documents: address, models, lines to paste, prices, limits.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, Uri};
use serde_json::Value;

use crate::catalog::route::Buyer;
use crate::config::MissingUsage;
use crate::http::Node;
use crate::shop::prices::exact;
use crate::shop::snippets::{self, Named};
use crate::shop::{address, example, home};

/// Texts by the name that stands for them, as `{{name}}`.
#[derive(Debug, Default)]
pub(super) struct Values(BTreeMap<&'static str, String>);

impl FromIterator<(&'static str, String)> for Values {
    fn from_iter<T: IntoIterator<Item = (&'static str, String)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// Where clients reach the node, without `/v1`.
pub(super) fn base(node: &Node, headers: &HeaderMap, uri: &Uri) -> String {
    address::own(&node.info().http_url, headers, uri)
}

impl Values {
    /// Those of this node, as this visitor reaches it.
    pub fn of(node: &Node, headers: &HeaderMap, uri: &Uri) -> Self {
        let base = base(node, headers, uri);
        let listing = node.price_list();
        let data = listing.get("data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let ids: Vec<&str> = data.iter().filter_map(|model| model.get("id").and_then(Value::as_str)).collect();
        let named = Named::of(node, &ids);
        let any = named.chat.unwrap_or_else(|| snippets::pasteable(ids.iter().copied()));
        let mut all = Self::from_iter([("base_url", base.clone()), ("model", any.to_owned())]);
        all.add_lines(&base, any, named);
        all.add_money(node, any);
        all.add_limits(node);
        all
    }

    /// The text with every name that is known replaced, once: what is filled in is not looked at again.
    pub fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            filled.push_str(before);
            let known = after.split_once("}}").and_then(|(name, then)| Some((self.0.get(name)?, then)));
            rest = match known {
                Some((value, then)) => {
                    filled.push_str(value);
                    then
                }
                None => {
                    filled.push_str("{{");
                    after
                }
            };
        }
        filled.push_str(rest);
        filled
    }

    fn add_lines(&mut self, base: &str, any: &str, named: Named<'_>) {
        let [claude, gpt, gemini] =
            [named.messages, named.responses, named.gemini].map(|model| model.unwrap_or(snippets::ANY_MODEL));
        self.0.extend([
            ("curl_key", snippets::bearer(base, any).text),
            ("curl_once", snippets::one_shot(base, any).text),
            ("openai_sdk", snippets::openai(base, any).text),
            ("anthropic_sdk", snippets::anthropic(base, claude).text),
            ("claude_code", snippets::claude_code(base, claude).text),
            ("codex", snippets::codex(base, gpt).text),
            ("opencode", snippets::opencode(base, any).text),
            ("gemini_sdk", snippets::gemini(base, gemini).text),
            ("claude_model", claude.to_owned()),
            ("gemini_model", gemini.to_owned()),
        ]);
    }

    fn add_money(&mut self, node: &Node, model: &str) {
        let exchange = &node.exchange;
        let (market, till) = (&exchange.market, &exchange.till);
        let (wallet, rate) = (till.wallet(), market.rate());
        let mints = wallet.mints();
        let pricing = match market.static_prices().as_ref().and_then(home::fixed) {
            None => "Here, each model has a price list in US dollars.".to_owned(),
            Some(fixed) => format!(
                "Here, all models have one price in sats: {} for a request, {} for a million input tokens, {} for a \
                 million output tokens.",
                fixed.request, fixed.input, fixed.output
            ),
        };
        let foreign = match wallet.swaps_foreign() {
            None => "Ecash of any other mint is refused, untouched.".to_owned(),
            Some(percent) => format!(
                "Ecash of other mints is taken too: it is swapped to the first of these mints over Lightning, and you \
                 bear the fee, which is {percent} % at most (or 2 sat). Change and refunds are then of that mint."
            ),
        };
        let silent = match exchange.settings.now().pricing.missing_usage {
            MissingUsage::Estimate => {
                "the tokens are counted from the text, four characters each, and of sound and files from their size"
            }
            MissingUsage::Max => "all that was held is charged",
            MissingUsage::Free => "nothing is charged",
        };
        let minimum = market.rate_card(model, Buyer::anybody(&exchange.pool)).map_or_else(
            || "the least that the operator has set".to_owned(),
            |(card, _)| format!("{} msat", card.minimum.get()),
        );
        let hours = home::hours(market, exchange.ledger.clock().now_ms()).join(" ");
        let hours = if hours.is_empty() { "Prices are the same at all hours.".to_owned() } else { hours };
        self.0.extend([
            ("mints", if mints.is_empty() { "none yet".to_owned() } else { mints.join(", ") }),
            ("unit", wallet.unit().as_str().to_owned()),
            ("pricing", pricing),
            ("hours", hours),
            ("foreign", foreign),
            ("silent", silent.to_owned()),
            ("minimum", minimum),
            ("provider_fee", exact(rate.provider_fee)),
            ("exchange_fee", exact(rate.exchange_fee)),
            ("child_key_cost", till.child_key_cost().get().to_string()),
            ("example", worked(node, model)),
        ]);
    }

    fn add_limits(&mut self, node: &Node) {
        let (keys, visitors) = (node.exchange.throttle.limits(), node.exchange.till.allowance());
        let most = |limit: Option<u64>| limit.map_or_else(|| "no limit".to_owned(), example::figure);
        let few = |limit: Option<usize>| most(limit.and_then(|limit| u64::try_from(limit).ok()));
        self.0.extend([
            ("key_requests", most(keys.requests_per_minute)),
            ("key_tokens", most(keys.tokens_per_minute)),
            ("key_streams", few(keys.max_streams)),
            ("invoices_an_hour", few(visitors.creates_per_hour)),
            ("invoices_waiting", few(visitors.max_pending)),
            ("voucher_tries", few(visitors.wrong_vouchers_per_hour)),
            ("quotes_a_minute", few(visitors.quotes_per_minute)),
            ("body_bytes", few(Some(node.spool.limit()))),
        ]);
    }
}

/// The worked example, a step and its sum in two lines each.
fn worked(node: &Node, model: &str) -> String {
    let market = &node.exchange.market;
    let Some(example) = example::of(market, Buyer::anybody(&node.exchange.pool), model) else {
        return "No model has a price right now.".to_owned();
    };
    let (input, output) = (example::figure(example::INPUT), example::figure(example::OUTPUT));
    let mut lines = vec![format!("{}, {input} tokens of input, {output} of output", example.model)];
    for step in &example.steps {
        lines.push(format!("\n{}\n  {}\n  = {}", step.what, step.sum, step.result));
    }
    lines.push(format!("\nRounded up, once\n  {} msat = {} sat", example.msat, example.sat));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_filled_in_and_nothing_else() {
        let values = Values::from_iter([("a", "{{b}}".to_owned()), ("b", "B".to_owned())]);
        for (text, filled) in [
            ("", ""),
            ("{{b}} and {{b}}", "B and B"),
            ("{{a}}{{b}}", "{{b}}B"),
            ("{{c}} {{b}}", "{{c}} B"),
            ("{{b", "{{b"),
            ("{{{b}}}", "{{{b}}}"),
            ("}} {{b}}", "}} B"),
        ] {
            assert_eq!(values.fill(text), filled, "{text}");
        }
    }
}
