//! Places where a test can kill the process, so that what a crash leaves behind can be seen.
//!
//! [`POINTS`] lists all of them; `failpoint!("…")` marks one, and names that are not listed do not
//! compile. They exist only in builds with the feature `failpoints`, which the tests turn on.
//! There, `COINSLOT_FAILPOINT=name` kills the process (`SIGKILL`) the first time it comes by, and
//! `name:3` the third time.

/// Every place, in the order in which an operation passes them.
pub const POINTS: &[&str] = &[
    // A token is redeemed.
    "redeem.written",
    "redeem.swapped",
    "redeem.kept",
    "redeem.credited",
    "redeem.refused",
    // Tokens are redeemed in one swap.
    "batch.sifted",
    "batch.balanced",
    "batch.swapped",
    // A token of a foreign mint is swapped to a trusted one.
    "import.written",
    "import.melted",
    "import.minted",
    "import.kept",
    "import.credited",
    // A request is served.
    "exchange.admitted",
    "exchange.held",
    "exchange.answered",
    "exchange.metered",
    "exchange.settled",
    "exchange.undone",
    // A request has an Idempotency-Key.
    "replay.claimed",
    "replay.kept",
    "replay.removed",
    // A key buys child keys.
    "keys.sold",
    // Money goes back as a token.
    "return.ready",
    "return.given",
    "return.written",
    "return.reserved",
    "return.planned",
    "return.swapped",
    "return.kept",
    "return.done",
    "return.replanned",
    // A Lightning invoice fills a key.
    "topup.written",
    "topup.quoted",
    "topup.planned",
    "topup.paid",
    "topup.issued",
    "topup.kept",
    "topup.credited",
    // Money goes back over Lightning.
    "pay.reserved",
    "pay.invoiced",
    "pay.planned",
    "pay.melted",
    "pay.kept",
    "pay.done",
    "pay.returned",
    // Ecash is exchanged for handier amounts.
    "consolidate.written",
    "consolidate.reserved",
    "consolidate.planned",
    "consolidate.swapped",
    "consolidate.kept",
    "consolidate.done",
    // The operator is told what is wrong.
    "alert.written",
    "alert.leased",
    "alert.delivered",
    // A backup is written.
    "backup.packed",
];

/// Whether this is the name of a place.
#[must_use]
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
pub const fn is_point(name: &str) -> bool {
    let mut at = 0;
    while at < POINTS.len() {
        if same(POINTS[at].as_bytes(), name.as_bytes()) {
            return true;
        }
        at += 1;
    }
    false
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Marks a place where a test can kill the process.
macro_rules! failpoint {
    ($name:literal) => {
        const { assert!($crate::failpoint::is_point($name), "not listed in failpoint::POINTS") };
        $crate::failpoint::reach($name);
    };
}
pub(crate) use failpoint;

/// Does nothing.
#[cfg(not(feature = "failpoints"))]
pub const fn reach(_name: &str) {}

/// Kills the process if it was told to, here.
#[cfg(feature = "failpoints")]
pub fn reach(name: &str) {
    armed::reach(name);
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Armed {
        name: String,
        passes_left: AtomicU32,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        #[expect(clippy::disallowed_methods, reason = "a test's own switch, no setting of the node")]
        let text = std::env::var("COINSLOT_FAILPOINT").ok()?;
        let (name, passes) = text.split_once(':').unwrap_or((&text, "1"));
        Some(Armed { name: name.to_owned(), passes_left: AtomicU32::new(passes.parse().ok()?) })
    });

    pub(super) fn reach(name: &str) {
        let Some(armed) = ARMED.as_ref().filter(|armed| armed.name == name) else { return };
        if armed.passes_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let pid = std::process::id().to_string();
            let _killed = std::process::Command::new("kill").args(["-KILL", &pid]).status();
            loop {
                std::thread::park();
            }
        }
    }
}
