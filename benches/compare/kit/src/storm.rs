//! What a cancel storm needs: many pairs of sockets, and its outcome.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

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

/// How many tasks have reached their receive. Most runtimes let the main task go on long before
/// they have polled thousands of others, and cancelling one that has never been polled is no work
/// for the kernel.
#[derive(Clone, Debug, Default)]
pub struct Roll(Arc<AtomicUsize>);

impl Roll {
    /// One more task is about to wait.
    pub fn here(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until `count` tasks wait, and what they wait for has been submitted: it uses the
    /// runtime's own sleep, during which the runtime does everything that it has to do.
    pub async fn complete<S: Future>(&self, count: usize, sleep: impl Fn(Duration) -> S) {
        while self.0.load(Ordering::Relaxed) < count {
            sleep(MOMENT).await;
        }
        sleep(MOMENT).await;
    }
}

const MOMENT: Duration = Duration::from_millis(2);

/// Reports to the harness that all receives that were cancelled at `begin` have ended.
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
