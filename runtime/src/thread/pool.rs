//! The threads that blocking functions run on, kept for reuse by all runs of the process.
//!
//! Starting a thread takes ten times as long as waking one, so a thread that has done its work
//! waits ten seconds for more. The one that became idle last is taken first: its memory is warm,
//! and the others can reach their end. There is no limit here; limits are set by the callers, and
//! are in `limiter.rs`.
//!
//! 1. A worker is in the list of the idle, or has work in its slot, or works. Whoever takes it out
//!    of the list fills its slot, once.
//! 2. A worker that has waited long enough takes itself out of the list and ends. If it is no
//!    longer in the list, somebody is about to fill its slot, and it waits for that (W7).
//! 3. A worker becomes idle when the work is done and *before* the result is delivered: whoever is
//!    notified of the end can give it the next work without starting another thread.
//! 4. Once a job has been delivered, nothing of it is held.
//!
//! A job that panics, in its work or while it is delivered, costs no thread.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::sync::{Arc, Condvar, Mutex, lock};

/// A job for a thread.
pub(super) trait Job: Send {
    /// The name of the thread while it works.
    fn name(&self) -> Cow<'_, str>;

    /// Does the work. Called once.
    fn work(&mut self);

    /// Delivers the result; by then the thread may have been given its next job.
    fn deliver(self: Box<Self>);
}

/// A snapshot of the threads; from [`thread_statistics`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadStatistics {
    /// Threads that wait for work.
    pub idle: usize,
    /// Threads that exist, idle or working.
    pub living: usize,
    /// Threads that have been started since the process began.
    pub begun: u64,
}

/// The threads.
pub(super) struct Pool {
    idle: Mutex<Vec<Arc<Worker>>>,
    counts: Mutex<Counts>,
    /// How long a thread waits for work.
    patience: Duration,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    living: usize,
    begun: u64,
}

/// One thread of the pool.
#[derive(Default)]
pub(super) struct Worker {
    slot: Mutex<Option<Box<dyn Job>>>,
    filled: Condvar,
}

/// How long a thread of the process waits for work.
const IDLE: Duration = Duration::from_secs(10);

impl Pool {
    #[cfg(not(loom))]
    const fn new(patience: Duration) -> Self {
        Self {
            idle: Mutex::new(Vec::new()),
            counts: Mutex::new(Counts {
                living: 0,
                begun: 0,
            }),
            patience,
        }
    }

    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self {
            idle: Mutex::new(Vec::new()),
            counts: Mutex::new(Counts::default()),
            patience: IDLE,
        }
    }

    /// Makes a thread do `job`.
    pub(super) fn start(&'static self, job: Box<dyn Job>) -> io::Result<()> {
        match self.assign(job) {
            None => Ok(()),
            Some(job) => self.begin(job),
        }
    }

    /// Gives `job` to the thread that became idle last; returns it if none is idle.
    pub(super) fn assign(&self, job: Box<dyn Job>) -> Option<Box<dyn Job>> {
        let worker = lock(&self.idle).pop();
        match worker {
            Some(worker) => {
                worker.fill(job);
                None
            }
            None => Some(job),
        }
    }

    fn begin(&'static self, job: Box<dyn Job>) -> io::Result<()> {
        let number = {
            let mut counts = lock(&self.counts);
            counts.living += 1;
            counts.begun += 1;
            counts.begun
        };
        let name = format!("trio {number}");
        let begun = {
            let name = name.clone();
            let thread = std::thread::Builder::new().name(name.clone());
            thread.spawn(move || self.live(&name, job))
        };
        if begun.is_err() {
            let mut counts = lock(&self.counts);
            counts.living -= 1;
            counts.begun -= 1;
        }
        // The thread belongs to the pool; nobody waits for its end.
        begun.map(drop)
    }

    /// The life of a thread.
    fn live(&self, own_name: &str, first: Box<dyn Job>) {
        let worker = Arc::new(Worker::default());
        let mut next = Some(first);
        while let Some(job) = next {
            self.serve(&worker, own_name, job);
            next = self.wait(&worker);
        }
        lock(&self.counts).living -= 1;
    }

    fn serve(&self, worker: &Arc<Worker>, own_name: &str, mut job: Box<dyn Job>) {
        trio_platform::name_thread(&job.name());
        // A job catches the panics of its work; this is for a job that does not.
        drop(catch_unwind(AssertUnwindSafe(|| job.work())));
        lock(&self.idle).push(worker.clone());
        // The panic hook has printed it already.
        drop(catch_unwind(AssertUnwindSafe(|| job.deliver())));
        trio_platform::name_thread(own_name);
    }

    /// Waits for the next job; `None` if none has come for long enough.
    fn wait(&self, worker: &Arc<Worker>) -> Option<Box<dyn Job>> {
        worker
            .take_within(self.patience)
            .or_else(|| self.retire(worker))
    }

    /// Ends a worker that has waited in vain: `None`, or its job if it was chosen meanwhile (rule 2).
    pub(super) fn retire(&self, worker: &Arc<Worker>) -> Option<Box<dyn Job>> {
        {
            let mut idle = lock(&self.idle);
            if let Some(place) = idle.iter().position(|other| Arc::ptr_eq(other, worker)) {
                idle.remove(place);
                return None;
            }
        }
        Some(worker.take())
    }

    /// Adds a worker to the idle ones, as if it had worked.
    #[cfg(loom)]
    pub(super) fn add_idle(&self, worker: &Arc<Worker>) {
        lock(&self.idle).push(worker.clone());
    }

    fn statistics(&self) -> ThreadStatistics {
        let idle = lock(&self.idle).len();
        let counts = *lock(&self.counts);
        ThreadStatistics {
            idle,
            living: counts.living,
            begun: counts.begun,
        }
    }
}

impl Worker {
    fn fill(&self, job: Box<dyn Job>) {
        let mut slot = lock(&self.slot);
        debug_assert!(slot.is_none(), "a worker is given one job at a time");
        *slot = Some(job);
        drop(slot);
        self.filled.notify_one();
    }

    /// Waits for the job that somebody is about to put here.
    pub(super) fn take(&self) -> Box<dyn Job> {
        let mut slot = lock(&self.slot);
        loop {
            match slot.take() {
                Some(job) => return job,
                None => {
                    slot = self
                        .filled
                        .wait(slot)
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                }
            }
        }
    }

    /// The same, if it comes within `bound`. A spurious wake starts the wait anew: no harm is done
    /// if a thread lives longer.
    fn take_within(&self, bound: Duration) -> Option<Box<dyn Job>> {
        let mut slot = lock(&self.slot);
        loop {
            if let Some(job) = slot.take() {
                return Some(job);
            }
            let (back, waited) = self
                .filled
                .wait_timeout(slot, bound)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            slot = back;
            if waited.timed_out() && slot.is_none() {
                return None;
            }
        }
    }
}

#[cfg(not(loom))]
static POOL: Pool = Pool::new(IDLE);
#[cfg(loom)]
static POOL: std::sync::LazyLock<Pool> = std::sync::LazyLock::new(Pool::new);

pub(super) fn start(job: Box<dyn Job>) -> io::Result<()> {
    POOL.start(job)
}

/// A snapshot of the threads of this process that run blocking functions.
pub fn thread_statistics() -> ThreadStatistics {
    POOL.statistics()
}

/// Runs `function` on a thread of the pool, then `deliver` with what it returned, or with its panic,
/// on the same thread.
///
/// May be called from anywhere, in a run or not. Nothing waits for the thread; that is up to the
/// caller. Usually [`to_thread::run_sync`](crate::to_thread::run_sync), which does wait, is what
/// you want. The thread counts as idle while `deliver` runs, so that should not take long. `name`
/// is the name of the thread until the end.
///
/// # Errors
///
/// If the system has no thread left; then neither is called.
///
/// # Panics
///
/// A panic of `deliver` is printed, and goes no further.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// use std::sync::mpsc;
/// use trio::lowlevel::start_thread_soon;
///
/// let (send, receive) = mpsc::channel();
/// start_thread_soon(|| 6 * 7, move |result| drop(send.send(result.ok())), None)?;
/// assert_eq!(receive.recv(), Ok(Some(42)));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn start_thread_soon<F, T, D>(function: F, deliver: D, name: Option<&str>) -> io::Result<()>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
    D: FnOnce(std::thread::Result<T>) + Send + 'static,
{
    start(Box::new(Simple {
        name: name.map(str::to_owned),
        function: Some(function),
        result: None,
        deliver,
    }))
}

/// The job of [`start_thread_soon`].
struct Simple<F, T, D> {
    name: Option<String>,
    function: Option<F>,
    result: Option<std::thread::Result<T>>,
    deliver: D,
}

impl<F, T, D> Job for Simple<F, T, D>
where
    F: FnOnce() -> T + Send,
    T: Send,
    D: FnOnce(std::thread::Result<T>) + Send,
{
    fn name(&self) -> Cow<'_, str> {
        let given = self.name.as_deref();
        Cow::Borrowed(given.unwrap_or_else(|| function_name::<F>()))
    }

    fn work(&mut self) {
        if let Some(function) = self.function.take() {
            self.result = Some(catch_unwind(AssertUnwindSafe(function)));
        }
    }

    fn deliver(self: Box<Self>) {
        let Self {
            result, deliver, ..
        } = *self;
        deliver(result.expect("what is delivered has been done"));
    }
}

/// A function's name as people would say it: `app::store::load::{{closure}}` is `load`.
pub(super) fn function_name<F>() -> &'static str {
    let path = std::any::type_name::<F>();
    let whole = path.split('<').next().unwrap_or(path);
    let mut last = whole.rsplit("::").filter(|word| !word.starts_with('{'));
    last.next().unwrap_or(whole)
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.statistics().fmt(f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};

    use super::*;

    fn pool(patience: Duration) -> &'static Pool {
        Box::leak(Box::new(Pool::new(patience)))
    }

    /// Makes `pool` call `function`, and then `deliver`.
    fn start<T: Send + 'static>(
        pool: &'static Pool,
        function: impl FnOnce() -> T + Send + 'static,
        deliver: impl FnOnce(T) + Send + 'static,
    ) {
        let deliver = move |result: thread::Result<T>| deliver(result.expect("it does not panic"));
        let job = Simple {
            name: None,
            function: Some(function),
            result: None,
            deliver,
        };
        pool.start(Box::new(job)).expect("threads can be had");
    }

    #[test]
    fn w7_the_thread_that_became_idle_last_is_taken_first() {
        let pool = pool(Duration::from_secs(3600));
        let (told, tell) = mpsc::channel::<(u32, ThreadId)>();
        let begin = |number: u32| {
            let (go, wait) = mpsc::channel::<()>();
            let told = told.clone();
            let work = move || {
                wait.recv().unwrap();
                (number, thread::current().id())
            };
            start(pool, work, move |what| told.send(what).unwrap());
            go
        };
        let (one, other) = (begin(1), begin(2));
        assert_eq!(pool.statistics().living, 2);
        one.send(()).unwrap();
        let first = tell.recv().unwrap();
        other.send(()).unwrap();
        let last = tell.recv().unwrap();
        assert_eq!((first.0, last.0), (1, 2));
        assert_eq!(pool.statistics().idle, 2);
        begin(3).send(()).unwrap();
        assert_eq!(tell.recv().unwrap(), (3, last.1));
        // Whoever is notified of the end is notified on the thread that is taken next.
        let again = told.clone();
        start(
            pool,
            || (),
            move |()| {
                let here = thread::current().id();
                let next = || thread::current().id();
                start(pool, next, move |next| {
                    assert_eq!(next, here);
                    again.send((4, next)).unwrap();
                });
            },
        );
        assert_eq!(tell.recv().unwrap().0, 4);
        assert_eq!(pool.statistics().begun, 2);
    }

    #[test]
    fn w7_a_thread_that_waits_in_vain_ends() {
        let pool = pool(Duration::from_millis(1));
        let (told, tell) = mpsc::channel();
        for _ in 0..3 {
            let told = told.clone();
            start(pool, || (), move |()| told.send(()).unwrap());
            tell.recv().unwrap();
        }
        while pool.statistics().living > 0 {
            thread::yield_now();
        }
        assert_eq!(pool.statistics().idle, 0);
        assert!(pool.statistics().begun >= 1);
    }

    #[test]
    fn a_function_is_called_by_the_last_of_its_names() {
        fn load() {}
        fn name<F>(_: F) -> &'static str {
            function_name::<F>()
        }
        assert_eq!(name(load), "load");
        assert_eq!(name(|| ()), "a_function_is_called_by_the_last_of_its_names");
        assert_eq!(name(drop::<Vec<String>>), "drop");
    }
}
