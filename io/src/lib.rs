//! Streams and what is built on them, and signals. Knows descriptors, but no sockets.

#![forbid(unsafe_code)]

mod channel;
mod claim;
mod close;
mod outgoing;
#[cfg(unix)]
pub mod signal;
mod staple;
mod stream;
pub mod testing;

pub use channel::{Channel, ReceiveChannel, SendChannel};
pub use close::aclose_forcefully;
pub use outgoing::Outgoing;
pub use staple::StapledStream;
pub use stream::{AsyncResource, HalfCloseableStream, Listener, ReceiveStream, SendStream, Stream};
pub use trio_runtime::lowlevel::Lease;
