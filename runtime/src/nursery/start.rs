//! Starting a child and waiting until it says that it is ready.
//!
//! The child first lives in a private nursery inside the call, under the caller's scopes, and under
//! a scope slot of its own. When it reports, that slot moves under the target's, so that whatever is
//! inside is cancelled with the target from that moment (semantics T4); the task itself follows when
//! the call is polled next, which is before the child is polled again.
//!
//! Before that a cancel of the target reaches the child too (T12), although it lives elsewhere: the
//! call waits under the target's scope, and cancels the private nursery when that wait is aborted.
//! Otherwise a target that has failed would wait for a child that nobody has told.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::core::Open;
use super::erase;
use crate::error::{ClosedResource, Error, Result, Usage};
use crate::task::{Locals, NodeRef, NurseryRef};
use crate::wait::Parked;

/// How a child that was [started](super::Nursery::start) reports that it is ready.
pub struct TaskStatus<T>(Option<Rc<Status<T>>>);

struct Status<T> {
    value: Cell<Option<T>>,
    /// What the report has to move; taken by it.
    pending: RefCell<Option<Pending>>,
    reported: Cell<bool>,
    /// Whether the report took effect: the child now belongs to the target.
    moved: Cell<bool>,
}

struct Pending {
    child: NodeRef,
    private: NurseryRef,
    target: NurseryRef,
}

impl<T> TaskStatus<T> {
    /// A status that reports to nobody: for calling a function directly that is written for
    /// `start`. Trio's `TASK_STATUS_IGNORED`.
    #[doc(alias = "TASK_STATUS_IGNORED")]
    pub const fn ignored() -> Self {
        Self(None)
    }

    /// Reports that the child is ready, with the value that [`start`](super::Nursery::start)
    /// returns. From now on the child belongs to the nursery that it was started in.
    ///
    /// Has no effect if the call of `start` has been cancelled: then the child stays inside it.
    ///
    /// # Errors
    ///
    /// [`Usage`] if it has been called before.
    pub fn started(&self, value: T) -> Result<()> {
        let Some(status) = &self.0 else { return Ok(()) };
        if status.reported.replace(true) {
            return Err(Usage::new("`started` was called twice on the same task status").into());
        }
        let Some(Pending {
            child,
            private,
            target,
        }) = status.pending.take()
        else {
            // The call of `start` has gone; there is nobody to tell.
            return Ok(());
        };
        status.value.set(Some(value));
        if private.run.tree.borrow().is_cancelled(private.scope.get()) {
            // The child may have a cancellation in flight that only the call can catch (T5).
            return Ok(());
        }
        status.moved.set(true);
        private
            .run
            .move_scope(child.scope.get(), target.children_scope.get());
        private.poke();
        Ok(())
    }
}

impl<T> fmt::Debug for TaskStatus<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskStatus")
    }
}

/// Keeps the target open, and sees to it that the child ends up somewhere.
struct Starting<T> {
    status: Rc<Status<T>>,
    child: NodeRef,
    target: NurseryRef,
    /// Drops the child, unless it has been moved. `None` once it has been finished.
    private: Option<Open>,
    /// How the call learns that the target has been cancelled.
    watch: Watch,
}

enum Watch {
    Begin,
    Waiting(Parked),
    /// The target has been cancelled, or is no more.
    Over,
}

impl<T> Starting<T> {
    /// Moves the child to the target, if it has reported; whatever it has done wrong since, too.
    fn hand_over(&self) -> bool {
        let Some(private) = self.private.as_ref().filter(|_| self.status.moved.get()) else {
            return false;
        };
        let private = private.nursery();
        if !self.child.is_done() && self.child.home().is_some_and(|home| home == private) {
            private.release(&self.child);
            self.target.adopt(&self.child);
            if self.child.is_ready() {
                // It stands in the queue of the private nursery, which is not polled again.
                private.forget_ready();
                self.child.schedule();
            }
        }
        private.move_failures(&self.target);
        true
    }

    /// Cancels the child once the target has been cancelled. Waits for that if the child is not ready
    /// at once, `waiting`.
    fn follow_target(&mut self, context: &Context<'_>, waiting: bool) {
        let target = &self.target;
        let scope = target.children_scope.get();
        let cancelled = match &self.watch {
            Watch::Over => return,
            // Whoever dropped the target has not dropped this call, so nobody waits for it.
            _ if target.is_closed() => None,
            Watch::Begin => {
                let cancelled = target.run.tree.borrow().cancelled(scope).cloned();
                match cancelled {
                    None if waiting => {
                        let parked = Parked::under(&target.run, context, scope, "start");
                        self.watch = Watch::Waiting(parked);
                        return;
                    }
                    None => return,
                    cancelled => cancelled,
                }
            }
            Watch::Waiting(parked) => match parked.poll_under(context, scope) {
                Poll::Pending => return,
                Poll::Ready(cancelled) => cancelled,
            },
        };
        self.watch = Watch::Over;
        if let (Some(cancelled), Some(private)) = (cancelled, &self.private) {
            let private = private.nursery();
            private.run.cancel(private.scope.get(), cancelled);
        }
    }

    /// The result of a child that ended inside the call.
    fn finish(mut self, done: Option<()>) -> Result<T> {
        let private = self.private.take().expect("finished once");
        match private.finish::<()>(done) {
            Ok(()) => self.status.value.take().ok_or_else(|| match self.watch {
                Watch::Over => ClosedResource::new().into(),
                _ => {
                    Usage::new("the task ended without calling `started` on its task status").into()
                }
            }),
            // One level of grouping is this function's own (T7, G3).
            Err(error) => Err(match error.into_group() {
                Ok(mut errors) if errors.len() == 1 => errors.remove(0),
                Ok(errors) => Error::group("errors in a task that was being started", errors),
                Err(error) => error,
            }),
        }
    }
}

impl<T> Drop for Starting<T> {
    fn drop(&mut self) {
        self.status.pending.take();
        self.hand_over();
        // Before the target may end.
        drop(self.private.take());
        self.target
            .pending_starts
            .set(self.target.pending_starts.get() - 1);
        self.target.poke();
    }
}

pub(super) fn start<'scope, T, F, R>(
    target: &NurseryRef,
    task: F,
    place: &'static Location<'static>,
) -> impl Future<Output = Result<T>> + use<'scope, T, F, R>
where
    F: FnOnce(TaskStatus<T>) -> R,
    R: Future<Output = Result<()>> + 'scope,
    T: 'scope,
{
    let target = target.clone();
    async move {
        let private = Open::new(place)?;
        let nursery = private.nursery();
        let status = Rc::new(Status {
            value: Cell::new(None),
            pending: RefCell::new(None),
            reported: Cell::new(false),
            moved: Cell::new(false),
        });
        let future = task(TaskStatus(Some(status.clone())));
        let child = erase::spawn_silent(&nursery, future, None, place);
        // Values that go with the nursery are those of the nursery where it is going to live.
        drop(child.replace_locals(Locals::of_child(&nursery.run, &target)));
        child.scope.set(nursery.run.enter_plain());
        nursery
            .run
            .move_scope(child.scope.get(), nursery.scope.get());
        *status.pending.borrow_mut() = Some(Pending {
            child: child.clone(),
            private: nursery.clone(),
            target: target.clone(),
        });
        target.pending_starts.set(target.pending_starts.get() + 1);
        let mut starting = Starting {
            status,
            child,
            target,
            private: Some(private),
            watch: Watch::Begin,
        };

        let mut done = None;
        poll_fn(|context| {
            starting.follow_target(context, false);
            if starting.hand_over() {
                return Poll::Ready(());
            }
            let over = nursery.drive_once(context, |_| Poll::Ready(Ok(())), &mut done);
            if starting.hand_over() {
                return Poll::Ready(());
            }
            if over.is_pending() {
                starting.follow_target(context, true);
            }
            over
        })
        .await;

        if starting.status.moved.get() {
            return Ok(starting.status.value.take().expect("a report has a value"));
        }
        starting.finish(done)
    }
}
