//! The stopwatch of the micro workloads: batches that are large enough to be timed, and their
//! median.

use std::time::{Duration, Instant};

use crate::Orders;

/// Times batches of an operation.
///
/// ```no_run
/// use kit::{Meter, Orders};
///
/// let mut meter = Meter::new(&Orders::from_arguments(), "none");
/// while let Some(count) = meter.next_batch() {
///     for n in 0..count {
///         std::hint::black_box(n);
///     }
/// }
/// meter.finish();
/// ```
#[derive(Debug)]
pub struct Meter {
    /// Nanoseconds per operation, for each batch that counts.
    batches: Vec<f64>,
    wanted: usize,
    count: u64,
    done: Option<u64>,
    started: Option<Instant>,
    /// How many batches in a row took long enough, while their size is sought.
    long_enough: u32,
    backend: String,
}

impl Meter {
    /// A stopwatch for as many batches as `orders` say.
    pub fn new(orders: &Orders, backend: &str) -> Self {
        Self {
            batches: Vec::new(),
            wanted: orders.number("batches", 50),
            count: 1,
            done: None,
            started: None,
            long_enough: 0,
            backend: backend.to_owned(),
        }
    }

    /// How many operations to do before the next call; `None` when there are enough.
    pub fn next_batch(&mut self) -> Option<u64> {
        let took = self.started.map(|started| started.elapsed());
        match took {
            None => {}
            Some(took) if self.long_enough < 2 => {
                // The doubling also warms up. It ends after two long batches in a row, because one may
                // be long for another reason: the first also does what the set-up put off, such as a
                // million timers.
                if took < BATCH {
                    self.count *= 2;
                    self.long_enough = 0;
                } else {
                    self.long_enough += 1;
                }
            }
            Some(took) => {
                let nanoseconds = took.as_nanos() as f64;
                let count = self.done.unwrap_or(self.count);
                self.batches.push(nanoseconds / count as f64);
            }
        }
        if self.batches.len() >= self.wanted {
            return None;
        }
        self.started = Some(Instant::now());
        Some(self.count)
    }

    /// Says that the batch had another size than the one requested.
    pub fn did(&mut self, count: u64) {
        self.done = Some(count);
    }

    /// Reports the result to the harness.
    pub fn finish(mut self) {
        self.batches.sort_by(f64::total_cmp);
        let median = self.batches[self.batches.len() / 2];
        let least = self.batches[0];
        outcome(&self.backend, &[("ns", median), ("least_ns", least)]);
    }
}

/// Reports the outcome of a job that is not a server to the harness.
pub fn outcome(backend: &str, values: &[(&str, f64)]) {
    let mut line = format!("outcome backend={}", backend.replace(' ', "_"));
    for (name, value) in values {
        line += &format!(" {name}={value}");
    }
    println!("{line}");
}

/// Long enough for the clock, and short enough that a disturbance spoils few of them.
const BATCH: Duration = Duration::from_millis(2);
