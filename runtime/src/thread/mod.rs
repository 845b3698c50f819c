//! Threads: leaving a run, coming back into it, and many runs at once.
//!
//! A run has one thread, and its tasks never leave it. Everything that crosses threads is here, and
//! is `Send`:
//!
//! - [`to_thread::run_sync`] awaits a blocking function on another thread,
//!   and [`from_thread`] calls back from there into the waiting task;
//! - a [`TrioToken`] reaches a run from any thread that has one;
//! - [`run_workers`] runs one program on every core, supervised as one;
//! - a [`Watchdog`] notices from outside when the loop of a run is stuck.
//!
//! Who owns what: the inbox of a run is shared by all who know the run, and is closed when it ends
//! (`inbox.rs`); a worker thread belongs to the pool of the process (`pool.rs`); a call that a
//! thread works on is an entry of its run until the thread has reported its end (`call.rs`).
//! Everything that locks, and every atomic except those of wakers, is in this folder; whatever does
//! more than push under a lock has its loom test (`loom.rs`).

mod call;
pub mod from_thread;
mod inbox;
mod limiter;
#[cfg(all(test, loom))]
mod loom;
mod mail;
mod pool;
mod pulse;
mod reply;
mod sync;
mod system;
pub mod to_thread;
mod token;
mod watchdog;
mod workers;

pub(crate) use call::Threads;
pub(crate) use inbox::{Call, Queued, Shared};
pub use pool::{ThreadStatistics, start_thread_soon, thread_statistics};
pub use system::{spawn_system_task, spawn_system_task_named};
pub use token::{TokenStatistics, TrioToken, current_trio_token};
pub(crate) use watchdog::Watched;
pub use watchdog::{Blocked, Watchdog};
pub use workers::{Worker, Workers, run_workers};
