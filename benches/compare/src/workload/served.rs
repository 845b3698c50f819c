//! Measuring a server under a load: warm up, look, let it run, look again, and check at the end that
//! both sides have counted the same.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use kit::Report;

use super::{Sample, Stage};
use crate::contestant::Contestant;
use crate::load::{Phase, Seen};
use crate::machine::{Busy, Cores};
use crate::server::{Place, Server};

/// What a message is for the server's counters, which count bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    pub(crate) bytes_a_message: usize,
    /// Whether what the load counts comes back, so that both sides must agree to the byte.
    pub(crate) exact: bool,
}

/// Measures a server of `contestant` that was told `job`, under `load`.
pub(crate) fn measure(
    contestant: &Contestant,
    job: &[String],
    place: Place,
    stage: &Stage,
    count: Count,
    load: impl FnOnce(u16, &Phase) -> io::Result<Seen> + Send,
) -> Result<Sample, String> {
    let mut server = Server::start(contestant, job, stage.cores, place)?;
    let port = server.port;
    let phase = Phase::default();
    let (ended, end) = channel();
    let cores = stage.cores;
    std::thread::scope(|scope| {
        let phase = &phase;
        let loading = scope.spawn(move || {
            let result = Cores::pin(cores.load).and_then(|()| load(port, phase));
            // It fails if whoever waits has given up.
            ended.send(()).ok();
            result
        });
        let watched = watch(&mut server, phase, &end, stage);
        phase.end();
        let watched = match watched {
            Ok(watched) => watched,
            Err(reason) => {
                // The load may be waiting for a server that does not answer any more.
                drop(server);
                let result = loading.join().expect("the load does not panic");
                let cause = result.err().map(|error| format!(" ({error})"));
                return Err(reason + &cause.unwrap_or_default());
            }
        };
        let patient = end.recv_timeout(END_PATIENCE).is_ok();
        let seen_backend = server.seen();
        let claimed = server.claimed.clone();
        let last = if patient {
            server.stop()?
        } else {
            drop(server);
            Report::default()
        };
        let seen = loading
            .join()
            .expect("the load does not panic")
            .map_err(|error| error.to_string())?;
        if !patient {
            return Err("replies are missing".to_owned());
        }
        if count.exact {
            agree(&last, &seen)?;
        }
        if watched.first.bytes == watched.second.bytes {
            return Err("nothing arrived while measuring".to_owned());
        }
        let mut sample = watched.sample(count, &seen);
        sample.backend = backend(&claimed, &seen_backend);
        Ok(sample)
    })
}

/// The server at the begin and the end of the window.
struct Watched {
    first: Report,
    second: Report,
    /// Of all cores, and how long it was by the clock.
    busy_us: f64,
    window_us: f64,
}

fn watch(
    server: &mut Server,
    phase: &Phase,
    end: &Receiver<()>,
    stage: &Stage,
) -> Result<Watched, String> {
    let early = |_| Err("the load ended early".to_owned());
    end.recv_timeout(stage.warm_up).map_or(Ok(()), early)?;
    phase.measure(true);
    let (begin, busy) = (Instant::now(), Busy::now());
    let first = server.mark()?;
    end.recv_timeout(stage.window).map_or(Ok(()), early)?;
    let second = server.mark()?;
    let busy_us = Busy::now().since(busy) as f64;
    let window_us = begin.elapsed().as_micros() as f64;
    phase.measure(false);
    Ok(Watched {
        first,
        second,
        busy_us,
        window_us,
    })
}

impl Watched {
    fn sample(&self, count: Count, seen: &Seen) -> Sample {
        let (first, second) = (&self.first, &self.second);
        let bytes = (second.bytes - first.bytes) as f64;
        let messages = bytes / count.bytes_a_message as f64;
        let seconds = (second.at_ns - first.at_ns) as f64 / 1e9;
        let cpu_us = (second.cpu_us() - first.cpu_us()) as f64;
        let mut sample = Sample::default();
        let latency = |quantile| seen.latency.value_at_quantile(quantile) as f64 / 1000.0;
        sample.values.extend([
            ("cpu_us", cpu_us / messages),
            ("rate", messages / seconds),
            ("bytes_s", bytes / seconds),
            ("cpu_s_gib", cpu_us / 1e6 / (bytes / f64::from(1 << 30))),
            ("p50_us", latency(0.5)),
            ("p99_us", latency(0.99)),
            ("p999_us", latency(0.999)),
            (
                "switches",
                (second.voluntary - first.voluntary) as f64 / messages,
            ),
            ("busy", cpu_us / seconds / 1e4),
            ("peak_mib", second.peak_kib as f64 / 1024.0),
        ]);
        // The load is not the server's, and is ours: what neither used is somebody else's. The load
        // keeps its core busy at most.
        let others = self.busy_us - cpu_us - self.window_us;
        sample.foreign = Some((others / self.window_us).max(0.0));
        sample
    }
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

/// What it says, and what the system saw where that is something else.
fn backend(claimed: &str, seen: &str) -> String {
    if seen.is_empty() || claimed.contains(seen) {
        claimed.to_owned()
    } else {
        format!("{seen}, which it calls {claimed}")
    }
}

/// How long the last replies may take.
const END_PATIENCE: Duration = Duration::from_secs(10);
