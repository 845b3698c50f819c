//! How tasks of one run wait for each other.
//!
//! | for                                             | there is             |
//! |-------------------------------------------------|----------------------|
//! | something that happens once                     | [`Event`]            |
//! | a value that one task at a time may work on     | [`Lock`]             |
//! | a value that many read and few change           | [`RwLock`]           |
//! | a change of what a lock guards                  | [`Condition`]        |
//! | so many at a time, each with its token          | [`CapacityLimiter`]  |
//! | a number that is counted up and down            | [`Semaphore`]        |
//! | so many that go on together                     | [`Barrier`]          |
//!
//! To hand values on there are channels, and for primitives of your own
//! [`ParkingLot`](crate::lowlevel::ParkingLot) and
//! [`wait_task_rescheduled`](crate::lowlevel::wait_task_rescheduled).
//!
//! All of them keep the same promises:
//!
//! - **First come, first served**, and what is released is handed over: whoever has waited longest
//!   has it before anybody else can take it, and before it has run (semantics F1).
//! - **A cancel loses nothing.** `Cancelled` from one of these means that nothing was taken; what
//!   was handed over before the cancel came is returned, and the next checkpoint reports (R1, C5).
//!   A future that is dropped with something in its hands passes it on.
//! - **One thread.** None of them is `Send`, none of them has an atomic inside, and none allocates
//!   for an operation. They are made anywhere, most of them in a `const`; what does not wait works
//!   outside of a run, too.
//!
//! # Examples
//!
//! ```
//! # trio_runtime::run(async {
//! use trio_runtime::sync::{Event, Lock};
//!
//! let ready = Event::new();
//! let log = Lock::new(Vec::new());
//! let (ready_ref, log_ref) = (&ready, &log);
//! trio_runtime::open_nursery(async |nursery| {
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
//! # Ok::<(), trio_runtime::Error>(()) }).unwrap();
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
