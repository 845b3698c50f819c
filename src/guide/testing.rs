//! Testing: tests that are fast, reliable and thorough.
//!
//! Tests of concurrent programs are slow if they sleep, unreliable if they hope that a sleep was long
//! enough, and blind to whatever order the scheduler did not happen to choose. None of that is
//! necessary.
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
//! Each test has a run of its own. It may return a result, and keeps other attributes, such as
//! `#[should_panic]`.
//!
//! # Time is virtual
//!
//! With `clock = "autojump"` the clock stands still while any task can run, and jumps to the next
//! deadline when all tasks wait. Hours pass in no time, and exactly:
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
//! The clock does not wait for threads or the kernel: a test that uses a real socket sets a
//! [threshold](crate::testing::MockClock::set_autojump_threshold), or uses the simulated network.
//!
//! # A test does not hang
//!
//! A test whose tasks all wait, and can never be woken, fails with the tree of its tasks and what each of
//! them waits for. In other runs the same is written to standard error, unless
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
//! The run reports only what it is sure of: a test that waits for a connection, a thread or a signal
//! goes on waiting. A deadline around it, with [`fail_after`](crate::fail_after), ends that too.
//!
//! If a test is slow because a task blocks the loop, a [`Watchdog`](crate::instrument::Watchdog)
//! finds it.
//!
//! # Steps are in order
//!
//! [`wait_all_tasks_blocked`](crate::testing::wait_all_tasks_blocked) returns when every other task has
//! come to where it waits, for which other tests sleep. The [`Sequencer`](crate::testing::Sequencer)
//! makes the steps of several tasks happen in a given order.
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
//! `seeds = 100` runs the test with a hundred different orders of the scheduler. A failure says
//! `TRIO_TEST_SEED=7 replays it`: with that in the environment the test runs once, in that order. A
//! test without the attribute gets the same seeds from [`seeds`](crate::testing::seeds).
//!
//! # Every driver, and every fault
//!
//! `backend = "all"` runs the test on `io_uring`, on `polling`, and in a
//! [`Simulation`](crate::testing::Simulation), which has a network of its own and injects faults on
//! demand.
//!
//! # Streams without a network
//!
//! A protocol that works over any stream can be tested over one whose other side is the test:
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
//! [`lockstep_stream_pair`](crate::testing::lockstep_stream_pair) has no buffer at all, and finds code
//! that relies on one.
//!
//! # Streams of your own
//!
//! [`check_half_closeable_stream`](crate::testing::check_half_closeable_stream) and its simpler
//! siblings check a stream for everything that the traits promise, and name the rule that it breaks.
//!
//! # Checkpoints
//!
//! [`assert_checkpoints`](crate::testing::assert_checkpoints) checks that an operation of your own can
//! be cancelled and lets others run; [`assert_no_checkpoints`](crate::testing::assert_no_checkpoints)
//! that it does neither.
