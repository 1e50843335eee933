//! Statuses of answers, as the operator names them: `404`, `401-403`, `5xx`.

use std::ops::RangeInclusive;
use std::str::FromStr;

/// What can be named. Others are no errors, or none that anybody knows.
const ERRORS: RangeInclusive<u16> = 300..=599;

/// Some of the statuses that tell of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// After which another upstream is asked, where the operator says nothing else: those that are not the client's
    /// own mistake.
    pub const USUAL: &str = "3xx,401-404,408,409,425,429,5xx";

    /// Whether it is one of them. One that is no known error is.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        !ERRORS.contains(&status) || self.0.iter().any(|range| range.contains(&status))
    }

    fn range(text: &str) -> Option<RangeInclusive<u16>> {
        let (first, last) = match text.strip_suffix("xx") {
            Some(hundred) => (format!("{hundred}00"), format!("{hundred}99")),
            None => text.split_once('-').map_or((text.to_owned(), text.to_owned()), |(first, last)| {
                (first.trim().to_owned(), last.trim().to_owned())
            }),
        };
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (ERRORS.contains(&first) && ERRORS.contains(&last) && first <= last).then_some(first..=last)
    }
}

impl FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ranges = text.split(',').map(|part| Self::range(part.trim()));
        ranges.collect::<Option<Vec<_>>>().map(Self).ok_or_else(|| {
            "is not a list of statuses; expected some like 404, 401-403 or 5xx, from 300 to 599, separated by commas"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Statuses {
        /// As long as the operator says nothing else.
        pub fn retried() -> Self {
            Self::USUAL.parse().unwrap()
        }
    }

    #[test]
    fn statuses_are_named_in_three_ways() {
        let named: Statuses = " 404,401 - 403 , 5xx".parse().unwrap();
        assert_eq!(named, Statuses(vec![404..=404, 401..=403, 500..=599]));
        for (status, expected) in
            [(400, false), (401, true), (403, true), (404, true), (429, false), (599, true), (600, true)]
        {
            assert_eq!(named.contains(status), expected, "{status}");
        }
        for text in ["", "4", "200", "403-401", "1xx", "404,", "x", "4xx5", "-5", "600"] {
            assert!(text.parse::<Statuses>().is_err(), "{text}");
        }
    }
}
