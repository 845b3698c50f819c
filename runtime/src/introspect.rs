//! The task tree as it stands: who lives, where each was spawned, and what it waits in.

use std::fmt;
use std::panic::Location;

use trio_platform::Time;

use crate::context;
use crate::run::Run;
use crate::task::NodeRef;

/// A task, what it waits in, and the tasks in its nurseries; see [`task_tree`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskTree {
    /// The name that it was given, or the path of its future's type.
    pub name: String,
    /// Where it was spawned.
    pub place: &'static Location<'static>,
    /// What it waits in: names of operations. Empty if it waits for its children only, or can run.
    pub waiting_in: Vec<&'static str>,
    /// The deadline of the scope that its nursery put it in, with those around it.
    pub deadline: Option<Time>,
    /// The tasks in its nurseries.
    pub children: Vec<Self>,
}

/// The tree of all tasks of this run, from the main task down.
///
/// Its [`Display`](fmt::Display) is meant for people who look for what hangs.
///
/// # Panics
///
/// Outside of a run.
///
/// # Examples
///
/// ```
/// # trio_runtime::run(async {
/// use trio_runtime::lowlevel::task_tree;
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
        TaskTree::of(run, &main, &run.nurseries())
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
/// # trio_runtime::run(async {
/// use trio_runtime::lowlevel::{current_root_task, spawn_system_task_named};
///
/// spawn_system_task_named("janitor", trio_runtime::sleep_forever())?;
/// let root = current_root_task();
/// let names: Vec<&str> = root.children.iter().map(|task| task.name.as_str()).collect();
/// assert_eq!(names, ["main", "janitor"]);
/// # Ok::<(), trio_runtime::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn current_root_task() -> TaskTree {
    context::with(|run| {
        let tasks = match run.root() {
            Some(root) => root.children(),
            None => Vec::new(),
        };
        let main = run.main_task().expect("a run has a main task");
        let nurseries = run.nurseries();
        TaskTree {
            name: "run".to_owned(),
            place: main.place(),
            waiting_in: Vec::new(),
            deadline: None,
            children: tasks
                .iter()
                .map(|task| TaskTree::of(run, task, &nurseries))
                .collect(),
        }
    })
}

impl TaskTree {
    fn of(run: &Run, task: &NodeRef, nurseries: &[crate::task::NurseryRef]) -> Self {
        let own = || {
            nurseries
                .iter()
                .filter(|nursery| nursery.task().as_ref() == Some(task))
        };
        let children = own().flat_map(|nursery| nursery.children());
        let tree = run.tree.borrow();
        let mut waiting_in = tree.waiting_in(task);
        for nursery in own() {
            waiting_in.extend(tree.waiting_in(nursery.body()));
        }
        let deadline = tree.effective_deadline(task.scope.get());
        drop(tree);
        Self {
            name: task.name().into_owned(),
            place: task.place(),
            waiting_in,
            deadline: (deadline != Time::NEVER).then_some(deadline),
            children: children
                .map(|child| Self::of(run, &child, nurseries))
                .collect(),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        write!(
            f,
            "{:indent$}{} ({})",
            "",
            self.name,
            self.place,
            indent = depth * 2
        )?;
        if !self.waiting_in.is_empty() {
            write!(f, " waits in {}", self.waiting_in.join(", "))?;
        }
        if let Some(deadline) = self.deadline {
            write!(f, " until {deadline:?}")?;
        }
        for child in &self.children {
            writeln!(f)?;
            child.write(f, depth + 1)?;
        }
        Ok(())
    }
}

impl fmt::Display for TaskTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}
