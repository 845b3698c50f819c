//! All the checks, each with its result and its time on one line.
//!
//! The quick stages come first. The tests come last and are the only stage whose output is passed
//! through, so that what Cargo reports about them is at the end; the output of the other stages is
//! shown only if they fail. A stage that fails does not hide the next.
//!
//! There are these builds: clippy's and rustdoc's (which stop before code is generated), the one
//! that examples, benches and tests share, the optimised one whose instructions are counted, and
//! those of AddressSanitizer and of loom, which have folders of their own so that none of the
//! others is built again because of them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::edges::{Package, cargo};
use crate::tree::{git, root};
use crate::{instructions, report, semantics, tidy};

struct Stage {
    name: &'static str,
    run: fn() -> Result<Outcome, String>,
}

/// The outcome of a stage that did not fail.
pub(crate) enum Outcome {
    Passed,
    /// There was nothing to do, or no way to do it here.
    Skipped(&'static str),
}

const STAGES: &[Stage] = &[
    Stage {
        name: "fmt",
        run: fmt,
    },
    Stage {
        name: "tidy",
        run: || tidy().and_then(report).map(|()| Outcome::Passed),
    },
    Stage {
        name: "semantics",
        run: || semantics().and_then(report).map(|()| Outcome::Passed),
    },
    Stage {
        name: "clippy",
        run: clippy,
    },
    Stage {
        name: "docs",
        run: docs,
    },
    Stage {
        name: "deny",
        run: deny,
    },
    Stage {
        name: "examples",
        run: examples,
    },
    Stage {
        name: "benches",
        run: benches,
    },
    Stage {
        name: "instructions",
        run: instructions::check,
    },
    Stage {
        name: "asan",
        run: asan,
    },
    Stage {
        name: "loom",
        run: loom,
    },
    Stage {
        name: "simulation",
        run: simulation,
    },
    Stage {
        name: "tests",
        run: tests,
    },
    Stage {
        name: "doctests",
        run: doctests,
    },
];

/// Runs the stages named in `wanted`, or all.
pub(crate) fn run(wanted: &[&str]) -> Result<(), String> {
    let known = |name: &&str| STAGES.iter().any(|stage| stage.name == *name);
    if let Some(name) = wanted.iter().find(|name| !known(name)) {
        let names: Vec<&str> = STAGES.iter().map(|stage| stage.name).collect();
        return Err(format!(
            "there is no stage `{name}`; there are: {}",
            names.join(", ")
        ));
    }
    let stages = STAGES
        .iter()
        .filter(|stage| wanted.is_empty() || wanted.contains(&stage.name));
    let failed: Vec<&str> = stages
        .filter(|stage| !run_stage(stage))
        .map(|stage| stage.name)
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "failed; to run it again: cargo xtask ci {}",
            failed.join(" ")
        ))
    }
}

/// Runs one stage, prints its line, and returns whether it passed.
fn run_stage(stage: &Stage) -> bool {
    let (result, took) = timed(stage.run);
    let seconds = took.as_secs_f64();
    let line = |word: &str| println!("{:<12} {word:<7} {seconds:>6.1} s", stage.name);
    match &result {
        Ok(Outcome::Passed) => line("ok"),
        Ok(Outcome::Skipped(why)) => println!("{:<12} skipped: {why}", stage.name),
        Err(output) => {
            println!("{}", output.trim_end());
            line("FAILED");
        }
    }
    result.is_ok()
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a stage takes is asked of no run"
)]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

fn fmt() -> Result<Outcome, String> {
    quietly(Cargo::new("fmt --all --check"))
}

fn clippy() -> Result<Outcome, String> {
    quietly(Cargo::new(
        "clippy --workspace --all-targets --all-features --quiet -- -D warnings",
    ))
}

/// Includes private items, so that internal links stay valid.
fn docs() -> Result<Outcome, String> {
    let doc =
        Cargo::new("doc --workspace --all-features --no-deps --document-private-items --quiet");
    quietly(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

fn deny() -> Result<Outcome, String> {
    if !is_installed("deny") {
        return Ok(Outcome::Skipped("cargo-deny is not installed"));
    }
    quietly(Cargo::new(
        "deny --log-level error check licenses bans sources",
    ))
}

fn examples() -> Result<Outcome, String> {
    quietly(Cargo::new(
        "build --workspace --all-features --examples --quiet",
    ))
}

/// Each bench runs its cases once: `cargo test` does not pass the `--bench` that requests more.
fn benches() -> Result<Outcome, String> {
    let packages = Package::all()?;
    if packages
        .iter()
        .all(|package| package.targets("bench").next().is_none())
    {
        return Ok(Outcome::Skipped("there are no benches"));
    }
    quietly(Cargo::new(
        "test --workspace --all-features --bench * --quiet",
    ))
}

/// The crates that hold unsafe code with all their tests, and the public promise in `tests/it`.
fn asan() -> Result<Outcome, String> {
    if !cfg!(all(
        target_arch = "x86_64",
        target_os = "linux",
        target_env = "gnu"
    )) {
        return Ok(Outcome::Skipped(
            "needs x86_64 Linux with the GNU C library",
        ));
    }
    let mut test =
        Cargo::new("test --quiet --target x86_64-unknown-linux-gnu --target-dir target/asan --lib");
    for package in Package::all()? {
        let whole = ["trio-platform", "trio-runtime"].contains(&package.name.as_str());
        if !whole && package.name != "trio" {
            continue;
        }
        test = test.arg("--package").arg(&package.name);
        for target in package
            .targets("test")
            .filter(|target| whole || *target == "it")
        {
            test = test.arg("--test").arg(target);
        }
    }
    // The models have been through their schedules without the sanitizer, which makes each take
    // several times as long. Leaks are not checked: what the tests forget on purpose, and what the
    // kernel does not return in time, is leaked by design. A stack frame under the sanitizer is
    // several times its usual size, hence the larger stack.
    let test = test
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address --cfg asan")
        .env(
            "ASAN_OPTIONS",
            "detect_leaks=0:detect_stack_use_after_return=1",
        )
        .env("TRIO_MODEL_SCHEDULES", "200")
        .env("RUST_MIN_STACK", "16777216");
    quietly(test)
}

/// Code that crosses threads: every order in which the threads of some small programs can meet,
/// with up to three switches that no wait forces. In release mode, because there are many orders.
fn loom() -> Result<Outcome, String> {
    let test = Cargo::new(
        "test --quiet --release --target-dir target/loom --package trio-runtime --lib -- thread::loom",
    );
    let test = test
        .env("RUSTFLAGS", "--cfg loom")
        .env("LOOM_MAX_PREEMPTIONS", "3");
    quietly(test)
}

/// Small numbers for everyone, and one more that changes with every commit.
const SEEDS: &str = "0,1,2,3,5,8,13,21,34,55,89,144,233,377,610,987";

/// Schedules that each model is run through for a commit, besides those of every test run.
const SCHEDULES: &str = "10000";

/// Runs the tests with `seed` in their names under more seeds than they have themselves; the models
/// too, under seeds that are derived from the commit. If a model fails, the command that reproduces
/// it is printed.
fn simulation() -> Result<Outcome, String> {
    let commit = seed_of(&git(&["rev-parse", "HEAD"])?)?.to_string();
    let seeds = format!("{SEEDS},{commit}");
    let test = Cargo::new("test --workspace --all-features --tests --no-fail-fast -- seed");
    let test = test
        .env("TRIO_MODEL_SEED", &commit)
        .env("TRIO_MODEL_SCHEDULES", SCHEDULES);
    let output = captured(test.env("TRIO_SIM_SEEDS", &seeds))
        .map_err(|output| format!("{output}\nthe seeds were TRIO_SIM_SEEDS={seeds}"))?;
    let none = output
        .lines()
        .filter(|line| line.starts_with("running "))
        .all(|line| line == "running 0 tests");
    Ok(if none {
        Outcome::Skipped("no test has `seed` in its name")
    } else {
        Outcome::Passed
    })
}

/// Runs each model through `schedules` schedules. A failure prints its seed, which reproduces it.
pub(crate) fn soak(schedules: &str) -> Result<(), String> {
    let count: u64 = schedules
        .parse()
        .map_err(|_| format!("`soak` takes how many schedules, and not `{schedules}`"))?;
    // The keys of a hasher are random numbers that the standard library makes available.
    let seed = RandomState::new().build_hasher().finish() >> 1;
    println!("TRIO_MODEL_SEED={seed} TRIO_MODEL_SCHEDULES={count}");
    // The same build as for the tests: an optimised one takes many minutes.
    let test = Cargo::new("test --workspace --all-features --test it -- model");
    let test = test.env("TRIO_MODEL_SEED", &seed.to_string());
    openly(test.env("TRIO_MODEL_SCHEDULES", &count.to_string())).map(|_| ())
}

/// The first half of a commit's hash, as a number.
fn seed_of(commit: &str) -> Result<u64, String> {
    let digits = commit.trim().get(..16).unwrap_or_default();
    u64::from_str_radix(digits, 16)
        .map_err(|_| format!("`{}` is not the name of a commit", commit.trim()))
}

/// On a developer's machine nextest, if it is installed, because it names slow tests. Elsewhere
/// `cargo test`, whose output everybody can read.
fn tests() -> Result<Outcome, String> {
    let developer = std::env::var_os("CI").is_none() && is_installed("nextest");
    let words = if developer {
        "nextest run --workspace --all-features"
    } else {
        "test --workspace --all-features --tests --no-fail-fast"
    };
    openly(Cargo::new(words))
}

fn doctests() -> Result<Outcome, String> {
    openly(Cargo::new(
        "test --workspace --all-features --doc --no-fail-fast",
    ))
}

/// A call of Cargo at the root of the tree.
pub(crate) struct Cargo {
    command: Command,
    /// The command as a person would type it.
    typed: String,
}

impl Cargo {
    pub(crate) fn new(words: &str) -> Self {
        let mut command = Command::new(cargo());
        command.current_dir(root()).stdin(Stdio::null());
        // These would take precedence over the flags of a stage.
        command
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTDOCFLAGS");
        let typed = "cargo".to_owned();
        words.split(' ').fold(Self { command, typed }, Self::arg)
    }

    fn arg(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self.typed = format!("{} {argument}", self.typed);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Returns its standard output; all of its output, if it fails.
    pub(crate) fn captured(self) -> Result<String, String> {
        captured(self)
    }
}

/// Runs `cargo`, and shows its output only if it fails.
fn quietly(cargo: Cargo) -> Result<Outcome, String> {
    captured(cargo).map(|_| Outcome::Passed)
}

/// Runs `cargo` and returns its standard output; all of its output, if it fails.
fn captured(mut cargo: Cargo) -> Result<String, String> {
    let output = cargo
        .command
        .output()
        .map_err(|error| format!("cannot run {}: {error}", cargo.typed))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let complained = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{}\n{said}{complained}{}: {}",
        cargo.typed, cargo.typed, output.status
    ))
}

/// Runs `cargo` with its output passed through.
fn openly(mut cargo: Cargo) -> Result<Outcome, String> {
    println!("{}", cargo.typed);
    let status = cargo
        .command
        .status()
        .map_err(|error| format!("cannot run {}: {error}", cargo.typed))?;
    if status.success() {
        Ok(Outcome::Passed)
    } else {
        Err(format!("{}: {status}", cargo.typed))
    }
}

/// Whether Cargo has the subcommand `name`.
fn is_installed(name: &str) -> bool {
    captured(Cargo::new(name).arg("--version")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_of_a_commit_is_half_its_hash() {
        assert_eq!(
            seed_of("00000000000000ff11112222333344445555666\n"),
            Ok(255)
        );
        assert!(seed_of("HEAD").is_err());
    }

    #[test]
    fn an_unknown_stage_is_refused_before_anything_runs() {
        let refusal = run(&["fmt", "nonsense"]).expect_err("there is no such stage");
        assert!(
            refusal.starts_with("there is no stage `nonsense`; there are: fmt, "),
            "{refusal}"
        );
    }

    #[test]
    fn every_stage_has_a_name_of_its_own() {
        let mut names: Vec<&str> = STAGES.iter().map(|stage| stage.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STAGES.len());
    }
}
