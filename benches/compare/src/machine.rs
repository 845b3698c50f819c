//! The machine that was measured on, and how quiet it was.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Which core belongs to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) load: usize,
    pub(crate) count: usize,
}

impl Cores {
    /// The first two cores that this process may use.
    pub(crate) fn pick() -> Self {
        let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let server = cores.next().unwrap_or(0);
        let load = cores.next().unwrap_or(server);
        Self {
            server,
            load,
            count: allowed.count() as usize,
        }
    }

    /// Binds this thread, and what it starts from now on, to `core`.
    pub(crate) fn pin(core: usize) -> std::io::Result<()> {
        let mut set = CpuSet::new();
        set.set(core);
        Ok(sched_setaffinity(None, &set)?)
    }

    /// Lets this thread, and what it starts from now on, use both cores.
    pub(crate) fn pin_to_both(self) -> std::io::Result<()> {
        let mut set = CpuSet::new();
        set.set(self.server);
        set.set(self.load);
        Ok(sched_setaffinity(None, &set)?)
    }
}

/// The description of the machine, in lines.
pub(crate) fn facts() -> Vec<(&'static str, String)> {
    let uname = rustix::system::uname();
    let kernel = format!(
        "{} {}",
        uname.sysname().to_string_lossy(),
        uname.release().to_string_lossy()
    );
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |line| line.trim_start_matches([' ', '\t', ':']));
    let virtual_machine = cpu
        .lines()
        .any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    let cores = Cores::pick();
    let mitigations = fs::read_to_string("/sys/devices/system/cpu/vulnerabilities/spectre_v2");
    vec![
        ("Kernel", kernel),
        (
            "Processor",
            format!(
                "{model}, {} cores{}",
                cores.count,
                if virtual_machine { ", virtual" } else { "" }
            ),
        ),
        (
            "Placement",
            if cores.server == cores.load {
                "server and load share the only core: do not trust this".to_owned()
            } else {
                format!(
                    "server on core {}, load on core {}",
                    cores.server, cores.load
                )
            },
        ),
        (
            "Spectre v2",
            mitigations.unwrap_or_default().trim().to_owned(),
        ),
        (
            "Build",
            format!("release, fat LTO, one codegen unit; {}", compiler()),
        ),
    ]
}

fn compiler() -> String {
    let output = std::process::Command::new("rustc")
        .arg("--version")
        .output();
    output.map_or_else(
        |_| "unknown compiler".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// How long a task, or all tasks of a process, were ready to run and had to wait for the processor.
#[derive(Clone, Debug)]
pub(crate) struct Delay {
    files: Vec<PathBuf>,
}

impl Delay {
    /// Counts the tasks that `process` has now.
    pub(crate) fn of_process(process: u32) -> Self {
        let tasks = fs::read_dir(format!("/proc/{process}/task"));
        let tasks = tasks.into_iter().flatten().flatten();
        Self {
            files: tasks.map(|task| task.path().join("schedstat")).collect(),
        }
    }

    /// Counts one thread of this process.
    pub(crate) fn of_thread(thread: u32) -> Self {
        Self {
            files: vec![PathBuf::from(format!("/proc/self/task/{thread}/schedstat"))],
        }
    }

    /// The delay until now, in nanoseconds; `None` where the kernel does not count it.
    pub(crate) fn now(&self) -> Option<u64> {
        let delays = self.files.iter().filter_map(|file| {
            let line = fs::read_to_string(file).ok()?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
        delays.reduce(|one, other| one + other)
    }
}

/// A duration as people say it.
pub(crate) fn minutes(time: Duration) -> String {
    format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60)
}

/// The load of the machine in the last minute.
pub(crate) fn load_average() -> String {
    let average = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    average.split(' ').next().unwrap_or_default().to_owned()
}
