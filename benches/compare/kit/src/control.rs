//! The connection between a server and the harness: the server announces its port, then answers
//! questions.

use std::io::BufRead;

use crate::Report;

/// Tells the harness that connections to `port` are accepted, and by which backend. From then on it
/// answers the harness's questions, on a thread that otherwise sleeps. The process ends when the
/// harness says so, or is gone.
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
