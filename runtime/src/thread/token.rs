//! The handle through which other threads reach a run.

use std::fmt;
use std::sync::Arc;

use super::from_thread::{self, Asked};
use super::inbox::{Call, CallKey, Shared};
use crate::context;
use crate::error::{Result, RunFinished};

/// A handle to a run for other threads: may be cloned, sent, and kept even after the run.
///
/// Two tokens are equal if they are of the same run.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use trio::lowlevel::{RunVar, current_trio_token};
///
/// static NEWS: RunVar<Rc<Cell<bool>>> = RunVar::with_default("news", Rc::default);
///
/// trio::run(async {
///     let token = current_trio_token();
///     std::thread::spawn(move || {
///         // On the thread of the run, where its values are.
///         token.run_sync_soon(|| NEWS.with(|news| news.unwrap().set(true)))
///     });
///     while !NEWS.get().unwrap().get() {
///         trio::checkpoint().await?;
///     }
///     Ok::<(), trio::Error>(())
/// })
/// .unwrap();
/// ```
#[derive(Clone)]
pub struct TrioToken(Arc<Shared>);

/// The token of this run.
///
/// # Panics
///
/// Outside of a run.
#[track_caller]
pub fn current_trio_token() -> TrioToken {
    context::with(|run| TrioToken(run.shared.clone()))
}

impl TrioToken {
    pub(super) fn of(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Lets the run call `function` on its own thread, soon: between two turns of its loop, outside
    /// of any task, and in the order of these requests.
    ///
    /// May be called from any thread, including the run's own, and never waits; a run that sleeps
    /// is woken. For work that has to wait, `function` wakes a task, or starts one by
    /// [`spawn_system_task`](super::spawn_system_task).
    ///
    /// If this returns `Ok`, `function` is called before the run returns, whatever happens to the
    /// main task.
    ///
    /// If `function` panics, the run fails: it is cancelled, all other requests are carried out,
    /// and then the panic comes out of `run`.
    ///
    /// # Errors
    ///
    /// If the run has ended, or is about to; then `function` has been dropped.
    pub fn run_sync_soon<F>(&self, function: F) -> Result<(), RunFinished>
    where
        F: FnOnce() + Send + 'static,
    {
        let call = Call::Plain(Box::new(function));
        self.0.call(call).map_err(|_| RunFinished::new())
    }

    /// Like [`run_sync_soon`](Self::run_sync_soon), but merges requests for the same: if the same
    /// function has been asked for with the same `key`, and has not begun yet, nothing is added.
    ///
    /// Functions are the same if they have the same type: each closure in the source has a type of
    /// its own, and so has each named `fn` (but all function *pointers* of one signature share a
    /// type). `key` distinguishes calls of one function, as its arguments would.
    ///
    /// # Errors
    ///
    /// As for [`run_sync_soon`](Self::run_sync_soon).
    #[doc(alias = "idempotent")]
    pub fn run_sync_soon_idempotent<F>(&self, key: u64, function: F) -> Result<(), RunFinished>
    where
        F: FnOnce() + Send + 'static,
    {
        let key = CallKey::of::<F>(key);
        let call = Call::Keyed(key, Box::new(function));
        self.0.call(call).map_err(|_| RunFinished::new())
    }

    /// Runs `function` on the thread of the run, and blocks this thread until it has returned.
    ///
    /// # Errors
    ///
    /// If the run has ended, or is about to. [`Usage`](crate::Usage) on a thread that is in a run
    /// itself, this one or another, which must not be blocked.
    ///
    /// # Panics
    ///
    /// With the panic of `function`, which does the run no harm.
    pub fn run_sync<F, R>(&self, function: F) -> Result<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        from_thread::refuse_in_run()?;
        let (work, asked) = Asked::sync(function);
        self.0
            .call(Call::Plain(work))
            .map_err(|_| RunFinished::new())?;
        asked.wait(self)
    }

    /// Runs the future of `function` in a [system task](super::spawn_system_task) of the run, and
    /// blocks this thread until it has ended.
    ///
    /// # Cancellation
    ///
    /// The task is cancelled when the main task has ended.
    ///
    /// # Errors
    ///
    /// Those of the future, including `Cancelled`; nobody else gets them. [`RunFinished`] if the
    /// run has ended, or is about to. [`Usage`](crate::Usage) on a thread that is in a run itself.
    ///
    /// # Panics
    ///
    /// With the panic of the future, which does the run no harm.
    pub fn run<F, R>(&self, function: F) -> Result<R>
    where
        F: AsyncFnOnce() -> Result<R> + Send + 'static,
        R: Send + 'static,
    {
        from_thread::refuse_in_run()?;
        let (work, asked) = Asked::future(function);
        from_thread::run_as_system_task(self, work)?;
        asked.wait(self)?
    }

    /// Whether the run accepts no more requests.
    pub fn is_finished(&self) -> bool {
        self.0.is_closed()
    }

    /// How many requests wait to be carried out.
    pub fn statistics(&self) -> TokenStatistics {
        TokenStatistics {
            queued: self.0.queued(),
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

/// From [`TrioToken::statistics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenStatistics {
    /// Functions that have been accepted and not been called yet.
    pub queued: usize,
}

impl PartialEq for TrioToken {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TrioToken {}

impl fmt::Debug for TrioToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finished = self.is_finished();
        write!(
            f,
            "TrioToken({})",
            if finished { "finished" } else { "running" }
        )
    }
}
