//! One end of a simulated connection.

use std::net::SocketAddr;

use super::SocketId;
use super::pipe::Pipe;
use crate::Time;
use crate::sim::errno::Errno;

/// What one end knows of its connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer_address: SocketAddr,
    /// `None` once the peer has closed, or the connection was reset.
    pub(super) peer: Option<SocketId>,
    pub(super) incoming: Pipe,
    /// Whether this end knows that it is connected; the accepting end always does.
    pub(super) established: bool,
    /// Whether this end has finished sending.
    pub(super) send_ended: bool,
    /// Whether the end of what the peer sent has arrived.
    pub(super) receive_ended: bool,
    /// Whether a reset has arrived; both directions are over then.
    pub(super) reset: bool,
    /// The error that the next receive or send returns, once.
    pub(super) error: Option<Errno>,
}

impl Connection {
    /// A connection to the socket `peer`, to which nothing comes before `earliest`.
    pub(super) fn new(
        peer_address: SocketAddr,
        peer: SocketId,
        capacity: usize,
        earliest: Time,
        established: bool,
    ) -> Self {
        Self {
            peer_address,
            peer: Some(peer),
            incoming: Pipe::new(capacity, earliest),
            established,
            send_ended: false,
            receive_ended: false,
            reset: false,
            error: None,
        }
    }

    /// Whether a receive would find bytes, the end or an error.
    pub(super) fn is_readable(&self) -> bool {
        self.incoming.arrived() > 0 || self.receive_ended || self.reset || self.error.is_some()
    }

    /// Whether a send could only fail.
    pub(super) fn send_fails(&self) -> bool {
        self.send_ended || self.reset || self.error.is_some()
    }

    /// Notes that the connection has been reset, which its owner hears once.
    pub(super) fn reset_by_peer(&mut self) {
        if self.reset {
            return;
        }
        self.reset = true;
        self.error = Some(if self.receive_ended {
            Errno::BrokenPipe
        } else {
            Errno::ConnectionReset
        });
    }
}
