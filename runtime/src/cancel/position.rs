//! Where in the tree of scopes the code that is being polled stands.
//!
//! A scope that has nothing but a timeout costs next to nothing as long as nothing in it waits:
//!
//! 1. It is pushed here when its future is polled for the first time. It is linked into the tree
//!    when somebody asks for the number of the scope that the code is in, or when that first poll
//!    has ended without an output. If several are pushed inside each other, the outer is linked
//!    first.
//! 2. A scope that is not linked has not been cancelled and has no shield, so the innermost linked
//!    scope shows whether the code has been cancelled.
//! 3. A task that can be cancelled by itself, through its handle, is *apart*: its position says
//!    that if anything asks for the scope, a scope of the task's own has to be linked first, outside
//!    all others. The task's one wait can do without that scope, and so can a cancel (rule 5 of
//!    `cancel/tree.rs`); so whether the code of such a task has been cancelled is checked at the
//!    task first.
//! 4. The scope that was pushed last lies in a cell, and the one that was in the cell before lies
//!    on the stack of the code that pushed it: a timeout around something ready pays for nothing
//!    else. Only if a scope is pushed directly inside another, and neither is linked, does the
//!    outer one go on a list, so that it can be found and linked first.
//! 5. Code that polls in a scope of its own, above all a nursery, puts aside what was here before:
//!    the scopes pushed around the poll do not enclose the code inside.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// The position of the code that is being polled.
///
/// The scope that was pushed last, of all polls under way, is kept in the same pieces in which its
/// timeout was written a moment ago, each alone in its word. Copied as a whole it would be read in
/// wider pieces, and such a read has to wait until the narrow stores have left the CPU.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Position {
    seconds: Cell<u64>,
    here: Cell<Here>,
    nanoseconds: Cell<u32>,
    /// Meaningless, like the rest, until something has been pushed.
    place: Cell<Option<&'static Location<'static>>>,
    /// Scopes that directly enclose others that are pushed; the innermost is last.
    outer: RefCell<Vec<After>>,
}

/// A scope of the tree, and how many scopes are pushed inside it and not linked.
///
/// They share one word, with the scope in its lower half: if the word were written in two halves
/// and read as a whole, as each level of nested nurseries does, the store could not be forwarded to
/// the next load.
#[derive(Clone, Copy)]
pub(crate) struct Here(u64);

/// A timeout, and the place that asked for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct After {
    pub(crate) timeout: Duration,
    pub(crate) place: &'static Location<'static>,
}

/// What a scope that is pushed found here, for [`Position::pop`].
#[derive(Clone, Copy)]
pub(super) struct Before {
    here: Here,
    last: Last,
}

/// The scope that was pushed last, in pieces.
#[derive(Clone, Copy)]
struct Last {
    seconds: u64,
    nanoseconds: u32,
    place: Option<&'static Location<'static>>,
}

impl Position {
    pub(crate) fn new(scope: u32) -> Self {
        Self {
            seconds: Cell::new(0),
            here: Cell::new(Here::at(scope)),
            nanoseconds: Cell::new(0),
            place: Cell::new(None),
            outer: RefCell::default(),
        }
    }

    /// The innermost linked scope that encloses the position, or is entered there.
    #[inline]
    pub(crate) fn linked(&self) -> u32 {
        self.here.get().linked()
    }

    /// Whether there is nothing to link.
    #[inline]
    pub(crate) fn is_linked(&self) -> bool {
        self.here.get().is_linked()
    }

    /// Whether the task is apart, and has no scope of its own.
    #[inline]
    pub(crate) fn is_apart(&self) -> bool {
        self.here.get().is_apart()
    }

    /// Whether there is nothing to link except the scope of the task.
    #[inline]
    pub(crate) fn is_only_apart(&self) -> bool {
        self.here.get().0 >> 32 == APART >> 32
    }

    /// The enclosing scope and the timeout, if a single pushed scope is all there is to link.
    #[inline]
    pub(crate) fn only_one(&self) -> Option<(u32, After)> {
        let here = self.here.get();
        (here.0 >> 32 == 1).then(|| (here.linked(), self.last().after()))
    }

    /// Whether scopes have been pushed that are not linked.
    #[inline]
    pub(crate) fn has_pushed(&self) -> bool {
        self.here.get().pushed() > 0
    }

    /// The position as it is now, to be restored later.
    #[inline]
    pub(crate) fn here(&self) -> Here {
        self.here.get()
    }

    /// Moves to another position; returns the previous one, to be restored later.
    #[inline]
    pub(crate) fn replace(&self, here: Here) -> Here {
        self.here.replace(here)
    }

    /// Enters a scope with a timeout.
    #[inline(always)]
    pub(super) fn push(&self, after: After) -> Before {
        let here = self.here.get();
        if here.pushed() > 0 {
            self.keep_outer();
        }
        let last = self.last();
        self.set_last(Last {
            seconds: after.timeout.as_secs(),
            nanoseconds: after.timeout.subsec_nanos(),
            place: Some(after.place),
        });
        self.here.set(here.one_more());
        Before { here, last }
    }

    #[inline(always)]
    fn last(&self) -> Last {
        Last {
            seconds: self.seconds.get(),
            nanoseconds: self.nanoseconds.get(),
            place: self.place.get(),
        }
    }

    #[inline(always)]
    fn set_last(&self, last: Last) {
        self.seconds.set(last.seconds);
        self.nanoseconds.set(last.nanoseconds);
        self.place.set(last.place);
    }

    #[cold]
    fn keep_outer(&self) {
        let outer = self.last().after();
        self.outer.borrow_mut().push(outer);
    }

    #[cold]
    fn forget_outer(&self) {
        self.outer.borrow_mut().pop();
    }

    /// Leaves the scope that was pushed last; returns its number if it has been linked. `around`
    /// returns the scope that encloses a linked one.
    #[inline(always)]
    pub(super) fn pop(&self, before: Before, around: impl FnOnce(u32) -> u32) -> Option<u32> {
        let Before { here, last } = before;
        self.set_last(last);
        if here.pushed() > 0 {
            self.forget_outer();
        }
        // What was entered inside has been left, so this scope is the innermost, linked or not.
        let left = self.here.replace(here);
        if !left.is_linked() {
            return None;
        }
        let scope = left.linked();
        if !here.is_linked() {
            // Whatever was pushed around it has been linked with it, and so has the scope of the
            // task.
            self.here.set(Here::at(around(scope)));
        }
        Some(scope)
    }

    /// Links what is pushed, and returns the innermost. `enter` is called for each with the
    /// enclosing scope and the timeout, which is `None` for the scope of a task that is apart.
    pub(crate) fn link(&self, mut enter: impl FnMut(u32, Option<After>) -> u32) -> u32 {
        let here = self.here.get();
        let mut scope = here.linked();
        if here.is_apart() {
            scope = enter(scope, None);
        }
        if here.pushed() > 1 {
            let outer = self.outer.borrow();
            let first = outer.len() - (here.pushed() as usize - 1);
            for after in &outer[first..] {
                scope = enter(scope, Some(*after));
            }
        }
        if here.pushed() > 0 {
            scope = enter(scope, Some(self.last().after()));
        }
        self.here.set(Here::at(scope));
        scope
    }
}

impl Last {
    fn after(self) -> After {
        After {
            timeout: Duration::new(self.seconds, self.nanoseconds),
            place: self
                .place
                .expect("what was pushed last is here until it is popped"),
        }
    }
}

impl Here {
    /// In a scope of the tree.
    #[inline]
    pub(crate) fn at(scope: u32) -> Self {
        Self(u64::from(scope))
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    fn linked(self) -> u32 {
        self.0 as u32
    }

    /// In a task that needs a scope of its own if it is `apart`, or in a scope of the tree.
    #[inline]
    pub(crate) fn of_task(scope: u32, apart: bool) -> Self {
        Self(u64::from(scope) | if apart { APART } else { 0 })
    }

    #[inline]
    fn is_linked(self) -> bool {
        self.0 >> 32 == 0
    }

    #[inline]
    fn is_apart(self) -> bool {
        self.0 & APART != 0
    }

    #[inline]
    fn pushed(self) -> u32 {
        ((self.0 & !APART) >> 32) as u32
    }

    #[inline]
    fn one_more(self) -> Self {
        Self(self.0 + (1 << 32))
    }
}

impl fmt::Debug for Here {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Here({}, {} pushed)", self.linked(), self.pushed())
    }
}

/// The highest bit: the scope of the task itself is not linked either.
const APART: u64 = 1 << 63;
