//! Tests of profiles and windows.

use super::*;

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn filter(only: &[&str], not: &[&str]) -> Filter {
    let owned = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    Filter { only: owned(only), not: owned(not) }
}

fn profile(multiplier: &str, models: Filter, below_cost: bool) -> Arc<Profile> {
    Arc::new(Profile { name: "p".to_owned(), multiplier: decimal(multiplier), models, below_cost })
}

fn window(multiplier: &str, starts: u16, ends: u16, below_cost: bool) -> Window {
    Window {
        name: "w".to_owned(),
        multiplier: decimal(multiplier),
        models: Filter::default(),
        below_cost,
        starts,
        ends,
        days: ALL_DAYS,
        utc_offset: 0,
    }
}

#[test]
fn patterns_match_whole_names() {
    for (pattern, text, matching) in [
        ("a/b", "a/b", true),
        ("a/b", "a/bc", false),
        ("a/*", "a/b", true),
        ("a/*", "a/", true),
        ("a/*", "ab/c", false),
        ("*mini", "openai/gpt-4o-mini", true),
        ("*mini", "mini-x", false),
        ("*", "", true),
        ("a*b*c", "a-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("a*b*b", "ab", false),
        ("a*a", "a", false),
        ("*4o*", "gpt-4o-mini", true),
        ("**", "x", true),
        ("A*", "a", false),
    ] {
        assert_eq!(super::matches(pattern, text), matching, "{pattern} {text}");
    }
}

#[test]
fn a_filter_admits_what_it_names_and_nothing_that_it_excludes() {
    for (filter, model, admitted) in [
        (filter(&[], &[]), "x", true),
        (filter(&["a/*"], &[]), "a/b", true),
        (filter(&["a/*"], &[]), "b/b", false),
        (filter(&["a/*", "b/*"], &["*/c"]), "b/c", false),
        (filter(&[], &["b/*"]), "a/b", true),
    ] {
        assert_eq!(filter.admits(model), admitted, "{filter:?} {model}");
    }
    assert_eq!(filter(&["a/*"], &["a/b"]).describe(), "a/*, but not a/b");
}

/// Monday, the 5th of January 1970, 00:00 UTC.
const MONDAY_MS: i64 = 4 * DAY_MS;

#[test]
fn a_window_is_open_from_its_first_minute_to_the_one_before_its_end() {
    let at = |day: i64, hour: i64, minute: i64| MONDAY_MS + day * DAY_MS + (hour * 60 + minute) * MINUTE_MS;
    let day = window("1", 9 * 60, 17 * 60, false);
    let night = window("1", 22 * 60, 6 * 60, false);
    let whole = window("1", 0, 0, false);
    let weekend_night = Window { days: 0b110_0000, ..night.clone() };
    let berlin = Window { utc_offset: 120, ..night.clone() };
    let west = Window { utc_offset: -300, ..night.clone() };
    for (window, moment, open) in [
        (&day, at(0, 8, 59), false),
        (&day, at(0, 9, 0), true),
        (&day, at(0, 17, 0) - 1, true),
        (&day, at(0, 17, 0), false),
        (&night, at(0, 21, 59), false),
        (&night, at(0, 22, 0), true),
        (&night, at(1, 0, 0), true),
        (&night, at(1, 6, 0) - 1, true),
        (&night, at(1, 6, 0), false),
        (&whole, at(3, 0, 0), true),
        (&whole, at(3, 23, 59), true),
        // It starts on Saturday and Sunday; Sunday's goes on into Monday, Friday's is none.
        (&weekend_night, at(4, 23, 0), false),
        (&weekend_night, at(5, 5, 0), false),
        (&weekend_night, at(5, 23, 0), true),
        (&weekend_night, at(7, 5, 59), true),
        (&weekend_night, at(7, 23, 0), false),
        (&berlin, at(0, 20, 0), true),
        (&berlin, at(0, 19, 59), false),
        (&berlin, at(0, 4, 0), false),
        (&west, at(0, 3, 0), true),
        (&west, at(0, 11, 0), false),
        // Before 1970.
        (&night, -1, true),
    ] {
        assert_eq!(window.is_open(moment), open, "{} {moment}", window.hours());
    }
    assert_eq!(night.hours(), "every day from 22:00 to 06:00 UTC");
    assert_eq!(berlin.hours(), "every day from 22:00 to 06:00 UTC+02:00");
    assert_eq!(weekend_night.hours(), "on Saturday, Sunday from 22:00 to 06:00 UTC");
    assert_eq!(west.hours(), "every day from 22:00 to 06:00 UTC-05:00");
}

#[test]
fn a_deal_multiplies_what_applies_and_stays_above_cost() {
    let all = Filter::default;
    // The node's margins come to 1.05; the upstream takes the list price: break-even at 1 ÷ 1.05.
    let least = break_even(Decimal::ONE, decimal("1.05")).unwrap();
    assert_eq!(least, decimal("0.952381"), "rounded up");
    for (own, factors, expected) in [
        (None, vec![], "1"),
        (Some(("0.9", true)), vec![], "0.9"),
        (Some(("0.9", false)), vec![], "0.952381"),
        (Some(("0.96", false)), vec![], "0.96"),
        (Some(("1.5", false)), vec![], "1.5"),
        (None, vec![("0.8", true)], "0.8"),
        (None, vec![("0.8", false)], "0.952381"),
        (Some(("0.9", true)), vec![("0.8", true)], "0.72"),
        // One that may not is enough, but one that makes it dearer does not count.
        (Some(("0.9", true)), vec![("0.8", false)], "0.952381"),
        (Some(("1.2", false)), vec![("0.5", true)], "0.6"),
        (Some(("2", false)), vec![("0.8", false)], "1.6"),
        (Some(("0", true)), vec![("1.3", false)], "0"),
    ] {
        let windows = factors.into_iter().map(|(factor, loses)| Arc::new(window(factor, 0, 0, loses))).collect();
        let tariffs = Tariffs { profiles: Vec::new(), windows };
        let own = own.map(|(factor, loses)| profile(factor, all(), loses));
        let deal = tariffs.deal(own.as_ref(), "m", 0, || Some(least)).unwrap();
        assert_eq!(deal.multiplier, decimal(expected), "{own:?} {tariffs:?}");
        assert_eq!((deal.profile, deal.windows.len()), (own, tariffs.windows.len()));
    }
    // Where the list is below cost already, no deal is below the list.
    let dear = || Some(decimal("1.4"));
    let own = profile("0.9", all(), false);
    assert_eq!(Tariffs::default().deal(Some(&own), "m", 0, dear).unwrap().multiplier, Decimal::ONE);
    // What has no known cost cannot be sold for less.
    assert_eq!(Tariffs::default().deal(Some(&own), "m", 0, || None), Err(NoDeal::OutOfRange));
    let other = profile("0.9", filter(&["a/*"], &[]), true);
    assert_eq!(Tariffs::default().deal(Some(&other), "m", 0, || None), Err(NoDeal::NotSold));
}

#[test]
fn windows_apply_to_their_models_at_their_hours() {
    let night = Window { models: filter(&["a/*"], &[]), ..window("0.8", 22 * 60, 6 * 60, true) };
    let tariffs = Tariffs { profiles: Vec::new(), windows: vec![Arc::new(night)] };
    let at = |model, hour: i64| tariffs.deal(None, model, hour * 3_600_000, || None).unwrap().multiplier;
    assert_eq!((at("a/x", 23), at("a/x", 12), at("b/x", 23)), (decimal("0.8"), Decimal::ONE, Decimal::ONE));
}

#[test]
fn what_is_no_profile_or_window_is_refused() {
    let good =
        Profile { name: "club-1".to_owned(), multiplier: decimal("0.8"), models: Filter::default(), below_cost: false };
    good.check().unwrap();
    for bad in [
        Profile { name: String::new(), ..good.clone() },
        Profile { name: "Club".to_owned(), ..good.clone() },
        Profile { name: "x".repeat(41), ..good.clone() },
        Profile { multiplier: decimal("-0.1"), ..good.clone() },
        Profile { multiplier: decimal("1000.1"), ..good.clone() },
        Profile { multiplier: decimal("0.1234567"), ..good.clone() },
        Profile { models: filter(&[""], &[]), ..good.clone() },
        Profile { models: filter(&[], &["a\nb"]), ..good.clone() },
        Profile { models: Filter { only: vec!["a".to_owned(); 101], not: Vec::new() }, ..good.clone() },
    ] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
    let good = window("0.8", 0, 60, false);
    good.check().unwrap();
    for bad in [
        Window { starts: 1440, ..good.clone() },
        Window { ends: 1440, ..good.clone() },
        Window { days: 0, ..good.clone() },
        Window { days: 128, ..good.clone() },
        Window { utc_offset: 1440, ..good.clone() },
    ] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
}

#[test]
fn prices_are_multiplied_exactly_or_not_at_all() {
    let prices = Prices {
        prompt: decimal("0.00000015"),
        completion: decimal("0.0000006"),
        input_cache_read: Some(decimal("0.000000075")),
        output_images: [("hd".to_owned(), decimal("0.08"))].into(),
        tiers: vec![Tier { above: 1000, prices: Prices { prompt: decimal("0.0000003"), ..Prices::default() } }],
        ..Prices::default()
    };
    let dearer = prices.times(decimal("1.5")).unwrap();
    assert_eq!(dearer.prompt, decimal("0.000000225"));
    assert_eq!((dearer.input_cache_read, dearer.input_cache_write), (Some(decimal("0.0000001125")), None));
    assert_eq!(dearer.output_images["hd"], decimal("0.12"));
    assert_eq!(dearer.tiers[0].prices.prompt, decimal("0.00000045"));
    assert_eq!(prices.times(Decimal::ONE).unwrap(), prices);
    // 28 places and no more.
    let fine = Prices { prompt: decimal("0.000000000000000000000001"), ..Prices::default() };
    assert_eq!(fine.times(decimal("0.1234")).unwrap().prompt, decimal("0.0000000000000000000000001234"));
    assert_eq!(fine.times(decimal("0.12345")), None);
}
