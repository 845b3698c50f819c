//! Receiving ends of channels as streams of `futures-core`, for libraries that take one.
//!
//! In your own code a loop over `next` does the same, and needs none of this.
//!
//! A stream owns its end of the channel and, between two polls, its place in line. If it is
//! dropped, it leaves the line, gives back what it had been handed, and closes its end; if it is
//! forgotten, it keeps its place until its task has ended. It may be polled anywhere, by any
//! combinator, like every other future of a channel (`operation.rs`).

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::error::ReceiveError;
use super::memory::MemoryReceiveChannel;
use super::operation;
use super::pipe::ReceiveOperation;
use super::thread::ThreadReceiveChannel;
use crate::error::Result;
use crate::wait::Parked;

macro_rules! stream {
    ($(#[$doc:meta])* $name:ident of $channel:ident, opened by $open:literal) => {
        $(#[$doc])*
        #[must_use = "streams do nothing unless polled"]
        pub struct $name<T> {
            end: $channel<T>,
            /// Its place in line, which it leaves before the wait ends.
            key: Option<u32>,
            parked: Option<Parked>,
        }

        impl<T> $channel<T> {
            /// This end as a stream of the values from now on, until the end of the channel.
            ///
            /// # Cancellation
            ///
            /// Each item is a checkpoint. Cancelled means that nothing has been taken: the item is
            /// the cancellation, and the stream can be asked again.
            ///
            /// # Errors
            ///
            /// As for [`next`](Self::next), each as an item.
            ///
            /// # Panics
            ///
            /// When it is polled outside of a run.
            ///
            /// # Examples
            ///
            /// ```
            /// # use trio_runtime as trio;
            /// # trio::run(async {
            /// use std::future::poll_fn;
            /// use std::pin::Pin;
            /// use futures_core::Stream;
            ///
            #[doc = concat!("let (send, receive) = trio::", $open, "(8);")]
            /// send.send("a value").await?;
            /// drop(send);
            /// let mut values = receive.into_stream();
            /// let first = poll_fn(|context| Pin::new(&mut values).poll_next(context)).await;
            /// assert_eq!(first.transpose()?, Some("a value"));
            /// let end = poll_fn(|context| Pin::new(&mut values).poll_next(context)).await;
            /// assert!(end.is_none());
            /// # Ok::<(), trio::Error>(()) }).unwrap();
            /// ```
            pub fn into_stream(self) -> $name<T> {
                $name { end: self, key: None, parked: None }
            }
        }

        impl<T> $name<T> {
            /// Turns the stream back into its end, which leaves the line: nothing has been taken
            /// that was not returned as an item.
            pub fn into_inner(self) -> $channel<T> {
                // A clone, as open as this one, whose own end is dropped with the stream.
                self.end.clone()
            }
        }

        impl<T> Stream for $name<T> {
            type Item = Result<T>;

            fn poll_next(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<Option<Result<T>>> {
                let this = &mut *self;
                // A receive for this poll only; if it panics, it leaves the line.
                let mut receive = ReceiveOperation::go_on(&this.end.0, this.key.take());
                let polled = operation::poll(&mut receive, &mut this.parked, false, context);
                this.key = receive.put_off();
                Poll::Ready(match ready!(polled) {
                    Ok(value) => Some(Ok(value)),
                    Err(ReceiveError::EndOfChannel) => None,
                    Err(error) => Some(Err(error.into())),
                })
            }
        }

        impl<T> Drop for $name<T> {
            fn drop(&mut self) {
                drop(ReceiveOperation::go_on(&self.end.0, self.key.take()));
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let waiting = self.key.is_some();
                f.debug_struct(stringify!($name))
                    .field("end", &self.end)
                    .field("waiting", &waiting)
                    .finish()
            }
        }
    };
}

stream! {
    /// The values of a memory channel; see [`MemoryReceiveChannel::into_stream`].
    ReceiveStream of MemoryReceiveChannel, opened by "open_memory_channel"
}

stream! {
    /// The values of a channel between threads; see [`ThreadReceiveChannel::into_stream`].
    ThreadReceiveStream of ThreadReceiveChannel, opened by "open_thread_channel"
}
