//! What a stream is, in five traits, and the rules that every implementation keeps.
//!
//! - A stream has two directions, and each may be used by one task at a time: a second gets
//!   [`BusyResource`](trio_runtime::BusyResource).
//! - Using a stream that this side has closed fails with
//!   [`ClosedResource`](trio_runtime::ClosedResource), even for a task that was already waiting. If
//!   the other side or the network has broken it, the error is
//!   [`BrokenResource`](trio_runtime::BrokenResource).
//! - A cancelled receive has taken nothing. A cancelled send has sent an unknown part, and all that
//!   is left to do with the stream is to close it.
//! - Closing always closes, also when it is cancelled or fails; closing again does nothing.

use std::future::Future;

use trio_runtime::Result;

use crate::{Lease, Outgoing};

/// Something that has to be closed.
///
/// Dropping it closes it too: at once, without whatever a graceful close would wait for.
pub trait AsyncResource {
    /// Closes it, gracefully if that is possible.
    ///
    /// # Cancellation
    ///
    /// A checkpoint, even if it is closed already. If cancelled, it is closed all the same,
    /// forcefully.
    ///
    /// # Errors
    ///
    /// `Cancelled`, or what went wrong while closing; it is closed in any case.
    fn aclose(&mut self) -> impl Future<Output = Result<()>>;
}

/// The sending half of a stream of bytes.
pub trait SendStream: AsyncResource {
    /// Sends all of `data`, waiting as often as the other side needs time.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that an unknown part has been sent.
    ///
    /// # Errors
    ///
    /// `BusyResource` if another task is sending; `ClosedResource` if this side has closed it or has
    /// sent the end of file; `BrokenResource` if the other side is gone.
    fn send_all<'a>(&mut self, data: impl Into<Outgoing<'a>>) -> impl Future<Output = Result<()>>;

    /// Waits until [`send_all`](Self::send_all) might not block: for a program that produces its
    /// data as late as possible. May return too early, never too late.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. Nothing has happened.
    ///
    /// # Errors
    ///
    /// As for [`send_all`](Self::send_all); a stream that the other side has broken may return
    /// without an error, which the next send then reports.
    fn wait_send_all_might_not_block(&mut self) -> impl Future<Output = Result<()>>;
}

/// The receiving half of a stream of bytes.
pub trait ReceiveStream: AsyncResource {
    /// Receives at least one byte and at most what `buffer` holds; zero is the end of file.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that nothing has been received: the bytes are still there for
    /// the next receive. The same holds if the future is dropped instead.
    ///
    /// # Errors
    ///
    /// `BusyResource` if another task is receiving; `ClosedResource` if this side has closed it;
    /// `BrokenResource` if the other side has; an [`std::io::Error`] of the kind `InvalidInput` if
    /// `buffer` is empty.
    fn receive_some(&mut self, buffer: &mut [u8]) -> impl Future<Output = Result<usize>>;

    /// Receives at least one byte into the stream's own memory, and lends it out; `None` is the end
    /// of file.
    ///
    /// # Cancellation
    ///
    /// As for [`receive_some`](Self::receive_some).
    ///
    /// # Errors
    ///
    /// As for [`receive_some`](Self::receive_some).
    fn receive(&mut self) -> impl Future<Output = Result<Option<Lease>>>;
}

/// Both halves.
pub trait Stream: SendStream + ReceiveStream {}

impl<S: SendStream + ReceiveStream> Stream for S {}

/// A stream whose sending direction can be ended while receiving goes on.
pub trait HalfCloseableStream: Stream {
    /// Sends the end of file: the other side reads what was sent, then the end. Receiving goes on.
    /// Does nothing the second time.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that the end of file has not been sent.
    ///
    /// # Errors
    ///
    /// `BusyResource` if another task is sending; `ClosedResource`; `BrokenResource`.
    fn send_eof(&mut self) -> impl Future<Output = Result<()>>;
}

/// Where streams come from.
pub trait Listener: AsyncResource {
    /// What is accepted.
    type Stream;

    /// Waits for a connection. Takes `&self`, because a listener is often shared with the code that
    /// closes it.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that no connection was taken.
    ///
    /// # Errors
    ///
    /// `BusyResource`, `ClosedResource`, or what the system said. A connection that died before it
    /// was accepted is skipped without an error; a lack of descriptors or memory is one.
    fn accept(&self) -> impl Future<Output = Result<Self::Stream>>;

    /// Whether an error of [`accept`](Self::accept) means that the system has no room for another
    /// connection now, so that trying again later makes sense.
    fn is_overloaded(error: &trio_runtime::Error) -> bool {
        let _ = error;
        false
    }
}
