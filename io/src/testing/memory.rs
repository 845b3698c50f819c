//! Streams whose other side is the test itself.
//!
//! A [`MemorySendStream`] keeps what is sent, for the test to take out of its [`MemoryOutlet`]; a
//! [`MemoryReceiveStream`] returns what the test puts into its [`MemoryInlet`]. Both are unbounded.
//! Hooks are called at certain points, to make things happen there: a pair of connected streams is
//! just two of them with hooks that carry the bytes over.
//!
//! 1. The stream owns its end: dropping it closes it. Outlets and inlets are handles; they may be
//!    cloned, outlive the stream, and be dropped, without any effect on it.
//! 2. A hook belongs to the stream and lives as long as the stream or a handle to it. It is passed
//!    the handle; a hook that captures another handle to the *same* stream keeps it alive for ever.
//! 3. Every operation passes two checkpoints before it does anything, so that two operations that
//!    should not meet do.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use trio_runtime::{BrokenResource, ClosedResource, Result, WouldBlock, checkpoint};

use super::waiting::Waiting;
use super::{implement_receive, implement_send};
use crate::claim::Claims;

type AsyncHook<H> = Rc<dyn Fn(H) -> Pin<Box<dyn Future<Output = Result<()>>>>>;
type CloseHook<H> = Rc<dyn Fn(&H)>;

fn boxed<H: 'static>(hook: impl AsyncFn(H) -> Result<()> + 'static) -> AsyncHook<H> {
    let hook = Rc::new(hook);
    Rc::new(move |handle| {
        let hook = hook.clone();
        Box::pin(async move { hook(handle).await })
    })
}

/// A stream that keeps what is sent for the test to look at.
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod io { pub use trio_io::*; } pub mod testing { pub use trio_io::testing::*; } }
/// # trio::run(async {
/// use trio::testing::MemorySendStream;
/// use trio::io::{AsyncResource, SendStream};
///
/// async fn greet(mut stream: impl SendStream) -> trio::Result<()> {
///     stream.send_all("hello, ").await?;
///     stream.send_all("world").await?;
///     stream.aclose().await
/// }
///
/// let stream = MemorySendStream::new();
/// let sent = stream.outlet();
/// greet(stream).await?;
/// assert_eq!(sent.try_get_data(None)?, b"hello, world");
/// assert_eq!(sent.try_get_data(None)?, b"", "and then it was closed");
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub struct MemorySendStream(MemoryOutlet);

/// What has come out of a [`MemorySendStream`]; a handle, cheap to clone.
#[derive(Clone)]
pub struct MemoryOutlet(Rc<Sent>);

#[derive(Default)]
struct Sent {
    data: RefCell<VecDeque<u8>>,
    closed: Cell<bool>,
    sending: Claims,
    getting: Claims,
    changed: Waiting,
    send_all_hook: RefCell<Option<AsyncHook<MemoryOutlet>>>,
    wait_hook: RefCell<Option<AsyncHook<MemoryOutlet>>>,
    close_hook: RefCell<Option<CloseHook<MemoryOutlet>>>,
}

impl MemorySendStream {
    /// A stream to which nothing has been sent, without hooks.
    pub fn new() -> Self {
        Self(MemoryOutlet(Rc::default()))
    }

    /// The side of the test.
    pub fn outlet(&self) -> MemoryOutlet {
        self.0.clone()
    }

    async fn send(&self, data: &[u8]) -> Result<()> {
        let sent = &*self.0.0;
        let _claim = sent.sending.claim()?;
        // One lets a second task get here, the other lets it try.
        checkpoint().await?;
        checkpoint().await?;
        self.refuse_closed()?;
        sent.data.borrow_mut().extend(data);
        sent.changed.wake();
        let hook = sent.send_all_hook.borrow().clone();
        match hook {
            Some(hook) => hook(self.outlet()).await,
            None => Ok(()),
        }
    }

    async fn wait_send(&self) -> Result<()> {
        let sent = &*self.0.0;
        let _claim = sent.sending.claim()?;
        checkpoint().await?;
        checkpoint().await?;
        self.refuse_closed()?;
        let hook = sent.wait_hook.borrow().clone();
        if let Some(hook) = hook {
            hook(self.outlet()).await?;
        }
        // The hook may have taken long.
        self.refuse_closed()
    }

    fn refuse_closed(&self) -> Result<()> {
        match self.0.0.closed.get() {
            true => Err(ClosedResource::new().into()),
            false => Ok(()),
        }
    }

    /// Closes the stream at once; calls the close hook every time.
    pub fn close(&self) {
        let sent = &*self.0.0;
        sent.closed.set(true);
        sent.changed.wake();
        let hook = sent.close_hook.borrow().clone();
        if let Some(hook) = hook {
            hook(&self.0);
        }
    }
}

impl Default for MemorySendStream {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemorySendStream {
    fn drop(&mut self) {
        self.close();
    }
}

impl MemoryOutlet {
    /// Takes out what has been sent, at most `max` bytes of it, and waits until there is something;
    /// empty if the stream has been closed and all has been taken.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. Nothing has been taken.
    ///
    /// # Errors
    ///
    /// `Cancelled`; `BusyResource` if another task waits here.
    ///
    /// # Panics
    ///
    /// If `max` is zero.
    pub async fn get_data(&self, max: Option<usize>) -> Result<Vec<u8>> {
        let _claim = self.0.getting.claim()?;
        checkpoint().await?;
        self.0.changed.until(|| self.try_get_data(max).ok()).await
    }

    /// Takes out what has been sent, at most `max` bytes of it; empty if the stream has been closed
    /// and all has been taken.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`] if there is nothing, and the stream is open.
    ///
    /// # Panics
    ///
    /// If `max` is zero.
    #[doc(alias = "get_data_nowait")]
    pub fn try_get_data(&self, max: Option<usize>) -> Result<Vec<u8>, WouldBlock> {
        assert!(
            max != Some(0),
            "nothing at all means the end: take at least one byte"
        );
        let mut data = self.0.data.borrow_mut();
        if data.is_empty() && !self.0.closed.get() {
            return Err(WouldBlock::new());
        }
        let count = max.unwrap_or(usize::MAX).min(data.len());
        Ok(data.drain(..count).collect())
    }

    /// Whether the stream has been closed.
    pub fn is_closed(&self) -> bool {
        self.0.closed.get()
    }

    /// Calls `hook` at the end of each `send_all`, when the data is there to be taken. Its error is
    /// that of the send.
    pub fn set_send_all_hook(&self, hook: impl AsyncFn(Self) -> Result<()> + 'static) {
        self.0.send_all_hook.replace(Some(boxed(hook)));
    }

    /// Calls `hook` in each `wait_send_all_might_not_block`, which ends when it does.
    pub fn set_wait_send_all_might_not_block_hook(
        &self,
        hook: impl AsyncFn(Self) -> Result<()> + 'static,
    ) {
        self.0.wait_hook.replace(Some(boxed(hook)));
    }

    /// Calls `hook` each time the stream is closed, after that.
    pub fn set_close_hook(&self, hook: impl Fn(&Self) + 'static) {
        self.0.close_hook.replace(Some(Rc::new(hook)));
    }

    /// Takes all hooks away.
    pub fn clear_hooks(&self) {
        let hooks = (
            self.0.send_all_hook.take(),
            self.0.wait_hook.take(),
            self.0.close_hook.take(),
        );
        drop(hooks);
    }
}

impl fmt::Debug for MemorySendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemorySendStream").field(&self.0).finish()
    }
}

impl fmt::Debug for MemoryOutlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryOutlet")
            .field("bytes", &self.0.data.borrow().len())
            .field("closed", &self.0.closed.get())
            .finish_non_exhaustive()
    }
}

/// A stream that delivers what the test has put in.
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod io { pub use trio_io::*; } pub mod testing { pub use trio_io::testing::*; } }
/// # trio::run(async {
/// use trio::io::ReceiveStream;
/// use trio::testing::MemoryReceiveStream;
///
/// let mut stream = MemoryReceiveStream::new();
/// let inlet = stream.inlet();
/// inlet.put_data(b"hello")?;
/// inlet.put_eof();
/// let mut buffer = [0; 3];
/// assert_eq!(stream.receive_some(&mut buffer).await?, 3);
/// assert_eq!(stream.receive_some(&mut buffer).await?, 2);
/// assert_eq!(stream.receive_some(&mut buffer).await?, 0);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub struct MemoryReceiveStream(MemoryInlet);

/// What goes into a [`MemoryReceiveStream`]; a handle, cheap to clone.
#[derive(Clone)]
pub struct MemoryInlet(Rc<Received>);

#[derive(Default)]
struct Received {
    data: RefCell<VecDeque<u8>>,
    ended: Cell<bool>,
    closed: Cell<bool>,
    receiving: Claims,
    changed: Waiting,
    receive_some_hook: RefCell<Option<AsyncHook<MemoryInlet>>>,
    close_hook: RefCell<Option<CloseHook<MemoryInlet>>>,
}

impl MemoryReceiveStream {
    /// A stream in which there is nothing, without hooks.
    pub fn new() -> Self {
        Self(MemoryInlet(Rc::default()))
    }

    /// The side of the test.
    pub fn inlet(&self) -> MemoryInlet {
        self.0.clone()
    }

    async fn receive_into(&self, buffer: &mut [u8]) -> Result<usize> {
        refuse_empty(buffer)?;
        let received = &*self.0.0;
        let _claim = received.receiving.claim()?;
        checkpoint().await?;
        checkpoint().await?;
        if received.closed.get() {
            return Err(ClosedResource::new().into());
        }
        let hook = received.receive_some_hook.borrow().clone();
        if let Some(hook) = hook {
            hook(self.inlet()).await?;
        }
        let there = || {
            let data = !received.data.borrow().is_empty();
            (data || received.ended.get() || received.closed.get()).then_some(())
        };
        received.changed.until(there).await?;
        if received.closed.get() {
            return Err(ClosedResource::new().into());
        }
        Ok(io::Read::read(&mut *received.data.borrow_mut(), buffer)?)
    }

    /// Closes the stream at once: what is in it is discarded, and a task that waits in it gets
    /// `ClosedResource`. Then calls the close hook, every time.
    pub fn close(&self) {
        let received = &*self.0.0;
        received.closed.set(true);
        received.data.borrow_mut().clear();
        received.changed.wake();
        let hook = received.close_hook.borrow().clone();
        if let Some(hook) = hook {
            hook(&self.0);
        }
    }
}

/// A receive of zero bytes would look like the end of file.
pub(super) fn refuse_empty(buffer: &[u8]) -> io::Result<()> {
    if buffer.is_empty() {
        let text = "a buffer to receive into needs room for at least one byte";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

impl Default for MemoryReceiveStream {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryReceiveStream {
    fn drop(&mut self) {
        self.close();
    }
}

impl MemoryInlet {
    /// Puts `data` in, to be received.
    ///
    /// # Errors
    ///
    /// [`ClosedResource`] if the stream has been closed, or after [`put_eof`](Self::put_eof).
    pub fn put_data(&self, data: &[u8]) -> Result<(), ClosedResource> {
        if self.0.closed.get() || self.0.ended.get() {
            return Err(ClosedResource::new());
        }
        self.0.data.borrow_mut().extend(data);
        self.0.changed.wake();
        Ok(())
    }

    /// Puts the end of file behind what is there. Does nothing the second time.
    pub fn put_eof(&self) {
        self.0.ended.set(true);
        self.0.changed.wake();
    }

    /// Whether the stream has been closed.
    pub fn is_closed(&self) -> bool {
        self.0.closed.get()
    }

    /// Calls `hook` in each receive, before it waits for data: the place to put some in.
    pub fn set_receive_some_hook(&self, hook: impl AsyncFn(Self) -> Result<()> + 'static) {
        self.0.receive_some_hook.replace(Some(boxed(hook)));
    }

    /// Calls `hook` each time the stream is closed, after that.
    pub fn set_close_hook(&self, hook: impl Fn(&Self) + 'static) {
        self.0.close_hook.replace(Some(Rc::new(hook)));
    }

    /// Takes all hooks away.
    pub fn clear_hooks(&self) {
        let hooks = (self.0.receive_some_hook.take(), self.0.close_hook.take());
        drop(hooks);
    }
}

impl fmt::Debug for MemoryReceiveStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryReceiveStream").field(&self.0).finish()
    }
}

impl fmt::Debug for MemoryInlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryInlet")
            .field("bytes", &self.0.data.borrow().len())
            .field("ended", &self.0.ended.get())
            .field("closed", &self.0.closed.get())
            .finish_non_exhaustive()
    }
}

implement_send!(MemorySendStream, &MemorySendStream);
implement_receive!(MemoryReceiveStream, &MemoryReceiveStream);

/// Carries what has been sent over to where it is received, at most `max` bytes of it, or the end
/// of file. Returns whether there was anything to carry.
///
/// # Errors
///
/// [`BrokenResource`] if the receiving stream has been closed; the data is lost.
///
/// # Panics
///
/// If `max` is zero.
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod io { pub use trio_io::*; } pub mod testing { pub use trio_io::testing::*; } }
/// # trio::run(async {
/// use trio::testing::{MemoryReceiveStream, MemorySendStream, memory_stream_pump};
/// use trio::io::{ReceiveStream, SendStream};
///
/// let (mut send, mut receive) = (MemorySendStream::new(), MemoryReceiveStream::new());
/// send.send_all(b"abc").await?;
/// assert!(memory_stream_pump(&send.outlet(), &receive.inlet(), Some(1))?);
/// let mut buffer = [0; 16];
/// assert_eq!(receive.receive_some(&mut buffer).await?, 1, "a network that is slow");
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub fn memory_stream_pump(
    from: &MemoryOutlet,
    to: &MemoryInlet,
    max: Option<usize>,
) -> Result<bool, BrokenResource> {
    let Ok(data) = from.try_get_data(max) else {
        return Ok(false);
    };
    if data.is_empty() {
        to.put_eof();
    } else {
        to.put_data(&data).map_err(|_| BrokenResource::new())?;
    }
    Ok(true)
}

/// Two halves of an unbounded stream: hooks of the first pump what is sent over to the second, and
/// may be replaced.
pub fn memory_stream_one_way_pair() -> (MemorySendStream, MemoryReceiveStream) {
    let (send, receive) = (MemorySendStream::new(), MemoryReceiveStream::new());
    let (outlet, inlet) = (send.outlet(), receive.inlet());
    let to = inlet.clone();
    outlet.set_send_all_hook(async move |from: MemoryOutlet| {
        memory_stream_pump(&from, &to, None)?;
        Ok(())
    });
    outlet.set_close_hook(move |from| {
        // Carries what a hook that was removed has left behind, and then the end. If nobody
        // receives, nobody needs to know.
        while matches!(memory_stream_pump(from, &inlet, None), Ok(true)) && !inlet.0.ended.get() {}
    });
    (send, receive)
}
