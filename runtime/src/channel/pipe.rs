//! What the channel of a run and the channel between threads have in common: a buffer, a line of
//! senders, a line of receivers, and the rules by which values pass between them.
//!
//! The code that every value goes through is inlined, however large the value: a result that is
//! handed back through memory, written word by word and read as a whole, costs more than the rest
//! of a send. The code that has to look at waiting operations is called, so that the rest is small
//! enough to be inlined.
//!
//! The state is behind a [`Home`]: a cell, or a lock. No user code runs while it is open: values
//! are dropped, and wakers called, when it is closed again.
//!
//! 1. A value is in one place at a time: with its sender, in the buffer, or with the receiver that it
//!    was handed to. A sender that waits has left its value in its place in line.
//! 2. While a receiver that can be claimed waits, the buffer is empty; while such a sender waits,
//!    it is full. So values stay in order, and nobody passes those who wait.
//! 3. Closing hands nothing over: it wakes, and those who wake see for themselves that it is closed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use super::error::{ReceiveError, SendError, TryReceiveError, TrySendError};
use super::operation::Operation;
use super::waiters::{Caller, Claim, Place, Ticket, Waiters};
use crate::cancel::Cancelled;

/// Where the state of a channel lives; a handle is one pointer.
pub(super) trait Home: Clone {
    type Item;
    type Claim: Claim;

    /// Whether other threads may use it.
    const REMOTE: bool;
    const SEND: &'static str;
    const RECEIVE: &'static str;

    fn with<R>(&self, f: impl FnOnce(&mut State<Self::Item, Self::Claim>) -> R) -> R;
}

pub(super) type Local<T> = Rc<RefCell<State<T, Ticket>>>;
pub(super) type Remote<T> = Arc<Mutex<State<T, Caller>>>;

/// The state of a channel.
pub(super) struct State<T, C> {
    pub(super) buffer: VecDeque<T>,
    pub(super) capacity: usize,
    /// The most that the buffer has held.
    pub(super) peak: usize,
    /// Ends that are open.
    pub(super) senders: usize,
    pub(super) receivers: usize,
    /// The number of the next end; the two sides may use the same numbers.
    next_endpoint: u32,
    /// Each with its value, until the value is taken.
    pub(super) sending: Waiters<C, Option<T>>,
    /// Each with the value that it was handed.
    pub(super) receiving: Waiters<C, Option<T>>,
    /// Producers that wait until somebody receives.
    demanding: Waiters<C, ()>,
}

impl<T, C: Claim> State<T, C> {
    /// A channel with one end of each side.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            buffer: VecDeque::new(),
            capacity,
            peak: 0,
            senders: 1,
            receivers: 1,
            next_endpoint: 1,
            sending: Waiters::new(),
            receiving: Waiters::new(),
            demanding: Waiters::new(),
        }
    }

    /// Sends the value in `slot`, if that is possible without waiting: then the slot is empty.
    /// Otherwise the value is still in it.
    #[inline(always)]
    fn send(&mut self, closed: bool, slot: &mut Option<T>) -> Sent<C> {
        let open = !closed && self.receivers > 0;
        if !open || !self.receiving.is_deserted() || self.buffer.len() >= self.capacity {
            return self.send_over(closed, slot);
        }
        self.put(slot.take().expect(SENT_ONCE));
        Sent::Buffered
    }

    /// The same for a value that cannot simply be put into the buffer.
    #[inline(never)]
    fn send_over(&mut self, closed: bool, slot: &mut Option<T>) -> Sent<C> {
        if closed {
            return Sent::Not(Refusal::Closed);
        }
        if self.receivers == 0 {
            return Sent::Not(Refusal::Broken);
        }
        if let Some((receiver, wake)) = self.receiving.claim_first() {
            *self.receiving.payload(receiver) = slot.take();
            return Sent::Over(wake);
        }
        if self.buffer.len() >= self.capacity {
            return Sent::Not(Refusal::Full);
        }
        self.put(slot.take().expect(SENT_ONCE));
        Sent::Buffered
    }

    #[inline(always)]
    fn put(&mut self, value: T) {
        self.buffer.push_back(value);
        if self.buffer.len() > self.peak {
            self.peak = self.buffer.len();
        }
    }

    /// The oldest value, if it is in the buffer and no sender waits for its room.
    #[inline(always)]
    fn take_buffered(&mut self) -> Option<T> {
        match self.sending.is_deserted() {
            true => self.buffer.pop_front(),
            false => None,
        }
    }

    /// Takes the oldest value. Its room goes to the sender that has waited longest, which the
    /// caller has to wake.
    fn take(&mut self) -> Option<(T, Option<C::Wake>)> {
        let Some(value) = self.buffer.pop_front() else {
            let (value, wake) = self.take_from_sender()?;
            return Some((value, Some(wake)));
        };
        let mut woken = None;
        if self.buffer.len() < self.capacity {
            if let Some((next, wake)) = self.take_from_sender() {
                self.put(next);
                woken = Some(wake);
            }
        }
        Some((value, woken))
    }

    fn take_from_sender(&mut self) -> Option<(T, C::Wake)> {
        let (sender, wake) = self.sending.claim_first()?;
        let value = self.sending.payload(sender).take();
        Some((value.expect("a sender that waits has a value"), wake))
    }

    /// Receives a value that is not simply [in the buffer](Self::take_buffered).
    #[inline(never)]
    fn take_over(&mut self, closed: bool) -> Taken<T, C::Wake> {
        if closed {
            return Err(TryReceiveError::Closed);
        }
        match self.take() {
            Some(taken) => Ok(taken),
            None if self.senders == 0 => Err(TryReceiveError::EndOfChannel),
            None => Err(TryReceiveError::WouldBlock),
        }
    }

    /// Takes back a value that was handed to a receiver which has gone: it becomes the oldest.
    /// Returns it if nobody can receive it.
    fn untake(&mut self, value: T) -> (Option<T>, Option<C::Wake>) {
        if self.receivers == 0 {
            return (Some(value), None);
        }
        match self.receiving.claim_first() {
            Some((receiver, wake)) => {
                *self.receiving.payload(receiver) = Some(value);
                (None, Some(wake))
            }
            None => {
                self.buffer.push_front(value);
                (None, None)
            }
        }
    }
}

const SENT_ONCE: &str = "what is sent is there, and a future is not polled after its end";

/// What is taken from a channel, with the waiter to wake for it.
type Taken<T, W> = Result<(T, Option<W>), TryReceiveError>;

/// What happened to a value that was to be sent.
enum Sent<C: Claim> {
    /// It went to a waiting receiver, which has to be woken.
    Over(C::Wake),
    Buffered,
    Not(Refusal),
}

enum Refusal {
    Full,
    Closed,
    Broken,
}

impl<T> Home for Local<T> {
    type Item = T;
    type Claim = Ticket;

    const REMOTE: bool = false;
    const SEND: &'static str = "MemorySendChannel::send";
    const RECEIVE: &'static str = "MemoryReceiveChannel::receive";

    #[inline(always)]
    fn with<R>(&self, f: impl FnOnce(&mut State<T, Ticket>) -> R) -> R {
        f(&mut self.borrow_mut())
    }
}

impl<T> Home for Remote<T> {
    type Item = T;
    type Claim = Caller;

    const REMOTE: bool = true;
    const SEND: &'static str = "ThreadSendChannel::send";
    const RECEIVE: &'static str = "ThreadReceiveChannel::receive";

    fn with<R>(&self, f: impl FnOnce(&mut State<T, Caller>) -> R) -> R {
        // No user code runs under the lock, so nothing panics there.
        f(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One end of a channel, the same for both sides.
pub(super) struct Endpoint<H: Home> {
    home: H,
    id: u32,
    /// Written while the state is open.
    closed: AtomicBool,
    /// The operations of this end that stand in line, so that closing an end that has none looks at
    /// none. Written while the state is open.
    waiting: AtomicU32,
}

impl<H: Home> Endpoint<H> {
    /// The two ends of a new channel.
    pub(super) fn pair(home: H) -> (Self, Self) {
        (Self::new(home.clone(), 0, false), Self::new(home, 0, false))
    }

    fn new(home: H, id: u32, closed: bool) -> Self {
        Self {
            home,
            id,
            closed: AtomicBool::new(closed),
            waiting: AtomicU32::new(0),
        }
    }

    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State<H::Item, H::Claim>) -> R) -> R {
        self.home.with(f)
    }

    fn another(&self, count: impl FnOnce(&mut State<H::Item, H::Claim>) -> &mut usize) -> Self {
        let (id, closed) = self.home.with(|state| {
            let id = state.next_endpoint;
            state.next_endpoint = id.wrapping_add(1);
            let closed = self.is_closed();
            *count(state) += usize::from(!closed);
            (id, closed)
        });
        Self::new(self.home.clone(), id, closed)
    }

    pub(super) fn another_sender(&self) -> Self {
        self.another(|state| &mut state.senders)
    }

    pub(super) fn another_receiver(&self) -> Self {
        self.another(|state| &mut state.receivers)
    }

    /// Marks the end as closed; returns whether it was open.
    fn set_closed(&self) -> bool {
        let before = self.is_closed();
        self.closed.store(true, Ordering::Relaxed);
        !before
    }

    /// Whether a waiter has been taken out of its `line`; if not, `waker` wakes it from now on.
    fn is_settled<P>(
        &self,
        line: impl Fn(&mut State<H::Item, H::Claim>) -> &mut Waiters<H::Claim, P>,
        key: u32,
        waker: &Waker,
    ) -> bool {
        let (settled, known) = self.with(|state| {
            let line = line(state);
            (line.is_settled(key), line.is_woken_by(key, waker))
        });
        if settled || known {
            return settled;
        }
        // Cloning and dropping a foreign waker runs foreign code.
        let waker = waker.clone();
        let (settled, before) = self.with(|state| {
            let line = line(state);
            (line.is_settled(key), line.wake_by(key, waker))
        });
        drop(before);
        settled
    }

    fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    fn stand(&self) {
        let waiting = self.waiting.load(Ordering::Relaxed);
        self.waiting.store(waiting + 1, Ordering::Relaxed);
    }

    fn leave(&self) {
        let waiting = self.waiting.load(Ordering::Relaxed);
        self.waiting.store(waiting - 1, Ordering::Relaxed);
    }

    pub(super) fn close_sender(&self) {
        let mut wakes = Vec::new();
        self.home.with(|state| {
            if !self.set_closed() {
                return;
            }
            if self.has_waiting() {
                state.sending.claim_at(self.id, |wake| wakes.push(wake));
                state.demanding.claim_at(self.id, |wake| wakes.push(wake));
            }
            state.senders -= 1;
            if state.senders == 0 {
                state.receiving.claim_all(|wake| wakes.push(wake));
            }
        });
        wakes.into_iter().for_each(H::Claim::wake);
    }

    pub(super) fn close_receiver(&self) {
        let mut wakes = Vec::new();
        let unwanted = self.home.with(|state| {
            if !self.set_closed() {
                return VecDeque::new();
            }
            if self.has_waiting() {
                state.receiving.claim_at(self.id, |wake| wakes.push(wake));
            }
            state.receivers -= 1;
            if state.receivers > 0 {
                return VecDeque::new();
            }
            state.sending.claim_all(|wake| wakes.push(wake));
            state.demanding.claim_all(|wake| wakes.push(wake));
            std::mem::take(&mut state.buffer)
        });
        wakes.into_iter().for_each(H::Claim::wake);
        drop(unwanted);
    }

    #[inline]
    pub(super) fn try_send(&self, value: H::Item) -> Result<(), TrySendError<H::Item>> {
        let mut slot = Some(value);
        let sent = self
            .home
            .with(|state| state.send(self.is_closed(), &mut slot));
        match (sent, slot) {
            (Sent::Over(wake), _) => H::Claim::wake(wake),
            (Sent::Not(Refusal::Full), Some(value)) => return Err(TrySendError::WouldBlock(value)),
            (Sent::Not(Refusal::Closed), Some(value)) => return Err(TrySendError::Closed(value)),
            (Sent::Not(Refusal::Broken), Some(value)) => return Err(TrySendError::Broken(value)),
            (Sent::Buffered | Sent::Not(_), _) => {}
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn try_receive(&self) -> Result<H::Item, TryReceiveError> {
        let taken = self.home.with(|state| {
            let closed = self.is_closed();
            if !closed {
                if let Some(value) = state.take_buffered() {
                    return Ok((value, None));
                }
            }
            state.take_over(closed)
        });
        let (value, wake) = taken?;
        if let Some(wake) = wake {
            H::Claim::wake(wake);
        }
        Ok(value)
    }

    pub(super) fn fmt(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// A claim on its way into a line. If it does not get there it is dropped outside of the state,
/// because it may hold a foreign waker.
struct Claiming<C>(Option<C>);

impl<C: Claim> Claiming<C> {
    fn new(place: &Place<'_>) -> Self {
        Self(Some(C::at(place)))
    }

    /// Whether the opposite line holds any other wait than this one.
    fn is_awaited<P>(&self, opposite: &Waiters<C, P>) -> bool {
        self.0
            .as_ref()
            .is_some_and(|claim| opposite.has_others(claim))
    }

    fn take(&mut self) -> C {
        self.0.take().expect("a claim goes into one line")
    }
}

/// A send: the attempt, and the wait.
pub(super) struct SendOperation<'a, H: Home> {
    endpoint: &'a Endpoint<H>,
    /// Here until it is sent or stands in line.
    value: Option<H::Item>,
    /// Whether it was sent while its future was not polled.
    sent: bool,
    key: Option<u32>,
}

impl<'a, H: Home> SendOperation<'a, H> {
    #[inline]
    pub(super) fn new(endpoint: &'a Endpoint<H>, value: H::Item) -> Self {
        Self {
            endpoint,
            value: Some(value),
            sent: false,
            key: None,
        }
    }

    /// Gives up the send, and returns the value unless it has been sent.
    pub(super) fn give_up(&mut self) -> Option<H::Item> {
        self.abandon();
        self.value.take()
    }

    fn take_value(&mut self) -> H::Item {
        self.value
            .take()
            .expect("a send that has not happened has its value")
    }
}

impl<H: Home> Operation for SendOperation<'_, H> {
    type Output = Result<(), SendError<H::Item>>;

    const WHAT: &'static str = H::SEND;
    const REMOTE: bool = H::REMOTE;

    #[inline(always)]
    fn attempt(&mut self) -> Option<Self::Output> {
        if self.key.is_some() || self.sent {
            self.abandon();
            if self.sent {
                return Some(Ok(()));
            }
        }
        let Self {
            endpoint, value, ..
        } = self;
        let sent = endpoint
            .home
            .with(|state| state.send(endpoint.is_closed(), value));
        match sent {
            Sent::Over(wake) => {
                H::Claim::wake(wake);
                Some(Ok(()))
            }
            Sent::Buffered => Some(Ok(())),
            Sent::Not(Refusal::Full) => None,
            Sent::Not(Refusal::Closed) => Some(Err(SendError::Closed(self.take_value()))),
            Sent::Not(Refusal::Broken) => Some(Err(SendError::Broken(self.take_value()))),
        }
    }

    fn enlist(&mut self, place: &Place<'_>) -> bool {
        let Self {
            endpoint,
            value,
            key,
            ..
        } = self;
        let mut claim = Claiming::new(place);
        endpoint.home.with(|state| {
            // Between the attempt and this, another thread may have made room.
            let closed = endpoint.is_closed() || state.receivers == 0;
            let full = state.buffer.len() >= state.capacity;
            if H::REMOTE && (closed || !full || claim.is_awaited(&state.receiving)) {
                return false;
            }
            let claim = claim.take();
            *key = Some(state.sending.insert(claim, endpoint.id, value.take()));
            endpoint.stand();
            true
        })
    }

    fn withdraw(&mut self) -> Option<Self::Output> {
        let key = self.key.take()?;
        let endpoint = self.endpoint;
        let (claim, value) = endpoint.home.with(|state| {
            endpoint.leave();
            state.sending.take_out(key)
        });
        drop(claim);
        self.value = value;
        self.value.is_none().then_some(Ok(()))
    }

    fn abandon(&mut self) {
        // If it was sent meanwhile, the next attempt will say so.
        self.sent |= self.withdraw().is_some();
    }

    fn refused(&mut self, cancelled: Cancelled) -> Self::Output {
        if self.sent {
            return Ok(());
        }
        Err(SendError::Cancelled(self.take_value(), cancelled))
    }

    fn is_settled(&mut self, waker: &Waker) -> bool {
        let Some(key) = self.key else { return false };
        self.endpoint
            .is_settled(|state| &mut state.sending, key, waker)
    }
}

impl<H: Home> Drop for SendOperation<'_, H> {
    #[inline]
    fn drop(&mut self) {
        if self.key.is_some() {
            self.abandon();
        }
    }
}

/// A receive: the attempt, and the wait.
pub(super) struct ReceiveOperation<'a, H: Home> {
    endpoint: &'a Endpoint<H>,
    key: Option<u32>,
}

impl<'a, H: Home> ReceiveOperation<'a, H> {
    #[inline]
    pub(super) fn new(endpoint: &'a Endpoint<H>) -> Self {
        Self {
            endpoint,
            key: None,
        }
    }

    /// A receive that continues one that was [put off](Self::put_off).
    #[cfg(feature = "futures")]
    pub(super) fn go_on(endpoint: &'a Endpoint<H>, key: Option<u32>) -> Self {
        Self { endpoint, key }
    }

    /// Ends the receive without leaving the line; returns the place in line, if it has one.
    #[cfg(feature = "futures")]
    pub(super) fn put_off(mut self) -> Option<u32> {
        self.key.take()
    }

    #[cold]
    fn give_back(&mut self) {
        let Some(Ok(value)) = self.withdraw() else {
            return;
        };
        let (unwanted, wake) = self.endpoint.with(|state| state.untake(value));
        if let Some(wake) = wake {
            H::Claim::wake(wake);
        }
        drop(unwanted);
    }
}

impl<H: Home> Operation for ReceiveOperation<'_, H> {
    type Output = Result<H::Item, ReceiveError>;

    const WHAT: &'static str = H::RECEIVE;
    const REMOTE: bool = H::REMOTE;

    #[inline(always)]
    fn attempt(&mut self) -> Option<Self::Output> {
        if self.key.is_some() {
            if let Some(output) = self.withdraw() {
                return Some(output);
            }
        }
        Some(match self.endpoint.try_receive() {
            Ok(value) => Ok(value),
            Err(TryReceiveError::WouldBlock) => return None,
            Err(TryReceiveError::Closed) => Err(ReceiveError::Closed),
            Err(TryReceiveError::EndOfChannel) => Err(ReceiveError::EndOfChannel),
        })
    }

    fn enlist(&mut self, place: &Place<'_>) -> bool {
        let Self { endpoint, key } = self;
        let mut claim = Claiming::new(place);
        let mut wakes = Vec::new();
        let stands = endpoint.home.with(|state| {
            // Between the attempt and this, another thread may have sent.
            let closed = endpoint.is_closed() || state.senders == 0;
            let empty = state.buffer.is_empty();
            if H::REMOTE && (closed || !empty || claim.is_awaited(&state.sending)) {
                return false;
            }
            let claim = claim.take();
            *key = Some(state.receiving.insert(claim, endpoint.id, None));
            endpoint.stand();
            state.demanding.claim_all(|wake| wakes.push(wake));
            true
        });
        wakes.into_iter().for_each(H::Claim::wake);
        stands
    }

    fn withdraw(&mut self) -> Option<Self::Output> {
        let key = self.key.take()?;
        let endpoint = self.endpoint;
        let (claim, given) = endpoint.home.with(|state| {
            endpoint.leave();
            state.receiving.take_out(key)
        });
        drop(claim);
        given.map(Ok)
    }

    fn abandon(&mut self) {
        if self.key.is_some() {
            self.give_back();
        }
    }

    fn refused(&mut self, cancelled: Cancelled) -> Self::Output {
        Err(ReceiveError::Cancelled(cancelled))
    }

    fn is_settled(&mut self, waker: &Waker) -> bool {
        let Some(key) = self.key else { return false };
        self.endpoint
            .is_settled(|state| &mut state.receiving, key, waker)
    }
}

impl<H: Home> Drop for ReceiveOperation<'_, H> {
    #[inline]
    fn drop(&mut self) {
        if self.key.is_some() {
            self.give_back();
        }
    }
}

/// A producer's wait until somebody receives.
pub(super) struct DemandOperation<'a, H: Home> {
    endpoint: &'a Endpoint<H>,
    key: Option<u32>,
}

impl<'a, H: Home> DemandOperation<'a, H> {
    pub(super) fn new(endpoint: &'a Endpoint<H>) -> Self {
        Self {
            endpoint,
            key: None,
        }
    }
}

impl<H: Home> Operation for DemandOperation<'_, H> {
    /// Whether anybody who could receive is left.
    type Output = Result<bool, Cancelled>;

    const WHAT: &'static str = "Yielder::send";

    fn attempt(&mut self) -> Option<Self::Output> {
        self.abandon();
        self.endpoint.with(|state| {
            if state.receivers == 0 || self.endpoint.is_closed() {
                return Some(Ok(false));
            }
            (!state.receiving.is_empty()).then_some(Ok(true))
        })
    }

    fn enlist(&mut self, place: &Place<'_>) -> bool {
        let Self { endpoint, key } = self;
        let claim = H::Claim::at(place);
        endpoint.home.with(|state| {
            *key = Some(state.demanding.insert(claim, endpoint.id, ()));
            endpoint.stand();
        });
        true
    }

    fn withdraw(&mut self) -> Option<Self::Output> {
        self.abandon();
        None
    }

    fn abandon(&mut self) {
        if let Some(key) = self.key.take() {
            let endpoint = self.endpoint;
            let (claim, ()) = endpoint.home.with(|state| {
                endpoint.leave();
                state.demanding.take_out(key)
            });
            drop(claim);
        }
    }

    fn refused(&mut self, cancelled: Cancelled) -> Self::Output {
        Err(cancelled)
    }

    fn is_settled(&mut self, waker: &Waker) -> bool {
        let Some(key) = self.key else { return false };
        self.endpoint
            .is_settled(|state| &mut state.demanding, key, waker)
    }
}

impl<H: Home> Drop for DemandOperation<'_, H> {
    fn drop(&mut self) {
        self.abandon();
    }
}
