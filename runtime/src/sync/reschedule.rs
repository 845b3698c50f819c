//! Waiting for something that this library knows nothing about, and that may take time to call off.
//! In Trio this is the primitive under all other waits.
//!
//! The future and the [`Reschedule`] handle share the state. While the task waits, the run holds it
//! too, so that a cancel can abort the wait.
//!
//! | State    | means                                   | left by                                     |
//! |----------|-----------------------------------------|---------------------------------------------|
//! | Waiting  | what was begun has not reported yet      | a report, a cancel, a drop of either side   |
//! | Aborting | the abort function is running            | its answer, or a report that it makes itself |
//! | Asked    | it answered `Failed`                     | a report; or the drop of the handle, which ends the wait as cancelled |
//! | Ended    | nothing more happens                     | nothing                                     |
//!
//! 1. The abort function is called at most once (semantics L5): by the cancel, before that returns
//!    (L2), or by the drop of the future.
//! 2. A panic in it continues in the task that waits.
//! 3. A report that comes before the answer `Succeeded` is what the task gets (R1).
//! 4. No user code is called while the tree of waits is borrowed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::wait_list::WaitId;
use crate::cancel::Cancelled;
use crate::checkpoint::enter_operation;
use crate::context;
use crate::error::{Error, Result, Usage};
use crate::wait::Parked;

/// The answer of an abort function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abort {
    /// What was waited for has been called off, and has not happened: the task gets `Cancelled`.
    Succeeded,
    /// It could not be called off, or not yet: the task waits on, until it is rescheduled with the
    /// outcome.
    Failed,
}

/// Parks the task until somebody reschedules it.
///
/// When the wait begins, `begin` is called with the handle that ends it. It starts what is to be
/// waited for, and returns the function that calls it off again. That function is called at most
/// once: with the cancellation, when an enclosing scope is cancelled and before that call of
/// `cancel` returns; or with `None`, when the future is dropped half-way.
///
/// An abort function that answers [`Abort::Failed`] may keep the cancellation. Rescheduling with it
/// as the error later says that what was waited for did not happen after all.
///
/// # Cancellation
///
/// A checkpoint. If the scope has been cancelled already, `begin` is not called. After that the
/// abort function decides.
///
/// # Errors
///
/// What the task was rescheduled with. `Cancelled`. [`Usage`] if the handle was dropped without
/// rescheduling.
///
/// # Panics
///
/// When it is polled outside of a run. With the panic of the abort function, if that has panicked.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::{cell::Cell, rc::Rc};
/// use trio::lowlevel::{Abort, Reschedule, wait_task_rescheduled};
///
/// let mailbox: Rc<Cell<Option<Reschedule<&str>>>> = Rc::default();
/// let mailbox_ref = &mailbox;
/// trio::open_nursery(async |nursery| {
///     nursery.start_soon(async move {
///         let letter = wait_task_rescheduled(|handle| {
///             mailbox_ref.set(Some(handle));
///             let mailbox = mailbox_ref.clone();
///             move |_| {
///                 mailbox.take();
///                 Abort::Succeeded
///             }
///         });
///         assert_eq!(letter.await?, "hello");
///         Ok(())
///     });
///     trio::checkpoint().await?;
///     let handle = mailbox.take().expect("the child waits");
///     handle.reschedule(Ok("hello")).expect("and has not been cancelled");
///     Ok(())
/// })
/// .await
/// # }).unwrap();
/// ```
pub fn wait_task_rescheduled<T, B, A>(begin: B) -> WaitTaskRescheduled<T, B>
where
    T: 'static,
    B: FnOnce(Reschedule<T>) -> A,
    A: FnOnce(Option<Cancelled>) -> Abort + 'static,
{
    WaitTaskRescheduled {
        begin: Some(begin),
        waiting: None,
    }
}

/// The right to end a wait that [`wait_task_rescheduled`] has begun.
#[must_use = "the task gets an error when the handle is dropped"]
pub struct Reschedule<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Reschedule<T> {
    /// Ends the wait: the task returns `outcome` when it next runs, whether or not it is cancelled
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// `outcome`, if nobody waits for it any more: the task has been cancelled, or the future
    /// dropped.
    pub fn reschedule(self, outcome: Result<T>) -> Result<(), Result<T>> {
        self.shared.report(outcome)
    }

    /// Whether the task still waits to be rescheduled, perhaps only because it could not be
    /// aborted.
    pub fn is_waiting(&self) -> bool {
        matches!(self.shared.state.get(), State::Waiting | State::Asked)
    }
}

impl<T> Drop for Reschedule<T> {
    fn drop(&mut self) {
        self.shared.lose_handle();
    }
}

impl<T> fmt::Debug for Reschedule<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reschedule")
            .field("waiting", &self.is_waiting())
            .finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Aborting,
    Asked,
    Ended,
}

struct Shared<T> {
    wait: WaitId,
    state: Cell<State>,
    outcome: Cell<Option<Result<T>>>,
    panic: Cell<Option<Box<dyn Any + Send>>>,
    /// The cancellation, if an abort could not deliver it yet.
    cancelled: RefCell<Option<Cancelled>>,
    handle_lost: Cell<bool>,
}

impl<T> Shared<T> {
    fn report(&self, outcome: Result<T>) -> Result<(), Result<T>> {
        // The state ends in any case; the tree knows whether the task can still be woken.
        if self.state.get() == State::Ended || !self.wait.report() {
            return Err(outcome);
        }
        self.state.set(State::Ended);
        self.outcome.set(Some(outcome));
        Ok(())
    }

    fn lose_handle(&self) {
        self.handle_lost.set(true);
        match self.state.get() {
            State::Waiting => {
                let error = Usage::new(
                    "a `Reschedule` was dropped, so that the task which waits for it would wait \
                     for ever: call `reschedule`",
                );
                // If nobody waits, nobody has to be notified.
                drop(self.report(Err(error.into())));
            }
            State::Asked => self.cancel(),
            State::Aborting | State::Ended => {}
        }
    }

    /// The abort function has panicked. The panic belongs to the task, whose function it is, and
    /// not to whoever cancels, who has other waits to abort as well.
    fn panic(&self, panic: Box<dyn Any + Send>) {
        self.panic.set(Some(panic));
        self.wait.report();
        self.state.set(State::Ended);
    }

    /// Ends the wait with the cancellation.
    fn cancel(&self) {
        if let Some(cancelled) = self.cancelled.take() {
            drop(self.report(Err(Error::cancelled(cancelled))));
        }
    }
}

/// How the run reaches a wait that it cannot end by itself.
pub(crate) trait Aborter {
    /// An enclosing scope has been cancelled.
    fn abort(&self, cancelled: Cancelled);

    /// The future is gone.
    fn give_up(&self);
}

/// The state together with the abort function, whose type the handle does not know.
struct Abortable<T, A> {
    shared: Rc<Shared<T>>,
    abort: Cell<Option<A>>,
}

impl<T, A: FnOnce(Option<Cancelled>) -> Abort> Aborter for Abortable<T, A> {
    fn abort(&self, cancelled: Cancelled) {
        let shared = &self.shared;
        if shared.state.get() != State::Waiting {
            return;
        }
        *shared.cancelled.borrow_mut() = Some(cancelled.clone());
        // While `begin` runs there is no function yet: it is called later.
        let Some(abort) = self.abort.take() else {
            return;
        };
        shared.state.set(State::Aborting);
        let answer = match catch_unwind(AssertUnwindSafe(|| abort(Some(cancelled)))) {
            Ok(answer) => answer,
            Err(panic) => return shared.panic(panic),
        };
        if shared.state.get() != State::Aborting {
            return;
        }
        match answer {
            Abort::Failed if !shared.handle_lost.get() => shared.state.set(State::Asked),
            // Without the handle, nobody can report.
            Abort::Failed | Abort::Succeeded => shared.cancel(),
        }
    }

    fn give_up(&self) {
        let before = self.shared.state.replace(State::Ended);
        let abort = self.abort.take().filter(|_| before == State::Waiting);
        if let Some(abort) = abort {
            // Nobody waits, so the answer makes no difference.
            let (Abort::Succeeded | Abort::Failed) = abort(None);
        }
    }
}

/// The future of [`wait_task_rescheduled`].
#[must_use = "futures do nothing unless polled"]
pub struct WaitTaskRescheduled<T, B> {
    begin: Option<B>,
    waiting: Option<Waiting<T>>,
}

struct Waiting<T> {
    /// `None` only while this is dropped.
    parked: Option<Parked>,
    aborter: Rc<dyn Aborter>,
    shared: Rc<Shared<T>>,
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        // The wait is removed first, so that the function does not find it, and the tree never
        // holds the last handle to something of the user's.
        drop(self.parked.take());
        self.aborter.give_up();
    }
}

// Nothing inside is pinned.
impl<T, B> Unpin for WaitTaskRescheduled<T, B> {}

impl<T, B, A> Future for WaitTaskRescheduled<T, B>
where
    T: 'static,
    B: FnOnce(Reschedule<T>) -> A,
    A: FnOnce(Option<Cancelled>) -> Abort + 'static,
{
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let this = &mut *self;
        if this.waiting.is_none() {
            ready!(enter_operation(context))?;
            let begin = this.begin.take();
            let begin = begin.expect("a future is not polled after its end");
            begin_to_wait(&mut this.waiting, begin);
        }
        let waiting = this.waiting.as_ref().expect("it has just begun");
        if let Some(parked) = &waiting.parked {
            parked.refresh(context);
        }
        if let Some(panic) = waiting.shared.panic.take() {
            this.waiting = None;
            resume_unwind(panic);
        }
        let Some(outcome) = waiting.shared.outcome.take() else {
            return Poll::Pending;
        };
        this.waiting = None;
        Poll::Ready(outcome)
    }
}

fn begin_to_wait<T, B, A>(slot: &mut Option<Waiting<T>>, begin: B)
where
    T: 'static,
    B: FnOnce(Reschedule<T>) -> A,
    A: FnOnce(Option<Cancelled>) -> Abort + 'static,
{
    let parked = context::with(|run| Parked::begin(run, "wait_task_rescheduled"));
    let wait = WaitId::of(&parked);
    let shared = Rc::new(Shared {
        wait: wait.clone(),
        state: Cell::new(State::Waiting),
        outcome: Cell::new(None),
        panic: Cell::new(None),
        cancelled: RefCell::new(None),
        handle_lost: Cell::new(false),
    });
    let abortable = Rc::new(Abortable {
        shared: shared.clone(),
        abort: Cell::new(None),
    });
    wait.abort_with(abortable.clone());
    // From here on a drop cleans up, even after a panic in `begin`.
    *slot = Some(Waiting {
        parked: Some(parked),
        aborter: abortable.clone(),
        shared: shared.clone(),
    });
    let abort = begin(Reschedule {
        shared: shared.clone(),
    });
    abortable.abort.set(Some(abort));
    // A cancel may have come from inside `begin`.
    let cancelled = shared.cancelled.borrow().clone();
    if let Some(cancelled) = cancelled {
        abortable.abort(cancelled);
    }
}

impl<T, B> fmt::Debug for WaitTaskRescheduled<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WaitTaskRescheduled")
    }
}
