//! What every page shows around its own matter: the node's name, the way to the other pages, the unit of amounts.

use axum::extract::Form;
use axum::http::{HeaderMap, header};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use rust_decimal::Decimal;
use serde::Deserialize;

use super::session::{self, Session};
use super::{AdminError, AdminState, format};

const COOKIE: &str = "coinslot_unit";
const YEAR_IN_SECONDS: i64 = 365 * 24 * 60 * 60;

/// The pages in the header: address, name. One line each.
pub(super) const PAGES: &[(&str, &str)] = &[
    ("/admin", "Overview"),
    ("/admin/keys", "Keys"),
    ("/admin/wallet", "Wallet"),
    ("/admin/requests", "Requests"),
    ("/admin/upstreams", "Upstreams"),
    ("/admin/models", "Models"),
    ("/admin/vouchers", "Vouchers"),
    ("/admin/profiles", "Profiles"),
    ("/admin/network", "Network"),
    ("/admin/access", "Access"),
    ("/admin/announcements", "Announcements"),
    ("/admin/settings", "Settings"),
    ("/admin/trail", "Trail"),
];

/// What amounts are shown in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Unit {
    #[default]
    Sat,
    Msat,
    Usd,
}

impl Unit {
    pub(super) const ALL: [Self; 3] = [Self::Sat, Self::Msat, Self::Usd];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Sat => "sat",
            Self::Msat => "msat",
            Self::Usd => "USD",
        }
    }

    fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.as_str().eq_ignore_ascii_case(text))
    }

    /// As the browser's cookie has it.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        session::cookie(headers, COOKIE).and_then(Self::read).unwrap_or_default()
    }
}

/// The frame of a page.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// The node's.
    pub name: String,
    /// What every form of this session carries.
    pub csrf: String,
    /// The address of the page, to mark it.
    pub path: &'static str,
    /// What amounts are shown in.
    pub unit: Unit,
    /// USD a bitcoin, where amounts are shown in USD.
    btc_usd: Option<Decimal>,
}

impl Frame {
    /// The frame of the page at `path`.
    pub(super) fn of(state: &AdminState, session: &Session, path: &'static str) -> Self {
        let rate = || state.exchange.market.book().current(state.now_ms()).ok().map(|rate| rate.btc_usd);
        let btc_usd = if session.unit() == Unit::Usd { rate() } else { None };
        // Where nobody knows the rate, an amount in USD would be a guess.
        let unit = if session.unit() == Unit::Usd && btc_usd.is_none() { Unit::Sat } else { session.unit() };
        Self { name: state.name(), csrf: session.csrf().to_owned(), path, unit, btc_usd }
    }

    /// The pages in the header, each with whether it is this one.
    pub(super) fn pages(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        PAGES.iter().map(|(path, name)| (*path, *name, *path == self.path))
    }

    pub(super) fn units(&self) -> impl Iterator<Item = (&'static str, bool)> {
        Unit::ALL.into_iter().map(|unit| (unit.as_str(), unit == self.unit))
    }

    /// The name of the unit, for the head of a column.
    pub(super) fn unit_name(&self) -> &'static str {
        self.unit.as_str()
    }

    /// A number with its thousands apart.
    pub(super) fn count(&self, number: &i64) -> String {
        format::count(*number)
    }

    /// A time, in ms since the Unix epoch, as it is written.
    pub(super) fn time(&self, ms: &i64) -> String {
        format::utc(*ms)
    }

    /// An amount of msat in the unit, without its name.
    pub(super) fn amount(&self, msat: &i64) -> String {
        match (self.unit, self.btc_usd) {
            (Unit::Msat, _) => format::count(*msat),
            (Unit::Usd, Some(btc_usd)) => format::usd(*msat, btc_usd),
            _ => format::sat(*msat),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Choice {
    csrf: String,
    unit: String,
    /// The page that asked.
    back: String,
}

/// Remembers the unit in the browser and shows the page again.
pub(super) async fn choose_unit(
    session: Session,
    headers: HeaderMap,
    Form(form): Form<Choice>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let unit = Unit::read(&form.unit).unwrap_or_default();
    let cookie = session::set_cookie(COOKIE, unit.as_str(), "/admin", YEAR_IN_SECONDS, session::is_secure(&headers))?;
    // Only to a page of this house, whatever the form says.
    let back = PAGES.iter().map(|(path, _)| *path).find(|path| *path == form.back).unwrap_or("/admin");
    Ok((AppendHeaders([(header::SET_COOKIE, cookie)]), Redirect::to(back)).into_response())
}
