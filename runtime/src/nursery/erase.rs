//! Why a task may borrow from the caller's frame although the runtime has forgotten its type.
//!
//! A future that is spawned is put into a cell whose handles name no lifetime. That is sound if the
//! future is never touched after what it borrows has gone. The argument, as in `std::thread::scope`
//! but without a thread:
//!
//! - `F: 'scope`, and `'scope` outlives the future of the nursery's body: it is the lifetime of the
//!   `Nursery` that is lent to the body. No caller chooses it (`for<'scope>`), and it is invariant,
//!   so it can be neither shortened nor stretched. What `F` borrows lives outside the future of
//!   `open_nursery`, or is the `Nursery` itself.
//! - The cell is polled only by `NurseryRef::drive`, which runs only inside a poll of the
//!   future of `open_nursery` (of `Nursery::start`, before the task has reported, for the same
//!   `'scope`). While that future exists, everything outside it that it borrows is borrowed too.
//! - When that future is dropped, at any point, its `Open` drops every child's future first.
//! - When that future is *leaked*, it is never polled again, so no child is polled or dropped
//!   either: a wake only moves the node into a queue. The borrow may end, and nothing touches what
//!   was borrowed any more.
//! - After its end the cell holds neither the future nor, without its `Output`, a value; and the
//!   `Output` is held by a `JoinHandle<'scope, T>`, which cannot outlive `'scope`.

use std::borrow::Cow;
use std::future::Future;
use std::panic::Location;
use std::rc::Rc;

use crate::error::Result;
use crate::run::Run;
use crate::task::{NodeRef, NurseryRef, Output, TaskInfo, new_silent_task, new_task};

/// Spawns `task` into `nursery`, whose `'scope` the caller vouches for with the bound on `task`.
#[inline]
pub(super) fn spawn<'scope, F, T>(
    nursery: &NurseryRef,
    task: F,
    name: Option<Cow<'static, str>>,
    place: &'static Location<'static>,
) -> Output<T>
where
    F: Future<Output = Result<T>> + 'scope,
    T: 'scope,
{
    let (birth, info) = (nursery.birth(), TaskInfo { name, place });
    // SAFETY: the head of this file: the future is dropped, or never touched again, before `'scope`
    // ends, because only `nursery` polls and drops it; and each caller puts the output into a type
    // that is bounded by `'scope`.
    let output = unsafe { new_task(&nursery.run.shared, birth, info, task) };
    nursery.begin(output.node());
    output
}

/// The same for a task that returns nothing.
#[inline]
pub(super) fn spawn_silent<'scope, F>(
    nursery: &NurseryRef,
    task: F,
    name: Option<Cow<'static, str>>,
    place: &'static Location<'static>,
) -> NodeRef
where
    F: Future<Output = Result<()>> + 'scope,
{
    let (birth, info) = (nursery.birth(), TaskInfo { name, place });
    // SAFETY: the head of this file: the future is dropped, or never touched again, before `'scope`
    // ends, because only `nursery` polls and drops it.
    let task = unsafe { new_silent_task(&nursery.run.shared, birth, info, task) };
    nursery.begin(&task);
    task
}

/// Spawns the main task. The caller keeps the output and the nursery in one frame, and drops the
/// nursery before what the future borrows.
pub(crate) fn spawn_root<F, T>(
    run: &Rc<Run>,
    root: &NurseryRef,
    main: F,
    place: &'static Location<'static>,
) -> Output<T>
where
    F: Future<Output = Result<T>>,
{
    debug_assert!(Rc::ptr_eq(run, &root.run), "the root belongs to the run");
    spawn(root, main, Some("main".into()), place)
}

/// Spawns a system task into the root nursery. It borrows nothing, and inherits nothing from the
/// code that happens to spawn it.
pub(crate) fn spawn_system<F>(
    root: &NurseryRef,
    task: F,
    name: Option<Cow<'static, str>>,
    place: &'static Location<'static>,
) where
    F: Future<Output = Result<()>> + 'static,
{
    drop(spawn_silent(root, task, name, place).replace_locals(None));
}
