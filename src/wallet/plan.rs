//! What an operation's plan is. The journal keeps it as a text without a name: which one it is follows from the
//! operation's kind and from its shape, and is decided here alone.

use serde::de::DeserializeOwned;

use super::change::Paid;
use super::import::Import;
use super::journal::{Kind, Operation};
use super::quote::Quote;
use super::{WalletError, melt, swap};

/// The act of an operation, or what is kept of it when it is over.
pub(super) enum Plan {
    /// None is made yet, none was needed, or it is forgotten.
    None,
    /// Proofs for proofs, at a mint of the node's.
    Swap(swap::Plan),
    /// A payment over Lightning.
    Melt(melt::Plan),
    /// What is left of that when it is made.
    Paid(Paid),
    /// An invoice, and what its payment brings.
    Quote(Quote),
    /// Ecash of a foreign mint for ecash of the node's.
    Import(Import),
    /// Not one that this version of the node makes for such an operation.
    Unreadable,
}

impl Plan {
    pub(super) fn of(operation: &Operation) -> Self {
        Self::read(operation.kind, &operation.plan)
    }

    fn read(kind: Kind, text: &str) -> Self {
        if text.is_empty() {
            return Self::None;
        }
        let read = match kind {
            Kind::Redeem | Kind::Reclaim => parse(text, Self::Import).or_else(|| parse(text, Self::Swap)),
            Kind::Consolidate => parse(text, Self::Swap),
            Kind::TopUp => parse(text, Self::Quote),
            Kind::Change | Kind::Refund | Kind::Expiry | Kind::Payout => {
                parse(text, Self::Melt).or_else(|| parse(text, Self::Swap)).or_else(|| parse(text, Self::Paid))
            }
        };
        read.unwrap_or(Self::Unreadable)
    }
}

fn parse<P: DeserializeOwned>(text: &str, plan: fn(P) -> Plan) -> Option<Plan> {
    serde_json::from_str(text).ok().map(plan)
}

impl Operation {
    /// The swap that was planned for it.
    ///
    /// # Errors
    /// When its plan is none; so it is with the others.
    pub(super) fn swap_plan(&self) -> Result<swap::Plan, WalletError> {
        match Plan::of(self) {
            Plan::Swap(plan) => Ok(plan),
            _ => Err(self.unreadable()),
        }
    }

    /// The payment that was planned for it.
    pub(super) fn melt_plan(&self) -> Result<melt::Plan, WalletError> {
        match Plan::of(self) {
            Plan::Melt(plan) => Ok(plan),
            _ => Err(self.unreadable()),
        }
    }

    /// The invoice that was made for it.
    pub(super) fn quote(&self) -> Result<Quote, WalletError> {
        match Plan::of(self) {
            Plan::Quote(quote) => Ok(quote),
            _ => Err(self.unreadable()),
        }
    }

    /// Its plan is not what it must be. The text is not shown: it may be worth money.
    pub(super) fn unreadable(&self) -> WalletError {
        WalletError::Ecash(format!("operation {} has an unreadable plan", self.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::AccountId;
    use crate::money::{MintUnit, Msat};

    const SWAP: &str =
        r#"{"inputs":[],"keyset":"00","counter":0,"outputs":[1],"send":[0],"fee":2,"spare":1,"bonus":[1]}"#;
    const OLD_SWAP: &str = r#"{"inputs":[],"keyset":"00","counter":0,"outputs":[1],"fee":2}"#;
    const MELT: &str = r#"{"quote":"q","inputs":[],"keyset":"00","counter":0,"blanks":1,"amount":7,"total":9,
        "input_fee":0,"fee_reserve":1,"payment_hash":"00"}"#;
    const OLD_MELT: &str =
        r#"{"quote":"q","inputs":[],"keyset":"00","counter":0,"blanks":1,"amount":7,"total":9,"input_fee":0}"#;
    const PAID: &str = r#"{"sent":9000,"fee":1000,"quote":"q"}"#;
    const QUOTE: &str = r#"{"id":"q","bolt11":"b","expires_at":1,"keyset":"00","counter":1,"outputs":[1]}"#;
    const FRESH_QUOTE: &str = r#"{"id":"q","bolt11":"b","expires_at":1}"#;

    fn named(plan: &Plan) -> &'static str {
        match plan {
            Plan::None => "none",
            Plan::Swap(_) => "swap",
            Plan::Melt(_) => "melt",
            Plan::Paid(_) => "paid",
            Plan::Quote(_) => "quote",
            Plan::Import(_) => "import",
            Plan::Unreadable => "unreadable",
        }
    }

    #[test]
    fn the_kind_of_an_operation_and_the_shape_of_its_plan_say_what_it_is() {
        let import = format!(r#"{{"foreign":"https://f","unit":"sat","melt":{MELT},"quote":{QUOTE}}}"#);
        let import = import.as_str();
        let incoming = [Kind::Redeem, Kind::Reclaim];
        let outgoing = [Kind::Change, Kind::Refund, Kind::Expiry, Kind::Payout];
        type Row<'a> = (&'a [Kind], &'a [(&'a str, &'a str)]);
        let rows: [Row<'_>; 4] = [
            (
                &incoming,
                &[
                    ("", "none"),
                    (SWAP, "swap"),
                    (OLD_SWAP, "swap"),
                    (import, "import"),
                    (MELT, "unreadable"),
                    (QUOTE, "unreadable"),
                    (PAID, "unreadable"),
                    ("{}", "unreadable"),
                ],
            ),
            (
                &outgoing,
                &[
                    ("", "none"),
                    (SWAP, "swap"),
                    (OLD_SWAP, "swap"),
                    (MELT, "melt"),
                    (OLD_MELT, "melt"),
                    (PAID, "paid"),
                    (QUOTE, "unreadable"),
                    (import, "unreadable"),
                    ("{", "unreadable"),
                ],
            ),
            (&[Kind::TopUp], &[("", "none"), (QUOTE, "quote"), (FRESH_QUOTE, "quote"), (SWAP, "unreadable")]),
            (&[Kind::Consolidate], &[("", "none"), (SWAP, "swap"), (MELT, "unreadable"), ("{}", "unreadable")]),
        ];
        for (kinds, texts) in rows {
            for kind in kinds {
                for (text, expected) in texts {
                    assert_eq!(named(&Plan::read(*kind, text)), *expected, "{kind:?} {text}");
                }
            }
        }
    }

    #[test]
    fn a_plan_that_cannot_be_read_is_named_and_not_shown() {
        let (account, mint) = (AccountId(1), "https://mint.example");
        let planned = Operation::planned(Kind::Payout, account, mint, MintUnit::Sat, Msat::default());
        let operation = Operation { plan: r#"{"secret": "#.to_owned(), ..planned };
        for said in [operation.swap_plan().unwrap_err(), operation.melt_plan().unwrap_err()] {
            let said = said.to_string();
            assert!(said.contains(&operation.id) && said.contains("unreadable plan"), "{said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
