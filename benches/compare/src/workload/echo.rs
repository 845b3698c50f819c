//! TCP echo, in a closed loop: few connections and many, small messages and large.

use super::served::{Count, Served};
use super::{
    BUSY, CPU, Cell, Entrant, Metric, P50, P99, P999, PEAK, RATE, SWITCHES, Stage, Workload,
};
use crate::contestant::Contestant;
use crate::load::closed_loop;
use crate::server::Place;

pub(crate) struct Echo;

impl Workload for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn about(&self) -> &'static str {
        "TCP echo: 1 to 1000 connections, 64 B to 16 KiB"
    }

    fn cells(&self, _quick: bool) -> Vec<Cell> {
        let sizes = [(64, "64 B"), (1024, "1 KiB"), (16 * 1024, "16 KiB")];
        let cells = [1, 64, 256, 1000].into_iter().flat_map(|connections| {
            sizes.map(|(size, text)| Cell {
                label: format!("{connections} × {text}"),
                connections,
                size,
                options: Vec::new(),
            })
        });
        cells.collect()
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![CPU, RATE, P50, P99, P999, BUSY, SWITCHES, PEAK]
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
        let job = vec!["echo".to_owned(), format!("size={}", cell.size)];
        let count = Count {
            connections: cell.connections,
            bytes_a_message: cell.size,
            replies: true,
        };
        let (connections, size) = (cell.connections, cell.size);
        Served::start(
            contestant,
            &job,
            Place::ServerCore,
            stage,
            count,
            move |port, phase| closed_loop(port, connections, size, phase),
        )
    }
}
