//! Tables of text.

use crate::contestant::{self, Contestant, Role};
use crate::statistics::{Summary, ratios};
use crate::tournament::{Column, Results, Table};
use crate::workload::Metric;

/// Everything, as plain text: for each workload the first metric in all cells.
pub(crate) fn terminal(results: &Results) -> String {
    let mut text = String::new();
    for (name, fact) in conditions(results) {
        text += &format!("{name}: {fact}\n");
    }
    for table in &results.tables {
        let metric = &table.metrics[0];
        text += &format!("\n{}: {}, {}\n", table.name, metric.title, metric.unit);
        text += &grid(&overview(results, table, metric), false);
        text += &failures(table);
    }
    text + "\n"
}

/// One workload with all its metrics.
pub(crate) fn markdown(results: &Results, table: &Table) -> String {
    let mut text = format!("# {}: {}\n\n", table.name, table.about);
    text += "| | |\n|---|---|\n";
    for (name, fact) in conditions(results) {
        text += &format!("| {name} | {fact} |\n");
    }
    let metric = &table.metrics[0];
    text += &format!(
        "\n## {}, {}\n\nMedians; in brackets the ratio to the better bare loop of the same round \
         (where there is none, to the best peer), median and range.\n\n",
        metric.title, metric.unit
    );
    text += &grid(&overview(results, table, metric), true);
    for column in &table.cells {
        text += &format!(
            "\n## {}\n\nMedians, and the range over the rounds.\n\n",
            column.cell.label
        );
        text += &grid(&details(results, table, column), true);
    }
    let failed = failures(table);
    if !failed.is_empty() {
        text += "\n## Left out\n\n";
        text += &failed;
    }
    text
}

/// What a reader has to know before believing a number.
pub(crate) fn conditions(results: &Results) -> Vec<(String, String)> {
    let facts = results.facts.iter();
    let mut conditions: Vec<(String, String)> = facts
        .map(|(name, fact)| ((*name).to_owned(), fact.clone()))
        .collect();
    if let Some(foreign) = Summary::of(results.foreign.iter().copied()) {
        let share = format!(
            "other processes used {:.0} % of a core while measuring (median), {:.0} % at worst",
            foreign.median * 100.0,
            foreign.most * 100.0
        );
        conditions.push(("Disturbance".to_owned(), share));
    }
    for contestant in &results.contestants {
        let what = match (
            results.absent.get(contestant.name),
            results.backends.get(contestant.name),
        ) {
            (Some(reason), _) => format!("left out: {reason}"),
            (None, Some(backend)) => format!("{}; used {backend}", version(contestant)),
            (None, None) => version(contestant),
        };
        conditions.push((contestant.name.to_owned(), what));
    }
    conditions
}

fn version(contestant: &Contestant) -> String {
    let version = match contestant.version_of {
        "" => contestant::python_version().unwrap_or_default(),
        name => format!(
            "{name} {}",
            contestant::locked_version(name).unwrap_or_default()
        ),
    };
    format!("{version}, {}", contestant.about)
}

/// A row for each contestant, a column for each cell.
fn overview(results: &Results, table: &Table, metric: &Metric) -> Vec<Vec<String>> {
    let mut head = vec![String::new()];
    head.extend(table.cells.iter().map(|column| column.cell.label.clone()));
    let mut rows = vec![head];
    for contestant in players(results) {
        let mut row = vec![contestant.name.to_owned()];
        for column in &table.cells {
            row.push(overview_cell(results, column, contestant, metric));
        }
        if row[1..].iter().any(|cell| cell != MISSING) {
            rows.push(row);
        }
    }
    rows
}

fn overview_cell(
    results: &Results,
    column: &Column,
    contestant: &Contestant,
    metric: &Metric,
) -> String {
    let values = column.values(contestant.name, metric);
    let Some(value) = Summary::of(values.iter().copied().flatten()) else {
        return MISSING.to_owned();
    };
    let mut text = number(value.median);
    if let Some(ratio) = ratio(results, column, contestant, metric) {
        text += &format!(
            " ({:.2}, {:.2}–{:.2})",
            ratio.median, ratio.least, ratio.most
        );
    }
    text
}

/// The ratio of a contestant to the better limit, round by round; where no limit takes part, to the
/// best peer.
pub(crate) fn ratio(
    results: &Results,
    column: &Column,
    contestant: &Contestant,
    metric: &Metric,
) -> Option<Summary> {
    let of_role = |role: Role| -> Vec<Vec<Option<f64>>> {
        let contestants = results.contestants.iter();
        let of_role = contestants.filter(|contestant| contestant.role == role);
        let values = of_role.map(|contestant| column.values(contestant.name, metric));
        values
            .filter(|values| values.iter().any(Option::is_some))
            .collect()
    };
    let mut limits = of_role(Role::Limit);
    if limits.is_empty() {
        limits = of_role(Role::Peer);
    }
    let limits: Vec<&[Option<f64>]> = limits.iter().map(Vec::as_slice).collect();
    let values = column.values(contestant.name, metric);
    Summary::of(ratios(&values, &limits, metric.less_is_better))
}

/// A row for each contestant, a column for each metric.
fn details(results: &Results, table: &Table, column: &Column) -> Vec<Vec<String>> {
    let mut head = vec![String::new()];
    head.extend(table.metrics.iter().map(|metric| match metric.unit {
        "" => metric.title.to_owned(),
        unit => format!("{}, {unit}", metric.title),
    }));
    let mut rows = vec![head];
    for contestant in players(results) {
        let mut row = vec![contestant.name.to_owned()];
        for metric in &table.metrics {
            let values = column.values(contestant.name, metric);
            let summary = Summary::of(values.into_iter().flatten());
            row.push(
                summary.map_or(MISSING.to_owned(), |summary| match summary.count {
                    1 => number(summary.median),
                    _ => format!(
                        "{} ({}–{})",
                        number(summary.median),
                        number(summary.least),
                        number(summary.most)
                    ),
                }),
            );
        }
        if row[1..].iter().any(|cell| cell != MISSING) {
            rows.push(row);
        }
    }
    rows
}

fn failures(table: &Table) -> String {
    let mut lines = Vec::new();
    for column in &table.cells {
        for (name, reason) in &column.failures {
            // What a program has no job for it has it for in no cell, and once is enough.
            let line = match reason.strip_prefix("refused ") {
                Some(reason) => format!("- {name} does not take part: {reason}\n"),
                None => format!("- {}, {name}: {reason}\n", column.cell.label),
            };
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines.concat()
}

pub(crate) fn players(results: &Results) -> impl Iterator<Item = &Contestant> {
    let absent = &results.absent;
    results
        .contestants
        .iter()
        .filter(|contestant| !absent.contains_key(contestant.name))
}

/// Three digits that mean something.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e4 => format!("{:.1} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.01 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn grid(rows: &[Vec<String>], markdown: bool) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        if markdown {
            text += &format!("| {} |\n", cells.join(" | "));
            if number == 0 {
                let rule: Vec<String> = widths
                    .iter()
                    .enumerate()
                    .map(|(column, width)| {
                        let rule = "-".repeat((*width).max(1));
                        if column == 0 {
                            format!("{rule}-")
                        } else {
                            format!("{rule}:")
                        }
                    })
                    .collect();
                text += &format!("|-{}|\n", rule.join("|-"));
            }
        } else {
            text += &format!("  {}\n", cells.join("  "));
        }
    }
    text
}

const MISSING: &str = "–";
