//! Foreign code in the middle of ours, and things that outlive their run: none of it may break a
//! promise, cause a panic in innocent code, or make anything wait for ever (X).

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::{Either, select};
use trio::channel::{ThreadSendChannel, open_thread_channel};
use trio::lowlevel::{Abort, Reschedule, RunVar, cancellable};
use trio::lowlevel::{spawn_system_task, task_tree, wait_task_rescheduled};
use trio::net::{TcpListener, TcpStream, open_tcp_listeners};
use trio::sync::{Event, Lock};
use trio::testing::{Clock, MockClock, Simulation, wait_all_tasks_blocked};
use trio::{
    Backend, Builder, CancelScope, RateLimiter, Result, TaskStatus, Time, checkpoint, current_time,
    fail_after, move_on_after, open_broadcast_channel, open_lagging_broadcast_channel,
    open_memory_channel, open_nursery, sleep, sleep_forever, sleep_until,
};

use crate::support::{begin, builders, connection, foreign_thread, on_every_driver, oops, secs};

/// Longer than anything here takes, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + 'a>>;

/// Does something when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Polls `future` once, which must wait, and forgets it in that state.
#[allow(clippy::mem_forget)] // that is what is tested
async fn begin_and_forget(future: impl Future) {
    let mut future = Box::pin(future);
    begin(&mut future).await;
    std::mem::forget(future);
}

/// Polls `future`, which must wait, in this many turns.
async fn poll_in_turns(future: &mut (impl Future + Unpin), turns: u32) {
    for _ in 0..turns {
        begin(future).await;
        checkpoint().await.unwrap();
    }
}

// Orphans and the nurseries that count them.

#[test]
fn x1_a_task_that_drops_a_nursery_half_way_and_ends_does_not_hold_its_own_for_ever() {
    on_every_driver(|| async {
        let (_client, server) = connection().await?;
        let server = &server;
        let ended = fail_after(PATIENCE, async {
            open_nursery(async |nursery| {
                nursery.start_soon(async {
                    let inner = Box::pin(open_nursery(async |inner| {
                        inner.start_soon(async { server.receive().await.map(drop) });
                        inner.start_soon(async { server.wait_send_all_might_not_block().await });
                        sleep_forever().await
                    }));
                    let mut turns = 0;
                    let soon = poll_fn(|context| {
                        turns += 1;
                        context.waker().wake_by_ref();
                        if turns > 2 {
                            Poll::Ready(())
                        } else {
                            Poll::Pending
                        }
                    });
                    match select(inner, soon).await {
                        Either::Left(_) => panic!("it sleeps for ever"),
                        Either::Right(((), inner)) => drop(inner),
                    }
                    Ok(())
                });
                Ok(())
            })
            .await
        });
        ended.await
    });
}

// Things that outlive their run.

#[test]
fn x2_closing_a_stream_with_a_forgotten_receive_touches_no_other_run() {
    for (name, builder) in builders() {
        let forgotten = builder.run(async {
            let (client, server) = connection().await?;
            begin_and_forget(server.receive()).await;
            Ok::<_, trio::Error>((client, server))
        });
        let (client, server) = forgotten.unwrap_or_else(|error| panic!("on {name}: {error:?}"));
        trio::run(async {
            let slept = move_on_after(Duration::from_millis(1), async {
                let mut sleeping = Vec::new();
                for _ in 0..8 {
                    let mut one = Box::pin(sleep_forever());
                    begin(&mut one).await;
                    sleeping.push(one);
                }
                server.close();
                futures::future::try_join_all(sleeping).await.map(drop)
            });
            assert!(
                slept.await.unwrap().is_none(),
                "on {name}: nobody wakes who sleeps for ever"
            );
        });
        client.close();
    }
}

#[test]
fn x2_closing_a_stream_with_a_forgotten_receive_works_after_the_run() {
    for (name, builder) in builders() {
        let forgotten = builder.run(async {
            let (client, server) = connection().await?;
            begin_and_forget(server.receive()).await;
            Ok::<_, trio::Error>((client, server))
        });
        let (_client, server) = forgotten.unwrap_or_else(|error| panic!("on {name}: {error:?}"));
        server.close();
    }
}

#[test]
fn x3_futures_that_wait_may_be_dropped_after_their_run() {
    for (name, builder) in builders() {
        let left: Result<Vec<Boxed<'static, ()>>> = builder.run(async {
            let mut left: Vec<Boxed<'static, ()>> = vec![
                Box::pin(open_nursery(async |nursery| {
                    nursery.start_soon(sleep_forever());
                    let handle = nursery.spawn(sleep_forever());
                    handle.cancel("to have a scope of its own");
                    nursery.start_soon(async move {
                        drop(nursery.start(|_: TaskStatus<()>| sleep_forever()).await);
                        Ok(())
                    });
                    sleep_forever().await
                })),
                Box::pin(trio::open_service_nursery(async |nursery| {
                    nursery.start_soon(sleep_forever());
                    sleep_forever().await
                })),
                Box::pin(async { move_on_after(PATIENCE, sleep_forever()).await.map(drop) }),
                Box::pin(async { CancelScope::new().enter(sleep_forever()).await.map(drop) }),
                Box::pin(sleep(PATIENCE)),
                Box::pin(checkpoint()),
            ];
            for future in &mut left {
                begin(future).await;
            }
            Ok(left)
        });
        drop(left.unwrap_or_else(|error| panic!("on {name}: {error:?}")));
    }
}

#[test]
fn x3_futures_that_wait_may_be_dropped_with_the_values_of_their_run() {
    thread_local! {
        static DROPPED: Cell<u32> = const { Cell::new(0) };
    }
    static LEFT: RunVar<RefCell<Vec<Boxed<'static, ()>>>> =
        RunVar::with_default("left", RefCell::default);
    on_every_driver(|| async {
        let counts = || OnDrop(|| DROPPED.set(DROPPED.get() + 1));
        let (first, second) = (counts(), counts());
        let mut left: Vec<Boxed<'static, ()>> = vec![
            Box::pin(open_nursery(async |nursery| {
                nursery.start_soon(sleep_forever());
                let _first = first;
                sleep_forever().await
            })),
            Box::pin(async {
                let _second = second;
                move_on_after(PATIENCE, sleep_forever()).await.map(drop)
            }),
            Box::pin(sleep(PATIENCE)),
        ];
        for future in &mut left {
            begin(future).await;
        }
        LEFT.with(|values| values.unwrap().borrow_mut().extend(left));
        Ok(())
    });
    assert_eq!(DROPPED.get(), 6, "two on each driver");
}

#[test]
fn x3_what_is_dropped_with_a_run_may_look_at_the_run() {
    static LAST: RunVar<Box<dyn std::any::Any>> = RunVar::new("last");
    thread_local! {
        static SEEN: Cell<u32> = const { Cell::new(0) };
    }
    on_every_driver(|| async {
        let (client, server) = connection().await?;
        let (send, receive) = open_memory_channel::<u32>(4);
        let scope = CancelScope::new();
        begin_and_forget(scope.enter(sleep_forever())).await;
        begin_and_forget(async move { receive.receive().await }).await;
        let last = OnDrop(move || {
            let _ = current_time();
            let _ = trio::lowlevel::driver_statistics();
            drop(trio::lowlevel::current_root_task());
            drop(task_tree());
            let _ = trio::current_effective_deadline();
            assert!(spawn_system_task(async { Ok(()) }).is_err());
            scope.cancel("at the very end");
            scope.set_timeout(secs(1));
            assert!(scope.cancel_called() && scope.cancellation().is_some());
            let _ = scope.deadline();
            let _ = send.try_send(7);
            server.close();
            client.close();
            SEEN.set(SEEN.get() + 1);
        });
        drop(LAST.set(Box::new(last)));
        Ok(())
    });
    assert_eq!(SEEN.get(), 3, "once on each driver");
}

#[test]
fn x4_a_scope_that_goes_on_in_another_run_says_so_and_harms_nobody() {
    let mut scopes: Vec<Boxed<'static, Option<()>>> = trio::run(async {
        let mut scopes: Vec<Boxed<'static, Option<()>>> = Vec::new();
        for _ in 0..3 {
            let mut one: Boxed<'static, Option<()>> =
                Box::pin(move_on_after(PATIENCE, sleep_forever()));
            begin(&mut one).await;
            scopes.push(one);
        }
        scopes
    });
    trio::run(async {
        let own = move_on_after(Duration::from_millis(5), async {
            let other = move_on_after(Duration::from_millis(1), async {
                let last = scopes.last_mut().unwrap();
                let polled = poll_fn(|context| {
                    let polled = catch_unwind(AssertUnwindSafe(|| last.as_mut().poll(context)));
                    Poll::Ready(polled)
                });
                let panic = polled.await.unwrap_err();
                let text = panic.downcast_ref::<&str>().unwrap();
                assert!(text.contains("another run"), "{text}");
                scopes.clear();
                sleep_forever().await
            });
            assert!(other.await?.is_none());
            sleep_forever().await
        });
        assert!(
            own.await.unwrap().is_none(),
            "the scopes of this run are as they were"
        );
    });
}

#[test]
fn x4_a_wait_that_goes_on_in_another_run_says_so() {
    for (name, builder) in builders() {
        let slow = Rc::new(RateLimiter::new(1, PATIENCE));
        let kept = Rc::new(RefCell::new(None));
        let waits: Result<Vec<Boxed<'static, ()>>> = builder.run(async {
            let (here, there) = connection().await?;
            let listener = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0))
                .await?
                .remove(0);
            let (limiter, handle) = (slow.clone(), kept.clone());
            assert!(limiter.try_acquire());
            let mut waits: Vec<Boxed<'static, ()>> = vec![
                Box::pin(sleep(PATIENCE)),
                Box::pin(sleep_forever()),
                Box::pin(async move { limiter.acquire().await }),
                Box::pin(cancellable(std::future::pending())),
                Box::pin(wait_task_rescheduled(move |reschedule: Reschedule<()>| {
                    *handle.borrow_mut() = Some(reschedule);
                    |_| Abort::Failed
                })),
                Box::pin(async move { here.receive().await.map(drop) }),
                Box::pin(async move { there.receive().await.map(drop) }),
                Box::pin(async move { listener.accept().await.map(drop) }),
                Box::pin(wait_all_tasks_blocked(PATIENCE)),
            ];
            for wait in &mut waits {
                begin(wait).await;
            }
            Ok(waits)
        });
        let mut waits = waits.unwrap();
        trio::run(async {
            for (number, wait) in waits.iter_mut().enumerate() {
                poll_fn(|context| {
                    let polled = catch_unwind(AssertUnwindSafe(|| wait.as_mut().poll(context)));
                    let panic = polled.map(drop).expect_err("it would wait for ever");
                    let text = panic.downcast_ref::<&str>().unwrap();
                    assert!(
                        text.contains("that run has ended"),
                        "{number} on {name}: {text}"
                    );
                    Poll::Ready(())
                })
                .await;
            }
            drop(waits);
            sleep(Duration::from_millis(1)).await.unwrap();
        });
    }
}

#[test]
fn x4_who_stands_in_line_begins_anew_in_another_run() {
    for (name, builder) in builders() {
        let event = Rc::new(Event::new());
        let lock = Rc::new(Lock::new(()));
        let (send, receive) = open_memory_channel::<u8>(1);
        let (own_event, own_lock) = (event.clone(), lock.clone());
        let waits = builder.run(async {
            let held = lock.try_acquire().unwrap();
            let mut waits: Vec<Boxed<'static, ()>> = vec![
                Box::pin(async move { own_event.wait().await }),
                Box::pin(async move { own_lock.acquire().await.map(drop) }),
                Box::pin(async move { Ok(receive.receive().await.map(drop)?) }),
            ];
            for wait in &mut waits {
                begin(wait).await;
            }
            drop(held);
            Some(waits)
        });
        trio::run(async {
            for wait in waits.unwrap() {
                event.set();
                send.try_send(1).unwrap_or(());
                fail_after(PATIENCE, wait)
                    .await
                    .unwrap_or_else(|error| panic!("on {name}: {error}"));
            }
            assert!(lock.try_acquire().is_ok(), "on {name}");
        });
    }
}

#[test]
fn x5_a_rate_limiter_passes_over_who_was_left_by_a_run() {
    for (name, builder) in builders() {
        let limiter = Rc::new(RateLimiter::new(1000, secs(1)));
        let left = builder.run(async {
            assert!(limiter.try_acquire(), "on {name}: nobody was there before");
            let limiter = limiter.clone();
            let mut left: Boxed<'static, ()> = Box::pin(async move { limiter.acquire().await });
            begin(&mut left).await;
            Some(left)
        });
        trio::run(async {
            fail_after(PATIENCE, limiter.acquire()).await.unwrap();
            drop(left);
            fail_after(PATIENCE, limiter.acquire()).await.unwrap();
            fail_after(PATIENCE, limiter.acquire()).await.unwrap();
        });
        assert_eq!(limiter.statistics().tasks_waiting, 0);
    }
}

#[test]
fn x6_a_simulated_connection_is_refused_by_the_system_s_drivers_and_the_reverse() {
    let of_simulation: Result<(TcpStream, TcpStream)> = Builder::new()
        .simulation(Simulation::new(1))
        .run(connection());
    let (one, _other) = of_simulation.unwrap();
    let listen = || async {
        Ok(open_tcp_listeners((Ipv4Addr::LOCALHOST, 0))
            .await?
            .remove(0))
    };
    let of_simulation: Result<TcpListener> =
        Builder::new().simulation(Simulation::new(1)).run(listen());
    let listener = of_simulation.unwrap();
    for backend in [Backend::IoUring, Backend::Polling] {
        Builder::new().backend(backend).run(async {
            for _ in 0..3 {
                assert!(fail_after(PATIENCE, one.receive()).await.is_err());
                assert!(fail_after(PATIENCE, one.send_all(b"x")).await.is_err());
                assert!(
                    fail_after(PATIENCE, one.wait_send_all_might_not_block())
                        .await
                        .is_err()
                );
                assert!(one.local_address().is_err());
                let error = fail_after(PATIENCE, listener.accept()).await.map(drop);
                assert!(error.unwrap_err().is::<io::Error>());
            }
        });
    }
    let of_system: Result<(TcpStream, TcpStream)> =
        Builder::new().backend(Backend::Polling).run(connection());
    let (one, _other) = of_system.unwrap();
    let of_system: Result<TcpListener> = Builder::new().backend(Backend::Polling).run(listen());
    let listener = of_system.unwrap();
    Builder::new().simulation(Simulation::new(1)).run(async {
        for _ in 0..3 {
            assert!(fail_after(PATIENCE, one.receive()).await.is_err());
            assert!(fail_after(PATIENCE, one.send_all(b"x")).await.is_err());
            let error = fail_after(PATIENCE, listener.accept()).await.map(drop);
            assert!(error.unwrap_err().is::<io::Error>());
            assert!(
                fail_after(PATIENCE, one.wait_send_all_might_not_block())
                    .await
                    .is_err()
            );
        }
    });
}

/// A nursery that was begun in a run which has ended.
fn left_nursery() -> Boxed<'static, ()> {
    trio::run(async {
        let mut left: Boxed<'static, ()> = Box::pin(open_nursery(async |nursery| {
            nursery.start_soon(sleep_forever());
            sleep_forever().await
        }));
        begin(&mut left).await;
        Some(left)
    })
    .unwrap()
}

/// Polls such a nursery, which must refuse with an error.
fn refuses(nursery: &mut Boxed<'static, ()>, context: &mut Context<'_>) {
    let polled = AssertUnwindSafe(|| nursery.as_mut().poll(context));
    let panic = catch_unwind(polled).unwrap_err();
    let text = panic.downcast_ref::<&str>().unwrap();
    assert!(text.contains("that run has ended"), "{text}");
}

#[test]
fn x4_a_nursery_that_goes_on_in_another_run_says_so() {
    let mut left = left_nursery();
    trio::run(async {
        poll_fn(|context| {
            refuses(&mut left, context);
            Poll::Ready(())
        })
        .await;
        drop(left);
        checkpoint().await.unwrap();
    });
}

#[test]
fn x4_a_nursery_whose_run_has_ended_says_so_to_a_waker_that_holds_nothing() {
    let mut left = left_nursery();
    trio::run(async {
        refuses(&mut left, &mut Context::from_waker(Waker::noop()));
        drop(left);
        checkpoint().await.unwrap();
    });
}

// Foreign code.

/// What is done when a value is cloned.
type Look = Rc<RefCell<Option<Box<dyn Fn()>>>>;

/// A value whose clone uses the channel that it is in.
struct Nosy {
    look: Look,
    number: u32,
}

impl Clone for Nosy {
    fn clone(&self) -> Self {
        if let Some(look) = &*self.look.borrow() {
            look();
        }
        Self {
            look: self.look.clone(),
            number: self.number,
        }
    }
}

#[test]
fn x7_the_clone_of_a_value_may_use_the_channel_that_broadcasts_it() {
    trio::run(async {
        for lagging in [false, true] {
            let (send, mut first) = match lagging {
                false => open_broadcast_channel::<Nosy>(2),
                true => open_lagging_broadcast_channel::<Nosy>(2),
            };
            let mut second = send.subscribe();
            let look: Look = Rc::default();
            let nosy = |number| Nosy {
                look: look.clone(),
                number,
            };
            send.send(nosy(1)).await.unwrap();
            let again = send.clone();
            let others = look.clone();
            let sent = Cell::new(false);
            *look.borrow_mut() = Some(Box::new(move || {
                // A sender, a receiver that comes and goes, and a value that takes a place.
                drop(again.clone());
                drop(again.subscribe());
                assert_eq!(again.statistics().open_receive_channels, 2);
                if !sent.replace(true) {
                    let value = Nosy {
                        look: others.clone(),
                        number: 2,
                    };
                    drop(again.try_send(value));
                }
            }));
            assert_eq!(first.receive().await.unwrap().number, 1);
            assert_eq!(second.receive().await.unwrap().number, 1);
            assert_eq!(first.receive().await.unwrap().number, 2);
            assert_eq!(second.receive().await.unwrap().number, 2);
            assert_eq!(send.statistics().current_buffer_used, 0);
            look.borrow_mut().take();
        }
    });
}

#[test]
fn x7_a_clone_that_panics_has_read_nothing() {
    trio::run(async {
        let (send, mut first) = open_broadcast_channel::<Nosy>(1);
        let mut second = send.subscribe();
        let look: Look = Rc::default();
        send.try_send(Nosy {
            look: look.clone(),
            number: 1,
        })
        .ok()
        .unwrap();
        *look.borrow_mut() = Some(Box::new(|| panic!("no copy")));
        let refused = catch_unwind(AssertUnwindSafe(|| first.try_receive().map(drop)));
        assert!(refused.is_err());
        look.borrow_mut().take();
        assert_eq!((first.len(), second.len()), (1, 1));
        assert_eq!(first.receive().await.unwrap().number, 1);
        assert_eq!(second.receive().await.unwrap().number, 1);
    });
}

/// A waker that owns an end of a channel, as the waker of a simple executor owns the whole task.
struct Holding {
    ends: Mutex<Vec<ThreadSendChannel<u32>>>,
    woken: AtomicBool,
}

impl Wake for Holding {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Relaxed);
    }
}

fn holding(end: &ThreadSendChannel<u32>) -> (Arc<Holding>, Waker) {
    let held = Arc::new(Holding {
        ends: Mutex::new(vec![end.clone()]),
        woken: AtomicBool::new(false),
    });
    (held.clone(), held.into())
}

#[test]
fn x8_a_waker_may_hold_the_last_end_of_the_channel_that_holds_it() {
    // On a thread of its own, which a lock that is taken twice would block for good.
    let (end, ended) = std::sync::mpsc::channel();
    let done = foreign_thread(move || {
        trio::run(async {
            let (send, receive) = open_thread_channel::<u32>(1);
            let mut waits = Box::pin(receive.receive());
            // Each poll leaves another waker with the channel, and drops the previous one.
            for _ in 0..3 {
                let (held, waker) = holding(&send);
                drop(held);
                assert!(
                    waits
                        .as_mut()
                        .poll(&mut Context::from_waker(&waker))
                        .is_pending()
                );
            }
            assert_eq!(send.statistics().open_send_channels, 2);
            drop(waits);
            assert_eq!(send.statistics().open_send_channels, 1);

            let full = send.try_send(1);
            assert!(full.is_ok());
            let mut sends = Box::pin(send.send(2));
            let (held, waker) = holding(&send);
            assert!(
                sends
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
            drop((waker, sends));
            assert_eq!(Arc::strong_count(&held), 1);
            assert!(!held.woken.load(Ordering::Relaxed) && held.ends.lock().unwrap().len() == 1);
            drop(held);
            assert_eq!(send.statistics().open_send_channels, 1);
        });
        end.send(()).unwrap();
    });
    ended
        .recv_timeout(PATIENCE)
        .expect("no lock is taken twice");
    done.join().unwrap();
}

/// An error whose destructor looks at the run.
#[derive(Debug)]
struct Meddling(Arc<AtomicBool>);

impl std::fmt::Display for Meddling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = trio::current_effective_deadline();
        f.write_str("meddling")
    }
}

impl std::error::Error for Meddling {}

impl Drop for Meddling {
    fn drop(&mut self) {
        assert_eq!(trio::current_effective_deadline(), Time::NEVER);
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn x9_errors_that_go_with_a_nursery_dropped_half_way_may_use_the_run() {
    trio::run(async {
        let event = Rc::new(Event::new());
        let dropped = Arc::new(AtomicBool::new(false));
        let taken: Rc<RefCell<Option<Boxed<'static, ()>>>> = Rc::default();
        let (inner_event, inner_taken, inner_dropped) =
            (event.clone(), taken.clone(), dropped.clone());
        let mut inner = Box::pin(open_nursery(async move |nursery| {
            // It waits in the name of this body, and will be polled elsewhere.
            let mut waits: Boxed<'static, ()> = Box::pin(async move { inner_event.wait().await });
            begin(&mut waits).await;
            *inner_taken.borrow_mut() = Some(waits);
            let error = Meddling(inner_dropped);
            nursery.start_soon(async move { Err(error.into()) });
            let shield = CancelScope::new().shielded();
            shield.enter(sleep_forever()).await.map(drop)
        }));
        poll_in_turns(&mut inner, 3).await;
        drop(inner);
        assert!(!dropped.load(Ordering::Relaxed), "the wait holds it");
        let mut waits = taken.borrow_mut().take().unwrap();
        // It was cancelled with its nursery, and learns of that here.
        assert!(futures::poll!(&mut waits).is_ready());
        assert!(dropped.load(Ordering::Relaxed));
    });
}

/// A clock that uses the run whenever it is asked for the time.
struct Prying {
    clock: MockClock,
    scope: Rc<RefCell<Option<CancelScope>>>,
    asked: Rc<Cell<u32>>,
}

impl Clock for Prying {
    fn now(&self) -> Time {
        if let Some(scope) = &*self.scope.borrow() {
            drop((scope.shield(), scope.cancellation()));
            scope.set_shield(!scope.shield());
            self.asked.set(self.asked.get() + 1);
        }
        self.clock.now()
    }

    fn wait_until(&self, deadline: Time) -> Duration {
        self.clock.wait_until(deadline)
    }

    fn autojump_threshold(&self) -> Option<Duration> {
        self.clock.autojump_threshold()
    }

    fn autojump(&self, deadline: Time) {
        self.clock.autojump(deadline);
    }
}

#[test]
fn x10_a_clock_may_use_the_scopes_whose_deadlines_it_is_asked_for() {
    let (scope, asked) = (Rc::new(RefCell::new(None)), Rc::new(Cell::new(0)));
    let clock = Prying {
        clock: MockClock::autojump(),
        scope: scope.clone(),
        asked: asked.clone(),
    };
    Builder::new().clock(clock).run(async {
        let own = CancelScope::with_timeout(secs(2));
        *scope.borrow_mut() = Some(own.clone());
        assert!(!own.cancel_called());
        own.enter(async {
            assert!(!own.cancel_called());
            sleep(secs(1)).await?;
            own.set_timeout(secs(3));
            assert!(own.timeout().is_some() && own.deadline().is_some());
            let _ = trio::current_effective_deadline();
            own.drain(secs(2), "enough");
            sleep_forever().await
        })
        .await
        .unwrap();
        let late = CancelScope::with_deadline(current_time() + secs(1));
        *scope.borrow_mut() = Some(late.clone());
        sleep(secs(2)).await.unwrap();
        assert!(late.cancel_called());
        scope.borrow_mut().take();
    });
    assert!(asked.get() > 5);
}

// The limits of numbers.

#[test]
fn x11_the_longest_times_never_come_and_break_nothing() {
    let limits = || async {
        let long = Duration::MAX;
        let never: Vec<Boxed<'static, ()>> = vec![
            Box::pin(sleep(long)),
            Box::pin(sleep_until(Time::NEVER)),
            Box::pin(sleep_until(Time::from_nanos(u64::MAX - 1))),
            Box::pin(async move { move_on_after(long, sleep_forever()).await.map(drop) }),
            Box::pin(async move { fail_after(long, sleep_forever()).await }),
            Box::pin(async move {
                trio::fail_if_idle(long, async |progress| {
                    progress.made();
                    sleep_forever().await
                })
                .await
            }),
            Box::pin(async move {
                let scope = CancelScope::with_timeout(long);
                scope.set_timeout(long);
                scope.drain(long, "at leisure");
                scope
                    .enter(async {
                        scope.set_timeout(long);
                        scope.drain(long, "at leisure");
                        sleep_forever().await
                    })
                    .await
                    .map(drop)
            }),
            Box::pin(async move {
                let limiter = RateLimiter::new(1, long).burst(u32::MAX);
                for _ in 0..3 {
                    limiter.acquire().await?;
                }
                let slow = RateLimiter::new(1, long);
                slow.acquire().await?;
                slow.acquire().await
            }),
        ];
        let mut backoff = trio::Backoff::new(Duration::MAX, Duration::MAX)
            .factor(u32::MAX)
            .jitter(1.0, 7);
        for _ in 0..3 {
            let _ = backoff.next_delay();
        }
        let end = move_on_after(Duration::from_millis(3), async {
            open_nursery(async |nursery| {
                for future in never {
                    nursery.start_soon(async {
                        future.await?;
                        oops("this must not end by itself")
                    });
                }
                Ok(())
            })
            .await
        });
        assert!(end.await?.is_none());
        Ok(())
    };
    on_every_driver(limits);
    on_every_driver(|| async {
        let blocked = wait_all_tasks_blocked(Duration::MAX);
        assert!(
            move_on_after(Duration::from_millis(1), blocked)
                .await?
                .is_none()
        );
        Ok(())
    });
    let clock = MockClock::autojump();
    let result: Result<()> = Builder::new().clock(clock.clone()).run(async {
        limits().await?;
        clock.jump(Duration::MAX);
        assert_eq!(current_time(), Time::NEVER);
        clock.jump(Duration::MAX);
        sleep(Duration::ZERO).await?;
        checkpoint().await
    });
    result.unwrap();
}

// Threads that end, and runs in places where there is already one.

#[test]
fn x12_a_run_works_in_a_destructor_of_a_thread_that_ends() {
    struct Last(Arc<AtomicBool>);
    impl Drop for Last {
        fn drop(&mut self) {
            on_every_driver(|| async {
                let (client, server) = connection().await?;
                client.send_all(b"x").await?;
                assert!(server.receive().await?.is_some());
                open_nursery(async |nursery| {
                    nursery.start_soon(sleep(Duration::from_millis(1)));
                    Ok(())
                })
                .await
            });
            self.0.store(true, Ordering::SeqCst);
        }
    }
    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }
    let done = Arc::new(AtomicBool::new(false));
    let mark = done.clone();
    foreign_thread(move || LAST.set(Some(Last(mark))))
        .join()
        .unwrap();
    assert!(done.load(Ordering::SeqCst));
}

#[test]
fn x12_what_a_run_has_left_on_a_thread_may_go_with_the_thread() {
    thread_local! {
        static LEFT: RefCell<Vec<Box<dyn std::any::Any>>> = const { RefCell::new(Vec::new()) };
    }
    for backend in [Backend::IoUring, Backend::Polling] {
        let thread = foreign_thread(move || {
            LEFT.with_borrow_mut(|left| left.push(Box::new(())));
            let left: Result<Vec<Box<dyn std::any::Any>>> =
                Builder::new().backend(backend).run(async {
                    let (client, server) = connection().await?;
                    client.send_all(b"kept").await?;
                    let lease = server.receive().await?;
                    let mut waits: Boxed<'static, ()> = Box::pin(open_nursery(async |nursery| {
                        nursery.start_soon(sleep_forever());
                        sleep_forever().await
                    }));
                    begin(&mut waits).await;
                    let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
                    let left: Vec<Box<dyn std::any::Any>> = vec![
                        Box::new((client, server)),
                        Box::new(lease),
                        Box::new(waits),
                        Box::new(OnDrop(move || waker.wake_by_ref())),
                    ];
                    Ok(left)
                });
            LEFT.with_borrow_mut(|all| all.extend(left.unwrap()));
        });
        thread.join().unwrap();
    }
}

#[test]
fn x13_a_run_inside_a_run_is_refused_and_the_outer_one_goes_on() {
    on_every_driver(|| async {
        let refused = catch_unwind(|| trio::run(async {}));
        let panic = refused.unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("inside a run"), "{text}");
        let inner = Builder::new().try_run(async {});
        assert!(inner.is_err());
        // In a destructor, too: of a task that is cancelled, and of one that is dropped.
        let _refuses = OnDrop(|| assert!(Builder::new().try_run(async {}).is_err()));
        sleep(Duration::from_millis(1)).await
    });
}

#[test]
fn x14_wakers_may_be_used_from_other_threads_while_a_run_ends_and_after() {
    for round in 0..20 {
        for (_, builder) in builders() {
            let (send, wakers) = std::sync::mpsc::channel::<Waker>();
            let wakes = foreign_thread(move || {
                let wakers: Vec<Waker> = wakers.iter().collect();
                for _ in 0..100 {
                    for waker in &wakers {
                        waker.wake_by_ref();
                        drop(waker.clone());
                    }
                }
                for waker in wakers {
                    waker.wake();
                }
            });
            builder.run(async move {
                open_nursery(async |nursery| {
                    for _ in 0..10 {
                        let send = send.clone();
                        nursery.start_soon(poll_fn(move |context| {
                            send.send(context.waker().clone()).unwrap();
                            Poll::Ready(Ok(()))
                        }));
                    }
                    drop(send);
                    for _ in 0..round {
                        checkpoint().await?;
                    }
                    Ok(())
                })
                .await
                .unwrap();
            });
            wakes.join().unwrap();
        }
    }
}

// Destructors that do things.

#[test]
fn x15_the_destructor_of_a_task_may_spawn_cancel_close_and_send() {
    for dropped_by_hand in [false, true] {
        on_every_driver(|| async move {
            let (client, server) = connection().await?;
            let (send, receive) = open_memory_channel::<u32>(1);
            let done = Cell::new(0);
            let scope = CancelScope::new();
            let mut inner = Box::pin(open_nursery(async |nursery| {
                nursery.start_soon(async {
                    let _last = OnDrop(|| {
                        nursery.start_soon(async { Ok(()) });
                        drop(nursery.spawn(async { Ok(OnDrop(|| ())) }));
                        nursery.cancel_scope().cancel("by a destructor");
                        scope.cancel("by a destructor");
                        client.close();
                        let _ = send.try_send(1);
                        drop(send.clone());
                        done.set(done.get() + 1);
                    });
                    scope.enter(sleep_forever()).await.map(drop)
                });
                nursery.start_soon(async { receive.receive().await.map(drop).map_err(Into::into) });
                nursery.start_soon(async { server.receive().await.map(drop) });
                nursery.start_soon(async {
                    checkpoint().await?;
                    if !dropped_by_hand {
                        nursery.cancel_scope().cancel("the end");
                    }
                    Ok(())
                });
                sleep_forever().await
            }));
            if dropped_by_hand {
                poll_in_turns(&mut inner, 2).await;
                drop(inner);
            } else {
                inner.await?;
            }
            assert_eq!(done.get(), 1);
            checkpoint().await
        });
    }
}

#[test]
fn x16_a_hundred_thousand_waits_are_cancelled_at_once() {
    trio::run(async {
        let event = Event::new();
        let outcome = open_nursery(async |nursery| {
            let event = &event;
            for number in 0..100_000 {
                nursery.start_soon(async move {
                    match number % 3 {
                        0 => sleep_forever().await,
                        1 => sleep(PATIENCE).await,
                        _ => event.wait().await,
                    }
                });
            }
            checkpoint().await?;
            checkpoint().await?;
            nursery.cancel_scope().cancel("all of you");
            Ok(())
        });
        outcome.await.unwrap();
        assert_eq!(event.statistics().tasks_waiting, 0);
    });
}

#[test]
fn x16_a_hundred_thousand_tasks_may_forget_what_they_wait_in() {
    // The end of a task costs only its own waits, however many others are left: checking all of
    // them would take minutes here.
    trio::run(async {
        let event = Event::new();
        let outcome = open_nursery(async |nursery| {
            for _ in 0..100_000 {
                nursery.start_soon(async {
                    begin_and_forget(event.wait()).await;
                    checkpoint().await
                });
            }
            Ok(())
        });
        outcome.await.unwrap();
        assert_eq!(event.statistics().tasks_waiting, 0);
        event.set();
    });
}

#[test]
fn x16_a_task_takes_its_waits_back_in_any_order_and_others_go_on_with_them() {
    fn waits_of(name: &str) -> usize {
        let tree = task_tree();
        let named = tree.children.iter().filter(|task| task.name == name);
        named.map(|task| task.waiting_in.len()).sum()
    }
    trio::run(async {
        let event = Event::new();
        let taken: RefCell<Vec<Boxed<'_, ()>>> = RefCell::default();
        let (go, gone) = (Event::new(), Event::new());
        let outcome = open_nursery(async |nursery| {
            let mut begins = nursery.spawn_named("begins", async {
                let mut waits: Vec<Boxed<'_, ()>> = Vec::new();
                for _ in 0..100 {
                    let mut wait: Boxed<'_, ()> = Box::pin(event.wait());
                    begin(&mut wait).await;
                    waits.push(wait);
                }
                assert_eq!(waits_of("begins"), 100);
                // The first, the last, and some in between, in an order that looks random.
                drop((waits.pop(), waits.remove(0)));
                for step in 0..48 {
                    drop(waits.swap_remove(step * 31 % waits.len()));
                    assert_eq!(waits_of("begins"), 97 - step);
                }
                taken.borrow_mut().append(&mut waits);
                Ok(())
            });
            begins.join().await?;
            nursery.start_soon_named("goes on", async {
                let mut waits = taken.take();
                for (number, wait) in waits.iter_mut().enumerate() {
                    begin(wait).await;
                    assert_eq!(waits_of("goes on"), number + 1);
                }
                gone.set();
                go.wait().await?;
                for wait in waits {
                    wait.await?;
                }
                Ok(())
            });
            gone.wait().await?;
            assert_eq!(event.statistics().tasks_waiting, 50);
            event.set();
            go.set();
            Ok(())
        });
        outcome.await.unwrap();
    });
}
