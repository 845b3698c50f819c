//! A result and a cancel at the same time: exactly one of them wins (R).

use std::future::poll_fn;
use std::io::Write;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use trio::lowlevel::{cancel_shielded_checkpoint, task_tree};
use trio::net::open_tcp_listeners;
use trio::testing::{MockClock, wait_all_tasks_blocked};
use trio::{Backend, Builder, CancelScope, Result, checkpoint, current_time, open_nursery, sleep};

use crate::support::{failure, secs};

/// What `join` returns if its scope is cancelled after this many turns and the child ends after
/// that many; the one that is named first comes first in a turn.
async fn end_and_cancel(turns: [(&str, u32); 2]) -> Result<Option<u32>> {
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        let mut handle = None;
        for (what, turns) in turns {
            let wait = async move || {
                for _ in 0..turns {
                    cancel_shielded_checkpoint().await;
                }
            };
            if what == "cancel" {
                let scope = scope.clone();
                nursery.start_soon(async move {
                    wait().await;
                    scope.cancel("");
                    Ok(())
                });
            } else {
                handle = Some(nursery.spawn(async move {
                    wait().await;
                    Ok(7)
                }));
            }
        }
        let mut handle = handle.expect("one of the two is the child");
        let joined = scope.enter(handle.join()).await?;
        assert_eq!(scope.cancelled_caught(), joined.is_none());
        if joined.is_none() {
            assert_eq!(
                handle.join().await?,
                7,
                "the cancelled join has taken nothing"
            );
        }
        Ok(joined)
    })
    .await
}

#[trio::test]
async fn r1_a_wait_ends_once_and_if_it_ended_well_that_is_what_it_says() -> Result<()> {
    assert_eq!(end_and_cancel([("end", 1), ("cancel", 2)]).await?, Some(7));
    assert_eq!(end_and_cancel([("cancel", 1), ("end", 2)]).await?, None);
    // In the same turn, before the joiner has run, success wins.
    assert_eq!(end_and_cancel([("end", 1), ("cancel", 1)]).await?, Some(7));
    assert_eq!(end_and_cancel([("cancel", 1), ("end", 1)]).await?, Some(7));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn r1_a_sleep_and_a_deadline_at_the_same_moment() -> Result<()> {
    let start = current_time();
    let scope = CancelScope::with_timeout(secs(1));
    let ended = scope
        .enter(async {
            // Either may win. Afterwards the scope has been cancelled in any case.
            drop(sleep(secs(1)).await);
            assert_eq!(current_time() - start, secs(1));
            assert_eq!(failure(checkpoint().await), "cancelled");
            Ok(())
        })
        .await?;
    assert_eq!(ended, Some(()));
    assert!(scope.cancel_called());
    Ok(())
}

#[test]
fn r2_in_one_turn_input_goes_before_deadlines() {
    for backend in [Backend::IoUring, Backend::Polling] {
        let clock = MockClock::new();
        let run = Builder::new().backend(backend).clock(clock.clone());
        let result = run.run(async {
            let listeners = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await?;
            // The other side is not in the run, so the bytes are in the kernel when `write_all`
            // returns, and the loop has seen neither them nor the deadline.
            let mut there = std::net::TcpStream::connect(listeners[0].local_address()?)?;
            let here = listeners[0].accept().await?;
            let scope = CancelScope::with_timeout(secs(10));
            open_nursery(async |nursery| {
                nursery.start_soon(async {
                    let data = scope
                        .enter(async {
                            let data = here.receive().await?;
                            assert_eq!(failure(checkpoint().await), "cancelled");
                            Ok(data)
                        })
                        .await?;
                    assert_eq!(data.flatten().as_deref(), Some(&b"in time"[..]));
                    Ok(())
                });
                wait_all_tasks_blocked(secs(0)).await?;
                there.write_all(b"in time")?;
                clock.jump(secs(11));
                Ok(())
            })
            .await
        });
        assert!(result.is_ok(), "{backend}: {result:?}");
    }
}

#[trio::test]
async fn r3_nothing_looks_for_a_cancel_on_the_way_out() -> Result<()> {
    let scope = CancelScope::new();
    let ended = scope
        .enter(open_nursery(async |nursery| {
            let mut handle = nursery.spawn(async {
                checkpoint().await?;
                // The joiner wakes up in a cancelled scope, with its value.
                Ok("the value")
            });
            nursery.start_soon(async {
                checkpoint().await?;
                scope.cancel("");
                Ok(())
            });
            let value = handle.join().await?;
            assert!(scope.cancel_called());
            Ok(value)
        }))
        .await?;
    assert_eq!(ended, Some("the value"));
    Ok(())
}

/// A value from another thread: a future that knows nothing of scopes.
#[derive(Clone, Default)]
struct Post(Arc<Mutex<(Option<u32>, Option<Waker>)>>);

impl Post {
    fn send(&self, value: u32) {
        let mut inside = self.0.lock().expect("nobody panics with it");
        inside.0 = Some(value);
        if let Some(waker) = inside.1.take() {
            waker.wake();
        }
    }

    async fn receive(&self) -> u32 {
        poll_fn(|context| {
            let mut inside = self.0.lock().expect("nobody panics with it");
            match inside.0.take() {
                Some(value) => Poll::Ready(value),
                None => {
                    inside.1 = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

#[trio::test(backend = "all")]
async fn r4_what_another_thread_wakes_is_polled_and_keeps_what_it_got() -> Result<()> {
    let post = Post::default();
    let scope = CancelScope::new();
    std::thread::scope(|threads| {
        let sender = post.clone();
        threads.spawn(move || sender.send(1));
    });
    let first = post.receive().await;
    assert_eq!(first, 1);

    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let got = scope
                .enter(async {
                    let got = post.receive().await;
                    assert_eq!(failure(checkpoint().await), "cancelled");
                    Ok(got)
                })
                .await?;
            assert_eq!(got, Some(2));
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        scope.cancel("a future of others is not torn from what it waits for");
        std::thread::scope(|threads| {
            let sender = post.clone();
            threads.spawn(move || sender.send(2));
        });
        Ok(())
    })
    .await
}

/// A waker that asks for the task tree when its last clone is dropped.
struct Nosy(Arc<AtomicU32>);

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Nosy {
    fn drop(&mut self) {
        assert_eq!(task_tree().name, "main");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[trio::test(clock = "autojump")]
async fn r4_the_wakers_of_others_may_look_at_the_run_when_they_go() -> Result<()> {
    let gone = Arc::new(AtomicU32::new(0));
    let nosy = || Waker::from(Arc::new(Nosy(gone.clone())));
    {
        let mut dropped = pin!(sleep(secs(9)));
        let mut moved = pin!(sleep(secs(9)));
        for waiting in [dropped.as_mut(), moved.as_mut()] {
            assert!(waiting.poll(&mut Context::from_waker(&nosy())).is_pending());
        }
        // Polled again with the task's own waker.
        poll_fn(|context| {
            assert!(moved.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        assert_eq!(gone.load(Ordering::Relaxed), 1);
    }
    assert_eq!(gone.load(Ordering::Relaxed), 2);

    let mut woken = pin!(sleep(secs(1)));
    assert!(
        woken
            .as_mut()
            .poll(&mut Context::from_waker(&nosy()))
            .is_pending()
    );
    sleep(secs(2)).await?;
    assert_eq!(gone.load(Ordering::Relaxed), 3);
    woken.await
}
