//! Tasks, nurseries, cancellation and time.
//!
//! A [run](run()) drives tasks on one thread. Tasks live in [nurseries](open_nursery), may borrow from
//! around them, and have ended when the nursery has. [Scopes](CancelScope) cancel whatever is inside
//! them, and [deadlines](move_on_after) do it by the clock.
//!
//! This crate knows tasks and time. Opcodes, system descriptors and the real clock belong to
//! `trio-platform`, below its `Driver` trait.

#![deny(unsafe_code)]

mod builder;
mod cancel;
mod cancellable;
pub mod channel;
mod checkpoint;
mod combine;
mod context;
mod deadlock;
mod error;
mod finally;
mod guest;
mod handle;
mod instrument;
mod introspect;
pub mod lowlevel;
mod nursery;
mod operation;
mod rate;
mod run;
mod run_var;
#[cfg(feature = "tracing")]
mod spans;
mod statistics;
mod supervise;
pub mod sync;
mod taking;
mod task;
pub mod testing;
mod thread;
mod time;
mod timers;
mod wait;

pub use builder::{Builder, run};
pub use cancel::{
    CancelScope, CancelSource, Cancelled, Enter, FailAfter, MoveOn, Progress, UntilDraining,
    cleanup, fail_after, fail_at, fail_if_idle, is_draining, move_on_after, move_on_at,
    move_on_if_idle, until_draining, wait_draining,
};
pub use channel::{
    MemoryReceiveChannel, MemorySendChannel, open_broadcast_channel,
    open_lagging_broadcast_channel, open_memory_channel, open_thread_channel, open_watch_channel,
    safe_channel, select,
};
pub use checkpoint::{Checkpoint, checkpoint};
pub use combine::{
    Completed, JoinTuple, NextCompleted, RaceTuple, TryJoinTuple, as_completed,
    for_each_concurrent, join, join_all, map_concurrent, map_concurrent_unordered, race, race_all,
    race_ok, race_ok_all, try_join, try_join_all,
};
pub use deadlock::Deadlock;
pub use error::{
    BrokenResource, BusyResource, ClosedResource, EndOfChannel, Error, Leaves, NestedTooDeeply,
    Result, RunFinished, TooSlow, Usage, WouldBlock,
};
pub use finally::finally;
pub use guest::{GuestRun, Host, HostCall};
pub use instrument::{Instrument, InstrumentKey, Task, TaskId};
pub use lowlevel::{BackendInfo, backend};
pub use nursery::{
    ChildState, Ended, Join, JoinHandle, NoValue, Nursery, TaskStatus, open_nursery,
    open_service_nursery,
};
pub use rate::{AcquireRate, RateLimiter, RateLimiterStatistics};
#[cfg(feature = "tracing")]
pub use spans::Tracing;
pub use supervise::{Backoff, Failure, Supervisor, Verdict};
pub use task::{InLocal, TaskLocal, TreeVar};
pub use thread::{Blocked, Watchdog, Worker, Workers, from_thread, run_workers, to_thread};
pub use time::{
    Clock, Sleep, SleepForever, current_effective_deadline, current_time, sleep, sleep_forever,
    sleep_until,
};
pub use trio_platform::{Backend, Time};
