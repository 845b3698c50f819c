//! Channels: values from one task to another, in order, without a lock.
//!
//! | if values go …                                            | open …                                |
//! |-----------------------------------------------------------|---------------------------------------|
//! | from some tasks to some tasks, each to one of them        | [`open_memory_channel`]               |
//! | to every one of several tasks, and none may be missed     | [`open_broadcast_channel`]            |
//! | the same, but a slow one may miss some, and learns it     | [`open_lagging_broadcast_channel`]    |
//! | to every one, where only the latest value matters         | [`open_watch_channel`]                |
//! | between threads, or between runs                          | [`open_thread_channel`]               |
//! | from a producer that works only on demand                 | [`safe_channel`]                      |
//!
//! [`select()`] does exactly one of several such operations. With the feature `futures`, `into_stream`
//! turns a receiving end into a stream of `futures-core`, for libraries that take one.
//!
//! What all of them promise:
//!
//! - An end that is dropped is closed. When every sending end is closed, receivers get what is left,
//!   and then the end of the channel.
//! - First come, first served: nobody passes those who wait.
//! - An operation that is cancelled has not happened, and one that has happened is not cancelled:
//!   no value is lost between a sender and a receiver. A value that was not sent is in the error.
//! - An operation allocates nothing once the channel has held that many values and waiters before.
//!   The exception is a `select` that waits in a channel between threads.
//!
//! # Examples
//!
//! ```
//! # use trio_runtime as trio;
//! # trio::run(async {
//! let (send, receive) = trio::open_memory_channel(16);
//! send.send("first").await?;
//! send.try_send("second")?;
//! drop(send);
//! assert_eq!(receive.receive().await?, "first");
//! assert_eq!(receive.next().await?, Some("second"));
//! assert_eq!(receive.next().await?, None);
//! # Ok::<(), trio::Error>(()) }).unwrap();
//! ```

mod broadcast;
mod close;
mod error;
mod memory;
mod operation;
mod pipe;
mod safe;
mod select;
#[cfg(feature = "futures")]
mod stream;
mod thread;
pub(crate) mod waiters;
mod watch;

pub use broadcast::{
    BroadcastError, BroadcastReceiveChannel, BroadcastReceiving, BroadcastSendChannel,
    BroadcastSending, BroadcastStatistics, Lagged, TryBroadcastError, open_broadcast_channel,
    open_lagging_broadcast_channel,
};
pub use close::Aclose;
pub use error::{ReceiveError, SendError, TryReceiveError, TrySendError};
pub use memory::{
    MemoryChannelStatistics, MemoryReceiveChannel, MemorySendChannel, Next, Receiving, Sending,
    UNBOUNDED, open_memory_channel,
};
pub use safe::{Yielder, safe_channel};
pub use select::{Absent, Cases, Select, Selectable, Selected, select};
#[cfg(feature = "futures")]
pub use stream::{ReceiveStream, ThreadReceiveStream};
pub use thread::{
    ThreadNext, ThreadReceiveChannel, ThreadReceiving, ThreadSendChannel, ThreadSending,
    open_thread_channel,
};
pub use watch::{
    Changed, WaitFor, WatchReceiver, WatchSender, WatchStatistics, open_watch_channel,
};
