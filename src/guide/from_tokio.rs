//! Coming from tokio: what to write instead of `spawn`, `select!` and the rest.
//!
//! The syntax is what you know. What differs is who owns a task. In tokio a spawned task belongs to
//! nobody, and a future is cancelled by being dropped, wherever it is. Here a task belongs to a
//! nursery, which does not end before it; and a cancellation is an error that operations return, so
//! that code can clean up, and await something while it does. Nothing that was received, accepted
//! or written when a timeout expires is lost.
//!
//! # What replaces what
//!
//! | tokio                                   | here                                                              |
//! |-----------------------------------------|-------------------------------------------------------------------|
//! | `#[tokio::main]`, `Runtime::block_on`   | `#[trio::main]`, [`trio::run`](crate::run())                       |
//! | `tokio::spawn(future)`                  | [`nursery.start_soon(future)`](crate::Nursery::start_soon) in an [`open_nursery`](crate::open_nursery) |
//! | `JoinHandle`, `JoinSet`                 | [`nursery.spawn(future)`](crate::Nursery::spawn) and [`join`](crate::JoinHandle::join); the end of the nursery |
//! | `join!`, `try_join!`, `FuturesUnordered` | [`join`](crate::join()), [`try_join`](crate::try_join), [`join_all`](crate::join_all), [`as_completed`](crate::as_completed) |
//! | `LocalSet`, `Send + 'static`            | not needed: tasks stay on their thread, and borrow                 |
//! | `handle.abort()`, `CancellationToken`   | [`CancelScope`](crate::CancelScope)                               |
//! | `timeout(duration, future)`, `timeout_at` | [`move_on_after`](crate::move_on_after), [`fail_after`](crate::fail_after), [`move_on_at`](crate::move_on_at), [`fail_at`](crate::fail_at) |
//! | `time::sleep`, `sleep_until`            | [`sleep`](crate::sleep()), [`sleep_until`](crate::sleep_until)     |
//! | `select!` over whole futures            | [`race`](crate::race), [`race_ok`](crate::race_ok): losers are cancelled and waited for |
//! | `select!` over receives and sends       | [`select`](crate::channel::select): exactly one of them happens    |
//! | `oneshot`                               | [`nursery.spawn`](crate::Nursery::spawn) and its handle; [`open_memory_channel(1)`](crate::open_memory_channel) |
//! | `mpsc`, `broadcast`, `watch`            | [`open_memory_channel`](crate::open_memory_channel), [`open_broadcast_channel`](crate::open_broadcast_channel), [`open_watch_channel`](crate::open_watch_channel) |
//! | a channel to another thread             | [`open_thread_channel`](crate::open_thread_channel)                |
//! | `unbounded_channel`                     | [`open_memory_channel(UNBOUNDED)`](crate::channel::UNBOUNDED)      |
//! | a channel as a `Stream`; `async-stream` | [`into_stream`](crate::channel), with the feature `futures`; [`safe_channel`](crate::safe_channel) |
//! | `Mutex`, `RwLock`, `Semaphore`, `Barrier` | [`Lock`](crate::Lock), [`RwLock`](crate::sync::RwLock), [`Semaphore`](crate::Semaphore), [`Barrier`](crate::sync::Barrier) |
//! | `Notify`                                | [`Event`](crate::Event), [`Condition`](crate::Condition); below them [`ParkingLot`](crate::lowlevel::ParkingLot) |
//! | `task::spawn_blocking`                  | [`to_thread::run_sync`](crate::to_thread::run_sync)                |
//! | `Handle::block_on` from a thread        | [`from_thread::run`](crate::from_thread::run); from one of your own [`TrioToken::run`](crate::lowlevel::TrioToken::run) |
//! | `Handle::spawn` from a thread           | [`TrioToken::run_sync_soon`](crate::lowlevel::TrioToken::run_sync_soon) |
//! | a task for the life of the runtime      | [`spawn_system_task`](crate::lowlevel::spawn_system_task)          |
//! | `task::id`, `RuntimeMetrics`, task dumps | [`current_task`](crate::lowlevel::current_task), [`current_statistics`](crate::lowlevel::current_statistics), [`task_tree`](crate::lowlevel::task_tree) |
//! | `task_local!`                           | [`TaskLocal`](crate::TaskLocal), [`TreeVar`](crate::TreeVar)       |
//! | a runtime of many threads               | [`run_workers`](crate::run_workers): one run a core                |
//! | `task::yield_now`                       | [`checkpoint`](crate::checkpoint())                               |
//! | `Arc<Mutex<T>>` between tasks           | [`Cell`](std::cell::Cell) or [`RefCell`](std::cell::RefCell), borrowed |
//! | `signal::ctrl_c`                        | [`io::signal`](crate::io::signal)                                  |
//! | `TcpListener::bind` and a loop          | [`serve_tcp`](crate::serve_tcp); [`open_tcp_listeners`](crate::open_tcp_listeners) |
//! | `TcpStream::connect`                    | [`net::connect_tcp`](crate::net::connect_tcp), to an address: names are not looked up yet |
//! | `read`, `write_all`, `shutdown`         | [`receive`](crate::net::TcpStream::receive), [`send_all`](crate::net::TcpStream::send_all), [`send_eof`](crate::net::TcpStream::send_eof) |
//! | `into_split`                            | not needed: methods take `&self`, and two tasks borrow one stream  |
//! | `time::interval`                        | a loop with [`sleep_until`](crate::sleep_until); [`RateLimiter`](crate::RateLimiter) for a limit |
//! | retries by hand                         | [`Supervisor`](crate::Supervisor) and [`Backoff`](crate::Backoff)  |
//! | `#[tokio::test]`, `time::pause`         | `#[trio::test(clock = "autojump")]`; see [testing](super::testing)  |
//! | `console-subscriber`, spans             | [`Instrument`](crate::instrument::Instrument), and the feature `tracing` |
//!
//! # `spawn` becomes a nursery
//!
//! ```
//! # use std::cell::Cell;
//! # use trio::{Result, open_nursery};
//! async fn handle(job: &str, done: &Cell<u32>) -> Result<()> {
//!     trio::checkpoint().await?;
//!     println!("{job}");
//!     done.set(done.get() + 1);
//!     Ok(())
//! }
//!
//! # trio::run(async {
//! let (jobs, done) = (["a", "b", "c"], Cell::new(0));
//! open_nursery(async |nursery| {
//!     for job in &jobs {
//!         nursery.start_soon(handle(job, &done)); // borrows: no `Arc`, no `'static`, no `Send`
//!     }
//!     Ok(())
//! })
//! .await?; // every one has ended, and if one failed, its error comes out here
//! assert_eq!(done.get(), 3);
//! # Ok::<(), trio::Error>(()) }).unwrap();
//! ```
//!
//! To start a task that outlives the function, start it in a nursery that outlives the function: take
//! `&Nursery` as an argument. That is the point of it: the caller's code shows where tasks may stay
//! behind.
//!
//! # Errors come out, and so do panics
//!
//! In tokio the error of a task waits in a `JoinHandle` that hardly anybody looks into, and a panic ends
//! only its task. Here both end the nursery: the siblings are cancelled, and the parent gets the error or
//! the panic. A server is a nursery too, in which one client that resets its connection would end all the
//! others. So say at its edge what may fail alone, with
//! [`Server::on_error`](crate::net::Server::on_error), or with a [`Supervisor`](crate::Supervisor) around
//! a task. Panics are for bugs, and neither of these catches them.
//!
//! # `select!` becomes tasks
//!
//! `select!` drops the branches that lose, in the middle of whatever they are doing.
//! [`race`](crate::race) cancels them and waits until they have ended, so that nothing is lost:
//!
//! ```
//! # use std::time::Duration;
//! # use trio::{race, sleep};
//! # trio::run(async {
//! let quick = async {
//!     sleep(Duration::from_millis(1)).await?;
//!     Ok("quick")
//! };
//! let slow = async {
//!     sleep(Duration::from_secs(3600)).await?;
//!     Ok("slow")
//! };
//! // A loser that had succeeded by then would hand its value to the second argument.
//! let won = race((quick, slow), |late| println!("{late}, too late")).await?;
//! assert_eq!(won, "quick");
//! # Ok::<(), trio::Error>(()) }).unwrap();
//! ```
//!
//! Where the two are not equals, let one be the body of a nursery, and cancel the rest:
//!
//! ```
//! # use std::time::Duration;
//! # use trio::{Result, open_nursery, sleep, sleep_forever};
//! # async fn serve() -> Result<()> { sleep_forever().await }
//! # async fn stop_pressed() -> Result<()> { sleep(Duration::from_millis(1)).await }
//! # trio::run(async {
//! open_nursery(async |nursery| {
//!     nursery.start_soon(serve());
//!     stop_pressed().await?;
//!     nursery.cancel_scope().cancel("stop was pressed");
//!     Ok(())
//! })
//! .await
//! # }).unwrap();
//! ```
//!
//! You can still use futures of this library with `select!` of the `futures` crate: one that is
//! dropped half-way loses no bytes, and leaves nothing to the kernel.
//!
//! # Futures of other libraries
//!
//! Futures that need no runtime, such as the receive of another library's channel, can be awaited as
//! they are, and woken from any thread. But they know nothing of scopes: a timeout asks what is inside
//! to end, and they would never answer. [`cancellable`](crate::lowlevel::cancellable) makes them
//! answer. For those that need tokio, [guest mode](crate::Builder::start_guest_run) puts a run on a
//! tokio loop.
//!
//! ```
//! # use std::time::Duration;
//! # use trio::lowlevel::cancellable;
//! # trio::run(async {
//! # let (sender, answer) = futures::channel::oneshot::channel::<u8>();
//! let limit = Duration::from_millis(1);
//! let answered = trio::move_on_after(limit, cancellable(answer)).await?;
//! assert!(answered.is_none(), "nobody has answered in time");
//! # drop(sender);
//! # Ok::<(), trio::Error>(()) }).unwrap();
//! ```
//!
//! # A token becomes a scope
//!
//! A token has to be checked in each `select!`. A scope is around the code, and every operation in
//! it, however deep, is subject to it:
//!
//! ```
//! # use trio::{CancelScope, Result, open_nursery, sleep_forever};
//! # trio::run(async {
//! let connection = CancelScope::new(); // a handle: clone it, keep it, enter it once
//! let closer = connection.clone();
//! open_nursery(async |nursery| {
//!     nursery.start_soon(async {
//!         let ended = connection.enter(sleep_forever()).await?;
//!         assert!(ended.is_none(), "it was cancelled");
//!         Ok(())
//!     });
//!     closer.cancel("the user has left");
//!     Ok(())
//! })
//! .await
//! # }).unwrap();
//! ```
//!
//! # Shutting down
//!
//! Cancel the outermost scope, and everything inside ends: each task gets
//! [`Cancelled`](crate::Cancelled) from its operation, cleans up and returns. Code that needs time
//! for a goodbye uses [`cleanup`](crate::cleanup), a shield with a deadline of its own; and code
//! that may first finish what it is doing uses [`until_draining`](crate::until_draining) (there is a
//! [recipe](super::recipes)):
//!
//! ```
//! # use std::time::Duration;
//! # use trio::{Result, cleanup, finally, sleep, sleep_forever};
//! # async fn converse() -> Result<()> { sleep_forever().await }
//! # async fn say_goodbye() -> Result<()> { sleep(Duration::from_millis(1)).await }
//! async fn connection() -> Result<()> {
//!     finally(converse(), async {
//!         cleanup(Duration::from_secs(1), say_goodbye()).await?;
//!         Ok(())
//!     })
//!     .await
//! }
//! # let ended = trio::run(trio::move_on_after(Duration::from_millis(1), connection()));
//! # assert!(matches!(ended, Ok(None)));
//! ```
//!
//! # Common mistakes
//!
//! - **Swallowing a cancellation.** `if let Err(error) = receive().await { log(error) }` in a loop goes
//!   on for ever once the task is cancelled, because every operation reports it again. Use `?`, or pass
//!   on every error that [`is_cancelled`](crate::Error::is_cancelled).
//! - **A timeout around a future with another error type.** [`move_on_after`](crate::move_on_after) takes
//!   a future that returns [`Result`](crate::Result), but a receive from a channel has a more precise
//!   error. Convert it: `move_on_after(limit, async { Ok(receiver.receive().await?) })`. The same goes
//!   for `start_soon`, [`race`](crate::race) and the like.
//! - **A timeout around `start_soon`.** It starts a task and returns. Put the timeout into the task:
//!   `nursery.start_soon(async { move_on_after(…).await?; Ok(()) })`.
//! - **Returning early from a nursery.** The block returns, and then the nursery waits for the
//!   children. To end them too, cancel [its scope](crate::Nursery::cancel_scope) first.
//! - **Looking for one error.** A nursery reports a group, even of one.
//!   [`leaves`](crate::Error::leaves) walks it, [`split`](crate::Error::split) takes it apart,
//!   [`into_single`](crate::Error::into_single) unwraps it.
//! - **Blocking.** One thread runs all tasks of a run, so a call that blocks holds up all of them.
//!   Make it on another thread with [`to_thread::run_sync`](crate::to_thread::run_sync).
//! - **Borrowing from inside the block.** A child borrows what was declared before `open_nursery`. What
//!   its body declares is gone while the children still run: the compiler says that the `async` block "may
//!   outlive the current function". Move it in, with `async move`, or declare it before.
//! - **Changing one variable in two children.** Each would borrow it for itself ("cannot borrow as
//!   mutable more than once"). Put it into a [`Cell`](std::cell::Cell) or a
//!   [`RefCell`](std::cell::RefCell), and borrow that.
//! - **`|nursery| async move { … }`.** The compiler wants a type for `nursery`. The body is an async
//!   closure: `async |nursery| { … }`.
//! - **An error in a box.** `?` takes what implements [`std::error::Error`], which boxes of it do not: write
//!   `.map_err(trio::Error::from_boxed)?`, for a `Box<dyn Error + Send + Sync>`.
//! - **An address as text.** `"127.0.0.1:8000"` is no address yet: it is
//!   `"127.0.0.1:8000".parse::<SocketAddr>()?`, or `([127, 0, 0, 1], 8000)` where it is fixed.
//! - **A memory channel to another thread.** Its ends stay in their run, and the compiler says that an `Rc`
//!   cannot be sent. [`open_thread_channel`](crate::open_thread_channel) makes one whose ends go anywhere.
//! - **Expecting many threads.** A run uses one core. [`run_workers`](crate::run_workers) starts a
//!   run on each: nothing is shared, so nothing is locked.
