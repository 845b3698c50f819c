//! The channel between threads, and between runs: each end may be on any thread.
//!
//! It is the channel of a run with a lock around its state. A task of a run waits for it as for
//! anything else, and is woken through the inbox of its run; on a thread that is in no run, the
//! whole thread can wait. The lock is held for a few instructions; nothing waits, and no foreign
//! code runs, under it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread::Thread;

use super::close::{Aclose, End};
use super::error::{ReceiveError, SendError, TryReceiveError, TrySendError};
use super::memory::MemoryChannelStatistics;
use super::operation::{Operation, future};
use super::pipe::{Endpoint, ReceiveOperation, Remote, SendOperation, State};
use super::waiters::Place;
use crate::context;
use crate::error::Result;

/// Opens a channel whose ends may be on any thread, in any run or in none: what is sent at one end
/// is received at the other, in order, each value once.
///
/// It keeps the promises of [`open_memory_channel`](crate::open_memory_channel), `capacity` means
/// the same, and within a run it is used in the same way. Each operation takes a lock, and so some
/// nanoseconds more. Threads without a run have [`send_blocking`](ThreadSendChannel::send_blocking)
/// and [`receive_blocking`](ThreadReceiveChannel::receive_blocking), and anything may call
/// `try_send`, which never waits.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// let (send, receive) = trio::open_thread_channel(16);
/// let worker = std::thread::spawn(move || {
///     for n in 1..=3 {
///         send.send_blocking(n).unwrap();
///     }
/// });
/// trio::run(async {
///     let mut sum = 0;
///     while let Some(n) = receive.next().await? {
///         sum += n;
///     }
///     assert_eq!(sum, 6);
///     Ok::<(), trio::Error>(())
/// })
/// .unwrap();
/// worker.join().unwrap();
/// ```
pub fn open_thread_channel<T>(capacity: usize) -> (ThreadSendChannel<T>, ThreadReceiveChannel<T>) {
    let home: Remote<T> = Arc::new(Mutex::new(State::new(capacity)));
    let (send, receive) = Endpoint::pair(home);
    (ThreadSendChannel(send), ThreadReceiveChannel(receive))
}

/// Blocks the whole thread until an operation is done.
#[track_caller]
fn block<O: Operation>(operation: &mut O, verb: &str) -> O::Output {
    assert!(
        !context::is_running(),
        "`{verb}_blocking` was called inside a run, all of whose tasks would have to wait: \
         await `{verb}` instead"
    );
    if let Some(output) = operation.attempt() {
        return output;
    }
    let waker = Waker::from(Arc::new(Parking(std::thread::current())));
    loop {
        if operation.enlist(&Place::of_thread(&waker)) {
            // Anybody may unpark a thread, so what counts is whether the wait was claimed.
            while !operation.is_settled(&waker) {
                std::thread::park();
            }
        }
        if let Some(output) = operation.withdraw().or_else(|| operation.attempt()) {
            return output;
        }
    }
}

/// Wakes a thread that waits in [`block`].
struct Parking(Thread);

impl Wake for Parking {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The sending end of a channel between threads; see [`open_thread_channel`].
///
/// Dropping it closes it. Clones are ends of their own. Several tasks may send at one end: their
/// values go in the order in which they came.
#[must_use = "an end that is dropped is closed"]
pub struct ThreadSendChannel<T>(Endpoint<Remote<T>>);

/// The receiving end of a channel between threads; see [`open_thread_channel`].
///
/// Dropping it closes it. Clones are ends of their own. Several tasks may receive, at one end or at
/// several: each value goes to one of them.
#[must_use = "an end that is dropped is closed"]
pub struct ThreadReceiveChannel<T>(pub(super) Endpoint<Remote<T>>);

impl<T> ThreadSendChannel<T> {
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
    pub fn send(&self, value: T) -> ThreadSending<'_, T> {
        ThreadSending::new(SendOperation::new(&self.0, value))
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

    /// Sends `value` as [`send`](Self::send) does, blocking the thread, which must not be in a run.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the value.
    ///
    /// # Panics
    ///
    /// Inside a run, whose tasks would all have to wait: use [`send`](Self::send) there.
    #[doc(alias = "blocking_send")]
    #[track_caller]
    pub fn send_blocking(&self, value: T) -> Result<(), SendError<T>> {
        block(&mut SendOperation::new(&self.0, value), "send")
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

impl<T> ThreadReceiveChannel<T> {
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
    pub fn receive(&self) -> ThreadReceiving<'_, T> {
        ThreadReceiving::new(ReceiveOperation::new(&self.0))
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
    pub fn next(&self) -> ThreadNext<'_, T> {
        ThreadNext(self.receive())
    }

    /// Receives the oldest value if there is one.
    ///
    /// # Errors
    ///
    /// [`TryReceiveError`].
    #[doc(alias = "receive_nowait")]
    pub fn try_receive(&self) -> Result<T, TryReceiveError> {
        self.0.try_receive()
    }

    /// Receives as [`receive`](Self::receive) does, blocking the thread, which must not be in a
    /// run.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`].
    ///
    /// # Panics
    ///
    /// Inside a run, whose tasks would all have to wait: use [`receive`](Self::receive) there.
    #[doc(alias = "blocking_recv")]
    #[track_caller]
    pub fn receive_blocking(&self) -> Result<T, ReceiveError> {
        block(&mut ReceiveOperation::new(&self.0), "receive")
    }

    /// The values as they come, for a thread that is in no run: ends with the channel, or when this
    /// end is closed. Each step is a [`receive_blocking`](Self::receive_blocking).
    ///
    /// # Panics
    ///
    /// Each step, inside a run.
    pub fn iter_blocking(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.receive_blocking().ok())
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
impl<T> Clone for ThreadSendChannel<T> {
    fn clone(&self) -> Self {
        Self(self.0.another_sender())
    }
}

/// An end of its own on the same channel. The clone of an end that has been closed is closed.
impl<T> Clone for ThreadReceiveChannel<T> {
    fn clone(&self) -> Self {
        Self(self.0.another_receiver())
    }
}

impl<T> End for ThreadSendChannel<T> {
    fn close_end(&self) {
        self.close();
    }
}

impl<T> End for ThreadReceiveChannel<T> {
    fn close_end(&self) {
        self.close();
    }
}

impl<T> Drop for ThreadSendChannel<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> Drop for ThreadReceiveChannel<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> fmt::Debug for ThreadSendChannel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt("ThreadSendChannel", f)
    }
}

impl<T> fmt::Debug for ThreadReceiveChannel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt("ThreadReceiveChannel", f)
    }
}

future! {
    /// The future of [`ThreadSendChannel::send`].
    pub ThreadSending<'a, T> of SendOperation<'a, Remote<T>>, Result<(), SendError<T>>
}

future! {
    /// The future of [`ThreadReceiveChannel::receive`].
    pub ThreadReceiving<'a, T> of ReceiveOperation<'a, Remote<T>>, Result<T, ReceiveError>
}

impl<T> ThreadSending<'_, T> {
    /// Gives up the send, and returns the value unless it has been sent.
    pub fn into_inner(mut self) -> Option<T> {
        self.operation.give_up()
    }
}

/// The future of [`ThreadReceiveChannel::next`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ThreadNext<'a, T>(ThreadReceiving<'a, T>);

impl<T> Future for ThreadNext<'_, T> {
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
