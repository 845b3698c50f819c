//! What a message consists of: system calls, waits, and where the processor is while it is served.
//!
//! None of this is measured together with the rest, because it disturbs what it counts. Counts are
//! of tracepoints, and exact: from before the first message until after the last, over the messages
//! in between. Shares are of samples by `perf record`, with the kernel's half of the stack. (The
//! user and system time in the system's account are sampled too, and much more coarsely.)

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::workload::Entrant;

/// What was found about one server in one cell.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    /// System calls a message.
    pub(crate) calls: f64,
    /// Those of them that ask for events or completions: turns of the loop.
    pub(crate) turns: f64,
    /// How often the processor was given away, per message.
    pub(crate) switches: f64,
    /// The share of the samples in each of [`PLACES`], and last the share that fell into none.
    pub(crate) shares: Vec<f64>,
    pub(crate) samples: usize,
}

/// Why no profile can be made here, or `None` if one can.
pub(crate) fn missing() -> Option<String> {
    let version = perf().arg("--version").output();
    match version {
        Ok(output) if output.status.success() => None,
        Ok(_) => Some("`perf` does not start: install the one of this kernel".to_owned()),
        Err(_) => Some("there is no `perf`".to_owned()),
    }
}

/// Profiles a server twice while it works.
pub(crate) fn profile(entrant: &mut dyn Entrant, scratch: &Path) -> Result<Profile, String> {
    let process = entrant.process().ok_or("it is not a server")?.to_string();
    let mut count = perf();
    count.args(["stat", "-x", ",", "-e", &events(), "-p", &process]);
    let (messages, said) = watch(count, entrant)?;
    let calls = counted(&said, "raw_syscalls:sys_enter")
        .ok_or_else(|| format!("perf counts nothing: {}", said.trim()))?;
    let turns = TURNS.iter().map(|call| counted(&said, &event(call)));
    let turns: f64 = turns.flatten().sum();
    let switches = counted(&said, "context-switches").unwrap_or_default();
    let file = scratch.join("perf.data");
    let mut sampled = sample(&process, &file, entrant)?;
    for _ in 1..TRIES {
        if sampled.1 > 0 {
            break;
        }
        sampled = sample(&process, &file, entrant)?;
    }
    let (shares, samples) = sampled;
    if samples == 0 {
        return Err("perf has no samples".to_owned());
    }
    Ok(Profile {
        calls: calls / messages,
        turns: turns / messages,
        switches: switches / messages,
        shares,
        samples,
    })
}

/// Samples a server while it works; returns the shares of the places, and the number of samples.
fn sample(
    process: &str,
    file: &Path,
    entrant: &mut dyn Entrant,
) -> Result<(Vec<f64>, usize), String> {
    let mut record = perf();
    record
        .args(["record", "-q", "-g", "-e", "cpu-clock", "-F", FREQUENCY])
        .args(["-p", process, "-o"])
        .arg(file);
    watch(record, entrant)?;
    let mut script = perf();
    script.args(["script", "-F", "ip,sym,dso", "-i"]).arg(file);
    let output = script.output().map_err(|error| error.to_string())?;
    // Fails if there is no such file, in which case there are no samples either.
    std::fs::remove_file(file).ok();
    Ok(shares(&String::from_utf8_lossy(&output.stdout)))
}

/// Lets the server work while `tool` watches; returns the number of messages, and what `tool`
/// printed.
fn watch(mut tool: Command, entrant: &mut dyn Entrant) -> Result<(f64, String), String> {
    let tool = tool
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let tool: Child = tool.spawn().map_err(|error| error.to_string())?;
    // The load sleeps while the tool opens its events, so that no message is missed.
    let begin = Instant::now();
    while !holds_events(tool.id()) && begin.elapsed() < PATIENCE {
        std::thread::sleep(ATTACH);
    }
    std::thread::sleep(ATTACH);
    let messages = entrant.run(LOOK);
    if let Some(process) = i32::try_from(tool.id()).ok().and_then(Pid::from_raw) {
        // Fails if the tool has ended, in which case it has said why.
        kill_process(process, Signal::INT).ok();
    }
    let output = tool.wait_with_output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((messages? as f64, said))
}

/// Whether the process `tool` has begun to open events.
fn holds_events(tool: u32) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{tool}/fd"));
    let links = descriptors.into_iter().flatten().flatten();
    let mut links = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.any(|link| link.to_string_lossy().contains("perf_event"))
}

/// Reads a line of `perf stat -x ,`, which begins with the count, a unit, and the event.
fn counted(said: &str, event: &str) -> Option<f64> {
    let mut lines = said.lines().map(|line| line.split(','));
    lines.find_map(|mut fields| {
        let count = fields.next()?;
        (fields.nth(1)? == event).then(|| count.parse().ok())?
    })
}

/// The share of the samples in each place, and their number. Each block of lines is a sample, with
/// the innermost frame first.
fn shares(script: &str) -> (Vec<f64>, usize) {
    let mut counts = vec![0_usize; PLACES.len() + 1];
    for sample in script.split("\n\n") {
        let frames: Vec<&str> = sample.lines().filter(|line| !line.is_empty()).collect();
        if !frames.is_empty() {
            counts[place(&frames)] += 1;
        }
    }
    let samples: usize = counts.iter().sum();
    let part = |count| count as f64 / samples.max(1) as f64;
    (counts.into_iter().map(part).collect(), samples)
}

/// The place of a sample: outside the kernel, or the first place that has one of its functions on
/// the kernel's stack.
fn place(frames: &[&str]) -> usize {
    let kernel = frames
        .iter()
        .take_while(|frame| frame.contains("([kernel") || frame.contains("([guest"));
    let functions: Vec<&str> = kernel
        .filter_map(|frame| frame.split_whitespace().nth(1))
        .collect();
    let on_stack = |names: &[&str]| {
        let mut functions = functions.iter();
        functions.any(|function| names.iter().any(|name| function.starts_with(name)))
    };
    if functions.is_empty() {
        return 0;
    }
    let found = PLACES.iter().position(|(_, names)| on_stack(names));
    found.unwrap_or(PLACES.len())
}

fn perf() -> Command {
    let mut perf = Command::new("perf");
    perf.env("LC_ALL", "C");
    perf
}

fn events() -> String {
    let mut events = "raw_syscalls:sys_enter,context-switches".to_owned();
    for call in TURNS {
        events += &format!(",{}", event(call));
    }
    events
}

fn event(call: &str) -> String {
    format!("syscalls:sys_enter_{call}")
}

/// The system calls with which a loop waits, or checks whether it has to.
const TURNS: [&str; 5] = [
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "io_uring_enter",
    "ppoll",
];

/// Places of the kernel, each with the functions that lead there. A function that leads to several
/// counts for the first. A send over the loopback also delivers: the peer's socket gets the bytes,
/// and its reader is woken, before the call returns.
pub(crate) const PLACES: &[(&str, &[&str])] = &[
    ("program", &[]),
    ("TCP, sending", &["tcp_sendmsg"]),
    (
        "TCP, receiving",
        &["tcp_recvmsg", "inet_recvmsg", "sock_recvmsg"],
    ),
    (
        "TCP, opening and closing",
        &[
            "inet_csk_accept",
            "inet_accept",
            "inet_release",
            "tcp_close",
            "__sock_release",
            "sock_alloc_file",
            "do_accept",
        ],
    ),
    (
        "TCP, interrupts",
        &["tcp_v4_rcv", "net_rx_action", "__napi_poll"],
    ),
    (
        "waiting and switching",
        &[
            "schedule",
            "__schedule",
            "io_schedule",
            "schedule_hrtimeout",
            "finish_task_switch",
            "preempt_schedule",
        ],
    ),
    (
        "io_uring",
        &[
            "io_",
            "__io_",
            "__do_sys_io_uring",
            "__x64_sys_io_uring",
            "__se_sys_io_uring",
        ],
    ),
    (
        "epoll",
        &["ep_", "do_epoll", "__x64_sys_epoll", "eventpoll", "__ep_"],
    ),
    (
        "way in and out",
        &[
            "entry_SYSCALL",
            "syscall_",
            "do_syscall_64",
            "__x64_sys",
            "x64_sys_call",
            "exit_to_user",
            "irqentry",
            "asm_",
        ],
    ),
];

/// How long each tool watches.
const LOOK: Duration = Duration::from_millis(1500);
/// How long a tool takes from opening its first event to its last, and how long it may take to
/// begin.
const ATTACH: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(5);
/// How often to try sampling before giving up: on a busy machine a tool may begin too late.
const TRIES: usize = 3;
/// Samples a second: not a divisor of any tick rate.
const FREQUENCY: &str = "4999";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_belongs_to_the_first_place_that_its_stack_names() {
        let place_of = |frames: &[&str]| {
            let place = place(frames);
            PLACES.get(place).map_or("elsewhere", |(name, _)| *name)
        };
        assert_eq!(place_of(&["  55d0 main (/tmp/server-trio)"]), "program");
        let send = [
            "  ffffffff81 sock_def_readable ([kernel.kallsyms])",
            "  ffffffff82 tcp_sendmsg_locked ([kernel.kallsyms])",
            "  ffffffff83 io_send ([kernel.kallsyms])",
            "  ffffffff84 do_syscall_64 ([kernel.kallsyms])",
            "  55d0 main (/tmp/server-trio)",
        ];
        assert_eq!(place_of(&send), "TCP, sending");
        assert_eq!(place_of(&send[2..]), "io_uring");
        assert_eq!(place_of(&send[3..]), "way in and out");
        let strange = ["  ffffffff81 kfree ([kernel.kallsyms])"];
        assert_eq!(place_of(&strange), "elsewhere");
    }

    #[test]
    fn shares_add_up() {
        let script = "\t 1 a (/x)\n\n\t 2 kfree ([kernel.kallsyms])\n\t 1 a (/x)\n\n";
        let (shares, samples) = shares(script);
        assert_eq!(samples, 2);
        assert_eq!((shares[0], *shares.last().unwrap()), (0.5, 0.5));
    }

    #[test]
    fn a_count_is_found_by_its_event() {
        let said = "12,,raw_syscalls:sys_enter,5,100.00,,\n<not counted>,,context-switches,0,0,,\n";
        assert_eq!(counted(said, "raw_syscalls:sys_enter"), Some(12.0));
        assert_eq!(counted(said, "context-switches"), None);
    }
}
