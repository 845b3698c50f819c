//! What a runtime costs without any I/O, in nanoseconds.

use std::time::Duration;

use kit::fields;

use super::{Cell, Entrant, Metric, Sample, Stage, Workload, less};
use crate::contestant::Contestant;
use crate::machine::Cores;
use crate::server::run_job;

pub(crate) struct Micro;

impl Workload for Micro {
    fn name(&self) -> &'static str {
        "micro"
    }

    fn about(&self) -> &'static str {
        "tasks, yields, timeouts, cancels and timers, without I/O"
    }

    fn cells(&self, quick: bool) -> Vec<Cell> {
        let cell = |label: &str, options: &[&str]| Cell {
            label: label.to_owned(),
            connections: 0,
            size: 0,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        let mut cells = vec![
            cell("spawn + join, one", &["case=spawn", "tasks=1"]),
            cell("spawn + join, 100", &["case=spawn", "tasks=100"]),
            cell("yield, alone", &["case=yield", "tasks=1"]),
            cell("yield, 100 tasks", &["case=yield", "tasks=100"]),
            cell("channel, buffer 64", &["case=channel"]),
            cell("timeout, ready", &["case=timeout"]),
            cell("spawn + cancel + join, one", &["case=cancel", "tasks=1"]),
            cell("spawn + cancel + join, 100", &["case=cancel", "tasks=100"]),
            cell("timeout, 1 timer", &["case=timers", "tasks=1"]),
            cell("timeout, 10 k timers", &["case=timers", "tasks=10000"]),
        ];
        if !quick {
            cells.push(cell(
                "timeout, 1 M timers",
                &["case=timers", "tasks=1000000"],
            ));
        }
        for depth in [0, 1, 2, 4, 8, 16] {
            let label = format!("wake, {depth} nurseries deep");
            cells.push(cell(&label, &["case=nested", &format!("depth={depth}")]));
        }
        cells
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![
            less("ns", "time an operation", "ns").plotted(),
            less("least_ns", "least of the batches", "ns"),
        ]
    }

    /// Fewer than usual: a window takes longer, by the start of a process.
    fn laps(&self, stage: &Stage) -> usize {
        stage.laps.div_ceil(2)
    }

    fn expected(&self, _cell: &Cell, stage: &Stage) -> Duration {
        Duration::from_millis(BATCHES as u64 * 3) * self.laps(stage) as u32
    }

    fn enter(
        &self,
        cell: &Cell,
        contestant: &Contestant,
        stage: &Stage,
    ) -> Result<Box<dyn Entrant>, String> {
        let mut job = vec!["micro".to_owned()];
        job.extend(cell.options.iter().cloned());
        job.push(format!("batches={BATCHES}"));
        Ok(Job::enter(contestant, job, stage, self.metrics()))
    }
}

/// A job that reports its own outcome, and is a new process in each window.
pub(crate) struct Job {
    contestant: Contestant,
    job: Vec<String>,
    cores: Cores,
    metrics: Vec<Metric>,
}

impl Job {
    pub(crate) fn enter(
        contestant: &Contestant,
        job: Vec<String>,
        stage: &Stage,
        metrics: Vec<Metric>,
    ) -> Box<dyn Entrant> {
        Box::new(Self {
            contestant: *contestant,
            job,
            cores: stage.cores,
            metrics,
        })
    }
}

impl Entrant for Job {
    fn window(&mut self) -> Result<Sample, String> {
        let line = run_job(&self.contestant, &self.job, self.cores)?;
        let Some(outcome) = line.strip_prefix("outcome ") else {
            return Err(line);
        };
        let outcome = fields(outcome);
        let mut sample = Sample {
            backend: crate::server::spaced(outcome.get("backend").unwrap_or(&"")),
            ..Sample::default()
        };
        for metric in &self.metrics {
            let value = outcome.get(metric.key).and_then(|value| value.parse().ok());
            sample
                .values
                .extend(value.map(|value: f64| (metric.key, value)));
        }
        Ok(sample)
    }
}

/// They take two milliseconds each: many short batches.
const BATCHES: usize = 15;
