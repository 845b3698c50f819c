//! A descriptor with an owner who may close it at any moment, and the directions in which tasks use
//! it meanwhile.
//!
//! A future that waits for a descriptor holds a [`Handle`] rather than the descriptor. Closing the handle
//! takes the descriptor out, and closing the [`Gate`] of each direction ends every wait in it. So nothing
//! waits for a closed descriptor, and a future that is forgotten keeps none open.

use std::cell::{Cell, Ref, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::Context;

use trio_platform::{Descriptor, Token, is_cancelled};

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
        Ref::filter_map(self.0.borrow(), Option::as_ref).map_err(|_| closed())
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

// Out of line: every message passes the places that could fail like this, after a system call that has
// taken their code out of the cache.

#[cold]
pub(crate) fn closed() -> Error {
    ClosedResource::new().into()
}

#[cold]
fn busy() -> Error {
    BusyResource::new().into()
}

/// One direction of a descriptor: who uses it, and how its owner ends what waits in it.
// Small: each connection has two of them, and its handler often keeps them twice, in an argument and in the
// variable that it becomes.
pub struct Gate {
    /// The place of a wait, which stays here from one wait to the next: a connection waits for each of its
    /// messages, mostly in the same task and under the same scope. An operation has a wait of its own; while
    /// one is waited for, there is no place here, only the run in which that is.
    place: Cell<Option<Parked>>,
    /// The wait that closing ends, or [`NOBODY`].
    waiting: Cell<u32>,
    busy: Cell<bool>,
    closed: Cell<bool>,
    ended: Cell<bool>,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Gate>() <= 24, "a gate is three words");

/// The number of no wait.
const NOBODY: u32 = u32::MAX;

impl Default for Gate {
    fn default() -> Self {
        Self {
            place: Cell::new(None),
            waiting: Cell::new(NOBODY),
            busy: Cell::new(false),
            closed: Cell::new(false),
            ended: Cell::new(false),
        }
    }
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
        let wait = self.waiting.replace(NOBODY);
        if wait != NOBODY {
            let descriptor = handle.0.borrow();
            // A future that was forgotten may be here still when its run has ended, and the next counts
            // its waits from zero again.
            let run = self.at_place(|parked| parked.run().clone());
            context::try_with(|current| {
                // If the place is empty its future is being polled, here, and has cloned a waker of others.
                let same = |current: &&Rc<Run>| run.is_none_or(|run| Rc::ptr_eq(current, &run));
                if let Some(current) = current.filter(same) {
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

    /// Notes that this direction has ended, though the descriptor is open: the end of file has been sent.
    pub fn end(&self) {
        self.ended.set(true);
    }

    /// Whether [`end`](Self::end) has been called.
    #[inline]
    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Notes the wait that closing ends.
    #[inline]
    pub(crate) fn set_waiting(&self, wait: u32) {
        self.waiting.set(wait);
    }

    /// Notes the wait of an operation of this run, until [`leave`](Self::leave).
    pub(crate) fn set_operating(&self, run: &Rc<Run>, wait: u32) {
        self.place.set(Some(Parked::nowhere(run)));
        self.set_waiting(wait);
    }

    /// Nobody waits any more.
    #[inline]
    pub(crate) fn clear_waiting(&self) {
        self.waiting.set(NOBODY);
    }

    /// Puts a wait of the current task into the place.
    pub(crate) fn park(&self, run: &Rc<Run>, context: &Context<'_>, what: &'static str) -> u32 {
        // First, because the next wait may get the place of the one before.
        drop(self.place.take());
        let parked = Parked::in_run(run, context, what);
        let wait = parked.wait();
        self.place.set(Some(parked));
        wait
    }

    /// Waits again in the place of the wait before, if there was one like this, and if `watch` makes sure that
    /// what it waits for will be reported.
    #[inline]
    pub(crate) fn resume(
        &self,
        run: &Rc<Run>,
        context: &Context<'_>,
        watch: impl FnOnce(u32) -> bool,
    ) -> bool {
        let Some(parked) = self.place.take() else {
            return false;
        };
        let resumed = parked.resume(run, context, watch);
        if resumed {
            self.set_waiting(parked.wait());
        }
        self.place.set(Some(parked));
        resumed
    }

    /// Ends the wait in the place, if what it waited for has come and nothing else has: see [`Parked::rest`].
    #[inline]
    pub(crate) fn rest(&self, run: &Rc<Run>) -> bool {
        let Some(parked) = self.place.take() else {
            return false;
        };
        let rests = parked.rest(run);
        self.place.set(Some(parked));
        rests
    }

    /// Calls `f`, which may run foreign code, with the wait in the place.
    pub(crate) fn at_place<R>(&self, f: impl FnOnce(&Parked) -> R) -> Option<R> {
        let taken = Taken(&self.place, self.place.take());
        taken.1.as_ref().map(f)
    }

    /// Ends the wait in the place, whatever became of it.
    pub(crate) fn leave(&self) {
        drop(self.place.take());
    }

    /// What [`claim`](Self::claim) does, for a future that calls [`give_back`](Self::give_back) itself
    /// when it ends or is dropped.
    ///
    /// # Errors
    ///
    /// As for [`claim`](Self::claim).
    #[inline]
    pub fn take(&self) -> Result<()> {
        match self.busy.replace(true) {
            true => Err(busy()),
            false => Ok(()),
        }
    }

    /// Gives the direction back. For whoever has taken it.
    #[inline]
    pub fn give_back(&self) {
        self.busy.set(false);
    }
}

impl Drop for Gate {
    #[inline]
    fn drop(&mut self) {
        if self.waiting.get() != NOBODY {
            self.end_forgotten();
        }
    }
}

impl Gate {
    /// A future that waited behind this gate was forgotten, and nobody else can take its watch back.
    #[cold]
    fn end_forgotten(&self) {
        let waiting = self.waiting.get();
        self.at_place(|parked| {
            if parked.wait() == waiting {
                parked.with(|run| {
                    let place = run.tree.borrow().watch(waiting);
                    if let Some(place) = place {
                        run.driver().unwatch_at(place, Token(u64::from(waiting)));
                    }
                });
            }
        });
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

/// The wait that was in a place, and goes back there even if a foreign waker panics meanwhile.
struct Taken<'a>(&'a Cell<Option<Parked>>, Option<Parked>);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.set(self.1.take());
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
