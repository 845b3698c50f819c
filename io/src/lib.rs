//! Streams, and what is made of them; signals. Knows descriptors, no socket.

#![forbid(unsafe_code)]

mod channel;
mod close;
mod outgoing;
#[cfg(unix)]
pub mod signal;
mod stream;

pub use channel::{Channel, ReceiveChannel, SendChannel};
pub use close::aclose_forcefully;
pub use outgoing::Outgoing;
pub use stream::{AsyncResource, HalfCloseableStream, Listener, ReceiveStream, SendStream, Stream};
pub use trio_runtime::lowlevel::Lease;
