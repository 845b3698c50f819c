//! Tools for tests.
//!
//! | to …                                             | there is                                       |
//! |--------------------------------------------------|------------------------------------------------|
//! | let hours pass in no time                        | [`MockClock`]                                  |
//! | wait until the others have reached their waits   | [`wait_all_tasks_blocked`]                     |
//! | make steps of several tasks happen in one order  | [`Sequencer`]                                  |
//! | see whether an operation is a checkpoint         | [`assert_checkpoints`], [`assert_no_checkpoints`] |
//! | run under many orders of the scheduler           | `#[trio::test(seeds = …)]`, [`seeds()`]        |
//! | test against a network, and against its faults   | [`Simulation`]                                 |
//!
//! None of them sleeps in real time, so a test that is built on them is both fast and reliable.
//! This library's own tests use them too.
//!
//! # Examples
//!
//! ```
//! # use trio_runtime as trio;
//! use std::time::Duration;
//! use trio::testing::MockClock;
//! use trio::{Builder, current_time, sleep};
//!
//! let hour = Duration::from_secs(3600);
//! let slept = Builder::new().clock(MockClock::autojump()).run(async {
//!     let begin = current_time();
//!     sleep(hour).await?;
//!     Ok::<_, trio::Error>(current_time() - begin)
//! })?;
//! assert_eq!(slept, hour);
//! # Ok::<(), trio::Error>(())
//! ```

mod blocked;
mod checkpoints;
mod mock_clock;
mod seeds;
mod sequencer;
mod threads;

pub use blocked::{WaitAllTasksBlocked, wait_all_tasks_blocked};
pub(crate) use checkpoints::Seen;
pub use checkpoints::{
    AssertCheckpoints, AssertNoCheckpoints, assert_checkpoints, assert_no_checkpoints,
};
pub use mock_clock::MockClock;
pub use seeds::seeds;
pub use sequencer::{Sequencer, Turn, WaitTurn};
pub use threads::{WaitAllThreadsCompleted, active_thread_count, wait_all_threads_completed};
pub use trio_platform::sim::*;
