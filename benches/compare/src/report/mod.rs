//! What was measured, for people: on the terminal, in Markdown, and in pictures.

mod plot;
mod text;

use std::fs;
use std::io;

use crate::contestant;
use crate::tournament::Results;

/// Prints the tables, and writes them into `results/`.
pub(crate) fn write(results: &Results) -> io::Result<()> {
    let folder = contestant::folder().join("results");
    fs::create_dir_all(&folder)?;
    print!("{}", text::terminal(results));
    for table in &results.tables {
        let path = folder.join(format!("{}.md", table.name));
        fs::write(&path, text::markdown(results, table))?;
        println!("written: {}", path.display());
        for metric in table.metrics.iter().filter(|metric| metric.plotted) {
            let path = folder.join(format!("{}-{}.svg", table.name, metric.key));
            fs::write(&path, plot::plot(results, table, metric))?;
        }
    }
    Ok(())
}
