//! What tests need that servers do not: a clock that stands still, a simulated world, and a way to
//! wait until everybody else waits.

mod blocked;
mod mock_clock;
mod threads;

pub use blocked::{WaitAllTasksBlocked, wait_all_tasks_blocked};
pub use mock_clock::MockClock;
pub use threads::{WaitAllThreadsCompleted, active_thread_count, wait_all_threads_completed};
pub use trio_platform::sim::*;
