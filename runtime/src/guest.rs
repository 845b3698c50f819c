//! Guest mode: a run whose turns are calls made by the loop of another library.
//!
//! A host lends its thread for one turn at a time. Where a run of its own would sleep in the
//! driver, a guest hands the driver's [`Waiter`] to a thread of the pool, and continues when the
//! host makes the call through which that thread reports. Meanwhile the host's own code runs on the
//! thread of the run.
//!
//! 1. One call is under way at a time: with the host, or, during the wait, with the thread.
//! 2. While a thread waits, the driver rests (`run/pause.rs`). Code of the host that needs the
//!    driver, wakes a task, or changes what the wait depends on ends the wait. A wake counts as
//!    something that happens.
//! 3. A call knows its run by number and finds it in the thread's context, so a call that comes
//!    after the end does nothing, and a call may be dropped instead of made.
//! 4. The [`GuestRun`] owns the run. If it is dropped before the end, it drops the tasks as they
//!    are, takes everything back from the kernel, and says so on standard error. If it is
//!    forgotten, its thread stays in the run for good. A foreign loop never polls anything: it only
//!    makes calls.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::thread::{self, ThreadId};

use trio_platform::Waiter;

use crate::context;
use crate::nursery::Failure;
use crate::run::{Live, Parts, Pause};
use crate::thread::start_thread_soon;

/// What a guest asks its host to call, once, soon, on the thread where the run began.
pub type HostCall = Box<dyn FnOnce() + Send>;

/// The loop that a [guest](crate::Builder::start_guest_run) lives on.
///
/// A function that takes a [`HostCall`] is a host, if it may be called from any thread.
///
/// Neither method may make the call before it returns. Calls may be mixed with the host's own work in
/// any order; how soon they are made is the host's choice, and decides how fast the guest is.
pub trait Host: Send + Sync + 'static {
    /// Arranges for the thread on which the run began to make `call` soon. Called from any thread.
    #[doc(alias = "call_soon_threadsafe")]
    fn run_sync_soon_threadsafe(&self, call: HostCall);

    /// The same, when called on that thread, for which a loop may have a cheaper way.
    #[doc(alias = "call_soon")]
    fn run_sync_soon_not_threadsafe(&self, call: HostCall) {
        self.run_sync_soon_threadsafe(call);
    }
}

impl<F> Host for F
where
    F: Fn(HostCall) + Send + Sync + 'static,
{
    fn run_sync_soon_threadsafe(&self, call: HostCall) {
        self(call);
    }
}

/// A run on the loop of a host, from [`Builder::start_guest_run`](crate::Builder::start_guest_run).
///
/// Keep it until the run has [finished](Self::is_finished). Dropping it earlier abandons the run: its
/// tasks are dropped as they stand, everything is taken back from the kernel, a line on standard error
/// says so, and the function that was to get the output is dropped uncalled.
#[must_use = "dropping a guest before it has finished abandons its tasks"]
pub struct GuestRun(Rc<dyn Tick>);

impl GuestRun {
    /// Whether the run has ended, and its output has been delivered.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl fmt::Debug for GuestRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestRun")
            .field("finished", &self.is_finished())
            .finish()
    }
}

/// A guest, whatever the type of its output.
pub(crate) trait Tick {
    /// Runs the next turn. `waited` is the result of the thread that has waited, if one has.
    fn tick(self: Rc<Self>, waited: io::Result<()>);

    fn is_finished(&self) -> bool;
}

type Done<T> = Box<dyn FnOnce(thread::Result<T>)>;

struct Guest<T> {
    /// Taken out during a turn, and `None` after the last one.
    live: RefCell<Option<Live<T>>>,
    /// The pause between the halves of a turn that waits.
    pause: Cell<Option<Pause>>,
    /// Whether what the main task has left behind has been asked to end.
    ending: Cell<bool>,
    finished: Cell<bool>,
    done: Cell<Option<Done<T>>>,
    caller: Caller,
}

/// What the code that makes the calls of a run knows of it.
#[derive(Clone)]
struct Caller {
    host: Arc<dyn Host>,
    waiter: Waiter,
    run: u64,
    thread: ThreadId,
}

/// What comes after a turn.
enum Next {
    Turn,
    Wait(Pause),
    End,
}

/// Begins a run whose turns `host` makes.
pub(crate) fn start<F>(
    mut parts: Parts,
    main: F,
    host: Arc<dyn Host>,
    done: Done<F::Output>,
    place: &'static Location<'static>,
) -> io::Result<GuestRun>
where
    F: Future + 'static,
{
    let waiter = parts.driver.waiter()?;
    let live = Live::begin(parts, main, place);
    live.root.tell_run();
    let run = live.run().clone();
    let caller = Caller {
        host,
        waiter,
        run: run.id,
        thread: thread::current().id(),
    };
    let guest = Rc::new(Guest {
        live: RefCell::new(Some(live)),
        pause: Cell::new(None),
        ending: Cell::new(false),
        finished: Cell::new(false),
        done: Cell::new(Some(done)),
        caller,
    });
    let tick: Weak<dyn Tick> = Rc::<Guest<F::Output>>::downgrade(&guest);
    *run.guest.borrow_mut() = Some(tick);
    guest.caller.go_on();
    Ok(GuestRun(guest))
}

impl<T> Guest<T> {
    /// Runs one turn, or the rest of a turn that has waited.
    fn advance(&self, live: &Live<T>, waited: io::Result<()>) -> Next {
        let (run, root) = (live.run(), &live.root);
        if let Err(error) = waited {
            panic!("the guest run cannot wait any more: {error}");
        }
        match self.pause.take() {
            Some(pause) => run.end_wait(root, pause),
            None => {
                if let Some(pause) = run.turn_as_guest(root) {
                    return Next::Wait(pause);
                }
            }
        }
        if !live.is_main_done() {
            return Next::Turn;
        }
        if !self.ending.replace(true) {
            run.shut_down(root);
        }
        if run.owes(root) {
            return Next::Turn;
        }
        run.end_calls(root);
        Next::End
    }

    fn deliver(&self, outcome: thread::Result<T>) {
        self.finished.set(true);
        if let Some(done) = self.done.take() {
            done(outcome);
        }
    }
}

impl<T> Tick for Guest<T> {
    fn tick(self: Rc<Self>, waited: io::Result<()>) {
        // `None` if the host makes a call from inside a turn: that call is not ours (rule 1).
        let Some(live) = self.live.take() else {
            return;
        };
        let next = catch_unwind(AssertUnwindSafe(|| self.advance(&live, waited)));
        let wait = match next {
            Ok(Next::Turn) => None,
            Ok(Next::Wait(pause)) => Some(pause),
            Ok(Next::End) => return self.deliver(finish(live)),
            Err(panic) => return self.deliver(Err(drop_failed(live, panic))),
        };
        let timeout = wait.as_ref().map(Pause::timeout);
        self.pause.set(wait);
        *self.live.borrow_mut() = Some(live);
        let Some(timeout) = timeout else {
            return self.caller.go_on();
        };
        let (waiter, caller) = (self.caller.waiter.clone(), self.caller.clone());
        let begun = start_thread_soon(
            move || waiter.wait(timeout),
            move |waited| caller.report(waited),
            Some("trio guest"),
        );
        if let Err(error) = begun {
            // The next call reports it, in the same way as all other failures.
            self.caller.call_threadsafe(Err(error));
        }
    }

    fn is_finished(&self) -> bool {
        self.finished.get()
    }
}

impl Caller {
    /// Asks for the next turn, on the thread of the run.
    fn go_on(&self) {
        self.host.run_sync_soon_not_threadsafe(self.call(Ok(())));
    }

    /// Reports the end of the wait, on the thread that has waited.
    fn report(&self, waited: thread::Result<io::Result<()>>) {
        let waited =
            waited.unwrap_or_else(|_| Err(io::Error::other("the thread that waited panicked")));
        self.call_threadsafe(waited);
    }

    fn call_threadsafe(&self, waited: io::Result<()>) {
        self.host.run_sync_soon_threadsafe(self.call(waited));
    }

    fn call(&self, waited: io::Result<()>) -> HostCall {
        let (run, home) = (self.run, self.thread);
        Box::new(move || {
            assert_eq!(
                thread::current().id(),
                home,
                "a host makes the calls of a guest on the thread where the guest run was started"
            );
            let guest = context::try_with(|current| {
                let current = current.filter(|current| current.id == run)?;
                current.guest.borrow().as_ref()?.upgrade()
            });
            if let Some(guest) = guest {
                guest.tick(waited);
            }
        })
    }
}

/// Ends a run whose last turn is over.
fn finish<T>(live: Live<T>) -> thread::Result<T> {
    let finished = catch_unwind(AssertUnwindSafe(|| live.finish()))?;
    finished.map_err(|failure| match failure {
        Failure::Panic(panic) => panic,
        Failure::Error(error) => Box::new(format!("a system task failed: {error:?}")),
    })
}

/// Drops a run whose loop has panicked; returns the panic.
fn drop_failed<T>(live: Live<T>, panic: Box<dyn Any + Send>) -> Box<dyn Any + Send> {
    // A panic in a destructor has been printed; the first panic is the one to report.
    drop(catch_unwind(AssertUnwindSafe(|| drop(live))));
    panic
}

impl<T> Drop for Guest<T> {
    fn drop(&mut self) {
        if let Some(live) = self.live.take() {
            eprintln!(
                "trio: a guest run was dropped before it had finished, and its tasks with it; keep \
                 the `GuestRun` until `is_finished`"
            );
            drop(live);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u5_an_error_of_the_thread_that_waits_is_the_outcome() {
        let outcome = Rc::new(Cell::new(None));
        let seen = outcome.clone();
        let host = |call: HostCall| drop(call);
        let done = move |output: thread::Result<_>| outcome.set(Some(output));
        let main = crate::sleep_forever();
        let guest = crate::Builder::new()
            .start_guest_run(main, host, done)
            .unwrap();
        guest.0.clone().tick(Ok(()));
        assert!(!guest.is_finished());
        guest.0.clone().tick(Err(io::Error::other("no poll")));
        assert!(guest.is_finished() && !context::is_running());
        let panic = seen.take().unwrap().unwrap_err();
        let text: &String = panic.downcast_ref().unwrap();
        assert!(text.contains("cannot wait any more: no poll"), "{text}");
    }
}
