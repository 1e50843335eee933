//! The `coinslot` program. What it does is in [`coinslot::cli`].

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    coinslot::cli::main(std::env::args().skip(1).collect())
}
