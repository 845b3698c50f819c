//! Structured concurrency on `io_uring`: nurseries, cancel scopes and fast servers.
//!
//! ```no_run
//! use trio::{Result, net::TcpStream};
//!
//! async fn echo(stream: TcpStream) -> Result<()> {
//!     while let Some(data) = stream.receive().await? {
//!         stream.send_all(data).await?;
//!     }
//!     Ok(())
//! }
//!
//! #[trio::main]
//! async fn main() -> Result<()> {
//!     trio::serve_tcp(echo, 8000).await
//! }
//! ```
//!
//! - **Tasks live in nurseries.** [`open_nursery`] returns when everything started in it has ended;
//!   children may borrow the variables around it.
//! - **Cancellation is a value.** Everything inside a [`CancelScope`] that has been cancelled, by a
//!   call or a deadline, gets [`Cancelled`] from each operation, cleans up, and returns. Nothing is
//!   dropped half-way, and a result that beat the cancel is not lost.
//! - **Several things at once.** [`try_join`], [`race`], [`as_completed`], [`map_concurrent`]: losers are
//!   cancelled and waited for, and no value is lost on the way. [`open_service_nursery`] is for helpers,
//!   [`Supervisor`] for tasks that may fail, [`CancelScope::drain`] for a shutdown that lets work finish.
//! - **No buffers to give away.** The kernel never holds your memory while you wait, so reads take a
//!   plain slice, and dropping or leaking a future is safe at any point.
//!
//! The [guide] has [recipes](guide::recipes), pages for people who come [from Trio](guide::from_trio)
//! or [from tokio](guide::from_tokio), and one on [testing](guide::testing).
//!
//! What exactly is promised, by number, is in `docs/semantics.md` of the repository.

pub mod guide;

pub use trio_io::aclose_forcefully;
pub use trio_macros::{main, test};
pub use trio_net::{open_tcp_listeners, serve_listeners, serve_tcp};
pub use trio_runtime::sync::{CapacityLimiter, Condition, Event, Lock, Semaphore, StrictFifoLock};
pub use trio_runtime::{
    AcquireRate, Backend, BackendInfo, Backoff, BrokenResource, Builder, BusyResource, CancelScope,
    CancelSource, Cancelled, Checkpoint, ChildState, ClosedResource, Completed, EndOfChannel,
    Ended, Enter, Error, FailAfter, Failure, GuestRun, Host, HostCall, InLocal, Join, JoinHandle,
    JoinTuple, Leaves, MemoryReceiveChannel, MemorySendChannel, MoveOn, NestedTooDeeply,
    NextCompleted, NoValue, Nursery, Progress, RaceTuple, RateLimiter, RateLimiterStatistics,
    Result, RunFinished, Sleep, SleepForever, Supervisor, TaskLocal, TaskStatus, Time, TooSlow,
    TreeVar, TryJoinTuple, UntilDraining, Usage, Verdict, Worker, Workers, WouldBlock,
    as_completed, backend, checkpoint, cleanup, current_effective_deadline, current_time,
    fail_after, fail_at, fail_if_idle, finally, for_each_concurrent, from_thread, is_draining,
    join, join_all, map_concurrent, map_concurrent_unordered, move_on_after, move_on_at,
    move_on_if_idle, open_broadcast_channel, open_lagging_broadcast_channel, open_memory_channel,
    open_nursery, open_service_nursery, open_thread_channel, open_watch_channel, race, race_all,
    race_ok, race_ok_all, run, run_workers, safe_channel, select, sleep, sleep_forever,
    sleep_until, to_thread, try_join, try_join_all, until_draining, wait_draining,
};
#[doc(inline)]
pub use trio_runtime::{channel, lowlevel, sync};

/// Observers of a run: of its tasks, of a loop that is blocked, of a run that nothing can wake.
///
/// An [`Instrument`](instrument::Instrument) is notified of every task, step and wait, at once and in order. While
/// there is none, each event costs a branch. Use one to count, to trace, or to find out what blocks the loop; for that
/// last question alone, in production too, there is the [`Watchdog`](instrument::Watchdog).
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use trio::instrument::{Instrument, Task};
/// use trio::{Builder, checkpoint};
///
/// struct Steps(Rc<Cell<u32>>);
///
/// impl Instrument for Steps {
///     fn before_task_step(&mut self, _: &Task) {
///         self.0.set(self.0.get() + 1);
///     }
/// }
///
/// let steps = Rc::new(Cell::new(0));
/// Builder::new().instrument(Steps(steps.clone())).run(async { checkpoint().await })?;
/// assert_eq!(steps.get(), 2, "up to the checkpoint, and from there");
/// # Ok::<(), trio::Error>(())
/// ```
pub mod instrument {
    #[cfg(feature = "tracing")]
    pub use trio_runtime::Tracing;
    pub use trio_runtime::lowlevel::{add_instrument, remove_instrument};
    pub use trio_runtime::{Blocked, Deadlock, Watchdog};
    pub use trio_runtime::{Instrument, InstrumentKey, Task, TaskId};
}

/// Streams, and what every stream promises; signals.
///
/// For every stream: a receive that is cancelled has taken nothing; each direction has one user at a time; using a
/// stream that this side has closed gives [`ClosedResource`], and one that the other side has broken
/// [`BrokenResource`]. Write a protocol against [`Stream`](io::Stream) and its parts if it is to run over TCP and, in
/// its tests, in memory. If it only ever uses TCP, the methods of [`TcpStream`](net::TcpStream) take `&self` and do
/// more.
///
/// ```
/// use trio::io::{ReceiveStream, SendStream, Stream};
/// use trio::testing::memory_stream_pair;
/// use trio::{Result, try_join};
///
/// /// Sends back one message, over any stream.
/// async fn echo_one(mut stream: impl Stream) -> Result<()> {
///     let mut buffer = [0; 64];
///     let count = stream.receive_some(&mut buffer).await?;
///     stream.send_all(&buffer[..count]).await
/// }
///
/// # trio::run(async {
/// let (mut client, server) = memory_stream_pair();
/// let ask = async {
///     client.send_all(b"hello").await?;
///     client.receive().await
/// };
/// let (_, answer) = try_join((echo_one(server), ask)).await?;
/// assert_eq!(&answer.expect("the stream is open")[..], b"hello");
/// # Ok::<(), trio::Error>(())
/// # })?;
/// # Ok::<(), trio::Error>(())
/// ```
pub mod io {
    #[cfg(unix)]
    pub use trio_io::signal;
    pub use trio_io::{
        AsyncResource, Channel, HalfCloseableStream, Lease, Listener, Outgoing, ReceiveChannel,
        ReceiveStream, SendChannel, SendStream, StapledStream, Stream, aclose_forcefully,
    };
}

/// TCP: streams, listeners, servers.
///
/// A server is either [`serve_tcp`], which ends with the first connection that fails, as a nursery does, or a
/// [`Server`](net::Server), whose [`on_error`](net::Server::on_error) decides what a failure means. What a stream
/// promises is in [`io`]. A receive returns a lease on memory that the kernel has filled, and a send takes it as it is.
///
/// ```
/// use std::net::Ipv4Addr;
/// use trio::net::{Server, TcpStream, connect_tcp, open_tcp_listeners};
/// use trio::{Result, open_nursery};
///
/// async fn echo(stream: TcpStream) -> Result<()> {
///     while let Some(data) = stream.receive().await? {
///         stream.send_all(data).await?;
///     }
///     Ok(())
/// }
///
/// # trio::run(async {
/// let listeners = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await?;
/// let address = listeners[0].local_address()?;
/// open_nursery(async |nursery| {
///     nursery.start_soon(Server::new(echo).on_error(|_| Ok(())).serve(listeners));
///     let client = connect_tcp(address).await?;
///     client.send_all(b"hello").await?;
///     assert_eq!(&client.receive().await?.expect("it is open")[..], b"hello");
///     nursery.cancel_scope().cancel("that was all");
///     Ok(())
/// })
/// .await
/// # })?;
/// # Ok::<(), trio::Error>(())
/// ```
pub mod net {
    pub use trio_net::{
        Bind, Receive, ReceiveSome, SendAll, Server, TcpListener, TcpStream, connect_tcp,
        open_tcp_listeners, serve_listeners, serve_tcp,
    };
}

/// Tools for tests: clocks, simulated worlds, ordered steps, streams in memory, and checks of streams.
///
/// None of them sleeps in real time, so a test that is built on them is both fast and reliable. The guide has a
/// page on [testing](crate::guide::testing).
///
/// ```
/// use std::time::Duration;
/// use trio::testing::MockClock;
/// use trio::{Builder, current_time, sleep};
///
/// let hour = Duration::from_secs(3600);
/// let slept = Builder::new().clock(MockClock::autojump()).run(async {
///     let begin = current_time();
///     sleep(hour).await?;
///     Ok::<_, trio::Error>(current_time() - begin)
/// })?;
/// assert_eq!(slept, hour);
/// # Ok::<(), trio::Error>(())
/// ```
pub mod testing {
    pub use trio_io::testing::*;
    pub use trio_net::testing::*;
    pub use trio_runtime::Clock;
    pub use trio_runtime::testing::*;
}

/// What the README shows is compiled as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
