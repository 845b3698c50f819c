//! An asynchronous function over many items, a limited number at a time.
//!
//! There are as many workers as items may be worked on at the same time. Each takes item after item
//! from the iterator, which is asked for the next one only when a worker is free. So an endless
//! iterator is fine, and a million items cost a thousand tasks if the limit is a thousand.

use std::cell::RefCell;
use std::future::Future;
use std::iter::Enumerate;
use std::panic::Location;

use super::{Together, plain, start};
use crate::error::Result;
use crate::lowlevel::enter_operation;
use crate::nursery::{Nursery, open_nursery_at};

/// Calls `f` with each of `items`, at most `limit` at the same time, and returns the values in the
/// order of the items.
///
/// Items are taken from the iterator only when there is room for them. `usize::MAX` means no limit.
///
/// # Cancellation
///
/// A cancel point before each item but the first of each worker; those that are being worked on
/// decide for themselves.
///
/// # Errors
///
/// The first failure cancels the rest, and no further item is taken: a group of what went wrong, in
/// order of arrival; one plain `Cancelled` if nothing else did.
///
/// # Panics
///
/// If `limit` is zero: nothing would ever begin.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::{checkpoint, map_concurrent};
///
/// let lengths = map_concurrent(["one", "three"], 10, async |word| {
///     checkpoint().await?;
///     Ok(word.len())
/// })
/// .await?;
/// assert_eq!(lengths, [3, 5]);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "amap")]
#[doc(alias = "buffered")]
#[track_caller]
pub fn map_concurrent<I, F, T>(items: I, limit: usize, f: F) -> impl Future<Output = Result<Vec<T>>>
where
    I: IntoIterator,
    F: AsyncFn(I::Item) -> Result<T>,
{
    let place = check(limit);
    async move {
        let together = Together::default();
        let values = RefCell::new(Vec::new());
        let take = |index: usize, value| {
            let mut values = values.borrow_mut();
            if values.len() <= index {
                values.resize_with(index + 1, || None);
            }
            values[index] = Some(value);
        };
        each(place, items, limit, &f, &take, &together).await?;
        let values: Option<Vec<T>> = values.into_inner().into_iter().collect();
        values.ok_or_else(|| together.missing(MISSING))
    }
}

/// Like [`map_concurrent`], but returns the values in the order in which they arrived.
///
/// # Cancellation
///
/// As for [`map_concurrent`].
///
/// # Errors
///
/// As for [`map_concurrent`].
///
/// # Panics
///
/// As [`map_concurrent`].
#[doc(alias = "buffer_unordered")]
#[track_caller]
pub fn map_concurrent_unordered<I, F, T>(
    items: I,
    limit: usize,
    f: F,
) -> impl Future<Output = Result<Vec<T>>>
where
    I: IntoIterator,
    F: AsyncFn(I::Item) -> Result<T>,
{
    let place = check(limit);
    async move {
        let together = Together::default();
        let values = RefCell::new(Vec::new());
        let take = |_, value| values.borrow_mut().push(value);
        each(place, items, limit, &f, &take, &together).await?;
        Ok(values.into_inner())
    }
}

/// Like [`map_concurrent`], for an `f` that returns nothing.
///
/// # Cancellation
///
/// As for [`map_concurrent`].
///
/// # Errors
///
/// As for [`map_concurrent`].
///
/// # Panics
///
/// As [`map_concurrent`].
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::cell::Cell;
/// use trio::{checkpoint, for_each_concurrent};
///
/// let sum = Cell::new(0);
/// for_each_concurrent(1..=100, 8, async |n| {
///     checkpoint().await?;
///     sum.set(sum.get() + n);
///     Ok(())
/// })
/// .await?;
/// assert_eq!(sum.get(), 5050);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn for_each_concurrent<I, F>(items: I, limit: usize, f: F) -> impl Future<Output = Result<()>>
where
    I: IntoIterator,
    F: AsyncFn(I::Item) -> Result<()>,
{
    let place = check(limit);
    async move {
        let together = Together::default();
        each(place, items, limit, &f, &|_, ()| {}, &together).await
    }
}

#[track_caller]
fn check(limit: usize) -> &'static Location<'static> {
    assert!(
        limit > 0,
        "a limit of zero would let nothing begin: say how many may run at the same time"
    );
    Location::caller()
}

/// Runs the workers, and hands each value to `take` with the place of its item.
async fn each<I, F, T>(
    place: &'static Location<'static>,
    items: I,
    limit: usize,
    f: &F,
    take: &impl Fn(usize, T),
    together: &Together,
) -> Result<()>
where
    I: IntoIterator,
    F: AsyncFn(I::Item) -> Result<T>,
{
    let items: RefCell<Enumerate<I::IntoIter>> = RefCell::new(items.into_iter().enumerate());
    let items = &items;
    open_nursery_at(place, async |nursery: &Nursery<'_, '_>| {
        for _ in 0..limit {
            let Some(first) = items.borrow_mut().next() else {
                break;
            };
            let worker = async move {
                let mut item = Some(first);
                while let Some((index, each)) = item {
                    take(index, f(each).await?);
                    enter_operation().await?;
                    item = items.borrow_mut().next();
                }
                Ok(())
            };
            let note = |output: Result<()>| output.map_err(|error| together.note(error));
            start(nursery, place, worker, note);
        }
        Ok(())
    })
    .await
    .map_err(plain)?;
    // A worker that returned a cancellation which nobody had asked for has left items behind.
    match together.cancelled.take() {
        Some(cancelled) => Err(crate::error::Error::cancelled(cancelled)),
        None => Ok(()),
    }
}

const MISSING: &str = "an item has been left without a value";
