//! A server process: started on its core, queried, and ended.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use kit::{Report, fields};

use crate::contestant::Contestant;
use crate::machine::Cores;

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    errors: Receiver<String>,
    pub(crate) port: u16,
    /// The backend that it says it uses.
    pub(crate) claimed: String,
}

/// The name of a backend as people write it: the field of a line cannot contain spaces.
pub(crate) fn spaced(backend: &str) -> String {
    backend.replace('_', " ").replace("io uring", "io_uring")
}

/// The core on which a program runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    ServerCore,
    BothCores,
}

impl Server {
    /// Starts `contestant` with `job`, and waits until it accepts connections.
    pub(crate) fn start(
        contestant: &Contestant,
        job: &[String],
        cores: Cores,
        place: Place,
    ) -> Result<Self, String> {
        let (mut child, lines, errors) = spawn(contestant, job, cores, place)?;
        let input = child.stdin.take().expect("it is piped");
        let mut server = Self {
            child,
            input,
            lines,
            errors,
            port: 0,
            claimed: String::new(),
        };
        let line = server.line()?;
        let ready = line.strip_prefix("ready ").ok_or(line.clone())?;
        let ready = fields(ready);
        server.port = ready
            .get("port")
            .and_then(|port| port.parse().ok())
            .ok_or("it does not say where it listens")?;
        server.claimed = spaced(ready.get("backend").unwrap_or(&""));
        Ok(server)
    }

    /// Asks what it has done so far.
    pub(crate) fn mark(&mut self) -> Result<Report, String> {
        self.ask("mark")
    }

    /// Asks for its last report, after which it ends.
    pub(crate) fn stop(mut self) -> Result<Report, String> {
        self.ask("stop")
    }

    fn ask(&mut self, question: &str) -> Result<Report, String> {
        if writeln!(self.input, "{question}").is_err() {
            return Err(self.complaint("it has gone"));
        }
        let line = self.line()?;
        Report::parse(&line).ok_or(format!("it says {line:?}"))
    }

    fn line(&mut self) -> Result<String, String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => Err(self.complaint("it does not answer")),
            Err(RecvTimeoutError::Disconnected) => Err(self.complaint("it ended")),
        }
    }

    fn complaint(&mut self, what: &str) -> String {
        complaint(&self.errors, what)
    }

    /// Its process number, for profilers.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// What the system says it uses: the queues among its descriptors.
    pub(crate) fn seen(&self) -> String {
        queues(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended on its own; both calls may then fail.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a job that is not a server to its end; returns what it prints about itself.
pub(crate) fn run_job(
    contestant: &Contestant,
    job: &[String],
    cores: Cores,
) -> Result<String, String> {
    let (mut child, lines, errors) = spawn(contestant, job, cores, Place::ServerCore)?;
    let mut last = None;
    let result = loop {
        match lines.recv_timeout(JOB_PATIENCE) {
            Ok(line) => last = Some(line),
            Err(RecvTimeoutError::Timeout) => break Err("it takes too long".to_owned()),
            Err(RecvTimeoutError::Disconnected) => break Ok(()),
        }
    };
    drop(child.kill());
    drop(child.wait());
    result?;
    last.ok_or_else(|| complaint(&errors, "it ended"))
}

type Spawned = (Child, Receiver<String>, Receiver<String>);

fn spawn(
    contestant: &Contestant,
    job: &[String],
    cores: Cores,
    place: Place,
) -> Result<Spawned, String> {
    // A child inherits the cores that its parent's thread may use.
    let pinned = match place {
        Place::ServerCore => Cores::pin(cores.server),
        Place::BothCores => cores.pin_to_both(),
    };
    pinned.map_err(|error| format!("cannot choose a core: {error}"))?;
    let mut command = contestant.command();
    command
        .args(job)
        .args(contestant.options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let spawned = command.spawn();
    Cores::pin(cores.load).map_err(|error| format!("cannot choose a core: {error}"))?;
    let mut child = spawned.map_err(|error| format!("cannot be started: {error}"))?;
    let output = child.stdout.take().expect("it is piped");
    let errors = child.stderr.take().expect("it is piped");
    let lines = read_lines(BufReader::new(output));
    let errors = read_lines(BufReader::new(errors));
    Ok((child, lines, errors))
}

fn read_lines(reader: impl BufRead + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The last words of a program that failed.
fn complaint(errors: &Receiver<String>, what: &str) -> String {
    // Its end may be noticed before its last words.
    let mut last = None;
    while let Ok(line) = errors.recv_timeout(Duration::from_millis(100)) {
        if !line.trim().is_empty() && !line.starts_with("note:") {
            last = Some(line);
        }
    }
    match last {
        Some(words) => format!("{what}: {words}"),
        None => what.to_owned(),
    }
}

fn queues(process: u32) -> String {
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd"));
    let links = descriptors.into_iter().flatten().flatten();
    let links = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let links: Vec<String> = links
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    let has = |name: &str| links.iter().any(|link| link.contains(name));
    let mut seen = Vec::new();
    if has("io_uring") {
        seen.push("io_uring");
    }
    if has("eventpoll") {
        seen.push("epoll");
    }
    seen.join(" and ")
}

const PATIENCE: Duration = Duration::from_secs(20);
const JOB_PATIENCE: Duration = Duration::from_secs(60);
