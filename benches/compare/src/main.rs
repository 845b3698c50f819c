//! Compares runtimes: the same servers on each, one load, and all of them in turn.
//!
//! This process pins itself to one core and plays the clients. Each server is a process of its own,
//! pinned to another core, and lives for one round, in which all are measured in turn. `report/`
//! prints the results, `workload/` has what is measured, and `contestant.rs` who takes part.
//! `docs/benchmarks.md` says how to read the results, and what they do not show.

#![forbid(unsafe_code)]

mod arguments;
mod contestant;
mod load;
mod machine;
mod profile;
mod report;
mod server;
mod statistics;
mod tournament;
mod workload;

use std::process::ExitCode;

use arguments::{Arguments, Wish};

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(Wish::Run(arguments)) => arguments,
        Ok(Wish::Explain(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    kit::allow_open_files();
    match tournament::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
