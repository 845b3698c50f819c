//! The line between a server and the harness: who listens where goes out, questions come in.

use std::io::BufRead;

use crate::Report;

/// Tells the harness that connections to `port` are accepted, by which backend, and
/// answers its questions from then on, on a thread that otherwise sleeps. The process ends when the
/// harness says so, or has gone.
pub(crate) fn announce(port: u16, backend: &str) {
    // The first report starts the clock.
    Report::take();
    println!("ready port={port} backend={}", backend.replace(' ', "_"));
    std::thread::spawn(|| {
        for line in std::io::stdin().lock().lines() {
            match line.as_deref() {
                Ok("mark") => println!("{}", Report::take()),
                _ => break,
            }
        }
        println!("{}", Report::take());
        std::process::exit(0);
    });
}
