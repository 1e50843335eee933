//! The APIs behind the node, as a pool: which of them serves a request, and who is next when it does not.
//!
//! ```text
//!   config, table ──► Upstream (provider, kind, models)     choice: who goes first
//!                          │                                health: who is left alone, and for how long
//!   Plan ──► Lease ──► forward (one attempt) ──► Miss ──► failover: is another one asked?
//! ```
//!
//! A [`Plan`] is what could serve one request; each [`Lease`] on it is one attempt, and holds a place at
//! its upstream until it is dropped. An upstream that refuses the operator's account is barred
//! (`barred`): the one thing about health that is stored. Nothing here knows of money but [`outlay`], which only counts it.

pub mod account;
mod bar;
mod barred;
mod choice;
mod failover;
mod fault;
mod forward;
mod health;
pub mod kind;
mod lease;
mod model_list;
mod model_path;
mod models;
pub mod outlay;
mod pool;
mod provider;
pub mod repo;
pub mod retention;
mod sealed;
mod sending;
mod sticky;
pub mod stored;

pub use bar::Bar;
pub use failover::{Miss, NextStep};
pub use fault::Fault;
pub use forward::{Answer, ForwardError, MAX_ANSWER, Media, Refused};
pub use health::{Availability, Outcome};
pub use lease::Lease;
pub use model_path::ModelPath;
pub use models::{Models, Names};
pub use outlay::Outlay;
pub use pool::{Calling, Condition, Plan, Pool, PoolError, Requirements, Unavailable};
pub use provider::Upstream;
pub use sticky::Session;
