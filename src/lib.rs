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
//!   children may borrow what is around them.
//! - **Cancellation is a value.** Everything inside a [`CancelScope`] that has been cancelled, by a
//!   call or a deadline, gets [`Cancelled`] from each operation, cleans up, and returns. Nothing is
//!   dropped half-way, and a result that beat the cancel is not lost.
//! - **Several things at once.** [`try_join`], [`race`], [`as_completed`], [`map_concurrent`]: losers are
//!   cancelled and waited for, and no value is lost on the way. [`CancelScope::drain`] is a shutdown
//!   that lets work finish, [`open_service_nursery`] for helpers, [`Supervisor`] for what may fail.
//! - **The kernel's memory is the runtime's.** A read never lends your buffer to the kernel: there
//!   are no buffers to give away, and dropping or forgetting a future is safe at any point.
//!
//! The [guide] has pages for people who come [from Trio](guide::from_trio) or [from
//! tokio](guide::from_tokio), and one on [testing](guide::testing).
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

/// Observers of a run: of its tasks, of a loop that is kept from going on, of a run that nothing wakes.
///
/// An [`Instrument`](instrument::Instrument) is told of every task, step and wait, at the time and in order, and
/// costs a branch an event while there is none. Use one to count, to trace, or to find out what holds the loop up; a
/// [`Watchdog`](instrument::Watchdog) for that last question alone, in production too.
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
/// Whatever the stream: a receive that is cancelled has taken nothing, each direction has one user at a time, who
/// closes it hears [`ClosedResource`] from then on, and what the other side does is [`BrokenResource`]. Write a
/// protocol against [`Stream`](io::Stream) and its parts where it is to run over TCP today and in memory in its
/// tests; where there is nothing but TCP, the methods of [`TcpStream`](net::TcpStream) take `&self` and do more.
///
/// ```
/// use trio::io::{ReceiveStream, SendStream, Stream};
/// use trio::testing::memory_stream_pair;
/// use trio::{Result, try_join};
///
/// /// Gives back one message, over any stream.
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
    pub use trio_io::*;
}

/// TCP: streams, listeners, servers.
///
/// A server is [`serve_tcp`], which ends with the first connection that fails, as a nursery does, or a
/// [`Server`](net::Server), whose [`on_error`](net::Server::on_error) is told of it instead. What a stream
/// promises is in [`io`]; a receive comes as a lease on memory that the kernel has filled, which a send takes.
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
    pub use trio_net::*;
}

/// What tests need that servers do not: clocks, worlds, order, streams, and checks of streams.
///
/// None of it sleeps in real time, so a test that is built on it is as quick as it is certain. The guide has a
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
