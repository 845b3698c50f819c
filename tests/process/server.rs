//! The echo server as a process: started, observed, and ended.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};

use crate::lines::Lines;

/// A server that listens on a free port.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The line that announces it.
    pub(crate) banner: String,
    /// Its standard output.
    pub(crate) output: Lines<ChildStdout>,
    /// Its standard error.
    pub(crate) errors: Lines<ChildStderr>,
}

/// How a server has ended.
pub(crate) struct Ended {
    /// Its exit code, unless a signal killed it.
    pub(crate) code: Option<i32>,
    /// Output that has not been read before.
    pub(crate) output: String,
    /// Error output that has not been read before.
    pub(crate) errors: String,
}

impl Server {
    /// Starts one on `backend`, with more arguments.
    #[track_caller]
    pub(crate) fn start(backend: &str, more: &[&str]) -> Self {
        let mut command = echo();
        command.args(["--backend", backend]).args(more);
        Self::start_as(command)
    }

    /// Starts `command`, which should be an echo server.
    #[track_caller]
    pub(crate) fn start_as(mut command: Command) -> Self {
        command.args(["--tcp", "127.0.0.1:0"]);
        let (child, mut output, errors) = spawn(command);
        let banner = output.next();
        let words = banner.strip_prefix("listening tcp ").unwrap();
        let address = words.split(' ').next().unwrap().parse().unwrap();
        Self {
            child,
            address,
            banner,
            output,
            errors,
        }
    }

    /// Sends it `signal`.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// How many descriptors it holds.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// How many bytes of memory it holds.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kibibytes = line.strip_suffix("kB").unwrap().trim();
        kibibytes.parse::<u64>().unwrap() * 1024
    }

    fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.child.id().to_string())
            .join(name)
    }

    /// Waits until it has ended; it must have been asked to.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ended {
        finish(&mut self.child, &mut self.output, &mut self.errors)
    }

    /// Asks it to end, and waits until it has.
    #[track_caller]
    pub(crate) fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // For a test that has failed; after `wait` there is nothing left to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs `command`, which ends on its own.
#[track_caller]
pub(crate) fn output_of(command: Command) -> Ended {
    let (mut child, mut output, mut errors) = spawn(command);
    finish(&mut child, &mut output, &mut errors)
}

fn spawn(mut command: Command) -> (Child, Lines<ChildStdout>, Lines<ChildStderr>) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let output = Lines::new(child.stdout.take().unwrap());
    let errors = Lines::new(child.stderr.take().unwrap());
    (child, output, errors)
}

#[track_caller]
fn finish(
    child: &mut Child,
    output: &mut Lines<ChildStdout>,
    errors: &mut Lines<ChildStderr>,
) -> Ended {
    // When the process has ended, both pipes are at their ends.
    let output = output.rest();
    let errors = errors.rest();
    let code = child.wait().unwrap().code();
    Ended {
        code,
        output,
        errors,
    }
}

/// A command that runs the example, with room for a thousand connections on either side.
pub(crate) fn echo() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();
        build()
    });
    let mut command = Command::new(program);
    command.env_remove("TRIO_BACKEND");
    command
}

/// Builds the example in the same way as this test, and returns its path.
///
/// Cargo tells a test where binaries are, but not where examples are, and it builds the examples
/// for `cargo test` but not for `cargo test --test process`. If they have been built, this takes no
/// time.
fn build() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--example", "echo", "--message-format", "json"])
        .arg("--target-dir")
        .arg(target);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.output().unwrap();
    let complaints = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{complaints}");
    let messages = String::from_utf8(built.stdout).unwrap();
    let mut examples = messages
        .lines()
        .filter(|line| line.contains("\"kind\":[\"example\"]"));
    let (_, path) = examples
        .next()
        .and_then(|line| line.split_once("\"executable\":\""))
        .unwrap();
    PathBuf::from(path.split('"').next().unwrap())
}
