//! What a runtime costs without any I/O, in nanoseconds.

use kit::fields;

use super::{Cell, Metric, Sample, Stage, Workload, less};
use crate::contestant::Contestant;
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

    fn measure(
        &self,
        cell: &Cell,
        contestant: &Contestant,
        stage: &Stage,
    ) -> Result<Sample, String> {
        let mut job = vec!["micro".to_owned()];
        job.extend(cell.options.iter().cloned());
        let batches = if stage.quick { 21 } else { 51 };
        job.push(format!("batches={batches}"));
        outcome(contestant, &job, stage, &self.metrics())
    }
}

/// Runs a job that tells its own outcome.
pub(crate) fn outcome(
    contestant: &Contestant,
    job: &[String],
    stage: &Stage,
    metrics: &[Metric],
) -> Result<Sample, String> {
    let line = run_job(contestant, job, stage.cores)?;
    let Some(outcome) = line.strip_prefix("outcome ") else {
        return Err(line);
    };
    let outcome = fields(outcome);
    let mut sample = Sample {
        backend: crate::server::spaced(outcome.get("backend").unwrap_or(&"")),
        ..Sample::default()
    };
    for metric in metrics {
        let value = outcome.get(metric.key).and_then(|value| value.parse().ok());
        sample
            .values
            .extend(value.map(|value: f64| (metric.key, value)));
    }
    Ok(sample)
}
