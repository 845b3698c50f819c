//! One of several operations: the first that is possible is done, and no other.
//!
//! Every operation stands in its own line with the same wait. Whoever has something for one of them
//! claims that wait, which is possible only once; what the others would have received stays where
//! it is. So the operations that lose have not happened, and there is nothing to undo.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::operation::{self, Operation};
use super::waiters::Place;
use crate::cancel::Cancelled;
use crate::context;
use crate::error::{Error, Result};
use crate::wait::Parked;

/// An operation that [`select`] can choose: a send or a receive of a channel of any kind, a change of a
/// watch, the [wait](crate::sync::Event::wait) for an event, a [`sleep`](crate::sleep).
///
/// The futures of these operations implement it, and so do mutable references to them. Nobody else
/// can: choosing needs an operation that can be attempted, and left without a trace.
pub trait Selectable {
    /// What the operation returns.
    type Output;

    /// Whether other threads may end the wait.
    #[doc(hidden)]
    const REMOTE: bool;

    #[doc(hidden)]
    fn attempt(&mut self) -> Option<Self::Output>;

    #[doc(hidden)]
    fn enlist(&mut self, place: &Place<'_>) -> bool;

    #[doc(hidden)]
    fn withdraw(&mut self) -> Option<Self::Output>;

    #[doc(hidden)]
    fn abandon(&mut self);

    #[doc(hidden)]
    fn is_settled(&mut self, waker: &Waker) -> bool;
}

impl<S: Selectable> Selectable for &mut S {
    type Output = S::Output;

    const REMOTE: bool = S::REMOTE;

    fn attempt(&mut self) -> Option<S::Output> {
        (**self).attempt()
    }

    fn enlist(&mut self, place: &Place<'_>) -> bool {
        (**self).enlist(place)
    }

    fn withdraw(&mut self) -> Option<S::Output> {
        (**self).withdraw()
    }

    fn abandon(&mut self) {
        (**self).abandon();
    }

    fn is_settled(&mut self, waker: &Waker) -> bool {
        (**self).is_settled(waker)
    }
}

/// Does one of several operations, the first that is possible, and none of the others.
///
/// `operations` is a tuple of up to eight, an array, or a `Vec`. For a tuple the output is a
/// [`Selected`]; for the others it is the index of the operation that was done, and its result. If
/// several can be done at once, the choice is at random (the same in each run with the same
/// [`seed`](crate::Builder::seed)), so that none starves; [`Select::biased`] prefers the first.
///
/// The others have not happened: no value is taken, and a value that was to be sent is still with its
/// future. Pass `&mut` futures to go on with them: a [`sleep`](crate::sleep) that is made before a loop
/// and passed by `&mut` in each round counts from the first.
///
/// Of several that become possible in the same turn, the first to do so is done; a sleep and the wait for
/// an event, which nobody else can take, give way to the others.
///
/// # Cancellation
///
/// A checkpoint. Cancelled means that none has happened; the same if it is dropped.
///
/// # Errors
///
/// `Cancelled` only: an error of the operation is in the output.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::channel::Selected;
/// use trio::sync::Event;
/// use trio::{open_memory_channel, select, sleep};
///
/// let (jobs, work) = open_memory_channel(8);
/// let stop = Event::new();
/// jobs.send("a job").await?;
/// let mut done = 0;
/// loop {
///     let idle = sleep(Duration::from_secs(60));
///     match select((work.receive(), stop.wait(), idle)).await? {
///         Selected::First(job) => {
///             assert_eq!(job?, "a job");
///             done += 1;
///             stop.set();
///         }
///         Selected::Second(stopped) => break stopped?,
///         Selected::Third(_) => unreachable!("a minute without a job"),
///     }
/// }
/// assert_eq!(done, 1);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub fn select<C: Cases>(operations: C) -> Select<C> {
    Select {
        operation: OneOf {
            cases: operations,
            biased: false,
        },
        parked: None,
    }
}

/// The future of [`select`].
#[must_use = "futures do nothing unless polled"]
pub struct Select<C: Cases> {
    operation: OneOf<C>,
    parked: Option<Parked>,
}

impl<C: Cases> Select<C> {
    /// Prefers the first operation that can be done, in the order in which they are given.
    pub fn biased(mut self) -> Self {
        self.operation.biased = true;
        self
    }
}

impl<C: Cases> Future for Select<C> {
    type Output = Result<C::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        operation::poll(&mut this.operation, &mut this.parked, true, context)
    }
}

// No operation is ever pinned in place.
impl<C: Cases> Unpin for Select<C> {}

impl<C: Cases> fmt::Debug for Select<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Select")
            .field("waiting", &self.parked.is_some())
            .finish()
    }
}

struct OneOf<C: Cases> {
    cases: C,
    biased: bool,
}

impl<C: Cases> Operation for OneOf<C> {
    type Output = Result<C::Output>;

    const WHAT: &'static str = "select";
    const REMOTE: bool = C::REMOTE;

    fn attempt(&mut self) -> Option<Self::Output> {
        let count = self.cases.count();
        let first = match count {
            0 | 1 => 0,
            _ if self.biased => 0,
            _ => context::with(|run| run.choose(count)),
        };
        let mut order = (first..count).chain(0..first);
        order.find_map(|case| self.cases.attempt(case)).map(Ok)
    }

    fn enlist(&mut self, place: &Place<'_>) -> bool {
        (0..self.cases.count()).all(|case| self.cases.enlist(case, place))
    }

    fn withdraw(&mut self) -> Option<Self::Output> {
        let mut won = None;
        for case in 0..self.cases.count() {
            if let Some(output) = self.cases.withdraw(case) {
                debug_assert!(won.is_none(), "a wait is claimed once");
                won = Some(Ok(output));
            }
        }
        won
    }

    fn refused(&mut self, cancelled: Cancelled) -> Self::Output {
        Err(Error::cancelled(cancelled))
    }

    fn abandon(&mut self) {
        for case in 0..self.cases.count() {
            self.cases.abandon(case);
        }
    }

    fn is_settled(&mut self, waker: &Waker) -> bool {
        let mut settled = false;
        for case in 0..self.cases.count() {
            settled |= self.cases.is_settled(case, waker);
        }
        settled
    }
}

/// Leaves every line: a case that is a reference to a future goes on without this.
impl<C: Cases> Drop for Select<C> {
    fn drop(&mut self) {
        if self.parked.is_some() {
            self.operation.abandon();
        }
    }
}

/// Several operations: a tuple of them, an array, a `Vec`.
pub trait Cases {
    /// Which operation was done, and its result.
    type Output;

    #[doc(hidden)]
    const REMOTE: bool;

    #[doc(hidden)]
    fn count(&self) -> usize;

    #[doc(hidden)]
    fn attempt(&mut self, case: usize) -> Option<Self::Output>;

    #[doc(hidden)]
    fn enlist(&mut self, case: usize, place: &Place<'_>) -> bool;

    #[doc(hidden)]
    fn withdraw(&mut self, case: usize) -> Option<Self::Output>;

    #[doc(hidden)]
    fn abandon(&mut self, case: usize);

    #[doc(hidden)]
    fn is_settled(&mut self, case: usize, waker: &Waker) -> bool;
}

/// Which operation of a tuple was done, and its result. A `match` needs no arm for variants beyond
/// the length of the tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected<A, B, C = Absent, D = Absent, E = Absent, F = Absent, G = Absent, H = Absent> {
    /// The first was done.
    First(A),
    /// The second was done.
    Second(B),
    /// The third was done.
    Third(C),
    /// The fourth was done.
    Fourth(D),
    /// The fifth was done.
    Fifth(E),
    /// The sixth was done.
    Sixth(F),
    /// The seventh was done.
    Seventh(G),
    /// The eighth was done.
    Eighth(H),
}

/// The result of an operation that the tuple does not have: this type has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {}

macro_rules! tuple {
    ($count:literal: $($index:tt $type:ident $variant:ident),*) => {
        impl<$($type: Selectable),*> Cases for ($($type,)*) {
            type Output = Selected<$($type::Output),*>;

            const REMOTE: bool = $($type::REMOTE)||*;

            fn count(&self) -> usize {
                $count
            }

            fn attempt(&mut self, case: usize) -> Option<Self::Output> {
                match case {
                    $($index => self.$index.attempt().map(Selected::$variant),)*
                    _ => None,
                }
            }

            fn enlist(&mut self, case: usize, place: &Place<'_>) -> bool {
                match case {
                    $($index => self.$index.enlist(place),)*
                    _ => true,
                }
            }

            fn withdraw(&mut self, case: usize) -> Option<Self::Output> {
                match case {
                    $($index => self.$index.withdraw().map(Selected::$variant),)*
                    _ => None,
                }
            }

            fn abandon(&mut self, case: usize) {
                match case {
                    $($index => self.$index.abandon(),)*
                    _ => {}
                }
            }

            fn is_settled(&mut self, case: usize, waker: &Waker) -> bool {
                match case {
                    $($index => self.$index.is_settled(waker),)*
                    _ => false,
                }
            }
        }
    };
}

tuple!(2: 0 A First, 1 B Second);
tuple!(3: 0 A First, 1 B Second, 2 C Third);
tuple!(4: 0 A First, 1 B Second, 2 C Third, 3 D Fourth);
tuple!(5: 0 A First, 1 B Second, 2 C Third, 3 D Fourth, 4 E Fifth);
tuple!(6: 0 A First, 1 B Second, 2 C Third, 3 D Fourth, 4 E Fifth, 5 F Sixth);
tuple!(7: 0 A First, 1 B Second, 2 C Third, 3 D Fourth, 4 E Fifth, 5 F Sixth, 6 G Seventh);
tuple!(
    8: 0 A First, 1 B Second, 2 C Third, 3 D Fourth, 4 E Fifth, 5 F Sixth, 6 G Seventh, 7 H Eighth
);

macro_rules! list {
    ([$($generics:tt)*] $list:ty) => {
        impl<S: Selectable, $($generics)*> Cases for $list {
            type Output = (usize, S::Output);

            const REMOTE: bool = S::REMOTE;

            fn count(&self) -> usize {
                self.len()
            }

            fn attempt(&mut self, case: usize) -> Option<Self::Output> {
                let output = self[case].attempt()?;
                Some((case, output))
            }

            fn enlist(&mut self, case: usize, place: &Place<'_>) -> bool {
                self[case].enlist(place)
            }

            fn withdraw(&mut self, case: usize) -> Option<Self::Output> {
                let output = self[case].withdraw()?;
                Some((case, output))
            }

            fn abandon(&mut self, case: usize) {
                self[case].abandon();
            }

            fn is_settled(&mut self, case: usize, waker: &Waker) -> bool {
                self[case].is_settled(waker)
            }
        }
    };
}

list!([const N: usize] [S; N]);
list!([] Vec<S>);
