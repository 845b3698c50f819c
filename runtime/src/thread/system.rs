//! System tasks: tasks that belong to the run, and to no nursery of the program.

use std::borrow::Cow;
use std::future::Future;
use std::panic::Location;

use crate::context;
use crate::error::{Result, RunFinished};
use crate::nursery::spawn_system;

/// Starts a task that belongs to the run: it lives beside the main task, and is cancelled and
/// waited for when the main task has ended.
///
/// For what serves the run as a whole, and above all for what another thread has asked for by
/// [`run_sync_soon`](super::TrioToken::run_sync_soon). Everything else belongs in a nursery, where
/// somebody receives its errors. Nobody does here, so a system task that fails ends the run. It
/// inherits neither scopes nor values from its starter.
///
/// # Errors
///
/// If the run is about to end, and has no system tasks any more.
///
/// # Panics
///
/// Outside of a run. If the task returns an error that is not `Cancelled`, or panics, the main task
/// is cancelled, and `run` panics when it has ended.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// use trio::lowlevel::spawn_system_task;
///
/// trio::run(async {
///     spawn_system_task(async {
///         // Until the main task has ended.
///         trio::sleep_forever().await
///     })?;
///     Ok::<(), trio::Error>(())
/// })
/// .unwrap();
/// ```
#[track_caller]
pub fn spawn_system_task<F>(task: F) -> Result<(), RunFinished>
where
    F: Future<Output = Result<()>> + 'static,
{
    spawn(task, None, Location::caller())
}

/// Like [`spawn_system_task`], with a name for the task tree and for error texts.
///
/// # Errors
///
/// As for [`spawn_system_task`].
#[track_caller]
pub fn spawn_system_task_named<F>(
    name: impl Into<Cow<'static, str>>,
    task: F,
) -> Result<(), RunFinished>
where
    F: Future<Output = Result<()>> + 'static,
{
    spawn(task, Some(name.into()), Location::caller())
}

#[track_caller]
fn spawn<F>(
    task: F,
    name: Option<Cow<'static, str>>,
    place: &'static Location<'static>,
) -> Result<(), RunFinished>
where
    F: Future<Output = Result<()>> + 'static,
{
    let root = context::with(|run| run.root()).ok_or_else(RunFinished::new)?;
    spawn_system(&root, task, name, place);
    Ok(())
}
