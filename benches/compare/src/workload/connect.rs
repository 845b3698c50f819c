//! Connections a second: each carries one message, there and back, and is closed by the server.

use super::served::{Count, Served};
use super::{BUSY, Cell, Entrant, Metric, P50, P99, P999, Stage, Workload, less, more};
use crate::contestant::Contestant;
use crate::load::one_message_each;
use crate::server::Place;

pub(crate) struct Connect;

impl Workload for Connect {
    fn name(&self) -> &'static str {
        "connect"
    }

    fn about(&self) -> &'static str {
        "connections a second, each for one message of 64 B"
    }

    fn cells(&self, _quick: bool) -> Vec<Cell> {
        let cells = [1, 64].map(|connections| Cell {
            label: format!("{connections} at once"),
            connections,
            size: 64,
            options: Vec::new(),
        });
        cells.into()
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![
            less("cpu_us", "server CPU a connection", "µs").plotted(),
            more("rate", "connections a second", "/s"),
            P50,
            P99,
            P999,
            BUSY,
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
        let job = vec!["once".to_owned(), format!("size={}", cell.size)];
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
            move |port, phase| one_message_each(port, connections, size, phase),
        )
    }
}
