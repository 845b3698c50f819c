//! Closing an end of a channel where the caller wants a checkpoint.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::checkpoint::enter_operation;
use crate::error::Result;

/// An end that can be closed immediately.
pub(super) trait End {
    fn close_end(&self);
}

/// The future of the `aclose` of each end of a channel: closes when it is first polled, and then
/// passes a checkpoint.
#[must_use = "futures do nothing unless polled"]
pub struct Aclose<'a> {
    end: &'a dyn End,
}

impl<'a> Aclose<'a> {
    pub(super) fn new(end: &'a dyn End) -> Self {
        Self { end }
    }
}

impl Future for Aclose<'_> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        // Closing again does nothing.
        self.end.close_end();
        enter_operation(context)
    }
}

impl fmt::Debug for Aclose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aclose")
    }
}
