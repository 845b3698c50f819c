//! What a run prints on standard error: each test is its own program, in a second process.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use trio::instrument::{Instrument, Task, Watchdog};
use trio::testing::MockClock;
use trio::{Builder, Event, HostCall, sleep_forever};

use crate::lines::Lines;

/// Starts this very test, called `name`, a second time; `None` in that second process.
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

/// What the test called `name` prints in a second process, which has to end well; `None` there,
/// when `program` has run.
fn said(name: &str, program: impl FnOnce()) -> Option<String> {
    let Some(child) = again(name) else {
        program();
        return None;
    };
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    Some(said)
}

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

/// A program with a mistake: it blocks its loop until the other process has read the consequence.
fn block_until_read() {
    let watchdog = Watchdog::new().threshold(Duration::from_millis(50));
    let byte = Builder::new().watchdog(watchdog).run(async {
        let mut byte = [0];
        let read = std::io::stdin().read_exact(&mut byte);
        trio::checkpoint().await?;
        read.map(|()| byte).map_err(trio::Error::from)
    });
    assert_eq!(byte.unwrap(), *b"x");
}

#[test]
fn wd1_a_watchdog_barks_on_standard_error() {
    let Some(mut child) = again("says::wd1_a_watchdog_barks_on_standard_error") else {
        return block_until_read();
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

/// Ends the process when the loop goes to sleep. Under a clock that jumps, a run has examined
/// itself by then, because it does so in a turn that does not wait.
struct ExitAsleep;

impl Instrument for ExitAsleep {
    fn before_io_wait(&mut self, timeout: Duration) {
        if !timeout.is_zero() {
            std::process::exit(0);
        }
    }
}

/// A program that ends when it sleeps.
fn until_asleep() -> Builder {
    let builder = Builder::new().clock(MockClock::autojump());
    builder.instrument(ExitAsleep)
}

#[test]
fn dk4_of_who_sleeps_for_ever_on_purpose_nothing_is_said() {
    let name = "says::dk4_of_who_sleeps_for_ever_on_purpose_nothing_is_said";
    let program = || until_asleep().run(sleep_forever()).unwrap();
    if let Some(said) = said(name, program) {
        assert_eq!(said, "");
    }
}

#[test]
fn dk4_of_who_waits_for_something_it_is_said_before_the_run_sleeps() {
    let name = "says::dk4_of_who_waits_for_something_it_is_said_before_the_run_sleeps";
    let program = || until_asleep().run(Event::new().wait()).unwrap();
    if let Some(said) = said(name, program) {
        assert!(said.starts_with("trio: deadlock: "), "{said}");
    }
}

#[test]
fn in3_an_instrument_that_panics_is_named() {
    struct Faulty;
    impl Instrument for Faulty {
        fn before_task_step(&mut self, _: &Task) {
            panic!("its own");
        }
    }
    let program = || Builder::new().instrument(Faulty).run(async {});
    if let Some(said) = said("says::in3_an_instrument_that_panics_is_named", program) {
        let told = "Faulty panicked and has been removed";
        let lines = said.lines().filter(|line| line.starts_with("trio: "));
        let lines: Vec<&str> = lines.collect();
        assert!(lines.len() == 1 && lines[0].ends_with(told), "{said}");
    }
}

#[test]
fn u6_a_guest_that_is_dropped_too_early_says_so() {
    let program = || {
        let host = drop::<HostCall>;
        let guest = Builder::new().start_guest_run(sleep_forever(), host, drop);
        drop(guest.unwrap());
    };
    if let Some(said) = said(
        "says::u6_a_guest_that_is_dropped_too_early_says_so",
        program,
    ) {
        let told = "trio: a guest run was dropped before it had finished";
        assert!(said.starts_with(told), "{said}");
    }
}

#[test]
fn wd4_a_callback_that_panics_is_told_of() {
    let program = || {
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let callback = move |_: &_| {
            assert!(tell.send(()).is_err(), "the callback's own");
        };
        let watchdog = Watchdog::new().threshold(Duration::from_millis(1));
        // Blocks until the watchdog has dropped its callback, and with it the sender.
        let program = async { told.iter().count() };
        let watched = Builder::new().watchdog(watchdog.on_blocked(callback));
        assert_eq!(watched.run(program), 1);
    };
    if let Some(said) = said("says::wd4_a_callback_that_panics_is_told_of", program) {
        let told =
            "trio: the callback of the watchdog has panicked: the run is not watched any more";
        assert!(said.lines().any(|line| line == told), "{said}");
    }
}

#[cfg(feature = "tracing")]
mod to_tracing {
    //! What is also reported to `tracing`, before it is printed on standard error.

    use std::fmt::{Debug, Write as _};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event as Told, Metadata, Subscriber};

    use super::*;

    /// Prints the events of all threads: level, target, and the first line of the message.
    struct Printing;

    struct Message(String);

    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            if field.name() == "message" {
                write!(self.0, "{value:?}").unwrap();
            }
        }
    }

    impl Subscriber for Printing {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Told<'_>) {
            let mut message = Message(String::new());
            event.record(&mut message);
            let (level, target) = (event.metadata().level(), event.metadata().target());
            let first = message.0.lines().next().unwrap_or_default();
            eprintln!("{level} {target} {first}");
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn dk1_tracing_is_warned_of_a_deadlock() {
        let name = "says::to_tracing::dk1_tracing_is_warned_of_a_deadlock";
        let program = || {
            tracing::subscriber::set_global_default(Printing).unwrap();
            until_asleep().run(Event::new().wait()).unwrap();
        };
        let Some(said) = said(name, program) else {
            return;
        };
        let mut lines = said.lines();
        let warning = lines.next().unwrap();
        let told = warning.strip_prefix("WARN trio::run ").unwrap();
        assert!(
            told.starts_with("deadlock: every task of this run waits"),
            "{said}"
        );
        assert_eq!(lines.next(), Some(format!("trio: {told}").as_str()));
        assert_eq!(said.matches("deadlock: ").count(), 2, "told once each way");
    }

    #[test]
    fn wd1_tracing_is_warned_of_a_loop_that_does_not_go_on() {
        let name = "says::to_tracing::wd1_tracing_is_warned_of_a_loop_that_does_not_go_on";
        let Some(mut child) = again(name) else {
            tracing::subscriber::set_global_default(Printing).unwrap();
            return block_until_read();
        };
        let mut errors = Lines::new(child.stderr.take().unwrap());
        for begins in ["the loop has not gone on for ", "the loop goes on after "] {
            let warning = errors.next();
            let told = warning.strip_prefix("WARN trio::run ").unwrap();
            assert!(told.starts_with(begins), "{told}");
            assert_eq!(errors.next(), format!("trio: {told}"));
            if child.stdin.is_some() {
                child.stdin.take().unwrap().write_all(b"x").unwrap();
            }
        }
        assert!(child.wait().unwrap().success());
    }
}
