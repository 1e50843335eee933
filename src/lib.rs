//! coinslot sells any OpenAI-compatible API for Cashu ecash: an axum reverse proxy with a
//! double-entry ledger and an ecash wallet inside. This page is the map of the house.
//!
//! # One request, twelve steps
//!
//! | # | step | where | the money is |
//! |---|---|---|---|
//! | 1 | read the payment headers | [`payment::read`] | the client's |
//! | 2 | look through the lens at model, limits, text | [`dialect::Dialect::read`] | the client's |
//! | 3 | find model and price, freeze the rate, size the worst case | [`catalog::route`] | the client's |
//! | 4 | redeem the token, once, last of all checks | [`wallet::Wallet::redeem`] | the node's, on an account |
//! | 5 | set the worst case aside, in one atomic statement | [`ledger::Ledger::hold`] | held |
//! | 6 | forward the body ([`dialect::Ask`]), and of the client's headers only what the protocol needs, to one upstream after the other until one answers | [`upstream`] | held |
//! | 7 | read the answer, event by event, and meter it | [`exchange`], [`dialect::Meter`] | held |
//! | 8 | reckon the cost, rounded up once, of what was frozen at 3 | [`money::RateCard::price`] | held |
//! | 9 | charge it, free the rest | [`ledger::Hold::capture`] | earned, or on the account |
//! | 10 | give change for a token that rode along | [`wallet::Wallet::give_change`] | the client's again |
//! | 11 | write the receipt into the answer | [`dialect::Dialect::stamp`] | |
//! | 12 | render an answer or a failure | [`http`] | |
//!
//! With an `Idempotency-Key`, the request is claimed before step 4 and its outcome kept after step 11
//! ([`exchange::Once`]). Step 9 also writes what [`exchange::Exchange::receipt`] gives out, signed.
//!
//! [`exchange`] is these steps in order, for every dialect, payment mode and delivery.
//!
//! # The tree
//!
//! * [`money`]: pure. Amounts with their unit, prices, what raises or lowers them ([`money::tariff`]), usage,
//!   cost.
//! * [`dialect`]: pure. One family of endpoints a file, of three protocols; bodies are edited as
//!   bytes, through a lens.
//! * [`failure`]: the one error shape: blame, retry, and what happened to the money.
//! * [`config`]: the only reader of the environment, but for a test's switch in [`failpoint`]. [`clock`]: the only
//!   reader of the wall clock, and the calendar.
//!   [`net`]: the only builder of HTTP clients and WebSockets. [`vault`]: secrets at rest.
//! * [`lnurl`]: from a Lightning address to an invoice. [`failpoint`]: where a test can kill the node.
//! * [`metrics`]: what a process counts, without a lock. [`status`]: how models did, in slots of time;
//!   [`status::sums`]: requests and earnings by hour, by day and for ever.
//! * [`store`]: SQLite or PostgreSQL, migrations, two durability classes.
//! * [`ledger`]: accounts, transfers, holds, the terms of keys and what the operator does with them, vouchers,
//!   profiles and windows, the numbers that charges were reckoned by, the group-committing writer, the proof of
//!   the books.
//! * [`wallet`]: the only importer of cdk. Redemption, change and refunds over a journal; payouts, and what the
//!   operator takes out; coins kept ready for change; swaps of foreign mints' ecash; recovery of a node whose
//!   database was put back;
//!   [`wallet::health`]: how much is asked of a mint.
//! * [`nostr`]: the only importer of the crate of that name. The node's identity, and what it signs; its
//!   listing at the relays; the directory of the others.
//! * [`tor`]: the only importer of arti. The node's own onion, and its ways out through Tor.
//! * [`audit`]: the proof of solvency, from ledger, wallet and mints. [`backup`]: sealed copies of it all.
//!   [`doctor`]: the node looked at from outside.
//! * [`price`], [`catalog`]: the BTC rate; models, the worst case of a request, the price list;
//!   [`catalog::import`]: what others list, what of it is in force, what waits for the operator;
//!   [`catalog::rivals`]: what other nodes charge.
//! * [`upstream`]: the APIs behind the node: kinds, who goes first, who is left alone or barred, one attempt,
//!   what a failed one means, what they cost.
//! * [`payment`]: headers become a payment, a payment becomes a payer; what else a key's owner does.
//! * [`alerts`]: what is wrong, told to an operator who does not look. [`telemetry`]: traces of requests.
//!   [`news`]: what the operator has to say to everybody.
//! * [`openapi`]: what the node says of its own routes, mounted with them.
//! * [`exchange`]: the spine. [`http`], [`admin`], [`jobs`]: what drives it. `operator`: what the operator can do,
//!   by a page, a call or a command. [`shop`]: `/` and `/docs` in a browser. `pages`: what all pages share.
//!   [`node`]: composition. [`cli`]: the program's verbs.
//!
//! # Invariants
//!
//! 1. Amounts are unsigned integers with checked arithmetic; no float is near money.
//! 2. Intent is synced before a mint is asked, the outcome after. What is unknown stays unknown
//!    until evidence (NUT-07, NUT-09) decides it.
//! 3. A proof is credited once, however it is encoded; a hold ends once; a charge never exceeds its
//!    hold; no balance is below zero; no key spends more than its limit. The compiler says so where
//!    it can, the schema everywhere, one statement where a hold is placed.
//! 4. No transaction is open while the node waits for a mint, an upstream or a client.
//! 5. Nothing a client does after admission, leaving included, stops settlement.
//! 6. The ledger sums to zero and matches the ecash held; every test of a node ends by proving it
//!    ([`audit`]). A database that is older than its past pays nothing before its mints were asked.
//! 7. No token, key, seed or prompt is in a log, an error, a URL or an upstream's request.
//!
//! # Walls
//!
//! Imports point down; a foreign crate has one home; SQL stays in its files. `tests/it/tidy.rs`
//! checks that. Traits stand only where a foreign system begins, and where one loop drives many of a kind:
//! [`dialect::Dialect`] with its [`dialect::Meter`], the `Flow` inside most of these, [`jobs::Job`].
//!
//! One decision differs from the first plan: swaps are driven by [`wallet`] itself over cdk's
//! cryptography, types and store, not by cdk's wallet, because the journal must own inputs and
//! outputs from before the mint hears of them until they are booked. For the same reason, [`nostr`] talks
//! to relays itself, over the types of the crate of that name: the pool that comes with them has tasks, a
//! clock and a log of its own, and believes a relay to be short.

pub mod admin;
pub mod alerts;
pub mod audit;
pub mod backup;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dialect;
pub mod doctor;
pub mod exchange;
pub mod failpoint;
pub mod failure;
pub mod http;
pub mod jobs;
pub mod ledger;
pub mod lnurl;
pub mod metrics;
pub mod money;
pub mod net;
pub mod news;
pub mod node;
pub mod nostr;
pub mod openapi;
mod operator;
mod pages;
pub mod payment;
pub mod price;
pub mod shop;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod tor;
pub mod upstream;
pub mod vault;
pub mod wallet;
