//! Streams without any buffer: a send returns when its last byte has been received.
//!
//! They take data as slowly as a stream can, so they find code that relies on a send returning at
//! once: two sides that both send first wait for each other for ever, as they would on a bad day of
//! a real network.
//!
//! 1. The bytes of at most one send are offered at a time. They belong to the future of that send:
//!    if it is cancelled or dropped, whatever has not been taken by then is gone.
//! 2. Closing either side wakes the other, and whoever waits on the same side. Dropping closes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::Read;
use std::rc::Rc;

use trio_runtime::lowlevel::enter_operation;
use trio_runtime::{BrokenResource, ClosedResource, Result};

use super::waiting::Waiting;
use super::{implement_receive, implement_send};
use crate::claim::Claims;

/// Two halves of a stream without a buffer.
///
/// `send_all` returns when everything has been received, and `wait_send_all_might_not_block` when
/// somebody is waiting to receive. If the receiver is closed, a send with data left is broken.
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod io { pub use trio_io::*; } pub mod testing { pub use trio_io::testing::*; } }
/// # trio::run(async {
/// use trio::testing::lockstep_stream_one_way_pair;
/// use trio::io::{ReceiveStream, SendStream};
///
/// let (mut send, mut receive) = lockstep_stream_one_way_pair();
/// trio::open_nursery(async |nursery| {
///     nursery.start_soon(send.send_all(b"hello"));
///     let mut buffer = [0; 16];
///     assert_eq!(receive.receive_some(&mut buffer).await?, 5);
///     Ok(())
/// })
/// .await
/// # }).unwrap();
/// ```
pub fn lockstep_stream_one_way_pair() -> (LockstepSendStream, LockstepReceiveStream) {
    let pipe = Rc::new(Pipe::default());
    (
        LockstepSendStream(pipe.clone()),
        LockstepReceiveStream(pipe),
    )
}

#[derive(Debug, Default)]
struct Pipe {
    /// What is offered and has not been received.
    offered: RefCell<VecDeque<u8>>,
    send_closed: Cell<bool>,
    receive_closed: Cell<bool>,
    /// Whether a task waits to receive.
    wanted: Cell<bool>,
    sending: Claims,
    receiving: Claims,
    changed: Waiting,
}

/// The half that sends, of [`lockstep_stream_one_way_pair`].
#[derive(Debug)]
pub struct LockstepSendStream(Rc<Pipe>);

/// The half that receives, of [`lockstep_stream_one_way_pair`].
#[derive(Debug)]
pub struct LockstepReceiveStream(Rc<Pipe>);

impl LockstepSendStream {
    async fn send(&self, data: &[u8]) -> Result<()> {
        let pipe = &*self.0;
        let _claim = pipe.sending.claim()?;
        enter_operation().await?;
        if pipe.send_closed.get() {
            return Err(ClosedResource::new().into());
        }
        if pipe.receive_closed.get() {
            return Err(BrokenResource::new().into());
        }
        // However the wait ends, this guard takes back what is left.
        let _offer = Offer::new(pipe, data);
        let over = || {
            let taken = pipe.offered.borrow().is_empty();
            (taken || pipe.send_closed.get() || pipe.receive_closed.get()).then_some(taken)
        };
        let taken = pipe.changed.until(over).await?;
        if pipe.send_closed.get() {
            return Err(ClosedResource::new().into());
        }
        if !taken {
            return Err(BrokenResource::new().into());
        }
        Ok(())
    }

    async fn wait_send(&self) -> Result<()> {
        let pipe = &*self.0;
        let _claim = pipe.sending.claim()?;
        enter_operation().await?;
        let wanted = || {
            let over = pipe.send_closed.get() || pipe.receive_closed.get();
            (over || pipe.wanted.get()).then_some(())
        };
        pipe.changed.until(wanted).await?;
        if pipe.send_closed.get() {
            return Err(ClosedResource::new().into());
        }
        Ok(())
    }

    /// Closes this half at once: the other side receives the end of file.
    pub fn close(&self) {
        self.0.send_closed.set(true);
        self.0.changed.wake();
    }
}

impl Drop for LockstepSendStream {
    fn drop(&mut self) {
        self.close();
    }
}

/// The bytes of a send, while it waits.
struct Offer<'a>(&'a Pipe);

impl<'a> Offer<'a> {
    fn new(pipe: &'a Pipe, data: &[u8]) -> Self {
        debug_assert!(
            pipe.offered.borrow().is_empty(),
            "one send at a time, and it takes back what it leaves"
        );
        pipe.offered.borrow_mut().extend(data);
        pipe.changed.wake();
        Self(pipe)
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        self.0.offered.borrow_mut().clear();
    }
}

impl LockstepReceiveStream {
    async fn receive_into(&self, buffer: &mut [u8]) -> Result<usize> {
        let pipe = &*self.0;
        super::memory::refuse_empty(buffer)?;
        let _claim = pipe.receiving.claim()?;
        enter_operation().await?;
        if pipe.receive_closed.get() {
            return Err(ClosedResource::new().into());
        }
        let _want = Want::new(pipe);
        let over = || {
            let data = !pipe.offered.borrow().is_empty();
            (data || pipe.send_closed.get() || pipe.receive_closed.get()).then_some(())
        };
        pipe.changed.until(over).await?;
        if pipe.receive_closed.get() {
            return Err(ClosedResource::new().into());
        }
        // A send withdraws what it has offered when its future ends, as it does when the other side
        // closes.
        let count = pipe.offered.borrow_mut().read(buffer)?;
        pipe.changed.wake();
        Ok(count)
    }

    /// Closes this half at once: a send with data left is broken.
    pub fn close(&self) {
        self.0.receive_closed.set(true);
        self.0.changed.wake();
    }
}

impl Drop for LockstepReceiveStream {
    fn drop(&mut self) {
        self.close();
    }
}

/// Says that a task waits to receive, while it does.
struct Want<'a>(&'a Pipe);

impl<'a> Want<'a> {
    fn new(pipe: &'a Pipe) -> Self {
        pipe.wanted.set(true);
        pipe.changed.wake();
        Self(pipe)
    }
}

impl Drop for Want<'_> {
    fn drop(&mut self) {
        self.0.wanted.set(false);
    }
}

implement_send!(LockstepSendStream, &LockstepSendStream);
implement_receive!(LockstepReceiveStream, &LockstepReceiveStream);
