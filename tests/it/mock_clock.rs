//! The clock that a test moves (B).

use std::cell::{Cell, RefCell};
use std::panic::catch_unwind;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use trio::instrument::Instrument;
use trio::testing::{Clock, MockClock, active_thread_count, wait_all_tasks_blocked};
use trio::{
    Backend, Builder, Error, Result, Time, current_time, open_nursery, sleep, sleep_forever,
    to_thread,
};

use crate::support::secs;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How long `work` takes on the system's clock.
fn took<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let real = MockClock::new();
    real.set_rate(1.0);
    let start = real.now();
    let value = work();
    (value, real.now() - start)
}

/// A custom clock: it moves when all tasks wait, and counts how often.
#[derive(Clone)]
struct Skipping(Rc<Cell<(Time, u32)>>);

impl Clock for Skipping {
    fn now(&self) -> Time {
        self.0.get().0
    }

    fn wait_until(&self, _deadline: Time) -> Duration {
        Duration::MAX
    }

    fn autojump_threshold(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn autojump(&self, deadline: Time) {
        self.0.set((deadline, self.0.get().1 + 1));
    }
}

#[test]
fn b6_a_clock_of_ones_own_can_jump_too() {
    let clock = Skipping(Rc::new(Cell::new((MockClock::new().now(), 0))));
    let start = clock.now();
    let took = Builder::new().clock(clock.clone()).run(async {
        open_nursery(async |nursery| {
            nursery.start_soon(sleep(secs(3600)));
            sleep(secs(60)).await?;
            wait_all_tasks_blocked(Duration::ZERO).await?;
            assert_eq!(
                current_time() - start,
                secs(60),
                "not before who waits for all"
            );
            Ok(())
        })
        .await?;
        Ok::<_, Error>(current_time() - start)
    });
    assert_eq!(took.unwrap(), secs(3600));
    assert_eq!(clock.0.get().1, 2, "one jump to each deadline");
}

#[test]
fn b1_the_clock_stands_still_and_jumps_exactly() {
    let clock = MockClock::new();
    let start = clock.now();
    assert!(start > Time::PAST && start < Time::NEVER);
    assert_eq!(clock.rate(), 0.0);
    // Sums are exact, however they are composed.
    for part in [250, 250, 200] {
        clock.jump(millis(part));
    }
    assert_eq!(clock.now() - start, millis(700));
    assert_eq!(clock.wait_until(start), Duration::ZERO);
    assert_eq!(clock.wait_until(clock.now()), Duration::ZERO);
    assert_eq!(clock.wait_until(clock.now() + secs(1)), Duration::MAX);
    assert_eq!(clock.wait_until(Time::NEVER), Duration::MAX);
    assert_eq!(clock.wait_until(Time::PAST), Duration::ZERO);
    assert!(format!("{clock:?}").contains("rate: 0.0"));
}

#[test]
fn b1_a_rate_decides_how_long_a_deadline_is_waited_for() {
    let clock = MockClock::new();
    for (rate, real) in [(1.0, 1000), (2.0, 500), (0.5, 2000)] {
        clock.set_rate(rate);
        let wait = clock.wait_until(clock.now() + secs(1));
        // The clock goes on between the two calls, so it may be a little less, and never more than
        // by the rounding.
        assert!(wait <= millis(real) + millis(1), "{rate}: {wait:?}");
        assert!(wait > millis(real) / 2, "{rate}: {wait:?}");
    }
}

#[test]
fn b1_changing_the_rate_loses_no_time_and_skips_none() {
    let clock = MockClock::new();
    clock.set_rate(1e6);
    let first = clock.now();
    while clock.now() - first < secs(10) {}
    clock.set_rate(0.0);
    let stopped = clock.now();
    assert!(stopped - first >= secs(10));
    clock.set_rate(1e-6);
    let slow = clock.now();
    assert!(slow >= stopped && slow - stopped < secs(1), "no skip");
    clock.set_rate(0.0);
    clock.jump(secs(100));
    assert!(clock.now() - stopped >= secs(100));
    assert!(clock.now() - stopped < secs(101));
}

#[test]
fn b1_sleeping_goes_by_the_rate() {
    let clock = MockClock::new();
    clock.set_rate(10_000.0);
    let (result, real) = took(|| Builder::new().clock(clock).run(sleep(secs(100))));
    assert!(result.is_ok());
    assert!(
        real >= millis(10),
        "a hundred seconds at that rate: {real:?}"
    );
}

#[test]
fn b2_a_rate_that_cannot_be_is_refused() {
    for rate in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let refused = catch_unwind(|| MockClock::new().set_rate(rate));
        let panic = refused.expect_err("it makes no sense");
        let text = panic.downcast_ref::<String>().expect("a text");
        assert!(
            text.starts_with("the rate of a clock is a finite number"),
            "{text}"
        );
    }
}

#[test]
fn b2_a_jump_takes_effect_in_the_next_turn() {
    let clock = MockClock::new();
    let result = Builder::new().clock(clock.clone()).run(async {
        let woken = Cell::new(false);
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                sleep(secs(10)).await?;
                woken.set(true);
                Ok(())
            });
            wait_all_tasks_blocked(secs(0)).await?;
            clock.jump(secs(9));
            wait_all_tasks_blocked(secs(0)).await?;
            assert!(!woken.get());
            clock.jump(secs(1));
            assert!(!woken.get(), "not by the call itself");
            wait_all_tasks_blocked(secs(0)).await?;
            assert!(woken.get());
            Ok(())
        })
        .await
    });
    assert!(result.is_ok(), "{result:?}");
}

#[test]
fn b3_hours_pass_in_no_time_when_everybody_waits() {
    let run = || {
        Builder::new().clock(MockClock::autojump()).run(async {
            let start = current_time();
            for _ in 0..30 {
                sleep(secs(15 * 3600)).await?;
            }
            Ok::<_, Error>(current_time() - start)
        })
    };
    let (result, real) = took(run);
    assert_eq!(result.ok(), Some(secs(450 * 3600)), "exactly");
    assert!(real < secs(60), "{real:?}");
}

#[test]
fn b3_a_threshold_is_waited_for_and_may_be_changed_at_any_time() {
    let clock = MockClock::new();
    clock.set_autojump_threshold(Some(millis(5)));
    let inside = clock.clone();
    let (result, real) = took(|| {
        Builder::new().clock(clock).run(async {
            sleep(secs(1000)).await?;
            sleep(secs(1000)).await?;
            // So long that the test would never end if it were not lowered again.
            inside.set_autojump_threshold(Some(secs(100_000)));
            open_nursery(async |nursery| {
                nursery.start_soon(sleep(secs(1000)));
                wait_all_tasks_blocked(secs(0)).await?;
                inside.set_autojump_threshold(Some(Duration::ZERO));
                Ok(())
            })
            .await
        })
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(real >= millis(10), "twice the threshold: {real:?}");
}

#[test]
fn b3_waiting_for_all_to_be_blocked_goes_before_a_jump() {
    for cushion in [Duration::ZERO, millis(1), millis(10)] {
        let result = Builder::new().clock(MockClock::autojump()).run(async {
            let start = current_time();
            let order = RefCell::new(Vec::new());
            open_nursery(async |nursery| {
                nursery.start_soon(async {
                    sleep(secs(3600)).await?;
                    order.borrow_mut().push("jumped");
                    Ok(())
                });
                wait_all_tasks_blocked(cushion).await?;
                order.borrow_mut().push("blocked");
                assert_eq!(current_time(), start);
                Ok(())
            })
            .await?;
            assert_eq!(order.take(), ["blocked", "jumped"]);
            Ok::<(), Error>(())
        });
        assert!(result.is_ok(), "{result:?}");
    }
}

#[test]
fn b3_a_clock_that_is_not_the_runs_changes_nothing() {
    let clock = MockClock::new();
    let result = Builder::new().clock(clock.clone()).run(async {
        let start = current_time();
        let other = MockClock::autojump();
        other.set_rate(7.0);
        other.jump(secs(1000));
        open_nursery(async |nursery| {
            nursery.start_soon(sleep(secs(1)));
            for _ in 0..3 {
                wait_all_tasks_blocked(Duration::ZERO).await?;
            }
            assert_eq!(current_time(), start);
            assert_eq!(nursery.child_count(), 1, "it sleeps");
            clock.jump(secs(1));
            Ok(())
        })
        .await
    });
    assert!(result.is_ok(), "{result:?}");
}

/// Tells another thread how long the loop intends to wait.
struct Waits(mpsc::Sender<Duration>);

impl Instrument for Waits {
    fn before_io_wait(&mut self, timeout: Duration) {
        // The thread may have heard enough.
        let _heard = self.0.send(timeout).is_ok();
    }
}

#[test]
fn b4_with_nothing_to_jump_to_the_loop_waits_for_the_outside_world() {
    let (tell, hear) = mpsc::channel::<Duration>();
    let (wake, woken) = futures::channel::oneshot::channel();
    let looks = std::thread::scope(|threads| {
        threads.spawn(move || {
            // As long as it asks again at once, it has not noticed.
            let looks = hear.iter().take_while(Duration::is_zero);
            let looks = looks.take(1000).count();
            wake.send(looks).expect("the run waits for it");
        });
        Builder::new()
            .clock(MockClock::autojump())
            .instrument(Waits(tell))
            .run(async { woken.await.expect("the thread sends") })
    });
    assert!(looks < 1000, "the loop has been spinning");
}

#[test]
fn b4_a_thread_is_waited_for_by_a_threshold_and_not_by_the_clock() {
    for backend in [Backend::IoUring, Backend::Polling] {
        let clock = MockClock::autojump();
        let builder = Builder::new().backend(backend).clock(clock.clone());
        let result = builder.run(async {
            let start = current_time();
            let (go, wait) = mpsc::channel::<()>();
            open_nursery(async |nursery| {
                nursery.start_soon(async {
                    to_thread::run_sync(move || wait.recv().is_ok()).await?;
                    Ok(())
                });
                sleep(secs(3600)).await?;
                assert_eq!(active_thread_count(), 1, "the clock has not waited for it");
                assert!(go.send(()).is_ok());
                Ok(())
            })
            .await?;
            assert_eq!(current_time() - start, secs(3600));
            // Longer than any function takes here.
            clock.set_autojump_threshold(Some(secs(3600)));
            open_nursery(async |nursery| {
                nursery.start_soon(sleep(secs(60)));
                to_thread::run_sync(|| ()).await?;
                assert_eq!(current_time() - start, secs(3600), "its end came first");
                nursery.cancel_scope().cancel("seen");
                Ok(())
            })
            .await
        });
        assert!(result.is_ok(), "{backend}: {result:?}");
    }
}

#[trio::test(backend = "all", clock = "autojump")]
async fn b5_sums_of_durations_are_exact() -> Result<()> {
    let start = current_time();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            for part in [250, 250, 200] {
                sleep(millis(part)).await?;
            }
            assert_eq!(current_time() - start, millis(700));
            Ok(())
        });
        sleep(millis(700)).await?;
        assert_eq!(current_time() - start, millis(700));
        Ok(())
    })
    .await
}

#[test]
fn b5_a_clock_serves_one_run_after_the_other() {
    let clock = MockClock::autojump();
    let start = clock.now();
    for round in 1..=3 {
        let result = Builder::new()
            .clock(clock.clone())
            .run(async { trio::move_on_after(secs(10), sleep_forever()).await });
        assert!(matches!(result, Ok(None)), "{result:?}");
        assert_eq!(clock.now() - start, secs(10 * round));
    }
}
