//! A closed loop: each connection has one message under way, and sends the next when it has come
//! back.

use std::io;
use std::net::TcpStream;
use std::time::Instant;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{Pattern, Phase, Seen, connect, differs, hung_up};

/// Runs `connections` connections against `port`, in each phase until all replies have arrived.
pub(crate) fn closed_loop(
    port: u16,
    connections: usize,
    size: usize,
    phase: &Phase,
) -> io::Result<Seen> {
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut load = Load {
        size,
        pattern: Pattern::new(size),
        buffer: vec![0; 64 * 1024],
        seen: Seen::new(),
        start: Instant::now(),
        measuring: false,
    };
    let mut clients = Vec::with_capacity(connections);
    for number in 0..connections {
        let stream = connect(port)?;
        let edges = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        epoll::add(&poll, &stream, EventData::new_u64(number as u64), edges)?;
        clients.push(Client {
            stream,
            number,
            message: 0,
            sent: 0,
            received: 0,
            sent_at: 0,
            counts: false,
        });
    }
    load.seen.connections = connections as u64;
    let mut events: Vec<Event> = Vec::with_capacity(1024);
    while phase.wait(&mut load.seen) {
        for client in &mut clients {
            client.sent_at = nanoseconds(load.start);
            load.begin(client)?;
        }
        let mut waiting = connections;
        while waiting > 0 {
            events.clear();
            match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            load.measuring = phase.is_measuring();
            let resting = phase.is_resting();
            for event in &events {
                let number = usize::try_from(event.data.u64()).expect("the number of a client");
                let client = &mut clients[number];
                if client.received == size {
                    continue; // it has had its last reply
                }
                load.send(client)?;
                if !load.receive(client)? {
                    continue;
                }
                if resting {
                    waiting -= 1;
                } else {
                    load.begin(client)?;
                }
            }
        }
    }
    Ok(load.seen)
}

struct Client {
    stream: TcpStream,
    number: usize,
    message: u64,
    /// Bytes sent of the message that is under way.
    sent: usize,
    received: usize,
    /// When it was sent, counted from the start of the load.
    sent_at: u64,
    /// Whether it was sent while measuring: then the reply counts, whenever it comes.
    counts: bool,
}

struct Load {
    size: usize,
    pattern: Pattern,
    buffer: Vec<u8>,
    seen: Seen,
    start: Instant,
    measuring: bool,
}

impl Load {
    /// Begins the next message. For a client that has just received a reply, `sent_at` is that
    /// moment.
    fn begin(&mut self, client: &mut Client) -> io::Result<()> {
        client.message += 1;
        client.counts = self.measuring;
        client.sent = 0;
        client.received = 0;
        self.send(client)
    }

    /// Sends as much as there is room for.
    fn send(&self, client: &mut Client) -> io::Result<()> {
        if client.sent == self.size {
            return Ok(());
        }
        let message = self.message(client);
        while client.sent < self.size {
            match send(&client.stream, &message[client.sent..], SendFlags::NOSIGNAL) {
                Ok(count) => client.sent += count,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Receives what has arrived of the reply; returns whether that is all of it.
    fn receive(&mut self, client: &mut Client) -> io::Result<bool> {
        while client.received < self.size {
            let wanted = (self.size - client.received).min(self.buffer.len());
            let count = match recv(
                &client.stream,
                &mut self.buffer[..wanted],
                RecvFlags::empty(),
            ) {
                Ok((0, _)) => return Err(hung_up()),
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            let expected = &self.message(client)[client.received..client.received + count];
            if self.buffer[..count] != *expected {
                return Err(differs());
            }
            client.received += count;
            if client.received < self.size && count < wanted {
                return Ok(false); // drained, and another edge follows
            }
        }
        let now = nanoseconds(self.start);
        if client.counts {
            self.seen.latency.saturating_record(now - client.sent_at);
        }
        client.sent_at = now;
        self.seen.messages += 1;
        self.seen.bytes += self.size as u64;
        Ok(true)
    }

    fn message(&self, client: &Client) -> &[u8] {
        self.pattern
            .message(client.number, client.message, self.size)
    }
}

fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).expect("centuries fit")
}
