//! A server over io_uring: multishot accept, a multishot poll for each connection, one call a turn
//! that waits and submits, and one buffer for all connections, which is received into and sent from
//! at once.
//!
//! The ring reports edges, as epoll does, so a connection handles them in the same way. Letting the
//! ring receive (multishot, into a ring of provided buffers, with replies sent by the ring as well)
//! was no better for small messages, and worse for large ones and streams, where the buffers of one
//! turn do not fit into the cache: decision 13 has the figures.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode, squeue};
use kit::{BUFFER, Service};
use rustix::event::PollFlags;

use crate::epoll::Peer;

/// Serves for ever.
pub(crate) fn serve(listener: &TcpListener, service: Service) -> io::Result<()> {
    // The listener is only used through the ring, which waits for it.
    listener.set_nonblocking(false)?;
    let ring: IoUring = IoUring::builder()
        .setup_clamp()
        .setup_cqsize(ENTRIES * 8)
        .setup_submit_all()
        .setup_coop_taskrun()
        .setup_defer_taskrun()
        .setup_single_issuer()
        .setup_no_sqarray()
        .build(ENTRIES)?;
    let mut server = Server {
        ring,
        service,
        peers: Vec::new(),
        buffer: vec![0; BUFFER],
        accepted: 0,
    };
    server.push(&accept(listener));
    loop {
        match server.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        loop {
            let entry = server.ring.completion().next();
            let Some(entry) = entry else { break };
            let goes_on = cqueue::more(entry.flags());
            match entry.user_data() {
                ACCEPT => {
                    server.accepted(entry.result())?;
                    if !goes_on {
                        server.push(&accept(listener));
                    }
                }
                OTHER => {}
                peer => server.told(peer, goes_on),
            }
        }
    }
}

struct Server {
    ring: IoUring,
    service: Service,
    /// By the number of the descriptor, each with the name of its poll in the ring.
    peers: Vec<Option<(u64, Peer)>>,
    buffer: Vec<u8>,
    /// Connections so far: the upper half of the names in the ring, because descriptor numbers are
    /// reused.
    accepted: u32,
}

impl Server {
    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: entries name descriptors and no memory.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            self.ring.submit().expect("the kernel takes submissions");
        }
    }

    fn accepted(&mut self, result: i32) -> io::Result<()> {
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        // SAFETY: the ring has just opened it, and reports it once, so nobody else owns it.
        let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(result) });
        stream.set_nonblocking(true)?;
        self.accepted = self.accepted % (u32::MAX - 1) + 1;
        let name = u64::from(self.accepted) << 32 | u64::from(result.unsigned_abs());
        let place = place(name);
        if self.peers.len() <= place {
            self.peers.resize_with(place + 1, || None);
        }
        self.peers[place] = Some((name, Peer::new(stream, self.service.accept())));
        self.push(&edges(name));
        Ok(())
    }

    fn told(&mut self, name: u64, goes_on: bool) {
        let slot = &mut self.peers[place(name)];
        let Some((_, peer)) = slot.as_mut().filter(|(current, _)| *current == name) else {
            return;
        };
        if !peer.advance(&mut self.buffer) {
            *slot = None;
            // While the poll exists it keeps the connection open.
            let forget = opcode::AsyncCancel::new(name).build();
            self.push(&forget.user_data(OTHER));
        } else if !goes_on {
            self.push(&edges(name));
        }
    }
}

fn accept(listener: &TcpListener) -> squeue::Entry {
    opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
        .build()
        .user_data(ACCEPT)
}

fn edges(name: u64) -> squeue::Entry {
    let number = RawFd::try_from(place(name)).expect("a descriptor");
    let events = PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP;
    opcode::PollAdd::new(Fd(number), events.bits().into())
        .multi(true)
        .build()
        .user_data(name)
}

/// The number of the descriptor.
fn place(name: u64) -> usize {
    usize::try_from(name & u64::from(u32::MAX)).expect("masked")
}

const ENTRIES: u32 = 512;
/// No connection has this name: the upper halves of theirs count from one.
const ACCEPT: u64 = 0;
const OTHER: u64 = 1;
