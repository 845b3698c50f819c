//! The task tree at one moment: which tasks are alive, where each was spawned, and what it waits
//! for.

use std::fmt;
use std::panic::Location;

use trio_platform::Time;

use crate::context;
use crate::instrument::{Task, TaskId};
use crate::run::Run;
use crate::task::{NodeRef, NurseryRef};

/// A task, what it waits for, and the tasks in its nurseries; see [`task_tree`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskTree {
    /// The number of the task, the same as for instruments and [`current_task`]; `None` for the
    /// root of [`current_root_task`], which is not a task.
    pub id: Option<TaskId>,
    /// The name it was given, or else the path of its future's type.
    pub name: String,
    /// Where it was spawned.
    pub place: &'static Location<'static>,
    /// The operations that it waits in, by name. Empty if it waits only for its children, or can
    /// run.
    pub waiting_in: Vec<&'static str>,
    /// The earliest deadline of the scopes around what it waits in, up to a shield; if it waits in
    /// nothing, of the scopes around its nursery.
    pub deadline: Option<Time>,
    /// Whether one of those scopes has been cancelled: then the task has not ended yet, or cannot
    /// end.
    pub cancelled: bool,
    /// The tasks in its nurseries.
    pub children: Vec<Self>,
    /// When the tree was recorded.
    taken: Time,
}

/// The task that is running: its name, where it was spawned, and the number that distinguishes it
/// from all others alive.
///
/// Instruments and the [tree](TaskTree::walk) use the same number. In the body of a nursery this is the
/// task that opened it.
///
/// # Panics
///
/// Outside of a run, and in code of a run that is in no task, such as a function given to
/// [`run_sync_soon`](super::lowlevel::TrioToken::run_sync_soon). Ask
/// [`in_task`](super::lowlevel::in_task) first.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::lowlevel::{current_task, task_tree};
///
/// trio::open_nursery(async |nursery| {
///     nursery.start_soon_named("child", async {
///         let own = current_task();
///         assert_eq!(own.name(), "child");
///         let tree = task_tree();
///         assert!(tree.walk().any(|task| task.id == Some(own.id())));
///         Ok(())
///     });
///     Ok(())
/// })
/// .await
/// # }).unwrap();
/// ```
#[track_caller]
pub fn current_task() -> Task {
    match context::with(|run| run.current_task()) {
        Some(task) => Task::of(&task),
        None => {
            panic!("this works only in a task: the code that asks is the run's own or a host's")
        }
    }
}

/// The tree of all tasks of this run, from the main task down.
///
/// Its [`Display`](fmt::Display) is for finding out what hangs.
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
/// use trio::lowlevel::task_tree;
///
/// let tree = task_tree();
/// assert_eq!(tree.name, "main");
/// println!("{tree}");
/// # });
/// ```
#[track_caller]
pub fn task_tree() -> TaskTree {
    context::with(|run| {
        let main = run.main_task().expect("a run has a main task");
        Look::at(run).of(&main)
    })
}

/// The tree of everything in this run: a root that stands for the run itself, and under it the main
/// task and the system tasks.
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
/// use trio::lowlevel::{current_root_task, spawn_system_task_named};
///
/// spawn_system_task_named("janitor", trio::sleep_forever())?;
/// let root = current_root_task();
/// let names: Vec<&str> = root.children.iter().map(|task| task.name.as_str()).collect();
/// assert_eq!(names, ["main", "janitor"]);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn current_root_task() -> TaskTree {
    context::with(|run| TaskTree::of_run(run))
}

impl TaskTree {
    /// This task and all below it, each before its children.
    ///
    /// # Examples
    ///
    /// ```
    /// # use trio_runtime as trio;
    /// # trio::run(async {
    /// use trio::lowlevel::current_root_task;
    ///
    /// let root = current_root_task();
    /// let names: Vec<&str> = root.walk().map(|task| task.name.as_str()).collect();
    /// assert_eq!(names, ["run", "main"]);
    /// # });
    /// ```
    pub fn walk(&self) -> impl Iterator<Item = &Self> {
        let mut ahead = vec![self];
        std::iter::from_fn(move || {
            let next = ahead.pop()?;
            ahead.extend(next.children.iter().rev());
            Some(next)
        })
    }

    /// The run and everything in it.
    pub(crate) fn of_run(run: &Run) -> Self {
        let tasks = match run.root() {
            Some(root) => root.children(),
            None => Vec::new(),
        };
        let main = run.main_task().expect("a run has a main task");
        let look = Look::at(run);
        Self {
            id: None,
            name: "run".to_owned(),
            place: main.place(),
            waiting_in: Vec::new(),
            deadline: None,
            cancelled: false,
            children: tasks.iter().map(|task| look.of(task)).collect(),
            taken: look.now,
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let (name, place, indent) = (&self.name, self.place, depth * 2);
        write!(f, "{:indent$}{name} ({place})", "")?;
        if !self.waiting_in.is_empty() {
            write!(f, " waits in {}", self.waiting_in.join(", "))?;
        }
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_since(self.taken);
            write!(f, " for another {left:.1?} at most")?;
        }
        if self.cancelled {
            f.write_str(" and has been cancelled")?;
        }
        for child in &self.children {
            writeln!(f)?;
            child.write(f, depth + 1)?;
        }
        Ok(())
    }
}

/// One look at a run: everything in a tree is from the same moment.
struct Look<'a> {
    run: &'a Run,
    nurseries: Vec<NurseryRef>,
    now: Time,
}

impl<'a> Look<'a> {
    fn at(run: &'a Run) -> Self {
        Self {
            run,
            nurseries: run.nurseries(),
            now: run.now(),
        }
    }

    fn of(&self, task: &NodeRef) -> TaskTree {
        let own = || {
            let all = self.nurseries.iter();
            all.filter(|nursery| nursery.task() == Some(task))
        };
        // Bodies are parts of the task that has opened their nursery.
        let nodes = own().map(NurseryRef::body).chain([task]);
        let waits: Vec<(&'static str, u32)> = {
            let tree = self.run.tree.borrow();
            nodes.flat_map(|node| tree.waiting_in(node)).collect()
        };
        // A task that does not wait is, as far as others can see, where its nursery is.
        let scopes = match waits.is_empty() {
            true => vec![task.scope.get()],
            false => waits.iter().map(|(_, scope)| *scope).collect(),
        };
        let deadlines = scopes
            .iter()
            .map(|&scope| self.run.effective_deadline_of(scope));
        let deadline = match task.is_marked() {
            true => Time::PAST,
            false => deadlines.min().unwrap_or(Time::NEVER),
        };
        let children = own().flat_map(|nursery| nursery.children());
        TaskTree {
            id: Some(TaskId::of(task)),
            name: task.name().into_owned(),
            place: task.place(),
            waiting_in: waits.into_iter().map(|(what, _)| what).collect(),
            deadline: (deadline != Time::NEVER && deadline != Time::PAST).then_some(deadline),
            cancelled: deadline == Time::PAST,
            children: children.map(|child| self.of(&child)).collect(),
            taken: self.now,
        }
    }
}

impl fmt::Display for TaskTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}
