//! Testing: tests that are quick, certain and thorough.
//!
//! Tests of concurrent programs are slow if they sleep, uncertain if they hope that a sleep was long
//! enough, and blind to whatever order the scheduler did not happen to choose. None of that has to be.
//!
//! # A test is an `async fn`
//!
//! ```
//! #[trio::test]
//! async fn it_adds_up() -> trio::Result<()> {
//!     trio::checkpoint().await?;
//!     assert_eq!(1 + 1, 2);
//!     Ok(())
//! }
//! ```
//!
//! Each has a run of its own. It may return a result, and other attributes, such as `#[should_panic]`,
//! stay on it.
//!
//! # Time is virtual
//!
//! With `clock = "autojump"` the clock stands still while any task can run, and jumps to the next
//! deadline when all wait. Hours pass in no time, and exactly:
//!
//! ```
//! use std::time::Duration;
//! use trio::{Builder, TooSlow, current_time, fail_after, sleep_forever};
//! use trio::testing::MockClock;
//!
//! // The same as `#[trio::test(clock = "autojump")]`, for a page that is not a test.
//! Builder::new().clock(MockClock::autojump()).run(async {
//!     let start = current_time();
//!     let result = fail_after(Duration::from_secs(3600), sleep_forever()).await;
//!     assert!(result.unwrap_err().is::<TooSlow>());
//!     assert_eq!(current_time() - start, Duration::from_secs(3600));
//! });
//! ```
//!
//! Threads and the kernel are no tasks: a test that waits for a real socket sets a
//! [threshold](crate::testing::MockClock::set_autojump_threshold), or uses the simulated network.
//!
//! # A test does not hang
//!
//! A test whose tasks all wait for each other, or for nobody, fails: with the tree of its tasks, and what
//! each of them waits in. In other runs the same is written to standard error, unless
//! [`Builder::on_deadlock`](crate::Builder::on_deadlock) says otherwise.
//!
//! ```should_panic
//! use trio::{Builder, Lock, open_nursery};
//!
//! let lock = Lock::new(0);
//! // `#[trio::test]` adds this, for a page that is not a test.
//! Builder::new().fail_on_deadlock().run(open_nursery(async |nursery| {
//!     nursery.start_soon(async {
//!         let _mine = lock.acquire().await?;
//!         let _again = lock.acquire().await?; // waits for itself
//!         Ok(())
//!     });
//!     Ok(())
//! }))
//! .unwrap();
//! ```
//!
//! What the run cannot be sure of it leaves alone: a test that waits for a connection, a thread or a
//! signal waits. A deadline around it, by [`fail_after`](crate::fail_after), ends that too.
//!
//! A test that is slow for another reason, because a task blocks the loop, finds it with a
//! [`Watchdog`](crate::instrument::Watchdog).
//!
//! # Steps are in order
//!
//! [`wait_all_tasks_blocked`](crate::testing::wait_all_tasks_blocked) returns when every other task has
//! come to where it waits: what one would have slept for. The [`Sequencer`](crate::testing::Sequencer)
//! makes steps of several tasks come one after the other.
//!
//! ```
//! # use std::time::Duration;
//! use trio::testing::wait_all_tasks_blocked;
//! use trio::{CancelScope, open_nursery, sleep_forever};
//!
//! # trio::run(async {
//! let scope = CancelScope::new();
//! open_nursery(async |nursery| {
//!     nursery.start_soon(async {
//!         scope.enter(sleep_forever()).await?;
//!         Ok(())
//!     });
//!     wait_all_tasks_blocked(Duration::ZERO).await?;
//!     scope.cancel("now it certainly sleeps");
//!     Ok(())
//! })
//! .await
//! # }).unwrap();
//! ```
//!
//! # Every order of tasks
//!
//! `seeds = 100` runs the test under a hundred orders of the scheduler. A failure says
//! `TRIO_TEST_SEED=7 replays it`: with that in the environment the test runs once, in that order.
//! [`seeds`](crate::testing::seeds) gives them to a test without the attribute.
//!
//! # Every driver, and every fault
//!
//! `backend = "all"` runs the test on `io_uring`, on `polling`, and in a
//! [`Simulation`](crate::testing::Simulation), which has a network of its own and faults on demand.
//!
//! # Streams without a network
//!
//! A protocol that takes any stream is tested against one of which the test is the other side:
//!
//! ```
//! use trio::Result;
//! use trio::io::{ReceiveStream, SendStream};
//! use trio::testing::memory_stream_pair;
//!
//! /// Sends back whatever comes.
//! async fn echo(mut stream: impl SendStream + ReceiveStream) -> Result<()> {
//!     while let Some(data) = stream.receive().await? {
//!         stream.send_all(data).await?;
//!     }
//!     Ok(())
//! }
//!
//! # trio::run(async {
//! let (mut client, server) = memory_stream_pair();
//! trio::open_nursery(async |nursery| {
//!     nursery.start_soon(echo(server));
//!     client.send_all(b"hello").await?;
//!     let answer = client.receive().await?;
//!     assert_eq!(answer.as_deref(), Some(&b"hello"[..]));
//!     drop(client); // the end of file, which ends the echo
//!     Ok(())
//! })
//! .await
//! # }).unwrap();
//! ```
//!
//! [`lockstep_stream_pair`](crate::testing::lockstep_stream_pair) has no buffer at all, and finds what
//! relies on one.
//!
//! # Streams of your own
//!
//! [`check_half_closeable_stream`](crate::testing::check_half_closeable_stream) and its smaller
//! siblings put a stream through everything that the traits promise, and name the rule that it breaks.
//!
//! # Checkpoints
//!
//! [`assert_checkpoints`](crate::testing::assert_checkpoints) sees whether an operation of your own can
//! be cancelled and lets others run; [`assert_no_checkpoints`](crate::testing::assert_no_checkpoints)
//! that it does neither.
