//! The micro workloads on smol.

use std::time::Duration;

use futures_lite::FutureExt;
use futures_lite::future::{pending, yield_now};
use kit::{Meter, Orders};
use smol::{LocalExecutor, Timer};

pub(crate) fn run(orders: &Orders) {
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        let mut meter = Meter::new(orders, "epoll");
        let tasks = orders.number("tasks", 1) as u64;
        match orders.text("case") {
            "spawn" => {
                let mut started = Vec::new();
                while let Some(count) = meter.next_batch() {
                    let groups = count.div_ceil(tasks);
                    for _ in 0..groups {
                        started.extend((0..tasks).map(|n| executor.spawn(async move { n })));
                        for (n, task) in started.drain(..).enumerate() {
                            assert_eq!(task.await, n as u64);
                        }
                    }
                    meter.did(groups * tasks);
                }
            }
            "cancel" => {
                let mut started = Vec::new();
                while let Some(count) = meter.next_batch() {
                    let groups = count.div_ceil(tasks);
                    for _ in 0..groups {
                        started.extend((0..tasks).map(|_| executor.spawn(pending::<()>())));
                        yield_now().await;
                        for task in started.drain(..) {
                            assert!(task.cancel().await.is_none());
                        }
                    }
                    meter.did(groups * tasks);
                }
            }
            "yield" => {
                while let Some(count) = meter.next_batch() {
                    let yields = count.div_ceil(tasks);
                    let task = || async move {
                        for _ in 0..yields {
                            yield_now().await;
                        }
                    };
                    let started: Vec<_> = (0..tasks).map(|_| executor.spawn(task())).collect();
                    for task in started {
                        task.await;
                    }
                    meter.did(yields * tasks);
                }
            }
            "channel" => {
                while let Some(count) = meter.next_batch() {
                    let (send, receive) = smol::channel::bounded(64);
                    let sender = executor.spawn(async move {
                        for n in 0..count {
                            send.send(n).await.expect("somebody receives");
                        }
                    });
                    for n in 0..count {
                        assert_eq!(receive.recv().await, Ok(n));
                    }
                    sender.await;
                }
            }
            "timeout" => {
                while let Some(count) = meter.next_batch() {
                    for n in 0..count {
                        assert_eq!(timeout(async { Some(n) }).await, Some(n));
                    }
                }
            }
            "timers" => {
                for n in 0..tasks {
                    let far = FAR + Duration::from_millis(n);
                    executor
                        .spawn(async move { Timer::after(far).await })
                        .detach();
                }
                yield_now().await;
                while let Some(count) = meter.next_batch() {
                    for n in 0..count {
                        let later = async {
                            yield_now().await;
                            Some(n)
                        };
                        assert_eq!(timeout(later).await, Some(n));
                    }
                }
            }
            case => orders.refuse(&format!("which has no case `{case}`")),
        }
        meter.finish();
    }));
    // The tasks that are still asleep need not be woken.
    std::process::exit(0);
}

/// As the documentation of async-io does it.
async fn timeout<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
    future
        .or(async {
            Timer::after(Duration::from_secs(10)).await;
            None
        })
        .await
}

const FAR: Duration = Duration::from_secs(3600);
