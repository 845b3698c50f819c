//! Supervision (SU).

use std::cell::{Cell, RefCell};
use std::time::Duration;

use trio::{
    Backoff, CancelScope, Result, Supervisor, Verdict, current_time, move_on_after, open_nursery,
    sleep, sleep_forever,
};

use crate::support::{failure, oops, secs};

#[trio::test(clock = "autojump")]
async fn su1_a_failure_is_propagated_ignored_or_begins_anew() -> Result<()> {
    let told = RefCell::new(Vec::new());
    let note = |failure: &trio::Failure<'_>| told.borrow_mut().push(failure.to_string());
    let broken = async || oops("broken");

    let result = Supervisor::propagate().on_failure(note).run(broken).await;
    assert_eq!(failure(result), "broken");
    Supervisor::ignore().on_failure(note).run(broken).await?;
    let attempts = Cell::new(0);
    let third_time_lucky = async || {
        attempts.set(attempts.get() + 1);
        if attempts.get() < 3 {
            oops("not yet")
        } else {
            Ok(())
        }
    };
    let backoff = Backoff::new(secs(1), secs(10));
    let restart = Supervisor::restart(backoff).on_failure(note);
    restart.run(third_time_lucky).await?;
    let told = told.take();
    let endings: Vec<&str> = told
        .iter()
        .map(|told| told.split_once("(").unwrap().1)
        .collect();
    assert_eq!(
        endings,
        [
            "broken)",
            "broken); it is not begun anew",
            "not yet); it begins anew in 1s",
            "not yet); it begins anew in 2s",
        ]
    );
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn su2_delays_grow_up_to_a_bound_and_begin_again_after_a_healthy_while() -> Result<()> {
    let delays = RefCell::new(Vec::new());
    let lives = RefCell::new(vec![0, 0, 0, 0, 100, 0].into_iter());
    let worker = async || {
        let Some(life) = lives.borrow_mut().next() else {
            return Ok(());
        };
        sleep(secs(life)).await?;
        oops("died")
    };
    let note = |failure: &trio::Failure<'_>| {
        if let Verdict::Restart(delay) = failure.verdict {
            delays.borrow_mut().push(delay.as_secs());
        }
    };
    let policy = Supervisor::restart(Backoff::new(secs(1), secs(5)).factor(3)).on_failure(note);
    policy.run(worker).await?;
    assert_eq!(delays.take(), [1, 3, 5, 5, 1, 3]);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn su3_too_many_restarts_in_a_window_give_up() -> Result<()> {
    let start = current_time();
    let attempts = Cell::new(0);
    let policy = Supervisor::restart(Backoff::new(secs(1), secs(1)))
        .at_most(3, secs(60))
        .on_failure(|_| {});
    let result = policy
        .run(async || {
            attempts.set(attempts.get() + 1);
            oops("died")
        })
        .await;
    let error = result.unwrap_err();
    assert_eq!(
        error.to_string(),
        "given up after being begun anew 3 times (1 error): died"
    );
    assert_eq!((attempts.get(), current_time() - start), (4, secs(3)));

    // The same number of failures, but further apart.
    let attempts = Cell::new(0);
    policy
        .run(async || {
            attempts.set(attempts.get() + 1);
            sleep(secs(30)).await?;
            if attempts.get() < 20 {
                oops("died")
            } else {
                Ok(())
            }
        })
        .await
}

#[trio::test(clock = "autojump")]
async fn su4_each_child_is_judged_by_itself() -> Result<()> {
    let failures = Cell::new(0);
    let steady = Cell::new(0);
    let policy = Supervisor::restart(Backoff::new(secs(1), secs(1)))
        .at_most(2, secs(60))
        .on_failure(|_| failures.set(failures.get() + 1));
    let result = open_nursery(async |nursery| {
        nursery.start_soon(policy.run(async || {
            sleep(secs(1)).await?;
            oops("weak")
        }));
        nursery.start_soon(policy.run(async || {
            loop {
                sleep(secs(1)).await?;
                steady.set(steady.get() + 1);
            }
        }));
        nursery.start_soon(
            Supervisor::ignore()
                .on_failure(|_| {})
                .run_once(async { oops("alone") }),
        );
        Ok(())
    })
    .await;
    // Three lives of a second with two pauses between them; then its failure takes the nursery down.
    assert_eq!(failure(result), "[[weak]]");
    assert_eq!(failures.get(), 3);
    assert!((4..=5).contains(&steady.get()), "nothing has disturbed it");
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn su5_a_cancel_is_no_failure_and_nothing_begins_anew_after_it() -> Result<()> {
    let attempts = Cell::new(0);
    let policy = Supervisor::restart(Backoff::new(secs(9), secs(9))).on_failure(|_| {});
    let forever = policy.run(async || {
        attempts.set(attempts.get() + 1);
        sleep_forever().await
    });
    assert!(move_on_after(secs(1), forever).await?.is_none());
    assert_eq!(attempts.get(), 1);

    let pausing = policy.run(async || {
        attempts.set(attempts.get() + 1);
        oops("died")
    });
    assert!(move_on_after(secs(1), pausing).await?.is_none());
    assert_eq!(attempts.get(), 2);

    let scope = CancelScope::with_timeout(secs(1));
    let dying = policy.run(async || {
        attempts.set(attempts.get() + 1);
        drop(sleep_forever().await);
        oops("while cleaning up")
    });
    assert_eq!(failure(scope.enter(dying).await), "while cleaning up");
    assert_eq!(attempts.get(), 3);
    let once = policy
        .run_once(async { oops("cannot be made again") })
        .await;
    assert_eq!(failure(once), "cannot be made again");
    Ok(())
}

#[test]
fn su6_jitter_shortens_and_the_same_seed_gives_the_same() {
    let delays = |seed| -> Vec<Duration> {
        let backoff = Backoff::new(secs(1), secs(60)).jitter(0.5, seed);
        backoff.take(10).collect()
    };
    assert_eq!(delays(1), delays(1));
    assert_ne!(delays(1), delays(2));
    let plain = Backoff::new(secs(1), secs(60));
    for (jittered, whole) in delays(1).into_iter().zip(plain) {
        assert!(jittered <= whole && jittered * 2 >= whole);
    }
    assert_eq!(Backoff::new(secs(9), secs(3)).next(), Some(secs(3)));
    let endless = Backoff::new(secs(1), Duration::MAX).factor(u32::MAX);
    assert_eq!(endless.take(20).last(), Some(Duration::MAX));
}

#[test]
#[should_panic(expected = "from 0 to 1")]
fn su6_a_fraction_beyond_one_is_refused() {
    drop(Backoff::new(secs(1), secs(2)).jitter(1.5, 0));
}
