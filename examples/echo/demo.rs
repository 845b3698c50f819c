//! Clients that measure: each sends a message, waits until all of it has come back, checks every
//! byte, and begins again.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use trio::lowlevel::BackendInfo;
use trio::net::{TcpStream, connect_tcp};
use trio::{Error, Result, Time, backend, current_time, open_nursery};

use crate::arguments::Arguments;
use crate::histogram::Histogram;

const CONNECTIONS: u64 = 64;
const MESSAGE_SIZE: usize = 64;

/// Puts a server under load for `duration`, from a run of its own on this thread.
pub(crate) fn run(arguments: &Arguments, server: SocketAddr, duration: Duration) -> Result<Report> {
    arguments
        .builder()
        .try_run(load(server, duration, arguments.workers.get()))?
}

async fn load(server: SocketAddr, duration: Duration, workers: usize) -> Result<Report> {
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        streams.push(connect_tcp(server).await?);
    }
    let latencies = RefCell::new(Histogram::new());
    let latencies_ref = &latencies;
    let start = current_time();
    open_nursery(async |nursery| {
        for (number, stream) in (0..).zip(streams) {
            nursery.start_soon(converse(stream, number, start + duration, latencies_ref));
        }
        Ok(())
    })
    .await?;
    Ok(Report {
        took: current_time() - start,
        latencies: latencies.into_inner(),
        backend: backend(),
        workers,
    })
}

/// One client, until `end`.
async fn converse(
    stream: TcpStream,
    number: u64,
    end: Time,
    latencies: &RefCell<Histogram>,
) -> Result<()> {
    let mut received = [0; MESSAGE_SIZE];
    let mut count = 0;
    let mut now = current_time();
    while now < end {
        let sent = message(number, count);
        let before = now;
        stream.send_all(&sent).await?;
        receive_exactly(&stream, &mut received).await?;
        now = current_time();
        latencies.borrow_mut().record(now - before);
        if received != sent {
            return Err(Error::msg(format!(
                "message {count} of client {number} came back changed"
            )));
        }
        count += 1;
    }
    stream.send_eof().await?;
    match stream.receive().await? {
        None => Ok(()),
        Some(_) => Err(Error::msg(format!(
            "client {number} got back more than it has sent"
        ))),
    }
}

async fn receive_exactly(stream: &TcpStream, mut into: &mut [u8]) -> Result<()> {
    while !into.is_empty() {
        let count = stream.receive_some(into).await?;
        if count == 0 {
            return Err(Error::msg("the server has closed a connection too early"));
        }
        into = &mut into[count..];
    }
    Ok(())
}

/// Words of eight bytes, none of which is in any other message of the demo.
fn message(client: u64, number: u64) -> [u8; MESSAGE_SIZE] {
    let mut bytes = [0; MESSAGE_SIZE];
    let first = (number * CONNECTIONS + client) * (MESSAGE_SIZE / 8) as u64;
    for (word, place) in (first..).zip(bytes.chunks_exact_mut(8)) {
        // Multiplying by an odd number is one to one, and spreads the number over all bytes.
        let spread = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        place.copy_from_slice(&spread.to_le_bytes());
    }
    bytes
}

/// What the demo has measured.
pub(crate) struct Report {
    took: Duration,
    latencies: Histogram,
    backend: BackendInfo,
    workers: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let took = self.took.as_secs_f64();
        let rate = self.latencies.count() as f64 / took;
        let quantile = |share| {
            format!(
                "{:.0} µs",
                self.latencies.quantile(share).as_secs_f64() * 1e6
            )
        };
        writeln!(
            f,
            "{CONNECTIONS} connections for {took:.1} s, each message sent when the one before had \
             come back,\nevery byte checked; {} of the server's threads and one of the clients' on \
             {cores} cores\n",
            self.workers
        )?;
        writeln!(
            f,
            "{:<10} {:>8} {:>11} {:>9} {:>9} {:>9}",
            "backend", "message", "messages/s", "p50", "p99", "p99.9"
        )?;
        write!(
            f,
            "{:<10} {:>8} {rate:>11.0} {:>9} {:>9} {:>9}",
            self.backend.backend().to_string(),
            format!("{MESSAGE_SIZE} B"),
            quantile(0.5),
            quantile(0.99),
            quantile(0.999)
        )?;
        match self.backend.fallback() {
            Some(reason) => write!(f, "\n\nnot io_uring, because {reason}"),
            None => Ok(()),
        }
    }
}
