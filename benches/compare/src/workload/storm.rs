//! A cancel storm: receives in flight, each on a socket of its own, cancelled at once; the time
//! from the cancel to the end of the last. The more of them the better, as far as the limit on open
//! files allows, since each needs two.

use std::time::Duration;

use super::micro::Job;
use super::{Cell, Entrant, Metric, Stage, Workload, less};
use crate::contestant::Contestant;

pub(crate) struct Storm;

impl Workload for Storm {
    fn name(&self) -> &'static str {
        "storm"
    }

    fn about(&self) -> &'static str {
        "receives in flight, cancelled at once: time to the last completion"
    }

    fn cells(&self, quick: bool) -> Vec<Cell> {
        let wanted = if quick { WANTED / 10 } else { WANTED };
        let count = wanted.min(allowed());
        let few = match count < wanted {
            true => format!(" (for {wanted}, raise `ulimit -Hn`)"),
            false => String::new(),
        };
        vec![Cell {
            label: format!("{count} receives{few}"),
            connections: count,
            size: 0,
            options: vec![format!("receives={count}")],
        }]
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![
            less("each_ns", "time a receive", "ns").plotted(),
            less("total_ms", "time to the last completion", "ms"),
        ]
    }

    fn expected(&self, _cell: &Cell, stage: &Stage) -> Duration {
        Duration::from_millis(if stage.quick { 250 } else { 1000 })
    }

    /// Once, because it takes long.
    fn laps(&self, _stage: &Stage) -> usize {
        1
    }

    fn enter(
        &self,
        cell: &Cell,
        contestant: &Contestant,
        stage: &Stage,
    ) -> Result<Box<dyn Entrant>, String> {
        let mut job = vec!["storm".to_owned()];
        job.extend(cell.options.iter().cloned());
        Ok(Job::enter(contestant, job, stage, self.metrics()))
    }
}

/// How many pairs of sockets a process may have: each program raises its limit to the hard one.
fn allowed() -> usize {
    use rustix::process::{Resource, getrlimit};
    let limit = getrlimit(Resource::Nofile).maximum;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    limit.map_or(WANTED, |limit| limit.saturating_sub(SPARE) / 2)
}

const WANTED: usize = 100_000;
/// Descriptors for everything else.
const SPARE: usize = 200;
