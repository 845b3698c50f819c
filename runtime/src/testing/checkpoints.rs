//! Whether a future is a checkpoint.
//!
//! What counts is what the task that polls the future does: its checks for a cancellation, and the
//! places where others can run. A task that it starts is another task, and counts for itself.
//! Nothing is counted while no such future is being polled, so operations pay nothing for it.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::context;
use crate::run::Run;

/// Runs `future`, and panics if it ends well without having been a checkpoint: it has to check for
/// a cancellation and to let others run, at least once each.
///
/// An operation that need not wait lets others run when the budget of its task is used up, once in
/// 128 times (semantics C1); that is enough. [`checkpoint_if_cancelled`] only checks, and
/// [`cancel_shielded_checkpoint`] only lets others run: neither alone is a checkpoint, both together
/// are. If the future ends with an error, nothing is required of it: the error may have come first.
///
/// [`checkpoint_if_cancelled`]: crate::lowlevel::checkpoint_if_cancelled
/// [`cancel_shielded_checkpoint`]: crate::lowlevel::cancel_shielded_checkpoint
///
/// # Cancellation
///
/// That of the future.
///
/// # Errors
///
/// Those of the future.
///
/// # Panics
///
/// If the future ends well and was not a checkpoint. If it is polled outside of a run.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::testing::assert_checkpoints;
///
/// assert_checkpoints(trio::checkpoint()).await?;
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn assert_checkpoints<F, T, E>(future: F) -> AssertCheckpoints<F>
where
    F: Future<Output = Result<T, E>>,
{
    AssertCheckpoints {
        future,
        seen: Seen::default(),
        place: Location::caller(),
    }
}

/// Runs `future`, and panics if it checks for a cancellation or yields, however it ends.
///
/// # Panics
///
/// If the future does either, at the latest when it yields. If it is polled outside of a run.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::testing::assert_no_checkpoints;
///
/// // A nursery is none, unless something in it is (semantics C4).
/// let empty = trio::open_nursery(async |_| Ok(()));
/// assert_no_checkpoints(empty).await?;
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn assert_no_checkpoints<F: Future>(future: F) -> AssertNoCheckpoints<F> {
    AssertNoCheckpoints {
        future,
        place: Location::caller(),
    }
}

/// What a task did while a future was polled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How often it checked for a cancellation.
    pub(crate) looks: u32,
    /// How often others ran, or could have run if the budget had been used up.
    pub(crate) yields: u32,
}

/// Counts what the current task does until the guard is dropped.
struct Counting<'a>(&'a Rc<Run>);

impl<'a> Counting<'a> {
    fn new(run: &'a Rc<Run>) -> Self {
        run.begin_counting();
        Self(run)
    }

    fn end(self) -> Seen {
        self.0.counted()
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        // Even if the future has panicked.
        self.0.end_counting();
    }
}

pin_project! {
    /// The future of [`assert_checkpoints`].
    #[must_use = "futures do nothing unless polled"]
    pub struct AssertCheckpoints<F> {
        #[pin]
        future: F,
        seen: Seen,
        place: &'static Location<'static>,
    }
}

impl<F, T, E> Future for AssertCheckpoints<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let run = context::with(Rc::clone);
        let counting = Counting::new(&run);
        let output = this.future.poll(context);
        let seen = counting.end();
        this.seen.looks += seen.looks;
        this.seen.yields += seen.yields + u32::from(output.is_pending());
        let output = ready!(output);
        if output.is_ok() {
            let place = this.place;
            match (this.seen.looks, this.seen.yields) {
                (0, 0) => panic!(
                    "the future at {place} is no checkpoint: it neither looked for a cancellation \
                     nor let others run"
                ),
                (0, _) => panic!(
                    "the future at {place} is no checkpoint: it let others run, and never looked \
                     for a cancellation"
                ),
                (_, 0) => panic!(
                    "the future at {place} is no checkpoint: it looked for a cancellation, and \
                     never let others run"
                ),
                _ => {}
            }
        }
        Poll::Ready(output)
    }
}

pin_project! {
    /// The future of [`assert_no_checkpoints`].
    #[must_use = "futures do nothing unless polled"]
    pub struct AssertNoCheckpoints<F> {
        #[pin]
        future: F,
        place: &'static Location<'static>,
    }
}

impl<F: Future> Future for AssertNoCheckpoints<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let run = context::with(Rc::clone);
        let counting = Counting::new(&run);
        let output = this.future.poll(context);
        let seen = counting.end();
        let place = this.place;
        assert!(
            output.is_ready(),
            "the future at {place} was to be no checkpoint, and it yielded"
        );
        assert!(
            seen == Seen::default(),
            "the future at {place} was to be no checkpoint, and it looked for a cancellation"
        );
        output
    }
}

impl<F> fmt::Debug for AssertCheckpoints<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AssertCheckpoints({:?})", self.seen)
    }
}

impl<F> fmt::Debug for AssertNoCheckpoints<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AssertNoCheckpoints")
    }
}
