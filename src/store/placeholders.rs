//! Parameters in the text of a statement.

/// How a database wants them. Both know `$1`; but in SQLite that is a name, and looking up names makes
/// preparing quadratic in their number.
#[derive(Clone, Copy, Debug)]
pub enum Placeholders {
    /// SQLite's.
    Question,
    /// PostgreSQL's.
    Dollar,
}

impl Placeholders {
    /// The parameter of this number, from 1.
    #[must_use]
    pub fn nth(self, number: usize) -> String {
        match self {
            Self::Question => format!("?{number}"),
            Self::Dollar => format!("${number}"),
        }
    }

    /// `count` rows of `VALUES`, each of `width` parameters, numbered on from `first`.
    #[must_use]
    pub fn rows(self, first: usize, count: usize, width: usize) -> String {
        let row = |at: usize| {
            let from = at.saturating_mul(width).saturating_add(first);
            let all: Vec<String> = (from..from.saturating_add(width)).map(|number| self.nth(number)).collect();
            format!("({})", all.join(", "))
        };
        (0..count).map(row).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::Placeholders;

    #[test]
    fn rows_are_numbered_on() {
        assert_eq!(Placeholders::Question.rows(1, 2, 2), "(?1, ?2), (?3, ?4)");
        assert_eq!(Placeholders::Dollar.rows(3, 1, 3), "($3, $4, $5)");
    }
}
