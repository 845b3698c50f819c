//! The cases of a stream that sends one way.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::time::Duration;

use trio_runtime::lowlevel::socket;
use trio_runtime::testing::{assert_checkpoints, wait_all_tasks_blocked};
use trio_runtime::{
    BrokenResource, BusyResource, CancelScope, ClosedResource, Result, checkpoint, open_nursery,
};

use super::{case, demand, demand_error};
use crate::{AsyncResource, ReceiveStream, SendStream, aclose_forcefully};

pub(super) async fn check_one_way<S, R>(
    check: &str,
    make: &impl AsyncFn() -> Result<(S, R)>,
    make_clogged: &impl AsyncFn() -> Result<Option<(S, R)>>,
) -> Result<()>
where
    S: SendStream,
    R: ReceiveStream,
    for<'a> &'a S: SendStream,
    for<'a> &'a R: ReceiveStream,
{
    macro_rules! cases {
        ($($name:literal: $case:ident),* $(,)?) => {$(
            let (send, receive) = make().await?;
            case(check, $name, Ends { send, receive }.$case()).await?;
        )*};
    }
    cases! {
        "what is sent arrives": transfer,
        "an empty send does no harm": empty_send,
        "all kinds of data can be sent": kinds_of_data,
        "a receive gives at most what its buffer holds": small_buffers,
        "an empty buffer is refused": empty_buffer,
        "every operation is a checkpoint": checkpoints,
        "every operation can be cancelled": cancelled_operations,
        "two tasks cannot receive at the same time": two_receivers,
        "a sender that waits learns that the receiver does": waiting_receiver,
        "a sender learns that the receiver was closed": receiver_closed,
        "a sender that was closed is closed for everything": sender_used_after_close,
        "a receiver that was closed is closed for everything": receiver_used_after_close,
        "closing again does nothing": closed_twice,
        "data comes before the end of file": graceful_close,
        "closing the sender forcefully closes it": sender_closed_forcefully,
        "closing the receiver forcefully closes it": receiver_closed_forcefully,
        "a cancelled close of the sender closes it": sender_close_cancelled,
        "a cancelled close of the receiver closes it": receiver_close_cancelled,
        "closing works after a cancelled send": close_after_cancelled_send,
        "a cancelled receive takes nothing": cancelled_receive,
        "closing works after a cancelled receive": close_after_cancelled_receive,
        "closing wakes a receive that waits": close_under_receive,
        "dropping the sender closes it": sender_dropped,
    }
    macro_rules! clogged {
        ($($name:literal: $case:ident),* $(,)?) => {$(
            let Some((send, receive)) = make_clogged().await? else {
                return Ok(());
            };
            case(check, $name, Ends { send, receive }.$case()).await?;
        )*};
    }
    clogged! {
        "a clogged stream waits until something is received": unclogged_by_receiving,
        "two tasks cannot wait to send at the same time": wait_and_wait,
        "a task cannot send while another waits to": wait_and_send,
        "a task cannot wait to send while another sends": send_and_wait,
        "two tasks cannot send at the same time": send_and_send,
        "closing the receiver wakes who waits to send": receiver_closed_under_wait,
        "nobody waits to send to a receiver that was closed": receiver_closed_before_wait,
        "closing the receiver wakes a send that waits": receiver_closed_under_send,
        "closing wakes a send that waits": close_under_send,
        "closing wakes who waits to send": close_under_wait,
        "a send that waits can be cancelled": cancelled_clogged_send,
    }
    Ok(())
}

/// More than all buffers on the way can take, even with the room that a clogged stream has left.
const PLENTY: usize = 16 * 1024 * 1024;

/// This many sends of 4 KiB to a closed receiver are more than all buffers on the way can take.
const SENDS_MAX: u32 = 10_000;

/// The two ends of a fresh stream. Both are dropped when a case has ended.
struct Ends<S, R> {
    send: S,
    receive: R,
}

impl<S, R> Ends<S, R>
where
    S: SendStream,
    R: ReceiveStream,
    for<'a> &'a S: SendStream,
    for<'a> &'a R: ReceiveStream,
{
    async fn transfer(mut self) -> Result<()> {
        together(self.send.send_all(b"x"), expect(&mut self.receive, b"x")).await?;
        let lease = async {
            let lease = self.receive.receive().await?;
            demand(
                lease.as_deref() == Some(b"y"),
                format!("`receive` gave {lease:?} when \"y\" was sent"),
            )
        };
        together(self.send.send_all(b"y"), lease).await?;
        let much: Vec<u8> = (0..100_000_u32)
            .map(|n| n.to_le_bytes()[n as usize % 3])
            .collect();
        together(self.send.send_all(&much), expect(&mut self.receive, &much)).await
    }

    async fn empty_send(mut self) -> Result<()> {
        self.send.send_all(b"").await?;
        together(self.send.send_all(b"x"), expect(&mut self.receive, b"x")).await?;
        self.send.send_all(Vec::new()).await?;
        together(self.send.send_all(b"y"), expect(&mut self.receive, b"y")).await
    }

    async fn kinds_of_data(mut self) -> Result<()> {
        let slice: &[u8] = b"slice";
        together(self.send.send_all(slice), expect(&mut self.receive, slice)).await?;
        together(
            self.send.send_all("text"),
            expect(&mut self.receive, b"text"),
        )
        .await?;
        let vector = b"a vector that is given away".to_vec();
        let expected = vector.clone();
        together(
            self.send.send_all(vector),
            expect(&mut self.receive, &expected),
        )
        .await?;
        let mut lease = socket::buffer();
        lease.extend(b"...a lease");
        lease.advance(3);
        together(
            self.send.send_all(lease),
            expect(&mut self.receive, b"a lease"),
        )
        .await
    }

    async fn small_buffers(mut self) -> Result<()> {
        let data: Vec<u8> = (0..=255).collect();
        let receive = async {
            let mut got = Vec::new();
            for max in [1, 2, 7, 100].into_iter().cycle() {
                let max = max.min(data.len() - got.len());
                if max == 0 {
                    break;
                }
                let piece = receive(&mut self.receive, max).await?;
                demand(piece.count > 0, "the end of file came before all data had")?;
                got.extend_from_slice(piece.get());
            }
            demand(
                got == data,
                "the data came in another order than it was sent",
            )
        };
        together(self.send.send_all(&data), receive).await
    }

    async fn empty_buffer(mut self) -> Result<()> {
        let refused = |result: Result<usize>| match result {
            Err(error) if error.is_cancelled() => Err(error),
            Err(error) => demand(
                error
                    .downcast_ref::<io::Error>()
                    .is_some_and(|error| error.kind() == io::ErrorKind::InvalidInput),
                format!("`receive_some` without room is to fail as `InvalidInput`, not: {error:?}"),
            ),
            Ok(_) => demand(
                false,
                "`receive_some` succeeds with a buffer that has no room",
            ),
        };
        refused(self.receive.receive_some(&mut []).await)?;
        together(self.send.send_all(b"x"), expect(&mut self.receive, b"x")).await
    }

    async fn checkpoints(mut self) -> Result<()> {
        let send = is_checkpoint("`send_all`", self.send.send_all(b"x"));
        let mut buffer = [0; 1];
        let receive = self.receive.receive_some(&mut buffer);
        let receive = is_checkpoint("`receive_some`", async { receive.await.map(drop) });
        together(send, receive).await?;
        is_checkpoint("`send_all` of nothing", self.send.send_all(b"")).await?;
        is_checkpoint("`aclose` of the sender", self.send.aclose()).await?;
        is_checkpoint("the second `aclose` of the sender", self.send.aclose()).await?;
        let end = async { self.receive.receive().await.map(drop) };
        is_checkpoint("`receive` of the end of file", end).await?;
        is_checkpoint("`aclose` of the receiver", self.receive.aclose()).await?;
        is_checkpoint("the second `aclose` of the receiver", self.receive.aclose()).await
    }

    async fn cancelled_operations(mut self) -> Result<()> {
        let mut buffer = [0; 1];
        let receive = self.receive.receive_some(&mut buffer);
        reports_cancel("`receive_some`", async { receive.await.map(drop) }).await?;
        let receive = self.receive.receive();
        reports_cancel("`receive`", async { receive.await.map(drop) }).await?;
        let wait = self.send.wait_send_all_might_not_block();
        reports_cancel("`wait_send_all_might_not_block`", wait).await?;
        reports_cancel("`send_all`", self.send.send_all(b"x")).await
    }

    async fn two_receivers(mut self) -> Result<()> {
        {
            let (send, receive) = (&self.send, &self.receive);
            open_nursery(async |nursery| {
                nursery.start_soon(expect_shared(receive, b"x"));
                wait_all_tasks_blocked(Duration::ZERO).await?;
                let second = receive_shared(receive).await;
                demand_error::<BusyResource>("a second `receive_some`", second)?;
                let mut other = receive;
                let second = other.receive().await.map(drop);
                demand_error::<BusyResource>("a second receive", second)?;
                // The first send is unharmed.
                let mut send = send;
                send.send_all(b"x").await
            })
            .await?;
        }
        together(self.send.send_all(b"y"), expect(&mut self.receive, b"y")).await
    }

    async fn waiting_receiver(self) -> Result<()> {
        let (mut send, receive) = (&self.send, &self.receive);
        open_nursery(async |nursery| {
            nursery.start_soon(expect_shared(receive, b"x"));
            wait_all_tasks_blocked(Duration::ZERO).await?;
            send.wait_send_all_might_not_block().await?;
            send.send_all(b"x").await
        })
        .await
    }

    async fn receiver_closed(mut self) -> Result<()> {
        self.receive.aclose().await?;
        let mut result = Ok(());
        // There may be room on the way, and the news of the close may take a while to arrive.
        for _ in 0..SENDS_MAX {
            checkpoint().await?;
            result = self.send.send_all(&[b'x'; 4096]).await;
            if result.is_err() {
                break;
            }
        }
        demand_error::<BrokenResource>("`send_all` to a receiver that was closed", result)?;
        let again = self.send.send_all(b"x").await;
        demand_error::<BrokenResource>("`send_all` after that failed", again)
    }

    async fn sender_used_after_close(mut self) -> Result<()> {
        self.send.aclose().await?;
        self.sender_is_closed().await
    }

    async fn sender_is_closed(&mut self) -> Result<()> {
        let result = self.send.send_all(b"x").await;
        demand_error::<ClosedResource>("`send_all` on a sender that was closed", result)?;
        let result = self.send.send_all(b"").await;
        demand_error::<ClosedResource>(
            "`send_all` of nothing on a sender that was closed",
            result,
        )?;
        let result = self.send.wait_send_all_might_not_block().await;
        let what = "`wait_send_all_might_not_block` on a sender that was closed";
        demand_error::<ClosedResource>(what, result)
    }

    async fn receiver_used_after_close(mut self) -> Result<()> {
        self.receive.aclose().await?;
        self.receiver_is_closed().await
    }

    async fn receiver_is_closed(&mut self) -> Result<()> {
        let result = receive(&mut self.receive, 1).await.map(drop);
        demand_error::<ClosedResource>("`receive_some` on a receiver that was closed", result)?;
        let result = self.receive.receive().await.map(drop);
        demand_error::<ClosedResource>("`receive` on a receiver that was closed", result)
    }

    async fn closed_twice(mut self) -> Result<()> {
        for _ in 0..3 {
            self.send.aclose().await?;
        }
        for _ in 0..3 {
            self.receive.aclose().await?;
        }
        aclose_forcefully(&mut self.send).await?;
        aclose_forcefully(&mut self.receive).await
    }

    async fn graceful_close(mut self) -> Result<()> {
        let send = async {
            self.send.send_all(b"y").await?;
            self.send.aclose().await
        };
        let receive = async {
            expect(&mut self.receive, b"y").await?;
            is_at_end(&mut self.receive).await
        };
        together(send, receive).await
    }

    async fn sender_closed_forcefully(mut self) -> Result<()> {
        aclose_forcefully(&mut self.send).await?;
        self.sender_is_closed().await
    }

    async fn receiver_closed_forcefully(mut self) -> Result<()> {
        aclose_forcefully(&mut self.receive).await?;
        self.receiver_is_closed().await
    }

    async fn sender_close_cancelled(mut self) -> Result<()> {
        reports_cancel("`aclose` of the sender", self.send.aclose()).await?;
        self.sender_is_closed().await?;
        self.send.aclose().await
    }

    async fn receiver_close_cancelled(mut self) -> Result<()> {
        reports_cancel("`aclose` of the receiver", self.receive.aclose()).await?;
        self.receiver_is_closed().await?;
        self.receive.aclose().await
    }

    async fn close_after_cancelled_send(mut self) -> Result<()> {
        reports_cancel("`send_all`", self.send.send_all(b"x")).await?;
        // The stream may have been broken by that; it can be closed nevertheless.
        aclose_forcefully(&mut self.send).await?;
        self.sender_is_closed().await
    }

    async fn cancelled_receive(mut self) -> Result<()> {
        {
            let receive = &self.receive;
            cancelled_in_the_middle("`receive_some`", receive_shared(receive)).await?;
            let mut shared = receive;
            let lease = async { shared.receive().await.map(drop) };
            cancelled_in_the_middle("`receive`", lease).await?;
        }
        together(
            self.send.send_all(b"xyz"),
            expect(&mut self.receive, b"xyz"),
        )
        .await?;
        let mut buffer = [0; 1];
        let receive = self.receive.receive_some(&mut buffer);
        reports_cancel("`receive_some`", async { receive.await.map(drop) }).await?;
        together(
            self.send.send_all(b"123"),
            expect(&mut self.receive, b"123"),
        )
        .await
    }

    async fn close_after_cancelled_receive(mut self) -> Result<()> {
        let receive = receive_shared(&self.receive);
        cancelled_in_the_middle("`receive_some`", receive).await?;
        self.receive.aclose().await?;
        self.receiver_is_closed().await
    }

    async fn close_under_receive(self) -> Result<()> {
        let receive = &self.receive;
        let waits = async {
            let result = receive_shared(receive).await;
            demand_error::<ClosedResource>("`receive_some` that waits while it is closed", result)
        };
        meanwhile(waits, close_shared(receive)).await
    }

    async fn sender_dropped(self) -> Result<()> {
        let Self { send, mut receive } = self;
        drop(send);
        is_at_end(&mut receive).await
    }

    // The cases of a clogged stream.

    async fn unclogged_by_receiving(mut self) -> Result<()> {
        let waited = Cell::new(false);
        {
            let (send, receive) = (&self.send, &self.receive);
            let waited = &waited;
            let scope = CancelScope::new();
            let stop = &scope;
            open_nursery(async |nursery| {
                nursery.start_soon(async move {
                    wait_shared(send).await?;
                    waited.set(true);
                    stop.cancel("there is room");
                    Ok(())
                });
                wait_all_tasks_blocked(Duration::ZERO).await?;
                demand(
                    !waited.get(),
                    "`wait_send_all_might_not_block` returned at once: the stream is not clogged",
                )?;
                // Takes out what was sent before, until there is room. Cancelled by the end of the
                // wait, because at some point there is nothing left to receive.
                let drain = async {
                    let mut receive = receive;
                    let mut buffer = vec![0; 64 * 1024];
                    loop {
                        let count = receive.receive_some(&mut buffer).await?;
                        demand(count > 0, "the end of file came, and nobody has closed")?;
                    }
                };
                scope.enter::<_, ()>(drain).await?;
                Ok(())
            })
            .await?;
        }
        // From here on it is a stream like any other, except for what is still on the way.
        self.receive.aclose().await
    }

    async fn wait_and_wait(self) -> Result<()> {
        let send = &self.send;
        let second = async {
            let what = "a second `wait_send_all_might_not_block`";
            demand_error::<BusyResource>(what, wait_shared(send).await)
        };
        meanwhile_cancelled(wait_shared(send), second).await
    }

    async fn wait_and_send(self) -> Result<()> {
        let send = &self.send;
        let second = async {
            let what = "`send_all` during `wait_send_all_might_not_block`";
            demand_error::<BusyResource>(what, send_shared(send, b"x").await)
        };
        meanwhile_cancelled(wait_shared(send), second).await
    }

    async fn send_and_wait(self) -> Result<()> {
        let send = &self.send;
        let second = async {
            let what = "`wait_send_all_might_not_block` during `send_all`";
            demand_error::<BusyResource>(what, wait_shared(send).await)
        };
        meanwhile_cancelled(send_shared(send, &vec![0; PLENTY]), second).await
    }

    async fn send_and_send(self) -> Result<()> {
        let send = &self.send;
        let second = async {
            let what = "a second `send_all`";
            demand_error::<BusyResource>(what, send_shared(send, b"x").await)
        };
        meanwhile_cancelled(send_shared(send, &vec![0; PLENTY]), second).await
    }

    async fn receiver_closed_under_wait(self) -> Result<()> {
        let waits = async { may_be_broken(wait_shared(&self.send).await) };
        meanwhile(waits, close_shared(&self.receive)).await
    }

    async fn receiver_closed_before_wait(mut self) -> Result<()> {
        self.receive.aclose().await?;
        may_be_broken(self.send.wait_send_all_might_not_block().await)
    }

    async fn receiver_closed_under_send(self) -> Result<()> {
        let waits = async {
            let result = send_shared(&self.send, &vec![0; PLENTY]).await;
            demand_error::<BrokenResource>("`send_all` to a receiver that was closed", result)
        };
        meanwhile(waits, close_shared(&self.receive)).await
    }

    async fn close_under_send(self) -> Result<()> {
        let waits = async {
            let result = send_shared(&self.send, &vec![0; PLENTY]).await;
            demand_error::<ClosedResource>("`send_all` that waits while it is closed", result)
        };
        meanwhile(waits, close_shared(&self.send)).await
    }

    async fn close_under_wait(self) -> Result<()> {
        let waits = async {
            let result = wait_shared(&self.send).await;
            let what = "`wait_send_all_might_not_block` that waits while it is closed";
            demand_error::<ClosedResource>(what, result)
        };
        meanwhile(waits, close_shared(&self.send)).await
    }

    async fn cancelled_clogged_send(mut self) -> Result<()> {
        let wait = wait_shared(&self.send);
        cancelled_in_the_middle("`wait_send_all_might_not_block`", wait).await?;
        let send = send_shared(&self.send, &[0; PLENTY / 16][..]);
        cancelled_in_the_middle("`send_all`", send).await?;
        aclose_forcefully(&mut self.send).await?;
        self.sender_is_closed().await
    }
}

/// A buffer, and what was received into it.
struct Bytes {
    buffer: Vec<u8>,
    count: usize,
}

impl Bytes {
    fn get(&self) -> &[u8] {
        &self.buffer[..self.count]
    }
}

async fn receive(from: &mut impl ReceiveStream, max: usize) -> Result<Bytes> {
    let mut buffer = vec![0; max];
    let count = from.receive_some(&mut buffer).await?;
    demand(
        count <= max,
        format!("`receive_some` says {count} with a buffer of {max}"),
    )?;
    Ok(Bytes { buffer, count })
}

/// Expects exactly `expected`, in whatever pieces.
pub(super) async fn expect(from: &mut impl ReceiveStream, expected: &[u8]) -> Result<()> {
    let mut got = Vec::new();
    while got.len() < expected.len() {
        let piece = receive(from, expected.len() - got.len()).await?;
        demand(
            piece.count > 0,
            format!(
                "the end of file came after {} bytes of {}",
                got.len(),
                expected.len()
            ),
        )?;
        got.extend_from_slice(piece.get());
    }
    let count = got.len();
    demand(
        got == expected,
        format!("{count} bytes arrived, and not those that were sent"),
    )
}

/// Expects the end of file, and that it stays.
pub(super) async fn is_at_end(from: &mut impl ReceiveStream) -> Result<()> {
    let rule = "a receive after the end gives the end of file";
    let piece = receive(from, 16).await?;
    demand(piece.count == 0, format!("{rule}, not {:?}", piece.get()))?;
    let lease = from.receive().await?;
    demand(lease.is_none(), format!("{rule} again, not {lease:?}"))?;
    let piece = receive(from, 16).await?;
    demand(
        piece.count == 0,
        format!("{rule} again, not {:?}", piece.get()),
    )
}

async fn expect_shared<R>(receive: &R, expected: &[u8]) -> Result<()>
where
    for<'a> &'a R: ReceiveStream,
{
    expect(&mut &*receive, expected).await
}

async fn receive_shared<R>(from: &R) -> Result<()>
where
    for<'a> &'a R: ReceiveStream,
{
    receive(&mut &*from, 16).await.map(drop)
}

pub(super) async fn send_shared<S>(mut to: &S, data: &[u8]) -> Result<()>
where
    for<'a> &'a S: SendStream,
{
    to.send_all(data).await
}

pub(super) async fn wait_shared<S>(mut to: &S) -> Result<()>
where
    for<'a> &'a S: SendStream,
{
    to.wait_send_all_might_not_block().await
}

async fn close_shared<C>(mut resource: &C) -> Result<()>
where
    for<'a> &'a C: AsyncResource,
{
    resource.aclose().await
}

/// Runs both at the same time, for a stream that holds nothing in between.
pub(super) async fn together(
    send: impl Future<Output = Result<()>>,
    receive: impl Future<Output = Result<()>>,
) -> Result<()> {
    open_nursery(async |nursery| {
        nursery.start_soon(send);
        nursery.start_soon(receive);
        Ok(())
    })
    .await
}

/// Runs `then` while `first` waits; both should end well.
async fn meanwhile(
    first: impl Future<Output = Result<()>>,
    then: impl Future<Output = Result<()>>,
) -> Result<()> {
    open_nursery(async |nursery| {
        nursery.start_soon(first);
        wait_all_tasks_blocked(Duration::ZERO).await?;
        then.await
    })
    .await
}

/// Runs `then` while `first` waits; `first` is cancelled afterwards.
pub(super) async fn meanwhile_cancelled(
    first: impl Future<Output = Result<()>>,
    then: impl Future<Output = Result<()>>,
) -> Result<()> {
    open_nursery(async |nursery| {
        nursery.start_soon(first);
        wait_all_tasks_blocked(Duration::ZERO).await?;
        then.await?;
        nursery.cancel_scope().cancel("seen enough");
        Ok(())
    })
    .await
}

/// Checks that `operation` is a checkpoint. If it is not, this panics itself, with less to say.
async fn is_checkpoint(what: &str, operation: impl Future<Output = Result<()>>) -> Result<()> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::pin::pin;
    use std::task::Poll;

    let mut operation = pin!(assert_checkpoints(operation));
    std::future::poll_fn(|context| {
        let poll = catch_unwind(AssertUnwindSafe(|| operation.as_mut().poll(context)));
        poll.unwrap_or_else(|_| Poll::Ready(demand(false, format!("{what} is no checkpoint"))))
    })
    .await
}

/// Checks that `operation` reports a cancellation in a scope that has been cancelled.
async fn reports_cancel(what: &str, operation: impl Future<Output = Result<()>>) -> Result<()> {
    let scope = CancelScope::new();
    scope.cancel("by the check of a stream");
    scope.enter(operation).await?;
    let rule = format!("{what} is to report that it has been cancelled");
    demand(scope.cancelled_caught(), rule)
}

/// Checks that `operation`, which waits, can be cancelled.
async fn cancelled_in_the_middle(
    what: &str,
    operation: impl Future<Output = Result<()>>,
) -> Result<()> {
    let scope = CancelScope::new();
    let inside = &scope;
    open_nursery(async |nursery| {
        nursery.start_soon(async move {
            inside.enter(operation).await?;
            Ok(())
        });
        wait_all_tasks_blocked(Duration::ZERO).await?;
        inside.cancel("by the check of a stream");
        Ok(())
    })
    .await?;
    let rule = format!("{what} is to report that it was cancelled while it waited");
    demand(scope.cancelled_caught(), rule)
}

/// A task that waits to send may get the error of a broken stream, or leave that to the send.
fn may_be_broken(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if !error.is::<BrokenResource>() => Err(error),
        _ => Ok(()),
    }
}
