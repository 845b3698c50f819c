//! The order of play: who is measured when.
//!
//! In a round each contestant is started once for a cell, and then all stay alive, asleep. Lap
//! after lap each is measured for a short while, in an order that is drawn anew. So whatever the
//! machine does meanwhile affects all alike, what a process happens to get for its life (memory,
//! addresses) differs from round to round, and figures that are compared were measured within a
//! second of each other.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::arguments::Arguments;
use crate::contestant::{self, Contestant, Role};
use crate::machine::{self, Cores};
use crate::profile::{self, Profile};
use crate::report;
use crate::statistics::{Summary, median, ratios};
use crate::workload::{self, Cell, Entrant, Metric, Sample, Stage, Workload};

/// Everything that was measured.
pub(crate) struct Results {
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) contestants: Vec<Contestant>,
    /// Those that do not take part, and why.
    pub(crate) absent: BTreeMap<&'static str, String>,
    pub(crate) tables: Vec<Table>,
    /// The backend that each contestant really used, as far as it could be seen.
    pub(crate) backends: BTreeMap<&'static str, String>,
    /// For each window, the share of the time in which another process had the core.
    pub(crate) delayed: Vec<f64>,
    /// Windows that were discarded for that reason.
    pub(crate) repeated: u32,
}

/// The results of one workload.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) cells: Vec<Column>,
}

/// The results of one cell.
pub(crate) struct Column {
    pub(crate) cell: Cell,
    /// Windows in each round.
    pub(crate) laps: usize,
    /// By contestant, one for each window; `None` for those that failed.
    pub(crate) samples: BTreeMap<&'static str, Vec<Option<Sample>>>,
    pub(crate) failures: BTreeMap<&'static str, String>,
    /// The profile of each server, if profiles were requested.
    pub(crate) profiles: BTreeMap<&'static str, Result<Profile, String>>,
}

impl Column {
    /// The values of `metric`, window by window.
    pub(crate) fn values(&self, contestant: &str, metric: &Metric) -> Vec<Option<f64>> {
        let samples = self.samples.get(contestant).into_iter().flatten();
        samples
            .map(|sample| sample.as_ref()?.values.get(metric.key).copied())
            .collect()
    }

    /// The median over the rounds, and its bounds.
    pub(crate) fn summary(&self, contestant: &str, metric: &Metric) -> Option<Summary> {
        Summary::of_rounds(&self.values(contestant, metric), self.laps)
    }

    /// The ratio to `base`, taken lap by lap.
    pub(crate) fn ratio(&self, contestant: &str, base: &str, metric: &Metric) -> Option<Summary> {
        let (values, base) = (self.values(contestant, metric), self.values(base, metric));
        Summary::of_rounds(&ratios(&values, &base), self.laps)
    }

    /// The contestant to which all are compared: the better limit; if there is none, the best peer;
    /// if there is none either, the first. It is the same in all rounds: the better one of each
    /// round would be the luckier one, and everybody would look a little worse beside it, the
    /// limits too.
    pub(crate) fn base<'a>(
        &self,
        contestants: impl Iterator<Item = &'a Contestant>,
        metric: &Metric,
    ) -> Option<&'static str> {
        let measured = contestants.filter_map(|contestant| {
            let values = self.values(contestant.name, metric).into_iter().flatten();
            Some((contestant, median(values)?))
        });
        let measured: Vec<(&Contestant, f64)> = measured.collect();
        let best_of = |role| {
            let of_role = measured.iter().filter(|(one, _)| one.role == role);
            of_role.reduce(|one, other| {
                if (other.1 < one.1) == metric.less_is_better {
                    other
                } else {
                    one
                }
            })
        };
        let best = best_of(Role::Limit).or_else(|| best_of(Role::Peer));
        let (base, _) = best.or(measured.first())?;
        Some(base.name)
    }
}

/// Builds, measures and reports what `arguments` ask for.
pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let contestants = arguments.contestants.clone();
    let absent = build(&contestants);
    if let Some(reason) = arguments.profile.then(profile::missing).flatten() {
        return Err(io::Error::other(format!("no profile: {reason}")));
    }
    let average = machine::load_average();
    let mut facts = machine::facts();
    facts.push(("Rounds", rounds(arguments)));
    let mut results = Results {
        facts,
        contestants,
        absent,
        tables: Vec::new(),
        backends: BTreeMap::new(),
        delayed: Vec::new(),
        repeated: 0,
    };
    let begin = Instant::now();
    play(arguments, &mut results)?;
    results
        .facts
        .push(("Duration", machine::minutes(begin.elapsed())));
    results.facts.push((
        "Load average",
        format!("{average} before, {} after", machine::load_average()),
    ));
    report::write(&results)
}

fn rounds(arguments: &Arguments) -> String {
    format!(
        "{} rounds of {} windows of {:?}, each after {:?} of settling down",
        arguments.rounds, arguments.laps, arguments.window, arguments.settle
    )
}

fn build(contestants: &[Contestant]) -> BTreeMap<&'static str, String> {
    let bar = ProgressBar::new_spinner().with_style(style("{spinner} {msg}"));
    bar.enable_steady_tick(Duration::from_millis(100));
    let absent = contestant::build(contestants, |server| {
        bar.set_message(format!("building the servers on {server}"));
    });
    bar.finish_and_clear();
    for (name, reason) in &absent {
        eprintln!("{name} is left out: {reason}");
    }
    absent
}

fn play(arguments: &Arguments, results: &mut Results) -> io::Result<()> {
    let cores = Cores::pick();
    Cores::pin(cores.load)?;
    let stage = Stage {
        cores,
        laps: arguments.laps,
        warm_up: arguments.warm_up,
        settle: arguments.settle,
        window: arguments.window,
        quick: arguments.quick,
    };
    let workloads = workload::all().into_iter();
    let workloads: Vec<_> = workloads
        .filter(|workload| arguments.wants(workload.name()))
        .map(|workload| {
            let mut cells = workload.cells(arguments.quick);
            cells.retain(|cell| arguments.wants_cell(&cell.label));
            (workload, cells)
        })
        // One of which no cell is wanted has no table.
        .filter(|(_, cells)| !cells.is_empty())
        .collect();
    let players: Vec<Contestant> = results
        .contestants
        .iter()
        .filter(|contestant| !results.absent.contains_key(contestant.name))
        .copied()
        .collect();
    if players.is_empty() {
        return Err(io::Error::other("nobody is left to take part"));
    }
    // The steps of the progress bar are milliseconds, as far as they can be known in advance.
    let expected = workloads.iter().flat_map(|(workload, cells)| {
        let expected = cells.iter().map(|cell| workload.expected(cell, &stage));
        expected.map(|time| time * (arguments.rounds * players.len()) as u32)
    });
    let bar = ProgressBar::new(expected.sum::<Duration>().as_millis() as u64);
    bar.set_style(style(
        "{bar:40} {percent} % after {elapsed_precise}, {eta_precise} left; {msg}",
    ));
    bar.enable_steady_tick(Duration::from_secs(1));
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
                laps: workload.laps(&stage),
                samples: BTreeMap::new(),
                failures: BTreeMap::new(),
                profiles: BTreeMap::new(),
            };
            for round in 0..arguments.rounds {
                let order = Order(round as u64);
                play_round(&*workload, &players, &stage, order, &mut column, &bar);
            }
            if arguments.profile && workload.is_served() {
                look_into(&*workload, &players, &stage, &mut column, &bar)?;
            }
            for (name, samples) in &column.samples {
                for sample in samples.iter().flatten() {
                    if !sample.backend.is_empty() {
                        results.backends.insert(*name, sample.backend.clone());
                    }
                    results.delayed.extend(sample.delayed);
                    results.repeated += sample.repeated;
                }
            }
            table.cells.push(column);
        }
        results.tables.push(table);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Starts all contestants, measures all of them in each lap, and ends them.
fn play_round(
    workload: &dyn Workload,
    players: &[Contestant],
    stage: &Stage,
    mut order: Order,
    column: &mut Column,
    bar: &ProgressBar,
) {
    let expected = workload.expected(&column.cell, stage).as_millis() as u64;
    let say = |player: &Contestant, cell: &Cell| {
        bar.set_message(format!(
            "{}: {}, {}",
            workload.name(),
            cell.label,
            player.name
        ));
    };
    let mut entrants: Vec<Option<Box<dyn Entrant>>> = Vec::new();
    for player in players {
        say(player, &column.cell);
        let mut entrant = None;
        if !column.failures.contains_key(player.name) {
            match workload.enter(&column.cell, player, stage) {
                Ok(entered) => entrant = Some(entered),
                Err(reason) => drop(column.failures.insert(player.name, reason)),
            }
        }
        entrants.push(entrant);
    }
    for _ in 0..column.laps {
        for turn in order.draw(players.len()) {
            let player = &players[turn];
            say(player, &column.cell);
            let sample = match entrants[turn].as_mut().map(|entrant| entrant.window()) {
                Some(Ok(sample)) => Some(sample),
                Some(Err(reason)) => {
                    column.failures.insert(player.name, reason);
                    entrants[turn] = None;
                    None
                }
                None => None,
            };
            column.samples.entry(player.name).or_default().push(sample);
            bar.inc(expected / column.laps as u64);
        }
    }
    for (player, entrant) in players.iter().zip(entrants) {
        let Some(entrant) = entrant else { continue };
        let samples = column.samples.entry(player.name).or_default();
        match entrant.leave() {
            Ok(values) => {
                if let Some(Some(last)) = samples.last_mut() {
                    last.values.extend(values);
                }
            }
            Err(reason) => {
                // If the counts were wrong, the whole round is discarded.
                let round = samples.len() - column.laps;
                samples[round..].fill(None);
                column.failures.insert(player.name, reason);
            }
        }
    }
}

/// Profiles all contestants that were measured, one after the other.
fn look_into(
    workload: &dyn Workload,
    players: &[Contestant],
    stage: &Stage,
    column: &mut Column,
    bar: &ProgressBar,
) -> io::Result<()> {
    let scratch = report::folder()?;
    for player in players {
        if column.failures.contains_key(player.name) {
            continue;
        }
        let label = &column.cell.label;
        bar.set_message(format!(
            "{}: {label}, profile of {}",
            workload.name(),
            player.name
        ));
        let profile = workload
            .enter(&column.cell, player, stage)
            .and_then(|mut entrant| {
                let profile = profile::profile(&mut *entrant, &scratch)?;
                entrant.leave()?;
                Ok(profile)
            });
        column.profiles.insert(player.name, profile);
    }
    Ok(())
}

/// Draws the orders of a round, which are the same in each run of this program.
struct Order(u64);

impl Order {
    /// The numbers below `count`, shuffled.
    fn draw(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            // Knuth's generator; its low bits are poor.
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
            self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
            order.swap(last, (self.0 >> 33) as usize % (last + 1));
        }
        order
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is well-formed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{CPU, RATE};

    #[test]
    fn the_base_is_the_better_limit_or_the_best_peer_or_whoever_comes_first() {
        let names = ["trio", "bare-epoll", "bare-uring", "tokio", "smol"];
        let contestants = contestant::named(&names.map(str::to_owned)).unwrap();
        let cell = Cell {
            label: String::new(),
            connections: 1,
            size: 1,
            options: Vec::new(),
        };
        let sample = |value: f64| {
            let values = BTreeMap::from([(CPU.key, value), (RATE.key, value)]);
            Some(Sample {
                values,
                ..Sample::default()
            })
        };
        let values = [1.0, 3.0, 2.0, 4.0, 5.0].map(|value| vec![sample(value)]);
        let column = Column {
            cell,
            laps: 1,
            samples: contestants.iter().map(|one| one.name).zip(values).collect(),
            failures: BTreeMap::new(),
            profiles: BTreeMap::new(),
        };
        let base = |from: &[usize], metric: &Metric| {
            let chosen = from.iter().map(|place| &contestants[*place]);
            column.base(chosen, metric)
        };
        assert_eq!(base(&[0, 1, 2, 3, 4], &CPU), Some("bare-uring"));
        assert_eq!(base(&[0, 1, 2, 3, 4], &RATE), Some("bare-epoll"));
        assert_eq!(base(&[0, 3, 4], &CPU), Some("tokio"));
        assert_eq!(base(&[0], &CPU), Some("trio"));
        assert_eq!(base(&[], &CPU), None);
        let ratio = column.ratio("smol", "bare-uring", &CPU).unwrap();
        assert_eq!(ratio.median, 2.5);
    }

    #[test]
    fn a_drawn_order_has_everybody_once_and_differs_from_the_next() {
        let mut order = Order(0);
        let first = order.draw(11);
        let second = order.draw(11);
        assert_ne!(first, second);
        for mut drawn in [first, second] {
            drawn.sort_unstable();
            assert_eq!(drawn, (0..11).collect::<Vec<_>>());
        }
    }
}
