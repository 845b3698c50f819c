//! The results, for people: on the terminal, in Markdown, and as plots.

mod plot;
mod profile;
mod text;
mod windows;

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::contestant;
use crate::tournament::Results;

/// Prints the tables, and writes them into `results/`.
pub(crate) fn write(results: &Results) -> io::Result<()> {
    let folder = folder()?;
    print!("{}", text::terminal(results));
    let path = folder.join("summary.md");
    fs::write(&path, text::summary(results))?;
    println!("written: {}", path.display());
    for table in &results.tables {
        let path = folder.join(format!("{}.md", table.name));
        fs::write(&path, text::markdown(results, table))?;
        println!("written: {}", path.display());
        let path = folder.join(format!("{}-windows.csv", table.name));
        fs::write(&path, windows::csv(table))?;
        if let Some(text) = profile::markdown(results, table) {
            let path = folder.join(format!("{}-profile.md", table.name));
            fs::write(&path, text)?;
            println!("written: {}", path.display());
        }
        for metric in table.metrics.iter().filter(|metric| metric.plotted) {
            let path = folder.join(format!("{}-{}.svg", table.name, metric.key));
            fs::write(&path, plot::plot(results, table, metric))?;
        }
    }
    Ok(())
}

/// The folder `results/`, which is created if necessary.
pub(crate) fn folder() -> io::Result<PathBuf> {
    let folder = contestant::folder().join("results");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
