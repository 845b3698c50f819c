//! What has happened in a simulated world, for two runs to be compared.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use super::fault::Fault;
use super::script::Kind;
use crate::Time;
use crate::op::is_cancelled;

/// One thing that happened, and when.
///
/// Operations bear the number in which their driver was given them, so that a trace does not depend
/// on the tokens of the runtime.
///
/// # Examples
///
/// ```
/// use trio_platform::sim::Simulation;
/// use trio_platform::{Driver, Wait};
///
/// let simulation = Simulation::new(1);
/// let mut driver = simulation.driver();
/// driver.turn(Wait::For(std::time::Duration::from_secs(2)), &mut Vec::new())?;
/// assert_eq!(simulation.trace()[0].to_string(), "100002s: time passes");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TraceEvent {
    /// When it happened.
    pub at: Time,
    /// What it was.
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum What {
    /// The kernel took in an operation.
    Started {
        /// Its number.
        operation: u32,
        /// Its name.
        name: &'static str,
    },
    /// The kernel took in a request to cancel an operation.
    Cancelling {
        /// The number of the operation.
        operation: u32,
    },
    /// An operation ended, and was reported.
    Ended {
        /// Its number.
        operation: u32,
        /// How it ended.
        outcome: Outcome,
    },
    /// A fault was injected.
    Injected {
        /// Into what.
        kind: Kind,
        /// The fault.
        fault: Fault,
    },
    /// Nothing was left to do, and time went on to the next event or the end of a wait.
    TimePassed,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// With this result.
    Done(u32),
    /// It was cancelled, and did not happen.
    Cancelled,
    /// With an error of this kind.
    Failed(io::ErrorKind),
}

impl Outcome {
    pub(super) fn of(result: &io::Result<u32>) -> Self {
        match result {
            Ok(count) => Self::Done(*count),
            Err(error) if is_cancelled(error) => Self::Cancelled,
            Err(error) => Self::Failed(error.kind()),
        }
    }
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at - Time::from_nanos(0);
        write!(f, "{at:?}: {}", self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { operation, name } => write!(f, "{name} {operation} starts"),
            Self::Cancelling { operation } => write!(f, "cancel of {operation} starts"),
            Self::Ended { operation, outcome } => write!(f, "{operation} ends: {outcome}"),
            Self::Injected { kind, fault } => write!(f, "fault in {kind}: {fault:?}"),
            Self::TimePassed => f.write_str("time passes"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(count) => write!(f, "{count}"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Failed(kind) => write!(f, "{kind}"),
        }
    }
}

/// The latest events, and a print of all of them.
#[derive(Debug)]
pub(super) struct Trace {
    latest: VecDeque<TraceEvent>,
    all: DefaultHasher,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self {
            latest: VecDeque::new(),
            all: DefaultHasher::new(),
        }
    }

    pub(super) fn record(&mut self, event: TraceEvent) {
        event.hash(&mut self.all);
        if self.latest.len() == EVENTS_MAX {
            self.latest.pop_front();
        }
        self.latest.push_back(event);
    }

    pub(super) fn latest(&self) -> Vec<TraceEvent> {
        self.latest.iter().copied().collect()
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.all.finish()
    }
}

/// Enough to read what led to a failure, and little enough for a simulation of days.
pub(super) const EVENTS_MAX: usize = 100_000;
