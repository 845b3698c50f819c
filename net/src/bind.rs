//! Where a listener listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One address, or a port on every address of the machine.
///
/// Made from a port number, an address, or a pair of IP address and port.
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod net { pub use trio_net::*; } pub mod testing { pub use trio_net::testing::*; } }
/// use std::net::{Ipv6Addr, SocketAddr};
/// use trio::net::Bind;
///
/// let everywhere: Bind = 8000.into();
/// let here: Bind = ([127, 0, 0, 1], 8000).into();
/// assert_eq!(here, "127.0.0.1:8000".parse::<SocketAddr>()?.into()); // as it stands in a file
/// assert_ne!(here, (Ipv6Addr::LOCALHOST, 8000).into());
/// assert_ne!(here, everywhere);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bind {
    /// This port of every IPv4 and every IPv6 address. With port zero, each family gets a free port
    /// of its own.
    Everywhere(u16),
    /// This address only. With port zero, a free port.
    At(SocketAddr),
}

impl Bind {
    pub(crate) fn addresses(self) -> Vec<SocketAddr> {
        match self {
            Self::At(address) => vec![address],
            Self::Everywhere(port) => {
                let v4 = IpAddr::from(Ipv4Addr::UNSPECIFIED);
                let v6 = IpAddr::from(Ipv6Addr::UNSPECIFIED);
                vec![(v4, port).into(), (v6, port).into()]
            }
        }
    }
}

impl From<u16> for Bind {
    fn from(port: u16) -> Self {
        Self::Everywhere(port)
    }
}

impl From<SocketAddr> for Bind {
    fn from(address: SocketAddr) -> Self {
        Self::At(address)
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Bind {
    fn from(address: (I, u16)) -> Self {
        Self::At(address.into())
    }
}
