//! The attributes `#[trio::main]` and `#[trio::test]`.
//!
//! Each turns an `async fn` into a plain one that runs it. The generated code is what a user could
//! write: calls of `trio::run` and of `trio::Builder`, and nothing hidden. The few tokens that the
//! attributes have to understand are parsed by hand, so that nobody has to build a parser of Rust
//! for them.

#![forbid(unsafe_code)]

mod expand;
mod function;
mod options;
mod tokens;

use proc_macro::TokenStream;

/// Runs an `async fn` as the main task of the program.
///
/// The function takes no arguments and may return whatever a `main` may return. It becomes
///
/// ```text
/// fn main() -> Result<()> {
///     async fn main() -> Result<()> { … }
///     trio::run(main())
/// }
/// ```
///
/// # Options
///
/// | Option               | Meaning                                                            |
/// |----------------------|--------------------------------------------------------------------|
/// | `backend = "io_uring"` or `"polling"` | This backend, or a clear failure if it cannot run |
///
/// For all other settings of a run, write a plain `main` that uses `trio::Builder`.
#[proc_macro_attribute]
#[cfg_attr(not(test), allow(clippy::useless_conversion))] // the tests have tokens of their own
pub fn main(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::main(options.into(), item.into()).into()
}

/// Makes an `async fn` a test.
///
/// The function takes no arguments and may return whatever a test may return. Other attributes,
/// such as `#[should_panic]`, stay on it. A test that hangs, because all its tasks wait and nothing can
/// wake them any more, fails with the tree of what they wait for.
///
/// # Options
///
/// | Option                 | Meaning                                                          |
/// |------------------------|------------------------------------------------------------------|
/// | `backend = "io_uring"`, `"polling"` or `"simulation"` | This backend, or a failure if it cannot run |
/// | `backend = "all"`      | Once on each of the three; a failure says on which               |
/// | `clock = "autojump"`   | Virtual time that jumps to the next deadline when all tasks wait; the simulation always has it |
/// | `seed = 7`             | The seed for everything that is random                           |
/// | `seeds = 100`          | Once with each of this many seeds, from `seed` or 0 upward; a failure says with which |
///
/// With `seeds`, a failure says `TRIO_TEST_SEED=7 replays it`: with that in the environment, 7 is the
/// only seed. `TRIO_SIM_SEEDS` adds seeds, as numbers separated by commas.
#[proc_macro_attribute]
#[cfg_attr(not(test), allow(clippy::useless_conversion))] // the tests have tokens of their own
pub fn test(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::test(options.into(), item.into()).into()
}
