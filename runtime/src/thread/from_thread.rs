//! Calling back into the run, from a thread of [`to_thread::run_sync`](crate::to_thread::run_sync).
//!
//! A blocking function that needs the run for a moment calls [`run`] or [`run_sync`], which block the
//! thread until the run has done what they ask for. It is done *in the task that waits for the
//! thread*: under its scopes, with its values. If that task is cancelled, what [`run`] awaits is
//! cancelled, and the error comes back as a value. A function that computes for a long time asks
//! [`check_cancelled`] now and then, and returns its error.
//!
//! If no task waits for the thread any more (`abandon_on_cancel`), it is done in a system task
//! instead. Threads that were not started by a task use a [`TrioToken`].
//!
//! ```
//! # use trio_runtime as trio;
//! # trio::run(async {
//! use std::time::Duration;
//! use trio::{from_thread, sleep, to_thread};
//!
//! let total = to_thread::run_sync(|| {
//!     let mut total = 0;
//!     for part in 1..=3 {
//!         from_thread::check_cancelled()?;
//!         total += part;
//!         from_thread::run(async move || sleep(Duration::from_millis(1)).await)?;
//!     }
//!     Ok::<_, trio::Error>(total)
//! })
//! .await??;
//! assert_eq!(total, 6);
//! # Ok::<(), trio::Error>(()) }).unwrap();
//! ```

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::inbox::{Call, Work};
use super::mail::{Host, Request};
use super::reply::{Replier, Reply, reply};
use super::system::spawn_system_task_named;
use super::token::TrioToken;
use crate::cancel::{CancelSource, Cancelled};
use crate::context;
use crate::error::{Error, Result, RunFinished, Usage};

thread_local! {
    /// The task that waits for what this thread does.
    static HOST: RefCell<Option<Arc<dyn Host>>> = const { RefCell::new(None) };
}

/// Runs the future of `function` in the task that waits for this thread, and blocks the thread until
/// it has ended.
///
/// # Cancellation
///
/// If the task is cancelled, so is what the future awaits. The error comes back to the function as
/// a value: return it, and the task gets it.
///
/// # Errors
///
/// Those of the future. [`Usage`] on a thread that was not started by
/// [`to_thread::run_sync`](crate::to_thread::run_sync), or that is in a run itself. [`RunFinished`]
/// if the run has ended meanwhile.
///
/// # Panics
///
/// With the panic of the future.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{from_thread, to_thread};
///
/// let slept = to_thread::run_sync(|| {
///     from_thread::run(async || trio::sleep(Duration::from_millis(1)).await)
/// });
/// slept.await??;
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "block_on")]
pub fn run<F, R>(function: F) -> Result<R>
where
    F: AsyncFnOnce() -> Result<R> + Send + 'static,
    R: Send + 'static,
{
    let host = host()?;
    let token = TrioToken::of(host.mail().shared().clone());
    let (work, asked) = Asked::future(function);
    match host.mail().ask(Request::Future(work)) {
        Ok(()) => {}
        Err(Request::Future(work)) => run_as_system_task(&token, work)?,
        Err(Request::Sync(_)) => unreachable!("what is refused is given back"),
    }
    asked.wait(&token)?
}

/// Runs `function` on the thread of the run, in the task that waits for this thread, and blocks
/// this thread until it has returned. Works in a cancelled task too.
///
/// # Errors
///
/// As for [`run`](fn@run), except those of the future.
///
/// # Panics
///
/// With the panic of `function`.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::{current_time, from_thread, to_thread};
///
/// let before = current_time();
/// let now = to_thread::run_sync(|| from_thread::run_sync(current_time)).await??;
/// assert!(now >= before, "the clock of the run, read in the run");
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub fn run_sync<F, R>(function: F) -> Result<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let host = host()?;
    let token = TrioToken::of(host.mail().shared().clone());
    let (work, asked) = Asked::sync(function);
    match host.mail().ask(Request::Sync(work)) {
        Ok(()) => {}
        Err(Request::Sync(work)) => token
            .shared()
            .call(Call::Plain(work))
            .map_err(|_| RunFinished::new())?,
        Err(Request::Future(_)) => unreachable!("what is refused is given back"),
    }
    asked.wait(&token)
}

/// Returns `Cancelled` as an error if the task that waits for this thread has been cancelled since
/// it began to wait, even if it has gone on without waiting for the end.
///
/// # Cancellation
///
/// Reports one, each time. Return the error from the function.
///
/// # Errors
///
/// `Cancelled`. [`Usage`] on a thread that was not begun by
/// [`to_thread::run_sync`](crate::to_thread::run_sync).
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{Result, from_thread, move_on_after, to_thread};
///
/// fn search() -> Result<u64> {
///     loop {
///         std::thread::sleep(Duration::from_millis(1)); // a piece of the work
///         from_thread::check_cancelled()?;
///     }
/// }
///
/// let limit = Duration::from_millis(10);
/// // The second `?` makes the error that `search` returns one of the task.
/// let found = move_on_after(limit, async { to_thread::run_sync(search).await? }).await?;
/// assert_eq!(found, None);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub fn check_cancelled() -> Result<()> {
    match host()?.mail().cancelled() {
        Some(cancelled) => Err(Error::cancelled(cancelled)),
        None => Ok(()),
    }
}

fn host() -> Result<Arc<dyn Host>> {
    refuse_in_run()?;
    let host = HOST.with_borrow(Clone::clone);
    host.ok_or_else(|| {
        Usage::new(
            "this thread was not begun by `to_thread::run_sync`: use a `TrioToken`, which a task \
             gets from `current_trio_token` and gives to the thread",
        )
        .into()
    })
}

/// A thread that is in a run must not block.
pub(super) fn refuse_in_run() -> Result<()> {
    if context::is_running() {
        return Err(Usage::new(
            "this would block a thread that is in a run: call or await the function directly",
        )
        .into());
    }
    Ok(())
}

/// Calls `work` with `host` as the task that waits for this thread.
pub(super) fn with_host<R>(host: Arc<dyn Host>, work: impl FnOnce() -> R) -> R {
    struct Gone;
    impl Drop for Gone {
        fn drop(&mut self) {
            drop(HOST.take());
        }
    }
    HOST.set(Some(host));
    let _gone = Gone;
    work()
}

/// A future on the thread of the run; it sends its own answer.
pub(super) type Local = Pin<Box<dyn Future<Output = ()>>>;

/// Makes such a future there.
pub(super) type MakeLocal = Box<dyn FnOnce() -> Local + Send>;

/// Leaves `work` to a system task of the run.
pub(super) fn run_as_system_task(token: &TrioToken, work: MakeLocal) -> Result<()> {
    let spawn = move || {
        let task = async move {
            work().await;
            Ok(())
        };
        // If there are no system tasks any more, the thread learns it from the missing answer.
        let _ = spawn_system_task_named("from_thread", task);
    };
    let call = Call::Plain(Box::new(spawn));
    Ok(token.shared().call(call).map_err(|_| RunFinished::new())?)
}

/// An answer that is to come.
pub(super) struct Asked<R>(Reply<std::thread::Result<R>>);

impl<R: Send + 'static> Asked<R> {
    /// A call of `function`, and its answer to come.
    pub(super) fn sync<F>(function: F) -> (Work, Self)
    where
        F: FnOnce() -> R + Send + 'static,
    {
        let (replier, answer) = reply();
        let work = move || replier.send(catch_unwind(AssertUnwindSafe(function)));
        (Box::new(work), Self(answer))
    }

    /// Blocks until the answer comes.
    ///
    /// # Panics
    ///
    /// With the panic of what was asked for.
    pub(super) fn wait(self, token: &TrioToken) -> Result<R> {
        match self.0.wait() {
            Some(Ok(value)) => Ok(value),
            Some(Err(panic)) => resume_unwind(panic),
            None if token.is_finished() => Err(RunFinished::new().into()),
            None => Err(Error::cancelled(Cancelled::new(
                CancelSource::Shutdown,
                Some("the task that waited for the thread was dropped".into()),
                None,
                None,
            ))),
        }
    }
}

impl<R: Send + 'static> Asked<Result<R>> {
    /// A function that makes the future of `function`, and the answer to come.
    pub(super) fn future<F>(function: F) -> (MakeLocal, Self)
    where
        F: AsyncFnOnce() -> Result<R> + Send + 'static,
    {
        let (replier, answer) = reply();
        let make = move || -> Local {
            Box::pin(Answering {
                future: async move { function().await },
                replier: Some(replier),
            })
        };
        (Box::new(make), Self(answer))
    }
}

pin_project! {
    /// Answers with the output of a future or with its panic, which belongs to the thread and not
    /// to the task.
    struct Answering<F, R> {
        #[pin]
        future: F,
        replier: Option<Replier<std::thread::Result<R>>>,
    }
}

impl<F: Future<Output = R>, R> Future for Answering<F, R> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let poll = AssertUnwindSafe(|| this.future.poll(context));
        let answer = match catch_unwind(poll) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(panic) => Err(panic),
        };
        if let Some(replier) = this.replier.take() {
            replier.send(answer);
        }
        Poll::Ready(())
    }
}
