//! Nurseries: the block that no child outlives, and whose children may borrow.
//!
//! 1. The body and the children are peers. An error of any of them, a panic too, cancels the rest.
//! 2. The nursery ends when the body has ended, no child lives, no [`start`](Nursery::start) is
//!    pending, and no operation that one of them left behind is in flight (D8). That wait cannot be
//!    cancelled: the children decide.
//! 3. The errors come out as one group, in order of arrival, without the cancellations that belong
//!    to the nursery's own scope. A panic comes out as a panic, after everything has ended.
//! 4. Children are polled from inside the future of the nursery and nowhere else (`erase.rs`).
//! 5. A nursery whose future is dropped half-way, by a combinator that is not of this library, drops
//!    its body and its children there and then; their operations become orphans of the nursery
//!    around it.

mod core;
#[expect(unsafe_code, reason = "children that borrow from the caller's frame")]
mod erase;
mod join;
mod service;
mod start;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

pub(crate) use self::core::{Core, Failure, Notice, Open};
pub(crate) use erase::{spawn_root, spawn_system};
pub use join::{ChildState, Ended, Join, JoinHandle, NoValue};
pub use service::open_service_nursery;
pub use start::TaskStatus;

use crate::cancel::{CancelScope, Cancelled};
use crate::context;
use crate::error::Result;
use crate::task::NurseryRef;

/// A block of tasks, in which children are spawned; see [`open_nursery`].
///
/// `'scope` is the life of the nursery itself, which children may use to spawn more children;
/// `'env` is everything outside the block, which children may borrow.
#[doc(alias = "JoinSet")]
#[doc(alias = "TaskGroup")]
pub struct Nursery<'scope, 'env: 'scope> {
    core: NurseryRef,
    // Both invariant, as in `std::thread::scope`: neither may be shortened or stretched.
    scope: PhantomData<std::cell::Cell<&'scope ()>>,
    env: PhantomData<std::cell::Cell<&'env ()>>,
}

/// Opens a nursery, runs `body` in it, and returns when everything started in it has ended.
///
/// Children may borrow whatever is declared outside the call, shared or mutable. They may not borrow
/// locals of the body (move those into the child), and what they borrow mutably cannot be touched
/// before the nursery has ended; both are compile errors, as is taking the nursery out of the block.
///
/// The value is the body's. If the nursery was cancelled from inside, by
/// [`Nursery::cancel_scope`], and the body ended with nothing but that cancellation, it is
/// `T::default()`: nothing for `()`, `None` for an option.
///
/// # Cancellation
///
/// Waiting for the children is not a cancel point: what the body and the children make of a
/// cancellation decides.
///
/// # Errors
///
/// A group of the errors of the body and of the children in order of arrival, even if there is only
/// one; [`Error::into_single`](crate::Error::into_single) unwraps that.
/// [`NestedTooDeeply`](crate::NestedTooDeeply) if the stack has no room for another level.
///
/// # Panics
///
/// With the panic of the body or of a child, if one of them panicked: its siblings are cancelled and
/// waited for first.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::cell::Cell;
///
/// let total = Cell::new(0);
/// let total_ref = &total;
/// trio::open_nursery(async |nursery| {
///     for n in 1..=4 {
///         nursery.start_soon(async move {
///             trio::checkpoint().await?;
///             total_ref.set(total_ref.get() + n);
///             Ok(())
///         });
///     }
///     Ok(())
/// })
/// .await?;
/// assert_eq!(total.get(), 10);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "JoinSet")]
#[doc(alias = "TaskGroup")]
#[doc(alias = "TaskTracker")]
#[doc(alias = "scope")]
#[track_caller]
pub fn open_nursery<'env, F, T>(body: F) -> impl Future<Output = Result<T>>
where
    F: for<'scope> AsyncFnOnce(&'scope Nursery<'scope, 'env>) -> Result<T>,
    T: Default,
{
    open_nursery_at(Location::caller(), body)
}

/// [`open_nursery`], for what is called at `place` and is a nursery inside.
pub(crate) fn open_nursery_at<'env, F, T>(
    place: &'static Location<'static>,
    body: F,
) -> impl Future<Output = Result<T>>
where
    F: for<'scope> AsyncFnOnce(&'scope Nursery<'scope, 'env>) -> Result<T>,
    T: Default,
{
    drive(move || Open::new(place), body)
}

/// Runs the nursery that `open` opens. Everybody returns this very future, for one around it would be a
/// frame more between two levels.
async fn drive<'env, F, T>(open: impl FnOnce() -> Result<Open>, body: F) -> Result<T>
where
    F: for<'scope> AsyncFnOnce(&'scope Nursery<'scope, 'env>) -> Result<T>,
    T: Default,
{
    let open = open()?;
    let nursery = Nursery {
        core: open.nursery(),
        scope: PhantomData,
        env: PhantomData,
    };
    let mut value = None;
    {
        // Dropped before `open`: the body may hold what children refer to, never the reverse.
        let drive = Drive {
            nursery: &nursery.core,
            body: pin!(body(&nursery)),
            value: &mut value,
        };
        drive.await;
    }
    open.finish(value)
}

/// Ready when the nursery has ended. A type of its own, and not a closure, so that it can ask to be
/// inlined: each frame between two levels of nurseries is paid for on each wake.
struct Drive<'a, B, T> {
    nursery: &'a NurseryRef,
    body: Pin<&'a mut B>,
    value: &'a mut Option<T>,
}

impl<B: Future<Output = Result<T>>, T> Future for Drive<'_, B, T> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let body = &mut this.body;
        let poll_body = |context: &mut Context<'_>| body.as_mut().poll(context);
        this.nursery.drive(context, poll_body, this.value)
    }
}

// Neither the reference to the value nor that to the body is ever pinned in place.
impl<B, T> Unpin for Drive<'_, B, T> {}

impl<'scope, 'env> Nursery<'scope, 'env> {
    /// Starts `task` as a child. It first runs when the caller next waits.
    ///
    /// The child is cancelled with the nursery, not with the scopes that the caller happens to be
    /// in. In a nursery that has been cancelled it still runs up to its first checkpoint.
    #[doc(alias = "spawn")]
    #[doc(alias = "spawn_local")]
    #[doc(alias = "create_task")]
    #[track_caller]
    pub fn start_soon<F>(&'scope self, task: F)
    where
        F: Future<Output = Result<()>> + 'scope,
    {
        drop(erase::spawn_silent(
            &self.core,
            task,
            None,
            Location::caller(),
        ));
    }

    /// Like [`start_soon`](Self::start_soon), with a name for the task tree and for error texts.
    #[track_caller]
    pub fn start_soon_named<F>(&'scope self, name: impl Into<Cow<'static, str>>, task: F)
    where
        F: Future<Output = Result<()>> + 'scope,
    {
        drop(erase::spawn_silent(
            &self.core,
            task,
            Some(name.into()),
            Location::caller(),
        ));
    }

    /// Starts `task` as a child, and returns a handle to wait for its value.
    ///
    /// An error goes to the nursery, like that of any child. The handle can also cancel the child,
    /// wait for its end, and return its state. Dropping it gives up the value, not the child: it
    /// neither cancels the child nor lets it outlive the nursery.
    ///
    /// # Examples
    ///
    /// ```
    /// # use trio_runtime as trio;
    /// # trio::run(async {
    /// use trio::{ChildState, open_nursery, sleep_forever};
    ///
    /// open_nursery(async |nursery| {
    ///     let mut answer = nursery.spawn(async { Ok(42) });
    ///     let mut watcher = nursery.spawn(sleep_forever());
    ///     assert_eq!(answer.join().await?, 42);
    ///     watcher.cancel("no longer needed");
    ///     assert_eq!(watcher.wait().await?, ChildState::Cancelled);
    ///     Ok(())
    /// })
    /// .await
    /// # }).unwrap();
    /// ```
    #[inline]
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, task: F) -> JoinHandle<'scope, T>
    where
        F: Future<Output = Result<T>> + 'scope,
        T: 'scope,
    {
        let output = erase::spawn(&self.core, task, None, Location::caller());
        output.node().set_apart();
        JoinHandle::new(output)
    }

    /// Like [`spawn`](Self::spawn), with a name for the task tree and for error texts.
    #[track_caller]
    pub fn spawn_named<F, T>(
        &'scope self,
        name: impl Into<Cow<'static, str>>,
        task: F,
    ) -> JoinHandle<'scope, T>
    where
        F: Future<Output = Result<T>> + 'scope,
        T: 'scope,
    {
        let output = erase::spawn(&self.core, task, Some(name.into()), Location::caller());
        output.node().set_apart();
        JoinHandle::new(output)
    }

    /// Starts a child and waits until it reports that it is ready; returns the value that it
    /// reports.
    ///
    /// `task` makes the child's future, and gets the [`TaskStatus`] by which it reports. Until the
    /// report the child runs inside this call: scopes around the call apply to it, and its errors
    /// come out here, unwrapped. Afterwards it is a child of this nursery like any other. The
    /// nursery stays open while a start is pending.
    ///
    /// # Cancellation
    ///
    /// Cancelling a scope around this call cancels the child, whose report then has no effect: the
    /// call ends as the child does. Cancelling the nursery, as an error of another child does, has
    /// the same effect.
    ///
    /// # Errors
    ///
    /// Those of the child before it has reported. [`Usage`](crate::Usage) if it ended well without
    /// reporting; [`ClosedResource`](crate::ClosedResource) if that is because this nursery was
    /// cancelled, and the caller was not.
    ///
    /// # Examples
    ///
    /// ```
    /// # use trio_runtime as trio;
    /// # trio::run(async {
    /// trio::open_nursery(async |nursery| {
    ///     let port: u16 = nursery
    ///         .start(async |status| {
    ///             status.started(7000)?;
    ///             trio::sleep_forever().await?;
    ///             Ok(())
    ///         })
    ///         .await?;
    ///     assert_eq!(port, 7000);
    ///     nursery.cancel_scope().cancel("done");
    ///     Ok(())
    /// })
    /// .await
    /// # }).unwrap();
    /// ```
    #[track_caller]
    pub fn start<T, F, R>(
        &'scope self,
        task: F,
    ) -> impl Future<Output = Result<T>> + use<'scope, 'env, T, F, R>
    where
        F: FnOnce(TaskStatus<T>) -> R,
        R: Future<Output = Result<()>> + 'scope,
        T: 'scope,
    {
        start::start(&self.core, task, Location::caller())
    }

    /// [`start_soon`](Self::start_soon) for what was called at `place`.
    pub(crate) fn start_at<F>(
        &'scope self,
        name: Option<Cow<'static, str>>,
        place: &'static Location<'static>,
        task: F,
    ) where
        F: Future<Output = Result<()>> + 'scope,
    {
        drop(erase::spawn_silent(&self.core, task, name, place));
    }

    /// Cancels the scope of the nursery.
    pub(crate) fn cancel_as(&self, cancelled: Cancelled) {
        self.core.run.cancel(self.core.scope.get(), cancelled);
    }

    /// The scope around the body and the children.
    pub fn cancel_scope(&self) -> CancelScope {
        let run = &self.core.run;
        CancelScope::active(run, self.core.scope.get())
    }

    /// How many children live now; one that is being [started](Self::start) is not counted yet.
    pub fn child_count(&self) -> usize {
        self.core.child_count()
    }
}

impl fmt::Debug for Nursery<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nursery")
            .field("children", &self.child_count())
            .finish()
    }
}

/// Whether the caller is in a task, and not in a callback of the run;
/// [`current_task`](crate::lowlevel::current_task) returns which.
pub fn in_task() -> bool {
    context::try_with(|run| run.is_some_and(|run| !run.current.is_none()))
}
