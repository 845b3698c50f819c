//! Sending all of something.
//!
//! Mostly the system takes all of it at once, and nothing is waited for. If it does not:
//!
//! | What is sent was | it waits in                                     | dropped or forgotten meanwhile   |
//! |------------------|-------------------------------------------------|----------------------------------|
//! | lent             | an operation that waits for room and owns none  | the loan ends; a part is sent    |
//! |                  | of it, and tries again itself                   |                                  |
//! | given away       | operations that own it, one after the other     | the operation in flight may      |
//! |                  |                                                 | still send its part              |

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use trio_io::Outgoing;
use trio_runtime::lowlevel::{
    self, Interest, Ready, Send, Submit, poll_enter_operation, poll_send_now,
};
use trio_runtime::{ClosedResource, Result};

use super::TcpStream;

/// The future of [`TcpStream::send_all`].
#[must_use = "futures do nothing unless polled"]
pub struct SendAll<'s, 'd> {
    stream: &'s TcpStream,
    state: State<'s, 'd>,
}

/// What is sent is here and nowhere else, so that the future, which is a part of that of each
/// connection, is a cache line; what few sends wait in is on the heap.
enum State<'s, 'd> {
    /// Is going to try, after a checkpoint, to send what is left behind so many bytes, or behind none if
    /// they are [`NOT_BEGUN`]. Only then the direction is not ours yet.
    Trying(Outgoing<'d>, usize),
    /// Waits for room.
    Lent(&'d [u8], Box<Submit<'s>>),
    /// Waits for an operation that owns what is left.
    Given(Box<Submit<'s>>),
    Ended,
}

/// What an attempt to send has given: how much fitted, or nothing.
type Tried = Poll<Result<Option<usize>>>;

/// More bytes than anything that is sent can have.
const NOT_BEGUN: usize = usize::MAX;

#[cfg(target_pointer_width = "64")]
const _: () = assert!(
    size_of::<SendAll<'_, '_>>() <= 64,
    "a send takes a cache line"
);

impl<'s, 'd> SendAll<'s, 'd> {
    pub(super) fn new(stream: &'s TcpStream, data: Outgoing<'d>) -> Self {
        Self {
            stream,
            state: State::Trying(data, NOT_BEGUN),
        }
    }

    /// What few sends come to: begins with what the first attempt gave, if that has been made just now.
    #[cold]
    fn go_on(&mut self, context: &mut Context<'_>, tried: Option<Tried>) -> Poll<Result<()>> {
        let result = ready!(self.advance(context, tried));
        self.end();
        Poll::Ready(result)
    }

    fn advance(&mut self, context: &mut Context<'_>, mut tried: Option<Tried>) -> Poll<Result<()>> {
        let stream = self.stream;
        loop {
            match &mut self.state {
                State::Trying(data, sent) => {
                    let rest = &data.bytes()[*sent..];
                    if stream.sending.has_ended() {
                        return refuse(context);
                    }
                    let tried = tried.take();
                    let tried =
                        tried.unwrap_or_else(|| poll_send_now(context, &stream.socket, rest));
                    match ready!(tried)? {
                        Some(count) if count == rest.len() => return Poll::Ready(Ok(())),
                        Some(count) => *sent += count,
                        None => {
                            let descriptor = stream.socket.open()?;
                            self.wait(descriptor);
                        }
                    }
                }
                State::Lent(rest, room) => {
                    let finished = ready!(Pin::new(&mut **room).poll(context))?;
                    let ready = finished.into_ready();
                    ready.map_err(|error| stream.socket.error(error))?;
                    self.state = State::Trying(Outgoing::Borrowed(rest), 0);
                }
                State::Given(sending) => {
                    let finished = ready!(Pin::new(&mut **sending).poll(context))?;
                    let (mut send, result) = finished.into_sent();
                    send.start += result.map_err(|error| stream.socket.error(error))? as usize;
                    if send.start == send.data.len() {
                        return Poll::Ready(Ok(()));
                    }
                    if stream.socket.is_closed() {
                        return Poll::Ready(Err(ClosedResource::new().into()));
                    }
                    **sending = lowlevel::submit_in(send, &stream.sending);
                }
                State::Ended => panic!("a future is not polled after its end"),
            }
        }
    }

    /// There is no room for what is left: waits for some.
    #[cold]
    fn wait(&mut self, on: lowlevel::Descriptor) {
        let gate = &self.stream.sending;
        let State::Trying(data, sent) = std::mem::replace(&mut self.state, State::Ended) else {
            unreachable!("only who tries finds no room");
        };
        self.state = match data {
            Outgoing::Owned(data) => {
                let mut send = Send::new(on, data);
                send.start = sent;
                State::Given(Box::new(lowlevel::submit_in(send, gate)))
            }
            Outgoing::Borrowed(bytes) => {
                let ready = Ready::new(on, Interest::Writable);
                let room = lowlevel::submit_in(ready, gate);
                State::Lent(&bytes[sent..], Box::new(room))
            }
        };
    }
}

/// The end of file has been sent: a checkpoint, and nothing else.
#[cold]
fn refuse(context: &mut Context<'_>) -> Poll<Result<()>> {
    ready!(poll_enter_operation(context))?;
    Poll::Ready(Err(ClosedResource::new().into()))
}

impl Future for SendAll<'_, '_> {
    type Output = Result<()>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let stream = self.stream;
        let State::Trying(data, sent @ NOT_BEGUN) = &mut self.state else {
            return self.go_on(context, None);
        };
        stream.sending.take()?;
        *sent = 0;
        if stream.sending.has_ended() {
            return self.go_on(context, None);
        }
        let bytes = data.bytes();
        match poll_send_now(context, &stream.socket, bytes) {
            Poll::Ready(Ok(Some(count))) if count == bytes.len() => {
                self.end();
                Poll::Ready(Ok(()))
            }
            tried => self.go_on(context, Some(tried)),
        }
    }
}

impl SendAll<'_, '_> {
    /// Gives the direction back, if it is ours, when what was waited for has been taken back.
    #[inline]
    fn end(&mut self) {
        let taken = !matches!(self.state, State::Trying(_, NOT_BEGUN) | State::Ended);
        self.state = State::Ended;
        if taken {
            self.stream.sending.give_back();
        }
    }

    /// Dropped before it has ended.
    #[cold]
    fn end_early(&mut self) {
        self.end();
    }
}

impl Drop for SendAll<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        if !matches!(self.state, State::Ended) {
            self.end_early();
        }
    }
}

impl fmt::Debug for SendAll<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Trying(..) => "SendAll(not begun)",
            State::Lent(..) | State::Given(_) => "SendAll(waiting for room)",
            State::Ended => "SendAll(ended)",
        })
    }
}
