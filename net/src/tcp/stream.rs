//! A TCP connection.

use std::cell::Ref;
use std::io;
use std::net::SocketAddr;

use trio_io::{AsyncResource, HalfCloseableStream, Lease, Outgoing, ReceiveStream, SendStream};
use trio_runtime::lowlevel::{
    self, Connect, Descriptor, Family, Gate, Handle, Interest, Ready, socket,
};
pub use trio_runtime::lowlevel::{ReceiveBlock as Receive, ReceiveInto as ReceiveSome};
use trio_runtime::{ClosedResource, Error, Result, checkpoint};

use super::{SendAll, explain};

/// A TCP connection.
///
/// Methods take `&self`, so that one task can send while another receives. Two tasks that use the
/// same direction are a mistake, which the second learns by
/// [`BusyResource`](trio_runtime::BusyResource). Dropping the stream closes it. The future of a
/// method releases its direction when it ends or is dropped; one that is leaked (by
/// [`std::mem::forget`]) keeps it busy until the stream is closed.
///
/// `TCP_NODELAY` is on.
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod net { pub use trio_net::*; } pub mod testing { pub use trio_net::testing::*; } }
/// # trio::run(async {
/// use trio::net::{connect_tcp, open_tcp_listeners};
/// use trio::try_join;
///
/// let listeners = open_tcp_listeners(0).await?;
/// let address = ([127, 0, 0, 1], listeners[0].local_address()?.port()).into();
/// let (client, server) = try_join((connect_tcp(address), listeners[0].accept())).await?;
///
/// let ask = async {
///     client.send_all(b"hello").await?;
///     client.send_eof().await
/// };
/// let answer = async {
///     while let Some(data) = server.receive().await? {
///         server.send_all(data).await?; // from the buffer that the kernel filled
///     }
///     server.aclose().await
/// };
/// try_join((ask, answer)).await?;
/// assert_eq!(&client.receive().await?.unwrap()[..], b"hello");
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "SocketStream")]
#[derive(Debug)]
pub struct TcpStream {
    receiving: Gate,
    pub(super) sending: Gate,
    /// Behind the gates, which take back what was forgotten there before it is closed.
    pub(super) socket: Handle,
}

/// Connects to `address`.
///
/// # Cancellation
///
/// A checkpoint. The socket is closed; whether the other side saw a connection is unknown.
///
/// # Errors
///
/// An [`io::Error`] of the kind that the system gave, which says about which address and, where nobody
/// listens there or no descriptor is left, what to do.
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod net { pub use trio_net::*; } pub mod testing { pub use trio_net::testing::*; } }
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::fail_after;
/// use trio::net::{connect_tcp, open_tcp_listeners};
///
/// let listeners = open_tcp_listeners(([127, 0, 0, 1], 0)).await?;
/// let address = listeners[0].local_address()?;
/// let stream = fail_after(Duration::from_secs(5), connect_tcp(address)).await?;
/// assert_eq!(stream.peer_address()?, address);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "open_tcp_stream")]
#[doc(alias = "connect")]
pub async fn connect_tcp(address: SocketAddr) -> Result<TcpStream> {
    let failed = |error| cannot_connect(&address, &error);
    let descriptor = socket::stream(Family::of(&address)).map_err(failed)?;
    let connect = Connect::new(descriptor, address);
    let finished = lowlevel::submit(connect).await?;
    let connected = finished.into_connected().map_err(failed)?;
    Ok(TcpStream::from_descriptor(connected))
}

/// What the system said of connecting to `address`.
fn cannot_connect(address: &SocketAddr, error: &io::Error) -> Error {
    let remedy = |kind| match kind {
        io::ErrorKind::ConnectionRefused => "; nobody listens there: start the server first",
        _ => "",
    };
    explain("connect to", address, error, remedy).into()
}

impl TcpStream {
    /// A stream that takes over `descriptor`, a connected socket.
    pub fn from_descriptor(descriptor: Descriptor) -> Self {
        socket::prepare_stream(&descriptor);
        Self::from_prepared(descriptor)
    }

    /// The same over one that has the options of a stream already.
    pub(super) fn from_prepared(descriptor: Descriptor) -> Self {
        Self {
            socket: Handle::new(descriptor),
            receiving: Gate::default(),
            sending: Gate::default(),
        }
    }

    /// The address of this side.
    ///
    /// # Errors
    ///
    /// `ClosedResource`, or what the system said.
    pub fn local_address(&self) -> Result<SocketAddr> {
        Ok(socket::local_address(&*self.socket.get()?)?)
    }

    /// The address of the other side.
    ///
    /// # Errors
    ///
    /// `ClosedResource`, or what the system said.
    pub fn peer_address(&self) -> Result<SocketAddr> {
        Ok(socket::peer_address(&*self.socket.get()?)?)
    }

    /// Receives at least one byte into one of the runtime's own buffers, without a copy; `None` is
    /// the end of file. While it waits, no buffer is held.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that nothing has been received: the bytes are still there
    /// for the next receive. The same holds if the future is dropped instead.
    ///
    /// # Errors
    ///
    /// `BusyResource` if another task is receiving, `ClosedResource` if this side has closed it,
    /// `BrokenResource` if the other side has broken it.
    #[doc(alias = "recv")]
    #[doc(alias = "read")]
    pub fn receive(&self) -> Receive<'_> {
        lowlevel::receive(&self.socket, &self.receiving)
    }

    /// Receives at least one byte and at most what `buffer` holds; zero is the end of file.
    ///
    /// # Cancellation
    ///
    /// As for [`receive`](Self::receive).
    ///
    /// # Errors
    ///
    /// As for [`receive`](Self::receive); an [`std::io::Error`] of the kind `InvalidInput` if `buffer`
    /// is empty.
    #[doc(alias = "read")]
    #[doc(alias = "recv")]
    pub fn receive_some<'a>(&'a self, buffer: &'a mut [u8]) -> ReceiveSome<'a> {
        lowlevel::receive_into(&self.socket, &self.receiving, buffer)
    }

    /// Sends all of `data`.
    ///
    /// A slice is borrowed for the call, and the kernel never holds it across a wait; a [`Lease`]
    /// or a vector is given away, and sent from where it lies.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that an unknown part has been sent.
    ///
    /// # Errors
    ///
    /// `BusyResource` if another task is sending, `ClosedResource` if this side has closed it or has
    /// sent the end of file, `BrokenResource` if the other side is gone.
    #[doc(alias = "write_all")]
    pub fn send_all<'d>(&self, data: impl Into<Outgoing<'d>>) -> SendAll<'_, 'd> {
        SendAll::new(self, data.into())
    }

    pub(super) fn open_for_sending(&self) -> Result<Ref<'_, Descriptor>> {
        if self.sending.has_ended() {
            return Err(ClosedResource::new().into());
        }
        self.socket.get()
    }

    /// Waits until [`send_all`](Self::send_all) might not block.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. Nothing has happened.
    ///
    /// # Errors
    ///
    /// As for [`send_all`](Self::send_all).
    pub async fn wait_send_all_might_not_block(&self) -> Result<()> {
        let _claim = self.sending.claim()?;
        lowlevel::enter_operation().await?;
        let descriptor = self.open_for_sending()?.clone();
        let ready = Ready::new(descriptor, Interest::Writable);
        let finished = lowlevel::submit_in(ready, &self.sending).await?;
        finished
            .into_ready()
            .map_err(|error| self.socket.error(error))
    }

    /// Sends the end of file; receiving goes on. Does nothing the second time.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that the end of file has not been sent.
    ///
    /// # Errors
    ///
    /// `BusyResource` if another task is sending, `ClosedResource`, `BrokenResource`.
    #[doc(alias = "shutdown")]
    pub async fn send_eof(&self) -> Result<()> {
        let _claim = self.sending.claim()?;
        lowlevel::enter_operation().await?;
        let descriptor = self.socket.open()?;
        if !self.sending.has_ended() {
            socket::shutdown_send(&descriptor).map_err(|error| self.socket.error(error))?;
            self.sending.end();
        }
        Ok(())
    }

    /// Closes the connection. Tasks that wait in it get `ClosedResource`.
    ///
    /// # Cancellation
    ///
    /// A checkpoint; closed in any case.
    ///
    /// # Errors
    ///
    /// `Cancelled` only.
    pub async fn aclose(&self) -> Result<()> {
        self.close();
        checkpoint().await
    }

    /// Closes the connection at once.
    pub fn close(&self) {
        self.receiving.close(&self.socket);
        self.sending.close(&self.socket);
        self.socket.close();
    }

    /// Makes the next close an abort: the other side sees a reset.
    ///
    /// # Errors
    ///
    /// `ClosedResource`, or what the system said.
    pub fn reset_on_close(&self) -> Result<()> {
        Ok(socket::reset_on_close(&*self.socket.get()?)?)
    }
}

// Through a reference as well, so that two tasks can share a stream that generic code splits.
macro_rules! implement {
    ($($stream:ty),*) => {$(
        impl AsyncResource for $stream {
            async fn aclose(&mut self) -> Result<()> {
                TcpStream::aclose(self).await
            }
        }

        impl SendStream for $stream {
            async fn send_all<'a>(&mut self, data: impl Into<Outgoing<'a>>) -> Result<()> {
                TcpStream::send_all(self, data).await
            }

            async fn wait_send_all_might_not_block(&mut self) -> Result<()> {
                TcpStream::wait_send_all_might_not_block(self).await
            }
        }

        impl ReceiveStream for $stream {
            async fn receive_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
                TcpStream::receive_some(self, buffer).await
            }

            async fn receive(&mut self) -> Result<Option<Lease>> {
                TcpStream::receive(self).await
            }
        }

        impl HalfCloseableStream for $stream {
            async fn send_eof(&mut self) -> Result<()> {
                TcpStream::send_eof(self).await
            }
        }
    )*};
}

implement!(TcpStream, &TcpStream);
