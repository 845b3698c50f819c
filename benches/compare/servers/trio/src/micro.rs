//! The micro workloads on trio.

use std::time::Duration;

use kit::{Meter, Orders};
use trio::{
    ChildState, Nursery, Result, checkpoint, fail_after, open_memory_channel, open_nursery, sleep,
    sleep_forever,
};

pub(crate) fn run(orders: &Orders) {
    let result = crate::builder(orders).run(async {
        open_nursery(async |nursery| {
            measure(orders, nursery).await?;
            // The tasks that are still asleep need not be woken.
            std::process::exit(0)
        })
        .await
    });
    let () = result.expect("nothing fails");
}

async fn measure<'scope, 'env: 'scope>(
    orders: &Orders,
    nursery: &'scope Nursery<'scope, 'env>,
) -> Result<()> {
    let mut meter = Meter::new(orders, &trio::backend().to_string());
    let tasks = orders.number("tasks", 1) as u64;
    match orders.text("case") {
        "spawn" => {
            let mut started = Vec::new();
            while let Some(count) = meter.next_batch() {
                let groups = count.div_ceil(tasks);
                for _ in 0..groups {
                    started.extend((0..tasks).map(|n| nursery.spawn(async move { Ok(n) })));
                    for (n, mut task) in started.drain(..).enumerate() {
                        assert_eq!(task.join().await?, n as u64);
                    }
                }
                meter.did(groups * tasks);
            }
        }
        "cancel" => {
            // Through the handle of the task, as on the other runtimes; a scope of its own is not
            // needed.
            let mut started = Vec::new();
            while let Some(count) = meter.next_batch() {
                let groups = count.div_ceil(tasks);
                for _ in 0..groups {
                    started.extend((0..tasks).map(|_| nursery.spawn(sleep_forever())));
                    checkpoint().await?;
                    for task in &started {
                        task.cancel("enough");
                    }
                    for mut task in started.drain(..) {
                        assert_eq!(task.wait().await?, ChildState::Cancelled);
                    }
                }
                meter.did(groups * tasks);
            }
        }
        "yield" => {
            while let Some(count) = meter.next_batch() {
                let yields = count.div_ceil(tasks);
                open_nursery(async |nursery| {
                    for _ in 0..tasks {
                        nursery.start_soon(async move {
                            for _ in 0..yields {
                                checkpoint().await?;
                            }
                            Ok(())
                        });
                    }
                    Ok(())
                })
                .await?;
                meter.did(yields * tasks);
            }
        }
        "channel" => {
            while let Some(count) = meter.next_batch() {
                let (send, receive) = open_memory_channel(64);
                let mut sender = nursery.spawn(async move {
                    for n in 0..count {
                        send.send(n).await?;
                    }
                    Ok(())
                });
                for n in 0..count {
                    assert_eq!(receive.receive().await?, n);
                }
                sender.join().await?;
            }
        }
        "timeout" => {
            while let Some(count) = meter.next_batch() {
                for n in 0..count {
                    assert_eq!(fail_after(LIMIT, async { Ok(n) }).await?, n);
                }
            }
        }
        "timers" => {
            for n in 0..tasks {
                nursery.start_soon(sleep(FAR + Duration::from_millis(n)));
            }
            checkpoint().await?;
            while let Some(count) = meter.next_batch() {
                for n in 0..count {
                    let later = async {
                        checkpoint().await?;
                        Ok(n)
                    };
                    assert_eq!(fail_after(LIMIT, later).await?, n);
                }
            }
        }
        "nested" => {
            while let Some(count) = meter.next_batch() {
                nested(orders.number("depth", 1), count).await?;
            }
        }
        case => orders.refuse(&format!("which has no case `{case}`")),
    }
    meter.finish();
    Ok(())
}

/// Wakes a task `count` times that is `depth` nurseries down, and is the only one that is ready.
async fn nested(depth: usize, count: u64) -> Result<()> {
    if depth == 0 {
        for _ in 0..count {
            checkpoint().await?;
        }
        return Ok(());
    }
    open_nursery(async |nursery| {
        nursery.start_soon(Box::pin(nested(depth - 1, count)));
        Ok(())
    })
    .await
}

const LIMIT: Duration = Duration::from_secs(10);
const FAR: Duration = Duration::from_secs(3600);
