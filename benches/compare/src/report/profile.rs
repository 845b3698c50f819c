//! What a message consists of, as tables.

use crate::profile::PLACES;
use crate::report::text::{grid, number, players};
use crate::tournament::{Column, Results, Table};

/// The profiles of a workload in all its cells; `None` if there are none.
pub(crate) fn markdown(results: &Results, table: &Table) -> Option<String> {
    let cells: Vec<&Column> = table
        .cells
        .iter()
        .filter(|column| !column.profiles.is_empty())
        .collect();
    if cells.is_empty() {
        return None;
    }
    let mut text = format!("# {}: where the time goes\n\n", table.name);
    text += "System calls, turns of the loop (calls that wait for events or completions, or look for \
             them) and switches are counted, a message. Of the processor time of the server, as it is \
             in the table of the workload, the other columns are the share of samples in each place; \
             what a message takes in the program is that share of it.\n";
    for column in cells {
        text += &format!("\n## {}\n\n", column.cell.label);
        text += &grid(&rows(results, table, column), true);
        for (name, profile) in &column.profiles {
            if let Err(reason) = profile {
                text += &format!("\n{name}: {reason}\n");
            }
        }
    }
    Some(text)
}

fn rows(results: &Results, table: &Table, column: &Column) -> Vec<Vec<String>> {
    let mut head: Vec<String> = [
        "",
        "system calls",
        "messages a turn",
        "switches",
        "program, ns",
    ]
    .map(str::to_owned)
    .into();
    head.extend(PLACES.iter().map(|(place, _)| format!("{place}, %")));
    head.push("elsewhere, %".to_owned());
    head.push("samples".to_owned());
    let mut rows = vec![head];
    for contestant in players(results) {
        let Some(Ok(profile)) = column.profiles.get(contestant.name) else {
            continue;
        };
        let cpu_us = column.summary(contestant.name, &table.metrics[0]);
        let program = cpu_us.map(|cpu_us| cpu_us.median * 1000.0 * profile.shares[0]);
        let mut row = vec![
            contestant.name.to_owned(),
            format!("{:.2}", profile.calls),
            match profile.turns {
                0.0 => "–".to_owned(),
                turns => number(1.0 / turns),
            },
            format!("{:.3}", profile.switches),
            program.map_or("–".to_owned(), number),
        ];
        let shares = profile.shares.iter();
        row.extend(shares.map(|share| format!("{:.1}", share * 100.0)));
        row.push(profile.samples.to_string());
        rows.push(row);
    }
    rows
}
