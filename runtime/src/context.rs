//! The run that this thread is in.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::sync::Arc;

use crate::run::Run;
use crate::task::clear_blocks;
pub(crate) use crate::thread::Shared;

thread_local! {
    /// Not dropped with the thread, because then each access would have to check its state first.
    /// It need not be: a run ends before its thread does, and [`Entered`] takes it out.
    static CURRENT: RefCell<ManuallyDrop<Option<Rc<Run>>>> =
        const { RefCell::new(ManuallyDrop::new(None)) };
    /// The shared part of the current run, for wakers, which ask for it from any thread and at any
    /// time.
    static SHARED: Cell<*const Shared> = const { Cell::new(std::ptr::null()) };
}

/// Calls `f` with the run of this thread, or with `None` outside of one.
#[inline]
pub(crate) fn try_with<R>(f: impl FnOnce(Option<&Rc<Run>>) -> R) -> R {
    CURRENT.with_borrow(|run| f(run.as_ref()))
}

/// Calls `f` with the run of this thread.
///
/// # Panics
///
/// Outside of a run.
#[inline]
#[track_caller]
pub(crate) fn with<R>(f: impl FnOnce(&Rc<Run>) -> R) -> R {
    // A closure does not track its caller; a panic outside the closure reports the place of the
    // call.
    match CURRENT.with_borrow(|run| run.as_ref().map(f)) {
        Some(value) => value,
        None => outside(),
    }
}

#[cold]
#[track_caller]
fn outside() -> ! {
    panic!("this works only inside a run: call it from a task under `trio::run` or `#[trio::main]`")
}

/// Whether this thread is in a run.
pub(crate) fn is_running() -> bool {
    SHARED
        .try_with(|shared| !shared.get().is_null())
        .unwrap_or(false)
}

/// Whether `shared` belongs to the run of this thread. `false` when the thread is ending.
#[inline]
pub(crate) fn is_current(shared: *const Shared) -> bool {
    SHARED
        .try_with(|current| std::ptr::eq(current.get(), shared))
        .unwrap_or(false)
}

/// Makes `run` the run of this thread until the guard is dropped.
pub(crate) fn enter(run: Rc<Run>) -> Entered {
    SHARED.set(Arc::as_ptr(&run.shared));
    let before = CURRENT.replace(ManuallyDrop::new(Some(run)));
    assert!(before.is_none(), "a thread is in one run at a time");
    Entered(())
}

pub(crate) struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        SHARED.set(std::ptr::null());
        drop(ManuallyDrop::into_inner(CURRENT.take()));
        clear_blocks();
    }
}
