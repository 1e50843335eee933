//! The `coinslot` program. What it does is in [`coinslot::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    coinslot::cli::main(std::env::args().skip(1).collect())
}
