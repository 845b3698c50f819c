//! The channel of a run: values between its tasks, in order, each received once.
//!
//! Both ends are shared handles to one state, on one thread and without a lock. `pipe.rs` has the
//! state and its rules; `operation.rs` says what happens to futures that are cancelled, dropped or
//! forgotten.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::close::{Aclose, End};
use super::error::{ReceiveError, SendError, TryReceiveError, TrySendError};
use super::operation::future;
use super::pipe::{DemandOperation, Endpoint, Home, Local, ReceiveOperation, SendOperation, State};
use crate::cancel::Cancelled;
use crate::error::Result;

/// The capacity of a channel that has no bound: its senders never wait.
pub const UNBOUNDED: usize = usize::MAX;

/// Opens a channel between tasks: what is sent at one end is received at the other, in order, each
/// value once.
///
/// `capacity` is how many values may wait in the channel. With zero, a send waits until a receiver
/// takes the value; with [`UNBOUNDED`] it never waits. Use zero or a small number unless you know
/// better: a buffer hides that a receiver is too slow, but does not make it faster.
///
/// Both ends can be cloned, and each clone is closed by itself: by [`close`](MemorySendChannel::close),
/// or when it is dropped. The receiving side ends when every sending end has been closed.
///
/// The ends stay on the thread of their run; those of
/// [`open_thread_channel`](crate::open_thread_channel) need not.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// let (send, receive) = trio::open_memory_channel(0);
/// trio::open_nursery(async |nursery| {
///     nursery.start_soon(async move {
///         for n in 1..=3 {
///             send.send(n).await?;
///         }
///         Ok(()) // `send` is dropped, which closes it: the loop below ends
///     });
///     let mut sum = 0;
///     while let Some(n) = receive.next().await? {
///         sum += n;
///     }
///     assert_eq!(sum, 6);
///     Ok(())
/// })
/// .await
/// # }).unwrap();
/// ```
#[doc(alias = "mpsc")]
#[doc(alias = "channel")]
#[doc(alias = "oneshot")]
#[doc(alias = "Queue")]
pub fn open_memory_channel<T>(capacity: usize) -> (MemorySendChannel<T>, MemoryReceiveChannel<T>) {
    let home: Local<T> = Rc::new(RefCell::new(State::new(capacity)));
    let (send, receive) = Endpoint::pair(home);
    (MemorySendChannel(send), MemoryReceiveChannel(receive))
}

/// A snapshot of a memory channel or a thread channel; the same from either end and any clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryChannelStatistics {
    /// Values in the buffer.
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
    /// The most values that have been in the buffer at once, ever.
    pub peak_buffer_used: usize,
}

impl MemoryChannelStatistics {
    pub(super) fn of<H: Home>(endpoint: &Endpoint<H>) -> Self {
        endpoint.with(|state| Self {
            current_buffer_used: state.buffer.len(),
            max_buffer_size: state.capacity,
            open_send_channels: state.senders,
            open_receive_channels: state.receivers,
            tasks_waiting_send: state.sending.len(),
            tasks_waiting_receive: state.receiving.len(),
            peak_buffer_used: state.peak,
        })
    }
}

/// The sending end of a memory channel; see [`open_memory_channel`].
///
/// Dropping it closes it. Clones are ends of their own. Several tasks may send at one end: their
/// values go in the order in which they came.
#[must_use = "an end that is dropped is closed"]
pub struct MemorySendChannel<T>(Endpoint<Local<T>>);

/// The receiving end of a memory channel; see [`open_memory_channel`].
///
/// Dropping it closes it. Clones are ends of their own. Several tasks may receive, at one end or at
/// several: each value goes to one of them.
#[must_use = "an end that is dropped is closed"]
pub struct MemoryReceiveChannel<T>(pub(super) Endpoint<Local<T>>);

impl<T> MemorySendChannel<T> {
    /// Sends `value` to the receiver that has waited longest, or else into the buffer; waits while
    /// there is neither a receiver nor room.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. Cancelled means that the value has not been sent: it is in the error. A send
    /// that is dropped has not happened either, and drops the value.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the value: `Closed` if this end has been closed, while it waited too;
    /// `Broken` if every receiving end has been. It becomes an [`Error`](crate::Error) by `?`.
    #[inline]
    pub fn send(&self, value: T) -> Sending<'_, T> {
        Sending::new(SendOperation::new(&self.0, value))
    }

    /// Sends `value` if that can be done without waiting.
    ///
    /// # Errors
    ///
    /// [`TrySendError`], with the value.
    #[doc(alias = "send_nowait")]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.0.try_send(value)
    }

    /// Waits until somebody waits to receive, without handing over anything yet.
    pub(super) fn demand(&self) -> Demand<'_, T> {
        Demand::new(DemandOperation::new(&self.0))
    }

    /// Closes this end. Sends that wait at it fail with `Closed`; clones are not concerned. What is
    /// in the buffer can still be received; with the last sending end, receivers then find the end
    /// of the channel. Closing again does nothing.
    pub fn close(&self) {
        self.0.close_sender();
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
        self.0.is_closed()
    }

    /// How the channel stands.
    pub fn statistics(&self) -> MemoryChannelStatistics {
        MemoryChannelStatistics::of(&self.0)
    }
}

impl<T> MemoryReceiveChannel<T> {
    /// Receives the oldest value; waits while there is none.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. Cancelled means that nothing has been taken. A receive that is dropped, as a
    /// foreign combinator may do, gives back what it had been handed, to the front.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]: `Closed` if this end has been closed, while it waited too; `EndOfChannel` if
    /// every sending end has been, and nothing is left. It becomes an [`Error`](crate::Error) by `?`.
    #[doc(alias = "recv")]
    #[inline]
    pub fn receive(&self) -> Receiving<'_, T> {
        Receiving::new(ReceiveOperation::new(&self.0))
    }

    /// Receives the oldest value, or `None` at the end of the channel: for `while let` loops.
    ///
    /// # Cancellation
    ///
    /// As for [`receive`](Self::receive).
    ///
    /// # Errors
    ///
    /// As for [`receive`](Self::receive), without `EndOfChannel`.
    #[inline]
    pub fn next(&self) -> Next<'_, T> {
        Next(self.receive())
    }

    /// Receives the oldest value if there is one.
    ///
    /// # Errors
    ///
    /// [`TryReceiveError`].
    #[doc(alias = "try_recv")]
    #[doc(alias = "receive_nowait")]
    pub fn try_receive(&self) -> Result<T, TryReceiveError> {
        self.0.try_receive()
    }

    /// Closes this end. Receives that wait at it fail with `Closed`; clones are not concerned. With
    /// the last receiving end, what is in the buffer is dropped, and senders fail with `Broken`.
    /// Closing again does nothing.
    pub fn close(&self) {
        self.0.close_receiver();
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
        self.0.is_closed()
    }

    /// How the channel stands.
    pub fn statistics(&self) -> MemoryChannelStatistics {
        MemoryChannelStatistics::of(&self.0)
    }
}

/// An end of its own on the same channel. The clone of an end that has been closed is closed.
impl<T> Clone for MemorySendChannel<T> {
    fn clone(&self) -> Self {
        Self(self.0.another_sender())
    }
}

/// An end of its own on the same channel. The clone of an end that has been closed is closed.
impl<T> Clone for MemoryReceiveChannel<T> {
    fn clone(&self) -> Self {
        Self(self.0.another_receiver())
    }
}

impl<T> End for MemorySendChannel<T> {
    fn close_end(&self) {
        self.close();
    }
}

impl<T> End for MemoryReceiveChannel<T> {
    fn close_end(&self) {
        self.close();
    }
}

impl<T> Drop for MemorySendChannel<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> Drop for MemoryReceiveChannel<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> fmt::Debug for MemorySendChannel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt("MemorySendChannel", f)
    }
}

impl<T> fmt::Debug for MemoryReceiveChannel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt("MemoryReceiveChannel", f)
    }
}

future! {
    /// The future of [`MemorySendChannel::send`].
    pub Sending<'a, T> of SendOperation<'a, Local<T>>, Result<(), SendError<T>>
}

future! {
    /// The future of [`MemoryReceiveChannel::receive`].
    pub Receiving<'a, T> of ReceiveOperation<'a, Local<T>>, Result<T, ReceiveError>
}

future! {
    /// Waits until somebody receives.
    pub(super) Demand<'a, T> of DemandOperation<'a, Local<T>>, Result<bool, Cancelled>
}

impl<T> Sending<'_, T> {
    /// Gives up the send, and returns the value unless it has been sent.
    pub fn into_inner(mut self) -> Option<T> {
        self.operation.give_up()
    }
}

/// The future of [`MemoryReceiveChannel::next`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Next<'a, T>(Receiving<'a, T>);

impl<T> Future for Next<'_, T> {
    type Output = Result<Option<T>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Option<T>>> {
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll(context)) {
            Ok(value) => Ok(Some(value)),
            Err(ReceiveError::EndOfChannel) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }
}
