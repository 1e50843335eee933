//! Asking to be paid: NUT-18 payment requests, as NUT-24 puts them into a 402.

use std::str::FromStr;

use cdk::mint_url::MintUrl;
use cdk::nuts::PaymentRequest as CdkRequest;

use super::{Wallet, currency};
use crate::money::{MintUnit, Msat};

/// What a payer needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentRequest {
    /// `creqA…`
    pub encoded: String,
    /// In `unit`, net of input fees.
    pub amount: u64,
    pub unit: MintUnit,
    pub mints: Vec<String>,
}

impl Wallet {
    /// A request for `amount`, rounded up to whole units, at any of the node's mints. It has no
    /// transport: the token comes back in the `X-Cashu` header of the repeated request.
    #[must_use]
    pub fn request(&self, amount: Msat) -> PaymentRequest {
        let unit = self.unit();
        let units = unit.ceil(amount);
        let mints: Vec<MintUrl> = self.mints().iter().filter_map(|url| MintUrl::from_str(url).ok()).collect();
        let encoded = CdkRequest::builder().amount(units).unit(currency(unit)).mints(mints).build().to_string();
        PaymentRequest { encoded, amount: units, unit, mints: self.mints().to_vec() }
    }
}
