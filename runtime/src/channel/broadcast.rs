//! Every value goes to every receiver: either the slowest sets the pace, or it misses some and is
//! told how many.
//!
//! The values stand in one ring, each until the last receiver has read it; each receiver remembers
//! how far it has read. The number of a value is never used again.
//!
//! 1. A value in the ring is unread by at least one receiver. The oldest is at `head`.
//! 2. A receiver has to read every value from its own number on, and is counted in each of them.
//! 3. While a receiver waits it has read everything. While a sender waits the ring is full; only a
//!    channel that waits for the slowest has senders that wait.
//! 4. No user code runs while the state is borrowed: values are reference-counted, so that they can
//!    be cloned and dropped when it is not.
//!
//! A receive takes nothing before it is polled to its end: one that is cancelled, dropped or
//! forgotten has read nothing.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Waker;

use super::close::{Aclose, End};
use super::error::SendError;
use super::operation::{Operation, future};
use super::waiters::{Claim, Place, Ticket, Waiters};
use crate::cancel::Cancelled;
use crate::checkpoint::enter_operation;
use crate::error::{ClosedResource, EndOfChannel, Error, Result, WouldBlock};

/// Opens a channel in which every receiver gets every value, and none is missed: a send waits until
/// the slowest receiver has fewer than `capacity` values to read.
///
/// A receiver that stops receiving stops the senders; drop it, or use
/// [`open_lagging_broadcast_channel`]. Make more receivers with
/// [`subscribe`](BroadcastSendChannel::subscribe) or by cloning one.
///
/// # Panics
///
/// If `capacity` is zero: a value has to stand somewhere until every receiver has read it. A receive, if
/// the `clone` of a value uses the channel that the value is in.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// let (send, mut first) = trio::open_broadcast_channel(4);
/// let mut second = send.subscribe();
/// assert_eq!(send.send("news").await?, 2);
/// assert_eq!(first.receive().await?, "news");
/// assert_eq!(second.receive().await?, "news");
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "broadcast")]
#[track_caller]
pub fn open_broadcast_channel<T: Clone>(
    capacity: usize,
) -> (BroadcastSendChannel<T>, BroadcastReceiveChannel<T>) {
    open(capacity, false)
}

/// Opens a channel in which a receiver that is too slow misses values: the last `capacity` values
/// are kept, a send never waits, and [`BroadcastError::Lagged`] says how many a receiver has missed.
///
/// # Panics
///
/// If `capacity` is zero: a value has to stand somewhere until every receiver has read it.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::channel::BroadcastError;
///
/// let (send, mut receive) = trio::open_lagging_broadcast_channel(2);
/// for n in 1..=5 {
///     send.send(n).await?;
/// }
/// assert!(matches!(receive.receive().await, Err(BroadcastError::Lagged(3))));
/// assert_eq!(receive.receive().await?, 4);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "broadcast")]
#[track_caller]
pub fn open_lagging_broadcast_channel<T: Clone>(
    capacity: usize,
) -> (BroadcastSendChannel<T>, BroadcastReceiveChannel<T>) {
    open(capacity, true)
}

#[track_caller]
fn open<T: Clone>(
    capacity: usize,
    lagging: bool,
) -> (BroadcastSendChannel<T>, BroadcastReceiveChannel<T>) {
    assert!(
        capacity > 0,
        "a broadcast channel holds at least one value: its capacity must not be zero"
    );
    let channel = Rc::new(RefCell::new(State {
        ring: VecDeque::new(),
        spare: Vec::new(),
        head: 0,
        capacity,
        lagging,
        senders: 1,
        receivers: 1,
        next_endpoint: 1,
        sending: Waiters::new(),
        receiving: Waiters::new(),
    }));
    let receive = BroadcastReceiveChannel {
        channel: channel.clone(),
        next: 0,
        closed: false,
    };
    (BroadcastSendChannel::new(channel, 0), receive)
}

type Channel<T> = Rc<RefCell<State<T>>>;

struct State<T> {
    ring: VecDeque<Entry<T>>,
    /// Empty shelves, for the next values, so that a send allocates only when the ring grows.
    spare: Vec<Shelf<T>>,
    /// The number of the oldest value in the ring.
    head: u64,
    capacity: usize,
    lagging: bool,
    senders: usize,
    receivers: usize,
    next_endpoint: u32,
    sending: Waiters<Ticket, Pending<T>>,
    receiving: Waiters<Ticket, ()>,
}

struct Entry<T> {
    value: Shelf<T>,
    /// How many receivers have to read it.
    unread: usize,
}

/// Holds a value; counted, so that a reader can keep it while making its copy.
type Shelf<T> = Rc<RefCell<Option<T>>>;

/// The value of a sender that waits.
enum Pending<T> {
    Waiting(T),
    /// It has been sent, to this many receivers.
    Sent(usize),
}

impl<T> State<T> {
    /// The number of the next value.
    fn tail(&self) -> u64 {
        self.head + self.ring.len() as u64
    }

    fn place(&self, number: u64) -> usize {
        usize::try_from(number - self.head).expect("a place in the ring")
    }

    fn is_full(&self) -> bool {
        self.ring.len() == self.capacity
    }

    /// Adds a value, for which there must be room unless receivers may lag. Returns the value that
    /// nobody will read, which the caller drops when nothing is borrowed.
    #[must_use = "dropped when nothing is borrowed"]
    fn push(&mut self, value: T) -> Option<T> {
        if self.receivers == 0 {
            return Some(value);
        }
        let missed = match self.is_full() {
            true => self.ring.pop_front(),
            false => None,
        };
        self.head += u64::from(missed.is_some());
        let value = self.shelve(value);
        let unread = self.receivers;
        self.ring.push_back(Entry { value, unread });
        self.receiving.claim_all(drop);
        missed.and_then(|entry| self.unshelve(entry.value))
    }

    /// Gives the room there is now to senders that wait. Returns the values that nobody will read.
    fn fill(&mut self) -> Vec<T> {
        let mut unwanted = Vec::new();
        while !self.is_full() {
            let Some((sender, ())) = self.sending.claim_first() else {
                break;
            };
            let sent = Pending::Sent(self.receivers);
            if let Pending::Waiting(value) = std::mem::replace(self.sending.payload(sender), sent) {
                unwanted.extend(self.push(value));
            }
        }
        unwanted
    }

    fn shelve(&mut self, value: T) -> Shelf<T> {
        let Some(mut shelf) = self.spare.pop() else {
            return Rc::new(RefCell::new(Some(value)));
        };
        let place = Rc::get_mut(&mut shelf).expect("what is spare is nobody's");
        *place.get_mut() = Some(value);
        shelf
    }

    /// Takes a value that nobody else will read off its shelf. `None` if a reader is copying it
    /// just now; that reader drops it.
    fn unshelve(&mut self, mut shelf: Shelf<T>) -> Option<T> {
        let value = Rc::get_mut(&mut shelf)?.get_mut().take();
        self.spare.push(shelf);
        value
    }

    /// Removes what every receiver has read.
    fn sweep(&mut self, unwanted: &mut Vec<T>) {
        while self.ring.front().is_some_and(|entry| entry.unread == 0) {
            let entry = self.ring.pop_front();
            unwanted.extend(entry.and_then(|entry| self.unshelve(entry.value)));
            self.head += 1;
        }
    }
}

/// The value that a receiver has to read next.
enum Front<T> {
    /// Others have to read it too, so it stays, and has to be copied.
    Shared(Shelf<T>),
    /// It was taken out of the ring.
    Last(T),
}

impl<T> State<T> {
    /// The value with the number `next`, which is in the ring; taken out if nobody else has to read
    /// it.
    fn front(&mut self, next: u64) -> Front<T> {
        let place = self.place(next);
        if self.ring[place].unread > 1 {
            return Front::Shared(self.ring[place].value.clone());
        }
        // Who has not read an older value has not read this one either.
        debug_assert_eq!(place, 0, "the last reader of a value reads the oldest");
        let entry = self.ring.pop_front().expect("it was just looked at");
        self.head += 1;
        let value = self.unshelve(entry.value);
        Front::Last(value.expect("nobody copies what one receiver is left to read"))
    }

    /// A receiver has read the value with the number `next`, which may have been overwritten while
    /// it was copied. Returns the values that nobody will read.
    fn read(&mut self, next: u64) -> Vec<T> {
        let mut unwanted = Vec::new();
        if next >= self.head {
            let place = self.place(next);
            self.ring[place].unread -= 1;
            self.sweep(&mut unwanted);
        }
        unwanted
    }
}

/// A snapshot of a broadcast channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BroadcastStatistics {
    /// Values that some receiver has not read.
    pub current_buffer_used: usize,
    /// The capacity that the channel was opened with.
    pub max_buffer_size: usize,
    /// Sending ends that are open.
    pub open_send_channels: usize,
    /// Receiving ends that are open.
    pub open_receive_channels: usize,
    /// Sends that wait.
    pub tasks_waiting_send: usize,
    /// Receives that wait.
    pub tasks_waiting_receive: usize,
}

impl BroadcastStatistics {
    fn of<T>(state: &State<T>) -> Self {
        Self {
            current_buffer_used: state.ring.len(),
            max_buffer_size: state.capacity,
            open_send_channels: state.senders,
            open_receive_channels: state.receivers,
            tasks_waiting_send: state.sending.len(),
            tasks_waiting_receive: state.receiving.len(),
        }
    }
}

/// Values have been missed: this many were overwritten before this receiver read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lagged(pub u64);

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the receiver was too slow and has missed {} values",
            self.0
        )
    }
}

impl std::error::Error for Lagged {}

/// Why nothing was received from a broadcast channel.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BroadcastError {
    /// This many values have been missed; the next receive returns the oldest that is left. Only in
    /// a channel of [`open_lagging_broadcast_channel`].
    Lagged(u64),
    /// This receiving end has been closed.
    Closed,
    /// Every sending end has been closed, and this receiver has read everything.
    EndOfChannel,
    /// An enclosing scope has been cancelled. Nothing has been received.
    Cancelled(Cancelled),
}

/// Why nothing was received at once from a broadcast channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryBroadcastError {
    /// This receiver has read everything.
    WouldBlock,
    /// This many values have been missed; the next receive returns the oldest that is left.
    Lagged(u64),
    /// This receiving end has been closed.
    Closed,
    /// Every sending end has been closed, and this receiver has read everything.
    EndOfChannel,
}

impl From<BroadcastError> for Error {
    fn from(error: BroadcastError) -> Self {
        match error {
            BroadcastError::Lagged(count) => Lagged(count).into(),
            BroadcastError::Closed => ClosedResource::new().into(),
            BroadcastError::EndOfChannel => EndOfChannel::new().into(),
            BroadcastError::Cancelled(cancelled) => Self::cancelled(cancelled),
        }
    }
}

impl From<TryBroadcastError> for Error {
    fn from(error: TryBroadcastError) -> Self {
        match error {
            TryBroadcastError::WouldBlock => WouldBlock::new().into(),
            TryBroadcastError::Lagged(count) => Lagged(count).into(),
            TryBroadcastError::Closed => ClosedResource::new().into(),
            TryBroadcastError::EndOfChannel => EndOfChannel::new().into(),
        }
    }
}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lagged(count) => Lagged(*count).fmt(f),
            Self::Closed => f.write_str("this end of the channel has been closed"),
            Self::EndOfChannel => EndOfChannel::new().fmt(f),
            Self::Cancelled(cancelled) => cancelled.fmt(f),
        }
    }
}

impl fmt::Display for TryBroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("this receiver has read everything"),
            Self::Lagged(count) => Lagged(*count).fmt(f),
            Self::Closed => f.write_str("this end of the channel has been closed"),
            Self::EndOfChannel => EndOfChannel::new().fmt(f),
        }
    }
}

/// The sending end of a broadcast channel; see [`open_broadcast_channel`].
///
/// Dropping it closes it. Clones are ends of their own.
#[must_use = "an end that is dropped is closed"]
pub struct BroadcastSendChannel<T> {
    channel: Channel<T>,
    id: u32,
    closed: Cell<bool>,
}

/// A receiver of a broadcast channel; see [`open_broadcast_channel`].
///
/// Dropping it closes it, and what it had not read is no longer kept for it. A clone is a receiver
/// of its own, which has read as far as this one.
#[must_use = "an end that is dropped is closed"]
pub struct BroadcastReceiveChannel<T> {
    channel: Channel<T>,
    /// The number of the value to be read next.
    next: u64,
    closed: bool,
}

impl<T> BroadcastSendChannel<T> {
    fn new(channel: Channel<T>, id: u32) -> Self {
        Self {
            channel,
            id,
            closed: Cell::new(false),
        }
    }

    /// Sends `value` to every receiver that there is now; returns how many there are. Without a
    /// receiver the value is dropped, which is not an error: one may come later.
    ///
    /// Waits while the channel is full, unless the channel lets receivers lag.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. Cancelled means that the value has not been sent: it is in the error.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the value: `Closed` if this end has been closed, while it waited too.
    pub fn send(&self, value: T) -> BroadcastSending<'_, T> {
        BroadcastSending::new(SendOperation {
            endpoint: self,
            value: Some(value),
            sent: None,
            key: None,
        })
    }

    /// Sends `value` if that can be done without waiting; returns the number of receivers.
    ///
    /// # Errors
    ///
    /// [`TrySendError`](super::TrySendError), with the value.
    pub fn try_send(&self, value: T) -> Result<usize, super::TrySendError<T>> {
        if self.closed.get() {
            return Err(super::TrySendError::Closed(value));
        }
        let mut state = self.channel.borrow_mut();
        if state.is_full() && !state.lagging {
            return Err(super::TrySendError::WouldBlock(value));
        }
        let receivers = state.receivers;
        let unwanted = state.push(value);
        drop(state);
        drop(unwanted);
        Ok(receivers)
    }

    /// A new receiver, for what is sent from now on.
    pub fn subscribe(&self) -> BroadcastReceiveChannel<T> {
        let mut state = self.channel.borrow_mut();
        state.receivers += 1;
        BroadcastReceiveChannel {
            channel: self.channel.clone(),
            next: state.tail(),
            closed: false,
        }
    }

    /// Closes this end. Sends that wait at it fail with `Closed`. Receivers get what is left, and
    /// after the last sending end the end of the channel. Closing again does nothing.
    pub fn close(&self) {
        if self.closed.replace(true) {
            return;
        }
        let mut state = self.channel.borrow_mut();
        state.sending.claim_at(self.id, drop);
        state.senders -= 1;
        if state.senders == 0 {
            state.receiving.claim_all(drop);
        }
    }

    /// Closes this end, as [`close`](Self::close), and passes a checkpoint.
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

    /// Whether this end has been closed.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// How the channel stands.
    pub fn statistics(&self) -> BroadcastStatistics {
        BroadcastStatistics::of(&self.channel.borrow())
    }
}

impl<T: Clone> BroadcastReceiveChannel<T> {
    /// Receives the next value; waits while there is none.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. Cancelled means that nothing has been taken; the same if it is dropped.
    ///
    /// # Errors
    ///
    /// [`BroadcastError`]: `Lagged` if values have been missed, once each time; `EndOfChannel` if
    /// every sending end has been closed and everything has been read; `Closed` if this end has been.
    #[doc(alias = "recv")]
    pub fn receive(&mut self) -> BroadcastReceiving<'_, T> {
        BroadcastReceiving::new(ReceiveOperation {
            endpoint: self,
            key: None,
        })
    }

    /// Receives the next value, or `None` at the end of the channel: for `while let` loops.
    ///
    /// # Cancellation
    ///
    /// As for [`receive`](Self::receive).
    ///
    /// # Errors
    ///
    /// As for [`receive`](Self::receive), without `EndOfChannel`.
    pub async fn next(&mut self) -> Result<Option<T>> {
        match self.receive().await {
            Ok(value) => Ok(Some(value)),
            Err(BroadcastError::EndOfChannel) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Receives the next value if there is one.
    ///
    /// # Errors
    ///
    /// [`TryBroadcastError`].
    pub fn try_receive(&mut self) -> Result<T, TryBroadcastError> {
        if self.closed {
            return Err(TryBroadcastError::Closed);
        }
        let mut state = self.channel.borrow_mut();
        if self.next < state.head {
            let missed = state.head - self.next;
            self.next = state.head;
            return Err(TryBroadcastError::Lagged(missed));
        }
        if self.next == state.tail() {
            return Err(match state.senders {
                0 => TryBroadcastError::EndOfChannel,
                _ => TryBroadcastError::WouldBlock,
            });
        }
        let value = match state.front(self.next) {
            Front::Last(value) => value,
            Front::Shared(value) => {
                drop(state);
                // User code, which may use the channel, or panic; in that case nothing has been
                // read.
                let copy = value.borrow().clone();
                drop(value);
                let copy = copy.expect("a value that stands in the ring is there");
                state = self.channel.borrow_mut();
                let unwanted = state.read(self.next);
                self.next += 1;
                let more = state.fill();
                drop(state);
                drop((unwanted, more));
                return Ok(copy);
            }
        };
        self.next += 1;
        let unwanted = state.fill();
        drop(state);
        drop(unwanted);
        Ok(value)
    }
}

impl<T> BroadcastReceiveChannel<T> {
    /// Closes this receiver: what it had not read is no longer kept for it. Closing again does
    /// nothing.
    pub fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let mut state = self.channel.borrow_mut();
        state.receivers -= 1;
        let first = state.place(self.next.max(state.head));
        state
            .ring
            .iter_mut()
            .skip(first)
            .for_each(|entry| entry.unread -= 1);
        let mut unwanted = Vec::new();
        state.sweep(&mut unwanted);
        unwanted.extend(state.fill());
        drop(state);
        drop(unwanted);
    }

    /// Closes this receiver, as [`close`](Self::close), and passes a checkpoint.
    ///
    /// # Cancellation
    ///
    /// A checkpoint; it is closed in any case.
    ///
    /// # Errors
    ///
    /// `Cancelled` only.
    pub async fn aclose(&mut self) -> Result<()> {
        self.close();
        poll_fn(enter_operation).await
    }

    /// How many values this receiver has not read, without those that it has missed.
    pub fn len(&self) -> usize {
        let state = self.channel.borrow();
        usize::try_from(state.tail() - self.next.max(state.head)).expect("a number of places")
    }

    /// Whether there is nothing that this receiver has not read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How the channel stands.
    pub fn statistics(&self) -> BroadcastStatistics {
        BroadcastStatistics::of(&self.channel.borrow())
    }
}

/// An end of its own on the same channel. The clone of an end that has been closed is closed.
impl<T> Clone for BroadcastSendChannel<T> {
    fn clone(&self) -> Self {
        let mut state = self.channel.borrow_mut();
        let id = state.next_endpoint;
        state.next_endpoint = id.wrapping_add(1);
        let closed = self.closed.get();
        state.senders += usize::from(!closed);
        let clone = Self::new(self.channel.clone(), id);
        clone.closed.set(closed);
        clone
    }
}

/// A receiver of its own, which has read as far as this one.
impl<T> Clone for BroadcastReceiveChannel<T> {
    fn clone(&self) -> Self {
        if !self.closed {
            let mut state = self.channel.borrow_mut();
            state.receivers += 1;
            let first = state.place(self.next.max(state.head));
            state
                .ring
                .iter_mut()
                .skip(first)
                .for_each(|entry| entry.unread += 1);
        }
        Self {
            channel: self.channel.clone(),
            next: self.next,
            closed: self.closed,
        }
    }
}

impl<T> End for BroadcastSendChannel<T> {
    fn close_end(&self) {
        self.close();
    }
}

impl<T> Drop for BroadcastSendChannel<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> Drop for BroadcastReceiveChannel<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> fmt::Debug for BroadcastSendChannel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastSendChannel")
            .field("closed", &self.closed.get())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for BroadcastReceiveChannel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastReceiveChannel")
            .field("closed", &self.closed)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

future! {
    /// The future of [`BroadcastSendChannel::send`].
    pub BroadcastSending<'a, T> of SendOperation<'a, T>, Result<usize, SendError<T>>
}

future! {
    /// The future of [`BroadcastReceiveChannel::receive`].
    pub BroadcastReceiving<'a, T> of ReceiveOperation<'a, T>, Result<T, BroadcastError> where T: Clone
}

impl<T> BroadcastSending<'_, T> {
    /// Gives up the send, and returns the value unless it has been sent.
    pub fn into_inner(mut self) -> Option<T> {
        self.operation.abandon();
        self.operation.value.take()
    }
}

/// A send: the attempt, and the wait.
pub(super) struct SendOperation<'a, T> {
    endpoint: &'a BroadcastSendChannel<T>,
    value: Option<T>,
    /// The number of receivers, if it was sent while its future was not polled.
    sent: Option<usize>,
    key: Option<u32>,
}

impl<T> Operation for SendOperation<'_, T> {
    type Output = Result<usize, SendError<T>>;

    const WHAT: &'static str = "BroadcastSendChannel::send";

    fn attempt(&mut self) -> Option<Self::Output> {
        self.abandon();
        if let Some(receivers) = self.sent {
            return Some(Ok(receivers));
        }
        let value = self.value.take();
        let value = value.expect("a future is not polled after its end");
        match self.endpoint.try_send(value) {
            Ok(receivers) => Some(Ok(receivers)),
            Err(super::TrySendError::WouldBlock(value)) => {
                self.value = Some(value);
                None
            }
            Err(error) => Some(Err(SendError::Closed(error.into_inner()))),
        }
    }

    fn enlist(&mut self, place: &Place<'_>) -> bool {
        let value = self.value.take();
        let value = value.expect("a send that has not happened has its value");
        let mut state = self.endpoint.channel.borrow_mut();
        let pending = Pending::Waiting(value);
        let ticket = Ticket::at(place);
        self.key = Some(state.sending.insert(ticket, self.endpoint.id, pending));
        true
    }

    fn withdraw(&mut self) -> Option<Self::Output> {
        let key = self.key.take()?;
        let pending = self.endpoint.channel.borrow_mut().sending.remove(key);
        match pending {
            Pending::Sent(receivers) => Some(Ok(receivers)),
            Pending::Waiting(value) => {
                self.value = Some(value);
                None
            }
        }
    }

    fn abandon(&mut self) {
        if let Some(Ok(receivers)) = self.withdraw() {
            self.sent = Some(receivers);
        }
    }

    fn refused(&mut self, cancelled: Cancelled) -> Self::Output {
        if let Some(receivers) = self.sent {
            return Ok(receivers);
        }
        let value = self.value.take();
        let value = value.expect("a send that has not happened has its value");
        Err(SendError::Cancelled(value, cancelled))
    }

    fn is_settled(&mut self, _waker: &Waker) -> bool {
        let Some(key) = self.key else { return false };
        let state = self.endpoint.channel.borrow();
        state.sending.is_settled(key)
    }
}

impl<T> Drop for SendOperation<'_, T> {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// A receive: the attempt, and the wait.
pub(super) struct ReceiveOperation<'a, T> {
    endpoint: &'a mut BroadcastReceiveChannel<T>,
    key: Option<u32>,
}

impl<T: Clone> Operation for ReceiveOperation<'_, T> {
    type Output = Result<T, BroadcastError>;

    const WHAT: &'static str = "BroadcastReceiveChannel::receive";

    fn attempt(&mut self) -> Option<Self::Output> {
        self.abandon();
        Some(match self.endpoint.try_receive() {
            Ok(value) => Ok(value),
            Err(TryBroadcastError::WouldBlock) => return None,
            Err(TryBroadcastError::Lagged(count)) => Err(BroadcastError::Lagged(count)),
            Err(TryBroadcastError::Closed) => Err(BroadcastError::Closed),
            Err(TryBroadcastError::EndOfChannel) => Err(BroadcastError::EndOfChannel),
        })
    }

    fn enlist(&mut self, place: &Place<'_>) -> bool {
        let mut state = self.endpoint.channel.borrow_mut();
        self.key = Some(state.receiving.insert(Ticket::at(place), 0, ()));
        true
    }

    fn withdraw(&mut self) -> Option<Self::Output> {
        // Nothing is handed over: a receiver that is woken reads for itself.
        self.abandon();
        None
    }

    fn abandon(&mut self) {
        if let Some(key) = self.key.take() {
            self.endpoint.channel.borrow_mut().receiving.remove(key);
        }
    }

    fn refused(&mut self, cancelled: Cancelled) -> Self::Output {
        Err(BroadcastError::Cancelled(cancelled))
    }

    fn is_settled(&mut self, _waker: &Waker) -> bool {
        let Some(key) = self.key else { return false };
        let state = self.endpoint.channel.borrow();
        state.receiving.is_settled(key)
    }
}

impl<T> Drop for ReceiveOperation<'_, T> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.endpoint.channel.borrow_mut().receiving.remove(key);
        }
    }
}
