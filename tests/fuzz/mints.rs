//! What a mint answers, over HTTP, to every call that a node makes.

use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Response;
use axum::routing::any;
use cdk::nuts::{
    BlindedMessage, CurrencyUnit, Id, MeltQuoteBolt11Request, MeltRequest, MintQuoteBolt11Request, MintRequest,
    PublicKey, SwapRequest,
};
use cdk::{Amount, Bolt11Invoice};
use coinslot::clock::SystemClock;
use coinslot::net::{ClientOptions, client, install_crypto};
use coinslot::wallet::mint::{HttpMint, Limits};
use coinslot::wallet::{MintError, Refusal};
use tokio::runtime::Runtime;

use crate::engine::{kind, order};

const INVOICE: &str = include_str!("corpus/bolt11/minted");
const KEYSET: &str = "00ad268c4d1f5826";
const POINT: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
const STATUSES: [u16; 9] = [200, 200, 200, 400, 404, 408, 429, 500, 302];

/// A mint that answers everything alike.
struct Parrot {
    runtime: Runtime,
    url: String,
    client: reqwest::Client,
    says: Arc<Mutex<(u16, Vec<u8>)>>,
}

impl Parrot {
    fn start() -> Self {
        install_crypto();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let says: Arc<Mutex<(u16, Vec<u8>)>> = Arc::new(Mutex::new((200, Vec::new())));
        let answer = Arc::clone(&says);
        let router = Router::new().fallback(any(move || {
            let (status, body) = answer.lock().unwrap().clone();
            async move { Response::builder().status(status).body(Body::from(body)).unwrap() }
        }));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let client = client(&ClientOptions::default()).unwrap();
        Self { runtime, url, client, says }
    }

    /// A mint of which nothing bad is known yet: one that was would be left alone for a while.
    fn mint(&self) -> HttpMint {
        let limits = Limits { timeout: Duration::from_secs(5), concurrency: 4, per_minute: None };
        HttpMint::new(self.url.clone(), self.client.clone(), limits, Arc::new(SystemClock))
    }

    /// Makes one of the calls. Gives the size of what was understood.
    async fn call(&self, which: u8, text: &str) -> Result<usize, MintError> {
        let (id, point) = (Id::from_str(KEYSET).unwrap(), PublicKey::from_str(POINT).unwrap());
        let outputs = || vec![BlindedMessage::new(Amount::from(1), id, point)];
        let invoice = || Bolt11Invoice::from_str(INVOICE.trim()).unwrap();
        let quote = "9d745270-1405-46de-b5c5-e2762b4f5e00".to_owned();
        Ok(match which % 9 {
            0 => {
                let keysets = self.mint().keysets().await?.keysets;
                assert!(keysets.len() <= 256);
                keysets.len()
            }
            1 => {
                let keyset = self.mint().keys(id).await?;
                assert!(keyset.id == id && keyset.keys.len() <= 256 && keyset.verify_id().is_ok(), "other keys");
                keyset.keys.len()
            }
            2 => {
                let states = self.mint().states(vec![point, point]).await?;
                assert_eq!(states.len(), 2, "one state for each that was asked about");
                2
            }
            3 => self.mint().restore(outputs()).await?.signatures.len(),
            4 => self.mint().swap(&SwapRequest::new(Vec::new(), outputs())).await?.signatures.len(),
            5 => {
                let request = MintRequest { quote, outputs: outputs(), signature: None };
                self.mint().mint(&request).await?.signatures.len()
            }
            6 => {
                let amount = Amount::from(10);
                let request =
                    MintQuoteBolt11Request { amount, unit: CurrencyUnit::Sat, description: None, pubkey: None };
                let answer = self.mint().quote_mint(&request).await?;
                // Its name goes into a path: it leads nowhere else, or is not used.
                match self.mint().mint_quote(&answer.quote).await {
                    Err(MintError::Refused(Refusal::Other(_))) => {
                        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=');
                        assert!(
                            answer.quote.is_empty() || answer.quote.len() > 256 || !answer.quote.bytes().all(plain)
                        );
                        0
                    }
                    _ => order(answer.quote.len()).try_into().unwrap(),
                }
            }
            7 => {
                let request = MeltQuoteBolt11Request { request: invoice(), unit: CurrencyUnit::Sat, options: None };
                let answer = self.mint().quote_melt(&request).await?;
                order(usize::try_from(answer.amount.to_u64()).unwrap()).try_into().unwrap()
            }
            _ => {
                let answer = self.mint().melt(&MeltRequest::new(text.to_owned(), Vec::new(), None)).await?;
                answer.change.map_or(0, |change| change.len())
            }
        })
    }
}

/// Whether the mint acted is never guessed: what it says with a success is a success or unknown, and only
/// its own refusal is one.
pub fn mint() -> impl Fn(&[u8]) -> u64 {
    let parrot = Parrot::start();
    move |input| {
        let ([status, which, ..], Some(body)) = (input, input.get(2..)) else { return 0 };
        let status = STATUSES[usize::from(*status) % STATUSES.len()];
        *parrot.says.lock().unwrap() = (status, body.to_vec());
        let outcome = parrot.runtime.block_on(parrot.call(*which, "a quote"));
        let what = match &outcome {
            Ok(size) => {
                assert_eq!(status, 200, "a success that was none");
                format!("{}", order(*size))
            }
            Err(MintError::NotSent | MintError::Held(_)) => panic!("it was sent"),
            Err(MintError::Unknown(why)) => {
                assert!(matches!(status, 200 | 302 | 408 | 500), "{status} is no secret: {why}");
                why.clone()
            }
            Err(MintError::Refused(refusal)) => {
                assert!((400..500).contains(&status) && status != 408, "{status} is no refusal: {refusal:?}");
                assert_eq!(status == 429, matches!(refusal, Refusal::RateLimited(_)));
                let said = refusal.to_string();
                assert!(said.chars().count() <= 200 && !said.chars().any(char::is_control), "{said:?}");
                format!("{:?}", std::mem::discriminant(refusal))
            }
        };
        kind((status, which % 9, what))
    }
}
