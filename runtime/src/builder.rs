//! How a run begins: with the defaults, or with the settings of a `Builder`.

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use trio_platform::{Backend, Config, open, sim::Simulation};

use crate::deadlock::{self, Deadlock, Handler};
use crate::error::Result;
use crate::guest::{self, GuestRun, Host};
use crate::instrument::{Instrument, Instruments};
use crate::run::{Parts, Run, run_to_end};
use crate::thread::Watchdog;
use crate::time::Clock;

/// Runs `main` on this thread, with everything that it starts, and returns its output.
///
/// Uses `io_uring` where it works and `polling` where it does not ([`backend`](crate::backend) says
/// which, and why), unless the environment variable `TRIO_BACKEND` names one of them.
///
/// # Panics
///
/// With the panic of a task. If no backend works, or the one that `TRIO_BACKEND` names does not;
/// [`Builder::try_run`] returns that as an error. If called from inside a run.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// let answer = trio::run(async { 6 * 7 });
/// assert_eq!(answer, 42);
/// ```
#[doc(alias = "block_on")]
#[track_caller]
pub fn run<F: Future>(main: F) -> F::Output {
    Builder::new().run(main)
}

/// Configures a run before it begins.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// use trio::{Backend, Builder, backend};
///
/// let used = Builder::new().backend(Backend::Polling).run(async { backend().backend() });
/// assert_eq!(used, Backend::Polling);
/// ```
#[doc(alias = "Runtime")]
#[derive(Default)]
#[must_use = "a builder does nothing until `run`"]
pub struct Builder {
    config: Config,
    clock: Option<Rc<dyn Clock>>,
    seed: Option<u64>,
    instruments: Instruments,
    on_deadlock: Option<Handler>,
    watchdog: Option<Watchdog>,
}

impl Builder {
    /// A run with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses this backend and no other; the run fails to begin if it does not work here.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.config.backend = Some(backend);
        self
    }

    /// Takes the time from `clock` instead of the system.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Some(Rc::new(clock));
        self
    }

    /// Runs tasks that are ready at the same time in an order that `seed` decides, the same for the
    /// same seed. Without a seed they run in the order in which they became ready, which no program
    /// should depend on.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How many submissions the ring holds before they must be passed to the kernel: a power of
    /// two, by default 256. Any beyond that wait, and are never lost.
    pub fn entries(mut self, entries: u32) -> Self {
        self.config.entries = Some(entries);
        self
    }

    /// Runs in a simulated world instead of the real one: in virtual time, on an in-memory network.
    pub fn simulation(mut self, world: Simulation) -> Self {
        self.config.simulation = Some(world);
        self
    }

    /// Adds an observer; see also [`add_instrument`](crate::lowlevel::add_instrument).
    pub fn instrument(self, instrument: impl Instrument + 'static) -> Self {
        self.instruments.add(instrument);
        self
    }

    /// Lets a thread watch that the loop keeps turning, and report what blocks it; see
    /// [`Watchdog`].
    pub fn watchdog(mut self, watchdog: Watchdog) -> Self {
        self.watchdog = Some(watchdog);
        self
    }

    /// Calls `function` when nothing can wake the run any more, instead of writing the [`Deadlock`]
    /// to standard error (and, with the feature `tracing`, logging a warning).
    ///
    /// Called once, on the thread of the run and outside any task. It may do anything that is not
    /// asynchronous, such as cancelling a scope, after which the run goes on. If it panics, the run
    /// fails: it is cancelled, and the panic comes out of `run`. If it does nothing, the run waits on
    /// in silence.
    ///
    /// # Examples
    ///
    /// ```
    /// # use trio_runtime as trio;
    /// use trio::{Builder, CancelScope, sync::Event};
    ///
    /// let scope = CancelScope::new();
    /// let rescue = scope.clone();
    /// let event = Event::new();
    /// let value = Builder::new()
    ///     .on_deadlock(move |deadlock| rescue.cancel(deadlock.to_string()))
    ///     .run(scope.enter(event.wait()))?;
    /// assert_eq!(value, None);
    /// # Ok::<(), trio::Error>(())
    /// ```
    pub fn on_deadlock(mut self, function: impl FnMut(&Deadlock) + 'static) -> Self {
        self.on_deadlock = Some(Box::new(function));
        self
    }

    /// Panics when nothing can wake the run any more, with the tree of what its tasks wait for.
    /// `#[trio::test]` does this, since a test that fails is worth more than one that hangs.
    ///
    /// # Examples
    ///
    /// ```should_panic
    /// # use trio_runtime as trio;
    /// use trio::{Builder, sync::Event};
    ///
    /// let event = Event::new();
    /// Builder::new().fail_on_deadlock().run(event.wait()).unwrap();
    /// ```
    pub fn fail_on_deadlock(self) -> Self {
        self.on_deadlock(|deadlock| panic!("{deadlock}"))
    }

    /// Runs `main`; see [`run`].
    ///
    /// # Panics
    ///
    /// As [`run`].
    #[track_caller]
    pub fn run<F: Future>(self, main: F) -> F::Output {
        match self.begin() {
            Ok(parts) => run_to_end(parts, main, Location::caller()),
            Err(error) => panic!("the run cannot begin: {error}"),
        }
    }

    /// Runs `main`, and returns an error if the run cannot begin.
    ///
    /// # Errors
    ///
    /// Why the backend does not work, with the cause and the remedy; or that this thread is in a
    /// run already.
    ///
    /// # Panics
    ///
    /// With the panic of a task.
    #[track_caller]
    pub fn try_run<F: Future>(self, main: F) -> io::Result<F::Output> {
        let place = Location::caller();
        Ok(run_to_end(self.begin()?, main, place))
    }

    /// Begins a run as a guest on the loop of `host`, on this thread, and returns at once.
    ///
    /// From then on the host calls, in its own time, the functions that it is [given](Host): each is
    /// one turn of the run. Where the run would wait, another thread waits in its place.
    ///
    /// When this returns, the run has begun, and no task has been polled: whatever asks for the run of
    /// this thread, such as [`current_trio_token`](crate::lowlevel::current_trio_token), works in the
    /// host's code too, which is [in the run](crate::lowlevel::in_run) and
    /// [in no task](crate::lowlevel::in_task). It may set events, send by `try_send`, cancel scopes and
    /// move deadlines; the run takes note at once.
    ///
    /// When the run has ended, `done` is called on this thread with the output of `main`, or with
    /// the panic that ended the run, wherever it happened: in a task, in the loop, or in the thread
    /// that waits.
    ///
    /// # Errors
    ///
    /// Why a run cannot begin, as for [`try_run`](Self::try_run). A simulation cannot be a guest,
    /// because its time passes only in its turns; a guest may use a
    /// [`MockClock`](crate::testing::MockClock).
    ///
    /// # Examples
    ///
    /// ```
    /// # use trio_runtime as trio;
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use std::sync::mpsc;
    /// use trio::{Builder, HostCall};
    ///
    /// // The loop of a host: it makes the calls that come in.
    /// let (send, calls) = mpsc::channel::<HostCall>();
    /// let host = move |call| drop(send.send(call));
    ///
    /// let output = Rc::new(Cell::new(None));
    /// let seen = output.clone();
    /// let guest = Builder::new().start_guest_run(
    ///     async {
    ///         trio::checkpoint().await?;
    ///         Ok::<_, trio::Error>(6 * 7)
    ///     },
    ///     host,
    ///     move |outcome| output.set(outcome.ok()),
    /// )?;
    /// while !guest.is_finished() {
    ///     let call = calls.recv().unwrap();
    ///     call();
    /// }
    /// assert_eq!(seen.take().unwrap().unwrap(), 42);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn start_guest_run<F>(
        self,
        main: F,
        host: impl Host,
        done: impl FnOnce(std::thread::Result<F::Output>) + 'static,
    ) -> io::Result<GuestRun>
    where
        F: Future + 'static,
    {
        let place = Location::caller();
        guest::start(self.begin()?, main, Arc::new(host), Box::new(done), place)
    }

    fn begin(self) -> Result<Parts, io::Error> {
        Run::refuse_nesting()?;
        let opened = open(&self.config)?;
        Ok(Parts {
            driver: opened.driver,
            fallback: opened.fallback.map(|error| error.to_string()),
            clock: self.clock,
            seed: self.seed,
            instruments: self.instruments,
            watchdog: self.watchdog.map(Watchdog::watch).transpose()?,
            on_deadlock: self
                .on_deadlock
                .unwrap_or_else(|| Box::new(deadlock::print)),
        })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
