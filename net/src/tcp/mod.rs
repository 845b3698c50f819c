//! TCP streams and listeners.

mod listener;
mod send;
mod stream;

use std::io;
use std::net::SocketAddr;

use trio_runtime::lowlevel::lacks_descriptors;

pub use listener::{TcpListener, open_tcp_listeners};
pub use send::SendAll;
pub use stream::{Receive, ReceiveSome, TcpStream, connect_tcp};

/// The system's `error` with what it lacks: the operation `what`, the address, and, where there is one, the
/// remedy. `remedy` knows those of the errors that are peculiar to the operation.
fn explain(
    what: &str,
    address: &SocketAddr,
    error: &io::Error,
    remedy: fn(io::ErrorKind) -> &'static str,
) -> io::Error {
    let kind = error.kind();
    let remedy = match lacks_descriptors(error) {
        true => "; close what is not needed, or raise the limit of open files (`ulimit -n`)",
        false => remedy(kind),
    };
    io::Error::new(kind, format!("cannot {what} {address}: {error}{remedy}"))
}
