//! `GET /metrics`: what this process counts, and how the node is, for the operator's Prometheus.
//!
//! It tells the operator's business, upstreams by name included. So it is served to who has `METRICS_TOKEN`, and
//! at `/admin/metrics` to who is logged in; to nobody by default. An address says nothing about who asks: behind a
//! reverse proxy on the same machine everybody comes from loopback.
//!
//! Nothing is asked of a mint or an upstream, and nothing is read of the database: amounts are those of the last
//! audit. Each process has its own counters; sum over them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::openapi::security::SecurityRequirement;

use super::session::{Session, same};
use super::{AdminError, AdminState};
use crate::alerts::Alerts;
use crate::audit::{Latest, Report, Solvency};
use crate::config::Secret;
use crate::exchange::Exchange;
use crate::metrics::Kind::{Counter, Gauge, Histogram};
use crate::metrics::{Exposition, exposition};
use crate::openapi::Described;
use crate::openapi::say::{self, Method};
use crate::pages;
use crate::upstream::Condition as UpstreamCondition;
use crate::wallet::{Condition, Wallet};

/// What is shown, and who may see it.
#[derive(Clone, Debug)]
struct Desk {
    admin: AdminState,
    exchange: Arc<Exchange>,
    alerts: Alerts,
    token: Option<Secret>,
}

/// The two routes, to be merged into the node's.
pub fn router(admin: AdminState, exchange: Arc<Exchange>, alerts: Alerts, token: Option<Secret>) -> Described<()> {
    let said = say::operation("admin", "What this process counts, for Prometheus")
        .response("200", say::answer("Prometheus' text format", &[(say::TEXT, None)]))
        .response("401", say::answer("Not METRICS_TOKEN", &[(say::TEXT, None)]))
        .response("404", say::answer("METRICS_TOKEN is not set", &[(say::TEXT, None)]))
        .security(SecurityRequirement::new("metrics", [""; 0]));
    Described::new().row("/metrics", &[], get(by_token), say::item(Method::Get, said)).map(|router| {
        router
            .route("/admin/metrics", get(by_session))
            .with_state(Desk { admin, exchange, alerts, token })
            .layer(middleware::map_response(pages::harden))
    })
}

async fn by_token(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    let Some(token) = &desk.token else {
        return (StatusCode::NOT_FOUND, "METRICS_TOKEN is not set.\n").into_response();
    };
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let sent = sent.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    if sent.is_some_and(|(_, sent)| same(sent.trim(), token.expose())) {
        return page(&desk);
    }
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "This takes METRICS_TOKEN.\n").into_response()
}

async fn by_session(State(desk): State<Desk>, headers: HeaderMap) -> Result<Response, AdminError> {
    match Session::find(&desk.admin, &headers).await? {
        Some(_) => Ok(page(&desk)),
        None => Ok((StatusCode::UNAUTHORIZED, "This is for who is logged in.\n").into_response()),
    }
}

fn page(desk: &Desk) -> Response {
    let (exchange, mut out) = (&desk.exchange, Exposition::default());
    out.family("coinslot_build_info", Gauge, "1, with the version as label.");
    out.sample(&[("version", desk.admin.version)], 1);
    exchange.metrics.write(&mut out);
    desk.admin.wallet.counts().write(&mut out);
    write_upstreams(&mut out, &exchange.pool.conditions());
    write_ledger(&mut out, exchange);
    write_mints(&mut out, &desk.admin.wallet);
    write_rate(&mut out, exchange);
    write_alerts(&mut out, &desk.alerts);
    write_traces(&mut out, exchange);
    write_audit(&mut out, &desk.admin.audit);
    ([(header::CONTENT_TYPE, exposition::MEDIA)], out.into_text()).into_response()
}

fn flag(yes: bool) -> u8 {
    u8::from(yes)
}

fn write_upstreams(out: &mut Exposition, all: &[UpstreamCondition]) {
    out.family("coinslot_upstream_barred", Gauge, "1: the upstream refuses your account, and is not asked.");
    for one in all {
        out.sample(&[("upstream", &one.name)], flag(one.bar.is_some()));
    }
    out.family("coinslot_upstream_capped", Gauge, "1: a spend cap of the upstream is reached.");
    for one in all {
        out.sample(&[("upstream", &one.name)], flag(one.is_capped));
    }
    out.family("coinslot_upstream_open_circuits", Gauge, "Models that the upstream is not asked for at the moment.");
    for one in all {
        out.sample(&[("upstream", &one.name)], one.out.len());
    }
}

fn write_ledger(out: &mut Exposition, exchange: &Exchange) {
    let ledger = &exchange.ledger;
    out.family("coinslot_holds_open", Gauge, "Holds of this process: requests whose money is not settled yet.");
    out.sample(&[], ledger.live_holds());
    out.family("coinslot_ledger_entries_total", Counter, "Holds placed and ended.");
    out.sample(&[], ledger.stats().entries());
    out.family("coinslot_ledger_commits_total", Counter, "Commits that these took.");
    out.sample(&[], ledger.stats().commits());
    out.family("coinslot_maintenance", Gauge, "1: the sale is stopped.");
    out.sample(&[], flag(exchange.maintenance.is_on()));
}

fn write_mints(out: &mut Exposition, wallet: &Wallet) {
    let mints = &wallet.health();
    out.family("coinslot_mint_up", Gauge, "0: the mint is left alone, because it failed or limits its callers.");
    for one in mints {
        out.sample(&[("mint", &one.mint)], flag(!matches!(one.condition, Condition::Open { .. })));
    }
    out.family("coinslot_mint_circuit", Gauge, "1 at the state that the circuit is in.");
    for one in mints {
        let (closed, half_open) = (one.condition == Condition::Closed, one.condition == Condition::HalfOpen);
        let states = [("closed", closed), ("open", !closed && !half_open), ("half_open", half_open)];
        for (state, is_so) in states {
            out.sample(&[("mint", &one.mint), ("state", state)], flag(is_so));
        }
    }
    out.family("coinslot_mint_calls_total", Counter, "Calls to the mint, by what came of them.");
    for one in mints {
        let tally = one.tally;
        let counts = [
            ("answered", tally.answered),
            ("limited", tally.limited),
            ("failed", tally.failed),
            ("abandoned", tally.abandoned),
            ("kept_back", tally.held),
        ];
        for (outcome, count) in counts {
            out.sample(&[("mint", &one.mint), ("outcome", outcome)], count);
        }
    }
    out.family("coinslot_mint_call_duration_seconds", Histogram, "How long calls to the mint took.");
    for (mint, times) in wallet.call_times().filter(|(_, times)| !times.is_empty()) {
        times.write(out, ("mint", mint));
    }
    out.family("coinslot_mint_waiting", Gauge, "Redemptions that wait for others, or for a call.");
    for one in mints {
        out.sample(&[("mint", &one.mint)], one.waiting);
    }
}

fn write_rate(out: &mut Exposition, exchange: &Exchange) {
    let view = exchange.market.rate();
    let (usd, as_of_ms) = match &view.rate {
        Ok(rate) => (Some(rate.btc_usd), Some(rate.as_of_ms)),
        Err(stale) => (None, stale.last_seen_ms),
    };
    out.family("coinslot_price_known", Gauge, "1: there is a price of bitcoin to bill at.");
    out.sample(&[], flag(usd.is_some()));
    out.family("coinslot_price_usd", Gauge, "USD for one bitcoin, as it is billed.");
    if let Some(usd) = usd {
        out.sample(&[], usd);
    }
    out.family("coinslot_price_age_seconds", Gauge, "Age of the oldest answer behind it. 0 where you have fixed it.");
    if let Some(as_of_ms) = as_of_ms {
        out.sample(&[], view.now_ms.saturating_sub(as_of_ms).max(0) / 1000);
    }
}

fn write_alerts(out: &mut Exposition, alerts: &Alerts) {
    out.family("coinslot_alerts", Gauge, "Alarms that go on, by what is wrong.");
    for (kind, count) in alerts.board() {
        out.sample(&[("kind", kind.name())], count);
    }
}

fn write_traces(out: &mut Exposition, exchange: &Exchange) {
    out.family("coinslot_trace_spans_total", Counter, "Spans for the collector of traces, by what became of them.");
    if let Some(collector) = &exchange.traces {
        let (sent, dropped) = collector.counts();
        out.sample(&[("outcome", "sent")], sent);
        out.sample(&[("outcome", "dropped")], dropped);
    }
}

/// One figure of an audit.
type Amount = fn(&Report) -> i64;

fn write_audit(out: &mut Exposition, audit: &Latest) {
    let (last, verdict) = (audit.get(), audit.verdict());
    let report = last.as_deref();
    let help = "By the last audit. 0: the ecash does not cover what is owed, a fault, or the books could not be read.";
    out.family("coinslot_solvent", Gauge, help);
    if let Some(verdict) = verdict {
        out.sample(&[], flag(verdict.alarm().is_none()));
    }
    out.family("coinslot_audit_verdict", Gauge, "1 at the verdict of the last audit.");
    if let Some(verdict) = verdict {
        let all = [
            ("proven", Solvency::Proven),
            ("not_asked", Solvency::NotAsked),
            ("short", Solvency::Short),
            ("faulty", Solvency::Faulty),
        ];
        for (name, one) in all {
            out.sample(&[("verdict", name)], flag(one == verdict));
        }
    }
    let amounts: [(_, _, Amount); 6] = [
        ("coinslot_audit_timestamp_seconds", "When the last audit was, since the Unix epoch.", |it| it.at_ms / 1000),
        ("coinslot_ecash_msat", "Ecash of all mints, at the last audit.", |it| it.ecash_msat),
        ("coinslot_liabilities_msat", "Owed to clients, at the last audit.", |it| it.liabilities_msat),
        ("coinslot_earnings_msat", "Earned and not paid out, at the last audit.", |it| it.earnings_msat),
        ("coinslot_held_msat", "Part of what is owed that holds set aside, at the last audit.", |it| it.held_msat),
        (
            "coinslot_shortfall_msat",
            "What is missing to cover what is owed, at the last audit.",
            Report::shortfall_msat,
        ),
    ];
    for (name, help, amount) in amounts {
        out.family(name, Gauge, help);
        if let Some(report) = report {
            out.sample(&[], amount(report));
        }
    }
    out.family("coinslot_operations_open", Gauge, "Operations at mints under way, at the last audit.");
    if let Some(report) = report {
        out.sample(&[], report.open_operations);
    }
    out.family("coinslot_wallet_msat", Gauge, "Ecash of one mint and unit, at the last audit.");
    for purse in report.into_iter().flat_map(|report| &report.purses) {
        out.sample(&[("mint", &purse.mint), ("unit", &purse.unit)], purse.ecash_msat);
    }
}
