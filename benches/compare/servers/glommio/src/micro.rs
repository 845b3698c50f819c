//! The micro workloads on glommio.

use std::time::Duration;

use glommio::spawn_local as spawn;
use glommio::timer::{sleep, timeout};
use kit::{Meter, Orders, yield_now};

pub(crate) fn run(orders: &Orders) {
    crate::executor().run(measure(orders));
    // The tasks that are still asleep need not be woken.
    std::process::exit(0);
}

async fn measure(orders: &Orders) {
    let mut meter = Meter::new(orders, "io_uring");
    let tasks = orders.number("tasks", 1) as u64;
    match orders.text("case") {
        "spawn" => {
            let mut started = Vec::new();
            while let Some(count) = meter.next_batch() {
                let groups = count.div_ceil(tasks);
                for _ in 0..groups {
                    started.extend((0..tasks).map(|n| spawn(async move { n })));
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
                    started.extend((0..tasks).map(|_| spawn(std::future::pending::<()>())));
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
                let handles: Vec<_> = (0..tasks).map(|_| spawn(task())).collect();
                for handle in handles {
                    handle.await;
                }
                meter.did(yields * tasks);
            }
        }
        "timeout" => {
            while let Some(count) = meter.next_batch() {
                for n in 0..count {
                    assert_eq!(timeout(LIMIT, async { Ok(n) }).await.ok(), Some(n));
                }
            }
        }
        "timers" => {
            for n in 0..tasks {
                spawn(sleep(FAR + Duration::from_millis(n))).detach();
            }
            yield_now().await;
            while let Some(count) = meter.next_batch() {
                for n in 0..count {
                    let later = async {
                        yield_now().await;
                        Ok(n)
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
