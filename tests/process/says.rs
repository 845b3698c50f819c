//! What a run says on standard error by itself: each test is its own program, in a second process.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use trio::instrument::Watchdog;
use trio::{Builder, Event};

use crate::lines::Lines;

/// Starts this very test, called `name`, once more; `None` in that second process.
fn again(name: &str) -> Option<Child> {
    if std::env::var_os(SECOND).is_some() {
        return None;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(SECOND, "")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    Some(child.unwrap())
}

const SECOND: &str = "TRIO_TESTED_PROGRAM";

#[test]
fn dk1_a_run_that_nothing_wakes_says_so_once_and_waits() {
    let Some(mut child) = again("says::dk1_a_run_that_nothing_wakes_says_so_once_and_waits") else {
        return trio::run(async { Event::new().wait().await.unwrap() });
    };
    let mut errors = Lines::new(child.stderr.take().unwrap());
    let told =
        "trio: deadlock: every task of this run waits, and nothing is left that could wake one";
    assert_eq!(errors.next(), told);
    assert!(errors.next().starts_with("run ("));
    let main = errors.next();
    assert!(main.starts_with("  main (tests/process/says.rs:"), "{main}");
    assert!(main.ends_with(" waits in Event::wait"), "{main}");
    assert!(child.try_wait().unwrap().is_none(), "it waits on");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(errors.rest(), "");
}

#[test]
fn wd1_a_watchdog_barks_on_standard_error() {
    let Some(mut child) = again("says::wd1_a_watchdog_barks_on_standard_error") else {
        let watchdog = Watchdog::new().threshold(Duration::from_millis(50));
        let byte = Builder::new().watchdog(watchdog).run(async {
            // The mistake: this blocks the loop until the other process has read what comes of it.
            let mut byte = [0];
            let read = std::io::stdin().read_exact(&mut byte);
            trio::checkpoint().await?;
            read.map(|()| byte).map_err(trio::Error::from)
        });
        return assert_eq!(byte.unwrap(), *b"x");
    };
    let mut errors = Lines::new(child.stderr.take().unwrap());
    let told = errors.next();
    assert!(
        told.starts_with("trio: the loop has not gone on for "),
        "{told}"
    );
    assert!(
        told.contains("the task main (tests/process/says.rs:"),
        "{told}"
    );
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    let over = errors.next();
    assert!(over.starts_with("trio: the loop goes on after "), "{over}");
    assert!(child.wait().unwrap().success());
}
