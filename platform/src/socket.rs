//! The synchronous half of sockets of the system: making, binding, options, attempts that do not
//! wait. Both real drivers use it; the simulation has its own.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::driver::Family;
use crate::fd::Descriptor;
#[cfg(target_os = "linux")]
use crate::fd::Object;

pub(crate) fn stream(family: Family) -> io::Result<Descriptor> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    Descriptor::from_socket(Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?)
}

pub(crate) fn bind(
    descriptor: &Descriptor,
    address: &SocketAddr,
    share_port: bool,
) -> io::Result<()> {
    let socket = descriptor.socket()?;
    // On Windows the option means that another process may steal the port.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if share_port {
        #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
        socket.set_reuse_port(true)?;
        #[cfg(windows)]
        return Err(io::ErrorKind::Unsupported.into());
    }
    socket.bind(&(*address).into())
}

pub(crate) fn listen(descriptor: &Descriptor, backlog: u32) -> io::Result<()> {
    descriptor
        .socket()?
        .listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

/// Takes a connection off the queue of `listener`, non-blocking and closed on exec.
pub(crate) fn accept(listener: &Descriptor) -> io::Result<Descriptor> {
    let listener = listener.socket()?;
    // Linux sets both in the same call.
    #[cfg(target_os = "linux")]
    {
        use rustix::net::{SocketFlags, accept_with};
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let accepted = rustix::io::retry_on_intr(|| accept_with(listener, flags))?;
        Ok(Descriptor::new(Object::Socket(accepted.into())))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let (accepted, _) = retry(|| listener.accept())?;
        Descriptor::from_socket(accepted)
    }
}

pub(crate) fn local_address(descriptor: &Descriptor) -> io::Result<SocketAddr> {
    internet(&descriptor.socket()?.local_addr()?)
}

pub(crate) fn peer_address(descriptor: &Descriptor) -> io::Result<SocketAddr> {
    internet(&descriptor.socket()?.peer_addr()?)
}

fn internet(address: &socket2::SockAddr) -> io::Result<SocketAddr> {
    address
        .as_socket()
        .ok_or_else(|| io::Error::other("the socket has no internet address"))
}

pub(crate) fn prepare_stream(descriptor: &Descriptor) {
    if let Ok(socket) = descriptor.socket() {
        // A connection that the peer has already reset refuses options; the first use reports that.
        drop(socket.set_tcp_nodelay(true));
    }
}

pub(crate) fn shutdown_send(descriptor: &Descriptor) -> io::Result<()> {
    descriptor.socket()?.shutdown(Shutdown::Write)
}

pub(crate) fn reset_on_close(descriptor: &Descriptor) -> io::Result<()> {
    descriptor.socket()?.set_linger(Some(Duration::ZERO))
}

/// Receives what is there; `None` if nothing is.
#[inline]
pub(crate) fn receive(descriptor: &Descriptor, into: &mut [u8]) -> Option<io::Result<usize>> {
    // The functions of the C library are cancellation points of its threads, which costs each call
    // two atomic operations.
    #[cfg(target_os = "linux")]
    {
        use rustix::net::{RecvFlags, recv};
        unless_blocked(descriptor, |socket| {
            recv(socket, &mut *into, RecvFlags::empty()).map(|(count, _)| count)
        })
    }
    #[cfg(not(target_os = "linux"))]
    unless_blocked(descriptor, |mut socket| io::Read::read(&mut socket, into))
}

/// Sends what fits; `None` if nothing does.
#[inline]
pub(crate) fn send(descriptor: &Descriptor, data: &[u8]) -> Option<io::Result<usize>> {
    // Without the flag a broken pipe would be a signal where the program does not ignore it.
    #[cfg(target_os = "linux")]
    {
        use rustix::net::{SendFlags, send};
        unless_blocked(descriptor, |socket| send(socket, data, SendFlags::NOSIGNAL))
    }
    #[cfg(all(unix, not(target_os = "linux"), not(target_vendor = "apple")))]
    const FLAGS: i32 = libc::MSG_NOSIGNAL;
    // Apple has an option of the socket instead, which `socket2` and `std` set.
    #[cfg(any(windows, target_vendor = "apple"))]
    const FLAGS: i32 = 0;
    #[cfg(not(target_os = "linux"))]
    unless_blocked(descriptor, |socket| socket.send_with_flags(data, FLAGS))
}

/// Calls until no signal interrupts it; `None` if it would block.
#[inline(always)]
fn unless_blocked<E: Into<io::Error>>(
    descriptor: &Descriptor,
    mut call: impl FnMut(&Socket) -> Result<usize, E>,
) -> Option<io::Result<usize>> {
    let socket = match descriptor.socket() {
        Ok(socket) => socket,
        Err(error) => return Some(Err(error)),
    };
    loop {
        match call(socket) {
            Ok(count) => return Some(Ok(count)),
            Err(error) => match error.into() {
                blocked if blocked.kind() == io::ErrorKind::WouldBlock => return None,
                interrupted if interrupted.kind() == io::ErrorKind::Interrupted => {}
                error => return Some(Err(error)),
            },
        }
    }
}

/// What [`receive`] gives, as an operation has it.
pub(crate) fn try_receive(descriptor: &Descriptor, into: &mut [u8]) -> io::Result<usize> {
    receive(descriptor, into).unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
}

/// What [`send`] gives, as an operation has it.
pub(crate) fn try_send(descriptor: &Descriptor, data: &[u8]) -> io::Result<usize> {
    send(descriptor, data).unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
}

/// Whether `error`, from making a socket, means that the system does not have its address family.
pub fn is_family_unavailable(error: &io::Error) -> bool {
    #[cfg(target_os = "linux")]
    const CODE: i32 = libc::EAFNOSUPPORT;
    #[cfg(all(unix, not(target_os = "linux")))]
    const CODE: i32 = 47; // EAFNOSUPPORT of macOS and the BSDs
    #[cfg(windows)]
    const CODE: i32 = 10047; // WSAEAFNOSUPPORT
    error.raw_os_error() == Some(CODE)
}

/// Repeats `call` while a signal interrupts it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
