//! What a cancel storm needs: many pairs of sockets, and its outcome.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::{Orders, outcome};

/// As many pairs as `orders` say; nothing is ever sent through them.
pub fn pairs(orders: &Orders) -> io::Result<Vec<(UnixStream, UnixStream)>> {
    crate::allow_open_files();
    let pair = |_| {
        let pair = UnixStream::pair()?;
        pair.0.set_nonblocking(true)?;
        Ok(pair)
    };
    (0..orders.number("receives", 1000)).map(pair).collect()
}

/// Tells the harness that all receives have ended that were cancelled at `begin`.
pub fn storm_over(backend: &str, receives: usize, begin: Instant) {
    let nanoseconds = begin.elapsed().as_nanos() as f64;
    outcome(
        backend,
        &[
            ("total_ms", nanoseconds / 1e6),
            ("each_ns", nanoseconds / receives as f64),
        ],
    );
}
