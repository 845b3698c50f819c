//! The one error type of the library: cheap to pass on, and a tree when several things went wrong.
//!
//! An [`Error`] is a cancellation, an [`io::Error`], one of the library's own small errors, any
//! other [`std::error::Error`], or a group of errors. A nursery reports a group even for a single
//! error, so that callers need not care how many children failed; [`Error::split`],
//! [`Error::subgroup`] and [`Error::leaves`] look into the tree as Python's `except*` does.
//!
//! Cancellations and I/O errors are held without an allocation. Through foreign traits that use
//! `io::Error`, every error travels inside one, and converting it back restores it. A cancellation
//! is recognised even if a foreign library has wrapped it in an error of its own.

mod group;
mod kinds;

use std::any::{Any, TypeId};
use std::error::Error as StdError;
use std::fmt;
use std::io;

pub use group::Leaves;
pub use kinds::{
    BrokenResource, BusyResource, ClosedResource, EndOfChannel, NestedTooDeeply, RunFinished,
    TooSlow, Usage, WouldBlock,
};

use crate::cancel::Cancelled;

/// The result of every fallible function of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error, or a group of them.
///
/// It is a cancellation, an [`io::Error`], one of the library's own small errors, any other
/// [`std::error::Error`], or a group of errors. A nursery reports a group even for a single error, so
/// that callers need not care how many children failed; [`split`](Self::split),
/// [`subgroup`](Self::subgroup) and [`leaves`](Self::leaves) look into the tree, as Python's `except*`
/// does. The library's own errors are
///
/// | error                | says                                              | Trio's name             |
/// |----------------------|---------------------------------------------------|-------------------------|
/// | [`Cancelled`]        | an enclosing scope has been cancelled             | `Cancelled`             |
/// | [`TooSlow`]          | a deadline passed that makes its scope fail       | `TooSlowError`          |
/// | [`WouldBlock`]       | a `try_…` would have to wait                      | `WouldBlock`            |
/// | [`EndOfChannel`]     | every sender is gone, and all has been received   | `EndOfChannel`          |
/// | [`BusyResource`]     | another task uses this direction                  | `BusyResourceError`     |
/// | [`ClosedResource`]   | this side has closed it                           | `ClosedResourceError`   |
/// | [`BrokenResource`]   | the other side, or the world, has broken it       | `BrokenResourceError`   |
/// | [`RunFinished`]      | the run is over                                   | `RunFinishedError`      |
/// | [`Usage`]            | a rule of the library was broken                  | `RuntimeError`          |
///
/// `Error` does not implement [`std::error::Error`] itself, because only then can `?` convert every
/// type that does; [`Error::into_boxed`] returns a type that implements it.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// use trio::{Error, TooSlow};
///
/// let error = Error::group("two failures", vec![
///     Error::from(std::io::Error::other("disk")),
///     Error::from(TooSlow::new()),
/// ]);
/// let (slow, rest) = error.split(|leaf| leaf.is::<TooSlow>());
/// assert!(slow.is_some());
/// assert_eq!(rest.unwrap().leaves().count(), 1);
/// ```
#[doc(alias = "ExceptionGroup")]
#[doc(alias = "MultiError")]
pub struct Error(Repr);

/// One word of content and a tag. So the result of a task is two words, which are returned in
/// registers. If it was returned through memory, every level of nurseries would pay for it on every
/// wake, and a level that polls a boxed future would need a frame of its own, since a call that
/// returns through memory is never a tail call.
enum Repr {
    Cancelled(Cancelled),
    Io(io::Error),
    /// Boxed twice, because the inner box is two words itself.
    Other(Box<Box<dyn StdError + Send + Sync>>),
    Group(Box<group::Group>),
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(
    size_of::<std::task::Poll<Result<()>>>() == 2 * size_of::<usize>(),
    "what a poll of a task gives is returned in registers"
);

impl Error {
    /// An error with a message of its own.
    #[doc(alias = "anyhow")]
    #[doc(alias = "bail")]
    pub fn msg(message: impl Into<String>) -> Self {
        Self::boxed(message.into().into())
    }

    /// A group of `errors`, in the order given.
    ///
    /// # Panics
    ///
    /// If `errors` is empty: an empty group is not an error.
    pub fn group(message: impl Into<std::borrow::Cow<'static, str>>, errors: Vec<Self>) -> Self {
        assert!(!errors.is_empty(), "a group of errors holds at least one");
        Self(Repr::Group(Box::new(group::Group {
            message: message.into(),
            errors,
        })))
    }

    /// Whether this is a cancellation, or a group of nothing but cancellations.
    pub fn is_cancelled(&self) -> bool {
        match &self.0 {
            Repr::Cancelled(_) => true,
            Repr::Io(_) | Repr::Other(_) => false,
            Repr::Group(_) => self
                .leaves()
                .all(|leaf| matches!(leaf.0, Repr::Cancelled(_))),
        }
    }

    /// The cancellation, if this is one; a group is not.
    pub fn as_cancelled(&self) -> Option<&Cancelled> {
        match &self.0 {
            Repr::Cancelled(cancelled) => Some(cancelled),
            _ => None,
        }
    }

    /// The members of a group, in order of arrival; `None` if this is not a group.
    pub fn as_group(&self) -> Option<&[Self]> {
        match &self.0 {
            Repr::Group(group) => Some(&group.errors),
            _ => None,
        }
    }

    /// Takes a group apart; returns the error itself if it is not a group.
    ///
    /// # Errors
    ///
    /// The error itself, if it is not a group.
    pub fn into_group(self) -> Result<Vec<Self>> {
        match self.0 {
            Repr::Group(group) => Ok(group.errors),
            other => Err(Self(other)),
        }
    }

    /// The one thing that went wrong, unwrapped from however many groups; returns the error itself
    /// if several things did.
    ///
    /// For a function that uses a nursery inside and does not want its callers to notice. An error
    /// takes precedence over cancellations, which are then left out; if there are only
    /// cancellations, this is the first of them. A panic never gets here: it comes out of the
    /// nursery as a panic.
    ///
    /// # Errors
    ///
    /// The error itself, if it holds several errors that are not cancellations.
    ///
    /// # Examples
    ///
    /// ```
    /// # use trio_runtime as trio;
    /// use trio::{BrokenResource, Error};
    ///
    /// let group = Error::group("errors in a nursery", vec![BrokenResource::new().into()]);
    /// // To go on with whatever it is, unwrapped if possible:
    /// let error = group.into_single().unwrap_or_else(|several| several);
    /// assert!(error.is::<BrokenResource>());
    /// ```
    pub fn into_single(self) -> Result<Self> {
        let real = |leaf: &&Self| leaf.as_cancelled().is_none();
        let several = self.leaves().filter(real).nth(1).is_some();
        if several {
            return Err(self);
        }
        let cancelled = self.is_cancelled();
        let leaves = self.into_leaves().into_iter();
        let mut single = leaves.skip_while(|leaf| !cancelled && leaf.as_cancelled().is_some());
        Ok(single.next().expect("a group holds at least one error"))
    }

    /// The error as a `T`, if this is one; never looks into groups.
    pub fn downcast_ref<T: StdError + 'static>(&self) -> Option<&T> {
        match &self.0 {
            Repr::Cancelled(cancelled) => (cancelled as &dyn Any).downcast_ref(),
            Repr::Io(error) => (error as &dyn Any).downcast_ref(),
            Repr::Other(error) => error.downcast_ref(),
            Repr::Group(_) => None,
        }
    }

    /// Whether the error is a `T`; never looks into groups.
    pub fn is<T: StdError + 'static>(&self) -> bool {
        self.downcast_ref::<T>().is_some()
    }

    /// The error as a `T`; returns it unchanged if it is something else.
    ///
    /// # Errors
    ///
    /// The error itself, if it is not a `T`.
    pub fn downcast<T: StdError + Send + Sync + 'static>(self) -> Result<T> {
        match self.0 {
            Repr::Cancelled(cancelled) => take(cancelled).map_err(|it| Self(Repr::Cancelled(it))),
            Repr::Io(error) => take(error).map_err(|it| Self(Repr::Io(it))),
            Repr::Other(error) => match error.downcast::<T>() {
                Ok(error) => Ok(*error),
                Err(error) => Err(Self::boxed(error)),
            },
            Repr::Group(group) => Err(Self(Repr::Group(group))),
        }
    }

    /// Makes an error of a boxed one of which only the trait is known, as other libraries return
    /// them. An error that [`into_boxed`](Self::into_boxed) packed comes out as it was.
    ///
    /// `?` converts every type that implements [`std::error::Error`], and a box of one does not.
    ///
    /// # Examples
    ///
    /// ```
    /// # use trio_runtime as trio;
    /// use trio::{Error, Result};
    ///
    /// fn parse(text: &str) -> std::result::Result<u16, Box<dyn std::error::Error + Send + Sync>> {
    ///     Ok(text.parse()?)
    /// }
    ///
    /// fn port(text: &str) -> Result<u16> {
    ///     parse(text).map_err(Error::from_boxed)
    /// }
    /// assert_eq!(port("http").unwrap_err().to_string(), "invalid digit found in string");
    /// ```
    pub fn from_boxed(error: Box<dyn StdError + Send + Sync>) -> Self {
        let error = match error.downcast::<io::Error>() {
            Ok(error) => return Self::from_io(*error),
            Err(error) => error,
        };
        let error = match error.downcast::<Opaque>() {
            Ok(opaque) => return opaque.0,
            Err(error) => error,
        };
        match cancelled_inside(error.as_ref()) {
            Some(cancelled) => Self(Repr::Cancelled(cancelled)),
            None => Self(Repr::Other(Box::new(error))),
        }
    }

    /// The error as a value that implements [`std::error::Error`].
    pub fn into_boxed(self) -> Box<dyn StdError + Send + Sync> {
        match self.0 {
            Repr::Other(error) => *error,
            other => Box::new(Opaque(Self(other))),
        }
    }

    /// The error as an [`io::Error`], for traits that use no other type; [`Error::from`] restores
    /// it, whatever it was.
    ///
    /// For callers that look at the kind, a deadline becomes `TimedOut`, and a broken resource
    /// `BrokenPipe`. A cancellation has no kind of its own: `Interrupted` would be retried.
    pub fn into_io(self) -> io::Error {
        match self.0 {
            Repr::Io(error) => error,
            Repr::Cancelled(cancelled) => io::Error::other(cancelled),
            other => {
                let error = Self(other);
                let kind = match () {
                    () if error.is::<TooSlow>() => io::ErrorKind::TimedOut,
                    () if error.is::<BrokenResource>() => io::ErrorKind::BrokenPipe,
                    () => io::ErrorKind::Other,
                };
                io::Error::new(kind, Opaque(error))
            }
        }
    }

    pub(crate) fn cancelled(cancelled: Cancelled) -> Self {
        Self(Repr::Cancelled(cancelled))
    }

    /// The cancellation, if this is one and not a group; otherwise the error itself.
    #[inline]
    pub(crate) fn into_cancelled(self) -> Result<Cancelled> {
        match self.0 {
            Repr::Cancelled(cancelled) => Ok(cancelled),
            other => Err(Self(other)),
        }
    }

    fn boxed(error: Box<dyn StdError + Send + Sync>) -> Self {
        Self(Repr::Other(Box::new(error)))
    }
}

/// `value` as a `T`, if that is its type; without an allocation and without unsafe code.
fn take<V: Any, T: Any>(value: V) -> std::result::Result<T, V> {
    let mut slot = Some(value);
    match (&mut slot as &mut dyn Any).downcast_mut::<Option<T>>() {
        Some(same) => Ok(same.take().expect("the slot was just filled")),
        None => Err(slot.expect("the slot was just filled")),
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        // Both tests are decided at compile time, once per type.
        if TypeId::of::<E>() == TypeId::of::<io::Error>() {
            if let Ok(error) = take::<E, io::Error>(error) {
                return Self::from_io(error);
            }
            unreachable!("the types were just compared");
        }
        if TypeId::of::<E>() == TypeId::of::<Cancelled>() {
            if let Ok(cancelled) = take::<E, Cancelled>(error) {
                return Self(Repr::Cancelled(cancelled));
            }
            unreachable!("the types were just compared");
        }
        match take::<E, Opaque>(error) {
            Ok(opaque) => opaque.0,
            Err(error) => match cancelled_inside(&error) {
                Some(cancelled) => Self(Repr::Cancelled(cancelled)),
                None => Self::boxed(Box::new(error)),
            },
        }
    }
}

/// The cancellation that a foreign library has put into an error of its own, somewhere along the
/// sources, where the scope that was cancelled would not find it.
fn cancelled_inside(error: &(dyn StdError + 'static)) -> Option<Cancelled> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(cancelled) = error.downcast_ref::<Cancelled>() {
            return Some(cancelled.clone());
        }
        if let Some(opaque) = error.downcast_ref::<Opaque>() {
            let first = opaque.0.leaves().next().filter(|_| opaque.0.is_cancelled());
            return first.and_then(Error::as_cancelled).cloned();
        }
        // The source of an `io::Error` is the source of the error inside, not the error inside.
        next = match error.downcast_ref::<io::Error>() {
            Some(io) => io
                .get_ref()
                .map(|inner| -> &(dyn StdError + 'static) { inner }),
            None => error.source(),
        };
    }
    None
}

impl Error {
    /// Unpacks what [`Error::into_io`] packed.
    fn from_io(error: io::Error) -> Self {
        if error
            .get_ref()
            .is_some_and(|inner| inner.is::<Cancelled>() || inner.is::<Opaque>())
        {
            if let Some(inner) = error.into_inner() {
                return match inner.downcast::<Cancelled>() {
                    Ok(cancelled) => Self(Repr::Cancelled(*cancelled)),
                    Err(inner) => match inner.downcast::<Opaque>() {
                        Ok(opaque) => opaque.0,
                        Err(inner) => Self::boxed(inner),
                    },
                };
            }
            unreachable!("the error has just been looked into");
        }
        match error.get_ref().and_then(|inner| cancelled_inside(inner)) {
            Some(cancelled) => Self(Repr::Cancelled(cancelled)),
            None => Self(Repr::Io(error)),
        }
    }
}

impl From<Error> for Box<dyn StdError + Send + Sync> {
    fn from(error: Error) -> Self {
        error.into_boxed()
    }
}

impl From<Error> for Box<dyn StdError> {
    fn from(error: Error) -> Self {
        error.into_boxed()
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        error.into_io()
    }
}

/// One line, which for a group contains the first of its leaves; with `{:#}` the whole tree with
/// its causes, like `{:?}`.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return write!(f, "{self:?}");
        }
        match &self.0 {
            Repr::Cancelled(cancelled) => cancelled.fmt(f),
            Repr::Io(error) => error.fmt(f),
            Repr::Other(error) => error.fmt(f),
            Repr::Group(group) => group.line(self.leaves(), f),
        }
    }
}

/// The whole tree with its causes, as `main` prints it when it returns an error.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Group(group) => group.tree(f),
            Repr::Cancelled(cancelled) => fmt::Display::fmt(cancelled, f),
            Repr::Io(error) => chain(error, f),
            Repr::Other(error) => chain(error.as_ref().as_ref(), f),
        }
    }
}

fn chain(error: &dyn StdError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{error}")?;
    let mut source = error.source();
    while let Some(cause) = source {
        write!(f, ": {cause}")?;
        source = cause.source();
    }
    Ok(())
}

/// An [`Error`] that is a [`std::error::Error`], so that it can travel through foreign traits.
#[derive(Debug)]
struct Opaque(Error);

impl fmt::Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Opaque {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.0 {
            Repr::Io(error) => error.source(),
            Repr::Other(error) => error.source(),
            Repr::Cancelled(_) | Repr::Group(_) => None,
        }
    }
}
