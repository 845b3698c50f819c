//! The small errors that the library itself has names for, the same names as in Trio.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;

macro_rules! plain {
    ($(#[$doc:meta])* $name:ident, $text:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct $name;

        impl $name {
            /// The error, for code that implements the same contract outside this library.
            pub const fn new() -> Self {
                Self
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($text)
            }
        }

        impl std::error::Error for $name {}
    };
}

/// A deadline of [`fail_after`](crate::fail_after) or [`fail_at`](crate::fail_at) has passed, and the
/// future ended with nothing but that cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[doc(alias = "TooSlowError")]
pub struct TooSlow {
    place: Option<&'static Location<'static>>,
}

impl TooSlow {
    /// The error, for code that implements the same contract outside this library.
    pub const fn new() -> Self {
        Self { place: None }
    }

    pub(crate) const fn at(place: Option<&'static Location<'static>>) -> Self {
        Self { place }
    }

    /// Where the deadline was set, if a function of this library set it.
    pub const fn place(&self) -> Option<&'static Location<'static>> {
        self.place
    }
}

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too slow: the deadline has passed")?;
        match self.place {
            Some(place) => write!(f, " that was set at {place}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TooSlow {}

plain! {
    /// Another task is using this direction of the resource already; a mistake of the caller.
    #[doc(alias = "BusyResourceError")]
    BusyResource, "another task is already using this direction of the resource, which is for one at a time"
}

plain! {
    /// This side has closed the resource, before the operation or during it.
    #[doc(alias = "ClosedResourceError")]
    ClosedResource, "this resource has been closed here"
}

plain! {
    /// What a `try_…` function was asked to do cannot be done at once, and was not done.
    ///
    /// Not to be confused with [`io::ErrorKind::WouldBlock`](std::io::ErrorKind::WouldBlock), which
    /// is what a system call reports for a descriptor.
    WouldBlock, "this cannot be done without waiting"
}

plain! {
    /// Nothing more will come out of this channel: every sender has been closed or dropped, and all
    /// that they sent has been received.
    EndOfChannel, "the channel has ended: every sender is closed, and all that was sent is received"
}

plain! {
    /// The run that was to do this has ended.
    #[doc(alias = "RunFinishedError")]
    RunFinished, "the run has finished"
}

/// The other side, or something outside the program, has broken the resource; the source says how.
#[derive(Debug, Default)]
#[doc(alias = "BrokenResourceError")]
pub struct BrokenResource {
    cause: Option<std::io::Error>,
}

impl BrokenResource {
    /// The error, with nothing known about the cause.
    pub const fn new() -> Self {
        Self { cause: None }
    }

    /// The error with what the system said.
    pub fn because(cause: std::io::Error) -> Self {
        Self { cause: Some(cause) }
    }

    /// What the system said, if it said anything.
    pub fn cause(&self) -> Option<&std::io::Error> {
        self.cause.as_ref()
    }
}

impl fmt::Display for BrokenResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the resource was broken from the other side")
    }
}

impl std::error::Error for BrokenResource {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let cause = self.cause.as_ref()?;
        Some(cause)
    }
}

/// The library was used in a way that its rules forbid; the text says which rule, and what to do
/// instead.
///
/// The counterpart of Trio's `RuntimeError`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage(Cow<'static, str>);

impl Usage {
    pub(crate) fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Scopes or nurseries are nested so deeply that the stack of the thread would overflow.
///
/// Each level is polled from inside the one around it, so the depth is bounded by the stack: a
/// level of scope takes some hundred bytes and a level of nursery about a kibibyte in an optimised
/// build, several times that without optimisation. Run on a thread with a larger stack
/// ([`std::thread::Builder::stack_size`]), or flatten the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NestedTooDeeply {
    /// How many bytes of stack were left.
    pub remaining: usize,
}

impl NestedTooDeeply {
    pub(crate) const fn new(remaining: usize) -> Self {
        Self { remaining }
    }
}

impl fmt::Display for NestedTooDeeply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remaining = self.remaining;
        write!(
            f,
            "scopes or nurseries are nested too deeply: {remaining} bytes of stack are left; \
             use a thread with a larger stack or a flatter tree"
        )
    }
}

impl std::error::Error for NestedTooDeeply {}
