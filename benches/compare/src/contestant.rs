//! Who takes part, and how their programs are built.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A runtime, or a limit, that takes part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    program: Program,
    /// The folder of the program.
    folder: &'static Path,
    /// Options that are passed to each job.
    pub(crate) options: &'static [&'static str],
    pub(crate) role: Role,
    /// The crate whose version is shown.
    pub(crate) version_of: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    /// A member of this workspace, in `servers/`.
    Server(&'static str),
    Python,
}

/// The role of a contestant in the ratios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Has no runtime; the better of the limits is the base of the ratios.
    Limit,
    Ours,
    Peer,
}

/// All of them, in the order of the tables.
pub(crate) fn all() -> Vec<Contestant> {
    let here: &Path = Box::leak(target().into_boxed_path());
    let contestant = |name, about, server, options, role, version_of| Contestant {
        name,
        about,
        program: Program::Server(server),
        folder: here,
        options,
        role,
        version_of,
    };
    vec![
        contestant(
            "bare-uring",
            "a bare io_uring loop",
            "bare",
            &["backend=io_uring"],
            Role::Limit,
            "io-uring",
        ),
        contestant(
            "bare-epoll",
            "a bare epoll loop",
            "bare",
            &["backend=epoll"],
            Role::Limit,
            "rustix",
        ),
        contestant(
            "trio",
            "io_uring, receiving leases",
            "trio",
            &["backend=io_uring"],
            Role::Ours,
            "trio",
        ),
        contestant(
            "trio-slice",
            "io_uring, receiving into a slice",
            "trio",
            &["backend=io_uring", "receive=slice"],
            Role::Ours,
            "trio",
        ),
        contestant(
            "trio-polling",
            "polling, receiving leases",
            "trio",
            &["backend=polling"],
            Role::Ours,
            "trio",
        ),
        contestant("tokio", "current_thread", "tokio", &[], Role::Peer, "tokio"),
        contestant("monoio", "io_uring", "monoio", &[], Role::Peer, "monoio"),
        contestant("compio", "io_uring", "compio", &[], Role::Peer, "compio"),
        contestant("ntex", "neon, io_uring", "ntex", &[], Role::Peer, "ntex"),
        contestant("glommio", "io_uring", "glommio", &[], Role::Peer, "glommio"),
        contestant(
            "smol",
            "LocalExecutor and async-io",
            "smol",
            &[],
            Role::Peer,
            "smol",
        ),
        Contestant {
            name: "python-trio",
            about: "Python Trio, if it is installed",
            program: Program::Python,
            folder: here,
            options: &[],
            role: Role::Peer,
            version_of: "",
        },
    ]
}

/// Those that `words` name, in that order. `NAME@FOLDER` is a contestant whose server was built
/// earlier and is in that folder; one that is named twice takes part twice, and competes with
/// itself.
pub(crate) fn named(words: &[String]) -> Result<Vec<Contestant>, String> {
    let mut chosen = Vec::new();
    let mut seen = BTreeMap::new();
    for word in words {
        let (name, folder) = match word.split_once('@') {
            Some((name, folder)) => (name, Some(Path::new(folder))),
            None => (word.as_str(), None),
        };
        let mut all = all().into_iter();
        let mut contestant = all
            .find(|contestant| contestant.name == name)
            .ok_or(format!("no such contestant: {name}"))?;
        let mut label = name.to_owned();
        if let Some(folder) = folder {
            let folder = fs::canonicalize(folder).map_err(|error| format!("{word}: {error}"))?;
            let last = folder.file_name().unwrap_or_default().to_string_lossy();
            label = format!("{name}@{last}");
            // A contestant is copied freely, and there are only a few in the life of this program.
            contestant.folder = Box::leak(folder.into_boxed_path());
        }
        let times = seen.entry((name, contestant.folder)).or_insert(0);
        *times += 1;
        if *times > 1 {
            label += &format!("-{times}");
        }
        contestant.name = Box::leak(label.into_boxed_str());
        chosen.push(contestant);
    }
    Ok(chosen)
}

impl Contestant {
    /// The folder of its server, if that was not built for this comparison.
    pub(crate) fn built_before(&self) -> Option<&'static Path> {
        (self.folder != target()).then_some(self.folder)
    }

    /// The program, with the arguments that come before the job.
    pub(crate) fn command(&self) -> Command {
        match self.program {
            Program::Server(server) => Command::new(self.folder.join(format!("server-{server}"))),
            Program::Python => {
                let mut python = Command::new("python3");
                python.arg(folder().join("python/server.py"));
                python
            }
        }
    }
}

/// Builds the programs of `contestants`; returns those that cannot take part, and why.
pub(crate) fn build(
    contestants: &[Contestant],
    mut progress: impl FnMut(&str),
) -> BTreeMap<&'static str, String> {
    let mut built: BTreeMap<&str, Result<(), String>> = BTreeMap::new();
    let mut absent = BTreeMap::new();
    for contestant in contestants {
        let result = match contestant.program {
            Program::Server(server) if contestant.built_before().is_some() => {
                let program = contestant.folder.join(format!("server-{server}"));
                match program.try_exists() {
                    Ok(true) => Ok(()),
                    _ => Err(format!("there is no {}", program.display())),
                }
            }
            Program::Server(server) => {
                progress(server);
                built
                    .entry(server)
                    .or_insert_with(|| build_server(server))
                    .clone()
            }
            Program::Python => python_version().map(drop),
        };
        if let Err(reason) = result {
            absent.insert(contestant.name, reason);
        }
    }
    absent
}

fn build_server(server: &str) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--manifest-path"])
        .arg(folder().join("Cargo.toml"))
        .args(["--package", &format!("server-{server}")])
        .output()
        .map_err(|error| format!("cargo cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let first = text.lines().find(|line| line.starts_with("error"));
    Err(format!(
        "does not build: {}",
        first.unwrap_or("cargo says nothing")
    ))
}

/// The version of Python Trio on this machine.
pub(crate) fn python_version() -> Result<String, String> {
    let script =
        "import sys, trio; print('trio', trio.__version__, 'on Python', sys.version.split()[0])";
    let output = Command::new("python3").args(["-c", script]).output();
    match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Ok(_) => Err("Python has no trio: `pip install trio`".to_owned()),
        Err(_) => Err("there is no python3".to_owned()),
    }
}

/// The version of a crate, as locked for this workspace.
pub(crate) fn locked_version(name: &str) -> Option<String> {
    let lock = fs::read_to_string(folder().join("Cargo.lock")).ok()?;
    // The servers use the newest version, which is the last; others are for their dependencies.
    let (_, rest) = lock.rsplit_once(&format!("name = \"{name}\"\nversion = \""))?;
    Some(rest.split('"').next()?.to_owned())
}

/// The folder of this workspace.
pub(crate) fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of the programs: that of this one, because it is built with the same profile.
fn target() -> PathBuf {
    let program = std::env::current_exe().expect("a program has a path");
    program.parent().expect("in a folder").to_owned()
}
