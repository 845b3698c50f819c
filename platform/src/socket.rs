//! The synchronous half of sockets of the system: making, binding, options, attempts that do not
//! wait. Both real drivers use it; the simulation has its own.

use std::io::{self, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::buf::{Lease, Pool};
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

/// What a call has shown: how many bytes it has received, none if there was nothing, and how many there was
/// room for.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) count: Option<usize>,
    pub(crate) room: usize,
}

/// Receives what is there into blocks of `pool`; `None` if nothing is. To be called when the stash of
/// `from` is empty.
///
/// A call fills one block, or [`BLOCKS_AT_ONCE`] if `from` is a stream, which pay the price of the call
/// once. A descriptor counts as a stream when it has filled [`IN_A_ROW`] blocks one after the other; a
/// message that fills a single block and is followed by nothing does not make it one. Decision 13 has the
/// figures. Nothing is received ahead where so many blocks are out that the readers of many streams may not
/// be keeping up ([`AHEAD_MAX`]).
///
/// Returns the first block and puts the others into the stash. Unless the call has failed, `note` gets what
/// it has shown.
// `note` is called rather than its argument returned, and all is inlined: a block that is returned along with
// something else would be copied from frame to frame.
#[inline(always)]
pub(crate) fn receive_blocks(
    from: &Descriptor,
    pool: &Pool,
    note: impl FnOnce(Shown),
) -> Option<io::Result<Lease>> {
    if from.filled() >= IN_A_ROW && pool.leased() < AHEAD_MAX {
        return receive_stream(from, pool, note);
    }
    let mut block = pool.lease();
    let room = block.capacity();
    match receive(from, block.block_mut()) {
        Some(Ok(count)) => {
            from.note_filled(count == room);
            block.fill_to(count);
            let count = Some(count);
            note(Shown { count, room });
            Some(Ok(block))
        }
        Some(Err(error)) => {
            from.note_filled(false);
            Some(Err(error))
        }
        None => {
            from.note_filled(false);
            note(Shown { count: None, room });
            None
        }
    }
}

/// The same into several blocks. Not inlined: its blocks take more of the stack than all that a message
/// passes through.
#[cold]
#[inline(never)]
fn receive_stream(
    from: &Descriptor,
    pool: &Pool,
    note: impl FnOnce(Shown),
) -> Option<io::Result<Lease>> {
    let mut blocks: [Lease; BLOCKS_AT_ONCE] = std::array::from_fn(|_| pool.lease());
    let mut slices = blocks
        .each_mut()
        .map(|block| IoSliceMut::new(block.block_mut()));
    let received = receive_into_all(from, &mut slices);
    let room = BLOCKS_AT_ONCE * pool.block_size();
    from.note_filled(matches!(received, Some(Ok(count)) if count == room));
    let count = match received {
        Some(Ok(count)) => count,
        Some(Err(error)) => return Some(Err(error)),
        None => {
            note(Shown { count: None, room });
            return None;
        }
    };
    let mut left = count;
    let count = Some(count);
    note(Shown { count, room });
    let mut filled = blocks.into_iter().map_while(|mut block| {
        let length = left.min(block.capacity());
        left -= length;
        block.fill_to(length);
        (length > 0).then_some(block)
    });
    // No bytes are the end of the file, which is shown by an empty block.
    let first = filled.next().unwrap_or_else(|| pool.lease());
    filled.for_each(|block| from.stash_receive(Ok(block)));
    Some(Ok(first))
}

/// Receives what is there into one slice after the other; `None` if nothing is.
fn receive_into_all(
    descriptor: &Descriptor,
    into: &mut [IoSliceMut<'_>],
) -> Option<io::Result<usize>> {
    #[cfg(target_os = "linux")]
    {
        unless_blocked(descriptor, |socket| rustix::io::readv(socket, into))
    }
    #[cfg(not(target_os = "linux"))]
    unless_blocked(descriptor, |mut socket| {
        io::Read::read_vectored(&mut socket, into)
    })
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

/// What a call fails with: on Linux the number that the system has given, which is compared as it is. The
/// kind of an [`io::Error`] is looked up in a table, by code that a message of one whole block would
/// come by.
#[cfg(target_os = "linux")]
type Failure = rustix::io::Errno;
#[cfg(not(target_os = "linux"))]
type Failure = io::Error;

/// Calls until no signal interrupts it; `None` if it would block.
#[cfg_attr(not(target_os = "linux"), allow(clippy::useless_conversion))]
#[inline(always)]
fn unless_blocked(
    descriptor: &Descriptor,
    mut call: impl FnMut(&Socket) -> Result<usize, Failure>,
) -> Option<io::Result<usize>> {
    let socket = match descriptor.socket() {
        Ok(socket) => socket,
        Err(error) => return Some(Err(error)),
    };
    loop {
        match call(socket) {
            Ok(count) => return Some(Ok(count)),
            Err(error) if is_blocked(&error) => return None,
            Err(error) if is_interrupted(&error) => {}
            Err(error) => return Some(Err(io::Error::from(error))),
        }
    }
}

#[cfg(target_os = "linux")]
fn is_blocked(failure: &Failure) -> bool {
    *failure == Failure::AGAIN
}

#[cfg(target_os = "linux")]
fn is_interrupted(failure: &Failure) -> bool {
    *failure == Failure::INTR
}

#[cfg(not(target_os = "linux"))]
fn is_blocked(failure: &Failure) -> bool {
    failure.kind() == io::ErrorKind::WouldBlock
}

#[cfg(not(target_os = "linux"))]
fn is_interrupted(failure: &Failure) -> bool {
    failure.kind() == io::ErrorKind::Interrupted
}

/// Blocks that one call fills: as many as are kept of what a feed takes (`uring/feed.rs`).
pub(crate) const BLOCKS_AT_ONCE: usize = 8;

/// Blocks of a pool that may be out where a stream is received ahead: 4 MiB, as many as the kernel may fill
/// for feeds (`uring/mod.rs`). So however many streams are not read on, what they keep of what has come
/// beyond the block that each reader was given is no more than this and one call.
pub(crate) const AHEAD_MAX: usize = 256;

/// Receives that fill a block, one after the other, before more follows for certain enough.
const IN_A_ROW: u8 = 2;

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

/// Whether `error`, from making a socket, means that this process has as many descriptors as it may.
pub fn lacks_descriptors(error: &io::Error) -> bool {
    #[cfg(unix)]
    const CODE: i32 = 24; // EMFILE of Linux, macOS and the BSDs
    #[cfg(windows)]
    const CODE: i32 = 10024; // WSAEMFILE
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    const BLOCK: usize = 1024;

    fn pool() -> Pool {
        Pool::new(1024, 64)
    }

    fn pair() -> (TcpStream, Descriptor) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (client, Descriptor::from_socket(server.into()).unwrap())
    }

    /// Receives once what is on its way: how much that was, and how much there was room for. All of it
    /// is `byte`.
    fn receive(from: &Descriptor, pool: &Pool, byte: u8) -> (usize, usize) {
        let mut shown = None;
        let first = loop {
            if let Some(received) = receive_blocks(from, pool, |by_call| shown = Some(by_call)) {
                break received.unwrap();
            }
            std::thread::yield_now();
        };
        let shown = shown.unwrap();
        let rest = std::iter::from_fn(|| from.stashed_receive());
        let mut count = first.len();
        assert!(first.iter().all(|&found| found == byte));
        for lease in rest.map(Result::unwrap) {
            assert!((1..=BLOCK).contains(&lease.len()));
            assert!(lease.iter().all(|&found| found == byte));
            count += lease.len();
        }
        assert_eq!(Some(count), shown.count);
        (count, shown.room)
    }

    #[test]
    fn a_stream_fills_several_blocks_at_once() {
        let pool = pool();
        let (mut client, server) = pair();
        client.write_all(&[7; 11 * BLOCK + 1]).unwrap();
        assert_eq!(receive(&server, &pool, 7), (BLOCK, BLOCK));
        assert_eq!(receive(&server, &pool, 7), (BLOCK, BLOCK));
        let many = BLOCKS_AT_ONCE * BLOCK;
        assert_eq!(receive(&server, &pool, 7), (many, many));
        assert_eq!(receive(&server, &pool, 7), (BLOCK + 1, many));
        assert!(receive_blocks(&server, &pool, |_| ()).is_none());
        assert_eq!(pool.leased(), 0);
    }

    #[test]
    fn streams_that_are_not_read_on_keep_a_bounded_number_of_blocks() {
        let pool = pool();
        let mut streams: Vec<_> = (0..48).map(|_| pair()).collect();
        let mut held = Vec::new();
        for (client, server) in &mut streams {
            client.write_all(&[7; 10 * BLOCK]).unwrap();
            for _ in 0..2 {
                assert_eq!(receive(server, &pool, 7), (BLOCK, BLOCK));
            }
            held.push(receive_blocks(server, &pool, |_| ()).unwrap().unwrap());
        }
        let ahead = pool.leased() - held.len();
        assert!(ahead > 48, "some are received ahead: {ahead}");
        assert!(ahead < AHEAD_MAX + BLOCKS_AT_ONCE, "{ahead}");
        const { assert!(48 * (BLOCKS_AT_ONCE - 1) > AHEAD_MAX + BLOCKS_AT_ONCE) };
        // When they are read on, they are streams as before.
        for ((_, server), first) in streams.iter().zip(held) {
            let rest = std::iter::from_fn(|| server.stashed_receive());
            let stashed: usize = rest.map(|lease| lease.unwrap().len()).sum();
            drop(first);
            if stashed == 0 {
                assert_eq!(receive(server, &pool, 7).1, BLOCKS_AT_ONCE * BLOCK);
            }
        }
        assert_eq!(pool.leased(), 0);
    }

    #[test]
    fn messages_of_a_block_are_no_stream() {
        let pool = pool();
        let (mut client, server) = pair();
        for byte in 0..4 {
            client.write_all(&[byte; BLOCK]).unwrap();
            assert_eq!(receive(&server, &pool, byte), (BLOCK, BLOCK));
            assert!(receive_blocks(&server, &pool, |_| ()).is_none());
        }
    }

    #[test]
    fn the_end_of_a_stream_is_an_empty_block() {
        let pool = pool();
        let (mut client, server) = pair();
        client.write_all(&[7; 2 * BLOCK]).unwrap();
        drop(client);
        assert_eq!(receive(&server, &pool, 7), (BLOCK, BLOCK));
        assert_eq!(receive(&server, &pool, 7), (BLOCK, BLOCK));
        assert_eq!(receive(&server, &pool, 7), (0, BLOCKS_AT_ONCE * BLOCK));
        assert_eq!(server.filled(), 0);
        assert_eq!(receive(&server, &pool, 7), (0, BLOCK));
        assert!(server.stashed_receive().is_none());
    }
}
