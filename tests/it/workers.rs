//! Many runs at once, supervised as one (WK).

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use futures::future::{Either, select};
use trio::lowlevel::{current_trio_token, spawn_system_task};
use trio::net::{Bind, TcpListener, TcpStream, serve_listeners};
use trio::testing::{Simulation, wait_all_tasks_blocked};
use trio::{
    Backend, Builder, CancelScope, CancelSource, Error, Result, Usage, Workers, backend,
    checkpoint, move_on_after, open_nursery, run_workers, sleep_forever,
};

use crate::support::{failure, oops, secs};

#[test]
fn wk1_each_worker_has_a_run_and_a_thread_of_its_own_and_all_values_come_back_in_order() {
    let shared = AtomicUsize::new(0);
    let here = thread::current().id();
    let values = run_workers(4, async |worker| {
        let local = Rc::new(Cell::new(worker.index()));
        checkpoint().await?;
        shared.fetch_add(1, Ordering::Relaxed);
        assert_eq!(worker.count(), 4);
        assert_ne!(thread::current().id(), here);
        Ok((local.get(), thread::current().id()))
    })
    .unwrap();
    assert_eq!(shared.into_inner(), 4, "workers borrow from around them");
    let numbers: Vec<usize> = values.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
    let mut threads: Vec<_> = values.into_iter().map(|(_, thread)| thread).collect();
    threads.dedup();
    assert_eq!(threads.len(), 4);
}

#[test]
fn wk2_the_first_error_cancels_the_others_and_all_errors_come_back() {
    let ready = Barrier::new(3);
    let result = run_workers(3, async |worker| {
        // All are working before one fails.
        ready.wait();
        if worker.index() == 1 {
            return oops::<()>("slipped");
        }
        let error = sleep_forever().await.expect_err("cancelled");
        let cancelled = error.as_cancelled().expect("a cancellation");
        assert_eq!(cancelled.source(), CancelSource::Nursery);
        assert_eq!(cancelled.reason(), Some("worker 1 raised slipped"));
        match worker.index() {
            0 => oops("while cleaning up"),
            _ => Err(error),
        }
    });
    assert_eq!(failure(result), "[slipped while cleaning up]");
}

#[test]
fn wk2_a_worker_that_begins_when_another_has_failed_is_cancelled_at_its_first_checkpoint() {
    let failed = Barrier::new(2);
    let result = Workers::new(2)
        .builder(|_| Builder::new())
        .run(async |worker| {
            if worker.index() == 0 {
                failed.wait();
                return oops::<()>("early");
            }
            failed.wait();
            // Whether the cancel has arrived or is on its way: nothing else ends this.
            sleep_forever().await
        });
    assert_eq!(failure(result), "[early]");
}

#[test]
fn wk2_a_run_that_cannot_begin_is_an_error_of_its_worker() {
    let workers = Workers::new(2).builder(|worker| {
        assert_eq!(worker.count(), 2);
        match worker.index() {
            0 => Builder::new().simulation(Simulation::new(1)),
            // This builder has no world.
            _ => Builder::new().backend(Backend::Simulation),
        }
    });
    let result = workers.run(async |worker| {
        if worker.index() == 0 {
            assert_eq!(backend().backend(), Backend::Simulation);
            sleep_forever().await?;
        }
        Ok(())
    });
    let error = result.expect_err("one of them cannot begin");
    assert_eq!(error.as_group().map(<[Error]>::len), Some(1));
    assert!(
        error
            .into_single()
            .is_ok_and(|error| error.is::<std::io::Error>())
    );
}

#[test]
fn wk3_a_panic_cancels_the_others_and_goes_on_when_all_have_ended() {
    let ended = AtomicUsize::new(0);
    let run = || {
        run_workers(3, async |worker| {
            if worker.index() == 2 {
                panic!("worker down");
            }
            let error = sleep_forever().await.expect_err("cancelled");
            ended.fetch_add(1, Ordering::SeqCst);
            Err::<(), _>(error)
        })
    };
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("it panics");
    assert_eq!(panic.downcast_ref(), Some(&"worker down"));
    assert_eq!(ended.into_inner(), 2);
}

#[test]
fn wk3_a_system_task_that_fails_in_a_worker_is_a_panic_of_that_worker() {
    let run = || {
        run_workers(2, async |worker| {
            if worker.index() == 0 {
                spawn_system_task(async { oops("janitor") })?;
            }
            sleep_forever().await
        })
    };
    let panic = catch_unwind(AssertUnwindSafe(|| run().is_ok())).expect_err("it panics");
    let text = panic.downcast_ref::<String>().expect("a text");
    assert_eq!(text, "a system task failed: janitor");
}

#[trio::test(backend = "all")]
async fn wk4_inside_a_run_a_cancel_from_outside_reaches_every_worker() -> Result<()> {
    let (begun, begin) = mpsc::channel();
    let cleaned = Arc::new(AtomicUsize::new(0));
    let clean = cleaned.clone();
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let workers = Workers::new(3).run_within(async move |_| {
                begun.send(()).expect("the test waits");
                let error = sleep_forever().await.expect_err("cancelled");
                let reason = error.as_cancelled().and_then(|it| it.reason());
                assert_eq!(reason, Some("stop pressed"));
                clean.fetch_add(1, Ordering::SeqCst);
                Err::<(), _>(error)
            });
            let ended = scope.enter(workers).await?;
            assert_eq!(ended, None);
            Ok(())
        });
        let all = trio::to_thread::run_sync(move || begin.iter().take(3).count());
        assert_eq!(all.await?, 3);
        scope.cancel("stop pressed");
        Ok(())
    })
    .await?;
    assert!(scope.cancelled_caught());
    assert_eq!(cleaned.load(Ordering::SeqCst), 3);
    Ok(())
}

#[trio::test]
async fn wk4_inside_a_run_values_errors_and_panics_come_back() -> Result<()> {
    let values = Workers::new(2).run_within(async |worker| Ok(worker.index()));
    assert_eq!(values.await?, [0, 1]);
    let failed = Workers::new(2).run_within(async |worker| match worker.index() {
        0 => oops::<()>("slipped"),
        _ => sleep_forever().await,
    });
    assert_eq!(failure(failed.await), "[slipped]");
    let panics = Workers::new(1).run_within(async |_| -> Result<()> { panic!("worker down") });
    let caught = futures::FutureExt::catch_unwind(AssertUnwindSafe(panics)).await;
    assert_eq!(
        caught.expect_err("it panics").downcast_ref(),
        Some(&"worker down")
    );
    // In a cancelled scope the workers do not begin.
    let scope = CancelScope::new();
    scope.cancel("");
    let never = Workers::new(1).run_within(async |_| -> Result<()> { unreachable!() });
    assert_eq!(scope.enter(never).await?, None);
    Ok(())
}

#[trio::test]
async fn wk4_a_call_that_is_dropped_cancels_its_workers_and_its_nursery_waits_for_them()
-> Result<()> {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = ended.clone();
    open_nursery(async |_| {
        let workers = Workers::new(2).run_within(async move |_| {
            let result = sleep_forever().await;
            count.fetch_add(1, Ordering::SeqCst);
            result
        });
        let turns = Box::pin(async {
            for _ in 0..3 {
                checkpoint().await?;
            }
            Ok::<(), Error>(())
        });
        let first = select(Box::pin(workers), turns).await;
        assert!(matches!(first, Either::Right(_)));
        drop(first);
        Ok(())
    })
    .await?;
    // Those that had begun have ended; one that had not begun then has not begun since.
    let now = ended.load(Ordering::SeqCst);
    assert!(now <= 2);
    for _ in 0..10 {
        checkpoint().await?;
    }
    assert_eq!(ended.load(Ordering::SeqCst), now);
    Ok(())
}

#[trio::test]
async fn wk5_a_thread_that_is_in_a_run_is_not_blocked() -> Result<()> {
    let refused = run_workers(1, async |_| Ok(()));
    let error = refused.expect_err("it would block").downcast::<Usage>();
    let text = error.expect("a mistake of the caller").to_string();
    assert!(text.ends_with("await `run_within` instead"), "{text}");
    Ok(())
}

#[test]
fn wk5_no_workers_at_all_are_refused() {
    let panic = catch_unwind(|| Workers::new(0)).expect_err("a mistake of the caller");
    let text = panic.downcast_ref::<&str>().expect("a text");
    assert_eq!(
        *text,
        "there is at least one worker: the number of them is zero"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn wk6_workers_can_be_kept_on_a_core_each() {
    let cores = Workers::per_core()
        .pinned(true)
        .stack_size(4 << 20)
        .run(async |_| {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status
                .lines()
                .find(|line| line.starts_with("Cpus_allowed_list"));
            let list = line
                .and_then(|line| line.split_whitespace().nth(1))
                .unwrap();
            Ok(list.parse::<usize>().expect("one core"))
        })
        .unwrap();
    let mut different = cores.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), cores.len(), "each has another: {cores:?}");
}

#[test]
fn wk7_workers_share_a_port_and_each_serves_its_part() {
    async fn greet(mut stream: TcpStream) -> Result<()> {
        let name = thread::current().name().unwrap_or_default().to_owned();
        trio::io::SendStream::send_all(&mut stream, name.as_bytes()).await
    }
    // A port that is free, and stays free for those who share it.
    let reserved = trio::run(async {
        let any = Bind::At((Ipv4Addr::LOCALHOST, 0).into());
        TcpListener::open_all(any, 1, true).and_then(|all| all[0].local_address())
    });
    let address: SocketAddr = reserved.unwrap();
    let ready = Barrier::new(3);
    let (tokens, all) = mpsc::channel();
    thread::scope(|threads| {
        let serving = threads.spawn(|| {
            run_workers(2, async |_| {
                let listeners = TcpListener::open_all(address.into(), 128, true)?;
                tokens.send(current_trio_token()).expect("the test waits");
                ready.wait();
                move_on_after(secs(20), serve_listeners(greet, listeners)).await
            })
        });
        ready.wait();
        let mut seen = std::collections::BTreeSet::new();
        // The kernel deals connections out by a hash of their ports.
        for _ in 0..200 {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            let mut name = String::new();
            client.write_all(b"").unwrap();
            client.read_to_string(&mut name).unwrap();
            seen.insert(name);
            if seen.len() == 2 {
                break;
            }
        }
        let names: Vec<&str> = seen.iter().map(String::as_str).collect();
        assert_eq!(names, ["worker 0", "worker 1"]);
        // When one fails, both end.
        let token = all.recv().unwrap();
        token.run_sync_soon(|| panic!("stop")).unwrap();
        let panic = serving.join().expect_err("the panic goes on");
        assert_eq!(panic.downcast_ref(), Some(&"stop"));
    });
    wait_for_nothing();
}

/// The thread of the test can have a run of its own.
fn wait_for_nothing() {
    trio::run(async { wait_all_tasks_blocked(secs(0)).await }).unwrap();
}
