//! Signals of the process, received by a task.
//!
//! A signal is received like any other message, by a task that has asked for it; nothing happens to
//! code that has not. Wait for one in a task of its own, and let it cancel or drain a scope:
//!
//! ```no_run
//! # mod trio { pub use trio_runtime::*; pub mod io { pub use trio_io::*; } }
//! use std::time::Duration;
//! use trio::CancelScope;
//! use trio::io::signal::{Signal, open_signal_receiver};
//!
//! /// Lets what is in `scope` finish at the first signal, for at most ten seconds.
//! async fn stop_on_signal(scope: &CancelScope) -> trio::Result<()> {
//!     let mut signals = open_signal_receiver(&[Signal::INTERRUPT, Signal::TERMINATE])?;
//!     let signal = signals.next().await?;
//!     scope.drain(Duration::from_secs(10), format!("{signal}"));
//!     Ok(())
//! }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{self, FORBIDDEN};
use signal_hook::low_level::{pipe, unregister};
use signal_hook::{SigId, flag};
use trio_runtime::Result;
use trio_runtime::lowlevel::{self, Descriptor, Interest, Ready, TaskTree};

/// A signal, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// Ctrl-C at the terminal.
    pub const INTERRUPT: Self = Self(consts::SIGINT);
    /// The polite request to end.
    pub const TERMINATE: Self = Self(consts::SIGTERM);
    /// The terminal has gone; by convention, daemons read their configuration again.
    pub const HANGUP: Self = Self(consts::SIGHUP);
    /// For the program's own use.
    pub const USER_1: Self = Self(consts::SIGUSR1);
    /// For the program's own use.
    pub const USER_2: Self = Self(consts::SIGUSR2);

    /// The signal of that number on this system.
    pub const fn from_raw(number: i32) -> Self {
        Self(number)
    }

    /// The number of the signal on this system.
    pub const fn as_raw(self) -> i32 {
        self.0
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match signal_hook::low_level::signal_name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Receives `signals` from now on, instead of letting them have their effect on the process.
///
/// While the receiver lives, the default action of these signals (which for most ends the process)
/// does not happen. Several receivers may ask for the same signal, and each gets it.
///
/// # Errors
///
/// If `signals` is empty, if one of them cannot be received (`SIGKILL`, `SIGSTOP`, or a fault of the
/// program itself such as `SIGSEGV`), or if the system has no descriptors left.
///
/// # Examples
///
/// ```no_run
/// # mod trio { pub use trio_runtime::*; pub mod io { pub use trio_io::*; } pub mod testing { pub use trio_io::testing::*; } }
/// # trio::run(async {
/// use trio::io::signal::{Signal, open_signal_receiver};
///
/// let mut signals = open_signal_receiver(&[Signal::INTERRUPT, Signal::TERMINATE])?;
/// println!("ended by {}", signals.next().await?);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "ctrl_c")]
pub fn open_signal_receiver(signals: &[Signal]) -> io::Result<SignalReceiver> {
    if signals.is_empty() {
        let text = "name at least one signal to receive";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    let bell = Descriptor::from_file(reader.try_clone()?.into());
    let mut receiver = SignalReceiver {
        bell,
        reader,
        asked: Vec::new(),
    };
    for &signal in signals {
        // Named twice, it would be received twice.
        if receiver.asked.iter().any(|known| known.signal == signal) {
            continue;
        }
        if FORBIDDEN.contains(&signal.0) {
            return Err(refused(
                signal,
                "no program can receive it, or go on after it",
            ));
        }
        receiver.asked.push(Asked::new(signal, &writer)?);
    }
    Ok(receiver)
}

/// Why `signal` cannot be received. The kernel says only that an argument is invalid.
fn refused(signal: Signal, reason: impl fmt::Display) -> io::Error {
    let text = format!("{signal} cannot be received: {reason}");
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Calls `sink` with the tree of all tasks of this run at each `signal` from now on, until the main
/// task has ended: to see from outside what a run that hangs is waiting for, and where.
///
/// A [system task](lowlevel::spawn_system_task) does this, so the loop must still turn: while a task
/// blocks the thread of the run, nothing is shown.
///
/// # Errors
///
/// As for [`open_signal_receiver`]; or [`RunFinished`](trio_runtime::RunFinished) if the run is
/// about to end.
///
/// # Panics
///
/// Outside of a run.
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod io { pub use trio_io::*; } pub mod testing { pub use trio_io::testing::*; } }
/// # trio::run(async {
/// use trio::io::signal::{Signal, dump_on_signal};
///
/// // From now on `kill -USR1` shows what every task waits in.
/// dump_on_signal(Signal::USER_1, |tree| eprintln!("{tree}"))?;
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub fn dump_on_signal(signal: Signal, mut sink: impl FnMut(&TaskTree) + 'static) -> Result<()> {
    let mut signals = open_signal_receiver(&[signal])?;
    let dump = async move {
        loop {
            signals.next().await?;
            sink(&lowlevel::current_root_task());
        }
    };
    lowlevel::spawn_system_task_named("dump on signal", dump)?;
    Ok(())
}

/// A stream of signals, from [`open_signal_receiver`].
///
/// A signal that comes several times before it is received is received once. If a signal has come that
/// no receiver had received when the last of its receivers was dropped, it has its default effect then.
#[derive(Debug)]
pub struct SignalReceiver {
    /// Readable when a signal has come.
    bell: Descriptor,
    /// The same socket, from which the bell is emptied.
    reader: UnixStream,
    /// In the order in which they are checked; a signal that was received goes to the end.
    asked: Vec<Asked>,
}

impl SignalReceiver {
    /// Waits for a signal.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that no signal has been received.
    ///
    /// # Errors
    ///
    /// `Cancelled`, or what the system said while waiting.
    pub async fn next(&mut self) -> Result<Signal> {
        loop {
            lowlevel::enter_operation().await?;
            self.quiet();
            if let Some(signal) = self.take() {
                return Ok(signal);
            }
            let ready = Ready::new(self.bell.clone(), Interest::Readable);
            lowlevel::submit(ready).await?.into_ready()?;
        }
    }

    /// Empties the bell, before the flags are checked: a signal that comes later rings again.
    fn quiet(&mut self) {
        let mut scratch = [0; 64];
        while matches!(self.reader.read(&mut scratch), Ok(count) if count > 0) {}
    }

    fn take(&mut self) -> Option<Signal> {
        let at = self.asked.iter().position(Asked::take)?;
        let asked = self.asked.remove(at);
        let signal = asked.signal;
        self.asked.push(asked);
        // Another may be pending, for which the bell, now empty, will not ring again.
        Some(signal)
    }
}

/// One signal that one receiver has asked for.
#[derive(Debug)]
struct Asked {
    signal: Signal,
    /// It has come, and this receiver has not received it.
    raised: Arc<AtomicBool>,
    /// What the handler of the signal does for this receiver.
    hooks: Vec<SigId>,
    /// It has come, and no receiver has received it.
    unnoticed: Arc<AtomicBool>,
}

/// What all receivers of a signal have in common.
struct Common {
    receivers: usize,
    unnoticed: Arc<AtomicBool>,
    hook: SigId,
}

/// By the number of the signal, as long as it has receivers.
static COMMON: Mutex<BTreeMap<i32, Common>> = Mutex::new(BTreeMap::new());

impl Asked {
    fn new(signal: Signal, bell: &UnixStream) -> io::Result<Self> {
        let mut asked = Self {
            signal,
            raised: Arc::default(),
            hooks: Vec::new(),
            unnoticed: enter(signal)?,
        };
        // The flag first: it must be set when the bell rings.
        let flag = flag::register(signal.0, asked.raised.clone());
        asked.hooks.push(flag?);
        asked
            .hooks
            .push(pipe::register(signal.0, bell.try_clone()?)?);
        Ok(asked)
    }

    /// Whether the signal has come; it has been received then.
    fn take(&self) -> bool {
        if !self.raised.load(Ordering::Acquire) {
            return false;
        }
        // In this order: a signal that comes in between is received along with the one before, and is
        // no longer pending here, which is asked too before it has its default effect.
        self.unnoticed.store(false, Ordering::Release);
        self.raised.swap(false, Ordering::AcqRel)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        for hook in self.hooks.drain(..) {
            unregister(hook);
        }
        let was_last = leave(self.signal);
        let pending = self.raised.load(Ordering::Acquire);
        if was_last && pending && self.unnoticed.load(Ordering::Acquire) {
            // If that fails, nothing more can be done.
            drop(signal_hook::low_level::emulate_default_handler(
                self.signal.0,
            ));
        }
    }
}

/// Another receiver asks for `signal`.
fn enter(signal: Signal) -> io::Result<Arc<AtomicBool>> {
    let mut common = COMMON.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(common) = common.get_mut(&signal.0) {
        common.receivers += 1;
        return Ok(common.unnoticed.clone());
    }
    let unnoticed = Arc::<AtomicBool>::default();
    let hook = flag::register(signal.0, unnoticed.clone()).map_err(|error| refused(signal, error));
    let first = Common {
        receivers: 1,
        unnoticed: unnoticed.clone(),
        hook: hook?,
    };
    common.insert(signal.0, first);
    Ok(unnoticed)
}

/// A receiver of `signal` is dropped; returns whether it was the last.
fn leave(signal: Signal) -> bool {
    let mut common = COMMON.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(entry) = common.get_mut(&signal.0) else {
        return false;
    };
    entry.receivers -= 1;
    if entry.receivers > 0 {
        return false;
    }
    unregister(entry.hook);
    common.remove(&signal.0);
    true
}
