//! Leaving the run: blocking functions on threads of their own, awaited by tasks.
//!
//! A task that calls a blocking function holds up its whole run. [`run_sync`] lets another thread
//! call it and awaits the value, while all other tasks go on. Use it for functions that block and
//! have no asynchronous form (a library that reads files, a name service, a database client), and
//! for long computations. Each call costs some microseconds, so it does not pay for anything
//! shorter.
//!
//! - The function and its value are moved to the thread and back: they are `Send` and borrow nothing.
//! - A cancel waits for the function, which can [ask](crate::from_thread::check_cancelled) whether it
//!   should end early; [`RunSync::abandon_on_cancel`] leaves it behind instead.
//! - At most forty calls of a run execute at the same time, and others queue. A
//!   [`CapacityLimiter`](crate::sync::CapacityLimiter) gives one kind of call a limit of its own.
//! - Idle threads are kept for ten seconds, for all runs of the process.
//!
//! ```
//! # use trio_runtime as trio;
//! # trio::run(async {
//! use std::net::ToSocketAddrs;
//! use trio::to_thread;
//!
//! let addresses = to_thread::run_sync(|| {
//!     let found = ("127.0.0.1", 80).to_socket_addrs()?;
//!     Ok::<_, std::io::Error>(found.collect::<Vec<_>>())
//! })
//! .await??;
//! assert_eq!(addresses.len(), 1);
//! # Ok::<(), trio::Error>(()) }).unwrap();
//! ```

pub use super::call::{RunSync, current_default_thread_limiter, run_sync};
pub use super::limiter::ThreadLimiter;
