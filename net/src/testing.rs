//! Reaching a listener from a test, wherever it listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use trio_runtime::Result;

use crate::{TcpListener, TcpStream, connect_tcp};

/// Connects to `listener`: over the loopback, if it listens on every address of the machine.
///
/// # Cancellation
///
/// As for [`connect_tcp`].
///
/// # Errors
///
/// `ClosedResource` if the listener has been closed, or what the system said.
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod net { pub use trio_net::*; } pub mod testing { pub use trio_net::testing::*; } }
/// # trio::run(async {
/// use trio::testing::open_stream_to_socket_listener;
///
/// let listeners = trio::net::open_tcp_listeners(0).await?;
/// let client = open_stream_to_socket_listener(&listeners[0]).await?;
/// client.send_all(b"hello").await?;
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub async fn open_stream_to_socket_listener(listener: &TcpListener) -> Result<TcpStream> {
    let mut address = listener.local_address()?;
    // The unspecified address, which stands for all, cannot be connected to.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    connect_tcp(address).await
}
