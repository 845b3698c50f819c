//! A connection for each message: connect, send, receive, and see the server close.

use std::io;
use std::net::TcpStream;
use std::time::Instant;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{Pattern, Phase, Seen, connect, differs, hung_up};

/// Keeps `at_once` connections going, each for one message of `size` bytes, in each phase until the
/// last one has been closed.
pub(crate) fn one_message_each(
    port: u16,
    at_once: usize,
    size: usize,
    phase: &Phase,
) -> io::Result<Seen> {
    let pattern = Pattern::new(size);
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut seen = Seen::new();
    let mut buffer = vec![0; size.max(1)];
    let mut events: Vec<Event> = Vec::with_capacity(1024);
    let mut message = 0;
    while phase.wait(&mut seen) {
        let mut clients: Vec<Option<Client>> = Vec::with_capacity(at_once);
        for number in 0..at_once {
            let client = Client::open(&poll, port, number, message, size, &pattern, phase)?;
            clients.push(Some(client));
        }
        let mut open = at_once;
        while open > 0 {
            events.clear();
            match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let number = usize::try_from(event.data.u64()).expect("the number of a client");
                let Some(client) = &mut clients[number] else {
                    continue;
                };
                let expected = pattern.message(number, client.message, size);
                if !client.receive(&mut buffer, expected)? {
                    continue;
                }
                seen.messages += 1;
                seen.connections += 1;
                seen.bytes += size as u64;
                if client.counts {
                    let took = client.opened.elapsed().as_nanos();
                    seen.latency
                        .saturating_record(u64::try_from(took).expect("centuries fit"));
                }
                clients[number] = None;
                message += 1;
                if phase.is_resting() {
                    open -= 1;
                } else {
                    let client = Client::open(&poll, port, number, message, size, &pattern, phase)?;
                    clients[number] = Some(client);
                }
            }
        }
    }
    Ok(seen)
}

struct Client {
    stream: TcpStream,
    message: u64,
    received: usize,
    opened: Instant,
    /// Whether it was begun while measuring.
    counts: bool,
}

impl Client {
    fn open(
        poll: impl std::os::fd::AsFd,
        port: u16,
        number: usize,
        message: u64,
        size: usize,
        pattern: &Pattern,
        phase: &Phase,
    ) -> io::Result<Self> {
        let (opened, counts) = (Instant::now(), phase.is_measuring());
        // On the loopback a connect is done when it returns.
        let stream = connect(port)?;
        let bytes = pattern.message(number, message, size);
        let sent = send(&stream, bytes, SendFlags::NOSIGNAL)?;
        if sent < size {
            let text = "a fresh connection has no room for a message";
            return Err(io::Error::other(text));
        }
        epoll::add(
            poll,
            &stream,
            EventData::new_u64(number as u64),
            EventFlags::IN,
        )?;
        Ok(Self {
            stream,
            message,
            received: 0,
            opened,
            counts,
        })
    }

    /// Receives what has arrived; returns whether the server has closed after the whole message.
    fn receive(&mut self, buffer: &mut [u8], expected: &[u8]) -> io::Result<bool> {
        loop {
            match recv(&self.stream, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) if self.received == expected.len() => return Ok(true),
                Ok((0, _)) => return Err(hung_up()),
                Ok((count, _)) => {
                    let rest = &expected[self.received..];
                    if count > rest.len() || buffer[..count] != rest[..count] {
                        return Err(differs());
                    }
                    self.received += count;
                }
                Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
