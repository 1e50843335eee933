//! The test mint and the test wallet together: what every money test relies on.

use std::time::{Duration, Instant};

use crate::support::mint::{MintOptions, TestMint};
use crate::support::purse::Purse;
use cdk::nuts::CurrencyUnit;

#[tokio::test(flavor = "multi_thread")]
async fn money_moves_once() {
    let begin = Instant::now();
    let mint = TestMint::start().await;
    let started = begin.elapsed();
    let payer = Purse::new(&mint).await;
    let opened = begin.elapsed();
    payer.mint_sats(1000).await;
    let minted = begin.elapsed();
    assert_eq!(payer.balance().await, 1000);
    let token = payer.send(100).await;
    let sent = begin.elapsed();
    assert!(token.starts_with("cashuB"));
    assert_eq!(payer.balance().await, 900);

    let payee = Purse::new(&mint).await;
    let before = begin.elapsed();
    assert_eq!(payee.receive(&token).await.expect("receive"), 100);
    let received = begin.elapsed() - before;
    assert_eq!(payee.balance().await, 100);
    let again = payee.receive(&token).await.expect_err("a spent token");
    assert!(matches!(again, cdk::Error::TokenAlreadySpent), "{again}");
    assert_eq!(payee.balance().await, 100);
    assert!(mint.calls("/v1/swap") >= 2, "{:?}", mint.all_calls());
    println!(
        "start {started:?}, purse {:?}, mint {:?}, send {:?}, receive {received:?}, {:?}",
        opened - started,
        minted - opened,
        sent - minted,
        mint.all_calls()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn old_token_format_and_old_keyset_ids() {
    for keyset_v2 in [Some(false), Some(true)] {
        let mint = TestMint::with_options(MintOptions { keyset_v2, ..Default::default() }).await;
        let payer = Purse::new(&mint).await;
        payer.mint_sats(64).await;
        let token = payer.send_v3(21).await;
        assert!(token.starts_with("cashuA"));
        assert_eq!(Purse::new(&mint).await.receive(&token).await.expect("receive"), 21);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mint_takes_its_fee() {
    let mint = TestMint::with_fee_ppk(1000).await;
    let payer = Purse::new(&mint).await;
    payer.mint_sats(1000).await;
    let token = payer.send(64).await;
    let got = Purse::new(&mint).await.receive(&token).await.expect("receive");
    assert!(got < 64, "no fee was taken of {got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn msat_and_large_amounts() {
    let mint = TestMint::with_options(MintOptions { msat: true, ..Default::default() }).await;
    let payer = Purse::with_unit(&mint.url(), CurrencyUnit::Msat).await;
    payer.mint_sats(5_000_000_000).await;
    let token = payer.send(3_000_000_001).await;
    let payee = Purse::with_unit(&mint.url(), CurrencyUnit::Msat).await;
    assert_eq!(payee.receive(&token).await.expect("receive"), 3_000_000_001);
    assert_eq!(payer.balance().await, 1_999_999_999);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_mint_refuses_and_comes_back() {
    let mut mint = TestMint::start().await;
    let payer = Purse::new(&mint).await;
    payer.mint_sats(100).await;
    let token = payer.send(10).await;
    let payee = Purse::new(&mint).await;
    mint.stop().await;
    let port = mint.url().trim_start_matches("http://").to_owned();
    assert!(tokio::net::TcpStream::connect(&port).await.is_err());
    let failing = tokio::time::timeout(Duration::from_secs(20), payee.receive(&token)).await;
    failing.expect("refused at once").expect_err("nobody is there");
    mint.restart().await;
    assert_eq!(payee.receive(&token).await.expect("receive"), 10);
}
