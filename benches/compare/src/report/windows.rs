//! The values of each window, for readers who trust no median but their own.

use crate::tournament::Table;

/// All windows of a workload, as comma-separated values.
pub(crate) fn csv(table: &Table) -> String {
    let mut text = "cell,contestant,round,lap".to_owned();
    for metric in &table.metrics {
        text += &format!(",{}", metric.key);
    }
    text += "\n";
    for column in &table.cells {
        for (name, samples) in &column.samples {
            for (number, sample) in samples.iter().enumerate() {
                let Some(sample) = sample else { continue };
                let (round, lap) = (number / column.laps, number % column.laps);
                text += &format!("\"{}\",{name},{round},{lap}", column.cell.label);
                for metric in &table.metrics {
                    let value = sample.values.get(metric.key);
                    text += &value.map_or(",".to_owned(), |value| format!(",{value}"));
                }
                text += "\n";
            }
        }
    }
    text
}
