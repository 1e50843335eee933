//! Columns over time as SVG, drawn here: whole numbers in attributes, so that no style and no script is needed. The
//! figures are in a table beside it too.

/// A chart. Its drawing is 480 by 120 units, as the template says.
#[derive(Debug)]
pub(super) struct Chart {
    /// For the ids in the page: letters and dashes.
    pub id: &'static str,
    pub title: String,
    /// The chart in words, for who does not see it: its title, the sum of its columns and the highest of them.
    pub summary: String,
    pub columns: Vec<Column>,
    /// Under the first, the middle and the last column.
    pub marks: Vec<(i64, String)>,
    /// The highest column, as it is written.
    pub top: String,
}

/// One span of time.
#[derive(Debug)]
pub(super) struct Column {
    pub x: i64,
    pub width: i64,
    pub y: i64,
    pub height: i64,
    /// The part of it that is bad, from the top.
    pub bad_height: i64,
    /// What it says when it is pointed at.
    pub label: String,
}

const WIDTH: i64 = 480;
/// Room for the columns themselves, between the figure of the highest one and the marks.
const TOP: i64 = 16;
const BOTTOM: i64 = 102;

/// What a column shows: its height, the bad part of it, what it says, and the mark under it.
pub(super) struct Value {
    pub value: i64,
    pub bad: i64,
    pub label: String,
    pub mark: String,
}

impl Chart {
    pub(super) fn of(id: &'static str, title: String, values: Vec<Value>, top: impl Fn(i64) -> String) -> Self {
        let highest = values.iter().map(|one| one.value).max().unwrap_or(0);
        let count = i64::try_from(values.len()).unwrap_or(1).max(1);
        let step = (WIDTH / count).max(1);
        let tall = |value: i64| {
            // Something is never drawn as nothing.
            let height = value.saturating_mul(BOTTOM - TOP).checked_div(highest).unwrap_or(0);
            if value > 0 { height.max(1) } else { 0 }
        };
        let (last, middle) = (count.saturating_sub(1), count / 2);
        let marks = (0..count).zip(&values).filter(|(at, _)| [0, middle, last].contains(at));
        let marks = marks.map(|(at, one)| (at * step + step / 2, one.mark.clone())).collect();
        let total = values.iter().fold(0_i64, |sum, one| sum.saturating_add(one.value));
        let summary = format!("{}: {} in all, {} at most.", title, top(total), top(highest));
        let columns = (0..).zip(values).map(|(at, one)| {
            let height = tall(one.value);
            let gap = i64::from(step > 4) * 2;
            Column {
                x: at * step + gap / 2,
                width: step - gap,
                y: BOTTOM - height,
                height,
                bad_height: if one.bad > 0 { tall(one.bad).min(height) } else { 0 },
                label: one.label,
            }
        });
        Self { id, title, summary, columns: columns.collect(), marks, top: top(highest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_high_as_their_share_and_nothing_is_hidden() {
        let value = |value, bad| Value { value, bad, label: String::new(), mark: String::new() };
        let values = vec![value(0, 0), value(1, 0), value(1_000, 1), value(500, 250)];
        let chart = Chart::of("a", "A".to_owned(), values, |number| number.to_string());
        let shown: Vec<_> = chart.columns.iter().map(|one| (one.x, one.y, one.height, one.bad_height)).collect();
        assert_eq!(shown, [(1, 102, 0, 0), (121, 101, 1, 0), (241, 16, 86, 1), (361, 59, 43, 21)]);
        assert_eq!((chart.top.as_str(), chart.marks.len()), ("1000", 3));
        assert_eq!(chart.summary, "A: 1501 in all, 1000 at most.");
        let empty = Chart::of("a", "A".to_owned(), Vec::new(), |number| number.to_string());
        assert!(empty.columns.is_empty() && empty.marks.is_empty());
        let huge = Chart::of("a", "A".to_owned(), vec![value(i64::MAX, 0)], |number| number.to_string());
        assert!(huge.columns.iter().all(|one| one.height <= BOTTOM && one.y >= 0));
    }
}
