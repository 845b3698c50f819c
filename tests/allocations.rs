//! Operations that take no memory from the allocator once it is warm: those for which there have
//! been as many values and waiters at the same time before (LI5).
//!
//! A binary of its own with a single test, because the allocator counts for the whole process.

#![allow(clippy::unwrap_used)] // all of this is tests, though the lint cannot see it

use std::alloc::System;
use std::net::Ipv4Addr;
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use trio::channel::UNBOUNDED;
use trio::net::{connect_tcp, open_tcp_listeners};
use trio::sync::{Barrier, RwLock};
use trio::{
    Backend, Builder, CancelScope, CapacityLimiter, Condition, Event, Lock, Result, Semaphore,
    checkpoint, move_on_after, open_broadcast_channel, open_memory_channel, open_nursery,
    open_thread_channel, open_watch_channel, select, sleep,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// More than once around every ring and list, of which the largest has 1024 places.
const ROUNDS: u32 = 1100;

/// Repeats `round`: often enough that whatever grows has grown, and then as often again while
/// counting. Something that allocates does so each time; the thread of the test harness, which is
/// counted too, only now and then.
async fn check(what: &str, mut round: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    for _ in 0..ROUNDS {
        round().await?;
    }
    let mut least = usize::MAX;
    for _ in 0..3 {
        let region = Region::new(ALLOCATOR);
        for _ in 0..ROUNDS {
            round().await?;
        }
        let change = region.change();
        least = least.min(change.allocations + change.reallocations);
        if least == 0 {
            break;
        }
    }
    assert_eq!(least, 0, "{what}: so many allocations in {ROUNDS} rounds");
    Ok(())
}

/// Checks that allocations are counted at all.
#[test]
fn li5_what_has_been_done_before_allocates_nothing() {
    for backend in [Backend::IoUring, Backend::Polling] {
        let run = Builder::new().backend(backend).run(async {
            of_one_task().await?;
            of_channels_that_hand_over().await?;
            of_what_is_handed_on().await?;
            of_a_connection().await
        });
        assert!(run.is_ok(), "{backend}: {run:?}");
    }
    what_tasks_have_left_goes_with_their_run();
}

/// Threads that run something and end leave nothing of it behind.
fn what_tasks_have_left_goes_with_their_run() {
    let in_use = || {
        let stats = ALLOCATOR.stats();
        stats.bytes_allocated - stats.bytes_deallocated
    };
    open_tasks_in_a_thread_of_their_own();
    let before = in_use();
    (0..THREADS).for_each(|_| open_tasks_in_a_thread_of_their_own());
    let more = in_use().saturating_sub(before);
    // A task takes more than a hundred bytes; the thread of the test harness, which is counted too,
    // does not allocate as much.
    let least = THREADS * TASKS * 100;
    assert!(
        more < least / 10,
        "{more} bytes more after {THREADS} threads"
    );
}

const THREADS: usize = 10;
const TASKS: usize = 1000;

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of which nothing is kept"
)]
fn open_tasks_in_a_thread_of_their_own() {
    let thread = std::thread::spawn(|| {
        trio::run(open_nursery(async |nursery| {
            (0..TASKS).for_each(|_| nursery.start_soon(checkpoint()));
            Ok(())
        }))
    });
    thread.join().unwrap().unwrap();
}

/// Checkpoints, deadlines, and operations that need not wait.
async fn of_one_task() -> Result<()> {
    check("a checkpoint", async || checkpoint().await).await?;
    check("a sleep", async || sleep(Duration::from_nanos(1)).await).await?;
    check("a timeout around something that waits", async || {
        let waiting = sleep(Duration::from_nanos(1));
        let ended = move_on_after(Duration::from_secs(100), waiting).await?;
        assert!(ended.is_some(), "in time");
        Ok(())
    })
    .await?;
    let scope = CancelScope::new();
    let moved = scope.enter(check("a deadline that is moved", async || {
        scope.set_timeout(Duration::from_secs(100));
        sleep(Duration::from_nanos(1)).await
    }));
    assert!(moved.await?.is_some(), "in time");
    for capacity in [1, 64, UNBOUNDED] {
        let (send, receive) = open_memory_channel(capacity);
        check("a channel with a buffer", async || {
            send.send([0_u64; 4]).await?;
            receive.receive().await?;
            Ok(())
        })
        .await?;
    }
    let (send, receive) = open_thread_channel(1);
    check("a channel between threads", async || {
        send.send(1).await?;
        receive.receive().await?;
        Ok(())
    })
    .await?;
    let lock = Lock::new(0);
    check("a lock", async || {
        *lock.acquire().await? += 1;
        Ok(())
    })
    .await?;
    let (semaphore, limiter) = (Semaphore::new(1), CapacityLimiter::new(1));
    let rw_lock = RwLock::new(());
    check("a semaphore, a limiter, a reader-writer lock", async || {
        drop(semaphore.acquire().await?);
        drop(limiter.acquire().await?);
        drop(rw_lock.read().await?);
        drop(rw_lock.write().await?);
        Ok(())
    })
    .await?;
    let event = Event::new();
    event.set();
    check("an event that has happened", async || event.wait().await).await
}

/// Channels, with a waiter on either side in each round.
async fn of_channels_that_hand_over() -> Result<()> {
    for capacity in [0, 1, UNBOUNDED] {
        let (send, from_there) = open_memory_channel(capacity);
        let (back, receive) = open_memory_channel(capacity);
        open_nursery(async |nursery| {
            nursery.start_soon(async move {
                while let Some(value) = from_there.next().await? {
                    back.send(value).await?;
                }
                Ok(())
            });
            check("there and back through channels", async || {
                send.send(1_u64).await?;
                receive.receive().await?;
                Ok(())
            })
            .await?;
            let stop = Event::new();
            check("a choice", async || {
                send.send(2).await?;
                drop(select((receive.receive(), stop.wait())).await?);
                Ok(())
            })
            .await?;
            send.close();
            Ok(())
        })
        .await?;
    }
    let (send, from_there) = open_thread_channel(0);
    let (back, receive) = open_thread_channel(0);
    open_nursery(async |nursery| {
        nursery.start_soon(async move {
            while let Some(value) = from_there.next().await? {
                back.send(value).await?;
            }
            Ok(())
        });
        check(
            "there and back through channels between threads",
            async || {
                send.send(1_u64).await?;
                receive.receive().await?;
                Ok(())
            },
        )
        .await?;
        send.close();
        Ok(())
    })
    .await?;
    let (send, mut receive) = open_broadcast_channel(4);
    let mut also = receive.clone();
    let (level, mut gauge) = open_watch_channel(0_u64);
    check("a broadcast and a watch", async || {
        send.send(1_u64).await?;
        receive.receive().await?;
        also.receive().await?;
        level.send(1);
        gauge.changed().await?;
        Ok(())
    })
    .await
}

/// Locks and the like, handed over between waiting tasks.
async fn of_what_is_handed_on() -> Result<()> {
    let lock = Lock::new(());
    let semaphore = Semaphore::new(1);
    let limiter = CapacityLimiter::new(1);
    let rw_lock = RwLock::new(());
    let barrier = Barrier::new(2);
    let one_round = async || {
        {
            let _guard = lock.acquire().await?;
            checkpoint().await?;
        }
        {
            let _permit = semaphore.acquire().await?;
            checkpoint().await?;
        }
        {
            let _token = limiter.acquire().await?;
            checkpoint().await?;
        }
        {
            let _guard = rw_lock.write().await?;
            checkpoint().await?;
        }
        barrier.wait().await?;
        Ok(())
    };
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            loop {
                one_round().await?;
            }
        });
        check("locks that are handed on", one_round).await?;
        nursery.cancel_scope().cancel("counted");
        Ok(())
    })
    .await?;
    let (turn, changed) = (Lock::new(0_u64), Condition::new());
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let mut guard = turn.acquire().await?;
            loop {
                changed.wait_for(&mut guard, |turn| *turn % 2 == 1).await?;
                *guard += 1;
                changed.notify_all(&guard);
            }
        });
        check("a condition", async || {
            let mut guard = turn.acquire().await?;
            *guard += 1;
            changed.notify_all(&guard);
            changed.wait_for(&mut guard, |turn| *turn % 2 == 0).await
        })
        .await?;
        nursery.cancel_scope().cancel("counted");
        Ok(())
    })
    .await
}

/// A connection on which one message goes to and fro.
async fn of_a_connection() -> Result<()> {
    let listeners = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listeners[0].local_address()?;
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let stream = listeners[0].accept().await?;
            while let Some(data) = stream.receive().await? {
                stream.send_all(data).await?;
            }
            Ok(())
        });
        let stream = connect_tcp(address).await?;
        check("a message to and fro", async || {
            stream.send_all(b"a message".as_slice()).await?;
            drop(stream.receive().await?);
            Ok(())
        })
        .await
    })
    .await
}
