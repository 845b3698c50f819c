//! Two workers against one. A message costs some computation, as a request does, so that the load,
//! which has to share the cores if there are only two, is a small part of the whole. On two cores this can
//! only show that the second worker costs the first nothing; more takes a machine with more.

use super::served::{Count, Served};
use super::{CPU, Cell, Entrant, Metric, P50, P99, RATE, Stage, Workload};
use crate::contestant::Contestant;
use crate::load::closed_loop;
use crate::server::Place;

pub(crate) struct Scale;

impl Workload for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn about(&self) -> &'static str {
        "1 and 2 workers, 64 connections, 100 µs of computing a message"
    }

    fn cells(&self, _quick: bool) -> Vec<Cell> {
        let cells = [(1, "1 worker"), (2, "2 workers")].map(|(workers, label)| Cell {
            label: label.to_owned(),
            connections: 64,
            size: 64,
            options: vec![format!("workers={workers}"), "compute=100000".to_owned()],
        });
        cells.into()
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![RATE.plotted(), CPU, P50, P99]
    }

    fn is_served(&self) -> bool {
        true
    }

    fn enter(
        &self,
        cell: &Cell,
        contestant: &Contestant,
        stage: &Stage,
    ) -> Result<Box<dyn Entrant>, String> {
        let mut job = vec!["echo".to_owned(), format!("size={}", cell.size)];
        job.extend(cell.options.iter().cloned());
        let count = Count {
            connections: cell.connections,
            bytes_a_message: cell.size,
            replies: true,
        };
        let (connections, size) = (cell.connections, cell.size);
        Served::start(
            contestant,
            &job,
            Place::BothCores,
            stage,
            count,
            move |port, phase| closed_loop(port, connections, size, phase),
        )
    }
}
