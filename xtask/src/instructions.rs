//! How many instructions the scheduler's small workloads take, compared with a baseline.
//!
//! Time varies with the machine and with whatever else it does; instructions, counted by callgrind,
//! hardly vary at all. So the cost of the runtime's own work is guarded by their number: each row
//! of `benches/micro` is counted at a small size, between its start and its stop, and compared with
//! the baseline in the tree. A row that takes more than is allowed has become slower, and a
//! reviewer wants to know why. If one takes less, it has become faster, and the baseline is renewed
//! to keep the gain.
//!
//! Whatever could change the numbers without a change of the code is fixed: the environment is
//! empty except for the backend, which does nothing random, and valgrind places everything at the
//! same addresses in each run. Compiler, C library and valgrind must be those that the baseline
//! names, or nothing is compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::ci::{Cargo, Outcome};
use crate::tree::root;

/// By how much a row may differ from the baseline.
const TOLERANCE: f64 = 0.03;

const BASELINE: &str = "benches/baseline.txt";

/// The functions between which callgrind counts.
const START: &str = "micro::support::Stopwatch::start";
const STOP: &str = "micro::support::Stopwatch::stop";

/// Compares with the baseline.
pub(crate) fn check() -> Result<Outcome, String> {
    if let Some(why) = missing() {
        return Ok(Outcome::Skipped(why));
    }
    let path = root().join(BASELINE);
    let text =
        fs::read_to_string(&path).map_err(|error| format!("cannot read {BASELINE}: {error}"))?;
    let baseline = Counts::parse(&text)?;
    if baseline.toolchain != toolchain()? {
        return Ok(Outcome::Skipped(
            "the baseline is of another compiler, C library or valgrind",
        ));
    }
    let complaints = baseline.compare(&count()?);
    if complaints.is_empty() {
        return Ok(Outcome::Passed);
    }
    Err(format!(
        "{}\nif that is as it should be: cargo xtask instructions --renew",
        complaints.join("\n")
    ))
}

/// Rewrites the baseline.
pub(crate) fn renew() -> Result<(), String> {
    if let Some(why) = missing() {
        return Err(why.to_owned());
    }
    let counts = count()?;
    fs::write(root().join(BASELINE), counts.to_text())
        .map_err(|error| format!("cannot write {BASELINE}: {error}"))
}

/// Instructions an operation.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    /// The tools with which they were counted.
    toolchain: String,
    rows: BTreeMap<String, f64>,
}

impl Counts {
    fn to_text(&self) -> String {
        let mut text = format!(
            "# Instructions an operation, of each row of benches/micro, as callgrind counts them.\n\
             # Written by `cargo xtask instructions --renew`, compared by `cargo xtask ci instructions`.\n\
             # {}\n",
            self.toolchain
        );
        for (name, count) in &self.rows {
            writeln!(text, "{count:>9.1}  {name}").expect("a string takes everything");
        }
        text
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut counts = Self::default();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                // The last line of the head.
                comment.clone_into(&mut counts.toolchain);
                continue;
            }
            let row = line.trim_start().split_once("  ");
            let row = row.and_then(|(count, name)| Some((name, count.parse().ok()?)));
            let (name, count) = row.ok_or_else(|| format!("{BASELINE}: not a row: {line:?}"))?;
            counts.rows.insert(name.to_owned(), count);
        }
        Ok(counts)
    }

    /// The complaints about `now`, one line a row.
    fn compare(&self, now: &Self) -> Vec<String> {
        let mut complaints = Vec::new();
        for (name, now) in &now.rows {
            let Some(before) = self.rows.get(name) else {
                complaints.push(format!("{name}: not in the baseline, now {now:.1}"));
                continue;
            };
            let change = now / before - 1.0;
            if change.abs() > TOLERANCE {
                let percent = change * 100.0;
                complaints.push(format!(
                    "{name}: {before:.1} in the baseline, now {now:.1} ({percent:+.1} %)"
                ));
            }
        }
        let gone = self
            .rows
            .keys()
            .filter(|name| !now.rows.contains_key(*name));
        complaints.extend(gone.map(|name| format!("{name}: in the baseline, and no row any more")));
        complaints
    }
}

/// Why nothing can be counted here, if so. Installs valgrind where that needs no confirmation.
fn missing() -> Option<&'static str> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Some("instructions are counted on x86_64 Linux");
    }
    if has_valgrind() {
        return None;
    }
    let quietly = |command: &mut Command| {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let install = ["install", "--yes", "--no-install-recommends", "valgrind"];
    // Immediate as root, which a developer is not; refused if a password is needed; otherwise this
    // machine is made for it.
    let installed = quietly(Command::new("apt-get").args(install))
        || (std::env::var_os("CI").is_some()
            && quietly(Command::new("sudo").args(["-n", "apt-get"]).args(install)));
    if installed && has_valgrind() {
        return None;
    }
    Some("valgrind is not installed, and could not be")
}

fn has_valgrind() -> bool {
    let version = Command::new("valgrind").arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

/// What the numbers depend on besides our code, as the baseline names it: the compiler, the kind of
/// machine, the C library, and valgrind, which decides how the C library copies memory.
fn toolchain() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = |program: &Path, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        let output =
            output.map_err(|error| format!("cannot run {}: {error}", program.display()))?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let rustc = version(rustc.as_ref(), "--version")?;
    let library = version("getconf".as_ref(), "GNU_LIBC_VERSION")?;
    let valgrind = version("valgrind".as_ref(), "--version")?;
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let vectors = if flags.contains(" avx2 ") {
        "AVX2"
    } else {
        "no AVX2"
    };
    let machine = std::env::consts::ARCH;
    Ok(format!(
        "{rustc}, {machine} with {vectors}, {library}, {valgrind}"
    ))
}

/// Counts every row.
fn count() -> Result<Counts, String> {
    let folder = root().join("target/instructions");
    // The dumps of an earlier run would be mistaken for those of this one.
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder)
        .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let program = build()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let output = Command::new("valgrind")
        .current_dir(&folder)
        .env_clear()
        .env("PATH", path)
        .env("TRIO_BACKEND", "polling")
        .arg("--tool=callgrind")
        .arg("--callgrind-out-file=dump")
        .arg(format!("--zero-before={START}"))
        .arg(format!("--dump-before={STOP}"))
        .arg(&program)
        .arg("--counted")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "valgrind {}: {}\n{}",
            program.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let mut counts = Counts {
        toolchain: toolchain()?,
        ..Counts::default()
    };
    let said = String::from_utf8_lossy(&output.stdout);
    for (index, line) in said.lines().enumerate() {
        let row = line.split_once(' ');
        let row = row.and_then(|(operations, name)| Some((operations.parse::<f64>().ok()?, name)));
        let (operations, name) = row.ok_or_else(|| format!("the bench said {line:?}"))?;
        // What several threads do depends on their timing.
        if name.contains("thread") {
            continue;
        }
        let dump = folder.join(format!("dump.{}", index + 1));
        let count = total(&dump)? / operations;
        counts.rows.insert(name.to_owned(), count);
    }
    Ok(counts)
}

/// Builds the bench, and returns its path.
fn build() -> Result<PathBuf, String> {
    let build = Cargo::new("bench --bench micro --no-run --quiet --message-format json");
    let said = build.captured()?;
    let messages = said
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    messages
        .filter(|message| message["target"]["name"] == "micro")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| "cargo has built no bench `micro`".to_owned())
}

/// The total of a dump.
fn total(dump: &Path) -> Result<f64, String> {
    let text = fs::read_to_string(dump)
        .map_err(|error| format!("cannot read {}: {error}", dump.display()))?;
    let sum = |line: &str| line.strip_prefix("summary: ")?.trim().parse().ok();
    text.lines()
        .find_map(sum)
        .ok_or_else(|| format!("{} has no sum", dump.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[(&str, f64)]) -> Counts {
        Counts {
            toolchain: "rustc 1.85.0 (nowhere), x86_64".to_owned(),
            rows: rows
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let before = counts(&[
            ("spawn + join, 1000 at once", 450.3),
            ("yield, 2 tasks", 200.0),
        ]);
        assert_eq!(Counts::parse(&before.to_text()), Ok(before));
    }

    #[test]
    fn a_line_that_is_no_row_is_named() {
        let error = Counts::parse("# head\nyield").expect_err("it is no row");
        assert_eq!(error, "benches/baseline.txt: not a row: \"yield\"");
    }

    #[test]
    fn a_deliberate_piece_of_work_is_found() {
        let before = counts(&[("wait", 300.0), ("yield", 200.0)]);
        let after = counts(&[("wait", 310.0), ("yield", 200.0)]);
        assert_eq!(
            before.compare(&after),
            ["wait: 300.0 in the baseline, now 310.0 (+3.3 %)"]
        );
    }

    #[test]
    fn a_gain_is_to_be_kept() {
        let before = counts(&[("wait", 300.0)]);
        let after = counts(&[("wait", 270.0)]);
        assert_eq!(
            before.compare(&after),
            ["wait: 300.0 in the baseline, now 270.0 (-10.0 %)"]
        );
    }

    #[test]
    fn what_is_within_three_percent_passes() {
        let before = counts(&[("wait", 300.0), ("yield", 200.0)]);
        let after = counts(&[("wait", 308.0), ("yield", 195.0)]);
        assert_eq!(before.compare(&after), [""; 0]);
    }

    #[test]
    fn rows_that_come_and_go_are_told() {
        let before = counts(&[("old", 300.0)]);
        let after = counts(&[("new", 300.0)]);
        assert_eq!(
            before.compare(&after),
            [
                "new: not in the baseline, now 300.0",
                "old: in the baseline, and no row any more"
            ]
        );
    }

    #[test]
    fn the_sum_of_a_dump_is_found() {
        let dump = std::env::temp_dir().join(format!("trio-dump-{}", std::process::id()));
        fs::write(
            &dump,
            "version: 1\nevents: Ir\nsummary: 665336\n\nfl=(1) a.c\n",
        )
        .expect("a file can be written");
        let sum = total(&dump);
        fs::remove_file(&dump).expect("it was written");
        assert_eq!(sum, Ok(665_336.0));
        assert!(total(&dump).is_err(), "it is gone");
    }
}
