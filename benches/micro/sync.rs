//! Waiting for each other: what a lock costs when nobody else wants it, and what it costs to hand on.

use std::cell::Cell;

use trio::sync::{CapacityLimiter, Condition, Event, Lock, RwLock, Semaphore};
use trio::{Result, checkpoint, open_nursery};

use crate::support::{Row, Sample, Scale, Stopwatch, run};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("lock, free", |scale| {
            let lock = Lock::new(0_u32);
            free(scale, async || {
                *lock.acquire().await? += 1;
                Ok(())
            })
        }),
        Row::new("semaphore, free", |scale| {
            let semaphore = Semaphore::new(1);
            free(scale, async || semaphore.acquire().await.map(drop))
        }),
        Row::new("limiter, free", |scale| {
            let limiter = CapacityLimiter::new(1);
            free(scale, async || limiter.acquire().await.map(drop))
        }),
        Row::new("reader-writer lock, free, read", |scale| {
            let lock = RwLock::new(0_u32);
            free(scale, async || lock.read().await.map(drop))
        }),
        Row::new("event, set", |scale| {
            let event = Event::new();
            event.set();
            free(scale, async || event.wait().await)
        }),
        Row::new("lock, handed on between 2 tasks", |scale| {
            let lock = Lock::new(0_u32);
            handed_on(scale, 2, async || lock.acquire().await)
        }),
        Row::new("lock, handed on between 100 tasks", |scale| {
            let lock = Lock::new(0_u32);
            handed_on(scale, 100, async || lock.acquire().await)
        }),
        Row::new("semaphore, handed on between 2 tasks", |scale| {
            let semaphore = Semaphore::new(1);
            handed_on(scale, 2, async || semaphore.acquire().await)
        }),
        Row::new("event, wait and wake, 100 tasks", event),
        Row::new("condition, wait and notify, 2 tasks", condition),
    ]
}

/// `operation` again and again, which never waits.
fn free(scale: Scale, operation: impl AsyncFn() -> Result<()>) -> Sample {
    let count = scale.of(200_000);
    run(async {
        let watch = Stopwatch::start();
        for _ in 0..count {
            operation().await?;
        }
        Ok(watch.stop(count))
    })
}

/// So many tasks take something in turns, and wait for it each time.
fn handed_on<G>(scale: Scale, tasks: u32, acquire: impl AsyncFn() -> Result<G>) -> Sample {
    let each = scale.of(100_000 / tasks);
    run(async {
        let taken = Cell::new(0);
        let sample = Cell::new(None);
        open_nursery(async |nursery| {
            let first = acquire().await?;
            for _ in 0..tasks {
                nursery.start_soon(async {
                    for _ in 0..each {
                        drop(acquire().await?);
                        taken.set(taken.get() + 1);
                    }
                    Ok(())
                });
            }
            checkpoint().await?;
            sample.set(Some(Stopwatch::start()));
            drop(first);
            Ok(())
        })
        .await?;
        let watch = sample.take().expect("the nursery was not cancelled");
        let sample = watch.stop(tasks * each);
        assert_eq!(taken.get(), tasks * each, "every task had its turns");
        Ok(sample)
    })
}

/// Tasks wait for an event, which is set, and then for the next.
fn event(scale: Scale) -> Sample {
    const TASKS: u32 = 100;
    let rounds = scale.of(1000);
    run(async {
        let events: Vec<Event> = (0..rounds).map(|_| Event::new()).collect();
        let events = &events;
        let woken = Cell::new(0);
        let watch = Stopwatch::start();
        open_nursery(async |nursery| {
            for _ in 0..TASKS {
                nursery.start_soon(async {
                    for event in events {
                        event.wait().await?;
                        woken.set(woken.get() + 1);
                    }
                    Ok(())
                });
            }
            for event in events {
                checkpoint().await?;
                event.set();
            }
            Ok(())
        })
        .await?;
        let sample = watch.stop(rounds * TASKS);
        assert_eq!(woken.get(), rounds * TASKS, "everybody has seen each event");
        Ok(sample)
    })
}

/// Two tasks that take turns by a condition: a wait, a notification and a hand-off each.
fn condition(scale: Scale) -> Sample {
    let each = scale.of(50_000);
    run(async {
        let (turn, changed) = (Lock::new(0), Condition::new());
        let (turn, changed) = (&turn, &changed);
        let watch = Stopwatch::start();
        open_nursery(async |nursery| {
            for own in 0..2 {
                nursery.start_soon(async move {
                    for _ in 0..each {
                        let mut turn = turn.acquire().await?;
                        changed.wait_for(&mut turn, |turn| *turn % 2 == own).await?;
                        *turn += 1;
                        changed.notify_one(&turn);
                    }
                    Ok(())
                });
            }
            Ok(())
        })
        .await?;
        Ok(watch.stop(2 * each))
    })
}
