//! Coming from Trio: the names, and what differs.
//!
//! You know the model: tasks live in nurseries, cancel scopes nest, every operation is a checkpoint,
//! and `Cancelled` passes through. All of that holds here. This page lists the names, and shows where Rust
//! makes things look different. What is promised, by number, is in `docs/semantics.md` of
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
//! Names that end in `_nowait` begin with `try_` here, and names of errors do not end in `Error`. An
//! optional argument (`name=…`) is a second function, or a method of what the first returns.
//!
//! ## Running and time
//!
//! | Trio                                   | here                                                                |
//! |----------------------------------------|---------------------------------------------------------------------|
//! | `trio.run(main)`                       | [`trio::run(main())`](crate::run()), or `#[trio::main]`              |
//! | `trio.run(…, clock=…, instruments=…)`  | [`Builder`](crate::Builder)                                         |
//! | `trio.current_time()`                  | [`current_time`](crate::current_time)                               |
//! | `trio.sleep(1)`, `sleep_until`, `sleep_forever` | [`sleep`](crate::sleep()), [`sleep_until`](crate::sleep_until), [`sleep_forever`](crate::sleep_forever) |
//! | `math.inf` and `-math.inf` as a deadline | [`Time::NEVER`](crate::Time::NEVER), [`Time::PAST`](crate::Time::PAST) |
//! | `trio.TrioInternalError`               | a panic out of [`run`](crate::run()), which has no error of its own    |
//!
//! ## Cancelling
//!
//! | Trio                                   | here                                                                |
//! |----------------------------------------|---------------------------------------------------------------------|
//! | `with trio.move_on_after(5):`          | [`move_on_after(secs(5), future)`](crate::move_on_after), `Ok(None)` if too slow; [`move_on_at`](crate::move_on_at) |
//! | `with trio.fail_after(5):`             | [`fail_after(secs(5), future)`](crate::fail_after); [`fail_at`](crate::fail_at) |
//! | `move_on_after(5, shield=True)`        | [`move_on_after(…).shielded()`](crate::MoveOn::shielded); [`cleanup`](crate::cleanup) |
//! | `with trio.CancelScope() as s:`        | [`CancelScope::new()`](crate::CancelScope), then [`s.enter(future)`](crate::CancelScope::enter) |
//! | `CancelScope(deadline=…)`, `(relative_deadline=…)`, `(shield=True)` | [`with_deadline`](crate::CancelScope::with_deadline), [`with_timeout`](crate::CancelScope::with_timeout), [`shielded`](crate::CancelScope::shielded) |
//! | `s.cancel(reason="…")`                 | [`s.cancel("…")`](crate::CancelScope::cancel)                        |
//! | `s.deadline = …`, `s.relative_deadline = …` | [`set_deadline`](crate::CancelScope::set_deadline), [`set_timeout`](crate::CancelScope::set_timeout) |
//! | `s.is_relative`                        | [`timeout()`](crate::CancelScope::timeout) is `Some`, and [`deadline()`](crate::CancelScope::deadline) is `None` |
//! | `s.shield = False`                     | [`set_shield`](crate::CancelScope::set_shield)                       |
//! | `s.cancel_called`, `s.cancelled_caught` | [`cancel_called`](crate::CancelScope::cancel_called), [`cancelled_caught`](crate::CancelScope::cancelled_caught) |
//! | `trio.current_effective_deadline()`    | [`current_effective_deadline`](crate::current_effective_deadline)   |
//! | `except trio.Cancelled as c: c.reason` | [`Error::as_cancelled`](crate::Error::as_cancelled) and [`Cancelled::reason`](crate::Cancelled::reason); mostly `?` |
//!
//! ## Nurseries
//!
//! | Trio                                   | here                                                                |
//! |----------------------------------------|---------------------------------------------------------------------|
//! | `async with trio.open_nursery() as n:` | [`open_nursery(async \|n\| { … }).await?`](crate::open_nursery)       |
//! | `n.start_soon(f, x)`                   | [`n.start_soon(f(x))`](crate::Nursery::start_soon)                   |
//! | `n.start_soon(f, x, name="…")`         | [`n.start_soon_named("…", f(x))`](crate::Nursery::start_soon_named)  |
//! | `await n.start(f)`                     | [`n.start(async \|status\| { … }).await?`](crate::Nursery::start)     |
//! | `task_status.started(v)`               | [`status.started(v)?`](crate::TaskStatus::started)                   |
//! | `trio.TASK_STATUS_IGNORED`             | [`TaskStatus::ignored()`](crate::TaskStatus::ignored)                |
//! | `n.cancel_scope`                       | [`n.cancel_scope()`](crate::Nursery::cancel_scope)                   |
//! | `n.child_tasks`, `n.parent_task`       | [`n.child_count()`](crate::Nursery::child_count), [`task_tree`](crate::lowlevel::task_tree) |
//!
//! ## Waiting for each other
//!
//! | Trio                                   | here                                                                |
//! |----------------------------------------|---------------------------------------------------------------------|
//! | `trio.Event`                           | [`Event`](crate::Event)                                             |
//! | `trio.Lock`, `StrictFIFOLock`          | [`Lock`](crate::Lock) of a value, whose guard releases it; [`StrictFifoLock`](crate::StrictFifoLock) |
//! | `trio.Condition`, `notify(n)`          | [`Condition`](crate::Condition), whose methods take the guard of its lock |
//! | `trio.Semaphore(1, max_value=1)`       | [`Semaphore::with_max_value`](crate::Semaphore::with_max_value); permits are guards |
//! | `trio.CapacityLimiter`, `acquire_on_behalf_of` | [`CapacityLimiter`](crate::CapacityLimiter), [`Borrower`](crate::sync::Borrower); tokens are guards |
//! | `trio.open_memory_channel(n)`          | [`open_memory_channel`](crate::open_memory_channel), [`UNBOUNDED`](crate::channel::UNBOUNDED) for `math.inf` |
//! | `async for value in receive_channel:`  | [`while let Some(value) = receiver.next().await?`](crate::MemoryReceiveChannel::next) |
//! | `clone`, `close`, `aclose`, `statistics` | the same; an end that is dropped is closed                        |
//! | `@trio.as_safe_channel`                | [`safe_channel`](crate::safe_channel)                               |
//!
//! ## Errors
//!
//! | Trio                                   | here                                                                |
//! |----------------------------------------|---------------------------------------------------------------------|
//! | `TooSlowError`, `WouldBlock`, `EndOfChannel` | [`TooSlow`](crate::TooSlow), [`WouldBlock`](crate::WouldBlock), [`EndOfChannel`](crate::EndOfChannel) |
//! | `ClosedResourceError`, `BrokenResourceError`, `BusyResourceError` | [`ClosedResource`](crate::ClosedResource), [`BrokenResource`](crate::BrokenResource), [`BusyResource`](crate::BusyResource) |
//! | `RunFinishedError`                     | [`RunFinished`](crate::RunFinished)                                 |
//! | `RuntimeError` for a mistake           | [`Usage`](crate::Usage), or a panic where nobody could go on         |
//! | `except* OSError:`                     | [`error.split(\|leaf\| leaf.is::<io::Error>())`](crate::Error::split)  |
//! | `group.subgroup`, `group.exceptions`   | [`subgroup`](crate::Error::subgroup), [`as_group`](crate::Error::as_group), [`leaves`](crate::Error::leaves) |
//!
//! ## Threads
//!
//! | Trio                                   | here                                                                |
//! |----------------------------------------|---------------------------------------------------------------------|
//! | `trio.to_thread.run_sync(f, x)`        | [`to_thread::run_sync(move \|\| f(x))`](crate::to_thread::run_sync)   |
//! | `limiter=…`, `thread_name=…`, `abandon_on_cancel=True` | [methods of what it returns](crate::to_thread::RunSync) |
//! | `to_thread.current_default_thread_limiter()` | [`current_default_thread_limiter`](crate::to_thread::current_default_thread_limiter) |
//! | `trio.from_thread.run`, `run_sync`     | [`from_thread`](crate::from_thread); with a token [`TrioToken::run`](crate::lowlevel::TrioToken::run) |
//! | `trio.from_thread.check_cancelled()`   | [`check_cancelled`](crate::from_thread::check_cancelled)            |
//!
//! ## Streams, servers, signals
//!
//! | Trio                                   | here                                                                |
//! |----------------------------------------|---------------------------------------------------------------------|
//! | `trio.open_tcp_stream(host, port)`     | [`net::connect_tcp(address)`](crate::net::connect_tcp): names are not looked up yet |
//! | `trio.serve_tcp`, `serve_listeners`, `open_tcp_listeners` | [`serve_tcp`](crate::serve_tcp), [`serve_listeners`](crate::serve_listeners), [`open_tcp_listeners`](crate::open_tcp_listeners) |
//! | `stream.receive_some()`                | [`stream.receive()`](crate::net::TcpStream::receive): `None` is the end of file |
//! | `trio.StapledStream`, `trio.aclose_forcefully` | [`StapledStream`](crate::io::StapledStream), [`aclose_forcefully`](crate::aclose_forcefully); dropping does it too |
//! | `trio.abc.SendStream`, `ReceiveStream`, `Stream`, `HalfCloseableStream`, `Listener`, `AsyncResource` | the traits of [`trio::io`](crate::io) |
//! | `trio.abc.SendChannel`, `ReceiveChannel`, `Channel` | the same, in [`trio::io`](crate::io)                   |
//! | `trio.open_signal_receiver(SIGTERM)`   | [`open_signal_receiver(&[Signal::TERMINATE])`](crate::io::signal::open_signal_receiver) |
//!
//! ## `trio.lowlevel` and `trio.abc`
//!
//! | Trio                                   | here, in [`trio::lowlevel`](crate::lowlevel)                        |
//! |----------------------------------------|---------------------------------------------------------------------|
//! | `checkpoint()`                         | [`trio::checkpoint`](crate::checkpoint())                           |
//! | `checkpoint_if_cancelled()`, `cancel_shielded_checkpoint()` | [`checkpoint_if_cancelled`](crate::lowlevel::checkpoint_if_cancelled), [`cancel_shielded_checkpoint`](crate::lowlevel::cancel_shielded_checkpoint) |
//! | `wait_task_rescheduled`, `reschedule`, `Abort` | [`wait_task_rescheduled`](crate::lowlevel::wait_task_rescheduled), [`Reschedule::reschedule`](crate::lowlevel::Reschedule::reschedule), [`Abort`](crate::lowlevel::Abort) |
//! | `current_task()`, `current_root_task()` | [`current_task`](crate::lowlevel::current_task), [`current_root_task`](crate::lowlevel::current_root_task) |
//! | `Task.child_nurseries`, `iter_await_frames` | [`task_tree`](crate::lowlevel::task_tree): the children, and what each waits in |
//! | `current_statistics()`                 | [`current_statistics`](crate::lowlevel::current_statistics)         |
//! | `in_trio_run()`, `in_trio_task()`      | [`in_run`](crate::lowlevel::in_run), [`in_task`](crate::lowlevel::in_task) |
//! | `spawn_system_task`                    | [`spawn_system_task`](crate::lowlevel::spawn_system_task)           |
//! | `current_trio_token().run_sync_soon(f)` | [`current_trio_token`](crate::lowlevel::current_trio_token), [`run_sync_soon`](crate::lowlevel::TrioToken::run_sync_soon); [`…_idempotent`](crate::lowlevel::TrioToken::run_sync_soon_idempotent) |
//! | `RunVar`; `contextvars`                | [`RunVar`](crate::lowlevel::RunVar); [`TaskLocal`](crate::TaskLocal), [`TreeVar`](crate::TreeVar) |
//! | `ParkingLot`, `add_parking_lot_breaker` | [`ParkingLot`](crate::lowlevel::ParkingLot), [`ParkingLot::breaker`](crate::lowlevel::ParkingLot::breaker) |
//! | `trio.abc.Instrument`, `add_instrument` | [`Instrument`](crate::instrument::Instrument), [`add_instrument`](crate::instrument::add_instrument) |
//! | `trio.abc.Clock`                       | [`testing::Clock`](crate::testing::Clock)                            |
//! | `wait_readable(fd)`, `wait_writable(fd)` | [`submit(Ready::new(…))`](crate::lowlevel::Ready)                  |
//! | `notify_closing(fd)`                   | [`Gate::close`](crate::lowlevel::Gate::close)                       |
//! | `start_thread_soon`                    | [`start_thread_soon`](crate::lowlevel::start_thread_soon)           |
//! | `start_guest_run`                      | [`Builder::start_guest_run`](crate::Builder::start_guest_run)       |
//! | `enable_ki_protection` and its kin     | not needed: Ctrl-C is received as a [signal](crate::io::signal)      |
//!
//! ## `trio.testing`
//!
//! | Trio                                   | here, in [`trio::testing`](crate::testing)                          |
//! |----------------------------------------|---------------------------------------------------------------------|
//! | `@trio_test`, `autojump_clock`         | `#[trio::test(clock = "autojump")]`; see [testing](super::testing)   |
//! | `MockClock(rate=…, autojump_threshold=0)` | [`MockClock::autojump()`](crate::testing::MockClock::autojump), [`set_rate`](crate::testing::MockClock::set_rate), [`jump`](crate::testing::MockClock::jump) |
//! | `wait_all_tasks_blocked`, `wait_all_threads_completed`, `active_thread_count` | the same |
//! | `Sequencer`: `async with seq(2):`      | [`let _turn = seq.turn(2).await?`](crate::testing::Sequencer::turn)  |
//! | `with assert_checkpoints():`           | [`assert_checkpoints(future)`](crate::testing::assert_checkpoints), [`assert_no_checkpoints`](crate::testing::assert_no_checkpoints) |
//! | `memory_stream_pair`, `lockstep_stream_pair` and their kin | the same; data is taken out by an [outlet](crate::testing::MemoryOutlet), and put in by an [inlet](crate::testing::MemoryInlet) |
//! | `check_one_way_stream`, `check_two_way_stream`, `check_half_closeable_stream` | the same |
//! | `open_stream_to_socket_listener`       | the same                                                            |
//! | `RaisesGroup`, `Matcher`               | [`split`](crate::Error::split), [`leaves`](crate::Error::leaves), and `assert!` |
//!
//! # What differs
//!
//! ## `Cancelled` is a value
//!
//! Every operation returns a [`Result`](crate::Result), and a cancellation is one of its errors. Pass
//! it on with `?`, as you let the exception pass. Cleaning up on the way works as in Trio, shields
//! included:
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
//! [`finally`](crate::finally) is a shorter way to write this, and keeps both errors if there are two,
//! where an exception in a `finally` block hides the first.
//!
//! ## Blocks have values
//!
//! A scope contains a future, and returns its value: `Some`, or `None` if the scope has caught a
//! cancellation. So you need not ask the scope afterwards, though you can:
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
//! The compiler checks this, and there is no need for anything like `Rc`:
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
//! A child that needs a variable of the body itself, such as a loop variable, takes it by `move`.
//!
//! ## Children have results
//!
//! [`Nursery::spawn`](crate::Nursery::spawn) returns a handle whose [`join`](crate::JoinHandle::join)
//! returns what the child returned. [`join_all`](crate::join_all), [`race`](crate::race) and their kin
//! do it for many.
//!
//! ## A checkpoint need not yield
//!
//! Every operation checks for a cancellation. It lets other tasks run when it waits, and when its
//! task has used up its budget of operations for the turn, but not each time. Where you rely on
//! others having run, call [`checkpoint`](crate::checkpoint()).
//!
//! ## Groups are always groups
//!
//! A nursery reports a group even of a single error, as Trio's strict mode does.
//! [`Error::into_single`](crate::Error::into_single) unwraps.
//!
//! ## Panics are not errors
//!
//! A panic cancels the siblings, waits for them, and continues in the parent. Code that handles
//! errors does not catch it.
//!
//! ## A cancel waits for the kernel
//!
//! An operation that the kernel is working on ends when the kernel says so. If it has happened by
//! then, it succeeds, and the next checkpoint reports the cancel: nothing that was received is lost.
