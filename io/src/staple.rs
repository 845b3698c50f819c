//! Two halves made into one stream.

use trio_runtime::Result;

use crate::{AsyncResource, HalfCloseableStream, Lease, Outgoing, ReceiveStream, SendStream};

/// A stream that sends through one stream and receives through another.
///
/// Sending the end of file closes the sending half. Closing closes both, even if the first fails.
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod io { pub use trio_io::*; } pub mod testing { pub use trio_io::testing::*; } }
/// # trio::run(async {
/// use trio::testing::memory_stream_one_way_pair;
/// use trio::io::{ReceiveStream, SendStream, StapledStream};
///
/// // Whatever is sent comes back.
/// let (send, receive) = memory_stream_one_way_pair();
/// let mut echo = StapledStream::new(send, receive);
/// echo.send_all(b"hello").await?;
/// let mut buffer = [0; 16];
/// assert_eq!(echo.receive_some(&mut buffer).await?, 5);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct StapledStream<S, R> {
    send: S,
    receive: R,
}

impl<S, R> StapledStream<S, R> {
    /// Makes one stream of two halves.
    pub fn new(send: S, receive: R) -> Self {
        Self { send, receive }
    }

    /// The half that sends.
    pub fn send_half(&self) -> &S {
        &self.send
    }

    /// The half that receives.
    pub fn receive_half(&self) -> &R {
        &self.receive
    }

    /// Returns the two halves.
    pub fn into_halves(self) -> (S, R) {
        (self.send, self.receive)
    }
}

/// Combines both results, so that an error of one does not hide that of the other.
fn both(first: Result<()>, second: Result<()>) -> Result<()> {
    match (first, second) {
        (Err(first), Err(second)) => Err(first.and(second)),
        (first, second) => first.and(second),
    }
}

impl<S: SendStream, R: ReceiveStream> AsyncResource for StapledStream<S, R> {
    async fn aclose(&mut self) -> Result<()> {
        // The second is closed even if this fails.
        let first = self.send.aclose().await;
        both(first, self.receive.aclose().await)
    }
}

impl<S: SendStream, R: ReceiveStream> SendStream for StapledStream<S, R> {
    async fn send_all<'a>(&mut self, data: impl Into<Outgoing<'a>>) -> Result<()> {
        self.send.send_all(data).await
    }

    async fn wait_send_all_might_not_block(&mut self) -> Result<()> {
        self.send.wait_send_all_might_not_block().await
    }
}

impl<S: SendStream, R: ReceiveStream> ReceiveStream for StapledStream<S, R> {
    async fn receive_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.receive.receive_some(buffer).await
    }

    async fn receive(&mut self) -> Result<Option<Lease>> {
        self.receive.receive().await
    }
}

impl<S: SendStream, R: ReceiveStream> HalfCloseableStream for StapledStream<S, R> {
    async fn send_eof(&mut self) -> Result<()> {
        self.send.aclose().await
    }
}
