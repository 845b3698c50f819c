//! Starting a child that has nothing to wait for, and waiting until it has ended.

use std::cell::Cell;

use trio::open_nursery;

use crate::support::{Row, Sample, Scale, Stopwatch, run};

/// Children of one nursery, where many are started before one is waited for.
pub(crate) const CHILDREN: u32 = 1000;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("spawn + join, 1000 in one nursery", in_one_nursery).aim(40.0),
        Row::new("spawn + join by handle, 1000 at once", by_handle_at_once).aim(40.0),
        Row::new(
            "spawn + join by handle, one at a time",
            by_handle_one_at_a_time,
        )
        .aim(40.0),
        Row::new("open a nursery with no child", without_child),
        Row::new("open a nursery with one child", with_one_child),
    ]
}

fn in_one_nursery(scale: Scale) -> Sample {
    let nurseries = scale.of(100);
    run(async {
        let ended = Cell::new(0);
        let watch = Stopwatch::start();
        for _ in 0..nurseries {
            open_nursery(async |nursery| {
                for _ in 0..CHILDREN {
                    nursery.start_soon(async {
                        ended.set(ended.get() + 1);
                        Ok(())
                    });
                }
                Ok(())
            })
            .await?;
        }
        let sample = watch.stop(nurseries * CHILDREN);
        assert_eq!(ended.get(), nurseries * CHILDREN, "every child has run");
        Ok(sample)
    })
}

fn by_handle_at_once(scale: Scale) -> Sample {
    let batches = scale.of(100);
    run(open_nursery(async |nursery| {
        let mut handles = Vec::with_capacity(CHILDREN as usize);
        let mut sum = 0_u64;
        let watch = Stopwatch::start();
        for _ in 0..batches {
            handles.extend((0..CHILDREN).map(|n| nursery.spawn(async move { Ok(u64::from(n)) })));
            for mut handle in handles.drain(..) {
                sum += handle.join().await?;
            }
        }
        let sample = watch.stop(batches * CHILDREN);
        let children = u64::from(CHILDREN);
        let expected = u64::from(batches) * children * (children - 1) / 2;
        assert_eq!(sum, expected, "every value has come");
        Ok(Some(sample))
    }))
    .expect("the nursery was not cancelled")
}

fn by_handle_one_at_a_time(scale: Scale) -> Sample {
    let count = scale.of(50_000);
    run(open_nursery(async |nursery| {
        let mut sum = 0;
        let watch = Stopwatch::start();
        for _ in 0..count {
            sum += nursery.spawn(async { Ok(1) }).join().await?;
        }
        let sample = watch.stop(count);
        assert_eq!(sum, count, "every value has come");
        Ok(Some(sample))
    }))
    .expect("the nursery was not cancelled")
}

fn without_child(scale: Scale) -> Sample {
    let count = scale.of(50_000);
    run(async {
        let mut sum = 0;
        let watch = Stopwatch::start();
        for _ in 0..count {
            sum += open_nursery(async |_| Ok(1)).await?;
        }
        let sample = watch.stop(count);
        assert_eq!(sum, count, "every body has run");
        Ok(sample)
    })
}

fn with_one_child(scale: Scale) -> Sample {
    let count = scale.of(20_000);
    run(async {
        let ended = Cell::new(0);
        let watch = Stopwatch::start();
        for _ in 0..count {
            open_nursery(async |nursery| {
                nursery.start_soon(async {
                    ended.set(ended.get() + 1);
                    Ok(())
                });
                Ok(())
            })
            .await?;
        }
        let sample = watch.stop(count);
        assert_eq!(ended.get(), count, "every child has run");
        Ok(sample)
    })
}
