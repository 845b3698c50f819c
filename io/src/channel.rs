//! What a channel is, in three traits: like the traits of streams, but for whole values.
//!
//! - Each value that is sent is received once, whole, and in order; or, in a broadcast, once by each
//!   receiver.
//! - Using an end that has been closed fails with [`ClosedResource`](trio_runtime::ClosedResource),
//!   even for a task that was already waiting. A sender whose receivers are all gone gets
//!   [`BrokenResource`](trio_runtime::BrokenResource); a receiver whose senders are all gone gets
//!   what is left and then [`EndOfChannel`].
//! - A cancelled send has sent nothing, and a cancelled receive has taken nothing.
//!
//! The channels of the [runtime](trio_runtime::channel) implement these traits, and so may a
//! protocol that sends messages over a network. The channels' own methods offer more: a send that
//! fails returns its value.

use std::future::Future;

use trio_runtime::channel::{
    BroadcastReceiveChannel, BroadcastSendChannel, MemoryReceiveChannel, MemorySendChannel,
    ThreadReceiveChannel, ThreadSendChannel,
};
use trio_runtime::{EndOfChannel, Result};

use crate::AsyncResource;

/// The end of a channel at which values of type `T` are sent.
pub trait SendChannel<T>: AsyncResource {
    /// Sends `value`, waiting until there is room or a receiver.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that nothing has been sent; the value is dropped.
    ///
    /// # Errors
    ///
    /// `ClosedResource`, `BrokenResource`.
    fn send(&mut self, value: T) -> impl Future<Output = Result<()>>;
}

/// The end of a channel at which values of type `T` are received.
pub trait ReceiveChannel<T>: AsyncResource {
    /// Receives the next value.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that nothing has been taken.
    ///
    /// # Errors
    ///
    /// `EndOfChannel` when every sender is closed and everything has been received;
    /// `ClosedResource`; `BrokenResource` if what the channel is built on broke.
    fn receive(&mut self) -> impl Future<Output = Result<T>>;

    /// Receives the next value, or `None` at the end: for `while let` loops.
    ///
    /// # Cancellation
    ///
    /// As for [`receive`](Self::receive).
    ///
    /// # Errors
    ///
    /// As for [`receive`](Self::receive), without `EndOfChannel`.
    fn next(&mut self) -> impl Future<Output = Result<Option<T>>> {
        async {
            match self.receive().await {
                Ok(value) => Ok(Some(value)),
                Err(error) if error.is::<EndOfChannel>() => Ok(None),
                Err(error) => Err(error),
            }
        }
    }
}

/// Both directions.
pub trait Channel<T>: SendChannel<T> + ReceiveChannel<T> {}

impl<T, C: SendChannel<T> + ReceiveChannel<T>> Channel<T> for C {}

macro_rules! resource {
    ($($name:ident)*) => {
        $(
            impl<T> AsyncResource for $name<T> {
                async fn aclose(&mut self) -> Result<()> {
                    Self::aclose(self).await
                }
            }
        )*
    };
}

resource! {
    BroadcastReceiveChannel BroadcastSendChannel MemoryReceiveChannel MemorySendChannel
    ThreadReceiveChannel ThreadSendChannel
}

impl<T> SendChannel<T> for MemorySendChannel<T> {
    async fn send(&mut self, value: T) -> Result<()> {
        Ok(Self::send(self, value).await?)
    }
}

impl<T> ReceiveChannel<T> for MemoryReceiveChannel<T> {
    async fn receive(&mut self) -> Result<T> {
        Ok(Self::receive(self).await?)
    }
}

impl<T> SendChannel<T> for ThreadSendChannel<T> {
    async fn send(&mut self, value: T) -> Result<()> {
        Ok(Self::send(self, value).await?)
    }
}

impl<T> ReceiveChannel<T> for ThreadReceiveChannel<T> {
    async fn receive(&mut self) -> Result<T> {
        Ok(Self::receive(self).await?)
    }
}

impl<T> SendChannel<T> for BroadcastSendChannel<T> {
    async fn send(&mut self, value: T) -> Result<()> {
        Self::send(self, value).await?;
        Ok(())
    }
}

impl<T: Clone> ReceiveChannel<T> for BroadcastReceiveChannel<T> {
    async fn receive(&mut self) -> Result<T> {
        Ok(Self::receive(self).await?)
    }
}
