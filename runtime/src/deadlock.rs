//! A run that nothing can wake any more: how it is detected, and what is reported.
//!
//! A run sleeps for ever when every task waits for another: for a lock whose guard one of them keeps,
//! for an event that nobody is left to set. Trio sleeps in silence. Here the run examines itself, and
//! reports what each task waits for to [`Builder::on_deadlock`](crate::Builder::on_deadlock).
//!
//! 1. It suspects itself only if no task can run, no deadline is to come, the driver has nothing in
//!    flight and watches nothing, no thread works for it, and it is not a guest. So a server, to
//!    which some of this always applies, pays one comparison a wait.
//! 2. It is dead if, in addition, nobody outside holds anything that can wake it: no
//!    [`TrioToken`](crate::lowlevel::TrioToken), no waker of a task, nothing in the inbox. Those
//!    are counted references, so if nobody holds one, nobody can get one. A token or a waker that
//!    lies in the run itself cannot be distinguished from one on another thread, and counts as one:
//!    a deadlock may go unnoticed, but none is ever reported that is not there.
//! 3. It examines itself when nothing has happened for a moment, and again when that has lasted
//!    twice as long, since a thread that ends does not wake the run by doing so. In virtual time it
//!    examines itself at once.
//! 4. What is found is reported once. If a handler panics, the run is cancelled, so that its tasks
//!    clean up; if nothing can wake it after that either, the second panic leaves the loop, and
//!    tasks are dropped as they are.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use crate::introspect::TaskTree;

/// A run whose tasks all wait, and which nothing can wake any more; see
/// [`Builder::on_deadlock`](crate::Builder::on_deadlock).
///
/// It is found when no deadline is to come, no operation is with the kernel, no function runs on a
/// thread, and nobody holds a [`TrioToken`](crate::lowlevel::TrioToken) or the waker of a task. There
/// are no false reports. Some deadlocks are not found: while the run also waits for a signal, a
/// connection or a timeout, since those may end anything; while a token or a waker is kept inside the
/// run, or was leaked; in a guest run; and in one of several [workers](crate::run_workers), which the
/// others can cancel.
///
/// Its [`Display`](fmt::Display) is the report.
#[derive(Clone, Debug)]
pub struct Deadlock {
    tree: TaskTree,
    clock_stands: bool,
}

impl Deadlock {
    pub(crate) fn new(tree: TaskTree, clock_stands: bool) -> Self {
        Self { tree, clock_stands }
    }

    /// Everything in the run: a root that stands for the run, and under it the tasks, with what each
    /// waits for.
    pub fn tree(&self) -> &TaskTree {
        &self.tree
    }

    /// Whether every task waits in [`sleep_forever`](crate::sleep_forever), and so for nothing on
    /// purpose: then nothing is printed, unless a handler does so.
    pub fn is_on_purpose(&self) -> bool {
        sleeps_only(&self.tree)
    }
}

/// Whether a task in this subtree waits for something that should come. A task that has children
/// and waits in nothing waits for them.
fn sleeps_only(task: &TaskTree) -> bool {
    let waits = &task.waiting_in;
    let idle = match waits.is_empty() {
        true => !task.children.is_empty(),
        false => waits.iter().all(|what| *what == "sleep_forever"),
    };
    idle && task.children.iter().all(sleeps_only)
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "deadlock: every task of this run waits, and nothing is left that could wake one",
        )?;
        if self.clock_stands {
            f.write_str(
                "; its clock stands still before the next deadline, so jump it, or let it jump by \
                 itself with `MockClock::autojump`",
            )?;
        }
        write!(f, "\n{}", self.tree)
    }
}

/// The function that is called with a deadlock.
pub(crate) type Handler = Box<dyn FnMut(&Deadlock)>;

/// What is called unless the program sets a handler.
pub(crate) fn print(deadlock: &Deadlock) {
    if deadlock.is_on_purpose() {
        return;
    }
    #[cfg(feature = "tracing")]
    tracing::event!(target: "trio::run", tracing::Level::WARN, "{deadlock}");
    eprintln!("trio: {deadlock}");
}

/// How long nothing has happened, and the handler to call.
pub(crate) struct Silence {
    stage: Cell<Stage>,
    handler: RefCell<Handler>,
    /// Whether the handler has panicked.
    failed: Cell<bool>,
}

#[derive(Clone, Copy)]
enum Stage {
    /// The run has not been examined since something last happened.
    New,
    /// It has been, and will be again when nothing has happened for this long.
    Lasting(Duration),
    /// There is nothing more to find out.
    Over,
}

/// For how long nothing must happen, in real time, before the first look: long enough that a
/// program which keeps sleeping and waking is never examined, and short enough for someone who
/// waits for a test to fail.
const PATIENCE: Duration = Duration::from_millis(50);

impl Silence {
    pub(crate) fn new(handler: Handler) -> Self {
        Self {
            stage: Cell::new(Stage::New),
            handler: RefCell::new(handler),
            failed: Cell::new(false),
        }
    }

    /// Notes that something has happened.
    #[inline]
    pub(crate) fn end(&self) {
        self.stage.set(Stage::New);
    }

    /// How long to wait before the next look, if there will be one. For the first look, `first`
    /// says how long, by the clock of the run.
    pub(crate) fn patience(&self, first: impl FnOnce() -> Option<Duration>) -> Option<Duration> {
        match self.stage.get() {
            Stage::New => Some(first().unwrap_or(PATIENCE)),
            Stage::Lasting(patience) => Some(patience),
            Stage::Over => None,
        }
    }

    /// The run can be woken: examine it again later, if its waits take time at all.
    pub(crate) fn lengthen(&self, timed: bool) {
        let next = match self.stage.get() {
            Stage::Lasting(patience) => patience.saturating_mul(2),
            Stage::New | Stage::Over => PATIENCE.saturating_mul(2),
        };
        self.stage.set(if timed {
            Stage::Lasting(next)
        } else {
            Stage::Over
        });
    }

    /// Reports a deadlock. Returns the panic of the handler, if it is the first.
    pub(crate) fn report(&self, deadlock: &Deadlock) -> std::thread::Result<()> {
        self.stage.set(Stage::Over);
        let mut handler = self.handler.borrow_mut();
        let told = catch_unwind(AssertUnwindSafe(|| handler(deadlock)));
        match told {
            Err(panic) if self.failed.replace(true) => resume_unwind(panic),
            Err(panic) => {
                // The effects of the cancel that follows are examined as well.
                self.stage.set(Stage::New);
                Err(panic)
            }
            Ok(()) => Ok(()),
        }
    }
}
