//! What is measured. Each workload is a file here, which says what its cells are and how one
//! contestant is measured in one of them; a new one is added to `all`.

mod connect;
mod echo;
mod idle;
mod micro;
mod scale;
mod served;
mod sink;
mod storm;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::contestant::Contestant;
use crate::machine::Cores;

/// Something to measure in several cells.
pub(crate) trait Workload {
    /// The name on the command line and in file names.
    fn name(&self) -> &'static str;

    /// One line that describes it.
    fn about(&self) -> &'static str;

    /// The cells, in the order of the table.
    fn cells(&self, quick: bool) -> Vec<Cell>;

    /// The metrics of each cell; ratios are taken of the first.
    fn metrics(&self) -> Vec<Metric>;

    /// How often each contestant is measured in a round.
    fn laps(&self, stage: &Stage) -> usize {
        stage.laps
    }

    /// Whether the entrants are servers, which can be profiled while they work.
    fn is_served(&self) -> bool {
        false
    }

    /// About how long a contestant takes in a round.
    fn expected(&self, cell: &Cell, stage: &Stage) -> Duration {
        let ends = Duration::from_millis(5) + Duration::from_micros(40) * cell.connections as u32;
        let window = stage.settle + stage.window + ends;
        Duration::from_millis(50) + stage.warm_up + window * self.laps(stage) as u32
    }

    /// Enters `contestant` in a round of `cell`.
    fn enter(
        &self,
        cell: &Cell,
        contestant: &Contestant,
        stage: &Stage,
    ) -> Result<Box<dyn Entrant>, String>;
}

/// A contestant that takes part in a round. It sleeps while another is measured.
pub(crate) trait Entrant {
    /// Measures it, while all others sleep.
    fn window(&mut self) -> Result<Sample, String>;

    /// Checks at the end of the round that everything went well. Returns the values that can only
    /// be determined for the round as a whole.
    fn leave(self: Box<Self>) -> Result<Values, String> {
        Ok(Values::new())
    }

    /// The process to profile while it [runs](Self::run), if it has one.
    fn process(&self) -> Option<u32> {
        None
    }

    /// Lets it work for this long without measuring it; returns how many messages that was.
    fn run(&mut self, _time: Duration) -> Result<u64, String> {
        Err("it is not a server".to_owned())
    }
}

/// All workloads, in the order in which they run.
pub(crate) fn all() -> Vec<Box<dyn Workload>> {
    vec![
        Box::new(micro::Micro),
        Box::new(echo::Echo),
        Box::new(sink::Sink),
        Box::new(connect::Connect),
        Box::new(idle::Idle),
        Box::new(storm::Storm),
        Box::new(scale::Scale),
    ]
}

/// One column of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) label: String,
    pub(crate) connections: usize,
    /// The size of a message, in bytes.
    pub(crate) size: usize,
    /// Options for the programs, besides the job.
    pub(crate) options: Vec<String>,
}

/// One property of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) less_is_better: bool,
    /// Whether it is plotted.
    pub(crate) plotted: bool,
}

impl Metric {
    /// The same metric, with a plot.
    pub(crate) const fn plotted(self) -> Self {
        Self {
            plotted: true,
            ..self
        }
    }
}

/// Values, by the key of the metric.
pub(crate) type Values = BTreeMap<&'static str, f64>;

/// The outcome of one measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) values: Values,
    /// The backend that the program says it uses, and what the system saw.
    pub(crate) backend: String,
    /// The share of the window in which the server, or the load, was ready to run and did not get
    /// the processor; `None` where the kernel does not count this.
    pub(crate) delayed: Option<f64>,
    /// How many windows were discarded because that was too much.
    pub(crate) repeated: u32,
}

/// Where and how long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub(crate) cores: Cores,
    pub(crate) laps: usize,
    /// How long a server is loaded before the first window, and how long before each.
    pub(crate) warm_up: Duration,
    pub(crate) settle: Duration,
    pub(crate) window: Duration,
    pub(crate) quick: bool,
}

/// The processor time of a server for one message.
pub(crate) const CPU: Metric = less("cpu_us", "server CPU a message", "µs").plotted();
pub(crate) const RATE: Metric = more("rate", "throughput", "messages/s");
pub(crate) const P50: Metric = less("p50_us", "p50", "µs");
pub(crate) const P99: Metric = less("p99_us", "p99", "µs").plotted();
pub(crate) const P999: Metric = less("p999_us", "p99.9", "µs");
pub(crate) const SWITCHES: Metric = less("switches", "waits a message", "");
pub(crate) const BUSY: Metric = more("busy", "server busy", "%");
pub(crate) const PEAK: Metric = less("peak_mib", "peak memory", "MiB");

pub(crate) const fn less(key: &'static str, title: &'static str, unit: &'static str) -> Metric {
    Metric {
        key,
        title,
        unit,
        less_is_better: true,
        plotted: false,
    }
}

pub(crate) const fn more(key: &'static str, title: &'static str, unit: &'static str) -> Metric {
    Metric {
        less_is_better: false,
        ..less(key, title, unit)
    }
}
