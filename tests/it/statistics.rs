//! The state of a run in numbers (RN7).

use std::net::Ipv4Addr;
use std::time::Duration;

use trio::lowlevel::{current_statistics, current_trio_token, spawn_system_task};
use trio::net::open_tcp_listeners;
use trio::testing::{MockClock, wait_all_tasks_blocked};
use trio::{
    Builder, Event, Result, TaskStatus, checkpoint, open_nursery, sleep, sleep_forever, try_join,
};

use crate::support::{builders, on_every_driver, secs};

async fn settle() -> Result<()> {
    wait_all_tasks_blocked(Duration::ZERO).await
}

/// How many tasks are alive, and how many of them can run.
fn tasks() -> (usize, usize) {
    let statistics = current_statistics();
    (statistics.tasks_living, statistics.tasks_runnable)
}

#[trio::test]
async fn rn7_statistics_count_tasks_once_however_deep_they_are() -> Result<()> {
    assert_eq!(tasks(), (1, 0), "whoever asks runs, and can run no more");
    let (one, other) = (&Event::new(), &Event::new());
    open_nursery(async |outer| {
        outer.start_soon(async {
            open_nursery(async |inner| {
                inner.start_soon(one.wait());
                inner.start_soon(one.wait());
                other.wait().await
            })
            .await
        });
        assert_eq!(tasks(), (2, 1), "it has been spawned and not been polled");
        settle().await?;
        assert_eq!(tasks(), (4, 0));
        one.set();
        assert_eq!(tasks(), (4, 2), "not those in whose nurseries they are");
        other.set();
        assert_eq!(tasks(), (4, 3), "a body is a part of its task");
        outer.cancel_scope().cancel("");
        assert_eq!(tasks(), (4, 3), "they have been woken already");
        Ok(())
    })
    .await?;
    assert_eq!(tasks(), (1, 0));
    open_nursery(async |nursery| {
        nursery.start_soon(sleep_forever());
        settle().await?;
        assert_eq!(tasks(), (2, 0));
        nursery.cancel_scope().cancel("");
        assert_eq!(tasks(), (2, 1), "whoever is cancelled can run");
        Ok(())
    })
    .await
}

#[trio::test]
async fn rn7_statistics_count_tasks_of_every_kind() -> Result<()> {
    spawn_system_task(sleep_forever())?;
    assert_eq!(tasks(), (2, 1));
    settle().await?;
    open_nursery(async |nursery| {
        let starting = nursery.start(async |status: TaskStatus<()>| {
            assert_eq!(tasks().0, 3, "one that has not reported lives too");
            status.started(())?;
            sleep_forever().await
        });
        starting.await?;
        settle().await?;
        assert_eq!(tasks(), (3, 0));
        nursery.cancel_scope().cancel("");
        Ok(())
    })
    .await?;
    try_join((
        async {
            assert_eq!(tasks(), (4, 1));
            checkpoint().await
        },
        checkpoint(),
    ))
    .await?;
    assert_eq!(tasks().0, 2);
    Ok(())
}

#[test]
fn rn7_statistics_tell_how_long_until_the_next_deadline() -> Result<()> {
    let clock = MockClock::new();
    Builder::new().clock(clock.clone()).run(async {
        let next = || current_statistics().time_to_next_deadline;
        assert_eq!(next(), None);
        open_nursery(async |nursery| {
            nursery.start_soon(sleep(secs(7)));
            nursery.start_soon(sleep(secs(5)));
            assert_eq!(next(), None, "nobody waits for them yet");
            checkpoint().await?;
            assert_eq!(next(), Some(secs(5)));
            clock.jump(secs(2));
            assert_eq!(next(), Some(secs(3)));
            clock.jump(secs(10));
            assert_eq!(next(), Some(Duration::ZERO), "it is due");
            nursery.cancel_scope().cancel("");
            assert_eq!(next(), None, "nobody waits any more");
            Ok(())
        })
        .await?;
        assert_eq!(next(), None);
        Ok(())
    })
}

#[trio::test]
async fn rn7_a_deadline_that_was_set_in_this_turn_is_one() -> Result<()> {
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let soon = std::pin::pin!(sleep(secs(50)));
            let waiting = futures::future::poll_immediate(soon);
            assert!(waiting.await.is_none());
            Ok(())
        });
        nursery.start_soon(async {
            let mut later = std::pin::pin!(sleep(secs(100)));
            assert!(futures::future::poll_immediate(&mut later).await.is_none());
            let next = current_statistics().time_to_next_deadline;
            assert_eq!(next, Some(secs(100)), "what was taken back counts no more");
            Ok(())
        });
        Ok(())
    })
    .await
}

#[trio::test]
async fn rn7_statistics_tell_what_other_threads_have_asked_for() -> Result<()> {
    let token = current_trio_token();
    let queued = || current_statistics().run_sync_soon_queue_size;
    assert_eq!(queued(), 0);
    for _ in 0..3 {
        token.run_sync_soon(|| ())?;
        token.run_sync_soon_idempotent(0, || ())?;
    }
    assert_eq!(queued(), 4, "what is called once counts once");
    checkpoint().await?;
    assert_eq!(queued(), 0);
    Ok(())
}

#[test]
fn rn7_statistics_tell_what_the_driver_does() {
    on_every_driver(|| async {
        let listeners = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await?;
        let with_driver = || {
            let statistics = current_statistics().io_statistics;
            statistics.submitted - statistics.completed
        };
        assert_eq!(with_driver(), 0);
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                listeners[0].accept().await?;
                Ok(())
            });
            settle().await?;
            assert_eq!(with_driver(), 1);
            nursery.cancel_scope().cancel("");
            Ok(())
        })
        .await?;
        assert_eq!(with_driver(), 0);
        Ok(())
    });
    for (name, builder) in builders() {
        let backend = builder.run(async { current_statistics().backend });
        assert_eq!(backend.to_string(), name);
    }
}
