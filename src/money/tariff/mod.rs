//! What raises or lowers the prices of the list: profiles of keys, and hours of the day.
//!
//! A [`Profile`] is a factor for the keys that have it, and says which models they may use. A [`Window`]
//! is a factor for some hours. What applies to a request is its [`Deal`], made when it is admitted; the
//! factors of all that apply are multiplied. None makes a model cheaper than it costs the operator,
//! unless the operator said of each that it may: see [`Tariffs::deal`].

use std::sync::Arc;

use rust_decimal::Decimal;

use super::rate::{Prices, Tier};
use super::service::Service;

/// Decimal places of a factor.
pub const PLACES: u32 = 6;
/// Largest factor.
const MAX_FACTOR: Decimal = Decimal::ONE_THOUSAND;
/// Longest name, and longest pattern.
const MAX_NAME: usize = 40;
const MAX_PATTERN: usize = 200;
/// Most patterns of one kind.
const MAX_PATTERNS: usize = 100;

const DAY_MINUTES: u16 = 24 * 60;
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
/// The first of January 1970 was a Thursday.
const FIRST_WEEKDAY: i64 = 3;
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
/// Every day of the week.
pub const ALL_DAYS: u8 = 0b111_1111;

/// Which models something is about, by patterns of their ids: `*` is any run of characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of these must match; none: all do.
    pub only: Vec<String>,
    /// None of these may.
    pub not: Vec<String>,
}

impl Filter {
    #[must_use]
    pub fn admits(&self, model: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, model));
        (self.only.is_empty() || any(&self.only)) && !any(&self.not)
    }

    /// The fault of a filter that is none.
    ///
    /// # Errors
    /// In words for the operator.
    pub fn check(&self) -> Result<(), String> {
        for patterns in [&self.only, &self.not] {
            if patterns.len() > MAX_PATTERNS {
                return Err(format!("more than {MAX_PATTERNS} patterns"));
            }
            let is_bad = |pattern: &&String| {
                pattern.is_empty() || pattern.len() > MAX_PATTERN || pattern.chars().any(char::is_control)
            };
            if let Some(bad) = patterns.iter().find(is_bad) {
                return Err(format!("no pattern of model names: {bad:?}"));
            }
        }
        Ok(())
    }

    /// In words, like `anthropic/*, not anthropic/claude-opus*`; empty: all models.
    #[must_use]
    pub fn describe(&self) -> String {
        match (self.only.is_empty(), self.not.is_empty()) {
            (true, true) => String::new(),
            (false, true) => self.only.join(", "),
            (true, false) => format!("all models but {}", self.not.join(", ")),
            (false, false) => format!("{}, but not {}", self.only.join(", "), self.not.join(", ")),
        }
    }
}

/// Whether the whole text is what the pattern says.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(head) else { return false };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*').filter(|piece| !piece.is_empty()) {
        let Some((_, after)) = left.split_once(piece) else { return false };
        left = after;
    }
    left.ends_with(tail)
}

/// Prices of the keys that have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: String,
    /// On every price.
    pub multiplier: Decimal,
    /// What is sold to these keys.
    pub models: Filter,
    /// It may sell for less than the upstream takes.
    pub below_cost: bool,
}

impl Profile {
    /// The fault of a profile that is none.
    ///
    /// # Errors
    /// In words for the operator.
    pub fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        check_factor(self.multiplier)?;
        self.models.check()
    }
}

/// Prices of some hours, every day or on some days of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub name: String,
    /// On every price.
    pub multiplier: Decimal,
    /// Whose prices.
    pub models: Filter,
    /// It may sell for less than the upstream takes.
    pub below_cost: bool,
    /// Minute of the day from which on it is open.
    pub starts: u16,
    /// Minute of the day from which on it is not, of the next day if that is no later than `starts`.
    pub ends: u16,
    /// Days on which it starts; bit 0 is Monday.
    pub days: u8,
    /// What its hours are ahead of UTC, in minutes.
    pub utc_offset: i16,
}

impl Window {
    /// The fault of a window that is none.
    ///
    /// # Errors
    /// In words for the operator.
    pub fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        check_factor(self.multiplier)?;
        if self.starts >= DAY_MINUTES || self.ends >= DAY_MINUTES {
            return Err("an hour of the day is 00:00 to 23:59".to_owned());
        }
        if self.days == 0 || self.days > ALL_DAYS {
            return Err("no day of the week".to_owned());
        }
        if self.utc_offset.unsigned_abs() >= DAY_MINUTES {
            return Err("more than a day from UTC".to_owned());
        }
        self.models.check()
    }

    /// Whether it is open at this moment, in ms since the Unix epoch.
    #[must_use]
    pub fn is_open(&self, now_ms: i64) -> bool {
        let local_ms = now_ms.saturating_add(i64::from(self.utc_offset).saturating_mul(MINUTE_MS));
        let day = local_ms.div_euclid(DAY_MS);
        let minute = local_ms.rem_euclid(DAY_MS).div_euclid(MINUTE_MS);
        let (starts, ends) = (i64::from(self.starts), i64::from(self.ends));
        let began_today = minute >= starts && self.is_day(day);
        if starts < ends {
            return began_today && minute < ends;
        }
        began_today || (minute < ends && self.is_day(day.saturating_sub(1)))
    }

    fn is_day(&self, day: i64) -> bool {
        let weekday = day.saturating_add(FIRST_WEEKDAY).rem_euclid(7);
        u32::try_from(weekday).is_ok_and(|weekday| self.days.checked_shr(weekday).unwrap_or(0) & 1 == 1)
    }

    /// Its hours in words, like `every day from 22:00 to 06:00 UTC`.
    #[must_use]
    pub fn hours(&self) -> String {
        let days = match self.days {
            ALL_DAYS => "every day".to_owned(),
            days => {
                let named = (0_u32..).zip(WEEKDAYS);
                let named = named.filter(|(bit, _)| days.checked_shr(*bit).unwrap_or(0) & 1 == 1);
                format!("on {}", named.map(|(_, name)| name).collect::<Vec<_>>().join(", "))
            }
        };
        let zone = match self.utc_offset {
            0 => String::new(),
            offset => {
                let sign = if offset < 0 { '-' } else { '+' };
                format!("{sign}{}", clock_time(offset.unsigned_abs()))
            }
        };
        format!("{days} from {} to {} UTC{zone}", clock_time(self.starts), clock_time(self.ends))
    }
}

fn clock_time(minutes: u16) -> String {
    format!("{:02}:{:02}", minutes.div_euclid(60), minutes.rem_euclid(60))
}

fn check_name(name: &str) -> Result<(), String> {
    let is_letter = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || b"-_.".contains(&letter);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_letter) {
        return Err(format!("a name is 1 to {MAX_NAME} of a-z, 0-9, -, _ and ."));
    }
    Ok(())
}

fn check_factor(factor: Decimal) -> Result<(), String> {
    let is_good = !factor.is_sign_negative() && factor <= MAX_FACTOR && factor.normalize().scale() <= PLACES;
    if is_good { Ok(()) } else { Err(format!("a multiplier is 0 to {MAX_FACTOR}, with at most {PLACES} places")) }
}

/// What applies to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deal {
    /// On every price of the list.
    pub multiplier: Decimal,
    /// The profile of the key.
    pub profile: Option<Arc<Profile>>,
    /// The windows that are open.
    pub windows: Vec<Arc<Window>>,
}

impl Default for Deal {
    fn default() -> Self {
        Self { multiplier: Decimal::ONE, profile: None, windows: Vec::new() }
    }
}

/// Why there is no deal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoDeal {
    /// The profile of the key leaves the model out.
    NotSold,
    /// The factors multiply to more than can be reckoned with.
    OutOfRange,
}

/// All profiles and windows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tariffs {
    /// By name.
    pub profiles: Vec<Arc<Profile>>,
    /// By name.
    pub windows: Vec<Arc<Window>>,
}

impl Tariffs {
    /// The profile of that name.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<&Arc<Profile>> {
        self.profiles.iter().find(|profile| profile.name == name)
    }

    /// What applies to a request for this model by a key with this profile, at this moment.
    ///
    /// `least` is the factor at which the node sells for what the upstream takes. Where a factor below one
    /// is of a profile or window that may not sell below cost, all together come to no less than that; or
    /// to no less than one, where the list itself is below cost.
    ///
    /// # Errors
    /// When the model is not sold to such a key, or the factors are out of range.
    pub fn deal(
        &self,
        profile: Option<&Arc<Profile>>,
        model: &str,
        now_ms: i64,
        least: impl FnOnce() -> Option<Decimal>,
    ) -> Result<Deal, NoDeal> {
        if profile.is_some_and(|profile| !profile.models.admits(model)) {
            return Err(NoDeal::NotSold);
        }
        let open = |window: &&Arc<Window>| window.is_open(now_ms) && window.models.admits(model);
        let windows: Vec<Arc<Window>> = self.windows.iter().filter(open).cloned().collect();
        let own = profile.map(|profile| (profile.multiplier, profile.below_cost));
        let factors = own.into_iter().chain(windows.iter().map(|window| (window.multiplier, window.below_cost)));
        let (mut multiplier, mut may_lose) = (Decimal::ONE, true);
        for (factor, below_cost) in factors {
            multiplier = exactly(multiplier, factor).ok_or(NoDeal::OutOfRange)?;
            may_lose &= below_cost || factor >= Decimal::ONE;
        }
        if multiplier < Decimal::ONE && !may_lose {
            let least = least().ok_or(NoDeal::OutOfRange)?.min(Decimal::ONE);
            multiplier = multiplier.max(least);
        }
        Ok(Deal { multiplier: multiplier.normalize(), profile: profile.cloned(), windows })
    }
}

/// The factor at which prices come to what the upstream takes: `fee` on the list, where the node adds
/// `margins` to it. Rounded up to [`PLACES`].
#[must_use]
pub fn break_even(fee: Decimal, margins: Decimal) -> Option<Decimal> {
    let exact = fee.checked_div(margins)?;
    let rounded = exact.round_dp_with_strategy(PLACES, rust_decimal::RoundingStrategy::ToPositiveInfinity);
    Some(rounded.normalize())
}

/// A product without any rounding; `None` where a decimal does not hold it.
fn exactly(one: Decimal, other: Decimal) -> Option<Decimal> {
    let (one, other) = (one.normalize(), other.normalize());
    if one.is_zero() || other.is_zero() {
        return Some(Decimal::ZERO);
    }
    let product = one.checked_mul(other)?;
    // Where the digits do not suffice, places are cut off.
    (product.scale() == one.scale().checked_add(other.scale())?).then(|| product.normalize())
}

impl Prices {
    /// These prices, each times `factor`, exactly; `None` where a decimal does not hold one.
    #[must_use]
    pub fn times(&self, factor: Decimal) -> Option<Self> {
        // All of them by name: a price that is new must not be forgotten here.
        let Self {
            prompt,
            completion,
            request,
            image,
            web_search,
            internal_reasoning,
            input_cache_read,
            input_cache_write,
            input_cache_write_1h,
            audio,
            input_audio_cache,
            audio_output,
            image_token,
            image_output,
            output_images,
            web_query,
            code_session,
            query,
            second,
            character,
            tiers,
            services,
        } = self;
        let one = |price: &Decimal| exactly(*price, factor);
        let some = |price: &Option<Decimal>| match price {
            Some(price) => exactly(*price, factor).map(Some),
            None => Some(None),
        };
        let pictures = output_images.iter().map(|(name, price)| Some((name.clone(), one(price)?)));
        let service = |(service, prices): &(Service, Self)| Some((*service, prices.times(factor)?));
        let tier = |tier: &Tier| Some(Tier { above: tier.above, prices: tier.prices.times(factor)? });
        Some(Self {
            prompt: one(prompt)?,
            completion: one(completion)?,
            request: one(request)?,
            image: one(image)?,
            web_search: one(web_search)?,
            internal_reasoning: some(internal_reasoning)?,
            input_cache_read: some(input_cache_read)?,
            input_cache_write: some(input_cache_write)?,
            input_cache_write_1h: some(input_cache_write_1h)?,
            audio: some(audio)?,
            input_audio_cache: some(input_audio_cache)?,
            audio_output: some(audio_output)?,
            image_token: some(image_token)?,
            image_output: some(image_output)?,
            output_images: pictures.collect::<Option<_>>()?,
            web_query: some(web_query)?,
            code_session: some(code_session)?,
            query: some(query)?,
            second: some(second)?,
            character: some(character)?,
            tiers: tiers.iter().map(tier).collect::<Option<_>>()?,
            services: services.iter().map(service).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests;
