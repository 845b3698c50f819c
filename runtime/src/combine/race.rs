//! The first of several futures to end, and what happens to the others.
//!
//! 1. The first end that counts decides: for [`race`] the first that is not a cancellation, for
//!    [`race_ok`] the first success. From then on the others are cancelled, and waited for.
//! 2. An operation that happened is not undone by a cancel (C5), so a loser can still succeed. Its
//!    value, and any other success that is not returned, goes to the sink, exactly once.
//! 3. A loser that fails on its way out has failed: [`race`] returns that error, and hands the
//!    value of the winner to the sink. [`race_ok`] ignores such an error like any other, once a
//!    future has won.
//! 4. If an enclosing scope is cancelled and a future succeeded nevertheless, that success is
//!    returned.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::Location;

use super::join::Sealed;
use super::{Together, plain, start};
use crate::cancel::{CancelSource, Cancelled};
use crate::error::{Error, Result};
use crate::nursery::{Nursery, open_nursery_at};

/// Runs a tuple of futures with the same type of value until the first has ended, and returns its
/// value, or its error.
///
/// The others are cancelled and waited for. If one succeeds nevertheless, its value is handed to
/// `late`: pass [`drop`] if it may be thrown away. To learn which future has won, let each map its
/// value to a variant of an enum.
///
/// Use this race if a failure must be seen, as when a server races against the signal to stop;
/// [`race_ok`] is for attempts any of which may fail.
///
/// # Cancellation
///
/// Not a cancel point by itself: the futures decide. A success is returned even if an enclosing
/// scope has been cancelled meanwhile.
///
/// # Errors
///
/// A group of the error that decided and of the errors of losers on their way out; one plain
/// `Cancelled` if all were cancelled. If a loser fails after a winner, the winner's value has gone
/// to `late`.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{race, sleep, sleep_forever};
///
/// enum Event { Data(Vec<u8>), Stop }
///
/// let data = async { sleep_forever().await.map(|()| Event::Data(Vec::new())) };
/// let stop = async { sleep(Duration::from_millis(1)).await.map(|()| Event::Stop) };
/// let mut too_late = Vec::new();
/// match race((data, stop), |event| too_late.push(event)).await? {
///     Event::Data(_) => unreachable!(),
///     Event::Stop => assert!(too_late.is_empty()),
/// }
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "select")]
#[doc(alias = "wait_any")]
#[track_caller]
pub fn race<R: RaceTuple>(
    futures: R,
    late: impl FnMut(R::Value),
) -> impl Future<Output = Result<R::Value>> {
    futures.race_at(Location::caller(), Rule::FirstEnd, late, Sealed::new())
}

/// Runs a tuple of futures with the same type of value until the first has *succeeded*; those that
/// fail before drop out of the race.
///
/// The others are cancelled and waited for; see [`race`] for `late`.
///
/// # Cancellation
///
/// As for [`race`].
///
/// # Errors
///
/// If none has won: a group of all failures in order of arrival, or one plain `Cancelled` if all
/// were cancelled. If one has, the failures of the others are dropped.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::{Error, checkpoint, race_ok};
///
/// let broken = async { Err(Error::msg("no such mirror")) };
/// let slow = async { checkpoint().await.map(|()| "the file") };
/// assert_eq!(race_ok((broken, slow), drop).await?, "the file");
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "select_ok")]
#[doc(alias = "first_ok")]
#[doc(alias = "any")]
#[track_caller]
pub fn race_ok<R: RaceTuple>(
    futures: R,
    late: impl FnMut(R::Value),
) -> impl Future<Output = Result<R::Value>> {
    futures.race_at(Location::caller(), Rule::FirstSuccess, late, Sealed::new())
}

/// Like [`race`], for an iterator of futures of one type.
///
/// # Cancellation
///
/// As for [`race`].
///
/// # Errors
///
/// As for [`race`]; [`Usage`](crate::Usage) if there are no futures.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{race_all, sleep};
///
/// let delays = [30, 1, 20];
/// let first = race_all(
///     delays.map(async |ms| sleep(Duration::from_millis(ms)).await.map(|()| ms)),
///     drop,
/// )
/// .await?;
/// assert_eq!(first, 1);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn race_all<I, F, T>(futures: I, late: impl FnMut(T)) -> impl Future<Output = Result<T>>
where
    I: IntoIterator<Item = F>,
    F: Future<Output = Result<T>>,
{
    all(Location::caller(), Rule::FirstEnd, futures, late)
}

/// Like [`race_ok`], for an iterator of futures of one type.
///
/// # Cancellation
///
/// As for [`race`].
///
/// # Errors
///
/// As for [`race_ok`]; [`Usage`](crate::Usage) if there are no futures.
#[track_caller]
pub fn race_ok_all<I, F, T>(futures: I, late: impl FnMut(T)) -> impl Future<Output = Result<T>>
where
    I: IntoIterator<Item = F>,
    F: Future<Output = Result<T>>,
{
    all(Location::caller(), Rule::FirstSuccess, futures, late)
}

async fn all<I, F, T>(
    place: &'static Location<'static>,
    rule: Rule,
    futures: I,
    late: impl FnMut(T),
) -> Result<T>
where
    I: IntoIterator<Item = F>,
    F: Future<Output = Result<T>>,
{
    let track = Track::new(rule, late);
    let track_ref = &track;
    let result = open_nursery_at(place, async |nursery: &Nursery<'_, '_>| {
        for future in futures {
            start(nursery, place, future, |output| {
                track_ref.end(output, nursery)
            });
        }
        Ok(())
    })
    .await;
    track.result(result)
}

/// What ends a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
#[expect(unnameable_types, reason = "only the functions above say it")]
pub enum Rule {
    FirstEnd,
    FirstSuccess,
}

/// Where the futures of one race arrive.
struct Track<T, L> {
    rule: Rule,
    winner: Cell<Option<T>>,
    /// Whether a failure has decided: then no future wins any more.
    lost: Cell<bool>,
    failures: RefCell<Vec<Error>>,
    together: Together,
    late: RefCell<L>,
}

impl<T, L: FnMut(T)> Track<T, L> {
    fn new(rule: Rule, late: L) -> Self {
        Self {
            rule,
            winner: Cell::new(None),
            lost: Cell::new(false),
            failures: RefCell::default(),
            together: Together::default(),
            late: RefCell::new(late),
        }
    }

    /// Handles the end of one of the futures; returns what its nursery should see of it.
    fn end(&self, output: Result<T>, nursery: &Nursery<'_, '_>) -> Result<()> {
        match output {
            Ok(value) => {
                let winner = self.winner.take();
                if self.lost.get() || winner.is_some() {
                    self.winner.set(winner);
                    (self.late.borrow_mut())(value);
                    return Ok(());
                }
                self.winner.set(Some(value));
                nursery.cancel_as(Cancelled::new(
                    CancelSource::Nursery,
                    Some("another has won the race".into()),
                    None,
                    None,
                ));
                Ok(())
            }
            Err(error) if error.is_cancelled() => Err(self.together.note(error)),
            Err(error) if self.rule == Rule::FirstSuccess => {
                self.failures.borrow_mut().push(error);
                Ok(())
            }
            Err(error) => {
                let winner = self.winner.take();
                self.lost.set(winner.is_none());
                self.winner.set(winner);
                Err(error)
            }
        }
    }

    /// The result when all have ended.
    fn result(self, result: Result<()>) -> Result<T> {
        let mut failures = self.failures.into_inner();
        match (self.winner.into_inner(), result) {
            (Some(winner), Ok(())) => Ok(winner),
            // Either only losers were cancelled, or the rule ignores their errors.
            (Some(winner), Err(error))
                if error.is_cancelled() || self.rule == Rule::FirstSuccess =>
            {
                Ok(winner)
            }
            (Some(winner), Err(error)) => {
                (self.late.into_inner())(winner);
                Err(error)
            }
            (None, result) if failures.is_empty() => Err(match result {
                Ok(()) => self.together.missing("nobody wins a race without futures"),
                Err(error) => plain(error),
            }),
            (None, result) => {
                failures.extend(result.err());
                Err(Error::group("nobody has won the race", failures))
            }
        }
    }
}

/// Tuples of two to eight futures with the same type of value, for [`race`] and [`race_ok`].
pub trait RaceTuple {
    /// What the winner returns.
    type Value;

    #[doc(hidden)]
    fn race_at(
        self,
        place: &'static Location<'static>,
        rule: Rule,
        late: impl FnMut(Self::Value),
        sealed: Sealed,
    ) -> impl Future<Output = Result<Self::Value>>;
}

macro_rules! tuples {
    ($(($($future:ident $name:ident),+))+) => {$(
        impl<Value, $($future),+> RaceTuple for ($($future,)+)
        where
            $($future: Future<Output = Result<Value>>,)+
        {
            type Value = Value;

            async fn race_at(
                self,
                place: &'static Location<'static>,
                rule: Rule,
                late: impl FnMut(Value),
                _: Sealed,
            ) -> Result<Value> {
                let track = Track::new(rule, late);
                let track_ref = &track;
                let result = open_nursery_at(place, async |nursery: &Nursery<'_, '_>| {
                    let ($($name,)+) = self;
                    $(start(nursery, place, $name, |output| track_ref.end(output, nursery));)+
                    Ok(())
                })
                .await;
                track.result(result)
            }
        }
    )+};
}

tuples! {
    (A a, B b)
    (A a, B b, C c)
    (A a, B b, C c, D d)
    (A a, B b, C c, D d, E e)
    (A a, B b, C c, D d, E e, F f)
    (A a, B b, C c, D d, E e, F f, G g)
    (A a, B b, C c, D d, E e, F f, G g, H h)
}
