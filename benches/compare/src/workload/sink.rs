//! One direction: how many bytes a second a server takes, and what a gibibyte costs it.

use super::served::{Count, Served};
use super::{BUSY, Cell, Entrant, Metric, PEAK, Stage, Workload, less, more};
use crate::contestant::Contestant;
use crate::load::one_way;
use crate::server::Place;

pub(crate) struct Sink;

impl Workload for Sink {
    fn name(&self) -> &'static str {
        "stream"
    }

    fn about(&self) -> &'static str {
        "one-way streams to the server, which receives and forgets"
    }

    fn cells(&self, _quick: bool) -> Vec<Cell> {
        let cells = [1, 8].map(|connections| Cell {
            label: format!("{connections} connections"),
            connections,
            size: 0,
            options: Vec::new(),
        });
        cells.into()
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![
            less("cpu_s_gib", "server CPU a GiB", "s").plotted(),
            more("bytes_s", "throughput", "bytes/s").plotted(),
            BUSY,
            PEAK,
        ]
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
        let job = vec!["sink".to_owned()];
        let count = Count {
            connections: cell.connections,
            bytes_a_message: 1,
            replies: false,
        };
        let connections = cell.connections;
        let load = move |port, phase: &_| one_way(port, connections, phase);
        Served::start(contestant, &job, Place::ServerCore, stage, count, load)
    }
}
