//! What a server has done so far, and what that cost, as a line of text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::service::TALLIES;

/// A snapshot of a server: its counters, and the account that the system keeps of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// The time since the first report.
    pub at_ns: u64,
    /// Processor time in user mode. The system tells user from system mode by sampling; the sum is
    /// exact.
    pub user_us: u64,
    /// Processor time in the kernel.
    pub system_us: u64,
    /// How often a thread gave the processor up to wait.
    pub voluntary: u64,
    /// How often the processor was taken from a thread.
    pub involuntary: u64,
    /// Anonymous memory that is resident: the program's text is not counted.
    pub anonymous_kib: u64,
    /// The most that was ever resident, text included.
    pub peak_kib: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that have ended.
    pub ended: u64,
    /// Bytes received.
    pub bytes: u64,
}

impl Report {
    /// Takes a snapshot now.
    pub fn take() -> Self {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let start = *START;
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the own account can be read");
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut report = Self {
            user_us: usage.user_time().num_microseconds().unsigned_abs(),
            system_us: usage.system_time().num_microseconds().unsigned_abs(),
            voluntary: usage.voluntary_context_switches().unsigned_abs(),
            involuntary: usage.involuntary_context_switches().unsigned_abs(),
            anonymous_kib: kib(&status, "RssAnon:"),
            peak_kib: kib(&status, "VmHWM:"),
            ..Self::default()
        };
        for tally in TALLIES.lock().expect("nobody panics with it").iter() {
            report.accepted += tally.accepted.load(Ordering::Relaxed);
            report.ended += tally.ended.load(Ordering::Relaxed);
            report.bytes += tally.bytes.load(Ordering::Relaxed);
        }
        report.at_ns = u64::try_from(start.elapsed().as_nanos()).expect("centuries fit");
        report
    }

    /// Reads a line that a server has written.
    pub fn parse(line: &str) -> Option<Self> {
        let fields = fields(line.strip_prefix("report ")?);
        let number = |name: &str| fields.get(name)?.parse().ok();
        Some(Self {
            at_ns: number("at_ns")?,
            user_us: number("user_us")?,
            system_us: number("system_us")?,
            voluntary: number("voluntary")?,
            involuntary: number("involuntary")?,
            anonymous_kib: number("anonymous_kib")?,
            peak_kib: number("peak_kib")?,
            accepted: number("accepted")?,
            ended: number("ended")?,
            bytes: number("bytes")?,
        })
    }

    /// Processor time of both modes.
    pub fn cpu_us(&self) -> u64 {
        self.user_us + self.system_us
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "report at_ns={} user_us={} system_us={} voluntary={} involuntary={} \
             anonymous_kib={} peak_kib={} accepted={} ended={} bytes={}",
            self.at_ns,
            self.user_us,
            self.system_us,
            self.voluntary,
            self.involuntary,
            self.anonymous_kib,
            self.peak_kib,
            self.accepted,
            self.ended,
            self.bytes
        )
    }
}

/// The fields of a line of `NAME=VALUE` pairs.
pub fn fields(line: &str) -> BTreeMap<&str, &str> {
    line.split_whitespace()
        .filter_map(|field| field.split_once('='))
        .collect()
}

fn kib(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_its_line() {
        let report = Report {
            bytes: 7,
            peak_kib: 9,
            ..Report::take()
        };
        let line = report.to_string();
        assert_eq!(Report::parse(&line).unwrap().to_string(), line);
        assert!(Report::parse("report at_ns=1").is_none());
        assert!(Report::parse("ready port=1").is_none());
    }
}
