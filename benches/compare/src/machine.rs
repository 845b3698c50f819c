//! What this was measured on, and how quiet it was.

use std::fs;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Which core is whose.
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

    /// Keeps this thread, and what it starts from now on, on `core`.
    pub(crate) fn pin(core: usize) -> std::io::Result<()> {
        let mut set = CpuSet::new();
        set.set(core);
        Ok(sched_setaffinity(None, &set)?)
    }

    /// Lets this thread, and what it starts from now on, use both.
    pub(crate) fn pin_to_both(self) -> std::io::Result<()> {
        let mut set = CpuSet::new();
        set.set(self.server);
        set.set(self.load);
        Ok(sched_setaffinity(None, &set)?)
    }
}

/// The machine in lines.
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

/// How long all cores together have been busy, for whomever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Busy {
    ticks: u64,
}

impl Busy {
    pub(crate) fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let numbers = line.split_whitespace().skip(1);
        let numbers: Vec<u64> = numbers.filter_map(|word| word.parse().ok()).collect();
        // All but idle and waiting for a disk; what the host took away counts as busy.
        let ticks = numbers
            .iter()
            .enumerate()
            .filter(|(column, _)| ![3, 4].contains(column))
            .take(8)
            .map(|(_, ticks)| ticks)
            .sum();
        Self { ticks }
    }

    /// Microseconds since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> u64 {
        // A tick of /proc is a hundredth of a second on every Linux.
        (self.ticks - earlier.ticks) * 10_000
    }
}

/// The load of the machine in the last minute.
pub(crate) fn load_average() -> String {
    let average = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    average.split(' ').next().unwrap_or_default().to_owned()
}
