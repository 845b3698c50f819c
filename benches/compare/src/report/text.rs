//! Tables of text.

use crate::contestant::{self, Contestant};
use crate::statistics::{Summary, median};
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
        "\n## {}, {}\n\nMedians. In brackets the ratio to the better bare loop (where there is none, to the best \
         peer), taken lap by lap, and the interval that has it in 95 of 100 cases. {LEVEL}stands where \
         that has 1 in it: those two do not differ as far as this run can tell.\n\n",
        metric.title, metric.unit
    );
    text += &grid(&overview(results, table, metric), true);
    for column in &table.cells {
        text += &format!(
            "\n## {}\n\nMedians, and the intervals that have them in 95 of 100 cases.\n\n",
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

/// What a reader has to know before trusting a number.
pub(crate) fn conditions(results: &Results) -> Vec<(String, String)> {
    let facts = results.facts.iter();
    let mut conditions: Vec<(String, String)> = facts
        .map(|(name, fact)| ((*name).to_owned(), fact.clone()))
        .collect();
    if let Some(delayed) = median(results.delayed.iter().copied()) {
        let most = results.delayed.iter().copied().fold(0.0, f64::max);
        let share = format!(
            "server or load had to wait for the core in {:.1} % of a window (median), {:.0} % at \
             worst; {} windows of {} were thrown away and repeated for that",
            delayed * 100.0,
            most * 100.0,
            results.repeated,
            results.delayed.len() + results.repeated as usize,
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
    let built = match contestant.built_before() {
        Some(folder) => format!(", as it is in {}", folder.display()),
        None => String::new(),
    };
    format!("{version}, {}{built}", contestant.about)
}

/// A row for each contestant, a column for each cell.
fn overview(results: &Results, table: &Table, metric: &Metric) -> Vec<Vec<String>> {
    let mut head = vec![String::new()];
    head.extend(table.cells.iter().map(|column| column.cell.label.clone()));
    let mut rows = vec![head];
    for contestant in players(results) {
        let mut row = vec![contestant.name.to_owned()];
        for column in &table.cells {
            let interval = |ratio: &Summary| format!(", {:.2}–{:.2}", ratio.low, ratio.high);
            row.push(value(results, column, contestant, metric, interval));
        }
        if row[1..].iter().any(|cell| cell != MISSING) {
            rows.push(row);
        }
    }
    rows
}

/// All workloads, with the first metric of each: a row for each cell, a column for each contestant.
pub(crate) fn summary(results: &Results) -> String {
    let mut text = "# Summary\n\n| | |\n|---|---|\n".to_owned();
    for (name, fact) in conditions(results) {
        text += &format!("| {name} | {fact} |\n");
    }
    text += &format!(
        "\nMedians. In brackets the ratio to the better bare loop, or the best peer, and how far off \
         the true one may be in 95 of 100 cases; {LEVEL}where that may be 1.\n"
    );
    for table in &results.tables {
        let metric = &table.metrics[0];
        let measured = |contestant: &&Contestant| {
            let mut columns = table.cells.iter();
            columns.any(|column| column.summary(contestant.name, metric).is_some())
        };
        let contestants: Vec<&Contestant> = players(results).filter(measured).collect();
        let mut head = vec![String::new()];
        head.extend(
            contestants
                .iter()
                .map(|contestant| contestant.name.to_owned()),
        );
        let mut rows = vec![head];
        for column in &table.cells {
            let off = |ratio: &Summary| {
                let off = (ratio.high - ratio.median).max(ratio.median - ratio.low);
                format!(" ± {off:.2}")
            };
            let mut row = vec![column.cell.label.clone()];
            let values = contestants.iter();
            row.extend(values.map(|contestant| value(results, column, contestant, metric, off)));
            rows.push(row);
        }
        text += &format!("\n## {}: {}, {}\n\n", table.name, metric.title, metric.unit);
        text += &grid(&rows, true);
    }
    text
}

/// The median, and its ratio; `sure` says how sure the ratio is.
fn value(
    results: &Results,
    column: &Column,
    contestant: &Contestant,
    metric: &Metric,
    sure: impl Fn(&Summary) -> String,
) -> String {
    let Some(value) = column.summary(contestant.name, metric) else {
        return MISSING.to_owned();
    };
    let value = number(value.median);
    let base = column.base(players(results), metric);
    match base.and_then(|base| column.ratio(contestant.name, base, metric)) {
        None => value,
        Some(_) if base == Some(contestant.name) => format!("{value} (1.00)"),
        Some(ratio) if ratio.count == 1 => format!("{value} ({:.2})", ratio.median),
        Some(ratio) => {
            let level = if ratio.allows(1.0) { LEVEL } else { "" };
            format!("{value} ({level}{:.2}{})", ratio.median, sure(&ratio))
        }
    }
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
            let summary = column.summary(contestant.name, metric);
            row.push(
                summary.map_or(MISSING.to_owned(), |summary| match summary.count {
                    1 => number(summary.median),
                    _ => format!(
                        "{} ({}–{})",
                        number(summary.median),
                        number(summary.low),
                        number(summary.high)
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
            // A program that does not have a job has it in no cell, so one line is enough.
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

/// Formats with three significant digits.
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

pub(super) fn grid(rows: &[Vec<String>], markdown: bool) -> String {
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
/// Stands before a ratio that may well be one.
const LEVEL: &str = "≈ ";
