//! The order of play: who is measured when.
//!
//! In each round everybody is measured once in a cell, and each round begins with another, so that
//! whatever the machine does meanwhile meets all alike.

use std::collections::BTreeMap;
use std::io;

use indicatif::{ProgressBar, ProgressStyle};

use crate::arguments::Arguments;
use crate::contestant::{self, Contestant};
use crate::machine::{self, Cores};
use crate::report;
use crate::workload::{self, Cell, Metric, Sample, Stage};

/// Everything that was measured.
pub(crate) struct Results {
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) contestants: Vec<Contestant>,
    /// Who does not take part, and why.
    pub(crate) absent: BTreeMap<&'static str, String>,
    pub(crate) tables: Vec<Table>,
    /// What each contestant really used, as far as it was seen.
    pub(crate) backends: BTreeMap<&'static str, String>,
    /// The part of the cores that others used, one for each sample.
    pub(crate) foreign: Vec<f64>,
}

/// All of one workload.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) cells: Vec<Column>,
}

/// All of one cell.
pub(crate) struct Column {
    pub(crate) cell: Cell,
    /// By contestant, one for each round that worked.
    pub(crate) samples: BTreeMap<&'static str, Vec<Option<Sample>>>,
    pub(crate) failures: BTreeMap<&'static str, String>,
}

impl Column {
    /// The values of `metric`, round by round.
    pub(crate) fn values(&self, contestant: &str, metric: &Metric) -> Vec<Option<f64>> {
        let samples = self.samples.get(contestant).into_iter().flatten();
        samples
            .map(|sample| sample.as_ref()?.values.get(metric.key).copied())
            .collect()
    }
}

/// Builds, measures and reports what `arguments` ask for.
pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let contestants = contestant::all().into_iter();
    let contestants: Vec<Contestant> = contestants
        .filter(|contestant| {
            arguments
                .contestants
                .iter()
                .any(|name| name == contestant.name)
        })
        .collect();
    let absent = build(&contestants);
    let average = machine::load_average();
    let mut facts = machine::facts();
    facts.push(("Rounds", rounds(arguments)));
    let mut results = Results {
        facts,
        contestants,
        absent,
        tables: Vec::new(),
        backends: BTreeMap::new(),
        foreign: Vec::new(),
    };
    play(arguments, &mut results)?;
    results.facts.push((
        "Load average",
        format!("{average} before, {} after", machine::load_average()),
    ));
    report::write(&results)
}

fn rounds(arguments: &Arguments) -> String {
    format!(
        "{} rounds, interleaved, of {:?} after {:?} of warming up",
        arguments.rounds, arguments.window, arguments.warm_up
    )
}

fn build(contestants: &[Contestant]) -> BTreeMap<&'static str, String> {
    let bar = ProgressBar::new_spinner().with_style(style("{spinner} {msg}"));
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    let absent = contestant::build(contestants, |server| {
        bar.set_message(format!("building the servers on {server}"));
    });
    bar.finish_and_clear();
    for (name, reason) in &absent {
        eprintln!("left out: {name}, for it {reason}");
    }
    absent
}

fn play(arguments: &Arguments, results: &mut Results) -> io::Result<()> {
    let cores = Cores::pick();
    Cores::pin(cores.load)?;
    let stage = Stage {
        cores,
        warm_up: arguments.warm_up,
        window: arguments.window,
        quick: arguments.quick,
    };
    let workloads = workload::all().into_iter();
    let workloads: Vec<_> = workloads
        .filter(|workload| {
            arguments
                .workloads
                .iter()
                .any(|name| name == workload.name())
        })
        .map(|workload| {
            let cells = workload.cells(arguments.quick).into_iter();
            let wanted = |cell: &Cell| {
                let text = arguments.cell.as_deref();
                text.is_none_or(|text| cell.label.contains(text))
            };
            let cells: Vec<Cell> = cells.filter(wanted).collect();
            (workload, cells)
        })
        .collect();
    let players: Vec<Contestant> = results
        .contestants
        .iter()
        .filter(|contestant| !results.absent.contains_key(contestant.name))
        .copied()
        .collect();
    let cells: usize = workloads.iter().map(|(_, cells)| cells.len()).sum();
    let bar = ProgressBar::new((cells * arguments.rounds * players.len()) as u64);
    bar.set_style(style(
        "{bar:40} {pos}/{len} {elapsed_precise} of {duration_precise} {msg}",
    ));
    for (workload, cells) in workloads {
        let mut table = Table {
            name: workload.name(),
            about: workload.about(),
            metrics: workload.metrics(),
            cells: Vec::new(),
        };
        for cell in cells {
            let mut column = Column {
                cell,
                samples: BTreeMap::new(),
                failures: BTreeMap::new(),
            };
            for round in 0..arguments.rounds {
                for turn in 0..players.len() {
                    let player = &players[(turn + round) % players.len()];
                    let label = &column.cell.label;
                    bar.set_message(format!("{}: {label}, {}", workload.name(), player.name));
                    let failed = column.failures.contains_key(player.name);
                    let sample = if failed {
                        None
                    } else {
                        match workload.measure(&column.cell, player, &stage) {
                            Ok(sample) => Some(sample),
                            Err(reason) => {
                                column.failures.insert(player.name, reason);
                                None
                            }
                        }
                    };
                    if let Some(sample) = &sample {
                        if !sample.backend.is_empty() {
                            results.backends.insert(player.name, sample.backend.clone());
                        }
                        results.foreign.extend(sample.foreign);
                    }
                    column.samples.entry(player.name).or_default().push(sample);
                    bar.inc(1);
                }
            }
            table.cells.push(column);
        }
        results.tables.push(table);
    }
    bar.finish_and_clear();
    Ok(())
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is well-formed")
}
