//! Streams for tests, and tests for streams.
//!
//! | to …                                                   | there is                                  |
//! |--------------------------------------------------------|-------------------------------------------|
//! | see what a protocol sends, and say what it receives    | [`MemorySendStream`], [`MemoryReceiveStream`] |
//! | connect two ends without a network                     | [`memory_stream_pair`]                    |
//! | find out what assumes that a send does not wait        | [`lockstep_stream_pair`]                  |
//! | check that a stream of your own keeps the rules        | [`check_one_way_stream`], [`check_two_way_stream`], [`check_half_closeable_stream`] |

mod check;
mod lockstep;
mod memory;
mod two_ways;
mod waiting;

pub use check::{check_half_closeable_stream, check_one_way_stream, check_two_way_stream};
pub use lockstep::{LockstepReceiveStream, LockstepSendStream, lockstep_stream_one_way_pair};
pub use memory::{
    MemoryInlet, MemoryOutlet, MemoryReceiveStream, MemorySendStream, memory_stream_one_way_pair,
    memory_stream_pump,
};

pub use two_ways::{LockstepStream, MemoryStream, lockstep_stream_pair, memory_stream_pair};

/// The traits of a stream, implemented by its methods of the same names that take `&self`.
macro_rules! implement_send {
    ($($stream:ty),*) => {$(
        impl crate::AsyncResource for $stream {
            async fn aclose(&mut self) -> trio_runtime::Result<()> {
                self.close();
                trio_runtime::checkpoint().await
            }
        }

        impl crate::SendStream for $stream {
            async fn send_all<'a>(
                &mut self,
                data: impl Into<crate::Outgoing<'a>>,
            ) -> trio_runtime::Result<()> {
                self.send(data.into().bytes()).await
            }

            async fn wait_send_all_might_not_block(&mut self) -> trio_runtime::Result<()> {
                self.wait_send().await
            }
        }
    )*};
}

macro_rules! implement_receive {
    ($($stream:ty),*) => {$(
        impl crate::AsyncResource for $stream {
            async fn aclose(&mut self) -> trio_runtime::Result<()> {
                self.close();
                trio_runtime::checkpoint().await
            }
        }

        impl crate::ReceiveStream for $stream {
            async fn receive_some(&mut self, buffer: &mut [u8]) -> trio_runtime::Result<usize> {
                self.receive_into(buffer).await
            }

            async fn receive(&mut self) -> trio_runtime::Result<Option<crate::Lease>> {
                let mut lease = trio_runtime::lowlevel::socket::buffer();
                let mut buffer = vec![0; lease.capacity()];
                let count = self.receive_into(&mut buffer).await?;
                lease.extend(&buffer[..count]);
                Ok(Some(lease).filter(|lease| !lease.is_empty()))
            }
        }
    )*};
}

use {implement_receive, implement_send};
