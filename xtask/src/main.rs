//! What a machine can check about the tree, so that review is about design.
//!
//! - `cargo xtask ci [STAGE…]` runs all checks, or the stages named, and is what continuous
//!   integration runs.
//! - `cargo xtask tidy` reads the tree and compares it with what it promises about itself.
//! - `cargo xtask semantics` compares `docs/semantics.md` with the tests, both ways.
//! - `cargo xtask soak [SCHEDULES]` runs the models of `tests/it/model` through many more schedules
//!   than the tests do, from a random seed.
//! - `cargo xtask asan` runs the tests of everything unsafe under AddressSanitizer.
//! - `cargo xtask instructions` counts what the scheduler's small workloads take, against a baseline.
//! - `cargo xtask loom` runs every order in which the threads of some small programs can meet.
//!
//! Every complaint names its place and its remedy. New checks join these commands.

#![forbid(unsafe_code)]

mod ci;
mod edges;
mod instructions;
mod semantics;
mod source;
mod tidy;
mod tree;

use std::process::ExitCode;

use tree::{Offence, Tree};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  ci [STAGE…]   every check, or the stages named
  tidy          what the tree promises about itself
  semantics     each guarantee has a test, and each numbered test its guarantee
  soak [COUNT]  the models, under so many schedules each (1,000,000), from a new seed
  asan          the tests of everything unsafe, under AddressSanitizer
  instructions  what the scheduler's small workloads take, against a baseline; `--renew` writes that
  loom          what crosses threads, in every order that there is";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["ci", stages @ ..] => ci::run(stages),
        ["tidy"] => tidy().and_then(report),
        ["semantics"] => semantics().and_then(report),
        ["asan"] => ci::run(&["asan"]),
        ["loom"] => ci::run(&["loom"]),
        ["soak"] => ci::soak("1000000"),
        ["soak", schedules] => ci::soak(schedules),
        ["instructions"] => ci::run(&["instructions"]),
        ["instructions", "--renew"] => instructions::renew(),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `tidy` on the tree on disk.
fn tidy() -> Result<Vec<Offence>, String> {
    let tree = Tree::read()?;
    let mut offences = tidy::check(&tree);
    offences.extend(edges::check(&edges::Package::all()?));
    Ok(offences)
}

/// Runs `semantics` on the tree on disk.
fn semantics() -> Result<Vec<Offence>, String> {
    semantics::check(&Tree::read()?)
}

/// Prints one paragraph for each offence, or nothing if there is none.
fn report(offences: Vec<Offence>) -> Result<(), String> {
    if offences.is_empty() {
        return Ok(());
    }
    let paragraphs: Vec<String> = offences.iter().map(Offence::to_string).collect();
    let count = offences.len();
    let noun = if count == 1 { "offence" } else { "offences" };
    Err(format!("{}\n{count} {noun}", paragraphs.join("\n")))
}
