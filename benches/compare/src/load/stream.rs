//! One direction: bytes go to the server as fast as it takes them, and nothing comes back.

use std::io;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::{Pattern, Phase, Seen, connect};

/// Sends over `connections` connections while the phase says so.
pub(crate) fn one_way(port: u16, connections: usize, phase: &Phase) -> io::Result<Seen> {
    let pattern = Pattern::new(CHUNK);
    let chunk = pattern.message(0, 0, CHUNK);
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut streams = Vec::with_capacity(connections);
    for number in 0..connections {
        let stream = connect(port)?;
        epoll::add(
            &poll,
            &stream,
            EventData::new_u64(number as u64),
            EventFlags::OUT,
        )?;
        streams.push(stream);
    }
    let mut seen = Seen::new();
    seen.connections = connections as u64;
    let mut events: Vec<Event> = Vec::with_capacity(1024);
    while phase.wait(&mut seen) {
        while !phase.is_resting() {
            events.clear();
            match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let number = usize::try_from(event.data.u64()).expect("the number of a stream");
                // A stream never keeps the rest of a chunk: a server that only counts does not care
                // which part of the pattern it gets.
                match send(&streams[number], chunk, SendFlags::NOSIGNAL) {
                    Ok(count) => seen.bytes += count as u64,
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(seen)
}

const CHUNK: usize = 256 * 1024;
