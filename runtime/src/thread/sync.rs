//! What other threads and a run meet at: locks and atomics of `std`, or of loom in its tests.
//!
//! `cargo xtask loom` builds this crate with `--cfg loom` and runs every order in which the threads
//! of a small program can meet. Only what such a test looks at takes its types from here.

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

/// Locks. What is locked here is never left half changed by a panic, so one that has happened in
/// another thread is of no concern.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
