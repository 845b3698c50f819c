//! Several futures at once: all of them, the first of them, each as it ends, or a limited number at
//! a time.
//!
//! | Function                         | ends when                        | a failure                      |
//! |----------------------------------|----------------------------------|--------------------------------|
//! | [`try_join`], [`try_join_all`]   | all have ended                   | cancels the rest, comes out    |
//! | [`join()`], [`join_all`]         | all have ended                   | is one of the outputs          |
//! | [`race()`], [`race_all`]         | the first has ended, well or not | cancels the rest, comes out    |
//! | [`race_ok`], [`race_ok_all`]     | the first has ended well         | counts only if all have failed |
//! | [`as_completed`]                 | its body has ended               | cancels the rest, comes out    |
//! | [`map_concurrent`] and its kin   | all items have been through      | cancels the rest, comes out    |
//!
//! `…_all` takes an iterator of futures of one type; the function without it takes a tuple of two to
//! eight, each of a type of its own.
//!
//! Each is a nursery. Every future is a task of its own, which is polled when it is woken and not
//! when another is, and it has *ended* when the call returns. A loser is cancelled and waited for;
//! it is never dropped half-way, so it can finish what it had begun.
//!
//! 1. **Errors** come as one group in order of arrival, as from any nursery. If there were only
//!    cancellations, the call returns one plain `Cancelled`, as any operation does.
//! 2. **Nothing is lost.** A race hands each success that it does not return to its sink. The
//!    values that a `try_join` had received before another future failed are dropped: use `join`
//!    where that matters.
//! 3. A **panic** of one cancels the rest, which are waited for, and continues in the caller.
//! 4. If such a call is **dropped** half-way, by a foreign combinator, so are the futures in it
//!    (N14); if it is **forgotten**, they are not polled again (N15).
//!
//! # Examples
//!
//! ```
//! # use trio_runtime as trio;
//! # trio::run(async {
//! use std::time::Duration;
//! use trio::{race, sleep, try_join};
//!
//! let page = async { sleep(Duration::from_millis(2)).await.map(|()| "page") };
//! let count = async { Ok(3) };
//! assert_eq!(try_join((page, count)).await?, ("page", 3));
//!
//! let slow = async { sleep(Duration::from_secs(60)).await.map(|()| "slow") };
//! let quick = async { sleep(Duration::from_millis(1)).await.map(|()| "quick") };
//! // `drop` says that a success that comes too late may be thrown away.
//! assert_eq!(race((slow, quick), drop).await?, "quick");
//! # Ok::<(), trio::Error>(()) }).unwrap();
//! ```

mod completed;
mod join;
mod map;
mod race;

use std::cell::Cell;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

pub use completed::{Completed, NextCompleted, as_completed};
pub use join::{JoinTuple, TryJoinTuple, join, join_all, try_join, try_join_all};
pub use map::{for_each_concurrent, map_concurrent, map_concurrent_unordered};
use pin_project_lite::pin_project;
pub use race::{RaceTuple, race, race_all, race_ok, race_ok_all};

use crate::cancel::Cancelled;
use crate::error::{Error, Result, Usage};
use crate::nursery::Nursery;

pin_project! {
    /// A future, and what is done with its output in the same poll.
    // An async block would hold the future twice, as what it captures and as what it awaits.
    struct Then<F, S> {
        #[pin]
        future: F,
        then: S,
    }
}

impl<F, S> Future for Then<F, S>
where
    F: Future,
    S: FnMut(F::Output) -> Result<()>,
{
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.project();
        let output = ready!(this.future.poll(context));
        Poll::Ready((this.then)(output))
    }
}

/// Starts `future` as a child that is named after it, and not after the code that surrounds it
/// here.
fn start<'scope, F, S>(
    nursery: &'scope Nursery<'scope, '_>,
    place: &'static Location<'static>,
    future: F,
    then: S,
) where
    F: Future + 'scope,
    S: FnMut(F::Output) -> Result<()> + 'scope,
{
    let name = crate::task::tidy_type_name(std::any::type_name::<F>());
    nursery.start_at(Some(name.into()), place, Then { future, then });
}

/// Shared by the futures of one call, besides their nursery.
#[derive(Default)]
struct Together {
    /// The first cancellation that one of them returned. The nursery catches a cancellation that
    /// nobody has asked for (S7), and then a value is missing: this is returned in its place.
    cancelled: Cell<Option<Cancelled>>,
}

impl Together {
    /// Remembers an error on its way to the nursery, if it is the first cancellation.
    fn note(&self, error: Error) -> Error {
        if let Some(cancelled) = only_cancelled(&error) {
            let first = self.cancelled.take().unwrap_or(cancelled);
            self.cancelled.set(Some(first));
        }
        error
    }

    /// The error if the nursery ended well but there is no value.
    fn missing(&self, why: &'static str) -> Error {
        match self.cancelled.take() {
            Some(cancelled) => Error::cancelled(cancelled),
            None => Usage::new(why).into(),
        }
    }
}

/// The error of a call, from the error of its nursery: a group of only cancellations becomes a
/// plain one.
fn plain(error: Error) -> Error {
    only_cancelled(&error).map_or(error, Error::cancelled)
}

/// The first cancellation, if there is nothing else.
fn only_cancelled(error: &Error) -> Option<Cancelled> {
    let first = error.leaves().next().and_then(Error::as_cancelled);
    first.filter(|_| error.is_cancelled()).cloned()
}
