//! A producer that works only on demand, inside a block that it does not outlive.
//!
//! The producer is a task of its own, so scopes and nurseries inside it nest as they do anywhere
//! else. It meets its consumer at a channel without a buffer, and waits there twice for each value:
//! until the value has been taken, which happens at once if somebody waits for it, and until
//! somebody waits for the next one. So it never runs ahead of the demand, and does not run at all
//! before the first receive.

use std::cell::Cell;
use std::fmt;

use super::memory::{MemoryReceiveChannel, MemorySendChannel, open_memory_channel};
use crate::cancel::CancelScope;
use crate::checkpoint::checkpoint;
use crate::error::{BrokenResource, Error, Result};
use crate::nursery::open_nursery;

/// Runs `body` with a channel whose values `producer` makes on demand, one for each receive.
///
/// The counterpart of an asynchronous generator, with a bounded lifetime: the producer runs in a
/// task of its own inside this call. It begins with the first receive, goes on from a
/// [`send`](Yielder::send) when the next is received, and has ended when this returns. When `body`
/// ends first, or closes its channel, the producer is cancelled where it is, and cleans up; that is
/// not an error.
///
/// # Cancellation
///
/// Not a checkpoint by itself. A cancellation reaches the body and the producer, and comes out once
/// they have ended.
///
/// # Errors
///
/// The error of the body or of the producer, whose failure cancels the body; or a group of both, the
/// body's first, if both have failed by themselves.
///
/// # Panics
///
/// With the panic of the body or of the producer.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::channel::{Yielder, safe_channel};
///
/// // Counts as far as somebody wants to know.
/// async fn count(numbers: &Yielder<u32>) -> trio::Result<()> {
///     for n in 0.. {
///         numbers.send(n).await?;
///     }
///     Ok(())
/// }
///
/// let sum = safe_channel(count, async |numbers| {
///     let mut sum = 0;
///     while let Some(n) = numbers.next().await? {
///         sum += n;
///         if n == 4 {
///             break; // the producer ends here
///         }
///     }
///     Ok(sum)
/// })
/// .await?;
/// assert_eq!(sum, 10);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "as_safe_channel")]
pub async fn safe_channel<T, P, B, R>(producer: P, body: B) -> Result<R>
where
    P: AsyncFnOnce(&Yielder<T>) -> Result<()>,
    B: AsyncFnOnce(&MemoryReceiveChannel<T>) -> Result<R>,
{
    let (send, receive) = open_memory_channel(0);
    let (producing, consuming) = (CancelScope::new(), CancelScope::new());
    let yielder = Yielder {
        channel: send,
        scope: producing.clone(),
    };
    let mut produced = Ok(());
    let mut consumed = Ok(None);
    let body_ended = Cell::new(false);
    let produce = async {
        let result = producing
            .enter(async {
                if !yielder.channel.demand().await? {
                    return Ok(());
                }
                producer(&yielder).await
            })
            .await;
        if let Err(error) = &result {
            // Cancelled before the body can mistake the end of the channel for the end of the
            // values.
            if !error.is_cancelled() {
                consuming.cancel(format!("its producer failed: {error}"));
            }
        }
        drop(yielder);
        produced = match result {
            // It is no error to be cancelled because the body has ended, whoever cancelled first.
            // If the body has not ended it is one: the body might take what it received for
            // everything that there is.
            Err(error) if error.is_cancelled() && body_ended.get() => Ok(()),
            result => result.map(drop),
        };
        Ok(())
    };
    open_nursery(async |nursery| {
        nursery.start_soon(produce);
        consumed = consuming.enter(body(&receive)).await;
        body_ended.set(true);
        receive.close();
        producing.cancel("nobody receives any more");
        Ok(())
    })
    .await?;
    match (consumed, produced) {
        (Ok(value), Ok(())) => Ok(value.expect("a body is cut short by its producer only")),
        (Err(error), Ok(())) => Err(error),
        (Ok(_), Err(error)) => Err(error),
        (Err(body), Err(producer)) if producer.is_cancelled() => {
            drop(producer);
            Err(body)
        }
        (Err(body), Err(producer)) if body.is_cancelled() => {
            drop(body);
            Err(producer)
        }
        (Err(body), Err(producer)) => Err(Error::group(
            "errors in a block and in the producer of its values",
            vec![body, producer],
        )),
    }
}

/// Where the producer of a [`safe_channel`] hands its values over.
pub struct Yielder<T> {
    channel: MemorySendChannel<T>,
    scope: CancelScope,
}

impl<T> Yielder<T> {
    /// Hands `value` to the receiver, and returns when the next one is asked for.
    ///
    /// # Cancellation
    ///
    /// A checkpoint, also cancelled when nobody receives any more. This is two waits in one, so a
    /// cancelled send does not tell whether the value has been received.
    ///
    /// # Errors
    ///
    /// `Cancelled`. [`BrokenResource`] if nobody receives any more, and a shield keeps the
    /// cancellation of the producer out.
    pub async fn send(&self, value: T) -> Result<()> {
        let sent = self.channel.send(value).await;
        if let Err(super::SendError::Cancelled(_, cancelled)) = sent {
            return Err(Error::cancelled(cancelled));
        }
        if sent.is_ok() && self.channel.demand().await? {
            return Ok(());
        }
        // An early end is none of the producer's doing: it ends by its own scope, silently.
        self.scope.cancel("nobody receives any more");
        checkpoint().await?;
        Err(BrokenResource::new().into())
    }
}

impl<T> fmt::Debug for Yielder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Yielder")
    }
}
