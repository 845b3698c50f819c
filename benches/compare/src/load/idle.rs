//! Connections that send one message, and are silent after that.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::{Pattern, connect, differs};

/// Opens `count` connections, sends a message of `size` bytes on each, and receives it back.
pub(crate) fn idle(port: u16, count: usize, size: usize) -> io::Result<Vec<TcpStream>> {
    let pattern = Pattern::new(size);
    let mut buffer = vec![0; size];
    let mut streams = Vec::with_capacity(count);
    for number in 0..count {
        let mut stream = connect(port)?;
        stream.set_nonblocking(false)?;
        let message = pattern.message(number, 1, size);
        stream.write_all(message)?;
        stream.read_exact(&mut buffer)?;
        if buffer != message {
            return Err(differs());
        }
        streams.push(stream);
    }
    Ok(streams)
}
