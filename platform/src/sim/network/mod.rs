//! The in-memory network: stream sockets that behave as TCP does on Linux, without a kernel.
//!
//! It does not wait and reads no clock. Its user sets the time with [`Network::advance`], asks when
//! the next thing happens, and collects the waiters for whom something has happened.
//!
//! Every address belongs to the machine, so a test may give each of its "hosts" one. These rules hold,
//! because programs depend on them:
//!
//! - bytes, the end of a direction and a reset arrive in the order in which they were sent;
//! - a close is an end of the sending direction, or a reset if bytes were left unread or
//!   [`Network::reset_on_close`] was asked for;
//! - what arrived before a reset can still be received; then the reset is reported once, as
//!   `ECONNRESET`, or as `EPIPE` if the peer had finished sending before;
//! - the first send to a peer that has closed succeeds, and brings back the reset;
//! - a connection is made by the kernel, before it is accepted, as long as the backlog has room.

mod connection;
mod pipe;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use connection::Connection;
use pipe::{Arrival, Segment};

use super::errno::Errno;
use super::random::Random;
use super::timeline::Timeline;
use crate::Time;
use crate::driver::{Family, Key};
use crate::op::Interest;

/// The name of a socket; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SocketId(u64);

/// An operation of some driver that waits for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) driver: u32,
    pub(super) key: Key,
}

/// Every socket, and everything that travels between them.
#[derive(Debug)]
pub(super) struct Network {
    now: Time,
    random: Random,
    pub(super) latency: RangeInclusive<Duration>,
    pub(super) buffer_size: usize,
    /// The families that this machine does not have.
    pub(super) missing: Vec<Family>,
    sockets: BTreeMap<SocketId, Socket>,
    sockets_made: u64,
    /// The sockets that are bound to each port. Accepted connections are not: they share the
    /// port of their listener.
    ports: BTreeMap<u16, Vec<SocketId>>,
    port_last: u16,
    events: Timeline<Event>,
    woken: Vec<Waiter>,
}

#[derive(Debug)]
struct Socket {
    family: Family,
    local: Option<SocketAddr>,
    share_port: bool,
    reset_on_close: bool,
    state: State,
    readers: Vec<Waiter>,
    writers: Vec<Waiter>,
}

#[derive(Debug)]
enum State {
    /// Neither connected nor listening.
    Fresh,
    Listening(Listener),
    /// The request to connect is on its way, or waits for room in a backlog.
    Connecting {
        peer: SocketAddr,
    },
    /// The request was turned down, and nobody has been told yet.
    Refused(Errno),
    Connected(Connection),
}

#[derive(Debug)]
struct Listener {
    backlog: usize,
    /// Connections to be accepted; at most `backlog`.
    ready: VecDeque<SocketId>,
    /// Clients whose request found the backlog full; it is taken up when there is room.
    held_up: VecDeque<SocketId>,
}

/// Something that is going to happen to a socket, if it is still open then.
#[derive(Debug)]
enum Event {
    /// Its request to connect reaches the peer.
    Request(SocketId),
    /// It learns that it is connected.
    Established(SocketId),
    /// It learns that it is not going to be connected.
    Refused(SocketId, Errno),
    /// Something that was sent to it arrives.
    Arrival(SocketId),
}

impl Network {
    pub(super) fn new(now: Time, random: Random) -> Self {
        Self {
            now,
            random,
            latency: Duration::ZERO..=Duration::ZERO,
            buffer_size: 64 * 1024,
            missing: Vec::new(),
            sockets: BTreeMap::new(),
            sockets_made: 0,
            ports: BTreeMap::new(),
            port_last: *PORTS.end(),
            events: Timeline::new(),
            woken: Vec::new(),
        }
    }

    // Time.

    /// When something happens next of its own accord.
    pub(super) fn next_event(&self) -> Option<Time> {
        self.events.next()
    }

    /// Lets everything happen that happens until `now`.
    pub(super) fn advance(&mut self, now: Time) {
        assert!(now >= self.now, "time does not go back");
        self.now = now;
        while let Some(event) = self.events.pop_due(now) {
            match event {
                Event::Request(client) => self.request(client),
                Event::Established(client) => self.established(client),
                Event::Refused(client, errno) => self.refused(client, errno),
                Event::Arrival(socket) => self.arrive(socket),
            }
        }
    }

    /// The waiters whose socket has changed since the last call; they wait no longer.
    pub(super) fn take_woken(&mut self) -> Vec<Waiter> {
        std::mem::take(&mut self.woken)
    }

    // Sockets and addresses.

    pub(super) fn socket(&mut self, family: Family) -> SocketId {
        self.insert(Socket {
            family,
            local: None,
            share_port: false,
            reset_on_close: false,
            state: State::Fresh,
            readers: Vec::new(),
            writers: Vec::new(),
        })
    }

    /// How many sockets are open, connections that wait to be accepted included.
    pub(super) fn open_sockets(&self) -> usize {
        self.sockets.len()
    }

    /// The rules are Linux's with `SO_REUSEADDR`: only a listener keeps others from its address.
    pub(super) fn bind(
        &mut self,
        id: SocketId,
        address: SocketAddr,
        share_port: bool,
    ) -> Result<(), Errno> {
        let socket = self.get(id);
        if Family::of(&address) != socket.family {
            return Err(Errno::AddressFamily);
        }
        if socket.local.is_some() || !matches!(socket.state, State::Fresh) {
            return Err(Errno::Invalid);
        }
        let mut address = address;
        if address.port() == 0 {
            address.set_port(self.free_port()?);
        } else if self.is_taken(id, &address, share_port) {
            return Err(Errno::AddressInUse);
        }
        self.get_mut(id).share_port = share_port;
        self.set_local(id, address);
        Ok(())
    }

    pub(super) fn listen(&mut self, id: SocketId, backlog: u32) -> Result<(), Errno> {
        let backlog = backlog.max(1) as usize;
        let socket = self.get_mut(id);
        match &mut socket.state {
            State::Listening(listener) => {
                listener.backlog = backlog;
                self.let_in(id);
                return Ok(());
            }
            State::Fresh => {}
            _ => return Err(Errno::Invalid),
        }
        let (local, family, share_port) = (socket.local, socket.family, socket.share_port);
        match local {
            Some(local) if self.is_taken(id, &local, share_port) => {
                return Err(Errno::AddressInUse);
            }
            Some(_) => {}
            None => {
                let port = self.free_port()?;
                self.set_local(id, SocketAddr::new(wildcard(family), port));
            }
        }
        self.get_mut(id).state = State::Listening(Listener {
            backlog,
            ready: VecDeque::new(),
            held_up: VecDeque::new(),
        });
        Ok(())
    }

    /// The wildcard address and port zero if the socket has none, as the system says it.
    pub(super) fn local_address(&self, id: SocketId) -> SocketAddr {
        let socket = self.get(id);
        let nowhere = SocketAddr::new(wildcard(socket.family), 0);
        socket.local.unwrap_or(nowhere)
    }

    pub(super) fn peer_address(&self, id: SocketId) -> Result<SocketAddr, Errno> {
        match &self.get(id).state {
            State::Connected(connection) if connection.established => Ok(connection.peer_address),
            _ => Err(Errno::NotConnected),
        }
    }

    // Connections.

    /// Begins to connect; [`Network::connected`] says how it goes.
    pub(super) fn connect(&mut self, id: SocketId, peer: SocketAddr) -> Result<(), Errno> {
        let socket = self.get(id);
        match socket.state {
            State::Fresh | State::Refused(_) => {}
            State::Connecting { .. } => return Err(Errno::Already),
            State::Connected(_) | State::Listening(_) => return Err(Errno::IsConnected),
        }
        if Family::of(&peer) != socket.family {
            return Err(Errno::AddressFamily);
        }
        let mut peer = peer;
        if peer.ip().is_unspecified() {
            peer.set_ip(loopback(socket.family));
        }
        // The source address is that of the peer, as always between two sockets of one machine.
        match socket.local {
            Some(mut local) if local.ip().is_unspecified() => {
                local.set_ip(peer.ip());
                self.get_mut(id).local = Some(local);
            }
            Some(_) => {}
            None => {
                let port = self.free_port()?;
                self.set_local(id, SocketAddr::new(peer.ip(), port));
            }
        }
        self.get_mut(id).state = State::Connecting { peer };
        self.schedule(Event::Request(id));
        Ok(())
    }

    /// How the connect of `id` went: [`Errno::Again`] while it is under way.
    pub(super) fn connected(&mut self, id: SocketId) -> Result<(), Errno> {
        let socket = self.get_mut(id);
        match &socket.state {
            State::Connected(connection) if connection.established => Ok(()),
            State::Connected(_) | State::Connecting { .. } => Err(Errno::Again),
            State::Refused(errno) => {
                let errno = *errno;
                socket.state = State::Fresh;
                Err(errno)
            }
            State::Fresh | State::Listening(_) => Err(Errno::Invalid),
        }
    }

    /// Whether [`Network::connected`] would say how it went.
    pub(super) fn has_connected(&self, id: SocketId) -> bool {
        match &self.get(id).state {
            State::Connected(connection) => connection.established,
            State::Connecting { .. } => false,
            State::Fresh | State::Refused(_) | State::Listening(_) => true,
        }
    }

    pub(super) fn is_listener(&self, id: SocketId) -> bool {
        matches!(self.get(id).state, State::Listening(_))
    }

    /// Whether an accept or a receive would find something.
    pub(super) fn is_readable(&self, id: SocketId) -> bool {
        match &self.get(id).state {
            State::Listening(listener) => !listener.ready.is_empty(),
            State::Connected(connection) => connection.established && connection.is_readable(),
            State::Connecting { .. } => false,
            // Nothing is coming, and every attempt says so at once.
            State::Fresh | State::Refused(_) => true,
        }
    }

    /// Whether a send would find room, or an error.
    pub(super) fn is_writable(&self, id: SocketId) -> bool {
        match &self.get(id).state {
            State::Connected(connection) => {
                connection.established
                    && (connection.send_fails()
                        || self.room(connection).is_none_or(|room| room > 0))
            }
            State::Connecting { .. } | State::Listening(_) => false,
            State::Fresh | State::Refused(_) => true,
        }
    }

    /// Takes a connection off the queue of a listener.
    pub(super) fn accept(&mut self, id: SocketId) -> Result<SocketId, Errno> {
        let State::Listening(listener) = &mut self.get_mut(id).state else {
            return Err(Errno::Invalid);
        };
        let accepted = listener.ready.pop_front().ok_or(Errno::Again)?;
        self.let_in(id);
        Ok(accepted)
    }

    /// Loses the connection that would have been accepted next.
    pub(super) fn abort_accept(&mut self, id: SocketId) {
        if let Ok(accepted) = self.accept(id) {
            self.reset_on_close(accepted);
            self.close(accepted);
        }
    }

    /// Takes what has arrived: zero is the end.
    pub(super) fn receive(&mut self, id: SocketId, into: &mut [u8]) -> Result<usize, Errno> {
        let connection = self.connection(id)?;
        if connection.incoming.arrived() > 0 {
            let count = connection.incoming.take(into);
            if let Some(peer) = connection.peer {
                self.wake_writers(peer);
            }
            return Ok(count);
        }
        if connection.receive_ended {
            return Ok(0);
        }
        match connection.error.take() {
            Some(errno) => Err(errno),
            None if connection.reset => Ok(0),
            None => Err(Errno::Again),
        }
    }

    /// Whether a receive would find more.
    pub(super) fn has_more(&self, id: SocketId) -> bool {
        matches!(&self.get(id).state, State::Connected(connection) if connection.is_readable())
    }

    /// Sends what there is room for.
    pub(super) fn send(&mut self, id: SocketId, data: &[u8]) -> Result<usize, Errno> {
        let connection = match self.connection(id) {
            Ok(connection) => connection,
            Err(Errno::NotConnected) => return Err(Errno::BrokenPipe),
            Err(errno) => return Err(errno),
        };
        if let Some(errno) = connection.error.take() {
            return Err(errno);
        }
        if connection.send_fails() {
            return Err(Errno::BrokenPipe);
        }
        let Some(peer) = connection.peer else {
            // The peer has closed, and answers whatever reaches it with a reset.
            self.push(id, Segment::Reset);
            return Ok(data.len());
        };
        if data.is_empty() {
            return Ok(0);
        }
        let free = self.connection_of(peer)?.incoming.free();
        let count = data.len().min(free);
        if count == 0 {
            return Err(Errno::Again);
        }
        self.push(peer, Segment::Bytes(data[..count].to_vec()));
        Ok(count)
    }

    /// Ends the sending direction.
    pub(super) fn shutdown_send(&mut self, id: SocketId) -> Result<(), Errno> {
        let connection = self.connection(id)?;
        if connection.reset {
            return Err(Errno::NotConnected);
        }
        if std::mem::replace(&mut connection.send_ended, true) {
            return Ok(());
        }
        if let Some(peer) = connection.peer {
            self.push(peer, Segment::End);
        }
        self.wake_writers(id);
        Ok(())
    }

    /// Makes the coming close a reset.
    pub(super) fn reset_on_close(&mut self, id: SocketId) {
        self.get_mut(id).reset_on_close = true;
    }

    /// Breaks a connection at both ends; what is under way is lost.
    pub(super) fn reset(&mut self, id: SocketId) {
        let Ok(connection) = self.connection(id) else {
            return;
        };
        connection.incoming.lose();
        connection.reset_by_peer();
        if let Some(peer) = connection.peer.take() {
            if let Ok(connection) = self.connection_of(peer) {
                connection.peer = None;
                connection.incoming.lose();
            }
            self.push(peer, Segment::Reset);
        }
        self.wake(id);
    }

    /// Closes a socket. Its name means nothing from here on.
    pub(super) fn close(&mut self, id: SocketId) {
        let socket = self
            .sockets
            .remove(&id)
            .expect("a socket is closed once, by whoever lets go last");
        if let Some(local) = socket.local {
            self.unbind(id, local.port());
        }
        match socket.state {
            State::Listening(listener) => self.close_listener(listener),
            State::Connected(connection) => {
                let reset = socket.reset_on_close || connection.incoming.held() > 0;
                self.close_connection(&connection, reset);
            }
            State::Fresh | State::Connecting { .. } | State::Refused(_) => {}
        }
    }

    // Waiting.

    /// Notes that `waiter` waits for a change on the side of `id` that `interest` names.
    pub(super) fn wait(&mut self, id: SocketId, interest: Interest, waiter: Waiter) {
        let socket = self.get_mut(id);
        match interest {
            Interest::Readable => socket.readers.push(waiter),
            Interest::Writable => socket.writers.push(waiter),
        }
    }

    /// Forgets that `waiter` waits for a change of `id`.
    pub(super) fn forget(&mut self, id: SocketId, waiter: Waiter) {
        let socket = self.get_mut(id);
        socket.readers.retain(|other| *other != waiter);
        socket.writers.retain(|other| *other != waiter);
    }

    // What happens by itself.

    /// The request of `client` to connect is with its peer.
    fn request(&mut self, client: SocketId) {
        let Some(Socket {
            state: State::Connecting { peer },
            local: Some(local),
            ..
        }) = self.sockets.get(&client)
        else {
            return;
        };
        let (peer, local) = (*peer, *local);
        let Some(listening) = self.find_listener(&peer) else {
            self.schedule(Event::Refused(client, Errno::ConnectionRefused));
            return;
        };
        let family = self.get(listening).family;
        let State::Listening(listener) = &mut self.get_mut(listening).state else {
            unreachable!("`find_listener` finds listeners");
        };
        if listener.ready.len() >= listener.backlog {
            listener.held_up.push_back(client);
            return;
        }
        let server = self.socket(family);
        let State::Listening(listener) = &mut self.get_mut(listening).state else {
            unreachable!("making a socket changes no other");
        };
        listener.ready.push_back(server);
        let learns = self.schedule(Event::Established(client));
        let (now, capacity) = (self.now, self.buffer_size);
        let accepting = self.get_mut(server);
        accepting.local = Some(peer);
        accepting.state = State::Connected(Connection::new(local, client, capacity, now, true));
        // Nothing reaches the client before the news that it is connected.
        self.get_mut(client).state =
            State::Connected(Connection::new(peer, server, capacity, learns, false));
        self.wake_readers(listening);
    }

    /// Takes up the requests that found the backlog of `listening` full, as far as there is room.
    fn let_in(&mut self, listening: SocketId) {
        loop {
            let State::Listening(listener) = &mut self.get_mut(listening).state else {
                return;
            };
            if listener.ready.len() >= listener.backlog {
                return;
            }
            // A client that has given up meanwhile takes no room.
            match listener.held_up.pop_front() {
                Some(client) => self.request(client),
                None => return,
            }
        }
    }

    fn established(&mut self, client: SocketId) {
        let Some(socket) = self.sockets.get_mut(&client) else {
            return;
        };
        if let State::Connected(connection) = &mut socket.state {
            connection.established = true;
            self.wake(client);
        }
    }

    fn refused(&mut self, client: SocketId, errno: Errno) {
        let Some(socket) = self.sockets.get_mut(&client) else {
            return;
        };
        if let State::Connecting { .. } = socket.state {
            socket.state = State::Refused(errno);
            self.wake(client);
        }
    }

    fn arrive(&mut self, id: SocketId) {
        let now = self.now;
        let Some(Socket {
            state: State::Connected(connection),
            ..
        }) = self.sockets.get_mut(&id)
        else {
            return;
        };
        let mut reset = false;
        while let Some(arrival) = connection.incoming.arrive(now) {
            match arrival {
                Arrival::Bytes => {}
                Arrival::End => connection.receive_ended = true,
                Arrival::Reset => {
                    connection.reset_by_peer();
                    connection.peer = None;
                    reset = true;
                }
            }
        }
        if reset {
            self.wake(id);
        } else {
            self.wake_readers(id);
        }
    }

    fn close_listener(&mut self, listener: Listener) {
        for server in listener.ready {
            self.reset_on_close(server);
            self.close(server);
        }
        for client in listener.held_up {
            self.schedule(Event::Refused(client, Errno::ConnectionRefused));
        }
    }

    fn close_connection(&mut self, connection: &Connection, reset: bool) {
        let Some(peer) = connection.peer else {
            return;
        };
        if reset {
            self.push(peer, Segment::Reset);
        } else if !connection.send_ended {
            self.push(peer, Segment::End);
        }
        if let Ok(other) = self.connection_of(peer) {
            other.peer = None;
        }
        // A sender that waited for room is not going to get any: it sends, and is reset.
        self.wake_writers(peer);
    }

    // Helpers.

    fn insert(&mut self, socket: Socket) -> SocketId {
        self.sockets_made += 1;
        let id = SocketId(self.sockets_made);
        self.sockets.insert(id, socket);
        id
    }

    fn get(&self, id: SocketId) -> &Socket {
        self.sockets.get(&id).expect(OPEN)
    }

    fn get_mut(&mut self, id: SocketId) -> &mut Socket {
        self.sockets.get_mut(&id).expect(OPEN)
    }

    /// The connection of `id`, as its owner may use it.
    fn connection(&mut self, id: SocketId) -> Result<&mut Connection, Errno> {
        match &mut self.get_mut(id).state {
            State::Connected(connection) if connection.established => Ok(connection),
            State::Connected(_) | State::Connecting { .. } => Err(Errno::Again),
            State::Fresh | State::Listening(_) | State::Refused(_) => Err(Errno::NotConnected),
        }
    }

    /// The connection of `id`, whether its owner knows of it or not.
    fn connection_of(&mut self, id: SocketId) -> Result<&mut Connection, Errno> {
        match &mut self.get_mut(id).state {
            State::Connected(connection) => Ok(connection),
            _ => Err(Errno::NotConnected),
        }
    }

    /// How many bytes the owner of `connection` may send; `None` if nobody is there to read them.
    fn room(&self, connection: &Connection) -> Option<usize> {
        match &self.get(connection.peer?).state {
            State::Connected(peer) => Some(peer.incoming.free()),
            _ => None,
        }
    }

    /// Sends `segment` to `id`.
    fn push(&mut self, id: SocketId, segment: Segment) {
        let at = self.now + self.draw_latency();
        let Ok(connection) = self.connection_of(id) else {
            return;
        };
        let arrives = connection.incoming.push(at, segment);
        let event = Event::Arrival(id);
        self.events.push(arrives, event, &mut self.random);
    }

    /// Lets `event` happen one way's time from now, and returns when that is.
    fn schedule(&mut self, event: Event) -> Time {
        let at = self.now + self.draw_latency();
        self.events.push(at, event, &mut self.random);
        at
    }

    fn draw_latency(&mut self) -> Duration {
        let (least, most) = (*self.latency.start(), *self.latency.end());
        let spread = u64::try_from(most.saturating_sub(least).as_nanos()).unwrap_or(u64::MAX);
        if spread == 0 {
            return least;
        }
        least + Duration::from_nanos(self.random.below(spread.saturating_add(1)))
    }

    fn wake(&mut self, id: SocketId) {
        self.wake_readers(id);
        self.wake_writers(id);
    }

    fn wake_readers(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            self.woken.append(&mut socket.readers);
        }
    }

    fn wake_writers(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            self.woken.append(&mut socket.writers);
        }
    }

    fn set_local(&mut self, id: SocketId, address: SocketAddr) {
        self.get_mut(id).local = Some(address);
        self.ports.entry(address.port()).or_default().push(id);
    }

    fn unbind(&mut self, id: SocketId, port: u16) {
        if let Some(bound) = self.ports.get_mut(&port) {
            bound.retain(|other| *other != id);
            if bound.is_empty() {
                self.ports.remove(&port);
            }
        }
    }

    /// A port that nobody is bound to.
    fn free_port(&mut self) -> Result<u16, Errno> {
        for _ in PORTS {
            self.port_last = match self.port_last {
                last if last == *PORTS.end() => *PORTS.start(),
                last => last + 1,
            };
            if !self.ports.contains_key(&self.port_last) {
                return Ok(self.port_last);
            }
        }
        Err(Errno::AddressInUse)
    }

    /// Whether a listener other than `id` keeps it from `address`.
    fn is_taken(&self, id: SocketId, address: &SocketAddr, share_port: bool) -> bool {
        let overlaps = |local: &SocketAddr| {
            Family::of(local) == Family::of(address)
                && (local.ip() == address.ip()
                    || local.ip().is_unspecified()
                    || address.ip().is_unspecified())
        };
        self.listeners(address.port()).any(|(other, socket)| {
            other != id
                && !(share_port && socket.share_port)
                && socket.local.as_ref().is_some_and(overlaps)
        })
    }

    /// The listener that gets a connection to `address`: one of those bound to it exactly, or else
    /// one of those bound to the wildcard. Between several that share the port chance decides.
    fn find_listener(&mut self, address: &SocketAddr) -> Option<SocketId> {
        let bound_to = |wanted: SocketAddr| -> Vec<SocketId> {
            self.listeners(address.port())
                .filter(|(_, socket)| socket.local == Some(wanted))
                .map(|(id, _)| id)
                .collect()
        };
        let everywhere = SocketAddr::new(wildcard(Family::of(address)), address.port());
        let mut found = bound_to(*address);
        if found.is_empty() {
            found = bound_to(everywhere);
        }
        match found.len() {
            0 => None,
            1 => Some(found[0]),
            count => {
                let index = self.random.below(count as u64);
                Some(found[usize::try_from(index).expect("an index fits")])
            }
        }
    }

    fn listeners(&self, port: u16) -> impl Iterator<Item = (SocketId, &Socket)> {
        let bound = self.ports.get(&port).into_iter().flatten();
        bound
            .map(|id| (*id, self.get(*id)))
            .filter(|(_, socket)| matches!(socket.state, State::Listening(_)))
    }
}

fn wildcard(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

/// The ports given to those who do not choose one; Linux's default range.
const PORTS: RangeInclusive<u16> = 32_768..=60_999;

const OPEN: &str = "a socket is open as long as somebody has its name";
