//! What can go wrong, how often by chance, and what has been decided for one operation.

use std::time::Duration;

use super::errno::Errno;
use super::random::Random;
use super::script::Kind;

/// How often things go wrong at random, per thousand cases; by default never.
///
/// The faults that a driver hides from the runtime, or that a runtime must always expect, are all
/// in [`Faults::chaos`]. Resets and failed accepts are what a program sees of a bad network; they
/// are in [`Faults::storm`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use trio_platform::sim::{Faults, Simulation};
///
/// let faults = Faults::none()
///     .short_transfers(500)
///     .late_completions(100)
///     .delay_max(Duration::from_millis(20));
/// let simulation = Simulation::new(1).faults(faults);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Faults {
    short_transfers: u16,
    late_starts: u16,
    late_completions: u16,
    late_cancels: u16,
    exhausted_buffers: u16,
    failed_enters: u16,
    failed_accepts: u16,
    resets: u16,
    delay_max: Duration,
}

impl Faults {
    /// Nothing goes wrong.
    pub const fn none() -> Self {
        Self {
            short_transfers: 0,
            late_starts: 0,
            late_completions: 0,
            late_cancels: 0,
            exhausted_buffers: 0,
            failed_enters: 0,
            failed_accepts: 0,
            resets: 0,
            delay_max: Duration::from_millis(10),
        }
    }

    /// Everything that may happen on a good network, far more often than there: a correct program gives
    /// the same answers as without it.
    pub const fn chaos() -> Self {
        Self::none()
            .short_transfers(300)
            .late_starts(150)
            .late_completions(150)
            .late_cancels(300)
            .exhausted_buffers(100)
            .failed_enters(200)
    }

    /// [`Faults::chaos`] on a bad network: connections break, and accepts fail.
    pub const fn storm() -> Self {
        Self::chaos().resets(10).failed_accepts(50)
    }

    /// Receives and sends move fewer bytes than they could.
    pub const fn short_transfers(mut self, per_mille: u16) -> Self {
        self.short_transfers = per_mille;
        self
    }

    /// The kernel looks at an operation later than it was submitted, so that a cancel may win over
    /// one that could have succeeded at once.
    pub const fn late_starts(mut self, per_mille: u16) -> Self {
        self.late_starts = per_mille;
        self
    }

    /// The end of an operation is reported later than it comes, so that a cancel finds it too late.
    pub const fn late_completions(mut self, per_mille: u16) -> Self {
        self.late_completions = per_mille;
        self
    }

    /// A cancel takes effect later than it was asked for.
    pub const fn late_cancels(mut self, per_mille: u16) -> Self {
        self.late_cancels = per_mille;
        self
    }

    /// A receive finds no provided buffer (`ENOBUFS`), and the driver repeats it with one of its
    /// own; see [`buffers_exhausted`](crate::DriverStatistics::buffers_exhausted).
    pub const fn exhausted_buffers(mut self, per_mille: u16) -> Self {
        self.exhausted_buffers = per_mille;
        self
    }

    /// The call that submits and waits fails with `EAGAIN` or `EINTR`, and the driver repeats it;
    /// see [`enters`](crate::DriverStatistics::enters).
    pub const fn failed_enters(mut self, per_mille: u16) -> Self {
        self.failed_enters = per_mille;
        self
    }

    /// An accept fails with `EMFILE`, `ENFILE`, `ENOMEM` or `ECONNABORTED`. With the last the
    /// connection is lost; with the others it stays in the queue.
    pub const fn failed_accepts(mut self, per_mille: u16) -> Self {
        self.failed_accepts = per_mille;
        self
    }

    /// A connection is reset by a receive or a send on it.
    pub const fn resets(mut self, per_mille: u16) -> Self {
        self.resets = per_mille;
        self
    }

    /// How late the late ones are at most; ten milliseconds by default.
    pub const fn delay_max(mut self, delay: Duration) -> Self {
        self.delay_max = delay;
        self
    }

    /// A fault of chance for one case of `kind`, or none.
    ///
    /// At most one a case: two at once show nothing that each alone does not, and the trace of one
    /// can be read.
    pub(super) fn draw(&self, kind: Kind, random: &mut Random) -> Option<Fault> {
        let transfers = matches!(kind, Kind::Receive | Kind::Send);
        let operates = !matches!(kind, Kind::Cancel | Kind::Enter);
        if transfers && random.chance(self.short_transfers) {
            // Mostly tiny, where mistakes hide, and now and then nearly a block.
            return Some(Fault::Short(1 << random.below(14)));
        }
        if transfers && random.chance(self.resets) {
            return Some(Fault::Reset);
        }
        if kind == Kind::Receive && random.chance(self.exhausted_buffers) {
            return Some(Fault::NoBuffer);
        }
        if kind == Kind::Accept && random.chance(self.failed_accepts) {
            return Some(Fault::Fail(pick(&FAILED_ACCEPTS, random)));
        }
        if kind == Kind::Enter && random.chance(self.failed_enters) {
            return Some(Fault::Fail(pick(&FAILED_ENTERS, random)));
        }
        if kind == Kind::Cancel && random.chance(self.late_cancels) {
            return Some(Fault::LateStart(self.delay(random)));
        }
        if operates && random.chance(self.late_starts) {
            return Some(Fault::LateStart(self.delay(random)));
        }
        if operates && random.chance(self.late_completions) {
            return Some(Fault::LateCompletion(self.delay(random)));
        }
        None
    }

    fn delay(&self, random: &mut Random) -> Duration {
        let nanos = u64::try_from(self.delay_max.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random.below(nanos.max(1)))
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// A receive or a send moves at most this many bytes, and at least one.
    Short(usize),
    /// The kernel looks at the operation, or at the cancel, this much later.
    LateStart(Duration),
    /// The end of the operation is reported this much later than it comes.
    LateCompletion(Duration),
    /// A receive finds no provided buffer, and is repeated with one of the driver's own.
    NoBuffer,
    /// The connection is reset, at both ends, before the receive or the send.
    Reset,
    /// The operation fails with this error when it would have succeeded. An accept that fails with
    /// [`Errno::ConnectionAborted`] loses the connection.
    Fail(Errno),
}

impl Fault {
    /// Whether it can happen to something of this kind.
    pub(super) fn fits(self, kind: Kind) -> bool {
        match self {
            Self::Short(_) | Self::Reset => matches!(kind, Kind::Receive | Kind::Send),
            Self::NoBuffer => kind == Kind::Receive,
            Self::LateStart(_) => kind != Kind::Enter,
            Self::LateCompletion(_) => !matches!(kind, Kind::Enter | Kind::Cancel),
            Self::Fail(errno) => match kind {
                Kind::Cancel => false,
                Kind::Enter => FAILED_ENTERS.contains(&errno),
                _ => errno != Errno::Again,
            },
        }
    }
}

fn pick(from: &[Errno], random: &mut Random) -> Errno {
    let index = random.below(from.len() as u64);
    from[usize::try_from(index).expect("an index fits")]
}

const FAILED_ACCEPTS: [Errno; 4] = [
    Errno::TooManyFiles,
    Errno::TooManyFilesInSystem,
    Errno::OutOfMemory,
    Errno::ConnectionAborted,
];

const FAILED_ENTERS: [Errno; 2] = [Errno::Again, Errno::Interrupted];
