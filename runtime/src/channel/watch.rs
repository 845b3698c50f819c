//! A watched value: a receiver sees the latest value, and can wait for the next.
//!
//! The value is behind a counted pointer, so looking at it borrows nothing: a reader keeps what it
//! saw for as long as it likes, and a sender never waits and is never refused. Setting a value that
//! nobody holds any more overwrites it in place.
//!
//! A wait takes nothing: one that is cancelled, dropped or forgotten has seen nothing.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::Waker;

use super::close::{Aclose, End};
use super::error::ReceiveError;
use super::operation::{Operation, future};
use super::waiters::{Claim, Place, Ticket, Waiters};
use crate::cancel::Cancelled;
use crate::error::Result;

/// Opens a channel that holds one value, the latest: configuration, a state, a level.
///
/// Receivers see the value at any time, and wait until it [changes](WatchReceiver::changed) or until
/// it [is as they want it](WatchReceiver::wait_for). A slow receiver misses values in between, but
/// never the latest.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// let (level, mut gauge) = trio::open_watch_channel(0);
/// trio::open_nursery(async |nursery| {
///     nursery.start_soon(async move {
///         for n in 1..=10 {
///             level.send(n);
///             trio::checkpoint().await?;
///         }
///         Ok(())
///     });
///     let seen = gauge.wait_for(|level| *level >= 5).await?;
///     assert!(*seen >= 5);
///     Ok(())
/// })
/// .await
/// # }).unwrap();
/// ```
#[doc(alias = "watch")]
pub fn open_watch_channel<T>(value: T) -> (WatchSender<T>, WatchReceiver<T>) {
    let channel = Rc::new(RefCell::new(State {
        value: Rc::new(value),
        version: 0,
        senders: 1,
        receivers: 1,
        waiting: Waiters::new(),
    }));
    let receiver = WatchReceiver {
        channel: channel.clone(),
        seen: 0,
    };
    let closed = Cell::new(false);
    (WatchSender { channel, closed }, receiver)
}

type Channel<T> = Rc<RefCell<State<T>>>;

struct State<T> {
    value: Rc<T>,
    /// How often the value has been set.
    version: u64,
    senders: usize,
    receivers: usize,
    waiting: Waiters<Ticket, ()>,
}

impl<T> State<T> {
    /// Sets the value; returns the old one, to be dropped when nothing is borrowed.
    #[must_use = "dropped when nothing is borrowed"]
    fn set(&mut self, value: T) -> Old<T> {
        let old = match Rc::get_mut(&mut self.value) {
            Some(place) => Old::Overwritten(std::mem::replace(place, value)),
            None => Old::Held(std::mem::replace(&mut self.value, Rc::new(value))),
        };
        self.changed();
        old
    }

    fn changed(&mut self) {
        self.version += 1;
        self.waiting.claim_all(drop);
    }
}

/// The previous value, which somebody may still hold.
#[expect(dead_code, reason = "it is there to be dropped")]
enum Old<T> {
    Overwritten(T),
    Held(Rc<T>),
}

/// A snapshot of a watch channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WatchStatistics {
    /// Senders that are open.
    pub open_senders: usize,
    /// Receivers that are there.
    pub open_receivers: usize,
    /// Receivers that wait.
    pub tasks_waiting: usize,
    /// How often the value has been set since the channel was opened.
    pub changes: u64,
}

impl WatchStatistics {
    fn of<T>(state: &State<T>) -> Self {
        Self {
            open_senders: state.senders,
            open_receivers: state.receivers,
            tasks_waiting: state.waiting.len(),
            changes: state.version,
        }
    }
}

/// The end of a watch channel that sets the value; see [`open_watch_channel`].
///
/// Dropping it closes it. A clone is a sender of its own.
#[must_use = "an end that is dropped is closed"]
pub struct WatchSender<T> {
    channel: Channel<T>,
    closed: Cell<bool>,
}

/// The end of a watch channel that sees the value; see [`open_watch_channel`].
///
/// A clone is a receiver of its own, which has seen as much as this one.
pub struct WatchReceiver<T> {
    channel: Channel<T>,
    /// The version that was seen last.
    seen: u64,
}

impl<T> WatchSender<T> {
    /// Sets the value, and wakes whoever waits for a change.
    ///
    /// It counts as changed even if it is equal to the old one, and even if nobody is looking. Has
    /// no effect if this sender has been closed.
    pub fn send(&self, value: T) {
        if self.closed.get() {
            return;
        }
        let old = self.channel.borrow_mut().set(value);
        drop(old);
    }

    /// Changes a clone of the value, and sends that.
    #[doc(alias = "send_modify")]
    pub fn modify(&self, change: impl FnOnce(&mut T))
    where
        T: Clone,
    {
        if self.closed.get() {
            return;
        }
        // On a clone, because `change` may use the channel, and may panic.
        let mut value = T::clone(&self.get());
        change(&mut value);
        self.send(value);
    }

    /// The latest value.
    pub fn get(&self) -> Rc<T> {
        self.channel.borrow().value.clone()
    }

    /// A new receiver, which has seen the value that there is now.
    pub fn subscribe(&self) -> WatchReceiver<T> {
        let mut state = self.channel.borrow_mut();
        state.receivers += 1;
        WatchReceiver {
            channel: self.channel.clone(),
            seen: state.version,
        }
    }

    /// Closes this sender. After the last, receivers see what they have not seen yet, and then the
    /// end of the channel; the value stays. Closing again does nothing.
    pub fn close(&self) {
        if self.closed.replace(true) {
            return;
        }
        let mut state = self.channel.borrow_mut();
        state.senders -= 1;
        if state.senders == 0 {
            state.waiting.claim_all(drop);
        }
    }

    /// Closes this sender, as [`close`](Self::close), and passes a checkpoint.
    ///
    /// # Cancellation
    ///
    /// A checkpoint; it is closed in any case.
    ///
    /// # Errors
    ///
    /// `Cancelled` only.
    pub fn aclose(&self) -> Aclose<'_> {
        Aclose::new(self)
    }

    /// How the channel stands.
    pub fn statistics(&self) -> WatchStatistics {
        WatchStatistics::of(&self.channel.borrow())
    }
}

impl<T> WatchReceiver<T> {
    /// The latest value. It does not count as seen: [`changed`](Self::changed) still returns at once
    /// if it is new.
    pub fn get(&self) -> Rc<T> {
        self.channel.borrow().value.clone()
    }

    /// The latest value, which counts as seen.
    #[doc(alias = "borrow_and_update")]
    pub fn get_seen(&mut self) -> Rc<T> {
        let state = self.channel.borrow();
        self.seen = state.version;
        state.value.clone()
    }

    /// Whether the value has been set since this receiver last saw it.
    pub fn has_changed(&self) -> bool {
        self.channel.borrow().version != self.seen
    }

    /// Waits until the value has been set since this receiver last saw it, and returns the latest,
    /// which then counts as seen.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. Cancelled means that nothing counts as seen; the same if it is dropped.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]: `EndOfChannel` if every sender has been closed and the latest value has
    /// been seen.
    pub fn changed(&mut self) -> Changed<'_, T> {
        Changed::new(ChangedOperation(Watching::new(self)))
    }

    /// Waits until `wanted` returns `true` for the latest value, which may be the present one, and
    /// returns it; it then counts as seen.
    ///
    /// `wanted` is asked when this is called, and after a change; a value that is replaced before
    /// this task runs is not asked about.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. Cancelled means that nothing counts as seen; the same if it is dropped.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]: `EndOfChannel` if every sender has been closed, and the last value is not
    /// wanted.
    pub fn wait_for<F: FnMut(&T) -> bool>(&mut self, wanted: F) -> WaitFor<'_, T, F> {
        WaitFor::new(WaitForOperation {
            watching: Watching::new(self),
            wanted,
        })
    }

    /// How the channel stands.
    pub fn statistics(&self) -> WatchStatistics {
        WatchStatistics::of(&self.channel.borrow())
    }
}

impl<T> Clone for WatchSender<T> {
    fn clone(&self) -> Self {
        self.channel.borrow_mut().senders += usize::from(!self.closed.get());
        Self {
            channel: self.channel.clone(),
            closed: self.closed.clone(),
        }
    }
}

impl<T> Clone for WatchReceiver<T> {
    fn clone(&self) -> Self {
        self.channel.borrow_mut().receivers += 1;
        Self {
            channel: self.channel.clone(),
            seen: self.seen,
        }
    }
}

impl<T> End for WatchSender<T> {
    fn close_end(&self) {
        self.close();
    }
}

impl<T> Drop for WatchSender<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> Drop for WatchReceiver<T> {
    fn drop(&mut self) {
        self.channel.borrow_mut().receivers -= 1;
    }
}

impl<T: fmt::Debug> fmt::Debug for WatchSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.get();
        f.debug_struct("WatchSender")
            .field("value", &value)
            .field("closed", &self.closed.get())
            .finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for WatchReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.get();
        f.debug_struct("WatchReceiver")
            .field("value", &value)
            .field("changed", &self.has_changed())
            .finish()
    }
}

future! {
    /// The future of [`WatchReceiver::changed`].
    pub Changed<'a, T> of ChangedOperation<'a, T>, Result<Rc<T>, ReceiveError>
}

future! {
    /// The future of [`WatchReceiver::wait_for`].
    pub WaitFor<'a, T, F> of WaitForOperation<'a, T, F>, Result<Rc<T>, ReceiveError> where F: FnMut(&T) -> bool
}

/// A receiver that may stand in line.
struct Watching<'a, T> {
    receiver: &'a mut WatchReceiver<T>,
    key: Option<u32>,
}

impl<'a, T> Watching<'a, T> {
    fn new(receiver: &'a mut WatchReceiver<T>) -> Self {
        Self {
            receiver,
            key: None,
        }
    }

    fn enlist(&mut self, place: &Place<'_>) -> bool {
        let mut state = self.receiver.channel.borrow_mut();
        self.key = Some(state.waiting.insert(Ticket::at(place), 0, ()));
        true
    }

    fn leave(&mut self) {
        if let Some(key) = self.key.take() {
            self.receiver.channel.borrow_mut().waiting.remove(key);
        }
    }

    fn is_settled(&self) -> bool {
        let Some(key) = self.key else { return false };
        self.receiver.channel.borrow().waiting.is_settled(key)
    }

    /// The latest value, if it is `wanted`, which then counts as seen; the end, if there is nothing
    /// to wait for.
    fn look(
        &mut self,
        mut wanted: impl FnMut(&T, bool) -> bool,
    ) -> Option<Result<Rc<T>, ReceiveError>> {
        self.leave();
        loop {
            let (value, version) = {
                let state = self.receiver.channel.borrow();
                (state.value.clone(), state.version)
            };
            if wanted(&value, version != self.receiver.seen) {
                self.receiver.seen = version;
                return Some(Ok(value));
            }
            let state = self.receiver.channel.borrow();
            // User code has run, and may have set the value.
            if state.version == version {
                return (state.senders == 0).then_some(Err(ReceiveError::EndOfChannel));
            }
        }
    }
}

impl<T> Drop for Watching<'_, T> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The wait for a change.
pub(super) struct ChangedOperation<'a, T>(Watching<'a, T>);

impl<T> Operation for ChangedOperation<'_, T> {
    type Output = Result<Rc<T>, ReceiveError>;

    const WHAT: &'static str = "WatchReceiver::changed";

    fn attempt(&mut self) -> Option<Self::Output> {
        self.0.look(|_, changed| changed)
    }

    fn enlist(&mut self, place: &Place<'_>) -> bool {
        self.0.enlist(place)
    }

    fn withdraw(&mut self) -> Option<Self::Output> {
        self.0.leave();
        None
    }

    fn abandon(&mut self) {
        self.0.leave();
    }

    fn refused(&mut self, cancelled: Cancelled) -> Self::Output {
        Err(ReceiveError::Cancelled(cancelled))
    }

    fn is_settled(&mut self, _waker: &Waker) -> bool {
        self.0.is_settled()
    }
}

/// The wait for a certain value.
pub(super) struct WaitForOperation<'a, T, F> {
    watching: Watching<'a, T>,
    wanted: F,
}

impl<T, F: FnMut(&T) -> bool> Operation for WaitForOperation<'_, T, F> {
    type Output = Result<Rc<T>, ReceiveError>;

    const WHAT: &'static str = "WatchReceiver::wait_for";

    fn attempt(&mut self) -> Option<Self::Output> {
        let wanted = &mut self.wanted;
        self.watching.look(|value, _| wanted(value))
    }

    fn enlist(&mut self, place: &Place<'_>) -> bool {
        self.watching.enlist(place)
    }

    fn withdraw(&mut self) -> Option<Self::Output> {
        self.watching.leave();
        None
    }

    fn abandon(&mut self) {
        self.watching.leave();
    }

    fn refused(&mut self, cancelled: Cancelled) -> Self::Output {
        Err(ReceiveError::Cancelled(cancelled))
    }

    fn is_settled(&mut self, _waker: &Waker) -> bool {
        self.watching.is_settled()
    }
}
