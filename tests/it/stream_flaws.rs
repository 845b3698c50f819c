//! The checks of streams, applied to streams that break one rule each: every flaw must be found
//! (Z5, Z6).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use trio::io::{AsyncResource, HalfCloseableStream, Lease, Outgoing, ReceiveStream, SendStream};
use trio::lowlevel::{enter_operation, socket};
use trio::testing::{
    MockClock, check_half_closeable_stream, check_one_way_stream, check_two_way_stream,
};
use trio::{
    BrokenResource, Builder, BusyResource, CancelScope, ClosedResource, Result, sleep_forever,
};

use crate::support::oops;

/// The flaws that a pipe may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    LosesTheLastByte,
    TurnsBytesRound,
    EmptySendCloses,
    ForgetsWhatWasGivenAway,
    CountsTooMuch,
    TakesAnEmptyBuffer,
    SendIsNoCheckpoint,
    CloseIsNoCheckpoint,
    ReceiveIgnoresCancel,
    SendIgnoresCancel,
    ReceivesForTwo,
    NeverWantsData,
    IsNeverBroken,
    IsBrokenOnce,
    ClosedSenderIsBroken,
    ClosedSenderSendsNothing,
    ClosedSenderWaits,
    ClosedReceiverIsAtItsEnd,
    SecondCloseFails,
    CloseLosesData,
    HasNoEnd,
    EndsOnce,
    CancelledCloseStaysOpen,
    CancelledReceiveTakes,
    CloseDoesNotWakeReceive,
    StaysOpenWhenDropped,
    ReceiveDoesNotWakeWaits,
    IsNeverClogged,
    SendsForTwo,
    ReceiverCloseDoesNotWakeSends,
    CloseDoesNotWakeSends,
    EndClosesBoth,
    SendsAfterTheEnd,
    SecondEndFails,
    EndIsNotBusy,
    EndAfterClose,
}

use Flaw as F;

/// One direction, with room for this many bytes, and perhaps a flaw.
struct Pipe {
    flaw: Flaw,
    room: usize,
    data: RefCell<VecDeque<u8>>,
    send_closed: Cell<u32>,
    receive_closed: Cell<u32>,
    wanted: Cell<bool>,
    ends_told: Cell<u32>,
    broken_told: Cell<u32>,
    sending: Cell<bool>,
    receiving: Cell<bool>,
    senders: RefCell<Vec<Waker>>,
    receivers: RefCell<Vec<Waker>>,
}

impl Pipe {
    fn new(flaw: Flaw, room: usize) -> Rc<Self> {
        Rc::new(Self {
            flaw,
            room,
            data: RefCell::default(),
            send_closed: Cell::new(0),
            receive_closed: Cell::new(0),
            wanted: Cell::new(false),
            ends_told: Cell::new(0),
            broken_told: Cell::new(0),
            sending: Cell::new(false),
            receiving: Cell::new(false),
            senders: RefCell::default(),
            receivers: RefCell::default(),
        })
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    /// Takes a direction, unless the flaw is not to do so.
    fn claim<'a>(&self, taken: &'a Cell<bool>, flaw: Flaw) -> Result<Claim<'a>> {
        if taken.replace(true) && !self.has(flaw) {
            return Err(BusyResource::new().into());
        }
        Ok(Claim(taken))
    }

    /// Checks for a cancellation, unless the flaw is not to do so.
    async fn enter(&self, flaw: Flaw) -> Result<()> {
        if self.has(flaw) {
            let shield = CancelScope::new().shielded();
            shield.enter(enter_operation()).await?;
            return Ok(());
        }
        enter_operation().await
    }

    async fn send(&self, data: Outgoing<'_>) -> Result<()> {
        let _claim = self.claim(&self.sending, F::SendsForTwo)?;
        if !self.has(F::SendIsNoCheckpoint) {
            self.enter(F::SendIgnoresCancel).await?;
        }
        let mut bytes = data.bytes().to_vec();
        if self.send_closed.get() > 0 {
            match self.flaw {
                F::ClosedSenderIsBroken => return Err(BrokenResource::new().into()),
                F::ClosedSenderSendsNothing if bytes.is_empty() => return Ok(()),
                F::SendsAfterTheEnd => return Ok(()),
                _ => return Err(ClosedResource::new().into()),
            }
        }
        match self.flaw {
            F::LosesTheLastByte if bytes.len() > 1 => drop(bytes.pop()),
            F::TurnsBytesRound => bytes.reverse(),
            F::EmptySendCloses if bytes.is_empty() => self.close_send(),
            F::ForgetsWhatWasGivenAway if !matches!(data, Outgoing::Borrowed(_)) => bytes.clear(),
            _ => {}
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let broken = until(&self.senders, || {
                let over = self.send_closed.get() > 0 || self.receive_closed.get() > 0;
                (over || self.data.borrow().len() < self.room)
                    .then(|| self.receive_closed.get() > 0)
            })
            .await?;
            if self.send_closed.get() > 0 {
                return Err(ClosedResource::new().into());
            }
            if broken {
                let told = self.broken_told.replace(self.broken_told.get() + 1);
                match self.flaw {
                    F::IsNeverBroken => return Ok(()),
                    F::IsBrokenOnce if told > 0 => return Ok(()),
                    _ => return Err(BrokenResource::new().into()),
                }
            }
            let mut data = self.data.borrow_mut();
            let (now, later) = rest.split_at(rest.len().min(self.room - data.len()));
            data.extend(now);
            drop(data);
            rest = later;
            wake(&self.receivers);
        }
        Ok(())
    }

    async fn wait_send(&self) -> Result<()> {
        let _claim = self.claim(&self.sending, F::SendsForTwo)?;
        enter_operation().await?;
        if self.send_closed.get() > 0 && self.has(F::ClosedSenderWaits) {
            return Ok(());
        }
        until(&self.senders, || {
            let room = self.data.borrow().len() < self.room && !self.has(F::NeverWantsData);
            let over = self.send_closed.get() > 0 || self.receive_closed.get() > 0;
            (over || room || self.has(F::IsNeverClogged)).then_some(())
        })
        .await?;
        match self.send_closed.get() {
            0 => Ok(()),
            _ => Err(ClosedResource::new().into()),
        }
    }

    async fn receive_into(&self, buffer: &mut [u8]) -> Result<usize> {
        if buffer.is_empty() && !self.has(F::TakesAnEmptyBuffer) {
            return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput).into());
        }
        let _claim = self.claim(&self.receiving, F::ReceivesForTwo)?;
        self.enter(F::ReceiveIgnoresCancel).await?;
        if self.has(F::ReceiveIgnoresCancel) && self.data.borrow().is_empty() {
            return Ok(0);
        }
        if self.receive_closed.get() > 0 {
            return match self.flaw {
                F::ClosedReceiverIsAtItsEnd => Ok(0),
                _ => Err(ClosedResource::new().into()),
            };
        }
        self.wanted.set(true);
        let end = until(&self.receivers, || {
            let ended = match self.flaw {
                F::HasNoEnd => false,
                F::EndsOnce => self.send_closed.get() > 0 && self.ends_told.get() == 0,
                _ => self.send_closed.get() > 0,
            };
            let over = ended || self.receive_closed.get() > 0;
            (over || !self.data.borrow().is_empty()).then_some(())
        })
        .await;
        if end.is_err() && self.has(F::CancelledReceiveTakes) {
            // It eats the first byte that comes.
            self.wanted.set(false);
            self.ends_told.set(100);
        }
        end?;
        if self.receive_closed.get() > 0 {
            return Err(ClosedResource::new().into());
        }
        if self.ends_told.get() == 100 {
            self.ends_told.set(0);
            self.data.borrow_mut().pop_front();
            if self.data.borrow().is_empty() {
                return Box::pin(self.receive_again(buffer)).await;
            }
        }
        let count = std::io::Read::read(&mut *self.data.borrow_mut(), buffer)?;
        if count == 0 {
            self.ends_told.set(self.ends_told.get() + 1);
        }
        if !self.has(F::ReceiveDoesNotWakeWaits) {
            wake(&self.senders);
        }
        Ok(count + usize::from(self.has(F::CountsTooMuch)))
    }

    async fn receive_again(&self, buffer: &mut [u8]) -> Result<usize> {
        until(&self.receivers, || {
            (!self.data.borrow().is_empty()).then_some(())
        })
        .await?;
        Ok(std::io::Read::read(&mut *self.data.borrow_mut(), buffer)?)
    }

    fn close_send(&self) {
        self.send_closed.set(self.send_closed.get() + 1);
        if self.has(F::CloseLosesData) {
            self.data.borrow_mut().clear();
        }
        wake(&self.receivers);
        if !self.has(F::CloseDoesNotWakeSends) {
            wake(&self.senders);
        }
    }

    fn close_receive(&self) {
        self.receive_closed.set(self.receive_closed.get() + 1);
        if !self.has(F::CloseDoesNotWakeReceive) {
            wake(&self.receivers);
        }
        if !self.has(F::ReceiverCloseDoesNotWakeSends) {
            wake(&self.senders);
        }
    }

    async fn aclose(&self, close: impl Fn(), closed: &Cell<u32>) -> Result<()> {
        if self.has(F::CancelledCloseStaysOpen) {
            enter_operation().await?;
        }
        close();
        if closed.get() > 1 && self.has(F::SecondCloseFails) {
            return oops("it is closed already");
        }
        if self.has(F::CloseIsNoCheckpoint) {
            return Ok(());
        }
        enter_operation().await
    }
}

struct Claim<'a>(&'a Cell<bool>);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

fn wake(wakers: &RefCell<Vec<Waker>>) {
    wakers.take().into_iter().for_each(Waker::wake);
}

/// Waits until `look` finds something, or for a cancellation.
async fn until<T>(wakers: &RefCell<Vec<Waker>>, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let mut forever = pin!(sleep_forever());
    poll_fn(|context| {
        if let Some(found) = look() {
            return Poll::Ready(Ok(found));
        }
        wakers.borrow_mut().push(context.waker().clone());
        match forever.as_mut().poll(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Pending,
        }
    })
    .await
}

struct Sender(Rc<Pipe>);
struct Receiver(Rc<Pipe>);

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.0.has(F::StaysOpenWhenDropped) {
            self.0.close_send();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.close_receive();
    }
}

/// Both directions.
struct Duplex(Sender, Receiver, Cell<bool>);

impl Duplex {
    async fn aclose(&self) -> Result<()> {
        self.2.set(true);
        let (send, receive) = (&self.0.0, &self.1.0);
        let first = send.aclose(|| send.close_send(), &send.send_closed).await;
        let second = receive
            .aclose(|| receive.close_receive(), &receive.receive_closed)
            .await;
        first.and(second)
    }

    async fn send_eof(&self) -> Result<()> {
        let pipe = &*self.0.0;
        let _claim = pipe.claim(&pipe.sending, F::EndIsNotBusy)?;
        enter_operation().await?;
        if self.2.get() && !pipe.has(F::EndAfterClose) {
            return Err(ClosedResource::new().into());
        }
        pipe.close_send();
        if pipe.send_closed.get() > 1 && pipe.has(F::SecondEndFails) {
            return oops("it has ended already");
        }
        if pipe.has(F::EndClosesBoth) {
            self.1.0.close_receive();
        }
        Ok(())
    }
}

async fn lend(pipe: &Pipe) -> Result<Option<Lease>> {
    let mut lease = socket::buffer();
    let mut buffer = [0; 1024];
    let count = pipe.receive_into(&mut buffer).await?;
    lease.extend(&buffer[..count.min(1024)]);
    Ok(Some(lease).filter(|lease| !lease.is_empty()))
}

macro_rules! implement {
    (send $($stream:ty),* => $this:ident $pipe:expr) => {$(
        impl SendStream for $stream {
            async fn send_all<'a>(&mut self, data: impl Into<Outgoing<'a>>) -> Result<()> {
                let $this = self;
                $pipe.send(data.into()).await
            }
            async fn wait_send_all_might_not_block(&mut self) -> Result<()> {
                let $this = self;
                $pipe.wait_send().await
            }
        }
    )*};
    (receive $($stream:ty),* => $this:ident $pipe:expr) => {$(
        impl ReceiveStream for $stream {
            async fn receive_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
                let $this = self;
                $pipe.receive_into(buffer).await
            }
            async fn receive(&mut self) -> Result<Option<Lease>> {
                let $this = self;
                lend(&$pipe).await
            }
        }
    )*};
    (close $($stream:ty),* => $this:ident $close:expr) => {$(
        impl AsyncResource for $stream {
            async fn aclose(&mut self) -> Result<()> {
                let $this = self;
                $close.await
            }
        }
    )*};
}

implement!(send Sender, &Sender => this this.0);
implement!(receive Receiver, &Receiver => this this.0);
implement!(close Sender, &Sender => this this.0.aclose(|| this.0.close_send(), &this.0.send_closed));
implement!(close Receiver, &Receiver =>
    this this.0.aclose(|| this.0.close_receive(), &this.0.receive_closed));
implement!(send Duplex, &Duplex => this this.0.0);
implement!(receive Duplex, &Duplex => this this.1.0);
implement!(close Duplex, &Duplex => this Duplex::aclose(this));

impl HalfCloseableStream for Duplex {
    async fn send_eof(&mut self) -> Result<()> {
        Self::send_eof(self).await
    }
}

impl HalfCloseableStream for &Duplex {
    async fn send_eof(&mut self) -> Result<()> {
        Duplex::send_eof(self).await
    }
}

fn one_way(flaw: Flaw, room: usize) -> (Sender, Receiver) {
    let pipe = Pipe::new(flaw, room);
    (Sender(pipe.clone()), Receiver(pipe))
}

fn two_ways(there: Flaw, back: Flaw, room: usize) -> (Duplex, Duplex) {
    let (send, receive) = one_way(there, room);
    let (answer, hear) = one_way(back, room);
    (
        Duplex(send, hear, Cell::new(false)),
        Duplex(answer, receive, Cell::new(false)),
    )
}

/// Plenty of room, and a pipe that has been filled.
const ROOMY: usize = 4 * 1024 * 1024;

fn clogged(flaw: Flaw) -> (Sender, Receiver) {
    let (send, receive) = one_way(flaw, 8);
    send.0.data.borrow_mut().extend([0; 8]);
    (send, receive)
}

fn clogged_both_ways(there: Flaw, back: Flaw) -> (Duplex, Duplex) {
    let (one, other) = two_ways(there, back, 8);
    for pipe in [&one.0.0, &other.0.0] {
        pipe.data.borrow_mut().extend([0; 8]);
    }
    (one, other)
}

/// The message with which the check panics, if it does.
fn complaint(check: impl Future<Output = Result<()>>) -> Option<String> {
    let run = || Builder::new().clock(MockClock::autojump()).run(check);
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => panic!("a check complains by a panic, not by {error:?}"),
        Err(panic) => Some(*panic.downcast::<String>().expect("a text")),
    }
}

#[track_caller]
fn check_one_way(flaw: Flaw, expected: &str) {
    let text = complaint(check_one_way_stream(
        async || Ok(one_way(flaw, ROOMY)),
        async || Ok(Some(clogged(flaw))),
    ));
    let text = text.unwrap_or_else(|| panic!("{flaw:?} has not been found"));
    let expected = format!("check_one_way_stream: {expected}");
    assert!(text.starts_with(&expected), "{flaw:?}: {text}");
}

#[track_caller]
fn check_half_closeable(there: Flaw, back: Flaw, expected: &str) {
    let text = complaint(check_half_closeable_stream(
        async || Ok(two_ways(there, back, ROOMY)),
        async || Ok(Some(clogged_both_ways(there, back))),
    ));
    let text = text.unwrap_or_else(|| panic!("{there:?}, {back:?} has not been found"));
    let expected = format!("check_half_closeable_stream: {expected}");
    assert!(text.starts_with(&expected), "{there:?}, {back:?}: {text}");
}

#[test]
fn z5_a_stream_without_a_flaw_passes() {
    let text = complaint(check_one_way_stream(
        async || Ok(one_way(F::None, ROOMY)),
        async || Ok(Some(clogged(F::None))),
    ));
    assert_eq!(text, None);
}

#[test]
fn z5_what_is_wrong_with_data_is_found() {
    check_one_way(
        F::LosesTheLastByte,
        "what is sent arrives: nothing happened for 10s",
    );
    check_one_way(
        F::TurnsBytesRound,
        "what is sent arrives: 100000 bytes arrived, and not",
    );
    check_one_way(F::EmptySendCloses, "an empty send does no harm");
    check_one_way(F::ForgetsWhatWasGivenAway, "all kinds of data can be sent");
    check_one_way(
        F::CountsTooMuch,
        "what is sent arrives: `receive_some` says 2",
    );
    check_one_way(F::TakesAnEmptyBuffer, "an empty buffer is refused");
}

#[test]
fn z5_what_is_no_checkpoint_is_found() {
    let name = "every operation is a checkpoint";
    check_one_way(F::SendIsNoCheckpoint, &format!("{name}: `send_all` is no"));
    check_one_way(
        F::CloseIsNoCheckpoint,
        &format!("{name}: `aclose` of the sender is no"),
    );
    let name = "every operation can be cancelled";
    check_one_way(
        F::ReceiveIgnoresCancel,
        &format!("{name}: `receive_some` is to report"),
    );
    check_one_way(
        F::SendIgnoresCancel,
        &format!("{name}: `send_all` is to report"),
    );
}

#[test]
fn z5_what_is_wrong_with_two_users_is_found() {
    let name = "two tasks cannot receive at the same time";
    check_one_way(F::ReceivesForTwo, &format!("{name}: "));
    check_one_way(F::NeverWantsData, "a sender that waits learns");
    check_one_way(
        F::SendsForTwo,
        "two tasks cannot wait to send at the same time",
    );
}

#[test]
fn z5_what_is_wrong_with_closing_is_found() {
    let learns = "a sender learns that the receiver was closed";
    check_one_way(
        F::IsNeverBroken,
        &format!("{learns}: `send_all` to a receiver"),
    );
    check_one_way(
        F::IsBrokenOnce,
        &format!("{learns}: `send_all` after that failed"),
    );
    let sender = "a sender that was closed is closed for everything";
    check_one_way(F::ClosedSenderIsBroken, &format!("{sender}: `send_all` on"));
    check_one_way(
        F::ClosedSenderSendsNothing,
        &format!("{sender}: `send_all` of nothing"),
    );
    check_one_way(
        F::ClosedSenderWaits,
        &format!("{sender}: `wait_send_all_might_not_block`"),
    );
    check_one_way(
        F::ClosedReceiverIsAtItsEnd,
        "a receiver that was closed is closed for everything: `receive_some`",
    );
    check_one_way(
        F::SecondCloseFails,
        "every operation is a checkpoint: unexpected",
    );
    check_one_way(F::CloseLosesData, "data comes before the end of file");
    check_one_way(
        F::HasNoEnd,
        "every operation is a checkpoint: nothing happened",
    );
    check_one_way(
        F::EndsOnce,
        "data comes before the end of file: nothing happened",
    );
    check_one_way(
        F::CancelledCloseStaysOpen,
        "closing the sender forcefully closes it: `send_all` on a sender that was closed",
    );
    check_one_way(F::StaysOpenWhenDropped, "dropping the sender closes it");
}

#[test]
fn z5_what_is_wrong_with_cancelling_and_waking_is_found() {
    check_one_way(
        F::CancelledReceiveTakes,
        "a cancelled receive takes nothing",
    );
    check_one_way(
        F::CloseDoesNotWakeReceive,
        "closing wakes a receive that waits",
    );
}

#[test]
fn z5_what_is_wrong_with_a_clogged_stream_is_found() {
    let name = "a clogged stream waits until something is received";
    check_one_way(
        F::ReceiveDoesNotWakeWaits,
        &format!("{name}: nothing happened"),
    );
    check_one_way(F::IsNeverClogged, &format!("{name}: `wait_send_all"));
    check_one_way(
        F::ReceiverCloseDoesNotWakeSends,
        "closing the receiver wakes who waits",
    );
    check_one_way(F::CloseDoesNotWakeSends, "closing wakes a send that waits");
}

#[test]
fn z6_streams_that_go_both_ways_without_a_flaw_pass() {
    let text = complaint(check_two_way_stream(
        async || Ok(two_ways(F::None, F::None, ROOMY)),
        async || Ok(Some(clogged_both_ways(F::None, F::None))),
    ));
    assert_eq!(text, None);
    let text = complaint(check_half_closeable_stream(
        async || Ok(two_ways(F::None, F::None, ROOMY)),
        async || Ok(Some(clogged_both_ways(F::None, F::None))),
    ));
    assert_eq!(text, None);
}

#[test]
fn z6_a_flaw_of_the_way_back_is_found() {
    check_half_closeable(F::None, F::LosesTheLastByte, "what is sent arrives");
    check_half_closeable(F::None, F::IsBrokenOnce, "a sender learns");
    check_half_closeable(
        F::None,
        F::CloseDoesNotWakeSends,
        "closing wakes a send that waits",
    );
}

#[test]
fn z6_what_is_wrong_with_the_end_of_file_is_found() {
    let ends = "the end of file ends one direction";
    check_half_closeable(F::EndClosesBoth, F::None, ends);
    check_half_closeable(F::SecondEndFails, F::None, &format!("{ends}: unexpected"));
    check_half_closeable(
        F::None,
        F::EndClosesBoth,
        "the end of file ends the other direction",
    );
    check_half_closeable(
        F::EndAfterClose,
        F::None,
        "a stream that was closed has no end of file to send",
    );
    check_half_closeable(
        F::EndIsNotBusy,
        F::None,
        "the end of file cannot be sent while another task sends",
    );
    let after = complaint(check_half_closeable_stream(
        async || Ok(two_ways(F::SendsAfterTheEnd, F::None, ROOMY)),
        async || Ok(None),
    ));
    // On a stream that cannot tell the end from a close, that is found here first.
    let after = after.expect("it has been found");
    assert!(
        after.contains("a sender that was closed is closed for everything"),
        "{after}"
    );
}
