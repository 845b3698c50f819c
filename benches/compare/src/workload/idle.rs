//! The memory of an idle connection: each sends one message, and then nothing more.

use std::time::Duration;

use super::{Cell, Entrant, Metric, Sample, Stage, Workload, less};
use crate::contestant::Contestant;
use crate::load::idle;
use crate::machine::Cores;
use crate::server::{Place, Server};

pub(crate) struct Idle;

impl Workload for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn about(&self) -> &'static str {
        "memory of the server for each connection that waits"
    }

    fn cells(&self, quick: bool) -> Vec<Cell> {
        let connections = if quick { 2000 } else { 10_000 };
        vec![Cell {
            label: format!("{connections} connections"),
            connections,
            size: 64,
            options: Vec::new(),
        }]
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![
            less("bytes", "anonymous memory a connection", "B").plotted(),
            less("peak", "peak memory a connection", "B"),
        ]
    }

    fn expected(&self, _cell: &Cell, stage: &Stage) -> Duration {
        Duration::from_millis(if stage.quick { 250 } else { 1000 })
    }

    /// Once: the result is the same from window to window, and takes long.
    fn laps(&self, _stage: &Stage) -> usize {
        1
    }

    fn enter(
        &self,
        cell: &Cell,
        contestant: &Contestant,
        stage: &Stage,
    ) -> Result<Box<dyn Entrant>, String> {
        Ok(Box::new(Waiting {
            cell: cell.clone(),
            contestant: *contestant,
            cores: stage.cores,
        }))
    }
}

struct Waiting {
    cell: Cell,
    contestant: Contestant,
    cores: Cores,
}

impl Entrant for Waiting {
    fn window(&mut self) -> Result<Sample, String> {
        let cell = &self.cell;
        let job = ["echo".to_owned(), format!("size={}", cell.size)];
        let mut server = Server::start(&self.contestant, &job, self.cores, Place::ServerCore)?;
        let explain = |error: std::io::Error| error.to_string();
        // What the first connection causes once is not part of the cost of a connection.
        let first = idle(server.port, 1, cell.size).map_err(explain)?;
        let before = server.mark()?;
        let clients = idle(server.port, cell.connections, cell.size).map_err(explain)?;
        let after = server.mark()?;
        let wanted = (cell.connections + first.len()) as u64;
        if after.accepted != wanted || after.ended != 0 {
            return Err(format!(
                "it admitted {} connections of {wanted}",
                after.accepted
            ));
        }
        let each = |kib: u64| kib as f64 * 1024.0 / cell.connections as f64;
        let mut sample = Sample {
            backend: server.seen(),
            ..Sample::default()
        };
        sample.values.extend([
            (
                "bytes",
                each(after.anonymous_kib.saturating_sub(before.anonymous_kib)),
            ),
            ("peak", each(after.peak_kib.saturating_sub(before.peak_kib))),
        ]);
        drop(clients);
        Ok(sample)
    }
}
