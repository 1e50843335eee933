//! What the operator's password must be. It guards money, so a weak one is refused wherever one is set.

const SHORTEST: usize = 12;
const MOST_BYTES: usize = 1024;
/// A run of one digit, or two letters in turn, is long and no password.
const FEWEST_DISTINCT: usize = 5;

/// Long ones that guide books and lists of leaked passwords have, and what examples say.
const WELL_KNOWN: [&str; 16] = [
    "123456789012",
    "1234567890123456",
    "1q2w3e4r5t6y",
    "abcdefghijkl",
    "adminadminadmin",
    "administrator",
    "change-me-now",
    "change_me_now",
    "changemechangeme",
    "changethispassword",
    "mysecretpassword",
    "password1234",
    "passwordpassword",
    "qwertyuiop123",
    "qwertyuiopasdfgh",
    "yourpasswordhere",
];

/// Whether this may be the operator's password.
///
/// # Errors
/// With what is wrong with it, as it goes on behind the setting's name. It does not repeat the password.
pub fn check_password(text: &str) -> Result<(), String> {
    let wanted = format!("expected at least {SHORTEST} characters that nobody guesses");
    let distinct: std::collections::BTreeSet<char> = text.chars().collect();
    let lower = text.trim().to_ascii_lowercase();
    if text.chars().count() < SHORTEST {
        return Err(format!("is short; {wanted}"));
    }
    if text.len() > MOST_BYTES {
        return Err(format!("is long; expected at most {MOST_BYTES} bytes"));
    }
    if distinct.len() < FEWEST_DISTINCT || WELL_KNOWN.contains(&lower.as_str()) {
        return Err(format!("is easy to guess; {wanted}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_long_and_not_a_well_known_one() {
        for weak in ["", "demo", "hunter2", "elevenchars", "aaaaaaaaaaaaaaaaaaaa", "ababcdcdabab", "PasswordPassword"] {
            let why = check_password(weak).unwrap_err();
            assert!(weak.is_empty() || !why.contains(weak), "{why}");
        }
        assert!(WELL_KNOWN.iter().all(|known| check_password(known).is_err() && known.len() >= SHORTEST));
        assert!(check_password(&"abcdefg".repeat(200)).is_err());
        for strong in ["correct horse", "twelve chars", "пароль из слов"] {
            assert_eq!(check_password(strong), Ok(()), "{strong}");
        }
    }
}
