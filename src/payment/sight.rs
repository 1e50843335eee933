//! Looking at what somebody shows, without taking anything.

use super::payer::{Till, is_credited, unknown_key};
use super::{Payment, unauthorized};
use crate::failure::{Code, Failure};
use crate::ledger::Account;
use crate::money::Msat;
use crate::net::Peer;
use crate::wallet::Token;

/// What a key or token is.
#[derive(Debug)]
pub enum Sight {
    /// One that this node has an account for, and the hex behind its key.
    Known(Box<Account>, String),
    /// A token that was never used here, and what it would be worth on a key.
    Fresh(Box<Token>, Msat),
}

impl Till {
    /// Counts a question for the price of a request.
    ///
    /// # Errors
    /// When the address has asked too many.
    pub fn admit_quote(&self, address: Option<Peer>) -> Result<(), Failure> {
        self.visitors().admit_quote(address).map_err(|wait| {
            let message = "Too many quotes were asked for from this address; try again later.";
            Failure::client(Code::TooManyRequests, message).retrying(wait.0)
        })
    }

    /// What this key or token is. Redeems nothing.
    ///
    /// # Errors
    /// When it is neither, or this node would not take it.
    pub async fn look_at(&self, payment: Payment) -> Result<Sight, Failure> {
        match payment {
            Payment::Key(hex) => {
                let account = self.look_up(&hex).await?.ok_or_else(unknown_key)?;
                Ok(Sight::Known(Box::new(account), hex))
            }
            Payment::TokenKey(token) | Payment::OneShot(token) => match self.look_up(&token.id).await? {
                Some(account) if is_credited(&account) => Ok(Sight::Known(Box::new(account), token.id.clone())),
                _ => {
                    let net = self.appraise(&token).await?;
                    Ok(Sight::Fresh(token, net))
                }
            },
            Payment::Asking => Err(unauthorized()),
        }
    }
}
