//! Listening TCP sockets.

use std::io;
use std::net::SocketAddr;

use trio_io::{AsyncResource, Listener};
use trio_runtime::lowlevel::{
    self, AcceptFailure, Descriptor, Family, Gate, Handle, accept_failure, is_family_unavailable,
    socket,
};
use trio_runtime::{ClosedResource, Error, Result, checkpoint};

use super::{TcpStream, explain};
use crate::Bind;

/// The longest queue of connections that have not been accepted, and the default.
const BACKLOG_MAX: u32 = 0xffff;

/// A listening TCP socket. Dropping it closes it.
#[doc(alias = "SocketListener")]
#[derive(Debug)]
pub struct TcpListener {
    accepting: Gate,
    /// Behind the gate: what was forgotten there is taken back before the socket is closed.
    socket: Handle,
    /// Whether accepted connections inherit the options of a stream.
    inherited: bool,
}

/// Opens one listener for each address that `on` stands for.
///
/// `SO_REUSEADDR` is set except on Windows, so that a server can be restarted at once, and
/// `IPV6_V6ONLY`, so that each family has a socket of its own.
///
/// # Cancellation
///
/// A checkpoint; nothing is left open.
///
/// # Errors
///
/// What the system said, and about which address; nothing is left open then. An address family that
/// the system lacks is skipped, unless no other is left.
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod net { pub use trio_net::*; } pub mod testing { pub use trio_net::testing::*; } }
/// # trio::run(async {
/// use std::net::Ipv4Addr;
///
/// let listeners = trio::net::open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await?;
/// assert_ne!(listeners[0].local_address()?.port(), 0);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "bind")]
#[doc(alias = "listen")]
pub async fn open_tcp_listeners(on: impl Into<Bind>) -> Result<Vec<TcpListener>> {
    lowlevel::enter_operation().await?;
    TcpListener::open_all(on.into(), BACKLOG_MAX, false)
}

impl TcpListener {
    /// Like [`open_tcp_listeners`], with room for `backlog` connections (at most 65,535) that wait
    /// to be accepted, and with `SO_REUSEPORT` if `share_port`, so that several runs can listen on
    /// the same port.
    ///
    /// # Errors
    ///
    /// As for [`open_tcp_listeners`].
    ///
    /// # Panics
    ///
    /// Outside of a run.
    #[track_caller]
    pub fn open_all(on: Bind, backlog: u32, share_port: bool) -> Result<Vec<Self>> {
        let mut listeners = Vec::new();
        let mut unavailable = Vec::new();
        for address in on.addresses() {
            match Self::open(&address, backlog, share_port) {
                Ok(listener) => listeners.push(listener),
                // A machine without IPv6 either has no such sockets or no such addresses.
                Err(error)
                    if is_family_unavailable(&error)
                        || matches!(on, Bind::Everywhere(_))
                            && error.kind() == io::ErrorKind::AddrNotAvailable =>
                {
                    unavailable.push(cannot_listen(&address, &error));
                }
                Err(error) => return Err(cannot_listen(&address, &error)),
            }
        }
        if listeners.is_empty() {
            return Err(Error::group(
                "no address family to listen on is available",
                unavailable,
            ));
        }
        Ok(listeners)
    }

    #[track_caller]
    fn open(address: &SocketAddr, backlog: u32, share_port: bool) -> io::Result<Self> {
        let descriptor = socket::stream(Family::of(address))?;
        socket::bind(&descriptor, address, share_port)?;
        // Once for all connections, where they inherit the options. With a listener that was taken
        // over, connections may have been made before.
        socket::prepare_stream(&descriptor);
        socket::listen(&descriptor, backlog.min(BACKLOG_MAX))?;
        Ok(Self {
            inherited: cfg!(target_os = "linux"),
            ..Self::from_descriptor(descriptor)
        })
    }

    /// A listener that takes over `descriptor`, a socket that is already listening.
    pub fn from_descriptor(descriptor: Descriptor) -> Self {
        Self {
            socket: Handle::new(descriptor),
            accepting: Gate::default(),
            inherited: false,
        }
    }

    /// The address that it listens on, with the real port if it was opened with port zero.
    ///
    /// # Errors
    ///
    /// `ClosedResource`, or what the system said.
    pub fn local_address(&self) -> Result<SocketAddr> {
        Ok(socket::local_address(&*self.socket.get()?)?)
    }

    /// Waits for a connection.
    ///
    /// Connections that died before they were accepted are skipped.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that no connection was taken off the queue; nor was one if
    /// the future is dropped instead.
    ///
    /// # Errors
    ///
    /// `BusyResource` if another task is accepting, `ClosedResource` if the listener has been
    /// closed, an [`io::Error`] if the system has no room for another connection or the socket is
    /// unusable.
    pub async fn accept(&self) -> Result<TcpStream> {
        loop {
            let error = match lowlevel::accept(&self.socket, &self.accepting).await {
                Ok(accepted) if self.inherited => return Ok(TcpStream::from_prepared(accepted)),
                Ok(accepted) => return Ok(TcpStream::from_descriptor(accepted)),
                Err(error) => error,
            };
            match error.downcast_ref::<io::Error>().map(accept_failure) {
                Some(AcceptFailure::Connection) => {}
                Some(AcceptFailure::Closed) => return Err(ClosedResource::new().into()),
                _ => return Err(error),
            }
        }
    }

    /// Closes the listener. A task that waits in it gets `ClosedResource`.
    pub fn close(&self) {
        self.accepting.close(&self.socket);
        self.socket.close();
    }
}

/// The system's error of listening on `address`, with the address and, where there is one, the remedy.
fn cannot_listen(address: &SocketAddr, error: &io::Error) -> Error {
    let remedy = |kind| match kind {
        io::ErrorKind::AddrInUse => "; another socket has it: end that, or take another port",
        io::ErrorKind::AddrNotAvailable => "; take an address that this machine has",
        io::ErrorKind::PermissionDenied => "; ports below 1024 may need a privilege",
        _ => "",
    };
    explain("listen on", address, error, remedy).into()
}

impl AsyncResource for TcpListener {
    async fn aclose(&mut self) -> Result<()> {
        self.close();
        checkpoint().await
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> Result<TcpStream> {
        Self::accept(self).await
    }

    fn is_overloaded(error: &Error) -> bool {
        error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| accept_failure(error) == AcceptFailure::Overload)
    }
}
