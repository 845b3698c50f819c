//! What borrowing forbids: each file in `tests/ui` is a program that must not compile.
//!
//! The compiler's messages are stored beside each, so that a program is refused for its real reason
//! and not for a slip. They change from one compiler to the next: the test runs only with the one
//! named below, and passes without a check with any other. To write them again, with that compiler:
//! `TRYBUILD=overwrite cargo test --test compile_fail`, and read the difference.

use std::process::Command;

/// The compiler whose messages are in `tests/ui`.
const COMPILER: &str = "rustc 1.95.";

#[test]
fn what_must_not_compile_does_not() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.expect("there is a compiler, for it has compiled this");
    let version = String::from_utf8_lossy(&version.stdout);
    if !version.starts_with(COMPILER) {
        eprintln!("skipped: {} is not {COMPILER}x", version.trim());
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
