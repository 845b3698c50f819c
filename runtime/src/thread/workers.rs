//! One program on every core: a run for each worker, each on a thread of its own, supervised like
//! the children of a nursery.
//!
//! Tasks never leave their run, so nothing in a worker has to be `Send` or locked; workers share
//! only what the closure borrows, which has to be `Sync`.
//!
//! 1. The first error, or panic, of a worker cancels the others, which end in their own way and are
//!    waited for. A cancel from outside does the same.
//! 2. A cancel reaches a worker through the inbox of its run, as the cancel of a scope around its
//!    work. A worker that begins later finds the cancel when it registers, under the same lock.
//! 3. When all have ended, a panic is resumed; otherwise the errors come out as one group.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use super::limiter::ThreadLimiter;
use super::sync::{Mutex, lock};
use super::to_thread;
use super::token::{TrioToken, current_trio_token};
use crate::builder::Builder;
use crate::cancel::{CancelScope, CancelSource, Cancelled};
use crate::context;
use crate::error::{Error, Result, Usage};
use crate::run_var::RunVar;
use crate::sync::Borrower;
use crate::time::sleep_forever;

/// Runs `work` in `count` runs at once, each on a thread of its own, and returns their values in
/// the order of the workers; see [`Workers`] for more options.
///
/// Blocks this thread. Inside a run, use [`Workers::run_within`], which is an operation.
///
/// # Errors
///
/// A group of the errors of the workers, in order of arrival: the first cancels the others.
/// [`Usage`] if this thread is in a run.
///
/// # Panics
///
/// With the first panic of a worker, when all have ended. If `count` is zero.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// let sum = AtomicU32::new(0);
/// let squares = trio::run_workers(3, async |worker| {
///     trio::checkpoint().await?;
///     sum.fetch_add(1, Ordering::Relaxed);
///     Ok(worker.index() * worker.index())
/// })?;
/// assert_eq!(squares, [0, 1, 4]);
/// assert_eq!(sum.into_inner(), 3);
/// # Ok::<(), trio::Error>(())
/// ```
#[track_caller]
pub fn run_workers<F, T>(count: usize, work: F) -> Result<Vec<T>>
where
    F: AsyncFn(Worker) -> Result<T> + Sync,
    T: Send,
{
    Workers::new(count).run(work)
}

/// Which of several workers a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    index: usize,
    count: usize,
}

impl Worker {
    /// Its number, from zero.
    pub fn index(self) -> usize {
        self.index
    }

    /// How many workers there are.
    pub fn count(self) -> usize {
        self.count
    }
}

/// Configures several runs, which are then supervised as one.
///
/// # Examples
///
/// A program on every core that it may use:
///
/// ```
/// # use trio_runtime as trio;
/// use trio::Workers;
///
/// let workers = Workers::per_core().pinned(true).run(async |worker| {
///     // As a rule a server, whose listener shares its port with those of the others.
///     Ok(worker.count())
/// })?;
/// assert_eq!(workers[0], workers.len());
/// # Ok::<(), trio::Error>(())
/// ```
#[must_use = "workers do nothing until `run`"]
pub struct Workers {
    count: NonZero<usize>,
    pinned: bool,
    stack_size: Option<usize>,
    builder: Box<dyn Fn(Worker) -> Builder + Send + Sync>,
}

impl Workers {
    /// `count` workers.
    ///
    /// # Panics
    ///
    /// If `count` is zero.
    #[track_caller]
    pub fn new(count: usize) -> Self {
        let Some(count) = NonZero::new(count) else {
            panic!("there is at least one worker: the number of them is zero");
        };
        Self {
            count,
            pinned: false,
            stack_size: None,
            builder: Box::new(|_| Builder::new()),
        }
    }

    /// As many workers as this process may use cores.
    pub fn per_core() -> Self {
        Self::new(trio_platform::processors())
    }

    /// If `pinned` is true, binds each worker to a core; if there are more workers than cores, some
    /// share one. Where the system refuses or cannot do this, workers run on any core.
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.pinned = pinned;
        self
    }

    /// Sets the stack size of each worker's thread in bytes, which limits how deeply nurseries and
    /// scopes can be nested; by default that of [`std::thread`]. 256 KiB of it are kept free for what
    /// the innermost of them calls, so a stack of that size has room for none.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Sets the function that makes the builder of each run; it is called on the worker's thread.
    pub fn builder(mut self, make: impl Fn(Worker) -> Builder + Send + Sync + 'static) -> Self {
        self.builder = Box::new(make);
        self
    }

    /// Runs `work` in all workers, and blocks until all have ended.
    ///
    /// # Errors
    ///
    /// A group of the errors of the workers, in order of arrival: the first cancels the others. A
    /// run that cannot begin, or a thread that the system does not give, is such an error. [`Usage`]
    /// if this thread is in a run.
    ///
    /// # Panics
    ///
    /// With the first panic of a worker, when all have ended.
    pub fn run<F, T>(self, work: F) -> Result<Vec<T>>
    where
        F: AsyncFn(Worker) -> Result<T> + Sync,
        T: Send,
    {
        if context::is_running() {
            return Err(Usage::new(
                "workers would block a thread that is in a run: await `run_within` instead",
            )
            .into());
        }
        self.supervise(&Team::new(self.count.get()), &work)
    }

    /// Runs `work` in all workers, as an operation of the task that awaits it.
    ///
    /// # Cancellation
    ///
    /// A checkpoint before they begin. From then on a cancel is passed on to every worker, and this
    /// returns when all have ended: with `Cancelled` if any was cut short, and otherwise with their
    /// values.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run).
    ///
    /// # Panics
    ///
    /// As for [`run`](Self::run). Outside of a run.
    ///
    /// # Examples
    ///
    /// ```
    /// # use trio_runtime as trio;
    /// # trio::run(async {
    /// use std::time::Duration;
    /// use trio::{Workers, move_on_after, sleep_forever};
    ///
    /// let workers = Workers::new(2).run_within(async |_| sleep_forever().await);
    /// let ended = move_on_after(Duration::from_millis(5), workers).await?;
    /// assert_eq!(ended, None);
    /// # Ok::<(), trio::Error>(()) }).unwrap();
    /// ```
    pub async fn run_within<F, T>(self, work: F) -> Result<Vec<T>>
    where
        F: AsyncFn(Worker) -> Result<T> + Send + Sync + 'static,
        T: Send + 'static,
    {
        let team = Arc::new(Team::new(self.count.get()));
        let supervised = team.clone();
        let supervisor = to_thread::run_sync(move || self.supervise(&supervised, &work));
        let mut supervisor = pin!(supervisor.limiter(Rc::new(Unlimited)).name("workers"));
        let ending = Ending(&team);
        let mut cancel = Some(Box::pin(sleep_forever()));
        let ended = poll_fn(|context| {
            if let Some(sleep) = &mut cancel {
                if let Poll::Ready(Err(error)) = sleep.as_mut().poll(context) {
                    cancel = None;
                    if let Some(cancelled) = error.as_cancelled() {
                        ending.0.cancel(cancelled);
                    }
                }
            }
            supervisor.as_mut().poll(context)
        });
        ended.await?
    }

    fn supervise<F, T>(&self, team: &Team, work: &F) -> Result<Vec<T>>
    where
        F: AsyncFn(Worker) -> Result<T> + Sync,
        T: Send,
    {
        let count = self.count.get();
        let values = thread::scope(|scope| {
            let mut threads = Vec::with_capacity(count);
            for index in 0..count {
                let worker = Worker { index, count };
                let mut thread = thread::Builder::new().name(format!("worker {index}"));
                if let Some(bytes) = self.stack_size {
                    thread = thread.stack_size(bytes);
                }
                match thread.spawn_scoped(scope, move || self.work(team, worker, work)) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        team.fail(worker, error.into());
                        break;
                    }
                }
            }
            let values = threads
                .into_iter()
                .map(|thread| thread.join().ok().flatten());
            values.collect::<Option<Vec<T>>>()
        });
        team.result(values)
    }

    /// The life of a worker. Returns its value, if there is one.
    fn work<F, T>(&self, team: &Team, worker: Worker, work: &F) -> Option<T>
    where
        F: AsyncFn(Worker) -> Result<T>,
    {
        if self.pinned {
            // The worker runs without it too, only less well.
            drop(trio_platform::pin_thread(worker.index));
        }
        let main = async {
            let scope = CancelScope::new();
            drop(SCOPE.set(scope.clone()));
            team.join(worker, current_trio_token(), &scope);
            let ended = scope.enter(work(worker)).await;
            team.leave(worker);
            ended
        };
        let run = AssertUnwindSafe(|| (self.builder)(worker).try_run(main));
        match catch_unwind(run) {
            Ok(Ok(Ok(value))) => return value,
            Ok(Ok(Err(error))) => team.fail(worker, error),
            Ok(Err(error)) => team.fail(worker, error.into()),
            Err(panic) => team.panicked(worker, panic),
        }
        None
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("count", &self.count)
            .field("pinned", &self.pinned)
            .finish_non_exhaustive()
    }
}

/// The scope around the work of a worker, in its run.
static SCOPE: RunVar<CancelScope> = RunVar::new("the scope of a worker");

/// Shared by the workers.
struct Team(Mutex<State>);

struct State {
    /// Those of the workers that are running, by their numbers.
    tokens: Vec<Option<TrioToken>>,
    cancelled: Option<Cancelled>,
    errors: Vec<Error>,
    panic: Option<Box<dyn Any + Send>>,
}

impl Team {
    fn new(count: usize) -> Self {
        Self(Mutex::new(State {
            tokens: vec![None; count],
            cancelled: None,
            errors: Vec::new(),
            panic: None,
        }))
    }

    fn join(&self, worker: Worker, token: TrioToken, scope: &CancelScope) {
        let cancelled = {
            let mut state = lock(&self.0);
            state.tokens[worker.index] = Some(token);
            state.cancelled.clone()
        };
        if let Some(cancelled) = cancelled {
            scope.cancel_as(cancelled);
        }
    }

    fn leave(&self, worker: Worker) {
        lock(&self.0).tokens[worker.index] = None;
    }

    /// Cancels the workers that are running, and those that begin later; the first cancel is the
    /// one that stays.
    fn cancel(&self, cancelled: &Cancelled) {
        let tokens = {
            let mut state = lock(&self.0);
            if state.cancelled.is_some() {
                return;
            }
            state.cancelled = Some(cancelled.clone());
            state.tokens.clone()
        };
        for token in tokens.into_iter().flatten() {
            let cancelled = cancelled.clone();
            let cancel = move || {
                SCOPE.with(|scope| {
                    if let Some(scope) = scope {
                        scope.cancel_as(cancelled);
                    }
                });
            };
            // A worker that has ended needs no cancel.
            let _ = token.run_sync_soon(cancel);
        }
    }

    fn fail(&self, worker: Worker, error: Error) {
        let cancelled = because(worker, &format!("raised {error}"));
        lock(&self.0).errors.push(error);
        self.cancel(&cancelled);
    }

    fn panicked(&self, worker: Worker, panic: Box<dyn Any + Send>) {
        // The first panic is the one to resume; the hook has printed all of them.
        lock(&self.0).panic.get_or_insert(panic);
        self.cancel(&because(worker, "panicked"));
    }

    /// The result of the whole. If there are no values, at least one worker failed.
    fn result<T>(&self, values: Option<Vec<T>>) -> Result<Vec<T>> {
        let (panic, errors, cancelled) = {
            let mut state = lock(&self.0);
            let errors = std::mem::take(&mut state.errors);
            (state.panic.take(), errors, state.cancelled.take())
        };
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        if !errors.is_empty() {
            return Err(Error::group("errors in workers", errors));
        }
        match (values, cancelled) {
            (Some(values), _) => Ok(values),
            (None, Some(cancelled)) => Err(Error::cancelled(cancelled)),
            (None, None) => unreachable!("a worker without a value has failed or was cancelled"),
        }
    }
}

fn because(worker: Worker, what: &str) -> Cancelled {
    let reason = format!("worker {} {what}", worker.index);
    Cancelled::new(CancelSource::Nursery, Some(reason.into()), None, None)
}

/// Cancels the workers if the call ends before they do, because it was dropped.
struct Ending<'a>(&'a Team);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let reason = Some("the call that waited for the workers is over".into());
        self.0
            .cancel(&Cancelled::new(CancelSource::Shutdown, reason, None, None));
    }
}

/// The supervisor only waits, and must not take a thread from those who work.
struct Unlimited;

impl ThreadLimiter for Unlimited {
    fn acquire_on_behalf_of(
        self: Rc<Self>,
        _: Borrower,
    ) -> Pin<Box<dyn Future<Output = Result<()>>>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn release_on_behalf_of(&self, _: Borrower) -> Result<()> {
        Ok(())
    }

    fn try_acquire_on_behalf_of(&self, _: Borrower) -> bool {
        true
    }
}
