//! What can go wrong at a channel, in the words of its user.
//!
//! A value that was not sent comes back in the error. All of these become an [`Error`] by `?`, which
//! is why none of them implements [`std::error::Error`]: the value inside may borrow, and a
//! cancellation inside must be recognised for what it is.

use std::fmt;

use crate::cancel::Cancelled;
use crate::error::{BrokenResource, ClosedResource, EndOfChannel, Error, WouldBlock};

/// Why a value was not sent; gives it back.
#[non_exhaustive]
pub enum SendError<T> {
    /// This sending end has been closed.
    Closed(T),
    /// Every receiving end has been closed: nobody is ever going to receive it.
    Broken(T),
    /// An enclosing scope has been cancelled. The value has not been sent.
    Cancelled(T, Cancelled),
}

/// Why a value was not sent at once; gives it back.
#[non_exhaustive]
pub enum TrySendError<T> {
    /// There is no room, and no receiver that waits.
    WouldBlock(T),
    /// This sending end has been closed.
    Closed(T),
    /// Every receiving end has been closed: nobody is ever going to receive it.
    Broken(T),
}

/// Why nothing was received.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReceiveError {
    /// This receiving end has been closed.
    Closed,
    /// Every sending end has been closed, and all that was sent has been received.
    EndOfChannel,
    /// An enclosing scope has been cancelled. Nothing has been received.
    Cancelled(Cancelled),
}

/// Why nothing was received at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryReceiveError {
    /// There is nothing to receive.
    WouldBlock,
    /// This receiving end has been closed.
    Closed,
    /// Every sending end has been closed, and all that was sent has been received.
    EndOfChannel,
}

impl<T> SendError<T> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            Self::Closed(value) | Self::Broken(value) | Self::Cancelled(value, _) => value,
        }
    }
}

impl<T> TrySendError<T> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            Self::WouldBlock(value) | Self::Closed(value) | Self::Broken(value) => value,
        }
    }

    /// Whether it might be sent later.
    pub fn is_would_block(&self) -> bool {
        matches!(self, Self::WouldBlock(_))
    }
}

impl<T> From<SendError<T>> for Error {
    fn from(error: SendError<T>) -> Self {
        match error {
            SendError::Closed(_) => ClosedResource::new().into(),
            SendError::Broken(_) => BrokenResource::new().into(),
            SendError::Cancelled(_, cancelled) => Self::cancelled(cancelled),
        }
    }
}

impl<T> From<TrySendError<T>> for Error {
    fn from(error: TrySendError<T>) -> Self {
        match error {
            TrySendError::WouldBlock(_) => WouldBlock::new().into(),
            TrySendError::Closed(_) => ClosedResource::new().into(),
            TrySendError::Broken(_) => BrokenResource::new().into(),
        }
    }
}

impl From<ReceiveError> for Error {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Closed => ClosedResource::new().into(),
            ReceiveError::EndOfChannel => EndOfChannel::new().into(),
            ReceiveError::Cancelled(cancelled) => Self::cancelled(cancelled),
        }
    }
}

impl From<TryReceiveError> for Error {
    fn from(error: TryReceiveError) -> Self {
        match error {
            TryReceiveError::WouldBlock => WouldBlock::new().into(),
            TryReceiveError::Closed => ClosedResource::new().into(),
            TryReceiveError::EndOfChannel => EndOfChannel::new().into(),
        }
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(_) => f.write_str("this end of the channel has been closed"),
            Self::Broken(_) => f.write_str("every receiving end of the channel has been closed"),
            Self::Cancelled(_, cancelled) => cancelled.fmt(f),
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(_) => f.write_str("Closed(..)"),
            Self::Broken(_) => f.write_str("Broken(..)"),
            Self::Cancelled(_, cancelled) => write!(f, "Cancelled(.., {cancelled})"),
        }
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WouldBlock(_) => "the channel is full",
            Self::Closed(_) => "this end of the channel has been closed",
            Self::Broken(_) => "every receiving end of the channel has been closed",
        })
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WouldBlock(_) => "WouldBlock(..)",
            Self::Closed(_) => "Closed(..)",
            Self::Broken(_) => "Broken(..)",
        })
    }
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("this end of the channel has been closed"),
            Self::EndOfChannel => EndOfChannel::new().fmt(f),
            Self::Cancelled(cancelled) => cancelled.fmt(f),
        }
    }
}

impl fmt::Display for TryReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("the channel is empty"),
            Self::Closed => f.write_str("this end of the channel has been closed"),
            Self::EndOfChannel => EndOfChannel::new().fmt(f),
        }
    }
}
