//! A descriptor with an owner who may close it at any moment, and the directions in which tasks use
//! it meanwhile.
//!
//! A future that waits for a descriptor holds a [`Handle`] and not the descriptor: closing takes that
//! out, and closing the [`Gate`] of each direction ends whoever waits in it. So nothing waits for what
//! is closed, and a future that is forgotten keeps nothing open.

use std::cell::{Cell, Ref, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::Context;

use trio_platform::{Descriptor, is_cancelled};

use crate::context;
use crate::error::{BrokenResource, BusyResource, ClosedResource, Error, Result};
use crate::run::Run;
use crate::wait::Parked;

/// A descriptor that its owner may close while others wait in it.
#[derive(Debug)]
pub struct Handle(RefCell<Option<Descriptor>>);

impl Handle {
    /// The handle of an open descriptor.
    pub fn new(descriptor: Descriptor) -> Self {
        Self(RefCell::new(Some(descriptor)))
    }

    /// The descriptor, to be looked at and not to be held across a wait.
    ///
    /// # Errors
    ///
    /// [`ClosedResource`].
    #[inline]
    pub fn get(&self) -> Result<Ref<'_, Descriptor>> {
        Ref::filter_map(self.0.borrow(), Option::as_ref).map_err(|_| ClosedResource::new().into())
    }

    /// The descriptor, for an operation to hold.
    ///
    /// # Errors
    ///
    /// [`ClosedResource`].
    pub fn open(&self) -> Result<Descriptor> {
        self.get().map(|descriptor| descriptor.clone())
    }

    /// Lets go of the descriptor; it is closed when the last operation in flight on it has ended.
    pub fn close(&self) {
        let descriptor = self.0.borrow_mut().take();
        drop(descriptor);
    }

    /// Whether [`close`](Self::close) has been called.
    pub fn is_closed(&self) -> bool {
        self.0.borrow().is_none()
    }

    /// What the system has said, in the words of a stream: [`ClosedResource`] if this side has closed
    /// it, else [`BrokenResource`].
    #[cold]
    pub fn error(&self, error: io::Error) -> Error {
        if self.is_closed() || is_cancelled(&error) {
            return ClosedResource::new().into();
        }
        BrokenResource::because(error).into()
    }
}

/// One direction of a descriptor: who uses it, and how its owner ends what waits in it.
#[derive(Default)]
pub struct Gate {
    busy: Cell<bool>,
    closed: Cell<bool>,
    /// Who waits here, and in which run: a future that was forgotten may be there still when that has
    /// ended, and the next counts its waits from zero again.
    waiting: Cell<Option<(u64, u32)>>,
    /// The place of the last wait, for the next: a connection waits for each of its messages, mostly
    /// in the same task and under the same scope.
    kept: Cell<Option<Parked>>,
}

impl Gate {
    /// Takes the direction until the guard goes.
    ///
    /// # Errors
    ///
    /// [`BusyResource`] if somebody has it.
    pub fn claim(&self) -> Result<Claim<'_>> {
        self.take()?;
        Ok(Claim(self))
    }

    /// Ends what waits in `handle`, which is about to be closed, and whatever comes later before it
    /// begins. An operation that the kernel has finished all the same is finished.
    pub fn close(&self, handle: &Handle) {
        self.closed.set(true);
        if let Some((run, wait)) = self.waiting.take() {
            let descriptor = handle.0.borrow();
            context::try_with(|current| {
                if let Some(current) = current.filter(|current| current.id == run) {
                    current.close_wait(wait, descriptor.as_ref());
                }
            });
        }
    }

    /// Whether [`close`](Self::close) has been called.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    #[inline]
    pub(crate) fn set_waiting(&self, parked: Option<&Parked>) {
        self.waiting
            .set(parked.map(|parked| (parked.run().id, parked.wait())));
    }

    /// A wait of the current task behind this gate.
    #[inline]
    pub(crate) fn park(&self, run: &Rc<Run>, context: &Context<'_>, what: &'static str) -> Parked {
        let kept = self.kept.take();
        let resumed = kept.and_then(|kept| kept.resume(run, context));
        resumed.unwrap_or_else(|| Parked::in_run(run, context, what))
    }

    /// Takes the place of a wait that is over.
    #[inline]
    pub(crate) fn keep(&self, parked: Parked) {
        self.kept.set(parked.rest());
    }

    /// What [`claim`](Self::claim) does, for a future that calls [`give_back`](Self::give_back) itself
    /// when it ends or is dropped.
    ///
    /// # Errors
    ///
    /// As for [`claim`](Self::claim).
    #[inline]
    pub fn take(&self) -> Result<()> {
        if self.busy.replace(true) {
            return Err(BusyResource::new().into());
        }
        Ok(())
    }

    /// Gives the direction back, by whom it was taken.
    #[inline]
    pub fn give_back(&self) {
        self.busy.set(false);
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("busy", &self.busy)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

/// A direction that has been [taken](Gate::claim).
#[derive(Debug)]
#[must_use = "the direction is given back when this is dropped"]
pub struct Claim<'a>(&'a Gate);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}
