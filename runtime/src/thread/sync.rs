//! Where other threads and a run meet: the locks and atomics of `std`, or those of loom in its
//! tests.
//!
//! `cargo xtask loom` builds this crate with `--cfg loom` and runs every order in which the threads
//! of a small program can meet. Only code that such a test covers takes its types from here.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc, Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc, Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use std::sync::PoisonError;

/// Locks. A panic never leaves the content of these locks half changed, so a lock that is poisoned
/// by a panic of another thread can be used.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
