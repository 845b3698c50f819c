//! What the simulated kernel says when it refuses, in the numbers of the real one.

use std::fmt;
use std::io;

/// An error of the simulated kernel.
///
/// Reaches the program as an [`io::Error`] with the raw number that the system under the
/// simulation uses, so that code which looks at `raw_os_error` can be tested too.
///
/// # Examples
///
/// ```
/// use std::io;
/// # mod trio { pub use trio_platform::sim as testing; }
/// use trio::testing::Errno;
///
/// let error = io::Error::from(Errno::ConnectionReset);
/// assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
/// assert!(error.raw_os_error().is_some());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Errno {
    /// `EADDRINUSE`: somebody else listens there.
    AddressInUse,
    /// `EAFNOSUPPORT`: an address of the wrong family.
    AddressFamily,
    /// `EAGAIN`: not now.
    Again,
    /// `EALREADY`: an earlier connect is still under way.
    Already,
    /// `ECONNABORTED`: the connection was gone before it was accepted.
    ConnectionAborted,
    /// `ECONNREFUSED`: nobody listens there.
    ConnectionRefused,
    /// `ECONNRESET`: the peer ended the connection without a farewell.
    ConnectionReset,
    /// `EHOSTUNREACH`: there is no way there.
    HostUnreachable,
    /// `EINTR`: a signal came first.
    Interrupted,
    /// `EINVAL`: the socket is not in a state for this.
    Invalid,
    /// `EISCONN`: the socket is connected already.
    IsConnected,
    /// `EMFILE`: the process has no descriptor left.
    TooManyFiles,
    /// `ENFILE`: the system has no descriptor left.
    TooManyFilesInSystem,
    /// `ENOMEM`: the kernel has no memory left.
    OutOfMemory,
    /// `ENOTCONN`: the socket is not connected.
    NotConnected,
    /// `EPIPE`: the sending direction is over.
    BrokenPipe,
    /// `ETIMEDOUT`: the peer did not answer.
    TimedOut,
}

impl Errno {
    /// The number that the system uses for it.
    pub fn raw(self) -> i32 {
        match self {
            Self::AddressInUse => number::ADDRESS_IN_USE,
            Self::AddressFamily => number::ADDRESS_FAMILY,
            Self::Again => number::AGAIN,
            Self::Already => number::ALREADY,
            Self::ConnectionAborted => number::CONNECTION_ABORTED,
            Self::ConnectionRefused => number::CONNECTION_REFUSED,
            Self::ConnectionReset => number::CONNECTION_RESET,
            Self::HostUnreachable => number::HOST_UNREACHABLE,
            Self::Interrupted => number::INTERRUPTED,
            Self::Invalid => number::INVALID,
            Self::IsConnected => number::IS_CONNECTED,
            Self::TooManyFiles => number::TOO_MANY_FILES,
            Self::TooManyFilesInSystem => number::TOO_MANY_FILES_IN_SYSTEM,
            Self::OutOfMemory => number::OUT_OF_MEMORY,
            Self::NotConnected => number::NOT_CONNECTED,
            Self::BrokenPipe => number::BROKEN_PIPE,
            Self::TimedOut => number::TIMED_OUT,
        }
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.raw())
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from(*self).fmt(f)
    }
}

#[cfg(target_os = "linux")]
mod number {
    pub(super) use libc::{
        EADDRINUSE as ADDRESS_IN_USE, EAFNOSUPPORT as ADDRESS_FAMILY, EAGAIN as AGAIN,
        EALREADY as ALREADY, ECONNABORTED as CONNECTION_ABORTED,
        ECONNREFUSED as CONNECTION_REFUSED, ECONNRESET as CONNECTION_RESET,
        EHOSTUNREACH as HOST_UNREACHABLE, EINTR as INTERRUPTED, EINVAL as INVALID,
        EISCONN as IS_CONNECTED, EMFILE as TOO_MANY_FILES, ENFILE as TOO_MANY_FILES_IN_SYSTEM,
        ENOMEM as OUT_OF_MEMORY, ENOTCONN as NOT_CONNECTED, EPIPE as BROKEN_PIPE,
        ETIMEDOUT as TIMED_OUT,
    };
}

/// The numbers of macOS and the BSDs.
#[cfg(all(unix, not(target_os = "linux")))]
mod number {
    pub(super) const ADDRESS_IN_USE: i32 = 48;
    pub(super) const ADDRESS_FAMILY: i32 = 47;
    pub(super) const AGAIN: i32 = 35;
    pub(super) const ALREADY: i32 = 37;
    pub(super) const CONNECTION_ABORTED: i32 = 53;
    pub(super) const CONNECTION_REFUSED: i32 = 61;
    pub(super) const CONNECTION_RESET: i32 = 54;
    pub(super) const HOST_UNREACHABLE: i32 = 65;
    pub(super) const INTERRUPTED: i32 = 4;
    pub(super) const INVALID: i32 = 22;
    pub(super) const IS_CONNECTED: i32 = 56;
    pub(super) const TOO_MANY_FILES: i32 = 24;
    pub(super) const TOO_MANY_FILES_IN_SYSTEM: i32 = 23;
    pub(super) const OUT_OF_MEMORY: i32 = 12;
    pub(super) const NOT_CONNECTED: i32 = 57;
    pub(super) const BROKEN_PIPE: i32 = 32;
    pub(super) const TIMED_OUT: i32 = 60;
}

/// The numbers of Winsock, and of Windows where Winsock has none.
#[cfg(windows)]
mod number {
    pub(super) const ADDRESS_IN_USE: i32 = 10048;
    pub(super) const ADDRESS_FAMILY: i32 = 10047;
    pub(super) const AGAIN: i32 = 10035;
    pub(super) const ALREADY: i32 = 10037;
    pub(super) const CONNECTION_ABORTED: i32 = 10053;
    pub(super) const CONNECTION_REFUSED: i32 = 10061;
    pub(super) const CONNECTION_RESET: i32 = 10054;
    pub(super) const HOST_UNREACHABLE: i32 = 10065;
    pub(super) const INTERRUPTED: i32 = 10004;
    pub(super) const INVALID: i32 = 10022;
    pub(super) const IS_CONNECTED: i32 = 10056;
    pub(super) const TOO_MANY_FILES: i32 = 10024;
    pub(super) const TOO_MANY_FILES_IN_SYSTEM: i32 = 10055; // WSAENOBUFS
    pub(super) const OUT_OF_MEMORY: i32 = 14; // ERROR_OUTOFMEMORY
    pub(super) const NOT_CONNECTED: i32 = 10057;
    pub(super) const BROKEN_PIPE: i32 = 232; // ERROR_NO_DATA
    pub(super) const TIMED_OUT: i32 = 10060;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_mean_to_the_standard_library_what_they_mean_here() {
        let kind = |errno| io::Error::from(errno).kind();
        assert_eq!(kind(Errno::AddressInUse), io::ErrorKind::AddrInUse);
        assert_eq!(kind(Errno::Again), io::ErrorKind::WouldBlock);
        assert_eq!(kind(Errno::BrokenPipe), io::ErrorKind::BrokenPipe);
        assert_eq!(
            kind(Errno::ConnectionRefused),
            io::ErrorKind::ConnectionRefused
        );
        assert_eq!(kind(Errno::ConnectionReset), io::ErrorKind::ConnectionReset);
        assert_eq!(
            kind(Errno::ConnectionAborted),
            io::ErrorKind::ConnectionAborted
        );
        assert_eq!(kind(Errno::Interrupted), io::ErrorKind::Interrupted);
        assert_eq!(kind(Errno::NotConnected), io::ErrorKind::NotConnected);
        assert_eq!(kind(Errno::TimedOut), io::ErrorKind::TimedOut);
    }
}
