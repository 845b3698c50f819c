//! What a signal does to the process whose receivers are dropped: each test is its own program.

use std::os::unix::process::ExitStatusExt;

use signal_hook::low_level::raise;
use trio::io::signal::{Signal, SignalReceiver, open_signal_receiver};

use crate::descriptors::{again, alone, is_inside};

/// Ends a process that does nothing about it. It is sent to the thread, so it has come when `raise`
/// returns; one that is sent to the process may come to another thread, and later.
const ENDS: Signal = Signal::USER_1;

fn two_receivers() -> (SignalReceiver, SignalReceiver) {
    let open = || open_signal_receiver(&[ENDS]).unwrap();
    (open(), open())
}

#[test]
fn sg4_what_nobody_has_received_has_its_effect_when_the_last_receiver_is_dropped() {
    const NAME: &str =
        "signals::sg4_what_nobody_has_received_has_its_effect_when_the_last_receiver_is_dropped";
    if is_inside() {
        let (first, second) = two_receivers();
        raise(ENDS.as_raw()).unwrap();
        drop(first);
        println!("one receiver is left");
        drop(second);
        println!("none is left");
        return;
    }
    let output = again(NAME, "").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.signal(), Some(ENDS.as_raw()), "{said}");
    assert!(said.contains("one receiver is left"), "{said}");
    assert!(!said.contains("none is left"), "{said}");
}

#[test]
fn sg4_what_one_receiver_has_received_does_nothing_when_another_is_dropped() {
    alone(
        "signals::sg4_what_one_receiver_has_received_does_nothing_when_another_is_dropped",
        || {
            let (mut first, second) = two_receivers();
            raise(ENDS.as_raw()).unwrap();
            let received = trio::run(async { first.next().await });
            assert_eq!(received.unwrap(), ENDS);
            drop(first);
            drop(second);
        },
    );
}
