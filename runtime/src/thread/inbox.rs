//! The inbox of a run: the one place where other threads leave something for it.
//!
//! Wakes and calls are left under a lock that is held for a push or a swap, never while foreign
//! code runs. A flag beside it tells the run whether there is anything, so that a turn without news
//! takes no lock. It also tells the threads whether the run has been woken already, so that a
//! thousand calls wake it once.
//!
//! 1. A thread pushes first and raises the flag afterwards; whoever raises it wakes the run.
//! 2. The run lowers the flag first and takes what is there afterwards. So whatever was pushed is
//!    either taken now, or its flag is raised after the lowering and the run is woken for it.
//! 3. What has been accepted is executed (Q1): [`Inbox::close`] refuses whatever comes later and
//!    returns, in the same critical section, everything that came before.
//! 4. A call with a key is pending until it starts, and until then a second one with the same key
//!    is the same call (Q2): [`Inbox::begin`] removes the key when the call starts.
//!
//! The run takes things on its own thread. Nothing here is dropped under the lock.

use std::any::TypeId;
use std::collections::HashSet;

use trio_platform::Unparker;

use super::sync::{AtomicBool, Mutex, Ordering, lock};
use crate::task::Remote;

/// The part of a run that other threads hold.
pub(crate) struct Shared {
    inbox: Inbox<std::sync::Arc<Remote>, Call>,
    /// `None` once the driver is gone. The unparker keeps a descriptor of the driver, and a waker
    /// elsewhere, or something that was forgotten, may keep this struct for longer.
    unparker: Mutex<Option<Unparker>>,
}

/// Something for the run to do between two turns.
pub(crate) enum Call {
    Plain(Work),
    Keyed(CallKey, Work),
    /// Something has happened to the call of `to_thread::run_sync` with this number.
    Thread {
        call: u32,
        ended: bool,
    },
}

pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// The identity of a call: the closure, and what its caller says about its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CallKey {
    closure: TypeId,
    arguments: u64,
}

impl CallKey {
    pub(crate) fn of<F: 'static>(arguments: u64) -> Self {
        let closure = TypeId::of::<F>();
        Self { closure, arguments }
    }
}

/// The run has ended, or is ending and accepts nothing more.
#[derive(Debug)]
pub(crate) struct Closed;

impl Shared {
    pub(crate) fn new(unparker: Unparker) -> Self {
        Self {
            inbox: Inbox::new(),
            unparker: Mutex::new(Some(unparker)),
        }
    }

    /// Leaves a wake for the run; has no effect once the run has ended.
    pub(crate) fn post(&self, wake: std::sync::Arc<Remote>) {
        if self.inbox.push_wake(wake) {
            self.unpark();
        }
    }

    /// Leaves a call for the run, which is executed if this returns `Ok`.
    pub(crate) fn call(&self, call: Call) -> Result<(), Closed> {
        let key = match &call {
            Call::Keyed(key, _) => Some(*key),
            Call::Plain(_) | Call::Thread { .. } => None,
        };
        if self.inbox.push_call(call, key)? {
            self.unpark();
        }
        Ok(())
    }

    /// Ends the wait of the driver although nothing has been left.
    pub(crate) fn unpark(&self) {
        if let Some(unparker) = &*lock(&self.unparker) {
            unparker.unpark();
        }
    }

    /// The driver is going: there is no wait to end any more.
    pub(crate) fn let_go_of_driver(&self) {
        drop(lock(&self.unparker).take());
    }

    /// Whether other threads have left something.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.inbox.has_news()
    }

    /// Takes what other threads have left, in exchange for two empty lists.
    pub(crate) fn collect(&self, wakes: &mut Vec<std::sync::Arc<Remote>>, calls: &mut Vec<Call>) {
        self.inbox.collect(wakes, calls);
    }

    /// A call with a key starts: the same call, requested from now on, is a new one.
    pub(crate) fn begin(&self, key: &CallKey) {
        self.inbox.begin(key);
    }

    /// Refuses everything from now on, and returns the calls that have been accepted.
    pub(crate) fn close(&self) -> Vec<Call> {
        let (wakes, calls) = self.inbox.close();
        drop(wakes);
        calls
    }

    /// How many calls wait.
    pub(crate) fn queued(&self) -> usize {
        lock(&self.inbox.pending).calls.len()
    }

    /// Whether everything is refused.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.inbox.pending).closed
    }
}

/// Whether a wake of one task is in the inbox, so that it is there only once.
#[derive(Default)]
pub(crate) struct Queued(AtomicBool);

impl Queued {
    /// Returns whether the wake has to be put there.
    pub(crate) fn claim(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// The wake has been taken out, and the task is about to be polled: a later wake has to be put
    /// there anew.
    ///
    /// Reads what it overwrites, so that the poll sees what was written before a wake that found
    /// this one queued. A store could overtake that: the wake would be lost.
    pub(crate) fn release(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }
}

/// The two lists and the flag; how the run is woken is up to the owner.
pub(super) struct Inbox<W, C> {
    pending: Mutex<Pending<W, C>>,
    /// Whether there is anything (rules 1 and 2).
    news: AtomicBool,
}

struct Pending<W, C> {
    wakes: Vec<W>,
    calls: Vec<C>,
    keys: HashSet<CallKey>,
    closed: bool,
}

impl<W, C> Inbox<W, C> {
    pub(super) fn new() -> Self {
        Self {
            pending: Mutex::new(Pending {
                wakes: Vec::new(),
                calls: Vec::new(),
                keys: HashSet::new(),
                closed: false,
            }),
            news: AtomicBool::new(false),
        }
    }

    /// Adds a wake; returns whether the run has to be woken. A wake for a run that has ended is
    /// dropped.
    pub(super) fn push_wake(&self, wake: W) -> bool {
        {
            let mut pending = lock(&self.pending);
            if pending.closed {
                return false;
            }
            pending.wakes.push(wake);
        }
        self.raise()
    }

    /// Adds a call; returns whether the run has to be woken.
    pub(super) fn push_call(&self, call: C, key: Option<CallKey>) -> Result<bool, Closed> {
        {
            let mut pending = lock(&self.pending);
            if pending.closed {
                return Err(Closed);
            }
            if key.is_some_and(|key| !pending.keys.insert(key)) {
                // It is there already. Its flag has been raised, and either the run has been woken
                // or is awake, or whoever pushed it is about to wake it.
                return Ok(false);
            }
            pending.calls.push(call);
        }
        Ok(self.raise())
    }

    /// Raises the flag; returns whether it was not raised before.
    fn raise(&self) -> bool {
        !self.news.swap(true, Ordering::AcqRel)
    }

    #[inline]
    pub(super) fn has_news(&self) -> bool {
        self.news.load(Ordering::Acquire)
    }

    pub(super) fn collect(&self, wakes: &mut Vec<W>, calls: &mut Vec<C>) {
        debug_assert!(wakes.is_empty() && calls.is_empty(), "lists are exchanged");
        // The lock orders the rest: a thread that pushes after holding it has seen this store.
        self.news.store(false, Ordering::Relaxed);
        let mut pending = lock(&self.pending);
        std::mem::swap(&mut pending.wakes, wakes);
        std::mem::swap(&mut pending.calls, calls);
    }

    pub(super) fn begin(&self, key: &CallKey) {
        lock(&self.pending).keys.remove(key);
    }

    pub(super) fn close(&self) -> (Vec<W>, Vec<C>) {
        let mut pending = lock(&self.pending);
        pending.closed = true;
        let wakes = std::mem::take(&mut pending.wakes);
        (wakes, std::mem::take(&mut pending.calls))
    }
}
