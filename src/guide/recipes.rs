//! Recipes: small programs that put the pieces together.
//!
//! # A server with limits
//!
//! At most a hundred connections are served at a time, each may be idle for thirty seconds, and one that
//! fails does not affect the others. The limiter is a variable of `main`, which every handler borrows.
//!
//! ```no_run
//! use std::time::Duration;
//! use trio::net::{Server, TcpStream, open_tcp_listeners};
//! use trio::{CapacityLimiter, Result, fail_if_idle};
//!
//! #[trio::main]
//! async fn main() -> Result<()> {
//!     let limiter = CapacityLimiter::new(100);
//!     let echo = async |stream: TcpStream| {
//!         let _token = limiter.acquire().await?; // given back when the handler ends, however it ends
//!         fail_if_idle(Duration::from_secs(30), async |progress| {
//!             while let Some(data) = stream.receive().await? {
//!                 progress.made();
//!                 stream.send_all(data).await?;
//!             }
//!             Ok(())
//!         })
//!         .await
//!     };
//!     let listeners = open_tcp_listeners(8000).await?;
//!     Server::new(|stream| echo(stream))
//!         .on_error(|error| {
//!             eprintln!("a connection failed: {error}");
//!             Ok(())
//!         })
//!         .serve(listeners)
//!         .await
//! }
//! ```
//!
//! # A shutdown that lets work finish
//!
//! One producer, three consumers, and a signal that ends them in order: the producer sees that its scope
//! [is being drained](crate::CancelScope::drain), stops, and so closes its end of the channel; the
//! consumers receive what is left, and then the end of the channel. Whatever takes longer than five seconds
//! is cancelled. The signal is watched in a [service nursery](crate::open_service_nursery), whose children
//! end with its body.
//!
//! ```no_run
//! use std::time::Duration;
//! use trio::io::signal::{Signal, open_signal_receiver};
//! use trio::{
//!     CancelScope, Result, open_memory_channel, open_nursery, open_service_nursery, sleep,
//!     until_draining,
//! };
//!
//! #[trio::main]
//! async fn main() -> Result<()> {
//!     let scope = CancelScope::new();
//!     let mut signals = open_signal_receiver(&[Signal::INTERRUPT, Signal::TERMINATE])?;
//!     open_service_nursery(async |service| {
//!         service.start_soon(async {
//!             let signal = signals.next().await?;
//!             scope.drain(Duration::from_secs(5), format!("{signal}"));
//!             Ok(())
//!         });
//!         scope.enter(work()).await?;
//!         Ok(())
//!     })
//!     .await
//! }
//!
//! async fn work() -> Result<()> {
//!     let (sender, receiver) = open_memory_channel(16);
//!     open_nursery(async |nursery| {
//!         nursery.start_soon(async move {
//!             let mut job = 0;
//!             while until_draining(sleep(Duration::from_millis(100))).await?.is_some() {
//!                 sender.send(job).await?;
//!                 job += 1;
//!             }
//!             Ok(()) // drops the sender, which closes it
//!         });
//!         for worker in 0..3 {
//!             let receiver = receiver.clone();
//!             nursery.start_soon(async move {
//!                 while let Some(job) = receiver.next().await? {
//!                     println!("worker {worker} does job {job}");
//!                 }
//!                 Ok(())
//!             });
//!         }
//!         Ok(())
//!     })
//!     .await
//! }
//! ```
//!
//! # Many at once, with results
//!
//! | to …                                           | use                                                     |
//! |------------------------------------------------|---------------------------------------------------------|
//! | run children that borrow, for what they do     | [`open_nursery`](crate::open_nursery)                   |
//! | run all, and have all values or the first error | [`try_join`](crate::try_join), [`try_join_all`](crate::try_join_all) |
//! | run all, and look at each outcome              | [`join`](crate::join()), [`join_all`](crate::join_all)   |
//! | have the first to end, or the first to succeed | [`race`](crate::race()), [`race_ok`](crate::race_ok)     |
//! | take values as they come                       | [`as_completed`](crate::as_completed)                   |
//! | go through many items, a few at a time         | [`map_concurrent`](crate::map_concurrent), [`for_each_concurrent`](crate::for_each_concurrent) |
//!
//! Each of these is a nursery: every future is a task of its own, and all have ended when the call returns.
//! Losers are cancelled and waited for, never dropped half-way.
//!
//! ```
//! use std::time::Duration;
//! use trio::{Result, map_concurrent, sleep};
//!
//! async fn length(page: &str) -> Result<usize> {
//!     sleep(Duration::from_millis(1)).await?; // fetches it
//!     Ok(page.len())
//! }
//!
//! # trio::run(async {
//! let pages = ["index", "about", "contact"];
//! let lengths = map_concurrent(pages, 2, async |page| length(page).await).await?;
//! assert_eq!(lengths, [5, 5, 7]);
//! # Ok::<(), trio::Error>(()) }).unwrap();
//! ```
//!
//! # A long computation that can be cancelled
//!
//! The function runs on another thread, and what it returns, a `Result` here, is the value of the call: the
//! second `?` makes its `Cancelled` one of the task, for the timeout to catch.
//!
//! ```
//! use std::time::Duration;
//! use trio::{Result, from_thread, move_on_after, to_thread};
//!
//! fn search() -> Result<u64> {
//!     loop {
//!         std::thread::sleep(Duration::from_millis(1)); // a piece of the work
//!         from_thread::check_cancelled()?;
//!     }
//! }
//!
//! # trio::run(async {
//! let limit = Duration::from_millis(10);
//! let found = move_on_after(limit, async { to_thread::run_sync(search).await? }).await?;
//! assert_eq!(found, None);
//! # Ok::<(), trio::Error>(()) }).unwrap();
//! ```
//!
//! # A test in virtual time
//!
//! ```
//! use std::time::Duration;
//! use trio::{Result, TooSlow, fail_after, sleep_forever};
//!
//! #[trio::test(clock = "autojump")]
//! async fn a_silent_peer_is_given_up_after_an_hour() -> Result<()> {
//!     let answer = fail_after(Duration::from_secs(3600), sleep_forever()).await;
//!     assert!(answer.unwrap_err().is::<TooSlow>()); // and no time has passed
//!     Ok(())
//! }
//! ```
//!
//! The page on [testing](super::testing) has more.
