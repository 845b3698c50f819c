//! What every future of a channel does: a checkpoint, then an attempt, and if that fails a place in
//! a line.
//!
//! | If the future is, while it stands in line, | then                                          |
//! |---------------------------|----------------------------------------------------------------|
//! | cancelled                 | it leaves the line; what it was given before is its result     |
//! | dropped                   | it leaves the line; what it was given goes back, to the front  |
//! | forgotten                 | it keeps its place; what it is given is lost to the others     |
//! | polled elsewhere          | the waker of the last poll is called; if the future was passed |
//! |                           | over on the way, because its task or its run had ended, it     |
//! |                           | begins again                                                   |
//! | in a task that panics     | it is dropped with the task, as above                          |
//!
//! Nothing happens between an attempt and joining the line, so no wake is missed.

use std::task::{Context, Poll, Waker, ready};

use super::waiters::{Once, Place};
use crate::cancel::Cancelled;
use crate::checkpoint::pass;
use crate::context;
use crate::wait::Parked;

/// One operation of a channel, as a future polls it and [`select`](super::select()) chooses it.
pub(super) trait Operation {
    /// What the operation returns.
    type Output;

    /// What a task waits in, for the task tree.
    const WHAT: &'static str;

    /// Whether other threads may end the wait.
    const REMOTE: bool = false;

    /// Does the operation, if that is possible without waiting. Leaves the line first, if it stands
    /// there.
    fn attempt(&mut self) -> Option<Self::Output>;

    /// Joins the line after the attempt has failed; `false` if another thread has made the
    /// operation possible since then.
    fn enlist(&mut self, place: &Place<'_>) -> bool;

    /// Leaves the line; returns the result, if somebody has produced it meanwhile.
    fn withdraw(&mut self) -> Option<Self::Output>;

    /// The result of an operation that was cancelled and has not happened.
    fn refused(&mut self, cancelled: Cancelled) -> Self::Output;

    /// Leaves the line, if it stands there, to be attempted again later: what it was given goes
    /// back.
    fn abandon(&mut self);

    /// Whether it stood in line and others have taken it out: either another thread has ended the
    /// wait, or it was passed over while its future was on the way to another task. Otherwise
    /// `waker` is the one to call from now on.
    fn is_settled(&mut self, waker: &Waker) -> bool;
}

/// One poll of the future of `operation`, which waits in `parked`.
#[inline(always)]
pub(super) fn poll<O: Operation>(
    operation: &mut O,
    parked: &mut Option<Parked>,
    shared: bool,
    context: &mut Context<'_>,
) -> Poll<O::Output> {
    if parked.is_some() {
        return poll_standing(operation, parked, shared, context);
    }
    if let Err(cancelled) = ready!(pass(context)) {
        return Poll::Ready(operation.refused(cancelled));
    }
    match operation.attempt() {
        Some(output) => Poll::Ready(output),
        None => stand(operation, parked, shared, context),
    }
}

/// Puts an operation whose attempt has failed in line.
fn stand<O: Operation>(
    operation: &mut O,
    parked: &mut Option<Parked>,
    shared: bool,
    context: &Context<'_>,
) -> Poll<O::Output> {
    loop {
        let standing = context::with(|run| Parked::begin(run, O::WHAT));
        let once = (O::REMOTE && shared).then(Once::default);
        let stands = operation.enlist(&Place::of(&standing, once, context.waker()));
        if stands {
            // Only now, when others can find the operation in line: foreign code may run here.
            parked.insert(standing).follow(context);
            return Poll::Pending;
        }
        if let Some(output) = operation.withdraw().or_else(|| operation.attempt()) {
            return Poll::Ready(output);
        }
    }
}

fn poll_standing<O: Operation>(
    operation: &mut O,
    parked: &mut Option<Parked>,
    shared: bool,
    context: &mut Context<'_>,
) -> Poll<O::Output> {
    let standing = parked.as_ref().expect("it stands in line");
    let cancelled = if standing.run().has_ended() {
        // Nobody claims such a wait, so the operation begins anew.
        None
    } else {
        match standing.poll_woken(context) {
            Poll::Ready(cancelled) => cancelled,
            Poll::Pending if operation.is_settled(context.waker()) => None,
            Poll::Pending => return Poll::Pending,
        }
    };
    let output = operation.withdraw();
    *parked = None;
    if let Some(output) = output {
        return Poll::Ready(output);
    }
    if let Some(cancelled) = cancelled {
        return Poll::Ready(operation.refused(cancelled));
    }
    // Whatever it was woken for was there before any cancel that came since.
    if let Some(output) = operation.attempt() {
        return Poll::Ready(output);
    }
    // Another task was faster.
    match ready!(pass(context)) {
        Ok(()) => stand(operation, parked, shared, context),
        Err(cancelled) => Poll::Ready(operation.refused(cancelled)),
    }
}

/// The future of an operation, which `select` can also choose.
macro_rules! future {
    (
        $(#[$doc:meta])*
        $visibility:vis $name:ident<'a, $($parameter:ident),*> of $operation:ty, $output:ty
        $(where $($bound:tt)*)?
    ) => {
        $(#[$doc])*
        #[must_use = "futures do nothing unless polled"]
        $visibility struct $name<'a, $($parameter),*> $(where $($bound)*)? {
            // Leaves the line before the wait ends.
            operation: $operation,
            parked: Option<$crate::wait::Parked>,
        }

        impl<'a, $($parameter),*> $name<'a, $($parameter),*> $(where $($bound)*)? {
            #[inline]
            fn new(operation: $operation) -> Self {
                Self { operation, parked: None }
            }

            /// The operation, out of every line: it may have been polled on its own before.
            fn operation(&mut self) -> &mut $operation {
                if self.parked.is_some() {
                    $crate::channel::operation::Operation::abandon(&mut self.operation);
                    self.parked = None;
                }
                &mut self.operation
            }
        }

        impl<$($parameter),*> std::future::Future for $name<'_, $($parameter),*>
        $(where $($bound)*)?
        {
            type Output = $output;

            #[inline]
            fn poll(
                mut self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Self::Output> {
                let this = &mut *self;
                let (operation, parked) = (&mut this.operation, &mut this.parked);
                $crate::channel::operation::poll(operation, parked, false, context)
            }
        }

        // What is inside is never pinned in place.
        impl<$($parameter),*> Unpin for $name<'_, $($parameter),*> $(where $($bound)*)? {}

        impl<'a, $($parameter),*> $crate::channel::select::Selectable
            for $name<'a, $($parameter),*>
        $(where $($bound)*)?
        {
            type Output = $output;

            const REMOTE: bool = <$operation as $crate::channel::operation::Operation>::REMOTE;

            fn attempt(&mut self) -> Option<Self::Output> {
                $crate::channel::operation::Operation::attempt(self.operation())
            }

            fn enlist(&mut self, place: &$crate::channel::waiters::Place<'_>) -> bool {
                $crate::channel::operation::Operation::enlist(self.operation(), place)
            }

            fn withdraw(&mut self) -> Option<Self::Output> {
                $crate::channel::operation::Operation::withdraw(self.operation())
            }

            fn abandon(&mut self) {
                $crate::channel::operation::Operation::abandon(self.operation());
            }

            fn is_settled(&mut self, waker: &std::task::Waker) -> bool {
                $crate::channel::operation::Operation::is_settled(self.operation(), waker)
            }
        }

        impl<$($parameter),*> std::fmt::Debug for $name<'_, $($parameter),*>
        $(where $($bound)*)?
        {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let waiting = self.parked.is_some();
                f.debug_struct(stringify!($name)).field("waiting", &waiting).finish()
            }
        }
    };
}

pub(super) use future;
