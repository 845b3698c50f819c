//! Coming from Trio: the names, and what differs.
//!
//! You know the model: tasks live in nurseries, cancel scopes nest, every operation is a checkpoint,
//! and `Cancelled` passes through. All of that holds here. This page tells what it is called, and
//! where Rust makes it look different. What is promised, by number, stands in `docs/semantics.md` of
//! the repository, and each of Trio's own tests has its row in `docs/trio-tests.md`.
//!
//! # The same program
//!
//! ```
//! use std::time::Duration;
//! use trio::{Result, open_nursery, sleep};
//!
//! async fn child(name: &str) -> Result<()> {
//!     println!("{name}: started, sleeping now");
//!     sleep(Duration::from_millis(1)).await?;
//!     println!("{name}: exiting");
//!     Ok(())
//! }
//!
//! #[trio::main]
//! async fn main() -> Result<()> {
//!     open_nursery(async |nursery| {
//!         nursery.start_soon(child("one"));
//!         nursery.start_soon(child("two"));
//!         Ok(())
//!     })
//!     .await?;
//!     println!("all done");
//!     Ok(())
//! }
//! ```
//!
//! A child is a future, `child("one")`, where Trio takes the function and its arguments. The block of
//! the nursery is an `async` closure, and so is that of [`Nursery::start`](crate::Nursery::start).
//!
//! # The names
//!
//! | Trio                                   | here                                                                |
//! |----------------------------------------|---------------------------------------------------------------------|
//! | `trio.run(main)`                       | [`trio::run(main())`](crate::run()), or `#[trio::main]`              |
//! | `async with trio.open_nursery() as n:` | [`open_nursery(async \|n\| { … }).await?`](crate::open_nursery)       |
//! | `n.start_soon(f, x)`                   | [`n.start_soon(f(x))`](crate::Nursery::start_soon)                   |
//! | `n.start_soon(f, x, name="…")`         | [`n.start_soon_named("…", f(x))`](crate::Nursery::start_soon_named)  |
//! | `await n.start(f)`                     | [`n.start(async \|status\| { … }).await?`](crate::Nursery::start)     |
//! | `task_status.started(v)`               | [`status.started(v)?`](crate::TaskStatus::started)                   |
//! | `trio.TASK_STATUS_IGNORED`             | [`TaskStatus::ignored()`](crate::TaskStatus::ignored)                |
//! | `n.cancel_scope.cancel()`              | [`n.cancel_scope().cancel("why")`](crate::CancelScope::cancel)       |
//! | `with trio.move_on_after(5):`          | [`move_on_after(secs(5), future)`](crate::move_on_after), `Ok(None)` if too slow |
//! | `with trio.fail_after(5):`             | [`fail_after(secs(5), future)`](crate::fail_after)                   |
//! | `with trio.CancelScope() as s:`        | [`CancelScope::new()`](crate::CancelScope), then [`s.enter(future)`](crate::CancelScope::enter) |
//! | `CancelScope(shield=True)`             | [`CancelScope::new().shielded()`](crate::CancelScope::shielded)      |
//! | `trio.current_time()`, `trio.sleep(1)` | [`current_time`](crate::current_time), [`sleep`](crate::sleep())       |
//! | `trio.lowlevel.checkpoint()`           | [`checkpoint`](crate::checkpoint())                                  |
//! | `trio.TooSlowError`, `trio.ClosedResourceError` … | [`TooSlow`](crate::TooSlow), [`ClosedResource`](crate::ClosedResource) …: without `Error` |
//! | `trio.Lock`, `trio.Event` …            | [`trio::sync`](crate::sync), with guards in place of `release`       |
//! | `trio.open_memory_channel(n)`          | [`open_memory_channel`](crate::open_memory_channel)                  |
//! | `trio.open_tcp_stream(host, port)`     | [`net::connect_tcp(address)`](crate::net::connect_tcp): names are not looked up yet |
//! | `trio.serve_tcp`, `trio.open_tcp_listeners` | [`serve_tcp`](crate::serve_tcp), [`open_tcp_listeners`](crate::open_tcp_listeners) |
//! | `stream.receive_some()`                | [`stream.receive()`](crate::net::TcpStream::receive): `None` is the end of file |
//! | `trio.open_signal_receiver(SIGTERM)`   | [`open_signal_receiver(&[Signal::TERMINATE])`](crate::io::signal::open_signal_receiver) |
//! | `trio.to_thread`, `trio.from_thread`   | [`to_thread`](crate::to_thread), [`from_thread`](crate::from_thread)  |
//! | `trio.lowlevel.RunVar`, `contextvars`  | [`RunVar`](crate::lowlevel::RunVar); [`TaskLocal`](crate::TaskLocal), [`TreeVar`](crate::TreeVar) |
//! | `except* OSError:`                     | [`error.split(\|leaf\| leaf.is::<io::Error>())`](crate::Error::split)  |
//! | `trio.abc.Instrument`                  | [`Instrument`](crate::instrument::Instrument)                        |
//! | `trio.testing`                         | [`trio::testing`](crate::testing), under the same names              |
//! | `…_nowait`                             | `try_…`                                                             |
//! | `aclose_forcefully`                    | [`aclose_forcefully`](crate::aclose_forcefully); dropping does it too |
//!
//! # What differs
//!
//! ## `Cancelled` is a value
//!
//! Every operation returns a [`Result`](crate::Result), and a cancellation is one of its errors. Let it
//! pass with `?`, as you let the exception pass. Cleaning up on the way is as it was, shields included:
//!
//! ```
//! # use std::time::Duration;
//! # use trio::{CancelScope, Result, move_on_after, sleep, sleep_forever};
//! async fn work() -> Result<()> {
//!     sleep_forever().await
//! }
//!
//! async fn say_goodbye() -> Result<()> {
//!     sleep(Duration::from_millis(1)).await
//! }
//!
//! # trio::run(async {
//! let ended = move_on_after(Duration::from_millis(1), async {
//!     let result = work().await; // a `try` block, so to say
//!     let grace = CancelScope::with_timeout(Duration::from_secs(1)).shielded();
//!     grace.enter(say_goodbye()).await?; // and its `finally`
//!     result
//! })
//! .await?;
//! assert!(ended.is_none());
//! # Ok::<(), trio::Error>(()) }).unwrap();
//! ```
//!
//! [`finally`](crate::finally) writes that more briefly, and keeps both errors if there are two, where
//! an exception in a `finally` block hides the first.
//!
//! ## Blocks have values
//!
//! What is in a scope is a future, and its value comes out: `Some`, or `None` if the scope caught. So
//! one does not ask the scope afterwards, though one can:
//!
//! ```
//! # use std::time::Duration;
//! # use trio::{Result, move_on_after, sleep};
//! # trio::run(async {
//! let answer = move_on_after(Duration::from_secs(5), async {
//!     sleep(Duration::from_millis(1)).await?;
//!     Ok(42)
//! })
//! .await?;
//! assert_eq!(answer, Some(42));
//! # Ok::<(), trio::Error>(()) }).unwrap();
//! ```
//!
//! ## Children borrow
//!
//! A child may use what is declared outside the nursery, by reference, because it cannot outlive it.
//! The compiler sees to it, and there is no need for anything like `Rc`:
//!
//! ```
//! # use std::cell::RefCell;
//! # use trio::open_nursery;
//! # trio::run(async {
//! let names = vec!["one".to_owned(), "two".to_owned()];
//! let seen = RefCell::new(Vec::new());
//! open_nursery(async |nursery| {
//!     for name in &names {
//!         let seen = &seen;
//!         nursery.start_soon(async move {
//!             seen.borrow_mut().push(name);
//!             Ok(())
//!         });
//!     }
//!     Ok(())
//! })
//! .await?;
//! assert_eq!(seen.take(), ["one", "two"]);
//! # Ok::<(), trio::Error>(()) }).unwrap();
//! ```
//!
//! A child that needs a variable of the body itself, a loop variable above all, takes it by `move`.
//!
//! ## Children have results
//!
//! [`Nursery::spawn`](crate::Nursery::spawn) gives a handle whose [`join`](crate::JoinHandle::join)
//! returns what the child returned. [`join_all`](crate::join_all), [`race`](crate::race) and their kin
//! do it for many.
//!
//! ## A checkpoint need not yield
//!
//! Every operation looks for a cancellation. It lets others run when it waits, and when its task has
//! done so many operations in a turn; not each time. Where you rely on the turn, say
//! [`checkpoint`](crate::checkpoint()).
//!
//! ## Groups are always groups
//!
//! A nursery reports a group even of a single error, as Trio's strict mode does.
//! [`Error::into_single`](crate::Error::into_single) unwraps.
//!
//! ## Panics are not errors
//!
//! A panic cancels the siblings, waits for them, and goes on in the parent. Nobody catches it by
//! catching errors.
//!
//! ## A cancel waits for the kernel
//!
//! An operation that the kernel is busy with ends when the kernel says so. If it has happened by then,
//! it succeeds, and the next checkpoint reports: nothing that was received is lost.
