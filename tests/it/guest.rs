//! Runs as guests on foreign loops (U).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use trio::lowlevel::{
    current_root_task, current_trio_token, in_run, in_task, spawn_system_task_named,
};
use trio::net::{TcpStream, connect_tcp, open_tcp_listeners, serve_listeners};
use trio::testing::{Clock, MockClock, Simulation, wait_all_tasks_blocked};
use trio::{
    Backend, Builder, CancelScope, Error, Event, GuestRun, Host, HostCall, Result, Time,
    checkpoint, current_time, fail_after, move_on_after, open_memory_channel, open_nursery, sleep,
    sleep_forever, to_thread,
};

use crate::support::{failure, foreign_thread, oops, secs};

/// Longer than anything here takes, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// The smallest host: a queue of calls, and the thread that makes them.
struct Loop {
    send: mpsc::Sender<HostCall>,
    calls: mpsc::Receiver<HostCall>,
}

impl Loop {
    fn new() -> Self {
        let (send, calls) = mpsc::channel();
        Self { send, calls }
    }

    fn host(&self) -> impl Host + use<> {
        let send = self.send.clone();
        move |call| drop(send.send(call))
    }

    fn start<F: Future + 'static>(&self, builder: Builder, main: F) -> Started<F::Output> {
        let outcome = Rc::new(Cell::new(None));
        let seen = outcome.clone();
        let done = move |output| outcome.set(Some(output));
        let guest = builder.start_guest_run(main, self.host(), done).unwrap();
        Started { guest, seen }
    }

    /// Makes calls until there are none: then the guest has ended, or a thread waits for it.
    fn until_it_waits(&self) {
        while let Ok(call) = self.calls.try_recv() {
            call();
        }
    }

    #[track_caller]
    fn to_the_end<T>(&self, started: Started<T>) -> thread::Result<T> {
        while !started.guest.is_finished() {
            let call = self.calls.recv_timeout(PATIENCE);
            call.expect("the guest has not ended, and nothing wakes it")();
        }
        assert!(!in_run(), "the thread has left the run");
        started.seen.take().unwrap()
    }
}

struct Started<T> {
    guest: GuestRun,
    seen: Rc<Cell<Option<thread::Result<T>>>>,
}

fn real_builders() -> [Builder; 2] {
    [Backend::IoUring, Backend::Polling].map(|backend| Builder::new().backend(backend))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned
        .or_else(|| panic.downcast_ref().copied())
        .unwrap_or("no text")
}

/// A program with some of everything: TCP, a timeout, a cancel, a thread, and sleep.
async fn program() -> Result<usize> {
    async fn echo(stream: TcpStream) -> Result<()> {
        while let Some(data) = stream.receive().await? {
            stream.send_all(data).await?;
        }
        Ok(())
    }
    let listeners = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listeners[0].local_address()?;
    let count = Cell::new(0);
    open_nursery(async |nursery| {
        nursery.start_soon(serve_listeners(echo, listeners));
        open_nursery(async |clients| {
            for client in 0..4_u8 {
                let count = &count;
                clients.start_soon(async move {
                    let stream = connect_tcp(address).await?;
                    for message in 0..20_u8 {
                        stream.send_all(&[client, message]).await?;
                        let mut back = Vec::new();
                        while back.len() < 2 {
                            let data = fail_after(PATIENCE, stream.receive()).await?;
                            back.extend_from_slice(&data.unwrap());
                        }
                        assert_eq!(back, [client, message]);
                        count.set(count.get() + 1);
                    }
                    let late = move_on_after(Duration::from_millis(2), stream.receive()).await?;
                    assert!(late.is_none(), "nobody has sent anything");
                    let scope = CancelScope::new();
                    scope.cancel("enough");
                    assert!(scope.enter(stream.receive()).await?.is_none());
                    Ok(())
                });
            }
            Ok(())
        })
        .await?;
        sleep(Duration::from_millis(2)).await?;
        assert_eq!(to_thread::run_sync(|| 7).await?, 7);
        nursery.cancel_scope().cancel("done");
        Ok(())
    })
    .await?;
    Ok(count.get())
}

#[test]
fn u1_every_turn_is_a_call_of_the_host() {
    for builder in real_builders() {
        let host = Loop::new();
        let main = async {
            for _ in 0..3 {
                checkpoint().await?;
            }
            Ok::<_, Error>("ok")
        };
        let started = host.start(builder, main);
        let outcome = host.to_the_end(started).unwrap();
        assert_eq!(outcome.unwrap(), "ok");
    }
    let host = Loop::new();
    let started = host.start(Builder::new(), async { oops::<()>("its own") });
    assert_eq!(failure(host.to_the_end(started).unwrap()), "its own");
}

#[test]
fn u1_a_whole_program_runs_on_a_loop_written_by_hand() {
    for builder in real_builders() {
        let host = Loop::new();
        let started = host.start(builder, program());
        assert_eq!(host.to_the_end(started).unwrap().unwrap(), 80);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn u1_a_guest_waits_for_an_event_descriptor_of_the_users() {
    use rustix::event::{EventfdFlags, eventfd};
    use trio::lowlevel::{Descriptor, Interest, Ready, submit};
    for builder in real_builders() {
        let host = Loop::new();
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let watched = Descriptor::from_file(event.try_clone().unwrap());
        let read = event.clone();
        let rounds = Rc::new(Cell::new(0));
        let count = rounds.clone();
        let started = host.start(builder, async move {
            while count.get() < 5 {
                let ready = Ready::new(watched.clone(), Interest::Readable);
                submit(ready).await?.into_ready()?;
                rustix::io::read(&*read, &mut [0; 8]).unwrap();
                count.set(count.get() + 1);
            }
            Ok::<_, Error>(())
        });
        for round in 0..5 {
            while rounds.get() < round {
                let call = host.calls.recv_timeout(PATIENCE);
                call.unwrap_or_else(|_| panic!("round {round}"))();
            }
            host.until_it_waits();
            rustix::io::write(&*event, &1_u64.to_ne_bytes()).unwrap();
        }
        host.to_the_end(started).unwrap().unwrap();
    }
}

/// A host on tokio, whose tasks make the calls.
struct Tokio(UnboundedSender<HostCall>);

impl Host for Tokio {
    fn run_sync_soon_threadsafe(&self, call: HostCall) {
        drop(self.0.unbounded_send(call));
    }

    fn run_sync_soon_not_threadsafe(&self, call: HostCall) {
        drop(tokio::task::spawn_local(async move { call() }));
    }
}

/// Runs `main` on a tokio loop, next to `beside`.
fn on_tokio<F: Future + 'static>(
    builder: Builder,
    main: F,
    beside: impl Future<Output = ()> + 'static,
) -> thread::Result<F::Output> {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&tokio, async {
        let (send, mut calls) = unbounded::<HostCall>();
        drop(tokio::task::spawn_local(async move {
            while let Some(call) = calls.next().await {
                call();
            }
        }));
        let (done, outcome) = futures::channel::oneshot::channel();
        let done = move |output| drop(done.send(output));
        let guest = builder.start_guest_run(main, Tokio(send), done).unwrap();
        let beside = tokio::task::spawn_local(beside);
        let output = outcome.await.unwrap();
        beside.await.unwrap();
        assert!(guest.is_finished());
        output
    })
}

#[test]
fn u1_a_whole_program_runs_on_tokio() {
    for builder in real_builders() {
        let outcome = on_tokio(builder, program(), async {});
        assert_eq!(outcome.unwrap().unwrap(), 80);
    }
}

#[test]
fn u3_a_guest_plays_ping_pong_with_tasks_of_tokio() {
    for builder in real_builders() {
        let (to_trio, from_tokio) = open_memory_channel(1);
        let (to_tokio, mut from_trio) = unbounded();
        let main = async move {
            let mut last = 0;
            while last < 50 {
                to_tokio.unbounded_send(last).unwrap();
                last = from_tokio.receive().await?;
            }
            Ok::<_, Error>(last)
        };
        let player = async move {
            while let Some(number) = from_trio.next().await {
                to_trio.try_send(number + 1).unwrap();
            }
        };
        assert_eq!(on_tokio(builder, main, player).unwrap().unwrap(), 50);
    }
}

/// A host that counts the calls from other threads.
struct Counting {
    send: mpsc::Sender<HostCall>,
    elsewhere: Arc<AtomicUsize>,
    home: thread::ThreadId,
}

impl Counting {
    fn new(host: &Loop) -> Self {
        Self {
            send: host.send.clone(),
            elsewhere: Arc::new(AtomicUsize::new(0)),
            home: thread::current().id(),
        }
    }
}

impl Host for Counting {
    fn run_sync_soon_threadsafe(&self, call: HostCall) {
        assert_ne!(thread::current().id(), self.home);
        self.elsewhere.fetch_add(1, Ordering::SeqCst);
        self.send.send(call).ok();
    }

    fn run_sync_soon_not_threadsafe(&self, call: HostCall) {
        assert_eq!(thread::current().id(), self.home);
        self.send.send(call).ok();
    }
}

#[test]
fn u1_only_a_wait_goes_to_another_thread() {
    for builder in real_builders() {
        let host = Loop::new();
        let counting = Counting::new(&host);
        let waits = counting.elsewhere.clone();
        let seen = waits.clone();
        let main = async move {
            for _ in 0..50 {
                checkpoint().await.unwrap();
            }
            assert_eq!(
                seen.load(Ordering::SeqCst),
                0,
                "a task was ready all the time"
            );
            // If a busy machine lets a sleep pass before the run can wait for it, no thread is
            // needed.
            let mut sleeps = 0;
            while seen.load(Ordering::SeqCst) == 0 && sleeps < 1_000 {
                sleep(Duration::from_millis(1)).await.unwrap();
                sleeps += 1;
            }
        };
        let guest = builder.start_guest_run(main, counting, |_| ()).unwrap();
        while !guest.is_finished() {
            host.calls.recv_timeout(PATIENCE).unwrap()();
        }
        assert_ne!(waits.load(Ordering::SeqCst), 0, "it has slept");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn u1_no_thread_waits_for_what_is_there_or_due() {
    use rustix::event::{EventfdFlags, eventfd};
    use trio::lowlevel::{Descriptor, Interest, Ready, submit};
    for builder in real_builders() {
        let host = Loop::new();
        let counting = Counting::new(&host);
        let waits = counting.elsewhere.clone();
        let clock = MockClock::new();
        let builder = builder.clock(clock.clone());
        let main = async move {
            // One check finds it.
            let there = Descriptor::from_file(eventfd(1, EventfdFlags::CLOEXEC).unwrap());
            for _ in 0..20 {
                let ready = Ready::new(there.clone(), Interest::Readable);
                submit(ready).await?.into_ready()?;
            }
            // All tasks wait, and a deadline has passed.
            for _ in 0..20 {
                let event = Event::new();
                open_nursery(async |nursery| {
                    nursery.start_soon(async {
                        sleep(secs(10)).await?;
                        event.set();
                        Ok(())
                    });
                    checkpoint().await?;
                    checkpoint().await?;
                    clock.jump(secs(10));
                    event.wait().await
                })
                .await?;
            }
            Ok::<_, Error>(())
        };
        let (told, outcome) = mpsc::channel();
        let done = move |outcome| told.send(outcome).unwrap();
        let guest = builder.start_guest_run(main, counting, done).unwrap();
        while !guest.is_finished() {
            host.calls.recv_timeout(PATIENCE).unwrap()();
        }
        outcome.recv().unwrap().unwrap().unwrap();
        assert_eq!(waits.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn u2_the_run_has_begun_when_start_returns_and_no_task_has() {
    let host = Loop::new();
    let order = Rc::new(RefCell::new(Vec::new()));
    let (mains, systems) = (order.clone(), order.clone());
    let started = host.start(Builder::new(), async move {
        mains.borrow_mut().push("main");
        checkpoint().await.unwrap();
        checkpoint().await.unwrap();
    });
    assert!(order.borrow().is_empty());
    assert!(current_time() > Time::PAST);
    spawn_system_task_named("early", async move {
        systems.borrow_mut().push("system");
        Ok(())
    })
    .unwrap();
    let names: Vec<String> = current_root_task()
        .children
        .into_iter()
        .map(|task| task.name)
        .collect();
    assert_eq!(names, ["main", "early"]);
    let called = Arc::new(AtomicUsize::new(0));
    let calls = called.clone();
    let token = current_trio_token();
    let count = move || {
        calls.fetch_add(1, Ordering::SeqCst);
    };
    token.run_sync_soon(count).unwrap();
    assert!(order.borrow().is_empty() && called.load(Ordering::SeqCst) == 0);
    host.to_the_end(started).unwrap();
    assert_eq!(*order.borrow(), ["main", "system"]);
    assert_eq!(called.load(Ordering::SeqCst), 1);
    assert!(token.is_finished());
}

#[test]
fn x4_the_thread_of_a_guest_is_in_no_other_run() {
    for builder in real_builders() {
        let host = Loop::new();
        let asked = Rc::new(Event::new());
        let end = asked.clone();
        let started = host.start(builder, async move { end.wait().await });
        host.until_it_waits();
        let second = Builder::new().start_guest_run(async {}, host.host(), drop);
        assert!(second.is_err(), "what waits in one is polled in that one");
        assert!(Builder::new().try_run(async {}).is_err());
        asked.set();
        host.to_the_end(started).unwrap().unwrap();
    }
}

#[test]
fn u2_what_keeps_a_guest_from_beginning_is_returned() {
    let begin = |builder: Builder| {
        let done = |_| panic!("a run that has not begun has no outcome");
        builder.start_guest_run(async {}, |_| panic!("nor calls"), done)
    };
    let error = begin(Builder::new().simulation(Simulation::new(1))).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    assert!(!in_run());
    let inside = trio::run(async move { begin(Builder::new()).unwrap_err().to_string() });
    assert!(inside.contains("from inside a run"), "{inside}");
}

#[test]
fn u3_an_event_that_the_host_sets_wakes_the_guest() {
    for builder in real_builders() {
        let host = Loop::new();
        let event = Rc::new(Event::new());
        let awaited = event.clone();
        let started = host.start(builder, async move { awaited.wait().await.is_ok() });
        host.until_it_waits();
        event.set();
        assert!(host.to_the_end(started).unwrap());
    }
}

#[test]
fn u3_a_scope_that_the_host_cancels_ends_what_is_in_it() {
    for builder in real_builders() {
        let host = Loop::new();
        let scope = CancelScope::new();
        let entered = scope.clone();
        // One waits in the kernel, one nowhere.
        let started = host.start(builder, async move {
            let listeners = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await?;
            let address = listeners[0].local_address()?;
            let stream = connect_tcp(address).await?;
            let both = open_nursery(async |nursery| {
                nursery.start_soon(async { stream.receive().await.map(drop) });
                sleep_forever().await
            });
            entered.enter(both).await.map(|ended| ended.is_none())
        });
        host.until_it_waits();
        scope.cancel("by the host");
        assert!(host.to_the_end(started).unwrap().unwrap());
        assert_eq!(scope.cancellation().unwrap().source_task(), None);
    }
}

#[test]
fn u3_a_deadline_that_the_host_moves_takes_effect() {
    for builder in real_builders() {
        let host = Loop::new();
        let scope = CancelScope::new();
        let entered = scope.clone();
        let started = host.start(builder, async move {
            entered
                .enter(sleep_forever())
                .await
                .map(|ended| ended.is_none())
        });
        host.until_it_waits();
        scope.set_timeout(secs(3600));
        host.until_it_waits();
        scope.set_deadline(Time::PAST);
        assert!(host.to_the_end(started).unwrap().unwrap());
    }
}

#[test]
fn u3_other_threads_wake_a_guest() {
    for builder in real_builders() {
        let host = Loop::new();
        let event = Rc::new(Event::new());
        let awaited = event.clone();
        let started = host.start(builder, async move {
            let token = current_trio_token();
            spawn_system_task_named("setter", async move {
                to_thread::run_sync(|| ()).await?;
                awaited.set();
                Ok(())
            })
            .unwrap();
            (event.wait().await.is_ok(), token)
        });
        host.until_it_waits();
        let (woken, token) = host.to_the_end(started).unwrap();
        assert!(woken && token.is_finished());
    }
}

#[test]
fn u3_a_clock_that_the_host_sets_moves_on() {
    let host = Loop::new();
    let clock = MockClock::new();
    let started = host.start(Builder::new().clock(clock.clone()), async move {
        let before = current_time();
        sleep(secs(10)).await.unwrap();
        sleep(secs(3600)).await.unwrap();
        current_time() - before
    });
    host.until_it_waits();
    clock.jump(secs(10));
    host.until_it_waits();
    clock.set_autojump_threshold(Some(Duration::ZERO));
    assert_eq!(host.to_the_end(started).unwrap(), secs(3610));
}

#[test]
fn u3_a_wake_is_no_time_in_which_nothing_happens() {
    for builder in real_builders() {
        let host = Loop::new();
        let clock = MockClock::new();
        clock.set_autojump_threshold(Some(secs(3600)));
        let scope = CancelScope::new();
        let (entered, jumps) = (scope.clone(), clock.clone());
        let started = host.start(builder.clock(clock.clone()), async move {
            entered
                .enter(wait_all_tasks_blocked(secs(3600)))
                .await
                .map(|ended| ended.is_none())
        });
        let begin = jumps.now();
        host.until_it_waits();
        for round in 0..20 {
            // It changes nothing, but the thread that waits cannot know that.
            scope.set_timeout(secs(7200));
            let woken = host
                .calls
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("round {round}: it is not woken"));
            woken();
            host.until_it_waits();
        }
        assert_eq!(jumps.now(), begin);
        assert!(!started.guest.is_finished());
        scope.cancel("seen enough");
        assert!(host.to_the_end(started).unwrap().unwrap());
    }
}

#[test]
fn u4_the_code_of_the_host_is_in_the_run_and_in_no_task() {
    let host = Loop::new();
    assert!(!in_run());
    let event = Rc::new(Event::new());
    let awaited = event.clone();
    let started = host.start(Builder::new(), async move {
        assert!(in_run() && in_task());
        awaited.wait().await.unwrap();
        assert!(in_run() && in_task());
    });
    assert!(in_run() && !in_task());
    host.until_it_waits();
    assert!(in_run() && !in_task());
    event.set();
    host.to_the_end(started).unwrap();
    assert!(!in_run() && !in_task());
}

#[test]
fn u5_a_panic_of_a_task_is_the_outcome() {
    let host = Loop::new();
    let started = host.start(Builder::new(), async {
        checkpoint().await.unwrap();
        panic!("in the main task");
    });
    let outcome: thread::Result<()> = host.to_the_end(started);
    assert_eq!(text(&*outcome.unwrap_err()), "in the main task");

    let started = host.start(Builder::new(), sleep_forever());
    spawn_system_task_named("faulty", async { oops("of its own") }).unwrap();
    let outcome = host.to_the_end(started);
    assert!(text(&*outcome.unwrap_err()).contains("a system task failed"));
}

#[test]
fn u5_a_panic_of_the_loop_is_the_outcome() {
    struct Broken(MockClock);
    impl Clock for Broken {
        fn now(&self) -> Time {
            self.0.now()
        }
        fn wait_until(&self, _deadline: Time) -> Duration {
            panic!("a clock that is broken")
        }
    }
    struct OnDrop(Rc<Cell<bool>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let host = Loop::new();
    let dropped = Rc::new(Cell::new(false));
    let held = OnDrop(dropped.clone());
    let builder = Builder::new().clock(Broken(MockClock::new()));
    let started = host.start(builder, async move {
        sleep(secs(1)).await.unwrap();
        drop(held);
    });
    let outcome = host.to_the_end(started);
    assert_eq!(text(&*outcome.unwrap_err()), "a clock that is broken");
    assert!(dropped.get(), "the tasks have been dropped");
    assert_eq!(trio::run(async { 1 }), 1, "the thread may have another run");
}

#[test]
fn u6_a_guest_that_is_dropped_takes_its_tasks_along() {
    struct OnDrop(Rc<Cell<bool>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    for builder in real_builders() {
        let host = Loop::new();
        let dropped = Rc::new(Cell::new(false));
        let held = OnDrop(dropped.clone());
        let main = async move {
            let listeners = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            listeners[0].accept().await.map(drop).ok();
            drop(held);
        };
        let called = Rc::new(Cell::new(false));
        let flag = called.clone();
        let done = move |_| flag.set(true);
        let guest = builder.start_guest_run(main, host.host(), done).unwrap();
        host.until_it_waits();
        assert!(in_run() && !dropped.get());
        drop(guest);
        assert!(!in_run() && dropped.get() && !called.get());
        // The thread that has waited still reports; that call is one too many, and does nothing.
        let late = host.calls.recv_timeout(PATIENCE).unwrap();
        assert_eq!(trio::run(async { 7 }), 7);
        late();
        assert!(!in_run() && !called.get());
    }
}

#[test]
fn u6_a_host_that_has_gone_leaves_a_guest_that_can_be_dropped() {
    let host = Loop::new();
    let main = sleep_forever();
    let guest = Builder::new()
        .start_guest_run(main, host.host(), |_| ())
        .unwrap();
    drop(host);
    assert!(!guest.is_finished());
    drop(guest);
    assert!(!in_run());
}

#[test]
fn u6_a_call_that_is_made_on_another_thread_is_refused() {
    let host = Loop::new();
    let started = host.start(Builder::new(), async { 5 });
    let call = host.calls.try_recv().unwrap();
    let refused = foreign_thread(move || catch_unwind(AssertUnwindSafe(call)).unwrap_err());
    let panic = refused.join().unwrap();
    assert!(text(&*panic).contains("on the thread where the guest run was started"));
    drop(started);
}
