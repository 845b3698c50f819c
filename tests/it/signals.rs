//! Signals as something to wait for (SG).

use std::io;

use rustix::process::{Signal as Raw, getpid, kill_process};
use trio::io::signal::{Signal, open_signal_receiver};
use trio::{Result, move_on_after};

use crate::support::secs;

#[trio::test]
async fn sg1_a_signal_is_received_and_does_nothing_else() -> Result<()> {
    let mut signals = open_signal_receiver(&[Signal::HANGUP, Signal::USER_2])?;
    kill_process(getpid(), Raw::HUP)?;
    assert_eq!(signals.next().await?, Signal::HANGUP);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn sg1_a_signal_that_is_named_twice_is_received_once() -> Result<()> {
    let winch = Signal::from_raw(Raw::WINCH.as_raw());
    let mut signals = open_signal_receiver(&[winch, winch])?;
    kill_process(getpid(), Raw::WINCH)?;
    assert_eq!(signals.next().await?, winch);
    assert_eq!(move_on_after(secs(1), signals.next()).await?, None);
    Ok(())
}

#[test]
fn sg2_what_cannot_be_received_is_an_error_that_names_it() {
    #[track_caller]
    fn check(signals: &[Signal], told: &str) {
        let error = open_signal_receiver(signals).expect_err("nobody can receive it");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with(told), "{error}");
    }
    check(&[], "name at least one signal");
    check(&[Signal::from_raw(9)], "SIGKILL cannot be received");
    check(
        &[Signal::USER_2, Signal::from_raw(11)],
        "SIGSEGV cannot be received",
    );
    check(&[Signal::from_raw(9999)], "signal 9999 cannot be received");
    check(&[Signal::from_raw(-1)], "signal -1 cannot be received");
}

#[trio::test]
async fn sg3_who_comes_again_and_again_does_not_keep_the_others_back() -> Result<()> {
    let (often, once) = (Raw::URG, Raw::CONT);
    let of = |raw: Raw| Signal::from_raw(raw.as_raw());
    let mut signals = open_signal_receiver(&[of(often), of(once)])?;
    // The signal may interrupt another thread. What the second receiver has got, the first has too.
    let mut witness = open_signal_receiver(&[of(often), of(once)])?;
    for raw in [often, once] {
        kill_process(getpid(), raw)?;
        assert_eq!(witness.next().await?, of(raw));
    }
    assert_eq!(signals.next().await?, of(often));
    kill_process(getpid(), often)?;
    assert_eq!(witness.next().await?, of(often));
    assert_eq!(signals.next().await?, of(once));
    assert_eq!(signals.next().await?, of(often));
    Ok(())
}
