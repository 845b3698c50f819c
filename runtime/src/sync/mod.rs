//! How tasks of one run wait for each other.
//!
//! | for                                             | there is             |
//! |-------------------------------------------------|----------------------|
//! | something that happens once                     | [`Event`]            |
//! | a value that one task at a time may work on     | [`Lock`]             |
//! | a value that many read and few change           | [`RwLock`]           |
//! | a change of what a lock guards                  | [`Condition`]        |
//! | a limited number at a time, each with a token   | [`CapacityLimiter`]  |
//! | a number that is counted up and down            | [`Semaphore`]        |
//! | a given number of tasks that go on together     | [`Barrier`]          |
//!
//! To pass values there are [channels](crate::channel), and for primitives of your own
//! [`ParkingLot`](crate::lowlevel::ParkingLot) and
//! [`wait_task_rescheduled`](crate::lowlevel::wait_task_rescheduled).
//!
//! All of them keep the same promises:
//!
//! - **First come, first served.** What is released is handed over: the task that has waited
//!   longest has it at once, before it runs and before any other task can take it (semantics F1).
//! - **A cancel loses nothing.** `Cancelled` from one of these means that nothing was taken. What
//!   was handed over before the cancel came is returned, and the next checkpoint reports (R1, C5).
//!   A future that is dropped after it was handed something passes it on.
//! - **One thread.** None of them is `Send`, uses atomics, or allocates for an operation. They can
//!   be made anywhere, most of them in a `const`; methods that do not wait also work outside of a
//!   run.
//!
//! # Examples
//!
//! ```
//! # use trio_runtime as trio;
//! # trio::run(async {
//! use trio::sync::{Event, Lock};
//!
//! let ready = Event::new();
//! let log = Lock::new(Vec::new());
//! let (ready_ref, log_ref) = (&ready, &log);
//! trio::open_nursery(async |nursery| {
//!     nursery.start_soon(async move {
//!         ready_ref.wait().await?;
//!         log_ref.acquire().await?.push("waited");
//!         Ok(())
//!     });
//!     log.acquire().await?.push("prepared");
//!     ready.set();
//!     Ok(())
//! })
//! .await?;
//! assert_eq!(log.into_inner(), ["prepared", "waited"]);
//! # Ok::<(), trio::Error>(()) }).unwrap();
//! ```

mod barrier;
mod capacity;
mod condition;
mod event;
mod lock;
pub(crate) mod parking_lot;
pub(crate) mod reschedule;
mod rw_lock;
mod semaphore;
pub(crate) mod wait_list;

pub use barrier::{Barrier, BarrierPassed, BarrierStatistics, BarrierWait};
pub use capacity::{
    Borrower, CapacityAcquire, CapacityLimiter, CapacityLimiterStatistics, CapacityToken,
};
pub use condition::{Condition, ConditionStatistics, ConditionWait};
pub use event::{Event, EventStatistics, EventWait};
pub use lock::{Acquire, Lock, LockGuard, LockStatistics, StrictFifoLock};
pub use rw_lock::{Read, RwLock, RwLockReadGuard, RwLockStatistics, RwLockWriteGuard, Write};
pub use semaphore::{Semaphore, SemaphoreAcquire, SemaphorePermit, SemaphoreStatistics};
