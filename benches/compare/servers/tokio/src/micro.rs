//! The micro workloads on tokio.

use std::time::Duration;

use kit::{Meter, Orders};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

pub(crate) fn run(orders: &Orders) {
    crate::runtime().block_on(measure(orders));
    // The tasks that are still asleep need not be woken.
    std::process::exit(0);
}

async fn measure(orders: &Orders) {
    let mut meter = Meter::new(orders, "epoll");
    let tasks = orders.number("tasks", 1) as u64;
    match orders.text("case") {
        "spawn" => {
            let mut started = Vec::new();
            while let Some(count) = meter.next_batch() {
                let groups = count.div_ceil(tasks);
                for _ in 0..groups {
                    started.extend((0..tasks).map(|n| tokio::spawn(async move { n })));
                    for (n, task) in started.drain(..).enumerate() {
                        assert_eq!(task.await.expect("it does not panic"), n as u64);
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
                    started.extend((0..tasks).map(|_| tokio::spawn(std::future::pending::<()>())));
                    yield_now().await;
                    for task in &started {
                        task.abort();
                    }
                    for task in started.drain(..) {
                        assert!(task.await.is_err_and(|error| error.is_cancelled()));
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
                let handles: Vec<_> = (0..tasks).map(|_| tokio::spawn(task())).collect();
                for handle in handles {
                    handle.await.expect("it does not panic");
                }
                meter.did(yields * tasks);
            }
        }
        "channel" => {
            while let Some(count) = meter.next_batch() {
                let (send, mut receive) = tokio::sync::mpsc::channel(64);
                let sender = tokio::spawn(async move {
                    for n in 0..count {
                        send.send(n).await.expect("somebody receives");
                    }
                });
                for n in 0..count {
                    assert_eq!(receive.recv().await, Some(n));
                }
                sender.await.expect("it does not panic");
            }
        }
        "timeout" => {
            while let Some(count) = meter.next_batch() {
                for n in 0..count {
                    assert_eq!(timeout(LIMIT, async { n }).await.ok(), Some(n));
                }
            }
        }
        "timers" => {
            for n in 0..tasks {
                tokio::spawn(sleep(FAR + Duration::from_millis(n)));
            }
            yield_now().await;
            while let Some(count) = meter.next_batch() {
                for n in 0..count {
                    let later = async {
                        yield_now().await;
                        n
                    };
                    assert_eq!(timeout(LIMIT, later).await.ok(), Some(n));
                }
            }
        }
        case => orders.refuse(&format!("which has no case `{case}`")),
    }
    meter.finish();
}

const LIMIT: Duration = Duration::from_secs(10);
const FAR: Duration = Duration::from_secs(3600);
