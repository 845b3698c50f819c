//! Streams for tests that go both ways: two one-way streams, which two tasks can share.

use std::cell::Cell;

use trio_runtime::{ClosedResource, Result, checkpoint};

use super::{
    LockstepReceiveStream, LockstepSendStream, MemoryReceiveStream, MemorySendStream,
    lockstep_stream_one_way_pair, memory_stream_one_way_pair,
};
use crate::claim::Claims;
use crate::{AsyncResource, HalfCloseableStream, Lease, Outgoing, ReceiveStream, SendStream};

/// Two ends of an unbounded stream; see [`memory_stream_one_way_pair`].
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod io { pub use trio_io::*; } pub mod testing { pub use trio_io::testing::*; } }
/// # trio::run(async {
/// use trio::testing::memory_stream_pair;
/// use trio::io::{ReceiveStream, SendStream};
///
/// let (mut client, mut server) = memory_stream_pair();
/// client.send_all(b"ping").await?;
/// let mut buffer = [0; 16];
/// assert_eq!(server.receive_some(&mut buffer).await?, 4);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub fn memory_stream_pair() -> (MemoryStream, MemoryStream) {
    let (here, from_here) = memory_stream_one_way_pair();
    let (there, from_there) = memory_stream_one_way_pair();
    (
        MemoryStream::new(here, from_there),
        MemoryStream::new(there, from_here),
    )
}

/// Two ends of a stream without a buffer; see [`lockstep_stream_one_way_pair`].
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod io { pub use trio_io::*; } pub mod testing { pub use trio_io::testing::*; } }
/// # trio::run(async {
/// use trio::testing::lockstep_stream_pair;
/// use trio::io::{AsyncResource, ReceiveStream};
///
/// let (mut here, mut there) = lockstep_stream_pair();
/// here.aclose().await?;
/// assert!(there.receive().await?.is_none());
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub fn lockstep_stream_pair() -> (LockstepStream, LockstepStream) {
    let (here, from_here) = lockstep_stream_one_way_pair();
    let (there, from_there) = lockstep_stream_one_way_pair();
    (
        LockstepStream::new(here, from_there),
        LockstepStream::new(there, from_here),
    )
}

macro_rules! two_ways {
    ($(#[$doc:meta])* $stream:ident, $send:ident, $receive:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $stream {
            send: $send,
            receive: $receive,
            /// Keeps a send and the end of file apart; the half itself keeps two sends apart.
            sending: Claims,
            closed: Cell<bool>,
        }

        impl $stream {
            /// Makes one stream of two halves.
            pub fn new(send: $send, receive: $receive) -> Self {
                Self {
                    send,
                    receive,
                    sending: Claims::default(),
                    closed: Cell::new(false),
                }
            }

            /// The half that sends.
            pub fn send_half(&self) -> &$send {
                &self.send
            }

            /// The half that receives.
            pub fn receive_half(&self) -> &$receive {
                &self.receive
            }

            async fn send(&self, data: Outgoing<'_>) -> Result<()> {
                let _claim = self.sending.claim()?;
                (&mut &self.send).send_all(data.bytes()).await
            }

            async fn wait_send(&self) -> Result<()> {
                let _claim = self.sending.claim()?;
                (&mut &self.send).wait_send_all_might_not_block().await
            }

            async fn end(&self) -> Result<()> {
                let _claim = self.sending.claim()?;
                checkpoint().await?;
                if self.closed.get() {
                    return Err(ClosedResource::new().into());
                }
                self.send.close();
                Ok(())
            }

            async fn close(&self) -> Result<()> {
                self.closed.set(true);
                self.send.close();
                self.receive.close();
                checkpoint().await
            }
        }

        two_ways!(traits $stream, $stream);
        two_ways!(traits $stream, &$stream);
    };
    (traits $stream:ident, $implementor:ty) => {
        impl AsyncResource for $implementor {
            async fn aclose(&mut self) -> Result<()> {
                $stream::close(self).await
            }
        }

        impl SendStream for $implementor {
            async fn send_all<'a>(&mut self, data: impl Into<Outgoing<'a>>) -> Result<()> {
                $stream::send(self, data.into()).await
            }

            async fn wait_send_all_might_not_block(&mut self) -> Result<()> {
                $stream::wait_send(self).await
            }
        }

        impl ReceiveStream for $implementor {
            async fn receive_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
                (&mut &self.receive).receive_some(buffer).await
            }

            async fn receive(&mut self) -> Result<Option<Lease>> {
                (&mut &self.receive).receive().await
            }
        }

        impl HalfCloseableStream for $implementor {
            async fn send_eof(&mut self) -> Result<()> {
                $stream::end(self).await
            }
        }
    };
}

two_ways! {
    /// One end of [`memory_stream_pair`], or whatever is made of two halves that live in memory.
    MemoryStream, MemorySendStream, MemoryReceiveStream
}

two_ways! {
    /// One end of [`lockstep_stream_pair`].
    LockstepStream, LockstepSendStream, LockstepReceiveStream
}
