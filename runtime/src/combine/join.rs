//! Waiting for all of several futures.

use std::cell::RefCell;
use std::future::Future;
use std::panic::Location;

use super::{Together, plain, start};
use crate::error::Result;
use crate::nursery::{Nursery, open_nursery_at};

/// Runs `futures` concurrently, and returns their values in the order of the futures.
///
/// The first failure cancels the rest, which are waited for. The values of futures that had already
/// succeeded are then dropped; [`join_all`] keeps them.
///
/// # Cancellation
///
/// Not a cancel point by itself: the futures decide, and if all of them end well, their values are
/// returned.
///
/// # Errors
///
/// A group of what went wrong, in order of arrival; one plain `Cancelled` if nothing else did.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::{checkpoint, try_join_all};
///
/// let squares = try_join_all((1..=3).map(async |n| {
///     checkpoint().await?;
///     Ok(n * n)
/// }))
/// .await?;
/// assert_eq!(squares, [1, 4, 9]);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "gather")]
#[track_caller]
pub fn try_join_all<I, F, T>(futures: I) -> impl Future<Output = Result<Vec<T>>>
where
    I: IntoIterator<Item = F>,
    F: Future<Output = Result<T>>,
{
    let place = Location::caller();
    async move {
        let together = Together::default();
        let values = RefCell::new(Vec::new());
        let (together_ref, values_ref) = (&together, &values);
        open_nursery_at(place, async |nursery: &Nursery<'_, '_>| {
            for (index, future) in futures.into_iter().enumerate() {
                values_ref.borrow_mut().push(None);
                start(nursery, place, future, move |output| {
                    let value = output.map_err(|error| together_ref.note(error))?;
                    values_ref.borrow_mut()[index] = Some(value);
                    Ok(())
                });
            }
            Ok(())
        })
        .await
        .map_err(plain)?;
        let values = values.into_inner().into_iter();
        let values: Option<Vec<T>> = values.collect();
        values.ok_or_else(|| together.missing(MISSING))
    }
}

/// Runs `futures` concurrently until all have ended, and returns their outputs in the order of the
/// futures.
///
/// A failure of one cancels no other: if the outputs are `Result`s, look at each yourself,
/// cancellations included.
///
/// # Cancellation
///
/// Not a cancel point by itself. Under a cancel the futures end in their own way, and the outputs
/// say how; the next cancel point reports again.
///
/// # Errors
///
/// [`NestedTooDeeply`](crate::NestedTooDeeply) only.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::{Error, join_all};
///
/// let outputs = join_all(["7", "x"].map(async |text| text.parse::<u32>().map_err(Error::from)))
///     .await?;
/// assert!(matches!(outputs[..], [Ok(7), Err(_)]));
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn join_all<I, F>(futures: I) -> impl Future<Output = Result<Vec<F::Output>>>
where
    I: IntoIterator<Item = F>,
    F: Future,
{
    let place = Location::caller();
    async move {
        let outputs = RefCell::new(Vec::new());
        let outputs_ref = &outputs;
        open_nursery_at(place, async |nursery: &Nursery<'_, '_>| {
            for (index, future) in futures.into_iter().enumerate() {
                outputs_ref.borrow_mut().push(None);
                start(nursery, place, future, move |output| {
                    outputs_ref.borrow_mut()[index] = Some(output);
                    Ok(())
                });
            }
            Ok(())
        })
        .await?;
        let outputs = outputs.into_inner().into_iter();
        Ok(outputs.map(|output| output.expect(ENDED)).collect())
    }
}

/// Runs a tuple of futures concurrently, and returns the tuple of their values; like
/// [`try_join_all`], for futures of different types.
///
/// # Cancellation
///
/// As for [`try_join_all`].
///
/// # Errors
///
/// As for [`try_join_all`].
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::try_join;
///
/// let (name, age) = try_join((async { Ok("Ada") }, async { Ok(36) })).await?;
/// assert_eq!((name, age), ("Ada", 36));
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn try_join<J: TryJoinTuple>(futures: J) -> impl Future<Output = Result<J::Values>> {
    futures.try_join_at(Location::caller(), Sealed::new())
}

/// Runs a tuple of futures concurrently until all have ended, and returns the tuple of their
/// outputs; like [`join_all`], for futures of different types.
///
/// # Cancellation
///
/// As for [`join_all`].
///
/// # Errors
///
/// [`NestedTooDeeply`](crate::NestedTooDeeply) only.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::join;
///
/// let (number, text) = join((async { 7 }, async { "seven" })).await?;
/// assert_eq!((number, text), (7, "seven"));
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn join<J: JoinTuple>(futures: J) -> impl Future<Output = Result<J::Outputs>> {
    futures.join_at(Location::caller(), Sealed::new())
}

/// Tuples of two to eight futures that return results, for [`try_join`].
pub trait TryJoinTuple {
    /// The tuple of their values.
    type Values;

    #[doc(hidden)]
    fn try_join_at(
        self,
        place: &'static Location<'static>,
        sealed: Sealed,
    ) -> impl Future<Output = Result<Self::Values>>;
}

/// Tuples of two to eight futures, for [`join`].
pub trait JoinTuple {
    /// The tuple of their outputs.
    type Outputs;

    #[doc(hidden)]
    fn join_at(
        self,
        place: &'static Location<'static>,
        sealed: Sealed,
    ) -> impl Future<Output = Result<Self::Outputs>>;
}

/// Can be made by this module only, so that nobody else can call or implement the traits of tuples.
#[derive(Debug)]
#[expect(unnameable_types, reason = "what has no name cannot be made elsewhere")]
pub struct Sealed(());

impl Sealed {
    pub(super) fn new() -> Self {
        Self(())
    }
}

macro_rules! tuples {
    ($(($($future:ident $name:ident $value:ident $slot:ident),+))+) => {$(
        impl<$($future, $value),+> TryJoinTuple for ($($future,)+)
        where
            $($future: Future<Output = Result<$value>>,)+
        {
            type Values = ($($value,)+);

            async fn try_join_at(
                self,
                place: &'static Location<'static>,
                _: Sealed,
            ) -> Result<Self::Values> {
                let together = Together::default();
                $(let mut $slot = None;)+
                {
                    let slots = ($(&mut $slot,)+);
                    let together = &together;
                    open_nursery_at(place, async |nursery: &Nursery<'_, '_>| {
                        let ($($name,)+) = self;
                        let ($($slot,)+) = slots;
                        $(start(nursery, place, $name, move |output: Result<$value>| {
                            *$slot = Some(output.map_err(|error| together.note(error))?);
                            Ok(())
                        });)+
                        Ok(())
                    })
                    .await
                    .map_err(plain)?;
                }
                match ($($slot,)+) {
                    ($(Some($slot),)+) => Ok(($($slot,)+)),
                    _ => Err(together.missing(MISSING)),
                }
            }
        }

        impl<$($future),+> JoinTuple for ($($future,)+)
        where
            $($future: Future,)+
        {
            type Outputs = ($($future::Output,)+);

            async fn join_at(
                self,
                place: &'static Location<'static>,
                _: Sealed,
            ) -> Result<Self::Outputs> {
                $(let mut $slot = None;)+
                {
                    let slots = ($(&mut $slot,)+);
                    open_nursery_at(place, async |nursery: &Nursery<'_, '_>| {
                        let ($($name,)+) = self;
                        let ($($slot,)+) = slots;
                        $(start(nursery, place, $name, move |output| {
                            *$slot = Some(output);
                            Ok(())
                        });)+
                        Ok(())
                    })
                    .await?;
                }
                Ok(($($slot.expect(ENDED),)+))
            }
        }
    )+};
}

tuples! {
    (A a VA sa, B b VB sb)
    (A a VA sa, B b VB sb, C c VC sc)
    (A a VA sa, B b VB sb, C c VC sc, D d VD sd)
    (A a VA sa, B b VB sb, C c VC sc, D d VD sd, E e VE se)
    (A a VA sa, B b VB sb, C c VC sc, D d VD sd, E e VE se, F f VF sf)
    (A a VA sa, B b VB sb, C c VC sc, D d VD sd, E e VE se, F f VF sf, G g VG sg)
    (A a VA sa, B b VB sb, C c VC sc, D d VD sd, E e VE se, F f VF sf, G g VG sg, H h VH sh)
}

const ENDED: &str = "a child that ended without a panic has an output";

const MISSING: &str = "a future ended without a value";
