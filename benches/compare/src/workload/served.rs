//! Measures a server under a load: wake it, read the counters, let it run, read them again, and let
//! it rest; at the end, check that both sides have counted the same.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use kit::Report;

use super::{Entrant, Sample, Stage, Values};
use crate::contestant::Contestant;
use crate::load::{Load, Phase, Rest, Seen, latencies};
use crate::machine::Delay;
use crate::server::{Place, Server};

/// What is sent, and how many bytes a message is for the server's counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    pub(crate) connections: usize,
    pub(crate) bytes_a_message: usize,
    /// Whether what is sent comes back, in which case the server has all of it when the load rests.
    pub(crate) replies: bool,
}

/// A server that is alive, and its load, which sleeps between two windows.
pub(crate) struct Served {
    server: Server,
    load: Load,
    count: Count,
    stage: Stage,
    /// The delays of the server and of the load; empty if they share their cores and wait for each
    /// other.
    delays: Vec<Delay>,
    /// How many windows may still be discarded in this round.
    repeats: u32,
    /// The latencies of all windows so far: a single one has too few messages for a tail.
    latency: Histogram<u64>,
}

impl Served {
    /// Starts a server of `contestant` with the job `job`, and warms it up with `load`.
    pub(crate) fn start(
        contestant: &Contestant,
        job: &[String],
        place: Place,
        stage: &Stage,
        count: Count,
        load: impl FnOnce(u16, &Phase) -> io::Result<Seen> + Send + 'static,
    ) -> Result<Box<dyn Entrant>, String> {
        let server = Server::start(contestant, job, stage.cores, place)?;
        let port = server.port;
        let load = Load::start(stage.cores.load, move |phase| load(port, phase))?;
        load.run(stage.warm_up)?;
        let rest = load.rest()?;
        let delays = match place {
            Place::ServerCore if stage.cores.server != stage.cores.load => {
                vec![Delay::of_process(server.process()), load.delay()]
            }
            _ => Vec::new(),
        };
        let mut served = Self {
            delays,
            repeats: stage.laps as u32,
            latency: latencies(),
            server,
            load,
            count,
            stage: *stage,
        };
        served.drain(&rest)?;
        Ok(Box::new(served))
    }
}

impl Entrant for Served {
    /// If either side had to wait for its core in a window, something else was running, and the
    /// window is measured again. On a machine that is always busy that would never end, so it may
    /// happen only a limited number of times a round.
    fn window(&mut self) -> Result<Sample, String> {
        let mut repeated = 0;
        loop {
            let (mut sample, latency) = self.measure()?;
            let disturbed = sample.delayed.is_some_and(|delayed| delayed > DISTURBED);
            if disturbed && self.repeats > 0 {
                self.repeats -= 1;
                repeated += 1;
                continue;
            }
            self.latency += latency;
            sample.repeated = repeated;
            return Ok(sample);
        }
    }

    fn process(&self) -> Option<u32> {
        Some(self.server.process())
    }

    fn run(&mut self, time: Duration) -> Result<u64, String> {
        let first = self.server.mark()?;
        self.load.run(time)?;
        let rest = self.load.rest()?;
        self.drain(&rest)?;
        let second = self.server.mark()?;
        Ok((second.bytes - first.bytes) / self.count.bytes_a_message as u64)
    }

    fn leave(self: Box<Self>) -> Result<Values, String> {
        let seen = self.load.end()?;
        let last = self.server.stop()?;
        agree(&last, &seen)?;
        let latency = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1000.0;
        Ok(Values::from([
            ("p50_us", latency(0.5)),
            ("p99_us", latency(0.99)),
            ("p999_us", latency(0.999)),
        ]))
    }
}

impl Served {
    /// Waits until the server has taken what was sent, so that it sleeps while the next one is
    /// measured.
    fn drain(&mut self, rest: &Rest) -> Result<(), String> {
        let begin = Instant::now();
        while !self.count.replies && self.server.mark()?.bytes < rest.bytes {
            if begin.elapsed() > PATIENCE {
                return Err("it does not take what was sent".to_owned());
            }
            std::thread::sleep(DRAIN);
        }
        Ok(())
    }

    /// How long each side has waited for its core so far.
    fn waited(&self) -> Vec<Option<u64>> {
        self.delays.iter().map(Delay::now).collect()
    }

    fn measure(&mut self) -> Result<(Sample, Histogram<u64>), String> {
        // What this server had in the caches has been replaced by others', until each connection is
        // served.
        let settle = self.stage.settle + SETTLE_EACH * self.count.connections as u32;
        self.load.run(settle)?;
        self.load.measure(true);
        let before = self.waited();
        let first = self.server.mark()?;
        self.load.run(self.stage.window)?;
        let mut second = self.server.mark()?;
        // Some servers stall for longer than a window; that is a part of their behaviour.
        let mut stalled = 0;
        while second.bytes == first.bytes && stalled < STALLS {
            self.load.run(self.stage.window)?;
            second = self.server.mark()?;
            stalled += 1;
        }
        let after = self.waited();
        self.load.measure(false);
        let rest = self.load.rest()?;
        self.drain(&rest)?;
        if first.bytes == second.bytes {
            return Err("nothing arrived while measuring".to_owned());
        }
        let mut sample = sample(&first, &second, self.count);
        let waited = before.iter().zip(after);
        let waited = waited.filter_map(|(before, after)| after?.checked_sub((*before)?));
        let window = (second.at_ns - first.at_ns) as f64;
        sample.delayed = waited.max().map(|waited| waited as f64 / window);
        sample.backend = backend(&self.server.claimed, &self.server.seen());
        Ok((sample, rest.latency))
    }
}

fn sample(first: &Report, second: &Report, count: Count) -> Sample {
    let bytes = (second.bytes - first.bytes) as f64;
    let messages = bytes / count.bytes_a_message as f64;
    let seconds = (second.at_ns - first.at_ns) as f64 / 1e9;
    let cpu_us = (second.cpu_us() - first.cpu_us()) as f64;
    let mut sample = Sample::default();
    sample.values.extend([
        ("cpu_us", cpu_us / messages),
        ("rate", messages / seconds),
        ("bytes_s", bytes / seconds),
        ("cpu_s_gib", cpu_us / 1e6 / (bytes / f64::from(1 << 30))),
        (
            "switches",
            (second.voluntary - first.voluntary) as f64 / messages,
        ),
        ("busy", cpu_us / seconds / 1e4),
        ("peak_mib", second.peak_kib as f64 / 1024.0),
    ]);
    sample
}

fn agree(last: &Report, seen: &Seen) -> Result<(), String> {
    if last.bytes != seen.bytes {
        return Err(format!(
            "the server counted {} bytes, the load {}",
            last.bytes, seen.bytes
        ));
    }
    if last.accepted != seen.connections {
        return Err(format!(
            "the server admitted {} connections of {}",
            last.accepted, seen.connections
        ));
    }
    Ok(())
}

/// The claimed backend, and what the system saw if that is something else.
fn backend(claimed: &str, seen: &str) -> String {
    if seen.is_empty() || claimed.contains(seen) {
        claimed.to_owned()
    } else {
        format!("{seen}, which it calls {claimed}")
    }
}

/// How many windows a server may stall for: some stand still for more than a second.
const STALLS: u32 = 100;
/// How long a server may take for what is under way.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two checks of a server that may still be receiving.
const DRAIN: Duration = Duration::from_millis(1);
/// How long it takes to serve a connection for the first time, generously.
const SETTLE_EACH: Duration = Duration::from_micros(20);
/// The share of a window that either side may have waited for its core. Being asked for a report
/// makes a server wait, too, for a thousandth or two.
const DISTURBED: f64 = 0.05;
