//! Foreign wakers, whose code may do anything: inspect the run and what it waits for, and cancel
//! (R4).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use trio::lowlevel::{ParkingLot, current_statistics, task_tree};
use trio::net::{connect_tcp, open_tcp_listeners};
use trio::sync::{Barrier, RwLock};
use trio::testing::wait_all_tasks_blocked;
use trio::{
    CancelScope, CapacityLimiter, Event, Lock, Result, Semaphore, Time, checkpoint,
    current_effective_deadline, open_broadcast_channel, open_memory_channel, open_nursery,
    open_thread_channel, open_watch_channel, select, sleep, sleep_forever, sleep_until,
};

use crate::support::{builders, connection, on_every_driver, secs};

thread_local! {
    /// What a [`Nosy`] waker does, besides inspecting the run.
    static MEDDLE: RefCell<Rc<dyn Fn()>> = RefCell::new(Rc::new(|| ()));
    static WOKEN: Cell<u32> = const { Cell::new(0) };
    /// How many such wakers there are.
    static LIVING: Cell<u32> = const { Cell::new(0) };
}

/// A waker that meddles when it is called, and when its last clone is dropped.
struct Nosy;

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {
        WOKEN.set(WOKEN.get() + 1);
        meddle();
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        LIVING.set(LIVING.get() - 1);
        meddle();
    }
}

fn meddle() {
    assert_eq!(task_tree().name, "main");
    assert!(current_statistics().tasks_living < 100);
    let _ = current_effective_deadline();
    CancelScope::new().cancel("which nobody has entered");
    let also = MEDDLE.with_borrow(Clone::clone);
    also();
}

/// Polls once, with a waker that nobody else has.
fn poll_nosily<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    LIVING.set(LIVING.get() + 1);
    let waker = Waker::from(Arc::new(Nosy));
    future.as_mut().poll(&mut Context::from_waker(&waker))
}

/// Makes the future of `make` wait with such wakers: one that is replaced by another, one that is
/// dropped with the future, and one that is called when `trigger` makes what it waits for happen.
/// `look` is what they do besides, and inspects whatever the future waits for.
async fn check<F: Future>(
    what: &str,
    look: impl Fn() + 'static,
    make: impl Fn() -> F,
    trigger: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    MEDDLE.set(Rc::new(look));
    WOKEN.set(0);
    {
        let mut replaced = Box::pin(make());
        assert!(poll_nosily(replaced.as_mut()).is_pending(), "{what}");
        assert!(poll_nosily(replaced.as_mut()).is_pending(), "{what}");
        let polled =
            std::future::poll_fn(|own| Poll::Ready(replaced.as_mut().poll(own).is_pending()));
        assert!(polled.await, "{what}");
        assert!(poll_nosily(replaced.as_mut()).is_pending(), "{what}");
    }
    let mut woken = Box::pin(make());
    assert!(poll_nosily(woken.as_mut()).is_pending(), "{what}");
    trigger().await?;
    // It may take more than one step, and each of them needs a wake.
    loop {
        while WOKEN.replace(0) == 0 {
            sleep(Duration::from_millis(1)).await?;
        }
        if poll_nosily(woken.as_mut()).is_ready() {
            break;
        }
    }
    drop(woken);
    // An operation that was given up keeps its waker until it has ended.
    let mut patience = 1000;
    while LIVING.get() > 0 {
        assert!(patience > 0, "{what}: {} are left", LIVING.get());
        patience -= 1;
        sleep(Duration::from_millis(1)).await?;
    }
    MEDDLE.set(Rc::new(|| ()));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn r4_wakers_of_others_may_meddle_with_what_tasks_wait_for() -> Result<()> {
    check(
        "sleep",
        || (),
        || sleep(secs(9)),
        async || sleep(secs(10)).await,
    )
    .await?;
    let event = Rc::new(Event::new());
    let (own, look) = (&event, event.clone());
    let look = move || assert!(look.statistics().tasks_waiting <= 1);
    check(
        "Event",
        look,
        || own.wait(),
        async || {
            own.set();
            Ok(())
        },
    )
    .await?;

    let lock = Rc::new(Lock::new(()));
    let held = lock.try_acquire()?;
    let look = lock.clone();
    let look = move || {
        assert!(look.try_acquire().is_err());
        assert!(look.statistics().tasks_waiting <= 1);
    };
    let own = &lock;
    let release = async || {
        drop(held);
        Ok(())
    };
    check("Lock", look, || own.acquire(), release).await?;

    let semaphore = Rc::new(Semaphore::new(0));
    let (own, look) = (&semaphore, semaphore.clone());
    let look = move || assert_eq!(look.value(), 0);
    check(
        "Semaphore",
        look,
        || own.acquire(),
        async || Ok(own.release()?),
    )
    .await?;

    let limiter = Rc::new(CapacityLimiter::new(0));
    let (own, look) = (&limiter, limiter.clone());
    let look = move || assert!(!format!("{:?}", look.statistics()).is_empty());
    check(
        "CapacityLimiter",
        look,
        || own.acquire(),
        async || {
            own.set_total_tokens(1);
            Ok(())
        },
    )
    .await?;

    let rw_lock = Rc::new(RwLock::new(()));
    let reading = rw_lock.try_read()?;
    let (own, look) = (&rw_lock, rw_lock.clone());
    let look = move || assert!(!format!("{:?}", look.statistics()).is_empty());
    let release = async || {
        drop(reading);
        Ok(())
    };
    check("RwLock", look, || own.write(), release).await?;

    let lot = Rc::new(ParkingLot::new());
    let (own, look) = (&lot, lot.clone());
    let look = move || assert!(!format!("{:?}", look.statistics()).is_empty());
    check(
        "ParkingLot",
        look,
        || own.park(),
        async || {
            own.unpark_all();
            Ok(())
        },
    )
    .await?;

    let barrier = Rc::new(Barrier::new(2));
    let (own, look) = (&barrier, barrier.clone());
    let look = move || assert!(!format!("{:?}", look.statistics()).is_empty());
    check(
        "Barrier",
        look,
        || own.wait(),
        async || own.wait().await.map(drop),
    )
    .await
}

/// Makes such wakers wait in a channel for values of one kind, which `$open` opens: in a receive,
/// in a send, and in a choice.
macro_rules! meddle_with {
    ($open:ident) => {
        let (send, receive) = $open(1);
        let receive = Rc::new(receive);
        let own = &receive;
        let look = || {
            let end = receive.clone();
            move || {
                let other = (*end).clone();
                assert!(other.statistics().open_receive_channels > 1);
            }
        };
        let give = async || Ok(send.try_send(1)?);
        check("receive", look(), || own.receive(), give).await?;
        send.try_send(1)?;
        let take = async || Ok(own.try_receive().map(drop)?);
        check("send", look(), || send.send(2), take).await?;
        own.try_receive()?;
        let (_never, silent) = $open::<()>(1);
        let choose = || select((own.receive(), silent.receive(), sleep_until(Time::NEVER)));
        check("select", look(), choose, give).await?;
    };
}

#[trio::test(clock = "autojump")]
async fn r4_wakers_of_others_may_meddle_with_channels() -> Result<()> {
    meddle_with!(open_memory_channel);
    meddle_with!(open_thread_channel);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn r4_wakers_of_others_may_meddle_with_broadcasts_and_watches() -> Result<()> {
    let (level, gauge) = open_watch_channel(0);
    let level = Rc::new(level);
    let look = level.clone();
    let look = move || assert!(!format!("{:?}", look.statistics()).is_empty());
    let changed = || {
        let mut gauge = gauge.clone();
        async move { gauge.changed().await.map(drop) }
    };
    check("watch", look, changed, async || {
        level.send(1);
        Ok(())
    })
    .await?;

    let (send, mut receive) = open_broadcast_channel(1);
    let send = Rc::new(send);
    let look = send.clone();
    let look = move || assert!(!format!("{:?}", look.statistics()).is_empty());
    let receiving = || {
        let mut receive = send.subscribe();
        async move { receive.receive().await.map(drop) }
    };
    check("broadcast", look, receiving, async || {
        send.send(1).await?;
        Ok(())
    })
    .await?;
    assert_eq!(receive.receive().await?, 1);
    Ok(())
}

#[test]
fn r4_wakers_of_others_may_meddle_with_streams() {
    on_every_driver(|| async {
        let listeners = open_tcp_listeners((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listeners[0].local_address()?;
        let connecting = RefCell::new(None);
        let accept = || listeners[0].accept();
        check(
            "accept",
            || (),
            accept,
            async || {
                *connecting.borrow_mut() = Some(connect_tcp(address).await?);
                Ok(())
            },
        )
        .await?;
        let (here, there) = connection().await?;
        check(
            "receive",
            || (),
            || here.receive(),
            async || there.send_all(b"x".as_slice()).await,
        )
        .await
    });
}

#[trio::test(clock = "autojump")]
async fn r4_wakers_of_others_may_meddle_with_nurseries() -> Result<()> {
    let go = Rc::new(Event::new());
    let in_a_nursery = || {
        let go = go.clone();
        async move {
            open_nursery(async |nursery| {
                nursery.start_soon(async { go.wait().await });
                Ok(())
            })
            .await
        }
    };
    check(
        "a nursery",
        || (),
        in_a_nursery,
        async || {
            go.set();
            Ok(())
        },
    )
    .await?;
    let scope = CancelScope::new();
    let again = scope.clone();
    let cancelled = || {
        let scope = CancelScope::new();
        *LATEST.with(Rc::clone).borrow_mut() = Some(scope.clone());
        async move { scope.enter(sleep_forever()).await }
    };
    // A task that is woken by a cancel may cancel.
    let look = move || again.cancel("again");
    check("a scope", look, cancelled, async || {
        let latest = LATEST.with(Rc::clone).borrow_mut().take();
        latest.expect("it was made").cancel("now");
        Ok(())
    })
    .await?;
    wait_all_tasks_blocked(Duration::ZERO).await?;
    checkpoint().await
}

#[trio::test]
async fn r4_a_nursery_lets_go_of_a_waker_when_another_has_come_in_its_place() -> Result<()> {
    let nursery = open_nursery(async |nursery| {
        nursery.start_soon(sleep_forever());
        sleep_forever().await
    });
    let mut nursery = Box::pin(nursery);
    LIVING.set(0);
    assert!(poll_nosily(nursery.as_mut()).is_pending());
    assert_eq!(LIVING.get(), 1, "it is to be called");
    // This one does nothing, as if there was no waker.
    let mut context = Context::from_waker(Waker::noop());
    assert!(nursery.as_mut().poll(&mut context).is_pending());
    // What it was called for before is over by then.
    checkpoint().await?;
    assert_eq!(LIVING.get(), 0);
    Ok(())
}

thread_local! {
    /// The scope that was made last.
    static LATEST: Rc<RefCell<Option<CancelScope>>> = Rc::default();
}

/// Inspects the run when it is dropped.
struct Curious;

impl Drop for Curious {
    fn drop(&mut self) {
        meddle();
        assert!(trio::current_time() > Time::PAST);
        assert!(!trio::is_draining());
    }
}

#[test]
fn r4_what_goes_with_a_run_may_look_at_it() {
    static VALUE: trio::lowlevel::RunVar<Rc<Curious>> = trio::lowlevel::RunVar::new("curious");
    for (name, builder) in builders() {
        let mut waiting = Box::pin(trio::move_on_after(secs(9), sleep_forever()));
        builder.run(async {
            VALUE.set(Rc::new(Curious));
            assert!(poll_nosily(waiting.as_mut()).is_pending());
        });
        assert_eq!(LIVING.get(), 0, "on {name} the run has let go of the waker");
        drop(waiting);
    }
}
