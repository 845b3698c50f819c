//! The micro workloads on ntex, where a task that is cancelled cannot be waited for.

use kit::{Meter, Orders, yield_now};
use ntex::rt::spawn;
use ntex::time::{Millis, sleep, timeout};

pub(crate) fn run(orders: &Orders) {
    let orders = orders.clone();
    let system = ntex::rt::System::new("micro", ntex::rt::DefaultRuntime);
    system.block_on(async move { measure(&orders).await });
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
                        assert_eq!(task.await.expect("it does not panic"), n as u64);
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
                    handle.await.expect("it does not panic");
                }
                meter.did(yields * tasks);
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
                spawn(sleep(Millis(FAR + n as u32))).detach();
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

const LIMIT: Millis = Millis(10_000);
const FAR: u32 = 3_600_000;
