//! The cancellation itself, as a value: who asked for it, where, and why.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

/// A cancellation, on its way to the scope that catches it.
///
/// Every operation of this library returns it once an enclosing scope has been cancelled, and so does
/// each later one (cancellation is level-triggered). `Cancelled` from an operation means that the
/// operation did not happen. Pass it on, with `?`: the scope that was cancelled catches it. Cleaning
/// up first is fine, and so is awaiting something under a shield; keeping the error from the scope is
/// a mistake.
///
/// There is no public constructor, and nothing in it says which scope it belongs to: the scope that
/// catches it is found by position (semantics S1).
#[derive(Clone)]
#[must_use = "a cancellation belongs to the scope that was cancelled: pass it on"]
pub struct Cancelled(Arc<Record>);

struct Record {
    source: CancelSource,
    reason: Option<Cow<'static, str>>,
    task: Option<Cow<'static, str>>,
    place: Option<&'static Location<'static>>,
}

/// What made a scope cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CancelSource {
    /// The deadline of the scope passed.
    Deadline,
    /// Somebody called [`CancelScope::cancel`](crate::CancelScope::cancel).
    Explicit,
    /// An enclosing scope is being [drained](crate::CancelScope::drain); only inside
    /// [`until_draining`](crate::until_draining).
    Drain,
    /// A child of the nursery, or its body, ended with an error or a panic; or the nursery has no
    /// further use for its children, as in a race.
    Nursery,
    /// The run is ending.
    Shutdown,
}

impl fmt::Display for CancelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deadline => "deadline",
            Self::Explicit => "explicit",
            Self::Drain => "drain",
            Self::Nursery => "nursery",
            Self::Shutdown => "shutdown",
        })
    }
}

impl Cancelled {
    pub(crate) fn new(
        source: CancelSource,
        reason: Option<Cow<'static, str>>,
        task: Option<Cow<'static, str>>,
        place: Option<&'static Location<'static>>,
    ) -> Self {
        Self(Arc::new(Record {
            source,
            reason,
            task,
            place,
        }))
    }

    /// A deadline has passed that was set at `place`.
    pub(crate) fn by_deadline(place: Option<&'static Location<'static>>) -> Self {
        Self::new(CancelSource::Deadline, None, None, place)
    }

    /// Whether both come from the same cancellation.
    #[inline]
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What made the scope cancel.
    pub fn source(&self) -> CancelSource {
        self.0.source
    }

    /// The reason that was given, if one was.
    pub fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// The name of the task that cancelled, if a task did.
    pub fn source_task(&self) -> Option<&str> {
        self.0.task.as_deref()
    }

    /// Where `cancel` was called, or where the deadline was set. `None` if neither is the cause: a
    /// sibling failed, which [`reason`](Self::reason) names, or the run is ending.
    pub fn place(&self) -> Option<&'static Location<'static>> {
        self.0.place
    }
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record {
            source,
            reason,
            task,
            place,
        } = &*self.0;
        write!(f, "cancelled due to {source}")?;
        if let Some(reason) = reason {
            write!(f, " with reason {reason:?}")?;
        }
        if let Some(task) = task {
            write!(f, " from task {task}")?;
        }
        if let Some(place) = place {
            write!(f, " at {place}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cancelled({self})")
    }
}

impl std::error::Error for Cancelled {}
