//! Tasks, nurseries, cancellation and time.
//!
//! A [run](run()) drives tasks on one thread. Tasks live in [nurseries](open_nursery), may borrow from
//! around them, and have ended when the nursery has. [Scopes](CancelScope) cancel whatever is inside
//! them, and [deadlines](move_on_after) do it by the clock.
//!
//! This crate knows tasks and time; it knows no opcode, no descriptor of the system and no real
//! clock, which are `trio-platform`'s, below the `Driver` trait.

#![deny(unsafe_code)]

mod builder;
mod cancel;
mod checkpoint;
mod cleanup;
mod context;
mod error;
mod handle;
mod instrument;
mod introspect;
pub mod lowlevel;
mod nursery;
mod operation;
mod receive;
mod run;
#[cfg(feature = "tracing")]
mod spans;
mod task;
pub mod testing;
mod time;
mod timers;
mod wait;

pub use builder::{Builder, run};
pub use cancel::{
    CancelScope, CancelSource, Cancelled, Enter, FailAfter, MoveOn, fail_after, fail_at,
    move_on_after, move_on_at,
};
pub use checkpoint::{Checkpoint, checkpoint};
pub use cleanup::finally;
pub use error::{
    BrokenResource, BusyResource, ClosedResource, EndOfChannel, Error, Leaves, NestedTooDeeply,
    Result, RunFinished, TooSlow, Usage, WouldBlock,
};
pub use instrument::{Instrument, InstrumentKey, Task, TaskId};
pub use lowlevel::{BackendInfo, backend};
pub use nursery::{Join, JoinHandle, Nursery, TaskStatus, open_nursery};
#[cfg(feature = "tracing")]
pub use spans::Tracing;
pub use time::{
    Clock, Sleep, SleepForever, current_effective_deadline, current_time, sleep, sleep_forever,
    sleep_until,
};
pub use trio_platform::{Backend, Time};
