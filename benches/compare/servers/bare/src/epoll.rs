//! A server over epoll: edge-triggered, one buffer for all connections, and a reply sent at once.
//!
//! A receive that does not fill the buffer has emptied the socket, and a new edge follows when more
//! arrives. So a message costs a receive, a send, and its share of a wait.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use kit::{BUFFER, Connection, Next, Service};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Serves for ever.
pub(crate) fn serve(listener: &TcpListener, service: Service) -> io::Result<()> {
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(
        &poll,
        listener,
        EventData::new_u64(LISTENER),
        EventFlags::IN,
    )?;
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut buffer = vec![0; BUFFER];
    let mut events: Vec<Event> = Vec::with_capacity(1024);
    loop {
        events.clear();
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let number = event.data.u64();
            if number == LISTENER {
                accept(&poll, listener, service, &mut peers)?;
                continue;
            }
            let slot = &mut peers[usize::try_from(number).expect("the number of a descriptor")];
            let Some(peer) = slot else { continue };
            if !peer.advance(&mut buffer) {
                *slot = None;
            }
        }
    }
}

fn accept(
    poll: impl AsFd,
    listener: &TcpListener,
    service: Service,
    peers: &mut Vec<Option<Peer>>,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        let number = usize::try_from(stream.as_raw_fd()).expect("a descriptor");
        let edges = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&poll, &stream, EventData::new_u64(number as u64), edges)?;
        if peers.len() <= number {
            peers.resize_with(number + 1, || None);
        }
        peers[number] = Some(Peer::new(stream, service.accept()));
    }
}

/// A connection, however its edges are delivered.
pub(crate) struct Peer {
    stream: TcpStream,
    connection: Connection,
    /// What the socket had no room for. Until this is sent, nothing more is received.
    unsent: Vec<u8>,
}

impl Peer {
    pub(crate) fn new(stream: TcpStream, connection: Connection) -> Self {
        Self {
            stream,
            connection,
            unsent: Vec::new(),
        }
    }

    /// Does what is possible now; returns whether the connection goes on.
    pub(crate) fn advance(&mut self, buffer: &mut [u8]) -> bool {
        if !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            if !self.send(&unsent) {
                return false;
            }
        }
        while self.unsent.is_empty() {
            let count = match recv(&self.stream, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => return false,
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            };
            if self.connection.received(count) == Next::Reply && !self.send(&buffer[..count]) {
                return false;
            }
            if self.connection.is_over() && self.unsent.is_empty() {
                return false;
            }
            if count < buffer.len() {
                return true;
            }
        }
        true
    }

    fn send(&mut self, data: &[u8]) -> bool {
        match send(&self.stream, data, SendFlags::NOSIGNAL) {
            Ok(count) => {
                self.unsent.extend_from_slice(&data[count..]);
                true
            }
            Err(Errno::AGAIN) => {
                self.unsent.extend_from_slice(data);
                true
            }
            Err(_) => false,
        }
    }
}

/// No descriptor has this number.
const LISTENER: u64 = u64::MAX;
