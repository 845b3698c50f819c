//! The state of a run in numbers: for the status page of a server, or for a test.
//!
//! Computed on request from the state of the run, so that nobody pays for it otherwise.

use std::collections::HashSet;
use std::time::Duration;

use trio_platform::{Backend, DriverStatistics};

use crate::context;
use crate::run::Run;

/// A snapshot of a run; see [`current_statistics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunStatistics {
    /// Tasks that have not ended: the main task, system tasks, and those in nurseries.
    pub tasks_living: usize,
    /// Tasks that have been woken and wait for their turn. The task that asks is not counted, nor
    /// is one that is polled only because something in its nursery is ready.
    pub tasks_runnable: usize,
    /// The time until the next deadline that something waits for, by the clock of the run: zero if it
    /// is due, `None` if there is none.
    #[doc(alias = "seconds_to_next_deadline")]
    pub time_to_next_deadline: Option<Duration>,
    /// Functions given to [`TrioToken::run_sync_soon`](super::lowlevel::TrioToken::run_sync_soon) that
    /// have not been called yet.
    pub run_sync_soon_queue_size: usize,
    /// What the driver has done so far. What was submitted and has not completed is in flight.
    pub io_statistics: DriverStatistics,
    /// The backend that the driver belongs to.
    pub backend: Backend,
}

/// The state of this run at the moment.
///
/// It looks at every task, so its cost grows with their number: ask for it once a second, not once a
/// message.
///
/// # Panics
///
/// Outside of a run.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::lowlevel::current_statistics;
///
/// trio::open_nursery(async |nursery| {
///     nursery.start_soon(trio::sleep(Duration::from_millis(5)));
///     let statistics = current_statistics();
///     assert_eq!((statistics.tasks_living, statistics.tasks_runnable), (2, 1));
///     trio::checkpoint().await?;
///     let statistics = current_statistics();
///     assert_eq!((statistics.tasks_living, statistics.tasks_runnable), (2, 0));
///     assert!(statistics.time_to_next_deadline.is_some());
///     Ok(())
/// })
/// .await
/// # }).unwrap();
/// ```
#[track_caller]
pub fn current_statistics() -> RunStatistics {
    context::with(|run| {
        let now = run.now();
        let next = run.tree.borrow_mut().timers.earliest(now);
        RunStatistics {
            tasks_living: tasks_living(run),
            tasks_runnable: tasks_runnable(run),
            time_to_next_deadline: next.map(|deadline| deadline.saturating_since(now)),
            run_sync_soon_queue_size: run.shared.queued(),
            io_statistics: run.driver_statistics(),
            backend: run.backend().0,
        }
    })
}

fn tasks_living(run: &Run) -> usize {
    let nurseries = run.nurseries();
    nurseries.iter().map(|nursery| nursery.child_count()).sum()
}

fn tasks_runnable(run: &Run) -> usize {
    let nurseries = run.nurseries();
    // A node also counts as ready when something in its nursery is, all the way up.
    let owners = nurseries
        .iter()
        .filter(|nursery| !nursery.ready.is_empty())
        .filter_map(|nursery| nursery.owner());
    let owners: HashSet<_> = owners.map(|owner| std::ptr::from_ref(&*owner)).collect();
    // A body is a part of the task that opened its nursery, and that task then counts as an owner.
    let nodes = nurseries.iter().flat_map(|nursery| {
        let mut nodes = nursery.children();
        nodes.push(nursery.body().clone());
        nodes
    });
    let woken = nodes.filter(|node| node.is_ready() && !node.is_done());
    woken
        .filter(|node| !owners.contains(&std::ptr::from_ref(&**node)))
        .count()
}
