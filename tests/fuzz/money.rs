//! What stands for money: tokens, keys, payment requests, invoices, recipients, prices.

use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use cdk::Bolt11Invoice;
use cdk::nuts::{PaymentRequest, Token as CdkToken};
use coinslot::catalog::{Catalog, file};
use coinslot::clock::SystemClock;
use coinslot::config::{FeedKind, mint_url};
use coinslot::ledger::Ledger;
use coinslot::lnurl::{self, LnurlError, Offer, Recipient};
use coinslot::money::amount::MAX_MSAT;
use coinslot::money::{MintUnit, Msat};
use coinslot::net::public::Reach;
use coinslot::net::way::Way;
use coinslot::payment::{self, Credentials, Payment, expiry};
use coinslot::price::{feeds, is_sane};
use coinslot::store::Store;
use coinslot::wallet::token::{self, MAX_CHARS, MAX_PROOFS, Token};
use coinslot::wallet::{Options, Seed, Wallet};
use rust_decimal::Decimal;

use crate::engine::{kind, order};

fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

fn check(token: &Token) {
    assert!(!token.face.is_zero() && token.face.get() <= MAX_MSAT);
    assert!(token.unit == MintUnit::Msat || token.face.get().is_multiple_of(1000));
    assert!((1..=MAX_PROOFS).contains(&token.secret_hashes.len()));
    assert!(token.secret_hashes.windows(2).all(|pair| pair[0] < pair[1]), "sorted, each once");
    assert_eq!(mint_url(&token.mint).as_ref(), Ok(&token.mint), "the mint's name is the one that is compared");
    let shown = format!("{token:?}");
    assert!(!shown.contains(&token.id) && token.secret_hashes.iter().all(|hash| !shown.contains(hash)));
}

/// A token that is read is bounded, and is the same money in any encoding.
pub fn token(input: &[u8]) -> u64 {
    let Some(text) = text(input) else { return 0 };
    let token = match token::read(text) {
        Ok(token) => token,
        Err(fault) => return kind(fault.to_string()),
    };
    assert!(text.len() <= MAX_CHARS && token::looks_like_token(text));
    assert_eq!(token.id, token::token_id(text));
    check(&token);
    assert!(token.proofs(&[]).is_err(), "nobody knows its keyset");
    if let Ok(decoded) = CdkToken::from_str(text) {
        for again in [decoded.to_v3_string(), decoded.to_string()] {
            // Another encoding may be longer than what is taken, or impossible.
            let Ok(again) = token::read(&again) else { continue };
            let (one, other) = (&token, &again);
            assert_eq!(one.secret_hashes, other.secret_hashes, "the same proofs");
            assert_eq!((&one.mint, one.unit, one.face), (&other.mint, other.unit, other.face), "the same money");
        }
    }
    kind((order(token.secret_hashes.len()), token.unit, order(usize::try_from(token.face.get()).unwrap())))
}

/// Lines: `Authorization`, `X-Cashu`, `x-api-key`, `Refund-LNURL`, `Key-Expiry-Time`. Whatever is wrong,
/// nothing of them is repeated.
pub fn payment(input: &[u8]) -> u64 {
    let Some(text) = text(input) else { return 0 };
    let mut lines = text.splitn(5, '\n').map(|line| Some(line).filter(|line| *line != "-"));
    let mut line = || lines.next().flatten();
    let credentials = Credentials {
        authorization: line(),
        cashu: line(),
        api_key: line(),
        refund_lnurl: line(),
        key_expiry: line(),
        accepts_cashu: text.len().is_multiple_of(2),
        ..Credentials::default()
    };
    let secrets: Vec<&str> = [credentials.authorization, credentials.cashu, credentials.api_key]
        .into_iter()
        .flatten()
        .filter(|secret| secret.len() > 40)
        .collect();
    let read = payment::read(credentials, |_| false);
    let payment = match read {
        Ok(payment) => payment,
        Err(failure) => {
            let said = format!("{failure:?} {}", failure.message);
            assert!(secrets.iter().all(|secret| !said.contains(secret)), "{said}");
            return kind(failure.message);
        }
    };
    if let Some(hex) = payment.key_hex() {
        assert!(hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{hex}");
    }
    if let Payment::TokenKey(token) | Payment::OneShot(token) = &payment {
        check(token);
    }
    match expiry::read(credentials, &payment) {
        Ok(Some(expiry)) => {
            assert!((0..=expiry::MAX_UNIX_SECS).contains(&expiry.at));
            assert!(Recipient::parse(&expiry.address).is_ok(), "it can be paid: {}", expiry.address);
            kind(("expires", std::mem::discriminant(&payment)))
        }
        Ok(None) => kind(std::mem::discriminant(&payment)),
        Err(failure) => kind(failure.message),
    }
}

/// A wallet that asks for money and never gets any.
static TILL: LazyLock<Wallet> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let wallet = runtime.block_on(async {
        let store = Store::open(dir.path(), None, false).await.unwrap();
        let (ledger, _writing) = Ledger::open(store, Arc::new(SystemClock), "a node".to_owned()).await.unwrap();
        let options = Options {
            mints: vec!["https://mint.example".to_owned(), "https://other.example/Bitcoin".to_owned()],
            unit: MintUnit::Sat,
            timeout: std::time::Duration::from_secs(1),
            concurrency: 1,
            calls_per_minute: std::collections::HashMap::new(),
            seed: Seed::new([7; 64]),
            ladder_coins: 0,
            lightning_fee_percent: 3,
            strangers: Reach::Public,
            to_strangers: Way::default(),
            foreign_fee_percent: None,
        };
        let client = coinslot::net::client(&coinslot::net::ClientOptions::default()).unwrap();
        Wallet::open(ledger, options, &client).await.unwrap()
    });
    // Both live as long as the process.
    std::mem::forget(runtime);
    std::mem::forget(dir);
    wallet
});

/// What we ask for says what we want, to the sat, rounded up (NUT-18); and what looks like it is read or
/// refused by clients' own decoder.
pub fn request(input: &[u8]) -> u64 {
    let head = input.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let amount = Msat::new(head % (MAX_MSAT + 1)).unwrap();
    let asked = TILL.request(amount);
    let read = PaymentRequest::from_str(&asked.encoded).expect("our own request");
    assert_eq!(read.amount.map(|amount| amount.to_u64()), Some(amount.get().div_ceil(1000)));
    assert_eq!(read.unit.map(|unit| unit.to_string()), Some("sat".to_owned()));
    assert_eq!(read.mints.iter().map(ToString::to_string).collect::<Vec<_>>(), TILL.mints());
    assert!(read.transports.is_empty(), "it comes back in the header");
    let Some(text) = text(input) else { return 0 };
    match PaymentRequest::from_str(text) {
        Ok(foreign) => kind(("read", foreign.amount.is_some(), order(foreign.mints.len()))),
        Err(_) => kind(order(text.len())),
    }
}

/// Who can be paid is asked at an address that cannot lead elsewhere than it says.
pub fn lnurl(input: &[u8]) -> u64 {
    let Some(text) = text(input) else { return 0 };
    let Ok(recipient) = Recipient::parse(text) else { return kind(order(text.len())) };
    let url = recipient.url();
    coinslot::net::check_url(url).expect("an address that is asked");
    assert!(matches!(url.scheme(), "https" | "http"), "{url}");
    assert!(url.username().is_empty() && url.password().is_none(), "{url}");
    assert_eq!(Recipient::parse(text.trim()), Ok(recipient.clone()));
    if text.contains('@') {
        assert!(
            url.path().starts_with("/.well-known/lnurlp/") && url.query().is_none() && url.fragment().is_none(),
            "{url}"
        );
        let (_, host) = text.trim().rsplit_once('@').unwrap();
        let authority = url.authority().to_ascii_lowercase();
        assert!(host.to_ascii_lowercase().starts_with(&authority) || url.host_str().is_some(), "{url} for {text}");
    }
    kind((url.scheme().to_owned(), text.contains('@'), order(url.as_str().len())))
}

/// What a recipient's server says is bounded.
pub fn lnurl_answer(input: &[u8]) -> u64 {
    let refused = |error: &LnurlError| {
        let said = error.to_string();
        assert!(said.chars().count() < 300 && !said.chars().any(char::is_control), "{said:?}");
        kind((std::mem::discriminant(error), order(said.len())))
    };
    let invoice = match lnurl::read_invoice(input) {
        Ok(invoice) => {
            assert!(!invoice.is_empty());
            kind(order(invoice.len()))
        }
        Err(error) => refused(&error),
    };
    let offer = match Offer::read(input, Reach::Public, &Way::default()) {
        Ok(offer) => {
            let takes = |msat: u64| Msat::new(msat).is_some_and(|amount| offer.check(amount).is_ok());
            let (zero, all) = (takes(0), takes(MAX_MSAT));
            kind((zero, all, takes(1000), takes(u64::MAX)))
        }
        Err(error) => refused(&error),
    };
    kind((invoice, offer))
}

/// An invoice that is read says the same when it is written again.
pub fn bolt11(input: &[u8]) -> u64 {
    let Some(text) = text(input) else { return 0 };
    match Bolt11Invoice::from_str(text.trim()) {
        Ok(invoice) => {
            let again = Bolt11Invoice::from_str(&invoice.to_string()).expect("what it wrote itself");
            assert_eq!(again.amount_milli_satoshis(), invoice.amount_milli_satoshis());
            assert_eq!(again.payment_hash(), invoice.payment_hash());
            kind(("read", invoice.amount_milli_satoshis().map(|amount| order(usize::try_from(amount).unwrap()))))
        }
        Err(error) => kind(error.to_string()),
    }
}

/// A price is in the range that is believed, and does not depend on the space around it.
pub fn feed(input: &[u8]) -> u64 {
    let mut found = Vec::new();
    for feed in FeedKind::ALL {
        let price = feeds::parse(feed, input);
        assert!(price.is_none_or(|price| is_sane(price) && price > Decimal::ZERO), "{feed:?}: {price:?}");
        let spaced = [b" \n", input, b" "].concat();
        assert_eq!(feeds::parse(feed, &spaced), price, "{feed:?}");
        found.push(price.map(|price| price.scale()));
    }
    kind(found)
}

/// No entry that can be bought has a price that cannot be charged, and a bad one hides no other.
pub fn models(input: &[u8]) -> u64 {
    let (models, problems) = match file::parse(input) {
        Ok(parsed) => parsed,
        Err(error) => return kind(error.to_string().split(" at line").next()),
    };
    let most = Decimal::from(1000);
    for model in &models {
        let prices = &model.prices;
        let optional = [prices.internal_reasoning, prices.input_cache_read, prices.input_cache_write];
        let always = [prices.prompt, prices.completion, prices.request, prices.image, prices.web_search];
        for price in always.into_iter().chain(optional.into_iter().flatten()) {
            assert!((Decimal::ZERO..=most).contains(&price), "{}: {price}", model.id);
        }
    }
    let (count, refused) = (models.len(), problems.len());
    let (catalog, more) = Catalog::new(models);
    let mut ids = std::collections::BTreeSet::new();
    for model in catalog.all() {
        assert!(ids.insert(model.id.clone()), "{} is there once", model.id);
    }
    for model in catalog.offered() {
        assert_eq!(catalog.find(&model.id).expect("it is on offer").id, model.id);
        for alias in catalog.aliases(model) {
            assert_eq!(catalog.find(&alias).expect("an alias").id, model.id);
        }
    }
    let first = problems.first().map(|problem| order(problem.len()));
    kind((order(count), order(refused), order(more.len()), first))
}
