//! Profiles and windows as they are written: in JSON, in forms, on the command line.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::money::tariff::{ALL_DAYS, Filter, Profile, Window};
use crate::price::decimal;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Prices of the keys that have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileEntry {
    pub name: String,
    /// On every price, like `0.8`.
    pub multiplier: String,
    /// Patterns of model ids, with `*` for anything; none: all models.
    #[serde(default)]
    pub models: Vec<String>,
    /// Models that are left out.
    #[serde(default)]
    pub not: Vec<String>,
    /// It may sell for less than the upstream takes.
    #[serde(default)]
    pub below_cost: bool,
}

impl ProfileEntry {
    #[must_use]
    pub fn of(profile: &Profile) -> Self {
        Self {
            name: profile.name.clone(),
            multiplier: profile.multiplier.normalize().to_string(),
            models: profile.models.only.clone(),
            not: profile.models.not.clone(),
            below_cost: profile.below_cost,
        }
    }

    /// # Errors
    /// What is wrong, in words for the operator.
    pub fn read(&self) -> Result<Profile, String> {
        let profile = Profile {
            name: self.name.clone(),
            multiplier: factor(&self.multiplier)?,
            models: Filter { only: self.models.clone(), not: self.not.clone() },
            below_cost: self.below_cost,
        };
        profile.check().map(|()| profile)
    }
}

/// Prices of some hours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowEntry {
    pub name: String,
    /// On every price, like `0.8`.
    pub multiplier: String,
    /// Like `22:00`.
    pub from: String,
    /// Like `06:00`; on the next day, where it is no later than `from`.
    pub to: String,
    /// `mon`, `tue` and so on: days on which it starts; none: all.
    #[serde(default)]
    pub days: Vec<String>,
    /// How far its hours are ahead of UTC, like `+02:00`.
    #[serde(default = "utc")]
    pub offset: String,
    #[serde(default)]
    pub models: Vec<String>,
    #[serde(default)]
    pub not: Vec<String>,
    /// It may sell for less than the upstream takes.
    #[serde(default)]
    pub below_cost: bool,
}

fn utc() -> String {
    "+00:00".to_owned()
}

impl WindowEntry {
    #[must_use]
    pub fn of(window: &Window) -> Self {
        let time = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let sign = if window.utc_offset < 0 { '-' } else { '+' };
        let days = DAYS.iter().enumerate().filter(|(at, _)| window.days >> at & 1 == 1);
        Self {
            name: window.name.clone(),
            multiplier: window.multiplier.normalize().to_string(),
            from: time(window.starts),
            to: time(window.ends),
            days: days.map(|(_, day)| (*day).to_owned()).collect(),
            offset: format!("{sign}{}", time(window.utc_offset.unsigned_abs())),
            models: window.models.only.clone(),
            not: window.models.not.clone(),
            below_cost: window.below_cost,
        }
    }

    /// # Errors
    /// What is wrong, in words for the operator.
    pub fn read(&self) -> Result<Window, String> {
        let time = |text: &str| clock_time(text).ok_or_else(|| format!("{text:?} is not a time like 22:00"));
        let days = match self.days.is_empty() {
            true => ALL_DAYS,
            false => weekdays(&self.days.join(",")).ok_or("days are mon, tue, wed, thu, fri, sat, sun")?,
        };
        let window = Window {
            name: self.name.clone(),
            multiplier: factor(&self.multiplier)?,
            models: Filter { only: self.models.clone(), not: self.not.clone() },
            below_cost: self.below_cost,
            starts: time(&self.from)?,
            ends: time(&self.to)?,
            days,
            utc_offset: utc_offset(&self.offset).ok_or("an offset is like +02:00")?,
        };
        window.check().map(|()| window)
    }
}

fn factor(text: &str) -> Result<Decimal, String> {
    decimal::parse(text.trim()).ok_or_else(|| "the factor is a number like 0.8".to_owned())
}

/// Minutes of a day out of `22:00`.
#[must_use]
pub fn clock_time(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then(|| hours.saturating_mul(60).saturating_add(minutes))
}

/// Minutes out of `+02:00`.
#[must_use]
pub fn utc_offset(text: &str) -> Option<i16> {
    let (sign, time) = text.split_at_checked(1)?;
    let minutes = i16::try_from(clock_time(time)?).ok()?;
    match sign {
        "+" => Some(minutes),
        "-" => minutes.checked_neg(),
        _ => None,
    }
}

/// Days out of `sat,sun`.
#[must_use]
pub fn weekdays(text: &str) -> Option<u8> {
    text.split(',').try_fold(0_u8, |days, name| {
        let bit = DAYS.iter().position(|day| day.eq_ignore_ascii_case(name.trim()))?;
        Some(days | 1_u8.checked_shl(u32::try_from(bit).ok()?)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let window = Window {
            name: "night".to_owned(),
            multiplier: Decimal::new(80, 2),
            models: Filter { only: vec!["a/*".to_owned()], not: Vec::new() },
            below_cost: true,
            starts: 22 * 60,
            ends: 6 * 60 + 30,
            days: 0b110_0000,
            utc_offset: -330,
        };
        let entry = WindowEntry::of(&window);
        assert_eq!((entry.from.as_str(), entry.to.as_str(), entry.offset.as_str()), ("22:00", "06:30", "-05:30"));
        assert_eq!(
            (entry.days.as_slice(), entry.multiplier.as_str()),
            (&["sat".to_owned(), "sun".to_owned()][..], "0.8")
        );
        assert_eq!(entry.read(), Ok(Window { multiplier: Decimal::new(8, 1), ..window.clone() }));
        let every = WindowEntry { days: Vec::new(), offset: utc(), ..entry.clone() };
        assert_eq!(every.read().unwrap().days, ALL_DAYS);
        for bad in [
            WindowEntry { from: "24:00".to_owned(), ..entry.clone() },
            WindowEntry { days: vec!["someday".to_owned()], ..entry.clone() },
            WindowEntry { offset: "2".to_owned(), ..entry.clone() },
            WindowEntry { multiplier: "much".to_owned(), ..entry },
        ] {
            assert!(bad.read().is_err(), "{bad:?}");
        }
    }
}
