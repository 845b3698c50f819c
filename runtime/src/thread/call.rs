//! Leaving the run: a blocking function on a thread of its own, awaited by a task.
//!
//! The thread and the task share a [`Call`]: the place for the result, and the [`Mail`] between the
//! two. What the run knows about the call, above all the token of its limiter, is an entry of
//! [`Threads`], which stays until the thread has reported its end, whether or not anybody still
//! waits.
//!
//! | The future is          | while the function runs                                            |
//! |------------------------|--------------------------------------------------------------------|
//! | polled under a cancel  | the thread can see it; the task waits on, and gets the value (W1)   |
//! | the same, abandoning   | returns `Cancelled`; the value is dropped on the thread             |
//! | dropped                | as if abandoned, but the nursery of its task stays open until the   |
//! |                        | function has ended, and so does the run, unless it may be abandoned |
//! | forgotten              | nothing; what the thread asks of the run fails when the run ends    |
//! | polled by a combinator | the waker of the last poll is called                                |
//! | at the end of the run  | nobody is notified, and no token is given back (W2)                 |
//!
//! A panic of the function is kept, and continues where the value would have been returned.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use slab::Slab;

use super::from_thread::{Local, with_host};
use super::inbox::Call as Posted;
use super::limiter::{THREADS, ThreadLimiter};
use super::mail::{Host, Mail, Request};
use super::pool::{self, Job, function_name};
use super::sync::{Mutex, lock};
use crate::checkpoint::enter_operation;
use crate::context;
use crate::error::{Error, Result};
use crate::run::Run;
use crate::sync::{Borrower, CapacityLimiter};
use crate::task::NurseryRef;
use crate::wait::Parked;

/// Runs a blocking function on another thread, and returns its value.
///
/// Other tasks go on meanwhile. By default at most forty functions of a run execute at the same
/// time, and others wait for their turn; see [`RunSync::limiter`]. The function may call back into
/// the run with [`from_thread`](crate::from_thread).
///
/// # Cancellation
///
/// A checkpoint, before the function begins and while it waits for its turn: `Cancelled` means that
/// it has not been called. From then on a cancel waits for the function, whose value is returned, and
/// the next checkpoint reports. A function that takes long should ask
/// [`check_cancelled`](crate::from_thread::check_cancelled) now and then. With
/// [`RunSync::abandon_on_cancel`] the call returns `Cancelled` at once, and the function goes on,
/// though nobody wants its value.
///
/// # Errors
///
/// `Cancelled`; an [`io::Error`](std::io::Error) if the system has no thread left; an error of the
/// limiter. If the function returns a `Result`, that is the value: `.await??` passes on both
/// errors.
///
/// # Panics
///
/// With the panic of the function. Outside of a run.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::to_thread;
///
/// let path = "Cargo.toml";
/// let text = to_thread::run_sync(move || std::fs::read_to_string(path)).await??;
/// assert!(text.contains("[package]"));
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "spawn_blocking")]
pub fn run_sync<F, T>(function: F) -> RunSync<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    RunSync(Stage::New {
        function,
        options: Options::default(),
    })
}

/// The limiter of the calls in this run that name no other; with forty tokens, unless changed.
///
/// # Panics
///
/// Outside of a run.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::to_thread;
///
/// to_thread::current_default_thread_limiter().set_total_tokens(100);
/// # });
/// ```
#[track_caller]
pub fn current_default_thread_limiter() -> Rc<CapacityLimiter> {
    context::with(|run| run.threads.default_limiter())
}

/// The future of [`run_sync`], which can be configured before it is awaited.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{move_on_after, to_thread};
///
/// let answer = to_thread::run_sync(|| 6 * 7)
///     .name("thinking")
///     .abandon_on_cancel(true);
/// let answer = move_on_after(Duration::from_secs(10), answer).await?;
/// assert_eq!(answer, Some(42));
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct RunSync<F, T>(Stage<F, T>);

enum Stage<F, T> {
    New {
        function: F,
        options: Options,
    },
    /// Waits for a token of the limiter.
    Queued {
        function: F,
        options: Options,
        bound: Bound,
        turn: Pin<Box<dyn Future<Output = Result<()>>>>,
    },
    Running(Running<T>),
    Ended,
}

#[derive(Default)]
struct Options {
    limiter: Option<Rc<dyn ThreadLimiter>>,
    name: Option<Cow<'static, str>>,
    abandon: bool,
}

/// The limiter of a call, and the borrower on whose behalf the call has its token.
#[derive(Clone)]
struct Bound {
    limiter: Rc<dyn ThreadLimiter>,
    borrower: Borrower,
}

struct Running<T> {
    call: Arc<Call<T>>,
    parked: Parked,
    abandon: bool,
    /// What the thread has asked for, until it has ended.
    inside: Option<Local>,
    /// Whether the run knows that nobody waits, or has forgotten the call.
    over: bool,
}

impl<F, T> RunSync<F, T> {
    /// Uses `limiter` for the call instead of the run's default.
    ///
    /// # Panics
    ///
    /// If the future has been polled.
    pub fn limiter(mut self, limiter: Rc<impl ThreadLimiter + 'static>) -> Self {
        self.options().limiter = Some(limiter);
        self
    }

    /// Sets the name of the thread for the time of the call; by default "`function` from `task`".
    /// Linux shows the first fifteen bytes.
    ///
    /// # Panics
    ///
    /// If the future has been polled.
    #[doc(alias = "thread_name")]
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.options().name = Some(name.into());
        self
    }

    /// If `abandon` is true, a cancel makes the call return at once, and leaves the function to
    /// itself.
    ///
    /// For a function that may hang, and whose later effects, if any, do no harm. The thread keeps
    /// its token of the limiter until the function ends.
    ///
    /// # Panics
    ///
    /// If the future has been polled.
    pub fn abandon_on_cancel(mut self, abandon: bool) -> Self {
        self.options().abandon = abandon;
        self
    }

    #[track_caller]
    fn options(&mut self) -> &mut Options {
        match &mut self.0 {
            Stage::New { options, .. } => options,
            _ => panic!("a call is told how to run before it is polled"),
        }
    }
}

impl<F, T> Future for RunSync<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let stage = &mut self.0;
        if let Stage::New { .. } = stage {
            ready!(enter_operation(context))?;
            stage.begin(context)?;
        }
        if let Stage::Queued { turn, .. } = stage {
            let turn = ready!(turn.as_mut().poll(context));
            stage.begin_queued(turn, context)?;
        }
        match stage {
            Stage::Running(running) => {
                let output = ready!(running.poll(context));
                *stage = Stage::Ended;
                Poll::Ready(output)
            }
            _ => panic!("a future is not polled after its end"),
        }
    }
}

impl<F, T> Stage<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    /// Starts the thread if there is a token for it; otherwise queues for one.
    fn begin(&mut self, context: &Context<'_>) -> Result<()> {
        let Self::New { function, options } = std::mem::replace(self, Self::Ended) else {
            unreachable!("the caller has looked");
        };
        let limiter = match &options.limiter {
            Some(limiter) => limiter.clone(),
            None => context::with(|run| run.threads.default_limiter()),
        };
        let borrower = Borrower::new();
        let bound = Bound { limiter, borrower };
        if bound.limiter.try_acquire_on_behalf_of(borrower) {
            *self = Self::Running(Running::begin(function, options, bound, context)?);
        } else {
            let turn = bound.limiter.clone().acquire_on_behalf_of(borrower);
            *self = Self::Queued {
                function,
                options,
                bound,
                turn,
            };
        }
        Ok(())
    }

    /// Starts the thread of a call that has queued.
    fn begin_queued(&mut self, turn: Result<()>, context: &Context<'_>) -> Result<()> {
        let Self::Queued {
            function,
            options,
            bound,
            ..
        } = std::mem::replace(self, Self::Ended)
        else {
            unreachable!("the caller has looked");
        };
        turn?;
        // The token has come, but so has a cancel: the function has not been called yet.
        if let Some(cancelled) = context::with(|run| run.cancelled()) {
            bound.limiter.release_on_behalf_of(bound.borrower)?;
            return Err(Error::cancelled(cancelled));
        }
        *self = Self::Running(Running::begin(function, options, bound, context)?);
        Ok(())
    }
}

impl<T: Send + 'static> Running<T> {
    /// Makes a thread run `function`; the token of `bound` is held.
    fn begin<F>(function: F, options: Options, bound: Bound, context: &Context<'_>) -> Result<Self>
    where
        F: FnOnce() -> T + Send + 'static,
    {
        let run = context::with(Rc::clone);
        let Options { name, abandon, .. } = options;
        let name = name.unwrap_or_else(|| {
            let function = function_name::<F>();
            match run.task_name() {
                Some(task) => format!("{function} from {task}").into(),
                None => function.into(),
            }
        });
        let parked = Parked::in_run(&run, context, "to_thread::run_sync");
        // Cloning a foreign waker for the wait may have cancelled, and nothing has been called yet.
        if let Some(cancelled) = parked.overtaken() {
            bound.limiter.release_on_behalf_of(bound.borrower)?;
            return Err(Error::cancelled(cancelled));
        }
        let call = run.threads.insert(parked.wait(), &bound, |number| {
            Arc::new(Call {
                mail: Mail::new(run.shared.clone(), number, abandon),
                result: Mutex::new(None),
            })
        });
        let job = Box::new(Function {
            function: Some(function),
            call: call.clone(),
            name,
        });
        if let Err(error) = pool::start(job) {
            drop(run.threads.remove(call.mail.number()));
            bound.limiter.release_on_behalf_of(bound.borrower)?;
            return Err(error.into());
        }
        Ok(Self {
            call,
            parked,
            abandon,
            inside: None,
            over: false,
        })
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<T>> {
        let number = self.call.mail.number();
        // Success takes precedence over a cancel of the same moment (R1).
        let ended = self.parked.with(|run| run.threads.take_ended(number));
        if let Some(released) = ended.flatten() {
            self.over = true;
            let result = lock(&self.call.result).take();
            let result = result.expect("a thread that has ended has a result");
            return Poll::Ready(match (result, released) {
                (Ok(value), Ok(released)) => released.map(|()| value),
                (Err(panic), _) | (_, Err(panic)) => resume_unwind(panic),
            });
        }
        if let Poll::Ready(Some(cancelled)) = self.parked.poll_woken(context) {
            self.call.mail.set_cancelled(cancelled.clone());
            if self.abandon {
                self.over = true;
                self.parked.with(|run| run.threads.leave(number, None));
                return Poll::Ready(Err(Error::cancelled(cancelled)));
            }
        }
        if self.inside.is_none() {
            match self.call.mail.take_request() {
                None => {}
                Some(Request::Sync(function)) => function(),
                Some(Request::Future(make)) => self.inside = Some(make()),
            }
        }
        if let Some(inside) = &mut self.inside {
            if inside.as_mut().poll(context).is_ready() {
                self.inside = None;
            }
        }
        Poll::Pending
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        self.over = true;
        // A thread that waits for an answer learns that there is none.
        self.call.mail.close();
        self.inside = None;
        let number = self.call.mail.number();
        self.parked.with(|run| {
            let nursery = match self.abandon {
                true => None,
                false => run.tree.borrow().nursery_of(self.parked.wait()),
            };
            run.threads.leave(number, nursery);
        });
    }
}

impl<F, T> fmt::Debug for RunSync<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.0 {
            Stage::New { .. } => "not begun",
            Stage::Queued { .. } => "queued",
            Stage::Running(_) => "running",
            Stage::Ended => "ended",
        };
        write!(f, "RunSync({stage})")
    }
}

// Neither the function nor its value is ever pinned.
impl<F, T> Unpin for RunSync<F, T> {}

/// Shared by a thread and the task that waits for it.
struct Call<T> {
    mail: Mail,
    result: Mutex<Option<std::thread::Result<T>>>,
}

impl<T: Send> Host for Call<T> {
    fn mail(&self) -> &Mail {
        &self.mail
    }
}

/// The thread's half.
struct Function<F, T> {
    function: Option<F>,
    call: Arc<Call<T>>,
    name: Cow<'static, str>,
}

impl<F, T> Job for Function<F, T>
where
    F: FnOnce() -> T + Send,
    T: Send + 'static,
{
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.name)
    }

    fn work(&mut self) {
        let Some(function) = self.function.take() else {
            return;
        };
        let result = with_host(self.call.clone(), || {
            catch_unwind(AssertUnwindSafe(function))
        });
        *lock(&self.call.result) = Some(result);
    }

    fn deliver(self: Box<Self>) {
        let mail = &self.call.mail;
        let call = mail.number();
        // If the run has ended, nobody has to be notified.
        let _ = mail.shared().call(Posted::Thread { call, ended: true });
    }
}

/// What a run knows about the threads that work for it.
#[derive(Default)]
pub(crate) struct Threads {
    calls: RefCell<Slab<Active>>,
    default_limiter: RefCell<Option<Rc<CapacityLimiter>>>,
    /// Calls that a task waits for.
    awaited: Cell<usize>,
    /// Calls whose future was dropped, but whose function must end before the run does.
    owed: Cell<usize>,
    /// The waits of the tasks that wait for `awaited` to become zero.
    watchers: RefCell<Vec<u32>>,
}

/// A call, from the start of its thread until the run has learnt of its end.
struct Active {
    host: Arc<dyn Host>,
    bound: Bound,
    stage: ActiveStage,
}

enum ActiveStage {
    /// The wait of the task.
    Awaited(u32),
    /// The function has ended, and the task has not seen it; with the limiter's answer.
    Ended(std::thread::Result<Result<()>>),
    /// Nobody waits; the nursery, if there is one, must not end before the function has.
    Left(Option<NurseryRef>),
}

impl Threads {
    fn insert<T: Send + 'static>(
        &self,
        wait: u32,
        bound: &Bound,
        make: impl FnOnce(u32) -> Arc<Call<T>>,
    ) -> Arc<Call<T>> {
        let mut calls = self.calls.borrow_mut();
        let entry = calls.vacant_entry();
        let number = u32::try_from(entry.key()).expect("fewer threads than four thousand million");
        let call = make(number);
        entry.insert(Active {
            host: call.clone(),
            bound: bound.clone(),
            stage: ActiveStage::Awaited(wait),
        });
        self.awaited.set(self.awaited.get() + 1);
        call
    }

    /// Removes a call that has ended, or that never began.
    fn remove(&self, call: u32) -> Active {
        let active = self.calls.borrow_mut().remove(call as usize);
        if !matches!(active.stage, ActiveStage::Left(_)) {
            self.one_less();
        }
        active
    }

    /// The limiter's answer, if the function has ended.
    fn take_ended(&self, call: u32) -> Option<std::thread::Result<Result<()>>> {
        let ended = match self.calls.borrow().get(call as usize)?.stage {
            ActiveStage::Ended(_) => true,
            ActiveStage::Awaited(_) | ActiveStage::Left(_) => false,
        };
        match ended.then(|| self.remove(call))?.stage {
            ActiveStage::Ended(released) => Some(released),
            _ => unreachable!("it was just looked at"),
        }
    }

    /// Notes that nobody waits for this call any more. If there is a nursery that must not end
    /// before the function does, it stays open, and so does the run.
    fn leave(&self, call: u32, nursery: Option<NurseryRef>) {
        let mut calls = self.calls.borrow_mut();
        let stage = &mut calls[call as usize].stage;
        if let ActiveStage::Ended(_) = stage {
            drop(calls);
            drop(self.remove(call));
            return;
        }
        if let Some(nursery) = &nursery {
            nursery.add_orphan();
            self.owed.set(self.owed.get() + 1);
        }
        *stage = ActiveStage::Left(nursery);
        drop(calls);
        self.one_less();
    }

    /// Handles the notice that a thread has asked for something, or has ended.
    pub(crate) fn notice(&self, run: &Run, call: u32, ended: bool) {
        let (waiting, bound) = {
            let calls = self.calls.borrow();
            let active = &calls[call as usize];
            let waiting = match active.stage {
                ActiveStage::Awaited(wait) => Some(wait),
                ActiveStage::Ended(_) | ActiveStage::Left(_) => None,
            };
            (waiting, ended.then(|| active.bound.clone()))
        };
        if let Some(bound) = bound {
            // User code: nothing is borrowed while it runs, and its panic goes to the caller.
            let release = || bound.limiter.release_on_behalf_of(bound.borrower);
            let released = catch_unwind(AssertUnwindSafe(release));
            if waiting.is_some() {
                self.calls.borrow_mut()[call as usize].stage = ActiveStage::Ended(released);
            } else if let ActiveStage::Left(Some(nursery)) = self.remove(call).stage {
                self.owed.set(self.owed.get() - 1);
                nursery.remove_orphan();
            }
        }
        if let Some(wait) = waiting {
            run.nudge_wait(wait);
        }
    }

    /// Whether no thread works for the run, awaited or left behind.
    pub(crate) fn is_idle(&self) -> bool {
        self.calls.borrow().is_empty()
    }

    /// Calls whose function must have ended before the run does.
    pub(crate) fn owed(&self) -> usize {
        self.owed.get()
    }

    /// How many calls a task waits for.
    pub(crate) fn awaited(&self) -> usize {
        self.awaited.get()
    }

    pub(crate) fn watch(&self, wait: u32) {
        self.watchers.borrow_mut().push(wait);
    }

    pub(crate) fn unwatch(&self, wait: u32) {
        self.watchers.borrow_mut().retain(|other| *other != wait);
    }

    fn one_less(&self) {
        self.awaited.set(self.awaited.get() - 1);
        if self.awaited.get() > 0 {
            return;
        }
        for watcher in self.watchers.take() {
            context::try_with(|run| run.map(|run| run.finish_wait(watcher)));
        }
    }

    fn default_limiter(&self) -> Rc<CapacityLimiter> {
        let mut limiter = self.default_limiter.borrow_mut();
        let limiter = limiter.get_or_insert_with(|| Rc::new(CapacityLimiter::new(THREADS)));
        limiter.clone()
    }

    /// The run has ended: requests of threads are not answered, and no token is given back.
    pub(crate) fn abandon_all(&self) {
        let calls = self.calls.take();
        let limiter = self.default_limiter.take();
        for (_, active) in &calls {
            active.host.mail().close();
        }
        drop((calls, limiter));
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads")
            .field("awaited", &self.awaited)
            .finish_non_exhaustive()
    }
}
